//! The tests that every store must pass over a real HTTP server, with requests that overlap.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use session_manager::{
    Builder, Error, Manager, ServerSide, Store, StoreError, Timestamp,
    store::{Applied, Record, StoreId, UserIndex, Verifier, Write},
};

#[cfg(feature = "memory")]
use session_manager::MemoryStore;
use sha2::{Digest, Sha256};

use super::{Answer, App, Clock, Gates, Server, Told, Web, at_once, backends, block_on, records};
pub use super::{limits::*, revoke::*};

/// A store that counts its calls: each is one round trip.
#[derive(Clone)]
pub struct Counting<S> {
    store: Arc<S>,
    calls: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl<S: Store> Counting<S> {
    pub fn new(store: S) -> Self {
        Self {
            store: Arc::new(store),
            calls: Arc::default(),
            seen: Arc::default(),
        }
    }

    /// Returns what each call received: ids, verifiers, keys and values.
    pub fn seen(&self) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap().clone()
    }

    /// Returns the number of calls since the last time.
    pub fn calls(&self) -> usize {
        self.calls.swap(0, Ordering::SeqCst)
    }

    fn counted(&self, id: StoreId, write: Option<&Write>) -> &S {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut seen = id.as_bytes().to_vec();
        if let Some(write) = write {
            seen.extend(write.verifier.as_bytes());
            seen.extend(write.new_verifier.iter().flat_map(Verifier::as_bytes));
            for (key, value) in &write.set {
                seen.extend(key.bytes().chain(value.as_str().bytes()));
            }
        }
        self.seen.lock().unwrap().push(seen);
        &self.store
    }
}

impl<S: Store> Store for Counting<S> {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    fn answers_at_once(&self) -> bool {
        self.store.answers_at_once()
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        self.counted(id, None).load(id, now).await
    }

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        self.counted(id, Some(write)).create(id, write).await
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        self.counted(id, Some(write)).apply(id, write).await
    }

    async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
        self.counted(id, None).destroy(id).await
    }

    fn users(&self) -> Option<&dyn UserIndex> {
        self.store.users()
    }
}

/// How a store is unavailable.
#[derive(Clone, Copy)]
pub enum How {
    Hangs,
    Refuses,
    Corrupt,
    /// The call succeeds, and its reply comes late.
    AnswersLate,
}

impl How {
    /// Returns the reply of the store with this name.
    pub async fn answer<T>(self, store: &'static str) -> Result<T, StoreError> {
        match self {
            Self::Hangs | Self::AnswersLate => std::future::pending().await,
            Self::Refuses => Err(StoreError::failed(
                store,
                std::io::Error::other("connection refused"),
            )),
            Self::Corrupt => Err(StoreError::Corrupt {
                store,
                why: "it has no version",
            }),
        }
    }
}

/// A memory store that is unavailable while a test demands it.
#[cfg(feature = "memory")]
#[derive(Clone, Default)]
pub struct Flaky {
    store: MemoryStore,
    away: Arc<Mutex<Option<How>>>,
}

#[cfg(feature = "memory")]
impl Flaky {
    pub fn set(&self, away: Option<How>) {
        *self.away.lock().unwrap() = away;
    }

    async fn there(&self) -> Result<&MemoryStore, StoreError> {
        let away = *self.away.lock().unwrap();
        match away {
            None | Some(How::AnswersLate) => Ok(&self.store),
            Some(how) => how.answer(self.name()).await,
        }
    }

    async fn written<T>(&self, answer: T) -> T {
        let away = *self.away.lock().unwrap();
        if let Some(How::AnswersLate) = away {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        answer
    }

    pub fn len(&self) -> usize {
        self.store.len()
    }
}

#[cfg(feature = "memory")]
impl Store for Flaky {
    fn name(&self) -> &'static str {
        "flaky"
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        self.there().await?.load(id, now).await
    }

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        let created = self.there().await?.create(id, write).await;
        self.written(created).await
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        let applied = self.there().await?.apply(id, write).await;
        self.written(applied).await
    }

    async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
        self.there().await?.destroy(id).await
    }
}

/// Starts a server that runs until the process ends. A pool's connections belong to the runtime of the
/// worker that opened them, as in an application, and would end with it.
pub fn serve<S: Store + Clone>(
    web: Web,
    store: &S,
    gates: &Gates,
    settings: impl FnOnce(Builder) -> Builder,
) -> &'static Server {
    let builder = settings(Manager::builder(ServerSide::new(store.clone())));
    let middleware = builder.build().unwrap().middleware();
    Box::leak(Box::new(Server::start(web, gates.app().wrap(middleware))))
}

/// Makes one test for each behaviour of the named groups, in every framework, for one store:
/// `memory::promises::on_axum::requests_that_overlap_lose_nothing`. `$run` is a function that connects
/// to the store and calls the behaviour that it receives: `fn run(web: Web, behaviour: fn(Web, &MyStore))`.
///
/// To add a behaviour, write `pub fn name<S: Store + Clone>(web: Web, store: &S)` below, and its name
/// into the list of one group.
macro_rules! store_tests {
    (@groups $attributes:tt $run:ident $($group:ident)+) => {
        $(store_tests! { @group $attributes $run $group })+
    };
    (@group $attributes:tt $run:ident promises) => {
        store_tests! { @tests $attributes $run promises
            requests_that_overlap_lose_nothing
            exactly_one_of_fifty_requests_takes_the_token
            update_now_returns_the_stored_value
            overlapping_updates_cost_calls_in_proportion
            a_renewal_holds_against_requests_in_flight
            a_renewal_keeps_writes_of_overlapping_requests
            a_request_under_the_old_id_does_not_disturb_the_new_one
            an_id_in_a_cookie_of_another_name_does_not_open
            sessions_migrate_to_the_store_without_loss
            store_calls_stay_within_the_documented_number
            a_session_expires_by_the_clock
            ten_thousand_keys_and_almost_a_megabyte_are_stored
            an_observer_is_told_each_store_call_and_what_it_did
        }
    };
    // For a store with an index of users.
    (@group $attributes:tt $run:ident users) => {
        store_tests! { @tests $attributes $run users
            a_users_sessions_are_listed_and_ended
            an_observer_is_told_of_users_and_administrators
            log_ins_at_once_never_exceed_the_limit
            of_log_ins_at_once_the_last_ones_stay
            the_oldest_session_ends_and_its_late_request_loses
            a_place_is_free_again_when_the_log_in_fails
            only_live_sessions_of_others_count
            a_limit_without_effect_is_an_error
        }
    };
    // For a store without one.
    (@group $attributes:tt $run:ident no_users) => {
        store_tests! { @tests $attributes $run no_users
            a_store_without_a_user_index_says_so
        }
    };
    // Of cookies, with a store that says which are revoked.
    (@group $attributes:tt $run:ident revocations) => {
        store_tests! { @tests $attributes $run revocations
            a_log_out_everywhere_ends_every_copy_of_every_cookie
            a_log_out_ends_every_copy_of_its_own_cookie
            a_log_out_everywhere_else_keeps_one_log_in
            only_a_session_with_a_user_is_looked_up
            requests_that_overlap_a_revocation_bring_nothing_back
            revocations_at_once_all_count
            a_revocation_lasts_as_long_as_a_cookie_can
        }
    };
    // What the advisories of other session crates ask of a store. `tests/attacks/advisories.rs` runs them on
    // memory, beside those that ask it of the rest of the crate.
    (@group $attributes:tt $run:ident advisories) => {
        store_tests! { @tests $attributes $run advisories
            cve_2025_46336_a_session_is_not_restored_after_logout
            cve_2018_1000519_a_destroyed_session_does_not_open
            cve_2023_20862_a_cleared_session_stays_empty
            cve_2022_25896_an_id_made_elsewhere_is_not_adopted
            cve_2019_16782_the_store_never_sees_the_cookies_secret
            go_2024_2730_a_malformed_id_never_reaches_the_store
            cve_2015_5143_reading_requests_create_no_record
        }
    };
    (@tests $attributes:tt $run:ident $group:ident $($test:ident)+) => {
        mod $group {
            mod on_actix {
                use $crate::common::server_side::store_tests;
                $(store_tests! { @test $attributes $run Actix $test })+
            }
            mod on_axum {
                use $crate::common::server_side::store_tests;
                $(store_tests! { @test $attributes $run Axum $test })+
            }
        }
    };
    (@test [$($attribute:tt)*] $run:ident $web:ident $test:ident) => {
        #[test]
        $($attribute)*
        fn $test() {
            super::super::super::$run($crate::common::Web::$web, $crate::common::server_side::$test);
        }
    };
    ($(#[$attribute:meta])* $store:ident, $run:ident: $($group:ident),+ $(,)?) => {
        mod $store {
            use $crate::common::server_side::store_tests;
            store_tests! { @groups [$(#[$attribute])*] $run $($group)+ }
        }
    };
}
pub(crate) use store_tests;

pub fn requests_that_overlap_lose_nothing<S: Store + Clone>(web: Web, store: &S) {
    let at_once = |count: usize, script: &(dyn Fn(usize) -> String + Sync)| {
        let gates = Gates::new(count);
        let server = serve(web, store, &gates, |builder| builder);
        let cookie = server.raw("/run/add.first.1", &[]).cookie();
        let statuses = at_once(count, |number| {
            let path = format!("/together/{}", script(number));
            server.with_cookie(&path, &cookie).status
        });
        assert_eq!(statuses, vec![200; count]);
        (server, cookie)
    };
    let (server, cookie) = at_once(50, &|number| format!("add.key{number}.value"));
    assert_eq!(
        server.with_cookie("/run/len", cookie).body,
        "51",
        "50 keys, each by a request of its own"
    );

    let (server, cookie) = at_once(50, &|_| "count.visits".into());
    assert_eq!(
        server.with_cookie("/run/get.visits", cookie).body,
        "50",
        "50 increments"
    );

    let (server, cookie) = at_once(20, &|number| format!("flash.message{number}"));
    let flashes = server.with_cookie("/run/flashes", &cookie).body;
    let mut flashes: Vec<_> = flashes.split('+').collect();
    flashes.sort_unstable();
    flashes.dedup();
    assert_eq!(
        flashes.len(),
        20,
        "20 flash messages, each once: {flashes:?}"
    );
    assert_eq!(
        server.with_cookie("/run/flashes", &cookie).body,
        "",
        "and never again"
    );
}

pub fn an_observer_is_told_each_store_call_and_what_it_did<S: Store + Clone>(web: Web, store: &S) {
    let (told, calls) = (Told::default(), Told::default());
    let server = serve(web, store, &Gates::new(2), |builder| {
        builder.observe(told.clone()).observe(calls.clone())
    });
    let both = || (told.life(), calls.calls());
    let is = |life: &str, calls: &str| (life.to_owned(), calls.to_owned());
    server.raw("/run/get.key", &[]);
    assert_eq!(both(), is("", ""));
    let cookie = server.raw("/run/add.key.value", &[]).cookie();
    assert_eq!(both(), is("created", "create done"));
    server.with_cookie("/run/get.key", &cookie);
    assert_eq!(both(), is("", "load done"));
    server.with_cookie("/run/add.key.other", &cookie);
    assert_eq!(both(), is("", "load done, apply done"));
    let cookie = server.with_cookie("/run/renew", &cookie).cookie();
    assert_eq!(both(), is("renewed", "load done, apply done"));
    server.with_cookie("/run/destroy", &cookie);
    assert_eq!(
        both(),
        is("destroyed 1 by handler", "load done, destroy done")
    );
    server.with_cookie("/run/get.key", &cookie);
    assert_eq!(both(), is("refused unknown", "load done"));
}

pub fn an_observer_is_told_of_users_and_administrators<S: Store + Clone>(web: Web, store: &S) {
    let told = Told::with_names();
    // Other tests use the same server.
    let user = format!("observed{}", records::unique());
    let (one, all) = (user.clone(), user.clone());
    let builder = Manager::builder(ServerSide::new(store.clone())).observe(told.clone());
    let manager = builder.build().unwrap();
    let middleware = manager.middleware();
    let app = App::new()
        .get("/end/{handle}", move |session, handle| {
            let user = one.clone();
            async move {
                let manager = session.manager();
                let ended = manager.destroy_user_session(&user, &handle).await?;
                Ok(ended.to_string())
            }
        })
        .get("/end-all", move |session, _| {
            let user = all.clone();
            async move {
                let ended = session.manager().destroy_user_sessions(&user).await?;
                Ok(ended.to_string())
            }
        });
    let server: &'static Server = Box::leak(Box::new(Server::start(web, app.wrap(middleware))));
    let mut handles = Vec::new();
    for _ in 0..3 {
        let cookie = server
            .raw(&format!("/run/user.{user},add.key.value"), &[])
            .cookie();
        let all = told.all();
        let life: Vec<_> = all.iter().filter(|one| !one.is_call).collect();
        let texts: Vec<_> = life.iter().map(|one| &*one.text).collect();
        assert_eq!(texts, ["created", "user set"]);
        handles.push(server.with_cookie("/run/handle", &cookie).body);
        for one in &life {
            assert_eq!(one.user.as_deref(), Some(&*user));
            assert_eq!(one.handle.as_ref(), handles.last());
        }
        let calls = all.iter().filter(|one| one.is_call);
        for call in calls.chain(told.all().iter()) {
            assert_eq!(call.handle.as_ref(), handles.last(), "{call:?}");
        }
    }
    assert_eq!(
        server.raw(&format!("/end/{}", handles[0]), &[]).body,
        "true"
    );
    let all = told.all();
    assert_eq!(all[0].text, "destroy_of done");
    assert_eq!(all[1].text, "destroyed 1 by administrator");
    assert_eq!(all[1].handle.as_ref(), Some(&handles[0]));
    assert_eq!(all[1].user.as_deref(), Some(&*user));
    assert_eq!(
        server.raw(&format!("/end/{}", handles[0]), &[]).body,
        "false"
    );
    assert_eq!(told.life(), "");
    assert_eq!(server.raw("/end-all", &[]).body, "2");
    assert_eq!(told.life(), "destroyed 2 by administrator");
}

/// Sends fifty requests at once that run `script` on one session. Returns their bodies.
fn fifty_at_once<S: Store + Clone>(
    web: Web,
    store: &S,
    before: &str,
    script: &str,
) -> (&'static Server, String, Vec<String>) {
    let server = serve(web, store, &Gates::new(50), |builder| builder);
    let cookie = server.raw(&format!("/run/{before}"), &[]).cookie();
    let path = format!("/at-once/{script}");
    let answers = at_once(50, |_| server.with_cookie(&path, &cookie).body);
    (server, cookie, answers)
}

pub fn exactly_one_of_fifty_requests_takes_the_token<S: Store + Clone>(web: Web, store: &S) {
    let (server, cookie, taken) =
        fifty_at_once(web, store, "add.token.t,add.user.ada", "take.token");
    let got = |answer: &str| taken.iter().filter(|taken| *taken == answer).count();
    assert_eq!((got("\"t\""), got("null")), (1, 49), "{taken:?}");
    let read = server.with_cookie("/run/get.token,get.user", &cookie).body;
    assert_eq!(read, "none,ada");
}

pub fn update_now_returns_the_stored_value<S: Store + Clone>(web: Web, store: &S) {
    let (server, cookie, counted) = fifty_at_once(web, store, "add.user.ada", "countnow.n");
    let mut counted: Vec<u32> = counted.iter().map(|n| n.parse().unwrap()).collect();
    counted.sort_unstable();
    assert_eq!(counted, (1..=50).collect::<Vec<_>>(), "each number once");
    let read = server.with_cookie("/run/get.n,get.user", &cookie).body;
    assert_eq!(read, "50,ada");
}

/// A request costs one call to open and one to write; a conflict costs two more.
pub fn overlapping_updates_cost_calls_in_proportion<S: Store + Clone>(web: Web, store: &S) {
    let store = Counting::new(store.clone());
    for (step, most) in [("count", 4), ("countnow", 5)] {
        store.calls();
        let script = format!("{step}.n");
        let (server, cookie, _) = fifty_at_once(web, &store, "add.user.ada", &script);
        let calls = store.calls();
        assert!(calls <= 1 + most * 50, "{step}: {calls} calls");
        assert_eq!(
            server.with_cookie("/run/get.n", &cookie).body,
            "50",
            "{step}"
        );
    }
}

/// CVE-2025-46336 (rack-session): a late write must not restore what was destroyed.
pub fn cve_2025_46336_a_session_is_not_restored_after_logout<S: Store + Clone>(
    web: Web,
    store: &S,
) {
    for late in [
        "add.key.late",
        "renew,add.key.late",
        "get.user",
        "flash.late",
        "count.visits",
        "clear",
    ] {
        let gates = Gates::new(1);
        let clock = Clock::default();
        let server = serve(web, store, &gates, |builder| builder.clock(clock.now()));
        let cookie = server.raw("/run/add.user.ada", &[]).cookie();
        let slow = std::thread::scope(|scope| {
            let slow = scope.spawn(|| server.with_cookie(&format!("/slow/{late}"), &cookie));
            gates.pass();
            let out = server.with_cookie("/run/destroy", &cookie);
            assert!(out.cookie().ends_with('='), "{out:?}");
            // A touch is due then.
            clock.forward(Duration::from_secs(2 * 60 * 60));
            gates.pass();
            slow.join().unwrap()
        });
        assert_eq!(slow.status, 200, "the late request gets its answer: {late}");
        assert_eq!(slow.set_cookie(), None, "and no cookie: {late}");
        assert_eq!(
            server.with_cookie("/run/get.user,len", &cookie).body,
            "none,0",
            "{late}"
        );
    }
}

pub fn a_renewal_holds_against_requests_in_flight<S: Store + Clone>(web: Web, store: &S) {
    for late in ["add.key.late", "renew", "flash.late", "destroy"] {
        let gates = Gates::new(1);
        let server = serve(web, store, &gates, |builder| builder);
        let old = server.raw("/run/add.cart.full", &[]).cookie();
        let (slow, new) = std::thread::scope(|scope| {
            let slow = scope.spawn(|| server.with_cookie(&format!("/slow/{late}"), &old));
            gates.pass();
            let new = server.with_cookie("/run/renew,add.user.ada", &old).cookie();
            gates.pass();
            (slow.join().unwrap(), new)
        });
        assert_eq!(slow.status, 200, "{late}");
        assert_ne!(new, old);
        let read = server.with_cookie("/run/get.user,get.cart", &new).body;
        if late == "destroy" {
            assert_eq!(read, "none,none", "a logout ends the renewed session too");
        } else {
            assert_eq!(read, "ada,full", "the new cookie stands: {late}");
        }
        assert_eq!(
            server.with_cookie("/run/len", &old).body,
            "0",
            "the old id is dead: {late}"
        );
        if late != "destroy" {
            assert_eq!(
                slow.set_cookie(),
                None,
                "nothing replaces the new cookie: {late}"
            );
        }
    }
}

/// The request was sent before the client received the new id.
pub fn a_request_under_the_old_id_does_not_disturb_the_new_one<S: Store + Clone>(
    web: Web,
    store: &S,
) {
    let clock = Clock::default();
    let server = serve(web, store, &Gates::new(1), |builder| {
        builder.clock(clock.now())
    });
    for late in [
        "add.key.1",
        "flash.late",
        "count.n",
        "renew",
        "clear",
        "destroy",
    ] {
        let old = server.raw("/run/add.cart.full", &[]).cookie();
        let new = server.with_cookie("/run/renew,add.user.ada", &old).cookie();
        clock.forward(Duration::from_secs(59));
        let answer = server.with_cookie(&format!("/run/len,{late}"), &old);
        assert_eq!(answer.status, 200, "{late}");
        assert!(answer.body.starts_with("0,"), "it is empty: {answer:?}");
        assert_eq!(answer.set_cookie(), None, "{late}");
        let read = server.with_cookie("/run/get.user,get.cart,len", &new);
        assert_eq!(read.body, "ada,full,2", "{late}");
        clock.forward(Duration::from_secs(1));
        let began = server.with_cookie("/run/add.key.1", &old).cookie();
        assert_ne!(began, new, "a minute later it begins a session");
    }
}

pub fn an_id_in_a_cookie_of_another_name_does_not_open<S: Store + Clone>(web: Web, store: &S) {
    let public = serve(web, store, &Gates::new(1), |builder| builder);
    let admin = serve(web, store, &Gates::new(1), |builder| {
        builder.cookie_name("__Host-admin")
    });
    let cookie = public.raw("/run/add.user.mallory", &[]).cookie();
    let copied = cookie.replace("_session=", "__Host-admin=");
    let read = admin.with_cookie("/run/get.user,len", &copied);
    assert_eq!(read.body, "none,0");
    let out = admin.with_cookie("/run/destroy", &copied);
    assert_eq!(out.status, 200);
    assert_eq!(public.with_cookie("/run/get.user", &cookie).body, "mallory");
}

/// From a signed cookie, and from this store under another cookie name, with two processes.
/// `tests/races/migrate.rs` has every overlap, in memory.
pub fn sessions_migrate_to_the_store_without_loss<S: Store + Clone>(web: Web, store: &S) {
    let signed: fn() -> Builder = || backends()[0].1();
    let renamed = || Manager::builder(ServerSide::new(store.clone())).cookie_name("former");
    for old in [&signed as &dyn Fn() -> Builder, &renamed] {
        let begin = Box::leak(Box::new(Server::scripts(
            web,
            old().build().unwrap().middleware(),
        )));
        let gates = Gates::new(10);
        let processes = [0, 1].map(|_| {
            let old = old().build().unwrap();
            serve(web, store, &gates, |builder| builder.migrate_from(old))
        });
        let set = |answer: &Answer| -> Vec<String> {
            let pairs = answer.all("set-cookie").map(|line| line.split(';').next());
            let pairs = pairs.map(|pair| pair.unwrap().to_owned());
            pairs.filter(|pair| !pair.ends_with('=')).collect()
        };

        let cookie = begin.raw("/run/add.user.ada", &[]).cookie();
        let new = at_once(10, |number| {
            let path = format!("/together/add.key{number}.value,count.n");
            set(&processes[number % 2].with_cookie(&path, &cookie))
        });
        assert!(
            new.iter().all(|set| *set == new[0]),
            "one new cookie: {new:?}"
        );
        let read = processes[0].with_cookie("/run/len,get.n,get.user", &new[0][0]);
        assert_eq!(read.body, "12,10,ada");

        for (first, late) in [("destroy", "add.late.1"), ("add.more.1", "destroy")] {
            let cookie = begin.raw("/run/add.user.ada", &[]).cookie();
            let path = format!("/slow/{late}");
            let (meanwhile, late) = std::thread::scope(|scope| {
                let slow = scope.spawn(|| processes[0].with_cookie(&path, &cookie));
                gates.pass();
                let meanwhile = processes[1].with_cookie(&format!("/run/{first}"), &cookie);
                gates.pass();
                (meanwhile, slow.join().unwrap())
            });
            assert_eq!((late.status, set(&late)), (200, vec![]), "after {first}");
            for cookie in set(&meanwhile).iter().chain([&cookie]) {
                let read = processes[1].with_cookie("/run/get.user,len", cookie);
                assert_eq!(read.body, "none,0", "after {first}");
            }
        }
    }
}

pub fn a_renewal_keeps_writes_of_overlapping_requests<S: Store + Clone>(web: Web, store: &S) {
    let gates = Gates::new(1);
    let server = serve(web, store, &gates, |builder| builder);
    let old = server.raw("/run/count.visits", &[]).cookie();
    let new = std::thread::scope(|scope| {
        let slow = scope.spawn(|| server.with_cookie("/slow/renew,count.visits", &old));
        gates.pass();
        server.with_cookie("/run/count.visits,add.cart.full", &old);
        gates.pass();
        slow.join().unwrap().cookie()
    });
    assert_eq!(
        server.with_cookie("/run/get.visits,get.cart", &new).body,
        "3,full"
    );
    assert_eq!(server.with_cookie("/run/len", &old).body, "0");
}

pub fn store_calls_stay_within_the_documented_number<S: Store + Clone>(web: Web, store: &S) {
    let store = Counting::new(store.clone());
    let gates = Gates::new(1);
    let server = serve(web, &store, &gates, |builder| builder);
    let cookie = server.raw("/run/add.key.value", &[]).cookie();
    assert_eq!(store.calls(), 1, "a new session");
    let calls = |server: &Server, path: &str, cookie: Option<&str>| {
        let answer = match cookie {
            Some(cookie) => server.with_cookie(path, cookie),
            None => server.raw(path, &[]),
        };
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        (store.calls(), answer)
    };
    let with = Some(cookie.as_str());
    assert_eq!(calls(server, "/idle", None).0, 0, "no cookie");
    assert_eq!(
        calls(server, "/run/get.key,len,destroy", None).0,
        0,
        "no cookie, nothing written"
    );
    let untouched = usize::from(!store.answers_at_once());
    assert_eq!(calls(server, "/idle", with).0, untouched, "untouched");
    assert_eq!(calls(server, "/run/get.key", with).0, 1, "read");
    assert_eq!(
        calls(server, "/run/add.key.other,add.more.1,flash.hi", with).0,
        2,
        "write"
    );
    assert_eq!(
        calls(server, "/run/add.key.other", with).0,
        1,
        "the same value again"
    );
    assert_eq!(calls(server, "/run/count.visits", with).0, 2, "update");
    let (count, renewed) = calls(server, "/run/renew", with);
    assert_eq!(count, 2, "renewal");
    let renewed = renewed.cookie();
    let on_demand = serve(web, &store, &gates, Builder::load_on_demand);
    assert_eq!(
        calls(on_demand, "/idle", Some(&renewed)).0,
        0,
        "untouched, on demand"
    );
    assert_eq!(
        calls(on_demand, "/run/get.key", Some(&renewed)).0,
        1,
        "read, on demand"
    );
    assert_eq!(
        calls(server, "/run/destroy", Some(&renewed)).0,
        2,
        "logging out"
    );
}

/// CVE-2018-1000519 (aiohttp-session): a destroyed session stayed valid. Here neither the cookie nor the
/// store has anything left.
pub fn cve_2018_1000519_a_destroyed_session_does_not_open<S: Store + Clone>(web: Web, store: &S) {
    let manager = Manager::new(ServerSide::new(store.clone()));
    let (store, to_server) = (store.clone(), manager.middleware());
    let app = App::new().get_request("/stored/{handle}", move |_, handle| {
        let (store, now) = (store.clone(), manager.settings().now());
        async move {
            let mut id = [0; 32];
            for (at, byte) in id.iter_mut().enumerate() {
                *byte = u8::from_str_radix(&handle[2 * at..2 * at + 2], 16).unwrap();
            }
            let found = store.load(StoreId::from_bytes(id), now).await?;
            Ok(found.is_some().to_string())
        }
    });
    let server = Box::leak(Box::new(Server::start(web, app.wrap(to_server))));
    let cookie = server.raw("/run/add.user.ada", &[]).cookie();
    let handle = stored_under(&cookie);
    let is_stored = || server.raw(&format!("/stored/{handle}"), &[]).body;
    assert_eq!(is_stored(), "true");
    let out = server.with_cookie("/run/destroy", &cookie);
    assert!(out.cookie().ends_with('='), "{out:?}");
    assert_eq!(is_stored(), "false");
    let read = server.with_cookie("/run/get.user,len,flashes", &cookie);
    assert_eq!(read.body, "none,0,");
}

/// Returns the id under which a store has the session of this cookie.
fn stored_under(cookie: &str) -> StoreId {
    let (name, token) = cookie.split_once('=').unwrap();
    let id = URL_SAFE_NO_PAD.decode(token).unwrap();
    let mut stored = <[u8; 32]>::from(Sha256::digest(&id[..16]));
    for (byte, name) in stored.iter_mut().zip(Sha256::digest(name)) {
        *byte ^= name;
    }
    StoreId::from_bytes(stored)
}

/// CVE-2023-20862 (Spring Security): an emptied session must not come back.
pub fn cve_2023_20862_a_cleared_session_stays_empty<S: Store + Clone>(web: Web, store: &S) {
    let server = serve(web, store, &Gates::new(1), |builder| builder);
    for emptied in ["clear", "pop.user,flashes", "destroy", "clear,renew"] {
        let cookie = server.raw("/run/add.user.ada,flash.hello", &[]).cookie();
        let answer = server.with_cookie(&format!("/run/{emptied}"), &cookie);
        let read = |cookie: &str| server.with_cookie("/run/get.user,len,flashes", cookie).body;
        assert_eq!(read(&cookie), "none,0,", "{emptied}");
        if answer.set_cookie().is_some() {
            assert_eq!(read(&answer.cookie()), "none,0,", "{emptied}");
        }
    }
}

/// CVE-2022-25896 (Passport) and CVE-2024-38513 (Fiber): session fixation. For unknown, weak and ended ids,
/// and one that an attacker got from this site, a login gets a new id that the server made.
pub fn cve_2022_25896_an_id_made_elsewhere_is_not_adopted<S: Store + Clone>(web: Web, store: &S) {
    let server = serve(web, store, &Gates::new(1), |builder| builder);
    let dead = server.raw("/run/add.user.ada", &[]).cookie();
    server.with_cookie("/run/destroy", &dead);
    let attackers = server.raw("/run/add.cart.full", &[]).cookie();
    let weak = ["0", "1", "admin", "AAAA"].map(|weak| format!("_session={weak}"));
    let unknown = ["A", "B", "-", "_"].map(|letter| format!("_session={}", letter.repeat(64)));
    let mut made = HashSet::new();
    for planted in weak.iter().chain(&unknown).chain([&dead, &attackers]) {
        for login in ["/run/renew,add.user.eve", "/run/add.user.eve,renew"] {
            let new = server.with_cookie(login, planted).cookie();
            assert_ne!(&new, planted);
            assert!(made.insert(new.clone()), "each has its own: {planted}");
            assert_eq!(server.with_cookie("/run/get.user", &new).body, "eve");
            let old = server.with_cookie("/run/get.user,len", planted);
            assert_eq!(old.body, "none,0", "{planted}");
            server.with_cookie("/run/destroy", new);
        }
    }
}

/// CVE-2019-16782 (Rack): a store that looks up the cookie's value reveals by its timing how much of a guess
/// is right. Here the store receives hashes only.
pub fn cve_2019_16782_the_store_never_sees_the_cookies_secret<S: Store + Clone>(
    web: Web,
    store: &S,
) {
    let store = Counting::new(store.clone());
    let server = serve(web, &store, &Gates::new(1), |builder| builder);
    let cookie = server.raw("/run/add.user.ada", &[]).cookie();
    let renewed = server
        .with_cookie("/run/renew,count.visits", &cookie)
        .cookie();
    server.with_cookie("/run/destroy", &renewed);
    let seen = store.seen();
    assert!(seen.len() >= 5, "{} calls", seen.len());
    for cookie in [&cookie, &renewed] {
        let (_, token) = cookie.split_once('=').unwrap();
        let id = URL_SAFE_NO_PAD.decode(token).unwrap();
        let (root, secret) = id.split_at(16);
        for bytes in &seen {
            for part in [root, &secret[..16], &secret[16..], &token.as_bytes()[..16]] {
                assert!(!bytes.windows(16).any(|window| window == part));
            }
        }
    }
    let id = *stored_under(&cookie).as_bytes();
    assert!(
        seen.concat().windows(32).any(|window| *window == id),
        "the calls are recorded"
    );
}

/// GO-2024-2730 (gorilla's file store): a path as a cookie. A malformed id is refused before any store call.
pub fn go_2024_2730_a_malformed_id_never_reaches_the_store<S: Store + Clone>(web: Web, store: &S) {
    let store = Counting::new(store.clone());
    let manager = Manager::new(ServerSide::new(store.clone()));
    let app = App::new().wrap(manager.middleware());
    let server = Box::leak(Box::new(Server::start(web, app.clone())));
    for bad in [
        "short",
        "../../../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        &format!("../../../../etc/passwd-{}", "x".repeat(41)),
        &"../".repeat(30)[..64],
        &"A".repeat(63),
        &"A".repeat(65),
        &"A".repeat(86)[..85],
        &"A".repeat(100_000),
    ] {
        let answer = server.with_cookie("/run/len,destroy", format!("_session={bad}"));
        assert_eq!(store.calls(), 0, "{bad:.30}: {answer:?}");
    }
    // HTTP servers refuse these bytes, so that the manager is called directly.
    let megabyte = format!("_session={}", "A".repeat(1 << 20));
    let answer = block_on(app.call_with(web, "/run/len", &megabyte));
    assert_eq!((answer.status, &*answer.body), (200, "0"));
    assert_eq!(server.with_cookie("/run/len", b"_session=A\0B").status, 400);
    assert_eq!(store.calls(), 0);
}

/// CVE-2015-5143, CVE-2015-5963 and CVE-2015-5964 (Django): filling the store.
///
/// 10,000 requests in one framework and 1,000 in the other: the code that calls the store is shared, and
/// the store is the slow part.
pub fn cve_2015_5143_reading_requests_create_no_record<S: Store + Clone>(web: Web, store: &S) {
    let store = Counting::new(store.clone());
    let gates = Gates::new(1);
    let server = serve(web, &store, &gates, |builder| builder);
    let out = server.raw("/run/add.user.ada", &[]).cookie();
    server.with_cookie("/run/destroy", &out);
    store.calls();
    let share = if web == Web::Actix { 1 } else { 10 };
    let bogus = format!("_session={}", "A".repeat(64));
    let visitor = server.visitor();
    for _ in 0..4_000 / share {
        visitor.get("/run/get.user,flashes,clear,renew,destroy");
    }
    assert_eq!(store.calls(), 0, "anonymous requests ask the store nothing");
    for cookie in [&bogus, &out] {
        for _ in 0..3_000 / share {
            let answer = visitor.get_with("/run/get.user,flashes,clear,renew", cookie);
            assert_eq!(answer.body, "none,,done,done");
            assert_eq!(
                answer.set_cookie(),
                None,
                "an id that opens nothing is never confirmed"
            );
        }
        assert_eq!(
            store.calls(),
            3_000 / share,
            "each asks once, and writes nothing"
        );
    }
}

pub fn a_users_sessions_are_listed_and_ended<S: Store + Clone>(web: Web, store: &S) {
    let manager = Manager::new(ServerSide::new(store.clone()));
    let user = format!(
        "user-{}",
        std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()
    );
    let (name, of_all, of_others) = (user.clone(), manager.clone(), manager.clone());
    let (of_one, of_every) = (manager.clone(), manager.clone());
    let app = App::new()
        .get("/sign-in/{device}", move |session, device| {
            let user = name.clone();
            async move {
                session.renew();
                session.set_user(&user)?;
                session.set_note(&device)?;
                session.add("user", &user)?;
                Ok("in")
            }
        })
        .get_request("/list/{user}", move |_, user| {
            let manager = of_all.clone();
            async move {
                let sessions = manager.user_sessions(&user).await?;
                let mut notes: Vec<_> = sessions.into_iter().filter_map(|s| s.note).collect();
                notes.sort_unstable();
                Ok(notes.join("+"))
            }
        })
        .get_request("/end/{handle}", move |_, handle| {
            let manager = of_one.clone();
            async move {
                let (user, handle) = handle.split_once('.').unwrap();
                let ended = manager.destroy_user_session(user, handle).await?;
                Ok(ended.to_string())
            }
        })
        .get_request("/end-all/{user}", move |_, user| {
            let manager = of_every.clone();
            async move { Ok(manager.destroy_user_sessions(&user).await?.to_string()) }
        })
        .get("/others/{user}", move |session, user| {
            let manager = of_others.clone();
            async move {
                let ended = manager.destroy_other_user_sessions(&user, &session).await?;
                Ok(ended.to_string())
            }
        });
    let app = app.wrap(manager.middleware());
    let server = Box::leak(Box::new(Server::start(web, app)));
    let list = || server.raw(&format!("/list/{user}"), &[]).body;
    let devices = ["laptop", "phone", "tablet"];
    let mut cookies = devices.map(|device| server.raw(&format!("/sign-in/{device}"), &[]).cookie());
    assert_eq!(list(), "laptop+phone+tablet");
    let before = server.with_cookie("/run/handle,renew", &cookies[1]);
    cookies[1] = before.cookie();
    let after = server.with_cookie("/run/handle", &cookies[1]);
    assert_eq!(
        before.body,
        format!("{},done", after.body),
        "a renewed session keeps its handle"
    );
    assert_eq!(list(), "laptop+phone+tablet");
    assert_eq!(
        server
            .with_cookie(&format!("/others/{user}"), &cookies[1])
            .body,
        "2"
    );
    assert_eq!(list(), "phone");
    for (device, cookie) in devices.iter().zip(&cookies) {
        let expected = if *device == "phone" { "1" } else { "0" };
        assert_eq!(
            server.with_cookie("/run/len", cookie).body,
            expected,
            "{device}"
        );
    }
    server.with_cookie("/run/destroy", &cookies[1]);
    assert_eq!(list(), "");

    let mine = server.raw("/sign-in/mine", &[]).cookie();
    let theirs = server.raw(&format!("/run/user.other-{user},add.user.other"), &[]);
    let theirs = theirs.cookie();
    let handle = |cookie: &str| server.with_cookie("/run/handle", cookie).body;
    let end = |handle: &str| server.raw(&format!("/end/{user}.{handle}"), &[]).body;
    for foreign in [&*handle(&theirs), "", "none", &"0".repeat(64)] {
        assert_eq!(end(foreign), "false", "it is not the user's: {foreign}");
    }
    let read = server.with_cookie("/run/get.user", &theirs).body;
    assert_eq!(
        read, "other",
        "a user who names another's handle ends nothing"
    );
    let own = handle(&mine);
    assert_eq!((end(&own), end(&own)), ("true".into(), "false".into()));
    assert_eq!(server.with_cookie("/run/len", &mine).body, "0");

    let cookies = devices.map(|device| server.raw(&format!("/sign-in/{device}"), &[]).cookie());
    assert_eq!(server.raw(&format!("/end-all/{user}"), &[]).body, "3");
    for cookie in &cookies {
        assert_eq!(server.with_cookie("/run/len", cookie).body, "0");
    }
    assert_eq!(server.with_cookie("/run/get.user", &theirs).body, "other");
    assert_eq!(list(), "");
}

pub fn a_store_without_a_user_index_says_so<S: Store + Clone>(_: Web, store: &S) {
    let manager = Manager::new(ServerSide::new(store.clone()));
    let listed = block_on(manager.user_sessions("ada"));
    assert!(
        matches!(listed, Err(Error::NoUserIndex { .. })),
        "{listed:?}"
    );
}

pub fn ten_thousand_keys_and_almost_a_megabyte_are_stored<S: Store + Clone>(web: Web, store: &S) {
    let server = serve(web, store, &Gates::new(1), |builder| builder);
    let added = server.raw("/run/many.k.10000,fill.big.900000,deep.deep.127", &[]);
    assert_eq!(added.body, "null,null,null");
    let cookie = added.cookie();
    let read = server.with_cookie("/run/len,sum.k.10000,depth.deep", &cookie);
    assert_eq!(read.body, "10002,49995000,127");
    let written = server.with_cookie("/run/pop.k1,add.k2.0,fill.big.10", &cookie);
    assert_eq!(written.body, "1,null,null");
    let read = server.with_cookie("/run/len,get.k1,number.k2,get.big", &cookie);
    assert_eq!(read.body, "10001,none,0,xxxxxxxxxx");
    server.with_cookie("/run/destroy", &cookie);
}

pub fn a_session_expires_by_the_clock<S: Store + Clone>(web: Web, store: &S) {
    let minute = Duration::from_secs(60);
    let clock = Clock::default();
    let server = serve(web, store, &Gates::new(1), |builder| {
        builder
            .idle_timeout(20 * minute)
            .absolute_timeout(60 * minute)
            .clock(clock.now())
    });
    let idle = server.raw("/run/add.key.value", &[]).cookie();
    clock.forward(19 * minute);
    assert_eq!(
        server.with_cookie("/run/get.key", &idle).body,
        "value",
        "touched"
    );
    clock.forward(19 * minute);
    assert_eq!(
        server.with_cookie("/run/get.key", &idle).body,
        "value",
        "the touch was kept"
    );
    clock.forward(20 * minute);
    assert_eq!(
        server.with_cookie("/run/get.key", &idle).body,
        "none",
        "idle"
    );
    let busy = server.raw("/run/add.key.value", &[]).cookie();
    for _ in 0..3 {
        clock.forward(19 * minute);
        assert_eq!(server.with_cookie("/run/get.key", &busy).body, "value");
    }
    let strict = serve(web, store, &Gates::new(1), |builder| {
        builder.absolute_timeout(30 * minute).clock(clock.now())
    });
    let read = strict.with_cookie("/run/get.key", &busy);
    assert_eq!(
        read.body, "none",
        "a shorter absolute timeout ends old sessions at once"
    );
    clock.forward(3 * minute);
    assert_eq!(
        server.with_cookie("/run/get.key", &busy).body,
        "none",
        "absolute"
    );
}
