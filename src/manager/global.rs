//! The process-wide manager.

use std::{
    cell::RefCell,
    fmt,
    panic::Location,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use once_cell::sync::Lazy;

use super::{Manager, default::default_manager};
use crate::{log::log, manager::middleware::Middleware};

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
