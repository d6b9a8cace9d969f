//! Whatever a client sends in place of its cookie is an empty session, and whatever a handler stores
//! that cannot be stored is an error that loses nothing.

use std::time::Duration;

use crate::common::{App, Clock, Log, Server, Web, backends, key_of, on_every_framework};
use session_manager::{Builder, Error, Key, Manager, PrivateCookie, SignedCookie};

fn serve(web: Web, builder: Builder) -> Server {
    Server::scripts(web, builder.build().unwrap().middleware())
}

/// The value of a session cookie that holds `key = value`, as `builder`'s manager makes it.
fn valid(web: Web, builder: Builder) -> String {
    let cookie = serve(web, builder).raw("/run/add.key.value", &[]).cookie();
    cookie.split_once('=').unwrap().1.to_owned()
}

/// A cookie of its own for each backend and case, by which its log lines are found.
fn check(web: Web, builder: fn() -> Builder, name: &str, cookie: &[u8], secret_part: &str) {
    let log = Log::of_process();
    let server = serve(web, builder().cookie_name(name));
    let nobody = server.raw("/run/get.key,len,flashes", &[]);
    let answer = server.with_cookie("/run/get.key,len,flashes", cookie);
    assert_eq!(
        (answer.status, &*answer.body),
        (nobody.status, &*nobody.body),
        "{name}"
    );
    assert_eq!(answer.set_cookie(), None, "{name}");
    let lines = log.lines(&format!("`{name}`"));
    assert_eq!(lines.len(), 1, "{name}: {lines:#?}");
    assert!(
        !log.text().contains(secret_part),
        "{name}: the log has the cookie's value"
    );

    // The client can begin again: the next write replaces the cookie.
    let anew = server.with_cookie("/run/add.key.new", cookie);
    assert_eq!(
        server.with_cookie("/run/get.key", anew.cookie()).body,
        "new",
        "{name}"
    );
}

fn a_forged_cookie_is_an_empty_session_and_one_log_line(web: Web) {
    for (backend, builder) in backends() {
        let name = |case: &str| format!("{backend}-{web}-{case}");
        let good = |case: &str| valid(web, builder().cookie_name(name(case)));
        let check_value = |case: &str, value: &str| {
            let cookie = format!("{}={value}", name(case));
            let secret_part = if value.len() < 12 {
                &cookie
            } else {
                &value[value.len() - 12..]
            };
            check(web, builder, &name(case), cookie.as_bytes(), secret_part);
        };

        let value = good("flipped");
        let flip = |at: usize| {
            let mut bytes = value.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            String::from_utf8(bytes).unwrap()
        };
        check_value("flipped", &flip(value.len() / 2));
        check_value("version", &flip(0));
        let line = &Log::of_process().lines(&format!("`{}`", name("version")))[0];
        assert!(line.contains("of another version"), "{line}");
        check_value("signature", &flip(value.len() - 2));
        check_value("cut", &good("cut")[..40]);
        check_value("nearly-whole", &value[..value.len() - 1]);
        check_value("one-letter", "A");
        check_value("blank", "");
        check_value("doubled", &good("doubled").repeat(2));
        check_value("padded", &format!("{}==", good("padded")));
        check_value(
            "other-name",
            &valid(web, builder().cookie_name("another-name")),
        );
        let other_key = || key_of([8; 32]);
        let rekeyed: fn(Key) -> Builder = match backend {
            "signed" => |key| Manager::builder(SignedCookie::new(key)),
            _ => |key| Manager::builder(PrivateCookie::new(key)),
        };
        check_value(
            "other-key",
            &valid(web, rekeyed(other_key()).cookie_name(name("other-key"))),
        );
        for (other, make) in backends() {
            if other != backend {
                check_value(
                    "other-backend",
                    &valid(web, make().cookie_name(name("other-backend"))),
                );
            }
        }
        check_value("long", &"A".repeat(100_000));
        check_value("just-too-long", &"A".repeat(4097));
        check_value("json", r#"{"key":"value"}"#);
        check_value("base64", "eyJrZXkiOiJ2YWx1ZSJ9");
        check_value("base64-of-nothing", &"A".repeat(64));
    }
}

fn a_non_utf8_cookie_is_an_empty_session_and_one_log_line(web: Web) {
    for (backend, builder) in backends() {
        let name = format!("{backend}-{web}-bytes");
        let cookie = [name.as_bytes(), b"=AQ\xff\xfe\x80never-logged"].concat();
        check(web, builder, &name, &cookie, "never-logged");
    }
}

fn two_different_session_cookies_are_an_empty_session(web: Web) {
    for (backend, builder) in backends() {
        let name = format!("{backend}-{web}-twice");
        let (one, two) = (
            valid(web, builder().cookie_name(&name)),
            "planted-by-somebody",
        );
        let cookie = format!("{name}={one}; other=1; {name}={two}");
        check(web, builder, &name, cookie.as_bytes(), two);
    }
}

fn the_same_cookie_twice_opens_the_session(web: Web) {
    for (backend, builder) in backends() {
        let server = serve(web, builder());
        let cookie = server.raw("/run/add.key.value", &[]).cookie();
        let answer = server.with_cookie("/run/get.key", format!("{cookie}; {cookie}"));
        assert_eq!(answer.body, "value", "{backend}");
    }
}

/// HTTP/2 may send each cookie in a line of its own (RFC 9113, section 8.2.3).
fn the_cookie_is_found_in_any_cookie_header_line(web: Web) {
    let server = serve(web, backends()[0].1());
    let cookie = server.raw("/run/add.key.value", &[]).cookie();
    let line = format!("Cookie: {cookie}");
    let lines: [&[u8]; 3] = [b"Cookie: a=1", line.as_bytes(), b"Cookie: b=2"];
    assert_eq!(server.raw("/run/get.key", &lines).body, "value");
}

fn non_utf8_bytes_in_another_cookie_are_ignored(web: Web) {
    for (backend, builder) in backends() {
        let server = serve(web, builder());
        let cookie = server.raw("/run/add.key.value", &[]).cookie();
        let cookie = [b"a=\xff\xfe; ", cookie.as_bytes(), b";b=\x80"].concat();
        assert_eq!(
            server.with_cookie("/run/get.key", cookie).body,
            "value",
            "{backend}"
        );
    }
}

fn an_untouched_cookie_is_not_even_verified(web: Web) {
    let log = Log::of_process();
    let name = format!("untouched-{web}");
    let server = serve(web, backends()[0].1().cookie_name(&name));
    let answer = server.with_cookie("/idle", format!("{name}=forged-and-never-looked-at"));
    assert_eq!((answer.status, &*answer.body), (200, "idle"));
    assert_eq!(answer.header("vary"), None);
    assert_eq!(log.lines(&format!("`{name}`")), [""; 0]);
}

fn a_value_too_large_for_the_cookie_is_refused_at_the_write(web: Web) {
    for (backend, builder) in backends() {
        for persistent in [false, true] {
            let server = serve(web, builder().secure(true).persistent(persistent));
            let cookie = server.raw("/run/add.key.value,add.other.1", &[]).cookie();
            let fill = |bytes: usize| {
                server.with_cookie(&format!("/run/fill.key.{bytes},get.key,get.other"), &cookie)
            };
            let fits = (0..4096)
                .rev()
                .find(|bytes| fill(*bytes).body.starts_with("null,"));
            let fits = fits.unwrap();
            let answer = fill(fits);
            let sent = answer.set_cookie().unwrap().len();
            // Base64 goes in steps; and room is kept for the longest Max-Age, three digits more.
            let spare = if persistent { 5 } else { 2 };
            assert!(
                (4096 - spare..=4096).contains(&sent),
                "{backend}: {sent} bytes fit"
            );

            let answer = fill(fits + 1);
            let (error, rest) = answer.body.split_once(',').unwrap();
            let size: usize = error.split(' ').nth(2).unwrap().parse().unwrap();
            assert_eq!(error, format!("too large {size} of 4096"), "{backend}");
            assert!((4097..=4099).contains(&size), "{backend}: {size}");
            assert_eq!(rest, "value,1", "{backend}");
            assert_eq!(answer.set_cookie(), None, "{backend}");
        }
    }
}

fn a_cookie_that_outgrew_the_limit_is_never_sent(web: Web) {
    let log = Log::of_process();
    for (backend, builder) in backends() {
        let clock = Clock::default();
        let before = serve(web, builder().clock(clock.now()));
        let large = before.raw("/run/fill.key.2950,add.small.1", &[]).cookie();
        // The same cookie, with an attribute that takes room.
        let domain = format!("{}.example.com", "d".repeat(300));
        let server = serve(web, builder().clock(clock.now()).cookie_domain(domain));

        // A removal is an error, because a browser would drop the cookie that keeps it.
        let popped = server.with_cookie("/run/pop.small", &large);
        assert_eq!(
            (popped.status, popped.set_cookie()),
            (500, None),
            "{backend}"
        );
        // A touch keeps the cookie that the client has.
        clock.forward(Duration::from_secs(2 * 60 * 60));
        for _ in 0..2 {
            let touched = server.with_cookie("/run/get.small", &large);
            assert_eq!(
                (touched.body.as_str(), touched.set_cookie()),
                ("1", None),
                "{backend}"
            );
        }
        // What makes it small enough is sent.
        let shrunk = server.with_cookie("/run/pop.key", &large).cookie();
        assert_eq!(
            server.with_cookie("/run/len", &shrunk).body,
            "1",
            "{backend}"
        );
    }
    assert_eq!(
        log.lines("whose time does not move").len(),
        1,
        "once per process"
    );
}

fn a_flash_message_that_does_not_fit_is_refused(web: Web) {
    for (backend, builder) in backends() {
        let server = serve(web, builder());
        let cookie = server.raw("/run/fill.key.2900,flash.kept", &[]).cookie();
        let long = "m".repeat(300);
        let answer = server.with_cookie(&format!("/run/flash.{long},flashes"), &cookie);
        assert!(
            answer.body.starts_with("too large ") && answer.body.ends_with(" of 4096,kept"),
            "{backend}: {answer:?}"
        );
    }
}

fn a_value_that_json_cannot_express_is_refused(web: Web) {
    for (backend, builder) in backends() {
        let server = serve(web, builder());
        let cookie = server.raw("/run/add.key.old", &[]).cookie();
        let answer = server.with_cookie("/run/nan.key,get.key", &cookie);
        assert_eq!(answer.body, "unserializable,old", "{backend}");
        assert_eq!(answer.set_cookie(), None, "{backend}");
    }
}

fn reading_a_value_as_another_type_is_an_error_and_keeps_it(web: Web) {
    for (backend, builder) in backends() {
        let server = serve(web, builder());
        let cookie = server.raw("/run/add.key.text", &[]).cookie();
        let answer = server.with_cookie("/run/number.key,popnumber.key,count.key,get.key", &cookie);
        assert_eq!(
            answer.body, "wrong type,wrong type,wrong type,text",
            "{backend}"
        );
        assert_eq!(answer.set_cookie(), None, "{backend}");
    }
}

fn reserved_keys_are_refused(web: Web) {
    let server = serve(web, backends()[0].1());
    assert_eq!(
        server
            .raw("/run/add.%01key.value,count.%01key,len", &[])
            .body,
        "reserved,reserved,0"
    );
}

fn error_responses_show_the_client_only_a_status_phrase(web: Web) {
    let app = App::new().get("/{error}", async |_, error| {
        let secret = serde_json::from_str::<u8>("\"the stored secret\"").unwrap_err();
        let error = match &*error {
            "too-large" => Error::too_large(5000, 4096),
            "wrong-type" => Error::WrongType {
                key: "k".into(),
                expected: "u8",
                source: secret,
            },
            _ => Error::Unavailable {
                source: "redis://user:password@host".into(),
            },
        };
        assert!(!format!("{error:?}{error}").contains("the stored secret"));
        Err::<&str, _>(error)
    });
    let server = Server::start(
        web,
        app.wrap(backends()[0].1().build().unwrap().middleware()),
    );
    for (error, expected) in [
        ("too-large", (500, "Internal Server Error")),
        ("wrong-type", (500, "Internal Server Error")),
        ("unavailable", (503, "Service Unavailable")),
    ] {
        let answer = server.raw(&format!("/{error}"), &[]);
        assert_eq!((answer.status, &*answer.body), expected, "{error}");
    }
}

on_every_framework!(
    a_forged_cookie_is_an_empty_session_and_one_log_line,
    a_non_utf8_cookie_is_an_empty_session_and_one_log_line,
    two_different_session_cookies_are_an_empty_session,
    the_same_cookie_twice_opens_the_session,
    the_cookie_is_found_in_any_cookie_header_line,
    non_utf8_bytes_in_another_cookie_are_ignored,
    an_untouched_cookie_is_not_even_verified,
    a_value_too_large_for_the_cookie_is_refused_at_the_write,
    a_cookie_that_outgrew_the_limit_is_never_sent,
    a_flash_message_that_does_not_fit_is_refused,
    a_value_that_json_cannot_express_is_refused,
    reading_a_value_as_another_type_is_an_error_and_keeps_it,
    reserved_keys_are_refused,
    error_responses_show_the_client_only_a_status_phrase,
);
