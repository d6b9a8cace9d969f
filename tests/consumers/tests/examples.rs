//! The examples of other crates as Cargo downloaded them, with the session layer of this crate: what
//! `build.rs` replaces is all that differs. axum-login publishes no example, so that one is written here.

use consumers::{Answer, get, post, serve_example};

/// One module for each example; a replaced layer leaves imports that are not used.
macro_rules! examples {
    ($($name:ident)+) => {
        $(
            #[allow(unused, clippy::all, reason = "not written here")]
            mod $name {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
            }
        )+
    };
}

examples!(tower_sessions axum_messages actix_identity actix_session);

#[path = "../examples/axum_login.rs"]
mod axum_login;

/// Returns the cookie that a response set.
fn cookie(answer: Answer) -> String {
    answer.cookie.expect("a cookie")
}

#[test]
fn the_counter_of_tower_sessions_counts() {
    let server = serve_example(tower_sessions::main);
    let first = get(server, "/", "");
    assert_eq!(first.body, "Current count: 0");
    let second = get(server, "/", &cookie(first));
    assert_eq!(second.body, "Current count: 1");
}

#[test]
fn the_example_of_axum_messages_shows_its_messages_once() {
    let server = serve_example(axum_messages::main);
    assert_eq!(get(server, "/read-messages", "").body, "No messages yet!");
    let set = get(server, "/", "");
    assert_eq!(set.status, 303);
    let shown = get(server, "/read-messages", &cookie(set));
    assert!(shown.body.contains("Hello, world!"), "{shown:?}");
    let again = get(server, "/read-messages", &cookie(shown));
    assert_eq!(again.body, "No messages yet!");
}

#[test]
fn the_example_of_actix_identity_logs_in_and_out() {
    let server = serve_example(|| actix_identity::main().unwrap());
    assert_eq!(get(server, "/", "").body, "Welcome Anonymous!");
    assert_eq!(post(server, "/logout", "", "").status, 401);
    let user = cookie(post(server, "/login", "", ""));
    assert_eq!(get(server, "/", &user).body, "Welcome! User1");
    let gone = post(server, "/logout", &user, "");
    assert_eq!(gone.status, 204);
    assert!(gone.removes_the_cookie());
}

#[test]
fn the_example_of_actix_session_welcomes_and_counts() {
    let server = serve_example(|| actix_session::main().unwrap());
    let first = get(server, "/", "");
    assert_eq!(first.body, "Welcome!");
    let second = get(server, "/", &cookie(first));
    assert_eq!(
        (second.status, second.cookie.is_some()),
        (200, true),
        "counted"
    );
}

#[test]
fn the_example_of_axum_login_logs_in_and_out() {
    let server = serve_example(axum_login::main);
    assert_eq!(get(server, "/", "").status, 307);
    let wrong = post(server, "/login", "", "username=ferris&password=guess");
    let page = get(server, "/login", &cookie(wrong));
    assert!(page.body.starts_with("Wrong name or password"), "{page:?}");
    let user = post(server, "/login", "", "username=ferris&password=hunter42");
    let user = cookie(user);
    let home = get(server, "/", &user);
    assert!(home.body.starts_with("You are logged in<p>Hello ferris."));
    assert!(get(server, "/logout", &user).removes_the_cookie());
}
