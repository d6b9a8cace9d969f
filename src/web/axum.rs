//! axum: the extractor, and errors as responses.

use axum_core::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::request::Parts;

use super::tower::status;
use crate::{error::Error, log::log, request::Sessions, session::Session};

/// The request's own session: see [`HasSession::session`](crate::HasSession::session). Loads it, if it is
/// loaded on demand.
impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = Error;

    fn from_request_parts(
        parts: &mut Parts,
        _: &S,
    ) -> impl Future<Output = Result<Self, Error>> + Send {
        Sessions::extract(parts.extensions.get().ok_or(Error::NotMounted))
    }
}

/// Opaque: the client reads a status and its phrase, the log has the rest.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        log!(ERROR, "{}", crate::error::chain(&self));
        let status = status(&self);
        (status, status.canonical_reason().unwrap_or_default()).into_response()
    }
}
