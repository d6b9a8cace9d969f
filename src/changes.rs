//! The changes that a request makes to its session.

use std::{borrow::Borrow, collections::BTreeMap, fmt, sync::Arc};

use crate::{error::Error, record::entries::Entries, value::Value};

pub(crate) mod limit;
pub(crate) mod write;

#[cfg(feature = "server-side")]
use self::limit::Limit;

/// The changes that a request makes to its session: keys set or removed, clearing, renewing,
/// destroying.
///
/// A backend writes these and never a whole session. If it can merge, two requests that change
/// different keys do not overwrite each other.
///
/// ```
/// use session_manager::{backend::Changes, store::Value};
///
/// let mut changes = Changes::default();
/// changes.set("name", Value::Text("Ada".into()));
/// changes.clear();
/// changes.set("name", Value::Text("Grace".into()));
/// assert!(changes.is_cleared());
/// assert_eq!(changes.entries().count(), 1);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Changes {
    entries: BTreeMap<Box<str>, Change>,
    user: Option<Box<str>>,
    /// How many sessions `user` may have.
    #[cfg(feature = "server-side")]
    limit: Option<Limit>,
    cleared: bool,
    renewed: bool,
    destroyed: bool,
}

/// The change that a request makes to one key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Change {
    /// Sets the key to this value.
    Set(Value),
    /// Removes the key.
    Remove,
    /// Applies a function to the value that is stored at commit time.
    Update(Update),
}

/// A function and its result in this request. The commit applies the function again, to the value
/// that is stored then.
#[derive(Clone)]
pub struct Update {
    pub(crate) result: Value,
    pub(crate) apply: Arc<Apply>,
}

type Apply = dyn Fn(Option<Value<&str>>) -> Result<Value, Error> + Send + Sync;

impl Update {
    /// Returns the result for the value that the request saw.
    pub fn result(&self) -> &Value {
        &self.result
    }

    /// Applies the function to `stored`.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] if the stored value has another type than the function takes,
    /// [`Error::Unserializable`] if JSON cannot express the result.
    pub fn apply(&self, stored: Option<Value<&str>>) -> Result<Value, Error> {
        (self.apply)(stored)
    }
}

impl fmt::Debug for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Update")
            .field("result", &self.result)
            .finish_non_exhaustive()
    }
}

impl Change {
    /// Returns the value that the request sees under the key after this change.
    pub(crate) fn value(&self) -> Option<Value<&str>> {
        match self {
            Self::Set(value) | Self::Update(Update { result: value, .. }) => Some(value.borrowed()),
            Self::Remove => None,
        }
    }
}

impl Changes {
    pub(crate) const NONE: &Self = &Self {
        entries: BTreeMap::new(),
        user: None,
        #[cfg(feature = "server-side")]
        limit: None,
        cleared: false,
        renewed: false,
        destroyed: false,
    };

    /// Returns `true` if the request changed nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
            && self.user.is_none()
            && !self.cleared
            && !self.renewed
            && !self.destroyed
    }

    /// Returns `true` if all stored values are removed, before [`entries`](Self::entries) apply.
    pub fn is_cleared(&self) -> bool {
        self.cleared
    }

    /// Returns `true` if the session gets a new id, and its timeouts restart.
    pub fn is_renewed(&self) -> bool {
        self.renewed
    }

    /// Returns `true` if the session was destroyed. Any [`entries`](Self::entries) start a new one.
    pub fn is_destroyed(&self) -> bool {
        self.destroyed
    }

    /// Returns the user that the request set, if any.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Iterates over the changed keys and their changes.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Change)> {
        self.entries.iter().map(|(key, change)| (&**key, change))
    }

    /// Sets `key` to `value`.
    pub fn set(&mut self, key: impl Into<Box<str>>, value: Value) {
        self.insert(key, Change::Set(value));
    }

    /// Removes `key`.
    pub fn remove(&mut self, key: impl Into<Box<str>>) {
        self.insert(key, Change::Remove);
    }

    /// Removes all values.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.cleared = true;
    }

    /// Sets the user of the session.
    pub fn set_user(&mut self, user: impl Into<Box<str>>) {
        self.user = Some(user.into());
        #[cfg(feature = "server-side")]
        {
            self.limit = None;
        }
    }

    /// Sets the user of the session, if the limit of the user's sessions allows it.
    #[cfg(feature = "server-side")]
    pub(crate) fn set_user_limited(&mut self, user: &str, limit: Limit) {
        self.set_user(user);
        self.limit = Some(limit);
    }

    /// Returns how many sessions the user may have, if that is limited.
    #[cfg(feature = "server-side")]
    pub(crate) fn limit(&self) -> Option<&Limit> {
        self.limit.as_ref()
    }

    /// Requests a new session id.
    pub fn renew(&mut self) {
        self.renewed = true;
    }

    /// Appends later changes.
    pub(crate) fn then(&mut self, later: Self) {
        if later.destroyed {
            *self = later;
            return;
        }
        if later.cleared {
            self.clear();
        }
        self.renewed |= later.renewed;
        if later.user.is_some() {
            self.user = later.user;
            #[cfg(feature = "server-side")]
            {
                self.limit = later.limit;
            }
        }
        for (key, change) in later.entries {
            let change = match change {
                Change::Update(update) => self.compose(&key, update),
                change => change,
            };
            self.insert(key, change);
        }
    }

    /// Returns the change that applies `update` after the former change of `key`.
    pub(crate) fn compose(&self, key: &str, update: Update) -> Change {
        match self.entry(key) {
            Some(Change::Update(former)) => {
                let (former, Update { result, apply }) = (Arc::clone(&former.apply), update);
                let apply = Arc::new(move |value: Option<Value<&str>>| {
                    apply(Some(former(value)?.borrowed()))
                });
                Change::Update(Update { result, apply })
            }
            None if !self.hide_stored() => Change::Update(update),
            // This request determined the former value, so the result is final.
            _ => Change::Set(update.result),
        }
    }

    /// Applies each update to the current value in `stored`.
    ///
    /// # Errors
    ///
    /// The same as [`Update::apply`]; some updates may have been applied before.
    pub(crate) fn recompute(&mut self, stored: &Entries) -> Result<(), Error> {
        for (key, change) in &mut self.entries {
            if let Change::Update(update) = change {
                update.result = update.apply(stored.get(key))?;
            }
        }
        Ok(())
    }

    /// Destroys the session and discards all former changes.
    pub fn destroy(&mut self) {
        *self = Self {
            destroyed: true,
            ..Self::default()
        };
    }

    pub(crate) fn insert(&mut self, key: impl Into<Box<str>>, change: Change) -> Option<Change> {
        self.entries.insert(key.into(), change)
    }

    /// Restores the change that [`insert`](Self::insert) returned.
    pub(crate) fn undo(&mut self, key: &str, former: Option<Change>) {
        match former {
            Some(change) => self.insert(key, change),
            None => self.entries.remove(key),
        };
    }

    /// Discards the change of `key` and returns it.
    pub(crate) fn forget(&mut self, key: &str) -> Option<Change> {
        self.entries.remove(key)
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Change> {
        self.entries.get(key)
    }

    /// Returns `true` if the request no longer sees stored values.
    pub(crate) fn hide_stored(&self) -> bool {
        self.cleared || self.destroyed
    }

    /// Returns the changes that are kept if the request fails: only the destruction, so that a
    /// logout is never undone.
    pub(crate) fn surviving_failure(&self) -> Self {
        Self {
            destroyed: self.destroyed,
            ..Self::default()
        }
    }

    /// Returns the changes after the destruction, which are committed after it.
    pub(crate) fn after_end(self) -> Self {
        Self {
            destroyed: false,
            ..self
        }
    }

    /// Returns the session as the request sees it: `stored` with these changes applied.
    ///
    /// ```
    /// use session_manager::{backend::Changes, store::{Entries, Value}};
    ///
    /// let stored: Entries = [("a", Value::Json("1")), ("b", Value::Json("2"))].into_iter().collect();
    /// let mut changes = Changes::default();
    /// changes.remove("a");
    /// let view = changes.over(Some(&stored));
    /// assert_eq!(view.get("a"), None);
    /// assert_eq!(view.get("b"), Some(Value::Json("2")));
    /// ```
    pub fn over<'a>(&'a self, stored: Option<&'a Entries>) -> View<'a> {
        View {
            stored: stored.filter(|_| !self.hide_stored()),
            changes: self,
        }
    }
}

/// A session as its request sees it: the stored values with the request's changes applied.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    stored: Option<&'a Entries>,
    changes: &'a Changes,
}

impl<'a> View<'a> {
    /// Returns the request's changes.
    #[cfg(feature = "server-side")]
    pub(crate) fn changes(self) -> &'a Changes {
        self.changes
    }

    /// Returns the session as it would be with other changes.
    #[cfg(feature = "server-side")]
    pub(crate) fn with(self, changes: &'a Changes) -> Self {
        let stored = self.stored;
        View { stored, changes }
    }

    /// Returns the value under `key`.
    pub fn get(&self, key: &str) -> Option<Value<&'a str>> {
        match self.changes.entries.get(key) {
            Some(change) => change.value(),
            None => self.stored?.get(key),
        }
    }

    /// Iterates over all keys and values: first the unchanged stored ones, then those the request
    /// set.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Value<&'a str>)> + use<'a> {
        let changed = &self.changes.entries;
        let stored = self.stored.into_iter().flat_map(Entries::iter);
        let untouched = stored.filter(move |(key, _)| {
            changed.is_empty() || !changed.contains_key::<str>(key.borrow())
        });
        let set = changed
            .iter()
            .filter_map(|(key, change)| Some((&**key, change.value()?)));
        untouched.chain(set)
    }

    /// Returns the total size of keys and values in bytes. The cost depends on the number of
    /// changes, not on the size of the session.
    #[cfg(feature = "server-side")]
    pub(crate) fn bytes(&self) -> usize {
        let stored = self.stored.map_or(0, Entries::bytes);
        let changed = self.changes.entries.iter();
        changed.fold(stored, |bytes, (key, change)| {
            let len = |value: Value<&str>| key.len() + value.as_str().len();
            let old = self.stored.and_then(|stored| stored.get(key));
            bytes + change.value().map_or(0, len) - old.map_or(0, len)
        })
    }

    /// Returns `true` if there are no values.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}
