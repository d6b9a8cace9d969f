//! Sessions in a store for tower-sessions.
//!
//! A record of tower-sessions contains a record of this crate as one string in its `data`:
//!
//! ```text
//! "session-manager": {"verifier":"base64url","created":1,"last_seen":1,"expires":2,"version":1,
//!                     "user":"ada","values":{"name":"tAda","age":"j36"}}
//! ```
//!
//! Stores of JSON, MessagePack, BSON or columns return a string unchanged, but not always numbers,
//! NULs and unusual keys. The values have the same format as in SQL (`values`).

#[cfg(feature = "tower-sessions-0-14")]
pub(crate) mod v0_14;

use std::{fmt, sync::Arc, time::Duration};

use serde::Deserialize;
use time::OffsetDateTime;
use tokio::sync::RwLock;
use tower_sessions_core::{
    SessionStore,
    session::{Id, Record as Theirs},
    session_store::Error,
};

use super::values;
use crate::{
    changes::write::{Applied, Write},
    expiry::Timestamp,
    record::{
        Record,
        entries::Entries,
        id::{StoreId, Verifier},
    },
    store::{Store, StoreError},
};

const NAME: &str = "tower-sessions";
/// The only key in `data`.
const KEY: &str = "session-manager";
/// Enough that requests of different sessions rarely share a lock.
const LOCKS: usize = 1_024;
/// The time limit of a call whose caller no longer waits for it.
const PATIENCE: Duration = Duration::from_secs(30);
/// The seconds by which the tower-sessions record outlives the session, so that the stored expiry
/// decides and not a difference between clocks.
const MARGIN: u64 = 60;

/// Keeps sessions in any store for [tower-sessions](https://docs.rs/tower-sessions) that implements
/// [`SessionStore`] of tower-sessions-core 0.15.
///
/// ```
/// use session_manager::{Manager, ServerSide, TowerStore};
/// use tower_sessions_memory_store::MemoryStore;
///
/// let manager = Manager::new(ServerSide::new(TowerStore::new(MemoryStore::default())));
/// assert_eq!(manager.backend_name(), "tower-sessions");
/// ```
///
/// At the time of writing, the stores for Redis, SQL and moka are still for 0.14. `Tower014`
/// (feature `tower-sessions-0-14`) adapts them, and passes the store suite over Redis, SQLite and
/// moka.
///
/// It is for applications that already have such a store: this crate's own stores cost less and
/// guarantee more. A `SessionStore` can only replace whole records. This type therefore serialises
/// the writes of each session, but only within one process, among this value and its clones:
///
/// | | in one process | in several processes, or two values over one store |
/// |---|---|---|
/// | no update is lost, `update` applies each one | yes | no: of two overlapping writes, one may undo the other |
/// | logging out wins every race | yes | no: an overlapping write may restore the session |
/// | a renewal is final | yes | no: an overlapping write may restore the old cookie |
/// | all of the above for calls that do not overlap | yes | yes |
/// | ids that the server did not create are never adopted | yes | yes |
/// | the store gets only hashes of the id and its secret | yes | yes |
/// | a new session never overwrites a live one | yes | if `SessionStore::create` checks, and then draws another id or fails; some only save |
/// | stored values are returned unchanged | yes | yes |
/// | no session is served after it expires | yes | yes |
/// | store calls: opening | 1 | 1 |
/// | a new session; a write, including renewals and touches | 2, and the whole session is sent | 2 |
/// | logging out | 1 | 1 |
/// | a time limit for every call | yes | yes |
/// | [a user's sessions](crate::Manager::user_sessions) can be listed | no: the trait has no method for it | no |
///
/// A request that writes therefore calls the store three times. If a request is cancelled or times
/// out, its store call continues for up to 30 seconds, and other calls for the same session (and
/// for one in a thousand others) wait for it, so that its save cannot come after a logout. Then the
/// call is cancelled; if the store still saves, that may undo later writes.
///
/// Use a separate table, prefix or database that nothing else uses, above all no
/// `SessionManagerLayer`: for that layer the id of a record is the whole cookie, and this crate
/// does not keep ids secret. A record that this crate did not write gives [`StoreError::Corrupt`]
/// and is not changed.
///
/// An id of tower-sessions has 128 bits. It is the first half of the [`StoreId`], a SHA-256 of 128
/// random bits, so collisions do not happen by chance. Reading the store yields that half of a hash
/// and a [`Verifier`], neither of which opens a session.
///
/// These stores drop a record one minute after it expires, by the system clock. A test that sets a
/// [`clock`](crate::Builder::clock) must start it at the real time.
pub struct TowerStore<S>(Arc<Inner<S>>);

struct Inner<S> {
    store: S,
    /// One lock per session, shared with others. Opening a session takes it for reading, because a
    /// `CachingSessionStore` writes on a read.
    locks: Box<[Arc<RwLock<()>>]>,
    patience: Duration,
}

impl<S: SessionStore> TowerStore<S> {
    /// Creates a store that keeps its sessions in `store`.
    ///
    /// ```
    /// use session_manager::TowerStore;
    /// use tower_sessions_memory_store::MemoryStore;
    ///
    /// let store = TowerStore::new(MemoryStore::default());
    /// let same = store.clone(); // a second `new` would not share the locks
    /// # let _ = same;
    /// ```
    pub fn new(store: S) -> Self {
        Self::with_patience(store, PATIENCE)
    }

    fn with_patience(store: S, patience: Duration) -> Self {
        Self(Arc::new(Inner {
            store,
            locks: (0..LOCKS).map(|_| Arc::default()).collect(),
            patience,
        }))
    }

    fn lock(&self, id: StoreId) -> Arc<RwLock<()>> {
        let [.., high, low] = *id.as_bytes();
        Arc::clone(&self.0.locks[usize::from(u16::from_be_bytes([high, low])) % LOCKS])
    }

    /// Runs `call` to its end in a separate task, then releases `guard`. The caller may be
    /// cancelled at any time while its save is still in flight; without the lock, that save could
    /// follow a logout.
    async fn run<T: Send + 'static>(
        &self,
        guard: impl Send + 'static,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let patience = self.0.patience;
        let task = tokio::spawn(async move {
            let done = tokio::time::timeout(patience, call).await;
            drop(guard);
            done
        });
        match task.await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(StoreError::TimedOut {
                store: NAME,
                millis: patience.as_millis().try_into().unwrap_or(u64::MAX),
            }),
            // The store panicked, or the runtime is shutting down.
            Err(error) => Err(StoreError::failed(NAME, error)),
        }
    }
}

impl<S: SessionStore> Inner<S> {
    async fn load(&self, id: StoreId) -> Result<Option<Record>, StoreError> {
        match self.store.load(&their_id(id)).await {
            Ok(found) => found.map(read).transpose(),
            Err(Error::Decode(_)) => Err(corrupt("the tower-sessions store cannot decode it")),
            Err(error) => Err(failed(error)),
        }
    }

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        let mut record = theirs(id, &write.to_record());
        if let Some(old) = self.load(id).await? {
            if write.now < old.expires {
                return Ok(false);
            }
            self.store.delete(&record.id).await.map_err(failed)?;
        }
        self.store.create(&mut record).await.map_err(failed)?;
        if record.id == their_id(id) {
            return Ok(true);
        }
        // The store found the id taken and drew another one, which no request would look up.
        self.store.delete(&record.id).await.map_err(failed)?;
        Ok(false)
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        let Some(mut record) = self.load(id).await? else {
            return Ok(Applied::Gone);
        };
        let applied = record.apply(write);
        if applied == Applied::Done {
            let record = theirs(id, &record);
            self.store.save(&record).await.map_err(failed)?;
        }
        Ok(applied)
    }
}

impl<S: SessionStore> Store for TowerStore<S> {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        let guard = self.lock(id).read_owned().await;
        let inner = Arc::clone(&self.0);
        let found = self.run(guard, async move { inner.load(id).await }).await?;
        Ok(found.filter(|record| now < record.expires))
    }

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        let guard = self.lock(id).write_owned().await;
        let (inner, write) = (Arc::clone(&self.0), write.clone());
        self.run(guard, async move { inner.create(id, &write).await })
            .await
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        let guard = self.lock(id).write_owned().await;
        let (inner, write) = (Arc::clone(&self.0), write.clone());
        self.run(guard, async move { inner.apply(id, &write).await })
            .await
    }

    async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
        let guard = self.lock(id).write_owned().await;
        let inner = Arc::clone(&self.0);
        self.run(guard, async move {
            inner.store.delete(&their_id(id)).await.map_err(failed)
        })
        .await
    }
}

/// Returns another handle of the same store.
impl<S> Clone for TowerStore<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Omits the inner store, because some would print every session.
impl<S> fmt::Debug for TowerStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TowerStore").finish_non_exhaustive()
    }
}

fn failed(error: Error) -> StoreError {
    StoreError::failed(NAME, error)
}

fn corrupt(why: &'static str) -> StoreError {
    StoreError::Corrupt { store: NAME, why }
}

fn their_id(id: StoreId) -> Id {
    let mut half = [0; 16];
    half.copy_from_slice(&id.as_bytes()[..16]);
    Id(i128::from_be_bytes(half))
}

/// Returns the tower-sessions record that contains `record`.
fn theirs(id: StoreId, record: &Record) -> Theirs {
    let text = format!(
        r#"{{"verifier":"{}","created":{},"last_seen":{},"expires":{},"version":{},"user":{},"values":{}}}"#,
        record.verifier.to_text(),
        record.created.millis(),
        record.last_seen.millis(),
        record.expires.millis(),
        record.version,
        record.user.as_deref().map_or("null".into(), values::quoted),
        values::object(record.entries.iter(), &[]),
    );
    let seconds = record.expires.millis().div_ceil(1_000) + MARGIN;
    // A time beyond the range of dates (a timeout that never ends) becomes the latest date.
    let seconds = time::Duration::seconds(seconds.try_into().unwrap_or(i64::MAX));
    Theirs {
        id: their_id(id),
        data: [(KEY.to_owned(), text.into())].into(),
        expiry_date: OffsetDateTime::UNIX_EPOCH.saturating_add(seconds),
    }
}

#[derive(Deserialize)]
struct Stored {
    verifier: String,
    created: u64,
    last_seen: u64,
    expires: u64,
    version: u64,
    user: Option<String>,
    #[serde(deserialize_with = "values::deserialize")]
    values: Entries,
}

/// Decodes the record inside a tower-sessions record.
fn read(theirs: Theirs) -> Result<Record, StoreError> {
    // Must be the only key, because saving would lose the others.
    let text = theirs.data.get(KEY).filter(|_| theirs.data.len() == 1);
    let text = text.and_then(|text| text.as_str());
    let text = text.ok_or(corrupt("its data is not a single string"))?;
    let stored: Stored =
        serde_json::from_str(text).map_err(|_| corrupt("its string is not a valid record"))?;
    let verifier =
        Verifier::parse(&stored.verifier).ok_or(corrupt("its verifier does not have 32 bytes"))?;
    let mut record = Record::new(
        Timestamp::from_millis(stored.created),
        Timestamp::from_millis(stored.expires),
        stored.values,
    );
    record.last_seen = Timestamp::from_millis(stored.last_seen);
    record.verifier = verifier;
    record.version = stored.version;
    record.user = stored.user.map(Arc::from);
    Ok(record)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;
    use tower_sessions_core::session_store;
    use tower_sessions_memory_store::MemoryStore;

    use super::*;
    use crate::expiry::Clock;

    /// A memory store whose next save hangs if `hangs` is set.
    #[derive(Clone, Debug, Default)]
    struct Hanging {
        store: MemoryStore,
        hangs: Arc<AtomicBool>,
    }

    #[async_trait]
    impl SessionStore for Hanging {
        async fn save(&self, record: &Theirs) -> session_store::Result<()> {
            if self.hangs.swap(false, Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            self.store.save(record).await
        }

        async fn load(&self, id: &Id) -> session_store::Result<Option<Theirs>> {
            self.store.load(id).await
        }

        async fn delete(&self, id: &Id) -> session_store::Result<()> {
            self.store.delete(id).await
        }
    }

    #[tokio::test]
    async fn a_call_that_never_ends_is_given_up_and_its_session_goes_on() {
        let theirs = Hanging::default();
        let hangs = Arc::clone(&theirs.hangs);
        let store = TowerStore::with_patience(theirs, Duration::from_millis(50));
        let now = Clock::default().now();
        let id = StoreId::from_bytes([7; 32]);
        let write = Write::touch(Verifier::NONE, now, now, now.plus(PATIENCE));
        assert_eq!(store.create(id, &write).await.ok(), Some(true));
        hangs.store(true, Ordering::SeqCst);
        let given_up = tokio::time::timeout(PATIENCE, store.apply(id, &write)).await;
        let given_up = given_up.expect("the call is cancelled");
        assert!(
            matches!(given_up, Err(StoreError::TimedOut { millis: 50, .. })),
            "{given_up:?}"
        );
        assert_eq!(store.apply(id, &write).await.ok(), Some(Applied::Done));
        hangs.store(true, Ordering::SeqCst);
        let broken_off = store.apply(id, &write);
        let broken_off = tokio::time::timeout(Duration::from_millis(10), broken_off).await;
        assert!(broken_off.is_err());
        assert_eq!(store.apply(id, &write).await.ok(), Some(Applied::Done));
    }
}
