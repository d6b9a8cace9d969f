//! One server: `http-bench APPLICATION PORT THREADS`. `run.sh` starts and measures them all.
//!
//! The stores are at the addresses in `BENCH_REDIS`, `BENCH_POSTGRES` and `BENCH_MYSQL` (urls) and
//! in the folder `BENCH_SQLITE`.

#![allow(clippy::unwrap_used, reason = "a bench stops at the first error")]

mod plain;
#[path = "../../common/visit.rs"]
mod visit;

use std::{env, io};

use actix_session::{
    SessionMiddleware,
    config::CookieContentSecurity,
    storage::{CookieSessionStore, RedisSessionStore, SessionStore},
};
use actix_web::{App, HttpServer, cookie};
use axum::Router;
use serde::Serialize;
use session_manager::{
    Backend, Key, Manager, MemoryStore, MySqlStore, PostgresStore, PrivateCookie, RedisStore,
    ServerSide, Session, SignedCookie, SqliteStore, manager,
};
use tokio::{net::TcpListener, runtime};
use tower_sessions_redis_store::{
    RedisStore as TowerRedisStore,
    fred::prelude::{ClientLike, Config, Pool},
};
use tower_sessions_sqlx_store::{
    MySqlStore as TowerMySqlStore, PostgresStore as TowerPostgresStore,
    SqliteStore as TowerSqliteStore,
    sqlx::{mysql::MySqlPoolOptions, postgres::PgPoolOptions, sqlite},
};

fn main() -> io::Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [application, port, threads] = &arguments[..] else {
        panic!("usage: http-bench APPLICATION PORT THREADS");
    };
    let (port, threads) = (port.parse().unwrap(), threads.parse().unwrap());
    if application.starts_with("actix") {
        return actix_web::rt::System::new().block_on(actix(application, port, threads));
    }
    let runtime = match threads {
        1 => runtime::Builder::new_current_thread().enable_all().build(),
        _ => runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build(),
    };
    runtime?.block_on(axum(application, port))
}

/// Returns the address of a store.
fn at(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

fn sqlite_file(name: &str) -> String {
    format!("{}/{name}.db", at("BENCH_SQLITE"))
}

async fn actix(application: &str, port: u16, threads: usize) -> io::Result<()> {
    use CookieContentSecurity::{Private, Signed};
    let cookies = CookieSessionStore::default;
    match application {
        "actix-bare" => {
            let app = || App::new().configure(visit::bare_actix_routes);
            HttpServer::new(app)
                .workers(threads)
                .bind(("127.0.0.1", port))?
                .run()
                .await
        }
        "actix-ours-signed" => actix_ours(SignedCookie::new(Key::generate()), port, threads).await,
        "actix-theirs-signed" => actix_theirs(cookies, Signed, port, threads).await,
        "actix-ours-private" => {
            actix_ours(PrivateCookie::new(Key::generate()), port, threads).await
        }
        "actix-theirs-private" => actix_theirs(cookies, Private, port, threads).await,
        "actix-ours-redis" => {
            let store = RedisStore::connect(&at("BENCH_REDIS")).await.unwrap();
            actix_ours(ServerSide::new(store), port, threads).await
        }
        "actix-theirs-redis" => {
            let store = RedisSessionStore::new(at("BENCH_REDIS")).await.unwrap();
            // Its default: it encrypts the id, which ours does not need.
            actix_theirs(move || store.clone(), Private, port, threads).await
        }
        other => panic!("unknown application {other}"),
    }
}

async fn axum(application: &str, port: u16) -> io::Result<()> {
    match application {
        "axum-bare" => serve(visit::bare_axum_routes(), port).await,
        "axum-ours-memory" => axum_ours(MemoryStore::new(), port).await,
        "axum-theirs-memory" => {
            let routes = visit::axum_routes::<tower_sessions::Session>();
            let store = tower_sessions::MemoryStore::default();
            let sessions = tower_sessions::SessionManagerLayer::new(store);
            serve(routes.layer(sessions), port).await
        }
        "axum-ours-redis" => {
            let store = RedisStore::connect(&at("BENCH_REDIS")).await.unwrap();
            axum_ours(store, port).await
        }
        "axum-ours-redis-on-demand" => {
            let store = RedisStore::connect(&at("BENCH_REDIS")).await.unwrap();
            let sessions = Manager::builder(ServerSide::new(store)).load_on_demand();
            axum_managed(sessions.build().unwrap(), port).await
        }
        "axum-theirs-redis" => {
            // Set up as in its documentation, with one connection like the others.
            let config = Config::from_url(&at("BENCH_REDIS")).unwrap();
            let pool = Pool::new(config, None, None, None, 1).unwrap();
            let _running = pool.connect();
            pool.wait_for_connect().await.unwrap();
            axum_theirs(TowerRedisStore::new(pool), port).await
        }
        "axum-plain-redis" => serve(plain::redis(&at("BENCH_REDIS")).await, port).await,
        "axum-ours-postgres" => {
            let store = PostgresStore::connect(&at("BENCH_POSTGRES")).await.unwrap();
            axum_ours(store, port).await
        }
        "axum-theirs-postgres" => {
            // Without the ping for each statement that sqlx sends by default: ours sends none.
            let options = PgPoolOptions::new().test_before_acquire(false);
            let pool = options.connect(&at("BENCH_POSTGRES")).await.unwrap();
            let store = TowerPostgresStore::new(pool);
            store.migrate().await.unwrap();
            axum_theirs(store, port).await
        }
        "axum-plain-postgres" => serve(plain::postgres(&at("BENCH_POSTGRES")).await, port).await,
        "axum-ours-mysql" => {
            let store = MySqlStore::connect(&at("BENCH_MYSQL")).await.unwrap();
            axum_ours(store, port).await
        }
        "axum-theirs-mysql" => {
            let options = MySqlPoolOptions::new().test_before_acquire(false);
            let pool = options.connect(&at("BENCH_MYSQL")).await.unwrap();
            let store = TowerMySqlStore::new(pool);
            store.migrate().await.unwrap();
            axum_theirs(store, port).await
        }
        "axum-plain-mysql" => serve(plain::mysql(&at("BENCH_MYSQL")).await, port).await,
        "axum-ours-sqlite" => {
            let store = SqliteStore::connect(&sqlite_file("ours")).await.unwrap();
            axum_ours(store, port).await
        }
        "axum-theirs-sqlite" => {
            // With the modes that ours chooses, and the pool of its documentation.
            let file = sqlite::SqliteConnectOptions::new()
                .filename(sqlite_file("theirs"))
                .create_if_missing(true)
                .journal_mode(sqlite::SqliteJournalMode::Wal)
                .synchronous(sqlite::SqliteSynchronous::Normal);
            let options = sqlite::SqlitePoolOptions::new().test_before_acquire(false);
            let store = TowerSqliteStore::new(options.connect_with(file).await.unwrap());
            store.migrate().await.unwrap();
            axum_theirs(store, port).await
        }
        "axum-plain-sqlite" => serve(plain::sqlite(&sqlite_file("plain")).await, port).await,
        other => panic!("unknown application {other}"),
    }
}

async fn actix_ours(backend: impl Backend, port: u16, threads: usize) -> io::Result<()> {
    manager::set(Manager::new(backend));
    HttpServer::new(|| {
        App::new()
            .configure(visit::actix_routes::<Session>)
            .wrap(manager::middleware())
    })
    .workers(threads)
    .bind(("127.0.0.1", port))?
    .run()
    .await
}

async fn actix_theirs<S: SessionStore + 'static>(
    store: impl Fn() -> S + Clone + Send + 'static,
    security: CookieContentSecurity,
    port: u16,
    threads: usize,
) -> io::Result<()> {
    let key = cookie::Key::generate();
    HttpServer::new(move || {
        let sessions = SessionMiddleware::builder(store(), key.clone())
            .cookie_content_security(security)
            .build();
        App::new()
            .configure(visit::actix_routes::<actix_session::Session>)
            .wrap(sessions)
    })
    .workers(threads)
    .bind(("127.0.0.1", port))?
    .run()
    .await
}

async fn axum_ours(store: impl session_manager::Store, port: u16) -> io::Result<()> {
    axum_managed(Manager::new(ServerSide::new(store)), port).await
}

async fn axum_managed(sessions: Manager, port: u16) -> io::Result<()> {
    manager::set(sessions);
    let routes = visit::axum_routes::<Session>();
    serve(routes.layer(manager::middleware()), port).await
}

/// The stores of tower-sessions 0.14.
async fn axum_theirs(
    store: impl tower_sessions_0_14::SessionStore + Clone,
    port: u16,
) -> io::Result<()> {
    let routes = visit::axum_routes::<tower_sessions_0_14::Session>();
    let sessions = tower_sessions_0_14::SessionManagerLayer::new(store);
    serve(routes.layer(sessions), port).await
}

impl visit::Visit for tower_sessions_0_14::Session {
    async fn text(&self, key: &str) -> Option<String> {
        self.get(key).await.unwrap()
    }

    async fn number(&self, key: &str) -> Option<u64> {
        self.get(key).await.unwrap()
    }

    async fn put(&self, key: &str, value: impl Serialize + Send + Sync) {
        self.insert(key, value).await.unwrap();
    }
}

async fn serve(routes: Router, port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, routes).await
}
