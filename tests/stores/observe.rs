//! What an observer is told of stores that fail, of requests that overlap, and of sessions that migrate.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use crate::common::{
    App, Clock, Gates, Log, Server, Told, Web, all_backends, on_every_framework,
    server_side::{Flaky, How},
    until,
};
use session_manager::{
    Builder, Error, Manager, MemoryStore, Observer, ServerSide, Session, Store, StoreError,
    Timestamp,
    observer::{About, Event},
    store::{Applied, Record, StoreId, Write},
};

fn memory() -> Builder {
    Manager::builder(ServerSide::new(MemoryStore::new()))
}

fn serve(web: Web, builder: Builder) -> Server {
    Server::scripts(web, builder.build().unwrap().middleware())
}

fn an_observer_is_told_how_a_store_call_failed_and_nothing_that_did_not_happen(web: Web) {
    for (how, expected) in [
        (How::Refuses, "load failed"),
        (How::Hangs, "load timed_out"),
        (How::Corrupt, "load corrupt"),
    ] {
        let (store, told, calls) = (Flaky::default(), Told::default(), Told::default());
        let backend = ServerSide::new(store.clone()).time_limit(Duration::from_millis(50));
        let builder = Manager::builder(backend).observe(told.clone());
        let server = serve(web, builder.observe(calls.clone()));
        let cookie = server.raw("/run/add.key.value", &[]).cookie();
        assert_eq!((&*told.life(), &*calls.calls()), ("created", "create done"));
        store.set(Some(how));
        server.with_cookie("/run/get.key", &cookie);
        assert_eq!(calls.calls(), expected);
        let refused = matches!(how, How::Corrupt);
        assert_eq!(told.life(), if refused { "refused corrupt" } else { "" });
        server.raw("/run/add.key.lost", &[]);
        assert_eq!(told.life(), "", "{expected}: nothing was created");
        assert_eq!(calls.calls(), expected.replace("load", "create"));
    }
}

fn a_store_call_that_the_client_gave_up_is_told_as_cancelled(web: Web) {
    let (store, told) = (Flaky::default(), Told::default());
    let builder = Manager::builder(ServerSide::new(store.clone())).observe(told.clone());
    let server = serve(web, builder);
    let cookie = server.raw("/run/add.key.value", &[]).cookie();
    told.all();
    store.set(Some(How::Hangs));
    {
        use std::io::Write as _;
        let mut stream = std::net::TcpStream::connect(server.address).unwrap();
        let head = format!("GET /run/len HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // Long enough that the server has begun; the call would take two seconds.
        std::thread::sleep(Duration::from_millis(200));
    }
    let mut calls = String::new();
    until("the call is told", || {
        calls += &told.calls();
        !calls.is_empty()
    });
    assert_eq!(calls, "load cancelled");
}

fn requests_that_compute_one_value_tell_their_conflicts(web: Web) {
    let (told, gates) = (Told::default(), Gates::new(2));
    let builder = memory().observe(told.clone());
    let middleware = builder.build().unwrap().middleware();
    let server = Server::start(web, gates.app().wrap(middleware));
    let cookie = server.raw("/run/count.n", &[]).cookie();
    told.all();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| server.with_cookie("/together/count.n", &cookie));
        }
    });
    assert_eq!(server.with_cookie("/run/get.n", &cookie).body, "3");
    let all: Vec<_> = told.all().into_iter().map(|one| one.text).collect();
    let count = |text: &str| all.iter().filter(|one| *one == text).count();
    assert_eq!(count("conflict"), 1, "{all:?}");
    assert_eq!(count("apply done"), 3, "{all:?}");
}

/// A memory store whose next write finds that another one was faster.
#[derive(Clone, Default)]
struct Contested {
    store: MemoryStore,
    next: Arc<AtomicBool>,
}

impl Store for Contested {
    fn name(&self) -> &'static str {
        "contested"
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        self.store.load(id, now).await
    }

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        self.store.create(id, write).await
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        match self.next.swap(false, Ordering::SeqCst) {
            true => Ok(Applied::Conflict),
            false => self.store.apply(id, write).await,
        }
    }

    async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
        self.store.destroy(id).await
    }
}

/// At each store call that it is told, the observer makes a contended write itself.
#[derive(Clone, Default)]
struct Writes {
    next: Arc<AtomicBool>,
    session: Arc<Mutex<Option<Session>>>,
    done: Arc<Mutex<Vec<bool>>>,
}

impl Observer for Writes {
    fn event(&self, event: Event, _: &About<'_>) {
        let is_call = matches!(event, Event::StoreCall { .. });
        // Gone while it writes, or it would be told of its own calls.
        let Some(session) = self.session.lock().unwrap().take_if(|_| is_call) else {
            return;
        };
        self.next.store(true, Ordering::SeqCst);
        let writing = session.update_now("other", |n: Option<u32>| n.unwrap_or(0) + 1);
        let polled = pin!(writing).poll(&mut Context::from_waker(Waker::noop()));
        let mut done = self.done.lock().unwrap();
        done.push(polled.is_ready());
        // The request's own write is contended, too.
        self.next.store(done.len() == 1, Ordering::SeqCst);
        *self.session.lock().unwrap() = Some(session.clone());
    }
}

/// A write that met another one waits for its turn. What it tells must not prolong that.
fn an_observer_is_told_of_a_contended_write_when_its_turn_is_over(web: Web) {
    let (store, writes) = (Contested::default(), Writes::default());
    let writes = Writes {
        next: Arc::clone(&store.next),
        ..writes
    };
    let there = writes.clone();
    let app = App::new().get("/leave", move |session, _| {
        *there.session.lock().unwrap() = Some(session);
        async { Ok("left") }
    });
    let builder = Manager::builder(ServerSide::new(store.clone())).observe(writes.clone());
    let middleware = builder.build().unwrap().middleware();
    let server = Server::start(web, app.wrap(middleware));
    let cookie = server.raw("/run/count.n", &[]).cookie();
    server.with_cookie("/leave", &cookie);
    writes.done.lock().unwrap().clear();
    server.with_cookie("/run/count.n", &cookie);
    let done = writes.done.lock().unwrap().clone();
    // The load, and of the write: the attempt, the load and the second attempt.
    assert_eq!(done, [true; 4]);
}

fn a_session_that_migrates_is_told_once(web: Web) {
    for (from, old) in all_backends() {
        for (to, new) in all_backends() {
            let way = format!("{from} to {to}");
            let (told, of_old) = (Told::with_names(), Told::default());
            let old = old().observe(of_old.clone()).build().unwrap();
            let old_server = Server::scripts(web, old.middleware());
            let old_cookie = old_server.raw("/run/add.key.value", &[]).cookie();
            assert_eq!(of_old.life(), "created", "{way}");
            let new = new().cookie_name("new").migrate_from(old);
            let server = serve(web, new.observe(told.clone()));
            let read = server.with_cookie("/run/get.key", &old_cookie);
            assert_eq!(read.body, "value", "{way}");
            assert_eq!(told.life(), "", "{way}: reading moves nothing");
            let moved = server.with_cookie("/run/add.key.other,renew", &old_cookie);
            let all = told.all();
            let life: Vec<_> = all.iter().filter(|one| !one.is_call).collect();
            let texts: Vec<_> = life.iter().map(|one| &*one.text).collect();
            assert_eq!(texts, ["migrated", "renewed"], "{way}");
            let cookie = moved.all("set-cookie").find(|set| set.starts_with("new="));
            let cookie = cookie.unwrap().split(';').next().unwrap().to_owned();
            let handle = server.with_cookie("/run/handle", &cookie).body;
            let handle = Some(handle).filter(|handle| handle != "none");
            assert_eq!(life[0].handle, handle, "{way}");
            told.all();
            server.with_cookie("/run/destroy", &cookie);
            assert_eq!(told.life(), "destroyed 1 by handler", "{way}");
            let of_old = of_old.all();
            let is_told = of_old.iter().any(|one| one.is_call);
            assert_eq!(is_told, from == "memory", "{way}: its own store calls");
        }
    }
}

fn store_calls_of_an_old_manager_without_an_observer_are_told_to_the_new_one(web: Web) {
    let (old, told) = (memory().build().unwrap(), Told::default());
    let old_cookie = Server::scripts(web, old.middleware())
        .raw("/run/add.key.value", &[])
        .cookie();
    let new = Manager::builder(session_manager::SignedCookie::new(crate::common::key()));
    let server = serve(web, new.migrate_from(old).observe(told.clone()));
    let read = server.with_cookie("/run/get.key", &old_cookie);
    assert_eq!(read.body, "value");
    let all = told.all();
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!((&*all[0].text, all[0].backend), ("load done", "memory"));
}

fn code_that_asks_after_the_time_is_over_tells_that_the_session_expired(web: Web) {
    for (backend, builder) in all_backends() {
        let (told, clock) = (Told::default(), Clock::default());
        let later = clock.clone();
        let app = App::new().get("/later", move |session, _| {
            let later = later.clone();
            assert_eq!(session.get("key").as_deref(), Some("value"));
            async move {
                later.forward(Duration::from_secs(8 * 24 * 3600));
                Ok(match session.revalidate().await {
                    Err(Error::Ended) => "ended",
                    _ => "there",
                })
            }
        });
        let builder = builder().clock(clock.now()).observe(told.clone());
        let middleware = builder.build().unwrap().middleware();
        let server = Server::start(web, app.wrap(middleware));
        let cookie = server.raw("/run/add.key.value", &[]).cookie();
        assert_eq!(told.life(), "created", "{backend}");
        assert_eq!(
            server.with_cookie("/later", &cookie).body,
            "ended",
            "{backend}"
        );
        assert_eq!(told.life(), "expired", "{backend}");
    }
}

#[test]
fn a_session_that_a_limit_evicts_is_told_as_evicted() {
    let told = Told::default();
    let app = App::new().get("/log-in", async |session, _| {
        session.add("key", "value")?;
        let limited = session.set_user_limited("ada", 1, session_manager::Evict::Oldest);
        limited.await?;
        Ok("welcome")
    });
    let manager = memory().observe(told.clone()).build().unwrap();
    let server = Server::start(Web::Actix, app.wrap(manager.middleware()));
    assert_eq!(server.raw("/log-in", &[]).body, "welcome");
    assert_eq!(told.life(), "created, user set");
    assert_eq!(server.raw("/log-in", &[]).body, "welcome");
    assert_eq!(told.life(), "destroyed 1 by evicted, created, user set");
}

/// The watch of the tests looks for ids, cookies and keys in every span.
#[test]
fn a_store_call_has_a_span_with_the_store_the_call_and_its_outcome() {
    let log = Log::of_process();
    let builder = Manager::builder(ServerSide::new(Contested::default()));
    let server = serve(Web::Actix, builder);
    let cookie = server.raw("/run/add.key.value", &[]).cookie();
    server.with_cookie("/run/destroy", &cookie);
    for operation in ["create", "load", "destroy"] {
        let fields = format!("store=contested operation={operation}");
        assert_ne!(log.lines(&fields), [""; 0], "{operation}");
    }
    assert!(log.text().contains("outcome=done"));
}

#[test]
fn what_a_task_saves_after_the_response_is_told_when_the_store_has_it() {
    use crate::common::{script, talker};
    let told = Told::default();
    let manager = memory().observe(told.clone()).build().unwrap();
    let app = App::new().events(
        "/events/{script}",
        talker(async |session, mut talk| {
            let script = talk.hear().await.unwrap();
            talk.say(script::run_outside(&session, &script).await);
        }),
    );
    let server = Server::start(Web::Actix, app.wrap(manager.middleware()));
    let cookie = server.raw("/run/add.key.value", &[]).cookie();
    assert_eq!(told.life(), "created");
    server.with_cookie("/events/destroy,save", &cookie);
    assert_eq!(told.life(), "destroyed 1 by handler");
}

on_every_framework!(
    an_observer_is_told_how_a_store_call_failed_and_nothing_that_did_not_happen,
    a_store_call_that_the_client_gave_up_is_told_as_cancelled,
    requests_that_compute_one_value_tell_their_conflicts,
    an_observer_is_told_of_a_contended_write_when_its_turn_is_over,
    a_session_that_migrates_is_told_once,
    store_calls_of_an_old_manager_without_an_observer_are_told_to_the_new_one,
    code_that_asks_after_the_time_is_over_tells_that_the_session_expired,
);
