//! The check over HTTP, in both frameworks, with sessions in cookies and in memory.

use std::{net::TcpListener, sync::mpsc, thread};

use actix_web::{App, HttpServer, middleware as actix_middleware, web};
use axum::{
    Router,
    extract::Request,
    middleware::from_fn_with_state,
    routing::{get, post},
};
use csrf::Csrf;
use session_manager::{
    Error, HasSession, Key, Manager, MemoryStore, ServerSide, Session, SignedCookie,
};

/// Returns the field `text` of a form.
fn text_of(form: &str) -> String {
    let mut fields = form_urlencoded::parse(form.as_bytes());
    let (_, text) = fields.find(|(name, _)| name == "text").unwrap();
    text.into_owned()
}

/// Logs in: the session gets a new id, and the secret goes.
fn log_in(session: &Session) -> Result<(), Error> {
    session.renew();
    csrf::rotate(session)
}

fn check() -> Csrf {
    Csrf::new().trust("https://pay.example")
}

fn on_actix(manager: Manager) -> u16 {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        actix_web::rt::System::new().block_on(async {
            let form = async |session: Session| csrf::token(&session);
            let server = HttpServer::new(move || {
                App::new()
                    .app_data(check())
                    .wrap(actix_middleware::from_fn(csrf::actix::protect))
                    .wrap(manager.middleware())
                    .route("/form", web::get().to(form))
                    .route("/note", web::post().to(async |form: String| text_of(&form)))
                    .route(
                        "/log-in",
                        web::post()
                            .to(async |session: Session| log_in(&session).map(|()| "welcome")),
                    )
            });
            let server = server.workers(1).bind(("127.0.0.1", 0)).unwrap();
            tell.send(server.addrs()[0].port()).unwrap();
            server.run().await.unwrap();
        });
    });
    told.recv().unwrap()
}

fn on_axum(manager: Manager) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let form = async |session: Session| csrf::token(&session);
            let log_in = async |session: Session| log_in(&session).map(|()| "welcome");
            let app = Router::new()
                .route("/form", get(form))
                .route("/note", post(async |form: String| text_of(&form)))
                .route("/log-in", post(log_in))
                .layer(from_fn_with_state(check(), csrf::axum::protect))
                .layer(manager.middleware());
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, app).await.unwrap();
        });
    });
    port
}

/// Runs a test in both frameworks, with each kind of backend.
fn everywhere(test: fn(&Visitor)) {
    for serve in [on_actix, on_axum] {
        for manager in [
            Manager::new(SignedCookie::new(Key::generate())),
            Manager::new(ServerSide::new(MemoryStore::new())),
            Manager::builder(ServerSide::new(MemoryStore::new()))
                .load_on_demand()
                .build()
                .unwrap(),
        ] {
            test(&Visitor::to(serve(manager)));
        }
    }
}

struct Visitor {
    agent: ureq::Agent,
    port: u16,
}

impl Visitor {
    fn to(port: u16) -> Self {
        // A server may close a connection whose request body no handler read.
        let config = ureq::Agent::config_builder().max_idle_connections(0);
        let config = config.http_status_as_error(false);
        let agent = config.build().into();
        Self { agent, port }
    }

    fn at(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Returns the token of a page.
    fn token(&self) -> String {
        body(self.agent.get(self.at("/form")).call().unwrap()).1
    }

    /// Sends a form with these headers, and returns status and body.
    fn send(&self, path: &str, headers: &[(&str, &str)], form: &[(&str, &str)]) -> (u16, String) {
        let mut request = self.agent.post(self.at(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        body(request.send_form(form.iter().copied()).unwrap())
    }

    /// Sends a note with a token in its form.
    fn note(&self, token: &str) -> (u16, String) {
        self.send("/note", &[], &[("text", "a&b"), (csrf::FIELD, token)])
    }
}

fn body(response: ureq::http::Response<ureq::Body>) -> (u16, String) {
    let status = response.status().as_u16();
    (status, response.into_body().read_to_string().unwrap())
}

fn accepted() -> (u16, String) {
    (200, "a&b".to_owned())
}

#[test]
fn a_form_with_a_token_of_its_session_is_accepted_and_reaches_the_handler() {
    everywhere(|visitor| {
        let (one, two) = (visitor.token(), visitor.token());
        assert_ne!(one, two, "each page has another token");
        for token in [&one, &two, &one] {
            assert_eq!(visitor.note(token), accepted());
        }
    });
}

#[test]
fn a_token_in_the_header_is_accepted_for_any_body() {
    everywhere(|visitor| {
        let token = visitor.token();
        let header = (csrf::HEADER, token.as_str());
        assert_eq!(
            visitor.send("/note", &[header], &[("text", "a&b")]),
            accepted()
        );
        let json = || visitor.agent.post(visitor.at("/log-in"));
        let json = |token: &str| json().header(csrf::HEADER, token).send("{}").unwrap();
        assert_eq!(body(json("wrong")).0, 403);
        assert_eq!(body(json(&token)), (200, "welcome".to_owned()));
    });
}

#[test]
fn a_form_without_a_token_or_with_another_sessions_is_refused() {
    everywhere(|visitor| {
        let stranger = Visitor::to(visitor.port);
        let theirs = stranger.token();
        assert_eq!(visitor.note(&theirs).0, 403, "there is no session yet");
        let own = visitor.token();
        for bad in [&theirs, "", "wrong", &own[1..], &own.repeat(2)] {
            let (status, text) = visitor.note(bad);
            assert_eq!(status, 403, "{bad}");
            assert!(text.contains("reload its page"), "{text}");
        }
        assert_eq!(visitor.send("/note", &[], &[("text", "a&b")]).0, 403);
        assert_eq!(
            visitor.note(&own),
            accepted(),
            "and the session is as it was"
        );
    });
}

#[test]
fn another_site_is_refused_even_with_a_token() {
    everywhere(|visitor| {
        let token = visitor.token();
        let own = visitor.at("");
        let send = |headers: &[(&str, &str)]| {
            visitor.send("/note", headers, &[("text", "a&b"), (csrf::FIELD, &token)])
        };
        let refused = (403, "this request came from another site".to_owned());
        assert_eq!(send(&[("origin", "https://evil.example")]), refused);
        assert_eq!(send(&[("origin", "null")]), refused);
        assert_eq!(
            send(&[("origin", &own), ("sec-fetch-site", "cross-site")]),
            refused
        );
        assert_eq!(send(&[("sec-fetch-site", "same-site")]), refused);
        assert_eq!(send(&[("origin", &own)]), accepted());
        assert_eq!(send(&[("sec-fetch-site", "same-origin")]), accepted());
        assert_eq!(send(&[("origin", "https://pay.example")]), accepted());
    });
}

#[test]
fn a_login_makes_older_tokens_useless() {
    everywhere(|visitor| {
        let before = visitor.token();
        let form = [(csrf::FIELD, before.as_str())];
        assert_eq!(visitor.send("/log-in", &[], &form).0, 200);
        assert_eq!(visitor.note(&before).0, 403);
        assert_eq!(visitor.note(&visitor.token()), accepted());
        assert_eq!(visitor.note(&before).0, 403);
    });
}

#[test]
fn a_form_that_is_too_long_is_refused() {
    everywhere(|visitor| {
        let (token, text) = (visitor.token(), "x".repeat(300 * 1024));
        let form = [(csrf::FIELD, token.as_str()), ("text", &text)];
        assert_eq!(visitor.send("/note", &[], &form).0, 413);
    });
}

#[test]
fn a_request_without_the_session_middleware_is_an_error() {
    let session = session_manager::testing::session();
    assert!(csrf::token(&session).is_ok());
    let request = Request::new(axum::body::Body::empty());
    assert!(matches!(csrf::token(&request), Err(Error::NotMounted)));
    assert!(request.session().is_err());
}
