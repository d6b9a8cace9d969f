//! The middleware for axum.

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{StatusCode, header::HOST, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use session_manager::manager;

use super::{
    Csrf, Head, Refused, is_safe,
    sent::{form_token, header_token, is_form},
};

/// The maximum length of a form, in bytes.
const MAX_FORM: usize = 256 * 1024;

/// A middleware that answers 403 to what [`Csrf::check`] refuses:
/// `.layer(from_fn_with_state(Csrf::new(), csrf::axum::protect))`, inside the session middleware.
pub async fn protect(State(csrf): State<Csrf>, req: Request, next: Next) -> Response {
    let (parts, mut body) = req.into_parts();
    if is_safe(&parts) {
        return next.run(Request::from_parts(parts, body)).await;
    }
    // Loads a session that is loaded on demand.
    if let Err(error) = manager::get().open(&parts).await {
        return error.into_response();
    }
    let mut token = header_token(&parts);
    if token.is_none() && is_form(&parts) {
        let Ok(form) = to_bytes(body, MAX_FORM).await else {
            return StatusCode::PAYLOAD_TOO_LARGE.into_response();
        };
        token = form_token(&form);
        body = Body::from(form);
    }
    match csrf.check(&parts, token.as_deref()) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(Refused::Session(error)) => error.into_response(),
        Err(refused) => (StatusCode::FORBIDDEN, refused.to_string()).into_response(),
    }
}

impl Head for Parts {
    fn method(&self) -> &str {
        self.method.as_str()
    }

    fn host(&self) -> Option<&[u8]> {
        let header = self.headers.get(HOST).map(|host| host.as_bytes());
        header.or_else(|| self.uri.authority().map(|host| host.as_str().as_bytes()))
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name).map(|value| value.as_bytes())
    }
}
