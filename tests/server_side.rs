//! Server-side sessions over HTTP, in memory; and what happens when a store is away.
#![cfg(all(
    feature = "actix",
    feature = "cookies",
    feature = "memory",
    feature = "testing"
))]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    Log, Server, script,
    server_side::{self, check_promises},
};
use session_manager::{
    Applied, Error, Manager, MemoryStore, OnStoreError, Record, ServerSide, Session, SignedCookie,
    Store, StoreError, StoreId, Timestamp, Write,
};

#[tokio::test]
async fn the_memory_store_keeps_the_contract_of_a_store() {
    session_manager::testing::check_store(MemoryStore::new()).await;
}

#[test]
fn the_memory_store_keeps_every_promise_over_http() {
    let store = MemoryStore::new();
    check_promises(&store);
    let before = store.len();
    server_side::nobody_without_a_session_makes_a_record(&store);
    assert_eq!(
        store.len(),
        before,
        "10,000 requests without a session, and no record"
    );
}

#[cfg(feature = "tower-sessions")]
#[test]
fn a_store_of_tower_sessions_keeps_every_promise_over_http() {
    use session_manager::TowerStore;

    check_promises(&TowerStore::new(
        tower_sessions_memory_store::MemoryStore::default(),
    ));
}

#[test]
fn a_full_memory_store_drops_the_session_written_longest_ago() {
    // One session for each of the 64 shards.
    let store = MemoryStore::with_capacity(64);
    let server = Server::start(
        Manager::new(ServerSide::new(store.clone())).middleware(),
        script::routes,
    );
    let oldest = server.raw("/run/add.key.value", &[]).cookie();
    for _ in 0..1_000 {
        server.raw("/run/add.key.value", &[]).cookie();
    }
    assert!(store.len() <= 64, "{} sessions", store.len());
    let newest = server.raw("/run/add.key.value", &[]).cookie();
    assert_eq!(server.with_cookie("/run/get.key", newest).body, "value");
    assert_eq!(server.with_cookie("/run/get.key", oldest).body, "none");
}

#[test]
fn a_session_outlives_its_request_in_a_task_that_saves() {
    let store = MemoryStore::new();
    let manager = Manager::new(ServerSide::new(store));
    let server = Server::start(manager.middleware(), |config| {
        config.configure(script::routes).route(
            "/spawn",
            actix_web::web::get().to(async |session: Session| {
                session.add("before", 1)?;
                session.save().await?;
                actix_web::rt::spawn(async move {
                    // After the head was sent: that is when writing to a new id is an error.
                    actix_web::rt::time::sleep(Duration::from_millis(50)).await;
                    session.add("later", 2).unwrap();
                    session
                        .update("before", |n: Option<i32>| n.unwrap_or(0) + 10)
                        .unwrap();
                    session.save().await.unwrap();
                    session.renew();
                    assert!(matches!(session.save().await, Err(Error::HeadSent)));
                });
                Ok::<_, Error>("spawned")
            }),
        );
    });
    let cookie = server.raw("/spawn", &[]).cookie();
    let begun = Instant::now();
    while server.with_cookie("/run/get.later", &cookie).body == "none" {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "the task never saved"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(
        server
            .with_cookie("/run/get.before,get.later", &cookie)
            .body,
        "11,2"
    );
}

#[test]
fn a_task_that_saves_to_a_session_that_ended_is_told() {
    let (send, receive) = std::sync::mpsc::channel::<Session>();
    let manager = Manager::new(ServerSide::new(MemoryStore::new()));
    let server = Server::start(manager.middleware(), move |config| {
        let send = send.clone();
        config.configure(script::routes).route(
            "/keep",
            actix_web::web::get().to(move |session: Session| {
                send.send(session).unwrap();
                async { "kept" }
            }),
        );
    });
    let cookie = server.raw("/run/add.user.ada", &[]).cookie();
    server.with_cookie("/keep", &cookie);
    let session = receive.recv().unwrap();
    server.with_cookie("/run/destroy", &cookie);
    session.add("late", 1).unwrap();
    let saved = actix_web::rt::System::new().block_on(session.save());
    assert!(matches!(saved, Err(Error::Ended)), "{saved:?}");
    assert_eq!(server.with_cookie("/run/len", &cookie).body, "0");
}

#[test]
fn ending_a_session_sticks_even_if_the_handler_panics_and_nothing_else_does() {
    let manager = Manager::new(ServerSide::new(MemoryStore::new()));
    let server = Server::start(manager.middleware(), script::routes);
    let cookie = server.raw("/run/add.user.ada", &[]).cookie();
    let panics = |script: &str| {
        let answer =
            std::thread::scope(|scope| scope.spawn(|| server.with_cookie(script, &cookie)).join());
        assert!(
            answer.is_err(),
            "a handler that panics has no answer: {answer:?}"
        );
    };
    panics("/run/add.user.eve,panic");
    assert_eq!(server.with_cookie("/run/get.user", &cookie).body, "ada");
    panics("/run/destroy,add.user.eve,panic");
    let begun = Instant::now();
    while server.with_cookie("/run/get.user", &cookie).body != "none" {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "the session lives on"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_session_on_demand_is_not_loaded_before_somebody_asks() {
    let manager = Manager::builder(ServerSide::new(MemoryStore::new()))
        .load_on_demand()
        .build()
        .unwrap();
    let in_handler = manager.clone();
    let server = Server::start(manager.middleware(), move |config| {
        let manager = in_handler.clone();
        config.configure(script::routes).route(
            "/sync",
            actix_web::web::get().to(move |req: actix_web::HttpRequest| {
                let manager = manager.clone();
                async move {
                    let before = manager.get(&req, "key");
                    assert!(matches!(before, Err(Error::NotLoaded)), "{before:?}");
                    manager.open(&req).await?;
                    Ok::<_, Error>(manager.get(&req, "key")?.unwrap_or_default())
                }
            }),
        );
    });
    let cookie = server.raw("/run/add.key.value", &[]).cookie();
    assert_eq!(server.with_cookie("/sync", cookie).body, "value");
}

#[test]
fn a_cookie_engine_cannot_find_a_users_sessions_and_says_why() {
    let manager = Manager::new(SignedCookie::new(common::key()));
    let found = actix_web::rt::System::new().block_on(manager.user_sessions("ada"));
    let error = found.unwrap_err();
    assert!(matches!(
        error,
        Error::NoUserIndex {
            engine: "signed cookie"
        }
    ));
    assert!(error.to_string().contains("server-side"));
}

/// A store that is away in one way or another.
#[derive(Clone, Copy)]
enum Away {
    Hangs,
    Refuses,
    Spoiled,
}

impl Away {
    async fn answer<T>(self) -> Result<T, StoreError> {
        match self {
            Self::Hangs => std::future::pending().await,
            Self::Refuses => Err(StoreError::failed(
                "store",
                std::io::Error::other("connection refused"),
            )),
            Self::Spoiled => Err(StoreError::Spoiled {
                store: "store",
                why: "it has no version",
            }),
        }
    }
}

impl Store for Away {
    fn name(&self) -> &'static str {
        "store"
    }

    async fn load(&self, _: StoreId, _: Timestamp) -> Result<Option<Record>, StoreError> {
        self.answer().await
    }

    async fn create(&self, _: StoreId, _: &Write) -> Result<bool, StoreError> {
        match self {
            Self::Spoiled => Ok(true),
            _ => self.answer().await,
        }
    }

    async fn apply(&self, _: StoreId, _: &Write) -> Result<Applied, StoreError> {
        panic!("what could not be loaded is never written to");
    }

    async fn destroy(&self, _: StoreId) -> Result<(), StoreError> {
        panic!("what could not be loaded is never destroyed");
    }
}

#[test]
fn a_store_that_is_away_is_a_503_within_the_time_limit_or_an_empty_session_without_writes() {
    let log = Log::of_process();
    let cookie = format!("_session={}", "A".repeat(64));
    let limit = Duration::from_millis(200);
    let serve = |store, policy| {
        let engine = ServerSide::new(store).time_limit(limit);
        let manager = Manager::builder(engine)
            .on_store_error(policy)
            .build()
            .unwrap();
        Server::start(manager.middleware(), script::routes)
    };
    for (store, text) in [
        (Away::Hangs, "did not answer within 200 ms"),
        (Away::Refuses, "connection refused"),
    ] {
        let server = serve(store, OnStoreError::Fail);
        let begun = Instant::now();
        let answer = server.with_cookie("/run/get.key", &cookie);
        assert_eq!((answer.status, &*answer.body), (503, "Service Unavailable"));
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(log.lines(text).len(), 1, "{text}");
        assert_eq!(
            server.raw("/run/get.key", &[]).status,
            200,
            "no cookie, no store"
        );
        assert_eq!(
            server.raw("/run/add.key.value", &[]).status,
            503,
            "what cannot be kept is not claimed"
        );

        let server = serve(store, OnStoreError::Anonymous);
        let answer = server.with_cookie("/run/get.key,add.key.value,destroy", &cookie);
        assert_eq!((answer.status, &*answer.body), (200, "none,read only,done"));
        assert_eq!(answer.set_cookie(), None);
    }
}

#[test]
fn a_record_that_another_program_spoiled_is_an_empty_session_and_left_alone() {
    let log = Log::of_process();
    let server = Server::start(
        Manager::new(ServerSide::new(Away::Spoiled)).middleware(),
        script::routes,
    );
    let cookie = format!("_session={}", "A".repeat(64));
    let answer = server.with_cookie("/run/get.key,add.key.value", &cookie);
    assert_eq!((answer.status, &*answer.body), (200, "none,null"));
    assert_ne!(
        answer.cookie(),
        cookie,
        "what is written goes under a new id"
    );
    assert_eq!(log.lines("it has no version").len(), 1);
}

/// Memory that fails its next write when it is told to.
#[derive(Clone, Default)]
struct Flaky {
    store: MemoryStore,
    fails: Arc<AtomicBool>,
}

impl Store for Flaky {
    fn name(&self) -> &'static str {
        "flaky"
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        self.store.load(id, now).await
    }

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        self.store.create(id, write).await
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        if self.fails.swap(false, Ordering::SeqCst) {
            return Err(StoreError::failed(
                "flaky",
                std::io::Error::other("connection reset"),
            ));
        }
        self.store.apply(id, write).await
    }

    async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
        self.store.destroy(id).await
    }
}

#[test]
fn what_save_could_not_keep_is_kept_by_the_next_one() {
    let store = Flaky::default();
    let fails = Arc::clone(&store.fails);
    let manager = Manager::new(ServerSide::new(store));
    let server = Server::start(manager.middleware(), move |config| {
        let fails = Arc::clone(&fails);
        config.configure(script::routes).route(
            "/save",
            actix_web::web::get().to(move |session: Session| {
                let fails = Arc::clone(&fails);
                async move {
                    session.add("key", "value")?;
                    session.pop("old");
                    fails.store(true, Ordering::SeqCst);
                    let failed = session.save().await;
                    assert!(
                        matches!(failed, Err(Error::Unavailable { .. })),
                        "{failed:?}"
                    );
                    assert_eq!(session.get("key").as_deref(), Some("value"));
                    assert_eq!(session.get("old"), None);
                    session.save().await?;
                    Ok::<_, Error>("saved")
                }
            }),
        );
    });
    let cookie = server.raw("/run/add.old.1", &[]).cookie();
    assert_eq!(server.with_cookie("/save", &cookie).body, "saved");
    assert_eq!(
        server.with_cookie("/run/get.key,get.old", &cookie).body,
        "value,none"
    );
}
