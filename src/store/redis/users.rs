//! The index of users: a sorted set for each user.

use std::{str, sync::Arc};

use redis::{Cmd, Value as Reply};
use tokio::task::JoinSet;

use super::{
    DESTROY, LIST, NAME, RedisStore, SUMMARY, assemble, no_answer, no_meta, owner_of, split_meta,
    text,
};
use crate::{
    changes::write::Applied,
    expiry::Timestamp,
    future::BackendFuture,
    record::{entries::Entries, id::StoreId},
    store::{PAGE, Page, SessionSummary, StoreError, UserIndex, UserLimit},
};

impl UserIndex for RedisStore {
    fn sessions_of<'a>(
        &'a self,
        user: &'a str,
        from: &'a [u8],
        now: Timestamp,
    ) -> BackendFuture<'a, Result<Page<SessionSummary>, StoreError>> {
        BackendFuture::pending(async move {
            let ids = self.list(user, from).await?;
            let summaries = self.each(ids.items, async |store, id| store.summary(id).await);
            let mut found = Vec::new();
            for summary in summaries.await? {
                match summary {
                    Ok(Some((of, summary))) if of == user && now < summary.expires => {
                        found.push(summary);
                    }
                    // An index may name a record of another user by now, or one that is gone.
                    Ok(_) | Err(StoreError::Corrupt { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(Page {
                items: found,
                next: ids.next,
            })
        })
    }

    fn ids_of<'a>(
        &'a self,
        user: &'a str,
        from: &'a [u8],
    ) -> BackendFuture<'a, Result<Page<StoreId>, StoreError>> {
        BackendFuture::pending(self.list(user, from))
    }

    fn destroy_of<'a>(
        &'a self,
        user: &'a str,
        ids: &'a [StoreId],
    ) -> BackendFuture<'a, Result<usize, StoreError>> {
        BackendFuture::pending(async move {
            let owner: Arc<str> = owner_of(user).into();
            let ended = self.each(ids.to_vec(), move |store: Self, id| {
                let owner = Arc::clone(&owner);
                async move { store.destroy_owned(id, &owner).await }
            });
            let mut count = 0;
            for ended in ended.await? {
                match ended {
                    Ok(ended) => count += usize::from(ended),
                    Err(StoreError::Corrupt { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(count)
        })
    }

    fn limit(&self) -> Option<&dyn UserLimit> {
        Some(self)
    }
}

impl RedisStore {
    /// Returns a page of what the index of `user` names.
    pub(super) async fn list(&self, user: &str, from: &[u8]) -> Result<Page<StoreId>, StoreError> {
        let from = str::from_utf8(from).ok().filter(|from| !from.is_empty());
        let args = |command: &mut Cmd| {
            command.arg(from.unwrap_or("0")).arg(PAGE);
        };
        let key = self.index_key(&owner_of(user));
        let reply = self.run(&LIST, &key, args).await?;
        let Reply::Array(reply) = reply else {
            return Err(no_answer());
        };
        let [Reply::BulkString(next), Reply::Array(found)] = &reply[..] else {
            return Err(no_answer());
        };
        // Each id is followed by its score.
        let ids = found.iter().step_by(2);
        let ids = ids.filter_map(|id| StoreId::parse(text(id)?));
        Ok(Page {
            items: ids.collect(),
            next: (next != b"0").then(|| next.clone()),
        })
    }

    /// Calls `f` for each of a page of ids; all calls share one connection, and none waits for another.
    pub(super) async fn each<T, F>(
        &self,
        ids: Vec<StoreId>,
        f: impl Fn(Self, StoreId) -> F,
    ) -> Result<Vec<T>, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let mut calls = JoinSet::new();
        for id in ids {
            calls.spawn(f(self.clone(), id));
        }
        let mut answers = Vec::with_capacity(calls.len());
        while let Some(answer) = calls.join_next().await {
            answers.push(answer.map_err(|error| StoreError::failed(NAME, error))?);
        }
        Ok(answers)
    }

    /// Reads whose record is under `id`, and its summary.
    pub(super) async fn summary(
        &self,
        id: StoreId,
    ) -> Result<Option<(String, SessionSummary)>, StoreError> {
        let args = |command: &mut Cmd| {
            command.arg(SessionSummary::NOTE);
        };
        let Reply::Array(fields) = self.run(&SUMMARY, &self.key(id), args).await? else {
            return Err(no_answer());
        };
        let [meta, head, user, seen, note] = &fields[..] else {
            return Ok(None);
        };
        let (Some(meta), Some(user)) = (text(meta), text(user)) else {
            return Ok(None);
        };
        let record = split_meta(meta).and_then(|(verifier, kept)| {
            assemble(verifier, kept, text(head), text(seen), Entries::default())
        });
        let mut summary = SessionSummary::of(id, &record.ok_or_else(no_meta)?);
        let note = text(note).and_then(|note| note.strip_prefix('t'));
        summary.note = note.map(str::to_owned);
        Ok(Some((user.to_owned(), summary)))
    }

    /// Destroys the record under `id` if it is that of `owner`.
    pub(super) async fn destroy_owned(&self, id: StoreId, owner: &str) -> Result<bool, StoreError> {
        let args = |command: &mut Cmd| {
            command.arg(self.index_prefix()).arg(0);
            command.arg(self.channel()).arg(owner);
        };
        let is_done = self.change(&DESTROY, id, args).await?.applied == Applied::Done;
        if is_done {
            self.unindex(Some(owner), id).await?;
        }
        Ok(is_done)
    }
}
