//! What the tests share: managers, a server of either framework, and a client that shows its cookies.

/// Compiles the code of the page, which the crate itself cannot: it does not depend on these crates.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/using-other-crates.md")]
struct UsingOtherCrates;

use std::{
    cell::Cell,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use session_manager::{Key, Manager, MemoryStore, ServerSide, SignedCookie};
use tokio::sync::Barrier;

/// Runs the tests of each backend in a module of that backend.
///
/// Those on Redis need the server that `tests/run.sh` starts.
#[macro_export]
macro_rules! tests_on {
    (server_side: $($on_the_server:ident)+; signed_cookies: $($in_cookies:ident)+;) => {
        mod memory {
            $(
                #[test]
                fn $on_the_server() {
                    super::$on_the_server(&::consumers::in_memory());
                }
            )+
        }
        #[cfg(feature = "servers")]
        mod redis {
            $(
                #[test]
                #[ignore = "needs the server that tests/run.sh starts"]
                fn $on_the_server() {
                    super::$on_the_server(&::consumers::in_redis());
                }
            )+
        }
        mod signed_cookies {
            $(
                #[test]
                fn $in_cookies() {
                    super::$in_cookies(&::consumers::in_signed_cookies());
                }
            )+
        }
    };
}

/// Runs `$check` with each store of session-manager. It gets a function that returns another handle of
/// the store.
#[macro_export]
macro_rules! on_each_store {
    ($check:ident) => {
        #[actix_web::test]
        async fn memory() {
            let store = ::session_manager::MemoryStore::default();
            $check(move || store.clone()).await;
        }

        #[actix_web::test]
        async fn encrypted() {
            let key = ::session_manager::Key::from_secret([7; 32]).unwrap();
            let store = ::session_manager::MemoryStore::default();
            let store = ::session_manager::Encrypted::new(store, key);
            $check(move || store.clone()).await;
        }

        #[actix_web::test]
        async fn a_store_of_tower_sessions() {
            let store = ::tower_sessions_memory_store::MemoryStore::default();
            let store = ::session_manager::TowerStore::new(store);
            $check(move || store.clone()).await;
        }

        #[cfg(feature = "servers")]
        #[actix_web::test]
        async fn sqlite() {
            let name = concat!(stringify!($check), ".db");
            let path = ::std::env::temp_dir().join(format!("{}-{name}", ::std::process::id()));
            let url = format!("sqlite://{}", path.display());
            // Creates the table.
            ::session_manager::SqliteStore::connect(&url).await.unwrap();
            $check(move || ::session_manager::SqliteStore::connect_lazy(&url).unwrap()).await;
            ::std::fs::remove_file(path).unwrap();
        }

        #[cfg(feature = "servers")]
        $crate::on_each_server! { $check:
            redis: RedisStore at "SESSION_TEST_REDIS";
            redis_cluster: RedisStore at "SESSION_TEST_REDIS_CLUSTER";
            redis_sentinel: RedisStore at "SESSION_TEST_REDIS_SENTINEL";
            postgres: PostgresStore at "SESSION_TEST_POSTGRES";
            mysql: MySqlStore at "SESSION_TEST_MYSQL";
        }
    };
}

/// One test per store on a server, whose address is in an environment variable.
#[macro_export]
macro_rules! on_each_server {
    ($check:ident: $($test:ident: $store:ident at $variable:literal;)+) => {
        $(
            #[actix_web::test]
            #[ignore = "needs the server that tests/run.sh starts"]
            async fn $test() {
                let url = ::std::env::var($variable).expect($variable);
                // Creates the table of a database.
                ::session_manager::$store::connect(&url).await.unwrap();
                $check(move || ::session_manager::$store::connect_lazy(&url).unwrap()).await;
            }
        )+
    };
}

/// Keeps sessions in this process.
pub fn in_memory() -> Manager {
    Manager::new(ServerSide::new(MemoryStore::default()))
}

/// Keeps sessions in Redis, below a prefix that no other test has.
#[cfg(feature = "servers")]
pub fn in_redis() -> Manager {
    use std::{
        process,
        sync::atomic::{AtomicU32, Ordering},
    };

    static NEXT: AtomicU32 = AtomicU32::new(0);
    let url = std::env::var("SESSION_TEST_REDIS").expect("SESSION_TEST_REDIS");
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let prefix = format!("consumers:{}:{next}:", process::id());
    let store = session_manager::RedisStore::connect_lazy(&url).unwrap();
    Manager::new(ServerSide::new(store.with_prefix(&prefix)))
}

/// Keeps sessions in signed cookies.
pub fn in_signed_cookies() -> Manager {
    Manager::new(SignedCookie::new(Key::from_secret([7; 32]).unwrap()))
}

/// Returns how many sessions the user has.
pub fn count_of_sessions(manager: &Manager, user: &str) -> usize {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sessions = runtime.block_on(async { manager.user_sessions(user).await });
    sessions.unwrap().len()
}

/// Makes a handler wait until the test has seen it run, and lets it go on.
#[derive(Clone)]
pub struct Gate(Arc<Barrier>);

impl Gate {
    pub fn new() -> Self {
        Self(Arc::new(Barrier::new(2)))
    }

    /// Waits in the handler.
    pub async fn wait(&self) {
        self.0.wait().await;
        self.0.wait().await;
    }

    /// Waits for the handler; called again, it lets the handler go on. Blocks the thread.
    pub fn pass(&self) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let waiting = tokio::time::timeout(Duration::from_secs(30), self.0.wait());
            waiting.await.expect("the slow request came");
        });
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The whole `Set-Cookie` header.
    pub set_cookie: Option<String>,
    /// The name and the value that it sets.
    pub cookie: Option<String>,
    pub body: String,
}

impl Answer {
    /// Returns `true` if the response removes the session's cookie.
    pub fn removes_the_cookie(&self) -> bool {
        self.cookie.as_ref().is_some_and(|it| it.ends_with('='))
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0);
    config.build().into()
}

/// Sends a request with this `Cookie` header.
pub fn get(server: SocketAddr, path: &str, cookie: &str) -> Answer {
    let request = agent().get(format!("http://{server}{path}"));
    answer(request.header("cookie", cookie).call().unwrap())
}

/// Sends a form with this `Cookie` header.
pub fn post(server: SocketAddr, path: &str, cookie: &str, form: &str) -> Answer {
    let request = agent().post(format!("http://{server}{path}"));
    let request = request
        .header("cookie", cookie)
        .content_type("application/x-www-form-urlencoded");
    answer(request.send(form).unwrap())
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> Answer {
    let set = response.headers().get("set-cookie");
    let set = set.map(|set| set.to_str().unwrap().to_owned());
    let cookie = set
        .as_deref()
        .map(|set| set.split(';').next().unwrap().to_owned());
    Answer {
        status: response.status().as_u16(),
        set_cookie: set,
        cookie,
        body: response.body_mut().read_to_string().unwrap(),
    }
}

thread_local! {
    /// The port of the example that this thread runs.
    static PORT: Cell<Option<u16>> = const { Cell::new(None) };
}

/// Returns the port for an example: its own, or the test's.
pub fn port(of_the_example: u16) -> u16 {
    PORT.get().unwrap_or(of_the_example)
}

/// Runs the `main` of an example in a thread that ends with the process, and returns its address.
pub fn serve_example(main: impl FnOnce() + Send + 'static) -> SocketAddr {
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    std::thread::spawn(move || {
        PORT.set(Some(address.port()));
        main();
    });
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it serves");
        std::thread::sleep(Duration::from_millis(10));
    }
    address
}

/// Serves in threads that end with the process.
pub fn serve_axum(router: axum::Router) -> SocketAddr {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
                .await
                .unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
    });
    told.recv().unwrap()
}

/// Runs `server`, which sends its address, in a thread that ends with the process.
pub fn serve_actix<F: Future<Output = ()>>(
    server: impl FnOnce(mpsc::Sender<SocketAddr>) -> F + Send + 'static,
) -> SocketAddr {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || actix_web::rt::System::new().block_on(server(tell)));
    told.recv().unwrap()
}
