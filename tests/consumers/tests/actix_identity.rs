//! actix-identity, unmodified, on the request's own session.

use std::{net::SocketAddr, sync::Arc, thread::scope, time::Duration};

use actix_identity::{Identity, IdentityMiddleware};
use actix_session::Session;
use actix_web::{App, HttpMessage, HttpRequest, HttpServer, web};
use consumers::{Answer, Gate, count_of_sessions, get, serve_actix, tests_on};
use session_manager::{Error, Manager, web::ActixSessions};
use tokio::sync::Barrier;

tests_on! {
    server_side:
        a_user_logs_in_is_read_and_logs_out
        a_cookie_from_before_the_login_or_the_log_out_opens_nothing
        the_users_sessions_are_listed
        a_visit_after_the_deadline_logs_out
        fifty_overlapping_inserts_are_all_kept
        a_log_out_wins_against_a_slow_request;
    signed_cookies:
        a_user_logs_in_is_read_and_logs_out
        a_visit_after_the_deadline_logs_out
        a_copy_of_a_cookie_outlives_the_log_out
        no_user_can_be_looked_up
        of_overlapping_inserts_each_response_has_its_own
        a_slow_request_restores_a_session_that_was_logged_out;
}

async fn log_in(request: HttpRequest, id: web::Path<String>) -> &'static str {
    Identity::login(&request.extensions(), id.into_inner()).unwrap();
    "welcome"
}

async fn me(identity: Identity) -> String {
    identity.id().unwrap()
}

async fn log_out(identity: Identity) -> &'static str {
    identity.logout();
    "bye"
}

async fn visit(session: Session) -> actix_web::Result<String> {
    let visits: u32 = session.get("visits")?.unwrap_or(0) + 1;
    session.insert("visits", visits)?;
    Ok(visits.to_string())
}

async fn together(
    session: Session,
    n: web::Path<u8>,
    barrier: web::Data<Barrier>,
) -> actix_web::Result<&'static str> {
    barrier.wait().await;
    session.insert(format!("key{n}"), *n)?;
    Ok("inserted")
}

async fn keys(session: Session) -> String {
    let entries = session.entries();
    let keys = entries.keys().filter(|key| key.starts_with("key"));
    keys.count().to_string()
}

async fn slow(
    _: Identity,
    session: Session,
    gate: web::Data<Gate>,
) -> actix_web::Result<&'static str> {
    gate.wait().await;
    session.insert("late", 1)?;
    Ok("late")
}

const HOUR: Duration = Duration::from_secs(3600);

fn serve(manager: &Manager, gate: &Gate) -> SocketAddr {
    serve_until(manager, gate, HOUR)
}

fn serve_until(manager: &Manager, gate: &Gate, deadline: Duration) -> SocketAddr {
    let (manager, gate) = (manager.clone(), web::Data::new(gate.clone()));
    let barrier = web::Data::from(Arc::new(Barrier::new(50)));
    serve_actix(move |tell| async move {
        let server = HttpServer::new(move || {
            let bridge = ActixSessions::new()
                .user_key("actix_identity.user_id", |id| Some(id.as_str()?.to_owned()));
            let identity = IdentityMiddleware::builder().visit_deadline(Some(deadline));
            App::new()
                .app_data(gate.clone())
                .app_data(barrier.clone())
                .route("/login/{id}", web::get().to(log_in))
                .route("/me", web::get().to(me))
                .route("/visit", web::get().to(visit))
                .route("/logout", web::get().to(log_out))
                .route("/together/{n}", web::get().to(together))
                .route("/keys", web::get().to(keys))
                .route("/slow", web::get().to(slow))
                .wrap(identity.build())
                .wrap(bridge)
                .wrap(manager.middleware())
        });
        let server = server
            .workers(1)
            .disable_signals()
            .bind(("127.0.0.1", 0))
            .unwrap();
        tell.send(server.addrs()[0]).unwrap();
        server.run().await.unwrap();
    })
}

/// Returns the cookie of a user who logged in and was recognized.
fn logged_in(server: SocketAddr, id: &str) -> String {
    let cookie = get(server, &format!("/login/{id}"), "").cookie.unwrap();
    assert_eq!(get(server, "/me", &cookie).body, id);
    cookie
}

/// Sends fifty requests that overlap, each of which inserts one key.
fn insert_fifty(server: SocketAddr, cookie: &str) -> Vec<Answer> {
    scope(|scope| {
        let together: Vec<_> = (0..50)
            .map(|n| scope.spawn(move || get(server, &format!("/together/{n}"), cookie)))
            .collect();
        together.into_iter().map(|it| it.join().unwrap()).collect()
    })
}

/// Logs out while the handler of another request runs, and returns that request's response.
fn log_out_meanwhile(server: SocketAddr, gate: &Gate, cookie: &str) -> Answer {
    scope(|scope| {
        let slow = scope.spawn(move || get(server, "/slow", cookie));
        gate.pass();
        assert!(get(server, "/logout", cookie).removes_the_cookie());
        gate.pass();
        slow.join().unwrap()
    })
}

fn a_user_logs_in_is_read_and_logs_out(manager: &Manager) {
    let server = serve(manager, &Gate::new());
    let refused = get(server, "/me", "");
    assert_eq!((refused.status, &refused.cookie), (401, &None));
    let before = get(server, "/visit", "").cookie.unwrap();
    let user = get(server, "/login/ada", &before).cookie.unwrap();
    assert_ne!(before, user);
    let read = get(server, "/me", &user);
    assert_eq!((read.status, read.body.as_str()), (200, "ada"));
    assert_eq!(get(server, "/visit", &user).body, "2", "one session");
    assert_eq!(get(server, "/me", &before).status, 401);
    assert!(get(server, "/logout", &user).removes_the_cookie());
}

fn a_cookie_from_before_the_login_or_the_log_out_opens_nothing(manager: &Manager) {
    let server = serve(manager, &Gate::new());
    let before = get(server, "/visit", "").cookie.unwrap();
    let user = get(server, "/login/ada", &before).cookie.unwrap();
    assert_eq!(get(server, "/me", &user).body, "ada");
    get(server, "/logout", &user);
    for old in [before, user] {
        assert_eq!(get(server, "/me", &old).status, 401);
        assert_eq!(get(server, "/visit", &old).body, "1", "no other value");
    }
}

fn a_copy_of_a_cookie_outlives_the_log_out(manager: &Manager) {
    let server = serve(manager, &Gate::new());
    let user = logged_in(server, "ada");
    get(server, "/logout", &user);
    assert_eq!(get(server, "/me", &user).body, "ada");
}

fn the_users_sessions_are_listed(manager: &Manager) {
    let server = serve(manager, &Gate::new());
    let (one, other) = (logged_in(server, "ada"), logged_in(server, "ada"));
    let count = |user| count_of_sessions(manager, user);
    assert_eq!((count("ada"), count("bob")), (2, 0));
    get(server, "/logout", &one);
    assert_eq!(count("ada"), 1);
    assert_eq!(get(server, "/me", &one).status, 401);
    assert_eq!(get(server, "/me", &other).body, "ada");
}

fn no_user_can_be_looked_up(manager: &Manager) {
    let server = serve(manager, &Gate::new());
    logged_in(server, "ada");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listed = runtime.block_on(async { manager.user_sessions("ada").await });
    assert!(matches!(listed, Err(Error::NoUserIndex { .. })));
}

fn a_visit_after_the_deadline_logs_out(manager: &Manager) {
    let server = serve_until(manager, &Gate::new(), Duration::from_secs(1));
    let user = get(server, "/login/ada", "").cookie.unwrap();
    assert_eq!(get(server, "/me", &user).status, 200);
    // Of whole seconds; actix-identity reads the system's clock.
    std::thread::sleep(Duration::from_millis(2_100));
    assert_eq!(get(server, "/me", &user).status, 401);
}

fn fifty_overlapping_inserts_are_all_kept(manager: &Manager) {
    let server = serve(manager, &Gate::new());
    let user = logged_in(server, "ada");
    let answers = insert_fifty(server, &user);
    assert!(answers.iter().all(|it| it.status == 200));
    assert_eq!(get(server, "/keys", &user).body, "50");
}

fn of_overlapping_inserts_each_response_has_its_own(manager: &Manager) {
    let server = serve(manager, &Gate::new());
    let user = logged_in(server, "ada");
    for answer in insert_fifty(server, &user) {
        assert_eq!(get(server, "/keys", &answer.cookie.unwrap()).body, "1");
    }
}

fn a_log_out_wins_against_a_slow_request(manager: &Manager) {
    let gate = Gate::new();
    let server = serve(manager, &gate);
    let user = logged_in(server, "ada");
    let late = log_out_meanwhile(server, &gate, &user);
    assert_eq!((late.status, late.cookie), (200, None));
    assert_eq!(get(server, "/me", &user).status, 401);
    assert_eq!(count_of_sessions(manager, "ada"), 0);
}

fn a_slow_request_restores_a_session_that_was_logged_out(manager: &Manager) {
    let gate = Gate::new();
    let server = serve(manager, &gate);
    let user = logged_in(server, "ada");
    let late = log_out_meanwhile(server, &gate, &user);
    assert_eq!(get(server, "/me", &late.cookie.unwrap()).body, "ada");
}
