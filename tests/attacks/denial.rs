//! Denial of service: forged cookies, and sessions that are too large, too deep or of too many keys.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::common::{
    App, Clock, Log, Server, Web, all_backends, backends, block_on, key_of, on_every_framework,
    server_side::Counting,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use session_manager::{
    Error, Key, Manager, MemoryStore, ServerSide, Session, SignedCookie, Timestamp,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn key(byte: u8) -> Key {
    key_of([byte; 32])
}

/// Servers of one site: they share a store that counts, and a clock.
struct Site {
    web: Web,
    store: Counting<MemoryStore>,
    clock: Clock,
}

impl Site {
    fn new(web: Web) -> Self {
        Self {
            web,
            store: Counting::new(MemoryStore::new()),
            clock: Clock::default(),
        }
    }

    fn serve(&self, backend: impl FnOnce(Backend) -> Backend) -> Server {
        self.serve_as("_session", backend)
    }

    fn serve_as(&self, cookie: &str, backend: impl FnOnce(Backend) -> Backend) -> Server {
        let builder = Manager::builder(backend(ServerSide::new(self.store.clone())));
        let builder = builder.cookie_name(cookie).clock(self.clock.now());
        Server::scripts(self.web, builder.build().unwrap().middleware())
    }

    /// The moment `span` from now.
    fn after(&self, span: Duration) -> Timestamp {
        let now = self.clock.now()().duration_since(std::time::UNIX_EPOCH);
        Timestamp::from_millis(now.unwrap().as_millis() as u64).plus(span)
    }
}

type Backend = ServerSide<Counting<MemoryStore>>;

fn value(cookie: &str) -> &str {
    cookie.split_once('=').unwrap().1
}

fn a_wrongly_signed_id_never_reaches_the_store(web: Web) {
    let log = Log::of_process();
    let site = Site::new(web);
    let name = format!("signed-ids-{web}");
    let server = site.serve_as(&name, |backend| backend.signed_with(key(1)).accept(key(2)));
    let cookie = server.raw("/run/add.key.value", &[]).cookie();
    assert_eq!(value(&cookie).len(), 86);
    assert_eq!(site.store.calls(), 1);
    assert_eq!(server.with_cookie("/run/get.key", &cookie).body, "value");
    assert_eq!(site.store.calls(), 1, "a right one is one look-up");

    let (id, tag) = value(&cookie).split_at(64);
    let tag: [u8; 16] = BASE64.decode(tag).unwrap().try_into().unwrap();
    let mut forged: Vec<String> = (0..128)
        .map(|bit| {
            let mut tag = tag;
            tag[bit / 8] ^= 1 << (bit % 8);
            format!("{id}{}", BASE64.encode(tag))
        })
        .collect();
    let other_id = if id.starts_with('A') { "B" } else { "A" };
    let other_site = Site::new(web);
    let stranger = |name, signer| {
        let server = other_site.serve_as(name, |backend| backend.signed_with(key(signer)));
        value(&server.raw("/run/add.key.value", &[]).cookie()).to_owned()
    };
    let of_signed_cookie = Manager::builder(SignedCookie::new(key(1))).cookie_name(&name);
    let of_signed_cookie = of_signed_cookie.build().unwrap().middleware();
    let of_signed_cookie = Server::scripts(web, of_signed_cookie).raw("/run/add.key.value", &[]);
    forged.extend([
        id.to_owned(),
        format!("{id}{}", "A".repeat(22)),
        format!("{other_id}{}{}", &id[1..], BASE64.encode(tag)),
        value(&cookie)[..85].to_owned(),
        format!("{}A", value(&cookie)),
        "A".repeat(86),
        "A".repeat(4096),
        stranger(&name, 3),
        stranger("another-name", 1),
        value(&of_signed_cookie.cookie()).to_owned(),
    ]);
    for forged in &forged {
        let answer = server.with_cookie("/run/get.key,len,clear,renew", format!("{name}={forged}"));
        assert_eq!(answer.body, "none,0,done,done", "{forged}");
        assert_eq!(answer.set_cookie(), None, "{forged}");
        assert_eq!(site.store.calls(), 0, "{forged}");
    }
    let lines = log.lines(&format!("`{name}`"));
    assert_eq!(lines.len(), forged.len(), "{lines:#?}");
    assert!(!lines.concat().contains(id), "a log line shows a cookie");
    assert_eq!(server.with_cookie("/run/get.key", &cookie).body, "value");
}

fn a_write_after_a_forged_cookie_gets_a_new_signed_id(web: Web) {
    let site = Site::new(web);
    let server = site.serve(|backend| backend.signed_with(key(1)));
    let planted = format!("_session={}", "A".repeat(86));
    let login = server
        .with_cookie("/run/renew,add.user.ada", &planted)
        .cookie();
    assert_ne!(value(&login)[..64], value(&planted)[..64]);
    assert_eq!(server.with_cookie("/run/get.user", &login).body, "ada");
    let renewed = server.with_cookie("/run/renew", &login).cookie();
    assert_eq!(value(&renewed).len(), 86);
    assert_eq!(server.with_cookie("/run/get.user", &renewed).body, "ada");
    assert_eq!(server.with_cookie("/run/get.user", &login).body, "none");
    site.store.calls();
    let handle = server.with_cookie("/run/handle", &renewed).body;
    assert_eq!(handle.len(), 64, "{handle}");
    assert!(
        server
            .with_cookie("/run/destroy", &renewed)
            .cookie()
            .ends_with('=')
    );
    assert_eq!(server.with_cookie("/run/len", &renewed).body, "0");
}

/// The next write or touch signs with the new key; reading writes nothing.
fn check_signed_anew(site: &Site, server: &Server, old: &str) -> String {
    let read = server.with_cookie("/run/get.key", old);
    assert_eq!((&*read.body, read.set_cookie()), ("value", None));
    let written = server.with_cookie("/run/add.more.1", old).cookie();
    assert_ne!(written, old);
    assert_eq!(value(&written)[..64], value(old)[..64], "the id stays");
    let again = server.with_cookie("/run/add.more.2", &written);
    assert_eq!(again.set_cookie(), None, "once is enough");
    site.clock.forward(DAY / 20);
    let touched = server.with_cookie("/run/get.key", old).cookie();
    assert_eq!(touched, written, "a touch does as well");
    written
}

fn rotating_keys_logs_no_user_out_and_signs_with_the_new_key(web: Web) {
    let site = Site::new(web);
    let before = site.serve(|backend| backend.signed_with(key(1)));
    let during = site.serve(|backend| backend.accept(key(1)).signed_with(key(2)));
    let after = site.serve(|backend| backend.signed_with(key(2)));
    let old = before.raw("/run/add.key.value", &[]).cookie();
    let new = check_signed_anew(&site, &during, &old);
    assert_eq!(after.with_cookie("/run/get.key", &new).body, "value");
    site.store.calls();
    assert_eq!(after.with_cookie("/run/get.key", &old).body, "none");
    assert_eq!(before.with_cookie("/run/get.key", &new).body, "none");
    assert_eq!(site.store.calls(), 0);
}

fn a_site_begins_to_sign_ids_without_logging_users_out(web: Web) {
    let site = Site::new(web);
    let week = 7 * DAY;
    let last = site.after(week);
    let before = site.serve(|backend| backend);
    let during = site.serve(|backend| backend.signed_with(key(1)).accept_unsigned_until(last));
    let old = before.raw("/run/add.key.value", &[]).cookie();
    assert_eq!(value(&old).len(), 64);
    let new = check_signed_anew(&site, &during, &old);
    assert_eq!(value(&new).len(), 86);
    // Servers that are not updated yet, or went back.
    assert_eq!(before.with_cookie("/run/get.key", &new).body, "value");
    let back = before.with_cookie("/run/renew", &new).cookie();
    assert_eq!(during.with_cookie("/run/get.key", &back).body, "value");

    // A client that visits every day for a week, and a client that keeps its unsigned cookie.
    let mut visiting = during.with_cookie("/run/renew", &back).cookie();
    let kept = before.raw("/run/add.key.value", &[]).cookie();
    for _ in 0..6 {
        site.clock.forward(DAY - Duration::from_secs(60));
        let answer = during.with_cookie("/run/get.key", &visiting);
        assert_eq!(answer.body, "value");
        visiting = answer.set_cookie().map_or(visiting, |_| answer.cookie());
        assert_eq!(during.with_cookie("/run/get.key", &kept).body, "value");
    }
    site.clock.forward(DAY);
    site.store.calls();
    assert_eq!(during.with_cookie("/run/get.key", &kept).body, "none");
    assert_eq!(
        site.store.calls(),
        0,
        "unsigned ids are refused after that time"
    );
}

fn a_value_nested_too_deeply_is_refused(web: Web) {
    for (backend, builder) in all_backends() {
        let server = Server::scripts(web, builder().build().unwrap().middleware());
        let cookie = server.raw("/run/add.key.old", &[]).cookie();
        for deep in [128, 129, 1_000_000_000] {
            let answer = server.with_cookie(&format!("/run/deep.key.{deep},get.key"), &cookie);
            assert_eq!(answer.body, "unserializable,old", "{backend}: {deep}");
            assert_eq!(answer.set_cookie(), None, "{backend}: {deep}");
        }
        let written = server.with_cookie("/run/deep.key.127,depth.key", &cookie);
        assert_eq!(written.body, "null,127", "{backend}");
        let cookie = written.set_cookie().map_or(cookie, |_| written.cookie());
        let read = server.with_cookie("/run/depth.key", &cookie);
        assert_eq!(read.body, "127", "{backend}");
    }
}

fn a_write_over_the_size_limit_is_refused(web: Web) {
    let over = "/run/fill.key.1000000,flash.more,get.key,get.other";
    for (backend, builder) in backends() {
        let server = Server::scripts(web, builder().build().unwrap().middleware());
        let cookie = server.raw("/run/add.key.value,add.other.1", &[]).cookie();
        let answer = server.with_cookie(over, &cookie);
        let rest = answer.body.strip_prefix("too large 13").unwrap();
        assert!(rest.ends_with(" of 4096,null,value,1"), "{backend}: {rest}");
        let answer = server.with_cookie("/run/many.k.10000,get.key,get.other", &cookie);
        assert!(
            answer.body.starts_with("too large 4"),
            "{backend}: {answer:?}"
        );
        assert!(
            answer.body.ends_with(" of 4096,value,1"),
            "{backend}: {answer:?}"
        );
    }

    let site = Site::new(web);
    let server = site.serve(|backend| backend);
    let cookie = server.raw("/run/add.key.value,add.other.1", &[]).cookie();
    let answer = server.with_cookie(over, &cookie);
    assert_eq!(
        answer.body.len(),
        1_000_000 + "null,null,,1".len(),
        "a megabyte fits"
    );
    assert_eq!(
        server.with_cookie("/run/get.key", &cookie).body.len(),
        1_000_000
    );
    let answer = server.with_cookie("/run/fill.more.100000,flash.x,get.more,get.other", &cookie);
    assert!(answer.body.starts_with("too large 11"), "{}", answer.body);
    assert!(
        answer.body.ends_with(" of 1048576,null,none,1"),
        "{}",
        answer.body
    );
    let answer = server.with_cookie("/run/add.key.short,fill.more.100000,get.key", &cookie);
    assert_eq!(
        answer.body, "null,null,short",
        "what is replaced makes room"
    );
    assert_eq!(server.with_cookie("/run/len", &cookie).body, "3");

    // To the byte: keys count as well.
    let limited = site.serve(|backend| backend.max_size(1_000));
    let answer = limited.raw("/run/fill.key.997,fill.key.998,get.key", &[]);
    let (errors, value) = answer.body.rsplit_once(',').unwrap();
    assert_eq!(errors, "null,too large 1001 of 1000");
    assert_eq!(value.len(), 997);
    // 10 keys of 2 + 1 bytes, 90 of 3 + 2, and then 6 bytes for each.
    let answer = limited.raw(
        "/run/many.k.10000,len,add.k.1,get.k186,get.k187,fill.l.3",
        &[],
    );
    let kept = (1_000 - 10 * 3 - 90 * 5) / 7;
    assert_eq!(kept, 74);
    assert_eq!(
        answer.body,
        "too large 1005 of 1000,174,null,none,none,too large 1004 of 1000"
    );
    // However many there are, and whatever becomes of them.
    let many = site.serve(|backend| backend.max_size(2_000));
    let cookie_of_many = many.raw("/run/many.k.100", &[]).cookie();
    let mut size = 10 * 3 + 90 * 5;
    for (change, more) in [
        ("fill.k5.501", 500),
        ("pop.k6,pop.k77", -3 - 5),
        ("fill.new.7", 3 + 7),
        ("fill.k5.1", -500),
        ("clear,add.key.value", 8 - 482),
    ] {
        let seen = many.with_cookie(&format!("/run/{change},size"), &cookie_of_many);
        size += more;
        assert!(
            seen.body.ends_with(&format!(",{size}")),
            "{change}: {}",
            seen.body
        );
        let kept = many.with_cookie("/run/size", &cookie_of_many).body;
        assert_eq!(kept, size.to_string(), "{change}");
    }
    // What was larger before is read and taken out, and nothing is added meanwhile.
    let read = limited.with_cookie("/run/get.other,add.new.1,len,pop.more,add.new.1", &cookie);
    assert!(read.body.starts_with("1,too large 1000"), "{}", read.body);
    assert!(read.body.ends_with(",null"), "{}", read.body);
    assert_eq!(limited.with_cookie("/run/get.new", &cookie).body, "1");
}

fn the_size_limit_counts_what_other_requests_wrote(web: Web) {
    let (send, receive) = std::sync::mpsc::channel::<Session>();
    let manager = Manager::new(ServerSide::new(MemoryStore::new()));
    let app = App::new().get("/keep", move |session, _| {
        session.add("mine", 1).unwrap();
        send.send(session).unwrap();
        async { Ok("kept") }
    });
    let server = Server::start(web, app.wrap(manager.middleware()));
    let cookie = server.raw("/run/add.user.ada", &[]).cookie();
    server.with_cookie("/keep", &cookie);
    let session = receive.recv().unwrap();
    server.with_cookie("/run/fill.theirs.1000000", &cookie);
    block_on(session.revalidate()).unwrap();
    let added = session.add("mine", "x".repeat(100_000));
    assert!(matches!(added, Err(Error::TooLarge { .. })), "{added:?}");
    assert_eq!(session.get("mine").as_deref(), Some("1"));
}

/// What each step of a session of so many keys takes.
fn steps(web: Web, manager: &Manager, count: usize) -> Vec<(&'static str, Duration)> {
    type Step = fn(&Session, usize) -> Result<(), Error>;
    fn name(n: usize) -> String {
        format!("key{n}")
    }
    let all: [(&str, Step); 7] = [
        ("add", |session, count| {
            (0..count).try_for_each(|n| session.add(&name(n), n))
        }),
        ("load", |session, count| {
            (0..count).try_for_each(|n| {
                assert_eq!(session.load(&name(n))?, Some(n));
                Ok(())
            })
        }),
        ("replace", |session, count| {
            (0..count).try_for_each(|n| session.add(&name(n), n + 1))
        }),
        ("update", |session, count| {
            (0..count).try_for_each(|n| {
                session
                    .update(&name(n), |n: Option<usize>| n.unwrap() - 1)
                    .map(drop)
            })
        }),
        ("pop", |session, count| {
            (0..count).for_each(|n| assert_eq!(session.pop(&name(n)), Some(n.to_string())));
            Ok(())
        }),
        ("flash", |session, count| {
            (0..count).try_for_each(|n| session.flash(n.to_string()))?;
            assert_eq!(session.flashes().len(), Session::MAX_FLASHES);
            (0..count).try_for_each(|n| session.flash(n.to_string()))
        }),
        ("overflow", |session, count| {
            session.destroy();
            session.add("full", "x".repeat((1 << 20) - 100))?;
            (0..count).for_each(|n| assert!(session.add(&name(n), "x".repeat(200)).is_err()));
            Ok(())
        }),
    ];
    let app = App::new().get("/{step}", move |session, path| {
        let (step, count) = path.split_once('.').unwrap();
        let (step, count): (usize, usize) = (step.parse().unwrap(), count.parse().unwrap());
        async move {
            let begun = Instant::now();
            all[step].1(&session, count)?;
            Ok(begun.elapsed().as_nanos().to_string())
        }
    });
    let server = Server::start(web, app.wrap(manager.middleware()));
    let mut cookie = String::new();
    let step = |(number, (name, _)): (usize, &(&'static str, Step))| {
        let answer = server.with_cookie(&format!("/{number}.{count}"), &cookie);
        if answer.set_cookie().is_some() {
            cookie = answer.cookie();
        }
        (*name, Duration::from_nanos(answer.body.parse().unwrap()))
    };
    all.iter().enumerate().map(step).collect()
}

/// Ten times the keys take about ten times as long; they would take a hundred times if every key were
/// compared with every other. A busy machine gets more tries.
fn check_that_time_follows_the_number_of_keys(web: Web, manager: &Manager) {
    let mut ratios = HashMap::new();
    for _ in 0..8 {
        let few = steps(web, manager, 1_000);
        for ((step, few), (_, many)) in few.into_iter().zip(steps(web, manager, 10_000)) {
            let ratio = many.as_secs_f64() / few.as_secs_f64();
            let least = ratios.entry(step).or_insert(ratio);
            *least = least.min(ratio);
        }
        if ratios.values().all(|ratio| *ratio < 30.0) {
            return;
        }
    }
    panic!("{}, times as long: {ratios:#?}", manager.backend_name());
}

/// Nothing of it depends on the framework.
#[test]
fn ten_thousand_keys_take_ten_times_as_long_as_a_thousand() {
    let web = Web::Actix;
    let manager = Manager::new(ServerSide::new(MemoryStore::new()));
    check_that_time_follows_the_number_of_keys(web, &manager);
    // Its records come as text, as from any store over a wire.
    #[cfg(feature = "tower-sessions")]
    {
        let theirs = tower_sessions_memory_store::MemoryStore::default();
        let store = session_manager::TowerStore::new(theirs);
        check_that_time_follows_the_number_of_keys(web, &Manager::new(ServerSide::new(store)));
    }
}

on_every_framework!(
    a_value_nested_too_deeply_is_refused,
    a_write_over_the_size_limit_is_refused,
    the_size_limit_counts_what_other_requests_wrote,
    a_wrongly_signed_id_never_reaches_the_store,
    a_write_after_a_forged_cookie_gets_a_new_signed_id,
    rotating_keys_logs_no_user_out_and_signs_with_the_new_key,
    a_site_begins_to_sign_ids_without_logging_users_out,
);
