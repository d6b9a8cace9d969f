//! tower: the layer, and the requests that have a session.

use std::{
    any::Any,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, header,
    request::Parts, uri::Scheme,
};
use tower_layer::Layer;
use tower_service::Service;

use super::{Field, Fields, SessionService, is_http_to_loopback};
use crate::{
    Error, HasSession, Middleware, Sessions,
    cookie::{Found, SessionCookie},
    log::log,
    manager::{RequestHead, Visit},
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
    S: Service<Request<Req>, Response = Response<Res>, Error: Send, Future: Send>
        + Clone
        + Send
        + 'static,
    Req: Send + 'static,
    Res: Default + Send,
{
    type Response = Response<Res>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Req>) -> Self::Future {
        // The one that was asked whether it is ready is the one to call, not its clone.
        let clone = self.service.clone();
        let mut service = mem::replace(&mut self.service, clone);
        let manager = self.middleware.manager();
        let is_global = self.middleware.is_global();
        Box::pin(async move {
            let outer = request.extensions().get::<Sessions>().cloned();
            let opening = Visit::begin(&manager, is_global, &Head::of(&request), outer);
            let Some(opening) = opening else {
                return service.call(request).await;
            };
            let (visit, sessions) = match opening.await {
                Ok(opened) => opened,
                Err(error) => return Ok(refuse(&error)),
            };
            request.extensions_mut().insert(sessions);

            let result = service.call(request).await;
            // An error is no response: nothing that was done can reach the client.
            let succeeded =
                (result.as_ref()).is_ok_and(|response| !response.status().is_server_error());
            match (visit.end(succeeded, &()).await, result) {
                (Ok(headers), Ok(mut response)) => {
                    headers.write(response.headers_mut());
                    Ok(response)
                }
                (Err(error), Ok(_)) => Ok(refuse(&error)),
                (_, Err(error)) => Err(error),
            }
        })
    }
}

/// A response without a body, because of what kind it is nobody knows here.
fn refuse<B: Default>(error: &Error) -> Response<B> {
    log!(ERROR, "{}", crate::error::chain(error));
    let mut response = Response::new(B::default());
    *response.status_mut() = status(error);
    response
}

pub(super) fn status(error: &Error) -> StatusCode {
    StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl Fields for HeaderMap {
    fn all(&self, field: Field) -> impl Iterator<Item = &[u8]> {
        self.get_all(name(field)).iter().map(HeaderValue::as_bytes)
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

/// A request without its body.
struct Head<'r> {
    uri: &'r http::Uri,
    version: Version,
    headers: &'r HeaderMap,
    extensions: &'r Extensions,
}

impl<'r> Head<'r> {
    fn of<B>(request: &'r Request<B>) -> Self {
        Self {
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

impl RequestHead for Head<'_> {
    fn find<'r>(&'r self, cookie: &SessionCookie) -> Found<'r> {
        let lines = self.headers.get_all(header::COOKIE).iter();
        cookie.find(lines.map(HeaderValue::as_bytes))
    }

    fn is_http_to_loopback(&self) -> bool {
        // A host in the request line, as in HTTP/2, counts before the header (RFC 9112, section 3.2).
        let host = self
            .uri
            .host()
            .or_else(|| self.headers.get(header::HOST)?.to_str().ok());
        is_http_to_loopback(
            host,
            self.uri.scheme() == Some(&Scheme::HTTPS),
            self.version <= Version::HTTP_10,
            |field| self.headers.contains_key(field),
        )
    }

    fn framework(&self) -> &dyn Any {
        self.extensions
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
