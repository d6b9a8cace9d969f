//! actix-web: the middleware, the extractor, and the requests that have a session.

use std::{
    borrow::Cow,
    future::{Ready, ready},
    rc::Rc,
};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest, HttpResponse, ResponseError,
    dev::{self, Extensions, Payload, Service, ServiceRequest, ServiceResponse, Transform},
    error::InternalError,
    guard::GuardContext,
    http::{
        StatusCode, Uri,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
};

use super::{
    Answer, Call, Field, Fields, SessionFuture, SessionService, body, is_to_loopback,
    reads_and_writes_headers, report,
};
use crate::{
    cookie::{Found, RequestHead, SessionCookie},
    error::Error,
    future::BackendFuture,
    manager::middleware::Middleware,
    profile::IS_DEBUG_BUILD,
    request::{HasSession, Sessions},
    session::{Session, commit::Headers},
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
            middleware: self.for_service(),
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
    type Future = SessionFuture<ActixCall<S>, S::Future, Result<Self::Response, Self::Error>>;

    dev::forward_ready!(service);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let is_https = request.app_config().secure();
        let session = self.begin(request.extensions().get::<Sessions>(), is_https);
        let mut opening = None;
        if let Some(session) = &session {
            // The head is still there when the handler asks.
            if !session.opens_at_once() {
                opening = session.begin(&Head::of(request.head()), request.request());
            }
            let sessions = Sessions::new(session.clone());
            request.extensions_mut().insert(sessions);
        }
        let service = Rc::clone(&self.service);
        SessionFuture::new(session, opening, ActixCall { service, request })
    }
}

/// A request of actix-web, and the service that handles it.
#[derive(Debug)]
pub struct ActixCall<S> {
    service: Rc<S>,
    request: ServiceRequest,
}

impl<S, B> Call for ActixCall<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error>,
{
    type Served = S::Future;

    fn call(self) -> S::Future {
        self.service.call(self.request)
    }
}

impl<B> Answer for Result<ServiceResponse<B>, actix_web::Error> {
    fn succeeded(&self) -> bool {
        let status = match self {
            Ok(response) => response.status(),
            Err(error) => error.as_response_error().status_code(),
        };
        !status.is_server_error()
    }

    fn with(self, headers: Result<Headers, Error>) -> Self {
        let headers = headers?;
        match self {
            Ok(mut response) => {
                headers.write(response.headers_mut());
                Ok(response)
            }
            // Middleware between here and the handler may answer with an error instead of a
            // response. The response that it stands for has to carry the headers.
            Err(error) if headers.is_empty() => Err(error),
            Err(error) => {
                let mut response = error.error_response();
                headers.write(response.headers_mut());
                Err(InternalError::from_response(error, response).into())
            }
        }
    }

    fn refused(error: Error) -> Self {
        Err(error.into())
    }
}

reads_and_writes_headers!();

impl<'r> Head<'r> {
    fn of(head: &'r dev::RequestHead) -> Self {
        Self {
            uri: &head.uri,
            headers: &head.headers,
        }
    }
}

/// Returns the sessions of a request, after parsing its head.
fn sessions<'e>(
    extensions: &'e Extensions,
    head: &dev::RequestHead,
) -> Result<&'e Sessions, Error> {
    let sessions = extensions.get::<Sessions>().ok_or(Error::NotMounted)?;
    sessions.read(&Head::of(head));
    Ok(sessions)
}

impl HasSession for HttpRequest {
    fn sessions(&self) -> Result<Sessions, Error> {
        sessions(&self.extensions(), self.head()).cloned()
    }
}

impl HasSession for ServiceRequest {
    fn sessions(&self) -> Result<Sessions, Error> {
        sessions(&self.extensions(), self.head()).cloned()
    }
}

impl<B> HasSession for ServiceResponse<B> {
    fn sessions(&self) -> Result<Sessions, Error> {
        self.request().sessions()
    }
}

impl HasSession for GuardContext<'_> {
    fn sessions(&self) -> Result<Sessions, Error> {
        sessions(&self.req_data(), self.head()).cloned()
    }
}

/// The request's own session: see [`HasSession::session`]. Loads it, if it is loaded on demand.
impl FromRequest for Session {
    type Error = Error;
    type Future = BackendFuture<'static, Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        Sessions::extract(sessions(&request.extensions(), request.head()))
    }
}

/// Sends only the status and its reason phrase to the client; the details are logged. In a debug build,
/// the response for [`Error::NotMounted`] explains the error.
impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        report(self);
        let status = self.status_code();
        HttpResponse::build(status)
            .insert_header(header::ContentType::plaintext())
            .body(
                body(
                    self,
                    status.canonical_reason().unwrap_or_default(),
                    IS_DEBUG_BUILD,
                )
                .into_owned(),
            )
    }
}
