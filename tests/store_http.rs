//! What every store must show over HTTP, on the real servers that `tests/run.sh` starts.

mod common;

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{Server, Web, on_every_framework, server_side::store_tests, servers::Redis};
use session_manager::{Manager, MySqlStore, PostgresStore, RedisStore, ServerSide, SqliteStore};
use tokio::runtime::Runtime;

/// Where the stores' connections live, as long as the process does.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    })
}

/// Makes `$run` connect to the url in a variable once for all tests: each pool of a store's
/// connections lives as long as the process.
macro_rules! connected {
    ($run:ident, $store:ident, $variable:literal) => {
        fn $run(web: Web, behaviour: fn(Web, &$store)) {
            static STORE: OnceLock<$store> = OnceLock::new();
            let store = STORE.get_or_init(|| {
                let url = std::env::var($variable);
                let url = url.expect(concat!($variable, " is not set: run tests/run.sh"));
                runtime().block_on($store::connect(&url)).unwrap()
            });
            behaviour(web, store);
        }
    };
}

connected!(on_redis, RedisStore, "SESSION_TEST_REDIS");
connected!(on_cluster, RedisStore, "SESSION_TEST_REDIS_CLUSTER");
connected!(on_sentinels, RedisStore, "SESSION_TEST_REDIS_SENTINEL");
connected!(on_postgres, PostgresStore, "SESSION_TEST_POSTGRES");
connected!(on_mariadb, MySqlStore, "SESSION_TEST_MYSQL");

fn on_sqlite(web: Web, behaviour: fn(Web, &SqliteStore)) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("session-manager-http-{}-{number}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("sessions.db");
    let store = runtime()
        .block_on(SqliteStore::connect(path.to_str().unwrap()))
        .unwrap();
    behaviour(web, &store);
    drop(store);
    // Its pool closes in the background, and Windows removes no file that is open.
    let _ = std::fs::remove_dir_all(dir);
}

store_tests!(
    #[ignore = "needs Redis: tests/run.sh"]
    redis, on_redis: promises, users, advisories
);
store_tests!(
    #[ignore = "needs a Redis Cluster: tests/run.sh"]
    redis_cluster, on_cluster: promises, users, advisories
);
store_tests!(
    #[ignore = "needs Redis Sentinels: tests/run.sh"]
    redis_sentinels, on_sentinels: promises, users, advisories
);
store_tests!(
    #[ignore = "needs PostgreSQL: tests/run.sh"]
    postgresql, on_postgres: promises, users, advisories
);
store_tests!(
    #[ignore = "needs MariaDB: tests/run.sh"]
    mariadb, on_mariadb: promises, users, advisories
);
store_tests!(sqlite, on_sqlite: promises, users, advisories);

fn a_redis_outage_is_a_503_in_time_and_loses_no_session(web: Web) {
    // It keeps what it acknowledged.
    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let url = redis.url();
    let store = runtime().block_on(RedisStore::connect(&url)).unwrap();
    let manager = Manager::new(ServerSide::new(store));
    let server = Server::scripts(web, manager.middleware());
    let cookie = server.raw("/run/add.key.value", &[]).cookie();
    let is_away = || {
        let begun = Instant::now();
        for script in ["get.key", "add.key.lost"] {
            let answer = server.with_cookie(&format!("/run/{script}"), &cookie);
            assert_eq!((answer.status, &*answer.body), web.unavailable());
        }
        assert_eq!(
            server.raw("/run/get.key", &[]).status,
            200,
            "no cookie, no store"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
    };
    let is_back = || {
        let begun = Instant::now();
        while server.with_cookie("/run/get.key", &cookie).status == 503 {
            assert!(
                begun.elapsed() < Duration::from_secs(1),
                "it is not well after a second"
            );
        }
        assert_eq!(server.with_cookie("/run/get.key", &cookie).body, "value");
    };
    redis.kill();
    is_away();
    redis.restart();
    is_back();
    redis.signal("STOP");
    is_away();
    redis.signal("CONT");
    is_back();
}

on_every_framework!(
    #[ignore = "needs Redis: tests/run.sh"]
    a_redis_outage_is_a_503_in_time_and_loses_no_session,
);
