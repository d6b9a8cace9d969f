//! Stores for tower-sessions-core 0.14.

use async_trait::async_trait;
use tower_sessions_core::{
    SessionStore,
    session::{Id, Record},
    session_store::{Error, Result},
};
use tower_sessions_core_0_14::{self as v0_14, session, session_store};

/// Adapts a store for tower-sessions-core 0.14 to 0.15, as [`TowerStore`](crate::TowerStore)
/// requires. At the time of writing, the stores for Redis, SQL and moka are for 0.14.
///
/// ```
/// use session_manager::{Manager, ServerSide, Tower014, TowerStore};
/// use tower_sessions_memory_store_0_14::MemoryStore;
///
/// let theirs = Tower014::new(MemoryStore::default());
/// let manager = Manager::new(ServerSide::new(TowerStore::new(theirs)));
/// assert_eq!(manager.backend_name(), "tower-sessions");
/// ```
#[derive(Clone, Debug)]
pub struct Tower014<S>(S);

impl<S: v0_14::SessionStore> Tower014<S> {
    /// Creates an adapter that forwards every call to `store`.
    pub fn new(store: S) -> Self {
        Self(store)
    }
}

#[async_trait]
impl<S: v0_14::SessionStore> SessionStore for Tower014<S> {
    async fn create(&self, record: &mut Record) -> Result<()> {
        let mut theirs = old(record);
        self.0.create(&mut theirs).await.map_err(error)?;
        *record = new(theirs);
        Ok(())
    }

    async fn save(&self, record: &Record) -> Result<()> {
        self.0.save(&old(record)).await.map_err(error)
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        let loaded = self.0.load(&session::Id(id.0)).await;
        Ok(loaded.map_err(error)?.map(new))
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        self.0.delete(&session::Id(id.0)).await.map_err(error)
    }
}

fn old(record: &Record) -> session::Record {
    session::Record {
        id: session::Id(record.id.0),
        data: record.data.clone(),
        expiry_date: record.expiry_date,
    }
}

fn new(record: session::Record) -> Record {
    Record {
        id: Id(record.id.0),
        data: record.data,
        expiry_date: record.expiry_date,
    }
}

fn error(error: session_store::Error) -> Error {
    match error {
        session_store::Error::Encode(why) => Error::Encode(why),
        session_store::Error::Decode(why) => Error::Decode(why),
        session_store::Error::Backend(why) => Error::Backend(why),
    }
}
