//! Sessions in a store; the cookie holds a random id.

use std::{fmt, future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use sha2::{Digest, Sha256};

use crate::{
    Applied, Backend, BackendFuture, Commit, Error, Holder, Opened, Opening, Record, Refused,
    Reply, Store, StoreError, StoreId, Timestamp, Update, Write, log::log, random,
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
}

impl<S: Store> ServerSide<S> {
    /// Keeps sessions in `store`.
    pub fn new(store: S) -> Self {
        Self {
            store,
            time_limit: Duration::from_secs(2),
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

    async fn create(&self, mut write: Write) -> Result<Reply, Error> {
        // A second try is for an accident that 128 random bits make all but impossible.
        for _ in 0..2 {
            let id = SessionId::generate();
            write.holder = id.holder();
            if self.limited(self.store.create(id.stored(), &write)).await? {
                return Ok(id.reply(write.expires));
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

    fn open(
        self: Arc<Self>,
        request: Opening<'_>,
    ) -> BackendFuture<'static, Result<Opened, Error>> {
        let Some(token) = request.token else {
            return BackendFuture::ready(Ok(Opened::Nothing));
        };
        let Some(id) = SessionId::parse(token) else {
            return BackendFuture::ready(Ok(Opened::Refused(Refused::Malformed)));
        };
        let (now, expiry) = (request.settings.now(), *request.settings.expiry());
        BackendFuture::pending(async move {
            match self.limited(self.store.load(id.stored(), now)).await {
                // Not in constant time: these are hashes, and who learns how one begins is no nearer
                // to a secret of 256 random bits.
                Ok(Some(record))
                    if record.holder == id.holder()
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
        let id = commit.stored.and(commit.token).and_then(SessionId::parse);
        let (mut write, updates) = commit.to_write();
        let expires = write.expires;
        let (destroyed, renewed) = (changes.is_destroyed(), changes.is_renewed());
        // A browser that was told when the session ends is told anew when that moves.
        let repeats = settings.cookie().is_persistent()
            && commit.stored.is_some_and(|stored| {
                settings
                    .expiry()
                    .touch_due(stored.created, stored.expires, commit.now)
            });
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
                    true => self.create(write).await,
                    false if destroyed && has_cookie => Ok(Reply::Remove),
                    false => Ok(Reply::Keep),
                };
            };
            let new = renewed.then(|| id.renewed());
            write.holder = id.holder();
            write.new_holder = new.as_ref().map(SessionId::holder);
            match self.write(id.stored(), write, &updates).await? {
                Applied::Done if repeats => Ok(new.unwrap_or(id).reply(expires)),
                Applied::Done => Ok(new.map_or(Reply::Keep, |new| new.reply(expires))),
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
        Some(SessionId::parse(token)?.stored())
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

/// What the cookie holds: 384 random bits. It is as good as a password, and never shown.
struct SessionId([u8; SessionId::LEN]);

impl SessionId {
    /// The first bytes name the record for as long as it lives, so that whoever once opened it can
    /// end it.
    const ROOT_LEN: usize = 16;
    /// The others are the secret that opens it, until it is renewed.
    const LEN: usize = Self::ROOT_LEN + 32;

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

    /// The id in a cookie, if it is one. Any other length or alphabet is refused before the store is
    /// asked (GO-2024-2730 is about a store that was).
    fn parse(token: &str) -> Option<Self> {
        // The length first, so that nothing long is decoded.
        if token.len() != Self::LEN / 3 * 4 {
            return None;
        }
        let mut id = [0; Self::LEN];
        let len = BASE64.decode_slice(token, &mut id).ok()?;
        (len == id.len()).then_some(Self(id))
    }

    fn stored(&self) -> StoreId {
        StoreId::from_bytes(Sha256::digest(&self.0[..Self::ROOT_LEN]).into())
    }

    fn holder(&self) -> Holder {
        Holder::from_bytes(Sha256::digest(&self.0[Self::ROOT_LEN..]).into())
    }

    fn reply(&self, expires: Timestamp) -> Reply {
        Reply::Set {
            token: BASE64.encode(self.0),
            expires,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_id_as_this_engine_writes_them_is_one() {
        let token = BASE64.encode([7; 48]);
        assert_eq!(token.len(), 64);
        assert_eq!(SessionId::parse(&token).unwrap().0, [7; 48]);
        for bad in [
            "",
            "../../etc/passwd",
            "\0",
            &token[1..],
            &format!("{token}="),
            &format!("{}=", &token[1..]),
            &format!("{}==", &token[2..]),
            &format!("{}+", &token[1..]),
            &format!("{}é", &token[2..]),
        ] {
            assert!(SessionId::parse(bad).is_none(), "{bad:?}");
        }
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
