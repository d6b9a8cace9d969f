//! Sessions whose token travels in a header.

use crate::common::{Answer, Server, Web, all_backends, on_every_framework};
use session_manager::{Builder, Carrier, ConfigError};

/// A carrier, the header that a client sends it in, and the one that it comes back in.
const CARRIERS: [(Carrier, &str, &str); 2] = [
    (Carrier::Header("X-Session"), "x-session: ", "x-session"),
    (Carrier::Bearer, "authorization: Bearer ", Carrier::TOKEN),
];

fn serve(web: Web, builder: Builder) -> Server {
    Server::scripts(web, builder.build().unwrap().middleware())
}

fn get(server: &Server, path: &str, header: &str, token: &str) -> Answer {
    server.raw(path, &[format!("{header}{token}").as_bytes()])
}

fn a_token_comes_in_a_header_and_opens_the_session(web: Web) {
    for (backend, builder) in all_backends() {
        for (carrier, sent, returned) in CARRIERS {
            let server = serve(web, builder().carrier(carrier));
            let first = server.raw("/run/add.key.value", &[]);
            let token = first.header(returned).unwrap();
            assert_eq!(first.set_cookie(), None, "{backend}: {carrier:?}");
            assert_eq!(first.header("cache-control"), Some("no-store"), "{backend}");
            let read = get(&server, "/run/get.key", sent, token);
            assert_eq!(read.body, "value", "{backend}: {carrier:?}");
            assert_eq!(
                read.header(returned),
                None,
                "{backend}: nothing was written"
            );
            let by = sent.split(':').next().unwrap();
            let vary = read.header("vary").unwrap();
            assert!(vary.eq_ignore_ascii_case(by), "{backend}: {vary}");
        }
    }
}

fn a_renewal_returns_a_new_token_and_a_log_out_an_empty_one(web: Web) {
    for (backend, builder) in all_backends() {
        for (carrier, sent, returned) in CARRIERS {
            let server = serve(web, builder().carrier(carrier));
            let first = server.raw("/run/add.key.value", &[]);
            let old = first.header(returned).unwrap();
            let renewed = get(&server, "/run/renew", sent, old);
            let new = renewed.header(returned).unwrap();
            assert_ne!(new, old, "{backend}: {carrier:?}");
            assert_eq!(
                get(&server, "/run/get.key", sent, new).body,
                "value",
                "{backend}"
            );
            let ended = get(&server, "/run/destroy", sent, new);
            assert_eq!(ended.header(returned), Some(""), "{backend}: {carrier:?}");
            if backend == "memory" {
                assert_eq!(get(&server, "/run/get.key", sent, new).body, "none");
            }
        }
    }
}

fn a_request_is_read_by_its_carrier_alone(web: Web) {
    for (backend, builder) in all_backends() {
        let by_cookie = serve(web, builder());
        let cookie = by_cookie.raw("/run/add.key.value", &[]).cookie();
        let token = cookie.split_once('=').unwrap().1;
        assert_eq!(
            get(&by_cookie, "/run/get.key", "x-session: ", token).body,
            "none",
            "{backend}"
        );
        for (carrier, sent, returned) in CARRIERS {
            let server = serve(web, builder().carrier(carrier));
            let mine = server.raw("/run/add.key.mine", &[]);
            let mine = format!("{sent}{}", mine.header(returned).unwrap());
            let cookie = format!("cookie: {cookie}");
            let both = server.raw("/run/get.key", &[mine.as_bytes(), cookie.as_bytes()]);
            assert_eq!(both.body, "mine", "{backend}: {carrier:?}");
            let other = server.raw("/run/get.key", &[cookie.as_bytes()]);
            assert_eq!(other.body, "none", "{backend}: {carrier:?}");
        }
    }
}

fn a_forged_token_is_an_empty_session(web: Web) {
    for (backend, builder) in all_backends() {
        for (carrier, sent, returned) in CARRIERS {
            let server = serve(web, builder().carrier(carrier));
            let long = "a".repeat(5_000);
            for forged in ["", "x", "Bearer", "a b", "\u{e9}", &long] {
                let answer = get(&server, "/run/get.key", sent, forged);
                assert_eq!(
                    (answer.status, &*answer.body),
                    (200, "none"),
                    "{backend}: {forged}"
                );
                assert_eq!(answer.header(returned), None, "{backend}: {forged}");
            }
            let twice = format!("{sent}a");
            let answer = server.raw("/run/get.key", &[twice.as_bytes(), twice.as_bytes()]);
            assert_eq!(answer.body, "none", "{backend}: {carrier:?}");
        }
    }
}

fn sessions_migrate_from_a_cookie_to_a_header(web: Web) {
    for (backend, builder) in all_backends() {
        let old = builder().build().unwrap();
        let cookie = {
            let server = Server::scripts(web, old.middleware());
            server.raw("/run/add.key.value", &[]).cookie()
        };
        let new = builder().carrier(Carrier::Bearer).migrate_from(old);
        let server = serve(web, new);
        let moved = server.with_cookie("/run/add.other.1", &cookie);
        let token = moved.header(Carrier::TOKEN).unwrap().to_owned();
        assert!(
            moved
                .all("set-cookie")
                .all(|cookie| cookie.contains("Max-Age=0")),
            "{backend}: the old cookie is removed"
        );
        let read = get(
            &server,
            "/run/get.key,get.other",
            "authorization: Bearer ",
            &token,
        );
        assert_eq!(read.body, "value,1", "{backend}");
    }
}

on_every_framework! {
    a_token_comes_in_a_header_and_opens_the_session,
    a_renewal_returns_a_new_token_and_a_log_out_an_empty_one,
    a_request_is_read_by_its_carrier_alone,
    a_forged_token_is_an_empty_session,
    sessions_migrate_from_a_cookie_to_a_header,
}

#[test]
fn a_header_with_another_meaning_is_no_carrier() {
    for name in ["", "two words", "Cookie", "Authorization", "set-cookie"] {
        for (_, builder) in all_backends() {
            let refused = builder().carrier(Carrier::Header(name)).build();
            assert!(
                matches!(refused, Err(ConfigError::Carrier { .. })),
                "{name}"
            );
        }
    }
}
