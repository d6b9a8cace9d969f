//! Reserving a place among a user's sessions. In a cluster, no script reaches both the index and the
//! records: the client counts, and a script adds the reservation to the index if that has no other ids
//! than those that were counted.

use redis::{Cmd, Value as Reply};

use super::{APPLY, CREATE, NAME, RESERVE, RedisStore, keep, no_answer, owner_of};
use crate::{
    changes::write::{Applied, Write},
    future::BackendFuture,
    record::id::{StoreId, Verifier},
    store::{PAGE, Reservation, StoreError, UserLimit},
};

/// How often others may come in between: each time, one of them reserved.
const TRIES: usize = 100;

#[derive(Debug, thiserror::Error)]
#[error("too many log-ins of one user at once")]
struct Contended;

impl UserLimit for RedisStore {
    fn reserve<'a>(
        &'a self,
        user: &'a str,
        place: &'a Reservation,
    ) -> BackendFuture<'a, Result<bool, StoreError>> {
        BackendFuture::pending(async move {
            let mut is_new = None;
            for _ in 0..TRIES {
                let (seen, is_full) = self.count(user, place).await?;
                if is_full {
                    if is_new == Some(true) {
                        self.destroy_owned(place.id(), &owner_of(user)).await?;
                    }
                    return Ok(false);
                }
                // The record first: an id without one counts for nothing.
                if is_new.is_none() {
                    is_new = Some(self.put_place(user, place).await?);
                }
                if self.index_place(user, place, &seen).await? {
                    return Ok(true);
                }
            }
            Err(StoreError::failed(NAME, Contended))
        })
    }
}

impl RedisStore {
    /// Returns the ids in the index of `user`, and whether all places are taken.
    async fn count(
        &self,
        user: &str,
        place: &Reservation,
    ) -> Result<(Vec<StoreId>, bool), StoreError> {
        let (mut seen, mut from) = (Vec::new(), Some(Vec::new()));
        while let Some(last) = from {
            let page = self.list(user, &last).await?;
            seen.extend(page.items);
            from = page.next;
        }
        // Reservations first: where one is gone by now, its session is written, and is found after it.
        let (places, sessions): (Vec<_>, Vec<_>) = seen.iter().partition(|id| id.is_place());
        let mut live = Vec::new();
        for ids in places.chunks(PAGE).chain(sessions.chunks(PAGE)) {
            let summaries = self.each(ids.to_vec(), async |store: Self, id| {
                store.summary(id).await
            });
            for summary in summaries.await? {
                match summary {
                    Ok(Some((of, summary))) if of == user && place.now < summary.expires => {
                        live.push(summary.id);
                    }
                    Ok(_) | Err(StoreError::Corrupt { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            if place.is_full(live.iter().copied()) {
                return Ok((seen, true));
            }
        }
        Ok((seen, false))
    }

    /// Puts the record of the reservation, which no index names yet; returns whether there was none.
    async fn put_place(&self, user: &str, place: &Reservation) -> Result<bool, StoreError> {
        let id = place.id();
        let touch = Write::touch(Verifier::NONE, place.now, place.now, place.until);
        let touched = self.write_indexed(&APPLY, id, &touch, "touch", None, "");
        let touched = touched.await?;
        if touched.applied == Applied::Done {
            return Ok(false);
        }
        let owner = owner_of(user);
        let write = place.write(user);
        let created = self.write_indexed(&CREATE, id, &write, "", Some(&owner), "");
        created.await?;
        Ok(true)
    }

    async fn index_place(
        &self,
        user: &str,
        place: &Reservation,
        seen: &[StoreId],
    ) -> Result<bool, StoreError> {
        let kept = keep(&place.write(user));
        let args = |command: &mut Cmd| {
            command.arg(place.id().to_string());
            command.arg(place.now.millis()).arg(kept.millis());
            for id in seen {
                command.arg(id.to_string());
            }
        };
        let key = self.index_key(&owner_of(user));
        match self.run(&RESERVE, &key, args).await? {
            Reply::Array(reply) => Ok(reply.first() == Some(&Reply::Int(1))),
            _ => Err(no_answer()),
        }
    }
}
