//! `testing::check_store` fails for a store that does not keep the contract.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

use crate::common::inside::{index_inside, store_inside};
use session_manager::{
    MemoryStore, Store, StoreError, Timestamp,
    backend::BackendFuture,
    store::{Applied, Endings, Record, Reservation, StoreId, UserIndex, UserLimit, Write},
    testing::check_store,
};

/// Reads a record, changes it and writes it back, and holds no lock in between. It never awaits.
#[derive(Default)]
struct Racy(Mutex<HashMap<StoreId, Record>>);

impl Racy {
    fn records(&self) -> MutexGuard<'_, HashMap<StoreId, Record>> {
        self.0.lock().unwrap()
    }
}

impl Store for Racy {
    fn name(&self) -> &'static str {
        "racy"
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        let found = self.records().get(&id).cloned();
        Ok(found.filter(|record| now < record.expires))
    }

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        if self.load(id, write.now).await?.is_some() {
            return Ok(false);
        }
        self.records().insert(id, write.to_record());
        Ok(true)
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        let Some(mut record) = self.load(id, write.now).await? else {
            return Ok(Applied::Gone);
        };
        let applied = record.apply(write);
        if applied == Applied::Done {
            self.records().insert(id, record);
        }
        Ok(applied)
    }

    async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
        self.records().remove(&id);
        Ok(())
    }
}

/// Fails even on a runtime of one thread, although the store never awaits.
#[tokio::test]
#[should_panic(expected = "of 50 writers at once each finds its last write")]
async fn a_store_that_is_not_atomic_fails_on_one_thread() {
    check_store(Racy::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "of 50 writers at once each finds its last write")]
async fn a_store_that_is_not_atomic_fails_on_several_threads() {
    check_store(Racy::default()).await;
}

/// Says that it reports every end, and reports none.
struct Silent(MemoryStore);

impl Store for Silent {
    fn name(&self) -> &'static str {
        "silent"
    }

    store_inside!();

    async fn watch_ended(&self, endings: &Endings) -> Result<(), StoreError> {
        endings.complete();
        std::future::pending().await
    }
}

#[tokio::test]
#[should_panic(expected = "a record that is destroyed is reported")]
async fn a_store_that_says_it_reports_ends_and_does_not_fails() {
    check_store(Silent(MemoryStore::new())).await;
}

/// A store whose limit of a user's sessions breaks the contract as its second part says.
struct BadLimit(MemoryStore, Breaks);

#[derive(Clone, Copy, PartialEq)]
enum Breaks {
    /// It counts, and then reserves.
    IsNotAtomic,
    /// It counts sessions that are over.
    CountsTheDead,
    /// It counts a session and its own reservation.
    CountsTwice,
}

impl Store for BadLimit {
    fn name(&self) -> &'static str {
        "bad limit"
    }

    store_inside!();

    fn users(&self) -> Option<&dyn UserIndex> {
        Some(self)
    }
}

impl UserIndex for BadLimit {
    index_inside!();

    fn limit(&self) -> Option<&dyn UserLimit> {
        Some(self)
    }
}

impl UserLimit for BadLimit {
    fn reserve<'a>(
        &'a self,
        user: &'a str,
        place: &'a Reservation,
    ) -> BackendFuture<'a, Result<bool, StoreError>> {
        BackendFuture::pending(async move {
            let now = match self.1 {
                Breaks::CountsTheDead => Timestamp::from_millis(0),
                _ => place.now,
            };
            let live = self.0.sessions_of(user, &[], now).await?.items;
            let ids = live.into_iter().map(|session| session.id);
            let is_full = match self.1 {
                Breaks::CountsTwice => ids.count() >= place.max,
                _ => place.is_full(ids),
            };
            if !is_full {
                self.0.destroy(place.id()).await?;
                std::thread::yield_now();
                self.0.create(place.id(), &place.write(user)).await?;
            }
            Ok(!is_full)
        })
    }
}

#[tokio::test]
#[should_panic(expected = "of 12 log-ins at once")]
async fn a_limit_that_is_not_atomic_fails() {
    check_store(BadLimit(MemoryStore::new(), Breaks::IsNotAtomic)).await;
}

#[tokio::test]
#[should_panic(expected = "a session whose time is over does not count")]
async fn a_limit_that_counts_sessions_that_are_over_fails() {
    check_store(BadLimit(MemoryStore::new(), Breaks::CountsTheDead)).await;
}

#[tokio::test]
#[should_panic(expected = "that of the session itself is renewed")]
async fn a_limit_that_counts_a_session_twice_fails() {
    check_store(BadLimit(MemoryStore::new(), Breaks::CountsTwice)).await;
}
