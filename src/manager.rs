//! The manager: opens sessions, commits them, and answers for a request.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

#[cfg(feature = "server-side")]
use crate::backend::revocable::Revocations;
use crate::{
    backend::{Backend, OpenOutcome, OpenRequest},
    carrier::Carrier,
    cookie::{Found, RequestHead, Tokens},
    error::Error,
    future::BackendFuture,
    manager::{builder::Builder, middleware::Middleware},
    observer::{EndedBy, Event, Names, Observers, Refusal},
    record::id::StoreId,
    settings::Settings,
};

pub(crate) mod builder;
pub(crate) mod config;
mod default;
pub(crate) mod global;
pub(crate) mod middleware;
mod migration;

pub use config::set_from_env;
pub use default::is_debug_build;
pub use global::{SESSION_MANAGER, Scope, get, is_insecure_default, middleware, scope, set, with};

/// A session backend with its settings: opens each request's session, and keeps it.
///
/// A handle: clones are the same manager. An application makes one and gives it to
/// [`manager::set`](set); a library crate takes whatever [`manager::get`](get) gives.
///
/// The methods that take a request find the session that this manager opened for it. The
/// process-wide manager takes the request's own if it opened none, because a session belongs to its
/// request: a library that kept a manager from before the application set its own still reads the
/// right session. A manager that was only mounted with [`middleware`](Self::middleware) never takes
/// another's: [`Error::NotMounted`].
///
/// ```
/// # #[cfg(feature = "cookies")] {
/// use session_manager::{Key, Manager, SignedCookie};
///
/// let manager = Manager::new(SignedCookie::new(Key::generate()));
/// assert_eq!(manager.settings().cookie_name(), "_session");
/// # }
/// ```
#[derive(Clone)]
pub struct Manager(Arc<Inner>);

struct Inner {
    backend: Arc<dyn Backend>,
    settings: Settings,
    /// The manager whose sessions this one takes over.
    old: Option<Manager>,
    /// What revokes the sessions of its cookies.
    #[cfg(feature = "server-side")]
    revocations: Option<Arc<dyn Revocations>>,
    /// Whether it is or was the process-wide manager, which a library may have kept.
    process_wide: AtomicBool,
    /// Set on the default manager where its key protects nothing, or not for long.
    insecure: Option<default::Insecure>,
    observers: Option<Observers>,
    /// Deletes expired rows until the last handle of the manager is dropped.
    _sweeping: Option<Box<dyn Any + Send + Sync>>,
}

impl Manager {
    /// Creates a manager with the builder's defaults: a cookie `_session` with `HttpOnly`,
    /// `SameSite=Lax`, `Path=/`, and `Secure` (see [`Builder::secure`]); an idle timeout of 24
    /// hours and an absolute one of 7 days.
    pub fn new(backend: impl Backend) -> Self {
        let settings = Settings::default();
        Self(Arc::new(Inner {
            backend: Arc::new(backend),
            settings,
            old: None,
            #[cfg(feature = "server-side")]
            revocations: None,
            process_wide: AtomicBool::new(false),
            insecure: None,
            observers: None,
            _sweeping: None,
        }))
    }

    /// Returns a builder for a manager with other settings.
    pub fn builder(backend: impl Backend) -> Builder {
        Builder::new(Arc::new(backend))
    }

    /// Returns the name of the backend for people, such as `signed cookie`.
    pub fn backend_name(&self) -> &'static str {
        self.0.backend.name()
    }

    /// Returns the settings.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Returns `true` if this is the default manager and no `SESSION_SECRET` protects its sessions.
    /// See [`manager::is_insecure_default`](is_insecure_default).
    pub fn is_insecure_default(&self) -> bool {
        self.0.insecure.is_some()
    }

    /// Returns a middleware that opens and commits sessions with this manager.
    ///
    /// [`manager::middleware`](middleware()) follows the process-wide manager instead, which is
    /// what an application mounts as a rule; this is for a second session beside it, with a cookie
    /// name of its own: of two under one name the client keeps the outer one's.
    pub fn middleware(&self) -> Middleware {
        Middleware::fixed(self.clone())
    }

    pub(crate) fn observers(&self) -> Option<&Observers> {
        self.0.observers.as_ref()
    }

    /// Tells that sessions of the user were ended. Nothing may be locked.
    pub(crate) fn tell_destroyed(
        &self,
        by: EndedBy,
        count: usize,
        user: &str,
        id: Option<StoreId>,
    ) {
        let Some(observers) = self.observers().filter(|_| count > 0) else {
            return;
        };
        let names = observers.names(|| Names {
            handle: id.map(|id| id.to_string()),
            user: Some(user.to_owned()),
        });
        let event = Event::Destroyed { by, count };
        observers.tell_of(self.backend_name(), event, &names);
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.0.backend
    }

    /// Returns the backend, for a call whose future owns it.
    pub(crate) fn backend_arc(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.0.backend)
    }

    /// Logs the warning of the default manager, once.
    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn warn(&self) {
        if let Some(insecure) = &self.0.insecure {
            insecure.say_once();
        }
    }

    /// Asks the backend for the session that these cookies name, with this manager's settings for
    /// the request.
    pub(crate) fn opening(
        &self,
        tokens: &Tokens,
        settings: &Settings,
        request: &dyn Any,
    ) -> BackendFuture<'static, Result<OpenOutcome, Error>> {
        self.backend_arc().open(asked(tokens, settings, request))
    }

    /// Opens the session that these cookies name, if that takes no future.
    pub(crate) fn opened_now(
        &self,
        tokens: &Tokens,
        settings: &Settings,
    ) -> Option<Result<OpenOutcome, Error>> {
        self.backend().open_now(asked(tokens, settings, &()))
    }

    /// Returns the session cookies of a request, this manager's and those of the managers that it
    /// migrates from, and why this manager's was refused.
    pub(crate) fn tokens(
        &self,
        request: &dyn RequestHead,
    ) -> (Tokens, Option<(Refusal, &'static str)>) {
        let settings = self.settings();
        let found = match settings.carrier() {
            Carrier::Cookie => request.find(settings.cookie()),
            carrier => carrier.find(request.values(carrier.request_header())),
        };
        let (own, refused) = match found {
            Found::Nothing => (None, None),
            Found::One(token) => (Some(token), None),
            Found::Refused(why, text) => (Some(""), Some((why, text))),
        };
        let tokens = Tokens {
            own: own.map(Box::from),
            old: self.old().map(|old| Box::new(old.tokens(request).0)),
        };
        (tokens, refused)
    }

    /// Returns the manager that this one migrates sessions from.
    fn old(&self) -> Option<&Self> {
        self.0.old.as_ref()
    }

    /// Returns what revokes the sessions of its cookies.
    #[cfg(feature = "server-side")]
    pub(crate) fn revocations(&self) -> Option<&Arc<dyn Revocations>> {
        self.0.revocations.as_ref()
    }

    /// Returns `true` if its sessions may have a user.
    pub(crate) fn has_users(&self) -> bool {
        #[cfg(feature = "server-side")]
        if self.revocations().is_some() {
            return true;
        }
        self.backend().users().is_some()
    }

    /// Iterates over this manager and those that it migrates from, the newest first.
    pub(crate) fn by_age(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |manager| manager.old())
    }

    pub(crate) fn is_process_wide(&self) -> bool {
        self.0.process_wide.load(Relaxed)
    }

    /// Notes that this is the process-wide manager.
    fn now_process_wide(&self) {
        // Read first: writing would take the cache line from every other thread.
        if !self.is_process_wide() {
            self.0.process_wide.store(true, Relaxed);
        }
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager")
            .field("backend", &self.backend_name())
            .field("settings", self.settings())
            .finish_non_exhaustive()
    }
}

fn asked<'r>(tokens: &'r Tokens, settings: &'r Settings, request: &'r dyn Any) -> OpenRequest<'r> {
    OpenRequest {
        token: tokens.own(),
        old: tokens.old(),
        settings,
        request,
    }
}
