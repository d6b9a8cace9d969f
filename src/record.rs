//! What is kept of one session between two requests.

use std::sync::Arc;

use crate::{
    expiry::Timestamp,
    record::{entries::Entries, id::Holder},
};

pub(crate) mod entries;
pub(crate) mod id;

/// What is kept of one session between two requests.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Record {
    /// When the session began; the absolute timeout counts from here.
    pub created: Timestamp,
    /// When it was last written or touched.
    pub seen: Timestamp,
    /// When it ends if nobody uses it again.
    pub expires: Timestamp,
    /// Whom it answers to. Engines without a store leave it at [`Holder::NOBODY`].
    pub holder: Holder,
    /// How often its values were written, by which a store finds that another request was faster. The
    /// first write makes it 1; a [`Write::if_version`](crate::store::Write::if_version) of 0 matches no stored record.
    /// Engines that cannot merge leave it at 0.
    pub version: u64,
    /// What tells the session apart from others that began in the same millisecond, in a backend that
    /// keeps it in a cookie: 48 random bits. In a store it is 0, because the id does that.
    pub identity: u64,
    /// Whose session it is, where somebody said so.
    pub user: Option<Arc<str>>,
    /// The values, by key.
    pub entries: Entries,
}

impl Record {
    /// A record that was just written, of no user in particular, that answers to nobody.
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
            seen: created,
            expires,
            holder: Holder::NOBODY,
            version: 0,
            identity: 0,
            user: None,
            entries,
        }
    }
}
