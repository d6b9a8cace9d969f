//! What is known of a session beside its values: its lifetime, its times, its user, its last login.

use std::time::Duration;

use super::{FLASH, OWN, Session, state::State};
#[cfg(feature = "server-side")]
use crate::record::login::{self, Login};
use crate::{
    changes::Change,
    error::Error,
    expiry::{Lifetime, Timestamp},
    record::Record,
    value::Value,
};

/// The key of the time of the last login.
const AUTHENTICATED: &str = "\u{2}authenticated";

impl State {
    /// Returns the stored record, unless this request ended it.
    fn kept(&self) -> Option<&Record> {
        self.record()
            .filter(|_| !self.pending.changes.is_destroyed())
    }
}

impl Session {
    /// Sets how long this session lasts, in place of the manager's timeouts and of
    /// [`Builder::persistent`](crate::Builder::persistent): "remember me".
    ///
    /// The session stores its lifetime, also inside a signed or private cookie. It stays after
    /// [`renew`](Self::renew) and [`clear`](Self::clear), and ends with the session. The times
    /// count from the session's beginning and its last use, as the manager's do.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidLifetime`] if a timeout is zero, the idle timeout is longer than the
    /// absolute one, or the absolute one is longer than [`Lifetime::MAX`]; [`Error::NoLifetime`] if
    /// other code keeps the session; and as [`add`](Self::add).
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// use std::time::Duration;
    /// use session_manager::Lifetime;
    ///
    /// let day = Duration::from_secs(24 * 60 * 60);
    /// session.set_lifetime(Lifetime::Persistent { idle: 30 * day, absolute: 90 * day })?;
    /// # Ok(()) }
    /// ```
    pub fn set_lifetime(&self, lifetime: Lifetime) -> Result<(), Error> {
        lifetime.check()?;
        let mut state = self.look();
        if state.live.is_some() {
            return Err(Error::NoLifetime {
                backend: self.manager().backend_name(),
            });
        }
        let value = lifetime.encode(state.view().get(Lifetime::KEY));
        self.insert(&mut state, Lifetime::KEY, Change::Set(value))
    }

    /// Returns the lifetime that [`set_lifetime`](Self::set_lifetime) set; `None` if the manager's
    /// applies.
    pub fn lifetime(&self) -> Option<Lifetime> {
        Lifetime::decode(self.look().view().get(Lifetime::KEY))
    }

    /// Returns when the session began or was renewed; `None` before it is stored.
    pub fn created(&self) -> Option<Timestamp> {
        self.look().kept().map(|record| record.created)
    }

    /// Returns when the session was last written or touched; `None` before it is stored. Reading
    /// touches a session once per twentieth of its idle timeout. For a cookie backend this follows
    /// from when the cookie expires.
    pub fn last_seen(&self) -> Option<Timestamp> {
        self.look().kept().map(|record| record.last_seen)
    }

    /// Returns when the session expires unless it is used again; `None` before it is stored.
    pub fn expires(&self) -> Option<Timestamp> {
        let state = self.look();
        let record = state.kept()?;
        let expiry = self.manager().settings().expiry_of(&record.entries);
        Some(record.expires.min(record.created.plus(expiry.absolute)))
    }

    /// Returns the user that [`set_user`](Self::set_user) set.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.set_user("ada")?;
    /// assert_eq!(session.user().as_deref(), Some("ada"));
    /// # Ok(()) }
    /// ```
    pub fn user(&self) -> Option<String> {
        self.user_of(&self.look())
    }

    pub(super) fn user_of(&self, state: &State) -> Option<String> {
        let stored = || state.kept()?.user.as_deref();
        (state.pending.changes.user().or_else(stored)).map(str::to_owned)
    }

    /// Returns the login that a revocable cookie holds.
    #[cfg(feature = "server-side")]
    pub(crate) fn login(&self) -> Option<Login> {
        self.look().view().get(login::KEY).and_then(Login::decode)
    }

    /// Returns all keys and values, sorted by key. Flash messages are not among them.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// use session_manager::store::Value;
    ///
    /// session.add("name", "Ada")?;
    /// session.add("visits", 3)?;
    /// let entries = session.entries();
    /// assert_eq!(entries[0], ("name".into(), Value::Text("Ada".into())));
    /// assert_eq!(entries[1], ("visits".into(), Value::Json("3".into())));
    /// # Ok(()) }
    /// ```
    pub fn entries(&self) -> Vec<(String, Value)> {
        let state = self.look();
        let entries = state.view().iter();
        let mut entries: Vec<_> = entries
            .filter(|(key, _)| !key.starts_with([FLASH, OWN]))
            .map(|(key, value)| (key.to_owned(), value.into_owned()))
            .collect();
        entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        entries
    }

    /// Notes that the user has just proved their identity: with a password, a passkey or a code.
    /// Call it at login and whenever the user confirms the password.
    ///
    /// It stays after [`renew`](Self::renew), and goes with [`clear`](Self::clear) and
    /// [`destroy`](Self::destroy).
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    pub fn mark_authenticated(&self) -> Result<(), Error> {
        let now = self.manager().settings().now().millis();
        let change = Change::Set(Value::Json(now.to_string().into()));
        self.insert(&mut self.look(), AUTHENTICATED, change)
    }

    /// Returns `true` if the user proved their identity at most `span` ago: what a page asks
    /// that changes a password or pays ("sudo mode"; OWASP Authentication Cheat Sheet,
    /// "Reauthentication").
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// use std::time::Duration;
    ///
    /// session.mark_authenticated()?;
    /// assert!(session.authenticated_within(Duration::from_secs(300)));
    /// # Ok(()) }
    /// ```
    pub fn authenticated_within(&self, span: Duration) -> bool {
        let state = self.look();
        let value = state.view().get(AUTHENTICATED);
        let millis = value.and_then(|value| value.as_str().parse().ok());
        let now = self.manager().settings().now();
        millis.is_some_and(|millis| now.since(Timestamp::from_millis(millis)) <= span)
    }
}
