//! `testing::check_store` fails for a store that does not keep the contract.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

use session_manager::{
    MemoryStore, Store, StoreError, Timestamp,
    store::{Applied, Endings, Record, StoreId, Write},
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

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        self.0.load(id, now).await
    }

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        self.0.create(id, write).await
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        self.0.apply(id, write).await
    }

    async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
        self.0.destroy(id).await
    }

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
