//! Builds a manager, and refuses what a browser would drop in silence.

use std::{
    any::Any,
    fmt,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime},
};

use cookie::SameSite;

use super::{Inner, Manager, default::Insecure};
use crate::{
    backend::Backend,
    carrier::Carrier,
    cookie::{
        Attributes, SessionCookie,
        by_host::{CookieByHost, DomainFor},
    },
    error::ConfigError,
    expiry::{Clock, Expiry},
    manager::migration::MigratingBackend,
    observer::{Observer, Observers, Observing},
    settings::{OnStoreError, Settings},
};
#[cfg(feature = "server-side")]
use crate::{
    backend::revocable::{Kept, Revocable, Revocations},
    store::Store,
};

/// Builds a [`Manager`]. It comes from [`Manager::builder`].
///
/// ```
/// # #[cfg(feature = "cookies")] {
/// use std::time::Duration;
/// use session_manager::{Key, Manager, SameSite, SignedCookie};
///
/// let manager = Manager::builder(SignedCookie::new(Key::generate()))
///     .cookie_name("__Host-shop")
///     .same_site(SameSite::Strict)
///     .idle_timeout(Duration::from_secs(20 * 60))
///     .absolute_timeout(Duration::from_secs(8 * 60 * 60))
///     .build()?;
/// # }
/// # Ok::<(), session_manager::ConfigError>(())
/// ```
#[must_use]
pub struct Builder {
    backend: Arc<dyn Backend>,
    cookie: Attributes,
    domain_for: Option<DomainFor>,
    expiry: Expiry,
    /// Whether the application set the idle timeout.
    is_idle_set: bool,
    clock: Clock,
    on_store_error: OnStoreError,
    commit_on_server_error: bool,
    load_on_demand: bool,
    carrier: Carrier,
    old: Option<Manager>,
    #[cfg(feature = "server-side")]
    revocations: Option<Arc<dyn Revocations>>,
    #[cfg(feature = "server-side")]
    revocation_cache: Duration,
    insecure: Option<Insecure>,
    observers: Vec<Observing>,
    sweeping: Option<Box<dyn Any + Send + Sync>>,
}

impl Builder {
    pub(super) fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            cookie: Attributes::default(),
            domain_for: None,
            expiry: Expiry::default(),
            is_idle_set: false,
            clock: Clock::default(),
            on_store_error: OnStoreError::default(),
            commit_on_server_error: false,
            load_on_demand: false,
            carrier: Carrier::default(),
            old: None,
            #[cfg(feature = "server-side")]
            revocations: None,
            #[cfg(feature = "server-side")]
            revocation_cache: Self::REVOCATION_CACHE,
            insecure: None,
            observers: Vec::new(),
            sweeping: None,
        }
    }

    /// Sets the name of the session cookie. Default: `_session`.
    ///
    /// A name that begins with `__Host-` keeps other hosts of the same site from planting the
    /// cookie (RFC 6265bis, section 4.1.3.2), and makes it `Secure` in every build.
    pub fn cookie_name(mut self, name: impl Into<String>) -> Self {
        self.cookie.name = name.into();
        self
    }

    /// Sets the path below which browsers send the cookie. Default: `/`.
    pub fn cookie_path(mut self, path: impl Into<String>) -> Self {
        self.cookie.path = path.into();
        self
    }

    /// Sets the domain whose hosts all get the cookie. Default: none, so that only the host that
    /// set it does.
    pub fn cookie_domain(mut self, domain: impl Into<String>) -> Self {
        self.cookie.domain = Some(domain.into());
        self.domain_for = None;
        self
    }

    /// Sets the domain of the cookie by the request's host, for an application that serves many
    /// tenants. In place of [`cookie_domain`](Self::cookie_domain).
    ///
    /// `domain_for` receives the host in lower case, without port and final dot. It returns the
    /// tenant's domain, whose hosts all get the cookie, or `None`: then that host alone does.
    ///
    /// A session belongs to its tenant, the domain or the single host: a cookie that was copied to
    /// another tenant opens nothing there, and neither does one that a tenant's page sets for a
    /// domain above both (cookie tossing). A cookie backend signs the tenant with the session, and
    /// a server-side one derives the store's id from it. Two cookies of one name with different
    /// values are rejected, so a tenant that can set cookies for a domain above another one can log
    /// its visitors out: keep tenants that do not trust each other on domains of their own, or have
    /// the common domain added to the Public Suffix List.
    ///
    /// - The host is that of the request line (`:authority` in HTTP/2), or the `Host` header. Behind
    ///   a proxy, let it pass on the client's host; no other header is read.
    /// - An IP address has no domain: the function is not called, and the cookie is that host's.
    /// - A domain that does not cover the host would be dropped by browsers: the cookie is that
    ///   host's, and the first time a warning is logged.
    /// - A request without a valid host has a session that no valid host opens.
    ///
    /// Sessions from before this was set belong to no tenant, and end. It can't be used with
    /// [`migrate_from`](Self::migrate_from).
    ///
    /// ```
    /// # #[cfg(feature = "cookies")] {
    /// use session_manager::{Key, Manager, SignedCookie};
    ///
    /// let manager = Manager::builder(SignedCookie::new(Key::generate()))
    ///     .cookie_domain_for(|host| {
    ///         // shop.ada.example and www.ada.example are one tenant.
    ///         let labels: Vec<_> = host.rsplitn(3, '.').take(2).collect();
    ///         (labels.len() == 2).then(|| format!("{}.{}", labels[1], labels[0]))
    ///     })
    ///     .build()?;
    /// # }
    /// # Ok::<(), session_manager::ConfigError>(())
    /// ```
    pub fn cookie_domain_for(
        mut self,
        domain_for: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.cookie.domain = None;
        self.domain_for = Some(Arc::new(domain_for));
        self
    }

    /// Sets whether browsers send the cookie over https alone.
    ///
    /// Default: `true`. Only a debug build leaves `Secure` out by itself, towards a loopback host
    /// (`localhost`, `127.0.0.1`, `[::1]`) over plain http and without a proxy's header fields, so
    /// that a first try works with every client. A debug build is one whose profile is `dev` or
    /// inherits from it, and has debug assertions.
    ///
    /// A release build never does: behind a proxy, a loopback host is no sign of a local client. It
    /// logs once what to do instead. For a release build that clients reach over plain http, say
    /// `secure(false)`; behind a proxy that serves https, there is nothing to do.
    ///
    /// Which clients take a `Secure` cookie over plain http, as tried:
    ///
    /// | client | `localhost` | `127.0.0.1` | `app.localhost` |
    /// |---|---|---|---|
    /// | Chromium 156 | yes | yes | yes |
    /// | Firefox 153 | yes | yes | yes |
    /// | curl 7.88 | yes | yes | no |
    ///
    /// Other clients may not, and none does at another host or address.
    pub fn secure(mut self, secure: bool) -> Self {
        self.cookie.secure = Some(secure);
        self
    }

    /// Sets whether the cookie is hidden from scripts in the page. Default: `true`.
    pub fn http_only(mut self, http_only: bool) -> Self {
        self.cookie.http_only = http_only;
        self
    }

    /// Sets whether browsers send the cookie when another site causes the request. Default:
    /// [`SameSite::Lax`], only when a person follows a link.
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.cookie.same_site = same_site;
        self
    }

    /// Sets whether browsers keep one cookie for each site that embeds this one (CHIPS). Default:
    /// `false`.
    pub fn partitioned(mut self, partitioned: bool) -> Self {
        self.cookie.partitioned = partitioned;
        self
    }

    /// Sets whether the cookie survives the end of the browser, by a `Max-Age` that ends with the
    /// session. Default: `false`.
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.cookie.persistent = persistent;
        self
    }

    /// Sets how a session's token travels between client and server. Default: [`Carrier::Cookie`].
    ///
    /// ```
    /// # #[cfg(feature = "cookies")] {
    /// use session_manager::{Carrier, Key, Manager, SignedCookie};
    ///
    /// let manager = Manager::builder(SignedCookie::new(Key::generate()))
    ///     .carrier(Carrier::Header("x-session"))
    ///     .build()?;
    /// # }
    /// # Ok::<(), session_manager::ConfigError>(())
    /// ```
    pub fn carrier(mut self, carrier: Carrier) -> Self {
        self.carrier = carrier;
        self
    }

    /// Sets how long a session lasts without being used. Default: 24 hours, or the absolute timeout if
    /// that is shorter.
    ///
    /// A longer one than the [absolute timeout](Self::absolute_timeout) has no effect, so
    /// [`build`](Self::build) refuses it: for sessions of 30 days, set both.
    ///
    /// Its end moves when it is used, but at most once per twentieth of this time.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.expiry.idle = timeout;
        self.is_idle_set = true;
        self
    }

    /// Sets how long a session lasts at most, even if it is used. Default: 7 days.
    pub fn absolute_timeout(mut self, timeout: Duration) -> Self {
        self.expiry.absolute = timeout;
        self
    }

    /// Sets what happens to a request whose session the backend cannot open. Default:
    /// [`OnStoreError::Fail`].
    pub fn on_store_error(mut self, policy: OnStoreError) -> Self {
        self.on_store_error = policy;
        self
    }

    /// Sets whether a session is saved even if the response is a server error (5xx). Default:
    /// `false`, so that a request which failed half-way leaves nothing half-done; ending a session
    /// sticks in any case.
    pub fn commit_on_server_error(mut self, commit: bool) -> Self {
        self.commit_on_server_error = commit;
        self
    }

    /// Leaves a server-side store alone until the `Session` extractor or
    /// [`Manager::open`] asks for the session; a synchronous access before that is
    /// [`Error::NotLoaded`](crate::Error::NotLoaded), whether or not the request has a cookie. For
    /// applications most of whose routes never look. Default: every request that has a cookie opens
    /// its session first.
    pub fn load_on_demand(mut self) -> Self {
        self.load_on_demand = true;
        self
    }

    /// Migrates the sessions of `old`: for an application that changes from cookies to a store,
    /// from one store, key or cookie name to another, and logs no user out.
    ///
    /// A session that only `old` knows is opened there. When it is next written or touched it
    /// migrates: the new backend keeps it, its old record is destroyed and its old cookie removed.
    /// It keeps its age, so every session has migrated or ended after the [absolute
    /// timeout](Self::absolute_timeout), and `migrate_from` can go. `old` may itself migrate from
    /// another manager.
    ///
    /// To a server-side backend, in one process and in several on the same stores:
    ///
    /// - Requests that overlap the migration lose nothing: a session has the same id wherever it
    ///   migrates, so one request creates the record and the others merge into it.
    /// - The old cookie opens the migrated session for as long as it could have opened the old one,
    ///   unless the session was renewed since (session fixation).
    /// - A log-out ends the session wherever it is, whatever is under way, and for copies of an old
    ///   cookie too (CVE-2025-46336). It leaves a record without values until the old manager's absolute
    ///   timeout is over: about 100 bytes for each log-out while sessions migrate.
    ///
    /// To a cookie backend:
    ///
    /// - From a server-side one: of requests that overlap, one takes the record and sends the cookie.
    ///   The others send none, and what they wrote is dropped and logged. A log-out before that ends the
    ///   session; one after it removes the client's cookie, as ever in a cookie backend.
    /// - A session that does not fit into a cookie stays where it is, and a write to it is
    ///   [`Error::TooLarge`](crate::Error::TooLarge).
    ///
    /// Let every process run with `migrate_from` before old cookies are sent to it: a process that
    /// has only the old manager does not see a session that has migrated.
    ///
    /// ```
    /// # #[cfg(all(feature = "cookies", feature = "memory"))] {
    /// use session_manager::{Key, Manager, MemoryStore, ServerSide, SignedCookie, manager};
    ///
    /// let old = Manager::new(SignedCookie::new(Key::from_secret("the secret of the year before last..")?));
    /// let new = ServerSide::new(MemoryStore::new());
    /// manager::set(Manager::builder(new).migrate_from(old).build()?);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn migrate_from(mut self, old: impl Into<Arc<Manager>>) -> Self {
        self.old = Some(Manager::clone(&old.into()));
        self
    }

    /// Adds an observer, which is told what happens to sessions and how long store calls take: see
    /// [`observer`](crate::observer). Several are told in the order in which they were added. Default:
    /// none.
    ///
    /// Store calls of a manager that this one [migrates from](Self::migrate_from) are told to that
    /// manager's observers, or to these if it has none.
    ///
    /// ```
    /// # #[cfg(feature = "cookies")] {
    /// use session_manager::{Key, Manager, SignedCookie, observer::{About, Event}};
    ///
    /// let manager = Manager::builder(SignedCookie::new(Key::generate()))
    ///     .observe(|event: Event, _: &About<'_>| {
    ///         if let Event::Refused { why } = event {
    ///             eprintln!("a cookie was refused: {}", why.as_str());
    ///         }
    ///     })
    ///     .build()?;
    /// # }
    /// # Ok::<(), session_manager::ConfigError>(())
    /// ```
    pub fn observe(mut self, observer: impl Observer) -> Self {
        self.observers.push(Observing::new(observer));
        self
    }

    /// Makes the sessions of a cookie backend revocable: a log-out ends every copy of the session's
    /// cookie, and [`destroy_user_sessions`](Manager::destroy_user_sessions) those of all of a user's
    /// logins. What was revoked is kept in `store`, which may be that of other sessions too.
    ///
    /// It works for sessions with a user: call [`Session::set_user`](crate::Session::set_user) at login.
    /// The user is then a part of the cookie.
    ///
    /// - A request whose session has a user takes one look-up of the store, whose answer is used again
    ///   for [`revocation_cache`](Self::revocation_cache). Other requests take none. A log-in, a
    ///   renewal and a new lifetime take one each, and a log-out takes two calls.
    /// - [`Session::destroy`](crate::Session::destroy) revokes the cookies of that login, also those
    ///   from before a renewal. The user's other logins stay. After 256 such log-outs of one user whose
    ///   cookies are not over, the next one revokes all of the user's logins.
    /// - [`Session::renew`](crate::Session::renew) revokes nothing: until a log-out, a copy from before
    ///   still opens the session.
    /// - [`destroy_user_sessions`](Manager::destroy_user_sessions) and
    ///   [`destroy_other_user_sessions`](Manager::destroy_other_user_sessions) return 0, because cookies
    ///   cannot be counted, and [`user_sessions`](Manager::user_sessions) is still
    ///   [`Error::NoUserIndex`](crate::Error::NoUserIndex).
    /// - A login after a revocation opens at once, in the same millisecond and in another process too:
    ///   its cookie names the revocation that it comes after, and no clocks are compared.
    /// - Cookies that were made before this was set, or before `set_user`, have no user and cannot be
    ///   revoked.
    ///
    /// If the store does not answer within 2 seconds, a request whose session has a user fails as
    /// [`on_store_error`](Self::on_store_error) says, and a log-in or log-out with 503: a session that
    /// may be revoked does not open. The store holds one small record for each user whose logins were
    /// revoked, under a SHA-256 of the user, for 400 days, which is the longest that a cookie may live
    /// ([`Lifetime::MAX`](crate::Lifetime::MAX)), or the absolute timeout if that is longer. A store that
    /// evicts records early makes revoked cookies valid again.
    ///
    /// ```
    /// # #[cfg(all(feature = "cookies", feature = "memory"))] {
    /// use session_manager::{Key, Manager, MemoryStore, SignedCookie};
    ///
    /// // With more than one process, a store that all of them share.
    /// let manager = Manager::builder(SignedCookie::new(Key::generate()))
    ///     .revocations(MemoryStore::new())
    ///     .build()?;
    /// # }
    /// # Ok::<(), session_manager::ConfigError>(())
    /// ```
    #[cfg(feature = "server-side")]
    #[cfg_attr(docsrs, doc(cfg(feature = "server-side")))]
    pub fn revocations(mut self, store: impl Store) -> Self {
        self.revocations = Some(Arc::new(Kept::new(store)));
        self
    }

    /// For how long an answer of the store of [`revocations`](Self::revocations) is used again, unless
    /// [`revocation_cache`](Self::revocation_cache) says otherwise: 5 seconds.
    #[cfg(feature = "server-side")]
    #[cfg_attr(docsrs, doc(cfg(feature = "server-side")))]
    pub const REVOCATION_CACHE: Duration = Duration::from_secs(5);

    /// Sets for how long an answer of the store of [`revocations`](Self::revocations) is used again.
    /// Default: [`REVOCATION_CACHE`](Self::REVOCATION_CACHE). Zero asks the store each time.
    ///
    /// A revocation takes effect at once in the process that makes it, and in the others within this
    /// time.
    #[cfg(feature = "server-side")]
    #[cfg_attr(docsrs, doc(cfg(feature = "server-side")))]
    pub fn revocation_cache(mut self, span: Duration) -> Self {
        self.revocation_cache = span;
        self
    }

    /// Sets the clock that measures timeouts, for tests that move it. Default: the system's.
    ///
    /// ```
    /// # #[cfg(feature = "cookies")] {
    /// use std::time::{Duration, UNIX_EPOCH};
    /// use session_manager::{Key, Manager, SignedCookie};
    ///
    /// let manager = Manager::builder(SignedCookie::new(Key::generate()))
    ///     .clock(|| UNIX_EPOCH + Duration::from_secs(7))
    ///     .build()?;
    /// assert_eq!(manager.settings().now().millis(), 7_000);
    /// # }
    /// # Ok::<(), session_manager::ConfigError>(())
    /// ```
    pub fn clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Clock::new(now);
        self
    }

    pub(super) fn insecure(mut self, insecure: Option<Insecure>) -> Self {
        self.insecure = insecure;
        self
    }

    /// Keeps what sweeps the store until the last handle of the manager is dropped.
    pub(super) fn sweeping(mut self, sweeping: Option<Box<dyn Any + Send + Sync>>) -> Self {
        self.sweeping = sweeping;
        self
    }

    /// Builds the manager.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], if a browser would drop the cookie in silence, no session could last, none can
    /// move, or the idle timeout that was set is longer than the absolute timeout.
    pub fn build(self) -> Result<Manager, ConfigError> {
        for (timeout, which) in [
            (self.expiry.idle, "idle"),
            (self.expiry.absolute, "absolute"),
        ] {
            if timeout < Duration::from_millis(1) {
                return Err(ConfigError::ZeroTimeout { which });
            }
        }
        self.carrier.check()?;
        let Expiry { idle, absolute } = self.expiry;
        if self.is_idle_set && idle > absolute {
            return Err(ConfigError::IdleTimeoutTooLong { idle, absolute });
        }
        if let Some(old) = &self.old {
            for backend in [&*self.backend, old.backend()] {
                if !backend.can_move() {
                    return Err(ConfigError::CannotMigrate {
                        backend: backend.name(),
                    });
                }
            }
        }
        let by_host = match self.domain_for {
            Some(domain_for) => Some(CookieByHost::new(&self.cookie, domain_for)?),
            None => None,
        };
        if let Some(old) = &self.old
            && (by_host.is_some() || old.by_age().any(|old| old.settings().by_host.is_some()))
        {
            return Err(ConfigError::MigrationByHost);
        }
        let settings = Settings {
            by_host,
            cookie: SessionCookie::new(self.cookie)?,
            expiry: self.expiry,
            clock: self.clock,
            on_store_error: self.on_store_error,
            commit_on_server_error: self.commit_on_server_error,
            load_on_demand: self.load_on_demand,
            carrier: self.carrier,
        };
        #[cfg(feature = "server-side")]
        let (revocations, revocation_cache) = (self.revocations, self.revocation_cache);
        let Self {
            backend,
            old,
            insecure,
            observers,
            sweeping,
            ..
        } = self;
        #[cfg(feature = "server-side")]
        let backend = match &revocations {
            Some(_) if !backend.needs_response() || !backend.can_move() => {
                return Err(ConfigError::CannotRevoke {
                    backend: backend.name(),
                });
            }
            Some(revocations) => {
                let revocations = Arc::clone(revocations);
                Arc::new(Revocable::new(backend, revocations, revocation_cache))
            }
            None => backend,
        };
        let observers = Observers::new(observers, settings.cookie_name());
        if let Some(observers) = &observers {
            backend.observe(observers);
            if let Some(old) = &old {
                old.backend().observe(observers);
            }
        }
        let backend = match &old {
            Some(old) => Arc::new(MigratingBackend::new(
                backend,
                settings.cookie(),
                old.clone(),
            )),
            None => backend,
        };
        Ok(Manager(Arc::new(Inner {
            backend,
            settings,
            old,
            process_wide: AtomicBool::new(false),
            #[cfg(feature = "server-side")]
            revocations,
            insecure,
            observers,
            _sweeping: sweeping,
        })))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("backend", &self.backend.name())
            .field("cookie", &self.cookie)
            .field("expiry", &self.expiry)
            .finish_non_exhaustive()
    }
}
