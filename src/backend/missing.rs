//! What stands in for an engine where none is compiled in and none was set.

use std::sync::Arc;

use crate::{
    backend::{Backend, Commit, Opened, Opening, Reply},
    error::Error,
    future::BackendFuture,
};

pub(crate) struct Missing;

impl Backend for Missing {
    fn engine(&self) -> &'static str {
        "none"
    }

    fn open(self: Arc<Self>, _: Opening<'_>) -> BackendFuture<'static, Result<Opened, Error>> {
        BackendFuture::ready(Err(Error::NoEngine))
    }

    fn commit(self: Arc<Self>, _: Commit<'_>) -> BackendFuture<'static, Result<Reply, Error>> {
        BackendFuture::ready(Err(Error::NoEngine))
    }
}
