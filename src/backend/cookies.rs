//! What both cookie engines do alike: the form in which a cookie holds a session.
//!
//! ```text
//! cookie   = base64url(version, sealed(body))
//! body     = created, lifetime, lengths of each entry, text of all entries
//! created  = milliseconds since 1970
//! lifetime = milliseconds * 2, or from 16 seconds on seconds * 2 + 1
//! lengths  = length of the key, length of the value * 2 + (1 if it is JSON)
//! ```
//!
//! Numbers are LEB128. The lengths end where they add up to what is left, which is so at one place
//! alone: with each of them what they add up to grows, and what is left shrinks. All of it is
//! authenticated, together with the name of the cookie.
//!
//! Version 1, which is still read, had times of 6 and 5 bytes (big-endian, milliseconds), a count
//! before the lengths, and a signature twice as long.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};

use crate::{
    Backend, BackendFuture, Commit, Entries, Error, Opened, Opening, Record, Refused, Reply,
    Settings, Size, Timestamp, Value, View, cookie::LIMIT, log::log,
};

const VERSION: u8 = 2;

/// Signs or encrypts what a cookie holds.
///
/// The buffer begins with the cookie's name and a byte that no name has; what the cookie holds, its
/// version first, begins at `start`.
pub(crate) trait Seal: Send + Sync + 'static {
    /// What a person would call the engine.
    const ENGINE: &'static str;
    /// How many bytes stand between the version and the body.
    const BEFORE: usize;
    /// How many bytes stand behind the body.
    const BEHIND: usize;

    /// Seals the body.
    fn seal(&self, buffer: &mut Vec<u8>, start: usize);

    /// Checks the buffer with every accepted key, and says where in it the body lies.
    fn unseal(&self, buffer: &mut [u8], start: usize) -> Result<Range<usize>, Refused>;
}

impl<S: Seal> Backend for S {
    fn engine(&self) -> &'static str {
        S::ENGINE
    }

    fn opens_at_once(&self) -> bool {
        true
    }

    fn open(
        self: Arc<Self>,
        request: Opening<'_>,
    ) -> BackendFuture<'static, Result<Opened, Error>> {
        let opened = if request.token.is_some() {
            Opened::Sealed
        } else {
            Opened::Nothing
        };
        BackendFuture::ready(Ok(opened))
    }

    fn unseal(&self, token: &str, settings: &Settings) -> Result<Record, Refused> {
        let (mut buffer, start) = begin(settings, token.len());
        let decoded = BASE64.decode_vec(token, &mut buffer);
        decoded.map_err(|_| Refused::Malformed)?;
        let version = *buffer.get(start).ok_or(Refused::Malformed)?;
        if !(1..=VERSION).contains(&version) {
            return Err(Refused::Version);
        }
        let body = Seal::unseal(self, &mut buffer, start)?;
        let record = decode(buffer, body, version).ok_or(Refused::Malformed)?;
        if settings
            .expiry()
            .is_over(record.created, record.expires, settings.now())
        {
            return Err(Refused::Expired);
        }
        Ok(record)
    }

    fn size(&self, session: View<'_>, settings: &Settings) -> Option<Size> {
        let body = measure(session);
        let used = if body == 0 {
            0
        } else {
            // A session lasts no longer than the absolute timeout.
            let times = CREATED_LEN + varint_len(lifetime(settings.expiry().absolute));
            let bytes = 1 + S::BEFORE + times + body + S::BEHIND;
            // Four characters for every three bytes, without padding.
            settings.cookie().size((bytes * 4).div_ceil(3))
        };
        Some(Size { used, limit: LIMIT })
    }

    fn commit(self: Arc<Self>, commit: Commit<'_>) -> BackendFuture<'static, Result<Reply, Error>> {
        let session = commit
            .changes
            .over(commit.stored.map(|stored| &stored.entries));
        if session.is_empty() {
            // An empty session is no cookie.
            let reply = if commit.token.is_some() {
                Reply::Remove
            } else {
                Reply::Keep
            };
            return BackendFuture::ready(Ok(reply));
        }
        let (created, expires) = (commit.created(), commit.expires());
        let (mut buffer, start) = begin(commit.settings, USUAL_LEN);
        buffer.push(VERSION);
        buffer.resize(start + 1 + S::BEFORE, 0);
        encode(session, created, expires, &mut buffer);
        self.seal(&mut buffer, start);
        let token = BASE64.encode(&buffer[start..]);
        // A write that makes the session larger was measured when it was made. A touch or a removal
        // was not, and a longer name, domain or lifetime may be set since the cookie was written.
        let size = commit.settings.cookie().size(token.len());
        BackendFuture::ready(if size <= LIMIT {
            Ok(Reply::Set { token, expires })
        } else if commit.changes.is_empty() {
            log_touch_too_large(commit.settings, size);
            Ok(Reply::Keep)
        } else {
            // The client keeps what it has: a browser would drop the new cookie, and with it the
            // session.
            Err(Error::TooLarge { size, limit: LIMIT })
        })
    }
}

/// Logs once per process that a session is not touched, because its cookie would be too large.
fn log_touch_too_large(settings: &Settings, size: usize) {
    static IS_SAID: AtomicBool = AtomicBool::new(false);
    if !IS_SAID.swap(true, Ordering::Relaxed) {
        log!(
            WARN,
            "a session fits into the cookie `{}` no longer: it would take {size} bytes, and {LIMIT} \
             are the limit. The client keeps the cookie that it has, whose time does not move. \
             Shorten the cookie's name, path or domain, or move to `ServerSide`",
            settings.cookie_name()
        );
    }
}

/// A buffer that begins with the name of the cookie, and where what the cookie holds will begin.
fn begin(settings: &Settings, capacity: usize) -> (Vec<u8>, usize) {
    let name = settings.cookie_name().as_bytes();
    let start = name.len() + 1;
    let mut buffer = Vec::with_capacity(start + capacity);
    buffer.extend(name);
    buffer.push(0);
    (buffer, start)
}

/// How long the moment is at which a session began: until the year 2109.
const CREATED_LEN: usize = 6;
/// More than most sessions take.
const USUAL_LEN: usize = 512;

/// How many bytes the lengths and the text take; 0 if there is no entry.
fn measure(session: View<'_>) -> usize {
    let bytes = |(key, value): (&str, Value<&str>)| {
        let (key, value) = (key.len(), value.as_str().len());
        let lengths = varint_len(key as u64) + varint_len((value as u64) << 1);
        lengths + key + value
    };
    session.iter().map(bytes).sum()
}

fn encode(session: View<'_>, created: Timestamp, expires: Timestamp, body: &mut Vec<u8>) {
    push_varint(body, created.millis());
    push_varint(body, lifetime(expires.since(created)));
    // The text waits in a place of its own, so that the session is gone through once.
    let mut text = Vec::with_capacity(USUAL_LEN);
    for (key, value) in session.iter() {
        let is_json = matches!(value, Value::Json(_));
        let value = value.as_str();
        push_varint(body, key.len() as u64);
        push_varint(body, (value.len() as u64) << 1 | u64::from(is_json));
        text.extend_from_slice(key.as_bytes());
        text.extend_from_slice(value.as_bytes());
    }
    body.append(&mut text);
}

/// A lifetime as a cookie has it: never longer than it is.
fn lifetime(span: Duration) -> u64 {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX) & (u64::MAX >> 1);
    if millis < 16_000 {
        millis << 1
    } else {
        ((millis / 1_000) << 1) | 1
    }
}

/// Reads the body, which is authentic; `None` only if another program made it with the same key.
fn decode(mut buffer: Vec<u8>, body: Range<usize>, version: u8) -> Option<Record> {
    let mut rest = buffer.get(body.clone())?;
    let old = version == 1;
    let (created, span) = if old {
        take_times_v1(&mut rest)?
    } else {
        let created = take_varint(&mut rest)?;
        let span = take_varint(&mut rest)?;
        let unit = if span & 1 == 1 { 1_000 } else { 1 };
        (created, (span >> 1).saturating_mul(unit))
    };
    let left = if old {
        Some(take_varint(&mut rest)?)
    } else {
        None
    };
    let lengths = rest;
    let (mut count, mut sum) = (0_u64, 0_usize);
    while left.map_or(sum < rest.len(), |left| count < left) {
        let (key, value, _) = take_lengths(&mut rest)?;
        sum = sum.checked_add(key)?.checked_add(value)?;
        count += 1;
    }
    // Read again where they lie, which takes less than keeping them.
    let mut lengths = &lengths[..lengths.len() - rest.len()];
    let slots = Entries::slots((0..count).map_while(|_| take_lengths(&mut lengths)));
    let text = body.end - rest.len();
    buffer.truncate(body.end);
    buffer.drain(..text);
    let entries = Entries::from_slots(String::from_utf8(buffer).ok()?, slots?)?;
    let created = Timestamp::from_millis(created);
    let expires = created.plus(Duration::from_millis(span));
    Some(Record::new(created, expires, entries))
}

/// The lengths of a key and its value, and whether that is JSON.
fn take_lengths(bytes: &mut &[u8]) -> Option<(usize, usize, bool)> {
    let key = usize::try_from(take_varint(bytes)?).ok()?;
    let value = take_varint(bytes)?;
    Some((key, usize::try_from(value >> 1).ok()?, value & 1 == 1))
}

fn take_times_v1(bytes: &mut &[u8]) -> Option<(u64, u64)> {
    let (times, rest) = bytes.split_at_checked(11)?;
    *bytes = rest;
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    Some((number(&times[..6]), number(&times[6..])))
}

fn varint_len(number: u64) -> usize {
    let bits = u64::BITS - (number | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn push_varint(buffer: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        buffer.push(number as u8 | 0x80);
        number >>= 7;
    }
    buffer.push(number as u8);
}

/// Reads a number of up to 64 bits.
fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Builder, Changes, Key, Manager, PrivateCookie, SignedCookie};

    fn body(entries: &[(&str, Value<&str>)]) -> Vec<u8> {
        let entries = entries.iter().copied().collect();
        let mut body = Vec::new();
        let (created, expires) = (Timestamp::from_millis(1_000), Timestamp::from_millis(5_000));
        encode(
            Changes::NONE.over(Some(&entries)),
            created,
            expires,
            &mut body,
        );
        body
    }

    fn read(body: &[u8]) -> Option<Record> {
        decode(body.to_vec(), 0..body.len(), VERSION)
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same_and_has_the_size_that_was_measured() {
        let long = "x".repeat(300);
        let entries = [
            ("", Value::Text("")),
            ("中", Value::Json("[\"文\"]")),
            ("long", Value::Text(long.as_str())),
            ("", Value::Text("")),
        ];
        for count in 1..=entries.len() {
            let entries = &entries[..count];
            let body = body(entries);
            let record = read(&body).unwrap();
            assert_eq!(record.created, Timestamp::from_millis(1_000));
            assert_eq!(record.expires, Timestamp::from_millis(5_000));
            let all = entries.iter().copied().collect();
            let measured = measure(Changes::NONE.over(Some(&all)));
            assert_eq!(body.len(), 2 + 2 + measured);
            assert_eq!(record.entries.iter().collect::<Vec<_>>(), entries);
        }
    }

    #[test]
    fn a_lifetime_is_kept_to_the_millisecond_when_short_and_to_the_second_when_long() {
        for (lasts, kept) in [
            (1, 1),
            (15_999, 15_999),
            (16_999, 16_000),
            (86_400_999, 86_400_000),
        ] {
            let mut body = Vec::new();
            let (created, lasts) = (Timestamp::from_millis(7), Duration::from_millis(lasts));
            let entries = [("a", Value::Text("b"))].into_iter().collect();
            let view = Changes::NONE.over(Some(&entries));
            encode(view, created, created.plus(lasts), &mut body);
            let record = read(&body).unwrap();
            assert_eq!(record.expires.since(created), Duration::from_millis(kept));
        }
    }

    #[test]
    fn a_body_that_is_cut_or_has_wrong_lengths_is_never_a_panic() {
        let body = body(&[("key", Value::Text("value")), ("中", Value::Json("1"))]);
        for end in 0..body.len() {
            let _ = read(&body[..end]);
        }
        for at in 0..body.len() {
            for byte in 0..=255 {
                let mut spoilt = body.clone();
                spoilt[at] = byte;
                let _ = read(&spoilt);
                let _ = decode(spoilt.clone(), 0..spoilt.len(), 1);
            }
        }
        assert!(read(&[&[0; 2][..], &[0xff; 20]].concat()).is_none());
    }

    #[test]
    fn numbers_of_every_length_come_back() {
        for bits in 0..64 {
            for number in [1_u64 << bits, (1 << bits) - 1, u64::MAX >> bits] {
                let mut bytes = Vec::new();
                push_varint(&mut bytes, number);
                assert_eq!(bytes.len(), varint_len(number), "{number}");
                assert_eq!(take_varint(&mut bytes.as_slice()), Some(number));
            }
        }
    }

    /// Cookies as the first version of this crate wrote them.
    #[test]
    fn a_cookie_of_version_1_opens_and_no_other_name_or_key_opens_it() {
        let key = || Key::from_secret([7; 32]).unwrap();
        let other = || Key::from_secret([8; 32]).unwrap();
        let now = || std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        type Engine = fn(Key) -> Builder;
        let engines: [(Engine, &str); 2] = [
            (
                |key| Manager::builder(SignedCookie::new(key)),
                "AQGjGFxQAAAFJlwAAgYLBAZzY29yZXNbMSwyXXVzZXJhZGFFPSMTBSOFIr-lVtAhlwVYuTjygn7jpsPKSRGrGwtZUg",
            ),
            (
                |key| Manager::builder(PrivateCookie::new(key)),
                "AazrNpzmECL0_57rLTsycsg5G_O_FX3FgBzrF9iAkqQQLlWNgqclJSY3RjHDGWX500ZQSAFliTiQMkHo_WZ_",
            ),
        ];
        for (engine, cookie) in engines {
            let open = |key, name| {
                let manager = engine(key).clock(now).cookie_name(name).build().unwrap();
                manager.backend().unseal(cookie, manager.settings())
            };
            let record = open(key(), "_session").unwrap();
            assert_eq!(record.created, Timestamp::from_millis(1_800_000_000_000));
            assert_eq!(
                record.expires.since(record.created),
                Duration::from_secs(24 * 60 * 60)
            );
            let entries: Vec<_> = record.entries.iter().collect();
            let expected = [
                ("scores", Value::Json("[1,2]")),
                ("user", Value::Text("ada")),
            ];
            assert_eq!(entries, expected);
            assert_eq!(open(key(), "other").unwrap_err(), Refused::Forged);
            assert_eq!(open(other(), "_session").unwrap_err(), Refused::Forged);
        }
    }
}
