//! Server-side sessions over HTTP, in memory, and stores that are unavailable.

use std::{
    io::Write as _,
    net::TcpStream,
    sync::Arc,
    sync::mpsc,
    time::{Duration, Instant},
};

use crate::common::{
    App, Clock, Gates, Log, Server, Web, Wire, block_on,
    inside::{index_inside, store_inside},
    on_every_framework,
    server_side::{Counting, Flaky, How, store_tests},
    until,
};
use session_manager::{
    Error, Manager, MemoryStore, OnStoreError, ServerSide, Session, SignedCookie, Store,
    StoreError, Timestamp,
    store::{Applied, Record, StoreId, UserIndex, Write},
};
use tokio::sync::Barrier;

#[tokio::test]
async fn the_memory_store_keeps_the_store_contract() {
    session_manager::testing::check_store(MemoryStore::new()).await;
}

fn on_memory(web: Web, behaviour: fn(Web, &MemoryStore)) {
    behaviour(web, &MemoryStore::new());
}

store_tests!(memory, on_memory: promises, users, revocations);

#[cfg(feature = "tower-sessions")]
type OfTower = session_manager::TowerStore<tower_sessions_memory_store::MemoryStore>;

#[cfg(feature = "tower-sessions")]
fn on_a_store_of_tower_sessions(web: Web, behaviour: fn(Web, &OfTower)) {
    behaviour(web, &OfTower::new(Default::default()));
}

#[cfg(feature = "tower-sessions")]
store_tests!(
    tower_sessions, on_a_store_of_tower_sessions: promises, no_users, revocations, advisories
);

fn a_full_memory_store_evicts_the_oldest_session(web: Web) {
    // One session for each of the 64 shards.
    let store = MemoryStore::with_capacity(64);
    let manager = Manager::new(ServerSide::new(store.clone()));
    let server = Server::scripts(web, manager.middleware());
    let oldest = server.raw("/run/add.key.value", &[]).cookie();
    for _ in 0..1_000 {
        server.raw("/run/add.key.value", &[]).cookie();
    }
    assert!(store.len() <= 64, "{} sessions", store.len());
    let newest = server.raw("/run/add.key.value", &[]).cookie();
    assert_eq!(server.with_cookie("/run/get.key", newest).body, "value");
    assert_eq!(server.with_cookie("/run/get.key", oldest).body, "none");
}

fn a_task_may_save_a_session_after_its_request(web: Web) {
    let store = MemoryStore::new();
    let manager = Manager::new(ServerSide::new(store));
    let (tell, told) = mpsc::channel();
    let app = App::new().get("/spawn", move |session, _| {
        let tell = tell.clone();
        async move {
            session.add("before", 1)?;
            session.save().await?;
            tokio::spawn(async move {
                // After the head was sent: that is when writing to a new id is an error.
                tokio::time::sleep(Duration::from_millis(50)).await;
                session.add("later", 2).unwrap();
                session
                    .update("before", |n: Option<i32>| n.unwrap_or(0) + 10)
                    .unwrap();
                session.save().await.unwrap();
                session.renew();
                let renewed = session.save().await;
                tell.send(renewed).unwrap();
            });
            Ok("spawned")
        }
    });
    let server = Server::start(web, app.wrap(manager.middleware()));
    let cookie = server.raw("/spawn", &[]).cookie();
    // The task sends it last: had anything in it panicked, nothing would come.
    let renewed = told.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(matches!(renewed, Err(Error::HeadSent)), "{renewed:?}");
    assert_eq!(
        server
            .with_cookie("/run/get.before,get.later", &cookie)
            .body,
        "11,2"
    );
}

fn a_touch_by_save_reaches_the_browser_with_the_response(web: Web) {
    let clock = Clock::default();
    let manager = Manager::builder(ServerSide::new(MemoryStore::new()));
    let manager = manager.persistent(true).clock(clock.now()).build().unwrap();
    let app = App::new().get("/save", async |session, _| {
        session.save().await?;
        Ok("saved")
    });
    let server = Server::start(web, app.wrap(manager.middleware()));
    let cookie = server.raw("/run/add.key.value", &[]).cookie();
    clock.forward(Duration::from_secs(2 * 60 * 60));
    let saved = server.with_cookie("/save", &cookie);
    assert_eq!(saved.cookie(), cookie, "with the same id");
    assert!(saved.set_cookie().unwrap().contains("Max-Age=86400"));
}

fn saving_a_session_that_ended_is_an_error(web: Web) {
    let (send, receive) = std::sync::mpsc::channel::<Session>();
    let manager = Manager::new(ServerSide::new(MemoryStore::new()));
    let app = App::new().get("/keep", move |session, _| {
        send.send(session).unwrap();
        async { Ok("kept") }
    });
    let server = Server::start(web, app.wrap(manager.middleware()));
    let cookie = server.raw("/run/add.user.ada", &[]).cookie();
    server.with_cookie("/keep", &cookie);
    let session = receive.recv().unwrap();
    server.with_cookie("/run/destroy", &cookie);
    session.add("late", 1).unwrap();
    let saved = block_on(session.save());
    assert!(matches!(saved, Err(Error::Ended)), "{saved:?}");
    assert_eq!(server.with_cookie("/run/len", &cookie).body, "0");
}

fn a_panicking_handler_keeps_only_a_log_out(web: Web) {
    let (tell, told) = mpsc::channel();
    let app = App::new().get("/panic/{script}", move |session, script| {
        let tell = tell.clone();
        async move {
            let page = crate::common::script::run(&session, &script)?;
            tell.send(page.body).unwrap();
            if !script.is_empty() {
                panic!("as the test asked");
            }
            Ok("")
        }
    });
    let manager = Manager::new(ServerSide::new(MemoryStore::new()));
    let server = Server::start(web, app.wrap(manager.middleware()));
    let cookie = server.raw("/run/add.user.ada", &[]).cookie();
    let panics = |script: &str, said: &str| {
        let mut client = Wire::to(server.address);
        client.send(&format!("/panic/{script}"), &cookie).unwrap();
        client.receive_none();
        assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), said);
    };
    panics("add.user.eve", "null");
    assert_eq!(server.with_cookie("/run/get.user", &cookie).body, "ada");
    panics("destroy,add.user.eve", "done,null");
    until("the session ends", || {
        server.with_cookie("/run/get.user", &cookie).body == "none"
    });
}

fn a_log_out_holds_although_the_client_disconnects(web: Web) {
    let (send, inside) = std::sync::mpsc::channel();
    let app = App::new().get("/leave", move |session, _| {
        session.destroy();
        send.send(()).unwrap();
        async {
            // actix-web goes on to the end of this; hyper drops it as soon as the client is gone.
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok("nobody reads this")
        }
    });
    let manager = Manager::new(ServerSide::new(MemoryStore::new()));
    let server = Server::start(web, app.wrap(manager.middleware()));
    let cookie = server.raw("/run/add.user.ada", &[]).cookie();
    let mut client = TcpStream::connect(server.address).unwrap();
    write!(
        client,
        "GET /leave HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n"
    )
    .unwrap();
    inside.recv().unwrap();
    drop(client);
    until("the session ends", || {
        server.with_cookie("/run/get.user", &cookie).body == "none"
    });
}

fn a_session_on_demand_is_loaded_at_the_first_use(web: Web) {
    let manager = Manager::builder(ServerSide::new(MemoryStore::new()))
        .load_on_demand()
        .build()
        .unwrap();
    let in_handler = manager.clone();
    let app = App::new().get_request("/sync", move |request, _| {
        let manager = in_handler.clone();
        async move {
            let before = manager.get(&request, "key");
            assert!(matches!(before, Err(Error::NotLoaded)), "{before:?}");
            manager.open(&request).await?;
            Ok(manager.get(&request, "key")?.unwrap_or_default())
        }
    });
    let server = Server::start(web, app.wrap(manager.middleware()));
    let cookie = server.raw("/run/add.key.value", &[]).cookie();
    assert_eq!(server.with_cookie("/sync", cookie).body, "value");
}

fn memory_is_asked_when_the_handler_asks_for_its_session(web: Web) {
    let store = Counting::new(MemoryStore::new());
    let manager = Manager::new(ServerSide::new(store.clone()));
    let (in_handler, counted) = (manager.clone(), store.clone());
    let app = App::new().get_request("/late", move |request, _| {
        let before = counted.calls();
        let session = in_handler.session(&request);
        let asked = counted.calls();
        let value = session.map(|session| session.get("key").unwrap_or_default());
        let read = counted.calls();
        async move { Ok(format!("{before} {asked} {read} {}", value?)) }
    });
    let server = Server::start(web, app.wrap(manager.middleware()));
    let cookie = server.raw("/run/add.key.value", &[]).cookie();
    store.calls();
    assert_eq!(server.with_cookie("/late", cookie).body, "0 1 0 value");
    assert_eq!(server.raw("/late", &[]).body, "0 0 0 ", "no cookie");
}

/// It breaks the word of [`Store::answers_at_once`] if it hangs.
fn a_store_that_fails_at_once_is_a_503_or_a_read_only_session(web: Web) {
    let cookie = format!("_session={}", "A".repeat(64));
    let serve = |how, policy| {
        let store = Away {
            at_once: true,
            ..Away::new(how, web)
        };
        let backend = ServerSide::new(store).time_limit(Duration::from_millis(200));
        let builder = Manager::builder(backend).on_store_error(policy);
        Server::scripts(web, builder.build().unwrap().middleware())
    };
    let server = serve(How::Refuses, OnStoreError::Fail);
    assert_eq!(
        server.with_cookie("/idle", &cookie).status,
        200,
        "untouched"
    );
    for path in ["/run/get.key", "/run/add.key.value", "/run/destroy"] {
        let answer = server.with_cookie(path, &cookie);
        assert_eq!((answer.status, answer.set_cookie()), (503, None), "{path}");
    }
    let server = serve(How::Refuses, OnStoreError::Anonymous);
    let answer = server.with_cookie("/run/get.key,add.key.value", &cookie);
    assert_eq!((answer.status, &*answer.body), (200, "none,read only"));
    let server = serve(How::Hangs, OnStoreError::Fail);
    let answer = server.with_cookie("/run/add.key.value", &cookie);
    assert_eq!((answer.status, answer.set_cookie()), (503, None));
}

#[test]
fn a_cookie_backend_cannot_list_a_users_sessions_and_says_why() {
    let manager = Manager::new(SignedCookie::new(crate::common::key()));
    let found = block_on(manager.user_sessions("ada"));
    let error = found.unwrap_err();
    assert!(matches!(
        error,
        Error::NoUserIndex {
            backend: "signed cookie"
        }
    ));
    assert!(error.to_string().contains("server-side"));
}

fn a_cookie_backend_cannot_limit_a_users_sessions_and_says_why(web: Web) {
    for (name, builder) in crate::common::backends() {
        let middleware = builder().build().unwrap().middleware();
        let server = Server::start(web, Gates::new(1).app().wrap(middleware));
        for evict in ["oldest", "refuse"] {
            let answer = server.raw(&format!("/at-once/limit.ada.1.{evict}"), &[]);
            assert_eq!(answer.body, "no index", "{name}");
        }
    }
}

/// A store whose index of users is that of [`MemoryStore`], without its limit.
#[derive(Clone, Default)]
struct Unlimited(MemoryStore);

impl Store for Unlimited {
    fn name(&self) -> &'static str {
        "unlimited"
    }

    store_inside!();

    fn users(&self) -> Option<&dyn UserIndex> {
        Some(self)
    }
}

impl UserIndex for Unlimited {
    index_inside!();
}

fn a_store_that_cannot_limit_sessions_says_so_and_sets_no_user(web: Web) {
    let manager = Manager::new(ServerSide::new(Unlimited::default()));
    let server = Server::start(web, Gates::new(1).app().wrap(manager.middleware()));
    for evict in ["oldest", "refuse"] {
        let answer = server.raw(&format!("/at-once/limit.ada.1.{evict},add.key.value"), &[]);
        assert_eq!(answer.body, "no limit,null");
    }
    assert_eq!(block_on(manager.user_sessions("ada")).unwrap().len(), 0);
}

/// A store that is unavailable. Its name is the framework's, so that each test finds its own log lines.
#[derive(Clone, Copy)]
struct Away {
    how: How,
    web: Web,
    at_once: bool,
}

impl Away {
    fn new(how: How, web: Web) -> Self {
        let at_once = false;
        Self { how, web, at_once }
    }
}

impl Store for Away {
    /// The log of each test is found by it.
    fn name(&self) -> &'static str {
        match self.at_once {
            true => "in memory",
            false => self.web.name(),
        }
    }

    fn answers_at_once(&self) -> bool {
        self.at_once
    }

    async fn load(&self, _: StoreId, _: Timestamp) -> Result<Option<Record>, StoreError> {
        self.how.answer(self.name()).await
    }

    async fn create(&self, _: StoreId, _: &Write) -> Result<bool, StoreError> {
        match self.how {
            How::Corrupt => Ok(true),
            _ => self.how.answer(self.name()).await,
        }
    }

    async fn apply(&self, _: StoreId, _: &Write) -> Result<Applied, StoreError> {
        panic!("what could not be loaded is never written to");
    }

    async fn destroy(&self, _: StoreId) -> Result<(), StoreError> {
        panic!("what could not be loaded is never destroyed");
    }
}

fn a_store_outage_is_a_503_in_time_or_a_read_only_session(web: Web) {
    let log = Log::of_process();
    let cookie = format!("_session={}", "A".repeat(64));
    let limit = Duration::from_millis(200);
    let serve = |how, policy| {
        let store = Away::new(how, web);
        let backend = ServerSide::new(store).time_limit(limit);
        let manager = Manager::builder(backend)
            .on_store_error(policy)
            .build()
            .unwrap();
        Server::scripts(web, manager.middleware())
    };
    for (how, text) in [
        (How::Hangs, "did not answer within 200 ms"),
        (
            How::Refuses,
            "failed; see the source of this error, and whether the store is up: connection refused",
        ),
    ] {
        let server = serve(how, OnStoreError::Fail);
        let begun = Instant::now();
        let answer = server.with_cookie("/run/get.key", &cookie);
        assert_eq!((answer.status, &*answer.body), web.unavailable());
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(log.lines(&format!("{web} {text}")).len(), 1, "{text}");
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

        let server = serve(how, OnStoreError::Anonymous);
        let answer = server.with_cookie("/run/get.key,add.key.value", &cookie);
        assert_eq!((answer.status, &*answer.body), (200, "none,read only"));
        assert_eq!(answer.set_cookie(), None);
    }
}

fn a_corrupt_record_is_an_empty_session_and_left_unchanged(web: Web) {
    let log = Log::of_process();
    let manager = Manager::new(ServerSide::new(Away::new(How::Corrupt, web)));
    let server = Server::scripts(web, manager.middleware());
    let cookie = format!("_session={}", "A".repeat(64));
    let answer = server.with_cookie("/run/get.key,add.key.value", &cookie);
    assert_eq!((answer.status, &*answer.body), (200, "none,null"));
    assert_ne!(
        answer.cookie(),
        cookie,
        "what is written goes under a new id"
    );
    let lines = log.lines("it has no version");
    assert_eq!(
        lines.iter().filter(|l| l.contains(web.name())).count(),
        1,
        "{lines:#?}"
    );
}

fn the_next_save_stores_what_a_failed_save_did_not(web: Web) {
    let store = Flaky::default();
    let manager = Manager::new(ServerSide::new(store.clone()));
    let app = App::new().get("/save", move |session, _| {
        let store = store.clone();
        async move {
            session.add("key", "value")?;
            session.pop("old");
            store.set(Some(How::Refuses));
            let failed = session.save().await;
            assert!(
                matches!(failed, Err(Error::Unavailable { .. })),
                "{failed:?}"
            );
            assert_eq!(session.get("key").as_deref(), Some("value"));
            assert_eq!(session.get("old"), None);
            store.set(None);
            session.save().await?;
            Ok("saved")
        }
    });
    let server = Server::start(web, app.wrap(manager.middleware()));
    let cookie = server.raw("/run/add.old.1", &[]).cookie();
    assert_eq!(server.with_cookie("/save", &cookie).body, "saved");
    assert_eq!(
        server.with_cookie("/run/get.key,get.old", &cookie).body,
        "value,none"
    );
}

/// After a conflict the closure runs again, which is the application's own code.
fn a_retried_update_may_use_the_session_itself(web: Web) {
    let together = Arc::new(Barrier::new(2));
    let app = App::new().get("/count", move |session, _| {
        let together = Arc::clone(&together);
        async move {
            together.wait().await;
            let itself = session.clone();
            session.update("count", move |count: Option<i64>| {
                count.unwrap_or(0) + itself.load::<i64>("step").unwrap().unwrap()
            })?;
            Ok("counted")
        }
    });
    let manager = Manager::new(ServerSide::new(MemoryStore::new()));
    let server = Server::start(web, app.wrap(manager.middleware()));
    let cookie = server.raw("/run/count.step", &[]).cookie();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                assert_eq!(server.with_cookie("/count", &cookie).body, "counted");
            });
        }
    });
    assert_eq!(server.with_cookie("/run/get.count", &cookie).body, "2");
}

fn a_failed_log_out_is_answered_with_503(web: Web) {
    let log = Log::of_process();
    let store = Flaky::default();
    let manager = Manager::builder(ServerSide::new(store.clone()));
    let manager = manager.on_store_error(OnStoreError::Anonymous);
    let server = Server::scripts(web, manager.build().unwrap().middleware());
    let cookie = server.raw("/run/add.user.ada", &[]).cookie();
    store.set(Some(How::Refuses));
    for lost in ["destroy", "destroy,status.500", "renew", "clear"] {
        let answer = server.with_cookie(&format!("/run/{lost}"), &cookie);
        assert_eq!(answer.status, 503, "{lost}: {answer:?}");
        // The client needs it to send the log-out again.
        assert_eq!(answer.set_cookie(), None, "{lost}");
    }
    for harmless in ["get.user,pop.user,flashes,len,add.k.1", "renew,status.500"] {
        let answer = server.with_cookie(&format!("/run/{harmless}"), &cookie);
        assert_ne!(answer.status, 503, "{harmless}: {answer:?}");
    }
    assert!(
        !log.lines("a session was not ended, because its store was away")
            .is_empty()
    );
    store.set(None);
    assert_eq!(server.with_cookie("/run/get.user", &cookie).body, "ada");
    assert!(
        server
            .with_cookie("/run/destroy", &cookie)
            .cookie()
            .ends_with('=')
    );
    assert_eq!(server.with_cookie("/run/len", &cookie).body, "0");
}

fn the_last_hundred_unread_flash_messages_are_kept(web: Web) {
    let log = Log::of_process();
    let name = format!("flashes-{web}");
    let manager = Manager::builder(ServerSide::new(MemoryStore::new())).cookie_name(&name);
    let server = Server::scripts(web, manager.build().unwrap().middleware());
    let flashes = |range: std::ops::Range<u32>| {
        let steps: Vec<_> = range.map(|n| format!("flash.{n}")).collect();
        format!("/run/{}", steps.join(","))
    };
    let cookie = server.raw(&flashes(0..60), &[]).cookie();
    server.with_cookie(&flashes(60..90), &cookie);
    server.with_cookie(&flashes(90..130), &cookie);
    let shown = server.with_cookie("/run/flashes", &cookie).body;
    let expected: Vec<_> = (30..130).map(|n| n.to_string()).collect();
    assert_eq!(shown, expected.join("+"));
    let lines = log.lines(&format!("`{name}`"));
    assert_eq!(lines.len(), 1, "{lines:#?}");
}

on_every_framework!(
    a_failed_log_out_is_answered_with_503,
    the_last_hundred_unread_flash_messages_are_kept,
    a_retried_update_may_use_the_session_itself,
    a_full_memory_store_evicts_the_oldest_session,
    a_task_may_save_a_session_after_its_request,
    a_touch_by_save_reaches_the_browser_with_the_response,
    saving_a_session_that_ended_is_an_error,
    a_panicking_handler_keeps_only_a_log_out,
    a_log_out_holds_although_the_client_disconnects,
    a_cookie_backend_cannot_limit_a_users_sessions_and_says_why,
    a_store_that_cannot_limit_sessions_says_so_and_sets_no_user,
    a_session_on_demand_is_loaded_at_the_first_use,
    memory_is_asked_when_the_handler_asks_for_its_session,
    a_store_that_fails_at_once_is_a_503_or_a_read_only_session,
    a_store_outage_is_a_503_in_time_or_a_read_only_session,
    a_corrupt_record_is_an_empty_session_and_left_unchanged,
    the_next_save_stores_what_a_failed_save_did_not,
);
