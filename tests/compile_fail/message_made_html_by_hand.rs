//! Only `Message::trusted_html` makes a message HTML.

use session_manager::Message;

fn main() {
    let _ = Message { text: "<b>".into(), kind: "info".into(), html: true };
}
