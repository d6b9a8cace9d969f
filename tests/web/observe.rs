//! What an observer is told of sessions, on every backend that needs no server.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::common::{
    App, Clock, Server, Told, Web, all_backends, key_of, on_every_framework, until,
};
use session_manager::{
    Builder, Manager, Observer, Session, SignedCookie,
    observer::{About, Event},
};

fn serve(web: Web, builder: Builder) -> Server {
    Server::scripts(web, builder.build().unwrap().middleware())
}

fn an_observer_is_told_the_life_of_a_session(web: Web) {
    for (backend, builder) in all_backends() {
        let told = Told::default();
        let server = serve(web, builder().observe(told.clone()));
        let mut cookie = String::new();
        for (script, expected) in [
            ("get.key", ""),
            ("add.key.value", "created"),
            ("get.key", ""),
            ("add.key.other", ""),
            ("renew", "renewed"),
            ("renew,add.key.more", "renewed"),
            ("destroy,flash.bye", "destroyed 1 by handler, created"),
            ("destroy", "destroyed 1 by handler"),
        ] {
            let answer = server.with_cookie(&format!("/run/{script}"), &cookie);
            assert_eq!(answer.status, 200, "{backend}: {script}");
            if answer.set_cookie().is_some() {
                cookie = answer.cookie();
            }
            assert_eq!(told.life(), expected, "{backend}: {script}");
        }
        server.raw("/run/renew,add.key.value", &[]);
        assert_eq!(told.life(), "created", "{backend}: there was none to renew");
        server.raw("/run/add.key.value,destroy", &[]);
        assert_eq!(told.life(), "", "{backend}: there never was one");
    }
}

fn a_change_that_a_server_error_undoes_is_not_told(web: Web) {
    for (backend, builder) in all_backends() {
        let told = Told::default();
        let server = serve(web, builder().observe(told.clone()));
        let run = |script: &str, cookie: &str| {
            server.with_cookie(&format!("/run/{script}"), cookie);
            told.life()
        };
        assert_eq!(run("add.key.value,status.500", ""), "", "{backend}");
        assert_eq!(run("add.key.value,error", ""), "", "{backend}");
        let cookie = server.raw("/run/add.key.value", &[]).cookie();
        assert_eq!(told.life(), "created", "{backend}");
        assert_eq!(run("renew,add.key.x,status.503", &cookie), "", "{backend}");
        assert_eq!(
            run("destroy,add.key.x,status.500", &cookie),
            "destroyed 1 by handler",
            "{backend}: the end sticks, and what came after it does not"
        );
        let server = serve(
            web,
            builder().commit_on_server_error(true).observe(told.clone()),
        );
        server.raw("/run/add.key.value,status.500", &[]);
        assert_eq!(told.life(), "created", "{backend}");
    }
}

fn an_observer_is_told_why_a_cookie_was_refused(web: Web) {
    for (backend, builder) in all_backends() {
        let (told, clock) = (Told::default(), Clock::default());
        let server = serve(web, builder().clock(clock.now()).observe(told.clone()));
        let in_store = backend == "memory";
        let cookie = server.raw("/run/add.key.value", &[]).cookie();
        assert_eq!(told.life(), "created", "{backend}");
        let foreign = serve(
            web,
            Manager::builder(SignedCookie::new(key_of([99; 32]))).clock(clock.now()),
        );
        let foreign = foreign.raw("/run/add.key.value", &[]).cookie();
        let too_long = format!("_session={}", "x".repeat(5000));
        let twice = format!("{cookie}; _session=other");
        for (sent, expected) in [
            ("_session=", "refused malformed"),
            ("_session=%%%", "refused malformed"),
            (&too_long, "refused too_large"),
            (&twice, "refused ambiguous"),
            (
                &foreign,
                if in_store {
                    "refused malformed"
                } else {
                    "refused signature"
                },
            ),
            ("other=cookie", ""),
        ] {
            assert_eq!(server.with_cookie("/run/get.key", sent).body, "none");
            assert_eq!(told.life(), expected, "{backend}: {:.20}", sent);
        }
        clock.forward(Duration::from_secs(8 * 24 * 3600));
        assert_eq!(server.with_cookie("/run/get.key", &cookie).body, "none");
        let expected = if in_store {
            "refused unknown"
        } else {
            "expired"
        };
        assert_eq!(told.life(), expected, "{backend}");
        server.with_cookie("/idle", &cookie);
        // Memory is asked when the handler asks for its session, which this one does not.
        let is_asked = in_store && backend != "memory";
        let expected = if is_asked { "refused unknown" } else { "" };
        assert_eq!(told.life(), expected, "{backend}: nothing looked at it");
    }
}

fn a_write_that_is_too_large_is_told(web: Web) {
    for (backend, builder) in all_backends() {
        let told = Told::default();
        let server = serve(web, builder().observe(told.clone()));
        let answer = server.raw("/run/fill.key.2000000", &[]);
        assert!(answer.body.starts_with("too large"), "{backend}");
        assert_eq!(told.life(), "too large", "{backend}");
    }
}

fn names_are_told_only_to_an_observer_that_asks(web: Web) {
    for (backend, builder) in all_backends() {
        let (quiet, named) = (Told::default(), Told::with_names());
        let builder = builder().cookie_name("mine").observe(quiet.clone());
        let server = serve(web, builder.observe(named.clone()));
        let in_store = backend == "memory";
        let script = if in_store {
            "user.ada,add.key.x"
        } else {
            "add.key.x"
        };
        let cookie = server.raw(&format!("/run/{script}"), &[]).cookie();
        server.with_cookie("/run/destroy", &cookie);
        let handle = named.all().last().unwrap().handle.clone();
        assert_eq!(handle.is_some(), in_store, "{backend}");
        for one in quiet.all() {
            assert_eq!((one.handle, one.user), (None, None), "{backend}");
            assert_eq!(one.cookie_name, "mine");
        }
    }
}

/// Panics at every event.
struct Panics;

impl Observer for Panics {
    fn event(&self, _: Event, _: &About<'_>) {
        panic!("an observer that panics, as the test asked");
    }
}

fn an_observer_that_panics_loses_nothing_and_the_next_is_told(web: Web) {
    for (backend, builder) in all_backends() {
        let told = Told::default();
        let server = serve(web, builder().observe(Panics).observe(told.clone()));
        let answer = server.raw("/run/add.key.value", &[]);
        assert_eq!(answer.status, 200, "{backend}");
        assert_eq!(told.life(), "created", "{backend}");
        let cookie = answer.cookie();
        let answer = server.with_cookie("/run/get.key,fill.big.2000000,get.key", &cookie);
        assert_eq!(answer.status, 200, "{backend}: {answer:?}");
        assert!(answer.body.starts_with("value,too large"), "{backend}");
        assert!(answer.body.ends_with(",value"), "{backend}");
        assert_eq!(told.life(), "too large", "{backend}");
        if backend == "memory" {
            // The session ends although no answer comes.
            let destroy = || server.with_cookie("/run/destroy,panic", &cookie);
            assert!(catch_unwind(AssertUnwindSafe(destroy)).is_err());
            until("the end is told", || {
                told.life() == "destroyed 1 by handler"
            });
        }
    }
}

/// Uses the session that the handler left here, at every event.
#[derive(Clone, Default)]
struct Uses(Arc<Mutex<Option<Session>>>);

impl Observer for Uses {
    fn event(&self, _: Event, _: &About<'_>) {
        if let Some(session) = &*self.0.lock().unwrap() {
            assert_eq!(session.get("key").as_deref(), Some("value"));
        }
    }
}

/// Else this test would never end.
fn no_session_is_locked_while_an_observer_is_told(web: Web) {
    for (backend, builder) in all_backends() {
        let (uses, told) = (Uses::default(), Told::default());
        let there = uses.clone();
        let app = App::new().get("/leave", move |session, _| {
            session.add("key", "value").unwrap();
            *there.0.lock().unwrap() = Some(session.clone());
            async move {
                assert!(session.add("big", "x".repeat(2_000_000)).is_err());
                Ok("left")
            }
        });
        let builder = builder().observe(uses).observe(told.clone());
        let middleware = builder.build().unwrap().middleware();
        let server = Server::start(web, app.wrap(middleware));
        assert_eq!(server.raw("/leave", &[]).body, "left", "{backend}");
        assert_eq!(told.life(), "too large, created", "{backend}");
    }
}

on_every_framework!(
    an_observer_is_told_the_life_of_a_session,
    a_change_that_a_server_error_undoes_is_not_told,
    an_observer_is_told_why_a_cookie_was_refused,
    a_write_that_is_too_large_is_told,
    names_are_told_only_to_an_observer_that_asks,
    an_observer_that_panics_loses_nothing_and_the_next_is_told,
    no_session_is_locked_while_an_observer_is_told,
);
