//! Observes sessions: what happens to them, and how long store calls take.
//!
//! [`Builder::observe`](crate::Builder::observe) takes an [`Observer`], which is told each [`Event`].
//! The feature `metrics` has one for the crate [`metrics`](https://docs.rs/metrics): `Metrics`.
//!
//! An event is told once it is true: when the store has the change, or when the cookie goes out with
//! the response. A change that a server error undid, or that the store did not take, is not told. Nor
//! is one of which that is not known, because the client went away during the store call.
//!
//! The observer is called on the thread that serves the request, with no session locked:
//!
//! - A slow one delays that request alone. It should count, or send to a channel, and not wait.
//! - One that panics is caught and logged. The session and the response are as without it, unless
//!   the program is built with `panic = "abort"`.
//!
//! Without an observer, nothing is measured.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use crate::log::log;

#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "server-side")]
pub(crate) mod timed;

#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use metrics::Metrics;

/// Is told what happens to sessions. A closure is one, too.
///
/// ```
/// # #[cfg(feature = "cookies")] {
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
/// use session_manager::{Key, Manager, Observer, SignedCookie};
/// use session_manager::observer::{About, Event};
///
/// #[derive(Clone, Default)]
/// struct Logins(Arc<AtomicU64>);
///
/// impl Observer for Logins {
///     fn event(&self, event: Event, _: &About<'_>) {
///         if event == Event::UserSet {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let logins = Logins::default();
/// let manager = Manager::builder(SignedCookie::new(Key::generate()))
///     .observe(logins.clone())
///     .observe(|event: Event, about: &About<'_>| println!("{}: {event:?}", about.backend))
///     .build()?;
/// # }
/// # Ok::<(), session_manager::ConfigError>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Receives an event. Calls may come from several threads at once.
    fn event(&self, event: Event, about: &About<'_>);

    /// Returns `true` to be told the handle and the user of each session ([`About::handle`],
    /// [`About::user`]). The default is `false`. Asked once, by
    /// [`Builder::observe`](crate::Builder::observe).
    fn wants_names(&self) -> bool {
        false
    }
}

impl<F: Fn(Event, &About<'_>) + Send + Sync + 'static> Observer for F {
    fn event(&self, event: Event, about: &About<'_>) {
        self(event, about);
    }
}

/// Something that happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A session was first stored, or its first cookie is sent.
    Created,
    /// A session got a new id and restarted its timeouts: [`Session::renew`](crate::Session::renew).
    Renewed,
    /// The user of a session was set: [`Session::set_user`](crate::Session::set_user).
    UserSet,
    /// A session moved here from an older manager:
    /// [`Builder::migrate_from`](crate::Builder::migrate_from).
    Migrated,
    /// Sessions ended before their time was over. Of requests that end one session at the same time,
    /// each is told.
    Destroyed {
        /// Who ended them.
        by: EndedBy,
        /// Their number; more than one for an administrator or a user's limit.
        count: usize,
    },
    /// The time of a session was over when a request came with its cookie, or when
    /// [`Session::revalidate`](crate::Session::revalidate) asked.
    ///
    /// A store no longer has a session whose time is over. If it is asked for one, that is
    /// [`Refusal::Unknown`].
    Expired,
    /// The cookie or token of a request opened nothing, so that its session is empty.
    Refused {
        /// The reason.
        why: Refusal,
    },
    /// A write was refused with [`Error::TooLarge`](crate::Error::TooLarge).
    TooLarge,
    /// A write had to be computed again, because another request was faster.
    Conflict,
    /// A call of the store ended. [`About::backend`] is the store.
    StoreCall {
        /// The call.
        operation: Operation,
        /// How long it took, by a monotonic clock.
        took: Duration,
        /// How it ended.
        outcome: CallOutcome,
    },
}

impl Event {
    /// Returns the name of the event, such as `created` or `store call`.
    ///
    /// ```
    /// use session_manager::observer::Event;
    ///
    /// assert_eq!(Event::Renewed.name(), "renewed");
    /// ```
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Renewed => "renewed",
            Self::UserSet => "user set",
            Self::Migrated => "migrated",
            Self::Destroyed { .. } => "destroyed",
            Self::Expired => "expired",
            Self::Refused { .. } => "refused",
            Self::TooLarge => "too large",
            Self::Conflict => "conflict",
            Self::StoreCall { .. } => "store call",
        }
    }
}

/// Gives an enum its names, for labels and log fields.
macro_rules! names {
    ($type:ident, $article:literal: $($variant:ident = $name:literal),+ $(,)?) => {
        impl $type {
            #[doc = concat!("Returns the name of this ", $article, " in labels.")]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

/// Who ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndedBy {
    /// A request that had the session: [`Session::destroy`](crate::Session::destroy), or for a cookie
    /// backend the removal of the last value.
    Handler,
    /// [`Manager::destroy_user_session`](crate::Manager::destroy_user_session) and the like.
    Administrator,
    /// A log-in of the same user that was one too many:
    /// [`Session::set_user_limited`](crate::Session::set_user_limited).
    Evicted,
}

names!(
    EndedBy, "cause":
    Handler = "handler",
    Administrator = "administrator",
    Evicted = "evicted",
);

/// Why the cookie or token of a request opened nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// It is not in the form of a session cookie.
    Malformed,
    /// It is longer than a cookie may be.
    TooLarge,
    /// The request has several that differ.
    Ambiguous,
    /// Its format is of another version.
    Version,
    /// No accepted key signed or encrypted it for this cookie name.
    Signature,
    /// The store has no session under its id: it ended, expired or was never made.
    Unknown,
    /// What the store has under its id cannot be read, or an unknown key encrypted it.
    Corrupt,
}

names!(
    Refusal, "reason":
    Malformed = "malformed",
    TooLarge = "too_large",
    Ambiguous = "ambiguous",
    Version = "version",
    Signature = "signature",
    Unknown = "unknown",
    Corrupt = "corrupt",
);

/// A call of a store: a method of [`Store`](crate::Store) or
/// [`UserIndex`](crate::store::UserIndex).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`Store::load`](crate::Store::load).
    Load,
    /// [`Store::create`](crate::Store::create).
    Create,
    /// [`Store::apply`](crate::Store::apply).
    Apply,
    /// [`Store::destroy`](crate::Store::destroy).
    Destroy,
    /// [`UserIndex::sessions_of`](crate::store::UserIndex::sessions_of).
    SessionsOf,
    /// [`UserIndex::ids_of`](crate::store::UserIndex::ids_of).
    IdsOf,
    /// [`UserIndex::destroy_of`](crate::store::UserIndex::destroy_of).
    DestroyOf,
    /// [`UserLimit::reserve`](crate::store::UserLimit::reserve).
    Reserve,
}

names!(
    Operation, "call":
    Load = "load",
    Create = "create",
    Apply = "apply",
    Destroy = "destroy",
    SessionsOf = "sessions_of",
    IdsOf = "ids_of",
    DestroyOf = "destroy_of",
    Reserve = "reserve",
);

/// How a call of a store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallOutcome {
    /// The store answered. What it answered may still be that there is no such session.
    Done,
    /// The store cannot be reached, or answered with an error of its own.
    Failed,
    /// The store took longer than it may.
    TimedOut,
    /// What is stored cannot be read.
    Corrupt,
    /// The request ended first, as when its client goes away. The store may still do it.
    Cancelled,
}

names!(
    CallOutcome, "outcome":
    Done = "done",
    Failed = "failed",
    TimedOut = "timed_out",
    Corrupt = "corrupt",
    Cancelled = "cancelled",
);

/// What an event is about.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct About<'a> {
    /// The name of the backend or store, such as `signed cookie` or `Redis`.
    pub backend: &'static str,
    /// The name of the manager's cookie, which tells two managers apart.
    pub cookie_name: &'a str,
    /// The session's [handle](crate::Session::handle), if it has one and the observer
    /// [asked](Observer::wants_names). It opens nothing.
    pub handle: Option<&'a str>,
    /// The session's user, if it has one and the observer [asked](Observer::wants_names).
    pub user: Option<&'a str>,
}

/// Shows neither handle nor user, because a log may.
impl fmt::Debug for About<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("About")
            .field("backend", &self.backend)
            .field("cookie_name", &self.cookie_name)
            .finish_non_exhaustive()
    }
}

/// The observers of a manager: what [`Backend::observe`](crate::Backend::observe) gets.
#[derive(Clone)]
pub struct Observers(Arc<Inner>);

struct Inner {
    observers: Vec<Observing>,
    wants_names: bool,
    cookie_name: String,
}

/// An observer, and whether it wants names.
#[derive(Clone)]
pub(crate) struct Observing {
    observer: Arc<dyn Observer>,
    wants_names: bool,
}

impl Observing {
    pub(crate) fn new(observer: impl Observer) -> Self {
        let wants_names = observer.wants_names();
        let observer = Arc::new(observer);
        Self {
            observer,
            wants_names,
        }
    }
}

/// The names of a session, for observers that want them.
#[derive(Clone, Default)]
pub(crate) struct Names {
    pub(crate) handle: Option<String>,
    pub(crate) user: Option<String>,
}

impl Observers {
    /// Creates the list; `None` if it is empty.
    pub(crate) fn new(observers: Vec<Observing>, cookie_name: &str) -> Option<Self> {
        if observers.is_empty() {
            return None;
        }
        Some(Self(Arc::new(Inner {
            wants_names: observers.iter().any(|it| it.wants_names),
            observers,
            cookie_name: cookie_name.to_owned(),
        })))
    }

    /// Tells each observer an event of `backend`, which is a backend's or a store's name.
    ///
    /// Call it with nothing locked: an observer may be slow.
    pub fn tell(&self, backend: &'static str, event: Event) {
        self.tell_of(backend, event, &Names::default());
    }

    /// Returns the names, unless no observer wants them.
    pub(crate) fn names(&self, names: impl FnOnce() -> Names) -> Names {
        match self.0.wants_names {
            true => names(),
            false => Names::default(),
        }
    }

    pub(crate) fn tell_of(&self, backend: &'static str, event: Event, names: &Names) {
        let named = About {
            backend,
            cookie_name: &self.0.cookie_name,
            handle: names.handle.as_deref(),
            user: names.user.as_deref(),
        };
        let unnamed = About {
            handle: None,
            user: None,
            ..named
        };
        for it in &self.0.observers {
            let about = if it.wants_names { &named } else { &unnamed };
            // An observer is foreign code, called where a panic would abort the process or lose what
            // the request did.
            let told = catch_unwind(AssertUnwindSafe(|| it.observer.event(event, about)));
            if told.is_err() {
                log!(
                    ERROR,
                    "an observer of sessions panicked; the request goes on"
                );
            }
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observers")
            .field("count", &self.0.observers.len())
            .finish_non_exhaustive()
    }
}
