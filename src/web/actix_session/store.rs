//! A store of this crate as a store of actix-session.

use std::{collections::HashMap, fmt, time::Duration};

use actix_session::storage::{
    LoadError, SaveError, SessionKey, SessionStore, UpdateError, generate_session_key,
};
use actix_web::cookie::time;

use super::{json, value};
use crate::{
    session::check_key,
    store::Store,
    web::bridge::kept::{Kept, LOADED, Values, now},
};

type SessionState = HashMap<String, String>;

/// Lets an application that keeps `actix_session::SessionMiddleware` store its sessions in any
/// [`Store`] of this crate.
///
/// ```
/// use actix_session::SessionMiddleware;
/// use actix_web::cookie::Key;
/// use session_manager::{MemoryStore, web::StoreForActixSession};
///
/// let store = StoreForActixSession::new(MemoryStore::default());
/// let middleware = SessionMiddleware::new(store, Key::generate());
/// ```
///
/// It passes actix-session's own acceptance suite. actix-session hands a store whole sessions. So that
/// writes still merge by key, a loaded session carries what was loaded under one more key, which begins
/// with U+0002 and is not stored; `Session::entries` shows it.
///
/// | | through actix-session |
/// |---|---|
/// | overlapping requests that write different keys lose nothing | yes, unless one of them calls `clear` |
/// | overlapping updates of one key are all applied | no: the later one wins |
/// | a log-out wins every race | yes: what a late request saves is dropped, and logged |
/// | a renewal never logs out | no: `renew` deletes the record before it creates another one |
/// | the store gets only hashes of the session key | yes |
/// | an expired session is not served | yes |
/// | a time limit for every call | yes: 2 seconds |
/// | `Session::update` is saved | no, unless something else changed: the middleware does not save it |
/// | timeouts | those of `SessionMiddleware` |
pub struct StoreForActixSession<S>(Kept<S>);

impl<S: Store> StoreForActixSession<S> {
    /// Creates a store of actix-session that keeps its sessions in `store`.
    ///
    /// `store` may be the one of a [`ServerSide`](crate::ServerSide): neither finds the other's
    /// sessions.
    pub fn new(store: S) -> Self {
        Self(Kept::new(store, "actix-session"))
    }
}

impl<S: Store> SessionStore for StoreForActixSession<S> {
    async fn load(&self, key: &SessionKey) -> Result<Option<SessionState>, LoadError> {
        let found = self.0.load(key.as_ref().as_bytes()).await;
        let Some(record) = found.map_err(|error| LoadError::Other(error.into()))? else {
            return Ok(None);
        };
        let entries = record.entries.iter();
        let mut state: SessionState = entries
            .map(|(key, value)| (key.to_owned(), json(value)))
            .collect();
        let loaded = serde_json::to_string(&state);
        let loaded = loaded.map_err(|error| LoadError::Deserialization(error.into()))?;
        state.insert(LOADED.to_owned(), loaded);
        Ok(Some(state))
    }

    async fn save(
        &self,
        mut state: SessionState,
        ttl: &time::Duration,
    ) -> Result<SessionKey, SaveError> {
        state.remove(LOADED);
        loop {
            let key = generate_session_key();
            let set = encoded(state.iter()).map_err(SaveError::Serialization)?;
            let values = Values {
                set,
                ..Values::default()
            };
            let created = self
                .0
                .create(key.as_ref().as_bytes(), values, end(ttl))
                .await;
            if created.map_err(|error| SaveError::Other(error.into()))? {
                return Ok(key);
            }
        }
    }

    async fn update(
        &self,
        key: SessionKey,
        state: SessionState,
        ttl: &time::Duration,
    ) -> Result<SessionKey, UpdateError> {
        let mut values = Values::default();
        let present = state.iter().filter(|(key, _)| *key != LOADED);
        let loaded = state.get(LOADED);
        let loaded = loaded.and_then(|json| serde_json::from_str::<SessionState>(json).ok());
        let set = match &loaded {
            Some(loaded) => {
                let gone = loaded.keys().filter(|key| !state.contains_key(*key));
                values.remove = gone.map(|key| key.as_str().into()).collect();
                encoded(present.filter(|(key, json)| loaded.get(*key) != Some(json)))
            }
            // Cleared.
            None => {
                values.clear = true;
                encoded(present)
            }
        };
        values.set = set.map_err(UpdateError::Serialization)?;
        let merged = self
            .0
            .merge(key.as_ref().as_bytes(), values, end(ttl))
            .await;
        merged.map_err(|error| UpdateError::Other(error.into()))?;
        Ok(key)
    }

    async fn update_ttl(&self, key: &SessionKey, ttl: &time::Duration) -> anyhow::Result<()> {
        let touch = Values::default();
        let merged = self.0.merge(key.as_ref().as_bytes(), touch, end(ttl)).await;
        Ok(merged?)
    }

    async fn delete(&self, key: &SessionKey) -> anyhow::Result<()> {
        Ok(self.0.delete(key.as_ref().as_bytes()).await?)
    }
}

fn encoded<'a>(
    state: impl Iterator<Item = (&'a String, &'a String)>,
) -> anyhow::Result<Vec<(Box<str>, crate::value::Value)>> {
    state
        .map(|(key, json)| {
            check_key(key)?;
            Ok((key.as_str().into(), value(json)))
        })
        .collect()
}

/// Returns when a session expires whose time to live begins now.
fn end(ttl: &time::Duration) -> crate::expiry::Timestamp {
    now().plus(Duration::try_from(*ttl).unwrap_or_default())
}

/// Returns another handle of the same store.
impl<S> Clone for StoreForActixSession<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Shows the store's name only.
impl<S: Store> fmt::Debug for StoreForActixSession<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreForActixSession")
            .field(&self.0)
            .finish()
    }
}
