#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(any(feature = "actix", feature = "tower")),
    allow(dead_code, reason = "only a web framework opens and commits sessions")
)]
#![cfg_attr(
    not(all(
        feature = "actix-session",
        feature = "cookies",
        feature = "encrypted",
        feature = "memory",
        feature = "metrics",
        feature = "mysql",
        feature = "postgres",
        feature = "redis",
        feature = "sqlite",
        feature = "testing",
        feature = "tower-sessions-0-14"
    )),
    allow(
        rustdoc::broken_intra_doc_links,
        reason = "the documentation is built with all features"
    )
)]
// Here and not in Cargo.toml, because tests and examples may.
#![warn(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)]
//! One session interface for the whole process: the application picks the backend, every library
//! crate shares it.
//!
//! Libraries (an admin panel, a login, a flash-message helper) call [`manager::get()`] and do not know
//! where sessions live. The application decides that once, at start-up, with [`manager::set()`]; until
//! then, sessions are in a [signed cookie](manager::SESSION_MANAGER).
//!
//! The repository's `docs/` has the tasks: getting started, choosing a backend, rotating keys, migrating
//! sessions, operations, guarantees, benchmarks and the security model. This reference has the types.
//!
//! # The map
//!
//! | to | see |
//! |---|---|
//! | set, get and replace the process-wide manager; override it in tests | [`manager`] |
//! | build a manager: cookie, domain by tenant, timeouts, migration | [`Manager::builder`], [`Builder`] |
//! | create a manager from a url, the environment or a file | [`Manager::from_url`], [`manager::set_from_env`], [`Config`] |
//! | open and commit sessions in an application | [`manager::middleware`], [`Middleware`] |
//! | read and write a session | [`Session`], [`Manager`], [`Message`] |
//! | find the session of a request | [`HasSession`], [`Manager::session`], [`Manager::open`] |
//! | own keys of a library crate | [`TypedKey`], [`Session::namespace`] |
//! | count and measure what happens to sessions | [`Builder::observe`], [`observer`] |
//! | list and end a user's sessions | [`Manager::user_sessions`], [`Session::set_user`] |
//! | limit how many sessions a user has | [`Session::set_user_limited`], [`Evict`] |
//! | keep sessions in the cookie | [`SignedCookie`], [`PrivateCookie`], [`Key`] |
//! | revoke sessions in cookies | [`Builder::revocations`] |
//! | keep sessions in a store | [`ServerSide`], [`MemoryStore`], [`RedisStore`], [`PostgresStore`], [`MySqlStore`], [`SqliteStore`], [`TowerStore`] |
//! | encrypt the values in a store | [`Encrypted`] |
//! | write a store or a backend | [`Store`] and [`store`], [`Backend`] and [`backend`], [`testing::check_store`] |
//! | keep or leave actix-session | [`ActixSession`], [`ActixSessionCookie`] |
//! | write a library crate | [`guide`] |
//!
//! # actix-web
//!
//! ```no_run
//! # #[cfg(all(feature = "actix", feature = "cookies"))] {
//! use actix_web::{App, HttpRequest, HttpServer, web};
//! use session_manager::{Error, Key, Manager, Message, SignedCookie, manager};
//!
//! async fn put(req: HttpRequest) -> Result<&'static str, Error> {
//!     manager::get().add(&req, "key", "value")?;
//!     manager::get().flash(&req, Message::success("Stored"))?;
//!     Ok("stored")
//! }
//!
//! #[actix_web::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     manager::set(Manager::new(SignedCookie::new(Key::from_env("SESSION_SECRET")?)));
//!     HttpServer::new(|| {
//!         App::new().wrap(manager::middleware()).route("/put", web::get().to(put))
//!     })
//!     .bind(("127.0.0.1", 7000))?
//!     .run()
//!     .await?;
//!     Ok(())
//! }
//! # }
//! ```
//!
//! # axum
//!
//! ```no_run
//! # #[cfg(feature = "axum")] {
//! use axum::{Router, routing::get};
//! use session_manager::{Error, Session, manager};
//!
//! async fn count(session: Session) -> Result<String, Error> {
//!     let count = session.update("count", |count: Option<u32>| count.unwrap_or(0) + 1)?;
//!     Ok(format!("visit {count}"))
//! }
//!
//! let app: Router = Router::new().route("/", get(count)).layer(manager::middleware());
//! # }
//! ```
//!
//! # Outside a request
//!
//! A [`Session`] may move into a task, a WebSocket or a stream. After the response head is sent,
//! [`Session::save`] commits, [`Session::revalidate`] checks that the session still exists, and
//! [`Session::ended`] waits until it does not:
//!
//! | after the response head | server-side backends | cookie backends |
//! |---|---|---|
//! | reading | as opened, or as of the last `revalidate` | as opened |
//! | `add`, `update`, `flash` | kept by `save` | [`Error::HeadSent`] |
//! | `pop`, `clear`, `destroy` | kept by `save` | `save` returns `HeadSent` |
//! | `take`, `update_now` | done at once | [`Error::NeedsStore`] |
//! | starting a session, renewing it, [migrating](Builder::migrate_from) it | `HeadSent` | `HeadSent` |
//! | `revalidate` detects | a logout, a renewal, the expiry | the expiry |
//! | `ended` resolves after | a logout, in any process; the expiry | the expiry |
//!
//! A session that ended elsewhere is empty from then on and rejects writes. If `save` fails because the
//! store is down, or is cancelled, the next `save` keeps the same changes.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `actix` | yes | actix-web: the middleware, the extractor, [`HasSession`] for its requests |
//! | `tower` | | tower services: the middleware, [`HasSession`] for `http` requests |
//! | `axum` | | `tower`, and the extractor |
//! | `cookies` | yes | [`SignedCookie`], [`PrivateCookie`], and the signed default manager |
//! | `tracing` | yes | log lines through `tracing`, or through `log` if no subscriber is set |
//! | `metrics` | | [`observer::Metrics`]: an observer for the crate `metrics` |
//! | `server-side` | | [`ServerSide`], for a [`Store`] of your own |
//! | `encrypted` | | `server-side`, and [`Encrypted`]: encrypted values in any store |
//! | `memory`, `redis`, `postgres`, `mysql`, `sqlite` | | `server-side`, and the store of that name |
//! | `redis-tls`, `sql-tls` | | TLS to Redis, and to PostgreSQL and MySQL |
//! | `tower-sessions` | | tower-sessions-core 0.15: [`TowerStore`] (its stores here), [`web::TowerSessions`] (crates written for it), [`web::StoreForTowerSessions`] (stores of this crate there) |
//! | `tower-sessions-0-14` | | the same for 0.14: [`Tower014`], [`web::TowerSessions014`] |
//! | `actix-session` | | [`ActixSession`] (its session here), [`ActixSessionCookie`], [`web::ActixSessions`] (crates written for it); with `server-side`, [`web::StoreForActixSession`] (stores of this crate there) |
//! | `testing` | | the suite for stores, and sessions without a server: [`testing`] |

pub mod backend;
mod carrier;
mod changes;
mod cookie;
mod error;
mod expiry;
mod finite;
mod future;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(doc)]
pub mod guide;
#[cfg(any(feature = "cookies", feature = "server-side"))]
mod key;
mod log;
pub mod manager;
mod message;
pub mod observer;
mod profile;
#[cfg(any(feature = "cookies", feature = "server-side"))]
mod random;
mod record;
mod request;
mod session;
mod settings;
pub mod store;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
#[expect(clippy::expect_used, reason = "a suite that tells by panicking")]
pub mod testing;
mod text;
mod value;
#[cfg(any(feature = "actix", feature = "tower"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "actix", feature = "tower"))))]
pub mod web;

pub use ::cookie::SameSite;
pub use backend::Backend;
#[cfg(feature = "server-side")]
#[cfg_attr(docsrs, doc(cfg(feature = "server-side")))]
pub use backend::server_side::ServerSide;
#[cfg(feature = "cookies")]
#[cfg_attr(docsrs, doc(cfg(feature = "cookies")))]
pub use backend::{private_cookie::PrivateCookie, signed_cookie::SignedCookie};
pub use carrier::Carrier;
pub use changes::limit::Evict;
pub use error::{ConfigError, Error};
pub use expiry::{Lifetime, Timestamp};
#[cfg(any(feature = "cookies", feature = "server-side"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "cookies", feature = "server-side"))))]
pub use key::{Key, KeyError};
pub use manager::{
    Manager,
    builder::Builder,
    config::{Config, SetupError},
    middleware::Middleware,
};
pub use message::Message;
pub use observer::Observer;
pub use request::{HasSession, Sessions, typed_key::TypedKey, users::UserSession};
pub use session::{Session, namespace::Namespace};
pub use settings::OnStoreError;
#[cfg(feature = "encrypted")]
#[cfg_attr(docsrs, doc(cfg(feature = "encrypted")))]
pub use store::encrypted::Encrypted;
#[cfg(feature = "memory")]
#[cfg_attr(docsrs, doc(cfg(feature = "memory")))]
pub use store::memory::MemoryStore;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use store::redis::RedisStore;
#[cfg(feature = "mysql")]
#[cfg_attr(docsrs, doc(cfg(feature = "mysql")))]
pub use store::sql::mysql::MySqlStore;
#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub use store::sql::postgres::PostgresStore;
#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub use store::sql::sqlite::SqliteStore;
#[cfg(feature = "tower-sessions")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower-sessions")))]
pub use store::tower_sessions::TowerStore;
#[cfg(feature = "tower-sessions-0-14")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower-sessions-0-14")))]
pub use store::tower_sessions::v0_14::Tower014;
pub use store::{Store, StoreError};
#[cfg(feature = "actix-session")]
#[cfg_attr(docsrs, doc(cfg(feature = "actix-session")))]
pub use web::actix_session::{ActixSession, ActixSessionCookie};

/// Compiles the Rust code of README and of the pages in `docs`; [`guide`] includes one more.
#[cfg(all(
    doctest,
    feature = "actix-session",
    feature = "axum",
    feature = "cookies",
    feature = "encrypted",
    feature = "memory",
    feature = "metrics",
    feature = "redis",
    feature = "sqlite",
    feature = "testing",
    feature = "tower-sessions"
))]
mod pages {
    macro_rules! pages {
        ($($name:ident: $path:literal)*) => {
            $(
                #[doc = include_str!($path)]
                struct $name;
            )*
        };
    }

    pages! {
        Readme: "../README.md"
        ChoosingABackend: "../docs/choosing-a-backend.md"
        ComingFromOtherCrates: "../docs/coming-from-other-crates.md"
        GettingStarted: "../docs/getting-started.md"
        KeysAndRotation: "../docs/keys-and-rotation.md"
        MigratingSessions: "../docs/migrating-sessions.md"
        Operations: "../docs/operations.md"
    }
}
