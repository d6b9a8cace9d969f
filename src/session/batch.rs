//! Changes of several values in one step, and values that are encoded already.

use super::{Session, check_key, state::State};
use crate::{
    backend::Size,
    changes::{Change, Changes},
    error::Error,
    value::Value,
};

impl Session {
    /// Stores `value` under `key`, in place of the former value: as [`add`](Self::add), for a value
    /// that is encoded already.
    ///
    /// # Errors
    ///
    /// [`Error::Unserializable`] if a [`Value::Json`] is not JSON, or is nested deeper than 127
    /// arrays and objects; and as [`add`](Self::add).
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// use session_manager::store::Value;
    ///
    /// session.add_value("cart", Value::Json("[1,2]".into()))?;
    /// assert_eq!(session.load::<Vec<u8>>("cart")?, Some(vec![1, 2]));
    /// assert!(session.add_value("cart", Value::Json("[1,".into())).is_err());
    /// # Ok(()) }
    /// ```
    pub fn add_value(&self, key: &str, value: Value) -> Result<(), Error> {
        check(key, &value)?;
        self.insert(&mut self.look(), key, Change::Set(value))
    }

    /// Applies several changes in one step: all of them, or, if it returns an error, none.
    ///
    /// The order is that of [`Changes`]: destroying or clearing comes first, then each key. Only the
    /// size after all of them counts, so a batch may remove a large value and add another.
    ///
    /// # Errors
    ///
    /// As [`add_value`](Self::add_value), and as [`set_user`](Self::set_user) if the changes name a
    /// user; [`Error::HeadSent`] if the changes renew the session after the response head was sent.
    ///
    /// ```
    /// # fn f(session: &session_manager::Session) -> Result<(), session_manager::Error> {
    /// use session_manager::{backend::Changes, store::Value};
    ///
    /// session.add("old", 1)?;
    /// let mut changes = Changes::default();
    /// changes.remove("old");
    /// changes.set("new", Value::Json("2".into()));
    /// session.apply(changes)?;
    /// assert_eq!(session.keys(), ["new"]);
    /// # Ok(()) }
    /// ```
    pub fn apply(&self, changes: Changes) -> Result<(), Error> {
        for (key, change) in changes.entries() {
            match change {
                Change::Set(value) => check(key, value)?,
                Change::Remove | Change::Update(_) => check_key(key)?,
            }
        }
        if let Some(user) = changes.user() {
            self.check_user(user)?;
        }
        let mut state = self.look();
        self.writable(&state)?;
        if state.head.sent && changes.is_renewed() {
            return Err(Error::HeadSent);
        }
        let before = state.pending.changes.clone();
        self.apply_unmeasured(&mut state, changes);
        state.pending.room = 0;
        state.pending.flashes = None;
        match self.size_of(&state) {
            Some(Size { used, limit }) if used > limit => {
                state.pending.changes = before;
                Err(Error::too_large(used, limit))
            }
            _ => Ok(()),
        }
    }

    /// Returns `true` if the response head was sent.
    #[cfg(feature = "tower-sessions")]
    pub(crate) fn is_answered(&self) -> bool {
        self.lock_unsettled().head.sent
    }

    /// Returns `true` if other code reads and writes the session too.
    #[cfg(feature = "actix-session")]
    pub(crate) fn is_live(&self) -> bool {
        self.lock_unsettled().live.is_some()
    }

    fn apply_unmeasured(&self, state: &mut State, changes: Changes) {
        if changes.is_destroyed() {
            state.pending.changes.destroy();
        }
        if changes.is_cleared() {
            state.clear();
        }
        if changes.is_renewed() {
            state.pending.changes.renew();
        }
        if let Some(user) = changes.user() {
            state.pending.changes.set_user(user);
        }
        for (key, change) in changes.entries() {
            match change {
                Change::Remove => self.remove(state, key),
                Change::Set(value) if !state.head.sent && self.holds(state, key, value) => {}
                Change::Set(_) => drop(state.pending.changes.insert(key, change.clone())),
                Change::Update(update) => {
                    let change = state.pending.changes.compose(key, update.clone());
                    state.pending.changes.insert(key, change);
                }
            }
        }
    }

    /// Returns `true` if the request sees `value` under `key`, whatever others store meanwhile.
    pub(super) fn holds(&self, state: &State, key: &str, value: &Value) -> bool {
        state.view().get(key) == Some(value.borrowed())
            && !matches!(state.pending.changes.entry(key), Some(Change::Update(_)))
    }
}

fn check(key: &str, value: &Value) -> Result<(), Error> {
    check_key(key)?;
    let Value::Json(json) = value else {
        return Ok(());
    };
    // Builds the value, because skipping over it would not count how deep it is nested.
    let checked = serde_json::from_str::<serde_json::Value>(json);
    checked.map(|_| ()).map_err(|source| Error::Unserializable {
        key: key.to_owned(),
        source,
    })
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;

    #[test]
    fn encoded_json_that_could_not_be_read_again_is_an_error() {
        let session = crate::testing::session();
        let deep = |depth| "[".repeat(depth) + &"]".repeat(depth);
        session
            .add_value("key", Value::Json(deep(127).into()))
            .unwrap();
        for json in [deep(128), deep(100_000), "[1,".into(), String::new()] {
            let refused = session.add_value("key", Value::Json(json.into()));
            assert!(matches!(refused, Err(Error::Unserializable { .. })));
        }
        assert!(session.load::<serde_json::Value>("key").unwrap().is_some());
    }
}
