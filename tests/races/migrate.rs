//! Migrations that overlap with requests, log-outs and other processes.

use std::{sync::mpsc, time::Duration};

use crate::common::{
    Answer, App, Clock, Gates, Server, Web, Wire, at_once, backends, key, on_every_framework,
};
use session_manager::{Builder, Error, Manager, MemoryStore, PrivateCookie, ServerSide};

/// The backends that sessions come from. Each call is another process on the same stores.
struct From {
    name: &'static str,
    store: MemoryStore,
    clock: Clock,
}

impl From {
    fn all() -> Vec<Self> {
        let names = ["memory", "memory, another cookie", "signed", "private"];
        let from = |name| Self {
            name,
            store: MemoryStore::new(),
            clock: Clock::default(),
        };
        names.map(from).into()
    }

    fn build(&self) -> Manager {
        let memory = || Manager::builder(ServerSide::new(self.store.clone()));
        let builder = match self.name {
            "memory" => memory(),
            "memory, another cookie" => memory().cookie_name("old"),
            "signed" => backends()[0].1(),
            "private" => backends()[1].1(),
            other => panic!("{other}"),
        };
        builder.clock(self.clock.now()).build().unwrap()
    }

    /// A session of the old manager, as `name=value`.
    fn begin(&self, web: Web) -> String {
        let server = Server::scripts(web, self.build().middleware());
        server.raw("/run/add.user.ada,count.n", &[]).cookie()
    }

    /// A server of a process that migrates to `to`.
    fn process(&self, web: Web, to: Builder, gates: &Gates) -> Server {
        let to = to.clock(self.clock.now()).migrate_from(self.build());
        let manager = to.build().unwrap();
        Server::start(web, gates.app().wrap(manager.middleware()))
    }
}

fn to_memory(store: &MemoryStore) -> Builder {
    Manager::builder(ServerSide::new(store.clone()))
}

fn to_cookie() -> Builder {
    Manager::builder(PrivateCookie::new(key())).cookie_name("new")
}

/// The answer of a request that was open while `meanwhile` happened.
fn slow(
    server: &Server,
    gates: &Gates,
    script: &str,
    cookie: &str,
    meanwhile: impl FnOnce(),
) -> Answer {
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| server.with_cookie(&format!("/slow/{script}"), cookie));
        gates.pass();
        meanwhile();
        gates.pass();
        slow.join().unwrap()
    })
}

/// The cookies that an answer sets, without those that it removes.
fn set(answer: &Answer) -> Vec<String> {
    let pairs = answer.all("set-cookie").map(|line| line.split(';').next());
    let pairs = pairs.map(|pair| pair.unwrap().to_owned());
    pairs.filter(|pair| !pair.ends_with('=')).collect()
}

const LATE: [&str; 6] = [
    "add.late.1",
    "renew,add.late.1",
    "get.user",
    "flash.late",
    "count.n",
    "clear",
];

fn a_log_out_before_the_migration_ends_the_session(web: Web) {
    for from in From::all() {
        for late in LATE {
            let way = format!("{}: {late}", from.name);
            let (store, gates) = (MemoryStore::new(), Gates::new(1));
            let server = from.process(web, to_memory(&store), &gates);
            let other = from.process(web, to_memory(&store), &gates);
            let cookie = from.begin(web);
            let answer = slow(&server, &gates, late, &cookie, || {
                other.with_cookie("/run/destroy", &cookie);
                // Far enough that a touch is due.
                from.clock.forward(Duration::from_secs(2 * 60 * 60));
            });
            assert_eq!(answer.status, 200, "{way}");
            assert_eq!(set(&answer), [""; 0], "{way}");
            for server in [&server, &other] {
                let read = server.with_cookie("/run/get.user,len", &cookie);
                assert_eq!(read.body, "none,0", "{way}");
            }
        }
    }
}

fn a_log_out_after_the_migration_ends_the_session(web: Web) {
    for from in From::all() {
        let (store, gates) = (MemoryStore::new(), Gates::new(1));
        let server = from.process(web, to_memory(&store), &gates);
        let other = from.process(web, to_memory(&store), &gates);
        let cookie = from.begin(web);
        let mut moved = Vec::new();
        let out = slow(&server, &gates, "destroy", &cookie, || {
            moved = set(&other.with_cookie("/run/add.more.1", &cookie));
        });
        assert_eq!((out.status, moved.len()), (200, 1), "{}", from.name);
        assert_eq!(set(&out), [""; 0], "{}", from.name);
        for cookie in [&cookie, &moved[0]] {
            let read = server.with_cookie("/run/get.user,len", cookie);
            assert_eq!(read.body, "none,0", "{}", from.name);
        }
    }
}

fn after_a_log_out_a_copy_of_the_old_cookie_does_not_open(web: Web) {
    for from in From::all() {
        let (store, gates) = (MemoryStore::new(), Gates::new(1));
        let server = from.process(web, to_memory(&store), &gates);
        for renewed in [false, true] {
            let copy = from.begin(web);
            let mut moved = set(&server.with_cookie("/run/add.more.1", &copy));
            if renewed {
                moved = set(&server.with_cookie("/run/renew", &moved[0]));
            }
            server.with_cookie("/run/destroy", &moved[0]);
            from.clock.forward(Duration::from_secs(10 * 60));
            let read = server.with_cookie("/run/get.user,len", &copy);
            assert_eq!(read.body, "none,0", "{}", from.name);
            let written = server.with_cookie("/run/add.cart.1,get.user", &copy);
            assert_eq!(written.body, "null,none", "{}", from.name);
            let began = set(&written);
            assert_eq!(began.len(), 1, "a new session begins: {}", from.name);
            let read = server.with_cookie("/run/get.user,get.cart", &began[0]);
            assert_eq!(read.body, "none,1", "{}", from.name);
        }
    }
}

fn the_old_cookie_opens_the_migrated_session(web: Web) {
    for from in From::all() {
        let (store, gates) = (MemoryStore::new(), Gates::new(1));
        let server = from.process(web, to_memory(&store), &gates);
        let other = from.process(web, to_memory(&store), &gates);
        let old = from.begin(web);
        let new = set(&server.with_cookie("/run/add.more.1", &old));
        assert_eq!(new.len(), 1, "{}", from.name);
        let read = other.with_cookie("/run/get.user,get.more,number.n", &old);
        assert_eq!(read.body, "ada,1,1", "{}", from.name);
        let written = other.with_cookie("/run/count.n,add.other.1", &old);
        assert_eq!(written.body, "2,null", "{}", from.name);
        let told = if new[0] == old { vec![] } else { new.clone() };
        assert_eq!(set(&written), told, "the same new cookie: {}", from.name);
        let read = server.with_cookie("/run/len,number.n,get.other", &new[0]);
        assert_eq!(read.body, "4,2,1", "{}", from.name);
    }
}

fn ten_requests_in_two_processes_lose_no_write_when_migrating(web: Web) {
    for from in From::all() {
        let (store, gates) = (MemoryStore::new(), Gates::new(10));
        let processes = [0, 1].map(|_| from.process(web, to_memory(&store), &gates));
        let old = from.begin(web);
        let new = at_once(10, |number| {
            let path = format!("/together/add.key{number}.value,count.n,flash.m{number}");
            set(&processes[number % 2].with_cookie(&path, &old))
        });
        assert_eq!(new[0].len(), 1, "{}", from.name);
        assert!(
            new.iter().all(|set| *set == new[0]),
            "{}: {new:?}",
            from.name
        );
        // And one that comes after all of them, with the old cookie still.
        processes[0].with_cookie("/run/add.late.1,count.n", &old);
        let read = processes[1].with_cookie("/run/len,number.n,get.user", &new[0][0]);
        assert_eq!(read.body, "13,12,ada", "{}", from.name);
        let flashes = processes[1].with_cookie("/run/flashes", &new[0][0]).body;
        assert_eq!(flashes.split('+').count(), 10, "{}", from.name);
    }
}

fn after_a_log_out_no_earlier_cookie_of_the_session_opens(web: Web) {
    for from in From::all().into_iter().skip(2) {
        let (store, gates) = (MemoryStore::new(), Gates::new(1));
        let server = from.process(web, to_memory(&store), &gates);
        let old_process = Server::scripts(web, from.build().middleware());
        let earlier = from.begin(web);
        let later = old_process
            .with_cookie("/run/add.cart.full", &earlier)
            .cookie();
        let moved = set(&server.with_cookie("/run/add.more.1", &later));
        let read = server.with_cookie("/run/get.cart,get.more", &earlier);
        assert_eq!(
            read.body, "full,1",
            "it opens the same session: {}",
            from.name
        );
        server.with_cookie("/run/destroy", &moved[0]);
        for cookie in [&earlier, &later, &moved[0]] {
            let read = server.with_cookie("/run/get.user,len", cookie);
            assert_eq!(read.body, "none,0", "{}", from.name);
        }
    }
}

fn equal_sessions_of_two_clients_migrate_separately(web: Web) {
    for from in From::all() {
        let (store, gates) = (MemoryStore::new(), Gates::new(1));
        let server = from.process(web, to_memory(&store), &gates);
        // In the same millisecond: the clock stands.
        let visitors = [from.begin(web), from.begin(web)];
        let moved = visitors
            .each_ref()
            .map(|cookie| set(&server.with_cookie("/run/add.more.1", cookie)));
        assert_ne!(moved[0], moved[1], "{}", from.name);
        server.with_cookie("/run/add.secret.1", &moved[0][0]);
        let read = server.with_cookie("/run/get.secret", &moved[1][0]);
        assert_eq!(read.body, "none", "{}", from.name);
        server.with_cookie("/run/destroy", &moved[0][0]);
        let read = server.with_cookie("/run/get.user", &moved[1][0]);
        assert_eq!(read.body, "ada", "{}", from.name);
    }
}

fn the_old_cookie_does_not_open_a_renewed_session(web: Web) {
    for from in From::all() {
        let (store, gates) = (MemoryStore::new(), Gates::new(1));
        let server = from.process(web, to_memory(&store), &gates);
        let planted = from.begin(web);
        // The login is the write that migrates the session.
        let login = set(&server.with_cookie("/run/renew,add.secret.1", &planted));
        let read = server.with_cookie("/run/get.secret,len", &planted);
        assert_eq!(read.body, "none,0", "{}", from.name);
        let written = server.with_cookie("/run/add.late.1", &planted);
        assert_eq!(set(&written), [""; 0], "the login stands: {}", from.name);
        let read = server.with_cookie("/run/get.secret,get.late", &login[0]);
        assert_eq!(read.body, "1,none", "{}", from.name);
        from.clock.forward(Duration::from_secs(61));
        let written = server.with_cookie("/run/add.later.1", &planted);
        assert_eq!(set(&written).len(), 1, "a new session: {}", from.name);
        let read = server.with_cookie("/run/get.secret,get.later", &login[0]);
        assert_eq!(read.body, "1,none", "{}", from.name);
    }
}

fn a_log_out_before_a_migration_to_a_cookie_ends_the_session(web: Web) {
    for name in ["memory", "memory, another cookie"] {
        let from = From::all()
            .into_iter()
            .find(|from| from.name == name)
            .unwrap();
        for late in LATE {
            let gates = Gates::new(1);
            let server = from.process(web, to_cookie(), &gates);
            let other = from.process(web, to_cookie(), &gates);
            let old = from.begin(web);
            let answer = slow(&server, &gates, late, &old, || {
                other.with_cookie("/run/destroy", &old);
                from.clock.forward(Duration::from_secs(2 * 60 * 60));
            });
            assert_eq!(answer.status, 200, "{name}: {late}");
            assert_eq!(set(&answer), [""; 0], "{name}: {late}");
            let read = server.with_cookie("/run/get.user,len", &old);
            assert_eq!(read.body, "none,0", "{name}: {late}");
        }
    }
}

fn of_two_requests_that_migrate_to_a_cookie_one_does(web: Web) {
    for name in ["memory", "memory, another cookie"] {
        let from = From::all()
            .into_iter()
            .find(|from| from.name == name)
            .unwrap();
        let gates = Gates::new(1);
        let server = from.process(web, to_cookie(), &gates);
        let other = from.process(web, to_cookie(), &gates);
        let old = from.begin(web);
        let mut first = Vec::new();
        let late = slow(&server, &gates, "add.late.1", &old, || {
            first = set(&other.with_cookie("/run/add.first.1", &old));
        });
        assert_eq!((first.len(), late.status), (1, 200), "{name}");
        assert_eq!(set(&late), [""; 0], "the first cookie stays: {name}");
        let after = server.with_cookie("/run/add.after.1,get.user", &old);
        assert_eq!(after.body, "null,none", "{name}");
        assert_eq!(set(&after), [""; 0], "the first cookie stays: {name}");
        let read = server.with_cookie("/run/get.user,get.first", &first[0]);
        assert_eq!(read.body, "ada,1", "{name}");
    }
}

fn a_migration_to_a_cookie_keeps_what_other_requests_wrote(web: Web) {
    let from = &From::all()[0];
    let gates = Gates::new(1);
    let server = from.process(web, to_cookie(), &gates);
    let old_process = Server::scripts(web, from.build().middleware());
    let old = from.begin(web);
    let moved = slow(&server, &gates, "count.n,add.late.1", &old, || {
        old_process.with_cookie("/run/count.n,add.other.1", &old);
    });
    let read = server.with_cookie("/run/get.user,number.n,get.late,get.other", &set(&moved)[0]);
    assert_eq!(read.body, "ada,3,1,1");
}

fn a_log_out_ends_the_old_record_if_the_client_disconnects(web: Web) {
    let from = &From::all()[0];
    let manager = to_cookie().migrate_from(from.build()).build().unwrap();
    let (send, entered) = mpsc::channel();
    let app = App::new().get("/leave", move |session, _| {
        let send = send.clone();
        async move {
            session.destroy();
            send.send(()).unwrap();
            std::future::pending::<Result<&str, Error>>().await
        }
    });
    let server = Server::start(web, app.wrap(manager.middleware()));
    let old = from.begin(web);
    let mut client = Wire::to(server.address);
    client.send("/leave", &old).unwrap();
    entered.recv().unwrap();
    drop(client);
    crate::common::until("the old record is gone", || from.store.is_empty());
}

fn ending_a_users_sessions_ends_a_migrating_session(web: Web) {
    for from in From::all().into_iter().take(2) {
        let (store, gates) = (MemoryStore::new(), Gates::new(1));
        let old_app = App::new().get("/in", async |session, _| {
            session.set_user("ada")?;
            session.add("user", "ada")?;
            Ok("in")
        });
        let old = Server::start(web, old_app.wrap(from.build().middleware()));
        let build = || {
            let to = to_memory(&store).clock(from.clock.now());
            to.migrate_from(from.build()).build().unwrap()
        };
        let server = Server::start(web, gates.app().wrap(build().middleware()));
        let manager = build();
        let end = || crate::common::block_on(manager.destroy_user_sessions("ada")).unwrap();

        // Before it migrates.
        let cookie = old.raw("/in", &[]).cookie();
        let late = slow(&server, &gates, "add.late.1", &cookie, || {
            assert_eq!(end(), 1, "{}", from.name);
        });
        assert_eq!((late.status, set(&late)), (200, vec![]), "{}", from.name);
        let read = server.with_cookie("/run/get.user,len", &cookie);
        assert_eq!(read.body, "none,0", "{}", from.name);

        // After.
        let cookie = old.raw("/in", &[]).cookie();
        let mut moved = Vec::new();
        let late = slow(&server, &gates, "add.late.1", &cookie, || {
            moved = set(&server.with_cookie("/run/add.more.1", &cookie));
            assert_eq!(end(), 1, "{}", from.name);
        });
        assert_eq!((late.status, set(&late)), (200, vec![]), "{}", from.name);
        for cookie in [&cookie, &moved[0]] {
            let read = server.with_cookie("/run/get.user,len", cookie);
            assert_eq!(read.body, "none,0", "{}", from.name);
        }
    }
}

on_every_framework!(
    a_log_out_before_the_migration_ends_the_session,
    a_log_out_after_the_migration_ends_the_session,
    after_a_log_out_a_copy_of_the_old_cookie_does_not_open,
    the_old_cookie_opens_the_migrated_session,
    ten_requests_in_two_processes_lose_no_write_when_migrating,
    after_a_log_out_no_earlier_cookie_of_the_session_opens,
    equal_sessions_of_two_clients_migrate_separately,
    the_old_cookie_does_not_open_a_renewed_session,
    a_log_out_before_a_migration_to_a_cookie_ends_the_session,
    of_two_requests_that_migrate_to_a_cookie_one_does,
    a_migration_to_a_cookie_keeps_what_other_requests_wrote,
    a_log_out_ends_the_old_record_if_the_client_disconnects,
    ending_a_users_sessions_ends_a_migrating_session,
);
