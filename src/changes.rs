//! What a request did to its session, as a value.

use std::{borrow::Borrow, collections::BTreeMap, fmt, sync::Arc};

use crate::{error::Error, record::entries::Entries, value::Value};

pub(crate) mod write;

/// What a request did to its session: keys set, keys removed, cleared, renewed, destroyed.
///
/// It is all that an engine gets to write. Nobody ever writes a whole session back, so two requests
/// that touch different keys cannot undo each other's work where the engine can merge.
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
    cleared: bool,
    renewed: bool,
    destroyed: bool,
}

/// What a request did to one key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Change {
    /// The key has this value now.
    Set(Value),
    /// The key is gone.
    Remove,
    /// The key has what a function makes of the value stored at commit time.
    Update(Update),
}

/// What a function made of a value, and the function, to be applied anew to what is stored when the
/// request commits.
#[derive(Clone)]
pub struct Update {
    pub(crate) seen: Value,
    pub(crate) apply: Arc<Apply>,
}

type Apply = dyn Fn(Option<Value<&str>>) -> Result<Value, Error> + Send + Sync;

impl Update {
    /// What the function made of the value that the request saw.
    pub fn seen(&self) -> &Value {
        &self.seen
    }

    /// What it makes of `stored`.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] if what is stored is not what the function takes,
    /// [`Error::Unserializable`] if JSON cannot express what it returns.
    pub fn apply(&self, stored: Option<Value<&str>>) -> Result<Value, Error> {
        (self.apply)(stored)
    }
}

impl fmt::Debug for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Update")
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl Change {
    /// The value that the request itself sees under the key from now on.
    pub(crate) fn seen(&self) -> Option<Value<&str>> {
        match self {
            Self::Set(value) | Self::Update(Update { seen: value, .. }) => Some(value.borrowed()),
            Self::Remove => None,
        }
    }
}

impl Changes {
    pub(crate) const NONE: &Self = &Self {
        entries: BTreeMap::new(),
        user: None,
        cleared: false,
        renewed: false,
        destroyed: false,
    };

    /// Whether the request did nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
            && self.user.is_none()
            && !self.cleared
            && !self.renewed
            && !self.destroyed
    }

    /// Whether everything stored before goes, except what [`entries`](Self::entries) sets.
    pub fn is_cleared(&self) -> bool {
        self.cleared
    }

    /// Whether the session gets a new id, and its timeouts begin anew.
    pub fn is_renewed(&self) -> bool {
        self.renewed
    }

    /// Whether the session ended. What [`entries`](Self::entries) sets begins a new one.
    pub fn is_destroyed(&self) -> bool {
        self.destroyed
    }

    /// Whose session it is from now on, if the request said so.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Each key that the request touched, and what it did to it.
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

    /// Removes everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.cleared = true;
    }

    /// Says whose session it is.
    pub fn set_user(&mut self, user: impl Into<Box<str>>) {
        self.user = Some(user.into());
    }

    /// Asks for a new id.
    pub fn renew(&mut self) {
        self.renewed = true;
    }

    /// Adds what was done later.
    pub(crate) fn then(&mut self, later: Self) {
        if later.destroyed {
            *self = later;
            return;
        }
        if later.cleared {
            self.clear();
        }
        self.renewed |= later.renewed;
        self.user = later.user.or(self.user.take());
        for (key, change) in later.entries {
            let change = match change {
                Change::Update(update) => self.compose(&key, update),
                change => change,
            };
            self.insert(key, change);
        }
    }

    /// `update` of `key`, after what was done to it before.
    pub(crate) fn compose(&self, key: &str, update: Update) -> Change {
        match self.entry(key) {
            Some(Change::Update(former)) => {
                let (former, Update { seen, apply }) = (Arc::clone(&former.apply), update);
                let apply = Arc::new(move |value: Option<Value<&str>>| {
                    apply(Some(former(value)?.borrowed()))
                });
                Change::Update(Update { seen, apply })
            }
            None if !self.hide_stored() => Change::Update(update),
            // What the key holds was said here, so the result is settled.
            _ => Change::Set(update.seen),
        }
    }

    /// Computes each update from what `stored` holds now.
    ///
    /// # Errors
    ///
    /// As [`Update::apply`]; some of them may be computed by then.
    pub(crate) fn recompute(&mut self, stored: &Entries) -> Result<(), Error> {
        for (key, change) in &mut self.entries {
            if let Change::Update(update) = change {
                update.seen = update.apply(stored.get(key))?;
            }
        }
        Ok(())
    }

    /// Ends the session, and forgets what was done to it.
    pub fn destroy(&mut self) {
        *self = Self {
            destroyed: true,
            ..Self::default()
        };
    }

    pub(crate) fn insert(&mut self, key: impl Into<Box<str>>, change: Change) -> Option<Change> {
        self.entries.insert(key.into(), change)
    }

    /// Puts back what [`insert`](Self::insert) returned.
    pub(crate) fn undo(&mut self, key: &str, former: Option<Change>) {
        match former {
            Some(change) => self.insert(key, change),
            None => self.entries.remove(key),
        };
    }

    /// Takes out what was done to `key`.
    pub(crate) fn forget(&mut self, key: &str) -> Option<Change> {
        self.entries.remove(key)
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Change> {
        self.entries.get(key)
    }

    /// Whether nothing stored before shows any more.
    pub(crate) fn hide_stored(&self) -> bool {
        self.cleared || self.destroyed
    }

    /// What remains of the changes when the request fails: logging out sticks, all else is undone.
    pub(crate) fn surviving_failure(&self) -> Self {
        Self {
            destroyed: self.destroyed,
            ..Self::default()
        }
    }

    /// What was done after the session ended, for the commit that follows the one of its end.
    pub(crate) fn after_end(self) -> Self {
        Self {
            destroyed: false,
            ..self
        }
    }

    /// The session as the request sees it: `stored`, and these changes on top.
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

/// A session as its request sees it: what was stored, with the request's changes on top.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    stored: Option<&'a Entries>,
    changes: &'a Changes,
}

impl<'a> View<'a> {
    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<Value<&'a str>> {
        match self.changes.entries.get(key) {
            Some(change) => change.seen(),
            None => self.stored?.get(key),
        }
    }

    /// Every key with its value: those that only the store has, then those that the request set.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Value<&'a str>)> + use<'a> {
        let changed = &self.changes.entries;
        let stored = self.stored.into_iter().flat_map(Entries::iter);
        let untouched = stored.filter(move |(key, _)| {
            changed.is_empty() || !changed.contains_key::<str>(key.borrow())
        });
        let set = changed
            .iter()
            .filter_map(|(key, change)| Some((&**key, change.seen()?)));
        untouched.chain(set)
    }

    /// How many bytes keys and values have. What this takes follows what the request changed, not how
    /// large the session is.
    #[cfg(feature = "server-side")]
    pub(crate) fn bytes(&self) -> usize {
        let stored = self.stored.map_or(0, Entries::bytes);
        let changed = self.changes.entries.iter();
        changed.fold(stored, |bytes, (key, change)| {
            let len = |value: Value<&str>| key.len() + value.as_str().len();
            let old = self.stored.and_then(|stored| stored.get(key));
            bytes + change.seen().map_or(0, len) - old.map_or(0, len)
        })
    }

    /// Whether there is no value at all.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}
