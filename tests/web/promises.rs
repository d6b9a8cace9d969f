//! What the cookie backends and memory promise, or the cookie backends alone, over a real server.
//! `store_http.rs` has the other stores.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use crate::common::{
    Answer, App, Clock, Server, Talk, Web, Wire, all_backends, backends, block_on, key,
    on_every_framework, talker,
};
use session_manager::{
    Builder, HasSession, Manager, PrivateCookie, SameSite, Session, SignedCookie, manager,
};

fn serve(web: Web, builder: Builder) -> Server {
    Server::scripts(web, builder.build().unwrap().middleware())
}

fn set_cookie_is_sent_once_and_only_after_a_change(web: Web) {
    for (backend, builder) in backends() {
        let server = serve(web, builder());
        let cookie = server.raw("/run/add.key.value", &[]).cookie();
        for quiet in [
            "get.key",
            "number.none",
            "contains.key",
            "keys",
            "len",
            "empty",
            "flashes",
            "pop.none",
            "popnumber.none",
            "add.key.value",
            "add.new.1,pop.new",
            "flash.hello,flashes",
        ] {
            let answer = server.with_cookie(&format!("/run/{quiet}"), &cookie);
            assert_eq!(answer.set_cookie(), None, "{backend}: {quiet}");
        }
        for loud in [
            "add.a.1,add.b.2,flash.c",
            "pop.key",
            "clear",
            "renew",
            "destroy",
            "count.n",
            "add.key.other,add.key.value2",
        ] {
            let answer = server.with_cookie(&format!("/run/{loud}"), &cookie);
            answer.cookie();
            assert_eq!(
                answer.header("cache-control"),
                Some("no-cache=\"Set-Cookie\""),
                "{backend}: {loud}"
            );
            assert_eq!(answer.header("vary"), Some("Cookie"), "{backend}: {loud}");
        }
        for nothing in [
            "destroy",
            "clear",
            "renew",
            "renew,destroy",
            "add.a.1,destroy",
            "flash.a,clear",
        ] {
            let answer = server.raw(&format!("/run/{nothing}"), &[]);
            assert_eq!(
                answer.set_cookie(),
                None,
                "{backend}: {nothing} without a session"
            );
        }
    }
}

fn a_server_error_discards_writes_and_other_statuses_keep_them(web: Web) {
    for (backend, builder) in all_backends() {
        let server = serve(web, builder());
        let cookie = server.raw("/run/add.key.old", &[]).cookie();
        for failing in ["status.500", "status.503", "error"] {
            let answer = server.with_cookie(&format!("/run/add.key.new,renew,{failing}"), &cookie);
            assert!(answer.status >= 500, "{backend}: {answer:?}");
            assert_eq!(answer.set_cookie(), None, "{backend}: {failing}");
            assert_eq!(
                server.with_cookie("/run/get.key", &cookie).body,
                "old",
                "{backend}"
            );
        }
        for status in [200, 303, 400, 404, 422] {
            let answer = server.with_cookie(&format!("/run/add.key.new,status.{status}"), &cookie);
            assert_eq!(answer.status, status);
            let kept = answer
                .set_cookie()
                .map_or(cookie.clone(), |_| answer.cookie());
            let read = server.with_cookie("/run/get.key", &kept);
            assert_eq!(read.body, "new", "{backend}: {status}");
            server.with_cookie("/run/add.key.old", &kept);
        }
    }
}

fn a_panic_discards_writes(web: Web) {
    for (backend, builder) in all_backends() {
        let (tell, told) = mpsc::channel();
        let app = App::new().get("/panic", move |session, _| {
            let tell = tell.clone();
            async move {
                tell.send(session.add("key", "new").is_ok()).unwrap();
                if session.contains_key("key") {
                    panic!("as the test asked");
                }
                Ok("")
            }
        });
        let manager = builder().build().unwrap();
        let server = Server::start(web, app.wrap(manager.middleware()));
        let cookie = server.raw("/run/add.key.old", &[]).cookie();
        let mut client = Wire::to(server.address);
        client.send("/panic", &cookie).unwrap();
        client.receive_none();
        let wrote = told.recv_timeout(Duration::from_secs(10));
        assert_eq!(wrote, Ok(true), "{backend}: the handler wrote");
        let read = server.with_cookie("/run/get.key", &cookie);
        assert_eq!(read.body, "old", "{backend}");
    }
}

fn a_log_out_holds_although_the_response_is_a_server_error(web: Web) {
    for (backend, builder) in all_backends() {
        let server = serve(web, builder());
        for failing in ["status.500", "error"] {
            let cookie = server.raw("/run/add.key.old", &[]).cookie();
            let answer =
                server.with_cookie(&format!("/run/destroy,add.key.new,{failing}"), &cookie);
            assert!(
                answer.cookie().ends_with('='),
                "{backend}: the cookie is removed"
            );
            let copy = server.with_cookie("/run/get.key", &cookie).body;
            // What a cookie backend once signed opens until its time.
            let expected = if backend == "memory" { "none" } else { "old" };
            assert_eq!(copy, expected, "{backend}: {failing}");
        }
    }
}

fn commit_on_server_error_keeps_writes_of_every_response(web: Web) {
    for (backend, builder) in all_backends() {
        let server = serve(web, builder().commit_on_server_error(true));
        for failing in ["status.500", "error"] {
            let answer = server.raw(&format!("/run/add.key.new,{failing}"), &[]);
            let read = server.with_cookie("/run/get.key", answer.cookie());
            assert_eq!(read.body, "new", "{backend}: {failing}");
        }
    }
}

fn what_is_added_after_destroy_begins_a_new_session(web: Web) {
    for (backend, builder) in all_backends() {
        let server = serve(web, builder());
        let cookie = server.raw("/run/add.user.ada,flash.before", &[]).cookie();
        let answer = server.with_cookie("/run/destroy,get.user,flashes,flash.bye,len", &cookie);
        assert_eq!(answer.body, "done,none,,null,0", "{backend}");
        let next = server.with_cookie("/run/get.user,flashes", answer.cookie());
        assert_eq!(next.body, "none,bye", "{backend}");
    }
}

fn a_touch_is_sent_at_most_once_per_twentieth_of_the_idle_time(web: Web) {
    for (backend, builder) in backends() {
        let clock = Clock::default();
        let minute = Duration::from_secs(60);
        let server = serve(web, builder().idle_timeout(20 * minute).clock(clock.now()));
        let cookie = server.raw("/run/add.key.value", &[]).cookie();
        clock.forward(minute - Duration::from_millis(1));
        assert_eq!(
            server.with_cookie("/run/get.key", &cookie).set_cookie(),
            None,
            "{backend}"
        );
        clock.forward(Duration::from_millis(1));
        assert_eq!(
            server.with_cookie("/idle", &cookie).set_cookie(),
            None,
            "{backend}: untouched"
        );
        let touched = server.with_cookie("/run/get.key", &cookie).cookie();
        assert_eq!(
            server.with_cookie("/run/get.key", &touched).set_cookie(),
            None,
            "{backend}"
        );
        clock.forward(20 * minute - Duration::from_millis(1));
        assert_eq!(
            server.with_cookie("/run/get.key", &touched).body,
            "value",
            "{backend}"
        );
        assert_eq!(
            server.with_cookie("/run/get.key", &cookie).body,
            "none",
            "{backend}"
        );
    }
}

fn a_renewal_keeps_the_data_and_restarts_the_timeouts(web: Web) {
    for (backend, builder) in backends() {
        let clock = Clock::default();
        let day = Duration::from_secs(24 * 60 * 60);
        let server = serve(
            web,
            builder()
                .idle_timeout(3 * day)
                .absolute_timeout(3 * day)
                .clock(clock.now()),
        );
        let cookie = server.raw("/run/add.key.value", &[]).cookie();
        clock.forward(2 * day);
        let renewed = server.with_cookie("/run/renew", &cookie).cookie();
        assert_ne!(renewed, cookie);
        clock.forward(2 * day);
        assert_eq!(
            server.with_cookie("/run/get.key", &renewed).body,
            "value",
            "{backend}"
        );
        assert_eq!(
            server.with_cookie("/run/get.key", &cookie).body,
            "none",
            "{backend}"
        );
    }
}

fn the_cookie_is_secure_except_in_debug_builds_on_plain_loopback(web: Web) {
    let server = serve(web, backends()[0].1());
    let secure = |headers: &[&[u8]]| {
        let answer = server.raw("/run/add.key.value", headers);
        answer.set_cookie().unwrap().contains("; Secure")
    };
    let in_release = !cfg!(debug_profile);
    assert_eq!(secure(&[]), in_release, "127.0.0.1");
    for mark in [
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-Proto: https",
        "Forwarded: for=1.2.3.4",
        "Via: 1.1 p",
        "X-Real-IP: 1.2.3.4",
    ] {
        assert!(secure(&[mark.as_bytes()]), "{mark}");
    }
    let host = |host: &str| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(server.address).unwrap();
        let (version, host) = host.split_once(' ').unwrap();
        write!(
            stream,
            "GET /run/add.key.value {version}\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("set-cookie: "), "{answer}");
        answer.contains("; Secure")
    };
    for loopback in ["localhost:7000", "[::1]", "app.localhost"] {
        assert_eq!(
            host(&format!("HTTP/1.1 {loopback}")),
            in_release,
            "{loopback}"
        );
    }
    assert!(host("HTTP/1.1 example.com") && host("HTTP/1.1 localhost.example.com"));
    for settled in [true, false] {
        let server = serve(web, backends()[0].1().secure(settled));
        let answer = server.raw("/run/add.key.value", &[b"Via: 1.1 p"]);
        assert_eq!(answer.set_cookie().unwrap().contains("; Secure"), settled);
    }
}

fn the_cookie_and_its_removal_have_the_configured_attributes(web: Web) {
    let settings = backends()[0].1()
        .cookie_name("shop")
        .cookie_path("/run")
        .cookie_domain("example.com")
        .same_site(SameSite::None)
        .http_only(false)
        .partitioned(true)
        .persistent(true)
        .idle_timeout(Duration::from_secs(90));
    let server = serve(web, settings);
    let set = server.raw("/run/add.key.value", &[]);
    let removed = server.with_cookie("/run/destroy", set.cookie());
    fn attributes(answer: &Answer) -> Vec<&str> {
        let parts = answer.set_cookie().unwrap().split("; ").skip(1);
        let mut parts: Vec<_> = parts.filter(|part| !part.starts_with("Expires=")).collect();
        parts.sort_unstable();
        parts
    }
    let expected = |max_age| {
        [
            "Domain=example.com",
            max_age,
            "Partitioned",
            "Path=/run",
            "SameSite=None",
            "Secure",
        ]
    };
    assert_eq!(attributes(&set), expected("Max-Age=90"));
    assert_eq!(attributes(&removed), expected("Max-Age=0"));
}

fn a_private_cookie_hides_its_content_and_is_never_repeated(web: Web) {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let value = |builder: Builder| {
        let cookie = serve(web, builder)
            .raw("/run/add.key.a-secret-value", &[])
            .cookie();
        URL_SAFE_NO_PAD
            .decode(cookie.split_once('=').unwrap().1)
            .unwrap()
    };
    let shows = |bytes: &[u8]| bytes.windows(14).any(|window| window == b"a-secret-value");
    let clock = Clock::default();
    let private = || Manager::builder(PrivateCookie::new(key())).clock(clock.now());
    assert!(shows(&value(Manager::builder(SignedCookie::new(key())))));
    assert!(!shows(&value(private())));
    assert_ne!(value(private()), value(private()));
}

fn extracting_the_session_counts_as_reading_it(web: Web) {
    let app = || {
        let talk = async |session: Session, talk: Talk| {
            talk.say(session.get("key").unwrap_or_default());
        };
        App::new()
            .get("/taken", async |_, _| Ok("taken"))
            .get_request("/asked", async |request, _| {
                request.session()?;
                Ok("asked")
            })
            .get_request("/managed", async |request, _| {
                manager::get().session(&request)?;
                Ok("managed")
            })
            // It looks when the head is on its way.
            .events("/events/{script}", talker(talk))
    };
    for (backend, builder) in all_backends() {
        let manager = Arc::new(builder().build().unwrap());
        let in_scope = Arc::clone(&manager);
        let cookie = serve(web, builder())
            .raw("/run/add.key.value", &[])
            .cookie();
        let ask = |path: &str| {
            let call = app()
                .wrap(manager.middleware())
                .call_with(web, path, &cookie);
            block_on(manager::scope(Arc::clone(&in_scope), call))
        };
        for path in ["/taken", "/asked", "/managed", "/events/x"] {
            let answer = ask(path);
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(answer.header("vary"), Some("Cookie"), "{backend}: {path}");
        }
        assert_eq!(ask("/idle").header("vary"), None, "{backend}");
    }
}

on_every_framework!(
    extracting_the_session_counts_as_reading_it,
    set_cookie_is_sent_once_and_only_after_a_change,
    a_server_error_discards_writes_and_other_statuses_keep_them,
    a_panic_discards_writes,
    a_log_out_holds_although_the_response_is_a_server_error,
    commit_on_server_error_keeps_writes_of_every_response,
    what_is_added_after_destroy_begins_a_new_session,
    a_touch_is_sent_at_most_once_per_twentieth_of_the_idle_time,
    a_renewal_keeps_the_data_and_restarts_the_timeouts,
    the_cookie_is_secure_except_in_debug_builds_on_plain_loopback,
    the_cookie_and_its_removal_have_the_configured_attributes,
    a_private_cookie_hides_its_content_and_is_never_repeated,
);
