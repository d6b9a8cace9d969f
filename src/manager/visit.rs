//! A request's way through a middleware.

use std::any::Any;

use super::{Manager, RequestHead, Sessions};
use crate::{Error, Session, session::Headers};

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
