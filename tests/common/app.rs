//! An application, described once and built in every web framework.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use actix_web::web::Bytes;
#[cfg(feature = "axum")]
use axum::{
    extract::Request as AxumRequest,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use session_manager::{Error, HasSession, Middleware, Session, Sessions, manager};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Answer, script, watch};

/// The web frameworks that the features of this build include.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Web {
    Actix,
    #[cfg(feature = "axum")]
    Axum,
}

impl Web {
    #[cfg(feature = "axum")]
    pub const ALL: [Self; 2] = [Self::Actix, Self::Axum];
    #[cfg(not(feature = "axum"))]
    pub const ALL: [Self; 1] = [Self::Actix];

    /// The name of the module with its tests; see `on_every_framework`. Tests that run in parallel find
    /// their own log lines by it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Actix => "on_actix",
            #[cfg(feature = "axum")]
            Self::Axum => "on_axum",
        }
    }

    /// The status and body that the middleware sends if the session could not be opened or stored. A tower
    /// layer sends an empty body, because it does not know the body's type.
    pub fn unavailable(self) -> (u16, &'static str) {
        match self {
            Self::Actix => (503, "Service Unavailable"),
            #[cfg(feature = "axum")]
            Self::Axum => (503, ""),
        }
    }
}

impl std::fmt::Display for Web {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A handler's response.
#[derive(Debug)]
pub struct Page {
    pub status: u16,
    pub headers: Vec<(&'static str, &'static str)>,
    pub body: String,
    /// Whether the handler returns it as an error of the framework.
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

/// A request of either framework.
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

/// The server's end of a conversation that goes on after the response head.
pub struct Talk {
    heard: UnboundedReceiver<String>,
    say: UnboundedSender<String>,
}

impl Talk {
    /// Returns the next message; `None` after the last one.
    pub async fn hear(&mut self) -> Option<String> {
        self.heard.recv().await
    }

    pub fn say(&self, text: impl Into<String>) {
        let _ = self.say.send(text.into());
    }

    /// Returns the conversation, and the channels to and from it.
    fn begin() -> (Self, UnboundedSender<String>, UnboundedReceiver<String>) {
        let ((tell, heard), (say, said)) = (unbounded_channel(), unbounded_channel());
        (Self { heard, say }, tell, said)
    }
}

type Talking = Pin<Box<dyn Future<Output = ()> + Send>>;
type Talker = Arc<dyn Fn(Session, Talk) -> Talking + Send + Sync>;

pub fn talker<F>(f: impl Fn(Session, Talk) -> F + Send + Sync + 'static) -> Talker
where
    F: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |session, talk| Box::pin(f(session, talk)))
}

/// A body of server-sent events, made while it is sent. It ends when the client disconnects.
struct Events {
    talking: Option<Talking>,
    said: UnboundedReceiver<String>,
}

impl Events {
    const TYPE: &str = "text/event-stream";

    fn new(session: Session, script: String, talker: &Talker) -> Self {
        let (talk, tell, said) = Talk::begin();
        tell.send(script).unwrap();
        Self {
            talking: Some(talker(session, talk)),
            said,
        }
    }
}

impl futures_core::Stream for Events {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.talking
            .take_if(|talking| talking.as_mut().poll(context).is_ready());
        let said = self.said.poll_recv(context);
        said.map(|text| text.map(|text| Ok(format!("data: {text}\n\n").into())))
    }
}

#[derive(Clone)]
enum Route {
    Session(&'static str, Handler<Session>),
    Request(&'static str, Handler<Request>),
    Socket(&'static str, Talker),
    Events(&'static str, Talker),
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

    /// Adds a route whose handler extracts the session, and receives the parameter of the path.
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

    /// Adds a route whose handler receives the whole request.
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

    /// Adds a WebSocket: `talker` runs on after the response head, and receives and sends messages.
    pub fn socket(mut self, path: &'static str, talker: Talker) -> Self {
        self.routes.push(Route::Socket(path, talker));
        self
    }

    /// Adds server-sent events, made after the response head: `talker` receives the parameter of the path,
    /// and sends the events.
    pub fn events(mut self, path: &'static str, talker: Talker) -> Self {
        self.routes.push(Route::Events(path, talker));
        self
    }

    /// Mounts `middleware` around everything added so far.
    pub fn wrap(mut self, middleware: Middleware) -> Self {
        self.layers.push(Layer::Sessions(middleware));
        self
    }

    /// Mounts a middleware that calls `f` before it passes a request on.
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
                Route::Socket(path, talker) => scope.route(path, actix_socket(talker)),
                Route::Events(path, talker) => scope.route(path, actix_events(talker)),
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

    #[cfg(feature = "axum")]
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
                Route::Socket(path, talker) => router.route(path, axum_socket(talker)),
                Route::Events(path, talker) => router.route(path, axum_events(talker)),
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

    /// Calls the application without a server, in the current task.
    pub async fn call(self, web: Web, path: &str) -> Answer {
        self.call_with(web, path, "").await
    }

    /// The same with this `Cookie` header.
    pub async fn call_with(self, web: Web, path: &str, cookie: &str) -> Answer {
        watch::keep_cookies(cookie.as_bytes());
        let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
        match web {
            Web::Actix => {
                use actix_web::test;
                let app = test::init_service(self.actix()).await;
                let request = test::TestRequest::with_uri(path).insert_header(("cookie", cookie));
                let response = match test::try_call_service(&app, request.to_request()).await {
                    Ok(response) => response,
                    // A server answers so.
                    Err(error) => {
                        let response = error.error_response();
                        return Answer {
                            status: response.status().as_u16(),
                            headers: Answer::headers(response.headers()),
                            body: String::new(),
                        };
                    }
                };
                Answer {
                    status: response.status().as_u16(),
                    headers: Answer::headers(response.headers()),
                    body: text(&test::read_body(response).await),
                }
            }
            #[cfg(feature = "axum")]
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

#[cfg(feature = "axum")]
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

fn actix_socket(talker: Talker) -> actix_web::Route {
    use actix_web::{HttpRequest, web};
    use actix_ws::Message;

    web::get().to(
        move |request: HttpRequest, body: web::Payload, session: Session| {
            let (talk, tell, mut said) = Talk::begin();
            let talking = talker(session, talk);
            async move {
                let (response, mut socket, mut messages) = actix_ws::handle(&request, body)?;
                tokio::spawn(talking);
                actix_web::rt::spawn(async move {
                    loop {
                        tokio::select! {
                            heard = messages.recv() => match heard {
                                Some(Ok(Message::Text(text))) => drop(tell.send(text.to_string())),
                                _ => break,
                            },
                            said = said.recv() => match said {
                                Some(text) => socket.text(text).await.unwrap(),
                                None => break,
                            },
                        }
                    }
                    let _ = socket.close(None).await;
                });
                Ok::<_, actix_web::Error>(response)
            }
        },
    )
}

#[cfg(feature = "axum")]
fn axum_socket(talker: Talker) -> axum::routing::MethodRouter {
    use axum::extract::ws::{Message, WebSocketUpgrade};

    axum::routing::get(async move |session: Session, upgrade: WebSocketUpgrade| {
        let (talk, tell, mut said) = Talk::begin();
        tokio::spawn(talker(session, talk));
        upgrade.on_upgrade(async move |mut socket| {
            loop {
                tokio::select! {
                    heard = socket.recv() => match heard {
                        Some(Ok(Message::Text(text))) => drop(tell.send(text.to_string())),
                        _ => break,
                    },
                    said = said.recv() => match said {
                        Some(text) => socket.send(Message::text(text)).await.unwrap(),
                        None => break,
                    },
                }
            }
        })
    })
}

fn actix_events(talker: Talker) -> actix_web::Route {
    use actix_web::{HttpResponse, web};

    web::get().to(move |session: Session, script: web::Path<String>| {
        let events = Events::new(session, script.into_inner(), &talker);
        let mut response = HttpResponse::Ok();
        let response = response.content_type(Events::TYPE).streaming(events);
        async { response }
    })
}

#[cfg(feature = "axum")]
fn axum_events(talker: Talker) -> axum::routing::MethodRouter {
    use axum::{body::Body, extract::Path, http::header::CONTENT_TYPE};

    axum::routing::get(async move |session: Session, Path(script): Path<String>| {
        let events = Events::new(session, script, &talker);
        ([(CONTENT_TYPE, Events::TYPE)], Body::from_stream(events))
    })
}
