//! A guide: writing a crate on session-manager.
//!
//! An admin panel, a login, a wizard of five pages: a crate that keeps something for a visitor, and
//! is used in applications that it has never seen. Three packages to copy from are in the
//! repository, in `examples/library-authors`: a crate for any web framework, one for actix-web, and
//! an application in which the two share one session.
//!
//! # The dependency
//!
//! ```toml
//! [dependencies]
//! session-manager = { version = "0.1", default-features = false }
//! ```
//!
//! That is the interface alone: no backend, no web framework, 27 other crates. The application turns
//! on what it wants, and Cargo builds one session-manager for both. Turn on `actix`, `tower` or
//! `axum` only if your own code names types of that framework.
//!
//! Two versions would be two process-wide managers, and your crate would find no session
//! ([`Error::NotMounted`]). So Cargo refuses a program with two semver-incompatible versions of
//! session-manager:
//!
//! ```text
//! package `session-manager` links to the native library `session-manager`, but it conflicts with a
//! previous package which links to `session-manager` as well
//! ```
//!
//! (There is no native library; that is how Cargo knows which crates must not be there twice.) The
//! application then chooses versions of its libraries that agree on one; the error names the
//! packages that ask for each. For your crate it means: ask for the oldest version that you need
//! (`"0.1"`, no `=`), do not re-export session-manager's items as your own, and release soon after a
//! breaking version of session-manager, because an application can take that only when all of its
//! libraries have.
//!
//! # Take whatever has a session
//!
//! [`HasSession`] is every framework's request, and a [`Session`] too. `?Sized` lets a `&dyn
//! HasSession` in:
//!
//! ```
//! use session_manager::{Error, HasSession, manager};
//!
//! /// Whether this visitor has taken the tour.
//! pub fn is_done(req: &(impl HasSession + ?Sized)) -> Result<bool, Error> {
//!     Ok(manager::get().load(req, "tour.done")?.unwrap_or(false))
//! }
//! ```
//!
//! Call [`manager::get`] at each use and keep nothing: the application may set another manager at
//! any time, and a test has one of its own. The call takes a few nanoseconds.
//!
//! # Keys that nobody else has
//!
//! All crates share one session. Yours owns what begins with its name and a dot, and
//! [`Session::namespace`] puts that there, in reading, listing and clearing too:
//!
//! ```
//! use session_manager::{Error, HasSession, Namespace, manager};
//!
//! fn answers(req: &(impl HasSession + ?Sized)) -> Result<Namespace, Error> {
//!     Ok(manager::get().session(req)?.namespace("wizard"))
//! }
//!
//! /// Keeps what was entered on a page.
//! pub fn answer(req: &(impl HasSession + ?Sized), page: &str, text: &str) -> Result<(), Error> {
//!     answers(req)?.add(page, text) // under `wizard.<page>`
//! }
//!
//! /// Forgets everything that was entered, and nothing of anybody else's.
//! pub fn start_again(req: &(impl HasSession + ?Sized)) -> Result<(), Error> {
//!     answers(req)?.clear();
//!     Ok(())
//! }
//! # #[cfg(feature = "testing")] {
//! # let session = session_manager::testing::session();
//! # answer(&session, "name", "Ada")?;
//! # assert_eq!(session.keys(), ["wizard.name"]);
//! # start_again(&session)?;
//! # assert!(session.is_empty());
//! # }
//! # Ok::<(), Error>(())
//! ```
//!
//! Where the keys are few and known, a [`TypedKey`] says text and type once, and every use of it
//! agrees:
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use session_manager::{Error, HasSession, TypedKey};
//!
//! #[derive(Default, Serialize, Deserialize)]
//! struct Cart { items: Vec<u32> }
//!
//! const CART: TypedKey<Cart> = TypedKey::new("shop.cart");
//!
//! /// Puts an item into the cart, and says how many are in it.
//! pub fn put(req: &(impl HasSession + ?Sized), item: u32) -> Result<usize, Error> {
//!     let cart = CART.update(req, move |cart| {
//!         let mut cart = cart.unwrap_or_default();
//!         cart.items.push(item);
//!         cart
//!     })?;
//!     Ok(cart.items.len())
//! }
//! ```
//!
//! What is changed from what it was belongs into `update`: where the backend can, two requests at
//! once then both count. Its function may run twice, so it does nothing but compute.
//!
//! # Which errors to pass on
//!
//! All of them, with `?`. In actix-web and axum an [`Error`] is a response that tells the visitor
//! nothing and the log everything. Above all do not take [`Error::NotMounted`] for an empty session:
//! it is the application's mistake, and its text says how to put it right. Three are worth an arm of
//! a `match`, where your crate knows better:
//!
//! - [`Error::TooLarge`]: the visitor sent more than this session can hold. It is as it was, so a
//!   message fits.
//! - [`Error::WrongType`]: an older version of your crate left another type there. It is kept; `add`
//!   puts a new value in its place.
//! - [`Error::NoUserIndex`]: this backend cannot list a user's sessions. Go on without.
//!
//! # Tests
//!
//! A function that takes a session needs no server. The feature `testing` has a session for it:
//!
//! ```toml
//! [dev-dependencies]
//! session-manager = { version = "0.1", default-features = false, features = ["testing"] }
//! ```
//!
//! ```
//! # #[cfg(feature = "testing")] {
//! use session_manager::{TypedKey, testing};
//!
//! const VISITS: TypedKey<u32> = TypedKey::new("counter.visits");
//!
//! let session = testing::session();
//! assert_eq!(VISITS.load(&session)?, None);
//! VISITS.add(&session, &1)?;
//! assert_eq!(session.keys(), ["counter.visits"]);
//! # }
//! # Ok::<(), session_manager::Error>(())
//! ```
//!
//! Routes are called in an application of the test's own. [`manager::scope`] gives it a manager that
//! no other test sees ([`manager::with`] is the same for a closure), so that they all run at once.
//! In the dev-dependency turn on a backend, `cookies` or `memory`:
//!
//! ```
//! # #[cfg(all(feature = "actix", feature = "cookies"))] {
//! use actix_web::{App, HttpRequest, rt::System, test, web};
//! use session_manager::{Error, Key, Manager, PrivateCookie, manager};
//!
//! async fn hello(req: HttpRequest) -> Result<&'static str, Error> {
//!     manager::get().add(&req, "greeter.met", true)?;
//!     Ok("hello")
//! }
//!
//! let manager = Manager::new(PrivateCookie::new(Key::generate()));
//! System::new().block_on(manager::scope(manager, async {
//!     let app = App::new().wrap(manager::middleware()).route("/", web::get().to(hello));
//!     let app = test::init_service(app).await;
//!     let request = test::TestRequest::default().to_request();
//!     let response = test::call_service(&app, request).await;
//!     assert_eq!(manager::get().load(&response, "greeter.met").unwrap(), Some(true));
//! }));
//! # }
//! ```
//!
//! # Which changes of session-manager are breaking
//!
//! It follows [Semantic Versioning](https://semver.org/): before 1.0 a breaking change raises the minor
//! version, and anything else the patch version. Breaking is:
//!
//! - to remove or rename a public item or a feature, to change a signature, to add a method without a
//!   default to [`HasSession`], [`Store`](crate::Store), [`UserIndex`](crate::store::UserIndex) or
//!   [`Backend`](crate::Backend), or a variant to an enum that is not `#[non_exhaustive]`;
//! - to raise the incompatible version of a crate whose types are in the interface (below);
//! - to stop reading a cookie, a record or a table that a release of the version before wrote, because
//!   that logs visitors out;
//! - to change a default that clients or stores see: the cookie's name and attributes, the timeouts,
//!   the features that are on.
//!
//! Not breaking, and told in the changelog: a newer minimum of Rust, texts of errors and log lines,
//! `Debug` output, how many calls a store gets, and whatever is not documented.
//!
//! | feature | crates whose types are in the interface |
//! |---|---|
//! | always | `serde` 1 and `serde_json` 1 (values and their errors), `cookie` 0.18 (`SameSite`), `arc-swap` 1 and `once_cell` 1 ([`SESSION_MANAGER`](manager::SESSION_MANAGER)) |
//! | `actix` | `actix-web` 4 |
//! | `actix-session` | `actix-session` 0.11, whose sessions are found in a request; the cookie key of `actix-web` |
//! | `tower` | `http` 1, `tower-layer` 0.3, `tower-service` 0.3 |
//! | `axum` | also `axum-core` 0.5 (axum 0.8) |
//! | `redis` | `redis` 1 (clients and connection managers) |
//! | `postgres`, `mysql`, `sqlite` | `sqlx` 0.9 (pools) |
//! | `tower-sessions`, `tower-sessions-0-14` | `tower-sessions-core` 0.15, and 0.14 (`SessionStore`) |
//!
//! Other dependencies may be replaced at any time. The stores run on `tokio` 1.
//!
//! # What such a crate must not do
//!
//! - Call [`manager::set`], or mount middleware. Both are the application's, once.
//! - Keep a manager or a session in a `static`, or anywhere else beyond the request: a session is one
//!   visitor's, during one request.
//! - Assume a backend. The session may be a cookie of 4,096 bytes, all crates' keys and attributes
//!   included: keep ids and not records, and bound every list. The visitor may be able to read it
//!   ([`SignedCookie`](crate::SignedCookie)): keep no secret in it.
//! - Make keys of what a visitor typed. Somebody types a thousand.
//! - [`clear`](Session::clear) or [`destroy`](Session::destroy) a session that others share.
//!   [`Namespace::clear`] removes what is yours; only logging out ends the session.
//! - Raise a visitor's rights without [`renew`](Session::renew).
//! - Read [`flashes`](Session::flashes) that it does not show. Whoever reads them takes them, other
//!   crates' too; to leave one, [`flash`](Session::flash), and the application's page shows it.
//! - Put what came from outside into a [`Message::trusted_html`](crate::Message::trusted_html).
//! - Write after the response, in a spawned task, say, without [`save`](Session::save) and its error.
//! - Need a web framework's types, unless it is a crate for that framework or a feature of its own
//!   says so.

use crate::{
    error::Error,
    manager,
    request::{HasSession, typed_key::TypedKey},
    session::{Session, namespace::Namespace},
};
