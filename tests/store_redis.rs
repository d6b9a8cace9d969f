//! `RedisStore` against real servers: `tests/run.sh` starts them.

mod common;

use std::{
    env,
    pin::pin,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
    thread,
    time::{Duration, Instant},
};

#[cfg(feature = "redis-tls")]
use common::servers::Certificates;
use common::{
    proxy::Proxy,
    records::{FIRST, HOUR, SECOND, new_id, now, renewal, write, write_of},
    redis::{Monitor, connections},
    servers::{Redis, Servers, cli, free_port, pid_of, port_of, ports_of, signal},
    whole,
};
use session_manager::{
    RedisStore, Store, StoreError, Timestamp,
    store::{Applied, StoreId, Value, Write},
    testing,
};

/// The time limit that `ServerSide` gives every call.
const LIMIT: Duration = Duration::from_secs(2);

fn url(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run tests/run.sh"))
}

/// The same as a request makes it that has loaded the record.
fn plain(set: &[(&str, &str)]) -> Write {
    let mut write = write(set);
    write.seen_expires = Some(write.expires);
    write
}

/// As `ServerSide` calls a store.
async fn limited<T>(
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, Option<StoreError>> {
    match tokio::time::timeout(LIMIT, call).await {
        Ok(answer) => answer.map_err(Some),
        Err(_) => Err(None),
    }
}

/// Calls until the store answers; how long that took.
async fn time_to_recover(store: &RedisStore, id: StoreId) -> Duration {
    let since = Instant::now();
    while limited(store.load(id, now())).await.is_err() {
        assert!(
            since.elapsed() < Duration::from_secs(20),
            "the store recovers"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    since.elapsed()
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn one_server_keeps_the_store_contract() {
    testing::check_store(
        RedisStore::connect(&url("SESSION_TEST_REDIS"))
            .await
            .unwrap(),
    )
    .await;
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn a_cluster_keeps_the_store_contract() {
    let url = url("SESSION_TEST_REDIS_CLUSTER");
    testing::check_store(RedisStore::connect(&url).await.unwrap()).await;
    // By several urls.
    let urls: Vec<_> = ports_of(&url)
        .iter()
        .map(|port| format!("redis://127.0.0.1:{port}"))
        .collect();
    testing::check_store(RedisStore::connect(&urls.join(",")).await.unwrap()).await;
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn a_master_behind_sentinels_keeps_the_store_contract() {
    let url = url("SESSION_TEST_REDIS_SENTINEL");
    testing::check_store(RedisStore::connect(&url).await.unwrap()).await;
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn the_applications_own_clients_keep_the_store_contract() {
    let url = url("SESSION_TEST_REDIS").replace("redis://", "valkey://");
    testing::check_store(
        RedisStore::connect(&url)
            .await
            .unwrap()
            .with_prefix("mine:"),
    )
    .await;
    let client = redis::Client::open(url).unwrap();
    let manager = client.get_connection_manager().await.unwrap();
    testing::check_store(RedisStore::from_client(client)).await;
    testing::check_store(RedisStore::from_connection_manager(manager)).await;
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn on_one_server_every_operation_is_one_round_trip() {
    let server = Redis::start(&[]);
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let round = |store: RedisStore| async move {
        let id = new_id();
        assert!(store.create(id, &write_of("ada")).await.unwrap());
        assert!(store.load(id, now()).await.unwrap().is_some());
        assert_eq!(
            store.apply(id, &write(&[("a", "b")])).await.unwrap(),
            Applied::Done
        );
        let mut change = plain(&[("a", "c")]);
        assert_eq!(store.apply(id, &change).await.unwrap(), Applied::Done);
        change.remove = vec!["key".into()];
        assert_eq!(store.apply(id, &change).await.unwrap(), Applied::Done);
        assert_eq!(
            store.apply(id, &write_of("bob")).await.unwrap(),
            Applied::Done
        );
        assert_eq!(store.apply(id, &renewal(&[])).await.unwrap(), Applied::Done);
        store.destroy(id).await.unwrap();
    };
    // The first time, the server does not know the scripts.
    round(store.clone()).await;
    let monitor = Monitor::start(server.port);
    round(store.clone()).await;
    let seen = monitor.stop();
    let commands: Vec<_> = seen
        .iter()
        .map(|line| line.split('"').nth(1).unwrap())
        .collect();
    let plain = ["HSET", "PEXPIRE", "HGET"];
    let removal = ["MULTI", "HSET", "HDEL", "PEXPIRE", "HGET", "EXEC"];
    let scripts = ["EVALSHA"; 3];
    let parts: [&[&str]; 4] = [
        &["EVALSHA", "HGETALL", "EVALSHA"],
        &plain,
        &removal,
        &scripts,
    ];
    assert_eq!(commands, parts.concat());
}

/// Round trips in a cluster: of one session without a user, and of one with.
#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn in_a_cluster_only_a_users_index_takes_more_round_trips() {
    let url = url("SESSION_TEST_REDIS_CLUSTER");
    let store = RedisStore::connect(&url).await.unwrap();
    let ports = ports_of(&url);
    let id = new_id();
    let (ada, bob) = (format!("ada {id}"), format!("bob {id}"));
    let mut of_bob = write_of(&bob);
    (of_bob.verifier, of_bob.expires) = (SECOND, now().plus(3 * HOUR));
    let mut longer = write(&[]);
    (longer.verifier, longer.expires) = (SECOND, now().plus(2 * HOUR));
    let steps = [
        ("create", Some(write(&[])), 1),
        ("load", None, 1),
        ("write", Some(write(&[("a", "b")])), 1),
        ("renew", Some(renewal(&[("a", "c")])), 1),
        ("destroy", None, 1),
        ("create", Some(write_of(&ada)), 2),
        ("load", None, 1),
        ("write", Some(write(&[("a", "b")])), 1),
        ("renew", Some(renewal(&[("a", "c")])), 1),
        ("a later end", Some(longer), 2),
        ("write", Some(of_bob), 3),
        ("destroy", None, 2),
    ];
    // The first time, the servers do not know the scripts.
    for is_counted in [false, true] {
        for (what, write, expected) in &steps {
            let monitors = is_counted.then(|| ports.iter().map(|port| Monitor::start(*port)));
            let monitors: Vec<_> = monitors.into_iter().flatten().collect();
            match (*what, write) {
                ("create", Some(write)) => assert!(store.create(id, write).await.unwrap()),
                (_, Some(write)) => {
                    assert_eq!(store.apply(id, write).await.unwrap(), Applied::Done);
                }
                ("load", None) => assert!(store.load(id, now()).await.unwrap().is_some()),
                _ => store.destroy(id).await.unwrap(),
            }
            if is_counted {
                let seen = monitors.into_iter().flat_map(Monitor::stop);
                let id = id.to_string();
                let round_trips = seen.filter(|line| line.contains(&id)).count();
                assert_eq!(round_trips, *expected, "{what} {write:?}");
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn the_bytes_of_a_write_follow_what_changed() {
    let server = Redis::start(&[]);
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let id = new_id();
    let keys: Vec<_> = (0..1_000).map(|n| format!("key{n}")).collect();
    let large = "x".repeat(100);
    let all: Vec<_> = keys.iter().map(|key| (&**key, &*large)).collect();
    assert!(store.create(id, &write(&all)).await.unwrap());
    for (one, lines) in [
        (write(&[("key7", "new")]), 1),
        (plain(&[("key7", "new")]), 3),
    ] {
        assert_eq!(store.apply(id, &one).await.unwrap(), Applied::Done);
        let monitor = Monitor::start(server.port);
        assert_eq!(store.apply(id, &one).await.unwrap(), Applied::Done);
        let seen = monitor.stop();
        assert_eq!(seen.len(), lines);
        let bytes: usize = seen.iter().map(String::len).sum();
        println!("{bytes} bytes");
        assert!(bytes < 650, "{bytes} bytes");
    }
    let record = store.load(id, now()).await.unwrap().unwrap();
    assert_eq!(record.entries.len(), 1_000);
    assert_eq!(record.entries.get("key7"), Some(Value::Text("new")));

    let mut clear = write(&[("a", "b")]);
    clear.clear = true;
    assert_eq!(store.apply(id, &clear).await.unwrap(), Applied::Done);
    assert_eq!(
        store.load(id, now()).await.unwrap().unwrap().entries.len(),
        1
    );
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn a_foreign_redis_value_is_corrupt_and_unchanged() {
    let server = Redis::start(&[]);
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let id = new_id();
    let key = format!("session:{{{id}}}");
    let lacks_the_rest = format!("{} 9", "A".repeat(43));
    let lacks_the_rest = ["meta", &lacks_the_rest];
    let garbled = ["meta", "1 9 x 1 verifier - write"];
    let nobodys = ["meta", "1 9 1 1"];
    for (command, args) in [
        ("set", &["a string"][..]),
        ("rpush", &["a list"]),
        ("hset", &garbled),
        ("hset", &lacks_the_rest),
        ("hset", &nobodys),
    ] {
        cli(server.port, &["del", &key]);
        cli(server.port, &[&[command, &key], args].concat());
        let before = cli(server.port, &["dump", &key]);
        let is_corrupt = |what: &str, corrupt: bool| {
            assert!(corrupt, "{what} of {command} {args:?} is Corrupt");
            assert_eq!(
                cli(server.port, &["dump", &key]),
                before,
                "{what} of {command}"
            );
        };
        let change = write_of("ada");
        macro_rules! check {
            ($what:literal, $call:expr) => {
                is_corrupt(
                    $what,
                    matches!($call.await, Err(StoreError::Corrupt { .. })),
                )
            };
        }
        check!("load", store.load(id, now()));
        check!("create", store.create(id, &change));
        check!("apply", store.apply(id, &change));
        check!("renew", store.apply(id, &renewal(&[])));
        check!("destroy", store.destroy(id));
    }
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn scripts_are_loaded_again_after_the_server_forgot_them() {
    let server = Redis::start(&[]);
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let id = new_id();
    assert!(store.create(id, &write(&[])).await.unwrap());
    assert_eq!(store.apply(id, &write(&[])).await.unwrap(), Applied::Done);
    assert_eq!(cli(server.port, &["script", "flush"]), "OK");
    assert_eq!(
        store.apply(id, &write(&[("a", "b")])).await.unwrap(),
        Applied::Done
    );
    store.destroy(id).await.unwrap();
    assert!(store.load(id, now()).await.unwrap().is_none());
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn no_error_and_no_debug_text_shows_the_password() {
    let server = Redis::start(&["--requirepass", "s3cret"]);
    let port = server.port;
    let store = RedisStore::connect(&format!("redis://:s3cret@127.0.0.1:{port}"))
        .await
        .unwrap();
    assert!(store.create(new_id(), &write(&[])).await.unwrap());
    assert!(!format!("{store:?} {store:#?}").contains("s3cret"));

    let down = free_port();
    for (url, sign) in [
        (format!("redis://ada:s3crex@127.0.0.1:{port}"), "127.0.0.1"),
        (format!("redis://ada:s3crex@127.0.0.1:{down}"), "refused"),
        (
            format!("redis+cluster://ada:s3crex@127.0.0.1:{down},127.0.0.1:{port}"),
            "",
        ),
        (
            format!("redis+sentinel://ada:s3crex@127.0.0.1:{down}/name"),
            "",
        ),
        (
            format!("redis+sentinel://ada:s3crex@127.0.0.1:{down}"),
            "name of the service",
        ),
        ("redis://ada:s3crex@:no port".to_owned(), ""),
        ("rediss+nonsense://ada:s3crex@host".to_owned(), ""),
        ("ada:s3crex@host".to_owned(), "redis://"),
    ] {
        let error = RedisStore::connect(&url).await.expect_err(&url);
        let error = whole(&error);
        assert!(!error.contains("s3crex"), "{error}");
        assert!(error.contains(sign), "{url}: {error}");
        if let Ok(store) = RedisStore::connect_lazy(&url) {
            assert!(!format!("{store:?}").contains("s3crex"));
            let error = whole(&store.load(new_id(), now()).await.unwrap_err());
            assert!(!error.contains("s3crex"), "{error}");
        }
    }
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn connecting_to_a_server_that_is_down_fails_at_once() {
    let port = free_port();
    for url in [
        format!("redis://127.0.0.1:{port}"),
        format!("redis+cluster://127.0.0.1:{port},127.0.0.1:{port}"),
        format!("redis+sentinel://127.0.0.1:{port}/name"),
    ] {
        let since = Instant::now();
        let error = RedisStore::connect(&url).await.unwrap_err();
        let took = since.elapsed();
        println!("{url}: {took:?}: {}", whole(&error));
        assert!(took < Duration::from_millis(500), "{url}: {took:?}");
        assert!(whole(&error).contains(&port.to_string()), "it says where");
    }
    let server = Redis::start(&[]);
    server.signal("STOP");
    let since = Instant::now();
    RedisStore::connect(&server.url()).await.unwrap_err();
    assert!(since.elapsed() < LIMIT, "nor does one that hangs keep it");
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn a_lazy_store_may_start_before_its_server() {
    let mut server = Redis::start(&[]);
    server.kill();
    let store = RedisStore::connect_lazy(&server.url()).unwrap();
    assert!(store.load(new_id(), now()).await.is_err());
    server.restart();
    assert!(time_to_recover(&store, new_id()).await < Duration::from_millis(500));
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn after_a_killed_server_restarts_the_store_recovers_in_a_second() {
    let mut server = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let id = new_id();
    assert!(store.create(id, &write(&[("key", "value")])).await.unwrap());
    for (away, calls_meanwhile) in [(2, true), (2, false), (0, false), (30, true)] {
        server.kill();
        let down = Instant::now();
        while calls_meanwhile && down.elapsed() < Duration::from_secs(away) {
            let since = Instant::now();
            assert!(store.apply(id, &write(&[])).await.is_err());
            assert!(since.elapsed() < Duration::from_millis(200), "and at once");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        thread::sleep(Duration::from_secs(away).saturating_sub(down.elapsed()));
        server.restart();
        if !calls_meanwhile {
            // Not even one request fails for what happened while there was none.
            assert!(store.load(id, now()).await.unwrap().is_some());
        }
        let took = time_to_recover(&store, id).await;
        println!("away {away} s, called meanwhile: {calls_meanwhile}: recovered in {took:?}");
        assert!(took < Duration::from_millis(500), "{took:?}");
        let record = store.load(id, now()).await.unwrap().expect("it was kept");
        assert_eq!(record.entries.get("key"), Some(Value::Text("value")));
    }
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn after_a_server_stops_hanging_the_store_recovers_at_once() {
    let server = Redis::start(&[]);
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let id = new_id();
    assert!(store.create(id, &write(&[("key", "value")])).await.unwrap());
    for seconds in [1, 5] {
        server.signal("STOP");
        let down = Instant::now();
        let calls: Vec<_> = (0..20)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    while down.elapsed() < Duration::from_secs(seconds) {
                        let since = Instant::now();
                        let _ = limited(store.load(id, now())).await;
                        let took = since.elapsed();
                        assert!(took < LIMIT + Duration::from_millis(200), "{took:?}");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        server.signal("CONT");
        let took = time_to_recover(&store, id).await;
        println!("stopped for {seconds} s: recovered in {took:?}");
        assert!(took < Duration::from_millis(500), "{took:?}");
        for call in calls {
            call.await.unwrap();
        }
        assert_eq!(store.apply(id, &write(&[])).await.unwrap(), Applied::Done);
    }
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn a_failover_in_a_cluster_is_followed_within_a_second() {
    let servers = Servers::cluster();
    let store = RedisStore::connect(&servers.url).await.unwrap();
    let ports = ports_of(&servers.url);
    for how in ["KILL", "STOP"] {
        let victim = ports[usize::from(how == "STOP")];
        let watcher = ports[2];
        // Sessions everywhere, so some on the master that goes.
        let ids: Vec<_> = (0..60).map(|_| new_id()).collect();
        for id in &ids {
            assert!(
                store
                    .create(*id, &write(&[("key", "value")]))
                    .await
                    .unwrap()
            );
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let of_victim: Vec<_> = ids
            .iter()
            .copied()
            .filter(|id| !cli(victim, &["exists", &format!("session:{{{id}}}")]).contains("MOVED"))
            .collect();
        assert!(!of_victim.is_empty() && of_victim.len() < ids.len());
        let pid = pid_of(victim);
        let (down, recovered) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        signal(pid, how);
        let watch = Arc::clone(&recovered);
        let key = format!("session:{{{}}}", of_victim[0]);
        let watching = thread::spawn(move || {
            // When the cluster has its replica promoted: what another client sees.
            while down.elapsed() < Duration::from_secs(20) {
                let seen = Command::new("timeout")
                    .args([
                        "0.5",
                        "redis-cli",
                        "-c",
                        "-p",
                        &watcher.to_string(),
                        "exists",
                        &key,
                    ])
                    .output()
                    .unwrap();
                if String::from_utf8_lossy(&seen.stdout).trim() == "1" {
                    watch.store(true, Ordering::SeqCst);
                    return down.elapsed();
                }
                thread::sleep(Duration::from_millis(5));
            }
            panic!("the cluster recovers");
        });
        // Requests go on all the while.
        let mut calls = Vec::new();
        for id in &ids {
            let (store, id, recovered) = (store.clone(), *id, Arc::clone(&recovered));
            calls.push(tokio::spawn(async move {
                while !recovered.load(Ordering::SeqCst) && down.elapsed() < Duration::from_secs(20)
                {
                    let since = Instant::now();
                    let _ = limited(store.load(id, now())).await;
                    assert!(since.elapsed() < LIMIT + Duration::from_millis(200));
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                let since = Instant::now();
                time_to_recover(&store, id).await;
                since.elapsed()
            }));
        }
        let mut slowest = Duration::ZERO;
        for call in calls {
            slowest = slowest.max(call.await.unwrap());
        }
        let cluster = watching.join().unwrap();
        println!("{how}: the cluster took {cluster:?}, the store {slowest:?} more");
        assert!(slowest < Duration::from_millis(800), "{slowest:?}");
        for id in &ids {
            assert!(
                store.load(*id, now()).await.unwrap().is_some(),
                "no session is lost"
            );
            assert_eq!(store.apply(*id, &write(&[])).await.unwrap(), Applied::Done);
        }
    }
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn a_failover_of_sentinels_is_followed_within_a_second() {
    let servers = Servers::sentinel();
    let store = RedisStore::connect(&servers.url).await.unwrap();
    let sentinel = ports_of(&servers.url)[0];
    let master = move || -> u16 {
        let address = cli(
            sentinel,
            &["sentinel", "get-master-addr-by-name", "session"],
        );
        address.lines().nth(1).unwrap().parse().unwrap()
    };
    let id = new_id();
    assert!(store.create(id, &write(&[("key", "value")])).await.unwrap());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let old = master();
    signal(pid_of(old), "KILL");
    let down = Instant::now();
    let new = loop {
        let since = Instant::now();
        let _ = limited(store.load(id, now())).await;
        assert!(since.elapsed() < LIMIT + Duration::from_millis(200));
        let now = master();
        if now != old && cli(now, &["role"]).starts_with("master") {
            break now;
        }
        assert!(
            down.elapsed() < Duration::from_secs(20),
            "the Sentinels agree on a new master"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    println!(
        "the Sentinels took {:?} to make {new} the master",
        down.elapsed()
    );
    let took = time_to_recover(&store, id).await;
    println!("the store {took:?} more");
    assert!(took < Duration::from_millis(800), "{took:?}");
    assert!(
        store.load(id, now()).await.unwrap().is_some(),
        "no session is lost"
    );
    assert_eq!(store.apply(id, &write(&[])).await.unwrap(), Applied::Done);
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn a_users_index_expires_with_their_last_session() {
    let server = Redis::start(&[]);
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let store = store.with_prefix("mine:");
    let count = || cli(server.port, &["dbsize"]).parse::<u32>().unwrap();
    let (one, two) = (new_id(), new_id());
    let (mut long, short) = (write_of("ada"), write_of("ada"));
    long.expires = long.now.plus(2 * HOUR);
    // The server is told a tenth more.
    let tenth = HOUR / 10;
    assert!(store.create(one, &long).await.unwrap());
    assert!(store.create(two, &short).await.unwrap());
    assert_eq!(count(), 3);
    let keys = cli(server.port, &["keys", "mine:user:*"]);
    let ttl: u64 = cli(server.port, &["ttl", &keys]).parse().unwrap();
    assert!((7_920..=7_980).contains(&ttl), "{ttl} s");
    let index = store.users().unwrap();
    let later = short.expires;
    let page = index.sessions_of("ada", &[], later).await.unwrap();
    assert_eq!(page.items.len(), 1, "what is over is not listed");
    let three = new_id();
    let mut third = write_of("ada");
    (third.now, third.expires) = (later, later.plus(HOUR));
    assert!(store.create(three, &third).await.unwrap());
    assert_eq!(
        cli(server.port, &["zcard", &keys]),
        "3",
        "a record is stored for a while more, and so long found by what ends it"
    );
    third.now = later.plus(tenth + Duration::from_secs(60));
    assert_eq!(store.apply(three, &third).await.unwrap(), Applied::Done);
    assert_eq!(
        cli(server.port, &["zcard", &keys]),
        "2",
        "what is over is dropped when something is added"
    );
    for id in [one, two, three] {
        store.destroy(id).await.unwrap();
    }
    assert_eq!(count(), 0, "nothing is left");
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn a_record_expires_by_the_callers_clock_not_the_servers() {
    let store = RedisStore::connect(&url("SESSION_TEST_REDIS"))
        .await
        .unwrap();
    let (id, long_ago) = (new_id(), Timestamp::from_millis(1_000_000));
    let past = Write::touch(FIRST, long_ago, long_ago, long_ago.plus(HOUR));
    assert!(store.create(id, &past).await.unwrap());
    assert!(store.load(id, long_ago).await.unwrap().is_some());
    store.destroy(id).await.unwrap();
}

#[test]
#[ignore = "needs Redis: tests/run.sh"]
fn a_store_reconnects_after_its_runtime_ended() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    for variable in [
        "SESSION_TEST_REDIS",
        "SESSION_TEST_REDIS_CLUSTER",
        "SESSION_TEST_REDIS_SENTINEL",
    ] {
        let id = new_id();
        // As of one thread of a web server that has one each.
        let first = runtime();
        let store = first.block_on(async {
            let store = RedisStore::connect(&url(variable)).await.unwrap();
            assert!(store.create(id, &write(&[])).await.unwrap());
            store
        });
        drop(first);
        runtime().block_on(async {
            let applied = store.apply(id, &write(&[])).await;
            assert_eq!(applied.unwrap(), Applied::Done, "{variable}");
            store.destroy(id).await.unwrap();
        });
    }
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn a_dead_connection_is_replaced() {
    let server = Redis::start(&[]);
    let (url, proxy) = Proxy::before(&server.url());
    let store = RedisStore::connect(&url).await.unwrap();
    let id = new_id();
    assert!(store.create(id, &write(&[])).await.unwrap());
    proxy.silence();
    assert!(matches!(limited(store.load(id, now())).await, Err(None)));
    assert!(limited(store.load(id, now())).await.unwrap().is_some());
}

/// Sends each of `count` calls and drops it before its answer can arrive, as an HTTP/2 client does that
/// resets its streams.
fn drop_early(store: &RedisStore, id: StoreId, count: u32) {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..count {
        let call = pin!(store.load(id, now()));
        assert!(call.poll(&mut context).is_pending());
    }
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn cancelled_calls_do_not_replace_a_healthy_connection() {
    let server = Redis::start(&[]);
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let id = new_id();
    assert!(store.create(id, &write(&[])).await.unwrap());
    let before = connections(server.port);
    assert_eq!(cli(server.port, &["config", "resetstat"]), "OK");
    for count in [1, 5, 50] {
        drop_early(&store, id, count);
        assert!(store.load(id, now()).await.unwrap().is_some());
        assert_eq!(connections(server.port), before, "{count} dropped");
    }
    // One check at a time, in the background.
    let checks = || -> Option<u32> {
        let stats = cli(server.port, &["info", "commandstats"]);
        let (_, exists) = stats.split_once("cmdstat_exists:calls=")?;
        exists.split(',').next()?.parse().ok()
    };
    let since = Instant::now();
    while checks().is_none() {
        assert!(since.elapsed() < LIMIT, "the connection is checked");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(checks() <= Some(3), "{:?} checks of 56 dropped", checks());
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn a_dead_connection_is_replaced_even_if_every_call_is_cancelled() {
    let server = Redis::start(&[]);
    let (url, proxy) = Proxy::before(&server.url());
    let store = RedisStore::connect(&url).await.unwrap();
    let id = new_id();
    assert!(store.create(id, &write(&[])).await.unwrap());
    proxy.silence();
    let since = Instant::now();
    let early = Duration::from_millis(50);
    while tokio::time::timeout(early, store.load(id, now()))
        .await
        .is_err()
    {
        assert!(since.elapsed() < LIMIT, "it is never found");
    }
    println!("found dead in {:?}", since.elapsed());
}

#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn a_write_whose_reply_was_lost_happens_once() {
    let server = Redis::start(&[]);
    let (url, proxy) = Proxy::before(&server.url());
    let store = RedisStore::connect(&url).await.unwrap();
    // So that the server knows the scripts.
    let id = new_id();
    assert!(store.create(id, &write(&[])).await.unwrap());
    assert_eq!(store.apply(id, &write(&[])).await.unwrap(), Applied::Done);
    store.destroy(id).await.unwrap();

    proxy.lose_next_reply();
    assert!(store.create(id, &write(&[("a", "1")])).await.unwrap());
    let mut change = write(&[("a", "2")]);
    change.if_version = Some(1);
    proxy.lose_next_reply();
    assert_eq!(store.apply(id, &change).await.unwrap(), Applied::Done);
    assert_eq!(store.load(id, now()).await.unwrap().unwrap().version, 2);
    proxy.lose_next_reply();
    let mut change = plain(&[("b", "4")]);
    change.remove = vec!["a".into()];
    assert_eq!(store.apply(id, &change).await.unwrap(), Applied::Done);
    assert_eq!(
        store.load(id, now()).await.unwrap().unwrap().entries.len(),
        1
    );
    proxy.lose_next_reply();
    let change = renewal(&[("a", "3")]);
    assert_eq!(store.apply(id, &change).await.unwrap(), Applied::Done);
    let record = store.load(id, now()).await.unwrap().unwrap();
    assert_eq!((record.version, record.verifier), (3, SECOND));
    assert_eq!(record.entries.len(), 2);
    assert_eq!(
        store.apply(id, &change).await.unwrap(),
        Applied::Gone,
        "the same once more is another write"
    );
    proxy.lose_next_reply();
    store.destroy(id).await.unwrap();
}

/// What `RedisStore`'s documentation says that a user of Redis needs.
#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn the_documented_redis_rights_suffice() {
    let (single, cluster) = (url("SESSION_TEST_REDIS"), url("SESSION_TEST_REDIS_CLUSTER"));
    let sentinel = url("SESSION_TEST_REDIS_SENTINEL");
    let masters = "sentinel get-master-addr-by-name session";
    let masters: Vec<_> = masters.split(' ').collect();
    let master = cli(ports_of(&sentinel)[0], &masters);
    let master = master.lines().nth(1).unwrap().parse().unwrap();
    let nodes = cli(ports_of(&cluster)[0], &["cluster", "nodes"]);
    let nodes = nodes.lines().map(|line| {
        let address = line.split(' ').nth(1).unwrap();
        port_of(address.split('@').next().unwrap())
    });
    let mut grants = vec![(port_of(&single), ""), (master, "+role")];
    grants.extend(nodes.map(|port| (port, "+cluster")));
    for (port, more) in grants {
        let mut rights = vec![
            "acl",
            "setuser",
            "limited",
            "reset",
            "on",
            ">pass",
            "~session:*",
        ];
        rights.extend([
            "+@read",
            "+@write",
            "+@scripting",
            "+@transaction",
            "+@connection",
        ]);
        // For `Session::ended`.
        rights.extend(["&session:ended", "+publish", "+subscribe"]);
        rights.extend(Some(more).filter(|more| !more.is_empty()));
        assert_eq!(cli(port, &rights), "OK");
    }
    for url in [single, cluster, sentinel] {
        let url = url.replace("://", "://limited:pass@");
        testing::check_store(RedisStore::connect(&url).await.unwrap()).await;
    }
}

#[cfg(feature = "redis-tls")]
#[test]
#[ignore = "needs Redis: tests/run.sh"]
fn over_tls_only_a_server_that_the_system_trusts_is_accepted() {
    // Which certificates the system trusts is read from the environment, so that the test runs itself
    // in a process for each answer.
    if let Ok(url) = env::var("SESSION_TEST_REDIS_TLS") {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        return runtime.enable_all().build().unwrap().block_on(async {
            testing::check_store(RedisStore::connect(&url).await.unwrap()).await;
        });
    }
    let certificates = Certificates::make();
    let file = |name: &str| certificates.path(name);
    let (port, ca) = (free_port(), file("ca.pem"));
    let _server = Redis::start(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &file("cert"),
        "--tls-key-file",
        &file("key"),
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ]);
    let run = |trusts: Option<&str>| {
        let mut test = Command::new(env::current_exe().unwrap());
        test.args([
            "--exact",
            "over_tls_only_a_server_that_the_system_trusts_is_accepted",
            "--ignored",
            "--nocapture",
        ])
        .env(
            "SESSION_TEST_REDIS_TLS",
            format!("rediss://127.0.0.1:{port}"),
        );
        if let Some(ca) = trusts {
            test.env("SSL_CERT_FILE", ca);
        }
        let output = test.output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (kept, said) = run(Some(&ca));
    assert!(kept, "{said}");
    let (kept, said) = run(None);
    assert!(
        !kept && said.to_lowercase().contains("certificate"),
        "{said}"
    );
}
