//! Measures the memory store with a thousand and a million sessions: bytes per session and time per
//! operation.
//!
//! ```sh
//! cargo bench --bench memory_store --features memory
//! ```
#![allow(clippy::unwrap_used, reason = "a bench stops at the first error")]

use std::{
    fs,
    pin::pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use session_manager::{
    MemoryStore, Store, Timestamp,
    store::{Applied, StoreId, Value, Verifier, Write},
};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const ROUNDS: u64 = 200_000;

/// Returns an id. A multiplication spreads ids well enough for a map, as SHA-256 does.
fn id(number: u64) -> StoreId {
    let mut bytes = [0; 32];
    for (part, chunk) in bytes.chunks_exact_mut(8).enumerate() {
        let mixed = (number + 1)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(part as u32 * 17);
        chunk.copy_from_slice(&mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93).to_be_bytes());
    }
    StoreId::from_bytes(bytes)
}

fn write(set: &[(&str, &str)]) -> Write {
    let verifier = Verifier::from_bytes([7; 32]);
    let mut write = Write::touch(verifier, NOW, NOW, NOW.plus(Duration::from_secs(3600)));
    write.set = set
        .iter()
        .map(|(key, text)| ((*key).into(), Value::Text((*text).into())))
        .collect();
    write
}

/// Returns the output of a future of the memory store, which is always ready.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a future of the memory store was not ready"),
    }
}

/// Returns the resident memory of this process in bytes.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap_or(0)
        * 4096
}

fn time(rounds: u64, mut step: impl FnMut(u64)) -> f64 {
    let begun = Instant::now();
    (0..rounds).for_each(&mut step);
    begun.elapsed().as_nanos() as f64 / rounds as f64
}

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let (sizes, rounds) = if is_test {
        ([10, 100], 100)
    } else {
        ([1_000, 1_000_000], ROUNDS)
    };
    let three = [
        ("user_id", "0123456789abcdef"),
        ("name", "Ada Lovelace"),
        ("theme", "dark"),
    ];
    let (three, one) = (write(&three), write(&[("theme", "light")]));

    println!(
        "| sessions of three keys | bytes for each | open, ns | write one key, ns |\n|---|---|---|---|"
    );
    for sessions in sizes {
        let store = MemoryStore::with_capacity(2 * sessions).max_bytes(4 << 30);
        let before = resident();
        for number in 0..sessions as u64 {
            assert!(now(store.create(id(number), &three)).unwrap());
        }
        let bytes = resident().saturating_sub(before) / sessions as u64;
        assert_eq!(store.len(), sessions);
        // Steps of a prime number, so that consecutive visits are not adjacent in memory.
        let visit = |round: u64| id(round * 7_919 % sessions as u64);
        let open = time(rounds, |round| {
            let record = now(store.load(visit(round), NOW)).unwrap().unwrap();
            assert_eq!(record.entries.len(), 3);
        });
        let change = time(rounds, |round| {
            assert_eq!(now(store.apply(visit(round), &one)).unwrap(), Applied::Done);
        });
        println!("| {sessions} | {bytes} | {open:.0} | {change:.0} |");
    }

    println!(
        "\n| keys in the session | open, ns | read one key, ns | write one key, ns |\n|---|---|---|---|"
    );
    for keys in [10, 100, 1_000] {
        let store = MemoryStore::new();
        let all: Vec<_> = (0..keys).map(|key| format!("key{key}")).collect();
        let all: Vec<_> = all.iter().map(|key| (key.as_str(), "value")).collect();
        assert!(now(store.create(id(0), &write(&all))).unwrap());
        let open = time(rounds, |_| {
            assert!(now(store.load(id(0), NOW)).unwrap().is_some())
        });
        let record = now(store.load(id(0), NOW)).unwrap().unwrap();
        let read = time(rounds, |_| assert!(record.entries.get("key7").is_some()));
        let one = write(&[("key7", "other")]);
        // While a request has the session open, as in a server.
        let change = time(rounds, |_| {
            let _open = now(store.load(id(0), NOW)).unwrap();
            assert_eq!(now(store.apply(id(0), &one)).unwrap(), Applied::Done);
        });
        println!("| {keys} | {open:.0} | {read:.0} | {change:.0} |");
    }
}
