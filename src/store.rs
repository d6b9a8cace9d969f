//! What a store does: it keeps the records of server-side sessions.

use std::{fmt, sync::Arc};

pub use crate::{
    changes::write::{Applied, Write},
    record::{
        Record,
        entries::Entries,
        id::{StoreId, Verifier},
    },
    value::Value,
};
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
#[cfg_attr(
    docsrs,
    doc(cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite")))
)]
pub use sql::SweepHandle;

pub use self::{
    endings::Endings,
    reservation::{Reservation, UserLimit},
};

#[cfg(feature = "server-side")]
use crate::observer::CallOutcome;
use crate::{error::Error, expiry::Timestamp, future::BackendFuture};

#[cfg(feature = "encrypted")]
pub(crate) mod encrypted;
#[cfg_attr(
    not(feature = "server-side"),
    allow(dead_code, reason = "only a server-side backend takes reports")
)]
pub(crate) mod endings;
#[cfg(feature = "server-side")]
pub(crate) mod limit;
#[cfg(feature = "memory")]
pub(crate) mod memory;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod reservation;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub(crate) mod sql;
#[cfg(feature = "tower-sessions")]
pub(crate) mod tower_sessions;
#[cfg(any(
    feature = "postgres",
    feature = "mysql",
    feature = "sqlite",
    feature = "tower-sessions"
))]
mod values;

/// Keeps the records of server-side sessions; [`ServerSide`](crate::ServerSide) makes a backend of
/// it.
///
/// Each method is one step that no other step on the same record comes between, and should be one
/// round trip. A store knows nothing of cookies, flash messages or timeouts: a record ends at
/// [`Record::expires`], and from then on it is as good as gone, whether or not its row is still
/// there. The moment that counts as present is the one that a call passes, never the store's own.
///
/// A whole store, and the suite that it passes (feature `testing`):
///
/// ```
/// use std::{collections::HashMap, sync::Mutex};
/// use session_manager::{Store, StoreError, Timestamp};
/// use session_manager::store::{Applied, Record, StoreId, Write};
///
/// #[derive(Default)]
/// struct MapStore(Mutex<HashMap<StoreId, Record>>);
///
/// impl Store for MapStore {
///     fn name(&self) -> &'static str {
///         "map"
///     }
///
///     async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
///         let records = self.0.lock().unwrap();
///         Ok(records.get(&id).filter(|record| now < record.expires).cloned())
///     }
///
///     async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
///         let mut records = self.0.lock().unwrap();
///         if records.get(&id).is_some_and(|record| write.now < record.expires) {
///             return Ok(false);
///         }
///         records.insert(id, write.to_record());
///         Ok(true)
///     }
///
///     async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
///         let mut records = self.0.lock().unwrap();
///         Ok(records.get_mut(&id).map_or(Applied::Gone, |record| record.apply(write)))
///     }
///
///     async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
///         self.0.lock().unwrap().remove(&id);
///         Ok(())
///     }
/// }
/// # #[cfg(feature = "testing")] {
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(async {
/// session_manager::testing::check_store(MapStore::default()).await;
/// # });
/// # }
/// ```
pub trait Store: Send + Sync + 'static {
    /// Returns the name of the store for people, such as `Redis`.
    fn name(&self) -> &'static str;

    /// Returns `true` if [`load`](Self::load) never waits, as in a store in this process's memory:
    /// its future must be ready at the first poll.
    ///
    /// The session is then opened when a handler asks for it, and not before the handler runs. A
    /// request that does not use its session asks the store nothing, and does not move the session's
    /// idle timeout. The default is `false`.
    fn answers_at_once(&self) -> bool {
        false
    }

    /// Returns the whole record under `id`.
    ///
    /// `None` if there is no record or it has expired at `now`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the store holds something else under that id; it is left as
    /// it is.
    fn load(
        &self,
        id: StoreId,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send;

    /// Puts a new record under `id`: [`Write::to_record`].
    ///
    /// `false` if a live record is there already, which then stays as it is: ids are drawn from 128
    /// random bits, so a second one is no accident. One whose time is over may be replaced.
    fn create(
        &self,
        id: StoreId,
        write: &Write,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Merges `write` into the record under `id`: each key on its own, a key's value replaced
    /// whole. Keys that `write` does not name keep what the last write gave them.
    ///
    /// Never creates a record: if there is none, or it has expired, returns [`Applied::Gone`]. A
    /// session that was destroyed stays destroyed, whatever was still in flight. A record that
    /// answers to another than [`Write::verifier`] was renewed meanwhile, and is as good as gone:
    /// that comes before [`Applied::Conflict`].
    ///
    /// A renewal is a write with a [`Write::new_verifier`]. The record stays where it is, and
    /// destroying it ends the renewed session too.
    fn apply(
        &self,
        id: StoreId,
        write: &Write,
    ) -> impl Future<Output = Result<Applied, StoreError>> + Send;

    /// Removes the record under `id`, whatever its verifier is by now. Does nothing if there is none.
    fn destroy(&self, id: StoreId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Returns what finds and ends a user's sessions, if this store has it.
    fn users(&self) -> Option<&dyn UserIndex> {
        None
    }

    /// Reports every record that is destroyed, in this process or another one, to `endings`, until
    /// it is dropped.
    ///
    /// [`Session::ended`](crate::Session::ended) needs it. It is called once per
    /// [`ServerSide`](crate::ServerSide), while at least one session is awaited. It calls
    /// [`Endings::complete`] when no later end can be missed. A record whose time is over, and one
    /// that is renewed, need no report.
    ///
    /// The default returns `Ok` at once: the store cannot tell, and sessions that are awaited are
    /// loaded at an interval.
    ///
    /// # Errors
    ///
    /// If reports may be missing from now on, such as after a lost connection. It is then called
    /// again; meanwhile sessions are loaded at an interval.
    fn watch_ended(
        &self,
        endings: &Endings,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        let _ = endings;
        std::future::ready(Ok(()))
    }
}

/// Finds and ends the sessions of a user: an ability that not every store has.
///
/// A user may have so many sessions, and such large ones, that no single call is done in time.
/// Lists therefore come in pages, and no method loads a value. How long a page is, the index
/// decides: short enough that a call on it is done within the time limit of a store call. A list
/// goes from page to page until [`Page::next`] is `None`; a session that is there all the while is
/// found at least once, whatever else begins or ends meanwhile.
pub trait UserIndex: Send + Sync {
    /// Returns a page of the live records whose [`Record::user`] is `user`, found by an index and
    /// not by a scan.
    ///
    /// `from` is empty, or the [`Page::next`] of the page before.
    ///
    /// A session is found from the write on that set its user, until it is destroyed, its time is
    /// over or another user is set.
    ///
    /// # Errors
    ///
    /// As [`Store::load`].
    fn sessions_of<'a>(
        &'a self,
        user: &'a str,
        from: &'a [u8],
        now: Timestamp,
    ) -> BackendFuture<'a, Result<Page<SessionSummary>, StoreError>>;

    /// Returns a page of the ids of all records of `user` that are stored, whether or not their
    /// time is over.
    ///
    /// # Errors
    ///
    /// As [`Store::load`].
    fn ids_of<'a>(
        &'a self,
        user: &'a str,
        from: &'a [u8],
    ) -> BackendFuture<'a, Result<Page<StoreId>, StoreError>>;

    /// Removes those of the records under `ids` whose [`Record::user`] is `user`, and returns how
    /// many it removed. Each check and its removal are one step.
    ///
    /// `ids` is at most as long as a page.
    ///
    /// # Errors
    ///
    /// As [`Store::load`]. Some may have been removed by then.
    fn destroy_of<'a>(
        &'a self,
        user: &'a str,
        ids: &'a [StoreId],
    ) -> BackendFuture<'a, Result<usize, StoreError>>;

    /// Returns what limits how many sessions a user has, if this store has it. Reservations are
    /// listed and destroyed as the sessions are.
    fn limit(&self) -> Option<&dyn UserLimit> {
        None
    }
}

/// How many sessions a page has as a rule. A hundred records of a megabyte each are deleted within
/// a second in every database (`tests/stores/user_sessions.rs`).
#[cfg(any(
    feature = "memory",
    feature = "redis",
    feature = "postgres",
    feature = "mysql",
    feature = "sqlite"
))]
const PAGE: usize = 100;

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items of this part.
    pub items: Vec<T>,
    /// What the next call passes to get the part after it; its form is the index's own. `None`
    /// after the last part.
    pub next: Option<Vec<u8>>,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        let (items, next) = (Vec::new(), None);
        Self { items, next }
    }
}

#[cfg(any(
    feature = "memory",
    feature = "postgres",
    feature = "mysql",
    feature = "sqlite"
))]
impl Page<StoreId> {
    /// Returns a page of a list that is in the order of ids.
    fn in_order(items: Vec<StoreId>) -> Self {
        let last = items.last().filter(|_| items.len() >= PAGE);
        let next = last.map(|last| last.as_bytes().to_vec());
        Self { items, next }
    }
}

/// What a list of a user's sessions shows of one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionSummary {
    /// The record's id.
    pub id: StoreId,
    /// [`Record::created`].
    pub created: Timestamp,
    /// [`Record::last_seen`].
    pub last_seen: Timestamp,
    /// [`Record::expires`].
    pub expires: Timestamp,
    /// What [`Session::set_note`](crate::Session::set_note) noted.
    pub note: Option<String>,
}

impl SessionSummary {
    /// The session key of the note.
    pub const NOTE: &str = "\u{2}note";

    /// Returns the summary of a record under `id`, of which no value but the
    /// [note](Self::NOTE) is looked at.
    ///
    /// ```
    /// use session_manager::{Timestamp, store::{Entries, Record, SessionSummary, StoreId, Value}};
    ///
    /// let (now, later) = (Timestamp::from_millis(1_000), Timestamp::from_millis(2_000));
    /// let entries: Entries = [(SessionSummary::NOTE, Value::Text("laptop"))].into_iter().collect();
    /// let record = Record::new(now, later, entries);
    /// let summary = SessionSummary::of(StoreId::from_bytes([7; 32]), &record);
    /// assert_eq!(summary.note.as_deref(), Some("laptop"));
    /// ```
    pub fn of(id: StoreId, record: &Record) -> Self {
        let note = record.entries.get(Self::NOTE);
        Self {
            id,
            created: record.created,
            last_seen: record.last_seen,
            expires: record.expires,
            note: note.map(|note| note.as_str().to_owned()),
        }
    }
}

/// Why a store could not do what it was asked.
///
/// `Debug` prints the same text as `Display`, followed by the sources: it is what `main` prints
/// when it returns an error.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store does not answer, or answers with an error of its own.
    #[error("{store} failed; see the source of this error, and whether the store is up")]
    Failed {
        /// [`Store::name`].
        store: &'static str,
        /// What its client said.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The store cannot be reached with this url or these settings, whether or not it is up.
    #[error("{store} cannot be used with these settings: {why}")]
    Config {
        /// [`Store::name`].
        store: &'static str,
        /// What is wrong, and what to do. Shows no password.
        why: Arc<str>,
    },
    /// The store took longer than it may.
    #[error("{store} did not answer within {millis} ms; see whether it is up, or allow it more")]
    TimedOut {
        /// [`Store::name`].
        store: &'static str,
        /// The time limit in milliseconds.
        millis: u64,
    },
    /// The store holds something that this crate did not write. It was left as it is.
    #[error(
        "{store} holds something under a session's key that session-manager did not write: {why}"
    )]
    Corrupt {
        /// [`Store::name`].
        store: &'static str,
        /// In which way.
        why: &'static str,
    },
}

impl StoreError {
    /// Creates [`StoreError::Failed`] from the error of the store's client.
    pub fn failed(
        store: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Failed {
            store,
            source: Arc::new(source),
        }
    }

    /// Returns what observers are told of the call.
    #[cfg(feature = "server-side")]
    pub(crate) fn outcome(&self) -> CallOutcome {
        match self {
            Self::Failed { .. } | Self::Config { .. } => CallOutcome::Failed,
            Self::TimedOut { .. } => CallOutcome::TimedOut,
            Self::Corrupt { .. } => CallOutcome::Corrupt,
        }
    }

    /// Creates [`StoreError::Config`]: a url or another setting of `store` is wrong, and `why` says
    /// what to do.
    pub fn config(store: &'static str, why: impl Into<Arc<str>>) -> Self {
        let why = why.into();
        Self::Config { store, why }
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut next = std::error::Error::source(self);
        while let Some(source) = next {
            write!(f, ": {source}")?;
            next = source.source();
        }
        Ok(())
    }
}

/// Returns the text for a url that begins with none of the schemes `expected`. A url may hold a
/// password, so only a scheme that another store takes is quoted.
#[cfg(any(
    feature = "redis",
    feature = "postgres",
    feature = "mysql",
    feature = "sqlite"
))]
fn wrong_scheme(url: &str, expected: &[&str]) -> String {
    let stores = [
        ("RedisStore", &["redis", "rediss", "valkey", "valkeys"][..]),
        ("PostgresStore", &["postgres", "postgresql"]),
        ("MySqlStore", &["mysql", "mariadb"]),
        ("SqliteStore", &["sqlite"]),
    ];
    let scheme = url.split([':', '+']).next().unwrap_or_default();
    let other = stores.iter().find_map(|(store, schemes)| {
        let known = schemes.iter().find(|known| **known == scheme)?;
        Some(format!(", and `{known}:` is a url for `{store}`"))
    });
    let expected = expected.join("` or `");
    format!(
        "the url has to begin with `{expected}`{}",
        other.unwrap_or_default()
    )
}

impl From<StoreError> for Error {
    fn from(error: crate::store::StoreError) -> Self {
        Self::unavailable(error)
    }
}
