//! SQLite's dialect.

use std::path::Path;

use sqlx::{
    ConnectOptions, Pool, Sqlite as Db,
    error::DatabaseError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{
    Dialect,
    driver::driver,
    pool::{ACQUIRE_LIMIT, Connections, Lost, Pools, Trouble},
    public::sql_store,
};
use crate::store::wrong_scheme;

sql_store! {
    /// Keeps sessions in a file of SQLite, which is built in: for an application of one process (or
    /// a few on one machine) whose sessions should outlive it, without a server to run.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use session_manager::{Manager, ServerSide, SqliteStore, manager};
    ///
    /// # async fn f() -> Result<(), session_manager::StoreError> {
    /// let store = SqliteStore::connect("/var/lib/app/sessions.db").await?;
    /// let sweeping = store.start_sweeping(Duration::from_secs(600)); // until it is dropped
    /// manager::set(Manager::new(ServerSide::new(store)));
    /// # drop(sweeping); Ok(()) }
    /// ```
    ///
    /// Takes a path or a url: `sqlite:sessions.db`, `sqlite::memory:` (which ends with the store).
    /// Another scheme is refused. The file is created if it is missing, its folder is not.
    ///
    /// Each operation is one prepared statement in its own transaction, and a request's write changes
    /// no index. The settings of each connection:
    ///
    /// - `journal_mode = WAL`: a read and a write do not wait for each other.
    /// - `synchronous = NORMAL`: a commit does not wait for the disk. The file stays intact, and the end
    ///   of the process undoes nothing; a power cut may undo the last commits, logouts included.
    /// - `busy_timeout` of 1.5 seconds: how long a write waits for one of another process. The time limit
    ///   of a store call is longer, so that the error says why it failed.
    /// - One connection writes, so that the writes of this process queue; four read.
    ///
    /// [`from_pool`](Self::from_pool) takes other settings, such as `synchronous = FULL`.
    ///
    /// Rows whose time is over are not served; [`start_sweeping`](Self::start_sweeping) frees their room
    /// for new rows. The file keeps its size until `VACUUM`.
    ///
    /// The table:
    ///
    /// ```sql
    #[doc = include_str!("sqlite.sql")]
    /// ```
    pub struct SqliteStore(Sqlite, from sqlx::SqlitePool);
}

pub(crate) struct Sqlite;

/// Returns `true` if `path` is a url: two or more characters of a scheme (RFC 3986, section 3.1) and a
/// colon. One letter is a drive of Windows.
fn has_scheme(path: &str) -> bool {
    path.split_once(':').is_some_and(|(scheme, _)| {
        scheme.len() > 1
            && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}

driver!(Sqlite, Db);

impl Dialect for Sqlite {
    const NAME: &'static str = "SQLite";
    const NOTE: &'static str = r#"json_extract(data, '$."%02note"')"#;
    const MERGED: &'static str = "json_patch(data, ?)";
    const LEAST: &'static str = "MIN";
    // A transaction that begins with reading fails if another one writes meanwhile, without waiting.
    const BEGIN: &'static str = "BEGIN IMMEDIATE";

    // A connection that took long is not closed: what is in memory would end with it.
    const HAS_NETWORK: bool = false;

    fn schema(table: &str) -> Vec<String> {
        vec![include_str!("sqlite.sql").replace("sessions", table)]
    }

    fn sweep(table: &str, batch: u64) -> [String; 2] {
        let due = format!(
            "id IN (SELECT id FROM {table} WHERE sweep_at <= ? ORDER BY sweep_at LIMIT {batch})"
        );
        [
            format!("DELETE FROM {table} WHERE {due} AND expires <= ?"),
            format!("UPDATE {table} SET sweep_at = expires WHERE {due} AND expires > ?"),
        ]
    }

    fn pools(url: &str, lost: &Lost) -> Result<Pools<Db>, sqlx::Error> {
        let is_memory = url.contains(":memory:") || url.contains("mode=memory");
        let options = if url == ":memory:" || url.starts_with("sqlite:") {
            url.parse()?
        } else if has_scheme(url) {
            let why = wrong_scheme(url, &["sqlite:"])
                + "; write `./` before a path whose first part contains a colon";
            return Err(sqlx::Error::Configuration(why.into()));
        } else {
            SqliteConnectOptions::new().filename(url)
        };
        // For other processes that write.
        let options = options
            .busy_timeout(ACQUIRE_LIMIT)
            .disable_statement_logging();
        // One connection, so that those who write wait in line and not by trying; and for ever, for
        // what is in memory ends with it.
        let one = lost
            .pool_options()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None);
        if is_memory {
            return Ok(Pools::one(one.connect_lazy_with(options), lost));
        }
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal);
        let four = lost.pool_options().max_connections(4);
        let reads = Connections::new(four.connect_lazy_with(options.clone()), lost);
        let writes = Connections::new(one.connect_lazy_with(options), lost);
        Ok(Pools { reads, writes })
    }

    fn advice(pool: &Pool<Db>, error: &dyn DatabaseError) -> Option<String> {
        // "unable to open database file".
        if error.code().as_deref() != Some("14") {
            return None;
        }
        let options = pool.connect_options();
        let file = options.get_filename();
        let folder = match file.parent()? {
            folder if folder.as_os_str().is_empty() => Path::new("."),
            folder => folder,
        };
        Some(if folder.is_dir() {
            let file = file.display();
            format!(
                "the file `{file}` cannot be opened: see whether this process may write to it and to its folder"
            )
        } else {
            let folder = folder.display();
            format!(
                "the folder `{folder}` does not exist: create it first, SQLite creates only the file"
            )
        })
    }

    fn trouble(error: &dyn DatabaseError) -> Trouble {
        let code = error.code().unwrap_or_default();
        // The low byte is the error, the rest of it what kind of one: another process writes (BUSY)
        // or another connection of this one does (LOCKED).
        match code.parse::<u32>().map(|code| code & 0xff) {
            Ok(5 | 6) => Trouble::Undone,
            _ => Trouble::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_connection_has_the_settings_that_the_documentation_names() {
        let name = format!("session-manager-pragma-{}.db", std::process::id());
        let path = std::env::temp_dir().join(name);
        let pools = Sqlite::pools(path.to_str().unwrap(), &Lost::default()).unwrap();
        for (connections, most) in [(&pools.reads, 4), (&pools.writes, 1)] {
            assert_eq!(connections.pool.options().get_max_connections(), most);
            for (pragma, expected) in [
                ("SELECT journal_mode FROM pragma_journal_mode", "wal"),
                // NORMAL.
                ("SELECT synchronous FROM pragma_synchronous", "1"),
                ("SELECT timeout FROM pragma_busy_timeout", "1500"),
            ] {
                let sql = format!("SELECT CAST(({pragma}) AS TEXT)");
                let value = sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(sql));
                let value = value.fetch_one(&connections.pool).await.unwrap();
                assert_eq!(value, expected, "{pragma}");
            }
        }
        for pool in [pools.reads.pool.clone(), pools.writes.pool.clone()] {
            pool.close().await;
        }
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
        }
    }
}
