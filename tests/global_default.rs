//! The manager of a process that did not set one.

mod common;

use common::{Log, Server, Web, alone::alone, key_of, on_every_framework, watch};
use session_manager::{Key, Manager, SignedCookie, manager};

fn without_a_secret_debug_builds_warn_and_use_a_known_key(web: Web) {
    alone(web, &[], || {
        let log = Log::of_process();
        assert!(manager::is_insecure_default());
        assert_eq!(manager::get().backend_name(), "signed cookie");
        assert_eq!(manager::get().settings().cookie_name(), "_session");
        assert_eq!(
            log.lines(""),
            [""; 0],
            "nothing is said before the first session is opened"
        );

        let server = Server::scripts(web, manager::middleware());
        let visitor = server.visitor();
        visitor.body("/run/add.key.value");
        assert_eq!(visitor.body("/run/get.key"), "value");
        let lines = log.lines("SESSION_SECRET");
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(
            lines[0].contains("WARN") && lines[0].contains("manager::set"),
            "{lines:#?}"
        );
    });
}

fn a_short_secret_counts_as_none_and_the_warning_says_so(web: Web) {
    alone(web, &[("SESSION_SECRET", "short")], || {
        let log = Log::of_process();
        assert!(manager::is_insecure_default());
        Server::scripts(web, manager::middleware())
            .visitor()
            .body("/run/len");
        assert!(
            log.lines("SESSION_SECRET")[0].contains("5 bytes long, but at least 32 are required")
        );
    });
}

fn with_a_secret_the_default_signs_with_it_without_a_warning(web: Web) {
    const SECRET: &str = "thirty-two bytes or more, at random";
    alone(web, &[("SESSION_SECRET", SECRET)], || {
        let log = Log::of_process();
        assert!(!manager::is_insecure_default());
        let server = Server::scripts(web, manager::middleware());
        let cookie = server.raw("/run/add.key.value", &[]).cookie();
        let same_key = Manager::new(SignedCookie::new(key_of(SECRET)));
        let other = Server::scripts(web, same_key.middleware());
        assert_eq!(other.with_cookie("/run/get.key", cookie).body, "value");
        assert_eq!(log.lines(""), [""; 0]);
    });
}

fn setting_a_manager_first_avoids_the_default_and_its_warning(web: Web) {
    alone(web, &[], || {
        let log = Log::of_process();
        let kept_by_a_library = manager::get();
        manager::set(Manager::new(SignedCookie::new(Key::generate())));
        let server = Server::scripts(web, manager::middleware());
        server.visitor().body("/run/add.key.value");
        drop(kept_by_a_library);
        assert_eq!(log.lines(""), [""; 0]);
    });
}

fn without_a_log_subscriber_the_warning_goes_to_stderr(web: Web) {
    let output = alone(web, &[], || {
        watch::nobody_listens();
        let server = Server::scripts(web, manager::middleware());
        server.visitor().body("/run/len");
        server.visitor().body("/run/len");
    });
    if let Some(output) = output {
        assert_eq!(
            output
                .matches("session-manager: sessions are signed")
                .count(),
            1,
            "{output}"
        );
    }
}

on_every_framework!(
    without_a_secret_debug_builds_warn_and_use_a_known_key,
    a_short_secret_counts_as_none_and_the_warning_says_so,
    with_a_secret_the_default_signs_with_it_without_a_warning,
    setting_a_manager_first_avoids_the_default_and_its_warning,
    without_a_log_subscriber_the_warning_goes_to_stderr,
);
