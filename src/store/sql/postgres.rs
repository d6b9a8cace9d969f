//! PostgreSQL's dialect.

use sqlx::{
    AssertSqlSafe, ConnectOptions, Postgres as Db, SqlSafeStr,
    error::DatabaseError,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};

use super::{
    Dialect, SqlStore, check_scheme,
    driver::{Arg, driver},
    pool::{ACQUIRE_LIMIT, Lost, Pools, Trouble},
    public::sql_store,
};
use crate::store::{
    StoreError,
    endings::{Endings, Publish, Receive, follow},
};

sql_store! {
    /// Keeps sessions in PostgreSQL, 9.6 or newer: for an application that has one anyway, and runs
    /// in more than one process.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use session_manager::{Manager, PostgresStore, ServerSide, manager};
    ///
    /// # async fn f() -> Result<(), session_manager::StoreError> {
    /// let store = PostgresStore::connect("postgres://app:secret@db.internal/app").await?;
    /// let sweeping = store.start_sweeping(Duration::from_secs(600)); // until it is dropped
    /// manager::set(Manager::new(ServerSide::new(store)));
    /// # drop(sweeping); Ok(()) }
    /// ```
    ///
    /// Opening a session is one round trip and so is each commit, renewals among them; what is sent
    /// follows what changed, not how large the session is. The first use of a statement on a
    /// connection prepares it, which is one more; so is the test of a connection that was idle for
    /// 5 seconds. An [`update`](crate::Session::update) that another request was faster than costs
    /// three more: what became of the record, the session as it is now, and the next try.
    ///
    /// Each operation is one prepared statement in its own transaction. A request's write changes no
    /// index, so PostgreSQL updates the row within its page (HOT) and reuses the room of its former
    /// version without a vacuum.
    ///
    /// Rows whose time is over are not served; [`start_sweeping`](Self::start_sweeping) frees their
    /// room. A restart of the server fails no read that it does not keep waiting, and connections
    /// are renewed as they are needed, also if the server takes no more writes after a failover.
    ///
    /// Sessions must be read where they are written. A pooler that sends reads to replicas breaks
    /// two promises: a session that was ended (a log-out) opens again until the replica has
    /// received it, and [`update`](crate::Session::update) computes from an old value and fails
    /// after its retries.
    ///
    /// Ending a session also notifies the channel `sessions_ended`, in the same statement. A process
    /// that awaits [`Session::ended`](crate::Session::ended) listens there on a connection of its
    /// own.
    ///
    /// TLS needs the feature `sql-tls`; `?sslmode=verify-full` insists on it. Behind a pooler that
    /// gives out connections by the transaction, use [`from_pool`](Self::from_pool) with
    /// `statement_cache_capacity(0)`.
    ///
    /// The table:
    ///
    /// ```sql
    #[doc = include_str!("postgres.sql")]
    /// ```
    pub struct PostgresStore(Postgres, from sqlx::PgPool);
}

pub(crate) struct Postgres;

driver!(Postgres, Db);

impl Dialect for Postgres {
    const NAME: &'static str = "PostgreSQL";
    const OBJECT: &'static str = "?::jsonb";
    // All values are strings, so the only nulls are those of the keys that go.
    const MERGED: &'static str = "jsonb_strip_nulls(data || ?::jsonb)";
    const NOTE: &'static str = "data->>'%02note'";
    const DATA_TEXT: &'static str = "data::text";

    fn placeholders(sql: String) -> String {
        let mut numbered = String::with_capacity(sql.len() + 16);
        for (number, part) in sql.split('?').enumerate() {
            if number > 0 {
                numbered.push_str(&format!("${number}"));
            }
            numbered.push_str(part);
        }
        numbered
    }

    fn schema(table: &str) -> Vec<String> {
        // IF NOT EXISTS alone fails if two create the table at the same moment.
        let lock = "SELECT pg_advisory_xact_lock(8315161596371329902)".into();
        let create = include_str!("postgres.sql").replace("sessions", table);
        vec![lock, create]
    }

    fn sweep(table: &str, batch: u64) -> [String; 2] {
        // Rows that another sweep is about to delete are left to it.
        let due = format!(
            "id = ANY(ARRAY(SELECT id FROM {table} WHERE sweep_at <= ? ORDER BY sweep_at \
             LIMIT {batch} FOR UPDATE SKIP LOCKED))"
        );
        [
            format!("DELETE FROM {table} WHERE {due} AND expires <= ?"),
            format!("UPDATE {table} SET sweep_at = expires WHERE {due} AND expires > ?"),
        ]
    }

    fn pools(url: &str, lost: &Lost) -> Result<Pools<Db>, sqlx::Error> {
        check_scheme(url, &["postgres://", "postgresql://"])?;
        let options: PgConnectOptions = url.parse()?;
        let pool = lost
            .pool_options()
            .connect_lazy_with(options.disable_statement_logging());
        Ok(Pools::one(pool, lost))
    }

    fn trouble(error: &dyn DatabaseError) -> Trouble {
        let code = error.code().unwrap_or_default();
        match &*code {
            // A transaction that could not be serialized; a deadlock.
            "40001" | "40P01" => Trouble::Undone,
            // The administrator's restart waits for what is under way and undoes it.
            "57P01" => Trouble::Ended,
            // A crash, the end of a crash, a database that was dropped; a lost connection.
            "57P02" | "57P03" | "57P04" | "08006" | "08003" => Trouble::Lost,
            // A replica, or a server whose transactions are read-only.
            "25006" => Trouble::ReadOnly,
            _ => Trouble::Other,
        }
    }

    /// The channel gets only the beginning of the id, because every role of the database may listen.
    fn destroy(table: &str, filter: &str) -> String {
        let channel = channel(table);
        format!(
            "WITH gone AS (DELETE FROM {table} WHERE {filter} RETURNING id) \
             SELECT pg_notify('{channel}', left(encode(id, 'hex'), 16)) FROM gone"
        )
    }

    async fn watch_ended(store: &SqlStore<Self>, endings: &Endings) -> Result<(), StoreError> {
        let failed = |error| StoreError::failed(Self::NAME, error);
        // A connection of its own: one that the pool gave away would be missing there.
        let options = (*store.pools.writes.pool.connect_options()).clone();
        let one = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_LIMIT)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&one).await.map_err(failed)?;
        listener.eager_reconnect(false);
        let channel = channel(store.table());
        listener.listen(&channel).await.map_err(failed)?;
        follow(Self::NAME, endings, store, listener).await
    }
}

/// The channel on which [`Dialect::destroy`] reports.
fn channel(table: &str) -> String {
    format!("{table}_ended")
}

impl Publish for SqlStore<Postgres> {
    async fn publish(&self, text: &str) -> Result<(), StoreError> {
        let sql = format!("SELECT pg_notify('{}', $1)", channel(self.table()));
        let sql = AssertSqlSafe(sql).into_sql_str();
        self.execute(&sql, &[Arg::Text(text)], true).await.map(drop)
    }
}

impl Receive for PgListener {
    async fn receive(&mut self) -> Result<String, StoreError> {
        let lost = || sqlx::Error::Io(std::io::ErrorKind::UnexpectedEof.into());
        let failed = |error| StoreError::failed(Postgres::NAME, error);
        let received = self.try_recv().await.and_then(|it| it.ok_or_else(lost));
        Ok(received.map_err(failed)?.payload().to_owned())
    }
}
