//! A commit's future must not borrow the request, which actix-web does not let leave its thread and
//! tower has given away by then.

use std::sync::Arc;

use session_manager::{Backend, Error, backend::{BackendFuture, Commit, Opened, Opening, Reply}};

struct Engine;

impl Backend for Engine {
    fn engine(&self) -> &'static str {
        "engine"
    }

    fn open(self: Arc<Self>, request: Opening<'_>) -> BackendFuture<'static, Result<Opened, Error>> {
        let token = request.token;
        BackendFuture::pending(async move {
            assert!(token.is_some());
            Ok(Opened::Nothing)
        })
    }

    fn commit(self: Arc<Self>, _: Commit<'_>) -> BackendFuture<'static, Result<Reply, Error>> {
        BackendFuture::ready(Ok(Reply::Keep))
    }
}

fn main() {}
