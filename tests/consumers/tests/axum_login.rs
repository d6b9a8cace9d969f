//! axum-login and axum-messages, unmodified, on the request's own session.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, thread::scope};

use axum::{
    Router,
    extract::Path,
    response::{IntoResponse, Redirect},
    routing::get,
};
use axum_login::{AuthManager, AuthSession, AuthUser, AuthnBackend, UserId, login_required};
use axum_messages::{Messages, MessagesManagerLayer};
use consumers::{Answer, Gate, count_of_sessions, get as ask, serve_axum, tests_on};
use session_manager::{Error, Manager, web::TowerSessions014};
use tokio::sync::Barrier;
use tower::layer::layer_fn;
use tower_sessions::Session;

#[derive(Clone, Debug)]
struct User(i64);

impl AuthUser for User {
    type Id = i64;

    fn id(&self) -> i64 {
        self.0
    }

    fn session_auth_hash(&self) -> &[u8] {
        b"of the password"
    }
}

#[derive(Clone, Debug)]
struct Users;

impl AuthnBackend for Users {
    type User = User;
    type Credentials = i64;
    type Error = Infallible;

    async fn authenticate(&self, id: i64) -> Result<Option<User>, Infallible> {
        Ok((id < 100).then_some(User(id)))
    }

    async fn get_user(&self, id: &UserId<Self>) -> Result<Option<User>, Infallible> {
        Ok(Some(User(*id)))
    }
}

type Auth = AuthSession<Users>;

async fn log_in(mut auth: Auth, messages: Messages, Path(id): Path<i64>) -> impl IntoResponse {
    let Some(user) = auth.authenticate(id).await.unwrap() else {
        messages.error("who are you?");
        return Redirect::to("/");
    };
    auth.login(&user).await.unwrap();
    messages.success(format!("hello {id}"));
    Redirect::to("/me")
}

async fn me(auth: Auth) -> String {
    auth.user.map_or("nobody".into(), |user| user.0.to_string())
}

async fn home(messages: Messages) -> String {
    let all = messages.into_iter().map(|message| message.to_string());
    all.collect::<Vec<_>>().join(",")
}

async fn log_out(mut auth: Auth) {
    auth.logout().await.unwrap();
}

tests_on! {
    server_side:
        a_user_logs_in_reads_a_message_once_and_logs_out
        a_cookie_from_before_the_login_or_the_log_out_opens_nothing
        the_users_sessions_are_listed
        fifty_overlapping_inserts_are_all_kept
        a_log_out_wins_against_a_slow_request;
    signed_cookies:
        a_user_logs_in_reads_a_message_once_and_logs_out
        a_copy_of_a_cookie_outlives_the_log_out
        no_user_can_be_looked_up
        of_overlapping_inserts_each_response_has_its_own
        a_slow_request_restores_a_session_that_was_logged_out;
}

async fn keys(session: Session) -> String {
    let mut found = 0;
    for n in 0..50 {
        let value = session.get::<u8>(&format!("key{n}")).await.unwrap();
        found += usize::from(value.is_some());
    }
    found.to_string()
}

fn serve(manager: &Manager, gate: &Gate) -> SocketAddr {
    let together = Arc::new(Barrier::new(50));
    let gate = gate.clone();
    let bridge = TowerSessions014::new().user_key("axum-login.data", |data| {
        Some(data["user_id"].as_i64()?.to_string())
    });
    serve_axum(
        Router::new()
            .route("/me", get(me))
            .route_layer(login_required!(Users, login_url = "/login"))
            .route("/who", get(me))
            .route("/", get(home))
            .route("/login/{id}", get(log_in))
            .route("/logout", get(log_out))
            .route("/keys", get(keys))
            .route(
                "/together/{n}",
                get(move |session: Session, Path(n): Path<u8>| {
                    let together = Arc::clone(&together);
                    async move {
                        // Loaded before anything is written.
                        session.get_value("any").await.unwrap();
                        together.wait().await;
                        session.insert(&format!("key{n}"), n).await.unwrap();
                    }
                }),
            )
            .route(
                "/slow",
                get(async move |auth: Auth, session: Session| {
                    assert!(auth.user.is_some());
                    gate.wait().await;
                    session.insert("late", 1).await.unwrap();
                }),
            )
            .layer(MessagesManagerLayer)
            .layer(layer_fn(|service| {
                AuthManager::new(service, Users, "axum-login.data")
            }))
            .layer(bridge)
            .layer(manager.middleware()),
    )
}

/// Returns the cookie of a user who logged in and reached the page.
fn logged_in(server: SocketAddr, id: u8) -> String {
    let cookie = ask(server, &format!("/login/{id}"), "").cookie.unwrap();
    assert_eq!(ask(server, "/me", &cookie).body, id.to_string());
    cookie
}

/// Sends fifty requests that overlap, each of which inserts one key.
fn insert_fifty(server: SocketAddr, cookie: &str) -> Vec<Answer> {
    scope(|scope| {
        let together: Vec<_> = (0..50)
            .map(|n| scope.spawn(move || ask(server, &format!("/together/{n}"), cookie)))
            .collect();
        together.into_iter().map(|it| it.join().unwrap()).collect()
    })
}

/// Logs out while the handler of another request runs, and returns that request's response.
fn log_out_meanwhile(server: SocketAddr, gate: &Gate, cookie: &str) -> Answer {
    scope(|scope| {
        let slow = scope.spawn(move || ask(server, "/slow", cookie));
        gate.pass();
        assert!(ask(server, "/logout", cookie).removes_the_cookie());
        gate.pass();
        slow.join().unwrap()
    })
}

fn a_user_logs_in_reads_a_message_once_and_logs_out(manager: &Manager) {
    let server = serve(manager, &Gate::new());
    let refused = ask(server, "/me", "");
    assert_eq!((refused.status, &refused.cookie), (307, &None));
    let before = ask(server, "/login/100", "").cookie.unwrap();
    let message = ask(server, "/", &before);
    assert_eq!(message.body, "who are you?");
    let login = ask(server, "/login/7", &before);
    let user = login.cookie.unwrap();
    assert_ne!(before, user);
    assert_eq!(ask(server, "/me", &user).body, "7");
    let message = ask(server, "/", &user);
    assert_eq!(message.body, "hello 7");
    let user = message.cookie.unwrap_or(user);
    assert_eq!(ask(server, "/", &user).body, "", "once");
    assert_eq!(ask(server, "/who", &before).body, "nobody");
    let logout = ask(server, "/logout", &user);
    assert_eq!(logout.status, 200);
    assert!(logout.removes_the_cookie());
}

fn a_cookie_from_before_the_login_or_the_log_out_opens_nothing(manager: &Manager) {
    let server = serve(manager, &Gate::new());
    let before = ask(server, "/login/100", "").cookie.unwrap();
    let user = ask(server, "/login/7", &before).cookie.unwrap();
    assert_eq!(ask(server, "/me", &user).body, "7");
    ask(server, "/logout", &user);
    for old in [before, user] {
        assert_eq!(ask(server, "/me", &old).status, 307);
        assert_eq!(ask(server, "/", &old).body, "", "no message either");
    }
}

fn a_copy_of_a_cookie_outlives_the_log_out(manager: &Manager) {
    let server = serve(manager, &Gate::new());
    let user = logged_in(server, 7);
    ask(server, "/logout", &user);
    assert_eq!(ask(server, "/me", &user).body, "7");
}

fn the_users_sessions_are_listed(manager: &Manager) {
    let server = serve(manager, &Gate::new());
    let (one, other) = (logged_in(server, 7), logged_in(server, 7));
    let count = |user| count_of_sessions(manager, user);
    assert_eq!((count("7"), count("8")), (2, 0));
    ask(server, "/logout", &one);
    assert_eq!(ask(server, "/who", &one).body, "nobody");
    assert_eq!(ask(server, "/who", &other).body, "7");
    assert_eq!(count("7"), 1);
}

fn no_user_can_be_looked_up(manager: &Manager) {
    let server = serve(manager, &Gate::new());
    logged_in(server, 7);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listed = runtime.block_on(async { manager.user_sessions("7").await });
    assert!(matches!(listed, Err(Error::NoUserIndex { .. })));
}

fn fifty_overlapping_inserts_are_all_kept(manager: &Manager) {
    let server = serve(manager, &Gate::new());
    let user = logged_in(server, 7);
    let answers = insert_fifty(server, &user);
    assert!(answers.iter().all(|it| it.status == 200));
    assert_eq!(ask(server, "/keys", &user).body, "50");
}

fn of_overlapping_inserts_each_response_has_its_own(manager: &Manager) {
    let server = serve(manager, &Gate::new());
    let user = logged_in(server, 7);
    for answer in insert_fifty(server, &user) {
        assert_eq!(ask(server, "/keys", &answer.cookie.unwrap()).body, "1");
    }
}

fn a_log_out_wins_against_a_slow_request(manager: &Manager) {
    let gate = Gate::new();
    let server = serve(manager, &gate);
    let user = logged_in(server, 7);
    let late = log_out_meanwhile(server, &gate, &user);
    assert_eq!((late.status, late.cookie), (200, None));
    assert_eq!(ask(server, "/who", &user).body, "nobody");
    assert_eq!(count_of_sessions(manager, "7"), 0);
}

fn a_slow_request_restores_a_session_that_was_logged_out(manager: &Manager) {
    let gate = Gate::new();
    let server = serve(manager, &gate);
    let user = logged_in(server, 7);
    let late = log_out_meanwhile(server, &gate, &user);
    assert_eq!(ask(server, "/who", &late.cookie.unwrap()).body, "7");
}
