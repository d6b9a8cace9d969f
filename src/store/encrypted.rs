//! A store whose values are encrypted before another store gets them.

use std::fmt;

use aes_gcm_siv::{AeadInOut, Aes128GcmSiv, KeyInit, Nonce, Tag};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};

use super::{Endings, Page, Reservation, SessionSummary, Store, StoreError, UserIndex, UserLimit};
use crate::{
    changes::write::{Applied, Write},
    expiry::Timestamp,
    future::BackendFuture,
    key::Key,
    random,
    record::{Record, entries::Entries, id::StoreId},
    value::Value,
};

/// The first byte of a sealed value: the version of its format.
const VERSION: u8 = 1;
const NONCE: usize = 12;
const TAG: usize = 16;

/// The first byte of the encrypted text: the kind of the value.
const TEXT: u8 = b't';
const JSON: u8 = b'j';

/// Encrypts all values before `S` stores them, and decrypts what `S` loads: encryption at rest, for
/// any [`Store`]. An attacker who reads the database, its backups or its traffic learns no value.
///
/// Each value is encrypted and authenticated on its own, together with the record's [`StoreId`] and
/// the session key that it is stored under. A value that was changed, copied to another session or
/// to another session key, or encrypted with a key that is not accepted is rejected:
/// [`Store::load`] returns [`StoreError::Corrupt`], so the session opens as empty, and the record
/// stays as it is. A value that was stored without encryption is rejected too.
///
/// # What stays readable
///
/// - the session keys, and how many values a session has;
/// - the length of each value, which is stored as base64 with 30 more bytes;
/// - the user that [`set_user`](crate::Session::set_user) set, which the store indexes;
/// - when the session began, was last used and expires;
/// - the hashes of the id ([`StoreId`] and [`Verifier`](crate::store::Verifier)), which open nothing.
///
/// The note of a session ([`set_note`](crate::Session::set_note)) is a value, so it is encrypted.
/// The list of a user's sessions decrypts it; a note that is rejected is left out of the list.
///
/// # What is not authenticated
///
/// An attacker who can also write to the database can delete a value or a session, change a user or
/// an expiry, and replace a value with an older one of the same session and session key. To prevent
/// that, protect the database.
///
/// # Cost
///
/// An [`update`](crate::Session::update) takes one more round trip, because a store may compare the
/// values as it keeps them.
///
/// # The cipher
///
/// AES-128-GCM-SIV (RFC 8452) with a random nonce of 96 bits for each value, as in
/// [`PrivateCookie`](crate::PrivateCookie). It is safe with random nonces: a repeated nonce reveals
/// only whether one session key of one session was set to the same value twice.
///
/// # Rotating keys
///
/// The key of [`new`](Self::new) encrypts, and every key given to [`accept`](Self::accept) decrypts.
/// A value keeps its key until a request writes that value again. Renewing a session does not
/// encrypt its values again, so an old key is needed for as long as a session may last with all its
/// renewals. Removing it earlier logs out the users of sessions that still have such a value.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use session_manager::{Encrypted, Key, Manager, MemoryStore, ServerSide};
///
/// # let (key, old) = (Key::generate(), Key::generate());
/// let store = Encrypted::new(MemoryStore::new(), key).accept(old);
/// let manager = Manager::new(ServerSide::new(store));
/// # }
/// ```
#[derive(Clone)]
pub struct Encrypted<S> {
    store: S,
    keys: Keys,
}

impl<S: Store> Encrypted<S> {
    /// Encrypts the values that `store` keeps with `key`, and decrypts those encrypted with it.
    pub fn new(store: S, key: Key) -> Self {
        let keys = Keys(Vec::new());
        Self { store, keys }.accept(key)
    }

    /// Decrypts values encrypted with `old` too, to rotate keys.
    #[must_use]
    pub fn accept(mut self, old: Key) -> Self {
        let [key @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
            old.derive("values in a store");
        self.keys.0.push(Aes128GcmSiv::new(&key.into()));
        self
    }

    /// Returns `record` with its values decrypted.
    fn open(&self, id: StoreId, mut record: Record) -> Result<Record, StoreError> {
        let entries = record.entries.iter();
        let opened = entries.map(|(key, value)| Some((key, self.keys.open(id, key, value)?)));
        let opened: Option<Entries> = opened.collect::<Option<Vec<_>>>().map(Entries::from_iter);
        record.entries = opened.ok_or(StoreError::Corrupt {
            store: self.name(),
            why: "a value is not encrypted for this session and key with an accepted key",
        })?;
        Ok(record)
    }

    /// Returns `write` with its values encrypted.
    fn seal(&self, id: StoreId, write: &Write) -> Write {
        // Every field is named, so that a new one is decided on here. Values never leave unencrypted.
        let Write {
            verifier,
            new_verifier,
            clear,
            ref set,
            ref remove,
            ref user,
            if_version,
            // Only what is stored tells how these are encrypted.
            expected: _,
            seen_expires,
            created,
            expires,
            now,
        } = *write;
        let set = set.iter().map(|(key, value)| {
            let sealed = self.keys.seal(id, key, value.borrowed());
            (key.clone(), sealed)
        });
        Write {
            new_verifier,
            clear,
            set: set.collect(),
            remove: remove.clone(),
            user: user.clone(),
            if_version,
            seen_expires,
            ..Write::touch(verifier, created, now, expires)
        }
    }

    /// Returns the values of [`Write::expected`] as they are stored. A value that was
    /// deleted meanwhile is encrypted with a new nonce, which equals nothing that is stored.
    async fn seal_expected(
        &self,
        id: StoreId,
        write: &Write,
    ) -> Result<Vec<(Box<str>, Option<Value>)>, StoreError> {
        if write.if_version.is_none() || write.expected.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.store.load(id, write.now).await?;
        let sealed = write.expected.iter().map(|(key, value)| {
            let stored = found.as_ref().and_then(|found| found.entries.get(key));
            let is_there = |value: Value<&str>, stored: &Value<&str>| {
                let opened = self.keys.open(id, key, *stored);
                opened.is_some_and(|opened| opened.borrowed() == value)
            };
            let value = value.as_ref().map(Value::borrowed).map(|value| {
                let same = stored.filter(|stored| is_there(value, stored));
                same.map_or_else(|| self.keys.seal(id, key, value), Value::into_owned)
            });
            (key.clone(), value)
        });
        Ok(sealed.collect())
    }
}

/// The ciphers; the first encrypts.
#[derive(Clone)]
struct Keys(Vec<Aes128GcmSiv>);

impl Keys {
    fn seal(&self, id: StoreId, key: &str, value: Value<&str>) -> Value {
        let (kind, text) = match value {
            Value::Text(text) => (TEXT, text),
            Value::Json(text) => (JSON, text),
        };
        let mut nonce = Nonce::default();
        random::fill_nonce(&mut nonce);
        let mut sealed = Vec::with_capacity(1 + NONCE + 1 + text.len() + TAG);
        sealed.push(VERSION);
        sealed.extend(&nonce);
        sealed.push(kind);
        sealed.extend(text.as_bytes());
        let body = &mut sealed[1 + NONCE..];
        #[expect(
            clippy::expect_used,
            reason = "encryption fails only beyond 64 GiB, which no session holds"
        )]
        let tag = self.0[0]
            .encrypt_inout_detached(&nonce, &associated(id, key), body.into())
            .expect("a value is short enough to encrypt");
        sealed.extend(tag);
        Value::Text(BASE64.encode(sealed).into())
    }

    /// Returns the value, or `None` if no key encrypted it for this session and session key.
    fn open(&self, id: StoreId, key: &str, sealed: Value<&str>) -> Option<Value<String>> {
        let Value::Text(sealed) = sealed else {
            return None;
        };
        let mut sealed = BASE64.decode(sealed).ok()?;
        let (&mut version, rest) = sealed.split_first_mut()?;
        let (nonce, rest) = rest.split_at_mut_checked(NONCE)?;
        let (body, tag) = rest.split_at_mut_checked(rest.len().checked_sub(TAG)?)?;
        let (nonce, tag) = (Nonce::try_from(&*nonce).ok()?, Tag::try_from(&*tag).ok()?);
        let associated = associated(id, key);
        // A wrong key leaves the body unchanged for the next key.
        let is_opened = version == VERSION
            && self.0.iter().any(|cipher| {
                let body = (&mut *body).into();
                cipher
                    .decrypt_inout_detached(&nonce, &associated, body, &tag)
                    .is_ok()
            });
        let (kind, text) = body.split_first().filter(|_| is_opened)?;
        let text = str::from_utf8(text).ok()?.to_owned();
        match *kind {
            TEXT => Some(Value::Text(text)),
            JSON => Some(Value::Json(text)),
            _ => None,
        }
    }
}

/// Returns what is authenticated with a value. The id has a fixed length, so no two pairs are alike.
fn associated(id: StoreId, key: &str) -> Vec<u8> {
    [id.as_bytes(), key.as_bytes()].concat()
}

impl<S: Store> Store for Encrypted<S> {
    /// The name of the store inside.
    fn name(&self) -> &'static str {
        self.store.name()
    }

    fn answers_at_once(&self) -> bool {
        self.store.answers_at_once()
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        let found = self.store.load(id, now).await?;
        found.map(|record| self.open(id, record)).transpose()
    }

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        self.store.create(id, &self.seal(id, write)).await
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        let mut sealed = self.seal(id, write);
        sealed.expected = self.seal_expected(id, write).await?;
        self.store.apply(id, &sealed).await
    }

    async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
        self.store.destroy(id).await
    }

    fn users(&self) -> Option<&dyn UserIndex> {
        self.store.users().map(|_| self as &dyn UserIndex)
    }

    async fn watch_ended(&self, endings: &Endings) -> Result<(), StoreError> {
        self.store.watch_ended(endings).await
    }
}

/// The index of the store inside, with the notes decrypted; empty if the store has none.
impl<S: Store> UserIndex for Encrypted<S> {
    fn sessions_of<'a>(
        &'a self,
        user: &'a str,
        from: &'a [u8],
        now: Timestamp,
    ) -> BackendFuture<'a, Result<Page<SessionSummary>, StoreError>> {
        let Some(index) = self.store.users() else {
            return BackendFuture::ready(Ok(Page::default()));
        };
        BackendFuture::pending(async move {
            let mut page = index.sessions_of(user, from, now).await?;
            for session in &mut page.items {
                let sealed = session.note.take();
                session.note = sealed.and_then(|sealed| {
                    let sealed = Value::Text(&*sealed);
                    let opened = self.keys.open(session.id, SessionSummary::NOTE, sealed);
                    Some(opened?.as_str().to_owned())
                });
            }
            Ok(page)
        })
    }

    fn ids_of<'a>(
        &'a self,
        user: &'a str,
        from: &'a [u8],
    ) -> BackendFuture<'a, Result<Page<StoreId>, StoreError>> {
        match self.store.users() {
            Some(index) => index.ids_of(user, from),
            None => BackendFuture::ready(Ok(Page::default())),
        }
    }

    fn destroy_of<'a>(
        &'a self,
        user: &'a str,
        ids: &'a [StoreId],
    ) -> BackendFuture<'a, Result<usize, StoreError>> {
        match self.store.users() {
            Some(index) => index.destroy_of(user, ids),
            None => BackendFuture::ready(Ok(0)),
        }
    }

    fn limit(&self) -> Option<&dyn UserLimit> {
        self.store.users()?.limit().map(|_| self as &dyn UserLimit)
    }
}

/// That of the store inside: a reservation holds no value.
impl<S: Store> UserLimit for Encrypted<S> {
    fn reserve<'a>(
        &'a self,
        user: &'a str,
        place: &'a Reservation,
    ) -> BackendFuture<'a, Result<bool, StoreError>> {
        match self.store.users().and_then(UserIndex::limit) {
            Some(limit) => limit.reserve(user, place),
            None => BackendFuture::ready(Ok(false)),
        }
    }
}

impl<S: Store> fmt::Debug for Encrypted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encrypted")
            .field("store", &self.store.name())
            .field("keys", &self.keys.0.len())
            .finish()
    }
}
