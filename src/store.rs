//! What a store does: it keeps the records of server-side sessions.

use std::{fmt, sync::Arc};

#[cfg(any(feature = "redis", feature = "tower-sessions"))]
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};

use crate::{BackendFuture, Change, Changes, Entries, Record, Timestamp, Update, Value};

#[cfg(feature = "memory")]
pub(crate) mod memory;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub(crate) mod sql;
#[cfg(feature = "tower-sessions")]
pub(crate) mod tower_sessions;
#[cfg(any(
    feature = "postgres",
    feature = "mysql",
    feature = "sqlite",
    feature = "tower-sessions"
))]
mod values;

/// Keeps the records of server-side sessions; [`ServerSide`](crate::ServerSide) makes an engine of
/// it.
///
/// Each method is one step that no other step on the same record comes between, and should be one
/// round trip. A store knows nothing of cookies, flash messages or timeouts: a record ends at
/// [`Record::expires`], and from then on it is as good as gone, whether or not its row is still
/// there. The moment that counts as present is the one that a call passes, never the store's own.
///
/// `session_manager::testing` has the suite that every store passes.
pub trait Store: Send + Sync + 'static {
    /// What a person would call the store, such as `Redis`.
    fn name(&self) -> &'static str;

    /// The record under `id`, whole.
    ///
    /// `None` if there is none or its time is over at `now`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Spoiled`], if what is stored there is no record of this crate; it is left as it
    /// is.
    fn load(
        &self,
        id: StoreId,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send;

    /// Puts a new record under `id`: [`Write::to_record`].
    ///
    /// `false` if a live record is there already, which then stays as it is: ids are drawn from 128
    /// random bits, so a second one is no accident. One whose time is over may be replaced.
    fn create(
        &self,
        id: StoreId,
        write: &Write,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Merges `write` into the record under `id`: each key on its own, a key's value replaced whole.
    /// Keys that `write` does not name stay as whoever wrote last left them.
    ///
    /// Never creates a record: if there is none, or its time is over, that is [`Applied::Gone`]. A
    /// session that was destroyed stays destroyed, whatever was still in flight. A record that
    /// answers to another than [`Write::holder`] was renewed meanwhile, and is as good as gone: that
    /// comes before [`Applied::Conflict`].
    ///
    /// A renewal is a write with a [`Write::new_holder`]. The record stays where it is, and whoever
    /// destroys it ends the renewed session as well.
    fn apply(
        &self,
        id: StoreId,
        write: &Write,
    ) -> impl Future<Output = Result<Applied, StoreError>> + Send;

    /// Removes the record under `id`, whomever it answers to by now. No error if there is none.
    fn destroy(&self, id: StoreId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Returns what finds and ends a user's sessions, if this store has it.
    fn users(&self) -> Option<&dyn UserIndex> {
        None
    }
}

/// Finds and ends the sessions of a user: an ability that not every store has.
///
/// A user may have so many sessions, and such large ones, that no single call is done in time.
/// Lists therefore come in pages, and no method loads a value. How long a page is, the index
/// decides: short enough that a call on it is done within the time limit of a store call. A list
/// goes from page to page until [`Page::next`] is `None`; a session that is there all the while is
/// found at least once, whatever else begins or ends meanwhile.
pub trait UserIndex: Send + Sync {
    /// Returns a page of the live records whose [`Record::user`] is `user`, found by an index and
    /// not by a scan.
    ///
    /// `from` is empty, or the [`Page::next`] of the page before.
    ///
    /// A session is found from the write on that set its user, until it is destroyed, its time is
    /// over or another user is set.
    ///
    /// # Errors
    ///
    /// As [`Store::load`].
    fn sessions_of<'a>(
        &'a self,
        user: &'a str,
        from: &'a [u8],
        now: Timestamp,
    ) -> BackendFuture<'a, Result<Page<SessionSummary>, StoreError>>;

    /// Returns a page of the ids of all records of `user` that are stored, whether or not their time
    /// is over.
    ///
    /// # Errors
    ///
    /// As [`Store::load`].
    fn ids_of<'a>(
        &'a self,
        user: &'a str,
        from: &'a [u8],
    ) -> BackendFuture<'a, Result<Page<StoreId>, StoreError>>;

    /// Removes those of the records under `ids` whose [`Record::user`] is `user`, and returns how
    /// many it removed. Each check and its removal are one step.
    ///
    /// `ids` is at most as long as a page.
    ///
    /// # Errors
    ///
    /// As [`Store::load`]. Some may have been removed by then.
    fn destroy_of<'a>(
        &'a self,
        user: &'a str,
        ids: &'a [StoreId],
    ) -> BackendFuture<'a, Result<usize, StoreError>>;
}

/// How many sessions a page has as a rule. A hundred records of a megabyte each are deleted within a
/// second in every database (`tests/user_sessions.rs`).
#[cfg(any(
    feature = "memory",
    feature = "redis",
    feature = "postgres",
    feature = "mysql",
    feature = "sqlite"
))]
const PAGE: usize = 100;

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items of this part.
    pub items: Vec<T>,
    /// What the next call passes to get the part after it; its form is the index's own. `None` after
    /// the last part.
    pub next: Option<Vec<u8>>,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        let (items, next) = (Vec::new(), None);
        Self { items, next }
    }
}

#[cfg(any(
    feature = "memory",
    feature = "postgres",
    feature = "mysql",
    feature = "sqlite"
))]
impl Page<StoreId> {
    /// Returns a page of a list that is in the order of ids.
    fn in_order(items: Vec<StoreId>) -> Self {
        let last = items.last().filter(|_| items.len() >= PAGE);
        let next = last.map(|last| last.as_bytes().to_vec());
        Self { items, next }
    }
}

/// What a list of a user's sessions shows of one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionSummary {
    /// The record's id.
    pub id: StoreId,
    /// [`Record::created`].
    pub created: Timestamp,
    /// [`Record::seen`].
    pub seen: Timestamp,
    /// [`Record::expires`].
    pub expires: Timestamp,
    /// What [`Session::set_note`](crate::Session::set_note) noted.
    pub note: Option<String>,
}

impl SessionSummary {
    /// The session key of the note.
    pub const NOTE: &str = "\u{2}note";

    /// Returns the summary of a record under `id`, of which no value but the
    /// [note](Self::NOTE) is looked at.
    ///
    /// ```
    /// use session_manager::{Entries, Record, SessionSummary, StoreId, Timestamp, Value};
    ///
    /// let (now, later) = (Timestamp::from_millis(1_000), Timestamp::from_millis(2_000));
    /// let entries: Entries = [(SessionSummary::NOTE, Value::Text("laptop"))].into_iter().collect();
    /// let record = Record::new(now, later, entries);
    /// let summary = SessionSummary::of(StoreId::from_bytes([7; 32]), &record);
    /// assert_eq!(summary.note.as_deref(), Some("laptop"));
    /// ```
    pub fn of(id: StoreId, record: &Record) -> Self {
        let note = record.entries.get(Self::NOTE);
        Self {
            id,
            created: record.created,
            seen: record.seen,
            expires: record.expires,
            note: note.map(|note| note.as_str().to_owned()),
        }
    }
}

/// Writes the type of a SHA-256.
macro_rules! hash {
    ($(#[$docs:meta])* $name:ident) => {
        $(#[$docs])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The one of these 32 bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Its 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        /// The first digits: enough to tell two apart in a log.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let [a, b, c, ..] = self.0;
                write!(f, concat!(stringify!($name), "({:02x}{:02x}{:02x}..)"), a, b, c)
            }
        }
    };
}

hash! {
    /// The name under which a store keeps a session: the SHA-256 of the first part of the id in its
    /// cookie. It stays the same for as long as the session lives, over every renewal.
    ///
    /// Whoever reads the store learns no id that would open a session, and how long a look-up takes
    /// tells nothing of an id (CVE-2019-16782). It is no secret therefore, and is what
    /// [`UserSession::handle`](crate::UserSession::handle) shows.
    StoreId
}

hash! {
    /// Whom a record answers to: the SHA-256 of the second part of the id in the cookie, the secret,
    /// which every renewal draws anew.
    ///
    /// Whoever reads the store learns no secret from it.
    ///
    /// ```
    /// use session_manager::Holder;
    ///
    /// assert_eq!(format!("{:?}", Holder::from_bytes([171; 32])), "Holder(ababab..)");
    /// ```
    Holder
}

impl StoreId {
    /// Returns the id that [`Display`](fmt::Display) wrote so.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return None;
        }
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(bytes))
    }
}

impl Holder {
    /// Nobody: no secret is known that has this SHA-256. A [`Record::new`] answers to nobody.
    pub const NOBODY: Self = Self::from_bytes([0; 32]);

    #[cfg(any(feature = "redis", feature = "tower-sessions"))]
    fn to_text(self) -> String {
        BASE64.encode(self.0)
    }

    /// The holder that was written so.
    #[cfg(any(feature = "redis", feature = "tower-sessions"))]
    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let length = BASE64.decode_slice(text, &mut bytes).ok()?;
        (length == bytes.len()).then_some(Self(bytes))
    }
}

/// 64 hexadecimal digits.
impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // At once, because it is written for every call of a store, and byte by byte takes long.
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (byte, two) in self.0.iter().zip(text.chunks_exact_mut(2)) {
            two[0] = DIGITS[usize::from(byte >> 4)];
            two[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// What is written to a record in one step.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Write {
    /// Whom a record that is written to must answer to; whom a new one does.
    pub holder: Holder,
    /// If there is one: whom the record answers to from now on, which makes the write a renewal.
    /// [`Store::create`] has no use for it.
    pub new_holder: Option<Holder>,
    /// Whether every value that is there goes first.
    pub clear: bool,
    /// Keys and what they hold from now on.
    pub set: Vec<(Box<str>, Value)>,
    /// Keys that go. None of them is in `set`.
    pub remove: Vec<Box<str>>,
    /// If there is one: whose session it is from now on.
    pub user: Option<Box<str>>,
    /// If there is one: write nothing unless the record has this version, and answer
    /// [`Applied::Conflict`].
    pub if_version: Option<u64>,
    /// When the session begins; only [`Store::create`] and a renewal write it.
    pub created: Timestamp,
    /// When it ends if nobody uses it again.
    pub expires: Timestamp,
    /// The present moment: when it was last seen.
    pub now: Timestamp,
}

impl Write {
    /// A write that does nothing but say when the session ends, and that it was seen.
    ///
    /// ```
    /// use session_manager::{Holder, Timestamp, Write};
    ///
    /// let holder = Holder::from_bytes([7; 32]);
    /// let (now, later) = (Timestamp::from_millis(1_000), Timestamp::from_millis(2_000));
    /// assert!(Write::touch(holder, now, now, later).is_touch());
    /// ```
    pub fn touch(holder: Holder, created: Timestamp, now: Timestamp, expires: Timestamp) -> Self {
        Self {
            holder,
            new_holder: None,
            clear: false,
            set: Vec::new(),
            remove: Vec::new(),
            user: None,
            if_version: None,
            created,
            expires,
            now,
        }
    }

    /// Whether no value and no user is written, so that the version stays; a renewal may be one.
    pub fn is_touch(&self) -> bool {
        !self.clear && self.set.is_empty() && self.remove.is_empty() && self.user.is_none()
    }

    /// The keys to set, each with its value.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&str, Value<&str>)> + Clone {
        self.set
            .iter()
            .map(|(key, value)| (&**key, value.borrowed()))
    }

    /// Whether there is anything in it that a new session would be made for.
    pub(crate) fn begins_a_session(&self) -> bool {
        !self.set.is_empty() || self.user.is_some()
    }

    /// The record that this write creates.
    ///
    /// ```
    /// use session_manager::{Holder, Timestamp, Write};
    ///
    /// let (holder, now) = (Holder::from_bytes([7; 32]), Timestamp::from_millis(1_000));
    /// let record = Write::touch(holder, now, now, now).to_record();
    /// assert_eq!((record.holder, record.version), (holder, 1));
    /// ```
    pub fn to_record(&self) -> Record {
        let mut record = Record::new(self.created, self.expires, Entries::default());
        record.merge(self);
        record.holder = self.holder;
        record.version = 1;
        record
    }
}

impl Record {
    /// Does to this record what [`Store::apply`] does to the one that is stored; for stores that keep
    /// records in memory.
    ///
    /// ```
    /// use session_manager::{Applied, Holder, Timestamp, Write};
    ///
    /// let (old, new) = (Holder::from_bytes([7; 32]), Holder::from_bytes([8; 32]));
    /// let (now, later) = (Timestamp::from_millis(1_000), Timestamp::from_millis(2_000));
    /// let mut write = Write::touch(old, now, now, later);
    /// let mut record = write.to_record();
    /// write.new_holder = Some(new);
    /// assert_eq!(record.apply(&write), Applied::Done);
    /// assert_eq!(record.apply(&write), Applied::Gone, "it answers to another now");
    /// ```
    #[must_use = "nothing was written unless it says so"]
    pub fn apply(&mut self, write: &Write) -> Applied {
        if self.expires <= write.now || self.holder != write.holder {
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
        self.seen = write.now;
        self.expires = write.expires;
        if let Some(holder) = write.new_holder {
            self.holder = holder;
            self.created = write.created;
        }
        if let Some(user) = &write.user {
            self.user = Some((&**user).into());
        }
        if !write.is_touch() {
            self.version += 1;
            self.entries.merge(write);
        }
    }
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Applied {
    /// It is there.
    Done,
    /// There is no such record any more, or it answers to another, so nothing was written.
    Gone,
    /// The record is not of the version that the write was made for, so nothing was written.
    Conflict,
}

/// Why a store could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store does not answer, or answers with an error of its own.
    #[error("{store} failed; see the source of this error, and whether the store is up")]
    Failed {
        /// [`Store::name`].
        store: &'static str,
        /// What its client said.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The store took longer than it may.
    #[error("{store} did not answer within {millis} ms; see whether it is up, or allow it more")]
    TimedOut {
        /// [`Store::name`].
        store: &'static str,
        /// The time limit in milliseconds.
        millis: u64,
    },
    /// What is stored is no record of this crate. It was left as it is.
    #[error(
        "{store} holds something under a session's key that session-manager did not write: {why}"
    )]
    Spoiled {
        /// [`Store::name`].
        store: &'static str,
        /// In which way.
        why: &'static str,
    },
}

impl StoreError {
    /// The store `store` failed, and its client said why.
    pub fn failed(
        store: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Failed {
            store,
            source: Arc::new(source),
        }
    }
}

impl Changes {
    /// Splits what a request did into what a store writes and what it must compute anew if another
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
                    write.set.push((key.clone(), update.seen().clone()));
                    updates.push((key, update.clone()));
                }
            }
        }
        (write, updates)
    }
}

#[cfg(feature = "server-side")]
impl Entries {
    /// Brings the keys of `updates` up to what they make of these entries.
    pub(crate) fn recompute(
        &self,
        updates: &[(Box<str>, Update)],
        write: &mut Write,
    ) -> Result<(), crate::Error> {
        for (key, update) in updates {
            let value = update.apply(self.get(key))?;
            if let Some((_, old)) = write.set.iter_mut().find(|(other, _)| other == key) {
                *old = value;
            }
        }
        Ok(())
    }
}
