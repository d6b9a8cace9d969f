//! The bench applications, each with the default settings of its crate.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench stops at the first error and prints its tables"
)]

pub(crate) mod visit;

use std::{env, fs, hint::black_box, thread};

use actix_session::{
    SessionMiddleware, config::CookieContentSecurity, storage::CookieSessionStore,
};
use actix_web::{
    App,
    body::MessageBody,
    cookie,
    dev::{Service, ServiceResponse},
    rt::SystemRunner,
    test::{TestRequest, init_service},
};
use axum::{Router, body::Body, extract::Request, response::Response};
use session_manager::{
    Backend, Key, Manager, MemoryStore, PrivateCookie, ServerSide, Session, SignedCookie, manager,
};
use tower_layer::Identity;
use tower_sessions::SessionManagerLayer;

/// The requests per row and application in each round.
pub(crate) const REQUESTS: usize = BATCHES * BATCH;
pub(crate) const BATCHES: usize = 40;
/// The requests that are built at a time, outside the measurement. Few, so that they stay in the
/// processor's cache; actix-web keeps at most 128 for reuse.
const BATCH: usize = 100;

/// The requests of one row.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    path: &'static str,
    /// The path that starts the session whose cookie the requests send.
    begin: Option<&'static str>,
}

impl Row {
    const fn new(name: &'static str, path: &'static str, begin: Option<&'static str>) -> Self {
        Self { name, path, begin }
    }

    /// Returns `true` if the responses set a cookie when the session is kept in it.
    fn writes(&self) -> bool {
        self.path == "/write-three"
    }
}

const ROWS: [Row; 8] = [
    Row::new("no cookie", "/untouched", None),
    Row::new("cookie, untouched", "/untouched", Some("/begin")),
    Row::new("read one key", "/read-one", Some("/begin")),
    Row::new("read three keys", "/read-three", Some("/begin")),
    Row::new("write three keys", "/write-three", Some("/begin")),
    // Too large for a cookie.
    Row::new("read one key of 10", "/read-one", Some("/begin/10")),
    Row::new("read one key of 100", "/read-one", Some("/begin/100")),
    Row::new("read one key of 1,000", "/read-one", Some("/begin/1000")),
];

/// A framework that is called without a socket.
trait Call {
    type Request;
    type Response;

    /// Builds a request to a public host.
    fn request(&self, path: &str, cookie: Option<&str>) -> Self::Request;

    async fn call(&self, request: Self::Request) -> Self::Response;

    /// Returns the `Set-Cookie` values of a response and checks that it succeeded.
    fn set_cookies(response: &Self::Response) -> Vec<String>;
}

struct Actix<S, R> {
    service: S,
    /// [`TestRequest::to_request`], because actix-web does not export the type that it returns.
    finish: fn(TestRequest) -> R,
}

impl<S, R, B> Call for Actix<S, R>
where
    S: Service<R, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: MessageBody,
{
    type Request = R;
    type Response = ServiceResponse<B>;

    fn request(&self, path: &str, cookie: Option<&str>) -> R {
        let request = TestRequest::with_uri(path).insert_header(("host", "www.example.com"));
        (self.finish)(match cookie {
            Some(cookie) => request.insert_header(("cookie", cookie)),
            None => request,
        })
    }

    async fn call(&self, request: R) -> ServiceResponse<B> {
        self.service.call(request).await.unwrap()
    }

    fn set_cookies(response: &ServiceResponse<B>) -> Vec<String> {
        assert!(response.status().is_success());
        let cookies = response.headers().get_all("set-cookie");
        cookies.map(|it| it.to_str().unwrap().to_owned()).collect()
    }
}

impl Call for Router {
    type Request = Request;
    type Response = Response;

    fn request(&self, path: &str, cookie: Option<&str>) -> Request {
        let request = Request::get(path).header("host", "www.example.com");
        let request = match cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        };
        request.body(Body::empty()).unwrap()
    }

    /// Clones the router for each request, as `axum::serve` does.
    async fn call(&self, request: Request) -> Response {
        let Ok(response) = tower_service::Service::call(&mut self.clone(), request).await;
        response
    }

    fn set_cookies(response: &Response) -> Vec<String> {
        assert!(response.status().is_success());
        let cookies = response.headers().get_all("set-cookie").iter();
        cookies.map(|it| it.to_str().unwrap().to_owned()).collect()
    }
}

/// An application with its framework and runtime, erased to one type.
trait Serve {
    /// Builds a batch of requests and returns a function that serves them one after another.
    fn batch(&self, path: &str, cookie: Option<&str>) -> Box<dyn FnOnce() + '_>;

    /// Serves one request, checks that it succeeded, and returns its `Set-Cookie` value.
    fn once(&self, path: &str, cookie: Option<&str>) -> Option<String>;
}

impl<C: Call> Serve for (&SystemRunner, C) {
    fn batch(&self, path: &str, cookie: Option<&str>) -> Box<dyn FnOnce() + '_> {
        let (runtime, app) = self;
        let requests: Vec<_> = (0..BATCH).map(|_| app.request(path, cookie)).collect();
        Box::new(move || {
            runtime.block_on(async {
                for request in requests {
                    black_box(app.call(request).await);
                }
            });
        })
    }

    fn once(&self, path: &str, cookie: Option<&str>) -> Option<String> {
        let (runtime, app) = self;
        let response = runtime.block_on(app.call(app.request(path, cookie)));
        let mut cookies = C::set_cookies(&response);
        assert!(cookies.len() < 2, "a response sets at most one cookie");
        cookies.pop()
    }
}

type Mount = dyn for<'r> Fn(&'r SystemRunner) -> Box<dyn Serve + 'r> + Sync;

/// One column of the tables: an application that each thread mounts for itself on a shared backend
/// or store.
pub(crate) struct Application {
    pub(crate) name: &'static str,
    mount: Box<Mount>,
    /// The process-wide manager for this application.
    manager: Option<Manager>,
}

impl Application {
    /// Sets the process-wide manager; call it before this application serves.
    pub(crate) fn enter(&self) {
        if let Some(manager) = &self.manager {
            manager::set(manager.clone());
        }
    }

    /// Returns `true` if the application has sessions.
    pub(crate) fn has_sessions(&self) -> bool {
        ![BARE, EMPTY].contains(&self.name)
    }

    /// Starts a session for each row, if the application has sessions, and checks each row once.
    pub(crate) fn mount<'r>(&self, rows: &'static [Row], runtime: &'r SystemRunner) -> Mounted<'r> {
        self.enter();
        let app = (self.mount)(runtime);
        let begin = |row: &Row| Some(app.once(row.begin?, None).expect("a session begins"));
        let sessions = if !self.has_sessions() {
            let cookie = |row: &Row| row.begin.map(|_| "bare=application".to_owned());
            rows.iter().map(cookie).collect()
        } else {
            rows.iter().map(begin).collect()
        };
        let mounted = Mounted {
            app,
            rows,
            sessions,
        };
        for (i, row) in rows.iter().enumerate() {
            let cookie = mounted.cookie(i);
            let set_cookie = mounted.app.once(row.path, cookie);
            if !row.writes() || !self.has_sessions() {
                assert_eq!(set_cookie, None, "{}: {}", self.name, row.name);
            } else {
                // A server-side session keeps its id and may not send it again.
                let cookie = set_cookie.as_deref().map(name_and_value).or(cookie);
                mounted.app.once("/written", cookie);
            }
        }
        mounted
    }
}

/// An application on one thread.
pub(crate) struct Mounted<'r> {
    app: Box<dyn Serve + 'r>,
    rows: &'static [Row],
    /// For each row the `Set-Cookie` value that started its session; a dummy cookie for an
    /// application without sessions.
    pub(crate) sessions: Vec<Option<String>>,
}

impl Mounted<'_> {
    /// Serves [`REQUESTS`] in batches; `measure` must call the function that it gets.
    pub(crate) fn serve(&self, row: usize, mut measure: impl FnMut(Box<dyn FnOnce() + '_>)) {
        for _ in 0..BATCHES {
            measure(self.app.batch(self.rows[row].path, self.cookie(row)));
        }
    }

    fn cookie(&self, row: usize) -> Option<&str> {
        self.sessions[row].as_deref().map(name_and_value)
    }
}

/// Returns the part of a `Set-Cookie` value that the client sends back.
pub(crate) fn name_and_value(set_cookie: &str) -> &str {
    set_cookie.split(';').next().unwrap()
}

pub(crate) const BARE: &str = "bare application";
/// The floor for the cost of a middleware.
pub(crate) const EMPTY: &str = "a middleware that does nothing";

/// The applications that are compared with each other.
pub(crate) struct Framework {
    pub(crate) rows: &'static [Row],
    /// The bare application, the one with an empty middleware, then each of this crate before its
    /// peer.
    pub(crate) applications: Vec<Application>,
}

pub(crate) fn frameworks() -> [Framework; 2] {
    let (signed, private) = (Key::generate(), Key::generate());
    let actix = Framework {
        rows: &ROWS[..5],
        applications: Vec::from([
            actix_bare(),
            actix_empty(),
            actix_ours("session-manager, signed", SignedCookie::new(signed.clone())),
            actix_theirs("actix-session, signed", CookieContentSecurity::Signed),
            actix_ours("session-manager, private", PrivateCookie::new(private)),
            actix_theirs("actix-session, private", CookieContentSecurity::Private),
            #[cfg(feature = "actix-session")]
            actix_bridged("`ActixSessions`, signed", SignedCookie::new(signed)),
            #[cfg(feature = "actix-session")]
            actix_theirs("actix-session, signed", CookieContentSecurity::Signed),
        ]),
    };
    let memory = || ServerSide::new(MemoryStore::new());
    let axum = Framework {
        rows: &ROWS,
        applications: Vec::from([
            axum_bare(),
            axum_empty(),
            axum_ours("session-manager, memory", memory()),
            axum_theirs("tower-sessions, memory"),
            #[cfg(feature = "tower-sessions")]
            axum_bridged("`TowerSessions`, memory", memory()),
            #[cfg(feature = "tower-sessions")]
            axum_theirs("tower-sessions, memory"),
        ]),
    };
    [actix, axum]
}

/// `init_service` and [`TestRequest::to_request`], whose types actix-web does not export.
macro_rules! mount_actix {
    ($runtime:expr, $app:expr) => {{
        let runtime: &SystemRunner = $runtime;
        let service = runtime.block_on(init_service($app));
        let finish = TestRequest::to_request;
        Box::new((runtime, Actix { service, finish }))
    }};
}

fn actix_bare() -> Application {
    Application {
        name: BARE,
        mount: Box::new(|runtime| {
            mount_actix!(runtime, App::new().configure(visit::bare_actix_routes))
        }),
        manager: None,
    }
}

fn actix_empty() -> Application {
    Application {
        name: EMPTY,
        mount: Box::new(|runtime| {
            let app = App::new().configure(visit::bare_actix_routes);
            mount_actix!(runtime, app.wrap_fn(|request, inside| inside.call(request)))
        }),
        manager: None,
    }
}

fn actix_ours(name: &'static str, backend: impl Backend) -> Application {
    Application {
        name,
        mount: Box::new(|runtime| {
            let app = App::new().configure(visit::actix_routes::<Session>);
            mount_actix!(runtime, app.wrap(manager::middleware()))
        }),
        manager: Some(Manager::new(backend)),
    }
}

/// The handlers of [`actix_theirs`] on the session of this crate.
#[cfg(feature = "actix-session")]
fn actix_bridged(name: &'static str, backend: impl Backend) -> Application {
    Application {
        name,
        mount: Box::new(|runtime| {
            let app = App::new().configure(visit::actix_routes::<actix_session::Session>);
            let app = app.wrap(session_manager::web::ActixSessions::new());
            mount_actix!(runtime, app.wrap(manager::middleware()))
        }),
        manager: Some(Manager::new(backend)),
    }
}

fn actix_theirs(name: &'static str, security: CookieContentSecurity) -> Application {
    let key = cookie::Key::generate();
    Application {
        name,
        mount: Box::new(move |runtime| {
            let sessions = SessionMiddleware::builder(CookieSessionStore::default(), key.clone())
                .cookie_content_security(security)
                .build();
            let app = App::new().configure(visit::actix_routes::<actix_session::Session>);
            mount_actix!(runtime, app.wrap(sessions))
        }),
        manager: None,
    }
}

fn axum_bare() -> Application {
    Application {
        name: BARE,
        mount: Box::new(|runtime| Box::new((runtime, visit::bare_axum_routes()))),
        manager: None,
    }
}

fn axum_empty() -> Application {
    Application {
        name: EMPTY,
        mount: Box::new(|runtime| {
            let routes = visit::bare_axum_routes().layer(Identity::new());
            Box::new((runtime, routes))
        }),
        manager: None,
    }
}

fn axum_ours(name: &'static str, backend: impl Backend) -> Application {
    Application {
        name,
        mount: Box::new(|runtime| {
            let routes = visit::axum_routes::<Session>();
            Box::new((runtime, routes.layer(manager::middleware())))
        }),
        manager: Some(Manager::new(backend)),
    }
}

/// The handlers of [`axum_theirs`] on the session of this crate.
#[cfg(feature = "tower-sessions")]
fn axum_bridged(name: &'static str, backend: impl Backend) -> Application {
    Application {
        name,
        mount: Box::new(|runtime| {
            let routes = visit::axum_routes::<tower_sessions::Session>();
            let routes = routes.layer(session_manager::web::TowerSessions::new());
            Box::new((runtime, routes.layer(manager::middleware())))
        }),
        manager: Some(Manager::new(backend)),
    }
}

fn axum_theirs(name: &'static str) -> Application {
    let store = tower_sessions::MemoryStore::default();
    Application {
        name,
        mount: Box::new(move |runtime| {
            let routes = visit::axum_routes::<tower_sessions::Session>();
            Box::new((
                runtime,
                routes.layer(SessionManagerLayer::new(store.clone())),
            ))
        }),
        manager: None,
    }
}

/// Returns `true` if nothing is to be measured: Cargo passes `--bench` to benches, but not if it
/// runs them as tests.
pub(crate) fn is_test() -> bool {
    is_asked("--test") || !is_asked("--bench")
}

/// Whether the command line has `flag`.
pub(crate) fn is_asked(flag: &str) -> bool {
    env::args().any(|argument| argument == flag)
}

#[allow(dead_code, reason = "the bench `allocations` counts")]
pub(crate) fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

pub(crate) fn machine() -> String {
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

pub(crate) fn print_head(columns: &[&str]) {
    println!("\n| {} |", columns.join(" | "));
    println!("|{}", "---|".repeat(columns.len()));
}

pub(crate) fn print_row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

/// Prints what each row costs: the bare application, then what the others add to it, each of this crate
/// beside its peer.
#[allow(dead_code, reason = "the bench `two_threads` has another table")]
pub(crate) fn print_table(
    title: &str,
    rows: &[Row],
    applications: &[Application],
    costs: &[Vec<f64>],
) {
    let mut head = vec![title, applications[0].name, applications[1].name];
    for pair in applications[2..].chunks(2) {
        head.extend([pair[0].name, pair[1].name, "ratio"]);
    }
    print_head(&head);
    for (row, costs) in rows.iter().zip(costs) {
        let mut cells = vec![row.name.to_owned(), format!("{:.0}", costs[0])];
        cells.push(format!("{:+.0}", costs[1]));
        for pair in costs[2..].chunks(2) {
            let [ours, theirs] = [pair[0], pair[1]];
            cells.extend([format!("{ours:+.0}"), format!("{theirs:+.0}")]);
            cells.push(format!("{:.2}", ours / theirs));
        }
        print_row(&cells);
    }
}
