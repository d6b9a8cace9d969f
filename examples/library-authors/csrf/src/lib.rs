//! An example of a library crate for two web frameworks: protection from cross-site request forgery
//! (CSRF).
//!
//! A page of another site can make a visitor's browser send a request, and the browser adds the
//! session cookie to it. The middleware, `actix::protect` or `axum::protect`, therefore checks every
//! request whose method may change something:
//!
//! 1. `Sec-Fetch-Site`, or without it `Origin`, must name the application's own site. Pages of
//!    another site cannot set these headers.
//! 2. The request must carry a token of its session: in the form field [`FIELD`] or in the header
//!    [`HEADER`]. Another site cannot read it.
//!
//! A page gets its token from [`token`]. At login, the application calls [`rotate`] beside
//! [`Session::renew`](session_manager::Session::renew).
//!
//! ```html
//! <form method="post"><input type="hidden" name="csrf_token" value="{{ csrf_token() }}">…</form>
//! ```
//!
//! The secret of a session is random and stays on the server, or in the visitor's own cookie. Each
//! token masks it with new random bytes: a compressed page does not reveal it (BREACH).
//!
//! An API whose clients send the session in a header instead of a cookie needs no such protection.

#[cfg(feature = "actix")]
pub mod actix;
#[cfg(feature = "axum")]
pub mod axum;
mod origin;
mod secret;
#[cfg(any(feature = "actix", feature = "axum"))]
mod sent;

use session_manager::{Error, HasSession, TypedKey, manager};

use self::secret::Secret;

/// The form field that holds the token.
pub const FIELD: &str = "csrf_token";

/// The request header that holds the token, for requests without a form.
pub const HEADER: &str = "x-csrf-token";

/// The session key of the secret. A page that lists the session must leave it out.
pub const KEY: &str = "csrf.secret";

const SECRET: TypedKey<String> = TypedKey::new(KEY);

/// Returns a token for the forms of one page. The first call creates the secret of the session.
///
/// If two requests of one session create the secret at the same time, one page has a token that is
/// refused. Its visitor must reload it.
pub fn token(req: &(impl HasSession + ?Sized)) -> Result<String, Error> {
    let stored = SECRET.load(req)?;
    if let Some(secret) = stored.as_deref().and_then(Secret::parse) {
        return Ok(secret.masked());
    }
    let new = Secret::generate().text();
    let secret = SECRET.update(req, move |stored| {
        let valid = stored.filter(|stored| Secret::parse(stored).is_some());
        valid.unwrap_or_else(|| new.clone())
    })?;
    Ok(Secret::parse(&secret).map_or(String::new(), |secret| secret.masked()))
}

/// Discards the secret, so that tokens made before are refused. Call it at login: an attacker who
/// chose the visitor's session before the login may know them.
pub fn rotate(req: &(impl HasSession + ?Sized)) -> Result<(), Error> {
    manager::get().pop(req, KEY)?;
    Ok(())
}

/// The parts of a request that the check reads, whatever the framework.
pub trait Head {
    /// Returns the method, such as `POST`.
    fn method(&self) -> &str;
    /// Returns the host and port that the client asked for.
    fn host(&self) -> Option<&[u8]>;
    /// Returns the first header of this lower-case name.
    fn header(&self, name: &str) -> Option<&[u8]>;
}

/// The reason why a request is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Another site sent it.
    #[error("this request came from another site")]
    CrossSite,
    /// It has no token.
    #[error("this form has no token: reload its page and send it again")]
    NoToken,
    /// Its token is not one of this session, which may have expired.
    #[error("this form is out of date: reload its page and send it again")]
    WrongToken,
    /// The session could not be read.
    #[error(transparent)]
    Session(#[from] Error),
}

/// The check. `Csrf::new()` accepts requests of the application's own site.
#[derive(Clone, Debug, Default)]
pub struct Csrf {
    trusted: Vec<String>,
}

impl Csrf {
    /// Creates a check that accepts the application's own site.
    pub fn new() -> Self {
        Self::default()
    }

    /// Accepts requests of the site `origin` too, such as `https://www.example.com`. Needed for old
    /// browsers if a proxy replaces the `Host` header.
    #[must_use]
    pub fn trust(mut self, origin: impl Into<String>) -> Self {
        self.trusted.push(origin.into());
        self
    }

    /// Checks a request that carries `token`. A method that changes nothing is always accepted.
    pub fn check(
        &self,
        req: &(impl HasSession + Head + ?Sized),
        token: Option<&str>,
    ) -> Result<(), Refused> {
        if is_safe(req) {
            return Ok(());
        }
        if !origin::is_accepted(req, &self.trusted) {
            return Err(Refused::CrossSite);
        }
        let token = token.ok_or(Refused::NoToken)?;
        let stored = SECRET.load(req)?;
        let secret = stored.as_deref().and_then(Secret::parse);
        match secret.is_some_and(|secret| secret.is_masked_in(token)) {
            true => Ok(()),
            false => Err(Refused::WrongToken),
        }
    }
}

/// Returns `true` for a method that must not change anything (RFC 9110, section 9.2.1).
fn is_safe(req: &(impl Head + ?Sized)) -> bool {
    matches!(req.method(), "GET" | "HEAD" | "OPTIONS" | "TRACE")
}
