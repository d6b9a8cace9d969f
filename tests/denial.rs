//! What somebody who means harm can make an application pay: cookies that they made up, sessions that
//! are too large, too deep or of too many keys.
#![cfg(all(
    feature = "actix",
    feature = "axum",
    feature = "cookies",
    feature = "memory"
))]

mod common;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use common::{Clock, Log, Server, Web, on_every_framework, server_side::Counting};
use session_manager::{Key, Manager, MemoryStore, ServerSide, SignedCookie, Timestamp};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn key(byte: u8) -> Key {
    Key::from_secret([byte; 32]).unwrap()
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

    fn serve(&self, engine: impl FnOnce(Engine) -> Engine) -> Server {
        self.serve_as("_session", engine)
    }

    fn serve_as(&self, cookie: &str, engine: impl FnOnce(Engine) -> Engine) -> Server {
        let builder = Manager::builder(engine(ServerSide::new(self.store.clone())));
        let builder = builder.cookie_name(cookie).clock(self.clock.now());
        Server::scripts(self.web, builder.build().unwrap().middleware())
    }

    /// The moment `span` from now.
    fn after(&self, span: Duration) -> Timestamp {
        let now = self.clock.now()().duration_since(std::time::UNIX_EPOCH);
        Timestamp::from_millis(now.unwrap().as_millis() as u64).plus(span)
    }
}

type Engine = ServerSide<Counting<MemoryStore>>;

fn value(cookie: &str) -> &str {
    cookie.split_once('=').unwrap().1
}

fn a_cookie_without_a_right_signature_asks_the_store_nothing_and_is_one_log_line(web: Web) {
    let log = Log::of_process();
    let site = Site::new(web);
    let name = format!("signed-ids-{web}");
    let server = site.serve_as(&name, |engine| engine.signed_with(key(1)).accept(key(2)));
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
        let server = other_site.serve_as(name, |engine| engine.signed_with(key(signer)));
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

fn what_a_made_up_cookie_is_followed_by_is_signed_and_new(web: Web) {
    let site = Site::new(web);
    let server = site.serve(|engine| engine.signed_with(key(1)));
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

/// The next write or touch signs anew; reading alone writes nothing.
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

fn a_new_key_logs_nobody_out_and_signs_what_is_written_next(web: Web) {
    let site = Site::new(web);
    let before = site.serve(|engine| engine.signed_with(key(1)));
    let during = site.serve(|engine| engine.accept(key(1)).signed_with(key(2)));
    let after = site.serve(|engine| engine.signed_with(key(2)));
    let old = before.raw("/run/add.key.value", &[]).cookie();
    let new = check_signed_anew(&site, &during, &old);
    assert_eq!(after.with_cookie("/run/get.key", &new).body, "value");
    site.store.calls();
    assert_eq!(after.with_cookie("/run/get.key", &old).body, "none");
    assert_eq!(before.with_cookie("/run/get.key", &new).body, "none");
    assert_eq!(site.store.calls(), 0);
}

fn a_site_begins_to_sign_without_logging_anybody_out_and_the_door_closes(web: Web) {
    let site = Site::new(web);
    let week = 7 * DAY;
    let last = site.after(week);
    let before = site.serve(|engine| engine);
    let during = site.serve(|engine| engine.signed_with(key(1)).accept_unsigned_until(last));
    let old = before.raw("/run/add.key.value", &[]).cookie();
    assert_eq!(value(&old).len(), 64);
    let new = check_signed_anew(&site, &during, &old);
    assert_eq!(value(&new).len(), 86);
    // Servers that are not updated yet, or went back.
    assert_eq!(before.with_cookie("/run/get.key", &new).body, "value");
    let back = before.with_cookie("/run/renew", &new).cookie();
    assert_eq!(during.with_cookie("/run/get.key", &back).body, "value");

    // Somebody who comes every day for a week, and somebody who keeps the cookie without a signature.
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
    assert_eq!(site.store.calls(), 0, "the door is closed by itself");
}

on_every_framework!(
    a_cookie_without_a_right_signature_asks_the_store_nothing_and_is_one_log_line,
    what_a_made_up_cookie_is_followed_by_is_signed_and_new,
    a_new_key_logs_nobody_out_and_signs_what_is_written_next,
    a_site_begins_to_sign_without_logging_anybody_out_and_the_door_closes,
);
