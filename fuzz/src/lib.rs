//! Shared code of the fuzz targets: limits on the cost of an input, and a second implementation of
//! this crate's cookies, written from their documentation.

use aes_gcm_siv::{AeadInOut, Aes128GcmSiv, KeyInit, Nonce};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use hmac::{Hmac, Mac};
use session_manager::store::Value;
use sha2::{Digest, Sha256};
use stats_alloc::{Region, StatsAlloc};
use std::{alloc::System, time::Duration};

#[global_allocator]
static ALLOCATOR: StatsAlloc<System> = StatsAlloc::system();

/// Runs `f` and checks that it allocates at most 4,096 + 128 * `len` bytes.
pub fn bounded<R>(len: usize, f: impl FnOnce() -> R) -> R {
    let region = Region::new(&ALLOCATOR);
    let result = f();
    let used = region.change().bytes_allocated;
    assert!(used <= 4_096 + 128 * len, "{used} bytes for {len}");
    result
}

/// Runs `check` on `data`, and for one input in 1,024 also on many repetitions of it, so that
/// quadratic time exceeds the limit. It measures processor time, because other processes may run.
pub fn also_long(data: &[u8], check: impl Fn(&[u8])) {
    const LONG: usize = 1 << 17;
    check(data);
    let hash = data.iter().fold(7_u32, |hash, byte| {
        hash.wrapping_mul(16_777_619) ^ u32::from(*byte)
    });
    if hash >> 22 == 0 && !data.is_empty() {
        let begun = processor_time();
        check(&data.repeat(LONG / data.len() + 1));
        let took = processor_time().saturating_sub(begun);
        assert!(took < Duration::from_secs(2), "{took:?} for {LONG} bytes");
    }
}

/// Returns the processor time of this thread; zero where it is not known (outside Linux).
fn processor_time() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = told.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

pub type Entry = (Box<str>, Value);

/// Builds entries from a fuzzer's input; keys may repeat.
pub fn entries(data: &[u8]) -> Vec<Entry> {
    type Parts = (Box<str>, bool, Box<str>);
    let made: Result<Vec<Parts>, _> = arbitrary::Unstructured::new(data).arbitrary();
    let value = |is_json, text| {
        if is_json {
            Value::Json(text)
        } else {
            Value::Text(text)
        }
    };
    made.unwrap_or_default()
        .into_iter()
        .map(|(key, is_json, text)| (key, value(is_json, text)))
        .collect()
}

/// Builds the body of a cookie that starts at the epoch and lasts `seconds`.
pub fn body(entries: &[Entry], seconds: u64) -> Vec<u8> {
    fn push(body: &mut Vec<u8>, mut number: u64) {
        while number >= 0x80 {
            body.push(number as u8 | 0x80);
            number >>= 7;
        }
        body.push(number as u8);
    }
    let mut body = Vec::new();
    push(&mut body, 0);
    push(&mut body, seconds * 2 + 1);
    body.extend([7; 6]);
    let mut number = |number: u64| push(&mut body, number);
    for (key, value) in entries {
        number(key.len() as u64);
        let is_json = matches!(value, Value::Json(_));
        number(value.as_str().len() as u64 * 2 + u64::from(is_json));
    }
    for (key, value) in entries {
        body.extend(key.as_bytes());
        body.extend(value.as_str().as_bytes());
    }
    body
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn derive(secret: &[u8], purpose: &str) -> [u8; 32] {
    let extracted = hmac(b"session-manager", &[secret]);
    hmac(&extracted, &[purpose.as_bytes(), &[1]])
}

/// Builds a signed cookie with the secret.
pub fn signed(secret: &[u8], name: &str, version: u8, body: &[u8]) -> String {
    let tag = hmac(
        &derive(secret, "signed cookie"),
        &[name.as_bytes(), &[0, version], body],
    );
    BASE64.encode([&[version], body, &tag[..16]].concat())
}

/// Builds a private cookie with the secret.
pub fn private(secret: &[u8], name: &str, version: u8, body: &[u8]) -> String {
    let nonce = Nonce::from([7; 12]);
    let mut sealed = body.to_vec();
    let buffer = sealed.as_mut_slice().into();
    let key = derive(secret, "private cookie");
    let cipher = Aes128GcmSiv::new_from_slice(&key[..16]).unwrap();
    let associated = [name.as_bytes(), &[0, version]].concat();
    let tag = cipher.encrypt_inout_detached(&nonce, &associated, buffer);
    BASE64.encode([&[version], &nonce[..], &sealed, &tag.unwrap()].concat())
}

/// The id of a server-side session, in both cookie forms and as its store sees it.
#[derive(Debug)]
pub struct ServerSideId {
    pub unsigned: String,
    pub signed: String,
    pub stored: [u8; 32],
    pub verifier: [u8; 32],
}

/// Builds the id of a server-side session with the secret.
pub fn server_side_id(secret: &[u8], name: &str, id: &[u8; 48]) -> ServerSideId {
    let unsigned = BASE64.encode(id);
    let tag = hmac(
        &derive(secret, "server-side id"),
        &[name.as_bytes(), &[0], id],
    );
    let signed = unsigned.clone() + &BASE64.encode(&tag[..16]);
    let mut stored: [u8; 32] = Sha256::digest(&id[..16]).into();
    for (byte, of_name) in stored.iter_mut().zip(Sha256::digest(name)) {
        *byte ^= of_name;
    }
    ServerSideId {
        unsigned,
        signed,
        stored,
        verifier: Sha256::digest(&id[16..]).into(),
    }
}
