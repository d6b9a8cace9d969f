//! What a store writes for a request.

use crate::{
    changes::{Change, Changes, Update},
    expiry::Timestamp,
    record::{Record, entries::Entries, id::Verifier},
    value::Value,
};

/// What is written to a record in one step.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Write {
    /// Whom a record that is written to must answer to; whom a new one does.
    pub verifier: Verifier,
    /// If there is one: whom the record answers to from now on, which makes the write a renewal.
    /// [`Store::create`](crate::Store::create) has no use for it.
    pub new_verifier: Option<Verifier>,
    /// Whether every value that is there goes first.
    pub clear: bool,
    /// Keys and what they hold from now on.
    pub set: Vec<(Box<str>, Value)>,
    /// Keys that go. None of them is in `set`.
    pub remove: Vec<Box<str>>,
    /// If there is one: whose session it is from now on.
    pub user: Option<Box<str>>,
    /// If there is one: write nothing unless the record is the one that the write was computed from,
    /// and answer [`Applied::Conflict`]. That is so if it has this version, or if each key of
    /// [`expected`](Self::expected) has the value there: a store compares either. No record has the
    /// version 0, whatever its values.
    pub if_version: Option<u64>,
    /// With an `if_version`: the keys that the write was computed from, each with the value that it
    /// had, or `None`. A write that clears is computed from all of them, so they are all here, and a
    /// record that has others is another one.
    pub expected: Vec<(Box<str>, Option<Value>)>,
    /// The [`Record::expires`] that the caller loaded, if it loaded the record from this store. As
    /// long as `now` is earlier, a store need not check that the record's time is not over.
    pub seen_expires: Option<Timestamp>,
    /// When the session begins; only [`Store::create`](crate::Store::create) and a renewal write
    /// it.
    pub created: Timestamp,
    /// When the session expires unless it is used again.
    pub expires: Timestamp,
    /// The present moment: when it was last seen.
    pub now: Timestamp,
}

impl Write {
    /// Creates a write that only moves when the session expires and was last seen.
    ///
    /// ```
    /// use session_manager::{Timestamp, store::{Verifier, Write}};
    ///
    /// let verifier = Verifier::from_bytes([7; 32]);
    /// let (now, later) = (Timestamp::from_millis(1_000), Timestamp::from_millis(2_000));
    /// assert!(Write::touch(verifier, now, now, later).is_touch());
    /// ```
    pub fn touch(
        verifier: Verifier,
        created: Timestamp,
        now: Timestamp,
        expires: Timestamp,
    ) -> Self {
        Self {
            verifier,
            new_verifier: None,
            clear: false,
            set: Vec::new(),
            remove: Vec::new(),
            user: None,
            if_version: None,
            expected: Vec::new(),
            seen_expires: None,
            created,
            expires,
            now,
        }
    }

    /// Returns `true` if it writes no value and no user, so that the version stays; a renewal may
    /// be one.
    pub fn is_touch(&self) -> bool {
        !self.clear && self.set.is_empty() && self.remove.is_empty() && self.user.is_none()
    }

    #[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
    /// Iterates over the keys to set and their values.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&str, Value<&str>)> + Clone {
        self.set
            .iter()
            .map(|(key, value)| (&**key, value.borrowed()))
    }

    /// Returns `true` if a new session would be created for it.
    pub(crate) fn begins_a_session(&self) -> bool {
        !self.set.is_empty() || self.user.is_some()
    }

    /// Returns the record that this write creates.
    ///
    /// ```
    /// use session_manager::{Timestamp, store::{Verifier, Write}};
    ///
    /// let (verifier, now) = (Verifier::from_bytes([7; 32]), Timestamp::from_millis(1_000));
    /// let record = Write::touch(verifier, now, now, now).to_record();
    /// assert_eq!((record.verifier, record.version), (verifier, 1));
    /// ```
    pub fn to_record(&self) -> Record {
        let mut record = Record::new(self.created, self.expires, Entries::default());
        record.merge(self);
        record.verifier = self.verifier;
        record.version = 1;
        record
    }
}

impl Record {
    /// Does to this record what [`Store::apply`](crate::Store::apply) does to the one that is
    /// stored; for stores that keep records in memory.
    ///
    /// ```
    /// use session_manager::{Timestamp, store::{Applied, Verifier, Write}};
    ///
    /// let (old, new) = (Verifier::from_bytes([7; 32]), Verifier::from_bytes([8; 32]));
    /// let (now, later) = (Timestamp::from_millis(1_000), Timestamp::from_millis(2_000));
    /// let mut write = Write::touch(old, now, now, later);
    /// let mut record = write.to_record();
    /// write.new_verifier = Some(new);
    /// assert_eq!(record.apply(&write), Applied::Done);
    /// assert_eq!(record.apply(&write), Applied::Gone, "it answers to another now");
    /// ```
    #[must_use = "nothing was written unless it says so"]
    pub fn apply(&mut self, write: &Write) -> Applied {
        if self.expires <= write.now || self.verifier != write.verifier {
            return Applied::Gone;
        }
        if write
            .if_version
            .is_some_and(|version| version != self.version)
        {
            return Applied::Conflict;
        }
        self.merge(write);
        Applied::Done
    }

    /// Merges `write` into the record, whatever that was made for.
    pub(crate) fn merge(&mut self, write: &Write) {
        self.last_seen = write.now;
        self.expires = write.expires;
        if let Some(verifier) = write.new_verifier {
            self.verifier = verifier;
            self.created = write.created;
        }
        if let Some(user) = &write.user {
            self.user = Some((&**user).into());
        }
        if !write.is_touch() {
            self.version += 1;
            self.entries.merge(write.clear, &write.remove, &write.set);
        }
    }
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Applied {
    /// It is there.
    Done,
    /// The record is gone or has another verifier; nothing was written.
    Gone,
    /// The record is not the one that the write was computed from, so nothing was written.
    Conflict,
}

impl Changes {
    /// Splits what a request did into what a store writes and what it must compute again if another
    /// request was faster.
    pub(crate) fn to_write(&self, mut write: Write) -> (Write, Vec<(Box<str>, Update)>) {
        let mut updates = Vec::new();
        write.set.reserve_exact(self.entries().size_hint().0);
        write.clear = self.is_cleared() || self.is_destroyed();
        write.user = self.user().map(Box::from);
        for (key, change) in self.entries() {
            let key: Box<str> = key.into();
            match change {
                Change::Set(value) => write.set.push((key, value.clone())),
                Change::Remove => write.remove.push(key),
                Change::Update(update) => {
                    write.set.push((key.clone(), update.result().clone()));
                    updates.push((key, update.clone()));
                }
            }
        }
        (write, updates)
    }
}

impl Entries {
    /// Returns the values that `updates` are computed from.
    pub(crate) fn expected(
        &self,
        updates: &[(Box<str>, Update)],
    ) -> Vec<(Box<str>, Option<Value>)> {
        let keys = updates.iter().map(|(key, _)| key);
        keys.map(|key| (key.clone(), self.get(key).map(Value::into_owned)))
            .collect()
    }

    /// Brings the keys of `updates` up to what they make of these entries.
    #[cfg(feature = "server-side")]
    pub(crate) fn recompute(
        &self,
        updates: &[(Box<str>, Update)],
        write: &mut Write,
    ) -> Result<(), crate::error::Error> {
        write.expected = self.expected(updates);
        for (key, update) in updates {
            let value = update.apply(self.get(key))?;
            if let Some((_, old)) = write.set.iter_mut().find(|(other, _)| other == key) {
                *old = value;
            }
        }
        Ok(())
    }
}
