//! A server with one thread: `http-bench APPLICATION PORT REDIS-URL`. See `run.sh`.

#![allow(clippy::unwrap_used, reason = "a bench stops at the first error")]

#[path = "../../common/visit.rs"]
mod visit;

use std::{env, io};

use actix_session::{
    SessionMiddleware,
    storage::{CookieSessionStore, RedisSessionStore, SessionStore},
};
use actix_web::{App, HttpServer, cookie};
use axum::Router;
use session_manager::{
    Backend, Key, Manager, MemoryStore, RedisStore, ServerSide, Session, SignedCookie, manager,
};
use tokio::net::TcpListener;
use tower_sessions::SessionManagerLayer;
use tower_sessions_redis_store::{
    RedisStore as TowerRedisStore,
    fred::prelude::{ClientLike, Config, Pool},
};

/// Serves on one thread, like each worker of actix-web.
#[actix_web::main]
async fn main() -> io::Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [application, port, redis] = &arguments[..] else {
        panic!("usage: http-bench APPLICATION PORT REDIS-URL");
    };
    let port = port.parse().unwrap();
    let in_redis = async || ServerSide::new(RedisStore::connect(redis).await.unwrap());
    match application.as_str() {
        "actix-bare" => {
            let app = || App::new().configure(visit::bare_actix_routes);
            HttpServer::new(app)
                .workers(1)
                .bind(("127.0.0.1", port))?
                .run()
                .await
        }
        "actix-ours-signed" => actix_ours(SignedCookie::new(Key::generate()), port).await,
        "actix-session-signed" => actix_theirs(CookieSessionStore::default, port).await,
        "actix-ours-redis" => actix_ours(in_redis().await, port).await,
        "actix-session-redis" => {
            let store = RedisSessionStore::new(redis).await.unwrap();
            actix_theirs(move || store.clone(), port).await
        }
        "axum-bare" => axum_serve(visit::bare_axum_routes(), port).await,
        "axum-ours-memory" => axum_ours(ServerSide::new(MemoryStore::new()), port).await,
        "tower-sessions-memory" => axum_theirs(tower_sessions::MemoryStore::default(), port).await,
        "axum-ours-redis" => axum_ours(in_redis().await, port).await,
        "tower-sessions-redis" => {
            // Set up as in its documentation, with one connection like the others.
            let pool = Pool::new(Config::from_url(redis).unwrap(), None, None, None, 1).unwrap();
            let _running = pool.connect();
            pool.wait_for_connect().await.unwrap();
            axum_theirs(TowerRedisStore::new(pool), port).await
        }
        other => panic!("unknown application {other}"),
    }
}

async fn actix_ours(backend: impl Backend, port: u16) -> io::Result<()> {
    manager::set(Manager::new(backend));
    HttpServer::new(|| {
        App::new()
            .configure(visit::actix_routes::<Session>)
            .wrap(manager::middleware())
    })
    .workers(1)
    .bind(("127.0.0.1", port))?
    .run()
    .await
}

async fn actix_theirs<S: SessionStore + 'static>(
    store: impl Fn() -> S + Clone + Send + 'static,
    port: u16,
) -> io::Result<()> {
    let key = cookie::Key::generate();
    HttpServer::new(move || {
        App::new()
            .configure(visit::actix_routes::<actix_session::Session>)
            .wrap(SessionMiddleware::new(store(), key.clone()))
    })
    .workers(1)
    .bind(("127.0.0.1", port))?
    .run()
    .await
}

async fn axum_ours(backend: impl Backend, port: u16) -> io::Result<()> {
    manager::set(Manager::new(backend));
    let routes = visit::axum_routes::<Session>();
    axum_serve(routes.layer(manager::middleware()), port).await
}

async fn axum_theirs(
    store: impl tower_sessions::SessionStore + Clone,
    port: u16,
) -> io::Result<()> {
    let routes = visit::axum_routes::<tower_sessions::Session>();
    axum_serve(routes.layer(SessionManagerLayer::new(store)), port).await
}

async fn axum_serve(routes: Router, port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, routes).await
}
