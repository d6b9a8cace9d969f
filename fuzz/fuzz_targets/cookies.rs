//! Both cookie backends: arbitrary cookies, and authentic ones, which reach the parser of the body.
//! The first bytes of an input choose the backend, the version and the byte that an attacker
//! changes.
#![no_main]

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, UNIX_EPOCH},
};

use libfuzzer_sys::fuzz_target;
use session_manager::{
    Backend, Key, Manager, PrivateCookie, SignedCookie, backend::Refused, fuzzing, store::Record,
};
use session_manager_fuzz::{also_long, body, bounded, entries, private, signed};

const SECRET: [u8; 32] = [7; 32];
/// A secret that never creates a cookie. The fuzzer sees comparisons, so with [`SECRET`] it would
/// in time forge a cookie, which an attacker without the key cannot.
const UNUSED: [u8; 32] = [9; 32];
const NAME: &str = "_session";

struct Backends {
    signed: Arc<dyn Backend>,
    private: Arc<dyn Backend>,
    unused_signed: Arc<dyn Backend>,
    unused_private: Arc<dyn Backend>,
    manager: Manager,
    elsewhere: Manager,
}

static BACKENDS: LazyLock<Backends> = LazyLock::new(|| {
    let key = || Key::from_secret(SECRET).unwrap();
    let unused = || Key::from_secret(UNUSED).unwrap();
    let manager = |name| {
        Manager::builder(SignedCookie::new(key()))
            .cookie_name(name)
            .absolute_timeout(Duration::MAX)
            .clock(|| UNIX_EPOCH)
            .build()
            .unwrap()
    };
    Backends {
        signed: Arc::new(SignedCookie::new(key())),
        private: Arc::new(PrivateCookie::new(key())),
        unused_signed: Arc::new(SignedCookie::new(unused())),
        unused_private: Arc::new(PrivateCookie::new(unused())),
        manager: manager(NAME),
        elsewhere: manager("elsewhere"),
    }
});

fn parts(record: &Record) -> Vec<session_manager_fuzz::Entry> {
    let entries = record.entries.iter();
    entries
        .map(|(key, value)| (key.into(), value.into_owned()))
        .collect()
}

fn check(data: &[u8]) {
    let Some(([mode, at, at_2, other], rest)) = data.split_first_chunk() else {
        return;
    };
    let backends = &*BACKENDS;
    type Making = fn(&[u8], &str, u8, &[u8]) -> String;
    let [backend, unused, another]: [&Arc<dyn Backend>; 3] = match mode & 1 {
        0 => [&backends.signed, &backends.unused_signed, &backends.private],
        _ => [
            &backends.private,
            &backends.unused_private,
            &backends.signed,
        ],
    };
    let make: Making = if mode & 1 == 0 { signed } else { private };
    let version = 1 + (mode >> 1 & 1);
    let open_with = |backend: &Arc<dyn Backend>, token: &str| {
        bounded(token.len(), || {
            fuzzing::open(backend, token, backends.manager.settings())
        })
    };
    let open = |token: &str| open_with(backend, token);

    // An arbitrary cookie.
    if let Ok(text) = std::str::from_utf8(rest) {
        assert!(open_with(unused, text).is_err(), "it was not sealed");
    }

    // An authentic cookie with an arbitrary body.
    let token = make(&SECRET, NAME, version, rest);
    match open(&token) {
        Ok(record) => {
            let entries = parts(&record);
            assert_eq!(version, 1);
            let again = open(&make(&SECRET, NAME, 1, &body(&entries, 9)));
            // A session without values is not kept.
            if !entries.is_empty() {
                assert_eq!(parts(&again.unwrap()), entries);
            }
        }
        Err(why) => assert!(
            matches!(why, Refused::Malformed | Refused::Expired)
                || why == Refused::Version && version == 2,
            "{why}"
        ),
    }

    // An authentic cookie with one byte, the name, the backend or the key changed.
    let mut changed = token.clone().into_bytes();
    let at = usize::from(u16::from_le_bytes([*at, *at_2])) % changed.len();
    changed[at] = *other;
    if let Ok(changed) = String::from_utf8(changed)
        && changed != token
    {
        assert!(open(&changed).is_err(), "one letter was changed");
    }
    let (manager, elsewhere) = (&backends.manager, &backends.elsewhere);
    assert!(fuzzing::open(backend, &token, elsewhere.settings()).is_err());
    assert!(fuzzing::open(another, &token, manager.settings()).is_err());
    assert!(open(&make(&[8; 32], NAME, version, rest)).is_err());

    // A cookie written by another program with the key.
    let entries = entries(rest);
    if !entries.is_empty() {
        let record = open(&make(&SECRET, NAME, 1, &body(&entries, 9))).unwrap();
        assert_eq!(parts(&record), entries);
        assert_eq!(record.expires.millis(), 9_000);
    }
}

fuzz_target!(|data: &[u8]| also_long(data, check));
