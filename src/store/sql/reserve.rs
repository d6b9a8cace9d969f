//! Reserving a place among a user's sessions: one transaction, in which a row of the user's own is
//! locked. A row, because it is a lock in every database, at every isolation level and behind every
//! pooler. It is swept as an expired session is.

use sha2::{Digest, Sha256};

use super::{
    Dialect, SqlStore,
    driver::{Arg, ReserveArgs},
    statements::{column, stored_id},
};
use crate::{
    record::id::{StoreId, Verifier},
    store::{Reservation, StoreError},
};

impl<D: Dialect> SqlStore<D> {
    pub(crate) async fn reserve(
        &self,
        user: &str,
        place: &Reservation,
    ) -> Result<bool, StoreError> {
        let hash = Sha256::digest(user);
        let lock = StoreId::from_bytes(Sha256::digest(hash).into()).place();
        let id = place.id();
        let now = Arg::Int(column(place.now.millis()));
        let until = Arg::Int(column(place.until.millis()));
        let row = |id, user, hash| {
            let (verifier, data) = (Arg::Bytes(Verifier::NONE.as_bytes()), Arg::Text("{}"));
            let (user, hash) = (Arg::BytesOrNull(user), Arg::BytesOrNull(hash));
            vec![
                Arg::Bytes(id),
                verifier,
                now,
                data,
                now,
                until,
                until,
                user,
                hash,
            ]
        };
        let mut lock = row(lock.as_bytes(), None, None);
        lock.push(until);
        // A session and its reservation are two rows, so that these are enough to know.
        let most = place.max.saturating_add(1).saturating_mul(2);
        let most = Arg::Int(column(most.try_into().unwrap_or(u64::MAX)));
        let args = ReserveArgs {
            lock,
            live: [Arg::Bytes(&hash), now, most],
            destroy: [Arg::Bytes(id.as_bytes())],
            create: row(id.as_bytes(), Some(user.as_bytes()), Some(&hash)),
        };
        let is_full = |ids: Vec<Vec<u8>>| {
            place.is_full(ids.into_iter().filter_map(|id| stored_id::<D>(id).ok()))
        };
        let (connections, sql) = (&self.pools.writes, &self.statements.reserve);
        let run = || D::reserve(connections, sql, &args, is_full);
        self.repeat(true, run).await
    }
}
