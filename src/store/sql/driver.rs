//! How statements reach a database through `sqlx`.

use sqlx::{Database, Pool, SqlStr};

use super::{pool::Connections, statements::Reserve};

/// How statements reach a database: the same text for each, on another type of `sqlx`; [`driver`]
/// writes it.
pub(crate) trait Driver: Send + Sync + 'static {
    type Db: Database;

    /// Opens a connection, so that a server that is down is found at once; a pool would try on.
    fn reach(pool: &Pool<Self::Db>) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Runs a statement, and returns how many rows it found.
    fn execute(
        connections: &Connections<Self::Db>,
        sql: SqlStr,
        args: &[Arg<'_>],
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    fn fetch(
        connections: &Connections<Self::Db>,
        sql: SqlStr,
        args: &[Arg<'_>],
    ) -> impl Future<Output = Result<Vec<Row>, sqlx::Error>> + Send;

    /// Returns the ids that a statement selects.
    fn fetch_ids(
        connections: &Connections<Self::Db>,
        sql: SqlStr,
        args: &[Arg<'_>],
    ) -> impl Future<Output = Result<Vec<Vec<u8>>, sqlx::Error>> + Send;

    /// Reserves a place in one transaction, unless `is_full` says of the ids that are live that there is
    /// none.
    fn reserve(
        connections: &Connections<Self::Db>,
        sql: &Reserve,
        args: &ReserveArgs<'_>,
        is_full: impl Fn(Vec<Vec<u8>>) -> bool + Send + Sync,
    ) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;

    fn transact(
        connections: &Connections<Self::Db>,
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

/// The parameters of the statements of a [`Reserve`].
pub(crate) struct ReserveArgs<'a> {
    pub(crate) lock: Vec<Arg<'a>>,
    pub(crate) live: [Arg<'a>; 3],
    pub(crate) destroy: [Arg<'a>; 1],
    pub(crate) create: Vec<Arg<'a>>,
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
pub(super) const COLUMNS: &str = "id, verifier, created, last_seen, expires, version, user_id";

/// Implements [`Driver`] for a dialect on a database of `sqlx`.
macro_rules! driver {
    ($dialect:ty, $db:ty) => {
        impl $crate::store::sql::driver::Driver for $dialect {
            type Db = $db;

            async fn reach(pool: &sqlx::Pool<$db>) -> Result<(), sqlx::Error> {
                use sqlx::{ConnectOptions, Connection};

                pool.connect_options().connect().await?.close().await
            }

            async fn execute(
                connections: &$crate::store::sql::pool::Connections<$db>,
                sql: sqlx::SqlStr,
                args: &[$crate::store::sql::driver::Arg<'_>],
            ) -> Result<u64, sqlx::Error> {
                let mut call = $crate::store::sql::pool::Call::<Self>::begin(connections).await?;
                let done = bind(sql, args).execute(call.connection()).await;
                Ok(call.end(done)?.rows_affected())
            }

            async fn fetch(
                connections: &$crate::store::sql::pool::Connections<$db>,
                sql: sqlx::SqlStr,
                args: &[$crate::store::sql::driver::Arg<'_>],
            ) -> Result<Vec<$crate::store::sql::driver::Row>, sqlx::Error> {
                use sqlx::Row;

                let mut call = $crate::store::sql::pool::Call::<Self>::begin(connections).await?;
                let rows = bind(sql, args).fetch_all(call.connection()).await;
                let rows = call.end(rows)?;
                let rows = rows.iter().map(|row| {
                    Ok($crate::store::sql::driver::Row {
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
                connections: &$crate::store::sql::pool::Connections<$db>,
                sql: sqlx::SqlStr,
                args: &[$crate::store::sql::driver::Arg<'_>],
            ) -> Result<Vec<Vec<u8>>, sqlx::Error> {
                use sqlx::Row;

                let mut call = $crate::store::sql::pool::Call::<Self>::begin(connections).await?;
                let rows = bind(sql, args).fetch_all(call.connection()).await;
                let rows = call.end(rows)?;
                rows.iter().map(|row| row.try_get(0)).collect()
            }

            async fn reserve(
                connections: &$crate::store::sql::pool::Connections<$db>,
                sql: &$crate::store::sql::statements::Reserve,
                args: &$crate::store::sql::driver::ReserveArgs<'_>,
                is_full: impl Fn(Vec<Vec<u8>>) -> bool + Send + Sync,
            ) -> Result<bool, sqlx::Error> {
                use sqlx::{Connection, Row};

                let mut call = $crate::store::sql::pool::Call::<Self>::begin(connections).await?;
                let connection = call.connection();
                let done = async {
                    let mut transaction = connection
                        .begin_with(<Self as $crate::store::sql::Dialect>::BEGIN)
                        .await?;
                    bind(sql.lock.clone(), &args.lock)
                        .execute(&mut *transaction)
                        .await?;
                    let live = bind(sql.live.clone(), &args.live)
                        .fetch_all(&mut *transaction)
                        .await?;
                    let live = live.iter().map(|row| row.try_get(0));
                    let is_free = !is_full(live.collect::<Result<_, _>>()?);
                    if is_free {
                        bind(sql.destroy.clone(), &args.destroy)
                            .execute(&mut *transaction)
                            .await?;
                        bind(sql.create.clone(), &args.create)
                            .execute(&mut *transaction)
                            .await?;
                    }
                    transaction.commit().await?;
                    Ok(is_free)
                };
                let done = done.await;
                call.end(done)
            }

            async fn transact(
                connections: &$crate::store::sql::pool::Connections<$db>,
                statements: &[sqlx::SqlStr],
            ) -> Result<(), sqlx::Error> {
                use sqlx::Connection;

                let mut call = $crate::store::sql::pool::Call::<Self>::begin(connections).await?;
                let connection = call.connection();
                let done = async {
                    let mut transaction = connection
                        .begin_with(<Self as $crate::store::sql::Dialect>::BEGIN)
                        .await?;
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
            args: &[$crate::store::sql::driver::Arg<'_>],
        ) -> sqlx::query::Query<'q, $db, <$db as sqlx::Database>::Arguments> {
            use $crate::store::sql::driver::Arg;

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
