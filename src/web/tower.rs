//! The tower layer, and `HasSession` for `http` requests.

use std::{
    borrow::Cow,
    mem,
    task::{Context, Poll},
};

use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header,
    request::Parts, uri::Scheme,
};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    Answer, Call, Field, Fields, SessionFuture, SessionService, is_to_loopback,
    reads_and_writes_headers, report,
};
use crate::{
    cookie::{Found, RequestHead, SessionCookie},
    error::Error,
    manager::middleware::Middleware,
    request::{HasSession, Sessions},
    session::commit::Headers,
};

impl<S> Layer<S> for Middleware {
    type Service = SessionService<S>;

    fn layer(&self, service: S) -> Self::Service {
        SessionService {
            middleware: self.clone(),
            service,
        }
    }
}

impl<S, Req, Res> Service<Request<Req>> for SessionService<S>
where
    S: Service<Request<Req>, Response = Response<Res>> + Clone,
    Res: Default,
{
    type Response = Response<Res>;
    type Error = S::Error;
    type Future = SessionFuture<TowerCall<S, Req>, S::Future, Result<Response<Res>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Req>) -> Self::Future {
        // Call the service that reported ready, not its clone.
        let clone = self.service.clone();
        let service = mem::replace(&mut self.service, clone);
        let is_https = request.uri().scheme() == Some(&Scheme::HTTPS);
        let session = self.begin(request.extensions().get::<Sessions>(), is_https);
        let mut opening = None;
        if let Some(session) = &session {
            opening = session.begin(&Head::of(&request), request.extensions());
            let sessions = Sessions::new(session.clone());
            request.extensions_mut().insert(sessions);
        }
        SessionFuture::new(session, opening, TowerCall { service, request })
    }
}

/// A request of tower, and the service that handles it.
#[derive(Debug)]
pub struct TowerCall<S, Req> {
    service: S,
    request: Request<Req>,
}

impl<S, Req, Res> Call for TowerCall<S, Req>
where
    S: Service<Request<Req>, Response = Response<Res>>,
    Res: Default,
{
    type Served = S::Future;

    fn call(mut self) -> S::Future {
        self.service.call(self.request)
    }
}

impl<Res: Default, E> Answer for Result<Response<Res>, E> {
    /// An error produces no response, so the session counts as failed.
    fn succeeded(&self) -> bool {
        (self.as_ref()).is_ok_and(|response| !response.status().is_server_error())
    }

    fn with(self, headers: Result<Headers, Error>) -> Self {
        let mut response = self?;
        match headers {
            Ok(headers) => headers.write(response.headers_mut()),
            Err(error) => return Self::refused(error),
        }
        Ok(response)
    }

    /// The body is empty, because its type is not known here.
    fn refused(error: Error) -> Self {
        report(&error);
        let mut response = Response::new(Res::default());
        *response.status_mut() = status(&error);
        Ok(response)
    }
}

pub(super) fn status(error: &Error) -> StatusCode {
    StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

reads_and_writes_headers!();

impl<'r> Head<'r> {
    fn of<B>(request: &'r Request<B>) -> Self {
        Self {
            uri: request.uri(),
            headers: request.headers(),
        }
    }
}

impl HasSession for Extensions {
    fn sessions(&self) -> Result<Sessions, Error> {
        self.get().cloned().ok_or(Error::NotMounted)
    }
}

impl HasSession for Parts {
    fn sessions(&self) -> Result<Sessions, Error> {
        self.extensions.sessions()
    }
}

impl<B> HasSession for Request<B> {
    fn sessions(&self) -> Result<Sessions, Error> {
        self.extensions().sessions()
    }
}
