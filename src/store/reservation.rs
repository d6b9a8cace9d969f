//! How many sessions a user may have: the ability of a store to count and reserve in one step.

use std::collections::HashSet;

use super::StoreError;
use crate::{
    changes::write::Write,
    expiry::Timestamp,
    future::BackendFuture,
    record::id::{StoreId, Verifier},
};

/// Limits how many sessions a user has: an ability that [`UserIndex::limit`](super::UserIndex::limit)
/// returns. [`Session::set_user_limited`](crate::Session::set_user_limited) needs it.
///
/// A log-in first reserves a place among the user's sessions, then writes the session, then gives the
/// place back with [`destroy_of`](super::UserIndex::destroy_of). Two log-ins at once therefore cannot
/// both take the last place.
///
/// For a store that keeps its records in a map, behind one lock:
///
/// ```
/// use std::{collections::HashMap, sync::Mutex};
/// use session_manager::StoreError;
/// use session_manager::backend::BackendFuture;
/// use session_manager::store::{Record, Reservation, StoreId, UserLimit};
///
/// struct MapStore(Mutex<HashMap<StoreId, Record>>);
///
/// impl UserLimit for MapStore {
///     fn reserve<'a>(
///         &'a self,
///         user: &'a str,
///         place: &'a Reservation,
///     ) -> BackendFuture<'a, Result<bool, StoreError>> {
///         let mut records = self.0.lock().unwrap();
///         let is_live = |record: &Record| {
///             record.user.as_deref() == Some(user) && place.now < record.expires
///         };
///         let live = records.iter().filter(|(_, record)| is_live(record));
///         let is_free = !place.is_full(live.map(|(id, _)| *id));
///         if is_free {
///             records.insert(place.id(), place.write(user).to_record());
///         }
///         BackendFuture::ready(Ok(is_free))
///     }
/// }
/// ```
pub trait UserLimit: Send + Sync {
    /// Reserves a place for a session of `user`; returns `false`, and writes nothing, if the user has
    /// as many live sessions as [`Reservation::max`] already.
    ///
    /// Counts the records that [`sessions_of`](super::UserIndex::sessions_of) lists, by
    /// [`Reservation::is_full`]. If it is not full, it puts the record of [`Reservation::write`] under
    /// [`Reservation::id`], in place of an earlier one. Counting and putting are one step: no other
    /// `reserve` for the same user, in this process or another, comes between. A write that sets the
    /// user without a reservation ([`set_user`](crate::Session::set_user)) may.
    ///
    /// While it counts, a log-in that has reserved may write its session and give its place back. One
    /// of the two must be counted, so a store that does not count at one moment has to see that no
    /// session came meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Store::load`](crate::Store::load). The place may have been reserved; it is free again at
    /// [`Reservation::until`].
    fn reserve<'a>(
        &'a self,
        user: &'a str,
        place: &'a Reservation,
    ) -> BackendFuture<'a, Result<bool, StoreError>>;
}

/// A place among a user's sessions, for one that is about to become the user's.
///
/// It is a record that opens nothing and holds no value. Its id follows from the session's, so that the
/// two count as one while both are there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reservation {
    /// The session that it is for, whether or not it is stored.
    pub session: StoreId,
    /// The most sessions that the user may have, with this one.
    pub max: usize,
    /// Live sessions of the user in another store, which count as well: those that are still to
    /// migrate to this one. A session that is in both counts once.
    pub elsewhere: Vec<StoreId>,
    /// The present moment.
    pub now: Timestamp,
    /// When the place is free again, if it was not given back.
    pub until: Timestamp,
}

impl Reservation {
    /// Creates the reservation of one of `max` places for `session`.
    pub fn new(session: StoreId, max: usize, now: Timestamp, until: Timestamp) -> Self {
        Self {
            session,
            max,
            elsewhere: Vec::new(),
            now,
            until,
        }
    }

    /// Returns the id of its record.
    pub fn id(&self) -> StoreId {
        self.session.place()
    }

    /// Returns `true` if the user has [`max`](Self::max) sessions beside [`session`](Self::session),
    /// where `live` are the ids of the user's live records, reservations among them.
    ///
    /// ```
    /// use session_manager::{Timestamp, store::{Reservation, StoreId}};
    ///
    /// let session = |number| StoreId::from_bytes([number; 32]);
    /// let now = Timestamp::from_millis(1_000);
    /// let place = Reservation::new(session(1), 2, now, now);
    /// assert!(!place.is_full([session(1), session(2)]));
    /// assert!(place.is_full([session(2), session(3)]));
    /// ```
    pub fn is_full(&self, live: impl IntoIterator<Item = StoreId>) -> bool {
        let own = self.id();
        let mut others = HashSet::new();
        let all = self.elsewhere.iter().copied().chain(live);
        let mut places = all.map(StoreId::place).filter(|place| *place != own);
        self.max == 0 || places.any(|place| others.insert(place) && others.len() >= self.max)
    }

    /// Returns what creates its record.
    pub fn write(&self, user: &str) -> Write {
        let mut write = Write::touch(Verifier::NONE, self.now, self.now, self.until);
        write.user = Some(user.into());
        write
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_and_its_reservation_count_as_one_and_its_own_do_not_count() {
        let id = |number| StoreId::from_bytes([number; 32]);
        let now = Timestamp::from_millis(1_000);
        let mut place = Reservation::new(id(1), 2, now, now);
        assert_ne!(place.id(), id(1));
        assert!(place.id().is_place() && !id(1).is_place());
        assert_eq!(place.id().place(), place.id());
        assert!(!place.is_full([id(1), place.id(), id(2), id(2).place()]));
        assert!(place.is_full([id(2), id(3).place()]));
        place.elsewhere = vec![id(1), id(2)];
        assert!(!place.is_full([id(2)]), "a session that is in both stores");
        assert!(place.is_full([id(3)]));
        place.elsewhere.push(id(3));
        assert!(place.is_full([]));
    }
}
