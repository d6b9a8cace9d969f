//! The dialect of MySQL and MariaDB.

use sqlx::{
    ConnectOptions, MySql as Db,
    error::DatabaseError,
    mysql::{MySqlConnectOptions, MySqlDatabaseError},
};

use super::{
    Dialect, check_scheme,
    driver::driver,
    pool::{Lost, Pools, Trouble},
    public::sql_store,
};

sql_store! {
    /// Keeps sessions in MySQL (8.0 or newer) or MariaDB (10.5 or newer): for an application that
    /// has one anyway, and runs in more than one process.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use session_manager::{Manager, MySqlStore, ServerSide, manager};
    ///
    /// # async fn f() -> Result<(), session_manager::StoreError> {
    /// let store = MySqlStore::connect("mysql://app:secret@db.internal/app").await?;
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
    /// A restart of the server fails no read that it does not keep waiting. It may fail one write,
    /// of which the client cannot know whether it was done. Connections are renewed as they are
    /// needed, also if the server takes no more writes after a failover.
    ///
    /// Sessions must be read where they are written. A proxy that sends reads to replicas breaks
    /// two promises: a session that was ended (a log-out) opens again until the replica has
    /// received it, and [`update`](crate::Session::update) computes from an old value and fails
    /// after its retries.
    ///
    /// Each operation is one prepared statement in its own transaction. A request's write changes no
    /// index.
    ///
    /// Rows whose time is over are not served; [`start_sweeping`](Self::start_sweeping) frees their
    /// room. What one request writes must fit the server's `max_allowed_packet`, in MySQL the whole
    /// session; a key, 65,535 bytes.
    ///
    /// TLS needs the feature `sql-tls`; `?ssl-mode=VERIFY_IDENTITY` insists on it.
    ///
    /// The table:
    ///
    /// ```sql
    #[doc = include_str!("mysql.sql")]
    /// ```
    pub struct MySqlStore(MySql, from sqlx::MySqlPool);
}

pub(crate) struct MySql;

driver!(MySql, Db);

impl Dialect for MySql {
    const NAME: &'static str = "MySQL";
    const NOTE: &'static str = r#"JSON_UNQUOTE(JSON_EXTRACT(data, '$."%02note"'))"#;
    const MERGED: &'static str = "JSON_MERGE_PATCH(data, ?)";
    const OR_UPDATE: &'static str = "ON DUPLICATE KEY UPDATE";

    fn schema(table: &str) -> Vec<String> {
        vec![include_str!("mysql.sql").replace("sessions", table)]
    }

    fn sweep(table: &str, batch: u64) -> [String; 2] {
        // A join, because a subquery would be run once for each row of the table.
        let due = format!(
            "{table} AS stored JOIN \
             (SELECT id FROM {table} WHERE sweep_at <= ? ORDER BY sweep_at LIMIT {batch}) AS due \
             ON stored.id = due.id"
        );
        [
            format!("DELETE stored FROM {due} WHERE stored.expires <= ?"),
            format!("UPDATE {due} SET stored.sweep_at = stored.expires WHERE stored.expires > ?"),
        ]
    }

    fn pools(url: &str, lost: &Lost) -> Result<Pools<Db>, sqlx::Error> {
        check_scheme(url, &["mysql://", "mariadb://"])?;
        let options: MySqlConnectOptions = url.parse()?;
        let pool = lost
            .pool_options()
            .connect_lazy_with(options.disable_statement_logging());
        Ok(Pools::one(pool, lost))
    }

    fn trouble(error: &dyn DatabaseError) -> Trouble {
        let error = error.try_downcast_ref::<MySqlDatabaseError>();
        match error.map(MySqlDatabaseError::number) {
            // A deadlock; a row that changed since the statement began, where that is watched.
            Some(1213 | 1020) => Trouble::Undone,
            // The server goes down, ended the connection, or did so long ago because it was idle.
            Some(1053 | 1927 | 4031) => Trouble::Lost,
            // `read_only` and `super_read_only`; InnoDB or a transaction that takes no writes.
            Some(1290 | 1792 | 1836 | 1874) => Trouble::ReadOnly,
            _ => Trouble::Other,
        }
    }
}
