//! Records for tests that call a store directly.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, UNIX_EPOCH},
};

use session_manager::{
    Timestamp,
    store::{StoreId, Value, Verifier, Write},
};

pub const HOUR: Duration = Duration::from_secs(3600);
/// The verifier of every record that [`write`] creates.
pub const FIRST: Verifier = Verifier::from_bytes([1; 32]);
/// The verifier after a renewal.
pub const SECOND: Verifier = Verifier::from_bytes([2; 32]);

/// The time by the system's clock: some stores delete by it.
pub fn now() -> Timestamp {
    let since = UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_millis(since.as_millis().try_into().unwrap())
}

/// A number that no other call in this process, or in another that runs now, returns.
pub fn unique() -> u64 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    u64::from(std::process::id()) << 24 | u64::from(next)
}

/// An id that no other test uses, even on a store that outlives this run.
pub fn new_id() -> StoreId {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&unique().to_be_bytes());
    let nanos = UNIX_EPOCH.elapsed().unwrap().as_nanos();
    bytes[8..24].copy_from_slice(&nanos.to_be_bytes());
    StoreId::from_bytes(bytes)
}

/// A write under [`FIRST`] that expires in an hour, and sets each key to a text.
pub fn write(set: &[(&str, &str)]) -> Write {
    let now = now();
    let mut write = Write::touch(FIRST, now, now, now.plus(HOUR));
    let text = |(key, value): &(&str, &str)| ((*key).into(), Value::Text((*value).into()));
    write.set = set.iter().map(text).collect();
    write
}

/// A write that also says whose session it is.
pub fn write_of(user: &str) -> Write {
    let mut write = write(&[("key", "value")]);
    write.user = Some(user.into());
    write
}

/// A write that also replaces the verifier by [`SECOND`].
pub fn renewal(set: &[(&str, &str)]) -> Write {
    let mut write = write(set);
    write.new_verifier = Some(SECOND);
    write
}
