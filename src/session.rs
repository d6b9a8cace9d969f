//! One visitor's data during one request, and what can be done with it.

mod batch;
pub(crate) mod commit;
#[cfg(feature = "server-side")]
mod ended;
mod exchange;
mod facts;
mod limit;
pub(crate) mod namespace;
mod open;
mod state;
mod told;

use std::{
    any::type_name,
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, Mutex, Weak},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    backend::Size,
    changes::{Change, Update},
    error::Error,
    manager::Manager,
    message::Message,
    observer::Event,
    record::id::StoreId,
    session::{
        commit::Keep,
        namespace::Namespace,
        state::{Life, Slot, State},
    },
    value::Value,
};

/// Keys that begin with these are session-manager's own. No text that a person types has them.
const FLASH: char = '\u{1}';

const OWN: char = '\u{2}';

/// The key of what the application noted of a session.
const NOTE: &str = crate::store::SessionSummary::NOTE;

/// How often a value that changes while it is computed from is computed again. Threads that share a
/// session need few; code that changes the value itself each time would never end.
const ROUNDS: usize = 10_000;

pub(crate) fn check_key(key: &str) -> Result<(), Error> {
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
    /// The handle of the thread or the service that this request came to.
    manager: Arc<Manager>,
    /// Whether its middleware follows the process-wide manager.
    is_global: bool,
    /// Whether the framework knows that the request came over https.
    is_https: bool,
    /// The one whose middleware is further out.
    outer: Option<Session>,
    /// The one whose middleware is nearer to the handler, while it is there.
    inner: Mutex<Weak<Inner>>,
    state: Mutex<Slot>,
}

impl Session {
    /// Returns the manager that opened this session and commits it.
    pub fn manager(&self) -> &Manager {
        &self.0.manager
    }

    /// Puts `value` under `key`, in place of what was there: a string as it is, anything else as
    /// JSON.
    ///
    /// Until the response head is sent, a value equal to the known one writes nothing. After that
    /// ([outside a request](crate#outside-a-request)) it is written: another request may have
    /// replaced it meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Unserializable`] if JSON cannot express the value or is not read so deep,
    /// [`Error::TooLarge`] if the session would take more room than its backend has,
    /// [`Error::ReservedKey`], [`Error::HeadSent`] and [`Error::ReadOnly`]. The session is then as
    /// it was.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.add("name", "Ada")?;
    /// session.add("scores", &[1, 2, 3])?;
    /// assert_eq!(session.get("name").as_deref(), Some("Ada"));
    /// assert_eq!(session.get("scores").as_deref(), Some("[1,2,3]"));
    /// # Ok(()) }
    /// ```
    #[doc(alias("insert", "set", "put"))]
    pub fn add(&self, key: &str, value: impl Serialize) -> Result<(), Error> {
        check_key(key)?;
        let value = encode(key, &value)?;
        self.insert(&mut self.look(), key, Change::Set(value))
    }

    /// Returns the value under `key`: a string as it was added, anything else as its JSON text.
    /// `None` if there is none, which is not the same as an empty string.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.add("name", "Ada")?;
    /// assert_eq!(session.get("name").as_deref(), Some("Ada"));
    /// assert_eq!(session.get("nothing"), None);
    /// # Ok(()) }
    /// ```
    #[doc(alias("get_string", "read"))]
    pub fn get(&self, key: &str) -> Option<String> {
        self.look()
            .view()
            .get(key)
            .map(|value| value.as_str().to_owned())
    }

    /// Takes the value under `key` out of the session; in the form that [`get`](Self::get) gives.
    ///
    /// Two overlapping requests may both get it, because each sees the session as it was when it
    /// came. [`take`](Self::take) gives a one-time value to exactly one of them.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.add("return_to", "/cart")?;
    /// assert_eq!(session.pop("return_to").as_deref(), Some("/cart"));
    /// assert_eq!(session.pop("return_to"), None);
    /// # Ok(()) }
    /// ```
    #[doc(alias("remove", "unset", "delete"))]
    pub fn pop(&self, key: &str) -> Option<String> {
        let mut state = self.look();
        let value = state.view().get(key)?.as_str().to_owned();
        self.remove(&mut state, key);
        Some(value)
    }

    /// Reads the value under `key` as a `T`. A string whose content is JSON also loads as a `T`
    /// other than a string.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] if the value is not a `T`.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.add("scores", &[1, 2, 3])?;
    /// assert_eq!(session.load::<Vec<u8>>("scores")?, Some(vec![1, 2, 3]));
    /// assert_eq!(session.load::<Vec<u8>>("nothing")?, None);
    /// assert!(session.load::<bool>("scores").is_err());
    /// # Ok(()) }
    /// ```
    #[doc(alias("get_as", "get_value"))]
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
    /// [`Error::WrongType`] if the value is not a `T`, [`Error::HeadSent`], if it can no longer
    /// be removed. It then stays where it is.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.add("attempts", 3)?;
    /// assert!(session.pop_load::<bool>("attempts").is_err());
    /// assert_eq!(session.pop_load::<u8>("attempts")?, Some(3));
    /// # Ok(()) }
    /// ```
    #[doc(alias("remove", "unset", "remove_as", "remove_value"))]
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

    /// How many flash messages a session keeps, far more than a page can show. Requests that
    /// overlap may leave more, until the next message.
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
    #[doc(alias("message", "notice"))]
    pub fn flash(&self, message: impl Into<Message>) -> Result<(), Error> {
        let message = message.into();
        let value = encode("flash message", &message.to_stored())?;
        let now = self.0.manager.settings().now().millis();
        let mut state = self.look();
        // Each message has a key of its own, so that messages left by requests that overlap all
        // survive: ordered by a time after that of the last one, then told apart by chance. The
        // chance needs no secrecy, so the standard library's hash keys serve.
        let (last, count) = match state.pending.flashes {
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
        state.pending.flashes = Some((time, count + 1));
        if count >= Self::MAX_FLASHES {
            let count = self.drop_flashes(&mut state);
            state.pending.flashes = Some((time, count));
        }
        Ok(())
    }

    /// Takes all messages that were left, oldest first. Each is given once; of two requests that
    /// overlap, both may show it, because each sees the session as it was when it came.
    #[doc(alias("messages"))]
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
    /// Where the backend can (every server-side one), the commit applies `f` again, to what is
    /// stored
    /// *then*, so that of two overlapping requests neither's update is lost; `f` may therefore run
    /// more than once and should do nothing but compute. In a cookie, the later response wins.
    ///
    /// The returned value is what this request sees. What the commit stores differs if another
    /// request was faster; if the result decides something, such as whether there is credit left,
    /// ask [`update_now`](Self::update_now).
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] if the value is not a `T`; [`Error::UpdateLoop`], if `f` writes to
    /// `key` itself each time it runs; and as [`add`](Self::add). The session is then as it was.
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
            let (next, result) = compute(value.as_ref().map(Value::borrowed))?;
            let mut state = self.look();
            if state.view().get(key) == value.as_ref().map(Value::borrowed) {
                let apply = Arc::new(move |value: Option<Value<&str>>| {
                    compute(value).map(|(_, encoded)| encoded)
                });
                let change = state.pending.changes.compose(key, Update { result, apply });
                self.insert(&mut state, key, change)?;
                return Ok(next);
            }
        }
        Err(Error::UpdateLoop {
            key: key.to_owned(),
        })
    }

    /// Returns `true` if there is a value under `key`.
    #[doc(alias("has", "exists"))]
    pub fn contains_key(&self, key: &str) -> bool {
        self.look().view().get(key).is_some()
    }

    /// Returns all keys, sorted. Flash messages are not among them.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.add("b", 1)?;
    /// session.add("a", 2)?;
    /// assert_eq!(session.keys(), ["a", "b"]);
    /// # Ok(()) }
    /// ```
    #[doc(alias("entries"))]
    pub fn keys(&self) -> Vec<String> {
        let state = self.look();
        let mut keys: Vec<_> = state.own_keys().map(str::to_owned).collect();
        keys.sort_unstable();
        keys
    }

    /// Returns the number of values. Flash messages do not count.
    pub fn len(&self) -> usize {
        self.look().own_keys().count()
    }

    /// Returns `true` if there is no value. Flash messages do not count.
    pub fn is_empty(&self) -> bool {
        self.look().own_keys().next().is_none()
    }

    /// Returns the part of this session whose keys begin with `name` and a dot: where a library
    /// crate keeps its own.
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

    /// Returns the size of the session and its limit; `None` if the backend sets no limit.
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
    #[doc(alias("remove_all"))]
    pub fn clear(&self) {
        self.change(State::clear);
    }

    /// Gives the session a new id and restarts its timeouts; the data stays, and the old id opens
    /// nothing.
    ///
    /// Call it whenever rights change, above all at login: an id planted before is then worth
    /// nothing (session fixation; CVE-2022-25896, OWASP Session Management Cheat Sheet). A cookie
    /// backend has no id, and writes a new cookie.
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
    #[doc(alias("cycle_id", "regenerate", "rotate", "reset_id"))]
    pub fn renew(&self) {
        let mut state = self.look();
        match self.writable(&state) {
            Err(Error::Ended) => {}
            // A new id reaches the client with the response head alone.
            Ok(()) if !state.head.sent => state.pending.changes.renew(),
            Err(Error::ReadOnly) => state.pending.changes.renew(),
            _ => state.too_late(),
        }
    }

    /// Ends the session: the user logs out. What is added afterwards begins a new one.
    ///
    /// It sticks even if the response is a server error. If the store was away when the request
    /// came ([`OnStoreError::Anonymous`](crate::OnStoreError::Anonymous)), the session cannot be
    /// ended: the response is 503, and the client keeps its cookie to log out with later.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.destroy();
    /// session.flash("You are logged out")?;
    /// # Ok(()) }
    /// ```
    #[doc(alias("purge", "flush", "logout", "log_out", "invalidate", "delete"))]
    pub fn destroy(&self) {
        self.change(|state| state.pending.changes.destroy());
    }

    /// Sets the user of this session, so that
    /// [`Manager::user_sessions`](crate::Manager::user_sessions) finds it, or a cookie backend with
    /// `Builder::revocations` can revoke it; at login, as a rule. A
    /// later call replaces it, and ending the session removes it.
    ///
    /// # Errors
    ///
    /// [`Error::NoUserIndex`], if the backend cannot find a user's sessions; and as
    /// [`add`](Self::add).
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.set_user("ada")?;
    /// session.set_note("Firefox on Linux")?;
    /// # Ok(()) }
    /// ```
    #[doc(alias("login", "log_in"))]
    pub fn set_user(&self, user: &str) -> Result<(), Error> {
        self.check_user(user)?;
        let mut state = self.look();
        self.writable(&state)?;
        let stored = state
            .record()
            .filter(|_| !state.pending.changes.is_destroyed());
        let known = state
            .pending
            .changes
            .user()
            .or_else(|| stored?.user.as_deref());
        if known == Some(user) && !state.head.sent {
            return Ok(());
        }
        let before = state.pending.changes.clone();
        state.pending.changes.set_user(user);
        state.pending.room = 0;
        match self.size_of(&state) {
            Some(Size { used, limit }) if used > limit => {
                state.pending.changes = before;
                Err(Error::too_large(used, limit))
            }
            _ => Ok(()),
        }
    }

    fn check_user(&self, user: &str) -> Result<(), Error> {
        if !self.0.manager.has_users() {
            return Err(Error::NoUserIndex {
                backend: self.0.manager.backend_name(),
            });
        }
        check_key(user)
    }

    /// Stores a note that distinguishes this session from the user's others, such as the name of
    /// the device: [`UserSession::note`](crate::UserSession::note) shows it.
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

    /// Returns the handle under which [`Manager::user_sessions`](crate::Manager::user_sessions)
    /// lists this session: no secret, unlike the id in its cookie. `None` before it was first kept,
    /// and where the backend lists none.
    #[doc(alias("id", "session_id"))]
    pub fn handle(&self) -> Option<String> {
        self.handle_of(&self.look())
    }

    fn handle_of(&self, state: &State) -> Option<String> {
        Some(self.id_of(state)?.to_string())
    }

    /// Returns the id under which an index of users lists this session.
    pub(crate) fn id(&self) -> Option<StoreId> {
        self.id_of(&self.look())
    }

    fn id_of(&self, state: &State) -> Option<StoreId> {
        state.record()?;
        let manager = &self.0.manager;
        let here = |token: &str| manager.backend().handle(token, self.settings(state));
        let Some(origin) = &state.origin else {
            return here(state.tokens.own()?);
        };
        let successor = origin.successor.as_ref().map(|token| here(&token.0));
        // To a cookie, it migrates from an index that knows it by its former token.
        successor.flatten().or_else(|| {
            let old = manager.by_age().nth(1)?;
            old.backend().handle(&origin.token.0, old.settings())
        })
    }

    /// Commits the changes now, for code that outlives the response: a spawned task, a stream.
    ///
    /// What it cannot keep stays done here, and the next one keeps it: if the store is away, and if
    /// the caller drops this call before its end (a timeout). An update may then count twice,
    /// because it is not known whether the store had it already.
    ///
    /// While the response is still to come, a cookie backend has nothing to do here: the cookie
    /// goes with the response.
    ///
    /// # Errors
    ///
    /// [`Error::HeadSent`], from then on, if something was done that can no longer reach the
    /// client, and nothing more is kept; [`Error::Ended`], if another request ended or renewed the
    /// session meanwhile, which is then as [`revalidate`](Self::revalidate) says;
    /// [`Error::Unavailable`], if the backend could not keep it, and [`Error::ReadOnly`].
    ///
    /// ```
    /// # async fn f(session: session_manager::Session) -> Result<(), session_manager::Error> {
    /// session.add("progress", 100)?;
    /// session.save().await?;
    /// # Ok(()) }
    /// ```
    #[doc(alias("commit"))]
    pub async fn save(&self) -> Result<(), Error> {
        self.save_all(Keep::All).await
    }

    /// Checks again whether the session still exists, for code that outlives the request in which
    /// it was opened: a WebSocket, a stream, a long task. What others did to it meanwhile shows
    /// from then on, and what was done here and not yet saved stays done.
    ///
    /// A cookie backend without `Builder::revocations` keeps nothing that could tell of a logout: there
    /// it finds only whether the session's time is over. A session that was never kept has nothing to lose, and is `Ok`.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`], if another request ended or renewed the session, or it expired: it is
    /// empty from then on, takes no more writes, and what was not saved is dropped. It is also said
    /// to the code that ended it here. [`Error::Unavailable`], if the backend cannot tell; the session is
    /// then as it was.
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
    #[doc(alias("reload", "refresh"))]
    pub async fn revalidate(&self) -> Result<(), Error> {
        loop {
            self.in_turn(|_| ()).await;
            let (opening, token) = {
                let state = self.look();
                if matches!(state.life, Life::Ended | Life::Removed) {
                    return Err(Error::Ended);
                }
                // There is nothing that could have ended, or it is read again at each look.
                if state.record().is_none() || state.live.is_some() {
                    return Ok(());
                }
                let mut tokens = state.tokens.clone();
                // What this backend keeps, no cookie of an older one brings back.
                tokens.old.take_if(|_| state.origin.is_none());
                if !tokens.name_a_session() {
                    return Ok(());
                }
                let settings = self.settings(&state);
                (self.0.manager.opening(&tokens, settings, &()), tokens.own)
            };
            let opened = opening.await?;
            let mut state = self.lock();
            // A clone ends or renews it in the meantime, so this answer is to another question.
            if matches!(state.life, Life::Ended | Life::Removed)
                || state.in_flight.is_some()
                || state.tokens.own != token
            {
                continue;
            }
            let expires = state.record().map(|record| record.expires);
            state.take(opened, &self.0.manager);
            if state.record().is_some() {
                return Ok(());
            }
            if expires.is_some_and(|expires| expires <= self.0.manager.settings().now()) {
                self.tell(&mut state, Event::Expired);
            }
            state.end();
            return Err(Error::Ended);
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

/// Shows the backend, and neither keys nor values.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("backend", &self.0.manager.backend_name())
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
