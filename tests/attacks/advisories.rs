//! A test for each advisory against another session crate, named after its number. The tests of stores are
//! in `common/server_side.rs`, and run on every store.
//!
//! | advisory | also |
//! |---|---|
//! | CVE-2025-46336 | `races/interleavings.rs`: every order of three requests; `testing::check_store` |
//! | CVE-2026-39324 | `bad_input.rs`, with the log; `fuzz/fuzz_targets/cookies.rs` |
//! | CVE-2025-47278 | `denial.rs`, for the ids of a site that begins to sign; `properties.rs` |
//! | CVE-2024-31999 | `common/server_side.rs`: sessions end by the clock in every store |
//! | GO-2024-2730 | `src/backend/server_side.rs`: malformed ids |

use std::time::Duration;

use crate::common::{
    App, Clock, Gates, Log, Server, Web, all_backends, backends, key_of, on_every_framework,
    server_side::{self, Flaky, How},
    whole,
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use session_manager::{
    Builder, HasSession, Key, Manager, MemoryStore, OnStoreError, PrivateCookie, ServerSide,
    SignedCookie,
};

fn serve(web: Web, builder: Builder) -> Server {
    Server::scripts(web, builder.build().unwrap().middleware())
}

fn cve_2025_46336_a_session_is_not_restored_after_logout(web: Web) {
    let store = MemoryStore::new();
    server_side::cve_2025_46336_a_session_is_not_restored_after_logout(web, &store);
    assert_eq!(store.len(), 0);
}

/// CVE-2025-46336 and CVE-2018-1000519 where the cookie holds the session: the server keeps nothing that
/// could end a copy. This is what the documentation of both backends says, and no more.
fn cve_2018_1000519_a_copied_cookie_opens_until_it_expires(web: Web) {
    for (backend, builder) in backends() {
        let (clock, gates) = (Clock::default(), Gates::new(1));
        let hour = Duration::from_secs(60 * 60);
        let builder = builder().idle_timeout(hour).clock(clock.now());
        let app = gates.app().wrap(builder.build().unwrap().middleware());
        let server = Server::start(web, app);
        let visitor = server.visitor();
        let copy = visitor.get("/run/add.user.ada").cookie();
        visitor.body("/run/destroy");
        assert_eq!(
            visitor.cookies(),
            0,
            "{backend}: the client's own is removed"
        );
        assert_eq!(visitor.body("/run/get.user"), "none", "{backend}");
        let read = server.with_cookie("/run/get.user", &copy);
        assert_eq!(read.body, "ada", "{backend}: a copy opens");
        clock.forward(hour);
        let read = server.with_cookie("/run/get.user", &copy);
        assert_eq!(read.body, "none", "{backend}: until its time is over");

        // Of two requests that overlap the later response wins, if it has a cookie to send.
        for (script, sends) in [("get.user", false), ("add.key.late", true)] {
            let cookie = server.raw("/run/add.user.ada", &[]).cookie();
            let late = std::thread::scope(|scope| {
                let late = scope.spawn(|| server.with_cookie(&format!("/slow/{script}"), &cookie));
                gates.pass();
                server.with_cookie("/run/destroy", &cookie).cookie();
                gates.pass();
                late.join().unwrap()
            });
            assert_eq!(late.set_cookie().is_some(), sends, "{backend}: {script}");
        }
    }
}

fn cve_2018_1000519_a_destroyed_session_does_not_open(web: Web) {
    server_side::cve_2018_1000519_a_destroyed_session_does_not_open(web, &MemoryStore::new());
}

fn cve_2022_25896_an_id_made_elsewhere_is_not_adopted(web: Web) {
    let store = MemoryStore::new();
    server_side::cve_2022_25896_an_id_made_elsewhere_is_not_adopted(web, &store);
}

/// CVE-2022-25896 (Passport) and CVE-2024-38513 (Fiber) where the cookie holds the session: what an
/// attacker planted never shows what the victim did.
fn cve_2024_38513_a_planted_cookie_is_not_adopted(web: Web) {
    for (backend, builder) in backends() {
        let server = serve(web, builder());
        let planted = server.raw("/run/add.cart.full", &[]).cookie();
        for planted in [&*planted, "_session=", "_session=AAAA", "_session=admin"] {
            let login = server
                .with_cookie("/run/renew,add.user.eve", planted)
                .cookie();
            assert_ne!(login, planted, "{backend}");
            let read = server.with_cookie("/run/get.user", &login);
            assert_eq!(read.body, "eve", "{backend}");
            let read = server.with_cookie("/run/get.user", planted);
            assert_eq!(read.body, "none", "{backend}: {planted}");
        }
    }
}

/// CVE-2026-39324 (rack-session): where a cookie could not be decrypted, it was decoded as it stood.
fn cve_2026_39324_a_forged_cookie_is_never_decoded(web: Web) {
    let json = r#"{"user":"admin","session_id":"1"}"#;
    for (backend, builder) in all_backends() {
        let server = serve(web, builder());
        let sealed = server.raw("/run/add.user.ada", &[]).cookie();
        let (_, sealed) = sealed.split_once('=').unwrap();
        let body = URL_SAFE_NO_PAD.decode(sealed).unwrap();
        let mut forged = vec![
            json.replace(['"', ','], "%22"),
            json.to_owned(),
            STANDARD.encode(json),
            URL_SAFE_NO_PAD.encode(json),
            format!("{}--{}", STANDARD.encode(json), "0".repeat(64)),
            // What was sealed, with what seals it cut off or blank.
            URL_SAFE_NO_PAD.encode(&body[..body.len() - 16]),
            URL_SAFE_NO_PAD.encode([&body[..body.len() - 16], &[0; 16]].concat()),
            URL_SAFE_NO_PAD.encode(&body[1..]),
        ];
        forged.extend((1..sealed.len()).map(|end| sealed[..end].to_owned()));
        for forged in forged {
            let cookie = format!("_session={forged}");
            let answer = server.with_cookie("/run/get.user,len,flashes", &cookie);
            assert_eq!(answer.body, "none,0,", "{backend}: {forged}");
            assert_eq!(answer.set_cookie(), None, "{backend}: {forged}");
        }
    }
}

fn cve_2015_5143_reading_requests_do_not_fill_the_store(web: Web) {
    let store = MemoryStore::new();
    server_side::cve_2015_5143_reading_requests_create_no_record(web, &store);
    assert_eq!(store.len(), 0, "thousands of requests, and no record");
}

fn cve_2019_16782_the_store_never_sees_the_cookies_secret(web: Web) {
    let store = MemoryStore::new();
    server_side::cve_2019_16782_the_store_never_sees_the_cookies_secret(web, &store);
}

fn go_2024_2730_a_malformed_id_never_reaches_the_store(web: Web) {
    let store = MemoryStore::new();
    server_side::go_2024_2730_a_malformed_id_never_reaches_the_store(web, &store);
}

/// CVE-2023-20866 (Spring Session): ids in logs. All that is logged at `TRACE`, and every error, of
/// sessions in all that can happen to them.
fn cve_2023_20866_neither_log_nor_error_shows_an_id(web: Web) {
    let log = Log::of_process();
    let mut secrets = Vec::new();
    let mut keep = |cookie: &str| secrets.push(cookie.split_once('=').unwrap().1.to_owned());
    let mut names = Vec::new();
    for (backend, builder) in all_backends() {
        let name = format!("{backend}-{web}-secret");
        let (clock, gates) = (Clock::default(), Gates::new(1));
        let builder = builder().cookie_name(&name).clock(clock.now());
        let app = gates.app().wrap(builder.build().unwrap().middleware());
        let server = Server::start(web, app);
        let cookie = server.raw("/run/add.user.ada", &[]).cookie();
        let renewed = server.with_cookie("/run/renew", &cookie).cookie();
        keep(&cookie);
        keep(&renewed);
        std::thread::scope(|scope| {
            // Its write is dropped, and a log line says so.
            let late = scope.spawn(|| server.with_cookie("/slow/add.key.late", &renewed));
            gates.pass();
            server.with_cookie("/run/destroy", &renewed);
            gates.pass();
            if let Some(set) = late.join().unwrap().set_cookie() {
                keep(set.split(';').next().unwrap());
            }
        });
        let forged = format!("{renewed}A");
        server.with_cookie("/run/get.user", &forged);
        keep(&forged);
        names.push(name);
    }

    let store = Flaky::default();
    let backend = || ServerSide::new(store.clone()).time_limit(Duration::from_millis(50));
    for policy in [OnStoreError::Fail, OnStoreError::Anonymous] {
        let builder = Manager::builder(backend()).on_store_error(policy);
        let manager = builder.build().unwrap();
        let in_handler = manager.clone();
        let app = App::new().get_request("/error", move |request, _| {
            let manager = in_handler.clone();
            async move {
                let opened = manager.open(&request).await;
                Ok(opened.map_or_else(|error| whole(&error), |_| "opened".into()))
            }
        });
        let server = Server::start(web, app.wrap(manager.middleware()));
        store.set(None);
        let cookie = server.raw("/run/add.user.ada", &[]).cookie();
        keep(&cookie);
        for how in [How::Refuses, How::Hangs, How::Corrupt] {
            store.set(Some(how));
            for path in ["/run/add.key.value", "/run/destroy", "/error"] {
                let answer = server.with_cookie(path, &cookie);
                assert!(!answer.body.contains(&secrets_of(&cookie)), "{answer:?}");
            }
        }
    }
    let lines = log.lines("");
    for name in &names {
        assert!(lines.iter().any(|line| line.contains(name)), "{name}");
    }
    for part in [
        "is dropped",
        "connection refused",
        "did not answer",
        "no version",
    ] {
        assert!(
            lines.iter().any(|line| line.contains(part)),
            "{part}: {lines:#?}"
        );
    }
    let lines = lines.join("\n");
    for secret in secrets {
        for part in [&secret[..16], &secret[secret.len() - 16..]] {
            assert!(!lines.contains(part), "{part}");
        }
    }
}

fn secrets_of(cookie: &str) -> String {
    cookie.split_once('=').unwrap().1.to_owned()
}

/// CVE-2025-47278 (Flask): what is written must not be signed with the oldest key.
fn cve_2025_47278_old_keys_open_and_the_newest_key_always_signs(web: Web) {
    check_rotation(
        web,
        |key| Manager::new(SignedCookie::new(key)),
        |new, old| Manager::new(SignedCookie::new(new).accept(old)),
    );
    check_rotation(
        web,
        |key| Manager::new(PrivateCookie::new(key)),
        |new, old| Manager::new(PrivateCookie::new(new).accept(old)),
    );
    let store = MemoryStore::new();
    let (alone, with_old) = (store.clone(), store);
    check_rotation(
        web,
        |key| Manager::new(ServerSide::new(alone.clone()).signed_with(key)),
        |new, old| {
            let backend = ServerSide::new(with_old.clone());
            Manager::new(backend.signed_with(new).accept(old))
        },
    );
}

fn check_rotation(web: Web, one: impl Fn(Key) -> Manager, both: impl Fn(Key, Key) -> Manager) {
    let old = || key_of([1; 32]);
    let new = || key_of([2; 32]);
    let serve = |manager: Manager| Server::scripts(web, manager.middleware());
    let (with_old, with_new) = (serve(one(old())), serve(one(new())));
    let with_both = serve(both(new(), old()));
    let backend = one(new()).backend_name();

    let cookie = with_old.raw("/run/add.key.value", &[]).cookie();
    let read = with_both.with_cookie("/run/get.key", &cookie);
    assert_eq!(read.body, "value", "{backend}: the old key opens");
    assert_eq!(read.set_cookie(), None, "{backend}: reading writes nothing");
    let resigned = with_both.with_cookie("/run/add.more.1", &cookie).cookie();
    assert_eq!(
        with_new.with_cookie("/run/get.key", &resigned).body,
        "value",
        "{backend}"
    );
    assert_eq!(
        with_old.with_cookie("/run/get.key", &resigned).body,
        "none",
        "{backend}"
    );
}

/// CVE-2023-30861 and CVE-2026-27205 (Flask): a shared cache must not serve one visitor's page to
/// another.
fn cve_2023_30861_every_session_read_sets_vary_cookie(web: Web) {
    for (backend, builder) in all_backends() {
        let server = serve(web, builder());
        let cookie = server.raw("/run/add.other.1", &[]).cookie();
        for look in [
            "get.key",
            "contains.key",
            "keys",
            "len",
            "empty",
            "flashes",
            "number.other",
            "pop.key",
        ] {
            let path = format!("/run/{look}");
            // A client with a session, and one without.
            for answer in [server.raw(&path, &[]), server.with_cookie(&path, &cookie)] {
                assert_eq!(answer.header("vary"), Some("Cookie"), "{backend}: {look}");
                assert_eq!(answer.header("cache-control"), None, "{backend}: {look}");
            }
        }
        let untouched = server.with_cookie("/idle", &cookie);
        assert_eq!(untouched.header("vary"), None, "{backend}");
    }
}

/// CVE-2024-31999 and CVE-2024-35220 (Fastify): a cookie that never dies.
fn cve_2024_31999_the_server_refuses_an_expired_cookie(web: Web) {
    let log = Log::of_process();
    for (backend, builder) in all_backends() {
        let (idle, absolute) = (Duration::from_secs(600), Duration::from_secs(1500));
        let clock = Clock::default();
        let name = format!("{backend}-{web}-expired");
        let settings = builder()
            .cookie_name(&name)
            .idle_timeout(idle)
            .absolute_timeout(absolute);
        let server = serve(web, settings.clock(clock.now()));
        let both = [(), ()].map(|()| server.raw("/run/add.key.value", &[]).cookie());
        clock.forward(idle - Duration::from_millis(1));
        // In a store that is a touch.
        let read = server.with_cookie("/run/get.key", &both[0]);
        assert_eq!(read.body, "value", "{backend}");
        clock.forward(Duration::from_millis(1));
        let read = server.with_cookie("/run/get.key", &both[1]);
        assert_eq!(read.body, "none", "{backend}: idle");
        // A store has nothing left of which it could say that its time is over.
        let lines = log.lines(&format!("`{name}`")).len();
        assert_eq!(lines, usize::from(backend != "memory"), "{backend}");

        let mut cookie = server.raw("/run/add.key.value", &[]).cookie();
        for _ in 0..2 {
            clock.forward(idle - Duration::from_secs(1));
            let answer = server.with_cookie("/run/get.key", &cookie);
            cookie = answer.set_cookie().map_or(cookie, |_| answer.cookie());
        }
        clock.forward(Duration::from_secs(301));
        assert_eq!(
            server.with_cookie("/run/get.key", &cookie).body,
            "value",
            "{backend}"
        );
        clock.forward(Duration::from_secs(1));
        assert_eq!(
            server.with_cookie("/run/get.key", &cookie).body,
            "none",
            "{backend}: absolute"
        );
    }
}

/// CVE-2023-20862 (Spring Security): an emptied session must not come back.
fn cve_2023_20862_clearing_a_session_removes_its_cookie(web: Web) {
    for (backend, builder) in backends() {
        let server = serve(web, builder());
        let visitor = server.visitor();
        for empty in ["clear", "pop.key,flashes", "destroy"] {
            visitor.body("/run/add.key.value,flash.message");
            assert_eq!(visitor.cookies(), 1, "{backend}");
            visitor.body(&format!("/run/{empty}"));
            assert_eq!(visitor.cookies(), 0, "{backend}: {empty}");
            assert_eq!(
                visitor.body("/run/get.key,len,flashes"),
                "none,0,",
                "{backend}: {empty}"
            );
        }
    }
}

fn cve_2023_20862_a_cleared_session_stays_empty(web: Web) {
    let store = MemoryStore::new();
    server_side::cve_2023_20862_a_cleared_session_stays_empty(web, &store);
}

/// CVE-2023-20866 (Spring Session): ids in what is shown.
fn cve_2023_20866_no_debug_text_shows_a_key_a_value_or_a_cookie(web: Web) {
    for (backend, builder) in all_backends() {
        let app = App::new().get("/", async |session, _| {
            session.add("a-key", "a-stored-value")?;
            let (manager, sessions) = (session.manager(), session.sessions());
            Ok(format!("{session:?} {manager:?} {sessions:?}"))
        });
        let manager = builder().build().unwrap();
        let server = Server::start(web, app.wrap(manager.middleware()));
        let first = server.raw("/", &[]);
        let cookie = first.cookie();
        let again = server.with_cookie("/", &cookie);
        for shown in [first.body, again.body] {
            assert!(shown.contains(manager.backend_name()), "{shown}");
            for secret in ["a-key", "a-stored-value", &secrets_of(&cookie)] {
                assert!(!shown.contains(secret), "{backend}: {secret} in {shown}");
            }
        }
    }
}

/// RUSTSEC-2017-0005 (`cookie`): an extreme `Max-Age` must not panic.
fn rustsec_2017_0005_extreme_timeouts_do_not_panic(web: Web) {
    for (backend, builder) in all_backends() {
        let settings = builder()
            .persistent(true)
            .idle_timeout(Duration::MAX)
            .absolute_timeout(Duration::MAX);
        let server = serve(web, settings);
        let answer = server.raw("/run/add.key.value", &[]);
        assert!(
            answer.set_cookie().unwrap().ends_with("; Max-Age=34560000"),
            "{backend}"
        );
        assert_eq!(
            server.with_cookie("/run/get.key", answer.cookie()).body,
            "value",
            "{backend}"
        );
    }
}

on_every_framework!(
    cve_2025_46336_a_session_is_not_restored_after_logout,
    cve_2018_1000519_a_copied_cookie_opens_until_it_expires,
    cve_2018_1000519_a_destroyed_session_does_not_open,
    cve_2022_25896_an_id_made_elsewhere_is_not_adopted,
    cve_2024_38513_a_planted_cookie_is_not_adopted,
    cve_2026_39324_a_forged_cookie_is_never_decoded,
    cve_2015_5143_reading_requests_do_not_fill_the_store,
    cve_2019_16782_the_store_never_sees_the_cookies_secret,
    go_2024_2730_a_malformed_id_never_reaches_the_store,
    cve_2023_20866_neither_log_nor_error_shows_an_id,
    cve_2025_47278_old_keys_open_and_the_newest_key_always_signs,
    cve_2023_30861_every_session_read_sets_vary_cookie,
    cve_2024_31999_the_server_refuses_an_expired_cookie,
    cve_2023_20862_clearing_a_session_removes_its_cookie,
    cve_2023_20862_a_cleared_session_stays_empty,
    cve_2023_20866_no_debug_text_shows_a_key_a_value_or_a_cookie,
    rustsec_2017_0005_extreme_timeouts_do_not_panic,
);
