//! What every store must show over HTTP, on the real servers that `tests/run.sh` starts.
#![cfg(all(
    feature = "actix",
    feature = "cookies",
    feature = "redis",
    feature = "postgres",
    feature = "mysql",
    feature = "sqlite"
))]

mod common;

use std::{future::Future, sync::OnceLock};

use common::server_side::check_promises;
use session_manager::{MySqlStore, PostgresStore, RedisStore, SqliteStore, Store, StoreError};
use tokio::runtime::Runtime;

/// Where the stores' connections live, as long as the process does.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    })
}

/// Connects to the url in `variable`, and checks.
fn check<S, F>(variable: &str, connect: impl FnOnce(String) -> F)
where
    S: Store + Clone,
    F: Future<Output = Result<S, StoreError>>,
{
    let url = std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: run tests/run.sh"));
    check_promises(&runtime().block_on(connect(url)).unwrap());
}

#[test]
#[ignore = "needs Redis: tests/run.sh"]
fn a_single_redis_keeps_every_promise_over_http() {
    check("SESSION_TEST_REDIS", async |url| {
        RedisStore::connect(&url).await
    });
}

#[test]
#[ignore = "needs a Redis Cluster: tests/run.sh"]
fn a_redis_cluster_keeps_every_promise_over_http() {
    check("SESSION_TEST_REDIS_CLUSTER", async |url| {
        RedisStore::connect(&url).await
    });
}

#[test]
#[ignore = "needs Redis Sentinels: tests/run.sh"]
fn redis_behind_sentinels_keeps_every_promise_over_http() {
    check("SESSION_TEST_REDIS_SENTINEL", async |url| {
        RedisStore::connect(&url).await
    });
}

#[test]
#[ignore = "needs PostgreSQL: tests/run.sh"]
fn postgresql_keeps_every_promise_over_http() {
    check("SESSION_TEST_POSTGRES", async |url| {
        PostgresStore::connect(&url).await
    });
}

#[test]
#[ignore = "needs MariaDB: tests/run.sh"]
fn mariadb_keeps_every_promise_over_http() {
    check("SESSION_TEST_MYSQL", async |url| {
        MySqlStore::connect(&url).await
    });
}

#[test]
fn sqlite_keeps_every_promise_over_http() {
    let dir = std::env::temp_dir().join(format!("session-manager-http-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("sessions.db");
    let store = runtime()
        .block_on(SqliteStore::connect(path.to_str().unwrap()))
        .unwrap();
    check_promises(&store);
    drop(store);
    std::fs::remove_dir_all(dir).unwrap();
}
