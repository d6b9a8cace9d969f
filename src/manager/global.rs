//! The process-wide manager.

use std::{
    cell::{Cell, RefCell},
    fmt,
    panic::Location,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use arc_swap::{ArcSwap, cache::Cache};
use once_cell::sync::Lazy;

use super::{Manager, default::default_manager};
use crate::{log::log, manager::middleware::Middleware};

/// The process-wide manager. Use [`get`] and [`set`] where possible.
///
/// Until [`set`] is called it is the default manager: a signed cookie named `_session`, with the
/// key from the environment variable `SESSION_SECRET` if that holds at least 32 bytes. Otherwise a
/// debug build logs a warning and signs with a publicly known key, so that sessions survive a
/// restart; a release build logs an error and generates a key for this process only. See
/// [`is_insecure_default`].
pub static SESSION_MANAGER: Lazy<ArcSwap<Manager>> =
    Lazy::new(|| ArcSwap::from_pointee(default_manager()));

/// The caller of the last [`set`]. Locked while the manager is swapped, so that both match.
static SET_BY: Mutex<Option<&'static Location<'static>>> = Mutex::new(None);

thread_local! {
    /// The manager that [`with`] or [`scope`] uses instead of the process-wide one on this thread.
    static OVERRIDE: RefCell<Option<Arc<Manager>>> = const { RefCell::new(None) };

    /// What this thread's requests use. Taken out while it is used.
    static OWN: Cell<Option<Own>> = const { Cell::new(None) };
}

/// A thread's own handle on the process-wide manager. Its requests count their references on it: on
/// one counter of all threads, two threads wait for each other (bench `two_threads`).
struct Own {
    global: Cache<&'static ArcSwap<Manager>, Arc<Manager>>,
    handle: Arc<Manager>,
}

impl Own {
    fn new() -> Self {
        let mut global = Cache::new(&*SESSION_MANAGER);
        let handle = Arc::new(Manager::clone(global.load()));
        Self { global, handle }
    }

    /// Returns this thread's handle, after following the last [`set`].
    fn current() -> Arc<Manager> {
        let own = OWN.try_with(Cell::take).ok().flatten();
        let mut own = own.unwrap_or_else(Self::new);
        let global = own.global.load();
        if !own.handle.is(global) {
            own.handle = Arc::new(Manager::clone(global));
        }
        let handle = Arc::clone(&own.handle);
        // An ending thread keeps none.
        let _ = OWN.try_with(|cell| cell.set(Some(own)));
        handle
    }
}

/// Returns the manager that the application set, or the default manager. Never fails, never blocks.
///
/// Library crates call it at each use and do not keep the result:
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
    // Not in `set`, because an application can also store into the static directly.
    manager.now_process_wide();
    manager
}

/// Returns the manager for a new request.
pub(super) fn current() -> Arc<Manager> {
    let manager = overridden(Arc::clone).unwrap_or_else(Own::current);
    manager.now_process_wide();
    manager
}

/// Sets the process-wide manager and returns the former one.
///
/// It can be called at any time, even under load: a request in flight keeps the manager that it
/// started with, and new requests use the new one. A thread that has served requests keeps the
/// former manager, with its connections, until it serves the next one or ends.
///
/// Only applications should call it, not library crates: if two places in the code replace each
/// other's manager, a log line names both.
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
    set_at(manager.into(), Location::caller())
}

/// Sets the process-wide manager for the caller at `here`.
pub(super) fn set_at(manager: Arc<Manager>, here: &'static Location<'static>) -> Arc<Manager> {
    let mut set_by = SET_BY.lock().unwrap_or_else(PoisonError::into_inner);
    let former = SESSION_MANAGER.swap(manager);
    let other = set_by.replace(here).filter(|other| *other != here);
    drop(set_by);
    if let Some(other) = other {
        log!(
            WARN,
            "the session manager set at {other} was replaced at {here}: if one of them is a library, \
             remove its call, as only the application should call `session_manager::manager::set`"
        );
    }
    former
}

/// Returns a middleware that uses the current process-wide manager for each request.
///
/// Mount it outside all handlers and middleware that use sessions:
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

/// Returns `true` if the default manager is in use and `SESSION_SECRET` does not protect its
/// sessions.
///
/// An application can refuse to start in this case:
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

/// Calls `f` with `manager` instead of the process-wide one, on this thread only. Tests that use it
/// can run in parallel.
///
/// ```
/// # #[cfg(feature = "cookies")] {
/// use session_manager::{Key, Manager, PrivateCookie, manager};
///
/// let backend = manager::with(Manager::new(PrivateCookie::new(Key::generate())), || {
///     manager::get().backend_name()
/// });
/// assert_eq!(backend, "private cookie");
/// assert_ne!(manager::get().backend_name(), "private cookie");
/// # }
/// ```
pub fn with<R>(manager: impl Into<Arc<Manager>>, f: impl FnOnce() -> R) -> R {
    let _restored = Override::enter(manager.into());
    f()
}

/// Runs `future` with `manager` instead of the process-wide one: [`with`] for asynchronous tests,
/// on any runtime.
///
/// The override is active while `future` is polled or dropped. It covers middleware that `future`
/// calls, but not tasks that it spawns or servers on other threads.
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
            // Values that the future drops may call `get` too.
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

/// Overrides this thread's manager while it lives. Dropping it restores the former one, also on
/// panic.
struct Override(Option<Arc<Manager>>);

impl Override {
    fn enter(manager: Arc<Manager>) -> Self {
        Self(OVERRIDE.replace(Some(manager)))
    }
}

impl Drop for Override {
    fn drop(&mut self) {
        let former = self.0.take();
        // An ending thread has no override left to restore. The replaced manager is dropped outside
        // the cell, because its backend may call `get` while it is dropped.
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
