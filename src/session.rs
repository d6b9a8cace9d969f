//! One visitor's data during one request, and what can be done with it.

use std::{
    any::{Any, type_name},
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    BackendFuture, Change, Changes, Commit, Error, Live, Manager, Message, Namespace, OnStoreError,
    Opened, Record, Reply, Size, Update, Value, View, Write, cookie::Tokens, log::log,
};

/// Keys that begin with these are session-manager's own. No text that a person types has them.
const FLASH: char = '\u{1}';
const OWN: char = '\u{2}';

/// The key of what the application noted of a session.
pub(crate) const NOTE: &str = "\u{2}note";

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
/// It comes from [`Manager::session`] or, in a handler, as an extractor.
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
    /// Whether the cookie that goes to this client is `Secure`.
    secure: bool,
    state: Mutex<State>,
}

struct State {
    /// The session cookies' values as they came.
    tokens: Tokens,
    stored: Stored,
    /// How many moves ago it was stored (`Builder::migrate_from`): 0 if this engine has it.
    age: usize,
    /// Other code has the session in hand too.
    live: Option<Arc<dyn Live>>,
    changes: Changes,
    /// Counts changes, so that `update` sees when one came between.
    version: u64,
    /// Whether anybody read or wrote: the response then depends on the cookie.
    looked: bool,
    phase: Phase,
    /// Whether something was done that can no longer be kept.
    lost: bool,
    /// Whether somebody ended or renewed the session meanwhile.
    ended: bool,
    /// What `save` left for the response head to tell the client.
    reply: Reply,
}

enum Stored {
    /// The engine has still to open it.
    Unopened,
    /// The token holds it, and nobody has looked.
    Sealed,
    Known(Option<Record>),
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
    /// A session that the engine has still to open.
    pub(crate) fn new(manager: Manager, secure: bool, tokens: Tokens) -> Self {
        let state = State {
            tokens,
            stored: Stored::Unopened,
            age: 0,
            live: None,
            changes: Changes::default(),
            version: 0,
            looked: false,
            phase: Phase::Open,
            lost: false,
            ended: false,
            reply: Reply::Keep,
        };
        Self(Arc::new(Inner {
            manager,
            secure,
            state: Mutex::new(state),
        }))
    }

    /// The session, if the engine was asked for it.
    pub(crate) fn loaded(self) -> Result<Self, Error> {
        let is_unopened = matches!(self.lock().stored, Stored::Unopened);
        if is_unopened {
            Err(Error::NotLoaded)
        } else {
            Ok(self)
        }
    }

    /// Asks the engine, if it was not asked yet.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], if the engine cannot tell and
    /// [`OnStoreError::Fail`](crate::OnStoreError::Fail) is in force.
    pub(crate) async fn open(&self) -> Result<(), Error> {
        let opening = {
            let state = self.lock();
            if !matches!(state.stored, Stored::Unopened) {
                return Ok(());
            }
            self.0.manager.opening(&state.tokens, &())
        };
        let opened = opening.await;
        self.opened(opened)
    }

    /// Takes what the engine opened. If it failed, the session may read as empty and take no writes.
    pub(crate) fn opened(&self, opened: Result<Opened, Error>) -> Result<(), Error> {
        let mut state = self.lock();
        match opened {
            // Two who asked at once got the same, and somebody may have written since.
            Ok(_) if !matches!(state.stored, Stored::Unopened) => {}
            Ok(Opened::Sealed) => state.stored = Stored::Sealed,
            Ok(Opened::Live(live)) => {
                state.stored = Stored::Known(live.read());
                state.live = Some(live);
            }
            Ok(opened) => state.take(opened, &self.0.manager),
            Err(error @ Error::Unavailable { .. })
                if self.0.manager.settings().on_store_error() == OnStoreError::Anonymous =>
            {
                log!(
                    ERROR,
                    "{}; the session reads as empty",
                    crate::error::chain(&error)
                );
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
    /// # Errors
    ///
    /// [`Error::Unserializable`] if JSON cannot express the value, [`Error::TooLarge`] if the
    /// session would not fit into its cookie, [`Error::ReservedKey`], [`Error::HeadSent`] and
    /// [`Error::ReadOnly`]. The session is then as it was.
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
        self.look()
            .view()
            .get(key)
            .map(|value| decode(key, value))
            .transpose()
    }

    /// Takes the value under `key` out of the session and reads it as a `T`.
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
        let mut state = self.look();
        let value = state
            .view()
            .get(key)
            .map(|value| decode(key, value))
            .transpose()?;
        if value.is_some() {
            self.writable(&state)?;
            self.remove(&mut state, key);
        }
        Ok(value)
    }

    /// Leaves a message for the next page that calls [`flashes`](Self::flashes), in this request or
    /// a later one. A plain string becomes [`Message::info`].
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
        let last = state.flash_keys().max();
        let last = last.and_then(|key| u64::from_str_radix(key.get(1..12)?, 16).ok());
        let time = last.map_or(now, |last| now.max(last + 1));
        let chance = RandomState::new().build_hasher().finish() as u32;
        let key = format!("{FLASH}{time:011x}{chance:08x}");
        self.insert(&mut state, &key, Change::Set(value))
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
                None => log!(WARN, "a flash message that cannot be read was dropped"),
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
    /// # Errors
    ///
    /// [`Error::WrongType`], if what is there is no `T`, and as [`add`](Self::add). The session is
    /// then as it was.
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
        let (next, seen, mut state) = loop {
            let (version, value) = {
                let state = self.look();
                (state.version, state.view().get(key).map(Value::into_owned))
            };
            let (next, seen) = compute(value.as_ref().map(Value::borrowed))?;
            let state = self.look();
            if state.version == version {
                break (next, seen, state);
            }
        };
        let change = match state.changes.entry(key) {
            Some(Change::Update(former)) => {
                let former = Arc::clone(&former.apply);
                let apply = Arc::new(move |value: Option<Value<&str>>| {
                    compute(Some(former(value)?.borrowed())).map(|(_, encoded)| encoded)
                });
                Change::Update(Update { seen, apply })
            }
            None if !state.changes.hide_stored() => {
                let apply = Arc::new(move |value: Option<Value<&str>>| {
                    compute(value).map(|(_, encoded)| encoded)
                });
                Change::Update(Update { seen, apply })
            }
            // This request said what the key holds, so the result is settled.
            _ => Change::Set(seen),
        };
        self.insert(&mut state, key, change)?;
        Ok(next)
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
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.renew();
    /// session.add("user", "ada")?;
    /// # Ok(()) }
    /// ```
    pub fn renew(&self) {
        let mut state = self.look();
        // A new id reaches the client with the response head alone.
        if state.phase == Phase::Open {
            state.changes_mut().renew();
        } else {
            state.too_late();
        }
    }

    /// Ends the session: logging out. What is added afterwards begins a new one.
    ///
    /// It sticks even if the response is a server error.
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
        if !backend.has_user_index() {
            return Err(Error::NoUserIndex {
                engine: backend.engine(),
            });
        }
        check_key(user)?;
        let mut state = self.look();
        self.writable(&state)?;
        let stored = state.record().filter(|_| !state.changes.is_destroyed());
        let known = state.changes.user().or_else(|| stored?.user.as_deref());
        if known != Some(user) {
            state.changes_mut().set_user(user);
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
        let (manager, tokens) = self
            .0
            .manager
            .by_age()
            .zip(state.tokens.by_age())
            .nth(state.age)?;
        Some(manager.backend().handle(tokens.own()?)?.to_string())
    }

    /// Commits now what was done, for code that outlives the response: a spawned task, a stream.
    ///
    /// While the response is still to come, a cookie engine has nothing to do here: the cookie goes
    /// with the response.
    ///
    /// # Errors
    ///
    /// [`Error::HeadSent`], if something was done that can no longer reach the client,
    /// [`Error::Ended`], if somebody ended the session meanwhile, [`Error::Unavailable`], if the
    /// engine could not keep it, and [`Error::ReadOnly`].
    ///
    /// ```
    /// # async fn f(session: session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.add("progress", 100)?;
    /// session.save().await?;
    /// # Ok(()) }
    /// ```
    pub async fn save(&self) -> Result<(), Error> {
        let committing = {
            let mut state = self.lock();
            match state.phase {
                Phase::ReadOnly => return Err(Error::ReadOnly),
                _ if state.lost => return Err(Error::HeadSent),
                _ if self.needs_response() => return Ok(()),
                Phase::Open | Phase::Sent => self.begin_commit(&mut state, true, &()),
            }
        };
        let Some(committing) = committing else {
            return Ok(());
        };
        match self.end_commit(committing).await? {
            Reply::Keep => {}
            Reply::Gone => return Err(Error::Ended),
            reply => self.lock().reply = reply,
        }
        Ok(())
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
    /// from then on, and takes no more writes. [`Error::Unavailable`], if the engine cannot tell;
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
        let opening = {
            let state = self.look();
            if state.ended {
                return Err(Error::Ended);
            }
            // There is nothing that could have ended, or it is read anew at each look.
            if state.record().is_none() || state.tokens.own.is_none() || state.live.is_some() {
                return Ok(());
            }
            self.0.manager.opening(&state.tokens, &())
        };
        let opened = opening.await?;
        let mut state = self.lock();
        state.take(opened, &self.0.manager);
        if state.record().is_some() {
            return Ok(());
        }
        state.ended = true;
        Err(Error::Ended)
    }

    /// Keeps what the request did, and says what its response has to carry. Called once, before the
    /// head is sent; `request` is what the framework still has of it.
    pub(crate) fn commit(
        &self,
        succeeded: bool,
        request: &dyn Any,
    ) -> impl Future<Output = Result<Headers, Error>> + use<'_> {
        let settings = self.0.manager.settings();
        let mut state = self.lock();
        let vary = state.looked;
        let saved = std::mem::replace(&mut state.reply, Reply::Keep);
        let mut committing = None;
        if state.phase == Phase::Open {
            let keep = succeeded || settings.commit_on_server_error();
            if let Some(live) = state.live.clone() {
                state.write_through();
                live.end(keep);
            } else {
                committing = self.begin_commit(&mut state, keep, request);
            }
            state.phase = Phase::Sent;
        }
        drop(state);

        async move {
            let reply = match committing {
                Some(committing) => self.end_commit(committing).await?,
                None => Reply::Keep,
            };
            let reply = if reply == Reply::Keep { saved } else { reply };
            let (cookie, secure) = (settings.cookie(), self.0.secure);
            let set_cookie = match reply {
                Reply::Keep | Reply::Gone => None,
                Reply::Set { token, expires } => {
                    Some(cookie.set(&token, secure, settings.now(), expires))
                }
                Reply::Remove => Some(cookie.remove(secure)),
            };
            let removed = match set_cookie {
                Some(_) => self.removed(),
                None => Vec::new(),
            };
            Ok(Headers {
                set_cookie,
                removed,
                vary,
            })
        }
    }

    /// What removes the cookies that came from managers which this one takes over from.
    fn removed(&self) -> Vec<String> {
        let state = self.lock();
        let old = self.0.manager.by_age().zip(state.tokens.by_age()).skip(1);
        let sent = old.filter(|(_, tokens)| tokens.own.is_some());
        let cookie = self.0.manager.settings().cookie();
        sent.map(|(manager, _)| manager.settings().cookie())
            .filter(|old| !cookie.replaces(old))
            .map(|old| old.remove(self.0.secure))
            .collect()
    }

    /// For a request that ends without a response, by a panic or because its client went away:
    /// ending the session sticks, all else is as if nobody had done it.
    pub(crate) fn abandon(&self) {
        let is_due = {
            let state = self.lock();
            state.phase == Phase::Open && state.changes.is_destroyed()
        };
        if is_due && !self.needs_response() {
            #[cfg(feature = "server-side")]
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                let session = self.clone();
                runtime.spawn(async move {
                    if let Err(error) = session.commit(false, &()).await {
                        let why = crate::error::chain(&error);
                        log!(ERROR, "a session could not be ended: {why}");
                    }
                });
            }
        }
    }

    /// Gives the engine what was done, if anything was or a touch is due. If not `keep`, only what
    /// survives a failed request is given, and all else is as if nobody had done it.
    fn begin_commit(
        &self,
        state: &mut State,
        keep: bool,
        request: &dyn Any,
    ) -> Option<Committing<'_>> {
        let manager = &self.0.manager;
        let settings = manager.settings();
        if !keep {
            state.changes = state.changes.surviving_failure();
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
        let touches = keep && state.record().is_some_and(touch_due);
        if !writes && !touches {
            return None;
        }
        let commit = Commit {
            token: state.tokens.own.as_deref(),
            old: state.tokens.old(),
            age: state.age,
            stored: state.record(),
            changes: &state.changes,
            now,
            settings,
            request,
        };
        // What a cookie engine keeps nobody can write to any more.
        let write = (!self.needs_response()).then(|| commit.to_write().0);
        let future = manager.backend().commit(commit);
        let undo = write.map(|write| Box::new(state.settle(&write)));
        Some(Committing {
            future,
            writes,
            undo,
        })
    }

    /// Waits for the engine.
    async fn end_commit(&self, committing: Committing<'_>) -> Result<Reply, Error> {
        let Committing {
            future,
            writes,
            undo,
        } = committing;
        let result = future.await;
        let mut state = self.lock();
        match result {
            Ok(reply) => {
                match &reply {
                    Reply::Set { token, .. } => {
                        state.tokens.own = Some(token.as_str().into());
                        state.age = 0;
                    }
                    Reply::Gone => {
                        state.stored = Stored::Known(None);
                        state.ended = true;
                    }
                    Reply::Keep | Reply::Remove => {}
                }
                Ok(reply)
            }
            Err(error) => {
                if let Some(undo) = undo {
                    state.unsettle(*undo);
                }
                if writes {
                    return Err(error);
                }
                // The session is as it was, only its end did not move.
                let why = crate::error::chain(&error);
                log!(
                    WARN,
                    "a session's idle timeout could not be prolonged: {why}"
                );
                Ok(Reply::Keep)
            }
        }
    }

    fn needs_response(&self) -> bool {
        self.0.manager.backend().needs_response()
    }

    /// The state, whether or not another thread panicked with it: every change to it is one step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, for somebody who reads or writes; the first one to look unseals it.
    fn look(&self) -> Look<'_> {
        let mut state = self.lock();
        state.looked = true;
        if let Stored::Sealed = state.stored {
            state.take(Opened::Sealed, &self.0.manager);
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
        if let Change::Set(value) = &change
            && state.view().get(key) == Some(value.borrowed())
            && !matches!(state.changes.entry(key), Some(Change::Update(_)))
        {
            return Ok(());
        }
        let former = state.changes_mut().insert(key, change);
        if let Some(Size { used, limit }) = self.size_of(state)
            && used > limit
        {
            state.changes_mut().undo(key, former);
            return Err(Error::TooLarge { size: used, limit });
        }
        Ok(())
    }

    /// The one way in which a value is removed.
    fn remove(&self, state: &mut State, key: &str) {
        if self.writable(state).is_err() {
            log!(
                ERROR,
                "a value was taken out of a session after the response head was sent, and stays in it"
            );
            state.lost = true;
            return;
        }
        let is_stored = Changes::NONE.over(state.visible()).get(key).is_some();
        if is_stored {
            state.changes_mut().remove(key);
        } else {
            state.changes_mut().undo(key, None);
        }
    }

    /// The one way in which the session as a whole is changed.
    fn change(&self, change: impl FnOnce(&mut Changes)) {
        let mut state = self.look();
        if self.writable(&state).is_ok() {
            change(state.changes_mut());
        } else {
            state.too_late();
        }
    }

    fn writable(&self, state: &State) -> Result<(), Error> {
        match state.phase {
            Phase::Open => Ok(()),
            // The client has an id, and the engine alone can keep what is done under it.
            Phase::Sent
                if !self.needs_response()
                    && state.age == 0
                    && state.record().is_some()
                    && !state.changes.is_destroyed() =>
            {
                Ok(())
            }
            Phase::Sent if state.ended => Err(Error::Ended),
            Phase::Sent => Err(Error::HeadSent),
            Phase::ReadOnly => Err(Error::ReadOnly),
        }
    }

    fn size_of(&self, state: &State) -> Option<Size> {
        let manager = &self.0.manager;
        manager.backend().size(state.view(), manager.settings())
    }
}

/// The state in the hands of somebody who reads or writes.
struct Look<'a>(MutexGuard<'a, State>);

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
    /// Takes what the engine opened, in place of what was known.
    fn take(&mut self, opened: Opened, manager: &Manager) {
        let settings = manager.settings();
        let opened = opened.unsealed(manager.backend(), self.tokens.own(), settings);
        let (record, age) = match opened {
            Opened::Loaded(record) => (Some(record), 0),
            Opened::Old(record, age) => (Some(record), age),
            Opened::Refused(why) => {
                settings.log_refused(why);
                (None, 0)
            }
            Opened::Nothing | Opened::Sealed | Opened::Live(_) => (None, 0),
        };
        self.stored = Stored::Known(record);
        self.age = age;
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
        match &self.stored {
            Stored::Unopened | Stored::Sealed => None,
            Stored::Known(record) => record.as_ref(),
        }
    }

    fn changes_mut(&mut self) -> &mut Changes {
        self.version += 1;
        &mut self.changes
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
        log!(
            ERROR,
            "a session was cleared, renewed or ended when that could no longer reach the client"
        );
        self.lost = true;
    }

    /// Takes what was done as done: it shows as stored. What it returns undoes that.
    fn settle(&mut self, write: &Write) -> Settled {
        let changes = std::mem::take(&mut self.changes);
        let stored = std::mem::replace(&mut self.stored, Stored::Known(None));
        self.version += 1;
        let record = match &stored {
            Stored::Known(Some(record)) if !changes.is_destroyed() => {
                let mut record = record.clone();
                record.merge(write);
                record.created = write.created;
                Some(record)
            }
            _ => write.begins_a_session().then(|| write.to_record()),
        };
        self.stored = Stored::Known(record);
        Settled { changes, stored }
    }

    fn unsettle(&mut self, settled: Settled) {
        let later = std::mem::replace(&mut self.changes, settled.changes);
        self.changes.then(later);
        self.stored = settled.stored;
        self.version += 1;
    }
}

/// What [`State::settle`] took as done.
struct Settled {
    changes: Changes,
    stored: Stored,
}

/// A commit that the engine is at.
struct Committing<'a> {
    future: BackendFuture<'a, Result<Reply, Error>>,
    /// Whether something is written, and not only touched.
    writes: bool,
    /// In a box, because every request's future has room for one.
    undo: Option<Box<Settled>>,
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
