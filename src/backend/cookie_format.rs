//! What both cookie backends do alike: the form in which a cookie holds a session.
//!
//! ```text
//! cookie   = base64url(version, sealed(body))
//! body     = created, lifetime, identity, lengths of each entry, text of all entries
//! created  = milliseconds since 1970
//! lifetime = milliseconds * 2, or from 16 seconds on seconds * 2 + 1
//! identity = 6 random bytes, drawn when a session begins or is renewed
//! lengths  = length of the key, length of the value * 2 + (1 if it is JSON)
//! ```
//!
//! Numbers but the identity are LEB128. The lengths end where their sum equals the bytes that
//! remain; only one position satisfies this, because the sum grows with each of them and the rest
//! shrinks. All of it is authenticated, together with the name of the cookie.
//!
//! The identity tells sessions apart that began in the same millisecond with the same data. A
//! session that migrates gets its id from it, so two visitors must never share one.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use hmac::Hmac;
use sha2::Sha256;

use super::{
    migration::{Adopt, Claim, Migration},
    successor,
};
use crate::{
    backend::{Backend, Commit, CommitOutcome, OpenOutcome, OpenRequest, Refused, Size},
    changes::View,
    cookie::LIMIT,
    error::Error,
    expiry::{Lifetime, Timestamp},
    future::BackendFuture,
    log::log,
    random,
    record::{Record, entries::Entries},
    settings::Settings,
    value::Value,
};

const VERSION: u8 = 1;

/// Signs or encrypts what a cookie holds.
///
/// The buffer begins with the cookie's name and a byte that no name has; what the cookie holds, its
/// version first, begins at `start`.
pub(crate) trait Seal: Send + Sync + 'static {
    /// What a person would call the backend.
    const NAME: &'static str;
    /// How many bytes stand between the version and the body.
    const BEFORE: usize;
    /// How many bytes stand behind the body.
    const BEHIND: usize;

    /// Seals the body.
    fn seal(&self, buffer: &mut Vec<u8>, start: usize);

    /// Checks the buffer with every accepted key. Returns where in it the body lies, and the number
    /// of the key.
    fn unseal(&self, buffer: &mut [u8], start: usize) -> Result<(Range<usize>, usize), Refused>;

    /// Returns the key of that number for the successors of cookies that it made.
    fn successors(&self, key: usize) -> &Hmac<Sha256>;
}

/// Opens a cookie. Returns the session, and the number of the key that made the cookie.
fn open<S: Seal>(seal: &S, token: &str, settings: &Settings) -> Result<(Record, usize), Refused> {
    let (mut buffer, start) = begin(settings, token.len());
    let decoded = BASE64.decode_vec(token, &mut buffer);
    decoded.map_err(|_| Refused::Malformed)?;
    let version = *buffer.get(start).ok_or(Refused::Malformed)?;
    if version != VERSION {
        return Err(Refused::Version);
    }
    let (body, key) = seal.unseal(&mut buffer, start)?;
    let mut record = decode(buffer, body).ok_or(Refused::Malformed)?;
    let (now, expiry) = (settings.now(), settings.expiry_of(&record.entries));
    if expiry.is_over(record.created, record.expires, now) {
        return Err(Refused::Expired);
    }
    // A cookie does not hold when it was written. That follows from when it expires.
    let idle = record
        .expires
        .since(Timestamp::from_millis(0).plus(expiry.idle));
    let written = Timestamp::from_millis(0).plus(idle);
    record.last_seen = written.clamp(record.created, now.max(record.created));
    Ok((record, key))
}

impl<S: Seal> Migration for S {
    /// Follows from what stays the same in every cookie of the session: the cookie's name, when the
    /// session began, and its identity; by a key that follows from the one that made the cookie,
    /// which every process has that accepts it.
    fn successor(&self, token: &str, settings: &Settings) -> Option<String> {
        let (record, key) = open(self, token, settings).ok()?;
        let (mut session, _) = begin(settings, 16);
        session.extend(record.created.millis().to_be_bytes());
        session.extend(record.identity.to_be_bytes());
        Some(successor::successor(self.successors(key), &session))
    }

    /// No request finds a cookie gone: there is nothing to take.
    fn claim(self: Arc<Self>, _: &Commit<'_>) -> BackendFuture<'static, Result<Claim, Error>> {
        BackendFuture::ready(Ok(Claim::Taken))
    }

    fn records(self: Arc<Self>) -> Option<Arc<dyn Adopt>> {
        None
    }
}

impl<S: Seal> Backend for S {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn opens_at_once(&self) -> bool {
        true
    }

    fn open(
        self: Arc<Self>,
        request: OpenRequest<'_>,
    ) -> BackendFuture<'static, Result<OpenOutcome, Error>> {
        BackendFuture::ready(Ok(opened(&*self, request)))
    }

    fn open_now(&self, request: OpenRequest<'_>) -> Option<Result<OpenOutcome, Error>> {
        Some(Ok(opened(self, request)))
    }

    fn migration(self: Arc<Self>) -> Option<Arc<dyn Migration>> {
        Some(self)
    }

    fn size(&self, session: View<'_>, settings: &Settings) -> Option<Size> {
        let body = measure(session);
        let used = if body == 0 {
            0
        } else {
            // A session lasts no longer than the absolute timeout.
            let own = Lifetime::decode(session.get(Lifetime::KEY));
            let absolute = settings.expiry_for(own).absolute;
            let times = CREATED_LEN + varint_len(lifetime(absolute));
            let bytes = 1 + S::BEFORE + times + IDENTITY_LEN + body + S::BEHIND;
            // Four characters for every three bytes, without padding.
            let is_persistent = settings.is_persistent(own);
            settings
                .cookie()
                .size((bytes * 4).div_ceil(3), is_persistent)
        };
        Some(Size { used, limit: LIMIT })
    }

    fn commit(
        self: Arc<Self>,
        commit: Commit<'_>,
    ) -> BackendFuture<'static, Result<CommitOutcome, Error>> {
        match kept(&*self, &commit) {
            Ok(reply) => BackendFuture::ready(Ok(reply)),
            Err(size) if commit.changes.is_empty() => {
                // Logged by the future: the session is locked now, and a log layer may use it.
                let name = commit.settings.cookie_name().to_owned();
                BackendFuture::pending(async move {
                    log_touch_too_large(&name, size);
                    Ok(CommitOutcome::Keep)
                })
            }
            // The client keeps what it has: a browser would drop the new cookie, and with it the
            // session.
            Err(size) => BackendFuture::ready(Err(Error::too_large(size, LIMIT))),
        }
    }

    fn commit_now(&self, commit: &Commit<'_>) -> Option<Result<CommitOutcome, Error>> {
        kept(self, commit).ok().map(Ok)
    }
}

fn opened<S: Seal>(seal: &S, request: OpenRequest<'_>) -> OpenOutcome {
    match request
        .token
        .map(|token| open(seal, token, request.settings))
    {
        None => OpenOutcome::Nothing,
        Some(Ok((record, _))) => OpenOutcome::Loaded(record),
        Some(Err(why)) => OpenOutcome::Refused(why),
    }
}

/// Returns what becomes of the cookie; its size if that would be over the limit.
fn kept<S: Seal>(seal: &S, commit: &Commit<'_>) -> Result<CommitOutcome, usize> {
    let session = commit
        .changes
        .over(commit.stored.map(|stored| &stored.entries));
    if session.is_empty() {
        // An empty session is no cookie.
        return Ok(match commit.token {
            Some(_) => CommitOutcome::Remove,
            None => CommitOutcome::Keep,
        });
    }
    let (created, expires) = (commit.created(), commit.expires());
    let begins = commit.changes.is_destroyed() || commit.changes.is_renewed();
    let identity = match commit.stored {
        Some(stored) if !begins && stored.identity != 0 => stored.identity,
        _ => draw_identity(),
    };
    let (mut buffer, start) = begin(commit.settings, USUAL_LEN);
    buffer.push(VERSION);
    buffer.resize(start + 1 + S::BEFORE, 0);
    encode(session, created, expires, identity, &mut buffer);
    seal.seal(&mut buffer, start);
    let token = BASE64.encode(&buffer[start..]);
    // A write that makes the session larger was measured when it was made. A touch or a removal
    // was not, and a longer name, domain or lifetime may be set since the cookie was written.
    let size = commit
        .settings
        .cookie()
        .size(token.len(), commit.is_persistent());
    match size <= LIMIT {
        true => Ok(CommitOutcome::Set { token, expires }),
        false => Err(size),
    }
}

/// Logs once per process that a session is not touched, because its cookie would be too large.
fn log_touch_too_large(name: &str, size: usize) {
    static IS_SAID: AtomicBool = AtomicBool::new(false);
    if !IS_SAID.swap(true, Ordering::Relaxed) {
        log!(
            WARN,
            "a session fits into the cookie `{name}` no longer: it would take {size} bytes, and {LIMIT} \
             are the limit. The client keeps the cookie that it has, whose time does not move. \
             Shorten the cookie's name, path or domain, or move to `ServerSide`"
        );
    }
}

/// Returns a buffer that begins with the name of the cookie, and where the cookie's content will
/// begin.
fn begin(settings: &Settings, capacity: usize) -> (Vec<u8>, usize) {
    let name = settings.cookie().bound_name().as_bytes();
    let start = name.len() + 1;
    let mut buffer = Vec::with_capacity(start + capacity);
    buffer.extend(name);
    buffer.push(0);
    (buffer, start)
}

/// How long the moment is at which a session began: until the year 2109.
const CREATED_LEN: usize = 6;
/// 48 random bits, among sessions that began in the same millisecond.
const IDENTITY_LEN: usize = 6;
/// More than most sessions take.
const USUAL_LEN: usize = 512;

/// Returns how many bytes the lengths and the text take; 0 if there is no entry.
fn measure(session: View<'_>) -> usize {
    let bytes = |(key, value): (&str, Value<&str>)| {
        let (key, value) = (key.len(), value.as_str().len());
        let lengths = varint_len(key as u64) + varint_len((value as u64) << 1);
        lengths + key + value
    };
    session.iter().map(bytes).sum()
}

fn draw_identity() -> u64 {
    let mut identity = [0; 8];
    random::fill(&mut identity[8 - IDENTITY_LEN..]);
    u64::from_be_bytes(identity)
}

fn encode(
    session: View<'_>,
    created: Timestamp,
    expires: Timestamp,
    identity: u64,
    body: &mut Vec<u8>,
) {
    push_varint(body, created.millis());
    push_varint(body, lifetime(expires.since(created)));
    body.extend_from_slice(&identity.to_be_bytes()[8 - IDENTITY_LEN..]);
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

/// Encodes a lifetime, rounded down.
fn lifetime(span: Duration) -> u64 {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX) & (u64::MAX >> 1);
    if millis < 16_000 {
        millis << 1
    } else {
        ((millis / 1_000) << 1) | 1
    }
}

/// Reads the body, which is authentic; `None` only if another program made it with the same key.
fn decode(mut buffer: Vec<u8>, body: Range<usize>) -> Option<Record> {
    let mut rest = buffer.get(body.clone())?;
    let created = take_varint(&mut rest)?;
    let span = take_varint(&mut rest)?;
    let unit = if span & 1 == 1 { 1_000 } else { 1 };
    let span = (span >> 1).saturating_mul(unit);
    let (identity, lengths) = rest.split_at_checked(IDENTITY_LEN)?;
    let identity = identity
        .iter()
        .fold(0, |identity, byte| identity << 8 | u64::from(*byte));
    rest = lengths;
    let (mut count, mut sum) = (0_usize, 0_usize);
    while sum < rest.len() {
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
    let mut record = Record::new(created, expires, entries);
    record.identity = identity;
    Some(record)
}

/// Returns the lengths of a key and its value, and whether the value is JSON.
fn take_lengths(bytes: &mut &[u8]) -> Option<(usize, usize, bool)> {
    let key = usize::try_from(take_varint(bytes)?).ok()?;
    let value = take_varint(bytes)?;
    Some((key, usize::try_from(value >> 1).ok()?, value & 1 == 1))
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
    use crate::{
        backend::signed_cookie::SignedCookie, changes::Changes, key::Key, manager::Manager,
    };

    fn body(entries: &[(&str, Value<&str>)]) -> Vec<u8> {
        let entries = entries.iter().copied().collect();
        let mut body = Vec::new();
        let (created, expires) = (Timestamp::from_millis(1_000), Timestamp::from_millis(5_000));
        encode(
            Changes::NONE.over(Some(&entries)),
            created,
            expires,
            7,
            &mut body,
        );
        body
    }

    fn read(body: &[u8]) -> Option<Record> {
        decode(body.to_vec(), 0..body.len())
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
            assert_eq!(record.identity, 7);
            assert_eq!(body.len(), 2 + 2 + IDENTITY_LEN + measured);
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
            encode(view, created, created.plus(lasts), 7, &mut body);
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
            }
        }
        assert!(read(&[&[0; 8][..], &[0xff; 20]].concat()).is_none());
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

    #[test]
    fn a_session_keeps_its_identity_until_it_is_renewed() {
        let key = Key::generate();
        let manager = Manager::new(SignedCookie::new(key.clone()));
        let commit = |stored: Option<&Record>, changes: &Changes| {
            let settings = manager.settings();
            let committing = manager.backend_arc().commit(Commit {
                token: None,
                old: None,
                origin: None,
                resend: false,
                stored,
                changes,
                now: settings.now(),
                settings,
            });
            match committing.now() {
                Ok(Ok(CommitOutcome::Set { token, .. })) => {
                    let backend = SignedCookie::new(key.clone());
                    open(&backend, &token, settings).unwrap().0
                }
                other => panic!("{other:?}"),
            }
        };
        let mut changes = Changes::default();
        changes.set("key", Value::Text("value".into()));
        let (first, twin) = (commit(None, &changes), commit(None, &changes));
        assert_ne!(
            first.identity, twin.identity,
            "two visitors with the same data"
        );
        let written = commit(Some(&first), &changes);
        assert_eq!(written.identity, first.identity);
        changes.renew();
        assert_ne!(commit(Some(&first), &changes).identity, first.identity);
    }
}
