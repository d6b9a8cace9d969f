//! The axum extractor, and errors as responses.

use axum_core::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::request::Parts;

use super::{body, report, tower::status};
use crate::{error::Error, profile::IS_DEBUG_BUILD, request::Sessions, session::Session};

/// Extracts the request's session: see [`HasSession::session`](crate::HasSession::session). Loads
/// it if the manager loads on demand.
impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = Error;

    fn from_request_parts(
        parts: &mut Parts,
        _: &S,
    ) -> impl Future<Output = Result<Self, Error>> + Send {
        Sessions::extract(parts.extensions.get().ok_or(Error::NotMounted))
    }
}

/// Sends only the status and its reason phrase to the client; the details are logged. In a debug build,
/// the response for [`Error::NotMounted`] explains the error.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        report(&self);
        let status = status(&self);
        let reason = status.canonical_reason().unwrap_or_default();
        (status, body(&self, reason, IS_DEBUG_BUILD)).into_response()
    }
}
