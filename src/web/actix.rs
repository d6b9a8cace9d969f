//! actix-web: the middleware, the extractor, and the requests that have a session.

use std::{
    any::Any,
    future::{Ready, ready},
    pin::Pin,
    rc::Rc,
};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest, HttpResponse, ResponseError,
    dev::{self, Extensions, Payload, Service, ServiceRequest, ServiceResponse, Transform},
    error::InternalError,
    guard::GuardContext,
    http::{
        StatusCode, Version,
        header::{self, HeaderMap, HeaderValue},
    },
};

use super::{PROXY_MARKS, cache_control_to_add, is_loopback, varies_by_cookie};
use crate::{
    BackendFuture, Error, HasSession, Middleware, Session, Sessions,
    cookie::{Found, SessionCookie},
    log::log,
    manager::RequestHead,
    session::Headers,
};

impl<S, B> Transform<S, ServiceRequest> for Middleware
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: 'static,
{
    type Response = ServiceResponse<B>;
    type Error = actix_web::Error;
    type InitError = ();
    type Transform = SessionService<S>;
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(SessionService {
            middleware: self.clone(),
            service: Rc::new(service),
        }))
    }
}

/// A service with sessions: what [`Middleware`] makes of a service of actix-web.
#[derive(Debug)]
pub struct SessionService<S> {
    middleware: Middleware,
    service: Rc<S>,
}

impl<S, B> Service<ServiceRequest> for SessionService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: 'static,
{
    type Response = ServiceResponse<B>;
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>>>>;

    dev::forward_ready!(service);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let service = Rc::clone(&self.service);
        let manager = self.middleware.manager();
        let is_global = self.middleware.is_global();
        Box::pin(async move {
            let outer = request.extensions().get::<Sessions>().cloned();
            if outer
                .as_ref()
                .is_some_and(|outer| outer.opened_by(&manager).is_some())
            {
                return service.call(request).await;
            }
            let session = manager.begin(request.request()).await?;
            let sessions = Sessions::new(session.clone(), is_global, outer);
            request.extensions_mut().insert(sessions);

            let _unanswered = Unanswered(&session);
            match service.call(request).await {
                Ok(mut response) => {
                    let succeeded = !response.status().is_server_error();
                    let headers = session.commit(succeeded, response.request()).await?;
                    write(headers, response.headers_mut());
                    Ok(response)
                }
                // Middleware between here and the handler may answer with an error instead of a
                // response. The response that it stands for has to carry the headers.
                Err(error) => {
                    let status = error.as_response_error().status_code();
                    let headers = session.commit(!status.is_server_error(), &()).await?;
                    if headers == Headers::default() {
                        return Err(error);
                    }
                    let mut response = error.error_response();
                    write(headers, response.headers_mut());
                    Err(InternalError::from_response(error, response).into())
                }
            }
        })
    }
}

/// The session of a request that may end without a response. Once it is committed, nothing is left
/// to abandon.
struct Unanswered<'a>(&'a Session);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

fn write(headers: Headers, map: &mut HeaderMap) {
    fn values<'m>(map: &'m HeaderMap, name: &header::HeaderName) -> impl Iterator<Item = &'m [u8]> {
        map.get_all(name).map(HeaderValue::as_bytes)
    }
    if headers.vary && !varies_by_cookie(values(map, &header::VARY)) {
        map.append(header::VARY, HeaderValue::from_static("Cookie"));
    }
    let Some(set_cookie) = headers.set_cookie else {
        return;
    };
    match HeaderValue::try_from(set_cookie) {
        Ok(set_cookie) => map.append(header::SET_COOKIE, set_cookie),
        Err(_) => {
            log!(
                ERROR,
                "a session engine made a token that cannot stand in a header; it was not sent"
            );
            return;
        }
    }
    if let Some(directive) = cache_control_to_add(values(map, &header::CACHE_CONTROL)) {
        map.append(header::CACHE_CONTROL, HeaderValue::from_static(directive));
    }
}

impl RequestHead for HttpRequest {
    fn find<'r>(&'r self, cookie: &SessionCookie) -> Found<'r> {
        cookie.find(
            self.headers()
                .get_all(header::COOKIE)
                .map(HeaderValue::as_bytes),
        )
    }

    fn is_http_to_loopback(&self) -> bool {
        // A host in the request line, as in HTTP/2, counts before the header (RFC 9112, section 3.2).
        let host = self
            .uri()
            .host()
            .or_else(|| self.headers().get(header::HOST)?.to_str().ok());
        host.is_some_and(is_loopback)
            && !self.app_config().secure()
            // Proxies that set no mark and name the upstream as host, as nginx does unless told
            // otherwise, have long spoken HTTP/1.0.
            && self.version() > Version::HTTP_10
            && !PROXY_MARKS.iter().any(|mark| self.headers().contains_key(*mark))
    }

    fn framework(&self) -> &dyn Any {
        self
    }
}

fn sessions(extensions: &Extensions) -> Result<Sessions, Error> {
    extensions
        .get::<Sessions>()
        .cloned()
        .ok_or(Error::NotMounted)
}

impl HasSession for HttpRequest {
    fn sessions(&self) -> Result<Sessions, Error> {
        sessions(&self.extensions())
    }
}

impl HasSession for ServiceRequest {
    fn sessions(&self) -> Result<Sessions, Error> {
        sessions(&self.extensions())
    }
}

impl<B> HasSession for ServiceResponse<B> {
    fn sessions(&self) -> Result<Sessions, Error> {
        self.request().sessions()
    }
}

impl HasSession for GuardContext<'_> {
    fn sessions(&self) -> Result<Sessions, Error> {
        sessions(&self.req_data())
    }
}

/// The request's own session: see [`HasSession::session`]. Loads it, if it is loaded on demand.
impl FromRequest for Session {
    type Error = Error;
    type Future = BackendFuture<'static, Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        match request.session() {
            Err(Error::NotLoaded) => {}
            session => return BackendFuture::ready(session),
        }
        let session = request.sessions().map(|sessions| sessions.own());
        BackendFuture::pending(async move {
            let session = session?;
            session.open().await?;
            Ok(session)
        })
    }
}

/// Opaque: the client reads a status and its phrase, the log has the rest.
impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Unavailable { .. } | Self::ReadOnly => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        log!(ERROR, "{}", crate::error::chain(self));
        let status = self.status_code();
        HttpResponse::build(status)
            .insert_header(header::ContentType::plaintext())
            .body(status.canonical_reason().unwrap_or_default())
    }
}
