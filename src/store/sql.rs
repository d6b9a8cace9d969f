//! Sessions in an SQL database: what is the same in all of them. Each module below holds what is
//! not.
//!
//! One row is one record; its values are one JSON object of strings (see [`values`]), into which
//! the database merges a write, so that a statement carries what changed and no more.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};
use sqlx::{
    AssertSqlSafe, Connection, Database, Pool, SqlSafeStr, SqlStr,
    error::DatabaseError,
    pool::{PoolConnection, PoolOptions},
};
use tokio::{runtime::Handle, task::JoinHandle, time};

use super::{PAGE, values};
use crate::{
    changes::write::{Applied, Write},
    expiry::{Clock, Timestamp},
    log::log,
    record::{
        Record,
        id::{StoreId, Verifier},
    },
    store::{Page, SessionSummary, StoreError},
};

#[cfg(feature = "mysql")]
pub(crate) mod mysql;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

/// How many rows one statement of a sweep deletes at most.
const SWEEP_BATCH: u64 = 1_000;
/// How long starting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a call waits for a connection of the pool: less than the limit of a call, so that the
/// error is the one that says why.
const ACQUIRE_LIMIT: Duration = Duration::from_millis(1_500);
/// A connection that nobody used for this long is tested before it is used.
const TESTED_AFTER: Duration = Duration::from_secs(5);
/// A call that waited this long had time to be answered.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the connections are renewed at most because the server takes no writes.
const RENEWED_AFTER: Duration = Duration::from_secs(1);

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

    /// Whether a connection can be lost without an error.
    const HAS_NETWORK: bool = true;

    /// `sql` with the database's own placeholders instead of `?`.
    fn placeholders(sql: String) -> String {
        sql
    }

    /// What creates the table and its indexes if they are missing, run as one transaction.
    fn schema(table: &str) -> Vec<String>;

    /// Deletes at most `batch` rows whose `expires` is at most the parameter.
    fn sweep(table: &str, batch: u64) -> String;

    /// The pools for a url.
    fn pools(url: &str, lost: &Lost) -> Result<Pools<Self::Db>, sqlx::Error>;

    /// What an error of the database means.
    fn trouble(error: &dyn DatabaseError) -> Trouble;
}

/// How statements reach a database: the same text for each, on another type of `sqlx`; [`driver`]
/// writes it.
pub(crate) trait Driver: Send + Sync + 'static {
    type Db: Database;

    /// Opens a connection, so that a server that is down is found at once; a pool would try on.
    fn reach(pool: &Pool<Self::Db>) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// How many rows the statement found.
    fn execute(
        pool: &Pool<Self::Db>,
        lost: &Lost,
        sql: SqlStr,
        args: &[Arg<'_>],
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    fn fetch(
        pool: &Pool<Self::Db>,
        lost: &Lost,
        sql: SqlStr,
        args: &[Arg<'_>],
    ) -> impl Future<Output = Result<Vec<Row>, sqlx::Error>> + Send;

    /// The ids that a statement selects.
    fn fetch_ids(
        pool: &Pool<Self::Db>,
        lost: &Lost,
        sql: SqlStr,
        args: &[Arg<'_>],
    ) -> impl Future<Output = Result<Vec<Vec<u8>>, sqlx::Error>> + Send;

    fn transact(
        pool: &Pool<Self::Db>,
        lost: &Lost,
        statements: &[SqlStr],
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// A parameter of a statement.
#[derive(Clone, Copy)]
pub(crate) enum Arg<'a> {
    Int(i64),
    IntOrNull(Option<i64>),
    Bytes(&'a [u8]),
    BytesOrNull(Option<&'a [u8]>),
    Text(&'a str),
}

/// A row as it is stored, in the order of [`COLUMNS`].
pub(crate) struct Row {
    pub(crate) id: Vec<u8>,
    pub(crate) verifier: Vec<u8>,
    pub(crate) created: i64,
    pub(crate) last_seen: i64,
    pub(crate) expires: i64,
    pub(crate) version: i64,
    pub(crate) user: Option<Vec<u8>>,
    pub(crate) data: String,
}

/// The columns of a [`Row`], but for the last one: the values.
const COLUMNS: &str = "id, verifier, created, last_seen, expires, version, user_id";

/// Implements [`Driver`] for a dialect on a database of `sqlx`.
macro_rules! driver {
    ($dialect:ty, $db:ty) => {
        impl $crate::store::sql::Driver for $dialect {
            type Db = $db;

            async fn reach(pool: &sqlx::Pool<$db>) -> Result<(), sqlx::Error> {
                use sqlx::{ConnectOptions, Connection};

                pool.connect_options().connect().await?.close().await
            }

            async fn execute(
                pool: &sqlx::Pool<$db>,
                lost: &$crate::store::sql::Lost,
                sql: sqlx::SqlStr,
                args: &[$crate::store::sql::Arg<'_>],
            ) -> Result<u64, sqlx::Error> {
                let mut call = $crate::store::sql::Call::<Self>::begin(pool, lost).await?;
                let done = bind(sql, args).execute(call.connection()).await;
                Ok(call.end(done)?.rows_affected())
            }

            async fn fetch(
                pool: &sqlx::Pool<$db>,
                lost: &$crate::store::sql::Lost,
                sql: sqlx::SqlStr,
                args: &[$crate::store::sql::Arg<'_>],
            ) -> Result<Vec<$crate::store::sql::Row>, sqlx::Error> {
                use sqlx::Row;

                let mut call = $crate::store::sql::Call::<Self>::begin(pool, lost).await?;
                let rows = bind(sql, args).fetch_all(call.connection()).await;
                let rows = call.end(rows)?;
                let rows = rows.iter().map(|row| {
                    Ok($crate::store::sql::Row {
                        id: row.try_get(0)?,
                        verifier: row.try_get(1)?,
                        created: row.try_get(2)?,
                        last_seen: row.try_get(3)?,
                        expires: row.try_get(4)?,
                        version: row.try_get(5)?,
                        user: row.try_get(6)?,
                        // MySQL has a type of its own for JSON, and sends it as text.
                        data: row.try_get_unchecked(7)?,
                    })
                });
                rows.collect()
            }

            async fn fetch_ids(
                pool: &sqlx::Pool<$db>,
                lost: &$crate::store::sql::Lost,
                sql: sqlx::SqlStr,
                args: &[$crate::store::sql::Arg<'_>],
            ) -> Result<Vec<Vec<u8>>, sqlx::Error> {
                use sqlx::Row;

                let mut call = $crate::store::sql::Call::<Self>::begin(pool, lost).await?;
                let rows = bind(sql, args).fetch_all(call.connection()).await;
                let rows = call.end(rows)?;
                rows.iter().map(|row| row.try_get(0)).collect()
            }

            async fn transact(
                pool: &sqlx::Pool<$db>,
                lost: &$crate::store::sql::Lost,
                statements: &[sqlx::SqlStr],
            ) -> Result<(), sqlx::Error> {
                use sqlx::Connection;

                let mut call = $crate::store::sql::Call::<Self>::begin(pool, lost).await?;
                let connection = call.connection();
                let done = async {
                    let mut transaction = connection.begin().await?;
                    for statement in statements {
                        sqlx::raw_sql(statement.clone())
                            .execute(&mut *transaction)
                            .await?;
                    }
                    transaction.commit().await
                };
                let done = done.await;
                call.end(done)
            }
        }

        fn bind<'q>(
            sql: sqlx::SqlStr,
            args: &[$crate::store::sql::Arg<'_>],
        ) -> sqlx::query::Query<'q, $db, <$db as sqlx::Database>::Arguments> {
            use $crate::store::sql::Arg;

            args.iter().fold(sqlx::query(sql), |query, arg| match *arg {
                Arg::Int(int) => query.bind(int),
                Arg::IntOrNull(int) => query.bind(int),
                Arg::Bytes(bytes) => query.bind(bytes),
                Arg::BytesOrNull(bytes) => query.bind(bytes),
                Arg::Text(text) => query.bind(text),
            })
        }
    };
}
pub(crate) use driver;

/// Writes the public type of a store: what it says about itself, and the dialect it is of.
macro_rules! sql_store {
    ($(#[$docs:meta])* pub struct $store:ident($dialect:ty, from $pool:ty);) => {
        $(#[$docs])*
        pub struct $store($crate::store::sql::SqlStore<$dialect>);

        impl $store {
            /// Connects, and creates the table `sessions` if it is missing
            /// ([`migrate`](Self::migrate)).
            ///
            /// # Errors
            ///
            /// At once if the server is down or refuses; after 5 seconds if it does not answer. No
            /// error shows the url.
            pub async fn connect(url: impl AsRef<str>) -> Result<Self, $crate::store::StoreError> {
                let store = Self::connect_lazy(url)?;
                store.0.connect().await?;
                Ok(store)
            }

            /// As [`connect`](Self::connect), but asks the database nothing yet, and creates nothing:
            /// for starting while it is down, and for another [`table`](Self::with_table).
            ///
            /// # Errors
            ///
            /// If it is no url of this database.
            ///
            /// # Panics
            ///
            /// Outside of a tokio runtime.
            pub fn connect_lazy(url: impl AsRef<str>) -> Result<Self, $crate::store::StoreError> {
                $crate::store::sql::SqlStore::open(url.as_ref()).map(Self)
            }

            /// Keeps sessions where the application keeps the rest.
            ///
            /// Creates nothing: call [`migrate`](Self::migrate), or let your own migrations create
            /// the table as its documentation says. A pool tests each connection before it is used,
            /// which is one more round trip, unless it was built with `test_before_acquire(false)`.
            ///
            /// The pool must lead to the server that takes the writes, for reads too: a replica opens
            /// a session that was ended until it has received that.
            pub fn from_pool(pool: $pool) -> Self {
                Self($crate::store::sql::SqlStore::from_pool(pool))
            }

            /// Keeps sessions in another table than `sessions`.
            ///
            /// # Errors
            ///
            /// If the name is anything but lower-case letters, digits and `_`, begins with a digit, or
            /// is longer than 48.
            pub fn with_table(self, name: &str) -> Result<Self, $crate::store::StoreError> {
                self.0.with_table(name).map(Self)
            }

            /// Creates the table and its two indexes if the table is missing.
            ///
            /// Any number of processes may do so at the same time. A table that is there is left as
            /// it is, so that from then on the role needs no right but to read and write it.
            ///
            /// # Errors
            ///
            /// If the database refuses, or has another table of that name.
            pub async fn migrate(&self) -> Result<(), $crate::store::StoreError> {
                self.0.migrate().await
            }

            /// Deletes the rows whose time is over, a thousand at a time, over an index; returns how
            /// many there were.
            ///
            /// Such rows are never served, swept or not: this frees their room. The present moment is
            /// the system's, not that of a clock which a [`Builder`](crate::Builder) was given.
            ///
            /// # Errors
            ///
            /// If the database fails; what was deleted until then stays deleted.
            pub async fn sweep(&self) -> Result<u64, $crate::store::StoreError> {
                self.0.sweep().await
            }

            /// Sweeps now and then again and again, `every` so often, until the handle is dropped.
            /// An error is logged, and the next sweep tries again.
            ///
            /// Several processes may sweep the same table.
            ///
            /// # Panics
            ///
            /// Outside of a tokio runtime.
            pub fn start_sweeping(&self, every: std::time::Duration) -> $crate::store::sql::SweepHandle {
                $crate::store::sql::SweepHandle::start(self.0.clone(), every)
            }
        }

        /// Another handle of the same store.
        impl Clone for $store {
            fn clone(&self) -> Self {
                Self(self.0.clone())
            }
        }

        /// Shows the table's name, and no part of the url.
        impl std::fmt::Debug for $store {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($store))
                    .field("table", &self.0.table())
                    .finish_non_exhaustive()
            }
        }

        impl $crate::store::Store for $store {
            fn name(&self) -> &'static str {
                <$dialect as $crate::store::sql::Dialect>::NAME
            }

            async fn load(
                &self,
                id: $crate::record::id::StoreId,
                now: $crate::expiry::Timestamp,
            ) -> Result<Option<$crate::record::Record>, $crate::store::StoreError> {
                self.0.load(id, now).await
            }

            async fn create(
                &self,
                id: $crate::record::id::StoreId,
                write: &$crate::changes::write::Write,
            ) -> Result<bool, $crate::store::StoreError> {
                self.0.create(id, write).await
            }

            async fn apply(
                &self,
                id: $crate::record::id::StoreId,
                write: &$crate::changes::write::Write,
            ) -> Result<$crate::changes::write::Applied, $crate::store::StoreError> {
                self.0.apply(id, write).await
            }

            async fn destroy(&self, id: $crate::record::id::StoreId) -> Result<(), $crate::store::StoreError> {
                self.0.destroy(id).await
            }

            fn users(&self) -> Option<&dyn $crate::store::UserIndex> {
                Some(self)
            }
        }

        impl $crate::store::UserIndex for $store {
            fn sessions_of<'a>(
                &'a self,
                user: &'a str,
                from: &'a [u8],
                now: $crate::expiry::Timestamp,
            ) -> $crate::future::BackendFuture<
                'a,
                Result<$crate::store::Page<$crate::store::SessionSummary>, $crate::store::StoreError>,
            > {
                $crate::future::BackendFuture::pending(self.0.sessions_of(user, from, now))
            }

            fn ids_of<'a>(
                &'a self,
                user: &'a str,
                from: &'a [u8],
            ) -> $crate::future::BackendFuture<
                'a,
                Result<$crate::store::Page<$crate::record::id::StoreId>, $crate::store::StoreError>,
            > {
                $crate::future::BackendFuture::pending(self.0.ids_of(user, from))
            }

            fn destroy_of<'a>(
                &'a self,
                user: &'a str,
                ids: &'a [$crate::record::id::StoreId],
            ) -> $crate::future::BackendFuture<'a, Result<usize, $crate::store::StoreError>> {
                $crate::future::BackendFuture::pending(self.0.destroy_of(user, ids))
            }
        }
    };
}
pub(crate) use sql_store;

/// Where statements that read and those that write are sent; the same pool but for SQLite's file.
pub(crate) struct Pools<Db: Database> {
    pub(crate) reads: Pool<Db>,
    pub(crate) writes: Pool<Db>,
}

impl<Db: Database> Clone for Pools<Db> {
    fn clone(&self) -> Self {
        Self {
            reads: self.reads.clone(),
            writes: self.writes.clone(),
        }
    }
}

/// What was found out about the connections of a pool.
///
/// After a connection was found dead, those that are idle since before then have most likely died of
/// the same, and each is tested once before it is used. So a restart of the server fails as few
/// calls as possible, and otherwise no call pays for a test.
#[derive(Clone, Default)]
pub(crate) struct Lost {
    marks: Arc<Mutex<Marks>>,
    /// Whether the pool is the application's, so that the marks are not read when it gives out a
    /// connection.
    is_shared: bool,
}

#[derive(Default)]
struct Marks {
    /// When a connection was last found dead, or did not answer in time.
    dead: Option<Instant>,
    /// When the server was last found to take no writes, which a ping does not show.
    read_only: Option<Instant>,
}

impl Lost {
    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self) {
        self.marks().dead = Some(Instant::now());
    }

    /// A connection is pinged when it returns to its pool, so one that returned after the mark has
    /// answered since.
    fn is_suspect(&self, idle_for: Duration) -> bool {
        self.marks()
            .dead
            .is_some_and(|dead| dead.elapsed() <= idle_for)
    }

    /// Marks all connections for closing because a call that began at `begun` was refused for
    /// writing. Returns `true` if the call's connection may be older than the mark: another may lead
    /// to a server that takes writes. Otherwise there is none at present, and connecting for each
    /// call would only add to its load.
    fn mark_read_only(&self, begun: Instant) -> bool {
        let mut marks = self.marks();
        match marks.read_only {
            Some(marked) if begun <= marked => true,
            Some(marked) if marked.elapsed() < RENEWED_AFTER => self.is_shared,
            _ => {
                marks.read_only = Some(Instant::now());
                true
            }
        }
    }

    fn is_replaced(&self, age: Duration) -> bool {
        let marked = self.marks().read_only;
        marked.is_some_and(|marked| marked.elapsed() <= age)
    }

    /// What every pool of this crate begins with.
    pub(crate) fn pool_options<Db: Database>(&self) -> PoolOptions<Db> {
        let lost = self.clone();
        PoolOptions::new()
            .acquire_timeout(ACQUIRE_LIMIT)
            .test_before_acquire(false)
            .before_acquire(move |connection: &mut Db::Connection, known| {
                let is_replaced = lost.is_replaced(known.age);
                let test = known.idle_for >= TESTED_AFTER || lost.is_suspect(known.idle_for);
                Box::pin(async move {
                    if test && !is_replaced {
                        connection.ping().await?;
                    }
                    Ok(!is_replaced)
                })
            })
    }
}

/// A connection while one call uses it.
///
/// If the call is dropped before it is answered, a ping in the background decides whether the
/// connection returns to its pool. The pool itself would ping too, without a time limit: a server
/// that is gone without a word would keep the whole pool waiting.
pub(crate) struct Call<D: Dialect> {
    connection: Option<PoolConnection<D::Db>>,
    lost: Lost,
    since: Instant,
}

impl<D: Dialect> Call<D> {
    pub(crate) async fn begin(pool: &Pool<D::Db>, lost: &Lost) -> Result<Self, sqlx::Error> {
        Ok(Self {
            connection: Some(pool.acquire().await?),
            lost: lost.clone(),
            since: Instant::now(),
        })
    }

    #[expect(clippy::expect_used, reason = "`end` and `drop` alone take it")]
    pub(crate) fn connection(&mut self) -> &mut <D::Db as Database>::Connection {
        self.connection.as_mut().expect("the call has not ended")
    }

    /// Gives the connection back, with the answer that it brought.
    pub(crate) fn end<T>(mut self, answer: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        let connection = self.connection.take();
        if let (Some(mut connection), Err(error)) = (connection, &answer)
            && self.lost.is_shared
            && matches!(trouble::<D>(error), Trouble::ReadOnly)
        {
            connection.close_on_drop();
        }
        answer
    }
}

impl<D: Dialect> Drop for Call<D> {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take().filter(|_| D::HAS_NETWORK) else {
            return;
        };
        if self.since.elapsed() >= PATIENCE {
            self.lost.mark();
        }
        let Ok(runtime) = Handle::try_current() else {
            drop(connection.detach());
            return;
        };
        let lost = self.lost.clone();
        runtime.spawn(async move {
            let answer = time::timeout(ACQUIRE_LIMIT, connection.ping()).await;
            if !matches!(answer, Ok(Ok(()))) {
                lost.mark();
                drop(connection.detach());
            }
        });
    }
}

/// What an error means for the statement.
pub(crate) enum Trouble {
    /// It was undone in favour of another one, and may be sent again.
    Undone,
    /// The server went down before it was done.
    Ended,
    /// The connection was lost, before or after it was done.
    Lost,
    /// The server takes no writes: after a failover, it is the former primary.
    ReadOnly,
    Other,
}

/// The url is for another program than this; it is not shown, for it may hold a password.
#[derive(Debug, thiserror::Error)]
#[error("the url begins with none of {0:?}")]
pub(crate) struct WrongScheme(&'static [&'static str]);

impl WrongScheme {
    /// An error unless `url` begins with one of `schemes`; `sqlx` does not look.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn check(url: &str, schemes: &'static [&'static str]) -> Result<(), sqlx::Error> {
        if schemes.iter().any(|scheme| url.starts_with(scheme)) {
            Ok(())
        } else {
            Err(Self(schemes).into())
        }
    }
}

impl From<WrongScheme> for sqlx::Error {
    fn from(error: WrongScheme) -> Self {
        Self::Configuration(Box::new(error))
    }
}

/// A name that would have to be quoted, or that some database finds too long for an index's.
#[derive(Debug, thiserror::Error)]
#[error("a table's name is 1 to 48 lower-case letters, digits and `_`, and begins with no digit")]
struct InvalidTable;

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

/// The statements on one table; each is prepared once per connection.
struct Statements {
    table: Box<str>,
    probe: SqlStr,
    schema: Vec<SqlStr>,
    load: SqlStr,
    sessions_of: SqlStr,
    ids_of: SqlStr,
    /// Of one record, and of a page of them.
    destroy_of: [SqlStr; 2],
    is_live: SqlStr,
    create: SqlStr,
    destroy: SqlStr,
    destroy_over: SqlStr,
    /// By [`Values`].
    apply: [SqlStr; 3],
    sweep: SqlStr,
}

/// What a write does to a record's values.
#[derive(Clone, Copy)]
enum Values {
    Stay,
    Merge,
    Replace,
}

impl Statements {
    fn new<D: Dialect>(table: &str) -> Self {
        let sql = |text: String| AssertSqlSafe(D::placeholders(text)).into_sql_str();
        let select = format!("SELECT {COLUMNS}, {} FROM {table}", D::DATA_TEXT);
        let of_user = format!("user_hash = ? AND id > ? ORDER BY id LIMIT {PAGE}");
        let update = |values| {
            let data = match values {
                Values::Stay => String::new(),
                Values::Merge => format!("data = {}, version = version + 1, ", D::MERGED),
                Values::Replace => format!("data = {}, version = version + 1, ", D::OBJECT),
            };
            sql(format!(
                "UPDATE {table} SET {data}last_seen = ?, expires = ?, \
                 verifier = COALESCE(?, verifier), created = COALESCE(?, created), \
                 user_id = COALESCE(?, user_id), user_hash = COALESCE(?, user_hash) \
                 WHERE id = ? AND verifier = ? AND expires > ? AND version = COALESCE(?, version)"
            ))
        };
        Self {
            table: table.into(),
            probe: sql(format!("{select} WHERE user_hash IS NULL AND 1 = 0")),
            schema: D::schema(table).into_iter().map(sql).collect(),
            load: sql(format!("{select} WHERE id = ? AND expires > ?")),
            sessions_of: sql(format!(
                "SELECT {COLUMNS}, COALESCE({}, '') FROM {table} WHERE {of_user}",
                D::NOTE
            )),
            // All columns that a page of ids needs are in the index.
            ids_of: sql(format!("SELECT id FROM {table} WHERE {of_user}")),
            destroy_of: [1, PAGE].map(|ids| {
                sql(format!(
                    "DELETE FROM {table} WHERE user_hash = ? AND id IN (?{})",
                    ", ?".repeat(ids - 1)
                ))
            }),
            // All but the values, which nobody looks at.
            is_live: sql(format!(
                "SELECT {COLUMNS}, '{{}}' FROM {table} WHERE id = ? AND expires > ?"
            )),
            create: sql(format!(
                "INSERT INTO {table} \
                 (id, verifier, created, data, last_seen, expires, user_id, user_hash, version) \
                 VALUES (?, ?, ?, {}, ?, ?, ?, ?, 1)",
                D::OBJECT
            )),
            destroy: sql(format!("DELETE FROM {table} WHERE id = ?")),
            destroy_over: sql(format!("DELETE FROM {table} WHERE id = ? AND expires <= ?")),
            apply: [Values::Stay, Values::Merge, Values::Replace].map(update),
            sweep: sql(D::sweep(table, SWEEP_BATCH)),
        }
    }
}

impl<D: Dialect> SqlStore<D> {
    pub(crate) fn open(url: &str) -> Result<Self, StoreError> {
        let lost = Lost::default();
        Ok(Self {
            pools: D::pools(url, &lost).map_err(Self::failed)?,
            lost,
            statements: Arc::new(Statements::new::<D>("sessions")),
        })
    }

    pub(crate) fn from_pool(pool: Pool<D::Db>) -> Self {
        Self {
            pools: Pools {
                reads: pool.clone(),
                writes: pool,
            },
            lost: Lost {
                is_shared: true,
                ..Lost::default()
            },
            statements: Arc::new(Statements::new::<D>("sessions")),
        }
    }

    pub(crate) fn with_table(mut self, name: &str) -> Result<Self, StoreError> {
        let is_name = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        if !(1..=48).contains(&name.len())
            || !name.bytes().all(is_name)
            || name.starts_with(|first: char| first.is_ascii_digit())
        {
            return Err(StoreError::failed(D::NAME, InvalidTable));
        }
        self.statements = Arc::new(Statements::new::<D>(name));
        Ok(self)
    }

    pub(crate) fn table(&self) -> &str {
        &self.statements.table
    }

    pub(crate) async fn connect(&self) -> Result<(), StoreError> {
        let connected = time::timeout(CONNECT_LIMIT, async {
            self.repeat(true, || D::reach(&self.pools.writes)).await?;
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
            D::transact(&self.pools.writes, &self.lost, &self.statements.schema)
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
        let run = || D::fetch_ids(&self.pools.reads, &self.lost, sql.clone(), &args);
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
            // A shorter page names its last record again, so that one statement is prepared for all.
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
        let args = [
            key,
            Arg::Bytes(write.verifier.as_bytes()),
            Arg::Int(column(write.created.millis())),
            Arg::Text(&data),
            now,
            Arg::Int(column(write.expires.millis())),
            Arg::BytesOrNull(user),
            Arg::BytesOrNull(hash.as_deref()),
        ];
        let create = async || self.insert(&self.statements.create, &args).await;
        if create().await? {
            return Ok(true);
        }
        // The id is taken, which nobody lives to see by chance. If by a row that nobody is served
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
        let new_verifier = write.new_verifier.as_ref().map(Verifier::as_bytes);
        let created = new_verifier.map(|_| column(write.created.millis()));
        let mut args = Vec::with_capacity(11);
        if !matches!(values, Values::Stay) {
            args.push(Arg::Text(&data));
        }
        args.extend([
            now,
            Arg::Int(column(write.expires.millis())),
            Arg::BytesOrNull(new_verifier.map(|verifier| &verifier[..])),
            Arg::IntOrNull(created),
            Arg::BytesOrNull(user),
            Arg::BytesOrNull(hash.as_deref()),
            key,
            Arg::Bytes(write.verifier.as_bytes()),
            now,
            Arg::IntOrNull(write.if_version.map(column)),
        ]);
        let apply = &self.statements.apply[values as usize];
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
        let now = column(Clock::default().now().millis());
        let mut swept = 0;
        loop {
            let batch = self
                .execute(&self.statements.sweep, &[Arg::Int(now)], true)
                .await?;
            swept += batch;
            if batch < SWEEP_BATCH {
                return Ok(swept);
            }
        }
    }

    /// Runs a statement that inserts a row, and says whether it did; not if the id is taken.
    async fn insert(&self, sql: &SqlStr, args: &[Arg<'_>]) -> Result<bool, StoreError> {
        let run = || D::execute(&self.pools.writes, &self.lost, sql.clone(), args);
        match self.repeat_raw(false, run).await {
            Ok(rows) => Ok(rows > 0),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
            Err(error) => Err(Self::failed(error)),
        }
    }

    async fn execute(
        &self,
        sql: &SqlStr,
        args: &[Arg<'_>],
        repeatable: bool,
    ) -> Result<u64, StoreError> {
        let run = || D::execute(&self.pools.writes, &self.lost, sql.clone(), args);
        self.repeat(repeatable, run).await
    }

    async fn fetch(&self, sql: &SqlStr, args: &[Arg<'_>]) -> Result<Vec<Row>, StoreError> {
        let run = || D::fetch(&self.pools.reads, &self.lost, sql.clone(), args);
        self.repeat(true, run).await
    }

    async fn repeat<T, F: Future<Output = Result<T, sqlx::Error>>>(
        &self,
        repeatable: bool,
        run: impl Fn() -> F,
    ) -> Result<T, StoreError> {
        self.repeat_raw(repeatable, run).await.map_err(Self::failed)
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

    fn failed(error: sqlx::Error) -> StoreError {
        match error {
            sqlx::Error::ColumnDecode { .. } => StoreError::Corrupt {
                store: D::NAME,
                why: "a column is of another type",
            },
            error => StoreError::failed(D::NAME, error),
        }
    }
}

fn trouble<D: Dialect>(error: &sqlx::Error) -> Trouble {
    match error {
        sqlx::Error::Io(_) => Trouble::Lost,
        sqlx::Error::Database(error) => D::trouble(&**error),
        _ => Trouble::Other,
    }
}

/// A number as a column holds it. What is too large for one (a timeout that never ends) is as large
/// as can be.
fn column(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn stored_id<D: Dialect>(id: Vec<u8>) -> Result<StoreId, StoreError> {
    let id = id.try_into().map_err(|_| StoreError::Corrupt {
        store: D::NAME,
        why: "an id has no 32 bytes",
    })?;
    Ok(StoreId::from_bytes(id))
}

fn record<D: Dialect>(row: Row) -> Result<(StoreId, Record), StoreError> {
    let corrupt = |why| StoreError::Corrupt {
        store: D::NAME,
        why,
    };
    let number = |column: i64| {
        column
            .try_into()
            .map_err(|_| corrupt("a number is negative"))
    };
    let id = stored_id::<D>(row.id)?;
    let verifier = row
        .verifier
        .try_into()
        .map_err(|_| corrupt("a verifier has no 32 bytes"))?;
    let user = row.user.map(String::from_utf8).transpose();
    let user = user.map_err(|_| corrupt("a user's id is no text"))?;
    let entries = values::entries(&row.data).map_err(|_| corrupt("the values are none"))?;
    let time = |column| number(column).map(Timestamp::from_millis);
    let mut record = Record::new(time(row.created)?, time(row.expires)?, entries);
    record.last_seen = time(row.last_seen)?;
    record.verifier = Verifier::from_bytes(verifier);
    record.version = number(row.version)?;
    record.user = user.map(Arc::from);
    Ok((id, record))
}

/// Sweeps for as long as it is held; see `start_sweeping` of a store.
#[must_use = "dropping it ends the sweeping"]
pub struct SweepHandle(JoinHandle<()>);

impl SweepHandle {
    pub(crate) fn start<D: Dialect>(store: SqlStore<D>, every: Duration) -> Self {
        Self(tokio::spawn(async move {
            loop {
                match store.sweep().await {
                    Ok(swept) => log!(DEBUG, "{}: {swept} sessions whose time is over", D::NAME),
                    Err(error) => log!(ERROR, "sweeping sessions failed: {error}"),
                }
                // Never a busy loop, whatever the application says.
                time::sleep(every.max(Duration::from_millis(10))).await;
            }
        }))
    }

    /// Ends the sweeping.
    pub fn stop(self) {}
}

impl Drop for SweepHandle {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for SweepHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SweepHandle")
            .field("stopped", &self.0.is_finished())
            .finish()
    }
}
