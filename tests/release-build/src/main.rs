//! Prints what a release build with debug assertions logs, and which cookies and errors it sends.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::pin,
    task::{Context, Poll, Waker},
};

use axum_core::response::IntoResponse;
use http::{Request, Response};
use http_body::Body;
use inspector::Inspector;
use session_manager::{Error, HasSession, Key, Manager, Middleware, SignedCookie, manager};
use tower_layer::Layer;
use tower_service::Service;

/// Writes to the session of every request.
#[derive(Clone)]
struct Handler;

impl Service<Request<()>> for Handler {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let session = request.session().expect("the middleware is mounted");
        session.add("key", "value").expect("it fits");
        ready(Ok(Response::new(())))
    }
}

struct Print;

impl log::Log for Print {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        println!("{} {}", record.level(), record.args());
    }

    fn flush(&self) {}
}

fn request(middleware: Middleware, host: &str) {
    let request = Request::get("/").header("host", host).body(());
    let mut service = middleware.layer(Handler);
    let answer = pin!(service.call(request.expect("a request is valid")));
    // A session in a cookie waits for nothing.
    let Poll::Ready(Ok(answer)) = answer.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("the session was not opened and committed at once");
    };
    let cookie = answer.headers()["set-cookie"].to_str();
    println!("{host}: {}", cookie.expect("a cookie is text"));
}

fn main() {
    log::set_logger(&Print).expect("there is no other logger");
    log::set_max_level(log::LevelFilter::Info);
    println!("debug assertions: {}", cfg!(debug_assertions));
    request(manager::middleware(), "www.example.com");
    request(manager::middleware(), "127.0.0.1:8080");
    request(manager::middleware(), "localhost:8080");
    let plain = Manager::builder(SignedCookie::new(Key::generate())).secure(false);
    let plain = plain.build().expect("the settings are valid");
    request(plain.middleware(), "127.0.0.1:7000");
    let opening = pin!(Manager::from_url("signed:"));
    let Poll::Ready(Err(error)) = opening.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("a release build signs without a secret");
    };
    println!("signed: {error}");
    let answer = Error::NotMounted.into_response();
    let length = answer.body().size_hint().exact().expect("the body is text");
    println!("not mounted: {}, {length} bytes", answer.status());
    match Inspector::new() {
        Ok(inspector) => println!("inspector: {}", inspector.path()),
        Err(error) => println!("inspector: {error}"),
    }
    println!(
        "inspector, if told so: {}",
        Inspector::even_in_release().path()
    );
}
