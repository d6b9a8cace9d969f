//! Cookie sessions that can be revoked: a store that is away, settings, and what does not depend on the
//! store. What every store must show is in `tests/common/revoke.rs`.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::common::{
    App, Clock, Server, Web, backends, block_on, on_every_framework,
    server_side::{Flaky, How},
    until,
};
use session_manager::{
    Builder, ConfigError, Manager, MemoryStore, OnStoreError, ServerSide, SignedCookie,
};

fn serve(web: Web, builder: Builder) -> (Manager, Server) {
    let manager = builder.build().unwrap();
    let server = Server::scripts(web, manager.middleware());
    (manager, server)
}

fn a_store_that_is_away_opens_no_session_of_a_user(web: Web) {
    for (_, builder) in backends() {
        let (store, clock) = (Flaky::default(), Clock::default());
        let builder = builder().clock(clock.now()).revocations(store.clone());
        let (manager, server) = serve(web, builder);
        let cookie = server.raw("/run/user.ada,add.user.ada", &[]).cookie();
        let anonymous = server.raw("/run/add.key.value", &[]).cookie();
        for how in [How::Refuses, How::Corrupt] {
            clock.forward(Builder::REVOCATION_CACHE);
            store.set(Some(how));
            for script in ["get.user", "add.more.1", "destroy", "renew"] {
                let answer = server.with_cookie(&format!("/run/{script}"), &cookie);
                assert_eq!((answer.status, &*answer.body), web.unavailable());
                assert_eq!(answer.set_cookie(), None);
            }
            let login = server.raw("/run/user.ada,add.user.ada", &[]);
            assert_eq!((login.status, login.set_cookie()), (503, None));
            assert!(block_on(manager.destroy_user_sessions("ada")).is_err());
            let read = server.with_cookie("/run/get.key", &anonymous);
            assert_eq!((read.status, &*read.body), (200, "value"), "it has no user");
            store.set(None);
            assert_eq!(server.with_cookie("/run/get.user", &cookie).body, "ada");
        }
        // An answer that is used again lets the session open, and not end.
        store.set(Some(How::Refuses));
        assert_eq!(server.with_cookie("/run/get.user", &cookie).body, "ada");
        let out = server.with_cookie("/run/destroy", &cookie);
        assert_eq!((out.status, out.set_cookie()), (503, None));
        store.set(None);
        assert_eq!(server.with_cookie("/run/destroy", &cookie).status, 200);
        assert_eq!(server.with_cookie("/run/get.user", &cookie).body, "none");
    }
}

fn with_anonymous_sessions_a_store_that_is_away_shows_an_empty_one(web: Web) {
    let store = Flaky::default();
    let builder = Manager::builder(SignedCookie::new(crate::common::key()))
        .revocations(store.clone())
        .revocation_cache(Duration::ZERO)
        .on_store_error(OnStoreError::Anonymous);
    let (_, server) = serve(web, builder);
    let cookie = server.raw("/run/user.ada,add.user.ada", &[]).cookie();
    store.set(Some(How::Refuses));
    let read = server.with_cookie("/run/get.user,add.more.1", &cookie);
    assert_eq!((read.status, &*read.body), (200, "none,read only"));
    let out = server.with_cookie("/run/destroy", &cookie);
    assert_eq!((out.status, out.set_cookie()), (503, None));
    store.set(None);
    assert_eq!(server.with_cookie("/run/get.user", &cookie).body, "ada");
}

fn a_log_out_is_kept_although_the_client_disconnects(web: Web) {
    let (send, inside) = std::sync::mpsc::channel();
    let app = App::new().get("/leave", move |session, _| {
        session.destroy();
        send.send(()).unwrap();
        async {
            // actix-web goes on to the end of this; hyper drops it as soon as the client is gone.
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok("nobody reads this")
        }
    });
    let manager = Manager::builder(SignedCookie::new(crate::common::key()));
    let manager = manager.revocations(MemoryStore::new()).build().unwrap();
    let server = Server::start(web, app.wrap(manager.middleware()));
    let cookie = server.raw("/run/user.ada,add.user.ada", &[]).cookie();
    let mut client = TcpStream::connect(server.address).unwrap();
    write!(
        client,
        "GET /leave HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n"
    )
    .unwrap();
    inside.recv().unwrap();
    drop(client);
    until("the session ends", || {
        server.with_cookie("/run/get.user", &cookie).body == "none"
    });
}

fn a_log_out_holds_although_the_response_is_an_error(web: Web) {
    let builder = Manager::builder(SignedCookie::new(crate::common::key()));
    let (_, server) = serve(web, builder.revocations(MemoryStore::new()));
    for script in ["destroy,status.500", "destroy,error", "destroy,panic"] {
        let cookie = server.raw("/run/user.ada,add.user.ada", &[]).cookie();
        // A panic closes the connection.
        if script.ends_with("panic") {
            let mut client = TcpStream::connect(server.address).unwrap();
            let head = format!(
                "GET /run/{script} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nCookie: {cookie}\r\n\r\n"
            );
            client.write_all(head.as_bytes()).unwrap();
            let _ = client.read_to_end(&mut Vec::new());
        } else {
            assert_eq!(
                server
                    .with_cookie(&format!("/run/{script}"), &cookie)
                    .status,
                500
            );
        }
        until("the session ends", || {
            server.with_cookie("/run/get.user", &cookie).body == "none"
        });
    }
}

/// The record of a user does not grow without bounds.
fn of_very_many_log_outs_the_last_one_ends_all(web: Web) {
    let builder = Manager::builder(SignedCookie::new(crate::common::key()));
    let (_, server) = serve(web, builder.revocations(MemoryStore::new()));
    let log_in = || server.raw("/run/user.ada,add.user.ada", &[]).cookie();
    let stays = log_in();
    let cookies: Vec<_> = (0..257).map(|_| log_in()).collect();
    for (number, cookie) in cookies.iter().enumerate() {
        assert_eq!(
            server.with_cookie("/run/get.user", &stays).body,
            "ada",
            "{number}"
        );
        server.with_cookie("/run/destroy", cookie);
    }
    for cookie in cookies.iter().chain([&stays]) {
        assert_eq!(server.with_cookie("/run/get.user", cookie).body, "none");
    }
    let again = log_in();
    assert_eq!(server.with_cookie("/run/get.user", &again).body, "ada");
}

fn the_user_counts_to_the_size_of_a_cookie(web: Web) {
    for (_, builder) in backends() {
        let (_, server) = serve(web, builder().revocations(MemoryStore::new()));
        let long = "x".repeat(3_000);
        let answer = server.raw(&format!("/run/add.key.value,user.{long},get.key"), &[]);
        assert!(
            answer.body.starts_with("null,too large "),
            "{}",
            answer.body
        );
        assert!(answer.body.ends_with(",value"));
        assert_eq!(
            server.with_cookie("/run/get.key", answer.cookie()).body,
            "value"
        );
        // The largest session that may be written can be sent.
        let fits = (2_800..3_000).rev().find(|size| {
            let path = format!("/run/user.ada,fill.key.{size}");
            server.raw(&path, &[]).body == "null,null"
        });
        let largest = server.raw(&format!("/run/user.ada,fill.key.{}", fits.unwrap()), &[]);
        assert_eq!(largest.status, 200);
        let cookie = largest.cookie();
        assert_eq!(server.with_cookie("/run/contains.key", cookie).body, "true");
    }
}

fn without_revocations_nothing_changes(web: Web) {
    for (_, builder) in backends() {
        let (manager, server) = serve(web, builder());
        assert_eq!(server.raw("/run/user.ada", &[]).body, "no index");
        assert!(block_on(manager.destroy_user_sessions("ada")).is_err());
        // Taken away again, the user is one more value that no handler sees.
        let (_, with) = serve(web, builder().revocations(MemoryStore::new()));
        let cookie = with.raw("/run/user.ada,add.user.ada", &[]).cookie();
        assert_eq!(server.with_cookie("/run/keys", &cookie).body, "user");
        let before = server.raw("/run/add.key.value", &[]).cookie();
        assert_eq!(with.with_cookie("/run/get.key", before).body, "value");
    }
}

fn a_log_out_everywhere_ends_cookies_that_are_still_to_migrate(web: Web) {
    let old = || {
        let old = Manager::builder(SignedCookie::new(crate::common::key()));
        old.cookie_name("former")
    };
    let (old, before) = serve(web, old().revocations(MemoryStore::new()));
    let new = Manager::builder(ServerSide::new(MemoryStore::new())).migrate_from(old);
    let (new, server) = serve(web, new);
    let cookies = [0, 1, 2].map(|_| before.raw("/run/user.ada,add.user.ada", &[]).cookie());
    let moved = server.with_cookie("/run/add.more.1", &cookies[0]);
    assert_eq!(moved.status, 200);
    assert_eq!(block_on(new.user_sessions("ada")).unwrap().len(), 1);
    assert_eq!(server.with_cookie("/run/get.user", &cookies[1]).body, "ada");
    assert_eq!(server.with_cookie("/run/destroy", &cookies[1]).status, 200);
    assert_eq!(
        server.with_cookie("/run/get.user", &cookies[1]).body,
        "none"
    );
    assert_eq!(
        before.with_cookie("/run/get.user", &cookies[1]).body,
        "none"
    );
    assert_eq!(server.with_cookie("/run/get.user", &cookies[2]).body, "ada");
    assert_eq!(block_on(new.destroy_user_sessions("ada")).unwrap(), 1);
    for cookie in &cookies {
        assert_eq!(server.with_cookie("/run/get.user", cookie).body, "none");
    }
    let again = server.raw("/run/user.ada,add.user.ada", &[]).cookie();
    assert_eq!(server.with_cookie("/run/get.user", &again).body, "ada");
}

/// From a store to cookies, a session's user comes along and can be revoked there.
fn a_session_that_migrates_to_a_cookie_can_be_revoked(web: Web) {
    let old = Manager::builder(ServerSide::new(MemoryStore::new())).cookie_name("former");
    let (old, before) = serve(web, old);
    let new = Manager::builder(SignedCookie::new(crate::common::key()));
    let new = new.migrate_from(old).revocations(MemoryStore::new());
    let (new, server) = serve(web, new);
    let log_in = || before.raw("/run/user.ada,add.user.ada", &[]).cookie();
    let (stays, cookie) = (log_in(), log_in());
    let moved = server.with_cookie("/run/add.more.1", &cookie);
    let moved = moved
        .all("set-cookie")
        .find(|set| set.starts_with("_session="));
    let moved = moved.and_then(|set| set.split(';').next()).unwrap();
    assert_eq!(server.with_cookie("/run/get.user", moved).body, "ada");
    assert_eq!(server.with_cookie("/run/get.user", &stays).body, "ada");
    // The session that migrated left an empty record, which is ended too.
    assert_eq!(block_on(new.destroy_user_sessions("ada")).unwrap(), 2);
    assert_eq!(server.with_cookie("/run/get.user", moved).body, "none");
    assert_eq!(server.with_cookie("/run/get.user", &stays).body, "none");
}

#[test]
fn sessions_in_a_store_need_no_revocations() {
    let builder = Manager::builder(ServerSide::new(MemoryStore::new()));
    let refused = builder.revocations(MemoryStore::new()).build();
    assert!(
        matches!(
            refused,
            Err(ConfigError::CannotRevoke { backend: "memory" })
        ),
        "{refused:?}"
    );
}

on_every_framework!(
    a_store_that_is_away_opens_no_session_of_a_user,
    with_anonymous_sessions_a_store_that_is_away_shows_an_empty_one,
    a_log_out_is_kept_although_the_client_disconnects,
    a_log_out_holds_although_the_response_is_an_error,
    of_very_many_log_outs_the_last_one_ends_all,
    the_user_counts_to_the_size_of_a_cookie,
    without_revocations_nothing_changes,
    a_log_out_everywhere_ends_cookies_that_are_still_to_migrate,
    a_session_that_migrates_to_a_cookie_can_be_revoked,
);
