//! A place among a user's sessions, from the call that reserves it until the response.

use std::{io::Write, net::TcpStream, sync::Arc, time::Duration};

use crate::common::{
    Clock, Gates, Server, Web, block_on, on_every_framework, script::run_outside, until,
};
use session_manager::{Key, Manager, MemoryStore, ServerSide, SignedCookie};
use tokio::sync::Barrier;

/// A server whose route `/limited/{script}` runs the script and then waits twice at a gate.
fn gated(web: Web, manager: &Manager) -> (Server, impl Fn()) {
    let gate = Arc::new(Barrier::new(2));
    let inside = Arc::clone(&gate);
    let app = Gates::new(1)
        .app()
        .get("/limited/{script}", move |session, script| {
            let gate = Arc::clone(&inside);
            async move {
                let answer = run_outside(&session, &script).await;
                gate.wait().await;
                gate.wait().await;
                Ok(answer)
            }
        });
    let server = Server::start(web, app.wrap(manager.middleware()));
    let pass = move || {
        block_on(async {
            let waiting = tokio::time::timeout(Duration::from_secs(30), gate.wait());
            waiting.await.expect("the request came");
        });
    };
    (server, pass)
}

fn sessions(manager: &Manager) -> usize {
    block_on(manager.user_sessions("ada")).unwrap().len()
}

fn a_place_is_taken_while_its_log_in_is_under_way(web: Web) {
    let manager = Manager::new(ServerSide::new(MemoryStore::new()));
    let (server, pass) = gated(web, &manager);
    let script = "limit.ada.1.refuse,add.user.ada";
    std::thread::scope(|scope| {
        let first = scope.spawn(|| server.raw(&format!("/limited/{script}"), &[]));
        pass();
        let second = server.raw(&format!("/at-once/{script}"), &[]);
        assert_eq!(second.body, "too many,null");
        assert_eq!(sessions(&manager), 0);
        pass();
        let first = first.join().unwrap().cookie();
        assert_eq!(server.with_cookie("/run/get.user", first).body, "ada");
    });
    assert_eq!(sessions(&manager), 1);
}

fn the_place_of_a_client_that_goes_away_is_free_again(web: Web) {
    let manager = Manager::new(ServerSide::new(MemoryStore::new()));
    let (server, pass) = gated(web, &manager);
    let mut client = TcpStream::connect(server.address).unwrap();
    let request = "GET /limited/limit.ada.1.refuse HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.write_all(request.as_bytes()).unwrap();
    pass();
    let log_in = || server.raw("/at-once/limit.ada.1.refuse,add.user.ada", &[]);
    assert_eq!(log_in().body, "too many,null");
    drop(client);
    until("the place is free", || log_in().body == "null,null");
    assert_eq!(sessions(&manager), 1);
}

fn a_log_in_that_takes_too_long_does_not_exceed_the_limit(web: Web) {
    let clock = Clock::default();
    let builder = Manager::builder(ServerSide::new(MemoryStore::new()));
    let manager = builder.clock(clock.now()).build().unwrap();
    let (server, pass) = gated(web, &manager);
    let script = "limit.ada.1.refuse,add.user.ada";
    std::thread::scope(|scope| {
        let first = scope.spawn(|| server.raw(&format!("/limited/{script}"), &[]));
        pass();
        clock.forward(Duration::from_secs(61));
        let second = server.raw(&format!("/at-once/{script}"), &[]);
        assert_eq!(second.body, "null,null");
        pass();
        let first = first.join().unwrap();
        assert_eq!((first.status, first.set_cookie()), (500, None));
        let second = second.cookie();
        assert_eq!(server.with_cookie("/run/get.user", second).body, "ada");
    });
    assert_eq!(sessions(&manager), 1);
}

fn a_log_out_everywhere_does_not_free_the_place_of_a_log_in(web: Web) {
    let manager = Manager::new(ServerSide::new(MemoryStore::new()));
    let (server, pass) = gated(web, &manager);
    let script = "limit.ada.1.refuse,add.user.ada";
    std::thread::scope(|scope| {
        let first = scope.spawn(|| server.raw(&format!("/limited/{script}"), &[]));
        pass();
        assert_eq!(block_on(manager.destroy_user_sessions("ada")).unwrap(), 0);
        let second = server.raw(&format!("/at-once/{script}"), &[]);
        assert_eq!(second.body, "too many,null");
        pass();
        assert_eq!(first.join().unwrap().status, 200);
    });
    assert_eq!(sessions(&manager), 1);
}

/// Ada has sessions in the old store, in the new one, and one that moves.
fn sessions_that_are_still_to_migrate_count_once(web: Web) {
    let old = Manager::builder(ServerSide::new(MemoryStore::new())).cookie_name("former");
    let old = old.build().unwrap();
    let before = Server::scripts(web, old.middleware());
    let new = Manager::builder(ServerSide::new(MemoryStore::new())).migrate_from(old);
    let new = new.build().unwrap();
    let server = Server::start(web, Gates::new(1).app().wrap(new.middleware()));
    let begin = |device: &str| {
        let path = format!("/run/user.ada,note.{device},add.device.{device}");
        before.raw(&path, &[]).cookie()
    };
    let (laptop, phone) = (begin("laptop"), begin("phone"));
    let limit = |cookie: &str, max: usize, evict: &str| {
        let path = format!("/at-once/limit.ada.{max}.{evict},add.user.ada");
        server.with_cookie(&path, cookie)
    };
    assert_eq!(limit("", 2, "refuse").body, "too many,null");
    assert_eq!(limit("", 3, "refuse").body, "null,null");
    // The log-in of a session that moves by it.
    let moved = limit(&phone, 3, "refuse");
    assert_eq!(moved.body, "null,null");
    assert_eq!(sessions(&new), 3);
    assert_eq!(limit("", 3, "refuse").body, "too many,null");
    assert_eq!(limit("", 2, "oldest").body, "null,null");
    assert_eq!(sessions(&new), 2);
    assert_eq!(
        server.with_cookie("/run/get.device", &laptop).body,
        "none",
        "the oldest is one of the old store"
    );
    assert_eq!(
        server
            .with_cookie("/run/add.late.1,get.device", &laptop)
            .body,
        "null,none"
    );
    assert_eq!(block_on(new.destroy_user_sessions("ada")).unwrap(), 2);
}

/// From a cookie, a session gets its place under the id that it has in the store.
fn a_session_from_a_cookie_migrates_into_its_place(web: Web) {
    let old = Manager::new(SignedCookie::new(Key::generate()));
    let before = Server::scripts(web, old.middleware());
    let new = Manager::builder(ServerSide::new(MemoryStore::new())).migrate_from(old);
    let new = new.build().unwrap();
    let server = Server::start(web, Gates::new(1).app().wrap(new.middleware()));
    let cookies = [0, 1].map(|_| before.raw("/run/add.cart.1", &[]).cookie());
    let path = "/at-once/limit.ada.1.refuse,get.cart";
    assert_eq!(server.with_cookie(path, &cookies[0]).body, "null,1");
    assert_eq!(server.with_cookie(path, &cookies[0]).body, "null,1");
    assert_eq!(server.with_cookie(path, &cookies[1]).body, "too many,1");
    assert_eq!(sessions(&new), 1);
}

/// A request that migrates a session from a cookie, while all logins of its user are revoked.
fn a_revoked_cookie_does_not_migrate_late(web: Web) {
    let old = || {
        let old = Manager::builder(SignedCookie::new(crate::common::key()));
        old.cookie_name("former").revocations(MemoryStore::new())
    };
    let old = old().build().unwrap();
    let before = Server::scripts(web, old.middleware());
    let new = Manager::builder(ServerSide::new(MemoryStore::new())).migrate_from(old);
    let new = new.build().unwrap();
    let gates = Gates::new(1);
    let server = Server::start(web, gates.app().wrap(new.middleware()));
    let cookie = before.raw("/run/user.ada,add.user.ada", &[]).cookie();
    std::thread::scope(|scope| {
        let late = scope.spawn(|| server.with_cookie("/slow/add.late.1", &cookie));
        gates.pass();
        assert_eq!(block_on(new.destroy_user_sessions("ada")).unwrap(), 0);
        gates.pass();
        let late = late.join().unwrap();
        assert_eq!((late.status, late.set_cookie()), (200, None));
    });
    assert_eq!(sessions(&new), 0);
    assert_eq!(server.with_cookie("/run/get.user", &cookie).body, "none");
}

on_every_framework!(
    a_revoked_cookie_does_not_migrate_late,
    a_place_is_taken_while_its_log_in_is_under_way,
    the_place_of_a_client_that_goes_away_is_free_again,
    a_log_in_that_takes_too_long_does_not_exceed_the_limit,
    a_log_out_everywhere_does_not_free_the_place_of_a_log_in,
    sessions_that_are_still_to_migrate_count_once,
    a_session_from_a_cookie_migrates_into_its_place,
);
