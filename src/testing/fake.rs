//! A session without a server.

use std::sync::Arc;

use crate::{
    backend::{Backend, Commit, CommitOutcome, OpenOutcome, OpenRequest},
    error::Error,
    future::BackendFuture,
    manager::Manager,
    session::Session,
};

/// Returns a session that is empty and stored nowhere, for testing what takes a
/// [`HasSession`](crate::HasSession) or a [`Session`], without a server.
///
/// A handler that takes the framework's request finds it there too, if the test puts it in:
///
/// ```
/// # #[cfg(feature = "actix")] {
/// use actix_web::{HttpMessage, test::TestRequest};
/// use session_manager::{HasSession, manager, testing};
///
/// let session = testing::session();
/// session.add("user", "ada")?;
///
/// let request = TestRequest::default().to_http_request();
/// request.extensions_mut().insert(session.sessions()?);
/// assert_eq!(manager::get().get(&request, "user")?.as_deref(), Some("ada"));
/// # }
/// # Ok::<(), session_manager::Error>(())
/// ```
pub fn session() -> Session {
    let session = Session::new(Manager::new(Fake).into(), true, false, None);
    // Cannot fail: there is nothing to open.
    let _ = session.opened(Ok(OpenOutcome::Nothing));
    session
}

/// Keeps nothing.
struct Fake;

impl Backend for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn open(
        self: Arc<Self>,
        _: OpenRequest<'_>,
    ) -> BackendFuture<'static, Result<OpenOutcome, Error>> {
        BackendFuture::ready(Ok(OpenOutcome::Nothing))
    }

    fn commit(
        self: Arc<Self>,
        _: Commit<'_>,
    ) -> BackendFuture<'static, Result<CommitOutcome, Error>> {
        BackendFuture::ready(Ok(CommitOutcome::Keep))
    }
}
