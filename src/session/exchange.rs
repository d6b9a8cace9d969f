//! `take` and `update_now`: what is done to the stored session at once.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Serialize, de::DeserializeOwned};

use super::{check_key, decode, encode};
use crate::{
    backend::{Compute, Exchange, Exchanged},
    changes::Change,
    error::Error,
    session::{
        Session,
        commit::Keep,
        state::{Life, State},
    },
    settings::Settings,
    value::Value,
};

impl Session {
    /// Takes the value under `key` out of the *stored* session and reads it as a `T`: of any number
    /// of overlapping requests, exactly one gets it. For one-time values, such as a login token.
    ///
    /// It asks the store, and what it does is done at once: a response that is a server error does
    /// not give the value back. At most one caller gets it, and none if this call is given up or
    /// fails with [`Error::Unavailable`] after the store took it out. A value that this request
    /// itself added, and that is not stored yet, is taken from this request. From then on the
    /// session shows what others wrote, as after [`revalidate`](Self::revalidate).
    ///
    /// A session that still has to migrate ([`migrate_from`](crate::Builder::migrate_from)) is
    /// saved first, with all that was done to it.
    ///
    /// # Errors
    ///
    /// [`Error::NeedsStore`] if the backend is not a server-side one; [`Error::WrongType`] if the
    /// value is not a `T`, and it then stays; [`Error::Ended`] if the session was ended or renewed
    /// meanwhile; [`Error::Unavailable`] if the store does not answer, or always says that another
    /// write was faster; [`Error::HeadSent`], [`Error::ReadOnly`] and [`Error::ReservedKey`].
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
                        self.lock().pending.changes.undo(key, former);
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

    /// Replaces the value under `key` in the *stored* session by what `f` makes of it, and returns
    /// what was stored: not what might be, as [`update`](Self::update) does. For balances and
    /// limits, where the result decides something.
    ///
    /// It asks the store, and what it does is done at once: a response that is a server error does
    /// not undo it. If this call is given up or fails with [`Error::Unavailable`], it may have been
    /// done. `f` may run more than once and should do nothing but compute. What this request did to
    /// `key` before, and did not save yet, counts and is stored with it. From then on the session
    /// shows what others wrote, as after [`revalidate`](Self::revalidate).
    ///
    /// A session that is not stored yet, still has to migrate
    /// ([`migrate_from`](crate::Builder::migrate_from)), or was cleared or destroyed by this
    /// request, is saved first, with all that was done to it.
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
                // No other request knows the session yet.
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

    pub(super) fn needs_store(&self) -> Error {
        Error::NeedsStore {
            backend: self.0.manager.backend_name(),
        }
    }

    pub(super) fn begin_take(&self, state: &mut State, key: &str) -> Result<Begun, Error> {
        self.may_exchange(state)?;
        let is_here = state.record().is_none()
            || state.pending.changes.hide_stored()
            || matches!(
                state.pending.changes.entry(key),
                Some(Change::Set(_) | Change::Remove)
            );
        if is_here {
            let former = state.pending.changes.entry(key).cloned();
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

    pub(super) fn begin_update(&self, state: &mut State, key: &str) -> Result<Begun, Error> {
        self.may_exchange(state)?;
        if state.origin.is_some() {
            return self.migrate_first(state);
        }
        self.writable(state)?;
        Ok(
            if state.pending.changes.hide_stored() && state.record().is_some() {
                Begun::SaveFirst
            } else if state.record().is_none() {
                Begun::Here(None, None)
            } else {
                Begun::Exchanging(self.begin_exchange(state, key))
            },
        )
    }

    /// Checks that the backend can do it and the session takes writes.
    pub(super) fn may_exchange(&self, state: &mut State) -> Result<(), Error> {
        state.head.looked = true;
        match state.life {
            _ if self.needs_response() => Err(self.needs_store()),
            Life::Unread | Life::Unopened => Err(Error::NotLoaded),
            Life::ReadOnly => Err(Error::ReadOnly),
            Life::Ended => Err(Error::Ended),
            Life::Open | Life::Renewed | Life::Removed => Ok(()),
        }
    }

    /// Requests that migrate a session come to one record only if they come to one id.
    pub(super) fn migrate_first(&self, state: &State) -> Result<Begun, Error> {
        self.writable(state)?;
        let origin = state.origin.as_ref();
        match origin.is_some_and(|origin| origin.successor.is_some()) {
            true => Ok(Begun::SaveFirst),
            false => Err(self.needs_store()),
        }
    }

    pub(super) fn begin_exchange(&self, state: &mut State, key: &str) -> Exchanging {
        state.in_flight = Some(Vec::new());
        Exchanging {
            session: self.clone(),
            key: key.into(),
            token: state.tokens.own.clone(),
            by_host: state.by_host.clone(),
            former: state.pending.changes.forget(key),
            is_over: false,
        }
    }
}

/// What begins a [`Session::take`] or [`Session::update_now`].
pub(super) enum Begun {
    /// The session has to be saved before.
    SaveFirst,
    /// The store has no part in it. What was taken, and what undoes that.
    Here(Option<Value>, Option<Change>),
    /// The store is to be asked.
    Exchanging(Exchanging),
}

/// A [`Backend::exchange`](crate::Backend::exchange) that is under way: no commit begins meanwhile.
pub(super) struct Exchanging {
    pub(super) session: Session,
    pub(super) key: Box<str>,
    pub(super) token: Option<Box<str>>,
    pub(super) by_host: Option<Arc<Settings>>,
    /// What was done to the key and not stored yet. The exchange includes it.
    pub(super) former: Option<Change>,
    pub(super) is_over: bool,
}

impl Exchanging {
    pub(super) async fn run(&mut self, compute: Arc<Compute>) -> Result<(), Error> {
        let manager = Arc::clone(&self.session.0.manager);
        let by_host = self.by_host.as_deref();
        let settings = by_host.unwrap_or_else(|| manager.settings());
        let exchanging = manager.backend_arc().exchange(Exchange {
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
    pub(super) fn end(&mut self, state: &mut State, undo: bool) {
        self.is_over = true;
        state.let_next();
        if let Some(former) = self.former.take_if(|_| undo)
            && state.pending.changes.entry(&self.key).is_none()
        {
            state.pending.changes.insert(&*self.key, former);
        }
    }
}

/// An exchange that is dropped may or may not have been done.
impl Drop for Exchanging {
    fn drop(&mut self) {
        if !self.is_over {
            let session = self.session.clone();
            let mut state = session.lock_unsettled();
            self.end(&mut state, true);
        }
    }
}
