//! What stands in for an engine where none is compiled in and none was set.

use crate::{Backend, BackendFuture, Commit, Error, Opened, Opening, Reply};

pub(crate) struct Missing;

impl Backend for Missing {
    fn engine(&self) -> &'static str {
        "none"
    }

    fn open<'a>(&'a self, _: Opening<'_>) -> BackendFuture<'a, Result<Opened, Error>> {
        BackendFuture::ready(Err(Error::NoEngine))
    }

    fn commit<'a>(&'a self, _: Commit<'_>) -> BackendFuture<'a, Result<Reply, Error>> {
        BackendFuture::ready(Err(Error::NoEngine))
    }
}
