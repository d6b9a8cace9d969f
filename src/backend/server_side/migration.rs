//! Sessions of a store that migrate, from it and to it.

use std::sync::Arc;

use super::{BURIALS, ServerSide, gone};
use crate::{
    backend::{
        Commit, CommitOutcome, OpenOutcome,
        migration::{Adopt, Claim, Migration},
        session_id::SessionId,
    },
    changes::write::{Applied, Write},
    error::Error,
    expiry::Timestamp,
    future::BackendFuture,
    observer::Operation,
    record::id::{StoreId, Verifier},
    settings::Settings,
    store::{Store, StoreError},
};

/// A server-side session keeps its id when it migrates.
impl<S: Store> Migration for ServerSide<S> {
    fn successor(&self, token: &str, settings: &Settings) -> Option<String> {
        let id = self.accepted(token, settings).ok()?;
        Some(id.text())
    }

    fn claim(self: Arc<Self>, claim: &Commit<'_>) -> BackendFuture<'static, Result<Claim, Error>> {
        let (Some(stored), Some((id, _))) = (claim.stored, claim.token.and_then(SessionId::parse))
        else {
            return BackendFuture::ready(Ok(Claim::Gone));
        };
        let (id, verifier) = (self.cookie(claim.settings).stored(&id), id.verifier());
        let mut write = Write::touch(verifier, claim.now, claim.now, stored.expires);
        write.new_verifier = Some(Verifier::NONE);
        write.clear = true;
        write.if_version = Some(stored.version);
        let values = stored.entries.iter();
        write.expected = values
            .map(|(key, value)| (key.into(), Some(value.into_owned())))
            .collect();
        BackendFuture::pending(async move {
            Ok(
                match self
                    .limited(Operation::Apply, id, self.store.apply(id, &write))
                    .await?
                {
                    Applied::Done => Claim::Taken,
                    Applied::Gone => Claim::Gone,
                    Applied::Conflict => {
                        let loading =
                            self.limited(Operation::Load, id, self.store.load(id, write.now));
                        let found = loading.await?.filter(|record| record.verifier == verifier);
                        found.map_or(Claim::Gone, Claim::Changed)
                    }
                },
            )
        })
    }

    fn records(self: Arc<Self>) -> Option<Arc<dyn Adopt>> {
        Some(self)
    }
}

impl<S: Store> Adopt for ServerSide<S> {
    fn token(&self, successor: &str, settings: &Settings) -> String {
        match SessionId::parse(successor) {
            Some((id, _)) => self.cookie(settings).token(&id),
            None => successor.to_owned(),
        }
    }

    fn open_successor(
        self: Arc<Self>,
        successor: &str,
        settings: &Settings,
    ) -> BackendFuture<'static, Result<OpenOutcome, Error>> {
        match SessionId::parse(successor) {
            Some((id, _)) => BackendFuture::pending(self.open_id(id, settings)),
            None => BackendFuture::ready(Ok(OpenOutcome::Nothing)),
        }
    }

    fn adopt(
        self: Arc<Self>,
        successor: &str,
        commit: &Commit<'_>,
    ) -> BackendFuture<'static, Result<(CommitOutcome, bool), Error>> {
        let (Some(stored), Some((id, _))) = (commit.stored, SessionId::parse(successor)) else {
            return BackendFuture::ready(Ok((CommitOutcome::Gone, false)));
        };
        let cookie = self.cookie(commit.settings);
        let new = commit.changes.is_renewed().then(|| id.renewed());
        let (mut write, updates) = commit.to_write();
        write.verifier = id.verifier();
        write.new_verifier = new.as_ref().map(SessionId::verifier);
        // What was computed from the old record is computed again from the one that is there.
        write.if_version = (!updates.is_empty()).then_some(0);
        // Nor does the old record's end say anything of this one.
        write.seen_expires = None;
        let mut whole = Write::touch(
            write.new_verifier.unwrap_or(write.verifier),
            write.created,
            write.now,
            write.expires,
        );
        whole.user = write
            .user
            .clone()
            .or_else(|| stored.user.as_deref().map(Box::from));
        let view = commit.changes.over(Some(&stored.entries));
        whole.set = view
            .iter()
            .map(|(key, value)| (key.into(), value.into_owned()))
            .collect();
        BackendFuture::pending(async move {
            let at = cookie.stored(&id);
            let created = self
                .limited(Operation::Create, at, self.store.create(at, &whole))
                .await?;
            if !created && self.write(at, write, &updates).await? != Applied::Done {
                return Ok((gone(), false));
            }
            let reply = cookie.reply(&new.unwrap_or(id), whole.expires);
            Ok((reply, created))
        })
    }

    fn bury(
        self: Arc<Self>,
        id: StoreId,
        now: Timestamp,
        until: Timestamp,
    ) -> BackendFuture<'static, Result<(), Error>> {
        // It begins before all renewals, so that it is never taken for one.
        let tombstone = Write::touch(Verifier::NONE, Timestamp::from_millis(0), now, until);
        BackendFuture::pending(async move {
            // A request that migrates the session may create it between the two calls, but each of
            // those that are under way does so once.
            for _ in 0..BURIALS {
                if self
                    .limited(Operation::Create, id, self.store.create(id, &tombstone))
                    .await?
                {
                    return Ok(());
                }
                self.limited(Operation::Destroy, id, self.store.destroy(id))
                    .await?;
                self.awaited.tell(id);
            }
            Err(Error::unavailable(StoreError::Corrupt {
                store: self.store.name(),
                why: "a record that was destroyed is there again each time",
            }))
        })
    }
}
