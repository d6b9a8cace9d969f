#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(any(feature = "actix", feature = "tower")),
    allow(dead_code, reason = "only a web framework opens and commits sessions")
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
//! `session-manager` is to HTTP sessions what `log` is to logging. Libraries (an admin panel, an
//! auth crate, a flash-message helper) call [`manager::get()`] and never learn where sessions live;
//! the application says so once, at start-up, with [`manager::set()`].
//!
//! # A first application
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
//! In axum it is `Router::layer(manager::middleware())`, and a [`Session`] as an extractor:
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
//! [`manager::middleware()`] opens the session before a handler runs and keeps it before the
//! response goes out. Between the two nothing waits: every accessor is synchronous, so flash
//! messages can be read inside a template function.
//!
//! # Reading and writing
//!
//! Through the manager with any request at hand ([`HasSession`]: actix-web's `HttpRequest`,
//! `ServiceRequest`, `ServiceResponse` and `GuardContext`; in axum, tonic and tower `http::Request`,
//! `http::request::Parts` and `http::Extensions`), or through a [`Session`], which is an extractor in
//! both frameworks:
//!
//! ```
//! use session_manager::{Error, Message, Session};
//!
//! async fn sign_in(session: Session) -> Result<&'static str, Error> {
//!     session.renew(); // against session fixation, whenever rights change
//!     session.add("user", "ada")?;
//!     session.flash(Message::success("Welcome back"))?;
//!     Ok("signed in")
//! }
//!
//! async fn sign_out(session: Session) -> Result<&'static str, Error> {
//!     session.destroy();
//!     session.flash("You are logged out")?; // begins a new session
//!     Ok("signed out")
//! }
//! ```
//!
//! A string is stored as it is, anything else as JSON; values stay text until somebody asks for a
//! type, so reading one key parses one key. A missing key is `None`, never `""`. What fails changes
//! nothing: a value that JSON cannot express, one that does not fit, a value of another type.
//!
//! # When a session is kept
//!
//! When the response goes out, unless it is a server error (5xx), which leaves the session as it
//! was: a request that failed half-way leaves nothing half-done. Ending a session
//! ([`Session::destroy`]) sticks in any case. See [`Builder::commit_on_server_error`].
//!
//! `Set-Cookie` is sent only when something changed, with `Cache-Control: no-cache="Set-Cookie"`;
//! `Vary: Cookie` whenever the session was looked at or a handler took it, so that no cache shows one visitor's page to
//! another (CVE-2023-30861).
//!
//! # Outside a request
//!
//! A [`Session`] may move into a task, a WebSocket or a stream. Nobody commits for code that outlives
//! its response, so it says when; and it looks whether the visitor is still logged in:
//!
//! ```
//! use session_manager::{Error, Session};
//!
//! async fn import(session: Session) -> Result<&'static str, Error> {
//!     session.add("done", 0)?; // a session begins with a response, and never later
//!     tokio::spawn(async move {
//!         for _part in 0..100 {
//!             session.revalidate().await?; // `Error::Ended`: logged out elsewhere
//!             session.update("done", |done: Option<u32>| done.unwrap_or(0) + 1)?;
//!             session.save().await?;
//!         }
//!         Ok::<_, Error>(())
//!     });
//!     Ok("begun")
//! }
//! ```
//!
//! | after the response head | server-side backends | cookie backends |
//! |---|---|---|
//! | reading | as it was, or as of the last `revalidate` | as it was |
//! | `add`, `update`, `flash` | kept by `save` | [`Error::HeadSent`] |
//! | `pop`, `clear`, `destroy` | kept by `save` | `save` is `HeadSent` |
//! | `take`, `update_now` | done at once | [`Error::NeedsStore`] |
//! | to begin a session, to renew it, to move it ([`migrate_from`](Builder::migrate_from)) | `HeadSent` | `HeadSent` |
//! | `revalidate` finds | a logout, a renewal, the end of its time | the end of its time |
//!
//! A session that ended elsewhere is empty from then on, takes no writes, and nothing revives it. What
//! `save` could not keep, because the store was away or nobody waited for it, the next one keeps.
//! `examples/websocket.rs` is a whole application.
//!
//! # Backends
//!
//! | | where the data lives | for |
//! |---|---|---|
//! | [`SignedCookie`] | in the cookie: readable, unforgeable | most applications, and the default |
//! | [`PrivateCookie`] | in the cookie: encrypted | data that the visitor must not read |
//! | `ServerSide` | in a [`Store`]; the cookie holds a random id | everything larger, or stricter |
//!
//! The cookie backends hold 4,096 bytes, need no store, and refuse a cookie past its time whatever the
//! browser thinks. What they cannot do: of two overlapping requests the later response wins, and a
//! cookie that was copied before logging out opens the session until its time is over.
//!
//! Server-side sessions lose no update, and no request in flight undoes a logout: what it did is
//! merged into the store key by key, and never revives what is gone. They also find
//! [a user's sessions](Manager::user_sessions), and go on in code that outlives its request
//! ([`Session::save`]). A store of your own implements [`Store`], and passes
//! `session_manager::testing::check_store`; a backend of another kind implements [`Backend`].
//!
//! # Keys
//!
//! `openssl rand -base64 48` makes a secret, [`Key::from_env`] reads it. To change it without logging
//! anybody out, accept the old one for as long as sessions live
//! ([`Builder::absolute_timeout`]):
//!
//! ```
//! # #[cfg(feature = "cookies")] {
//! use session_manager::{Key, Manager, SignedCookie, manager};
//!
//! # fn f() -> Result<(), session_manager::KeyError> {
//! let (new, old) = (Key::from_env("SESSION_SECRET")?, Key::from_env("OLD_SESSION_SECRET")?);
//! manager::set(Manager::new(SignedCookie::new(new).accept(old)));
//! # Ok(()) }
//! # }
//! ```
//!
//! # The default
//!
//! Until the application sets a manager there is one anyway, so that the first try works: a signed
//! cookie whose key is `SESSION_SECRET`. Without that variable, a debug build signs with a key that
//! everybody knows and says so; a release build draws a key for this process, logs an error, and
//! everybody is logged out at the next start. [`manager::is_insecure_default`] lets an application
//! refuse to start.
//!
//! # Writing a library crate on it
//!
//! ```
//! use session_manager::{Error, HasSession, TypedKey};
//!
//! const FILTER: TypedKey<String> = TypedKey::new("admin.filter");
//!
//! /// Remembers the filter that a visitor chose.
//! pub fn remember_filter(req: &(impl HasSession + ?Sized), filter: &str) -> Result<(), Error> {
//!     FILTER.add(req, filter)
//! }
//! ```
//!
//! It depends on `session-manager` with `default-features = false`, takes whatever has a session,
//! has its keys to itself ([`TypedKey`], [`Session::namespace`]), and keeps nothing beyond the
//! request. The guide for its author is [`guide`].
//!
//! # Features
//!
//! `actix` (actix-web), `cookies` (the two cookie backends and the default manager's key) and
//! `tracing` (log lines) are on by default. `axum` is for axum; `tower`, a part of it, for any other
//! stack of tower services, without the extractor. `actix-session` is for `ActixSession` and
//! `ActixSessionCookie`: keeping that crate's sessions, and moving away from it. `server-side` is the
//! backend for a [`Store`]; `memory`, `redis`, `postgres`, `mysql` and `sqlite` are the stores,
//! `redis-tls` and `sql-tls` their TLS, and `tower-sessions` takes any store of that ecosystem
//! (`TowerStore`; with `tower-sessions-0-14` those for its core 0.14); `testing` is the suite that
//! every store passes.

pub mod backend;
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
#[cfg(any(feature = "actix", feature = "cookies", feature = "tower"))]
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
pub use error::{ConfigError, Error};
pub use expiry::Timestamp;
#[cfg(any(feature = "cookies", feature = "server-side"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "cookies", feature = "server-side"))))]
pub use key::{Key, KeyError};
pub use manager::{Manager, builder::Builder, middleware::Middleware};
pub use message::Message;
pub use request::{HasSession, Sessions, typed_key::TypedKey, users::UserSession};
pub use session::{Session, namespace::Namespace};
pub use settings::OnStoreError;
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

#[cfg(all(
    doctest,
    feature = "actix",
    feature = "axum",
    feature = "cookies",
    feature = "redis",
    feature = "actix-session"
))]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
