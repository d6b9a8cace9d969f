//! Watches everything that the process logs: no line may show a secret, in any test.
//!
//! The watch begins with the first key, server or client of a test binary. It receives every line of
//! `tracing` and of `log`, at every level. It knows every key that `key_of` makes, every cookie that the
//! clients send or receive, and what a store receives of it. Unit tests, documentation tests and test
//! binaries without a key, server or client are not watched. A line and a secret are compared whichever
//! comes first. A line that shows a secret aborts the process, because a panic on a server's thread would
//! not fail the test.

use std::{
    collections::{HashMap, HashSet},
    fmt::{self, Write as _},
    io::Write as _,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use session_manager::Key;
use sha2::{Digest, Sha256};
use tracing::{Event, Metadata, Subscriber, field, span};

/// The tests' own clients, which log the heads of HTTP messages with their cookies. They alone are not
/// watched; no server framework and no database client logs these.
const HEADS: [&str; 4] = ["cookie_store", "tungstenite", "ureq", "ureq_proto"];

/// The length of a part that counts as the secret: 16 bytes of text have at least 64 random bits.
const LEN: usize = 16;
type Piece = [u8; LEN];

#[derive(Default)]
struct Watch {
    /// Pieces of every secret, so that any 24 characters of a secret contain a whole piece.
    secrets: HashSet<Piece>,
    /// The cookies whose pieces are in `secrets`.
    known: HashSet<Vec<u8>>,
    /// Every text that was logged, once, with its target.
    texts: HashMap<String, String>,
    /// Every piece of `texts`.
    pieces: HashSet<Piece>,
    /// The lines since the first call of `Log::of_process`.
    lines: Vec<String>,
}

/// Whether a test reads the lines.
static IS_KEPT: AtomicBool = AtomicBool::new(false);

static WATCH: OnceLock<Option<Mutex<Watch>>> = OnceLock::new();

/// Begins the watch unless it has begun, and calls `f` with it. Returns `None` after `nobody_listens`.
fn with<R>(f: impl FnOnce(&mut Watch) -> R) -> Option<R> {
    let watch = WATCH.get_or_init(|| {
        tracing::subscriber::set_global_default(Listener::default()).unwrap();
        log::set_logger(&FACADE).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        Some(Mutex::default())
    });
    Some(f(&mut watch.as_ref()?.lock().unwrap()))
}

/// Begins the watch unless it has begun.
pub fn begin() {
    with(|_| ());
}

/// Turns the watch off in this process: for tests without a log subscriber, and for tests that measure
/// memory or requests per second.
pub fn nobody_listens() {
    let watch = WATCH.get_or_init(|| None);
    assert!(watch.is_none(), "somebody listens already");
}

impl Watch {
    /// Returns the secret that the text shows, if any.
    fn hear(&mut self, target: &str, text: &str) -> Option<Leak> {
        if text.len() < LEN || self.texts.contains_key(text) {
            return None;
        }
        let pieces = || text.as_bytes().windows(LEN).map(piece);
        let leak = pieces().find(|piece| self.secrets.contains(piece));
        self.pieces.extend(pieces());
        self.texts.insert(text.to_owned(), target.to_owned());
        leak.map(|piece| Leak::new(&piece, target, text))
    }

    /// Adds a secret. Returns the text that has shown a part of it already, if any.
    fn add(&mut self, secret: &[u8]) -> Option<Leak> {
        let last = secret.len().checked_sub(LEN)?;
        let mut leaked = None;
        for at in (0..last).step_by(LEN / 2).chain([last]) {
            let piece = piece(&secret[at..at + LEN]);
            if self.secrets.insert(piece) && self.pieces.contains(&piece) {
                leaked = Some(piece);
            }
        }
        let leaked = leaked?;
        let shows = |text: &str| text.as_bytes().windows(LEN).any(|all| all == leaked);
        let (text, target) = self.texts.iter().find(|(text, _)| shows(text))?;
        Some(Leak::new(&leaked, target, text))
    }

    /// Adds the forms in which these bytes may be printed. Their beginning is enough.
    fn add_bytes(&mut self, bytes: &[u8]) -> Option<Leak> {
        let bytes = bytes.get(..LEN)?;
        let list = format!("{bytes:?}");
        let forms = [&hex(bytes), &BASE64.encode(bytes), &list[1..]];
        let leaks = forms.map(|form| self.add(&form.as_bytes()[..LEN]));
        leaks.into_iter().flatten().next()
    }

    fn add_key(&mut self, secret: &[u8]) -> Option<Leak> {
        let leak = self.add(secret);
        leak.or(self.add_bytes(secret))
    }

    fn add_cookie(&mut self, value: &[u8]) -> Option<Leak> {
        if !self.known.insert(value.to_vec()) {
            return None;
        }
        let mut leak = self.add(value);
        let bytes = BASE64.decode(value).unwrap_or_default();
        leak = self.add_bytes(&bytes).or(leak);
        // Of a server-side session: its two parts, and the hash of each that its store receives.
        if let Some((root, secret)) = bytes.split_at_checked(16).filter(|_| bytes.len() == 48) {
            for part in [secret, &Sha256::digest(root), &Sha256::digest(secret)] {
                leak = self.add_bytes(part).or(leak);
            }
        }
        leak
    }
}

fn piece(bytes: &[u8]) -> Piece {
    bytes.try_into().unwrap()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// A text that shows a secret.
struct Leak(String);

impl Leak {
    fn new(piece: &Piece, target: &str, text: &str) -> Self {
        let piece = String::from_utf8_lossy(piece);
        Self(format!("`{piece}` is in what `{target}` says: {text}"))
    }
}

/// Ends the process if there is a leak: a panic would be caught by the server, and what it prints by
/// the test.
fn check(leak: Option<Leak>) {
    if let Some(Leak(leak)) = leak {
        let _ = writeln!(std::io::stderr(), "\nA SECRET IS IN THE LOG: {leak}\n");
        std::process::abort();
    }
}

/// Fails if `text` shows a secret that is known by now.
#[track_caller]
pub fn shows_nothing(what: &str, text: &str) {
    if let Some(Leak(leak)) = with(|watch| watch.hear(what, text)).flatten() {
        panic!("a secret is shown: {leak}");
    }
}

/// A key of this secret, which no log line may show.
pub fn key_of(secret: impl AsRef<[u8]>) -> Key {
    keep_secret(&secret);
    Key::from_secret(secret).unwrap()
}

/// No log line may show this: a key's secret, or a password.
pub fn keep_secret(secret: impl AsRef<[u8]>) {
    check(with(|watch| watch.add_key(secret.as_ref())).flatten());
}

/// No log line may show what this `Cookie` header holds, or this `Set-Cookie` header without its attributes.
pub fn keep_cookies(header: &[u8]) {
    for pair in header.split(|byte| *byte == b';') {
        let value = pair.splitn(2, |byte| *byte == b'=').nth(1);
        check(with(|watch| watch.add_cookie(value.unwrap_or_default())).flatten());
    }
}

/// All that the process logs, at every level.
#[derive(Clone, Copy)]
pub struct Log(());

impl Log {
    /// The log of this process, from the first call on. Tests that run side by side tell their lines
    /// apart by a cookie name of their own.
    pub fn of_process() -> Self {
        begin();
        IS_KEPT.store(true, Ordering::Relaxed);
        Self(())
    }

    pub fn text(self) -> String {
        let text = with(|watch| watch.lines.join("\n"));
        text.unwrap()
    }

    /// The lines of this crate that contain `part`.
    pub fn lines(self, part: &str) -> Vec<String> {
        let text = self.text();
        let own = text
            .lines()
            .filter(|line| line.contains(" session_manager"));
        own.filter(|line| line.contains(part))
            .map(str::to_owned)
            .collect()
    }
}

fn is_head(target: &str) -> bool {
    HEADS.contains(&target.split(':').next().unwrap_or_default())
}

/// What is said at one place: each of its values, and all of them in a line.
struct Heard {
    target: String,
    values: Vec<String>,
    line: Option<String>,
}

impl Heard {
    fn new(level: impl fmt::Display, target: &str) -> Self {
        Self {
            target: target.to_owned(),
            values: Vec::new(),
            line: IS_KEPT
                .load(Ordering::Relaxed)
                .then(|| format!("{level} {target}:")),
        }
    }

    fn add(&mut self, name: &str, value: String) {
        if let Some(line) = &mut self.line {
            let _ = match name {
                "message" => write!(line, " {value}"),
                name => write!(line, " {name}={value}"),
            };
        }
        self.values.push(value);
    }

    /// Nothing is formatted while the watch is held, because that may log.
    fn end(self) {
        for value in &self.values {
            check(with(|watch| watch.hear(&self.target, value)).flatten());
        }
        if let Some(line) = self.line {
            with(|watch| watch.lines.push(line));
        }
    }
}

impl field::Visit for Heard {
    fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
        self.add(field.name(), format!("{value:?}"));
    }

    // As it is: nothing in it is escaped.
    fn record_str(&mut self, field: &field::Field, value: &str) {
        self.add(field.name(), value.to_owned());
    }
}

#[derive(Default)]
struct Listener(AtomicU64);

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !is_head(metadata.target())
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut heard = Heard::new(metadata.level(), metadata.target());
        event.record(&mut heard);
        heard.end();
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        let mut heard = Heard::new("span", span.metadata().target());
        span.record(&mut heard);
        heard.end();
        span::Id::from_u64(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        let mut heard = Heard::new("span", "a span");
        values.record(&mut heard);
        heard.end();
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Facade;

static FACADE: Facade = Facade;

impl log::Log for Facade {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        !is_head(metadata.target())
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let mut heard = Heard::new(record.level(), record.target());
            heard.add("message", record.args().to_string());
            heard.end();
        }
    }

    fn flush(&self) {}
}
