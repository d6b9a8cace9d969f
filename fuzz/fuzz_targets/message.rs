//! Flash messages from stored text and from untrusted JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use session_manager::{
    Message,
    fuzzing::{message, stored_message},
    store::Value,
};
use session_manager_fuzz::{also_long, bounded};

fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for stored in [Value::Json(text), Value::Text(text)] {
        let Some(message) = bounded(text.len(), || message(stored)) else {
            continue;
        };
        let parts: Vec<String> = serde_json::from_str(text).unwrap();
        assert_eq!([&message.kind, &message.text], [&parts[0], &parts[1]]);
        let marked = parts.get(2).is_some_and(|mark| mark == "html");
        assert_eq!(message.is_trusted_html(), marked);
        comes_back(&message);
    }
    if let Ok(message) = serde_json::from_str::<Message>(text) {
        assert!(!message.is_trusted_html());
        comes_back(&message);
    }
    let (kind, rest) = text.split_at(text.floor_char_boundary(text.len() / 4));
    comes_back(&Message::new(kind, rest));
    comes_back(&Message::trusted_html(kind, rest));
}

fn comes_back(what: &Message) {
    let stored = stored_message(what).unwrap();
    assert_eq!(message(stored.borrowed()).as_ref(), Some(what));
    let html = what.to_html();
    if what.is_trusted_html() {
        assert_eq!(html, what.text);
    } else {
        assert!(!html.contains(['<', '>', '"', '\'']));
    }
}

fuzz_target!(|data: &[u8]| also_long(data, check));
