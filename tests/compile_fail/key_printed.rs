//! A key prints as nothing, so it has no `Display`.

use session_manager::Key;

fn main() {
    println!("{}", Key::generate());
}
