//! Login and logout, written like a library crate.
//!
//! It depends on session-manager, but not on the web framework, the backend, the templates or other crates
//! that use the session.

mod device;

use std::time::Duration;

use serde::Deserialize;
use session_manager::{Error, HasSession, Lifetime, Message, Session, manager};

use super::Reply;

/// All crates share one session, so a crate prefixes its keys with its name.
const USER: &str = "auth.user";

pub const LOGIN: &str = "/login";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a login lasts whose user asked to be remembered.
const REMEMBERED: Lifetime = Lifetime::Persistent {
    idle: Duration::from_secs(30 * DAY.as_secs()),
    absolute: Duration::from_secs(90 * DAY.as_secs()),
};

/// The application's part of the login: the password check, the form and the next page.
#[derive(Clone, Copy)]
pub struct Auth {
    /// Returns `true` if the password is correct.
    pub is_right: fn(name: &str, password: &str) -> bool,
    /// Renders a form that posts `name` and `password` to its own URL.
    pub form: fn(&Session) -> Result<Reply, Error>,
    /// The page after logging in.
    pub home: &'static str,
    /// How long a login is fresh: a page that changes the password asks for it again afterwards.
    pub fresh: Duration,
    /// Runs at login, for other crates that need to know of it.
    pub at_login: fn(&Session) -> Result<(), Error>,
}

impl Auth {
    /// Returns `true` if the user entered the password a short time ago.
    pub fn is_fresh(&self, session: &Session) -> bool {
        session.authenticated_within(self.fresh)
    }
}

/// Returns the name of the logged-in user.
pub fn user(req: &impl HasSession) -> Result<Option<String>, Error> {
    manager::get().get(req, USER)
}

/// Returns a redirect to the login for an anonymous request, and `None` for a logged-in user. A
/// middleware of either framework calls it.
pub fn require(req: &impl HasSession) -> Result<Option<Reply>, Error> {
    if user(req)?.is_some() {
        return Ok(None);
    }
    manager::get().flash(req, Message::warning("Log in to see that page"))?;
    Ok(Some(Reply::see_other(LOGIN)))
}

#[derive(Deserialize)]
pub struct Credentials {
    name: String,
    password: String,
    /// A checkbox that is not checked sends nothing.
    remember: Option<String>,
}

/// Logs in from a browser with this `User-Agent`. Only a POST may lead here: browsers do not send a
/// `SameSite=Lax` cookie with a POST from another site, and the application checks the token of every POST.
pub fn log_in(
    auth: &Auth,
    session: &Session,
    agent: &str,
    form: &Credentials,
) -> Result<Reply, Error> {
    if !(auth.is_right)(&form.name, &form.password) {
        // Quotes the input unchanged, because the template escapes it. It is truncated, because the
        // message may have to fit in a cookie.
        let name: String = form.name.chars().take(40).collect();
        session.flash(Message::error(format!(
            "“{name}” and this password do not match"
        )))?;
        return Ok(Reply::see_other(LOGIN));
    }
    // Prevents session fixation: an id that an attacker planted in this browser becomes invalid.
    session.renew();
    session.mark_authenticated()?;
    session.set_lifetime(match form.remember {
        Some(_) => REMEMBERED,
        None => Lifetime::Browser,
    })?;
    (auth.at_login)(session)?;
    session.add(USER, &form.name)?;
    list(session, &form.name, agent)?;
    session.flash(Message::success(format!("Welcome, {}", form.name)))?;
    Ok(Reply::see_other(auth.home))
}

/// Adds the session to the list of the user's sessions, as the device with this `User-Agent`.
pub fn list(session: &Session, user: &str, agent: &str) -> Result<(), Error> {
    match session.set_user(user) {
        Ok(()) => session.set_note(&device::name(agent)),
        // Cookie sessions cannot be listed, but a login works without the list.
        Err(Error::NoUserIndex { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Handles `/logout`. Other handlers call it to end the current session.
pub fn log_out(session: &Session) -> Result<Reply, Error> {
    session.destroy();
    // Starts a new session that contains only this message.
    session.flash(Message::info("You are logged out"))?;
    Ok(Reply::see_other(LOGIN))
}
