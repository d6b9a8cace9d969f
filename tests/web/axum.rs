//! What holds on axum and tower alone. `every_framework.rs` has what all frameworks share.

use std::{
    convert::Infallible,
    future::{Ready, pending, poll_fn, ready},
    pin::Pin,
    task::{Context, Poll},
};

use crate::common::{Server, Web, block_on, key};
use axum::{
    Router,
    extract::Request as AxumRequest,
    http::{Request, Response, StatusCode, Version, request},
    middleware::{Next, from_fn},
    response::IntoResponse,
    routing::{get, post},
};
use session_manager::{
    Error, HasSession, Manager, MemoryStore, Message, ServerSide, Session, SignedCookie, manager,
    web::SessionService,
};
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

fn signed() -> Manager {
    Manager::new(SignedCookie::new(key()))
}

/// Reads what another server wrote.
fn check() -> Server {
    Server::scripts(Web::Axum, signed().middleware())
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<String>, &'static str>> + Send>>;

/// A service that may be called only if it was asked before whether it is ready; its clone was not.
struct Inner {
    is_ready: bool,
    f: fn(Request<()>) -> Answering,
}

impl Clone for Inner {
    fn clone(&self) -> Self {
        Self {
            is_ready: false,
            f: self.f,
        }
    }
}

impl Service<Request<()>> for Inner {
    type Response = Response<String>;
    type Error = &'static str;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Answering {
        assert!(self.is_ready, "the one that was ready is the one to call");
        self.is_ready = false;
        (self.f)(request)
    }
}

/// A stack of tower services without axum.
fn stack(manager: &Manager, f: fn(Request<()>) -> Answering) -> SessionService<Inner> {
    let is_ready = false;
    manager.middleware().layer(Inner { is_ready, f })
}

/// Asks whether the service is ready, and calls it.
async fn ask<B, S: Service<Request<B>>>(
    service: &mut S,
    request: Request<B>,
) -> Result<S::Response, S::Error> {
    poll_fn(|context| service.poll_ready(context)).await?;
    service.call(request).await
}

/// Does to the session what the path says, in script; a word before it says how the request ends.
fn script(request: Request<()>) -> Answering {
    let (end, script) = request.uri().path()[1..].split_once('/').unwrap();
    let page = crate::common::script::run(&request.session().unwrap(), script).unwrap();
    match end {
        "ok" => Box::pin(async { Ok(Response::new(page.body)) }),
        "error" => Box::pin(async { Err("the service is broken") }),
        "never" => Box::pin(pending()),
        other => panic!("no request ends in {other}"),
    }
}

fn request(path: &str, cookie: &str) -> Request<()> {
    let request = Request::get(path).header("cookie", cookie);
    request.body(()).unwrap()
}

/// `name=value` of the cookie that was set.
fn cookie<B>(response: &Response<B>) -> String {
    let set = response.headers()["set-cookie"].to_str().unwrap();
    set.split(';').next().unwrap().to_owned()
}

#[test]
fn the_tower_layer_calls_the_service_that_was_polled_ready() {
    let mut service = stack(&signed(), script);
    block_on(async {
        let added = ask(&mut service, request("/ok/add.key.value", "")).await;
        let cookie = cookie(&added.unwrap());
        for _ in 0..3 {
            let read = ask(&mut service, request("/ok/get.key", &cookie)).await;
            assert_eq!(read.unwrap().body(), "value");
        }
    });
}

#[test]
fn an_inner_services_error_is_passed_on_and_keeps_only_a_log_out() {
    let mut service = stack(&Manager::new(ServerSide::new(MemoryStore::new())), script);
    block_on(async {
        let added = ask(&mut service, request("/ok/add.key.old", "")).await;
        let cookie = cookie(&added.unwrap());
        for (failing, then) in [("add.key.new", "old"), ("destroy", "none")] {
            let failed = ask(&mut service, request(&format!("/error/{failing}"), &cookie)).await;
            assert_eq!(failed.unwrap_err(), "the service is broken");
            let read = ask(&mut service, request("/ok/get.key", &cookie)).await;
            assert_eq!(read.unwrap().body(), then, "{failing}");
        }
    });
}

#[test]
fn a_dropped_request_keeps_only_a_log_out() {
    let mut service = stack(&Manager::new(ServerSide::new(MemoryStore::new())), script);
    block_on(async {
        let added = ask(&mut service, request("/ok/add.key.old", "")).await;
        let cookie = cookie(&added.unwrap());
        for (dropped, then) in [("add.key.new", "old"), ("destroy", "none")] {
            let call = ask(&mut service, request(&format!("/never/{dropped}"), &cookie));
            let soon = std::time::Duration::from_millis(50);
            assert!(tokio::time::timeout(soon, call).await.is_err());
            tokio::task::yield_now().await;
            let read = ask(&mut service, request("/ok/get.key", &cookie)).await;
            assert_eq!(read.unwrap().body(), then, "{dropped}");
        }
    });
}

#[test]
fn a_request_its_parts_and_its_extensions_have_the_session() {
    let mut service = stack(&signed(), |request| {
        let add = |request: &dyn HasSession, key| request.session().unwrap().add(key, "1");
        add(&request, "request").unwrap();
        add(request.extensions(), "extensions").unwrap();
        let session = request.session().unwrap();
        let (parts, ()): (request::Parts, ()) = request.into_parts();
        add(&parts, "parts").unwrap();
        Box::pin(async move { Ok(Response::new(session.keys().join("+"))) })
    });
    let answer = block_on(ask(&mut service, request("/", ""))).unwrap();
    assert_eq!(answer.body(), "extensions+parts+request");
}

#[test]
fn secure_follows_the_uri_then_host_then_the_proxy_headers() {
    let is_secure = |uri: &str, version, (field, value): (&str, &str)| {
        let request = Request::get(uri).version(version).header(field, value);
        let mut service = stack(&signed(), |request| {
            request.session().unwrap().add("key", "value").unwrap();
            Box::pin(async { Ok(Response::default()) })
        });
        let answer = block_on(ask(&mut service, request.body(()).unwrap())).unwrap();
        let set = answer.headers()["set-cookie"].to_str().unwrap();
        set.contains("; Secure")
    };
    let (http_1, http_2) = (Version::HTTP_11, Version::HTTP_2);
    let here = ("host", "localhost:3000");
    let in_release = !cfg!(debug_profile);
    assert_eq!(is_secure("/", http_1, here), in_release);
    assert!(is_secure("/", http_1, ("host", "example.com")));
    assert!(is_secure("/", http_1, ("accept", "*/*")), "no host at all");
    for (uri, expected) in [
        ("http://localhost:3000/", in_release),
        ("http://example.com/", true),
        ("https://localhost:3000/", true),
    ] {
        for version in [http_1, http_2] {
            assert_eq!(is_secure(uri, version, here), expected, "{uri} {version:?}");
        }
    }
    let other = ("host", "example.com");
    assert_eq!(is_secure("http://localhost/", http_2, other), in_release);
    for mark in ["forwarded", "via", "x-forwarded-for", "x-real-ip"] {
        let uri = "http://localhost/";
        assert!(is_secure(uri, http_2, (mark, "127.0.0.1")), "{mark}");
    }
}

#[test]
fn a_tonic_service_reads_the_session_from_the_extensions() {
    #[derive(Clone)]
    struct Greeter;

    impl tonic::server::NamedService for Greeter {
        const NAME: &'static str = "test.Greeter";
    }

    // As the code that tonic generates does it.
    impl Service<Request<Body>> for Greeter {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            let request = tonic::Request::from_http(request);
            let session = request.extensions().session().unwrap();
            session.add("greeted", "by tonic").unwrap();
            ready(Ok(tonic::Status::ok("hello").into_http()))
        }
    }

    let mut service = (signed().middleware()).layer(tonic::service::Routes::new(Greeter));
    let request = Request::post("/test.Greeter/Greet").body(Body::empty());
    let answer = block_on(ask(&mut service, request.unwrap())).unwrap();
    assert_eq!(answer.headers()["grpc-status"], "0");
    let read = check().with_cookie("/run/get.greeted", cookie(&answer));
    assert_eq!(read.body, "by tonic");
}

async fn run(
    session: Session,
    axum::extract::Path(script): axum::extract::Path<String>,
) -> Result<String, Error> {
    Ok(crate::common::script::run(&session, &script)?.body)
}

#[test]
fn a_route_layer_skips_the_fallback_and_a_router_layer_covers_it() {
    let fallback = async |request: AxumRequest| match request.session() {
        Ok(session) => session.get("key").unwrap_or_default(),
        Err(error) => error.to_string(),
    };
    let shop = Router::new().route("/run/{script}", get(run));
    let middleware = signed().middleware();
    for (of_all, expected) in [(false, "no session was opened"), (true, "value")] {
        let app = if of_all {
            let nested = Router::new().nest("/shop", shop.clone());
            nested.fallback(fallback).layer(middleware.clone())
        } else {
            let some = shop.clone().route_layer(middleware.clone());
            Router::new().nest("/shop", some).fallback(fallback)
        };
        let server = Server::axum(app);
        let cookie = server.raw("/shop/run/add.key.value", &[]).cookie();
        let read = server.with_cookie("/shop/run/get.key", &cookie);
        assert_eq!(read.body, "value");
        let missed = server.with_cookie("/nowhere", &cookie);
        assert!(missed.body.starts_with(expected), "{missed:?}");
        assert_eq!(missed.header("vary").is_some(), of_all);
    }
}

#[test]
fn inner_middleware_has_the_session_and_outer_sees_its_cookie() {
    async fn inside(request: AxumRequest, next: Next) -> Result<impl IntoResponse, Error> {
        let session = request.session()?;
        session.add("before", 1)?;
        let response = next.run(request).await;
        manager::get().add(&session, "after", 3)?;
        Ok(response)
    }
    async fn outside(request: AxumRequest, next: Next) -> impl IntoResponse {
        assert!(matches!(request.session(), Err(Error::NotMounted)));
        let response = next.run(request).await;
        assert!(cookie(&response).starts_with("_session="));
        response
    }
    let app = Router::new()
        .route("/run/{script}", get(run))
        .layer(from_fn(inside))
        .layer(signed().middleware())
        .layer(from_fn(outside));
    let answer = Server::axum(app).raw("/run/add.handler.2,keys", &[]);
    assert_eq!((answer.status, &*answer.body), (200, "null,before+handler"));
    let read = check().with_cookie("/run/keys", answer.cookie());
    assert_eq!(read.body, "after+before+handler");
}

#[test]
fn a_refusal_of_inner_middleware_discards_the_session_only_if_5xx() {
    async fn refuse(request: AxumRequest, _: Next) -> Result<(), (StatusCode, &'static str)> {
        let session = request.session().unwrap();
        session.flash(Message::warning("Log in first")).unwrap();
        Err(match request.uri().path() {
            "/401" => (StatusCode::UNAUTHORIZED, "who are you?"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "broken"),
        })
    }
    let app = Router::new()
        .layer(from_fn(refuse))
        .layer(signed().middleware());
    let server = Server::axum(app);
    let answer = server.raw("/401", &[]);
    assert_eq!((answer.status, &*answer.body), (401, "who are you?"));
    assert_eq!(answer.header("vary"), Some("Cookie"));
    let read = check().with_cookie("/run/flashes", answer.cookie());
    assert_eq!(read.body, "Log in first");

    let answer = server.raw("/500", &[]);
    assert_eq!((answer.status, &*answer.body), (500, "broken"));
    assert_eq!(answer.set_cookie(), None);
}

#[test]
fn a_handler_extracts_the_session_and_the_body() {
    async fn keep(session: Session, body: String) -> Result<String, Error> {
        let texts = session.update("texts", move |texts: Option<Vec<String>>| {
            let mut texts = texts.unwrap_or_default();
            texts.push(body.clone());
            texts
        })?;
        Ok(texts.join(" "))
    }
    let app = Router::new().route("/", post(keep));
    let server = Server::axum(app.layer(signed().middleware()));
    let agent = ureq::agent();
    let send = |text: &str| {
        let sent = agent.post(format!("http://{}/", server.address)).send(text);
        sent.unwrap().body_mut().read_to_string().unwrap()
    };
    assert_eq!(["a", "b", "c"].map(send).join(", "), "a, a b, a b c");
}
