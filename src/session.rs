//! One visitor's data during one request, and what can be done with it.

use std::{
    any::{Any, type_name},
    borrow::Cow,
    fmt,
    future::poll_fn,
    hash::{BuildHasher, Hasher, RandomState},
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::AtomicBool},
    task::{Poll, Waker},
};

use serde::{Serialize, de::DeserializeOwned};

#[cfg(any(feature = "actix", feature = "tower"))]
use crate::manager::RequestHead;
use crate::{
    BackendFuture, Change, Changes, Commit, Compute, Error, Exchange, Exchanged, Manager, Message,
    Namespace, OnStoreError, Opened, Record, Reply, Settings, Size, Timestamp, Update, Value, View,
    backend::{
        Live, LiveSession,
        migration::{Migrating, Origin, Place},
    },
    cookie::Tokens,
    log::log,
};

/// Keys that begin with these are session-manager's own. No text that a person types has them.
const FLASH: char = '\u{1}';
const OWN: char = '\u{2}';

/// The key of what the application noted of a session.
const NOTE: &str = crate::SessionSummary::NOTE;

/// How often a value that changes while it is computed from is computed again. Threads that share a
/// session need few; code that changes the value itself each time would never end.
const ROUNDS: usize = 10_000;

fn check_key(key: &str) -> Result<(), Error> {
    if key.starts_with([FLASH, OWN]) || key.contains('\0') {
        return Err(Error::ReservedKey);
    }
    Ok(())
}

/// One visitor's session during one request.
///
/// A handle: clones are the same session, and may move into other threads and tasks. Nothing here
/// waits. What is done to a session is kept when its request's response goes out, unless that
/// response is a server error (see
/// [`commit_on_server_error`](crate::Builder::commit_on_server_error)).
///
/// It comes from [`Manager::session`] or, in a handler, as an extractor. In code that goes on after
/// the response, [`save`](Self::save) keeps what was done: see [there](crate#outside-a-request).
///
/// ```
/// use session_manager::{Error, Message, Session};
///
/// fn visit(session: &Session) -> Result<u32, Error> {
///     let visits = session.load::<u32>("visits")?.unwrap_or(0) + 1;
///     session.add("visits", visits)?;
///     session.flash(Message::info(format!("Visit number {visits}")))?;
///     Ok(visits)
/// }
/// ```
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    manager: Manager,
    /// Whether its middleware follows the process-wide manager.
    is_global: bool,
    /// Whether the framework knows that the request came over https.
    is_https: bool,
    /// The one whose middleware is further out.
    outer: Option<Session>,
    /// The one whose middleware is nearer to the handler, while it is there.
    inner: Mutex<Weak<Inner>>,
    /// Whether the state knows what the request says of it.
    is_read: AtomicBool,
    state: Mutex<State>,
}

struct State {
    /// The session cookies' values as they came.
    tokens: Tokens,
    /// Whether the cookie that goes to this client is `Secure`.
    secure: bool,
    stored: Stored,
    /// Where it is, if `Builder::migrate_from` found it and this engine does not have it yet.
    origin: Option<Origin>,
    /// Whether the client sent an older manager's cookie for it, and has to be told the new one.
    resend: bool,
    /// Whether a renewal replaced its id shortly before ([`Opened::Renewed`]).
    renewed: bool,
    /// Other code has the session in hand too.
    live: Option<Arc<dyn Live>>,
    changes: Changes,
    /// When the engine was last given something to keep.
    committed: Timestamp,
    /// How many bytes more the session may take without being measured anew.
    room: usize,
    /// The time in the key of the last flash message, and how many there are, once one was added.
    flashes: Option<(u64, usize)>,
    /// Whether a log line says that flash messages were dropped.
    said_dropped: bool,
    /// Whether anybody read or wrote: the response then depends on the cookie.
    looked: bool,
    phase: Phase,
    /// What the last commit took as done, until somebody looks: then it shows as stored.
    settled: Option<Arc<Settled>>,
    /// Whether something was done that can no longer be kept.
    lost: bool,
    /// Whether somebody else ended or renewed the session, or its time is over.
    ended: bool,
    /// Whether it was ended here, and none has begun since.
    removed: bool,
    /// What the response head has to tell the client.
    reply: Reply,
    /// Whether the engine is at a commit, and who waits for its end.
    committing: bool,
    waiting: Vec<Waker>,
    /// What is logged once the state is unlocked.
    lines: Vec<Line>,
}

#[derive(Clone)]
enum Stored {
    /// The engine has still to open it.
    Unopened,
    Known(Option<Record>),
}

impl Stored {
    fn record(&self) -> Option<&Record> {
        match self {
            Self::Unopened => None,
            Self::Known(record) => record.as_ref(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The response is still to come.
    Open,
    /// Its head was sent.
    Sent,
    /// The engine could not be asked.
    ReadOnly,
}

/// What a response has to carry for its session.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers {
    /// The `Set-Cookie` value.
    pub(crate) set_cookie: Option<String>,
    /// Those that remove the cookies of a manager that this one takes over from.
    pub(crate) removed: Vec<String>,
    /// Whether the response depends on the cookie: `Vary: Cookie`.
    pub(crate) vary: bool,
}

impl Session {
    /// The session of a request that begins: nothing of it is known yet.
    pub(crate) fn new(
        manager: Manager,
        is_global: bool,
        is_https: bool,
        outer: Option<Self>,
    ) -> Self {
        let state = State {
            tokens: Tokens::default(),
            secure: true,
            stored: Stored::Unopened,
            origin: None,
            resend: false,
            renewed: false,
            live: None,
            changes: Changes::default(),
            committed: Timestamp::from_millis(0),
            room: 0,
            flashes: None,
            said_dropped: false,
            looked: false,
            phase: Phase::Open,
            settled: None,
            lost: false,
            ended: false,
            removed: false,
            reply: Reply::Keep,
            committing: false,
            waiting: Vec::new(),
            lines: Vec::new(),
        };
        let session = Self(Arc::new(Inner {
            manager,
            is_global,
            is_https,
            outer,
            inner: Mutex::default(),
            is_read: AtomicBool::new(false),
            state: Mutex::new(state),
        }));
        if let Some(outer) = session.outer() {
            *outer.lock_inner() = Arc::downgrade(&session.0);
        }
        session
    }

    pub(crate) fn is_global(&self) -> bool {
        self.0.is_global
    }

    pub(crate) fn outer(&self) -> Option<&Self> {
        self.0.outer.as_ref()
    }

    pub(crate) fn inner(&self) -> Option<Self> {
        self.lock_inner().upgrade().map(Self)
    }

    fn lock_inner(&self) -> MutexGuard<'_, Weak<Inner>> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what the request says of the session, unless that is done.
    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn read(&self, request: &dyn RequestHead) {
        if self.0.is_read.load(std::sync::atomic::Ordering::Acquire) {
            return;
        }
        let manager = &self.0.manager;
        let settings = manager.settings();
        let tokens = manager.tokens(request, Settings::log_refused);
        let mut state = self.lock();
        if self.0.is_read.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        let has_cookie = tokens.own.is_some();
        state.secure = settings.is_secure(self.0.is_https, has_cookie, || request.is_to_loopback());
        state.tokens = tokens;
        self.0
            .is_read
            .store(true, std::sync::atomic::Ordering::Release);
    }

    /// The session, if the engine was asked for it.
    pub(crate) fn loaded(self) -> Result<Self, Error> {
        let is_unopened = matches!(self.looked_at().stored, Stored::Unopened);
        if is_unopened && !self.opens_at_once() {
            Err(Error::NotLoaded)
        } else {
            Ok(self)
        }
    }

    /// Notes that the response depends on the session, because a handler has it: a stream may read it
    /// when the head is on its way, too late for `Vary: Cookie`.
    pub(crate) fn mark_looked(&self) {
        self.looked_at();
    }

    fn looked_at(&self) -> Locked<'_> {
        let mut state = self.lock();
        state.looked = true;
        state
    }

    /// Asks the engine, if it was not asked yet.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], if the engine cannot tell and
    /// [`OnStoreError::Fail`](crate::OnStoreError::Fail) is in force.
    pub(crate) fn open(&self, request: &dyn Any) -> BackendFuture<'static, Result<(), Error>> {
        let opening = {
            let state = self.lock();
            // What opens at once waits until the handler looks.
            if !matches!(state.stored, Stored::Unopened) || self.opens_at_once() {
                return BackendFuture::ready(Ok(()));
            }
            self.0.manager.opening(&state.tokens, request)
        };
        match opening.now() {
            Ok(opened) => BackendFuture::ready(self.opened(opened)),
            Err(opening) => {
                let session = self.clone();
                BackendFuture::pending(async move { session.opened(opening.await) })
            }
        }
    }

    /// Takes what the engine opened. If it failed, the session may read as empty and take no writes.
    pub(crate) fn opened(&self, opened: Result<Opened, Error>) -> Result<(), Error> {
        let mut state = self.lock();
        match opened {
            // Two who asked at once got the same, and somebody may have written since.
            Ok(_) if !matches!(state.stored, Stored::Unopened) => {}
            Ok(opened) => state.open(opened, &self.0.manager),
            Err(error @ Error::Unavailable { .. })
                if self.0.manager.settings().on_store_error() == OnStoreError::Anonymous =>
            {
                let why = crate::error::chain(&error);
                state.error(format!("{why}; the session reads as empty"));
                state.stored = Stored::Known(None);
                state.phase = Phase::ReadOnly;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The manager that opened this session, and that keeps it.
    pub fn manager(&self) -> &Manager {
        &self.0.manager
    }

    /// Puts `value` under `key`, in place of what was there: a string as it is, anything else as
    /// JSON.
    ///
    /// Until the response head is sent, a value equal to the known one writes nothing. After that
    /// ([outside a request](crate#outside-a-request)) it is written: another request may have replaced
    /// it meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Unserializable`] if JSON cannot express the value or is not read so deep,
    /// [`Error::TooLarge`] if the session would take more room than its engine has,
    /// [`Error::ReservedKey`], [`Error::HeadSent`] and [`Error::ReadOnly`]. The session is then as it was.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.add("name", "Ada")?;
    /// session.add("scores", &[1, 2, 3])?;
    /// assert_eq!(session.get("name").as_deref(), Some("Ada"));
    /// assert_eq!(session.get("scores").as_deref(), Some("[1,2,3]"));
    /// # Ok(()) }
    /// ```
    pub fn add(&self, key: &str, value: impl Serialize) -> Result<(), Error> {
        check_key(key)?;
        let value = encode(key, &value)?;
        self.insert(&mut self.look(), key, Change::Set(value))
    }

    /// The value under `key`: a string as it was added, anything else as its JSON text. `None` if
    /// there is none, which is not the same as an empty string.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.add("name", "Ada")?;
    /// assert_eq!(session.get("name").as_deref(), Some("Ada"));
    /// assert_eq!(session.get("nothing"), None);
    /// # Ok(()) }
    /// ```
    pub fn get(&self, key: &str) -> Option<String> {
        self.look()
            .view()
            .get(key)
            .map(|value| value.as_str().to_owned())
    }

    /// Takes the value under `key` out of the session; in the form that [`get`](Self::get) gives.
    ///
    /// Two overlapping requests may both get it, because each sees the session as it was when it came.
    /// [`take`](Self::take) gives a one-time value to exactly one of them.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.add("return_to", "/cart")?;
    /// assert_eq!(session.pop("return_to").as_deref(), Some("/cart"));
    /// assert_eq!(session.pop("return_to"), None);
    /// # Ok(()) }
    /// ```
    pub fn pop(&self, key: &str) -> Option<String> {
        let mut state = self.look();
        let value = state.view().get(key)?.as_str().to_owned();
        self.remove(&mut state, key);
        Some(value)
    }

    /// Reads the value under `key` as a `T`. A string whose content is JSON also loads as a `T` that
    /// is no string.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`], if what is there is no `T`.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.add("scores", &[1, 2, 3])?;
    /// assert_eq!(session.load::<Vec<u8>>("scores")?, Some(vec![1, 2, 3]));
    /// assert_eq!(session.load::<Vec<u8>>("nothing")?, None);
    /// assert!(session.load::<bool>("scores").is_err());
    /// # Ok(()) }
    /// ```
    pub fn load<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        // Unlocked by then, because `T` may read the session.
        let value = self.owned(key);
        value.map(|value| decode(key, value.borrowed())).transpose()
    }

    /// Takes the value under `key` out of the session and reads it as a `T`.
    ///
    /// Two overlapping requests may both get it; see [`take`](Self::take).
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`], if what is there is no `T`, [`Error::HeadSent`], if it can no longer be
    /// removed. It then stays where it is.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.add("attempts", 3)?;
    /// assert!(session.pop_load::<bool>("attempts").is_err());
    /// assert_eq!(session.pop_load::<u8>("attempts")?, Some(3));
    /// # Ok(()) }
    /// ```
    pub fn pop_load<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        for _ in 0..ROUNDS {
            let Some(value) = self.owned(key) else {
                return Ok(None);
            };
            let decoded = decode(key, value.borrowed())?;
            let mut state = self.look();
            if state.view().get(key) == Some(value.borrowed()) {
                self.writable(&state)?;
                self.remove(&mut state, key);
                return Ok(Some(decoded));
            }
        }
        Err(Error::UpdateLoop {
            key: key.to_owned(),
        })
    }

    fn owned(&self, key: &str) -> Option<Value> {
        self.look().view().get(key).map(Value::into_owned)
    }

    /// How many flash messages a session keeps, far more than a page can show. Requests that overlap
    /// may leave more, until the next message.
    pub const MAX_FLASHES: usize = 100;

    /// Leaves a message for the next page that calls [`flashes`](Self::flashes), in this request or
    /// a later one. A plain string becomes [`Message::info`].
    ///
    /// A session keeps the last [`MAX_FLASHES`](Self::MAX_FLASHES), so that messages that no page
    /// shows do not fill it; a log line says that older ones were dropped.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// use session_manager::Message;
    ///
    /// session.flash("Welcome back")?;
    /// session.flash(Message::error("The card was declined"))?;
    /// assert_eq!(session.flashes().len(), 2);
    /// assert_eq!(session.flashes().len(), 0);
    /// # Ok(()) }
    /// ```
    pub fn flash(&self, message: impl Into<Message>) -> Result<(), Error> {
        let message = message.into();
        let value = encode("flash message", &message.to_stored())?;
        let now = self.0.manager.settings().now().millis();
        let mut state = self.look();
        // Each message has a key of its own, so that messages left by requests that overlap all
        // survive: ordered by a time after that of the last one, then told apart by chance. The
        // chance needs no secrecy, so the standard library's hash keys serve.
        let (last, count) = match state.flashes {
            Some(known) => known,
            None => {
                let last = state.flash_keys().max().and_then(|last| last.get(1..12));
                let last = last.and_then(|last| u64::from_str_radix(last, 16).ok());
                (last.unwrap_or(0), state.flash_keys().count())
            }
        };
        let time = now.max(last + 1);
        let chance = RandomState::new().build_hasher().finish() as u32;
        let key = format!("{FLASH}{time:011x}{chance:08x}");
        self.insert(&mut state, &key, Change::Set(value))?;
        state.flashes = Some((time, count + 1));
        if count >= Self::MAX_FLASHES {
            let count = self.drop_flashes(&mut state);
            state.flashes = Some((time, count));
        }
        Ok(())
    }

    /// Drops the oldest messages over [`MAX_FLASHES`](Self::MAX_FLASHES), and returns how many stay.
    fn drop_flashes(&self, state: &mut State) -> usize {
        let mut keys: Vec<String> = state.flash_keys().map(str::to_owned).collect();
        keys.sort_unstable();
        let excess = keys.len().saturating_sub(Self::MAX_FLASHES);
        for key in &keys[..excess] {
            self.remove(state, key);
        }
        if excess > 0 && !std::mem::replace(&mut state.said_dropped, true) {
            let name = self.0.manager.settings().cookie_name();
            state.warn(format!(
                "a session of the cookie `{name}` has more than {} flash messages that were never \
                 shown; the oldest are dropped",
                Self::MAX_FLASHES
            ));
        }
        keys.len() - excess
    }

    /// Takes all messages that were left, oldest first. Each is given once; of two requests that
    /// overlap, both may show it, because each sees the session as it was when it came.
    pub fn flashes(&self) -> Vec<Message> {
        let mut state = self.look();
        let mut keys: Vec<String> = state.flash_keys().map(str::to_owned).collect();
        keys.sort_unstable();
        let mut messages = Vec::with_capacity(keys.len());
        for key in keys {
            match state.view().get(&key).and_then(Message::from_stored) {
                Some(message) => messages.push(message),
                None => state.warn("a flash message that cannot be read was dropped"),
            }
            self.remove(&mut state, &key);
        }
        messages
    }

    /// Replaces the value under `key` by what `f` makes of it, and returns that.
    ///
    /// Where the engine can (every server-side one), the commit applies `f` anew to what is stored
    /// *then*, so that of two overlapping requests neither's update is lost; `f` may therefore run
    /// more than once and should do nothing but compute. In a cookie, the later response wins.
    ///
    /// The returned value is what this request sees. What the commit stores differs if another request
    /// was faster; if the result decides something, such as whether there is credit left, ask
    /// [`update_now`](Self::update_now).
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`], if what is there is no `T`; [`Error::UpdateLoop`], if `f` writes to `key`
    /// itself each time it runs; and as [`add`](Self::add). The session is then as it was.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// let visits = session.update("visits", |visits: Option<u32>| visits.unwrap_or(0) + 1)?;
    /// # Ok(()) }
    /// ```
    pub fn update<T>(
        &self,
        key: &str,
        f: impl Fn(Option<T>) -> T + Send + Sync + 'static,
    ) -> Result<T, Error>
    where
        T: Serialize + DeserializeOwned,
    {
        check_key(key)?;
        let name = key.to_owned();
        let compute = move |value: Option<Value<&str>>| {
            let next = f(value.map(|value| decode(&name, value)).transpose()?);
            let encoded = encode(&name, &next)?;
            Ok((next, encoded))
        };
        // `f` runs without the lock, because it is the caller's code and might come back here.
        for _ in 0..ROUNDS {
            let value = self.owned(key);
            let (next, seen) = compute(value.as_ref().map(Value::borrowed))?;
            let mut state = self.look();
            if state.view().get(key) == value.as_ref().map(Value::borrowed) {
                let apply = Arc::new(move |value: Option<Value<&str>>| {
                    compute(value).map(|(_, encoded)| encoded)
                });
                let change = state.changes.compose(key, Update { seen, apply });
                self.insert(&mut state, key, change)?;
                return Ok(next);
            }
        }
        Err(Error::UpdateLoop {
            key: key.to_owned(),
        })
    }

    /// Takes the value under `key` out of the *stored* session and reads it as a `T`: of any number of
    /// overlapping requests, exactly one gets it. For one-time values, such as a login token.
    ///
    /// It asks the store, and what it does is done at once: a response that is a server error does not
    /// give the value back. At most one caller gets it, and none if this call is given up or fails with
    /// [`Error::Unavailable`] after the store took it out. A value that this request itself added, and
    /// that is not stored yet, is taken from this request. From then on the session shows what others
    /// wrote, as after [`revalidate`](Self::revalidate).
    ///
    /// A session that still has to migrate ([`migrate_from`](crate::Builder::migrate_from)) is saved
    /// first, with all that was done to it.
    ///
    /// # Errors
    ///
    /// [`Error::NeedsStore`] if the backend is not a server-side one; [`Error::WrongType`] if the value
    /// is not a `T`, and it then stays; [`Error::Ended`] if the session was ended or renewed meanwhile;
    /// [`Error::Unavailable`] if the store does not answer, or always says that another write was faster;
    /// [`Error::HeadSent`], [`Error::ReadOnly`] and [`Error::ReservedKey`].
    ///
    /// ```
    /// # async fn f(session: session_manager::Session) -> Result<(), session_manager::Error> {
    /// let Some(token) = session.take::<String>("reset_token").await? else {
    ///     return Ok(()); // used up, or never there
    /// };
    /// # Ok(()) }
    /// ```
    pub async fn take<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        check_key(key)?;
        for _ in 0..2 {
            match self.in_turn(|state| self.begin_take(state, key)).await? {
                Begun::SaveFirst => self.save_all(Keep::Touch).await?,
                Begun::Here(value, former) => {
                    let Some(value) = value else { return Ok(None) };
                    return decode(key, value.borrowed()).map(Some).inspect_err(|_| {
                        self.lock().changes.undo(key, former);
                    });
                }
                Begun::Exchanging(mut exchanging) => {
                    let (name, former) = (key.to_owned(), exchanging.former.clone());
                    let taken = Arc::new(Mutex::new(None));
                    let last = Arc::clone(&taken);
                    let compute = move |stored: Option<Value<&str>>| {
                        let value = match &former {
                            Some(Change::Update(update)) => Some(update.apply(stored)?),
                            _ => stored.map(Value::into_owned),
                        };
                        if let Some(value) = &value {
                            decode::<T>(&name, value.borrowed())?;
                        }
                        *last.lock().unwrap_or_else(PoisonError::into_inner) = value;
                        Ok(None)
                    };
                    exchanging.run(Arc::new(compute)).await?;
                    let value = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
                    return value.map(|value| decode(key, value.borrowed())).transpose();
                }
            }
        }
        Err(self.needs_store())
    }

    /// Replaces the value under `key` in the *stored* session by what `f` makes of it, and returns what
    /// was stored: not what might be, as [`update`](Self::update) does. For balances and limits, where
    /// the result decides something.
    ///
    /// It asks the store, and what it does is done at once: a response that is a server error does not
    /// undo it. If this call is given up or fails with [`Error::Unavailable`], it may have been done. `f`
    /// may run more than once and should do nothing but compute. What this request did to `key` before,
    /// and did not save yet, counts and is stored with it. From then on the session shows what others
    /// wrote, as after [`revalidate`](Self::revalidate).
    ///
    /// A session that is not stored yet, still has to migrate
    /// ([`migrate_from`](crate::Builder::migrate_from)), or was cleared or destroyed by this request, is
    /// saved first, with all that was done to it.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take), and as [`update`](Self::update).
    ///
    /// ```
    /// # async fn f(session: session_manager::Session) -> Result<(), session_manager::Error> {
    /// let left = session
    ///     .update_now("credits", |credits: Option<i64>| (credits.unwrap_or(3) - 1).max(-1))
    ///     .await?;
    /// if left < 0 {
    ///     // Of any number of overlapping requests, three came this far before.
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn update_now<T>(
        &self,
        key: &str,
        f: impl Fn(Option<T>) -> T + Send + Sync + 'static,
    ) -> Result<T, Error>
    where
        T: Serialize + DeserializeOwned,
    {
        check_key(key)?;
        let (name, f) = (key.to_owned(), Arc::new(f));
        let in_compute = Arc::clone(&f);
        let next = move |value: Option<Value<&str>>| {
            let value = value.map(|value| decode(&name, value)).transpose()?;
            encode(&name, &in_compute(value))
        };
        let next = Arc::new(next);
        for _ in 0..2 {
            match self.in_turn(|state| self.begin_update(state, key)).await? {
                Begun::SaveFirst => self.save_all(Keep::Touch).await?,
                // Nobody else knows of the session yet.
                Begun::Here(..) => {
                    let f = Arc::clone(&f);
                    drop(self.update(key, move |value| f(value))?);
                    let value = self.owned(key);
                    self.save().await?;
                    return decode(
                        key,
                        value.as_ref().map_or(Value::Json("null"), Value::borrowed),
                    );
                }
                Begun::Exchanging(mut exchanging) => {
                    let former = exchanging.former.clone();
                    let (next, stored) = (Arc::clone(&next), Arc::new(Mutex::new(None)));
                    let last = Arc::clone(&stored);
                    let compute = move |stored: Option<Value<&str>>| {
                        let value = match &former {
                            None => next(stored)?,
                            Some(Change::Set(value)) => next(Some(value.borrowed()))?,
                            Some(Change::Remove) => next(None)?,
                            Some(Change::Update(update)) => {
                                next(Some(update.apply(stored)?.borrowed()))?
                            }
                        };
                        *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(value.clone());
                        Ok(Some(value))
                    };
                    exchanging.run(Arc::new(compute)).await?;
                    let value = stored.lock().unwrap_or_else(PoisonError::into_inner).take();
                    return decode(
                        key,
                        value.as_ref().map_or(Value::Json("null"), Value::borrowed),
                    );
                }
            }
        }
        Err(self.needs_store())
    }

    fn needs_store(&self) -> Error {
        Error::NeedsStore {
            engine: self.0.manager.engine(),
        }
    }

    fn begin_take(&self, state: &mut State, key: &str) -> Result<Begun, Error> {
        self.may_exchange(state)?;
        let is_here = state.record().is_none()
            || state.changes.hide_stored()
            || matches!(
                state.changes.entry(key),
                Some(Change::Set(_) | Change::Remove)
            );
        if is_here {
            let former = state.changes.entry(key).cloned();
            let value = state.view().get(key).map(Value::into_owned);
            if value.is_some() {
                self.writable(state)?;
                self.remove(state, key);
            }
            return Ok(Begun::Here(value, former));
        }
        if state.origin.is_some() {
            return self.migrate_first(state);
        }
        self.writable(state)?;
        Ok(Begun::Exchanging(self.begin_exchange(state, key)))
    }

    fn begin_update(&self, state: &mut State, key: &str) -> Result<Begun, Error> {
        self.may_exchange(state)?;
        if state.origin.is_some() {
            return self.migrate_first(state);
        }
        self.writable(state)?;
        Ok(if state.changes.hide_stored() && state.record().is_some() {
            Begun::SaveFirst
        } else if state.record().is_none() {
            Begun::Here(None, None)
        } else {
            Begun::Exchanging(self.begin_exchange(state, key))
        })
    }

    /// Whether the backend can do it at all, and the session takes part.
    fn may_exchange(&self, state: &mut State) -> Result<(), Error> {
        state.looked = true;
        match state.phase {
            _ if self.needs_response() => Err(self.needs_store()),
            _ if matches!(state.stored, Stored::Unopened) => Err(Error::NotLoaded),
            Phase::ReadOnly => Err(Error::ReadOnly),
            _ if state.ended => Err(Error::Ended),
            Phase::Open | Phase::Sent => Ok(()),
        }
    }

    /// Requests that migrate a session come to one record only if they come to one id.
    fn migrate_first(&self, state: &State) -> Result<Begun, Error> {
        self.writable(state)?;
        let origin = state.origin.as_ref();
        match origin.is_some_and(|origin| origin.successor.is_some()) {
            true => Ok(Begun::SaveFirst),
            false => Err(self.needs_store()),
        }
    }

    fn begin_exchange(&self, state: &mut State, key: &str) -> Exchanging {
        state.committing = true;
        Exchanging {
            session: self.clone(),
            key: key.into(),
            token: state.tokens.own.clone(),
            former: state.changes.forget(key),
            is_over: false,
        }
    }

    /// Whether there is a value under `key`.
    pub fn contains_key(&self, key: &str) -> bool {
        self.look().view().get(key).is_some()
    }

    /// All keys, sorted. Flash messages are not among them.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.add("b", 1)?;
    /// session.add("a", 2)?;
    /// assert_eq!(session.keys(), ["a", "b"]);
    /// # Ok(()) }
    /// ```
    pub fn keys(&self) -> Vec<String> {
        let state = self.look();
        let mut keys: Vec<_> = state.own_keys().map(str::to_owned).collect();
        keys.sort_unstable();
        keys
    }

    /// How many values there are. Flash messages do not count.
    pub fn len(&self) -> usize {
        self.look().own_keys().count()
    }

    /// Whether there is no value. Flash messages do not count.
    pub fn is_empty(&self) -> bool {
        self.look().own_keys().next().is_none()
    }

    /// The part of this session whose keys begin with `name` and a dot: where a library crate keeps
    /// its own.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.namespace("admin").add("filter", "open")?;
    /// assert_eq!(session.get("admin.filter").as_deref(), Some("open"));
    /// # Ok(()) }
    /// ```
    pub fn namespace(&self, name: &str) -> Namespace {
        Namespace::new(self.clone(), name)
    }

    /// How much room the session takes and how much it has; `None` if the engine sets no limit.
    pub fn size(&self) -> Option<Size> {
        self.size_of(&self.look())
    }

    /// Removes all values and all messages, and keeps the session.
    ///
    /// If the store was away when the request came
    /// ([`OnStoreError::Anonymous`](crate::OnStoreError::Anonymous)), the response is 503.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.add("name", "Ada")?;
    /// session.clear();
    /// assert!(session.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn clear(&self) {
        self.change(|changes| changes.clear());
    }

    /// Gives the session a new id, the same data, and timeouts that begin anew; the old id is dead.
    ///
    /// Call it whenever rights change, above all at login: an id planted before is then worth
    /// nothing (session fixation; CVE-2022-25896, OWASP Session Management Cheat Sheet). A cookie
    /// engine has no id, and writes its cookie anew.
    ///
    /// If the store was away when the request came
    /// ([`OnStoreError::Anonymous`](crate::OnStoreError::Anonymous)), the response is 503.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.renew();
    /// session.add("user", "ada")?;
    /// # Ok(()) }
    /// ```
    pub fn renew(&self) {
        let mut state = self.look();
        match self.writable(&state) {
            Err(Error::Ended) => {}
            // A new id reaches the client with the response head alone.
            Ok(()) if state.phase == Phase::Open => state.changes.renew(),
            Err(Error::ReadOnly) => state.changes.renew(),
            _ => state.too_late(),
        }
    }

    /// Ends the session: logging out. What is added afterwards begins a new one.
    ///
    /// It sticks even if the response is a server error. If the store was away when the request came
    /// ([`OnStoreError::Anonymous`](crate::OnStoreError::Anonymous)), the session cannot be ended: the
    /// response is 503, and the client keeps its cookie to log out with later.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.destroy();
    /// session.flash("You are logged out")?;
    /// # Ok(()) }
    /// ```
    pub fn destroy(&self) {
        self.change(|changes| changes.destroy());
    }

    /// Says whose session this is, so that
    /// [`Manager::user_sessions`](crate::Manager::user_sessions) finds it; at login, as a rule. A
    /// later call says it anew, and ending the session takes it back.
    ///
    /// # Errors
    ///
    /// [`Error::NoUserIndex`], if the engine cannot find a user's sessions; and as
    /// [`add`](Self::add).
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.set_user("ada")?;
    /// session.set_note("Firefox on Linux")?;
    /// # Ok(()) }
    /// ```
    pub fn set_user(&self, user: &str) -> Result<(), Error> {
        let backend = self.0.manager.backend();
        if backend.users().is_none() {
            return Err(Error::NoUserIndex {
                engine: backend.engine(),
            });
        }
        check_key(user)?;
        let mut state = self.look();
        self.writable(&state)?;
        let stored = state.record().filter(|_| !state.changes.is_destroyed());
        let known = state.changes.user().or_else(|| stored?.user.as_deref());
        if known != Some(user) || state.phase == Phase::Sent {
            state.changes.set_user(user);
        }
        Ok(())
    }

    /// Notes something that tells this session from the user's others, such as the name of the
    /// device: [`UserSession::note`](crate::UserSession::note) shows it.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    pub fn set_note(&self, note: &str) -> Result<(), Error> {
        self.insert(
            &mut self.look(),
            NOTE,
            Change::Set(Value::Text(note.into())),
        )
    }

    /// Under which handle [`Manager::user_sessions`](crate::Manager::user_sessions) lists this
    /// session: no secret, unlike the id in its cookie. `None` before it was first kept, and where
    /// the engine lists none.
    pub fn handle(&self) -> Option<String> {
        let state = self.look();
        state.record()?;
        let token = match &state.origin {
            Some(origin) => &origin.successor.as_ref()?.0,
            None => state.tokens.own()?,
        };
        let manager = &self.0.manager;
        let handle = manager.backend().handle(token, manager.settings())?;
        Some(handle.to_string())
    }

    /// Commits now what was done, for code that outlives the response: a spawned task, a stream.
    ///
    /// What it cannot keep stays done here, and the next one keeps it: if the store is away, and if
    /// nobody waits for the end of this call (a timeout). An update may then count twice, because
    /// nobody knows whether the store had it already.
    ///
    /// While the response is still to come, a cookie engine has nothing to do here: the cookie goes
    /// with the response.
    ///
    /// # Errors
    ///
    /// [`Error::HeadSent`], from then on, if something was done that can no longer reach the client,
    /// and nothing more is kept; [`Error::Ended`], if somebody ended or renewed the session meanwhile,
    /// which is then as [`revalidate`](Self::revalidate) says; [`Error::Unavailable`], if the
    /// engine could not keep it, and [`Error::ReadOnly`].
    ///
    /// ```
    /// # async fn f(session: session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.add("progress", 100)?;
    /// session.save().await?;
    /// # Ok(()) }
    /// ```
    pub async fn save(&self) -> Result<(), Error> {
        self.save_all(Keep::All).await
    }

    async fn save_all(&self, keep: Keep) -> Result<(), Error> {
        let committing = self.in_turn(|state| {
            state.drop_if_renewed();
            match state.phase {
                Phase::ReadOnly => Err(Error::ReadOnly),
                _ if state.ended => Err(Error::Ended),
                _ if state.lost => Err(Error::HeadSent),
                _ if self.needs_response() => Ok(None),
                // A session that would begin now has no response to reach the client with.
                Phase::Sent if state.record().is_none() && !state.changes.is_empty() => {
                    Err(Error::HeadSent)
                }
                Phase::Open | Phase::Sent => Ok(self.begin_commit(state, keep)),
            }
        });
        match committing.await? {
            Some(committing) => committing.end().await,
            None => Ok(()),
        }
    }

    /// Looks again whether the session is still there, for code that outlives the request in which it
    /// was opened: a WebSocket, a stream, a long task. What others did to it meanwhile shows from then
    /// on, and what was done here and not yet saved stays done.
    ///
    /// A cookie engine keeps nothing that could tell of a logout: there it finds only whether the
    /// session's time is over. A session that was never kept has nothing to lose, and is `Ok`.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`], if somebody ended or renewed the session or its time is over: it is empty
    /// from then on, takes no more writes, and what was not saved is dropped. It is also said to whoever
    /// ended it here. [`Error::Unavailable`], if the engine cannot tell;
    /// the session is then as it was.
    ///
    /// ```
    /// # async fn f(session: session_manager::Session) -> Result<(), session_manager::Error> {
    /// loop {
    ///     // … wait for the next message of the WebSocket …
    ///     session.revalidate().await?; // logged out elsewhere: close it
    ///     # return Ok(());
    /// }
    /// # }
    /// ```
    pub async fn revalidate(&self) -> Result<(), Error> {
        loop {
            self.in_turn(|_| ()).await;
            let (opening, token) = {
                let state = self.look();
                if state.ended || state.removed {
                    return Err(Error::Ended);
                }
                // There is nothing that could have ended, or it is read anew at each look.
                if state.record().is_none() || state.live.is_some() {
                    return Ok(());
                }
                let mut tokens = state.tokens.clone();
                // What this engine keeps, no cookie of an older one brings back.
                tokens.old.take_if(|_| state.origin.is_none());
                if !tokens.name_a_session() {
                    return Ok(());
                }
                (self.0.manager.opening(&tokens, &()), tokens.own)
            };
            let opened = opening.await?;
            let mut state = self.lock();
            // A clone ends or renews it in the meantime, so this answer is to another question.
            if state.ended || state.removed || state.committing || state.tokens.own != token {
                continue;
            }
            state.take(opened, &self.0.manager);
            if state.record().is_some() {
                return Ok(());
            }
            state.end();
            return Err(Error::Ended);
        }
    }

    /// Ends a request that neither looked at its session nor has one to touch: there is nothing to
    /// [`commit`](Self::commit) then, and the response goes as it is (bench `overhead`, rows "no
    /// cookie" and "untouched").
    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn ends_untouched(&self) -> bool {
        let mut state = self.lock_unsettled();
        let is_untouched = !state.looked
            && !state.committing
            && state.record().is_none()
            && state.settled.is_none()
            && state.live.is_none()
            && state.phase == Phase::Open;
        if is_untouched {
            state.phase = Phase::Sent;
        }
        is_untouched
    }

    /// Keeps what the request did, and says what its response has to carry. Called once, before the
    /// head is sent.
    pub(crate) fn commit(&self, succeeded: bool) -> BackendFuture<'static, Result<Headers, Error>> {
        let mut state = self.lock();
        let (mut committing, mut waits) = (None, None);
        let keep = match succeeded || self.0.manager.settings().commit_on_server_error() {
            true => Keep::All,
            false => Keep::End,
        };
        if state.phase == Phase::ReadOnly {
            if state.changes.is_destroyed() {
                state.error(
                    "a session was not ended, because its store was away when the request came; it \
                     lives until its time is over, unless the client logs out again",
                );
            }
            let is_lost = match keep == Keep::All {
                true => !state.changes.is_empty(),
                false => state.changes.is_destroyed(),
            };
            if is_lost {
                return BackendFuture::ready(Err(Error::ReadOnly));
            }
        }
        if state.phase == Phase::Open {
            if let Some(live) = state.live.clone() {
                state.write_through();
                live.end(keep == Keep::All);
            } else if state.committing {
                waits = Some(keep);
            } else {
                committing = self.begin_commit(&mut state, keep);
            }
            state.phase = Phase::Sent;
        }
        if waits.is_none() {
            let Some(begun) = committing else {
                return BackendFuture::ready(Ok(self.headers(&mut state)));
            };
            drop(state);
            match begun.now() {
                Ok(result) => {
                    let headers = || self.headers(&mut self.lock_unsettled());
                    return BackendFuture::ready(answered(result).map(|()| headers()));
                }
                Err(pending) => committing = Some(pending),
            }
        } else {
            drop(state);
        }
        let session = self.clone();
        BackendFuture::pending(async move {
            if let Some(keep) = waits {
                let begin = session.in_turn(|state| session.begin_commit(state, keep));
                committing = begin.await;
            }
            if let Some(committing) = committing {
                answered(committing.end().await)?;
            }
            let mut state = session.lock_unsettled();
            Ok(session.headers(&mut state))
        })
    }

    fn headers(&self, state: &mut State) -> Headers {
        let cookie = self.0.manager.settings().cookie();
        let secure = state.secure;
        let set_cookie = match std::mem::replace(&mut state.reply, Reply::Keep) {
            Reply::Keep | Reply::Gone => None,
            Reply::Set { token, expires } => {
                Some(cookie.set(&token, secure, state.committed, expires))
            }
            Reply::Remove => Some(cookie.remove(secure)),
        };
        let removed = match set_cookie {
            Some(_) => self.removed(state),
            None => Vec::new(),
        };
        Headers {
            set_cookie,
            removed,
            vary: state.looked,
        }
    }

    /// What removes the cookies that came from managers which this one takes over from.
    fn removed(&self, state: &State) -> Vec<String> {
        let old = self.0.manager.by_age().zip(state.tokens.by_age()).skip(1);
        let sent = old.filter(|(_, tokens)| tokens.own.is_some());
        let cookie = self.0.manager.settings().cookie();
        sent.map(|(manager, _)| manager.settings().cookie())
            .filter(|old| !cookie.replaces(old))
            .map(|old| old.remove(state.secure))
            .collect()
    }

    /// For a request that ends without a response, by a panic or because its client went away:
    /// ending the session sticks, all else is as if nobody had done it. Whoever still has the session
    /// goes on as after any response.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock_unsettled();
        if state.phase == Phase::Open {
            state.phase = Phase::Sent;
            self.end_anyway(&state, Keep::End);
        }
    }

    /// Ends the session in a task of its own, if somebody began to end it here.
    fn end_anyway(&self, state: &State, keep: Keep) {
        if state.changes.is_destroyed() && self.0.manager.backend().keeps_records() {
            #[cfg(not(feature = "server-side"))]
            let _ = keep;
            #[cfg(feature = "server-side")]
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                let session = self.clone();
                runtime.spawn(async move {
                    let committing = session.in_turn(|state| session.begin_commit(state, keep));
                    if let Some(committing) = committing.await
                        && let Err(error) = committing.end().await
                    {
                        let why = crate::error::chain(&error);
                        log!(ERROR, "a session could not be ended: {why}");
                    }
                });
            }
        }
    }

    /// Gives the engine what was done, if anything was or a touch is due.
    fn begin_commit(&self, state: &mut State, keep: Keep) -> Option<Committing> {
        let manager = &self.0.manager;
        let settings = manager.settings();
        if state.drop_if_renewed() {
            return None;
        }
        let mut later = None;
        if matches!(keep, Keep::End | Keep::EndFirst) {
            let end = state.changes.surviving_failure();
            let changes = std::mem::replace(&mut state.changes, end);
            later = (keep == Keep::EndFirst).then(|| changes.after_end());
        }
        let writes = !state.changes.is_empty();
        if !writes && state.record().is_none() {
            return None;
        }
        let now = settings.now();
        let touch_due = |record: &Record| {
            settings
                .expiry()
                .touch_due(record.created, record.expires, now)
        };
        let touches = match keep {
            Keep::All => state.record().is_some_and(touch_due),
            Keep::Touch => true,
            Keep::End | Keep::EndFirst => false,
        };
        if !writes && !touches {
            return None;
        }
        let commit = Commit {
            token: state.tokens.own.as_deref(),
            old: state.tokens.old(),
            origin: state.origin.as_ref(),
            resend: state.resend,
            stored: state.record(),
            changes: &state.changes,
            now,
            settings,
        };
        let future = manager.engine_arc().commit(commit);
        state.committed = now;
        // What a cookie engine keeps nobody can write to any more.
        let undo = (!self.needs_response()).then(|| state.settle());
        if let Some(later) = later.filter(|_| undo.is_some()) {
            state.changes = later;
        }
        state.committing = true;
        Some(Committing {
            session: self.clone(),
            is_over: false,
            future,
            writes: writes || keep == Keep::Touch,
            undo,
        })
    }

    /// Whether its engine is asked when somebody looks, and not before.
    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn waits_for_demand(&self) -> bool {
        let is_named = || self.lock().tokens.name_a_session();
        self.0.manager.settings().loads_on_demand() && !self.needs_response() && is_named()
    }

    /// Does `f` when the engine is at no commit of this session. What that brings, the next one has to
    /// know: the id of a session that it begins or renews.
    fn in_turn<'s, T>(
        &'s self,
        mut f: impl FnMut(&mut State) -> T + 's,
    ) -> impl Future<Output = T> + 's {
        poll_fn(move |context| {
            let mut state = self.lock();
            if state.committing {
                state.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(f(&mut state))
        })
    }

    fn needs_response(&self) -> bool {
        self.0.manager.backend().needs_response()
    }

    /// The state, with what was committed as what is stored.
    fn lock(&self) -> Locked<'_> {
        let mut state = self.lock_unsettled();
        state.show_settled(self.0.manager.settings());
        state
    }

    /// The state for who does not ask what is stored, whether or not another thread panicked with it:
    /// every change to it is one step.
    fn lock_unsettled(&self) -> Locked<'_> {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let after = Lines(Vec::new());
        Locked { state, after }
    }

    fn opens_at_once(&self) -> bool {
        self.0.manager.backend().opens_at_once()
    }

    /// Locks the state for reading or writing the session. The first call opens a session that opens at
    /// once.
    fn look(&self) -> Look<'_> {
        let mut state = self.looked_at();
        if matches!(state.stored, Stored::Unopened)
            && self.opens_at_once()
            && let Ok(Ok(opened)) = self.0.manager.opening(&state.tokens, &()).now()
        {
            state.take(opened, &self.0.manager);
        }
        if state.live.is_some() && state.phase == Phase::Open {
            state.write_through();
            state.read_through();
        }
        Look(state)
    }

    /// The one way in which a value is written.
    fn insert(&self, state: &mut State, key: &str, change: Change) -> Result<(), Error> {
        self.writable(state)?;
        // After the head, what another request wrote meanwhile goes for it.
        if let Change::Set(value) = &change
            && state.phase == Phase::Open
            && state.view().get(key) == Some(value.borrowed())
            && !matches!(state.changes.entry(key), Some(Change::Update(_)))
        {
            return Ok(());
        }
        // What one more entry takes at most: as base64, with its lengths. Measuring the session at
        // each write took 120 ns for three (bench `overhead`, row "write three keys").
        let value = change.seen().map_or(0, |value| value.as_str().len());
        let most = (key.len() + value + 16) * 4 / 3 + 4;
        let former = state.changes.insert(key, change);
        if most < state.room {
            state.room -= most;
            return Ok(());
        }
        match self.size_of(state) {
            Some(Size { used, limit }) if used > limit => {
                state.changes.undo(key, former);
                return Err(Error::TooLarge { size: used, limit });
            }
            Some(Size { used, limit }) => state.room = limit - used,
            None => state.room = usize::MAX,
        }
        Ok(())
    }

    /// The one way in which a value is removed.
    fn remove(&self, state: &mut State, key: &str) {
        if self.writable(state).is_err() {
            state.error(
                "a value was taken out of a session after the response head was sent, and stays in it",
            );
            state.lost = true;
            return;
        }
        // After the head, another request may have stored what the snapshot does not have.
        let is_stored =
            state.phase == Phase::Sent || Changes::NONE.over(state.visible()).get(key).is_some();
        if is_stored {
            state.changes.remove(key);
        } else {
            state.changes.undo(key, None);
        }
    }

    /// The one way in which the session as a whole is changed.
    fn change(&self, change: impl FnOnce(&mut Changes)) {
        let mut state = self.look();
        match self.writable(&state) {
            // Of one that takes no writes the commit says that it was not done.
            Ok(()) | Err(Error::ReadOnly) => change(&mut state.changes),
            // Nothing is left of it.
            Err(Error::Ended) => {}
            Err(_) => state.too_late(),
        }
    }

    fn writable(&self, state: &State) -> Result<(), Error> {
        match state.phase {
            Phase::ReadOnly => Err(Error::ReadOnly),
            _ if state.ended => Err(Error::Ended),
            Phase::Open => Ok(()),
            // The client has an id, and the engine alone can keep what is done under it.
            Phase::Sent
                if !self.needs_response()
                    && state.origin.is_none()
                    && state.record().is_some()
                    && !state.changes.is_destroyed() =>
            {
                Ok(())
            }
            Phase::Sent => Err(Error::HeadSent),
        }
    }

    fn size_of(&self, state: &State) -> Option<Size> {
        let manager = &self.0.manager;
        manager.backend().size(state.view(), manager.settings())
    }
}

/// The locked state. What is logged meanwhile is said once it is unlocked: a subscriber of the log may
/// use the session.
struct Locked<'a> {
    state: MutexGuard<'a, State>,
    /// Behind the guard, because fields are dropped in their order.
    after: Lines,
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.after.0 = std::mem::take(&mut self.state.lines);
    }
}

/// A line of the log.
enum Line {
    Warn(Cow<'static, str>),
    Error(Cow<'static, str>),
}

/// Logs its lines when it is dropped.
struct Lines(Vec<Line>);

impl Drop for Lines {
    fn drop(&mut self) {
        for line in self.0.drain(..) {
            match line {
                Line::Warn(text) => log!(WARN, "{text}"),
                Line::Error(text) => log!(ERROR, "{text}"),
            }
        }
    }
}

/// The state in the hands of somebody who reads or writes.
struct Look<'a>(Locked<'a>);

impl Deref for Look<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl DerefMut for Look<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.0
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        if self.0.live.is_some() {
            self.0.write_through();
        }
    }
}

impl State {
    /// Takes what the engine opened; what the cookie itself holds stays sealed until somebody looks.
    fn open(&mut self, opened: Opened, manager: &Manager) {
        match opened {
            Opened::Live(LiveSession(live)) => {
                self.stored = Stored::Known(live.read());
                self.live = Some(live);
            }
            opened => self.take(opened, manager),
        }
    }

    /// Takes what the engine opened, in place of what was known.
    fn take(&mut self, opened: Opened, manager: &Manager) {
        let settings = manager.settings();
        self.origin = None;
        let record = match opened {
            Opened::Loaded(record) => Some(record),
            Opened::Migrating(Migrating { record, place }) => {
                match place {
                    Place::Here(token) => {
                        self.tokens.own = Some(token.0);
                        self.resend = true;
                    }
                    Place::Old(origin) => self.origin = Some(origin),
                }
                Some(record)
            }
            Opened::Refused(why) => {
                self.warn(settings.refused(why));
                None
            }
            Opened::Renewed => {
                self.renewed = true;
                None
            }
            Opened::Nothing | Opened::Ended | Opened::Live(_) => None,
        };
        self.know(record);
    }

    fn let_next(&mut self) {
        self.committing = false;
        self.waiting.drain(..).for_each(Waker::wake);
    }

    /// Takes a record that the backend has just read.
    fn know(&mut self, record: Option<Record>) {
        self.replace(Stored::Known(record));
        // Others may have written to it since somebody looked.
        self.room = 0;
        self.flashes = None;
    }

    /// Replaces what is known of the record. Updates that are still to be committed were computed from
    /// another one, so they must be computed again: no stored record has the version 0, and the commit
    /// finds a conflict.
    fn replace(&mut self, mut stored: Stored) {
        if let Stored::Known(Some(record)) = &mut stored
            && !self.changes.is_empty()
        {
            record.version = 0;
        }
        self.stored = stored;
    }

    fn warn(&mut self, text: impl Into<Cow<'static, str>>) {
        self.lines.push(Line::Warn(text.into()));
    }

    fn error(&mut self, text: impl Into<Cow<'static, str>>) {
        self.lines.push(Line::Error(text.into()));
    }

    /// Does to a live session what was done here, where it can be reached.
    fn write_through(&mut self) {
        let Some(live) = &self.live else { return };
        if self.phase == Phase::Open && !self.changes.is_empty() && live.write(&self.changes) {
            self.changes = Changes::default();
            self.read_through();
        }
    }

    /// Sees what others did to a live session.
    fn read_through(&mut self) {
        if let Some(record) = self.live.as_ref().and_then(|live| live.read()) {
            self.stored = Stored::Known(Some(record));
        }
    }

    fn record(&self) -> Option<&Record> {
        self.stored.record()
    }

    /// What was stored and still shows.
    fn visible(&self) -> Option<&crate::Entries> {
        self.record()
            .map(|record| &record.entries)
            .filter(|_| !self.changes.hide_stored())
    }

    fn view(&self) -> View<'_> {
        self.changes
            .over(self.record().map(|record| &record.entries))
    }

    fn own_keys(&self) -> impl Iterator<Item = &str> {
        self.view()
            .iter()
            .map(|(key, _)| key)
            .filter(|key| !key.starts_with([FLASH, OWN]))
    }

    fn flash_keys(&self) -> impl Iterator<Item = &str> {
        self.view()
            .iter()
            .map(|(key, _)| key)
            .filter(|key| key.starts_with(FLASH))
    }

    fn too_late(&mut self) {
        self.error(
            "a session was cleared, renewed or ended when that could no longer reach the client",
        );
        self.lost = true;
    }

    /// Drops what was done under an id that a renewal replaced shortly before. Returns whether anything
    /// was.
    fn drop_if_renewed(&mut self) -> bool {
        if !self.renewed || self.changes.is_empty() {
            return false;
        }
        self.warn(
            "a request came under an id that a renewal had just replaced; what it wrote is dropped, so \
             that the renewed session stays",
        );
        self.end();
        true
    }

    /// Somebody else ended it: nothing is left, and nothing that was done here comes back.
    fn end(&mut self) {
        self.stored = Stored::Known(None);
        self.settled = None;
        self.changes = Changes::default();
        self.ended = true;
    }

    /// Takes what was done as done. What it returns undoes that.
    fn settle(&mut self) -> Arc<Settled> {
        let settled = Arc::new(Settled {
            changes: std::mem::take(&mut self.changes),
            stored: std::mem::replace(&mut self.stored, Stored::Known(None)),
            committed: self.committed,
            migrates: self.origin.is_some(),
        });
        self.settled = Some(Arc::clone(&settled));
        settled
    }

    /// Shows what was taken as done: not before somebody looks, which after most requests nobody does
    /// (bench `overhead`, row "write three keys").
    fn show_settled(&mut self, settings: &Settings) {
        if let Some(settled) = self.settled.take() {
            self.stored = Stored::Known(settled.record(settings));
        }
    }

    fn unsettle(&mut self, settled: Arc<Settled>) {
        self.settled = None;
        let Settled {
            changes, stored, ..
        } = Arc::unwrap_or_clone(settled);
        let later = std::mem::replace(&mut self.changes, changes);
        self.changes.then(later);
        self.replace(stored);
    }
}

/// What [`State::settle`] took as done.
#[derive(Clone)]
struct Settled {
    changes: Changes,
    stored: Stored,
    committed: Timestamp,
    /// Whether the record that it makes counts its versions from the beginning.
    migrates: bool,
}

impl Settled {
    /// What is stored when it is done.
    fn record(&self, settings: &Settings) -> Option<Record> {
        let stored = self.stored.record();
        let commit = Commit {
            token: None,
            old: None,
            origin: None,
            resend: false,
            stored,
            changes: &self.changes,
            now: self.committed,
            settings,
        };
        let (write, _) = commit.to_write();
        let Some(stored) = stored.filter(|_| !self.changes.is_destroyed()) else {
            return write.begins_a_session().then(|| write.to_record());
        };
        let mut record = stored.clone();
        record.merge(&write);
        record.created = write.created;
        if self.migrates {
            // Another request may have made it: what is there is not known.
            record.version = 0;
        }
        Some(record)
    }
}

/// What a commit keeps of what was done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// All of it.
    All,
    /// All of it; a touch is made even if it is not due.
    Touch,
    /// What survives a failed request; all else is as if nobody had done it.
    End,
    /// The same; all else is left to the next commit.
    EndFirst,
}

/// What begins a [`Session::take`] or [`Session::update_now`].
enum Begun {
    /// The session has to be saved before.
    SaveFirst,
    /// The store has no part in it. What was taken, and what undoes that.
    Here(Option<Value>, Option<Change>),
    /// The store is to be asked.
    Exchanging(Exchanging),
}

/// A [`Backend::exchange`](crate::Backend::exchange) that is under way: no commit begins meanwhile.
struct Exchanging {
    session: Session,
    key: Box<str>,
    token: Option<Box<str>>,
    /// What was done to the key and not stored yet. The exchange includes it.
    former: Option<Change>,
    is_over: bool,
}

impl Exchanging {
    async fn run(&mut self, compute: Arc<Compute>) -> Result<(), Error> {
        let manager = self.session.manager().clone();
        let settings = manager.settings();
        let exchanging = manager.engine_arc().exchange(Exchange {
            token: self.token.as_deref(),
            key: &self.key,
            compute,
            now: settings.now(),
            settings,
        });
        let exchanged = exchanging.await;
        let session = self.session.clone();
        let mut state = session.lock();
        self.end(&mut state, exchanged.is_err());
        match exchanged? {
            Exchanged::Done(record) => {
                state.know(Some(record));
                Ok(())
            }
            Exchanged::Gone => {
                state.end();
                Err(Error::Ended)
            }
        }
    }

    /// Lets the next commit begin.
    fn end(&mut self, state: &mut State, undo: bool) {
        self.is_over = true;
        state.let_next();
        if let Some(former) = self.former.take_if(|_| undo)
            && state.changes.entry(&self.key).is_none()
        {
            state.changes.insert(&*self.key, former);
        }
    }
}

/// Nobody waits for the store any more, so it is not known what it did.
impl Drop for Exchanging {
    fn drop(&mut self) {
        if !self.is_over {
            let session = self.session.clone();
            let mut state = session.lock_unsettled();
            self.end(&mut state, true);
        }
    }
}

/// What a response is told of a commit: that somebody ended the session is no fault of its request.
fn answered(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Ended) => Ok(()),
        result => result,
    }
}

/// A commit that the engine is at.
struct Committing {
    session: Session,
    is_over: bool,
    future: BackendFuture<'static, Result<Reply, Error>>,
    /// Whether something is written, and not only touched.
    writes: bool,
    /// What undoes it, where it shows as done already.
    undo: Option<Arc<Settled>>,
}

/// Nobody waits for the engine any more, so nobody knows what it did. As after an error, the next
/// commit does it again.
impl Drop for Committing {
    fn drop(&mut self) {
        if !self.is_over {
            let session = self.session.clone();
            let mut state = session.lock_unsettled();
            if let Some(undo) = self.let_next(&mut state) {
                state.unsettle(undo);
            }
            session.end_anyway(&state, Keep::EndFirst);
        }
    }
}

impl Committing {
    /// What became of it, if the engine says so at once.
    fn now(mut self) -> Result<Result<(), Error>, Self> {
        match self.future.take_now() {
            Some(result) => Ok(self.take(result)),
            None => Err(self),
        }
    }

    /// Waits for the engine.
    async fn end(mut self) -> Result<(), Error> {
        let result = (&mut self.future).await;
        self.take(result)
    }

    /// Takes what the engine says.
    fn take(mut self, result: Result<Reply, Error>) -> Result<(), Error> {
        let session = self.session.clone();
        let mut state = session.lock_unsettled();
        let undo = self.let_next(&mut state);
        match result {
            Ok(reply) => {
                match &reply {
                    // Nobody asks a cookie engine again before the next request.
                    Reply::Set { token, .. } if !session.needs_response() => {
                        state.tokens.own = Some(token.as_str().into());
                        state.origin = None;
                        state.resend = false;
                        state.removed = false;
                    }
                    Reply::Set { .. } => {}
                    Reply::Gone => {
                        state.end();
                        state.reply = Reply::Keep;
                        return Err(Error::Ended);
                    }
                    Reply::Remove => state.removed = true,
                    Reply::Keep => return Ok(()),
                }
                state.reply = reply;
                Ok(())
            }
            Err(error) => {
                if let Some(undo) = undo {
                    state.unsettle(undo);
                }
                if self.writes {
                    return Err(error);
                }
                // The session is as it was, only its end did not move.
                let why = crate::error::chain(&error);
                state.warn(format!(
                    "a session's idle timeout could not be prolonged: {why}"
                ));
                Ok(())
            }
        }
    }

    /// Lets the next one begin, and gives what undoes this one.
    fn let_next(&mut self, state: &mut State) -> Option<Arc<Settled>> {
        self.is_over = true;
        state.let_next();
        self.undo.take()
    }
}

fn encode<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<Value, Error> {
    Value::encode(value).map_err(|source| Error::Unserializable {
        key: key.to_owned(),
        source,
    })
}

fn decode<T: DeserializeOwned>(key: &str, value: Value<&str>) -> Result<T, Error> {
    value.decode().map_err(|source| Error::WrongType {
        key: key.to_owned(),
        expected: type_name::<T>(),
        source,
    })
}

/// Shows the engine, and neither keys nor values.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("engine", &self.0.manager.engine())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_may_move_into_any_task_or_thread() {
        fn check<T: Clone + Send + Sync + 'static>() {}
        check::<Session>();
        check::<Manager>();
    }
}
