//! What sessions cost a request, beside actix-session, in one process and one run.
//!
//! ```text
//! cargo bench --bench overhead             the tables, as Markdown
//! cargo bench --bench overhead -- --test   every case once: checked, not measured
//! ```
//!
//! Five applications serve the same requests: a bare one, and one for each cookie engine of either
//! crate, with the default settings of both. What the bare one costs is taken off. Each round serves
//! every row of the table with all five, one after another in an order that rotates, so that
//! whatever else the machine does hits all alike. The tables show medians over the rounds.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that cannot go on stops, and it prints its tables"
)]

use std::{
    alloc::System,
    array, env,
    fmt::Display,
    fs,
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use actix_session::{
    SessionMiddleware, config::CookieContentSecurity, storage::CookieSessionStore,
};
use actix_web::{
    App, FromRequest, HttpResponse,
    body::MessageBody,
    cookie,
    dev::{Service, ServiceResponse},
    http::header::{COOKIE, HOST, SET_COOKIE},
    rt::{System as Runtime, SystemRunner},
    test::{TestRequest, init_service},
    web::{self, ServiceConfig},
};
use arc_swap::ArcSwap;
use once_cell::sync::Lazy;
use serde::Serialize;
use session_manager::{Backend, Key, Manager, PrivateCookie, SignedCookie, manager};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

/// The system's allocator, counted. Counting adds less than 3 % to a request, on both sides.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROUNDS: usize = 15;
/// Requests per row and application in each round.
const REQUESTS: usize = BATCHES * BATCH;
const BATCHES: usize = 40;
/// How many are built at a time, outside of what is timed. Few, so that serving finds them in the
/// processor's cache; and actix-web keeps 128 at most for reuse.
const BATCH: usize = 100;
/// Calls of `manager::get` and its like in each round.
const CALLS: usize = 1_000_000;

/// What the requests of one row are, and whether their responses set a cookie.
struct Row {
    name: &'static str,
    path: &'static str,
    has_cookie: bool,
    sets_cookie: bool,
}

const ROWS: [Row; 5] = [
    Row {
        name: "no cookie",
        path: "/untouched",
        has_cookie: false,
        sets_cookie: false,
    },
    Row {
        name: "cookie, untouched",
        path: "/untouched",
        has_cookie: true,
        sets_cookie: false,
    },
    Row {
        name: "read one key",
        path: "/read-one",
        has_cookie: true,
        sets_cookie: false,
    },
    Row {
        name: "read three keys",
        path: "/read-three",
        has_cookie: true,
        sets_cookie: false,
    },
    Row {
        name: "write three keys",
        path: "/write-three",
        has_cookie: true,
        sets_cookie: true,
    },
];

/// What a session holds.
#[derive(Clone, Copy)]
struct Visitor {
    user: &'static str,
    name: &'static str,
    visits: u64,
}

const STORED: Visitor = Visitor {
    user: "5f0c9a52-7b1e-4a5c-9d57-0f6f3c1e8b21",
    name: "Ada Lovelace",
    visits: 41,
};

const CHANGED: Visitor = Visitor {
    user: "c21f7d0e-93b4-4c1a-8a6e-52d90b7f4e63",
    name: "Grace Hopper",
    visits: 42,
};

/// The operations that the handlers use; the two crates differ in their names alone.
trait Visit: FromRequest + 'static {
    fn text(&self, key: &str) -> Option<String>;
    fn number(&self, key: &str) -> Option<u64>;
    fn put(&self, key: &str, value: impl Serialize);
    fn count(&self) -> usize;
}

impl Visit for session_manager::Session {
    fn text(&self, key: &str) -> Option<String> {
        self.get(key)
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.load(key).unwrap()
    }

    fn put(&self, key: &str, value: impl Serialize) {
        self.add(key, value).unwrap();
    }

    fn count(&self) -> usize {
        self.len()
    }
}

impl Visit for actix_session::Session {
    fn text(&self, key: &str) -> Option<String> {
        self.get(key).unwrap()
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.get(key).unwrap()
    }

    fn put(&self, key: &str, value: impl Serialize) {
        self.insert(key, value).unwrap();
    }

    fn count(&self) -> usize {
        self.entries().len()
    }
}

async fn untouched() -> HttpResponse {
    HttpResponse::Ok().finish()
}

// What is read is compared at once, so that no request counts that read anything else.

async fn read_one<S: Visit>(session: S, stored: Visitor) -> HttpResponse {
    assert_eq!(session.text("name").as_deref(), Some(stored.name));
    untouched().await
}

async fn read_three<S: Visit>(session: S, stored: Visitor) -> HttpResponse {
    assert_eq!(session.text("user").as_deref(), Some(stored.user));
    assert_eq!(session.text("name").as_deref(), Some(stored.name));
    assert_eq!(session.number("visits"), Some(stored.visits));
    untouched().await
}

async fn write_three<S: Visit>(session: S, visitor: Visitor) -> HttpResponse {
    session.put("user", visitor.user);
    session.put("name", visitor.name);
    session.put("visits", visitor.visits);
    untouched().await
}

async fn count_three<S: Visit>(session: S) -> HttpResponse {
    assert_eq!(session.count(), 3);
    untouched().await
}

/// What the rows ask for, and what begins and checks a session.
fn routes<S: Visit>(config: &mut ServiceConfig) {
    config
        .route("/untouched", web::get().to(untouched))
        .route("/read-one", web::get().to(|s: S| read_one(s, STORED)))
        .route("/read-three", web::get().to(|s: S| read_three(s, STORED)))
        .route(
            "/write-three",
            web::get().to(|s: S| write_three(s, CHANGED)),
        )
        .route("/begin", web::get().to(|s: S| write_three(s, STORED)))
        .route("/changed", web::get().to(|s: S| read_three(s, CHANGED)))
        .route("/count", web::get().to(count_three::<S>));
}

/// The same for an application without sessions.
fn bare_routes(config: &mut ServiceConfig) {
    for path in ["/untouched", "/read-one", "/read-three", "/write-three"] {
        config.route(path, web::get().to(untouched));
    }
}

/// What one request costs: nanoseconds, allocations on the heap, and bytes of these.
type Cost = [f64; 3];
const NANOS: usize = 0;
const ALLOCATIONS: usize = 1;
const BYTES: usize = 2;

/// A mounted application, whatever its type.
trait Serve {
    /// Serves [`REQUESTS`], one after another.
    fn serve(&self, request: &dyn Fn() -> TestRequest) -> Cost;

    /// Serves one request with success, and returns the `Set-Cookie` value of the response.
    fn once(&self, request: TestRequest) -> Option<String>;
}

struct Mounted<'r, S, R> {
    runtime: &'r SystemRunner,
    service: S,
    /// [`TestRequest::to_request`], because actix-web does not export the type that it returns.
    finish: fn(TestRequest) -> R,
}

impl<S, R, B> Serve for Mounted<'_, S, R>
where
    S: Service<R, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: MessageBody,
{
    fn serve(&self, request: &dyn Fn() -> TestRequest) -> Cost {
        let mut time = Duration::ZERO;
        let mut allocations = 0;
        let mut bytes = 0;
        for _ in 0..BATCHES {
            let batch: [R; BATCH] = array::from_fn(|_| (self.finish)(request()));
            self.runtime.block_on(async {
                let allocated = Region::new(ALLOCATOR);
                let begun = Instant::now();
                for request in batch {
                    black_box(self.service.call(request).await.unwrap());
                }
                time += begun.elapsed();
                let allocated = allocated.change();
                allocations += allocated.allocations + allocated.reallocations;
                bytes += allocated.bytes_allocated;
            });
        }
        [time.as_nanos() as f64, allocations as f64, bytes as f64].map(|sum| sum / REQUESTS as f64)
    }

    fn once(&self, request: TestRequest) -> Option<String> {
        let request = (self.finish)(request);
        let response = self.runtime.block_on(self.service.call(request)).unwrap();
        assert!(response.status().is_success());
        let mut cookies = response.headers().get_all(SET_COOKIE);
        let cookie = cookies.next()?.to_str().unwrap().to_owned();
        assert!(
            cookies.next().is_none(),
            "a response has one cookie at most"
        );
        Some(cookie)
    }
}

/// One column of the tables.
struct Application<'r> {
    name: &'static str,
    app: Box<dyn Serve + 'r>,
    /// The process-wide manager while this application serves.
    manager: Option<Manager>,
    /// The `Set-Cookie` value that began the session; `None` for the bare application.
    begun: Option<String>,
}

impl Application<'_> {
    /// Proves that this application does what the rows say.
    fn check(&self) {
        for row in &ROWS {
            let set_cookie = self.once(row.path, self.cookie(row));
            let is_due = row.sets_cookie && self.begun.is_some();
            assert_eq!(set_cookie.is_some(), is_due, "{}: {}", self.name, row.name);
            if let Some(changed) = set_cookie {
                self.once("/changed", Some(name_and_value(&changed)));
                self.once("/count", Some(name_and_value(&changed)));
            }
        }
    }

    fn once(&self, path: &str, cookie: Option<&str>) -> Option<String> {
        self.enter();
        self.app.once(request(path, cookie))
    }

    fn serve(&self, row: &Row) -> Cost {
        self.enter();
        self.app.serve(&|| request(row.path, self.cookie(row)))
    }

    fn enter(&self) {
        if let Some(manager) = &self.manager {
            manager::set(manager.clone());
        }
    }

    fn cookie(&self, row: &Row) -> Option<&str> {
        let begun = self.begun.as_deref().unwrap_or("bare=application");
        row.has_cookie.then(|| name_and_value(begun))
    }
}

/// A request as it comes to a public host.
fn request(path: &str, cookie: Option<&str>) -> TestRequest {
    let request = TestRequest::with_uri(path).insert_header((HOST, "www.example.com"));
    match cookie {
        Some(cookie) => request.insert_header((COOKIE, cookie)),
        None => request,
    }
}

/// What a client sends back of a `Set-Cookie` value.
fn name_and_value(set_cookie: &str) -> &str {
    set_cookie.split(';').next().unwrap()
}

fn mount<'r, S, R, B>(
    runtime: &'r SystemRunner,
    name: &'static str,
    service: impl Future<Output = S>,
    finish: fn(TestRequest) -> R,
) -> Application<'r>
where
    S: Service<R, Response = ServiceResponse<B>, Error = actix_web::Error> + 'r,
    R: 'r,
    B: MessageBody,
{
    let service = runtime.block_on(service);
    Application {
        name,
        app: Box::new(Mounted {
            runtime,
            service,
            finish,
        }),
        manager: None,
        begun: None,
    }
}

fn bare(runtime: &SystemRunner) -> Application<'_> {
    let app = App::new().configure(bare_routes);
    mount(runtime, "bare", init_service(app), TestRequest::to_request)
}

fn ours<'r>(
    runtime: &'r SystemRunner,
    name: &'static str,
    engine: impl Backend,
) -> Application<'r> {
    let app = App::new()
        .configure(routes::<session_manager::Session>)
        .wrap(manager::middleware());
    Application {
        manager: Some(Manager::new(engine)),
        ..mount(runtime, name, init_service(app), TestRequest::to_request)
    }
}

fn theirs<'r>(
    runtime: &'r SystemRunner,
    name: &'static str,
    security: CookieContentSecurity,
) -> Application<'r> {
    let key = cookie::Key::generate();
    let app = App::new().configure(routes::<actix_session::Session>).wrap(
        SessionMiddleware::builder(CookieSessionStore::default(), key)
            .cookie_content_security(security)
            .build(),
    );
    mount(runtime, name, init_service(app), TestRequest::to_request)
}

/// The bare application, then each of ours before its peer.
fn applications(runtime: &SystemRunner) -> [Application<'_>; 5] {
    let mut all = [
        bare(runtime),
        ours(
            runtime,
            "session-manager, signed",
            SignedCookie::new(Key::generate()),
        ),
        theirs(
            runtime,
            "actix-session, signed",
            CookieContentSecurity::Signed,
        ),
        ours(
            runtime,
            "session-manager, private",
            PrivateCookie::new(Key::generate()),
        ),
        theirs(
            runtime,
            "actix-session, private",
            CookieContentSecurity::Private,
        ),
    ];
    for application in &mut all[1..] {
        application.begun = application.once("/begin", None);
        assert!(application.begun.is_some());
    }
    all.iter().for_each(Application::check);
    all
}

/// For each row what each application costs; all but the bare one without what that costs.
fn overheads(applications: &[Application<'_>; 5]) -> [[Cost; 5]; ROWS.len()] {
    let mut rounds = [const { [const { Vec::new() }; 5] }; ROWS.len()];
    for round in 0..ROUNDS {
        for (row, costs) in ROWS.iter().zip(&mut rounds) {
            let mut served = [Cost::default(); 5];
            for turn in 0..5 {
                let which = (round + turn) % 5;
                served[which] = applications[which].serve(row);
            }
            let bare = served[0];
            for cost in &mut served[1..] {
                *cost = array::from_fn(|i| cost[i] - bare[i]);
            }
            costs
                .iter_mut()
                .zip(served)
                .for_each(|(costs, cost)| costs.push(cost));
        }
    }
    rounds.map(|costs| {
        costs.map(|costs| array::from_fn(|i| median(costs.iter().map(|cost: &Cost| cost[i]))))
    })
}

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// What the process-wide manager is made of, without a manager.
static PLAIN: Lazy<ArcSwap<u64>> = Lazy::new(ArcSwap::default);

/// Nanoseconds per call: of each way to the process-wide manager, behind its floor.
fn ways_to_the_manager(calls: usize) -> [f64; 4] {
    fn time<R>(calls: usize, call: impl Fn() -> R) -> f64 {
        let begun = Instant::now();
        for _ in 0..calls {
            black_box(call());
        }
        begun.elapsed().as_nanos() as f64 / calls as f64
    }
    [
        time(calls, || PLAIN.load()),
        time(calls, || manager::SESSION_MANAGER.load()),
        time(calls, || PLAIN.load_full()),
        time(calls, manager::get),
    ]
}

fn main() {
    let runtime = Runtime::new();
    let applications = applications(&runtime);
    // Cargo passes `--bench` to a bench that is to measure, and not to one that it runs as a test.
    let is_asked = |flag| env::args().any(|argument| argument == flag);
    if is_asked("--test") || !is_asked("--bench") {
        ways_to_the_manager(1);
        println!("every case does what it should; nothing was measured");
        return;
    }

    println!("{}; {ROUNDS} rounds of {REQUESTS} requests.", machine());
    let overheads = overheads(&applications);
    print_overheads("Nanoseconds per request", &overheads, NANOS);
    print_overheads("Allocations per request", &overheads, ALLOCATIONS);
    print_overheads("Bytes allocated per request", &overheads, BYTES);
    print_cookies(&applications);
    print_ways_to_the_manager();
}

fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or(env::consts::ARCH, |(_, model)| model);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let toolchain = option_env!("RUSTUP_TOOLCHAIN").unwrap_or("unknown toolchain");
    format!(
        "{processor}, {cores} cores, {}, {toolchain}",
        env::consts::OS
    )
}

fn print_overheads(title: &str, overheads: &[[Cost; 5]; ROWS.len()], part: usize) {
    print_head(&[
        title,
        "bare application",
        "session-manager, signed",
        "actix-session, signed",
        "ratio",
        "session-manager, private",
        "actix-session, private",
        "ratio",
    ]);
    for (row, costs) in ROWS.iter().zip(overheads) {
        let [bare, signed, peer_signed, private, peer_private] = costs.map(|cost| cost[part]);
        print_row(&[
            &row.name,
            &format!("{bare:.0}"),
            &format!("+{signed:.0}"),
            &format!("+{peer_signed:.0}"),
            &format!("{:.2}", signed / peer_signed),
            &format!("+{private:.0}"),
            &format!("+{peer_private:.0}"),
            &format!("{:.2}", private / peer_private),
        ]);
    }
}

fn print_cookies(applications: &[Application<'_>; 5]) {
    let Visitor { user, name, visits } = STORED;
    let data = ["user", user, "name", name, "visits", &visits.to_string()].concat();
    println!("\nThe session's keys and values have {} bytes.", data.len());
    print_head(&["Bytes of", "`Set-Cookie`", "the cookie's value in it"]);
    for application in applications {
        if let Some(set_cookie) = &application.begun {
            let (_, value) = name_and_value(set_cookie).split_once('=').unwrap();
            print_row(&[&application.name, &set_cookie.len(), &value.len()]);
        }
    }
}

fn print_ways_to_the_manager() {
    let rounds = [(); ROUNDS].map(|()| ways_to_the_manager(CALLS));
    let [load, static_load, load_full, get] =
        array::from_fn(|way| median(rounds.iter().map(|times| times[way])));
    print_head(&[
        "Nanoseconds per call",
        "a bare `ArcSwap`",
        "the manager",
        "ratio",
    ]);
    for (way, floor, time) in [
        ("`load`; `SESSION_MANAGER.load`", load, static_load),
        ("`load_full`; `manager::get`", load_full, get),
    ] {
        print_row(&[
            &way,
            &format!("{floor:.1}"),
            &format!("{time:.1}"),
            &format!("{:.2}", time / floor),
        ]);
    }
}

fn print_head(columns: &[&str]) {
    println!("\n| {} |", columns.join(" | "));
    println!("|{}", "---|".repeat(columns.len()));
}

fn print_row(cells: &[&dyn Display]) {
    let cells: Vec<_> = cells.iter().map(ToString::to_string).collect();
    println!("| {} |", cells.join(" | "));
}
