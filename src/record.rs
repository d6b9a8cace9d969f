//! The stored form of a session.

use std::sync::Arc;

use crate::{
    expiry::Timestamp,
    record::{entries::Entries, id::Verifier},
};

pub(crate) mod entries;
pub(crate) mod id;
pub(crate) mod login;

/// The stored form of a session, kept between requests.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Record {
    /// The start of the session, from which the absolute timeout counts.
    pub created: Timestamp,
    /// The time of the last write or touch.
    pub last_seen: Timestamp,
    /// The time when it expires unless it is used again.
    pub expires: Timestamp,
    /// The verifier that a request must present. Backends without a store leave it at
    /// [`Verifier::NONE`].
    pub verifier: Verifier,
    /// The number of writes to its values, for compare-and-set. The first write makes it 1, so a
    /// [`Write::if_version`](crate::store::Write::if_version) of 0 matches no stored record.
    /// A store that compares [`Write::expected`](crate::store::Write::expected) need not count a
    /// write that has a [`Write::seen_expires`](crate::store::Write::seen_expires) and no `if_version`.
    /// Backends that cannot merge leave it at 0.
    pub version: u64,
    /// 48 random bits that distinguish cookie sessions which began in the same millisecond.
    /// Server-side sessions have an id instead and leave it at 0.
    pub identity: u64,
    /// The user whose session this is, if one was set.
    pub user: Option<Arc<str>>,
    /// The values, by key.
    pub entries: Entries,
}

impl Record {
    /// Creates a record without a user, with the verifier [`Verifier::NONE`] and version 0.
    ///
    /// ```
    /// use session_manager::{Timestamp, store::{Entries, Record}};
    ///
    /// let (now, later) = (Timestamp::from_millis(1_000), Timestamp::from_millis(2_000));
    /// assert_eq!(Record::new(now, later, Entries::default()).version, 0);
    /// ```
    pub fn new(created: Timestamp, expires: Timestamp, entries: Entries) -> Self {
        Self {
            created,
            last_seen: created,
            expires,
            verifier: Verifier::NONE,
            version: 0,
            identity: 0,
            user: None,
            entries,
        }
    }
}
