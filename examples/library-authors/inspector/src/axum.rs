//! The routes for axum.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use session_manager::{Error, Session};

use super::{HEADERS, Inspector, handle_in, origin};

/// Returns the routes of the page, to be merged inside the session middleware:
/// `Router::new().merge(inspector::axum::routes(&inspector))`.
pub fn routes<S: Clone + Send + Sync + 'static>(inspector: &Inspector) -> Router<S> {
    let path = inspector.path();
    Router::new()
        .route(path, get(show))
        .route(&format!("{path}/end"), post(end))
        .with_state(inspector.clone())
}

async fn show(State(inspector): State<Inspector>, session: Session) -> Result<Response, Error> {
    let html = inspector.page(&session).await?;
    Ok((HEADERS, html).into_response())
}

async fn end(
    State(inspector): State<Inspector>,
    session: Session,
    uri: Uri,
    headers: HeaderMap,
    form: Bytes,
) -> Result<Response, Error> {
    let header = |name: &str| headers.get(name).map(|value| value.as_bytes());
    let host = header(header::HOST.as_str())
        .or_else(|| uri.authority().map(|host| host.as_str().as_bytes()));
    if !origin::is_own(
        header("sec-fetch-site"),
        header(header::ORIGIN.as_str()),
        host,
    ) {
        let refused = (StatusCode::FORBIDDEN, "this form came from another site");
        return Ok(refused.into_response());
    }
    inspector.end(&session, &handle_in(&form)).await?;
    let location = [(header::LOCATION, inspector.path().to_owned())];
    Ok((StatusCode::SEE_OTHER, location).into_response())
}
