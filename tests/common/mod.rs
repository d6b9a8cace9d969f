//! A real server of any framework, a client with a cookie jar, a client that sends any bytes, a
//! clock, and the log.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    unused_macros,
    reason = "a module of many test binaries; each uses a part of it"
)]

pub mod alone;
pub mod app;
#[cfg(all(feature = "memory", feature = "server-side"))]
pub mod bridge;
#[cfg(feature = "server-side")]
pub mod inside;
#[cfg(feature = "server-side")]
pub mod limits;
pub mod process;
pub mod proxy;
#[cfg(feature = "server-side")]
pub mod records;
pub mod redis;
#[cfg(feature = "server-side")]
pub mod revoke;
#[cfg(feature = "memory")]
pub mod schedule;
pub mod script;
#[cfg(feature = "server-side")]
pub mod server_side;
#[path = "../services/servers.rs"]
pub mod servers;
pub mod socket;
pub mod told;
pub mod watch;
pub mod wire;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use actix_web::{
    HttpServer,
    body::MessageBody,
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
};
pub use app::{App, Page, Request, Talk, Web, talker};
use session_manager::{Builder, Key, Manager, Middleware, PrivateCookie, SignedCookie, manager};
pub use socket::Socket;
use tokio::sync::Barrier;
pub use told::Told;
pub use watch::{Log, key_of};
pub use wire::Wire;

/// Makes each function a test in every web framework: `on_actix::name` and `on_axum::name`.
macro_rules! on_every_framework {
    ($($(#[$attribute:meta])* $test:ident),+ $(,)?) => {
        mod on_actix {
            $(#[test] $(#[$attribute])* fn $test() { super::$test($crate::common::Web::Actix) })+
        }
        #[cfg(feature = "axum")]
        mod on_axum {
            $(#[test] $(#[$attribute])* fn $test() { super::$test($crate::common::Web::Axum) })+
        }
    };
}
pub(crate) use on_every_framework;

pub const SECRET: [u8; 32] = [7; 32];

/// Returns the same key each time.
pub fn key() -> Key {
    key_of(SECRET)
}

/// A backend's name, and a function that builds a manager with it.
pub type Backend = (&'static str, fn() -> Builder);

/// Returns every backend that stores sessions in cookies.
pub fn backends() -> [Backend; 2] {
    [
        ("signed", || Manager::builder(SignedCookie::new(key()))),
        ("private", || Manager::builder(PrivateCookie::new(key()))),
    ]
}

/// Returns a manager that tests recognise by the name of its cookie.
pub fn named(name: &str) -> Manager {
    let builder = Manager::builder(SignedCookie::new(key())).cookie_name(name);
    builder.build().unwrap()
}

/// Returns the cookie name of the manager that a library would get now.
pub fn current() -> String {
    manager::get().settings().cookie_name().to_owned()
}

/// A server on a free loopback port, stopped when it is dropped.
pub struct Server {
    pub address: SocketAddr,
    stop: Option<Stop>,
    thread: Option<JoinHandle<()>>,
}

type Stop = Box<dyn FnOnce() + Send + Sync>;

impl Server {
    pub fn start(web: Web, app: App) -> Self {
        match web {
            Web::Actix => Self::actix(move || app.clone().actix()),
            #[cfg(feature = "axum")]
            Web::Axum => Self::axum(app.axum()),
        }
    }

    /// Starts a server that only runs scripts.
    pub fn scripts(web: Web, middleware: Middleware) -> Self {
        Self::start(web, App::new().wrap(middleware))
    }

    pub fn actix<T, B>(app: impl Fn() -> actix_web::App<T> + Clone + Send + 'static) -> Self
    where
        T: ServiceFactory<
                ServiceRequest,
                Config = (),
                Response = ServiceResponse<B>,
                Error = actix_web::Error,
                InitError = (),
            > + 'static,
        B: MessageBody + 'static,
    {
        Self::on_a_thread(|tell| {
            block_on(async move {
                let server = HttpServer::new(app).workers(2).disable_signals();
                // A client that disconnects cancels its handler, as in axum.
                let server = server.h1_allow_half_closed(false);
                let server = server.bind(("127.0.0.1", 0)).unwrap();
                let address = server.addrs()[0];
                let server = server.run();
                let handle = server.handle();
                // Not awaited: the server's thread is joined instead.
                tell.send((address, Box::new(move || drop(handle.stop(false)))))
                    .unwrap();
                server.await.unwrap();
            });
        })
    }

    #[cfg(feature = "axum")]
    pub fn axum(router: axum::Router) -> Self {
        Self::on_a_thread(|tell| {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
                let listener = listener.unwrap();
                let (stop, stopped) = tokio::sync::oneshot::channel();
                let stop: Stop = Box::new(move || {
                    let _ = stop.send(());
                });
                tell.send((listener.local_addr().unwrap(), stop)).unwrap();
                tokio::select! {
                    served = axum::serve(listener, router).into_future() => served.unwrap(),
                    _ = stopped => {}
                }
            });
        })
    }

    fn on_a_thread(serve: impl FnOnce(mpsc::Sender<(SocketAddr, Stop)>) + Send + 'static) -> Self {
        watch::begin();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || serve(tell));
        let (address, stop) = told.recv().unwrap();
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Returns a new client without cookies.
    pub fn visitor(&self) -> Visitor {
        Visitor::to(self.address)
    }

    /// Sends a GET request with these header lines, which may be any bytes.
    pub fn raw(&self, path: &str, headers: &[&[u8]]) -> Answer {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        self.send(path, head, headers)
    }

    /// Sends a GET request to this host, or an older one without a host. The target may be a URI.
    pub fn at(&self, host: Option<&str>, target: &str, cookie: &str) -> Answer {
        let head = match host {
            Some(host) => format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n"),
            None => format!("GET {target} HTTP/1.0\r\n"),
        };
        let cookie = format!("Cookie: {cookie}");
        self.send(target, head, &[cookie.as_bytes()])
    }

    fn send(&self, path: &str, head: String, headers: &[&[u8]]) -> Answer {
        let mut request = head.into_bytes();
        for header in headers {
            if let Some(cookies) = header.strip_prefix(b"Cookie: ") {
                watch::keep_cookies(cookies);
            }
            request.extend_from_slice(header);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"Connection: close\r\n\r\n");
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(&request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no answer to {path}"));
        Answer::parse(head, body.to_owned())
    }

    /// Opens a WebSocket with this `Cookie` header.
    pub fn socket(&self, path: &str, cookie: &str) -> Socket {
        Socket::to(self.address, path, cookie)
    }

    /// Sends a request with this `Cookie` header.
    pub fn with_cookie(&self, path: &str, cookie: impl AsRef<[u8]>) -> Answer {
        self.raw(path, &[&[b"Cookie: ", cookie.as_ref()].concat()])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop();
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One answer of a server.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// Parses the head: all before the empty line.
    fn parse(head: &str, body: String) -> Self {
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        Self {
            status: status.unwrap().parse().unwrap(),
            headers: Self::headers(lines.map(|line| line.split_once(": ").unwrap())),
            body,
        }
    }

    fn headers(
        all: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<[u8]>)>,
    ) -> Vec<(String, String)> {
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        let all = all.into_iter();
        all.map(|(name, value)| {
            let (name, value) = (name.as_ref().to_ascii_lowercase(), text(value.as_ref()));
            if name == "set-cookie" {
                // Its attributes, such as a date, are no secret.
                watch::keep_cookies(value.split(';').next().unwrap_or_default().as_bytes());
            }
            (name, value)
        })
        .collect()
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn set_cookie(&self) -> Option<&str> {
        let mut all = self.all("set-cookie");
        let first = all.next();
        assert_eq!(
            all.next(),
            None,
            "one response sets the session cookie once"
        );
        first
    }

    /// Returns `name=value` of the cookie that was set.
    #[track_caller]
    pub fn cookie(&self) -> String {
        let set = self
            .set_cookie()
            .unwrap_or_else(|| panic!("no Set-Cookie in {self:?}"));
        set.split(';').next().unwrap().to_owned()
    }
}

/// A client that keeps cookies as a browser does.
#[derive(Clone)]
pub struct Visitor {
    agent: ureq::Agent,
    address: SocketAddr,
}

impl Visitor {
    pub fn to(address: SocketAddr) -> Self {
        watch::begin();
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build();
        Self {
            agent: config.into(),
            address,
        }
    }

    /// Returns the same client, with the same cookies, for another server.
    pub fn at(&self, server: SocketAddr) -> Self {
        Self {
            agent: self.agent.clone(),
            address: server,
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.call(self.agent.get(format!("http://{}{path}", self.address)))
    }

    /// Sends this `Cookie` header in place of the stored cookies.
    pub fn get_with(&self, path: &str, cookie: &str) -> Answer {
        watch::keep_cookies(cookie.as_bytes());
        let request = self.agent.get(format!("http://{}{path}", self.address));
        self.call(request.header("cookie", cookie))
    }

    fn call(&self, request: ureq::RequestBuilder<ureq::typestate::WithoutBody>) -> Answer {
        let mut response = request.call().unwrap();
        Answer {
            status: response.status().as_u16(),
            headers: Answer::headers(response.headers()),
            body: response.body_mut().read_to_string().unwrap(),
        }
    }

    /// Returns the body of a request that must succeed.
    #[track_caller]
    pub fn body(&self, path: &str) -> String {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    }

    pub fn cookies(&self) -> usize {
        self.agent.cookie_jar_lock().iter().count()
    }
}

/// Sends a POST request with this `Cookie` header; it must succeed.
pub fn post(server: SocketAddr, path: &str, cookie: &str) {
    watch::keep_cookies(cookie.as_bytes());
    let post = ureq::post(format!("http://{server}{path}")).header("cookie", cookie);
    assert_eq!(post.send_empty().unwrap().status(), 200);
}

/// Requests to `/together/…` wait until as many handlers run as the test demands. Requests to `/slow/…`
/// wait until the test has seen their handler run, and releases it. Their session is open by then.
#[derive(Clone)]
pub struct Gates {
    together: Arc<Barrier>,
    slow: Arc<Barrier>,
}

impl Gates {
    pub fn new(together: usize) -> Self {
        Self {
            together: Arc::new(Barrier::new(together)),
            slow: Arc::new(Barrier::new(2)),
        }
    }

    pub fn app(&self) -> App {
        let (together, slow) = (Arc::clone(&self.together), Arc::clone(&self.slow));
        let at_once = Arc::clone(&together);
        App::new()
            // The same, with steps that await.
            .get("/at-once/{script}", move |session, script| {
                let together = Arc::clone(&at_once);
                async move {
                    together.wait().await;
                    Ok(script::run_outside(&session, &script).await)
                }
            })
            .get("/together/{script}", move |session, script| {
                let together = Arc::clone(&together);
                async move {
                    together.wait().await;
                    script::run(&session, &script)
                }
            })
            .get("/slow/{script}", move |session, script| {
                let slow = Arc::clone(&slow);
                async move {
                    slow.wait().await;
                    slow.wait().await;
                    script::run(&session, &script)
                }
            })
    }

    /// Waits at the gate of `/slow/…`. Blocks the thread.
    pub fn pass(&self) {
        block_on(async {
            let waiting = tokio::time::timeout(Duration::from_secs(30), self.slow.wait());
            waiting.await.expect("the slow request came");
        });
    }
}

/// Makes `count` calls, each in a thread of its own, and returns what they returned, in their order.
/// That they overlap, a barrier in the handler ensures.
pub fn at_once<T: Send>(count: usize, call: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let call = &call;
        let calls = (0..count).map(|number| scope.spawn(move || call(number)));
        let calls: Vec<_> = calls.collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    })
}

/// An error as a log may show it, with its sources.
pub fn whole(error: &dyn std::error::Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut next = error.source();
    while let Some(source) = next {
        text += &format!(" {source} {source:?}");
        next = source.source();
    }
    text
}

/// Runs a future to its end. Blocks the thread, which must not run an executor.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    actix_web::rt::System::new().block_on(future)
}

/// Waits until `is_so` returns `true`, for at most ten seconds.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the number in an environment variable.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Sets its flag when a thread ends, also by a panic, so that the other threads stop.
pub struct Stops<'a>(pub &'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A clock that moves only when a test moves it. It begins at the real time, because some stores delete
/// expired records by the real time.
#[derive(Clone, Default)]
pub struct Clock(Arc<AtomicU64>);

static START: LazyLock<Duration> = LazyLock::new(|| UNIX_EPOCH.elapsed().unwrap());

impl Clock {
    pub fn forward(&self, span: Duration) {
        self.0.fetch_add(span.as_millis() as u64, Ordering::SeqCst);
    }

    /// Returns how far it was moved.
    pub fn moved(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }

    pub fn now(&self) -> impl Fn() -> SystemTime + Send + Sync + 'static {
        let moved = Arc::clone(&self.0);
        move || UNIX_EPOCH + *START + Duration::from_millis(moved.load(Ordering::SeqCst))
    }
}

/// Returns every backend that needs no server.
pub fn all_backends() -> Vec<Backend> {
    #[cfg_attr(not(feature = "memory"), expect(unused_mut))]
    let mut all = backends().to_vec();
    #[cfg(feature = "memory")]
    all.push(("memory", || {
        Manager::builder(session_manager::ServerSide::new(
            session_manager::MemoryStore::new(),
        ))
    }));
    all
}
