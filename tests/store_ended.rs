//! `Session::ended`: what resolves it, in one process and across processes.

mod common;

use std::{
    path::PathBuf,
    pin::pin,
    process::Command,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use common::{
    App, Server, Talk, Web, backends, block_on, on_every_framework,
    process::Process,
    records::unique,
    redis::{Monitor, connections},
    script::run_outside,
    servers::{Postgres, Redis, cli, ports_of},
    talker, until,
};
use session_manager::{
    Error, Manager, MemoryStore, PostgresStore, RedisStore, ServerSide, Session, SqliteStore,
    Store, StoreError, Timestamp,
    store::{Applied, Endings, Record, StoreId, UserIndex, Write},
};
use tokio::{runtime::Runtime, sync::Notify, time::timeout};

const HOUR: Duration = Duration::from_secs(3600);
/// Longer than any test: a session that is polled so does not end by polling.
const NEVER: Duration = HOUR;
const SOON: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(20);

/// Waits for the end of the session, and does meanwhile what the client says.
async fn wait(session: Session, mut talk: Talk) {
    let mut ended = pin!(session.ended());
    loop {
        tokio::select! {
            result = &mut ended => {
                talk.say(said(result));
                return;
            }
            script = talk.hear() => match script {
                Some(script) => talk.say(run_outside(&session, &script).await),
                None => return,
            },
        }
    }
}

fn said(result: Result<(), Error>) -> String {
    match result {
        Ok(()) => "ended".into(),
        Err(error) => format!("{error}"),
    }
}

/// A server with a socket that waits, and the sessions that its requests to `/keep/…` left.
fn serve(web: Web, manager: &Manager) -> (Server, mpsc::Receiver<Session>) {
    let (send, kept) = mpsc::channel();
    let app = App::new()
        .socket("/wait", talker(wait))
        .get("/sign-in", async |session, _| {
            session.set_user("ada")?;
            session.add("user", "ada")?;
            Ok("in")
        })
        .get("/keep/{script}", move |session, script| {
            let send = send.clone();
            async move {
                let said = run_outside(&session, &script).await;
                send.send(session).unwrap();
                Ok(said)
            }
        });
    (Server::start(web, app.wrap(manager.middleware())), kept)
}

fn keep(server: &Server, kept: &mpsc::Receiver<Session>, cookie: &str) -> Session {
    server.with_cookie("/keep/len", cookie);
    kept.recv().unwrap()
}

fn polled_never<S: Store>(store: S) -> Manager {
    Manager::new(ServerSide::new(store).poll_ended_every(NEVER))
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// Returns what became of waiting, unless it takes too long.
async fn outcome(ended: impl Future<Output = Result<(), Error>>) -> String {
    match timeout(LIMIT, ended).await {
        Ok(result) => said(result),
        Err(_) => "still waiting".into(),
    }
}

/// A store in memory that can report or not, and whose subscription can break.
#[derive(Clone, Default)]
struct Spy {
    store: MemoryStore,
    loads: Arc<AtomicUsize>,
    watches: Arc<AtomicUsize>,
    reports: bool,
    is_down: Arc<AtomicBool>,
    breaks: Arc<Notify>,
}

impl Spy {
    fn reporting() -> Self {
        let reports = true;
        Self {
            reports,
            ..Self::default()
        }
    }

    fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }

    fn watches(&self) -> usize {
        self.watches.load(Ordering::SeqCst)
    }

    /// Waits until sessions were loaded this often from now on.
    fn until_loaded(&self, times: usize) {
        let before = self.loads();
        until("awaited sessions are loaded", || {
            self.loads() >= before + times
        });
    }
}

impl Store for Spy {
    fn name(&self) -> &'static str {
        "spy"
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.store.load(id, now).await
    }

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        self.store.create(id, write).await
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        self.store.apply(id, write).await
    }

    async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
        self.store.destroy(id).await
    }

    fn users(&self) -> Option<&dyn UserIndex> {
        self.store.users()
    }

    async fn watch_ended(&self, endings: &Endings) -> Result<(), StoreError> {
        self.watches.fetch_add(1, Ordering::SeqCst);
        let lost = || Err(StoreError::failed("spy", std::io::Error::other("lost")));
        if !self.reports {
            return Ok(());
        }
        if self.is_down.load(Ordering::SeqCst) {
            return lost();
        }
        tokio::select! {
            watched = self.store.watch_ended(endings) => watched,
            () = self.breaks.notified() => lost(),
        }
    }
}

fn every_way_to_end_a_session_resolves_it_at_once_in_one_process(web: Web) {
    type End = fn(&Server, &Manager, &Session, &str, &Runtime);
    let ends: [(&str, End); 5] = [
        ("a log-out", |server, _, _, cookie, _| {
            server.with_cookie("/run/destroy", cookie);
        }),
        (
            "a log-out that is a server error",
            |server, _, _, cookie, _| {
                server.with_cookie("/run/destroy,status.500", cookie);
            },
        ),
        ("all of a user's", |_, manager, _, _, runtime| {
            let ended = runtime.block_on(manager.destroy_user_sessions("ada"));
            assert_eq!(ended.unwrap(), 1);
        }),
        ("one of a user's", |_, manager, session, _, runtime| {
            let handle = session.handle().unwrap();
            let ended = runtime.block_on(manager.destroy_user_session("ada", &handle));
            assert!(ended.unwrap());
        }),
        ("the same handle", |_, _, session, _, runtime| {
            session.destroy();
            runtime.block_on(session.save()).unwrap();
        }),
    ];
    let (dir, runtime) = (common::servers::temp_dir(), runtime());
    let path = dir.join("sessions.db");
    // Connections of a pool belong to the runtime that made them.
    let lite = runtime.block_on(SqliteStore::connect(path.to_str().unwrap()));
    for manager in [
        polled_never(MemoryStore::new()),
        // It reports nothing, but what this process ends it knows.
        polled_never(lite.unwrap()),
    ] {
        for (how, end) in ends {
            let (server, kept) = serve(web, &manager);
            let cookie = server.raw("/sign-in", &[]).cookie();
            let session = keep(&server, &kept, &cookie);
            let mut socket = server.socket("/wait", &cookie);
            assert_eq!(socket.ask("get.user"), "ada", "{how}");
            end(&server, &manager, &session, &cookie, &runtime);
            assert_eq!(socket.hear(), "ended", "{how}");
            let later = runtime.block_on(outcome(session.ended()));
            assert_eq!(later, "ended", "{how}: later too");
        }
    }
    let _ = std::fs::remove_dir_all(dir);
}

fn an_evicted_session_has_ended(web: Web) {
    let store = MemoryStore::with_capacity(64);
    let (server, _) = serve(web, &polled_never(store));
    let cookie = server.raw("/run/add.user.ada", &[]).cookie();
    let mut socket = server.socket("/wait", &cookie);
    assert_eq!(socket.ask("get.user"), "ada");
    for _ in 0..1_000 {
        server.raw("/run/add.key.value", &[]);
    }
    assert_eq!(socket.hear(), "ended");
}

fn a_session_that_is_renewed_or_written_goes_on(web: Web) {
    for spy in [Spy::default(), Spy::reporting()] {
        let manager = Manager::new(ServerSide::new(spy.clone()).poll_ended_every(SOON));
        let (server, _) = serve(web, &manager);
        let cookie = server.raw("/run/add.user.ada", &[]).cookie();
        let mut socket = server.socket("/wait", &cookie);
        assert_eq!(socket.ask("get.user"), "ada");
        let new = server
            .with_cookie("/run/renew,add.more.1", &cookie)
            .cookie();
        let newest = server.with_cookie("/run/clear,renew", &new).cookie();
        spy.until_loaded(3);
        assert_eq!(socket.ask("get.user"), "ada", "it waits on");
        server.with_cookie("/run/destroy", &newest);
        assert_eq!(socket.hear(), "ended", "under every id");
    }
}

fn a_session_that_expires_has_ended_and_one_that_is_used_lives(web: Web) {
    let short = Duration::from_millis(1_500);
    let builder = Manager::builder(ServerSide::new(MemoryStore::new()).poll_ended_every(NEVER));
    let manager = builder.idle_timeout(short).build().unwrap();
    let (server, _) = serve(web, &manager);
    let cookie = server.raw("/run/add.user.ada", &[]).cookie();
    let mut socket = server.socket("/wait", &cookie);
    assert_eq!(socket.ask("get.user"), "ada");
    let begun = Instant::now();
    let mut used = begun;
    while begun.elapsed() < 2 * short {
        if server.with_cookie("/run/get.user", &cookie).body == "ada" {
            used = Instant::now();
        }
        std::thread::yield_now();
    }
    assert_eq!(socket.hear(), "ended");
    assert!(
        used.elapsed() < 2 * short,
        "at its time, without another event"
    );
}

fn a_session_that_migrates_from_a_cookie_goes_on_until_its_log_out(web: Web) {
    for (_, old) in backends() {
        let old = old().cookie_name("former").build().unwrap();
        let before = Server::scripts(web, old.middleware());
        let spy = Spy::default();
        let new = ServerSide::new(spy.clone()).poll_ended_every(SOON);
        let new = Manager::builder(new).migrate_from(old).build().unwrap();
        let (server, _) = serve(web, &new);
        let cookie = before.raw("/run/add.user.ada", &[]).cookie();
        let mut socket = server.socket("/wait", &cookie);
        assert_eq!(socket.ask("get.user"), "ada");
        let moved = server.with_cookie("/run/add.more.1", &cookie);
        let mut set = moved.all("set-cookie");
        let moved = set.find(|set| set.starts_with("_session=")).unwrap();
        let moved = moved.split(';').next().unwrap().to_owned();
        spy.until_loaded(3);
        assert_eq!(socket.ask("get.user"), "ada", "it waits on");
        server.with_cookie("/run/destroy", &moved);
        assert_eq!(socket.hear(), "ended");
        // A log-out by the old cookie leaves a mark, which is an end too.
        let cookie = before.raw("/run/add.user.ada", &[]).cookie();
        let mut socket = server.socket("/wait", &cookie);
        assert_eq!(socket.ask("get.user"), "ada");
        server.with_cookie("/run/destroy", &cookie);
        assert_eq!(socket.hear(), "ended");
    }
}

fn a_cookie_session_ends_when_its_cookie_expires(web: Web) {
    for (name, builder) in backends() {
        let short = Duration::from_millis(1_500);
        let manager = builder().idle_timeout(short).build().unwrap();
        let (server, kept) = serve(web, &manager);
        let answer = server.raw("/keep/add.user.ada", &[]);
        let new = kept.recv().unwrap();
        let session = keep(&server, &kept, &answer.cookie());
        assert_eq!(block_on(outcome(session.ended())), "ended", "{name}");
        assert_eq!(block_on(outcome(new.ended())), "ended", "{name}");
        assert_eq!(
            session.get("user").as_deref(),
            Some("ada"),
            "nothing is written here"
        );
    }
}

fn without_a_session_there_is_no_end_and_the_error_says_so(web: Web) {
    for builder in common::all_backends() {
        let (server, kept) = serve(web, &builder.1().build().unwrap());
        server.raw("/keep/len", &[]);
        let session = kept.recv().unwrap();
        let outcome = block_on(async { timeout(LIMIT, session.ended()).await.unwrap() });
        assert!(matches!(outcome, Err(Error::NotStored)), "{outcome:?}");
    }
}

fn a_session_that_begins_is_saved_first(web: Web) {
    let store = MemoryStore::new();
    let manager = polled_never(store.clone());
    let app = App::new().get("/begin", |session: Session, _| async move {
        session.add("user", "ada")?;
        let mut ended = pin!(session.ended());
        assert!(timeout(SOON, &mut ended).await.is_err());
        session.destroy();
        session.save().await?;
        Ok(outcome(ended).await)
    });
    let server = Server::start(web, app.wrap(manager.middleware()));
    assert_eq!(server.raw("/begin", &[]).body, "ended");
    assert!(store.is_empty());
}

on_every_framework!(
    every_way_to_end_a_session_resolves_it_at_once_in_one_process,
    an_evicted_session_has_ended,
    a_session_that_is_renewed_or_written_goes_on,
    a_session_that_expires_has_ended_and_one_that_is_used_lives,
    a_session_that_migrates_from_a_cookie_goes_on_until_its_log_out,
    a_cookie_session_ends_when_its_cookie_expires,
    without_a_session_there_is_no_end_and_the_error_says_so,
    a_session_that_begins_is_saved_first,
);

#[test]
fn ended_is_send_and_owns_what_it_needs() {
    fn check(_: impl Future<Output = Result<(), Error>> + Send + 'static) {}
    let _ = |session: &Session| check(session.ended());
}

#[test]
fn a_process_that_awaits_no_session_watches_nothing() {
    let spy = Spy::reporting();
    let (server, _) = serve(Web::Actix, &Manager::new(ServerSide::new(spy.clone())));
    let cookie = server.raw("/sign-in", &[]).cookie();
    server.with_cookie("/run/renew", &cookie);
    server.with_cookie("/run/destroy", &cookie);
    assert_eq!(spy.watches(), 0);
}

#[test]
fn a_thousand_tasks_share_one_subscription_and_one_load() {
    for spy in [Spy::default(), Spy::reporting()] {
        let (server, kept) = serve(Web::Actix, &polled_never(spy.clone()));
        let cookie = server.raw("/sign-in", &[]).cookie();
        let session = keep(&server, &kept, &cookie);
        runtime().block_on(async {
            // Every one is waiting before the end.
            let mut first = Box::pin(session.ended());
            assert!(timeout(SOON, &mut first).await.is_err());
            until("the first load is done", || spy.loads() >= 2);
            let before = spy.loads();
            let mut waiting: Vec<_> = (0..1_000).map(|_| Box::pin(session.ended())).collect();
            for ended in &mut waiting {
                assert!(polled_once(ended).await.is_none());
            }
            tokio::task::spawn_blocking(move || {
                server.with_cookie("/run/destroy", &cookie);
                drop(server);
            })
            .await
            .unwrap();
            for ended in waiting {
                assert_eq!(outcome(ended).await, "ended");
            }
            assert_eq!(outcome(first).await, "ended");
            assert_eq!(spy.watches(), 1);
            // One look when they began, one when it was reported, and one of the request.
            assert!(spy.loads() - before <= 5, "{}", spy.loads() - before);
        });
    }
}

/// Polls once.
async fn polled_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

/// Ends the record where neither the backend nor its subscription sees it.
fn end_unseen(spy: &Spy, session: &Session) {
    let handle = session.handle().unwrap();
    let byte = |at: usize| u8::from_str_radix(&handle[2 * at..][..2], 16).unwrap();
    let id = StoreId::from_bytes(std::array::from_fn(byte));
    block_on(spy.store.destroy(id)).unwrap();
}

fn a_session_ends_while_the_subscription_is_broken(interval: Duration, comes_back: bool) {
    let spy = Spy::reporting();
    let backend = ServerSide::new(spy.clone()).poll_ended_every(interval);
    let (server, kept) = serve(Web::Actix, &Manager::new(backend));
    let runtime = runtime();
    let session = keep(&server, &kept, &server.raw("/sign-in", &[]).cookie());
    let before = spy.loads();
    let ended = runtime.spawn(session.ended());
    until("it is loaded", || {
        spy.watches() == 1 && spy.loads() > before
    });
    spy.is_down.store(true, Ordering::SeqCst);
    spy.breaks.notify_one();
    until("another one is tried", || spy.watches() >= 2);
    end_unseen(&spy, &session);
    spy.is_down.store(!comes_back, Ordering::SeqCst);
    let ended = runtime.block_on(async { timeout(LIMIT, ended).await });
    assert_eq!(said(ended.expect("it ends in time").unwrap()), "ended");
}

#[test]
fn while_the_subscription_is_broken_sessions_are_polled() {
    a_session_ends_while_the_subscription_is_broken(SOON, false);
}

#[test]
fn what_ended_before_there_was_a_subscription_again_is_not_missed() {
    a_session_ends_while_the_subscription_is_broken(NEVER, true);
}

#[test]
fn when_the_runtime_that_watched_ends_another_goes_on() {
    let spy = Spy::reporting();
    let (server, kept) = serve(Web::Actix, &polled_never(spy.clone()));
    let cookie = server.raw("/sign-in", &[]).cookie();
    let session = keep(&server, &kept, &cookie);
    let (first, second) = (runtime(), runtime());
    first.spawn(session.ended());
    until("the first runtime watches", || spy.watches() == 1);
    let mut ended = Box::pin(session.ended());
    assert!(second.block_on(polled_once(&mut ended)).is_none());
    let ended = second.spawn(ended);
    first.shutdown_timeout(LIMIT);
    until("the second one watches", || spy.watches() == 2);
    server.with_cookie("/run/destroy", &cookie);
    let ended = second.block_on(async { timeout(LIMIT, ended).await.unwrap().unwrap() });
    assert_eq!(said(ended), "ended");
}

#[test]
fn outside_of_a_runtime_waiting_is_an_error_and_no_panic() {
    let (server, kept) = serve(Web::Actix, &polled_never(MemoryStore::new()));
    let session = keep(&server, &kept, &server.raw("/sign-in", &[]).cookie());
    let mut ended = pin!(session.ended());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Err(error)) = ended.as_mut().poll(&mut context) else {
        panic!("it is an error");
    };
    assert!(common::whole(&error).contains("tokio runtime"), "{error:?}");
}

/// Two managers that share a database as two processes do, and a session in both.
struct TwoProcesses {
    here: (Server, mpsc::Receiver<Session>),
    there: Server,
    runtime: Runtime,
}

impl TwoProcesses {
    fn of<S: Store>(interval: Duration, connect: impl AsyncFn() -> S) -> Self {
        let runtime = runtime();
        let (one, two) = runtime.block_on(async { (connect().await, connect().await) });
        let manager = |store| Manager::new(ServerSide::new(store).poll_ended_every(interval));
        Self {
            here: serve(Web::Actix, &manager(one)),
            there: serve(Web::Actix, &manager(two)).0,
            runtime,
        }
    }

    /// Logs in, and returns the cookie and what waits for the end.
    fn log_in(&self) -> (String, tokio::task::JoinHandle<Result<(), Error>>) {
        let cookie = self.here.0.raw("/run/add.user.ada", &[]).cookie();
        let session = keep(&self.here.0, &self.here.1, &cookie);
        (cookie, self.runtime.spawn(session.ended()))
    }

    fn log_out_there(&self, cookie: &str) {
        self.there.with_cookie("/run/destroy", cookie);
    }

    #[track_caller]
    fn has_ended(&self, ended: tokio::task::JoinHandle<Result<(), Error>>) {
        let ended = self.runtime.block_on(async { timeout(LIMIT, ended).await });
        assert_eq!(said(ended.expect("it ends in time").unwrap()), "ended");
    }
}

fn env(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run tests/run.sh"))
}

fn subscriptions(port: u16) -> usize {
    let list = cli(port, &["client", "list", "type", "pubsub"]);
    list.lines().filter(|line| line.starts_with("id=")).count()
}

#[test]
#[ignore = "needs Redis: tests/run.sh"]
fn on_redis_an_end_in_another_process_is_reported_also_after_its_subscription_broke() {
    let server = Redis::start(&[]);
    let two = TwoProcesses::of(NEVER, async || {
        RedisStore::connect(&server.url()).await.unwrap()
    });
    let (cookie, ended) = two.log_in();
    until("it subscribes", || subscriptions(server.port) == 1);
    let (other, other_ended) = two.log_in();
    // The message of its own came back.
    let numsub = || cli(server.port, &["pubsub", "numsub", "session:ended"]);
    until("on its channel", || numsub().ends_with('1'));
    two.log_out_there(&cookie);
    two.has_ended(ended);
    assert_eq!(subscriptions(server.port), 1, "one for all");
    drop((other, other_ended));
}

#[test]
#[ignore = "needs Redis: tests/run.sh"]
fn on_redis_what_ended_while_the_subscription_was_broken_is_found() {
    let server = Redis::start(&[]);
    let interval = Duration::from_millis(500);
    let two = TwoProcesses::of(interval, async || {
        RedisStore::connect(&server.url()).await.unwrap()
    });
    let (cookie, ended) = two.log_in();
    let (other, other_ended) = two.log_in();
    until("it subscribes", || subscriptions(server.port) == 1);
    cli(server.port, &["client", "kill", "type", "pubsub"]);
    two.log_out_there(&cookie);
    two.has_ended(ended);
    until("it subscribes again", || subscriptions(server.port) == 1);
    two.log_out_there(&other);
    two.has_ended(other_ended);
}

#[test]
#[ignore = "needs Redis: tests/run.sh"]
fn on_redis_a_user_without_the_right_to_publish_logs_out_and_is_polled() {
    let server = Redis::start(&[]);
    let rules = "~session:* +@read +@write +@scripting +@transaction +@connection";
    let mut acl = vec!["acl", "setuser", "app", "on", ">secret", "resetchannels"];
    acl.extend(rules.split(' '));
    assert_eq!(cli(server.port, &acl), "OK");
    let url = format!("redis://app:secret@127.0.0.1:{}", server.port);
    let interval = Duration::from_millis(100);
    let two = TwoProcesses::of(interval, async || RedisStore::connect(&url).await.unwrap());
    let (cookie, ended) = two.log_in();
    two.log_out_there(&cookie);
    assert_eq!(two.there.with_cookie("/run/len", &cookie).body, "0");
    two.has_ended(ended);
}

#[test]
#[ignore = "needs Redis: tests/run.sh"]
fn on_redis_a_log_out_is_one_command_and_reports_a_part_of_the_id() {
    let server = Redis::start(&[]);
    let two = TwoProcesses::of(NEVER, async || {
        RedisStore::connect(&server.url()).await.unwrap()
    });
    let (cookie, ended) = two.log_in();
    let (warm, _) = two.log_in();
    two.log_out_there(&warm);
    until("it subscribes", || subscriptions(server.port) == 1);
    let handle = keep(&two.here.0, &two.here.1, &cookie).handle().unwrap();
    let monitor = Monitor::start(server.port);
    two.log_out_there(&cookie);
    two.has_ended(ended);
    let seen = monitor.stop();
    let destroys = seen.iter().filter(|line| line.contains("EVALSHA"));
    assert_eq!(destroys.count(), 1, "{seen:?}");
    assert!(
        !seen
            .iter()
            .any(|line| line.contains("\"PUBLISH\"") && line.contains(&handle[..24]))
    );
}

#[test]
#[ignore = "needs a Redis Cluster: tests/run.sh"]
fn on_a_cluster_an_end_in_another_process_is_reported() {
    let url = env("SESSION_TEST_REDIS_CLUSTER");
    // Each process begins with another server.
    let ports = ports_of(&url);
    let next = AtomicUsize::new(0);
    let two = TwoProcesses::of(NEVER, async || {
        let port = ports[next.fetch_add(1, Ordering::SeqCst) % ports.len()];
        let url = format!("redis+cluster://127.0.0.1:{port}");
        RedisStore::connect(&url)
            .await
            .unwrap()
            .with_prefix(&format!("{}:", unique_once()))
    });
    for _ in 0..4 {
        let (cookie, ended) = two.log_in();
        let subscribed = || ports.iter().map(|port| subscriptions(*port)).sum::<usize>() > 0;
        until("it subscribes", subscribed);
        two.log_out_there(&cookie);
        two.has_ended(ended);
    }
}

/// The same number each time.
fn unique_once() -> u64 {
    static NUMBER: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *NUMBER.get_or_init(unique)
}

#[test]
#[ignore = "needs Redis: tests/run.sh"]
fn on_redis_nothing_subscribes_before_a_session_is_awaited_and_after_the_last() {
    let server = Redis::start(&[]);
    let interval = Duration::from_millis(50);
    let two = TwoProcesses::of(interval, async || {
        RedisStore::connect(&server.url()).await.unwrap()
    });
    let cookie = two.here.0.raw("/run/add.user.ada", &[]).cookie();
    assert_eq!(subscriptions(server.port), 0);
    let before = connections(server.port).len();
    let session = keep(&two.here.0, &two.here.1, &cookie);
    let waiting = two.runtime.spawn(session.ended());
    until("it subscribes", || subscriptions(server.port) == 1);
    waiting.abort();
    until("it ends the subscription", || {
        subscriptions(server.port) == 0
    });
    assert_eq!(connections(server.port).len(), before);
}

const LISTENERS: &str = "SELECT pid FROM pg_stat_activity WHERE query ILIKE 'LISTEN%'";

#[test]
#[ignore = "needs PostgreSQL: tests/run.sh"]
fn on_postgres_an_end_in_another_process_is_reported_also_after_its_connection_broke() {
    let server = Postgres::start();
    let psql = |sql: &str| {
        let url = &server.url;
        server.bash(&format!("psql -AtX '{url}' -c \"{sql}\""))
    };
    let listeners = || psql(LISTENERS).lines().count();
    // Rows that are reported, and rows that only polling finds.
    for (interval, breaks) in [(NEVER, false), (Duration::from_millis(500), true)] {
        let connect = async || PostgresStore::connect(&server.url).await.unwrap();
        let two = TwoProcesses::of(interval, connect);
        let (cookie, ended) = two.log_in();
        until("it listens", || listeners() == 1);
        let (_other, _waits) = two.log_in();
        if breaks {
            psql(&LISTENERS.replace("SELECT pid", "SELECT pg_terminate_backend(pid)"));
        }
        two.log_out_there(&cookie);
        two.has_ended(ended);
        until("it listens, still or again", || listeners() == 1);
        let (cookie, ended) = two.log_in();
        two.log_out_there(&cookie);
        two.has_ended(ended);
        drop(two);
        until("the connection ends with its runtime", || listeners() == 0);
    }
}

/// The example as it is now.
fn websocket_example(session_url: &str) -> (Process, std::net::SocketAddr) {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--quiet",
            "--all-features",
            "--example",
            "websocket",
        ]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "{cargo:?}");
    });
    // This is target/<profile>/deps/store_ended-<hash>.
    let this = std::env::current_exe().unwrap();
    let name = format!("examples/websocket{}", std::env::consts::EXE_SUFFIX);
    let program: PathBuf = this.ancestors().nth(2).unwrap().join(name);
    let mut example = Command::new(program);
    example
        .env("DEMO_ADDR", "127.0.0.1:0")
        .env("SESSION_URL", session_url)
        .env_remove("SESSION_SECRET");
    let (process, address) = Process::start(&mut example, |line| {
        line.strip_prefix("Open http://").map(str::to_owned)
    });
    (process, address.parse().unwrap())
}

fn the_example_closes_within_100_ms_of_a_log_out_in_another_process(session_url: &str) {
    let (_here, here) = websocket_example(session_url);
    let (_there, there) = websocket_example(session_url);
    let mut took: Vec<_> = (0..5)
        .map(|_| {
            let cookie = common::Visitor::to(here).get("/").cookie();
            let mut socket = common::Socket::to(here, "/socket", &cookie);
            assert_eq!(socket.ask("count"), "1");
            let begun = Instant::now();
            common::post(there, "/log-out", &cookie);
            let answered = begun.elapsed();
            assert_eq!(socket.until_closed(), ["You were logged out elsewhere."]);
            println!("answered in {answered:?}, closed in {:?}", begun.elapsed());
            begun.elapsed().saturating_sub(answered)
        })
        .collect();
    took.sort_unstable();
    // The machine may be busy with other tests.
    assert!(took[2] < Duration::from_millis(100), "{took:?}");
}

#[test]
#[ignore = "needs Redis: tests/run.sh"]
fn on_redis_the_websocket_example_closes_within_100_ms_of_a_log_out_in_another_process() {
    let server = Redis::start(&[]);
    the_example_closes_within_100_ms_of_a_log_out_in_another_process(&server.url());
}

#[test]
#[ignore = "needs PostgreSQL: tests/run.sh"]
fn on_postgres_the_websocket_example_closes_within_100_ms_of_a_log_out_in_another_process() {
    let server = Postgres::start();
    the_example_closes_within_100_ms_of_a_log_out_in_another_process(&server.url);
}
