//! The cookies of actix-session: arbitrary ones, and those that actix-session made, which reach the
//! parsers of both forms of the state. The first bytes of an input choose a signed or private
//! cookie and the byte that an attacker changes.
#![no_main]

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::UNIX_EPOCH,
};

use cookie::{Cookie, CookieJar, Key};
use libfuzzer_sys::fuzz_target;
use serde_json::Value as Json;
use session_manager::{
    ActixSessionCookie, Backend, Manager, backend::Refused, fuzzing, store::Record,
};
use session_manager_fuzz::{also_long, bounded, entries};

const SECRET: [u8; 64] = [7; 64];
/// A secret that never creates a cookie, as in the target `cookies`.
const UNUSED: [u8; 64] = [9; 64];
const NAME: &str = "id";

struct Backends {
    signed: [Arc<dyn Backend>; 2],
    private: [Arc<dyn Backend>; 2],
    manager: Manager,
}

static BACKENDS: LazyLock<Backends> = LazyLock::new(|| {
    let keys = [SECRET, UNUSED].map(|secret| Key::from(&secret));
    let (signed, private) = (ActixSessionCookie::signed, ActixSessionCookie::private);
    Backends {
        signed: keys
            .clone()
            .map(|key| Arc::new(signed(key)) as Arc<dyn Backend>),
        private: keys.map(|key| Arc::new(private(key)) as Arc<dyn Backend>),
        manager: Manager::builder(ActixSessionCookie::signed(Key::from(&SECRET)))
            .cookie_name(NAME)
            .clock(|| UNIX_EPOCH)
            .build()
            .unwrap(),
    }
});

/// Returns the cookie's value as actix-session sends it.
fn make(is_private: bool, state: &str) -> String {
    let (mut jar, key) = (CookieJar::new(), Key::from(&SECRET));
    let cookie = Cookie::new(NAME, state.to_owned());
    match is_private {
        true => jar.private_mut(&key).add(cookie),
        false => jar.signed_mut(&key).add(cookie),
    }
    let cookie = jar.get(NAME).unwrap().encoded().to_string();
    cookie.split_once('=').unwrap().1.to_owned()
}

/// Reads the values of a state, as a simple reference implementation; `None` if neither form
/// matches.
fn naive(state: &str) -> Option<BTreeMap<String, Json>> {
    let state: Json = serde_json::from_str(state).ok()?;
    let object = state.as_object()?;
    if let (Some(Json::Number(version)), Some(Json::Object(state))) =
        (object.get("v"), object.get("state"))
    {
        let is_first = version.as_u64() == Some(1);
        return is_first.then(|| state.clone().into_iter().collect());
    }
    let value = |(key, value): (&String, &Json)| {
        let text = value.as_str()?;
        // actix-session writes JSON; anything else is read as plain text.
        Some((
            key.clone(),
            serde_json::from_str(text).unwrap_or_else(|_| text.into()),
        ))
    };
    object.iter().map(value).collect()
}

fn values(record: &Record) -> BTreeMap<String, Json> {
    let value = |value: session_manager::store::Value<&str>| match value {
        session_manager::store::Value::Text(text) => text.into(),
        session_manager::store::Value::Json(json) => {
            serde_json::from_str(json).unwrap_or_else(|_| json.into())
        }
    };
    let entries = record.entries.iter();
    entries
        .map(|(key, stored)| (key.to_owned(), value(stored)))
        .collect()
}

fn check(data: &[u8]) {
    let Some(([mode, at, at_2, other], rest)) = data.split_first_chunk() else {
        return;
    };
    let Ok(text) = str::from_utf8(rest) else {
        return;
    };
    let backends = &*BACKENDS;
    let is_private = mode & 1 == 1;
    let [[backend, unused], [another, _]] = match is_private {
        true => [&backends.private, &backends.signed],
        false => [&backends.signed, &backends.private],
    };
    let settings = backends.manager.settings();
    let open =
        |backend, token: &str| bounded(4 * token.len(), || fuzzing::open(backend, token, settings));

    // An arbitrary cookie.
    assert!(open(unused, text).is_err(), "it was not sealed");

    // An authentic cookie with an arbitrary state.
    let token = make(is_private, text);
    match (open(backend, &token), naive(text)) {
        (Ok(record), Some(expected)) => assert_eq!(values(&record), expected, "{text}"),
        // Numbers that are copied without parsing may be too large for `serde_json`.
        (Ok(_), None) => assert!(serde_json::from_str::<Json>(text).is_err(), "{text}"),
        (Err(why), _) => assert!(
            matches!(why, Refused::Malformed | Refused::Version),
            "{why}"
        ),
    }
    assert!(open(another, &token).is_err());

    // An authentic cookie with one byte changed.
    let mut changed = token.clone().into_bytes();
    let at = usize::from(u16::from_le_bytes([*at, *at_2])) % changed.len();
    changed[at] = *other;
    if let Ok(changed) = String::from_utf8(changed)
        && percent_decoded(&changed) != percent_decoded(&token)
        && let Ok(record) = open(backend, &changed)
    {
        panic!("one letter was changed: {record:?}");
    }

    // The states that both versions of actix-session write open with the same values.
    let made: BTreeMap<String, Json> = entries(rest)
        .into_iter()
        .map(|(key, value)| (key.into(), value.as_str().into()))
        .collect();
    let strings: BTreeMap<_, _> = made
        .iter()
        .map(|(key, value)| (key, value.to_string()))
        .collect();
    for state in [
        serde_json::json!(strings),
        serde_json::json!({ "v": 1, "state": made }),
    ] {
        let record = open(backend, &make(is_private, &state.to_string())).unwrap();
        assert_eq!(values(&record), made);
    }
}

/// Decodes a cookie's value, which can be encoded in more than one way.
fn percent_decoded(value: &str) -> Vec<u8> {
    let cookie = Cookie::parse_encoded(format!("{NAME}={value}"));
    cookie.map_or_else(
        |_| value.into(),
        |cookie| cookie.value().as_bytes().to_vec(),
    )
}

fuzz_target!(|data: &[u8]| also_long(data, check));
