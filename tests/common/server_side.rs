//! What every store must show over a real HTTP server, with requests that are made to overlap.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::web::{self, Data, Path, ServiceConfig};
use session_manager::{
    Applied, Builder, Error, Manager, Record, ServerSide, Session, Store, StoreError, StoreId,
    Timestamp, UserIndex, Write,
};
use tokio::sync::Barrier;

use super::{Clock, Server, script};

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

/// Requests to `/together/…` wait until as many are inside as the test said; requests to `/slow/…`
/// wait until the test has seen them inside and lets them go on. Their session is open by then.
#[derive(Clone)]
struct Gates {
    together: Arc<Barrier>,
    slow: Arc<Barrier>,
}

impl Gates {
    fn new(together: usize) -> Self {
        Self {
            together: Arc::new(Barrier::new(together)),
            slow: Arc::new(Barrier::new(2)),
        }
    }

    fn routes(&self) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
        let gates = self.clone();
        move |config| {
            config
                .configure(script::routes)
                .app_data(Data::new(gates.clone()))
                .route("/together/{script}", web::get().to(together))
                .route("/slow/{script}", web::get().to(slow));
        }
    }

    /// Waits, in a thread that is no task.
    fn pass(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let waiting = tokio::time::timeout(Duration::from_secs(30), self.slow.wait());
            waiting.await.expect("the slow request came");
        });
    }
}

async fn together(
    session: Session,
    gates: Data<Gates>,
    script: Path<String>,
) -> Result<String, Error> {
    gates.together.wait().await;
    Ok(script::run(&session, &script)?.1)
}

async fn slow(session: Session, gates: Data<Gates>, script: Path<String>) -> Result<String, Error> {
    gates.slow.wait().await;
    gates.slow.wait().await;
    Ok(script::run(&session, &script)?.1)
}

/// A server that goes on until the process ends: a pool's connections belong to the runtime of the
/// worker that opened them, as in an application, and would end with it.
fn serve<S: Store + Clone>(
    store: &S,
    gates: &Gates,
    settings: impl FnOnce(Builder) -> Builder,
) -> &'static Server {
    let builder = settings(Manager::builder(ServerSide::new(store.clone())));
    let middleware = builder.build().unwrap().middleware();
    Box::leak(Box::new(Server::start(middleware, gates.routes())))
}

/// Runs all of them on `store`.
pub fn check_promises<S: Store + Clone>(store: &S) {
    requests_that_overlap_lose_nothing(store);
    logging_out_wins_every_race(store);
    a_renewal_stands_whatever_was_in_flight(store);
    a_renewal_keeps_what_others_wrote_meanwhile(store);
    the_store_is_asked_no_more_than_promised(store);
    nobody_without_a_session_makes_a_record(store);
    match store.users() {
        Some(_) => a_users_sessions_are_listed_and_ended(store),
        None => a_store_without_an_index_of_users_says_so(store),
    }
    a_session_ends_by_the_clock(store);
}

fn requests_that_overlap_lose_nothing<S: Store + Clone>(store: &S) {
    let at_once = |count: usize, script: &(dyn Fn(usize) -> String + Sync)| {
        let gates = Gates::new(count);
        let server = serve(store, &gates, |builder| builder);
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
fn logging_out_wins_every_race<S: Store + Clone>(store: &S) {
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
        let server = serve(store, &gates, |builder| builder.clock(clock.now()));
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

fn a_renewal_stands_whatever_was_in_flight<S: Store + Clone>(store: &S) {
    for late in ["add.key.late", "renew", "flash.late", "destroy"] {
        let gates = Gates::new(1);
        let server = serve(store, &gates, |builder| builder);
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

fn a_renewal_keeps_what_others_wrote_meanwhile<S: Store + Clone>(store: &S) {
    let gates = Gates::new(1);
    let server = serve(store, &gates, |builder| builder);
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

fn the_store_is_asked_no_more_than_promised<S: Store + Clone>(store: &S) {
    let store = Counting::new(store.clone());
    let gates = Gates::new(1);
    let server = serve(&store, &gates, |builder| builder);
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
    let on_demand = serve(&store, &gates, Builder::load_on_demand);
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
pub fn nobody_without_a_session_makes_a_record<S: Store + Clone>(store: &S) {
    let store = Counting::new(store.clone());
    let gates = Gates::new(1);
    let server = serve(&store, &gates, |builder| builder);
    let out = server.raw("/run/add.user.ada", &[]).cookie();
    server.with_cookie("/run/destroy", &out);
    store.calls();
    let bogus = format!("_session={}", "A".repeat(64));
    let visitor = server.visitor();
    for _ in 0..4_000 {
        visitor.get("/run/get.user,flashes,clear,renew,destroy");
    }
    assert_eq!(store.calls(), 0, "anonymous requests ask the store nothing");
    for cookie in [&bogus, &out] {
        for _ in 0..3_000 {
            let answer = visitor.get_with("/run/get.user,flashes,clear,renew", cookie);
            assert_eq!(answer.body, "none,,done,done");
            assert_eq!(
                answer.set_cookie(),
                None,
                "an id that opens nothing is never confirmed"
            );
        }
        assert_eq!(store.calls(), 3_000, "each asks once, and writes nothing");
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

fn a_users_sessions_are_listed_and_ended<S: Store + Clone>(store: &S) {
    let manager = Manager::new(ServerSide::new(store.clone()));
    let user = format!("user-{:?}", std::time::SystemTime::now());
    let (name, in_handler) = (user.clone(), manager.clone());
    let server = Box::leak(Box::new(Server::start(
        manager.middleware(),
        move |config| {
            let (sign_in, list, out, handler) =
                (name.clone(), name.clone(), name.clone(), in_handler.clone());
            let lister = in_handler.clone();
            config
                .configure(script::routes)
                .route(
                    "/sign-in/{device}",
                    web::get().to(move |session: Session, device: Path<String>| {
                        let user = sign_in.clone();
                        async move {
                            session.renew();
                            session.set_user(&user)?;
                            session.set_note(&device)?;
                            session.add("user", &user)?;
                            Ok::<_, Error>("in")
                        }
                    }),
                )
                .route(
                    "/list",
                    web::get().to(move || {
                        let (manager, user) = (lister.clone(), list.clone());
                        async move {
                            let sessions = manager.user_sessions(&user).await?;
                            let mut notes: Vec<_> =
                                sessions.into_iter().filter_map(|s| s.note).collect();
                            notes.sort_unstable();
                            Ok::<_, Error>(notes.join("+"))
                        }
                    }),
                )
                .route(
                    "/others",
                    web::get().to(move |session: Session| {
                        let (manager, user) = (handler.clone(), out.clone());
                        async move {
                            Ok::<_, Error>(
                                manager
                                    .destroy_other_user_sessions(&user, &session)
                                    .await?
                                    .to_string(),
                            )
                        }
                    }),
                );
        },
    )));
    let devices = ["laptop", "phone", "tablet"];
    let mut cookies = devices.map(|device| server.raw(&format!("/sign-in/{device}"), &[]).cookie());
    assert_eq!(server.raw("/list", &[]).body, "laptop+phone+tablet");
    let before = server.with_cookie("/run/handle,renew", &cookies[1]);
    cookies[1] = before.cookie();
    let after = server.with_cookie("/run/handle", &cookies[1]);
    assert_eq!(
        before.body,
        format!("{},done", after.body),
        "a renewed session keeps its handle"
    );
    assert_eq!(server.raw("/list", &[]).body, "laptop+phone+tablet");
    assert_eq!(server.with_cookie("/others", &cookies[1]).body, "2");
    assert_eq!(server.raw("/list", &[]).body, "phone");
    for (device, cookie) in devices.iter().zip(&cookies) {
        let expected = if *device == "phone" { "1" } else { "0" };
        assert_eq!(
            server.with_cookie("/run/len", cookie).body,
            expected,
            "{device}"
        );
    }
    server.with_cookie("/run/destroy", &cookies[1]);
    assert_eq!(server.raw("/list", &[]).body, "");
}

fn a_store_without_an_index_of_users_says_so<S: Store + Clone>(store: &S) {
    let manager = Manager::new(ServerSide::new(store.clone()));
    let listed = actix_web::rt::System::new().block_on(manager.user_sessions("ada"));
    assert!(
        matches!(listed, Err(Error::NoUserIndex { .. })),
        "{listed:?}"
    );
}

fn a_session_ends_by_the_clock<S: Store + Clone>(store: &S) {
    let minute = Duration::from_secs(60);
    let clock = Clock::default();
    let server = serve(store, &Gates::new(1), |builder| {
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
    let strict = serve(store, &Gates::new(1), |builder| {
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
