//! An example of a library crate for development, on two web frameworks: a page that shows the visitor's
//! session.
//!
//! It shows where the session is kept and in which cookie, its keys and their sizes, how much room is
//! left, its times, what happened to it, and the user's other sessions, each with a button that ends it.
//!
//! ```
//! # fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use inspector::Inspector;
//! use session_manager::{Manager, MemoryStore, ServerSide, manager};
//!
//! let inspector = Inspector::new()?; // an error in a release build
//! let builder = Manager::builder(ServerSide::new(MemoryStore::new()));
//! manager::set(builder.observe(inspector.observer()).build()?);
//! // actix-web: App::new().wrap(manager::middleware()).configure(inspector::actix::routes(&inspector))
//! // axum: Router::new().merge(inspector::axum::routes(&inspector)).layer(manager::middleware())
//! # Ok(()) }
//! ```
//!
//! A visitor sees only the own session, and no value of it. Still, the page is for developers:
//! [`Inspector::new`] refuses a release build.

#[cfg(feature = "actix")]
pub mod actix;
#[cfg(feature = "axum")]
pub mod axum;
mod history;
mod origin;
mod page;

use session_manager::{Error, Observer, Session, manager};

use self::history::History;

/// The path of the page, unless [`Inspector::at`] says otherwise.
pub const PATH: &str = "/inspector";

/// The headers of the page. It shows secrets to no cache and to no other page.
pub const HEADERS: [(&str, &str); 4] = [
    ("content-type", "text/html; charset=utf-8"),
    ("cache-control", "no-store"),
    (
        "content-security-policy",
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'",
    ),
    ("referrer-policy", "same-origin"),
];

/// The reason why there is no inspector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The program is a release build.
    #[error(
        "the inspector is for development, and this is a release build: do not mount it, or say \
         `Inspector::even_in_release()`"
    )]
    ReleaseBuild,
}

/// The inspector. Clones share one history.
#[derive(Clone, Debug)]
pub struct Inspector {
    path: String,
    shows_values: bool,
    history: History,
}

impl Inspector {
    /// Creates an inspector, in a debug build.
    ///
    /// # Errors
    ///
    /// [`Refused::ReleaseBuild`] in a release build.
    pub fn new() -> Result<Self, Refused> {
        match manager::is_debug_build() {
            true => Ok(Self::even_in_release()),
            false => Err(Refused::ReleaseBuild),
        }
    }

    /// Creates an inspector in every build. Let only developers reach it.
    #[must_use]
    pub fn even_in_release() -> Self {
        Self {
            path: PATH.to_owned(),
            shows_values: false,
            history: History::default(),
        }
    }

    /// Sets the path of the page, which begins with a slash.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Shows the values, too.
    #[must_use]
    pub fn show_values(mut self) -> Self {
        self.shows_values = true;
        self
    }

    /// Returns the observer that writes the history, for
    /// [`Builder::observe`](session_manager::Builder::observe). It asks for names, because a session
    /// finds its events by its handle.
    pub fn observer(&self) -> impl Observer + use<> {
        self.history.clone()
    }

    /// Returns the path of the page.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Renders the page for a session.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], if the store cannot list the user's sessions.
    pub async fn page(&self, session: &Session) -> Result<String, Error> {
        page::render(self, session).await
    }

    /// Ends another session of the same user, and returns whether there was one.
    ///
    /// # Errors
    ///
    /// [`Error::NoUserIndex`] and [`Error::Unavailable`].
    pub async fn end(&self, session: &Session, handle: &str) -> Result<bool, Error> {
        match session.user() {
            Some(user) => session.manager().destroy_user_session(&user, handle).await,
            None => Ok(false),
        }
    }
}

/// Returns the field `handle` of a form.
#[cfg(any(feature = "actix", feature = "axum"))]
fn handle_in(form: &[u8]) -> String {
    let mut fields = form_urlencoded::parse(form);
    let handle = fields.find(|(name, _)| name == "handle");
    handle.map_or(String::new(), |(_, handle)| handle.into_owned())
}
