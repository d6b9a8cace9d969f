//! The middleware, and the manager that it uses for a request.

use std::sync::Arc;

use super::{Manager, global};

/// Opens the session before the handler runs, and commits it before the response head is sent.
///
/// One type serves all web frameworks: it is an actix-web `Transform` for `App::wrap`, and a tower
/// `Layer` for axum's `Router::layer`, tonic and other tower services. Create it with
/// [`manager::middleware`](super::middleware()), or with [`Manager::middleware`] for a second
/// session.
///
/// If it is mounted twice with the same manager, the inner one does nothing.
#[derive(Clone, Debug)]
pub struct Middleware(Option<Arc<Manager>>);

impl Middleware {
    pub(super) fn global() -> Self {
        Self(None)
    }

    pub(super) fn fixed(manager: Manager) -> Self {
        Self(Some(Arc::new(manager)))
    }

    /// Returns the middleware for one worker, with a handle on the manager for it alone: its
    /// requests count their references there, and not where those of all workers do. An axum router
    /// clones its layers for each request, so there it would gain nothing.
    #[cfg(feature = "actix")]
    pub(crate) fn for_service(&self) -> Self {
        Self(self.0.as_deref().cloned().map(Arc::new))
    }

    /// Returns the manager for a new request. Call it once per request: a session that was opened
    /// with one key must not be committed with another.
    pub(crate) fn manager(&self) -> Arc<Manager> {
        self.0.clone().unwrap_or_else(global::current)
    }

    pub(crate) fn is_global(&self) -> bool {
        self.0.is_none()
    }
}
