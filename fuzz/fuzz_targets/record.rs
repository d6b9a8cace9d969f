//! Stored records: the JSON object in a database row, and a Redis hash, with fields and values on
//! alternating lines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use session_manager::{
    fuzzing::{redis_record, sql_entries, sql_object},
    store::{Entries, Value},
};
use session_manager_fuzz::{Entry, also_long, bounded, entries};

fn parts(entries: &Entries) -> Vec<Entry> {
    let entries = entries.iter();
    entries
        .map(|(key, value)| (key.into(), value.into_owned()))
        .collect()
}

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Builds a hash in the format of the Redis scripts.
fn fields(entries: &[Entry]) -> Fields {
    let field = |field: &str, value: String| (field.as_bytes().to_vec(), value.into_bytes());
    let verifier = "A".repeat(43);
    let generation = &verifier[..11];
    let own = [
        field("meta", format!("{verifier} 3")),
        field("head", "4 1 - 0123456789abcdef".into()),
        field(&format!("e{generation}"), "3 2".into()),
    ];
    let values = entries.iter().map(|(key, value)| {
        let value = match value {
            Value::Text(text) => format!("t{text}"),
            Value::Json(text) => format!("j{text}"),
        };
        field(&format!("{generation}{key}"), value)
    });
    own.into_iter().chain(values).collect()
}

fn come_back(entries: &[Entry]) {
    assert_eq!(parts(&sql_entries(&sql_object(entries)).unwrap()), entries);
    let record = redis_record(&fields(entries)).unwrap();
    assert_eq!(parts(&record.entries), entries);
    let numbers = [record.created, record.last_seen, record.expires].map(|time| time.millis());
    assert_eq!((numbers, record.version), ([1, 2, 3], 4));
}

fn check(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(entries) = bounded(data.len(), || sql_entries(text))
    {
        come_back(&parts(&entries));
    }
    let lines: Vec<_> = data
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    let pairs = lines.chunks_exact(2);
    let hash: Fields = pairs
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect();
    if let Some(record) = bounded(data.len(), || redis_record(&hash)) {
        come_back(&parts(&record.entries));
    }
    come_back(&entries(data));
}

fuzz_target!(|data: &[u8]| also_long(data, check));
