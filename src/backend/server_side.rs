//! Sessions in a store; the cookie holds a random id.

use std::{fmt, future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use hmac::{Hmac, Mac, digest::CtOutput};
use sha2::{Digest, Sha256};

use crate::{
    Applied, Backend, BackendFuture, Commit, Error, Holder, Key, Opened, Opening, Record, Refused,
    Reply, Settings, Size, Store, StoreError, StoreId, Timestamp, Update, View, Write,
    key::{self, TAG},
    log::log,
    random,
};

/// Keeps each session in a store; its cookie holds nothing but a random id of 48 bytes: 16 that name
/// the session, and a secret of 32 that every renewal draws anew.
///
/// What it promises over every [`Store`]:
///
/// - No update is lost: requests that overlap merge key by key, of two that write one key the last
///   wins, and [`update`](crate::Session::update) counts every one.
/// - Logging out wins every race: after [`destroy`](crate::Session::destroy) no cookie, old or new,
///   opens the session again, whatever was in flight: a write, a touch or a renewal
///   (CVE-2025-46336).
/// - An id that it did not make is never adopted (session fixation, CVE-2022-25896), and the store
///   sees only the SHA-256 of each part of one.
/// - A request without a cookie that writes nothing asks the store nothing. Else one round trip
///   opens the session, and one commits it if something changed.
/// - Every call of the store has a time limit.
/// - With [`signed_with`](Self::signed_with), a cookie that somebody made up does not reach the store.
///
/// `TowerStore` keeps the first two in one process; what it keeps in several is in its documentation.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use session_manager::{Manager, MemoryStore, ServerSide};
///
/// let manager = Manager::new(ServerSide::new(MemoryStore::new()));
/// assert_eq!(manager.engine(), "memory");
/// # }
/// ```
pub struct ServerSide<S> {
    store: S,
    time_limit: Duration,
    max_size: usize,
    /// What signs ids; without it nobody asks for signatures.
    signer: Option<Hmac<Sha256>>,
    /// What signed them before.
    accepted: Vec<Hmac<Sha256>>,
    unsigned_until: Timestamp,
}

impl<S: Store> ServerSide<S> {
    /// How large a session may be unless [`max_size`](Self::max_size) says otherwise, in bytes: 1 MiB.
    pub const DEFAULT_MAX_SIZE: usize = 1 << 20;

    /// Keeps sessions in `store`.
    pub fn new(store: S) -> Self {
        Self {
            store,
            time_limit: Duration::from_secs(2),
            max_size: Self::DEFAULT_MAX_SIZE,
            signer: None,
            accepted: Vec::new(),
            unsigned_until: Timestamp::from_millis(0),
        }
    }

    /// How long one call of the store may take. Default: 2 seconds.
    ///
    /// After it the request fails as [`on_store_error`](crate::Builder::on_store_error) says.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// How large a session may be, in bytes: all keys, and all values as they are stored, text or JSON
    /// in UTF-8. Default: [`DEFAULT_MAX_SIZE`](Self::DEFAULT_MAX_SIZE).
    ///
    /// A write that would go over it is [`Error::TooLarge`] where it is made, and the session is as it
    /// was. Requests that overlap each see the session as it was when they came, so that together they
    /// may go over it; what writes next is told then. A session that was larger before stays readable.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use session_manager::{MemoryStore, ServerSide};
    ///
    /// let engine = ServerSide::new(MemoryStore::new()).max_size(64 * 1024);
    /// # }
    /// ```
    #[must_use]
    pub fn max_size(mut self, bytes: usize) -> Self {
        self.max_size = bytes;
        self
    }

    /// Signs ids, and asks the store for none whose signature is not right: thousands of requests
    /// with cookies that somebody made up are then answered without it, each for one HMAC per key.
    ///
    /// The id is as hard to guess without a signature; what this keeps off is the load. The signature
    /// is HMAC-SHA-256, cut to 128 bits, over the cookie's name and the id, and is compared in
    /// constant time. The cookie's value grows from 64 to 86 characters.
    ///
    /// # On a running site
    ///
    /// Whoever has a session has a cookie without a signature, which
    /// [`accept_unsigned_until`](Self::accept_unsigned_until) lets in for a while. An engine without
    /// a key opens signed cookies too, so that while servers are updated one by one, and should all of
    /// them go back, nobody is logged out.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use session_manager::{Key, Manager, MemoryStore, ServerSide, Timestamp};
    ///
    /// # let key = Key::generate();
    /// // Signing began on 1 January 2027; sessions last 7 days.
    /// let last = Timestamp::from_millis(1_799_366_400_000); // `date -ud 2027-01-08 +%s000`
    /// let engine = ServerSide::new(MemoryStore::new()).signed_with(key).accept_unsigned_until(last);
    /// let manager = Manager::new(engine);
    /// # }
    /// ```
    #[must_use]
    pub fn signed_with(mut self, key: Key) -> Self {
        self.signer = Some(id_key(&key));
        self
    }

    /// Accepts also ids that `old` signed, where [`signed_with`](Self::signed_with) says who signs
    /// now. Such a cookie is signed anew when its session is next written or touched, so `old` may go
    /// when the sessions of its time are over ([`absolute_timeout`](crate::Builder::absolute_timeout)).
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use session_manager::{Key, MemoryStore, ServerSide};
    ///
    /// # let (new, old) = (Key::generate(), Key::generate());
    /// let engine = ServerSide::new(MemoryStore::new()).signed_with(new).accept(old);
    /// # }
    /// ```
    #[must_use]
    pub fn accept(mut self, old: Key) -> Self {
        self.accepted.push(id_key(&old));
        self
    }

    /// Accepts ids without a signature until `last`, for a site that begins to sign. Their cookies
    /// are signed when their session is next written or touched.
    ///
    /// Until then a cookie that somebody made up asks the store once, as it did before. The moment is
    /// one that you write down: the day on which the last server began to sign, and the
    /// [`absolute_timeout`](crate::Builder::absolute_timeout) more, when every session without a
    /// signature is over. One counted from the start of the process would begin anew with each.
    #[must_use]
    pub fn accept_unsigned_until(mut self, last: Timestamp) -> Self {
        self.unsigned_until = last;
        self
    }

    /// The id in a cookie, if the store may be asked for it.
    fn accepted(&self, token: &str, settings: &Settings) -> Result<SessionId, Refused> {
        let (id, tag) = SessionId::parse(token).ok_or(Refused::Malformed)?;
        let Some(signer) = &self.signer else {
            return Ok(id);
        };
        let is_accepted = match tag {
            Some(tag) => std::iter::once(signer)
                .chain(&self.accepted)
                .any(|key| id.is_signed(named(key, settings), &tag)),
            None => settings.now() < self.unsigned_until,
        };
        is_accepted.then_some(id).ok_or(Refused::Forged)
    }

    /// Waits for the store, but not forever.
    async fn limited<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        // What is there at once needs no timer.
        let mut call = pin!(call);
        let at_once = poll_fn(|context| Poll::Ready(call.as_mut().poll(context)));
        if let Poll::Ready(answer) = at_once.await {
            return answer;
        }
        let answer = tokio::time::timeout(self.time_limit, call).await;
        answer.unwrap_or_else(|_| {
            Err(StoreError::TimedOut {
                store: self.store.name(),
                millis: self.time_limit.as_millis().try_into().unwrap_or(u64::MAX),
            })
        })
    }

    async fn create(&self, mut write: Write, signer: Option<Hmac<Sha256>>) -> Result<Reply, Error> {
        // A second try is for an accident that 128 random bits make all but impossible.
        for _ in 0..2 {
            let id = SessionId::generate();
            write.holder = id.holder();
            if self.limited(self.store.create(id.stored(), &write)).await? {
                return Ok(id.reply(signer, write.expires));
            }
        }
        Err(Error::unavailable(StoreError::Spoiled {
            store: self.store.name(),
            why: "every new id is taken",
        }))
    }

    /// Merges a write into the record under `id`. What `updates` computed is computed anew if
    /// another request was faster.
    async fn write(
        &self,
        id: StoreId,
        mut write: Write,
        updates: &[(Box<str>, Update)],
    ) -> Result<Applied, Error> {
        loop {
            let applied = self.limited(self.store.apply(id, &write)).await?;
            if applied != Applied::Conflict {
                return Ok(applied);
            }
            // Each conflict is another request's success, so this ends.
            let Some(record) = self.limited(self.store.load(id, write.now)).await? else {
                return Ok(Applied::Gone);
            };
            record.entries.recompute(updates, &mut write)?;
            write.if_version = Some(record.version);
        }
    }
}

impl<S: Store> Backend for ServerSide<S> {
    fn engine(&self) -> &'static str {
        self.store.name()
    }

    fn needs_response(&self) -> bool {
        false
    }

    fn size(&self, session: View<'_>, _: &Settings) -> Option<Size> {
        Some(Size {
            used: session.bytes(),
            limit: self.max_size,
        })
    }

    fn open(
        self: Arc<Self>,
        request: Opening<'_>,
    ) -> BackendFuture<'static, Result<Opened, Error>> {
        let Some(token) = request.token else {
            return BackendFuture::ready(Ok(Opened::Nothing));
        };
        let id = match self.accepted(token, request.settings) {
            Ok(id) => id,
            Err(why) => return BackendFuture::ready(Ok(Opened::Refused(why))),
        };
        let (now, expiry) = (request.settings.now(), *request.settings.expiry());
        BackendFuture::pending(async move {
            match self.limited(self.store.load(id.stored(), now)).await {
                Ok(Some(record))
                    if id.is_held_by(record.holder)
                        && !expiry.is_over(record.created, record.expires, now) =>
                {
                    Ok(Opened::Loaded(record))
                }
                Ok(_) => Ok(Opened::Nothing),
                // Nobody writes under an id that opened nothing, so what is there stays for whoever
                // wants to look.
                Err(error @ StoreError::Spoiled { .. }) => {
                    log!(
                        ERROR,
                        "{error}; the session is empty, and what is stored is left alone"
                    );
                    Ok(Opened::Nothing)
                }
                Err(error) => Err(error.into()),
            }
        })
    }

    fn commit(self: Arc<Self>, commit: Commit<'_>) -> BackendFuture<'static, Result<Reply, Error>> {
        let (changes, settings) = (commit.changes, commit.settings);
        let has_cookie = commit.token.is_some();
        // An id that opened nothing is never written under.
        let found = commit.stored.and(commit.token).and_then(SessionId::parse);
        let signer = self.signer.as_ref().map(|key| named(key, settings));
        let is_signed = |(id, tag): &(SessionId, Option<_>)| match (&signer, tag) {
            (Some(signer), Some(tag)) => id.is_signed(signer.clone(), tag),
            (signer, _) => signer.is_none(),
        };
        let (mut write, updates) = commit.to_write();
        let expires = write.expires;
        let (destroyed, renewed) = (changes.is_destroyed(), changes.is_renewed());
        // A browser that was told when the session ends is told anew when that moves, and one whose
        // cookie today's key did not sign gets one that it did.
        let repeats = !found.as_ref().is_none_or(is_signed)
            || settings.cookie().is_persistent()
                && commit.stored.is_some_and(|stored| {
                    settings
                        .expiry()
                        .touch_due(stored.created, stored.expires, commit.now)
                });
        let id = found.map(|(id, _)| id);
        BackendFuture::pending(async move {
            let id = match id {
                Some(id) if destroyed => {
                    self.limited(self.store.destroy(id.stored())).await?;
                    None
                }
                id => id,
            };
            let Some(id) = id else {
                return match write.begins_a_session() {
                    true => self.create(write, signer).await,
                    false if destroyed && has_cookie => Ok(Reply::Remove),
                    false => Ok(Reply::Keep),
                };
            };
            let new = renewed.then(|| id.renewed());
            write.holder = id.holder();
            write.new_holder = new.as_ref().map(SessionId::holder);
            match self.write(id.stored(), write, &updates).await? {
                Applied::Done if repeats => Ok(new.unwrap_or(id).reply(signer, expires)),
                Applied::Done => Ok(new.map_or(Reply::Keep, |new| new.reply(signer, expires))),
                _ => {
                    log!(
                        WARN,
                        "a session ended or was renewed while one of its requests was served; what \
                         that request wrote is dropped"
                    );
                    Ok(Reply::Gone)
                }
            }
        })
    }

    fn handle(&self, token: &str) -> Option<StoreId> {
        let (id, _) = SessionId::parse(token)?;
        Some(id.stored())
    }

    fn has_user_index(&self) -> bool {
        self.store.users().is_some()
    }

    fn user_sessions<'a>(
        &'a self,
        user: &'a str,
        now: Timestamp,
    ) -> BackendFuture<'a, Result<Vec<(StoreId, Record)>, Error>> {
        let Some(index) = self.store.users() else {
            return BackendFuture::ready(Err(Error::NoUserIndex {
                engine: self.engine(),
            }));
        };
        BackendFuture::pending(async move { Ok(self.limited(index.sessions_of(user, now)).await?) })
    }

    fn destroy_stored(&self, id: StoreId) -> BackendFuture<'_, Result<(), Error>> {
        BackendFuture::pending(async move { Ok(self.limited(self.store.destroy(id)).await?) })
    }
}

impl<S: Store> fmt::Debug for ServerSide<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSide")
            .field("store", &self.store.name())
            .field("time_limit", &self.time_limit)
            .finish()
    }
}

/// The key that `key` gives for ids.
fn id_key(key: &Key) -> Hmac<Sha256> {
    key::hmac(&key.derive("server-side id"))
}

/// What signs the ids of one cookie.
fn named(key: &Hmac<Sha256>, settings: &Settings) -> Hmac<Sha256> {
    // No name has a byte of zero, so that none goes on in an id.
    key.clone()
        .chain_update(settings.cookie_name())
        .chain_update([0])
}

/// What the cookie holds: 384 random bits. It is as good as a password, and never shown.
struct SessionId([u8; SessionId::LEN]);

impl SessionId {
    /// The first bytes name the record for as long as it lives, so that whoever once opened it can
    /// end it.
    const ROOT_LEN: usize = 16;
    /// The others are the secret that opens it, until it is renewed.
    const LEN: usize = Self::ROOT_LEN + 32;
    /// As it is in a cookie: four characters for every three bytes.
    const TEXT_LEN: usize = Self::LEN / 3 * 4;
    /// With a signature behind it.
    const SIGNED_LEN: usize = Self::TEXT_LEN + (TAG * 4).div_ceil(3);

    fn generate() -> Self {
        let mut id = [0; Self::LEN];
        random::fill(&mut id);
        Self(id)
    }

    /// The same record's, with another secret.
    fn renewed(&self) -> Self {
        let mut id = self.0;
        random::fill(&mut id[Self::ROOT_LEN..]);
        Self(id)
    }

    /// The id in a cookie, if it is one, and its signature if it has one. Any other length or
    /// alphabet is refused before the store is asked (GO-2024-2730 is about a store that was).
    fn parse(token: &str) -> Option<(Self, Option<[u8; TAG]>)> {
        // The length first, so that nothing long is decoded.
        let (id, tag) = match token.len() {
            Self::TEXT_LEN => (token, None),
            Self::SIGNED_LEN => {
                let (id, tag) = token.split_at_checked(Self::TEXT_LEN)?;
                (id, Some(decode(tag)?))
            }
            _ => return None,
        };
        Some((Self(decode(id)?), tag))
    }

    fn is_signed(&self, signer: Hmac<Sha256>, tag: &[u8; TAG]) -> bool {
        // In constant time.
        signer
            .chain_update(self.0)
            .verify_truncated_left(tag)
            .is_ok()
    }

    fn stored(&self) -> StoreId {
        StoreId::from_bytes(Sha256::digest(&self.0[..Self::ROOT_LEN]).into())
    }

    fn holder(&self) -> Holder {
        Holder::from_bytes(Sha256::digest(&self.0[Self::ROOT_LEN..]).into())
    }

    /// Whether its secret is the one that opens the record. It is the one place where what a client
    /// sent is compared with what is stored; of hashes, and in constant time all the same.
    fn is_held_by(&self, holder: Holder) -> bool {
        let output = |holder: Holder| CtOutput::<Sha256>::new((*holder.as_bytes()).into());
        output(self.holder()) == output(holder)
    }

    fn reply(&self, signer: Option<Hmac<Sha256>>, expires: Timestamp) -> Reply {
        let mut token = BASE64.encode(self.0);
        if let Some(signer) = signer {
            let tag = signer.chain_update(self.0).finalize().into_bytes();
            BASE64.encode_string(&tag[..TAG], &mut token);
        }
        Reply::Set { token, expires }
    }
}

/// The bytes of a text, if it has exactly as many.
fn decode<const LEN: usize>(text: &str) -> Option<[u8; LEN]> {
    let mut bytes = [0; LEN];
    let len = BASE64.decode_slice(text, &mut bytes).ok()?;
    (len == LEN).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_id_as_this_engine_writes_them_is_one() {
        for (token, tag) in [
            (BASE64.encode([7; 48]), None),
            (BASE64.encode([7; 64]), Some([7; TAG])),
        ] {
            let (id, found) = SessionId::parse(&token).unwrap();
            assert_eq!((id.0, found), ([7; 48], tag));
            for bad in [
                &token[1..],
                &format!("{token}="),
                &format!("{}=", &token[1..]),
                &format!("{}==", &token[2..]),
                &format!("{}+", &token[1..]),
                &format!("{}é", &token[2..]),
                &format!("é{}", &token[2..]),
            ] {
                assert!(SessionId::parse(bad).is_none(), "{bad:?}");
            }
        }
        for bad in ["", "../../etc/passwd", "\0"] {
            assert!(SessionId::parse(bad).is_none(), "{bad:?}");
        }
        assert!(SessionId::parse(&"é".repeat(43)).is_none());
        assert!(SessionId::parse(&format!("{}é{}", "A".repeat(63), "A".repeat(21))).is_none());
        assert!(SessionId::parse(&"A".repeat(1_000_000)).is_none());
    }

    #[test]
    fn a_renewed_id_names_the_same_record_and_has_another_secret() {
        let id = SessionId::generate();
        let new = id.renewed();
        assert_eq!(new.stored(), id.stored());
        assert_ne!(new.holder(), id.holder());
        assert_ne!(new.renewed().holder(), new.holder());
        assert_ne!(SessionId::generate().stored(), id.stored());
    }
}
