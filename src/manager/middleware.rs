//! Which manager serves a request.

use super::{Manager, global};

/// Opens a session before the handler runs, and commits it before the response head is sent.
///
/// One type for every web framework: in actix-web a `Transform`, for `App::wrap`; a tower `Layer`
/// for axum's `Router::layer`, for tonic and for any other stack of tower services. It comes from
/// [`manager::middleware`](super::middleware()) or, for a second session beside that,
/// [`Manager::middleware`].
///
/// Mounted twice with the same manager, the inner one does nothing.
#[derive(Clone, Debug)]
pub struct Middleware(Option<Manager>);

impl Middleware {
    pub(super) fn global() -> Self {
        Self(None)
    }

    pub(super) fn fixed(manager: Manager) -> Self {
        Self(Some(manager))
    }

    /// The manager for a request that begins now. Asked once per request: one that was opened with
    /// one key must not be committed with another.
    pub(crate) fn manager(&self) -> Manager {
        self.0.clone().unwrap_or_else(global::current)
    }

    pub(crate) fn is_global(&self) -> bool {
        self.0.is_none()
    }
}
