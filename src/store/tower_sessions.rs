//! Sessions in a store of tower-sessions.
//!
//! Their record holds this crate's whole one in one string of its `data`:
//!
//! ```text
//! "session-manager": {"holder":"base64url","created":1,"seen":1,"expires":2,"version":1,
//!                     "user":"ada","values":{"name":"tAda","age":"j36"}}
//! ```
//!
//! A string, because that comes back to the byte from a store of JSON, MessagePack, BSON or columns,
//! where numbers, NULs and odd keys may not. The values are written as in SQL (`values`).

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
        id::{Holder, StoreId},
    },
    store::{Store, StoreError},
};

const NAME: &str = "tower-sessions";
/// The one key of their record.
const KEY: &str = "session-manager";
/// Enough that requests of different sessions rarely wait for one another.
const LOCKS: usize = 1_024;
/// How long a call goes on that nobody waits for any more.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much longer their record lives than the session, so that what is stored decides, and no
/// clock's pace.
const MARGIN: u64 = 60;

/// Keeps sessions in any store of [tower-sessions](https://docs.rs/tower-sessions): whatever
/// implements the [`SessionStore`] of tower-sessions-core 0.15.
///
/// ```
/// use session_manager::{Manager, ServerSide, TowerStore};
/// use tower_sessions_memory_store::MemoryStore;
///
/// let manager = Manager::new(ServerSide::new(TowerStore::new(MemoryStore::default())));
/// assert_eq!(manager.engine(), "tower-sessions");
/// ```
///
/// At the time of writing, their stores for Redis, SQL and moka are still for 0.14: `Tower014` (the
/// feature `tower-sessions-0-14`) takes those, and passes the suite over Redis, SQLite and moka.
///
/// It is for applications that have such a store: one of this crate's own costs less and promises
/// more. Theirs can only replace whole records, so what this crate promises is kept by one write at a
/// time for each session, in one process, where all use this value and its clones:
///
/// | | in one process | in several, or in two values over one store |
/// |---|---|---|
/// | no update is lost, `update` counts every one | yes | no: of two writes that overlap, one may undo the other |
/// | logging out wins every race | yes | no: a write that overlaps it may bring the session back |
/// | a renewal stands | yes | no: a write that overlaps it may bring the old cookie back |
/// | all of that for calls that do not overlap | yes | yes |
/// | an id that it did not make is never adopted | yes | yes |
/// | the store sees only hashes of an id and of its secret | yes | yes |
/// | a live session is never overwritten by a new one | yes | if their `create` looks, and draws another id or fails; some only save |
/// | what is stored comes back to the byte | yes | yes |
/// | no session is served past its time | yes | yes |
/// | calls of their store: opening | 1 | 1 |
/// | a new session; a write, renewals and touches among them | 2, and all of the session is sent | 2 |
/// | logging out | 1 | 1 |
/// | a time limit for every call | yes | yes |
/// | [a user's sessions](crate::Manager::user_sessions) are found | no: their trait has no way | no |
///
/// So a request that writes asks their store three times. A call that its request no longer waits
/// for, because it broke off or its time was over, goes on alone for up to 30 seconds, and those for
/// the same session (and one other in a thousand) wait for it: what it was about to save cannot come
/// after a logout. A call that hangs for longer is given up; if their store saves after all, that may
/// undo what came between.
///
/// Give it a store of its own: a table, prefix or database where nothing else keeps sessions, least
/// of all a `SessionManagerLayer`. To that layer the id of a record is the whole cookie, and ids are
/// no secret here. What is no record of this crate is [`StoreError::Spoiled`], and left alone.
///
/// Their id has 128 bits: the first half of the [`StoreId`], which is a SHA-256 of 128 random bits,
/// so that no two sessions ever share one. Whoever reads the store has half a hash there, and a
/// [`Holder`]: nothing that opens a session.
///
/// Their stores drop a record by the system's clock, a minute after its time. If a
/// [`clock`](crate::Builder::clock) is set for a test, let it begin at the real time.
pub struct TowerStore<S>(Arc<Inner<S>>);

struct Inner<S> {
    store: S,
    /// Each session has one, which others share. Opening a session takes it for reading: a
    /// `CachingSessionStore` writes when it is read.
    locks: Box<[Arc<RwLock<()>>]>,
    patience: Duration,
}

impl<S: SessionStore> TowerStore<S> {
    /// Keeps sessions in `store`.
    ///
    /// ```
    /// use session_manager::TowerStore;
    /// use tower_sessions_memory_store::MemoryStore;
    ///
    /// let store = TowerStore::new(MemoryStore::default());
    /// let same = store.clone(); // and not `new` again, whose calls would not wait for this one's
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

    /// Runs `call` to its end, and lets go of `guard` then: in a task of its own, because whoever
    /// waits for it may stop waiting at any time, and what was sent to a store by then is still on
    /// its way. Were the lock free meanwhile, a logout could be overtaken by an earlier save.
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
            // Their store panicked, or the runtime ends.
            Err(error) => Err(StoreError::failed(NAME, error)),
        }
    }
}

impl<S: SessionStore> Inner<S> {
    async fn load(&self, id: StoreId) -> Result<Option<Record>, StoreError> {
        match self.store.load(&their_id(id)).await {
            Ok(found) => found.map(read).transpose(),
            Err(Error::Decode(_)) => Err(spoiled("their store cannot decode it")),
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
        // They found the id taken after all, and drew another, under which nobody would look.
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

/// Another handle of the same store.
impl<S> Clone for TowerStore<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Not their store, some of which would show every session.
impl<S> fmt::Debug for TowerStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TowerStore").finish_non_exhaustive()
    }
}

fn failed(error: Error) -> StoreError {
    StoreError::failed(NAME, error)
}

fn spoiled(why: &'static str) -> StoreError {
    StoreError::Spoiled { store: NAME, why }
}

fn their_id(id: StoreId) -> Id {
    let mut half = [0; 16];
    half.copy_from_slice(&id.as_bytes()[..16]);
    Id(i128::from_be_bytes(half))
}

/// What they store of a record.
fn theirs(id: StoreId, record: &Record) -> Theirs {
    let text = format!(
        r#"{{"holder":"{}","created":{},"seen":{},"expires":{},"version":{},"user":{},"values":{}}}"#,
        record.holder.to_text(),
        record.created.millis(),
        record.seen.millis(),
        record.expires.millis(),
        record.version,
        record.user.as_deref().map_or("null".into(), values::quoted),
        values::object(record.entries.iter(), &[]),
    );
    let seconds = record.expires.millis().div_ceil(1_000) + MARGIN;
    // What is too late for a date (a timeout that never ends) is as late as can be.
    let seconds = time::Duration::seconds(seconds.try_into().unwrap_or(i64::MAX));
    Theirs {
        id: their_id(id),
        data: [(KEY.to_owned(), text.into())].into(),
        expiry_date: OffsetDateTime::UNIX_EPOCH.saturating_add(seconds),
    }
}

#[derive(Deserialize)]
struct Stored {
    holder: String,
    created: u64,
    seen: u64,
    expires: u64,
    version: u64,
    user: Option<String>,
    #[serde(deserialize_with = "values::deserialize")]
    values: Entries,
}

/// The record that was stored so.
fn read(theirs: Theirs) -> Result<Record, StoreError> {
    // Alone, because saving would lose what stands beside it.
    let text = theirs.data.get(KEY).filter(|_| theirs.data.len() == 1);
    let text = text.and_then(|text| text.as_str());
    let text = text.ok_or(spoiled("its data is not the one string of a record"))?;
    let stored: Stored =
        serde_json::from_str(text).map_err(|_| spoiled("its string is no record"))?;
    let holder = Holder::parse(&stored.holder).ok_or(spoiled("a holder has no 32 bytes"))?;
    let mut record = Record::new(
        Timestamp::from_millis(stored.created),
        Timestamp::from_millis(stored.expires),
        stored.values,
    );
    record.seen = Timestamp::from_millis(stored.seen);
    record.holder = holder;
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

    /// Memory whose next save never ends, if it is told so.
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
        let write = Write::touch(Holder::NOBODY, now, now, now.plus(PATIENCE));
        assert_eq!(store.create(id, &write).await.ok(), Some(true));
        hangs.store(true, Ordering::SeqCst);
        let given_up = tokio::time::timeout(PATIENCE, store.apply(id, &write)).await;
        let given_up = given_up.expect("it is given up");
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
