//! Limits of a user's sessions, on every store: a part of [`super::server_side`].

use std::time::Duration;

use session_manager::{Evict, Manager, ServerSide, Session, Store};

use super::{
    Answer, App, Clock, Gates, Server, Web, at_once, block_on, script, server_side::serve, until,
};

/// A user whom no other test knows.
pub fn new_user(what: &str) -> String {
    let nanos = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    format!("{what}-{nanos}")
}

fn manager_of<S: Store + Clone>(store: &S) -> Manager {
    Manager::new(ServerSide::new(store.clone()))
}

fn sessions_of(manager: &Manager, user: &str) -> usize {
    block_on(manager.user_sessions(user)).unwrap().len()
}

/// Sends `count` requests at once, to each server in turn, and returns the answers.
fn ask_at_once(servers: &[&Server], count: usize, path: &str, cookies: &[String]) -> Vec<Answer> {
    at_once(count, |number| {
        let server = servers[number % servers.len()];
        match cookies.get(number) {
            Some(cookie) => server.with_cookie(path, cookie),
            None => server.raw(path, &[]),
        }
    })
}

pub fn log_ins_at_once_never_exceed_the_limit<S: Store + Clone>(web: Web, store: &S) {
    let (count, manager) = (8, manager_of(store));
    let gates = Gates::new(2 * count);
    // Two managers: they share the store alone.
    let servers = [(); 2].map(|()| serve(web, store, &gates, |builder| builder));
    for (max, begin) in [(1, ""), (3, "add.cart.1")] {
        let user = new_user("at-once");
        let cookies: Vec<_> = (0..2 * count)
            .filter(|_| !begin.is_empty())
            .map(|_| servers[0].raw(&format!("/run/{begin}"), &[]).cookie())
            .collect();
        let path = format!("/at-once/limit.{user}.{max}.refuse,renew,add.user.{user}");
        let answers = ask_at_once(&servers, 2 * count, &path, &cookies);
        let passed = answers
            .iter()
            .filter(|answer| answer.body.starts_with("null"));
        assert_eq!(passed.count(), max, "{answers:?}");
        assert!(answers.iter().all(|answer| answer.status == 200));
        assert_eq!(sessions_of(&manager, &user), max);
        assert_eq!(block_on(manager.destroy_user_sessions(&user)).unwrap(), max);
    }
}

pub fn of_log_ins_at_once_the_last_ones_stay<S: Store + Clone>(web: Web, store: &S) {
    let (count, manager) = (6, manager_of(store));
    let gates = Gates::new(2 * count);
    let servers = [(); 2].map(|()| serve(web, store, &gates, |builder| builder));
    for max in [1, 2] {
        let user = new_user("evict");
        let path = format!("/at-once/limit.{user}.{max}.oldest,add.user.{user}");
        let answers = ask_at_once(&servers, 2 * count, &path, &[]);
        assert!(
            answers.iter().all(|answer| answer.status == 200),
            "{answers:?}"
        );
        assert_eq!(sessions_of(&manager, &user), max);
        let open = answers.iter().filter(|answer| {
            let read = servers[0].with_cookie("/run/get.user", answer.cookie());
            read.body == user
        });
        assert_eq!(open.count(), max, "the evicted sessions open nothing");
        assert_eq!(block_on(manager.destroy_user_sessions(&user)).unwrap(), max);
    }
}

pub fn the_oldest_session_ends_and_its_late_request_loses<S: Store + Clone>(web: Web, store: &S) {
    let (gates, clock, user) = (Gates::new(1), Clock::default(), new_user("oldest"));
    let server = serve(web, store, &gates, |builder| builder.clock(clock.now()));
    let log_in = || {
        clock.forward(Duration::from_millis(10));
        server
            .raw(
                &format!("/at-once/limit.{user}.2.oldest,add.user.{user}"),
                &[],
            )
            .cookie()
    };
    let get = |cookie: &str| server.with_cookie("/run/get.user", cookie).body;
    let (first, second) = (log_in(), log_in());
    // It is the second one that was seen last, and the first that is older.
    assert_eq!((get(&second), get(&first)), (user.clone(), user.clone()));
    std::thread::scope(|scope| {
        let late = scope.spawn(|| server.with_cookie("/slow/add.late.1,destroy,add.new.1", &first));
        gates.pass();
        let third = log_in();
        gates.pass();
        let late = late.join().unwrap();
        // What it adds after its own log-out is a new session's.
        assert_eq!(late.body, "null,done,null");
        assert_eq!(get(&first), "none");
        assert_eq!(get(&second), user);
        assert_eq!(get(&third), user);
        // A renewed session counts from its renewal.
        clock.forward(Duration::from_millis(10));
        let second = server.with_cookie("/run/renew", &second).cookie();
        let _fourth = log_in();
        assert_eq!((get(&second), get(&third)), (user.clone(), "none".into()));
    });
    let (manager, fifth) = (manager_of(store), log_in());
    std::thread::scope(|scope| {
        let late = scope.spawn(|| server.with_cookie("/slow/add.late.1", &fifth));
        gates.pass();
        let (_, _) = (log_in(), log_in());
        gates.pass();
        let late = late.join().unwrap();
        assert_eq!((late.status, late.set_cookie()), (200, None));
        assert_eq!(server.with_cookie("/run/get.late", &fifth).body, "none");
        assert_eq!(block_on(manager.destroy_user_sessions(&user)).unwrap(), 2);
    });
}

pub fn a_place_is_free_again_when_the_log_in_fails<S: Store + Clone>(web: Web, store: &S) {
    let (manager, user) = (manager_of(store), new_user("fails"));
    let limit = move |session: Session, rest: String| async move {
        let (user, then) = rest.split_once('.').unwrap();
        session.set_user_limited(user, 1, Evict::Refuse).await?;
        session.add("user", user)?;
        script::run(&session, then)
    };
    let app = App::new()
        .get("/limited/{rest}", limit)
        .wrap(manager.middleware());
    let server = Box::leak(Box::new(Server::start(web, app)));
    let log_in = |then: &str| server.raw(&format!("/limited/{user}.{then}"), &[]);
    for (then, status) in [("status.500", 500), ("error", 500)] {
        let failed = log_in(then);
        assert_eq!((failed.status, failed.set_cookie()), (status, None));
        assert_eq!(
            sessions_of(&manager, &user),
            0,
            "a reservation is no session"
        );
        until("the place is free", || log_in("len").status == 200);
        assert_eq!(block_on(manager.destroy_user_sessions(&user)).unwrap(), 1);
    }
    // Ended by its own request, a log-in is none.
    assert_eq!(log_in("destroy").status, 200);
    until("the place is free", || log_in("len").status == 200);
    // The error of a log-in that is refused is a server error unless it is handled.
    assert_eq!(log_in("len").status, 500);
    assert_eq!(block_on(manager.destroy_user_sessions(&user)).unwrap(), 1);
}

pub fn only_live_sessions_of_others_count<S: Store + Clone>(web: Web, store: &S) {
    let minute = Duration::from_secs(60);
    let (gates, clock, user) = (Gates::new(1), Clock::default(), new_user("counts"));
    let server = serve(web, store, &gates, |builder| {
        builder.idle_timeout(20 * minute).clock(clock.now())
    });
    let limited = |cookie: &str, max: usize| {
        let path = format!("/at-once/limit.{user}.{max}.refuse,add.user.{user}");
        server.with_cookie(&path, cookie)
    };
    // Sessions count, whichever call set their user.
    let first = server.raw(&format!("/run/user.{user},add.key.value"), &[]);
    let first = first.cookie();
    for _ in 0..2 {
        assert_eq!(limited(&first, 1).body, "null,null", "its own does not");
    }
    let renewed = format!("/at-once/renew,limit.{user}.1.refuse");
    let first = server.with_cookie(&renewed, &first).cookie();
    assert_eq!(limited("", 1).body, "too many,null");
    let other = limited("", 2).cookie();
    assert_eq!(limited("", 2).body, "too many,null");
    assert_eq!(limited(&first, 1).body, "too many,null", "there are two");
    server.with_cookie("/run/destroy", &other);
    let other = limited("", 2).cookie();
    clock.forward(15 * minute);
    assert_eq!(server.with_cookie("/run/get.user", &other).body, user);
    clock.forward(15 * minute);
    let last = limited("", 2);
    assert_eq!(last.body, "null,null", "one is over");
    for cookie in [other, last.cookie()] {
        server.with_cookie("/run/destroy", cookie);
    }
}

pub fn a_limit_without_effect_is_an_error<S: Store + Clone>(web: Web, store: &S) {
    let server = serve(web, store, &Gates::new(1), |builder| builder);
    let user = new_user("huge");
    let ask = |script: &str| server.raw(&format!("/at-once/{script}"), &[]).body;
    for evict in ["oldest", "refuse"] {
        let answer = ask(&format!("limit.{user}.0.{evict}"));
        assert_eq!(answer, "no sessions");
        let huge = usize::MAX;
        let answer = ask(&format!("limit.{user}.{huge}.{evict},destroy"));
        assert_eq!(answer, "null,done");
    }
}
