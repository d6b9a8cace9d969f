//! What every store must show over HTTP, on the real servers that `tests/run.sh` starts.

mod common;

use std::{
    io::Read,
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{Gates, Server, Web, on_every_framework, server_side::store_tests, servers::Redis};
use session_manager::{
    Manager, MySqlStore, PostgresStore, RedisStore, ServerSide, SqliteStore, Store,
};
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
    redis, on_redis: promises, users, revocations, advisories
);
store_tests!(
    #[ignore = "needs a Redis Cluster: tests/run.sh"]
    redis_cluster, on_cluster: promises, users, revocations, advisories
);
store_tests!(
    #[ignore = "needs Redis Sentinels: tests/run.sh"]
    redis_sentinels, on_sentinels: promises, users, revocations, advisories
);
store_tests!(
    #[ignore = "needs PostgreSQL: tests/run.sh"]
    postgresql, on_postgres: promises, users, revocations, advisories
);
store_tests!(
    #[ignore = "needs MariaDB: tests/run.sh"]
    mariadb, on_mariadb: promises, users, revocations, advisories
);
store_tests!(sqlite, on_sqlite: promises, users, revocations, advisories);

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

/// What a process that logs in is told.
const PROCESS: &str = "SESSION_TEST_LOG_IN";

/// Logs one user in ten times at once when the test that started the process says so.
async fn log_in_at_once<S: Store>(store: S, user: &str, start: &str) {
    let manager = Manager::new(ServerSide::new(store));
    let server = Server::start(Web::Actix, Gates::new(10).app().wrap(manager.middleware()));
    let mut start = TcpStream::connect(start).unwrap();
    let _ = start.read(&mut [0]).unwrap();
    std::thread::scope(|scope| {
        for number in 0..10 {
            let (server, user) = (&server, &user);
            scope.spawn(move || {
                let (max, evict) = match user.starts_with("refuse") {
                    true => (3, "refuse"),
                    false => (2, "oldest"),
                };
                let path = format!("/at-once/limit.{user}.{max}.{evict},add.number.{number}");
                let answer = server.raw(&path, &[]);
                assert_eq!(answer.status, 200, "{answer:?}");
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_logs_in() {
    let Ok(told) = std::env::var(PROCESS) else {
        return;
    };
    let mut words = told.split(' ');
    let mut word = || words.next().unwrap();
    let (store, url, user, start) = (word(), word(), word(), word());
    match store {
        "redis" => log_in_at_once(RedisStore::connect(url).await.unwrap(), user, start).await,
        "postgres" => log_in_at_once(PostgresStore::connect(url).await.unwrap(), user, start).await,
        "mysql" => log_in_at_once(MySqlStore::connect(url).await.unwrap(), user, start).await,
        "sqlite" => log_in_at_once(SqliteStore::connect(url).await.unwrap(), user, start).await,
        other => panic!("{other}"),
    }
}

/// Starts two processes on one store, lets both log in at once, and counts the sessions.
fn log_ins_of_two_processes<S: Store>(name: &str, url: &str, connect: impl AsyncFnOnce(&str) -> S) {
    let manager = Manager::new(ServerSide::new(runtime().block_on(connect(url))));
    for (what, max) in [("refuse", 3), ("evict", 2)] {
        let nanos = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let user = format!("{what}-{nanos}");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let start = listener.local_addr().unwrap();
        let processes = [(); 2].map(|()| {
            let mut process = Command::new(std::env::current_exe().unwrap());
            process.args(["--exact", "a_process_logs_in", "--nocapture"]);
            process.env(PROCESS, format!("{name} {url} {user} {start}"));
            process.spawn().unwrap()
        });
        let ready = [(); 2].map(|()| listener.accept().unwrap());
        drop(ready);
        for mut process in processes {
            assert!(process.wait().unwrap().success());
        }
        let sessions = runtime().block_on(manager.user_sessions(&user)).unwrap();
        assert_eq!(sessions.len(), max, "{what}");
        let ended = runtime().block_on(manager.destroy_user_sessions(&user));
        assert_eq!(ended.unwrap(), max);
    }
}

macro_rules! two_processes {
    ($($test:ident: $name:literal, $store:ident, $variable:literal;)+) => {$(
        #[test]
        #[ignore = "needs a server: tests/run.sh"]
        fn $test() {
            let url = std::env::var($variable);
            let url = url.expect(concat!($variable, " is not set: run tests/run.sh"));
            log_ins_of_two_processes($name, &url, async |url| $store::connect(url).await.unwrap());
        }
    )+};
}

two_processes! {
    log_ins_of_two_processes_on_redis: "redis", RedisStore, "SESSION_TEST_REDIS";
    log_ins_of_two_processes_on_a_cluster: "redis", RedisStore, "SESSION_TEST_REDIS_CLUSTER";
    log_ins_of_two_processes_on_postgresql: "postgres", PostgresStore, "SESSION_TEST_POSTGRES";
    log_ins_of_two_processes_on_mariadb: "mysql", MySqlStore, "SESSION_TEST_MYSQL";
}

#[test]
fn log_ins_of_two_processes_on_sqlite() {
    let name = format!("session-manager-processes-{}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("sessions.db");
    let connect = async |url: &str| SqliteStore::connect(url).await.unwrap();
    log_ins_of_two_processes("sqlite", path.to_str().unwrap(), connect);
    std::fs::remove_dir_all(dir).unwrap();
}
