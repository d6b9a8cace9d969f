//! A key from an arbitrary secret: an error if it is too short, otherwise the documented key, which
//! depends on every byte.
#![no_main]

use std::{sync::Arc, time::UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;
use session_manager::{Backend, Key, Manager, SignedCookie, fuzzing, store::Value};
use session_manager_fuzz::{body, bounded, signed};

fuzz_target!(|data: &[u8]| {
    let key = match bounded(data.len(), || Key::from_secret(data)) {
        Err(error) => {
            assert!(data.len() < Key::MIN_LEN);
            assert!(error.to_string().contains(&format!("{} bytes", data.len())));
            return;
        }
        Ok(key) => key,
    };
    assert!(data.len() >= Key::MIN_LEN);
    assert_eq!(format!("{key:?}"), "Key(..)");
    let manager = Manager::builder(SignedCookie::new(key.clone()))
        .clock(|| UNIX_EPOCH)
        .build()
        .unwrap();
    let body = body(&[("a".into(), Value::Text("b".into()))], 60);
    let opens = |secret: &[u8]| {
        let token = signed(secret, "_session", 1, &body);
        let backend: Arc<dyn Backend> = Arc::new(SignedCookie::new(key.clone()));
        fuzzing::open(&backend, &token, manager.settings()).is_ok()
    };
    assert!(opens(data));
    let mut other = data.to_vec();
    other[usize::from(data[0]) % data.len()] ^= 1;
    assert!(!opens(&other));
    assert!(!opens(&data[1..]));
});
