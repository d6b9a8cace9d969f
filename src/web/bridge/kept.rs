//! A store of this crate behind the store traits of other session crates, which replace whole sessions.

use std::{fmt, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};

use crate::{
    changes::write::{Applied, Write},
    expiry::{Clock, Timestamp},
    log::log,
    record::{
        Record,
        id::{StoreId, Verifier},
    },
    store::{Store, StoreError, limit::limited},
    value::Value,
};

/// The key under which a session carries the values that were loaded, so that saving finds out which
/// of them the request changed.
pub(in crate::web) const LOADED: &str = "\u{2}loaded";

/// The time limit of a store call.
const LIMIT: Duration = Duration::from_secs(2);

/// A store, and which crate's sessions it keeps.
pub(in crate::web) struct Kept<S> {
    store: Arc<S>,
    of: &'static str,
}

/// The values to write.
#[derive(Default)]
pub(in crate::web) struct Values {
    pub(in crate::web) clear: bool,
    pub(in crate::web) set: Vec<(Box<str>, Value)>,
    pub(in crate::web) remove: Vec<Box<str>>,
}

impl<S: Store> Kept<S> {
    pub(in crate::web) fn new(store: S, of: &'static str) -> Self {
        let store = Arc::new(store);
        Self { store, of }
    }

    /// Returns the record under `key`, which the client's cookie contains.
    pub(in crate::web) async fn load(&self, key: &[u8]) -> Result<Option<Record>, StoreError> {
        let found = self.limited(self.store.load(self.id(key), now())).await?;
        Ok(found.filter(|record| record.verifier == self.verifier(key)))
    }

    /// Creates a record; `false` if the key is taken.
    pub(in crate::web) async fn create(
        &self,
        key: &[u8],
        values: Values,
        expires: Timestamp,
    ) -> Result<bool, StoreError> {
        let write = self.write(key, values, expires);
        self.limited(self.store.create(self.id(key), &write)).await
    }

    /// Merges into an existing record. If the session ended meanwhile, the values are dropped.
    pub(in crate::web) async fn merge(
        &self,
        key: &[u8],
        values: Values,
        expires: Timestamp,
    ) -> Result<(), StoreError> {
        let write = self.write(key, values, expires);
        let applied = self.limited(self.store.apply(self.id(key), &write)).await?;
        if applied != Applied::Done && !write.is_touch() {
            log!(
                WARN,
                "a session of {} was ended before a request saved it; what the request wrote is dropped",
                self.of
            );
        }
        Ok(())
    }

    pub(in crate::web) async fn delete(&self, key: &[u8]) -> Result<(), StoreError> {
        self.limited(self.store.destroy(self.id(key))).await
    }

    fn write(&self, key: &[u8], values: Values, expires: Timestamp) -> Write {
        let now = now();
        let mut write = Write::touch(self.verifier(key), now, now, expires);
        write.clear = values.clear;
        write.set = values.set;
        write.remove = values.remove;
        write
    }

    fn limited<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> impl Future<Output = Result<T, StoreError>> {
        limited(self.store.name(), LIMIT, call)
    }

    fn id(&self, key: &[u8]) -> StoreId {
        StoreId::from_bytes(self.hash("id", key))
    }

    fn verifier(&self, key: &[u8]) -> Verifier {
        Verifier::from_bytes(self.hash("verifier", key))
    }

    /// The store gets no key that would open a session.
    fn hash(&self, what: &str, key: &[u8]) -> [u8; 32] {
        let hash = Sha256::new().chain_update(format!("{} {what} ", self.of));
        hash.chain_update(key).finalize().into()
    }
}

/// Returns another handle of the same store.
impl<S> Clone for Kept<S> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            of: self.of,
        }
    }
}

impl<S: Store> fmt::Debug for Kept<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.store.name())
    }
}

pub(in crate::web) fn now() -> Timestamp {
    Clock::default().now()
}
