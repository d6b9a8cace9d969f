//! A commit's future must not borrow the request, which actix-web does not let leave its thread and
//! tower has given away by then.

use std::sync::Arc;

use session_manager::{Backend, Error, backend::{BackendFuture, Commit, OpenOutcome, OpenRequest, CommitOutcome}};

struct Backend;

impl Backend for Backend {
    fn name(&self) -> &'static str {
        "backend"
    }

    fn open(self: Arc<Self>, request: OpenRequest<'_>) -> BackendFuture<'static, Result<OpenOutcome, Error>> {
        let token = request.token;
        BackendFuture::pending(async move {
            assert!(token.is_some());
            Ok(OpenOutcome::Nothing)
        })
    }

    fn commit(self: Arc<Self>, _: Commit<'_>) -> BackendFuture<'static, Result<CommitOutcome, Error>> {
        BackendFuture::ready(Ok(CommitOutcome::Keep))
    }
}

fn main() {}
