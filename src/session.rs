//! One visitor's data during one request, and what can be done with it.

use std::{
    any::{Any, type_name},
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Change, Changes, Commit, Error, Manager, Message, Opened, Record, Reply, Size, Update, Value,
    View, log::log,
};

/// Keys that begin with it are session-manager's own. No text that a person types has it.
const RESERVED: char = '\u{1}';

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
    /// The session cookie's value as it came.
    token: Option<Box<str>>,
    stored: Stored,
    changes: Changes,
    /// Counts changes, so that `update` sees when one came between.
    version: u64,
    /// Whether anybody read or wrote: the response then depends on the cookie.
    looked: bool,
    phase: Phase,
    /// Whether something was taken that could no longer be removed.
    lost: bool,
}

enum Stored {
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
    /// Whether the response depends on the cookie: `Vary: Cookie`.
    pub(crate) vary: bool,
}

impl Session {
    pub(crate) fn new(
        manager: Manager,
        secure: bool,
        token: Option<Box<str>>,
        opened: Opened,
    ) -> Self {
        let stored = match opened {
            Opened::Nothing => Stored::Known(None),
            Opened::Sealed => Stored::Sealed,
            Opened::Loaded(record) => Stored::Known(Some(record)),
        };
        let state = State {
            token,
            stored,
            changes: Changes::default(),
            version: 0,
            looked: false,
            phase: Phase::Open,
            lost: false,
        };
        Self(Arc::new(Inner {
            manager,
            secure,
            state: Mutex::new(state),
        }))
    }

    /// A session that reads as empty and takes no writes.
    pub(crate) fn read_only(manager: Manager, secure: bool) -> Self {
        let session = Self::new(manager, secure, None, Opened::Nothing);
        session.lock().phase = Phase::ReadOnly;
        session
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
        if key.starts_with(RESERVED) {
            return Err(Error::ReservedKey);
        }
        let value = encode(key, &value)?;
        self.insert(&mut self.look(), key, Change::Set(value))
    }

    /// The value under `key`: a string as it was added, anything else as its JSON text. `None` if
    /// there is none, which is not the same as an empty string.
    pub fn get(&self, key: &str) -> Option<String> {
        self.look()
            .view()
            .get(key)
            .map(|value| value.as_str().to_owned())
    }

    /// Takes the value under `key` out of the session; in the form that [`get`](Self::get) gives.
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
    pub fn pop_load<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        let mut state = self.look();
        let value = state
            .view()
            .get(key)
            .map(|value| decode(key, value))
            .transpose()?;
        if value.is_some() {
            state.writable()?;
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
        let key = format!("{RESERVED}{time:011x}{chance:08x}");
        self.insert(&mut state, &key, Change::Set(value))
    }

    /// Takes all messages that were left, oldest first. Each is given once.
    pub fn flashes(&self) -> Vec<Message> {
        let mut state = self.look();
        let mut keys: Vec<String> = state.flash_keys().map(str::to_owned).collect();
        keys.sort_unstable();
        let mut messages = Vec::with_capacity(keys.len());
        for key in keys {
            let stored = state.view().get(&key).and_then(|value| value.decode().ok());
            match stored.and_then(Message::from_stored) {
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
        if key.starts_with(RESERVED) {
            return Err(Error::ReservedKey);
        }
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

    /// How much room the session takes and how much it has; `None` if the engine sets no limit.
    pub fn size(&self) -> Option<Size> {
        self.size_of(&self.look())
    }

    /// Removes all values and all messages, and keeps the session.
    pub fn clear(&self) {
        self.change(|changes| changes.clear());
    }

    /// Gives the session a new id, the same data, and timeouts that begin anew; the old id is dead.
    ///
    /// Call it whenever rights change, above all at login: an id planted before is then worth
    /// nothing (session fixation; CVE-2022-25896, OWASP Session Management Cheat Sheet). A cookie
    /// engine has no id, and writes its cookie anew.
    pub fn renew(&self) {
        self.change(|changes| changes.renew());
    }

    /// Ends the session: logging out. What is added afterwards begins a new one.
    ///
    /// It sticks even if the response is a server error.
    pub fn destroy(&self) {
        self.change(|changes| changes.destroy());
    }

    /// Commits now what was done, for code that outlives the response: a spawned task, a stream.
    ///
    /// While the response is still to come, a cookie engine has nothing to do here: the cookie goes
    /// with the response.
    ///
    /// # Errors
    ///
    /// [`Error::HeadSent`], if something was done that can no longer reach the client, and
    /// [`Error::ReadOnly`].
    pub async fn save(&self) -> Result<(), Error> {
        let state = self.lock();
        match state.phase {
            Phase::ReadOnly => Err(Error::ReadOnly),
            Phase::Sent if state.lost => Err(Error::HeadSent),
            Phase::Open | Phase::Sent => Ok(()),
        }
    }

    /// Keeps what the request did, and says what its response has to carry. Called once, before the
    /// head is sent; `request` is what the framework still has of it.
    pub(crate) fn commit(
        &self,
        succeeded: bool,
        request: &dyn Any,
    ) -> impl Future<Output = Result<Headers, Error>> + use<'_> {
        let Inner {
            manager, secure, ..
        } = &*self.0;
        let settings = manager.settings();
        let mut state = self.lock();
        let vary = state.looked;
        let keep = succeeded || settings.commit_on_server_error();
        let surviving = state.changes.surviving_failure();
        let changes = if keep { &state.changes } else { &surviving };
        let writes = !changes.is_empty();
        let touch = |record: &Record, now| {
            settings
                .expiry()
                .touch_due(record.created, record.expires, now)
        };
        let now = (writes || state.record().is_some()).then(|| settings.now());
        let due = now.filter(|now| {
            let touches = || keep && state.record().is_some_and(|record| touch(record, *now));
            state.phase == Phase::Open && (writes || touches())
        });
        let committing = due.map(|now| {
            let commit = Commit {
                token: state.token.as_deref(),
                stored: state.record(),
                changes,
                now,
                settings,
                request,
            };
            (manager.backend().commit(commit), now)
        });
        if state.phase == Phase::Open {
            state.phase = Phase::Sent;
        }
        drop(state);

        async move {
            let Some((committing, now)) = committing else {
                return Ok(Headers {
                    set_cookie: None,
                    vary,
                });
            };
            let reply = match committing.await {
                Ok(reply) => reply,
                Err(error) if writes => return Err(error),
                Err(error) => {
                    // The session is as it was, only its end did not move.
                    log!(
                        WARN,
                        "a session's idle timeout could not be prolonged: {error}"
                    );
                    Reply::Keep
                }
            };
            let cookie = settings.cookie();
            let set_cookie = match reply {
                Reply::Keep => None,
                Reply::Set { token, expires } => Some(cookie.set(&token, *secure, now, expires)),
                Reply::Remove => Some(cookie.remove(*secure)),
            };
            Ok(Headers { set_cookie, vary })
        }
    }

    /// The state, whether or not another thread panicked with it: every change to it is one step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, for somebody who reads or writes; the first one to look unseals it.
    fn look(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.looked = true;
        if let Stored::Sealed = state.stored {
            let manager = &self.0.manager;
            let token = state.token.as_deref().unwrap_or_default();
            let record = match manager.backend().unseal(token, manager.settings()) {
                Ok(record) => Some(record),
                Err(why) => {
                    manager.settings().log_refused(why);
                    None
                }
            };
            state.stored = Stored::Known(record);
        }
        state
    }

    /// The one way in which a value is written.
    fn insert(&self, state: &mut State, key: &str, change: Change) -> Result<(), Error> {
        state.writable()?;
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
        if state.writable().is_err() {
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
        if state.writable().is_ok() {
            change(state.changes_mut());
        } else {
            log!(
                ERROR,
                "a session was cleared, renewed or ended when that could no longer reach the client"
            );
            state.lost = true;
        }
    }

    fn size_of(&self, state: &State) -> Option<Size> {
        let manager = &self.0.manager;
        manager.backend().size(state.view(), manager.settings())
    }
}

impl State {
    fn record(&self) -> Option<&Record> {
        match &self.stored {
            Stored::Sealed => None,
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
            .filter(|key| !key.starts_with(RESERVED))
    }

    fn flash_keys(&self) -> impl Iterator<Item = &str> {
        self.view()
            .iter()
            .map(|(key, _)| key)
            .filter(|key| key.starts_with(RESERVED))
    }

    fn writable(&self) -> Result<(), Error> {
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Sent => Err(Error::HeadSent),
            Phase::ReadOnly => Err(Error::ReadOnly),
        }
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
