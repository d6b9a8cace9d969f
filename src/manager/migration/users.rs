//! The sessions of a user, in both backends.

use super::MigratingBackend;
use crate::{
    expiry::{Lifetime, Timestamp},
    future::BackendFuture,
    record::id::StoreId,
    store::{Page, Reservation, SessionSummary, StoreError, UserIndex, UserLimit},
};

/// Says in the cursor of a list which backend it goes on in.
const OLD: u8 = 0;
const NEW: u8 = 1;

/// Both backends' sessions. The old backend's come first, so that a session which migrates while it
/// is listed is not missed; it may be listed twice.
impl UserIndex for MigratingBackend {
    fn sessions_of<'a>(
        &'a self,
        user: &'a str,
        from: &'a [u8],
        now: Timestamp,
    ) -> BackendFuture<'a, Result<Page<SessionSummary>, StoreError>> {
        BackendFuture::pending(async move {
            let (index, from, is_old) = self.index_at(from);
            let Some(index) = index else {
                return Ok(Page::default());
            };
            let mut page = index.sessions_of(user, from, now).await?;
            if is_old {
                page.items.retain(|session| !session.id.is_place());
                for session in &mut page.items {
                    session.id = self.renamed(session.id);
                }
            }
            Ok(page_of(page, is_old))
        })
    }

    fn ids_of<'a>(
        &'a self,
        user: &'a str,
        from: &'a [u8],
    ) -> BackendFuture<'a, Result<Page<StoreId>, StoreError>> {
        BackendFuture::pending(async move {
            let (index, from, is_old) = self.index_at(from);
            let Some(index) = index else {
                return Ok(Page::default());
            };
            let mut page = index.ids_of(user, from).await?;
            if is_old {
                page.items.retain(|id| !id.is_place());
                for id in &mut page.items {
                    *id = self.renamed(*id);
                }
            }
            Ok(page_of(page, is_old))
        })
    }

    fn destroy_of<'a>(
        &'a self,
        user: &'a str,
        ids: &'a [StoreId],
    ) -> BackendFuture<'a, Result<usize, StoreError>> {
        BackendFuture::pending(async move {
            let mut count = 0;
            for id in ids {
                count += match (id.is_place(), self.new.users()) {
                    (true, Some(new)) => new.destroy_of(user, &[*id]).await?,
                    _ => usize::from(self.destroy_one_of(user, *id).await?),
                };
            }
            Ok(count)
        })
    }

    fn limit(&self) -> Option<&dyn UserLimit> {
        self.new.users()?.limit().map(|_| self as &dyn UserLimit)
    }
}

/// Reserves in the new backend, where the sessions of the old one count too. A log-in that another
/// process makes with the old manager alone is not counted while it is under way.
impl UserLimit for MigratingBackend {
    fn reserve<'a>(
        &'a self,
        user: &'a str,
        place: &'a Reservation,
    ) -> BackendFuture<'a, Result<bool, StoreError>> {
        let Some(limit) = self.new.users().and_then(UserIndex::limit) else {
            return BackendFuture::ready(Ok(false));
        };
        let Some(old) = self.old.backend().users() else {
            return limit.reserve(user, place);
        };
        BackendFuture::pending(async move {
            let mut place = place.clone();
            let mut from = Some(Vec::new());
            while let Some(last) = from {
                let page = old.sessions_of(user, &last, place.now).await?;
                let ids = page.items.into_iter().map(|session| session.id);
                let ids = ids.filter(|id| !id.is_place()).map(|id| self.renamed(id));
                place.elsewhere.extend(ids);
                from = page.next;
            }
            limit.reserve(user, &place).await
        })
    }
}

impl MigratingBackend {
    /// Returns the index that a list goes on in, its own cursor, and whether it is the old one.
    fn index_at<'a>(&'a self, from: &'a [u8]) -> (Option<&'a dyn UserIndex>, &'a [u8], bool) {
        let old = self.old.backend().users();
        match (from.split_last(), old) {
            (Some((&OLD, from)), old) => (old, from, true),
            (None, Some(old)) => (Some(old), from, true),
            (Some((_, from)), _) => (self.new.users(), from, false),
            (None, None) => (self.new.users(), from, false),
        }
    }

    /// Ends the session if it is the user's in either backend, and leaves a tombstone: a request
    /// that migrates it, and an old cookie that is sent again, cannot bring it back.
    async fn destroy_one_of(&self, user: &str, id: StoreId) -> Result<bool, StoreError> {
        let mut ended = 0;
        if let Some(old) = self.old.backend().users() {
            ended += old.destroy_of(user, &[self.renamed(id)]).await?;
        }
        if let Some(new) = self.new.users() {
            ended += new.destroy_of(user, &[id]).await?;
        }
        if ended > 0
            && let Some(adopt) = self.adopt()
        {
            let now = self.old.settings().now();
            // The lifetime of the session is not known here.
            let until = self.buried_until(now).max(now.plus(Lifetime::MAX));
            let burying = adopt.bury(id, now, until).await;
            burying.map_err(|error| StoreError::failed(self.new.name(), error))?;
        }
        Ok(ended > 0)
    }
}

/// Returns a page of one backend as a page of both.
fn page_of<T>(mut page: Page<T>, is_old: bool) -> Page<T> {
    page.next = match (page.next, is_old) {
        (Some(mut next), is_old) => {
            next.push(if is_old { OLD } else { NEW });
            Some(next)
        }
        (None, true) => Some(vec![NEW]),
        (None, false) => None,
    };
    page
}
