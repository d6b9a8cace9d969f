//! What every store must show over a real HTTP server, with requests that are made to overlap.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use session_manager::{
    Applied, Builder, Error, Manager, Record, ServerSide, Store, StoreError, StoreId, Timestamp,
    UserIndex, Write,
};

#[cfg(feature = "memory")]
use session_manager::MemoryStore;

use super::{App, Clock, Gates, Server, Web, block_on};

/// A store that counts what it is asked: each call is one round trip.
#[derive(Clone)]
pub struct Counting<S> {
    store: Arc<S>,
    calls: Arc<AtomicUsize>,
}

impl<S: Store> Counting<S> {
    pub fn new(store: S) -> Self {
        Self {
            store: Arc::new(store),
            calls: Arc::default(),
        }
    }

    /// How often it was asked since the last time somebody wanted to know.
    pub fn calls(&self) -> usize {
        self.calls.swap(0, Ordering::SeqCst)
    }

    fn counted(&self) -> &S {
        self.calls.fetch_add(1, Ordering::SeqCst);
        &self.store
    }
}

impl<S: Store> Store for Counting<S> {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        self.counted().load(id, now).await
    }

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        self.counted().create(id, write).await
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        self.counted().apply(id, write).await
    }

    async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
        self.counted().destroy(id).await
    }

    fn users(&self) -> Option<&dyn UserIndex> {
        self.store.users()
    }
}

/// How a store is away.
#[derive(Clone, Copy)]
pub enum How {
    Hangs,
    Refuses,
    Spoiled,
    /// It does what it is asked to, and takes its time to say so.
    AnswersLate,
}

impl How {
    /// What the store of that name says.
    pub async fn answer<T>(self, store: &'static str) -> Result<T, StoreError> {
        match self {
            Self::Hangs | Self::AnswersLate => std::future::pending().await,
            Self::Refuses => Err(StoreError::failed(
                store,
                std::io::Error::other("connection refused"),
            )),
            Self::Spoiled => Err(StoreError::Spoiled {
                store,
                why: "it has no version",
            }),
        }
    }
}

/// Memory that is away while a test says so.
#[cfg(feature = "memory")]
#[derive(Clone, Default)]
pub struct Flaky {
    store: MemoryStore,
    away: Arc<Mutex<Option<How>>>,
}

#[cfg(feature = "memory")]
impl Flaky {
    pub fn set(&self, away: Option<How>) {
        *self.away.lock().unwrap() = away;
    }

    async fn there(&self) -> Result<&MemoryStore, StoreError> {
        let away = *self.away.lock().unwrap();
        match away {
            None | Some(How::AnswersLate) => Ok(&self.store),
            Some(how) => how.answer(self.name()).await,
        }
    }

    async fn written<T>(&self, answer: T) -> T {
        let away = *self.away.lock().unwrap();
        if let Some(How::AnswersLate) = away {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        answer
    }

    pub fn len(&self) -> usize {
        self.store.len()
    }
}

#[cfg(feature = "memory")]
impl Store for Flaky {
    fn name(&self) -> &'static str {
        "flaky"
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        self.there().await?.load(id, now).await
    }

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        let created = self.there().await?.create(id, write).await;
        self.written(created).await
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        let applied = self.there().await?.apply(id, write).await;
        self.written(applied).await
    }

    async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
        self.there().await?.destroy(id).await
    }
}

/// A server that goes on until the process ends: a pool's connections belong to the runtime of the
/// worker that opened them, as in an application, and would end with it.
fn serve<S: Store + Clone>(
    web: Web,
    store: &S,
    gates: &Gates,
    settings: impl FnOnce(Builder) -> Builder,
) -> &'static Server {
    let builder = settings(Manager::builder(ServerSide::new(store.clone())));
    let middleware = builder.build().unwrap().middleware();
    Box::leak(Box::new(Server::start(web, gates.app().wrap(middleware))))
}

/// Runs all of them on `store`.
pub fn check_promises<S: Store + Clone>(web: Web, store: &S) {
    requests_that_overlap_lose_nothing(web, store);
    logging_out_wins_every_race(web, store);
    a_renewal_stands_whatever_was_in_flight(web, store);
    a_renewal_keeps_what_others_wrote_meanwhile(web, store);
    the_store_is_asked_no_more_than_promised(web, store);
    nobody_without_a_session_makes_a_record(web, store);
    match store.users() {
        Some(_) => a_users_sessions_are_listed_and_ended(web, store),
        None => a_store_without_an_index_of_users_says_so(store),
    }
    a_session_ends_by_the_clock(web, store);
    ten_thousand_keys_and_almost_a_megabyte_are_kept(web, store);
}

fn requests_that_overlap_lose_nothing<S: Store + Clone>(web: Web, store: &S) {
    let at_once = |count: usize, script: &(dyn Fn(usize) -> String + Sync)| {
        let gates = Gates::new(count);
        let server = serve(web, store, &gates, |builder| builder);
        let cookie = server.raw("/run/add.first.1", &[]).cookie();
        std::thread::scope(|scope| {
            for number in 0..count {
                let (server, cookie) = (&server, &cookie);
                scope.spawn(move || {
                    let answer =
                        server.with_cookie(&format!("/together/{}", script(number)), cookie);
                    assert_eq!(answer.status, 200, "{answer:?}");
                });
            }
        });
        (server, cookie)
    };
    let (server, cookie) = at_once(50, &|number| format!("add.key{number}.value"));
    assert_eq!(
        server.with_cookie("/run/len", cookie).body,
        "51",
        "50 keys, each by a request of its own"
    );

    let (server, cookie) = at_once(50, &|_| "count.visits".into());
    assert_eq!(
        server.with_cookie("/run/get.visits", cookie).body,
        "50",
        "50 increments"
    );

    let (server, cookie) = at_once(20, &|number| format!("flash.message{number}"));
    let flashes = server.with_cookie("/run/flashes", &cookie).body;
    let mut flashes: Vec<_> = flashes.split('+').collect();
    flashes.sort_unstable();
    flashes.dedup();
    assert_eq!(
        flashes.len(),
        20,
        "20 flash messages, each once: {flashes:?}"
    );
    assert_eq!(
        server.with_cookie("/run/flashes", &cookie).body,
        "",
        "and never again"
    );
}

/// CVE-2025-46336 (rack-session): a late write must not restore what was destroyed.
fn logging_out_wins_every_race<S: Store + Clone>(web: Web, store: &S) {
    for late in [
        "add.key.late",
        "renew,add.key.late",
        "get.user",
        "flash.late",
        "count.visits",
        "clear",
    ] {
        let gates = Gates::new(1);
        let clock = Clock::default();
        let server = serve(web, store, &gates, |builder| builder.clock(clock.now()));
        let cookie = server.raw("/run/add.user.ada", &[]).cookie();
        let slow = std::thread::scope(|scope| {
            let slow = scope.spawn(|| server.with_cookie(&format!("/slow/{late}"), &cookie));
            gates.pass();
            let out = server.with_cookie("/run/destroy", &cookie);
            assert!(out.cookie().ends_with('='), "{out:?}");
            // Far enough that a touch is due.
            clock.forward(Duration::from_secs(2 * 60 * 60));
            gates.pass();
            slow.join().unwrap()
        });
        assert_eq!(slow.status, 200, "the late request gets its answer: {late}");
        assert_eq!(slow.set_cookie(), None, "and no cookie: {late}");
        assert_eq!(
            server.with_cookie("/run/get.user,len", &cookie).body,
            "none,0",
            "{late}"
        );
    }
}

fn a_renewal_stands_whatever_was_in_flight<S: Store + Clone>(web: Web, store: &S) {
    for late in ["add.key.late", "renew", "flash.late", "destroy"] {
        let gates = Gates::new(1);
        let server = serve(web, store, &gates, |builder| builder);
        let old = server.raw("/run/add.cart.full", &[]).cookie();
        let (slow, new) = std::thread::scope(|scope| {
            let slow = scope.spawn(|| server.with_cookie(&format!("/slow/{late}"), &old));
            gates.pass();
            let new = server.with_cookie("/run/renew,add.user.ada", &old).cookie();
            gates.pass();
            (slow.join().unwrap(), new)
        });
        assert_eq!(slow.status, 200, "{late}");
        assert_ne!(new, old);
        let read = server.with_cookie("/run/get.user,get.cart", &new).body;
        if late == "destroy" {
            assert_eq!(read, "none,none", "a logout ends the renewed session too");
        } else {
            assert_eq!(read, "ada,full", "the new cookie stands: {late}");
        }
        assert_eq!(
            server.with_cookie("/run/len", &old).body,
            "0",
            "the old id is dead: {late}"
        );
        if late != "destroy" {
            assert_eq!(
                slow.set_cookie(),
                None,
                "nothing replaces the new cookie: {late}"
            );
        }
    }
}

fn a_renewal_keeps_what_others_wrote_meanwhile<S: Store + Clone>(web: Web, store: &S) {
    let gates = Gates::new(1);
    let server = serve(web, store, &gates, |builder| builder);
    let old = server.raw("/run/count.visits", &[]).cookie();
    let new = std::thread::scope(|scope| {
        let slow = scope.spawn(|| server.with_cookie("/slow/renew,count.visits", &old));
        gates.pass();
        server.with_cookie("/run/count.visits,add.cart.full", &old);
        gates.pass();
        slow.join().unwrap().cookie()
    });
    assert_eq!(
        server.with_cookie("/run/get.visits,get.cart", &new).body,
        "3,full"
    );
    assert_eq!(server.with_cookie("/run/len", &old).body, "0");
}

fn the_store_is_asked_no_more_than_promised<S: Store + Clone>(web: Web, store: &S) {
    let store = Counting::new(store.clone());
    let gates = Gates::new(1);
    let server = serve(web, &store, &gates, |builder| builder);
    let cookie = server.raw("/run/add.key.value", &[]).cookie();
    assert_eq!(store.calls(), 1, "a new session");
    let calls = |server: &Server, path: &str, cookie: Option<&str>| {
        let answer = match cookie {
            Some(cookie) => server.with_cookie(path, cookie),
            None => server.raw(path, &[]),
        };
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        (store.calls(), answer)
    };
    let with = Some(cookie.as_str());
    assert_eq!(calls(server, "/idle", None).0, 0, "no cookie");
    assert_eq!(
        calls(server, "/run/get.key,len,destroy", None).0,
        0,
        "no cookie, nothing written"
    );
    assert_eq!(calls(server, "/idle", with).0, 1, "untouched");
    assert_eq!(calls(server, "/run/get.key", with).0, 1, "read");
    assert_eq!(
        calls(server, "/run/add.key.other,add.more.1,flash.hi", with).0,
        2,
        "write"
    );
    assert_eq!(
        calls(server, "/run/add.key.other", with).0,
        1,
        "the same value again"
    );
    assert_eq!(calls(server, "/run/count.visits", with).0, 2, "update");
    for bad in [
        "short",
        &"A".repeat(63),
        &"A".repeat(65),
        &format!("../../../../etc/passwd-{}", "x".repeat(41)),
        &"A".repeat(100_000),
    ] {
        assert_eq!(
            calls(server, "/run/len", Some(&format!("_session={bad}"))).0,
            0,
            "no id: {bad:.20}"
        );
    }
    let (count, renewed) = calls(server, "/run/renew", with);
    assert_eq!(count, 2, "renewal");
    let renewed = renewed.cookie();
    let on_demand = serve(web, &store, &gates, Builder::load_on_demand);
    assert_eq!(
        calls(on_demand, "/idle", Some(&renewed)).0,
        0,
        "untouched, on demand"
    );
    assert_eq!(
        calls(on_demand, "/run/get.key", Some(&renewed)).0,
        1,
        "read, on demand"
    );
    assert_eq!(
        calls(server, "/run/destroy", Some(&renewed)).0,
        2,
        "logging out"
    );
}

/// CVE-2015-5143, -5963 and -5964 (Django): filling the store; CVE-2022-25896 (Passport): fixation.
///
/// 10,000 requests in one framework and 1,000 in the other: what a store is asked is decided by code
/// that they share, and the store is the slow part.
pub fn nobody_without_a_session_makes_a_record<S: Store + Clone>(web: Web, store: &S) {
    let store = Counting::new(store.clone());
    let gates = Gates::new(1);
    let server = serve(web, &store, &gates, |builder| builder);
    let out = server.raw("/run/add.user.ada", &[]).cookie();
    server.with_cookie("/run/destroy", &out);
    store.calls();
    let share = if web == Web::Actix { 1 } else { 10 };
    let bogus = format!("_session={}", "A".repeat(64));
    let visitor = server.visitor();
    for _ in 0..4_000 / share {
        visitor.get("/run/get.user,flashes,clear,renew,destroy");
    }
    assert_eq!(store.calls(), 0, "anonymous requests ask the store nothing");
    for cookie in [&bogus, &out] {
        for _ in 0..3_000 / share {
            let answer = visitor.get_with("/run/get.user,flashes,clear,renew", cookie);
            assert_eq!(answer.body, "none,,done,done");
            assert_eq!(
                answer.set_cookie(),
                None,
                "an id that opens nothing is never confirmed"
            );
        }
        assert_eq!(
            store.calls(),
            3_000 / share,
            "each asks once, and writes nothing"
        );
        let login = server
            .with_cookie("/run/renew,add.user.eve", cookie)
            .cookie();
        assert_ne!(
            &login, cookie,
            "an id that this engine did not make is never adopted"
        );
        assert_eq!(server.with_cookie("/run/get.user", cookie).body, "none");
        server.with_cookie("/run/destroy", login);
        store.calls();
    }
}

fn a_users_sessions_are_listed_and_ended<S: Store + Clone>(web: Web, store: &S) {
    let manager = Manager::new(ServerSide::new(store.clone()));
    let user = format!(
        "user-{}",
        std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()
    );
    let (name, of_all, of_others) = (user.clone(), manager.clone(), manager.clone());
    let app = App::new()
        .get("/sign-in/{device}", move |session, device| {
            let user = name.clone();
            async move {
                session.renew();
                session.set_user(&user)?;
                session.set_note(&device)?;
                session.add("user", &user)?;
                Ok("in")
            }
        })
        .get_request("/list/{user}", move |_, user| {
            let manager = of_all.clone();
            async move {
                let sessions = manager.user_sessions(&user).await?;
                let mut notes: Vec<_> = sessions.into_iter().filter_map(|s| s.note).collect();
                notes.sort_unstable();
                Ok(notes.join("+"))
            }
        })
        .get("/others/{user}", move |session, user| {
            let manager = of_others.clone();
            async move {
                let ended = manager.destroy_other_user_sessions(&user, &session).await?;
                Ok(ended.to_string())
            }
        });
    let app = app.wrap(manager.middleware());
    let server = Box::leak(Box::new(Server::start(web, app)));
    let list = || server.raw(&format!("/list/{user}"), &[]).body;
    let devices = ["laptop", "phone", "tablet"];
    let mut cookies = devices.map(|device| server.raw(&format!("/sign-in/{device}"), &[]).cookie());
    assert_eq!(list(), "laptop+phone+tablet");
    let before = server.with_cookie("/run/handle,renew", &cookies[1]);
    cookies[1] = before.cookie();
    let after = server.with_cookie("/run/handle", &cookies[1]);
    assert_eq!(
        before.body,
        format!("{},done", after.body),
        "a renewed session keeps its handle"
    );
    assert_eq!(list(), "laptop+phone+tablet");
    assert_eq!(
        server
            .with_cookie(&format!("/others/{user}"), &cookies[1])
            .body,
        "2"
    );
    assert_eq!(list(), "phone");
    for (device, cookie) in devices.iter().zip(&cookies) {
        let expected = if *device == "phone" { "1" } else { "0" };
        assert_eq!(
            server.with_cookie("/run/len", cookie).body,
            expected,
            "{device}"
        );
    }
    server.with_cookie("/run/destroy", &cookies[1]);
    assert_eq!(list(), "");
}

fn a_store_without_an_index_of_users_says_so<S: Store + Clone>(store: &S) {
    let manager = Manager::new(ServerSide::new(store.clone()));
    let listed = block_on(manager.user_sessions("ada"));
    assert!(
        matches!(listed, Err(Error::NoUserIndex { .. })),
        "{listed:?}"
    );
}

fn ten_thousand_keys_and_almost_a_megabyte_are_kept<S: Store + Clone>(web: Web, store: &S) {
    let server = serve(web, store, &Gates::new(1), |builder| builder);
    let added = server.raw("/run/many.k.10000,fill.big.900000,deep.deep.127", &[]);
    assert_eq!(added.body, "null,null,null");
    let cookie = added.cookie();
    let read = server.with_cookie("/run/len,sum.k.10000,depth.deep", &cookie);
    assert_eq!(read.body, "10002,49995000,127");
    let written = server.with_cookie("/run/pop.k1,add.k2.0,fill.big.10", &cookie);
    assert_eq!(written.body, "1,null,null");
    let read = server.with_cookie("/run/len,get.k1,number.k2,get.big", &cookie);
    assert_eq!(read.body, "10001,none,0,xxxxxxxxxx");
    server.with_cookie("/run/destroy", &cookie);
}

fn a_session_ends_by_the_clock<S: Store + Clone>(web: Web, store: &S) {
    let minute = Duration::from_secs(60);
    let clock = Clock::default();
    let server = serve(web, store, &Gates::new(1), |builder| {
        builder
            .idle_timeout(20 * minute)
            .absolute_timeout(60 * minute)
            .clock(clock.now())
    });
    let idle = server.raw("/run/add.key.value", &[]).cookie();
    clock.forward(19 * minute);
    assert_eq!(
        server.with_cookie("/run/get.key", &idle).body,
        "value",
        "touched"
    );
    clock.forward(19 * minute);
    assert_eq!(
        server.with_cookie("/run/get.key", &idle).body,
        "value",
        "the touch was kept"
    );
    clock.forward(20 * minute);
    assert_eq!(
        server.with_cookie("/run/get.key", &idle).body,
        "none",
        "idle"
    );
    let busy = server.raw("/run/add.key.value", &[]).cookie();
    for _ in 0..3 {
        clock.forward(19 * minute);
        assert_eq!(server.with_cookie("/run/get.key", &busy).body, "value");
    }
    let strict = serve(web, store, &Gates::new(1), |builder| {
        builder.absolute_timeout(30 * minute).clock(clock.now())
    });
    let read = strict.with_cookie("/run/get.key", &busy);
    assert_eq!(
        read.body, "none",
        "a shorter absolute timeout ends old sessions at once"
    );
    clock.forward(3 * minute);
    assert_eq!(
        server.with_cookie("/run/get.key", &busy).body,
        "none",
        "absolute"
    );
}
