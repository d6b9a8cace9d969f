//! The manager of a process in which nobody set one.

mod common;

use std::process::Command;

use common::{Log, Server, script};
use session_manager::{Key, Manager, SignedCookie, manager};

/// Runs this test anew in a process of its own, where `SESSION_SECRET` is what the test needs. In
/// that process it returns nothing; here, what that process wrote.
fn alone(secret: Option<&str>) -> Option<String> {
    const MARK: &str = "SESSION_MANAGER_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return None;
    }
    // The test harness names the thread after the test.
    let thread = std::thread::current();
    let test = thread.name().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", test, "--nocapture"])
        .env(MARK, "1")
        .env_remove("SESSION_SECRET");
    if let Some(secret) = secret {
        child.env("SESSION_SECRET", secret);
    }
    let output = child.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("1 passed"),
        "the test did not run alone: {text}"
    );
    Some(text)
}

#[test]
fn without_a_secret_a_debug_build_signs_with_the_development_key_and_warns_once() {
    if alone(None).is_some() {
        return;
    }
    let log = Log::of_process();
    assert!(manager::is_insecure_default());
    assert_eq!(manager::get().engine(), "signed cookie");
    assert_eq!(manager::get().settings().cookie_name(), "_session");
    assert_eq!(
        log.lines(""),
        [""; 0],
        "nothing is said before the first session is opened"
    );

    let server = Server::start(manager::middleware(), script::routes);
    let visitor = server.visitor();
    visitor.body("/run/add.key.value");
    assert_eq!(visitor.body("/run/get.key"), "value");
    let lines = log.lines("SESSION_SECRET");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        lines[0].contains("WARN") && lines[0].contains("manager::set"),
        "{lines:#?}"
    );
}

#[test]
fn a_short_secret_is_as_good_as_none_and_the_warning_says_how_long_it_must_be() {
    if alone(Some("short")).is_some() {
        return;
    }
    let log = Log::of_process();
    assert!(manager::is_insecure_default());
    Server::start(manager::middleware(), script::routes)
        .visitor()
        .body("/run/len");
    assert!(log.lines("SESSION_SECRET")[0].contains("5 bytes long, and must be 32 or more"));
}

#[test]
fn with_a_secret_the_default_signs_with_it_and_is_quiet() {
    const SECRET: &str = "thirty-two bytes or more, at random";
    if alone(Some(SECRET)).is_some() {
        return;
    }
    let log = Log::of_process();
    assert!(!manager::is_insecure_default());
    let server = Server::start(manager::middleware(), script::routes);
    let cookie = server.raw("/run/add.key.value", &[]).cookie();
    let same_key = Manager::new(SignedCookie::new(Key::from_secret(SECRET).unwrap()));
    let other = Server::start(same_key.middleware(), script::routes);
    assert_eq!(other.with_cookie("/run/get.key", cookie).body, "value");
    assert_eq!(log.lines(""), [""; 0]);
}

#[test]
fn a_manager_that_is_set_before_the_first_request_keeps_the_default_quiet() {
    if alone(None).is_some() {
        return;
    }
    let log = Log::of_process();
    let kept_by_a_library = manager::get();
    manager::set(Manager::new(SignedCookie::new(Key::generate())));
    let server = Server::start(manager::middleware(), script::routes);
    server.visitor().body("/run/add.key.value");
    drop(kept_by_a_library);
    assert_eq!(log.lines(""), [""; 0]);
}

#[test]
fn where_nobody_listens_to_the_log_the_warning_goes_to_standard_error() {
    match alone(None) {
        Some(output) => assert_eq!(
            output
                .matches("session-manager: sessions are signed")
                .count(),
            1
        ),
        None => {
            let server = Server::start(manager::middleware(), script::routes);
            server.visitor().body("/run/len");
            server.visitor().body("/run/len");
        }
    }
}
