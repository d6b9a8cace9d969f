//! Sessions in this process's memory.

use std::{
    collections::BTreeSet,
    fmt,
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hashlink::LinkedHashMap;

use super::PAGE;
use crate::{
    Applied, BackendFuture, Page, Record, SessionSummary, Store, StoreError, StoreId, Timestamp,
    UserIndex, Write,
};

const SHARDS: usize = 64;

/// Keeps sessions in this process's memory: they end with it, and no other process sees them.
///
/// Bounded: when it is full, the session that was written or touched longest ago goes for a new one,
/// so that nobody fills the memory (CVE-2015-5143). Clones are the same store.
///
/// ```
/// use session_manager::{Manager, MemoryStore, ServerSide};
///
/// let manager = Manager::new(ServerSide::new(MemoryStore::with_capacity(10_000)));
/// # let _ = manager;
/// ```
#[derive(Clone)]
pub struct MemoryStore(Arc<Inner>);

struct Inner {
    /// Each session by a part of its id, so that requests of different sessions rarely wait for one
    /// another.
    shards: [Mutex<Shard>; SHARDS],
    users: Users,
    /// The most sessions that one shard holds.
    shard_capacity: usize,
}

/// Records, the one used longest ago first.
type Shard = LinkedHashMap<StoreId, Record, BuildHasherDefault<IdHasher>>;

/// An id is the output of SHA-256, which nobody can steer: its first bytes are hash enough.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes
            .iter()
            .take(8)
            .fold(0, |hash, byte| hash << 8 | u64::from(*byte));
    }

    /// The length, which arrays are hashed with, is always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

impl MemoryStore {
    /// How many sessions [`new`](Self::new) has room for.
    pub const DEFAULT_CAPACITY: usize = 1_000_000;

    /// A store for [`DEFAULT_CAPACITY`](Self::DEFAULT_CAPACITY) sessions.
    pub fn new() -> Self {
        Self::with_capacity(Self::DEFAULT_CAPACITY)
    }

    /// A store for about `sessions` sessions, 64 at least. Memory is taken as they come.
    pub fn with_capacity(sessions: usize) -> Self {
        Self(Arc::new(Inner {
            shards: std::array::from_fn(|_| Mutex::default()),
            users: Users::default(),
            shard_capacity: sessions.div_ceil(SHARDS).max(1),
        }))
    }

    /// How many sessions there are, among them some whose time is over.
    pub fn len(&self) -> usize {
        self.0.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Nothing panics while it holds a lock but for want of memory, so a poisoned one holds what it
/// held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_live(record: &Record, now: Timestamp) -> bool {
    now < record.expires
}

impl Inner {
    fn shard(&self, id: StoreId) -> MutexGuard<'_, Shard> {
        // The last byte, because the map inside hashes by the first ones.
        lock(&self.shards[usize::from(id.as_bytes()[31]) % SHARDS])
    }

    fn insert(&self, shard: &mut Shard, id: StoreId, record: Record) {
        self.users.insert(id, record.user.as_ref());
        // Those used longest ago, and with them most of those whose time is over, stand first. Two
        // of these go for each that comes, so that none stays for long.
        let mut may_go = 2;
        while let Some((_, oldest)) = shard.front() {
            let is_over = may_go > 0 && !is_live(oldest, record.seen);
            if !is_over && shard.len() < self.shard_capacity {
                break;
            }
            if let Some((gone, old)) = shard.pop_front() {
                self.users.remove(gone, old.user.as_ref());
            }
            may_go -= i32::from(is_over);
        }
        shard.insert(id, record);
    }

    fn remove(&self, shard: &mut Shard, id: StoreId) {
        if let Some(record) = shard.remove(&id) {
            self.users.remove(id, record.user.as_ref());
        }
    }
}

impl Store for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        // Its place among the others does not move here but when it is touched, once per twentieth of
        // the idle timeout: among a million sessions the neighbours are what costs time.
        let shard = self.0.shard(id);
        let record = shard.get(&id).filter(|record| is_live(record, now));
        Ok(record.cloned())
    }

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        let mut shard = self.0.shard(id);
        if shard
            .get(&id)
            .is_some_and(|record| is_live(record, write.now))
        {
            return Ok(false);
        }
        self.0.remove(&mut shard, id);
        self.0.insert(&mut shard, id, write.to_record());
        Ok(true)
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        let mut shard = self.0.shard(id);
        shard.to_back(&id);
        let Some(record) = shard.get_mut(&id) else {
            return Ok(Applied::Gone);
        };
        let was = record.user.clone();
        let applied = record.apply(write);
        if record.user != was {
            self.0.users.insert(id, record.user.as_ref());
            self.0.users.remove(id, was.as_ref());
        }
        Ok(applied)
    }

    async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
        self.0.remove(&mut self.0.shard(id), id);
        Ok(())
    }

    fn users(&self) -> Option<&dyn UserIndex> {
        Some(self)
    }
}

impl UserIndex for MemoryStore {
    fn sessions_of<'a>(
        &'a self,
        user: &'a str,
        from: &'a [u8],
        now: Timestamp,
    ) -> BackendFuture<'a, Result<Page<SessionSummary>, StoreError>> {
        let ids = self.0.users.page(user, from);
        let live = ids.items.into_iter().filter_map(|id| {
            let shard = self.0.shard(id);
            let record = shard.get(&id)?;
            let is_theirs = is_live(record, now) && record.user.as_deref() == Some(user);
            is_theirs.then(|| SessionSummary::of(id, record))
        });
        BackendFuture::ready(Ok(Page {
            items: live.collect(),
            next: ids.next,
        }))
    }

    fn ids_of<'a>(
        &'a self,
        user: &'a str,
        from: &'a [u8],
    ) -> BackendFuture<'a, Result<Page<StoreId>, StoreError>> {
        BackendFuture::ready(Ok(self.0.users.page(user, from)))
    }

    fn destroy_of<'a>(
        &'a self,
        user: &'a str,
        ids: &'a [StoreId],
    ) -> BackendFuture<'a, Result<usize, StoreError>> {
        let ended = ids.iter().filter(|id| {
            let mut shard = self.0.shard(**id);
            let found = shard.get(id);
            let is_theirs = found.is_some_and(|record| record.user.as_deref() == Some(user));
            if is_theirs {
                self.0.remove(&mut shard, **id);
            }
            is_theirs
        });
        BackendFuture::ready(Ok(ended.count()))
    }
}

/// The ids of the sessions of each user, in the order of a hash of the user that a client cannot
/// steer. Two users of one hash are told apart by the records.
#[derive(Default)]
struct Users {
    hasher: RandomState,
    ids: Mutex<BTreeSet<(u64, StoreId)>>,
}

impl Users {
    fn insert(&self, id: StoreId, user: Option<&Arc<str>>) {
        if let Some(user) = user {
            lock(&self.ids).insert((self.hasher.hash_one(&**user), id));
        }
    }

    fn remove(&self, id: StoreId, user: Option<&Arc<str>>) {
        if let Some(user) = user {
            lock(&self.ids).remove(&(self.hasher.hash_one(&**user), id));
        }
    }

    fn page(&self, user: &str, from: &[u8]) -> Page<StoreId> {
        let hash = self.hasher.hash_one(user);
        let from = <[u8; 32]>::try_from(from).map(|last| (hash, StoreId::from_bytes(last)));
        let first = match from {
            Ok(last) => Bound::Excluded(last),
            Err(_) => Bound::Included((hash, StoreId::from_bytes([0; 32]))),
        };
        let last = Bound::Included((hash, StoreId::from_bytes([u8::MAX; 32])));
        let ids = lock(&self.ids);
        let page = ids.range((first, last)).take(PAGE);
        Page::in_order(page.map(|(_, id)| *id).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Holder;

    #[tokio::test]
    async fn the_index_of_users_forgets_sessions_that_went_whichever_way_they_did() {
        let now = Timestamp::from_millis(1_000);
        let holder = Holder::from_bytes([7; 32]);
        let mut write = Write::touch(holder, now, now, Timestamp::from_millis(2_000));
        write.user = Some("ada".into());
        // All in one shard, which has room for one.
        let id = |number: u8| StoreId::from_bytes([number.wrapping_mul(64); 32]);
        let store = MemoryStore::with_capacity(1);
        let indexed = || store.0.users.page("ada", &[]).items.len();

        assert_eq!(store.create(id(0), &write).await.ok(), Some(true));
        assert_eq!(store.create(id(1), &write).await.ok(), Some(true));
        assert_eq!(indexed(), 1, "one made room for the other");
        assert_eq!(store.apply(id(1), &write).await.ok(), Some(Applied::Done));
        assert_eq!(indexed(), 1, "who is said to be theirs again is there once");
        write.user = Some("grace".into());
        assert_eq!(store.apply(id(1), &write).await.ok(), Some(Applied::Done));
        assert_eq!(indexed(), 0, "it is somebody else's now");
        write.holder = Holder::NOBODY;
        write.user = Some("ada".into());
        assert_eq!(store.apply(id(1), &write).await.ok(), Some(Applied::Gone));
        assert_eq!(indexed(), 0, "what was not written is not found");
        assert!(store.destroy(id(1)).await.is_ok());
        assert!(lock(&store.0.users.ids).is_empty(), "and gone");
    }
}
