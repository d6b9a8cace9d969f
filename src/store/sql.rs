//! Sessions in an SQL database: what is the same in all of them. Each module below holds what is
//! not.
//!
//! No write of a request moves an index entry: rows are found for sweeping by `sweep_at`, which stays
//! while `expires` moves on. A sweep brings the rows up to date that it comes across.
//!
//! One row is one record; its values are one JSON object of strings (see [`values`]), into which
//! the database merges a write, so that a statement carries only what changed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};
use sqlx::{Pool, SqlStr, error::DatabaseError};
use tokio::time;

use self::{
    driver::{Arg, Driver, Row},
    pool::{Lost, Pools, Trouble, trouble},
    statements::{Assigned, Statements, Values, column, record, stored_id},
};
use super::{PAGE, values};
use crate::{
    changes::write::{Applied, Write},
    expiry::{Clock, Timestamp},
    record::{
        Record,
        id::{StoreId, Verifier},
    },
    store::{Endings, Page, SessionSummary, StoreError},
};

mod driver;
#[cfg(feature = "mysql")]
pub(crate) mod mysql;
mod pool;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
mod public;
mod reserve;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;
mod statements;
mod sweep;

pub use sweep::SweepHandle;

/// How many rows one statement of a sweep deletes at most: few, because a write waits for the whole
/// statement in SQLite, and for its locks in the others.
const SWEEP_BATCH: u64 = 100;
/// How long starting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// What differs from one database to another.
pub(crate) trait Dialect: Driver {
    /// As [`Store::name`](crate::Store::name).
    const NAME: &'static str;
    /// A parameter that is the text of a JSON object.
    const OBJECT: &'static str = "?";
    /// `data` with such a parameter merged into it; a key whose value is `null` goes.
    const MERGED: &'static str;
    /// `data` as text.
    const DATA_TEXT: &'static str = "data";
    /// The text of a session's note in `data`, or NULL.
    const NOTE: &'static str;
    /// The function that returns the least of its arguments.
    const LEAST: &'static str = "LEAST";

    /// The statement that begins the transaction in which the table is created.
    const BEGIN: &'static str = "BEGIN";

    /// What stands in an `INSERT` before the columns to set if there is a row of that id.
    const OR_UPDATE: &'static str = "ON CONFLICT (id) DO UPDATE SET";

    /// Whether a connection can be lost without an error.
    const HAS_NETWORK: bool = true;

    /// Returns `sql` with the database's own placeholders instead of `?`.
    fn placeholders(sql: String) -> String {
        sql
    }

    /// Returns the statements that create the table and its indexes if they are missing, for one
    /// transaction.
    fn schema(table: &str) -> Vec<String>;

    /// Returns two statements on the `batch` rows with the least `sweep_at`, if that is at most the
    /// first parameter. The first deletes those whose `expires` is at most the second parameter; the
    /// other sets `sweep_at` to `expires` in those whose `expires` is later than it.
    fn sweep(table: &str, batch: u64) -> [String; 2];

    /// Creates the pools for a url.
    fn pools(url: &str, lost: &Lost) -> Result<Pools<Self::Db>, sqlx::Error>;

    /// Returns what to do about an error that comes from the settings of `pool`.
    fn advice(pool: &Pool<Self::Db>, error: &dyn DatabaseError) -> Option<String> {
        let _ = (pool, error);
        None
    }

    /// Returns what an error of the database means.
    fn trouble(error: &dyn DatabaseError) -> Trouble;

    /// Deletes the rows for which `filter` holds, which were not expired as a rule, and reports
    /// them in the same statement if the database can.
    fn destroy(table: &str, filter: &str) -> String {
        format!("DELETE FROM {table} WHERE {filter}")
    }

    /// As [`Store::watch_ended`](crate::Store::watch_ended).
    fn watch_ended(
        store: &SqlStore<Self>,
        endings: &Endings,
    ) -> impl Future<Output = Result<(), StoreError>> + Send
    where
        Self: Sized,
    {
        let _ = (store, endings);
        std::future::ready(Ok(()))
    }
}

/// Returns an error unless `url` begins with one of `schemes`; `sqlx` does not check.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn check_scheme(url: &str, schemes: &[&str]) -> Result<(), sqlx::Error> {
    if schemes.iter().any(|scheme| url.starts_with(scheme)) {
        Ok(())
    } else {
        Err(sqlx::Error::Configuration(
            super::wrong_scheme(url, schemes).into(),
        ))
    }
}

/// Why a table name is refused that would have to be quoted, or that is too long for an index of some
/// database.
const INVALID_TABLE: &str =
    "a table's name is 1 to 48 lower-case letters, digits and `_`, and begins with no digit";

pub(crate) struct SqlStore<D: Dialect> {
    pools: Pools<D::Db>,
    lost: Lost,
    statements: Arc<Statements>,
}

impl<D: Dialect> Clone for SqlStore<D> {
    fn clone(&self) -> Self {
        Self {
            pools: self.pools.clone(),
            lost: self.lost.clone(),
            statements: Arc::clone(&self.statements),
        }
    }
}

impl<D: Dialect> SqlStore<D> {
    pub(crate) fn open(url: &str) -> Result<Self, StoreError> {
        let lost = Lost::default();
        Ok(Self {
            pools: D::pools(url, &lost).map_err(Self::refused)?,
            lost,
            statements: Arc::new(Statements::new::<D>("sessions")),
        })
    }

    pub(crate) fn from_pool(pool: Pool<D::Db>) -> Self {
        let lost = Lost::of_shared_pool();
        Self {
            pools: Pools::one(pool, &lost),
            lost,
            statements: Arc::new(Statements::new::<D>("sessions")),
        }
    }

    pub(crate) fn with_table(mut self, name: &str) -> Result<Self, StoreError> {
        let is_name = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        if !(1..=48).contains(&name.len())
            || !name.bytes().all(is_name)
            || name.starts_with(|first: char| first.is_ascii_digit())
        {
            return Err(StoreError::config(D::NAME, INVALID_TABLE));
        }
        self.statements = Arc::new(Statements::new::<D>(name));
        Ok(self)
    }

    pub(crate) fn table(&self) -> &str {
        &self.statements.table
    }

    pub(crate) async fn connect(&self) -> Result<(), StoreError> {
        let connected = time::timeout(CONNECT_LIMIT, async {
            self.repeat(true, || D::reach(&self.pools.writes.pool))
                .await?;
            self.migrate().await
        });
        connected.await.unwrap_or(Err(StoreError::TimedOut {
            store: D::NAME,
            millis: 5_000,
        }))
    }

    pub(crate) async fn migrate(&self) -> Result<(), StoreError> {
        // Before anything else, because a role that may create nothing may not ask for it either.
        if self.fetch(&self.statements.probe, &[]).await.is_ok() {
            return Ok(());
        }
        self.repeat(true, || {
            D::transact(&self.pools.writes, &self.statements.schema)
        })
        .await?;
        self.fetch(&self.statements.probe, &[]).await.map(drop)
    }

    pub(crate) async fn load(
        &self,
        id: StoreId,
        now: Timestamp,
    ) -> Result<Option<Record>, StoreError> {
        let args = [Arg::Bytes(id.as_bytes()), Arg::Int(column(now.millis()))];
        let rows = self.fetch(&self.statements.load, &args).await?;
        let found = rows.into_iter().next().map(record::<D>).transpose()?;
        Ok(found.map(|(_, record)| record))
    }

    pub(crate) async fn sessions_of(
        &self,
        user: &str,
        from: &[u8],
        now: Timestamp,
    ) -> Result<Page<SessionSummary>, StoreError> {
        let hash = Sha256::digest(user);
        let args = [Arg::Bytes(&hash), Arg::Bytes(from)];
        let rows = self.fetch(&self.statements.sessions_of, &args).await?;
        let last = rows.last().filter(|_| rows.len() >= PAGE);
        let next = last.map(|row| row.id.clone());
        let summaries = rows.into_iter().filter_map(|mut row| {
            let note = values::note(std::mem::replace(&mut row.data, "{}".into()));
            // One row that another program corrupt hides no other session.
            let (id, record) = record::<D>(row).ok()?;
            let mut summary = SessionSummary::of(id, &record);
            summary.note = note;
            (now < summary.expires).then_some(summary)
        });
        Ok(Page {
            items: summaries.collect(),
            next,
        })
    }

    pub(crate) async fn ids_of(
        &self,
        user: &str,
        from: &[u8],
    ) -> Result<Page<StoreId>, StoreError> {
        let hash = Sha256::digest(user);
        let args = [Arg::Bytes(&hash), Arg::Bytes(from)];
        let sql = &self.statements.ids_of;
        let run = || D::fetch_ids(&self.pools.reads, sql.clone(), &args);
        let ids = self.repeat(true, run).await?;
        let ids = ids.into_iter().map(stored_id::<D>);
        Ok(Page::in_order(ids.collect::<Result<_, _>>()?))
    }

    pub(crate) async fn destroy_of(
        &self,
        user: &str,
        ids: &[StoreId],
    ) -> Result<usize, StoreError> {
        let hash = Sha256::digest(user);
        let mut count = 0;
        for ids in ids.chunks(PAGE) {
            let (sql, len) = match ids.len() {
                1 => (&self.statements.destroy_of[0], 1),
                _ => (&self.statements.destroy_of[1], PAGE),
            };
            // A shorter page names its last record again, so that one statement is prepared for
            // all.
            let last = std::iter::repeat(&ids[ids.len() - 1]);
            let ids = ids.iter().chain(last).take(len);
            let ids = ids.map(|id| Arg::Bytes(id.as_bytes()));
            let args: Vec<_> = std::iter::once(Arg::Bytes(&hash)).chain(ids).collect();
            count += self.execute(sql, &args, true).await?;
        }
        Ok(count.try_into().unwrap_or(usize::MAX))
    }

    pub(crate) async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        let data = values::object(write.values(), &[]);
        let user = write.user.as_deref().map(str::as_bytes);
        let hash = user.map(Sha256::digest);
        let key = Arg::Bytes(id.as_bytes());
        let now = Arg::Int(column(write.now.millis()));
        let expires = Arg::Int(column(write.expires.millis()));
        let args = [
            key,
            Arg::Bytes(write.verifier.as_bytes()),
            Arg::Int(column(write.created.millis())),
            Arg::Text(&data),
            now,
            expires,
            expires,
            Arg::BytesOrNull(user),
            Arg::BytesOrNull(hash.as_deref()),
        ];
        let create = async || self.insert(&self.statements.create, &args).await;
        if create().await? {
            return Ok(true);
        }
        // The id is taken: collisions do not happen by chance. If by a row that is expired
        // any more, it may go.
        let over = self
            .execute(&self.statements.destroy_over, &[key, now], true)
            .await?;
        Ok(over > 0 && create().await?)
    }

    pub(crate) async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        let (values, data) = match (write.is_touch(), write.clear) {
            (true, _) => (Values::Stay, String::new()),
            (false, true) => (Values::Replace, values::object(write.values(), &[])),
            (false, false) => (Values::Merge, values::object(write.values(), &write.remove)),
        };
        let user = write.user.as_deref().map(str::as_bytes);
        let hash = user.map(Sha256::digest);
        let key = Arg::Bytes(id.as_bytes());
        let now = Arg::Int(column(write.now.millis()));
        let expires = Arg::Int(column(write.expires.millis()));
        let new_verifier = write.new_verifier.as_ref().map(Verifier::as_bytes);
        let created = new_verifier.map(|_| column(write.created.millis()));
        // If another request moved the expiry meanwhile, a row may be swept later than it expires.
        let assigned = Assigned {
            values,
            user: user.is_some(),
            sweep_at: write.seen_expires.is_none_or(|seen| write.expires < seen),
        };
        let mut args = Vec::with_capacity(12);
        if !matches!(values, Values::Stay) {
            args.push(Arg::Text(&data));
        }
        if assigned.user {
            args.extend([user, hash.as_deref()].map(Arg::BytesOrNull));
        }
        if assigned.sweep_at {
            args.push(expires);
        }
        args.extend([
            now,
            expires,
            Arg::BytesOrNull(new_verifier.map(|verifier| &verifier[..])),
            Arg::IntOrNull(created),
            key,
            Arg::Bytes(write.verifier.as_bytes()),
            now,
            Arg::IntOrNull(write.if_version.map(column)),
        ]);
        let apply = self.statements.apply(assigned);
        if self.execute(apply, &args, false).await? > 0 {
            return Ok(Applied::Done);
        }
        if write.if_version.is_none() {
            return Ok(Applied::Gone);
        }
        let live = self.fetch(&self.statements.is_live, &[key, now]).await?;
        Ok(match live.as_slice() {
            [row, ..]
                if row.verifier == write.verifier.as_bytes()
                    && Some(row.version) != write.if_version.map(column) =>
            {
                Applied::Conflict
            }
            _ => Applied::Gone,
        })
    }

    pub(crate) async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
        let args = [Arg::Bytes(id.as_bytes())];
        self.execute(&self.statements.destroy, &args, true).await?;
        Ok(())
    }

    pub(crate) async fn sweep(&self) -> Result<u64, StoreError> {
        let now = Arg::Int(column(Clock::default().now().millis()));
        let [delete, postpone] = &self.statements.sweep;
        let mut swept = 0;
        loop {
            let begun = Instant::now();
            let deleted = self.execute(delete, &[now, now], true).await?;
            // The rows of the batch that were used since are not looked at again before they expire.
            let postponed = self.execute(postpone, &[now, now], true).await?;
            swept += deleted;
            if deleted + postponed < SWEEP_BATCH {
                return Ok(swept);
            }
            // Half of the time belongs to the requests.
            time::sleep(begun.elapsed()).await;
        }
    }

    /// Runs a statement that inserts a row, and says whether it did; not if the id is taken.
    async fn insert(&self, sql: &SqlStr, args: &[Arg<'_>]) -> Result<bool, StoreError> {
        let run = || D::execute(&self.pools.writes, sql.clone(), args);
        match self.repeat_raw(false, run).await {
            Ok(rows) => Ok(rows > 0),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn execute(
        &self,
        sql: &SqlStr,
        args: &[Arg<'_>],
        repeatable: bool,
    ) -> Result<u64, StoreError> {
        let run = || D::execute(&self.pools.writes, sql.clone(), args);
        self.repeat(repeatable, run).await
    }

    async fn fetch(&self, sql: &SqlStr, args: &[Arg<'_>]) -> Result<Vec<Row>, StoreError> {
        let run = || D::fetch(&self.pools.reads, sql.clone(), args);
        self.repeat(true, run).await
    }

    async fn repeat<T, F: Future<Output = Result<T, sqlx::Error>>>(
        &self,
        repeatable: bool,
        run: impl Fn() -> F,
    ) -> Result<T, StoreError> {
        let done = self.repeat_raw(repeatable, run).await;
        done.map_err(|error| self.failed(error))
    }

    /// Runs a statement, again if that can do no harm: if the database undid it, or if the
    /// connection was lost and doing it twice is doing it once (`repeatable`).
    async fn repeat_raw<T, F: Future<Output = Result<T, sqlx::Error>>>(
        &self,
        repeatable: bool,
        run: impl Fn() -> F,
    ) -> Result<T, sqlx::Error> {
        let mut tries = 0;
        loop {
            let begun = Instant::now();
            let error = match run().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            tries += 1;
            let again = match trouble::<D>(&error) {
                Trouble::Undone => {
                    // Longer each time, so that those who met once do not meet for ever.
                    time::sleep(Duration::from_millis(tries * tries)).await;
                    tries < 20
                }
                Trouble::Ended => {
                    self.lost.mark();
                    tries < 3
                }
                Trouble::Lost => {
                    self.lost.mark();
                    repeatable && tries < 3
                }
                // It was refused before anything was done.
                Trouble::ReadOnly => self.lost.mark_read_only(begun) && tries < 3,
                Trouble::Other => false,
            };
            if !again {
                return Err(error);
            }
        }
    }

    /// The error of a url that no pool can be made of.
    fn refused(error: sqlx::Error) -> StoreError {
        match error {
            sqlx::Error::Configuration(why) => StoreError::config(D::NAME, why.to_string()),
            error => StoreError::failed(D::NAME, error),
        }
    }

    fn failed(&self, error: sqlx::Error) -> StoreError {
        let database = error.as_database_error();
        let advice = database.and_then(|error| D::advice(&self.pools.writes.pool, error));
        if let Some(advice) = advice {
            return StoreError::config(D::NAME, advice);
        }
        match error {
            sqlx::Error::ColumnDecode { .. } => StoreError::Corrupt {
                store: D::NAME,
                why: "a column is of another type",
            },
            error => StoreError::failed(D::NAME, error),
        }
    }
}
