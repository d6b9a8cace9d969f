//! The settings of a manager, apart from its backend.

use std::fmt;

use crate::{
    carrier::Carrier,
    cookie::{Attributes, SessionCookie, by_host::CookieByHost},
    expiry::{Clock, Expiry, Lifetime, Timestamp},
    record::entries::Entries,
};
#[cfg(any(feature = "actix", feature = "tower"))]
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::profile::IS_DEBUG_BUILD;

/// The handling of a request whose session the backend cannot open.
///
/// ```
/// # #[cfg(feature = "cookies")] {
/// use session_manager::{Key, Manager, OnStoreError, SignedCookie};
///
/// let manager = Manager::builder(SignedCookie::new(Key::generate()))
///     .on_store_error(OnStoreError::Anonymous)
///     .build()?;
/// # }
/// # Ok::<(), session_manager::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnStoreError {
    /// The request is answered with 503, and the reason is logged.
    #[default]
    Fail,
    /// The handler gets an empty session that rejects writes, and the reason is logged.
    ///
    /// A request that destroys, clears or renews its session is still answered with 503. A logout
    /// that did not happen must not look successful: the cookie, or a copy of it, would open the
    /// session again once the store is back.
    Anonymous,
}

/// The settings of a [`Manager`](crate::Manager) that its backend can read.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(crate) cookie: SessionCookie,
    pub(crate) expiry: Expiry,
    pub(crate) clock: Clock,
    pub(crate) on_store_error: OnStoreError,
    pub(crate) commit_on_server_error: bool,
    pub(crate) load_on_demand: bool,
    pub(crate) carrier: Carrier,
    /// The cookie by host, in place of `cookie`, which has no domain then.
    pub(crate) by_host: Option<CookieByHost>,
}

impl Settings {
    /// Returns the name of the session cookie.
    pub fn cookie_name(&self) -> &str {
        self.cookie.name()
    }

    /// Returns the attributes of the session cookie towards a client on https, as a `Set-Cookie` header
    /// has them.
    ///
    /// ```
    /// # #[cfg(feature = "cookies")] {
    /// use session_manager::{Key, Manager, SignedCookie};
    ///
    /// let manager = Manager::new(SignedCookie::new(Key::generate()));
    /// let attributes = manager.settings().cookie_attributes();
    /// assert!(attributes.split("; ").any(|attribute| attribute == "SameSite=Lax"));
    /// # }
    /// ```
    pub fn cookie_attributes(&self) -> &str {
        self.cookie.attributes()
    }

    /// Returns the idle and absolute timeouts.
    pub fn expiry(&self) -> &Expiry {
        &self.expiry
    }

    /// Returns the timeouts of a session with this lifetime of its own.
    pub(crate) fn expiry_for(&self, lifetime: Option<Lifetime>) -> Expiry {
        self.expiry.with(lifetime)
    }

    /// Returns the timeouts of a stored session.
    pub(crate) fn expiry_of(&self, entries: &Entries) -> Expiry {
        self.expiry.of(entries)
    }

    /// Returns `true` if the cookie of a session with this lifetime has a `Max-Age`.
    pub(crate) fn is_persistent(&self, lifetime: Option<Lifetime>) -> bool {
        match lifetime {
            Some(Lifetime::Persistent { .. }) => true,
            Some(Lifetime::Browser) => false,
            None => self.cookie.is_persistent(),
        }
    }

    /// Returns the current time of this manager's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns how a session's token travels.
    pub fn carrier(&self) -> Carrier {
        self.carrier
    }

    /// Returns the settings for a request to this host, and a line to log; `None` if the cookie is
    /// the same for all hosts.
    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn for_host(&self, host: Option<&[u8]>) -> Option<(Self, Option<&'static str>)> {
        let (cookie, warning) = self.by_host.as_ref()?.cookie(host);
        let by_host = None;
        Some((
            Self {
                cookie,
                by_host,
                ..self.clone()
            },
            warning,
        ))
    }

    pub(crate) fn cookie(&self) -> &SessionCookie {
        &self.cookie
    }

    pub(crate) fn on_store_error(&self) -> OnStoreError {
        self.on_store_error
    }

    pub(crate) fn commit_on_server_error(&self) -> bool {
        self.commit_on_server_error
    }

    pub(crate) fn loads_on_demand(&self) -> bool {
        self.load_on_demand
    }

    /// Returns `true` if the cookie of a request is `Secure`.
    pub(crate) fn is_secure(&self, is_https: bool, is_to_loopback: impl FnOnce() -> bool) -> bool {
        self.cookie
            .is_secure(IS_DEBUG_BUILD, is_https, is_to_loopback)
    }

    /// Returns `true` if it depends on a request's host whether its cookie is `Secure`.
    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn goes_by_host(&self, is_https: bool) -> bool {
        IS_DEBUG_BUILD && !is_https && self.cookie.is_secure_by_default()
    }

    /// Returns a warning, once per process, if a client may have dropped a `Secure` cookie: it
    /// requests a loopback host over plain http and has no session cookie.
    ///
    /// A first try is among the first requests, and to look for the host in all of them would take
    /// 80 ns each (bench `overhead`, row "no cookie").
    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn secure_warning(
        &self,
        is_https: bool,
        has_cookie: bool,
        is_to_loopback: impl FnOnce() -> bool,
    ) -> Option<String> {
        const ASKED: u32 = 100;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        static IS_SAID: AtomicBool = AtomicBool::new(false);
        let is_due = !IS_DEBUG_BUILD
            && !has_cookie
            && !is_https
            && self.carrier == Carrier::Cookie
            && self.cookie.is_secure_by_default()
            && COUNT.load(Ordering::Relaxed) < ASKED
            && COUNT.fetch_add(1, Ordering::Relaxed) < ASKED
            && is_to_loopback()
            && !IS_SAID.swap(true, Ordering::Relaxed);
        is_due.then(|| {
            format!(
                "a client requested a loopback host over plain http, and the cookie `{}` is `Secure` \
                 because this is a release build; some clients drop such a cookie. If clients reach \
                 this server over plain http, call `secure(false)` on the manager's builder; behind \
                 an https proxy, ignore this warning",
                self.cookie_name()
            )
        })
    }

    /// Returns the log line for a refused cookie. It omits the value, which is secret.
    pub(crate) fn refused(&self, why: impl fmt::Display) -> String {
        let name = self.cookie_name();
        format!("the cookie `{name}` was refused, so the session is empty: {why}")
    }
}

impl Default for Settings {
    fn default() -> Self {
        #[expect(
            clippy::expect_used,
            reason = "the defaults are fixed, and a test builds them"
        )]
        let cookie = SessionCookie::new(Attributes::default()).expect("the defaults are valid");
        Self {
            cookie,
            expiry: Expiry::default(),
            clock: Clock::default(),
            on_store_error: OnStoreError::default(),
            commit_on_server_error: false,
            load_on_demand: false,
            carrier: Carrier::default(),
            by_host: None,
        }
    }
}
