//! Cookie sessions that can be revoked, on every store: a part of [`super::server_side`].

use std::time::Duration;

use session_manager::{Builder, Lifetime, Manager, Store};

use super::server_side::Counting;
use super::{Answer, Backend, Clock, Gates, Server, Web, at_once, backends, limits::new_user};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// One of several processes that share a store: a manager with a cache of its own, and its server.
struct Process {
    manager: Manager,
    server: &'static Server,
}

impl Process {
    fn start(web: Web, gates: &Gates, builder: Builder) -> Self {
        let manager = builder.build().unwrap();
        let app = gates.app().get("/remember/{user}", async |session, user| {
            let (idle, absolute) = (Lifetime::MAX, Lifetime::MAX);
            session.set_lifetime(Lifetime::Persistent { idle, absolute })?;
            session.set_user(&user)?;
            session.add("user", user)?;
            Ok("in")
        });
        let everywhere = manager.clone();
        let app = app.get_request("/everywhere/{user}", move |_, user| {
            let manager = everywhere.clone();
            async move { Ok(manager.destroy_user_sessions(&user).await?.to_string()) }
        });
        let server = Server::start(web, app.wrap(manager.middleware()));
        let server = Box::leak(Box::new(server));
        Self { manager, server }
    }

    /// Logs the user out everywhere. In a handler, because a pool's connections belong to its runtime.
    fn log_out_everywhere(&self, user: &str) {
        let answer = self.server.raw(&format!("/everywhere/{user}"), &[]);
        assert_eq!((answer.status, &*answer.body), (200, "0"));
    }

    fn log_in(&self, user: &str) -> String {
        let answer = self
            .server
            .raw(&format!("/run/renew,user.{user},add.user.{user}"), &[]);
        assert_eq!(answer.body, "done,null,null");
        answer.cookie()
    }

    fn run(&self, script: &str, cookie: &str) -> Answer {
        self.server.with_cookie(&format!("/run/{script}"), cookie)
    }

    fn user(&self, cookie: &str) -> String {
        self.run("get.user", cookie).body
    }
}

/// Calls `check` for each cookie backend, with two processes on one store and a clock that stands still.
fn on_each_backend<S: Store + Clone>(
    web: Web,
    store: &S,
    together: usize,
    check: impl Fn([&Process; 2], &Clock, &Gates),
) {
    for (_, builder) in backends() as [Backend; 2] {
        let (clock, gates) = (Clock::default(), Gates::new(together));
        let processes = [(); 2].map(|()| {
            let builder = builder().clock(clock.now()).revocations(store.clone());
            Process::start(web, &gates, builder)
        });
        check([&processes[0], &processes[1]], &clock, &gates);
    }
}

pub fn a_log_out_everywhere_ends_every_copy_of_every_cookie<S: Store + Clone>(web: Web, store: &S) {
    on_each_backend(web, store, 1, |[here, there], clock, _| {
        let (ada, eve) = (new_user("ada"), new_user("eve"));
        let first = here.log_in(&ada);
        let renewed = here.run("renew,add.more.1", &first).cookie();
        let cookies = [first, renewed, there.log_in(&ada)];
        let other = here.log_in(&eve);
        for cookie in &cookies {
            assert_eq!(
                (here.user(cookie), there.user(cookie)),
                (ada.clone(), ada.clone())
            );
        }
        for round in 0..2 {
            here.log_out_everywhere(&ada);
            // In the same millisecond, in every process.
            let again = [here.log_in(&ada), there.log_in(&ada)];
            for cookie in &again {
                assert_eq!(here.user(cookie), ada, "{round}");
                assert_eq!(there.user(cookie), ada, "{round}");
            }
            for cookie in &cookies {
                assert_eq!(here.user(cookie), "none");
                assert_eq!(there.user(cookie), "none", "its log-in asked the store");
            }
            assert_eq!(here.user(&other), eve);
        }
        clock.forward(Duration::from_millis(1));
        let last = there.log_in(&ada);
        assert_eq!(here.user(&last), ada);
        here.log_out_everywhere(&ada);
        assert_eq!(here.user(&last), "none");
        assert_eq!(there.user(&last), ada, "for as long as the answer is used");
        clock.forward(Builder::REVOCATION_CACHE);
        assert_eq!(there.user(&last), "none");
    });
}

pub fn a_log_out_ends_every_copy_of_its_own_cookie<S: Store + Clone>(web: Web, store: &S) {
    on_each_backend(web, store, 1, |[here, there], _, _| {
        let ada = new_user("ada");
        let (laptop, phone) = (here.log_in(&ada), here.log_in(&ada));
        let renewed = here.run("renew", &laptop).cookie();
        let cleared = here.run("clear,add.user.cleared", &renewed).cookie();
        assert_eq!(here.user(&cleared), "cleared");
        let out = here.run("destroy,flash.bye", &renewed);
        assert_eq!(out.status, 200);
        for copy in [&laptop, &renewed, &cleared] {
            assert_eq!(here.user(copy), "none");
            assert_eq!(there.user(copy), "none");
            // What it writes begins a session.
            let begun = there.run("add.new.1,len", copy);
            assert_eq!(begun.body, "null,1");
            assert_eq!(there.run("len", &begun.cookie()).body, "1");
        }
        assert_eq!(here.user(&phone), ada, "another log-in of the user");
        assert_eq!(here.run("flashes", &out.cookie()).body, "bye");
    });
}

pub fn a_log_out_everywhere_else_keeps_one_log_in<S: Store + Clone>(web: Web, store: &S) {
    on_each_backend(web, store, 1, |[here, there], clock, _| {
        let ada = new_user("ada");
        let (laptop, phone) = (here.log_in(&ada), here.log_in(&ada));
        let of_others = here.manager.clone();
        let user = ada.clone();
        let app = Gates::new(1)
            .app()
            .get("/others/{rest}", move |session, _| {
                let (manager, user) = (of_others.clone(), user.clone());
                async move {
                    let ended = manager.destroy_other_user_sessions(&user, &session).await?;
                    Ok(ended.to_string())
                }
            });
        let app = app.wrap(here.manager.middleware());
        let server = Box::leak(Box::new(Server::start(web, app)));
        assert_eq!(server.with_cookie("/others/x", &phone).body, "0");
        clock.forward(Builder::REVOCATION_CACHE);
        for process in [here, there] {
            assert_eq!(process.user(&phone), ada);
            assert_eq!(process.user(&laptop), "none");
        }
        let tablet = there.log_in(&ada);
        assert_eq!(server.with_cookie("/others/x", &tablet).body, "0");
        assert_eq!(
            (here.user(&phone), here.user(&tablet)),
            ("none".into(), ada.clone())
        );
        here.run("destroy", &tablet);
        assert_eq!(here.user(&tablet), "none", "what was kept can log out");
        let last = here.log_in(&ada);
        there.log_out_everywhere(&ada);
        assert_eq!(there.user(&last), "none");
    });
}

pub fn only_a_session_with_a_user_is_looked_up<S: Store + Clone>(web: Web, store: &S) {
    for (_, builder) in backends() {
        let (clock, counting) = (Clock::default(), Counting::new(store.clone()));
        let builder = builder().clock(clock.now()).revocations(counting.clone());
        let process = Process::start(web, &Gates::new(1), builder);
        let anonymous = process.server.raw("/run/add.key.value", &[]).cookie();
        process.run("count.visits,renew", &anonymous);
        process.run("destroy", &anonymous);
        process.run("get.key", "_session=forged");
        assert_eq!(counting.calls(), 0, "no user, no call");
        let user = new_user("counted");
        let cookie = process.log_in(&user);
        assert_eq!(counting.calls(), 1, "a log-in asks");
        for _ in 0..5 {
            assert_eq!(process.user(&cookie), user);
            process.run("count.visits", &cookie);
        }
        assert_eq!(counting.calls(), 0, "its answer is used again");
        clock.forward(Builder::REVOCATION_CACHE);
        for _ in 0..5 {
            assert_eq!(process.user(&cookie), user);
        }
        assert_eq!(counting.calls(), 1, "for a while");
        process.run("renew", &cookie);
        assert_eq!(counting.calls(), 1, "a renewal asks");
    }
}

pub fn requests_that_overlap_a_revocation_bring_nothing_back<S: Store + Clone>(
    web: Web,
    store: &S,
) {
    on_each_backend(web, store, 1, |[here, there], clock, gates| {
        let ada = new_user("ada");
        for everywhere in [true, false] {
            for script in [
                "add.late.1",
                "renew",
                "renew,add.late.1",
                "clear",
                "count.late",
            ] {
                let cookie = here.log_in(&ada);
                std::thread::scope(|scope| {
                    let path = format!("/slow/{script}");
                    let late = scope.spawn({
                        let cookie = &cookie;
                        move || there.server.with_cookie(&path, cookie)
                    });
                    gates.pass();
                    if everywhere {
                        here.log_out_everywhere(&ada);
                    } else {
                        here.run("destroy", &cookie);
                    }
                    gates.pass();
                    let late = late.join().unwrap();
                    assert_eq!(late.status, 200);
                    clock.forward(Builder::REVOCATION_CACHE);
                    if let Some(set) = late.set_cookie() {
                        let set = set.split(';').next().unwrap();
                        assert_eq!(there.user(set), "none", "{script}");
                    }
                    // It renewed nothing.
                    assert!(!script.contains("renew") || late.set_cookie().is_none());
                });
                assert_eq!(there.user(&cookie), "none");
            }
        }
        // A log-in that is stored after the revocation.
        let path = format!("/slow/user.{ada},add.user.{ada}");
        std::thread::scope(|scope| {
            let late = scope.spawn(|| there.server.raw(&path, &[]));
            gates.pass();
            here.log_out_everywhere(&ada);
            gates.pass();
            let late = late.join().unwrap().cookie();
            assert_eq!(
                (here.user(&late), there.user(&late)),
                (ada.clone(), ada.clone())
            );
        });
    });
}

pub fn revocations_at_once_all_count<S: Store + Clone>(web: Web, store: &S) {
    const COUNT: usize = 12;
    on_each_backend(web, store, COUNT, |processes, clock, _| {
        let ada = new_user("ada");
        let stays = processes[0].log_in(&ada);
        let cookies: Vec<_> = (0..COUNT).map(|_| processes[0].log_in(&ada)).collect();
        at_once(COUNT, |number| {
            let server = processes[number % 2].server;
            let out = server.with_cookie("/together/destroy", &cookies[number]);
            assert_eq!(out.status, 200);
        });
        clock.forward(Builder::REVOCATION_CACHE);
        for process in processes {
            assert!(cookies.iter().all(|cookie| process.user(cookie) == "none"));
            assert_eq!(process.user(&stays), ada);
        }
        at_once(COUNT, |number| {
            processes[number % 2].log_out_everywhere(&ada);
        });
        let again = processes[1].log_in(&ada);
        clock.forward(Builder::REVOCATION_CACHE);
        for process in processes {
            assert_eq!(process.user(&stays), "none");
            assert_eq!(process.user(&again), ada);
        }
        processes[0].log_out_everywhere(&ada);
        clock.forward(Builder::REVOCATION_CACHE);
        assert_eq!(processes[1].user(&again), "none");
    });
}

pub fn a_revocation_lasts_as_long_as_a_cookie_can<S: Store + Clone>(web: Web, store: &S) {
    on_each_backend(web, store, 1, |[here, there], clock, _| {
        let ada = new_user("ada");
        let remember = || {
            let answer = here.server.raw(&format!("/remember/{ada}"), &[]);
            answer.cookie()
        };
        let (one, two) = (remember(), remember());
        here.run("destroy", &one);
        here.log_out_everywhere(&ada);
        let (three, stays) = (remember(), remember());
        here.run("destroy", &three);
        clock.forward(399 * DAY);
        for cookie in [&one, &two, &three] {
            assert_eq!(there.user(cookie), "none");
        }
        assert_eq!(there.user(&stays), ada);
    });
}
