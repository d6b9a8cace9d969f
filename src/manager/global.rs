//! The process-wide manager.

use std::{
    cell::RefCell,
    fmt,
    panic::Location,
    pin::Pin,
    sync::{Arc, Mutex, Once, PoisonError},
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use once_cell::sync::Lazy;

use super::{Manager, Middleware};
use crate::log::log;

/// The process-wide manager. Most code wants [`get`] and [`set`].
///
/// Until [`set`] is called it is the default: a signed cookie named `_session`, whose key is the
/// environment variable `SESSION_SECRET` if that holds 32 bytes or more. Without it, a debug build
/// signs with a key that everybody knows, so that sessions survive a restart, and warns; a release
/// build never does that: it draws a key for this process alone, and logs an error. See
/// [`is_insecure_default`].
pub static SESSION_MANAGER: Lazy<ArcSwap<Manager>> =
    Lazy::new(|| ArcSwap::from_pointee(default_manager()));

/// Who called [`set`] last. Held while the manager is swapped, so that the two agree.
static SET_BY: Mutex<Option<&'static Location<'static>>> = Mutex::new(None);

thread_local! {
    /// What [`with`] and [`scope`] put in place of the process-wide manager on this thread.
    static OVERRIDE: RefCell<Option<Arc<Manager>>> = const { RefCell::new(None) };
}

/// The manager that the application chose, or the default if it chose none. Never fails, never
/// blocks.
///
/// Library crates call it at each use and keep nothing:
///
/// ```
/// use session_manager::{Error, HasSession, Message, manager};
///
/// fn sign_in(req: &impl HasSession, user: &str) -> Result<(), Error> {
///     let session = manager::get().session(req)?;
///     session.renew();
///     session.add("user", user)?;
///     session.flash(Message::success("Welcome"))
/// }
/// ```
pub fn get() -> Arc<Manager> {
    let manager = overridden(Arc::clone).unwrap_or_else(|| SESSION_MANAGER.load_full());
    // Here and not in `set`, because an application may also store into the static.
    manager.now_process_wide();
    manager
}

/// The manager of a request that begins now.
pub(super) fn current() -> Manager {
    let manager = overridden(|manager| Manager::clone(manager))
        .unwrap_or_else(|| Manager::clone(&SESSION_MANAGER.load()));
    manager.now_process_wide();
    manager
}

/// Makes `manager` the process-wide one, and returns the one before.
///
/// May be called at any time, under load too: a request in flight finishes on the manager that it
/// began with, the next one uses the new one. Only applications call it, never library crates: two
/// callers that replace each other's manager are logged, both places named.
///
/// ```
/// # #[cfg(feature = "cookies")] {
/// use session_manager::{Key, Manager, SignedCookie, manager};
///
/// manager::set(Manager::new(SignedCookie::new(Key::generate())));
/// assert!(!manager::is_insecure_default());
/// # }
/// ```
#[track_caller]
pub fn set(manager: impl Into<Arc<Manager>>) -> Arc<Manager> {
    let manager = manager.into();
    let here = Location::caller();
    let mut set_by = SET_BY.lock().unwrap_or_else(PoisonError::into_inner);
    let former = SESSION_MANAGER.swap(manager);
    let other = set_by.replace(here).filter(|other| *other != here);
    drop(set_by);
    if let Some(other) = other {
        log!(
            WARN,
            "the session manager that was set at {other} is replaced at {here}: if these are two \
             parties, only the application should call `session_manager::manager::set`"
        );
    }
    former
}

/// A middleware that follows the process-wide manager, request by request.
///
/// Mount it around everything that uses sessions, outside of middleware that does:
///
/// ```
/// # #[cfg(feature = "actix")] {
/// use actix_web::App;
///
/// let app = App::new().wrap(session_manager::manager::middleware());
/// # }
/// ```
pub fn middleware() -> Middleware {
    Middleware::global()
}

/// Whether sessions are in the hands of the default manager and no `SESSION_SECRET` protects them.
///
/// An application that wants to be sure refuses to start:
///
/// ```should_panic
/// use session_manager::manager;
///
/// if manager::is_insecure_default() {
///     panic!("set SESSION_SECRET, or call manager::set");
/// }
/// ```
pub fn is_insecure_default() -> bool {
    get().is_insecure_default()
}

/// Calls `f` with `manager` in place of the process-wide one, on this thread alone: for tests, which
/// then run side by side.
///
/// ```
/// # #[cfg(feature = "cookies")] {
/// use session_manager::{Key, Manager, PrivateCookie, manager};
///
/// let engine = manager::with(Manager::new(PrivateCookie::new(Key::generate())), || {
///     manager::get().engine()
/// });
/// assert_eq!(engine, "private cookie");
/// assert_ne!(manager::get().engine(), "private cookie");
/// # }
/// ```
pub fn with<R>(manager: impl Into<Arc<Manager>>, f: impl FnOnce() -> R) -> R {
    let _restored = Override::enter(manager.into());
    f()
}

/// Runs `future` with `manager` in place of the process-wide one: [`with`] for asynchronous tests,
/// on any runtime.
///
/// It holds while `future` is polled or dropped, and not for what it spawns. It holds for a
/// middleware that is called from `future`; a server that runs on other threads does not see it.
pub fn scope<F: Future>(manager: impl Into<Arc<Manager>>, future: F) -> Scope<F> {
    Scope {
        future: Some(future),
        manager: manager.into(),
    }
}

pin_project_lite::pin_project! {
    /// The future that [`scope`] returns.
    #[must_use = "futures do nothing unless polled"]
    pub struct Scope<F> {
        #[pin]
        future: Option<F>,
        manager: Arc<Manager>,
    }

    impl<F> PinnedDrop for Scope<F> {
        fn drop(this: Pin<&mut Self>) {
            // What the future drops may ask for the manager too.
            let mut this = this.project();
            let _restored = Override::enter(Arc::clone(this.manager));
            this.future.set(None);
        }
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _restored = Override::enter(Arc::clone(this.manager));
        #[expect(clippy::expect_used, reason = "only `drop` takes the future out")]
        this.future
            .as_pin_mut()
            .expect("a scope has its future until it is dropped")
            .poll(context)
    }
}

impl<F> fmt::Debug for Scope<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("manager", &self.manager)
            .finish_non_exhaustive()
    }
}

/// While it lives, this thread has another manager; what was before comes back when it goes, by a
/// panic too.
struct Override(Option<Arc<Manager>>);

impl Override {
    fn enter(manager: Arc<Manager>) -> Self {
        Self(OVERRIDE.replace(Some(manager)))
    }
}

impl Drop for Override {
    fn drop(&mut self) {
        let former = self.0.take();
        // A thread that is ending has no override left to restore. The one that goes is dropped
        // outside the cell, because its engine may ask for the manager as it goes.
        let gone = OVERRIDE.try_with(|cell| cell.replace(former));
        drop(gone);
    }
}

fn overridden<R>(f: impl FnOnce(&Arc<Manager>) -> R) -> Option<R> {
    OVERRIDE
        .try_with(|cell| cell.borrow().as_ref().map(f))
        .ok()
        .flatten()
}

/// Why the default manager protects nothing, or not for long.
#[derive(Debug)]
pub(super) struct Insecure {
    why: Why,
    said: Once,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    #[cfg(feature = "cookies")]
    KnownKey(crate::KeyError),
    #[cfg(feature = "cookies")]
    RandomKey(crate::KeyError),
    #[cfg(not(feature = "cookies"))]
    NoEngine,
}

impl Insecure {
    fn new(why: Why) -> Self {
        Self {
            why,
            said: Once::new(),
        }
    }

    /// Says it when the first session is opened: before that, the application may still set a
    /// manager of its own.
    pub(super) fn say_once(&self) {
        self.said.call_once(|| match &self.why {
            #[cfg(feature = "cookies")]
            Why::KnownKey(error) => say(Severity::Warning, &format!(
                "sessions are signed with a development key that everybody knows, so anybody can \
                 forge them; a release build would not do that. Set SESSION_SECRET, or call \
                 `session_manager::manager::set` at start-up ({error})"
            )),
            #[cfg(feature = "cookies")]
            Why::RandomKey(error) => say(Severity::Error, &format!(
                "sessions are signed with a key drawn for this process, so they end with it and no \
                 other process accepts them. Set SESSION_SECRET, or call \
                 `session_manager::manager::set` at start-up ({error})"
            )),
            #[cfg(not(feature = "cookies"))]
            Why::NoEngine => say(Severity::Error, &crate::Error::NoEngine.to_string()),
        });
    }
}

#[derive(Clone, Copy)]
enum Severity {
    #[cfg(feature = "cookies")]
    Warning,
    Error,
}

/// Logs, and where nobody listens to the log, as in a first try, writes to standard error: an
/// insecure default that nobody hears of is the worse evil.
fn say(severity: Severity, text: &str) {
    match severity {
        #[cfg(feature = "cookies")]
        Severity::Warning => log!(WARN, "{text}"),
        Severity::Error => log!(ERROR, "{text}"),
    }
    #[cfg(feature = "tracing")]
    let heard = tracing::dispatcher::has_been_set()
        || tracing::log::max_level() != tracing::log::LevelFilter::Off;
    #[cfg(not(feature = "tracing"))]
    let heard = false;
    if !heard {
        #[expect(clippy::print_stderr, reason = "nobody listens to the log")]
        {
            eprintln!("session-manager: {text}");
        }
    }
}

#[cfg(feature = "cookies")]
fn default_manager() -> Manager {
    let (key, why) = default_key(
        crate::Key::from_env("SESSION_SECRET"),
        crate::profile::IS_DEBUG_BUILD,
    );
    default_with(crate::SignedCookie::new(key), why)
}

#[cfg(not(feature = "cookies"))]
fn default_manager() -> Manager {
    default_with(crate::backend::missing::Missing, Some(Why::NoEngine))
}

fn default_with(backend: impl crate::Backend, why: Option<Why>) -> Manager {
    #[expect(
        clippy::expect_used,
        reason = "nothing was set that a browser could refuse"
    )]
    Manager::builder(backend)
        .insecure(why.map(Insecure::new))
        .build()
        .expect("the defaults are valid")
}

/// The default manager's key, and what is wrong with it.
#[cfg(feature = "cookies")]
fn default_key(
    secret: Result<crate::Key, crate::KeyError>,
    is_debug_build: bool,
) -> (crate::Key, Option<Why>) {
    use crate::Key;

    const KNOWN: &str = "session-manager's development key, which everybody knows";
    let error = match secret {
        Ok(key) => return (key, None),
        Err(error) => error,
    };
    if is_debug_build && let Ok(key) = Key::from_secret(KNOWN) {
        (key, Some(Why::KnownKey(error)))
    } else {
        (Key::generate(), Some(Why::RandomKey(error)))
    }
}

#[cfg(all(test, feature = "cookies"))]
mod tests {
    use super::*;
    use crate::{Key, KeyError};

    fn unset() -> Result<Key, KeyError> {
        Err(KeyError::NotSet {
            name: "SESSION_SECRET".into(),
        })
    }

    #[test]
    fn a_debug_build_without_a_secret_has_the_known_key_and_says_so() {
        let (first, why) = default_key(unset(), true);
        let (second, _) = default_key(unset(), true);
        assert_eq!(
            first.derive("x"),
            second.derive("x"),
            "sessions survive a restart"
        );
        assert!(matches!(why, Some(Why::KnownKey(_))));
    }

    #[test]
    fn a_release_build_without_a_secret_never_signs_with_a_key_that_others_know() {
        let (first, why) = default_key(unset(), false);
        let (second, _) = default_key(unset(), false);
        let (known, _) = default_key(unset(), true);
        assert_ne!(first.derive("x"), second.derive("x"));
        assert_ne!(first.derive("x"), known.derive("x"));
        assert!(matches!(why, Some(Why::RandomKey(_))));
    }

    #[test]
    fn a_secret_is_used_in_every_build() {
        for is_debug_build in [true, false] {
            let secret = || Key::from_secret([1; 32]);
            let (key, why) = default_key(secret(), is_debug_build);
            assert_eq!(key.derive("x"), secret().unwrap().derive("x"));
            assert_eq!(why, None);
        }
    }
}
