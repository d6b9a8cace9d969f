//! Which manager serves a request, and the request's way through.

use std::any::Any;

use super::{Manager, RequestHead, Sessions, global};
use crate::{Error, Session, session::Headers};

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

/// A request on its way through a middleware.
pub(crate) struct Visit(Session);

impl Visit {
    /// Opens the session of `request`, which lies among `outer` from then on; `None` if it is there
    /// already. The request is read before the returned future begins.
    pub(crate) fn begin<'m>(
        manager: &'m Manager,
        is_global: bool,
        request: &dyn RequestHead,
        outer: Option<Sessions>,
    ) -> Option<impl Future<Output = Result<(Self, Sessions), Error>> + use<'m>> {
        if outer.as_ref().is_some_and(|outer| outer.has(manager)) {
            return None;
        }
        let opening = manager.begin(request);
        Some(async move {
            let session = opening.await?;
            let sessions = Sessions::new(session.clone(), is_global, outer);
            Ok((Self(session), sessions))
        })
    }

    /// Commits the session, and says what the response has to carry.
    pub(crate) fn end(
        &self,
        succeeded: bool,
        request: &dyn Any,
    ) -> impl Future<Output = Result<Headers, Error>> + use<'_> {
        self.0.commit(succeeded, request)
    }
}

/// The request may end without a response: a handler panicked, or the client went away. Once the
/// session is committed, nothing is left to abandon.
impl Drop for Visit {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
