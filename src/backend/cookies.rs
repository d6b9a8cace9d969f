//! What both cookie engines do alike: the form in which a cookie holds a session.
//!
//! ```text
//! cookie  = base64url(version, sealed(body))
//! body    = created: 6 bytes, lifetime: 5 bytes, count, lengths of each entry, text of all entries
//! lengths = length of the key, length of the value * 2 + (1 if it is JSON)
//! ```
//!
//! Times are milliseconds, big-endian; `count` and lengths are LEB128. All of it is authenticated,
//! together with the name of the cookie.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};

use crate::{
    Backend, BackendFuture, Commit, Entries, Error, Opened, Opening, Record, Refused, Reply,
    Settings, Size, Timestamp, Value, View, cookie::LIMIT,
};

const TIMES: usize = 11;
const MAX_LIFETIME: u64 = (1 << 40) - 1;

/// Signs or encrypts what a cookie holds.
pub(crate) trait Seal: Send + Sync + 'static {
    /// What a person would call the engine.
    const ENGINE: &'static str;
    /// The version of the format, the first byte of every cookie.
    const VERSION: u8;
    /// How many bytes stand before the body, the version among them.
    const BEFORE: usize;
    /// How many bytes stand behind it.
    const BEHIND: usize;

    /// Seals the body, which begins at [`BEFORE`](Self::BEFORE), for a cookie of this name.
    fn seal(&self, name: &str, buffer: &mut Vec<u8>);

    /// Checks `sealed` with every accepted key and leaves the body at [`BEFORE`](Self::BEFORE).
    fn unseal(&self, name: &str, sealed: &mut [u8]) -> Result<(), Refused>;
}

impl<S: Seal> Backend for S {
    fn engine(&self) -> &'static str {
        S::ENGINE
    }

    fn open<'a>(&'a self, request: Opening<'_>) -> BackendFuture<'a, Result<Opened, Error>> {
        let opened = if request.token.is_some() {
            Opened::Sealed
        } else {
            Opened::Nothing
        };
        BackendFuture::ready(Ok(opened))
    }

    fn unseal(&self, token: &str, settings: &Settings) -> Result<Record, Refused> {
        let mut sealed = BASE64.decode(token).map_err(|_| Refused::Malformed)?;
        if sealed.first() != Some(&S::VERSION) {
            return Err(if sealed.is_empty() {
                Refused::Malformed
            } else {
                Refused::Version
            });
        }
        if sealed.len() < S::BEFORE + TIMES + S::BEHIND {
            return Err(Refused::Malformed);
        }
        Seal::unseal(self, settings.cookie_name(), &mut sealed)?;
        let body = &sealed[S::BEFORE..sealed.len() - S::BEHIND];
        let record = decode(body).ok_or(Refused::Malformed)?;
        if settings
            .expiry()
            .is_over(record.created, record.expires, settings.now())
        {
            return Err(Refused::Expired);
        }
        Ok(record)
    }

    fn size(&self, session: View<'_>, settings: &Settings) -> Option<Size> {
        if session.is_empty() {
            return Some(Size {
                used: 0,
                limit: LIMIT,
            });
        }
        let (index, text) = measure(session);
        let bytes = S::BEFORE + TIMES + index + text + S::BEHIND;
        // Four characters for every three bytes, without padding.
        Some(Size {
            used: settings.cookie().size((bytes * 4).div_ceil(3)),
            limit: LIMIT,
        })
    }

    fn commit<'a>(&'a self, commit: Commit<'_>) -> BackendFuture<'a, Result<Reply, Error>> {
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
        let (index, text) = measure(session);
        let mut buffer = Vec::with_capacity(S::BEFORE + TIMES + index + text + S::BEHIND);
        buffer.resize(S::BEFORE, 0);
        buffer[0] = S::VERSION;
        encode(session, created, expires, &mut buffer);
        self.seal(commit.settings.cookie_name(), &mut buffer);
        BackendFuture::ready(Ok(Reply::Set {
            token: BASE64.encode(buffer),
            expires,
        }))
    }
}

/// How many bytes the count and the lengths take, and how many the text.
fn measure(session: View<'_>) -> (usize, usize) {
    let (mut count, mut index, mut text) = (0, 0, 0);
    for (key, value) in session.iter() {
        let (key, value) = (key.len(), value.as_str().len());
        count += 1;
        index += varint_len(key) + varint_len(value << 1);
        text += key + value;
    }
    (varint_len(count) + index, text)
}

fn encode(session: View<'_>, created: Timestamp, expires: Timestamp, body: &mut Vec<u8>) {
    let lifetime = u64::try_from(expires.since(created).as_millis()).unwrap_or(u64::MAX);
    body.extend(&created.millis().to_be_bytes()[2..]);
    body.extend(&lifetime.min(MAX_LIFETIME).to_be_bytes()[3..]);
    push_varint(body, session.iter().count());
    for (key, value) in session.iter() {
        push_varint(body, key.len());
        push_varint(
            body,
            value.as_str().len() << 1 | usize::from(matches!(value, Value::Json(_))),
        );
    }
    for (key, value) in session.iter() {
        body.extend(key.as_bytes());
        body.extend(value.as_str().as_bytes());
    }
}

/// Reads a body that is authentic; `None` only if another program made it with the same key.
fn decode(body: &[u8]) -> Option<Record> {
    let mut created = [0; 8];
    let mut lifetime = [0; 8];
    let (times, mut rest) = body.split_at_checked(TIMES)?;
    created[2..].copy_from_slice(&times[..6]);
    lifetime[3..].copy_from_slice(&times[6..]);
    let created = Timestamp::from_millis(u64::from_be_bytes(created));
    let lifetime = std::time::Duration::from_millis(u64::from_be_bytes(lifetime));

    let count = take_varint(&mut rest)?;
    // An entry takes two bytes at least, which bounds what a wrong count could make us reserve.
    if count > rest.len() / 2 {
        return None;
    }
    let mut lengths = Vec::with_capacity(count);
    for _ in 0..count {
        let key = take_varint(&mut rest)?;
        let value = take_varint(&mut rest)?;
        lengths.push((key, value >> 1, value & 1 == 1));
    }
    let text = std::str::from_utf8(rest).ok()?.to_owned();
    let entries = Entries::from_parts(text, lengths.into_iter())?;
    Some(Record::new(created, created.plus(lifetime), entries))
}

fn varint_len(number: usize) -> usize {
    let bits = usize::BITS - (number | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn push_varint(buffer: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        buffer.push(number as u8 | 0x80);
        number >>= 7;
    }
    buffer.push(number as u8);
}

/// Reads a number of up to 28 bits, more than a cookie can need.
fn take_varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in [0, 7, 14, 21] {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Changes;

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

    #[test]
    fn what_is_encoded_decodes_to_the_same_and_has_the_size_that_was_measured() {
        let long = "x".repeat(300);
        let entries = [
            ("", Value::Text("")),
            ("中", Value::Json("[\"文\"]")),
            ("long", Value::Text(long.as_str())),
        ];
        let body = body(&entries);
        let record = decode(&body).unwrap();
        assert_eq!(record.created, Timestamp::from_millis(1_000));
        assert_eq!(record.expires, Timestamp::from_millis(5_000));
        assert_eq!(record.entries.iter().collect::<Vec<_>>(), entries);
        let all = entries.into_iter().collect();
        let (index, text) = measure(Changes::NONE.over(Some(&all)));
        assert_eq!(body.len(), TIMES + index + text);
    }

    #[test]
    fn a_body_that_is_cut_or_has_wrong_lengths_is_nothing_and_never_a_panic() {
        let body = body(&[("key", Value::Text("value")), ("中", Value::Json("1"))]);
        for end in 0..body.len() {
            assert!(decode(&body[..end]).is_none(), "cut at {end}");
        }
        for at in TIMES..body.len() {
            for byte in 0..=255 {
                let mut spoilt = body.clone();
                spoilt[at] = byte;
                let _ = decode(&spoilt);
            }
        }
        assert!(decode(&[&[0; TIMES][..], &[0xff; 20]].concat()).is_none());
    }

    #[test]
    fn numbers_of_every_length_come_back() {
        for number in [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            2_097_151,
            2_097_152,
            (1 << 28) - 1,
        ] {
            let mut bytes = Vec::new();
            push_varint(&mut bytes, number);
            assert_eq!(bytes.len(), varint_len(number), "{number}");
            assert_eq!(take_varint(&mut bytes.as_slice()), Some(number));
        }
    }
}
