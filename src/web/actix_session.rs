//! Sessions kept by actix-session, and migrating from it.

mod cookie;
mod middleware;
#[cfg(feature = "server-side")]
mod store;

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
    backend::{
        Backend, Commit, CommitOutcome, Live, LiveSession, OpenOutcome, OpenRequest, Written,
    },
    changes::{Change, Changes},
    error::Error,
    expiry::Timestamp,
    future::BackendFuture,
    log::log,
    record::{Record, entries::Entries},
    value::Value,
};

pub use cookie::ActixSessionCookie;
pub use middleware::{ActixSessions, ActixSessionsFuture, ActixSessionsService};
#[cfg(feature = "server-side")]
pub use store::StoreForActixSession;

/// Uses the sessions of actix-session. The application keeps its
/// [`actix_session::SessionMiddleware`], store and cookie, and library crates reach the same
/// session through [`manager::get`](crate::manager::get()).
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
/// During a request, the application's values (as JSON) and this crate's values are visible to both
/// at once. Flash messages are stored under keys that begin with U+0001.
///
/// The manager's cookie settings and timeouts do not apply: actix-session has its own. Some limits
/// of actix-session remain, others are fixed:
///
/// | actix-session 0.11 | through this backend |
/// |---|---|
/// | `Session::update` changes a value but does not save it | saved, including the application's own updates |
/// | values inserted after `purge` are dropped | after [`destroy`](crate::Session::destroy) they start a new session under a new key |
/// | a server error keeps the handler's writes | writes through this crate are undone; destroying and renewing the session are kept |
/// | of overlapping requests, the later one overwrites the whole session | the same: updates are lost, and a late write restores a session after a logout |
/// | the browser silently drops a session that is too large for its cookie | the same |
/// | requests wait while the store is unavailable | the same |
/// | without the middleware, every session is empty | the same, and lost writes are logged |
///
/// A thread other than the request's reads and writes the session's last known state; the end of
/// the request applies its writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ActixSession(());

impl ActixSession {
    /// Creates a backend for the session of the application's `SessionMiddleware`.
    pub const fn new() -> Self {
        Self(())
    }
}

impl Backend for ActixSession {
    fn name(&self) -> &'static str {
        "actix-session"
    }

    fn can_move(&self) -> bool {
        false
    }

    fn open(
        self: Arc<Self>,
        request: OpenRequest<'_>,
    ) -> BackendFuture<'static, Result<OpenOutcome, Error>> {
        let opened = match request.request.downcast_ref::<HttpRequest>() {
            Some(request) => Ok(OpenOutcome::Live(LiveSession(Arc::new(InHand::register(
                request,
            ))))),
            None => Err(Error::unavailable(NotActix)),
        };
        BackendFuture::ready(opened)
    }

    /// Never called, because changes are applied at once.
    fn commit(
        self: Arc<Self>,
        _: Commit<'_>,
    ) -> BackendFuture<'static, Result<CommitOutcome, Error>> {
        BackendFuture::ready(Ok(CommitOutcome::Keep))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`ActixSession` works with actix-web requests only: set a manager with another backend")]
struct NotActix;

thread_local! {
    /// The sessions of the requests that this thread serves. They are not `Send`, but a
    /// [`Session`](crate::Session) is.
    static SESSIONS: RefCell<HashMap<u64, Served>> = RefCell::default();
}

/// An actix-session session during its request.
struct Served {
    session: actix_session::Session,
    /// The values at the start, to undo a failed request.
    before: HashMap<String, String>,
    /// The keys written through this crate.
    written: BTreeSet<String>,
    ended: bool,
    kept: bool,
    /// Whether a value was lost that no log line told of yet.
    has_lost: bool,
}

/// The id of a session in this thread's [`SESSIONS`].
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

/// Removes the sessions of a request when its extensions are dropped.
struct Registered(Vec<u64>);

impl Drop for Registered {
    fn drop(&mut self) {
        for id in &self.0 {
            // An ending thread may have dropped its sessions before.
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
            // Only actix-session knows when the session began and when it expires.
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
            // Purged only at the end of the request, because a purged session accepts no values.
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
                Change::Update(update) => self.insert(key, &json(update.result().borrowed())),
                Change::Remove => drop(self.session.remove(key)),
            }
        }
    }

    /// Returns what is to be logged if a value was lost since the last call.
    fn take_lost(&mut self) -> Option<&'static str> {
        std::mem::take(&mut self.has_lost).then_some(
            "a value was lost because it was added after the application purged the actix-session: end \
             the session with session-manager's `Session::destroy` instead of `purge`",
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
            // The session gets a new key; the old one becomes invalid.
            (true, true) => self.session.renew(),
            (true, false) => self.save_updates(),
            (false, false) => self.undo(),
        }
    }

    /// Marks the session as changed, because `actix_session::Session::update` does not.
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

    /// Logs lost writes: `SessionMiddleware` takes the values out when it saves them.
    fn check_taken(&self) {
        if self.kept && !self.session.entries().is_empty() {
            log!(
                ERROR,
                "the writes to an actix-session were lost because no middleware saved them: mount \
                 `actix_session::SessionMiddleware` around `session_manager::manager::middleware()`"
            );
        }
    }
}

/// Converts a value of actix-session, which stores every value as JSON.
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
