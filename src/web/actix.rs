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
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
};

use super::{Field, Fields, SessionService, is_http_to_loopback};
use crate::{
    BackendFuture, Error, HasSession, Middleware, Session, Sessions,
    cookie::{Found, SessionCookie},
    log::log,
    manager::{RequestHead, Visit},
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
    type Transform = SessionService<Rc<S>>;
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(SessionService {
            middleware: self.clone(),
            service: Rc::new(service),
        }))
    }
}

impl<S, B> Service<ServiceRequest> for SessionService<Rc<S>>
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
            let opening = Visit::begin(&manager, is_global, request.request(), outer);
            let Some(opening) = opening else {
                return service.call(request).await;
            };
            let (visit, sessions) = opening.await?;
            request.extensions_mut().insert(sessions);

            match service.call(request).await {
                Ok(mut response) => {
                    let succeeded = !response.status().is_server_error();
                    let headers = visit.end(succeeded, response.request()).await?;
                    headers.write(response.headers_mut());
                    Ok(response)
                }
                // Middleware between here and the handler may answer with an error instead of a
                // response. The response that it stands for has to carry the headers.
                Err(error) => {
                    let status = error.as_response_error().status_code();
                    let headers = visit.end(!status.is_server_error(), &()).await?;
                    if headers == Headers::default() {
                        return Err(error);
                    }
                    let mut response = error.error_response();
                    headers.write(response.headers_mut());
                    Err(InternalError::from_response(error, response).into())
                }
            }
        })
    }
}

impl Fields for HeaderMap {
    fn all(&self, field: Field) -> impl Iterator<Item = &[u8]> {
        self.get_all(name(field)).map(HeaderValue::as_bytes)
    }

    fn append(&mut self, field: Field, value: &str) -> bool {
        let value =
            HeaderValue::try_from(value).map(|value| HeaderMap::append(self, name(field), value));
        value.is_ok()
    }
}

fn name(field: Field) -> HeaderName {
    match field {
        Field::CacheControl => header::CACHE_CONTROL,
        Field::SetCookie => header::SET_COOKIE,
        Field::Vary => header::VARY,
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
        is_http_to_loopback(
            host,
            self.app_config().secure(),
            self.version() <= Version::HTTP_10,
            |field| self.headers().contains_key(field),
        )
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
        Sessions::extract(request.sessions())
    }
}

/// Opaque: the client reads a status and its phrase, the log has the rest.
impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        log!(ERROR, "{}", crate::error::chain(self));
        let status = self.status_code();
        HttpResponse::build(status)
            .insert_header(header::ContentType::plaintext())
            .body(status.canonical_reason().unwrap_or_default())
    }
}
