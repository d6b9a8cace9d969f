//! An application, described once and built in every web framework.

use std::{pin::Pin, sync::Arc};

use axum::{
    extract::Request as AxumRequest,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use session_manager::{Error, HasSession, Middleware, Session, Sessions, manager};

use super::{Answer, script};

/// The web frameworks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Web {
    Actix,
    Axum,
}

impl Web {
    pub const ALL: [Self; 2] = [Self::Actix, Self::Axum];

    /// As the module of its tests is called; see `on_every_framework`. Tests that run side by side
    /// tell their log lines apart by it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Actix => "on_actix",
            Self::Axum => "on_axum",
        }
    }

    /// A response that the middleware gives in place of the handler's, because the session could not
    /// be opened or kept: status and body. A tower layer cannot write one, because it does not know
    /// what kind of body it is.
    pub fn unavailable(self) -> (u16, &'static str) {
        match self {
            Self::Actix => (503, "Service Unavailable"),
            Self::Axum => (503, ""),
        }
    }
}

impl std::fmt::Display for Web {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a handler answers.
#[derive(Debug)]
pub struct Page {
    pub status: u16,
    pub headers: Vec<(&'static str, &'static str)>,
    pub body: String,
    /// Whether it is an error of the framework instead of a response.
    pub is_error: bool,
}

impl<T: Into<String>> From<T> for Page {
    fn from(body: T) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.into(),
            is_error: false,
        }
    }
}

/// The request as its framework has it, whichever it is.
pub struct Request(Option<Sessions>);

impl Request {
    fn of(request: &impl HasSession) -> Self {
        Self(request.sessions().ok())
    }
}

impl HasSession for Request {
    fn sessions(&self) -> Result<Sessions, Error> {
        self.0.clone().ok_or(Error::NotMounted)
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Page, Error>> + Send>>;
type Handler<R> = Arc<dyn Fn(R, String) -> Answering + Send + Sync>;

fn handler<R, F, P>(f: impl Fn(R, String) -> F + Send + Sync + 'static) -> Handler<R>
where
    F: Future<Output = Result<P, Error>> + Send + 'static,
    P: Into<Page>,
{
    Arc::new(move |request, rest| {
        let answer = f(request, rest);
        Box::pin(async { answer.await.map(Into::into) })
    })
}

#[derive(Clone)]
enum Route {
    Session(&'static str, Handler<Session>),
    Request(&'static str, Handler<Request>),
}

#[derive(Clone)]
enum Layer {
    Sessions(Middleware),
    Between(fn(&Request)),
}

/// Routes, and what is mounted around them. It always has `/run/{script}`, which does what
/// [`script::run`] says, and `/idle`, which does nothing.
#[derive(Clone)]
pub struct App {
    routes: Vec<Route>,
    layers: Vec<Layer>,
}

impl App {
    pub fn new() -> Self {
        let app = Self {
            routes: Vec::new(),
            layers: Vec::new(),
        };
        app.get("/run/{script}", async |session, script| {
            script::run(&session, &script)
        })
        .get_request("/idle", async |_, _| Ok("idle"))
    }

    /// A route whose handler extracts the session, and is given what stands in the path's braces.
    pub fn get<F, P>(
        mut self,
        path: &'static str,
        f: impl Fn(Session, String) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<P, Error>> + Send + 'static,
        P: Into<Page>,
    {
        self.routes.push(Route::Session(path, handler(f)));
        self
    }

    /// A route whose handler takes the request, and nothing out of it.
    pub fn get_request<F, P>(
        mut self,
        path: &'static str,
        f: impl Fn(Request, String) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<P, Error>> + Send + 'static,
        P: Into<Page>,
    {
        self.routes.push(Route::Request(path, handler(f)));
        self
    }

    /// Mounts `middleware` around all there is so far.
    pub fn wrap(mut self, middleware: Middleware) -> Self {
        self.layers.push(Layer::Sessions(middleware));
        self
    }

    /// Mounts a middleware that does this before it passes a request on.
    pub fn before(mut self, f: fn(&Request)) -> Self {
        self.layers.push(Layer::Between(f));
        self
    }

    pub fn actix(
        self,
    ) -> actix_web::App<
        impl actix_web::dev::ServiceFactory<
            actix_web::dev::ServiceRequest,
            Config = (),
            Response = actix_web::dev::ServiceResponse<impl actix_web::body::MessageBody>,
            Error = actix_web::Error,
            InitError = (),
        >,
    > {
        use actix_web::middleware::{Condition, Next, from_fn};

        // As applications do, the outermost is mounted on the `App`.
        let mut layers = self.layers;
        let outermost = match layers.pop_if(|layer| matches!(layer, Layer::Sessions(_))) {
            Some(Layer::Sessions(middleware)) => Some(middleware),
            _ => None,
        };
        let mut scope = actix_web::web::scope("");
        for route in self.routes {
            scope = match route {
                Route::Session(path, handler) => scope.route(path, actix_route(handler)),
                Route::Request(path, handler) => scope.route(
                    path,
                    actix_route(Arc::new(move |request: actix_web::HttpRequest, rest| {
                        handler(Request::of(&request), rest)
                    })),
                ),
            };
        }
        for layer in layers {
            let outer = actix_web::web::scope("");
            scope = match layer {
                Layer::Sessions(middleware) => outer.service(scope.wrap(middleware)),
                Layer::Between(f) => outer.service(scope.wrap(from_fn(
                    move |request: actix_web::dev::ServiceRequest, next: Next<_>| {
                        f(&Request::of(&request));
                        next.call(request)
                    },
                ))),
            };
        }
        let is_mounted = outermost.is_some();
        let outermost = outermost.unwrap_or_else(manager::middleware);
        actix_web::App::new()
            .wrap(Condition::new(is_mounted, outermost))
            .service(scope)
    }

    pub fn axum(self) -> axum::Router {
        let mut router = axum::Router::new();
        for route in self.routes {
            router = match route {
                Route::Session(path, handler) => router.route(path, axum_route(handler)),
                Route::Request(path, handler) => router.route(
                    path,
                    axum_route(Arc::new(move |request: AxumRequest, rest| {
                        handler(Request::of(&request), rest)
                    })),
                ),
            };
        }
        for layer in self.layers {
            router = match layer {
                Layer::Sessions(middleware) => router.layer(middleware),
                Layer::Between(f) => router.layer(axum::middleware::from_fn(
                    move |request: AxumRequest, next: axum::middleware::Next| {
                        f(&Request::of(&request));
                        next.run(request)
                    },
                )),
            };
        }
        router
    }

    /// Calls the application without a server, in the task at hand.
    pub async fn call(self, web: Web, path: &str) -> Answer {
        self.call_with(web, path, "").await
    }

    /// The same with this `Cookie` header.
    pub async fn call_with(self, web: Web, path: &str, cookie: &str) -> Answer {
        let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
        match web {
            Web::Actix => {
                use actix_web::test;
                let app = test::init_service(self.actix()).await;
                let request = test::TestRequest::with_uri(path).insert_header(("cookie", cookie));
                let response = test::call_service(&app, request.to_request()).await;
                Answer {
                    status: response.status().as_u16(),
                    headers: Answer::headers(response.headers()),
                    body: text(&test::read_body(response).await),
                }
            }
            Web::Axum => {
                let request = AxumRequest::get(path).header("cookie", cookie);
                let request = request.body(axum::body::Body::empty());
                let response = tower_service::Service::call(&mut self.axum(), request.unwrap());
                let response = response.await.unwrap();
                let (head, body) = response.into_parts();
                let body = axum::body::to_bytes(body, usize::MAX).await;
                Answer {
                    status: head.status.as_u16(),
                    headers: Answer::headers(&head.headers),
                    body: text(&body.unwrap()),
                }
            }
        }
    }
}

fn actix_route<R: actix_web::FromRequest + 'static>(f: Handler<R>) -> actix_web::Route {
    use actix_web::{HttpResponse, http::StatusCode, web::Path};

    actix_web::web::get().to(move |request: R, rest: Option<Path<String>>| {
        let answer = f(request, rest.map(Path::into_inner).unwrap_or_default());
        async move {
            let page = answer.await?;
            let status = StatusCode::from_u16(page.status).unwrap();
            if page.is_error {
                return Err(actix_web::error::InternalError::new(page.body, status).into());
            }
            let mut response = HttpResponse::build(status);
            for header in page.headers {
                response.append_header(header);
            }
            Ok::<_, actix_web::Error>(response.body(page.body))
        }
    })
}

fn axum_route<R, M: 'static>(f: Handler<R>) -> axum::routing::MethodRouter
where
    R: axum::extract::FromRequest<(), M> + Send + 'static,
{
    use axum::extract::Path;

    axum::routing::get(async move |rest: Option<Path<String>>, request: R| {
        let rest = rest.map(|Path(rest)| rest).unwrap_or_default();
        let page = f(request, rest).await.map_err(Error::into_response)?;
        let status = StatusCode::from_u16(page.status).unwrap();
        let mut response = (status, page.body).into_response();
        if page.is_error {
            return Err(response);
        }
        for (name, value) in page.headers {
            response.headers_mut().append(name, value.parse().unwrap());
        }
        Ok::<_, Response>(response)
    })
}
