//! Sessions that actix-session keeps, and moving away from it.

mod cookie;

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use actix_session::{SessionExt, SessionStatus};
use actix_web::{HttpMessage, HttpRequest};
use serde_json::value::RawValue;

use crate::{
    backend::{Backend, Commit, Live, LiveSession, Opened, Opening, Reply, Written},
    changes::{Change, Changes},
    error::Error,
    expiry::Timestamp,
    future::BackendFuture,
    log::log,
    record::{Record, entries::Entries},
    value::Value,
};

pub use cookie::ActixSessionCookie;

/// Leaves sessions to actix-session: an application that mounts
/// [`actix_session::SessionMiddleware`] keeps it, with its store and its cookie, and library crates
/// reach that very session through [`manager::get`](crate::manager::get()).
///
/// ```no_run
/// use actix_session::{SessionMiddleware, storage::CookieSessionStore};
/// use actix_web::{App, HttpServer, cookie::Key};
/// use session_manager::{ActixSession, Manager, manager};
///
/// # #[actix_web::main]
/// # async fn main() -> std::io::Result<()> {
/// manager::set(Manager::new(ActixSession::new()));
/// let key = Key::generate();
/// HttpServer::new(move || {
///     App::new()
///         .wrap(manager::middleware()) // inside …
///         .wrap(SessionMiddleware::new(CookieSessionStore::default(), key.clone())) // … of this
/// })
/// .bind(("127.0.0.1", 7000))?
/// .run()
/// .await
/// # }
/// ```
///
/// During a request each sees at once what the other writes: values that the application inserts as
/// JSON, and this crate's, flash messages among them (under keys that begin with U+0001).
///
/// The settings of the manager's cookie and its timeouts mean nothing here: actix-session has its
/// own. What else is actix-session's, and what of it is mended:
///
/// | actix-session 0.11 | through this engine |
/// |---|---|
/// | `Session::update` changes a value and forgets to save it | saved, the application's own updates too |
/// | what is inserted after `purge` is dropped | after [`destroy`](crate::Session::destroy) it begins a new session under a new key |
/// | a server error keeps what the handler wrote | what was written through this crate is undone; ending the session sticks, a renewal too |
/// | of requests that overlap the later one writes the whole session back | the same: updates are lost, and a late write brings back what a logout ended |
/// | a session that outgrows its cookie is dropped by the browser in silence | the same |
/// | a store that is away lets requests wait | the same |
/// | not mounted, every session is empty | a log line, when what was written is lost |
///
/// Reads and writes from another thread than the request's work on the session as it was last seen
/// there, and are carried over at the end of the request.
#[derive(Clone, Copy, Debug, Default)]
pub struct ActixSession(());

impl ActixSession {
    /// The session of whatever `SessionMiddleware` the application mounts.
    pub const fn new() -> Self {
        Self(())
    }
}

impl Backend for ActixSession {
    fn engine(&self) -> &'static str {
        "actix-session"
    }

    fn can_move(&self) -> bool {
        false
    }

    fn open(
        self: Arc<Self>,
        request: Opening<'_>,
    ) -> BackendFuture<'static, Result<Opened, Error>> {
        let opened = match request.request.downcast_ref::<HttpRequest>() {
            Some(request) => Ok(Opened::Live(LiveSession(Arc::new(InHand::register(
                request,
            ))))),
            None => Err(Error::unavailable(NotActix)),
        };
        BackendFuture::ready(opened)
    }

    /// Never called: what is done is done at once.
    fn commit(self: Arc<Self>, _: Commit<'_>) -> BackendFuture<'static, Result<Reply, Error>> {
        BackendFuture::ready(Ok(Reply::Keep))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`ActixSession` reaches the sessions of actix-web alone: set another engine")]
struct NotActix;

thread_local! {
    /// The sessions of the requests that this thread serves: they cannot leave it, and a
    /// [`Session`](crate::Session) can.
    static SESSIONS: RefCell<HashMap<u64, Served>> = RefCell::default();
}

/// A session of actix-session during its request.
struct Served {
    session: actix_session::Session,
    /// What it held at first, by which a failed request is undone.
    before: HashMap<String, String>,
    /// The keys that were written through this crate.
    written: BTreeSet<String>,
    ended: bool,
    kept: bool,
    /// Whether a value was lost that no log line told of yet.
    has_lost: bool,
}

/// Names a session of this thread.
#[derive(Debug)]
struct InHand(u64);

impl InHand {
    fn register(request: &HttpRequest) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let session = request.get_session();
        let before = session.entries().clone();
        let served = Served {
            session,
            before,
            written: BTreeSet::new(),
            ended: false,
            kept: false,
            has_lost: false,
        };
        SESSIONS.with_borrow_mut(|sessions| sessions.insert(id, served));
        let mut extensions = request.extensions_mut();
        if let Some(registered) = extensions.get_mut::<Registered>() {
            registered.0.push(id);
        } else {
            extensions.insert(Registered(vec![id]));
        }
        Self(id)
    }
}

/// Lies in a request's extensions, and goes with it.
struct Registered(Vec<u64>);

impl Drop for Registered {
    fn drop(&mut self) {
        for id in &self.0 {
            // A thread that ends may have dropped its sessions first.
            let served = SESSIONS.try_with(|sessions| sessions.borrow_mut().remove(id));
            if let Ok(Some(served)) = served {
                served.check_taken();
            }
        }
    }
}

impl Live for InHand {
    fn read(&self) -> Option<Record> {
        SESSIONS.with_borrow(|sessions| {
            let entries = sessions.get(&self.0)?.session.entries();
            let entries: Entries = entries
                .iter()
                .map(|(key, json)| (key, value(json)))
                .collect();
            // actix-session alone knows when it began and when it ends.
            let unknown = Timestamp::from_millis(0);
            Some(Record::new(unknown, unknown, entries))
        })
    }

    fn write(&self, changes: &Changes) -> Written {
        SESSIONS.with_borrow_mut(|sessions| match sessions.get_mut(&self.0) {
            Some(served) => {
                served.write(changes);
                served.take_lost().map_or(Written::Done, Written::Lost)
            }
            None => Written::Later,
        })
    }

    fn end(&self, keep: bool) -> Option<&'static str> {
        SESSIONS.with_borrow_mut(|sessions| {
            let served = sessions.get_mut(&self.0)?;
            served.end(keep);
            served.take_lost()
        })
    }
}

impl Served {
    fn write(&mut self, changes: &Changes) {
        let session = &self.session;
        if changes.is_cleared() || changes.is_destroyed() {
            self.written.extend(session.entries().keys().cloned());
            // Ended when the request is over: nothing could be added to a session that was purged.
            session.clear();
            self.ended |= changes.is_destroyed();
        }
        if changes.is_renewed() {
            session.renew();
        }
        for (key, change) in changes.entries() {
            self.written.insert(key.to_owned());
            match change {
                Change::Set(value) => self.insert(key, &json(value.borrowed())),
                Change::Update(update) => self.insert(key, &json(update.seen().borrowed())),
                Change::Remove => drop(self.session.remove(key)),
            }
        }
    }

    /// Returns what is to be logged if a value was lost since the last call.
    fn take_lost(&mut self) -> Option<&'static str> {
        std::mem::take(&mut self.has_lost).then_some(
            "a value was added to an actix-session after the application purged it, and is lost: end \
             the session with `destroy` of session-manager",
        )
    }

    fn insert(&mut self, key: &str, json: &str) {
        let written = serde_json::from_str::<&RawValue>(json)
            .map_err(|_| ())
            .and_then(|json| self.session.insert(key, json).map_err(|_| ()));
        self.has_lost |= written.is_err() || self.session.status() == SessionStatus::Purged;
    }

    fn end(&mut self, keep: bool) {
        self.kept = keep && !self.written.is_empty();
        let is_empty = self.session.entries().is_empty();
        match (keep, self.ended) {
            (false, true) => self.session.purge(),
            (true, true) if is_empty => self.session.purge(),
            // A new key, and the old one is dead.
            (true, true) => self.session.renew(),
            (true, false) => self.save_updates(),
            (false, false) => self.undo(),
        }
    }

    /// `actix_session::Session::update` does not mark what it changed.
    fn save_updates(&mut self) {
        let updated = {
            let entries = self.session.entries();
            let mut entries = entries.iter();
            entries
                .find(|(key, json)| self.before.get(*key) != Some(json))
                .map(|(key, json)| (key.clone(), json.clone()))
        };
        if let Some((key, json)) = updated
            && self.session.status() == SessionStatus::Unchanged
        {
            self.insert(&key, &json);
        }
    }

    fn undo(&mut self) {
        for key in std::mem::take(&mut self.written) {
            match self.before.get(&key).cloned() {
                Some(json) => self.insert(&key, &json),
                None => drop(self.session.remove(&key)),
            }
        }
    }

    /// `SessionMiddleware` takes the values out when it saves them.
    fn check_taken(&self) {
        if self.kept && !self.session.entries().is_empty() {
            log!(
                ERROR,
                "what was written to an actix-session is lost, because nobody saved it: mount \
                 `actix_session::SessionMiddleware` around `session_manager::manager::middleware()`"
            );
        }
    }
}

/// A value of actix-session: every one is JSON.
fn value(json: &str) -> Value {
    let text = json.starts_with('"').then(|| serde_json::from_str(json));
    match text {
        Some(Ok(text)) => Value::Text(text),
        _ => Value::Json(json.into()),
    }
}

fn json(value: Value<&str>) -> String {
    match value {
        Value::Text(text) => serde_json::Value::from(text).to_string(),
        Value::Json(json) => json.to_owned(),
    }
}
