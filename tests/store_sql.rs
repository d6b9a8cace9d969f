//! The SQL stores on real databases. `tests/run.sh` starts the servers.
#![cfg(all(
    feature = "testing",
    any(feature = "postgres", feature = "mysql", feature = "sqlite")
))]

mod common;

use std::time::{Duration, Instant};

#[cfg(any(feature = "postgres", feature = "mysql"))]
use common::proxy::Proxy;
use common::{
    records::{FIRST, HOUR, SECOND, new_id, now, renewal, unique, write, write_of},
    whole,
};
use session_manager::{
    Store, StoreError, Timestamp,
    store::{Applied, StoreId, UserIndex, Value, Write},
    testing,
};

fn table() -> String {
    format!("t_{}", unique())
}

#[allow(dead_code, reason = "SQLite is no server")]
fn server(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: tests/run.sh starts what it names"))
}

/// `n` records whose time is over, and the id of one that lives.
async fn old_and_young<S: Store>(store: &S, n: usize) -> StoreId {
    let mut old = write(&[("key", "value")]);
    (old.now, old.expires) = (Timestamp::from_millis(1_000), Timestamp::from_millis(2_000));
    for _ in 0..n {
        assert!(store.create(new_id(), &old).await.unwrap());
    }
    let young = new_id();
    assert!(
        store
            .create(young, &write(&[("key", "value")]))
            .await
            .unwrap()
    );
    young
}

/// What every SQL store does, written once. `$home` makes the url of a database that the test may
/// use, and a guard that removes it.
macro_rules! on_each_store {
    ($(#[$when:meta])? $module:ident, $store:ident, $pool:ident, $home:expr, down: $down:literal) => {
        mod $module {
            use super::*;
            use session_manager::$store;
            use sqlx::$pool;

            /// A store on a table of its own.
            async fn store(url: &str) -> ($store, String) {
                let table = table();
                let store = $store::connect_lazy(url).unwrap().with_table(&table).unwrap();
                store.migrate().await.unwrap();
                (store, table)
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            $(#[$when])?
            async fn the_store_contract_is_kept() {
                let (url, _home) = $home;
                let (store, _) = store(&url).await;
                testing::check_store(store).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            $(#[$when])?
            async fn the_store_contract_is_kept_on_the_applications_pool() {
                let (url, _home) = $home;
                let pool = $pool::connect(&url).await.unwrap();
                let store = $store::from_pool(pool).with_table(&table()).unwrap();
                let missing = store.load(new_id(), now()).await;
                assert!(missing.is_err(), "from_pool creates nothing");
                store.migrate().await.unwrap();
                testing::check_store(store).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            $(#[$when])?
            async fn processes_that_start_together_create_one_table() {
                let (url, _home) = $home;
                for _ in 0..3 {
                    let table = table();
                    let migrate = |_| {
                        let (url, table) = (url.clone(), table.clone());
                        tokio::spawn(async move {
                            let store = $store::connect_lazy(url).unwrap().with_table(&table).unwrap();
                            store.migrate().await?;
                            assert!(store.create(new_id(), &write(&[("key", "value")])).await?);
                            Ok::<_, StoreError>(store)
                        })
                    };
                    for started in Vec::from_iter((0..8).map(migrate)) {
                        let store = started.await.unwrap().unwrap();
                        store.migrate().await.unwrap();
                    }
                }
            }

            #[tokio::test]
            $(#[$when])?
            async fn connecting_creates_the_table_sessions() {
                let (url, _home) = $home;
                let store = $store::connect(&url).await.unwrap();
                let id = new_id();
                assert!(store.create(id, &write(&[("key", "value")])).await.unwrap());
                let again = store.clone();
                assert!(again.load(id, now()).await.unwrap().is_some());
                again.destroy(id).await.unwrap();
            }

            #[tokio::test]
            $(#[$when])?
            async fn a_table_of_another_program_is_an_error() {
                let (url, _home) = $home;
                let (store, table) = store(&url).await;
                let pool = $pool::connect(&url).await.unwrap();
                let alter = format!("ALTER TABLE {table} RENAME COLUMN last_seen TO looked_at");
                sqlx::query(sqlx::AssertSqlSafe(alter)).execute(&pool).await.unwrap();
                assert!(store.migrate().await.is_err());
            }

            #[tokio::test]
            $(#[$when])?
            async fn a_sweep_deletes_only_expired_sessions() {
                let (url, _home) = $home;
                let (store, _) = store(&url).await;
                let young = old_and_young(&store, 2_500).await;
                assert_eq!(store.sweep().await.unwrap(), 2_500);
                assert_eq!(store.sweep().await.unwrap(), 0);
                assert!(store.load(young, now()).await.unwrap().is_some());
            }

            /// The first batches have no row to delete.
            #[tokio::test]
            $(#[$when])?
            async fn a_sweep_passes_over_sessions_that_were_used_since() {
                let (url, _home) = $home;
                let (store, table) = store(&url).await;
                let pool = $pool::connect(&url).await.unwrap();
                let count = async |condition: &str| {
                    let count = format!("SELECT COUNT(*) FROM {table} {condition}");
                    let count = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(count));
                    count.fetch_one(&pool).await.unwrap()
                };
                let then = Timestamp::from_millis(1_000);
                for n in 0..1_500 {
                    let (id, mut old) = (new_id(), write(&[("key", "value")]));
                    (old.now, old.expires) = (then, Timestamp::from_millis(2_000 + n));
                    assert!(store.create(id, &old).await.unwrap());
                    if n < 1_100 {
                        let touch = Write::touch(FIRST, then, then, now().plus(HOUR));
                        assert_eq!(store.apply(id, &touch).await.unwrap(), Applied::Done);
                    }
                }
                assert_eq!(count("WHERE sweep_at < 9999").await, 1_500);
                assert_eq!(store.sweep().await.unwrap(), 400);
                assert_eq!(count("WHERE sweep_at = expires").await, 1_100);
                assert_eq!(count("").await, 1_100);
            }

            #[tokio::test]
            $(#[$when])?
            async fn a_session_whose_time_was_cut_short_is_swept() {
                let (url, _home) = $home;
                let (store, _) = store(&url).await;
                let id = new_id();
                assert!(store.create(id, &write(&[("key", "value")])).await.unwrap());
                let then = Timestamp::from_millis(1_000);
                let short = Write::touch(FIRST, then, then, then.plus(Duration::from_secs(1)));
                assert_eq!(store.apply(id, &short).await.unwrap(), Applied::Done);
                assert_eq!(store.sweep().await.unwrap(), 1);
            }

            /// Otherwise each write of a request would also be one to the index.
            #[tokio::test]
            $(#[$when])?
            async fn no_write_of_a_request_moves_an_index_entry() {
                let (url, _home) = $home;
                let (store, table) = store(&url).await;
                let pool = $pool::connect(&url).await.unwrap();
                let indexed = async || -> (i64, Vec<u8>) {
                    let sql = format!("SELECT sweep_at, user_hash FROM {table}");
                    sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_one(&pool).await.unwrap()
                };
                let id = new_id();
                assert!(store.create(id, &write_of("ada")).await.unwrap());
                let first = indexed().await;
                let later = |mut write: Write| {
                    write.expires = write.expires.plus(HOUR);
                    write
                };
                let touch = Write::touch(FIRST, now(), now(), now().plus(HOUR));
                let mut cleared = write(&[("key", "value")]);
                cleared.clear = true;
                for change in [touch, write(&[("a", "b")]), cleared, write_of("ada"), renewal(&[])] {
                    assert_eq!(store.apply(id, &later(change)).await.unwrap(), Applied::Done);
                    assert_eq!(indexed().await, first);
                }
            }

            #[tokio::test]
            $(#[$when])?
            async fn sweeping_goes_on_until_its_handle_is_dropped() {
                let (url, _home) = $home;
                let (store, table) = store(&url).await;
                let pool = $pool::connect(&url).await.unwrap();
                let rows = async || {
                    let count = format!("SELECT COUNT(*) FROM {table}");
                    let count = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(count));
                    count.fetch_one(&pool).await.unwrap()
                };
                let sweeping = store.start_sweeping(Duration::from_millis(20));
                for young in 1..3 {
                    old_and_young(&store, 5).await;
                    let begun = Instant::now();
                    while rows().await > young {
                        assert!(begun.elapsed() < Duration::from_secs(5), "nobody sweeps");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
                sweeping.stop();
                tokio::time::sleep(Duration::from_millis(100)).await;
                old_and_young(&store, 5).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
                assert_eq!(rows().await, 2 + 6);
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            $(#[$when])?
            async fn sweeping_and_writing_at_once_both_succeed() {
                let (url, _home) = $home;
                let (store, _) = store(&url).await;
                let other = store.clone();
                let sweeps = tokio::spawn(async move {
                    let mut swept = 0;
                    while swept < 8 * 40 {
                        swept += other.sweep().await.unwrap();
                    }
                });
                let work = |_| {
                    let store = store.clone();
                    tokio::spawn(async move {
                        for _ in 0..40 {
                            let id = old_and_young(&store, 1).await;
                            let mut theirs = write(&[("key", "value")]);
                            theirs.user = Some("ada".into());
                            assert_eq!(store.apply(id, &theirs).await.unwrap(), Applied::Done);
                            theirs.new_verifier = Some(SECOND);
                            assert_eq!(store.apply(id, &theirs).await.unwrap(), Applied::Done);
                            store.destroy(id).await.unwrap();
                        }
                    })
                };
                for worker in Vec::from_iter((0..8).map(work)) {
                    worker.await.unwrap();
                }
                sweeps.await.unwrap();
            }

            #[tokio::test]
            $(#[$when])?
            async fn a_foreign_row_is_corrupt_and_unchanged() {
                let (url, _home) = $home;
                let (store, table) = store(&url).await;
                let pool = $pool::connect(&url).await.unwrap();
                let id = new_id();
                let mut theirs = write(&[("key", "value")]);
                theirs.user = Some("ada".into());
                assert!(store.create(id, &theirs).await.unwrap());
                for (column, corrupt) in [
                    ("data", r#"'{"a":1}'"#), ("data", r#"'[]'"#), ("data", r#"'{"a":"?"}'"#),
                    ("version", "-1"),
                ] {
                    let update = format!("UPDATE {table} SET data = '{{}}', version = 1");
                    sqlx::query(sqlx::AssertSqlSafe(update)).execute(&pool).await.unwrap();
                    assert!(store.load(id, now()).await.unwrap().is_some());
                    let update = format!("UPDATE {table} SET {column} = {corrupt}");
                    sqlx::query(sqlx::AssertSqlSafe(update)).execute(&pool).await.unwrap();
                    for _ in 0..2 {
                        let error = store.load(id, now()).await.unwrap_err();
                        assert!(matches!(error, StoreError::Corrupt { .. }), "{corrupt}: {error:?}");
                        let page = store.sessions_of("ada", &[], now()).await.unwrap();
                        assert_eq!(page.next, None, "it hides no other session");
                    }
                    let same = format!("SELECT COUNT(*) FROM {table} WHERE {column} = {corrupt}");
                    let same = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(same));
                    assert_eq!(same.fetch_one(&pool).await.unwrap(), 1, "{corrupt}");
                }
            }

            #[tokio::test]
            $(#[$when])?
            async fn a_users_id_may_be_any_text() {
                let (url, _home) = $home;
                let (store, _) = store(&url).await;
                let long = "long".repeat(25_000);
                let users = ["ada", "Ada", "ada ", "àda", "", "a\0da", "%", "' --", &long];
                for user in users {
                    let mut theirs = write(&[("user", user)]);
                    theirs.user = Some(user.into());
                    assert!(store.create(new_id(), &theirs).await.unwrap());
                }
                for user in users {
                    let found = store.sessions_of(user, &[], now()).await.unwrap().items;
                    assert_eq!(found.len(), 1, "{user:.20}");
                    let record = store.load(found[0].id, now()).await.unwrap().unwrap();
                    assert_eq!(record.user.as_deref(), Some(user));
                    assert_eq!(record.entries.get("user"), Some(Value::Text(user)));
                }
            }

            #[tokio::test]
            $(#[$when])?
            async fn keys_that_json_would_escape_are_told_apart() {
                let (url, _home) = $home;
                let (store, _) = store(&url).await;
                let keys = [
                    "\0", "\\u0000", "%00", "\u{1}", "\"", "\\", "\\\"", "\n", "n", "\u{1f980}",
                    "\u{1f981}", "a", "A", "a ", "à", "a\u{300}", "\u{7f}", "$", ".", "null",
                ];
                let id = new_id();
                assert!(store.create(id, &write(&[("first", "")])).await.unwrap());
                for key in keys {
                    assert_eq!(store.apply(id, &write(&[(key, key)])).await.unwrap(), Applied::Done);
                }
                let record = store.load(id, now()).await.unwrap().unwrap();
                assert_eq!(record.entries.len(), 1 + keys.len());
                for key in keys {
                    assert_eq!(record.entries.get(key), Some(Value::Text(key)), "{key:?}");
                    let mut gone = write(&[("first", "")]);
                    gone.remove = vec![key.into()];
                    assert_eq!(store.apply(id, &gone).await.unwrap(), Applied::Done);
                    let left = store.load(id, now()).await.unwrap().unwrap().entries;
                    assert_eq!(left.get(key), None, "{key:?}");
                    assert_eq!(store.apply(id, &write(&[(key, key)])).await.unwrap(), Applied::Done);
                }
            }

            #[tokio::test]
            $(#[$when])?
            async fn the_largest_timestamp_is_stored() {
                let (url, _home) = $home;
                let (store, _) = store(&url).await;
                let (id, mut forever) = (new_id(), write(&[("key", "value")]));
                forever.expires = Timestamp::from_millis(u64::MAX);
                assert!(store.create(id, &forever).await.unwrap());
                let later = Timestamp::from_millis(1 << 62);
                assert!(store.load(id, later).await.unwrap().is_some());
            }

            #[tokio::test]
            $(#[$when])?
            async fn a_failed_connect_is_immediate_and_shows_no_password() {
                let begun = Instant::now();
                let error = $store::connect($down).await.unwrap_err();
                let text = whole(&error);
                assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
                assert!(!text.contains("a-password"), "{text}");
                // SQLite has a folder instead of a server.
                let advice = ["whether the store is up", "does not exist"];
                assert!(advice.iter().any(|advice| text.contains(advice)), "{text}");
                for bad in [
                    "redis://app:a-password@127.0.0.1:1/app",
                    "postgres://app:a-password@127.0.0.1:port/app",
                    "mysql://app:a-password@127.0.0.1:port/app",
                    "sqlite:a-password?mode=a-password",
                ] {
                    let error = $store::connect_lazy(bad).unwrap_err();
                    assert!(!whole(&error).contains("app:a-password"), "{}", whole(&error));
                }
                let store = $store::connect_lazy($down).unwrap();
                assert_eq!(
                    format!("{store:?}"),
                    concat!(stringify!($store), " { table: \"sessions\", .. }"),
                );
            }

            #[test]
            $(#[$when])?
            fn a_table_name_must_be_an_identifier() {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(async {
                    let store = $store::connect_lazy($down).unwrap();
                    for bad in ["", "a b", "a;", "1a", "Users", "a.b", "ä", "\"a\"", &"a".repeat(49)] {
                        assert!(store.clone().with_table(bad).is_err(), "{bad}");
                    }
                    assert!(store.with_table("web_sessions2").is_ok());
                });
            }
        }
    };
}

#[cfg(feature = "sqlite")]
struct TempFile(std::path::PathBuf);

#[cfg(feature = "sqlite")]
impl Drop for TempFile {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm"] {
            let mut path = self.0.clone().into_os_string();
            path.push(suffix);
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(feature = "sqlite")]
fn file() -> (String, TempFile) {
    let name = format!("session-manager-{}.db", unique());
    let path = std::env::temp_dir().join(name);
    (
        format!("sqlite:{}?mode=rwc", path.display()),
        TempFile(path),
    )
}

#[cfg(feature = "sqlite")]
on_each_store! {
    sqlite, SqliteStore, SqlitePool, file(), down: "/no/such/folder/sessions.db"
}

#[cfg(feature = "postgres")]
on_each_store! {
    #[ignore = "needs PostgreSQL: tests/run.sh"]
    postgres, PostgresStore, PgPool, (server("SESSION_TEST_POSTGRES"), ()),
    down: "postgres://app:a-password@127.0.0.1:1/app"
}

#[cfg(feature = "mysql")]
on_each_store! {
    #[ignore = "needs MySQL or MariaDB: tests/run.sh"]
    mysql, MySqlStore, MySqlPool, (server("SESSION_TEST_MYSQL"), ()),
    down: "mysql://app:a-password@127.0.0.1:1/app"
}

/// The round trips of each operation and the bytes of a commit, on a store whose way to the server
/// is counted.
#[cfg(any(feature = "postgres", feature = "mysql"))]
async fn costs_follow_what_changed<S: Store>(store: S, proxy: &Proxy) {
    let settled = async || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        proxy.take_sent_and_turns()
    };
    let mut large = write(&[("key", "value")]);
    large.set = (0..1_000)
        .map(|n| {
            (
                format!("key{n}").into(),
                Value::Text("value ".repeat(10).into()),
            )
        })
        .collect();
    // A connection that runs a statement for the first time prepares it, which is one turn more; of
    // ten rounds some are on connections that have.
    let mut least = std::collections::BTreeMap::new();
    for _ in 0..10 {
        settled().await;
        let mut cost = Vec::new();
        let one = new_id();
        assert!(store.create(one, &large).await.unwrap());
        cost.push(("create", settled().await));
        assert!(store.load(one, now()).await.unwrap().is_some());
        cost.push(("load", settled().await));
        let one_key = write(&[("key500", "changed")]);
        assert_eq!(store.apply(one, &one_key).await.unwrap(), Applied::Done);
        cost.push(("apply", settled().await));
        let touch = Write::touch(FIRST, now(), now(), now().plus(HOUR));
        assert_eq!(store.apply(one, &touch).await.unwrap(), Applied::Done);
        cost.push(("touch", settled().await));
        let mut conflict = write(&[("key", "value")]);
        conflict.if_version = Some(77);
        assert_eq!(
            store.apply(one, &conflict).await.unwrap(),
            Applied::Conflict
        );
        cost.push(("conflict", settled().await));
        let mut renewal = write(&[("key500", "changed")]);
        renewal.new_verifier = Some(SECOND);
        assert_eq!(store.apply(one, &renewal).await.unwrap(), Applied::Done);
        cost.push(("renew", settled().await));
        store.destroy(one).await.unwrap();
        cost.push(("destroy", settled().await));
        for (what, (sent, turns)) in cost {
            let (least_sent, least_turns) = least.entry(what).or_insert((sent, turns));
            *least_sent = sent.min(*least_sent);
            *least_turns = turns.min(*least_turns);
        }
    }
    println!("{}: (bytes sent, turns) {least:?}", store.name());
    for (what, (sent, turns)) in least {
        let statements = 1 + u64::from(what == "conflict");
        assert_eq!(turns, statements, "{what}: turns");
        let limit = 300 * statements;
        assert!(what == "create" || sent < limit, "{what}: {sent} bytes");
    }
}

/// What holds of a store whose database is a server; `$primary` and `$replica` are two of the test's
/// own, `$url` is where the store finds one, and `$read_only` and `$writable` are run on one.
#[cfg(any(feature = "postgres", feature = "mysql"))]
macro_rules! on_each_server {
    (
        #[$when:meta] $module:ident, $store:ident, $pool:ident, $variable:literal, $server:ident, $url:expr,
        read_only: $read_only:expr, verify: $verify:literal
    ) => {
        mod $module {
            use super::*;
            #[cfg(feature = "sql-tls")]
            use crate::common::servers::Certificates;
            use crate::common::servers::$server;
            use session_manager::$store;

            /// As `ServerSide` asks.
            async fn load(store: &$store, id: StoreId) -> bool {
                let limit = Duration::from_secs(2);
                let answer = tokio::time::timeout(limit, store.load(id, now())).await;
                matches!(answer, Ok(Ok(Some(_))))
            }

            async fn writes_at_once(store: &$store, id: StoreId) {
                let writes = (0..8).map(|n| {
                    let store = store.clone();
                    let change = write(&[(&format!("key{n}"), "value")]);
                    tokio::spawn(async move { store.apply(id, &change).await })
                });
                for write in Vec::from_iter(writes) {
                    assert_eq!(write.await.unwrap().unwrap(), Applied::Done);
                }
            }

            /// As in an application whose tests share a store, and have a runtime each.
            #[test]
            #[$when]
            fn a_runtime_that_ends_fails_no_call_of_the_next_one() {
                let url = server($variable);
                let (runtime, id) = (|| tokio::runtime::Runtime::new().unwrap(), new_id());
                let store = runtime().block_on(async {
                    let store = $store::connect(&url).await.unwrap();
                    assert!(store.create(id, &write(&[("key", "value")])).await.unwrap());
                    store
                });
                for round in 0..3 {
                    runtime().block_on(async {
                        writes_at_once(&store, id).await;
                        assert!(load(&store, id).await, "round {round}");
                    });
                }
            }

            #[tokio::test]
            #[$when]
            async fn a_cancelled_call_costs_later_calls_nothing() {
                let (url, proxy) = Proxy::before(&server($variable));
                let store = $store::connect(url).await.unwrap();
                let id = new_id();
                assert!(store.create(id, &write(&[("key", "value")])).await.unwrap());
                let turns = async || {
                    proxy.take_sent_and_turns();
                    assert!(store.load(id, now()).await.unwrap().is_some());
                    // A test of the connection would come behind the answer.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    proxy.take_sent_and_turns().1
                };
                // A connection that runs the statement for the first time prepares it.
                let settled = async || {
                    for _ in 0..10 {
                        turns().await;
                    }
                    let mut most = 0;
                    for _ in 0..10 {
                        most = most.max(turns().await);
                    }
                    most
                };
                let usual = settled().await;
                for cancelled in [1, 5, 50] {
                    for _ in 0..cancelled {
                        tokio::select! {
                            biased;
                            _ = store.load(id, now()) => {}
                            () = std::future::ready(()) => {}
                        }
                    }
                    assert_eq!(
                        settled().await,
                        usual,
                        "turns after {cancelled} were cancelled"
                    );
                }
                println!("{usual} turns");
                let made = proxy.made();
                for _ in 0..20 {
                    tokio::select! {
                        biased;
                        _ = store.load(id, now()) => {}
                        () = std::future::ready(()) => {}
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                assert_eq!(proxy.made(), made, "no connection is closed for it");
            }

            /// As when a firewall forgets connections: no answer, and no error either.
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[$when]
            async fn silently_dead_connections_are_replaced() {
                let (url, proxy) = Proxy::before(&server($variable));
                let store = $store::connect(url).await.unwrap();
                let id = new_id();
                assert!(store.create(id, &write(&[("key", "value")])).await.unwrap());
                for waits in [false, true] {
                    let mut failed = 0;
                    // More than the pool has connections.
                    let loads = (0..30).map(|_| {
                        let store = store.clone();
                        tokio::spawn(async move { load(&store, id).await })
                    });
                    for load in Vec::from_iter(loads) {
                        failed += u32::from(!load.await.unwrap());
                    }
                    assert_eq!(failed > 0, waits, "{failed} of 30 failed");
                    if !waits {
                        proxy.silence();
                    }
                }
                let begun = Instant::now();
                while !load(&store, id).await {
                    assert!(
                        begun.elapsed() < Duration::from_secs(5),
                        "the pool waits for ever"
                    );
                }
                println!(
                    "cut: served {:?} after the first who gave up",
                    begun.elapsed()
                );
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[$when]
            async fn dead_connections_are_replaced_even_if_every_call_is_cancelled() {
                let (url, proxy) = Proxy::before(&server($variable));
                let store = $store::connect(url).await.unwrap();
                let id = new_id();
                assert!(store.create(id, &write(&[("key", "value")])).await.unwrap());
                writes_at_once(&store, id).await;
                // Until each connection is back in the pool.
                tokio::time::sleep(Duration::from_millis(100)).await;
                proxy.silence();
                let begun = Instant::now();
                let early = Duration::from_millis(200);
                while tokio::time::timeout(early, store.load(id, now()))
                    .await
                    .is_err()
                {
                    assert!(
                        begun.elapsed() < Duration::from_secs(5),
                        "the pool waits for ever"
                    );
                }
                println!(
                    "cut, and cancelled early: served after {:?}",
                    begun.elapsed()
                );
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[$when]
            async fn a_server_restart_fails_no_later_call_and_loses_no_session() {
                let server = $server::start();
                let store = $store::connect(&server.url).await.unwrap();
                let id = new_id();
                assert!(store.create(id, &write(&[("key", "value")])).await.unwrap());
                let all_at_once = async || {
                    let loads = (0..8).map(|_| {
                        let store = store.clone();
                        tokio::spawn(async move { store.load(id, now()).await })
                    });
                    for load in Vec::from_iter(loads) {
                        assert!(load.await.unwrap().unwrap().is_some());
                    }
                };
                all_at_once().await;

                for writes_first in [false, true] {
                    server.restart();
                    let begun = Instant::now();
                    if writes_first {
                        let late = store.apply(id, &write(&[("late", "value")])).await;
                        // MySQL does not say that the connection ended before the write came, so one
                        // write fails: it may have been done.
                        assert!(late.is_ok() || store.name() == "MySQL", "{late:?}");
                    }
                    all_at_once().await;
                    println!("a restart: all is well after {:?}", begun.elapsed());
                    assert!(begun.elapsed() < Duration::from_secs(1));
                }

                server.stop();
                let begun = Instant::now();
                let error = store.load(id, now()).await.unwrap_err();
                println!("down: an error after {:?}: {error}", begun.elapsed());
                assert!(begun.elapsed() < Duration::from_secs(2));
                let waiting = tokio::spawn({
                    let store = store.clone();
                    async move {
                        while store.load(id, now()).await.is_err() {}
                        Instant::now()
                    }
                });
                tokio::time::sleep(Duration::from_secs(2)).await;
                server.begin();
                let back = Instant::now();
                let served = waiting.await.unwrap().saturating_duration_since(back);
                println!("back: served after {served:?}");
                assert!(served < Duration::from_secs(1), "{served:?}");
                all_at_once().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[$when]
            async fn after_a_kill_or_stop_the_store_recovers_with_the_server() {
                let server = $server::start();
                let store = $store::connect(&server.url).await.unwrap();
                let id = new_id();
                assert!(store.create(id, &write(&[("key", "value")])).await.unwrap());
                writes_at_once(&store, id).await;
                for fault in ["killed", "stopped"] {
                    match fault {
                        "killed" => server.kill(),
                        _ => server.signal("STOP"),
                    }
                    // As requests do that go on all the while.
                    let down = Instant::now();
                    let loads = (0..20).map(|_| {
                        let store = store.clone();
                        tokio::spawn(async move {
                            while down.elapsed() < Duration::from_secs(3) {
                                let begun = Instant::now();
                                let served = load(&store, id).await;
                                // A signal stops one thread after another.
                                let late = down.elapsed() > Duration::from_millis(200);
                                assert!(!(served && late), "it is down");
                                assert!(begun.elapsed() < Duration::from_millis(2_200));
                                tokio::time::sleep(Duration::from_millis(10)).await;
                            }
                        })
                    });
                    for load in Vec::from_iter(loads) {
                        load.await.unwrap();
                    }
                    match fault {
                        "killed" => server.begin(),
                        _ => server.signal("CONT"),
                    }
                    let back = Instant::now();
                    while !load(&store, id).await {
                        assert!(
                            back.elapsed() < Duration::from_secs(3),
                            "{fault}: it is back"
                        );
                    }
                    println!("{fault}: served {:?} after it was back", back.elapsed());
                    writes_at_once(&store, id).await;
                    let kept = store.load(id, now()).await.unwrap().unwrap();
                    assert_eq!(kept.entries.get("key"), Some(Value::Text("value")));
                }
            }

            #[cfg(feature = "sql-tls")]
            #[tokio::test]
            #[$when]
            async fn over_tls_only_a_valid_certificate_is_accepted() {
                let (ours, others) = (Certificates::make(), Certificates::make());
                let server = $server::start();
                let trusting = |ca: &Certificates| {
                    let ca = ca.path("ca.pem");
                    format!("{}?{}", server.url, format!($verify, ca = ca))
                };
                let refused = async |url: String| match $store::connect(url).await {
                    Ok(_) => panic!("it was accepted"),
                    Err(error) => whole(&error),
                };
                let plain = refused(trusting(&ours)).await;
                assert!(plain.contains("TLS"), "a server without TLS: {plain}");
                server.start_tls(&ours);
                let store = $store::connect(trusting(&ours)).await.unwrap();
                testing::check_store(store).await;
                let unknown = refused(trusting(&others)).await;
                assert!(unknown.contains("UnknownIssuer"), "{unknown}");
                let misnamed = refused(trusting(&ours).replace("127.0.0.1", "localhost")).await;
                assert!(misnamed.contains("NotValidForName"), "{misnamed}");
            }

            /// The way leads to another server, while the former one lives on and refuses writes.
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[$when]
            async fn after_a_failover_writes_leave_the_read_only_server() {
                let (primary, replica) = ($server::start(), $server::start());
                let url: fn(&$server) -> String = $url;
                let (primary_url, replica_url) = (url(&primary), url(&replica));
                let (url, proxy) = Proxy::before(&primary_url);
                let store = $store::connect(&url).await.unwrap();
                let direct = $store::connect(&replica_url).await.unwrap();
                let id = new_id();
                for store in [&store, &direct] {
                    assert!(store.create(id, &write(&[("key", "value")])).await.unwrap());
                }
                writes_at_once(&store, id).await;
                assert!(proxy.open_to(&primary_url) > 1);

                // Nothing else to write to yet: reads go on, and connecting does not run wild.
                let read_only: fn(&$server) = $read_only;
                read_only(&primary);
                let made = proxy.made();
                for _ in 0..100 {
                    assert!(store.apply(id, &write(&[("key", "value")])).await.is_err());
                    assert!(load(&store, id).await);
                }
                let made = proxy.made() - made;
                println!("read-only: {made} new connections for 100 failed writes");
                assert!(made < 30, "{made} new connections for 100 failed writes");

                proxy.lead_to(&replica_url);
                let begun = Instant::now();
                while store.apply(id, &write(&[("key", "value")])).await.is_err() {
                    assert!(
                        begun.elapsed() < Duration::from_secs(2),
                        "the pool keeps them"
                    );
                }
                println!("failover: served after {:?}", begun.elapsed());
                // Connections that were made a moment before the failover lead to the former server
                // too, and are given up a second after those before them.
                while begun.elapsed() < Duration::from_millis(1_200) {
                    let _ = store.apply(id, &write(&[("key", "value")])).await;
                }
                writes_at_once(&store, id).await;

                // Where no write failed shortly before, none does, on the application's pool too.
                drop(store);
                let theirs = sqlx::$pool::connect_lazy(&url).unwrap();
                for before in [
                    $store::connect_lazy(&url).unwrap(),
                    $store::from_pool(theirs),
                ] {
                    proxy.lead_to(&primary_url);
                    assert!(load(&before, id).await);
                    proxy.lead_to(&replica_url);
                    writes_at_once(&before, id).await;
                    let since = Instant::now();
                    while proxy.open_to(&primary_url) > 0 {
                        assert!(
                            since.elapsed() < Duration::from_secs(5),
                            "the pool keeps them"
                        );
                        assert_eq!(
                            before.apply(id, &write(&[("a", "b")])).await.unwrap(),
                            Applied::Done
                        );
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }
        }
    };
}

#[cfg(feature = "postgres")]
on_each_server! {
    #[ignore = "needs PostgreSQL: tests/run.sh"]
    postgres_server, PostgresStore, PgPool, "SESSION_TEST_POSTGRES", Postgres, |server| server.url.clone(),
    read_only: |server| {
        let sql = "ALTER SYSTEM SET default_transaction_read_only = on";
        let psql = format!("psql --no-psqlrc -q '{}' -c", server.url);
        server.bash(&format!("{psql} '{sql}' && {psql} 'SELECT pg_reload_conf()'"));
        server.bash("sleep 0.3");
    },
    verify: "sslmode=verify-full&sslrootcert={ca}"
}

#[cfg(feature = "mysql")]
on_each_server! {
    #[ignore = "needs MySQL or MariaDB: tests/run.sh"]
    mysql_server, MySqlStore, MySqlPool, "SESSION_TEST_MYSQL", MariaDb, |server| server.app_url(),
    read_only: |server| {
        server.query("SET GLOBAL read_only = 1");
    },
    verify: "ssl-mode=VERIFY_IDENTITY&ssl-ca={ca}"
}

#[cfg(feature = "mysql")]
#[tokio::test]
#[ignore = "needs MySQL or MariaDB: tests/run.sh"]
async fn mysql_is_sent_what_changed_in_one_round_trip() {
    let (url, proxy) = Proxy::before(&server("SESSION_TEST_MYSQL"));
    let store = session_manager::MySqlStore::connect(url).await.unwrap();
    costs_follow_what_changed(store, &proxy).await;
}

/// The server itself counts, and no other test uses it.
#[cfg(feature = "mysql")]
#[tokio::test]
#[ignore = "needs MySQL or MariaDB: tests/run.sh"]
async fn mysql_runs_one_prepared_statement_for_each_operation() {
    let server = common::servers::MariaDb::start();
    let store = session_manager::MySqlStore::connect(&server.url)
        .await
        .unwrap();
    let admin = sqlx::pool::PoolOptions::<sqlx::MySql>::new().max_connections(1);
    let admin = admin
        .test_before_acquire(false)
        .connect(&server.url)
        .await
        .unwrap();
    // The statements that clients sent, those among them that were prepared before, and transactions.
    let status = async || -> [i64; 3] {
        let sum = async |names: &str| -> i64 {
            let sql = format!(
                "SELECT CAST(SUM(VARIABLE_VALUE) AS SIGNED) \
                 FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME IN ({names})"
            );
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
                .fetch_one(&admin)
                .await
                .unwrap()
        };
        [
            sum("'QUESTIONS'").await,
            sum("'COM_STMT_EXECUTE'").await,
            sum("'COM_BEGIN', 'COM_COMMIT', 'COM_ROLLBACK'").await,
        ]
    };
    // Asking is three statements itself.
    status().await;
    let mut before = status().await;
    let mut counted = async || {
        let after = status().await;
        let since: [i64; 3] = std::array::from_fn(|n| after[n] - before[n]);
        before = after;
        [since[0] - 3, since[1] - 3, since[2]]
    };
    let one = new_id();
    for round in 0..3 {
        assert!(store.create(one, &write_of("ada")).await.unwrap());
        let create = counted().await;
        store.load(one, now()).await.unwrap().unwrap();
        let load = counted().await;
        assert_eq!(
            store.apply(one, &write_of("ada")).await.unwrap(),
            Applied::Done
        );
        let apply = counted().await;
        let touch = Write::touch(FIRST, now(), now(), now().plus(HOUR));
        assert_eq!(store.apply(one, &touch).await.unwrap(), Applied::Done);
        let touch = counted().await;
        assert_eq!(
            store
                .apply(one, &renewal(&[("key", "other")]))
                .await
                .unwrap(),
            Applied::Done
        );
        let renew = counted().await;
        assert_eq!(
            store.apply(one, &write(&[("key", "late")])).await.unwrap(),
            Applied::Gone
        );
        let late = counted().await;
        store.destroy(one).await.unwrap();
        let costs = [create, load, apply, touch, renew, late, counted().await];
        // The first round also sets up a connection.
        assert!(round == 0 || costs == [[1, 1, 0]; 7], "{costs:?}");
    }
}

#[cfg(feature = "mysql")]
#[tokio::test]
#[ignore = "needs MySQL or MariaDB: tests/run.sh"]
async fn a_packet_too_large_for_mysql_is_an_error_without_effect() {
    let url = server("SESSION_TEST_MYSQL");
    let store = session_manager::MySqlStore::connect(&url).await.unwrap();
    let pool = sqlx::MySqlPool::connect(&url).await.unwrap();
    let limit = sqlx::query_scalar::<_, i64>("SELECT CAST(@@max_allowed_packet AS SIGNED)");
    let limit: usize = limit.fetch_one(&pool).await.unwrap().try_into().unwrap();
    let (id, large) = (new_id(), "x".repeat(limit * 6 / 10));
    assert!(store.create(id, &write(&[("one", &large)])).await.unwrap());
    let beyond = "x".repeat(limit + 1);
    assert!(store.apply(id, &write(&[("two", &beyond)])).await.is_err());
    let record = store.load(id, now()).await.unwrap().unwrap();
    assert_eq!(record.version, 1);
    assert_eq!(record.entries.get("one"), Some(Value::Text(large.as_str())));
    assert_eq!(record.entries.len(), 1);
    store.destroy(id).await.unwrap();
}

#[cfg(feature = "postgres")]
mod postgres_alone {
    use super::*;
    use session_manager::PostgresStore;
    use sqlx::{AssertSqlSafe, PgPool};

    #[tokio::test]
    #[ignore = "needs PostgreSQL: tests/run.sh"]
    async fn postgresql_is_sent_what_changed_in_one_round_trip() {
        let (url, proxy) = Proxy::before(&server("SESSION_TEST_POSTGRES"));
        let store = PostgresStore::connect(url).await.unwrap();
        costs_follow_what_changed(store, &proxy).await;
    }

    /// The server itself counts. Such an update changes no index, and the next one that looks at the
    /// page reuses its room.
    #[tokio::test]
    #[ignore = "needs PostgreSQL: tests/run.sh"]
    async fn touches_and_writes_are_hot_updates() {
        let url = server("SESSION_TEST_POSTGRES");
        let table = table();
        let store = PostgresStore::connect_lazy(&url)
            .unwrap()
            .with_table(&table)
            .unwrap();
        store.migrate().await.unwrap();
        let ids = Vec::from_iter((0..500).map(|_| new_id()));
        for id in &ids {
            assert!(store.create(*id, &write_of("ada")).await.unwrap());
        }
        for id in &ids {
            let touch = Write::touch(FIRST, now(), now(), now().plus(2 * HOUR));
            assert_eq!(store.apply(*id, &touch).await.unwrap(), Applied::Done);
            let changed = write(&[("key", "other")]);
            assert_eq!(store.apply(*id, &changed).await.unwrap(), Applied::Done);
        }
        let pool = PgPool::connect(&url).await.unwrap();
        let counts = async || -> (i64, i64) {
            let sql = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = $1";
            let counts = sqlx::query_as(sql).bind(&table);
            counts.fetch_one(&pool).await.unwrap()
        };
        let begun = Instant::now();
        let mut counted = counts().await;
        while counted.0 < 1_000 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{counted:?}");
            // A connection reports once a second, and when it runs a statement.
            store.load(ids[0], now()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            counted = counts().await;
        }
        println!("(updates, HOT ones): {counted:?}");
        // Another test's transaction may keep the room of an old row for a while.
        assert!(counted.1 > 800, "{counted:?}");
    }

    /// The server itself counts, in a database that no other test uses.
    #[tokio::test]
    #[ignore = "needs PostgreSQL: tests/run.sh"]
    async fn each_operation_is_one_statement() {
        let url = server("SESSION_TEST_POSTGRES");
        let admin = PgPool::connect(&url).await.unwrap();
        let run = async |sql: String| {
            sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(&admin)
                .await
                .unwrap();
        };
        let database = table();
        run(format!("CREATE DATABASE {database}")).await;
        run("CREATE EXTENSION IF NOT EXISTS pg_stat_statements".into()).await;
        let (server, _) = url.rsplit_once('/').unwrap();
        let store = PostgresStore::connect(format!("{server}/{database}"))
            .await
            .unwrap();
        let calls = async || -> i64 {
            let sql = "SELECT COALESCE(SUM(calls), 0)::bigint FROM pg_stat_statements \
                       JOIN pg_database ON pg_database.oid = dbid WHERE datname = $1";
            sqlx::query_scalar(sql)
                .bind(&database)
                .fetch_one(&admin)
                .await
                .unwrap()
        };
        let mut before = calls().await;
        let mut statements = async || {
            let after = calls().await;
            after - std::mem::replace(&mut before, after)
        };
        let one = new_id();
        let mut change = write(&[("key", "value")]);
        change.user = Some("ada".into());
        let mut renewal = change.clone();
        renewal.new_verifier = Some(SECOND);
        for _ in 0..3 {
            assert!(store.create(one, &change).await.unwrap());
            assert_eq!(statements().await, 1, "create");
            store.load(one, now()).await.unwrap().unwrap();
            assert_eq!(statements().await, 1, "load");
            store.apply(one, &change).await.unwrap();
            assert_eq!(statements().await, 1, "apply");
            let touch = Write::touch(FIRST, now(), now(), now().plus(HOUR));
            assert_eq!(store.apply(one, &touch).await.unwrap(), Applied::Done);
            assert_eq!(statements().await, 1, "touch");
            assert_eq!(store.apply(one, &renewal).await.unwrap(), Applied::Done);
            assert_eq!(statements().await, 1, "renew");
            assert_eq!(store.apply(one, &change).await.unwrap(), Applied::Gone);
            assert_eq!(statements().await, 1, "a write that comes too late");
            let page = store.sessions_of("ada", &[], now()).await.unwrap();
            assert_eq!(page.items.len(), 1);
            assert_eq!(statements().await, 1, "a page of a user's sessions");
            let page = store.ids_of("ada", &[]).await.unwrap();
            assert_eq!(page.items, [one]);
            assert_eq!(statements().await, 1, "a page of their ids");
            assert_eq!(store.destroy_of("ada", &[one, new_id()]).await.unwrap(), 1);
            assert_eq!(statements().await, 1, "the end of a page");
            store.destroy(one).await.unwrap();
            assert_eq!(statements().await, 1, "destroy");
        }
        old_and_young(&store, 2_500).await;
        statements().await;
        store.sweep().await.unwrap();
        assert_eq!(
            statements().await,
            52,
            "a sweep of 2,500 in batches of 100, two statements each, and an empty batch"
        );
    }
}

#[cfg(feature = "sqlite")]
mod sqlite_alone {
    use super::*;
    use session_manager::SqliteStore;
    use sqlx::{AssertSqlSafe, SqlitePool};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_store_contract_is_kept_in_memory() {
        for url in ["sqlite::memory:", ":memory:", "sqlite://?mode=memory"] {
            let store = SqliteStore::connect(url).await.unwrap();
            testing::check_store(store).await;
        }
    }

    #[tokio::test]
    async fn two_stores_in_memory_are_independent() {
        let one = SqliteStore::connect("sqlite::memory:").await.unwrap();
        let two = SqliteStore::connect("sqlite::memory:").await.unwrap();
        let id = new_id();
        assert!(one.create(id, &write(&[("key", "value")])).await.unwrap());
        assert!(two.load(id, now()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_session_in_a_file_outlives_the_store() {
        let (_, file) = file();
        let path = file.0.to_str().unwrap();
        let id = new_id();
        let store = SqliteStore::connect(path).await.unwrap();
        assert!(store.create(id, &write(&[("key", "value")])).await.unwrap());
        let again = SqliteStore::connect(path).await.unwrap();
        drop(store);
        assert!(again.load(id, now()).await.unwrap().is_some());
        let pool = SqlitePool::connect(path).await.unwrap();
        let mode = sqlx::query_scalar::<_, String>("PRAGMA journal_mode");
        assert_eq!(mode.fetch_one(&pool).await.unwrap(), "wal");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn stores_that_open_a_new_file_together_all_can() {
        for _ in 0..5 {
            let (url, _file) = file();
            let open = |_| {
                let url = url.clone();
                tokio::spawn(async move {
                    let store = SqliteStore::connect(url).await?;
                    store.create(new_id(), &write(&[("key", "value")])).await
                })
            };
            for opened in Vec::from_iter((0..8).map(open)) {
                assert!(opened.await.unwrap().unwrap());
            }
        }
    }

    /// As another process would do.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_write_waits_for_that_of_another_process() {
        let (url, _file) = file();
        let store = SqliteStore::connect(&url).await.unwrap();
        let id = new_id();
        assert!(store.create(id, &write(&[("key", "value")])).await.unwrap());
        let other = SqlitePool::connect(&url).await.unwrap();
        let transaction = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let change = write(&[("key", "other")]);
        let mut late = tokio::spawn({
            let store = store.clone();
            async move { store.apply(id, &change).await }
        });
        // It neither fails nor succeeds, and reads go on.
        let waiting = tokio::time::timeout(Duration::from_millis(300), &mut late).await;
        assert!(waiting.is_err(), "{waiting:?}");
        assert!(store.load(id, now()).await.unwrap().is_some());
        transaction.commit().await.unwrap();
        assert_eq!(late.await.unwrap().unwrap(), Applied::Done);
    }

    /// That of the row, and none of an index: the log has a frame for each page that a commit changed.
    #[tokio::test]
    async fn each_write_of_a_request_changes_one_page() {
        let (url, _file) = file();
        let store = SqliteStore::connect(&url).await.unwrap();
        let id = new_id();
        assert!(store.create(id, &write_of("ada")).await.unwrap());
        let other = SqlitePool::connect(&url).await.unwrap();
        // Returns the frames in the log. The next commit starts it from its beginning.
        let checkpoint = async || -> i64 {
            let sql = "PRAGMA wal_checkpoint(PASSIVE)";
            let checkpoint: (i64, i64, i64) = sqlx::query_as(sql).fetch_one(&other).await.unwrap();
            assert_eq!(checkpoint.1, checkpoint.2, "all of it is in the database");
            checkpoint.1
        };
        checkpoint().await;
        let touch = Write::touch(FIRST, now(), now(), now().plus(HOUR));
        for mut change in [touch, write(&[("key", "other")]), renewal(&[])] {
            change.seen_expires = Some(change.now.plus(Duration::from_secs(1)));
            assert_eq!(store.apply(id, &change).await.unwrap(), Applied::Done);
            assert_eq!(checkpoint().await, 1, "{change:?}");
        }
        // If it may expire earlier than before, it may have to be swept earlier.
        let mut sooner = Write::touch(SECOND, now(), now(), now().plus(HOUR / 2));
        sooner.seen_expires = Some(now().plus(HOUR));
        assert_eq!(store.apply(id, &sooner).await.unwrap(), Applied::Done);
        assert!(checkpoint().await > 1);
    }

    #[tokio::test]
    async fn queries_by_user_and_by_expiry_use_an_index() {
        let (url, _file) = file();
        SqliteStore::connect(&url).await.unwrap();
        let pool = SqlitePool::connect(&url).await.unwrap();
        for (condition, index) in [
            (
                "user_hash = x'00' AND id > x'' ORDER BY id LIMIT 9",
                "sessions_user",
            ),
            ("sweep_at <= 1 ORDER BY sweep_at LIMIT 9", "sessions_sweep"),
        ] {
            let explain = format!("EXPLAIN QUERY PLAN SELECT id FROM sessions WHERE {condition}");
            let plan: (i64, i64, i64, String) = sqlx::query_as(AssertSqlSafe(explain))
                .fetch_one(&pool)
                .await
                .unwrap();
            assert!(plan.3.contains(index), "{}", plan.3);
        }
    }
}
