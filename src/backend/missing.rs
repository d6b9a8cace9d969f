//! Stands in for a backend if none is compiled in and none was set, and while settings are checked.

use std::sync::Arc;

use crate::{
    backend::{Backend, Commit, CommitOutcome, OpenOutcome, OpenRequest},
    error::Error,
    future::BackendFuture,
};

pub(crate) struct Missing;

impl Backend for Missing {
    fn name(&self) -> &'static str {
        "none"
    }

    fn open(
        self: Arc<Self>,
        _: OpenRequest<'_>,
    ) -> BackendFuture<'static, Result<OpenOutcome, Error>> {
        BackendFuture::ready(Err(Error::NoBackend))
    }

    fn commit(
        self: Arc<Self>,
        _: Commit<'_>,
    ) -> BackendFuture<'static, Result<CommitOutcome, Error>> {
        BackendFuture::ready(Err(Error::NoBackend))
    }
}
