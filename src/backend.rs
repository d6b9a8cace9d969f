//! What a session backend does: open and commit.

use std::{any::Any, fmt, sync::Arc};

use self::migration::Origin;
pub use self::migration::{Adopt, Claim, Migrating, Migration};
use crate::{
    changes::write::Write,
    cookie::Tokens,
    error::Error,
    expiry::{Lifetime, Timestamp},
    observer::{Event, Refusal},
    record::{
        Record,
        id::{StoreId, Verifier},
    },
    store::UserIndex,
    value::Value,
};
pub use crate::{
    changes::{Change, Changes, Update, View},
    expiry::Expiry,
    future::BackendFuture,
    observer::Observers,
    settings::Settings,
};

#[cfg(feature = "cookies")]
pub(crate) mod cookie_format;
pub(crate) mod migration;
pub(crate) mod missing;
#[cfg(feature = "cookies")]
pub(crate) mod private_cookie;
#[cfg(feature = "server-side")]
pub(crate) mod revocable;
#[cfg(feature = "server-side")]
pub(crate) mod server_side;
#[cfg(feature = "server-side")]
mod session_id;
#[cfg(feature = "cookies")]
pub(crate) mod signed_cookie;
#[cfg(any(
    feature = "cookies",
    all(feature = "actix-session", feature = "server-side")
))]
pub(crate) mod successor;

/// A session backend: where sessions live between two requests.
///
/// A [`Manager`](crate::Manager) holds one and asks it twice for each request at most:
/// [`open`](Self::open) before the handler runs, [`commit`](Self::commit) before the response head
/// is sent. Reading, writing, flash messages and timeouts are not its business.
///
/// Both methods see the request while they are called; the future that they return owns what it
/// needs, so that one backend serves frameworks whose requests are not `Send` (actix-web) and
/// frameworks whose futures must be (tower).
///
/// A session is locked while its backend is called, so none of the methods may use the session or
/// log; the future that a method returns may do both.
///
/// A backend around another one, which counts the sessions that are opened:
///
/// ```
/// # #[cfg(feature = "cookies")] {
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
/// use session_manager::{Backend, Error, Key, Manager, SignedCookie};
/// use session_manager::backend::{BackendFuture, Commit, OpenOutcome, OpenRequest, CommitOutcome};
///
/// struct Counted<B> { inner: Arc<B>, opened: AtomicU64 }
///
/// impl<B: Backend> Backend for Counted<B> {
///     fn name(&self) -> &'static str {
///         self.inner.name()
///     }
///
///     fn opens_at_once(&self) -> bool {
///         self.inner.opens_at_once()
///     }
///
///     fn open(self: Arc<Self>, request: OpenRequest<'_>) -> BackendFuture<'static, Result<OpenOutcome, Error>> {
///         self.opened.fetch_add(1, Ordering::Relaxed);
///         Arc::clone(&self.inner).open(request)
///     }
///
///     fn commit(self: Arc<Self>, commit: Commit<'_>) -> BackendFuture<'static, Result<CommitOutcome, Error>> {
///         Arc::clone(&self.inner).commit(commit)
///     }
/// }
///
/// let inner = Arc::new(SignedCookie::new(Key::generate()));
/// let manager = Manager::new(Counted { inner, opened: AtomicU64::new(0) });
/// # }
/// ```
pub trait Backend: Send + Sync + 'static {
    /// Returns the name of the backend for people, such as `signed cookie`.
    fn name(&self) -> &'static str;

    /// Returns `true` if a commit reaches the client only with the head of a response, so that a
    /// write after that is [`Error::HeadSent`]. The default is `true`.
    fn needs_response(&self) -> bool {
        true
    }

    /// Returns `true` if [`open`](Self::open) never waits: a cookie holds the session itself, and a
    /// store in this process's memory answers at once. It is then called when the handler asks for
    /// the session ([`needs_response`](Self::needs_response): when the handler first reads or writes
    /// it), without the framework's request, and its future must be ready at the first poll. A
    /// request that does not ask costs next to nothing (bench `overhead`, rows "no cookie" and
    /// "cookie, untouched"). The default is `false`.
    fn opens_at_once(&self) -> bool {
        false
    }

    /// Returns `true` if its sessions can migrate to another backend, and another's to it
    /// ([`Builder::migrate_from`](crate::Builder::migrate_from)). Not so where other code keeps
    /// them ([`OpenOutcome::Live`]). The default is `true`.
    fn can_move(&self) -> bool {
        true
    }

    /// Returns `true` if a session that was destroyed has to be ended even if no response reaches
    /// the client, because a record of it is kept. The default is the opposite of
    /// [`needs_response`](Self::needs_response).
    fn keeps_records(&self) -> bool {
        !self.needs_response()
    }

    /// Returns what [`Builder::migrate_from`](crate::Builder::migrate_from) needs to keep its
    /// promises to and from this backend.
    ///
    /// The default is `None`: sessions still migrate, but requests that overlap the migration may
    /// each make a session, and one that was under way may bring back what a log-out ended.
    fn migration(self: Arc<Self>) -> Option<Arc<dyn Migration>> {
        None
    }

    /// Opens the session that the request names.
    ///
    /// A name that is unknown, expired, forged or malformed is [`OpenOutcome::Nothing`] or
    /// [`OpenOutcome::Refused`], not an error.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if the backend cannot tell. The session is then never committed.
    fn open(
        self: Arc<Self>,
        request: OpenRequest<'_>,
    ) -> BackendFuture<'static, Result<OpenOutcome, Error>>;

    /// Opens the session as [`open`](Self::open) does, without a future; `None` if that takes one.
    /// Asked if [`opens_at_once`](Self::opens_at_once), and saves counting a reference on the
    /// backend, which all threads would write to (bench `two_threads`). The default is `None`.
    fn open_now(&self, request: OpenRequest<'_>) -> Option<Result<OpenOutcome, Error>> {
        let _ = request;
        None
    }

    /// Returns how many bytes a session would take, and the backend's limit; `None` if that is not
    /// bounded. A write that would go over the limit is refused where it is made.
    fn size(&self, session: View<'_>, settings: &Settings) -> Option<Size> {
        let _ = (session, settings);
        None
    }

    /// Keeps what the request did to the session, and says what becomes of its cookie.
    ///
    /// Called if the request changed something or a touch is due, and not otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if the backend could not keep it; the client then gets an error in
    /// place of a response that claims it was.
    fn commit(
        self: Arc<Self>,
        commit: Commit<'_>,
    ) -> BackendFuture<'static, Result<CommitOutcome, Error>>;

    /// Commits as [`commit`](Self::commit) does, without a future; `None` if that takes one, and if
    /// nothing was kept so far. Asked first, to save what [`open_now`](Self::open_now) saves. The
    /// default is `None`.
    fn commit_now(&self, commit: &Commit<'_>) -> Option<Result<CommitOutcome, Error>> {
        let _ = commit;
        None
    }

    /// Computes one value of a stored session in one step that no other write comes between: what
    /// [`Session::take`](crate::Session::take) and
    /// [`Session::update_now`](crate::Session::update_now) need. The default refuses, as a backend
    /// must that cannot tell which of two overlapping requests was first.
    ///
    /// # Errors
    ///
    /// [`Error::NeedsStore`] from a backend that cannot do it; [`Error::Unavailable`] if it could
    /// not be done, or if the backend cannot tell whether it was; and what [`Exchange::compute`]
    /// returns.
    fn exchange(
        self: Arc<Self>,
        exchange: Exchange<'_>,
    ) -> BackendFuture<'static, Result<Exchanged, Error>> {
        let _ = exchange;
        BackendFuture::ready(Err(Error::NeedsStore {
            backend: self.name(),
        }))
    }

    /// Receives the observers of the manager, which a backend with a store tells its store calls; the
    /// first call counts. A backend around another one passes them on. The default does nothing.
    fn observe(&self, observers: &Observers) {
        let _ = observers;
    }

    /// Returns a token for a session that is still to be created; `None`, the default, if the backend
    /// cannot tell before the commit. [`Session::set_user_limited`](crate::Session::set_user_limited)
    /// reserves a place under its [`handle`](Self::handle), and the commit that creates the session
    /// gets it back: [`Commit::drawn_token`].
    fn draw_token(&self) -> Option<String> {
        None
    }

    /// Returns the id under which the session of this cookie value is listed; `None` where nothing
    /// lists sessions.
    fn handle(&self, token: &str, settings: &Settings) -> Option<StoreId> {
        let _ = (token, settings);
        None
    }

    /// Returns a future that resolves when the session under this [`handle`](Self::handle) has
    /// ended, in any process, for [`Session::ended`](crate::Session::ended). A renewed session has
    /// not.
    ///
    /// The default is `None`: that is known only from when the session expires.
    ///
    /// # Errors
    ///
    /// The future resolves to one only if the end can never be known.
    fn ended(
        self: Arc<Self>,
        id: StoreId,
        settings: &Settings,
    ) -> Option<BackendFuture<'static, Result<(), Error>>> {
        let _ = (id, settings);
        None
    }

    /// Returns what finds and ends a user's sessions, if this backend has it. Every call on it has
    /// the time limit of a store call.
    fn users(&self) -> Option<&dyn UserIndex> {
        None
    }
}

/// What a [`Backend`] opens a session from.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct OpenRequest<'r> {
    /// The value of the session cookie, if the request has one: whatever a client chose to send.
    pub token: Option<&'r str>,
    /// The cookies of the managers that this one migrates from.
    pub(crate) old: Option<&'r Tokens>,
    /// The manager's settings.
    pub settings: &'r Settings,
    /// The request as the web framework has it: an `actix_web::HttpRequest`; of a tower service the
    /// `http::Extensions`; `()` after the response.
    pub request: &'r dyn Any,
}

/// A session as a [`Backend`] opened it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OpenOutcome {
    /// There is none.
    Nothing,
    /// There is none, and the cookie is not one that this backend made: a log line says so.
    Refused(Refused),
    /// Here it is.
    Loaded(Record),
    /// The id was replaced by a renewal less than a minute ago, so the client has a newer cookie or
    /// is about to get it. The session reads as empty; what the request writes is dropped and
    /// logged, and the response sets no cookie.
    Renewed,
    /// There is none any more: a log-out left a mark that says so ([`Adopt::bury`]), or a renewal
    /// replaced the id long ago. As [`Nothing`](Self::Nothing), but no older backend is asked.
    Ended,
    /// [`Builder::migrate_from`](crate::Builder::migrate_from) found it by the cookie of an older
    /// manager.
    Migrating(Migrating),
    /// Other code reads and writes it during the same request (`ActixSession`).
    Live(LiveSession),
}

/// A session that other code reads and writes during the same request, as `ActixSession` returns
/// it.
#[derive(Clone, Debug)]
pub struct LiveSession(pub(crate) Arc<dyn Live>);

/// A session that other code reads and writes during the same request, such as another crate's
/// middleware and its users: nothing is kept back until the commit, so that each sees at once what
/// the other does.
pub(crate) trait Live: fmt::Debug + Send + Sync {
    /// Returns the session as it is now; `None` if it cannot be reached, as from another thread.
    fn read(&self) -> Option<Record>;

    /// Does `changes` at once. It must not log: the session is locked, and a log layer may use it.
    fn write(&self, changes: &Changes) -> Written;

    /// Ends the request, in place of [`Backend::commit`]. If not `keep`, what was written is
    /// undone, but for the end of the session. Returns what is to be logged as an error, if a value
    /// was lost.
    fn end(&self, keep: bool) -> Option<&'static str>;
}

/// What became of [`Live::write`].
#[cfg_attr(
    not(feature = "actix-session"),
    allow(dead_code, reason = "only actix-session's sessions are live")
)]
pub(crate) enum Written {
    /// It is done.
    Done,
    /// The session cannot be reached from this thread, so the changes are kept and done later.
    Later,
    /// A value was lost; the text is to be logged.
    Lost(&'static str),
}

/// What a [`Backend`] has to keep.
#[non_exhaustive]
pub struct Commit<'r> {
    /// The value of the session cookie as the request sent it.
    pub token: Option<&'r str>,
    /// The cookies of the managers that this one migrates from.
    pub(crate) old: Option<&'r Tokens>,
    /// Where the session is, if this backend does not have it yet.
    pub(crate) origin: Option<&'r Origin>,
    /// Whether the client has to be told the token again: it sent that of an older manager.
    #[cfg_attr(
        not(feature = "server-side"),
        allow(
            dead_code,
            reason = "a cookie backend sends its cookie at every commit"
        )
    )]
    pub(crate) resend: bool,
    /// The session as it was opened; `None` if there was none.
    pub stored: Option<&'r Record>,
    /// What the request did to it. If nothing, a touch is due: the session's end moves.
    pub changes: &'r Changes,
    /// The present moment, by the manager's clock.
    pub now: Timestamp,
    /// The manager's settings.
    pub settings: &'r Settings,
}

impl Commit<'_> {
    /// Returns when the session began: now, if this request begins or renews it.
    pub fn created(&self) -> Timestamp {
        let begins = self.changes.is_destroyed() || self.changes.is_renewed();
        self.stored
            .filter(|_| !begins)
            .map_or(self.now, |stored| stored.created)
    }

    /// Returns the token that a session has to get which this commit creates; `None` for a new one.
    pub fn drawn_token(&self) -> Option<&str> {
        #[cfg(feature = "server-side")]
        return self.changes.limit().map(|limit| &*limit.token);
        #[cfg(not(feature = "server-side"))]
        None
    }

    /// Returns when the session expires unless it is used again.
    pub fn expires(&self) -> Timestamp {
        let expiry = self.settings.expiry_for(self.lifetime());
        expiry.deadline(self.created(), self.now)
    }

    /// Returns the session's own lifetime, if it has one.
    pub(crate) fn lifetime(&self) -> Option<Lifetime> {
        let stored = self.stored.map(|stored| &stored.entries);
        Lifetime::decode(self.changes.over(stored).get(Lifetime::KEY))
    }

    /// Returns `true` if the session's cookie has a `Max-Age`.
    pub(crate) fn is_persistent(&self) -> bool {
        self.settings.is_persistent(self.lifetime())
    }

    /// Returns the write for a store, and the updates in it that must be computed again if another
    /// request was faster. Whom the record answers to, only the backend knows.
    pub(crate) fn to_write(&self) -> (Write, Vec<(Box<str>, Update)>) {
        let write = Write::touch(Verifier::NONE, self.created(), self.now, self.expires());
        let (mut write, updates) = self.changes.to_write(write);
        write.seen_expires = self.stored.map(|stored| stored.expires);
        if let Some(stored) = self.stored.filter(|_| !updates.is_empty()) {
            write.if_version = Some(stored.version);
            write.expected = stored.entries.expected(&updates);
        }
        (write, updates)
    }
}

/// One value that a [`Backend`] computes from what is stored.
#[derive(Clone)]
#[non_exhaustive]
pub struct Exchange<'r> {
    /// The value of the session cookie.
    pub token: Option<&'r str>,
    /// The key of the value.
    pub key: &'r str,
    /// Returns the new value for the stored one; `None` removes it. It may run more than once; the
    /// last run is the one that counts.
    pub compute: Arc<Compute>,
    /// The present moment, by the manager's clock.
    pub now: Timestamp,
    /// The manager's settings.
    pub settings: &'r Settings,
}

/// The function of an [`Exchange`].
pub type Compute = dyn Fn(Option<Value<&str>>) -> Result<Option<Value>, Error> + Send + Sync;

impl fmt::Debug for Exchange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

/// What became of an [`Exchange`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Exchanged {
    /// It is stored. The record is as this call left it.
    Done(Record),
    /// The session ended or was renewed meanwhile, so nothing was written.
    Gone,
}

/// What becomes of the session's cookie.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommitOutcome {
    /// The client keeps what it has.
    Keep,
    /// The client gets this value. Only letters, digits, `-`, `_` and `.` are safe in it.
    Set {
        /// The cookie's value.
        token: String,
        /// When the session ends.
        expires: Timestamp,
    },
    /// The client's cookie is removed.
    Remove,
    /// Another request ended or renewed the session while this one was served: nothing was written,
    /// and the client keeps what it has by now.
    Gone,
}

/// Shows no token: it is what a thief would need.
impl fmt::Debug for CommitOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("Keep"),
            Self::Set { expires, .. } => f
                .debug_struct("Set")
                .field("expires", expires)
                .finish_non_exhaustive(),
            Self::Remove => f.write_str("Remove"),
            Self::Gone => f.write_str("Gone"),
        }
    }
}

/// How much room a session takes, of how much there is.
///
/// ```
/// let size = session_manager::backend::Size { used: 300, limit: 4096 };
/// assert!(size.used <= size.limit);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Size {
    /// What it takes, in bytes; for a cookie the whole `Set-Cookie` value, and 0 if none is needed.
    pub used: usize,
    /// The most that it may take, in bytes.
    pub limit: usize,
}

/// Why a cookie was refused, and its session begins empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It is not written as this backend writes cookies.
    #[error("it is not in the form of a session cookie")]
    Malformed,
    /// A version of session-manager wrote it that this one does not know.
    #[error("its format is of another version")]
    Version,
    /// No key that this backend accepts signed it for this cookie name.
    #[error("no accepted key signed it for this name")]
    Forged,
    /// Its time is over.
    #[error("its time is over")]
    Expired,
    /// What the store has under its id cannot be read. The backend has logged it.
    #[error("what is stored under its id cannot be read")]
    Corrupt,
}

impl Refused {
    /// Returns what observers are told.
    pub(crate) fn event(self) -> Event {
        let why = match self {
            Self::Malformed => Refusal::Malformed,
            Self::Version => Refusal::Version,
            Self::Forged => Refusal::Signature,
            Self::Corrupt => Refusal::Corrupt,
            Self::Expired => return Event::Expired,
        };
        Event::Refused { why }
    }
}

impl fmt::Debug for OpenRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening")
            .field("has_token", &self.token.is_some())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Commit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commit")
            .field("changes", &self.changes)
            .finish_non_exhaustive()
    }
}
