//! Finds the session cookie in `Cookie` headers, one per line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use session_manager::fuzzing::find;
use session_manager_fuzz::{also_long, bounded};

const NAME: &str = "_session";

/// A simple reference implementation of [`find`].
fn naive(headers: &[&[u8]]) -> Result<Option<Vec<u8>>, ()> {
    let mut found = Vec::new();
    for header in headers {
        for pair in header.split(|byte| *byte == b';') {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let (name, value) = (halves.next().unwrap(), halves.next());
            if let (true, Some(value)) = (name.trim_ascii_start() == NAME.as_bytes(), value) {
                found.push(value.trim_ascii_end().to_vec());
            }
        }
    }
    found.dedup();
    match found.as_slice() {
        [] => Ok(None),
        [one] if (1..=4096).contains(&one.len()) && String::from_utf8(one.clone()).is_ok() => {
            Ok(Some(one.clone()))
        }
        _ => Err(()),
    }
}

fuzz_target!(|data: &[u8]| {
    also_long(data, |data| {
        let headers: Vec<_> = data.split(|byte| *byte == b'\n').collect();
        let found = bounded(0, || find(NAME, &headers));
        let found = found.map(|value| value.map(|value| value.as_bytes().to_vec()));
        assert_eq!(found.map_err(|_| ()), naive(&headers));
    });
});
