//! Sessions in this process's memory.

use std::{
    cell::Cell,
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    fmt,
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use hashlink::LinkedHashMap;

use super::PAGE;
use crate::{
    changes::write::{Applied, Write},
    expiry::Timestamp,
    future::BackendFuture,
    record::{
        Record,
        id::{StoreId, Verifier},
    },
    store::{Endings, Page, Reservation, SessionSummary, Store, StoreError, UserIndex, UserLimit},
};

const SHARDS: usize = 64;
/// What a session takes beside its values, in bytes: its place in the map, in the list of those
/// used longest ago, among those that end next, and in the index of users.
const RECORD: usize = 400;
/// What a value takes beside its text.
const ENTRY: usize = 64;
/// How many sessions whose time is over one call removes at most.
const SWEPT: usize = 4;

/// Keeps sessions in this process's memory: they end with it, and no other process sees them.
///
/// It is bounded by a number of sessions ([`with_capacity`](Self::with_capacity)) and by their
/// bytes ([`max_bytes`](Self::max_bytes)), so that clients cannot fill the memory (CVE-2015-5143).
/// When one of the two is reached, a new or growing session evicts others: those whose time is
/// over, then sessions without a user ([`Session::set_user`](crate::Session::set_user)), then those
/// of users; among them first what was neither read nor written for longest. Anonymous visitors,
/// however many, therefore evict one another and not the users who are logged in.
///
/// Sessions whose time is over are removed by the next calls, whatever these do. Clones are the
/// same store.
///
/// ```
/// use session_manager::{Manager, MemoryStore, ServerSide};
///
/// let store = MemoryStore::with_capacity(10_000).max_bytes(64 << 20);
/// let manager = Manager::new(ServerSide::new(store));
/// # let _ = manager;
/// ```
#[derive(Clone)]
pub struct MemoryStore(Arc<Inner>);

struct Inner {
    /// Each session by a part of its id, so that requests of different sessions rarely wait for one
    /// another.
    shards: [Mutex<Shard>; SHARDS],
    users: Users,
    /// One lock for each user's reservations, shared with others. It is taken before a shard's.
    places: [Mutex<()>; SHARDS],
    /// The most sessions that one shard holds.
    shard_capacity: usize,
    /// The most bytes that one shard holds.
    shard_bytes: AtomicUsize,
    watchers: Watchers,
}

/// Those that are told of every record that is removed.
#[derive(Default)]
struct Watchers {
    all: Mutex<Vec<Arc<Endings>>>,
    /// Whether there are any, for the calls that remove a record.
    any: AtomicBool,
}

/// Tells `endings` of every record that is removed, until it is dropped.
struct Watching<'s> {
    watchers: &'s Watchers,
    endings: Arc<Endings>,
}

impl Watchers {
    fn watch(&self, endings: &Endings) -> Watching<'_> {
        let endings = Arc::new(endings.clone());
        let mut all = lock(&self.all);
        all.push(Arc::clone(&endings));
        self.any.store(true, Relaxed);
        Watching {
            watchers: self,
            endings,
        }
    }

    fn tell(&self, id: StoreId) {
        if self.any.load(Relaxed) {
            for endings in &*lock(&self.all) {
                endings.ended(id);
            }
        }
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        let mut all = lock(&self.watchers.all);
        all.retain(|endings| !Arc::ptr_eq(endings, &self.endings));
        self.watchers.any.store(!all.is_empty(), Relaxed);
    }
}

/// Records, roughly the one used longest ago first: one that was used since it last stood there has
/// a second chance, so that a read moves nothing (bench `memory_store`).
type Records = LinkedHashMap<StoreId, Kept, BuildHasherDefault<IdHasher>>;

#[derive(Default)]
struct Shard {
    anonymous: Records,
    of_users: Records,
    /// Which record to look at when: not later than it expires. A touch leaves this alone.
    due: BinaryHeap<Reverse<(Timestamp, StoreId)>>,
    bytes: usize,
}

struct Kept {
    record: Record,
    bytes: usize,
    /// When `due` looks at the record.
    due: Timestamp,
    is_used: Cell<bool>,
}

impl Shard {
    fn len(&self) -> usize {
        self.anonymous.len() + self.of_users.len()
    }

    fn get(&self, id: StoreId) -> Option<&Kept> {
        let of_users = self.of_users.get(&id);
        of_users.or_else(|| self.anonymous.get(&id))
    }

    fn put(&mut self, id: StoreId, record: Record) {
        let kept = Kept {
            bytes: size_of(&record),
            due: record.expires,
            is_used: Cell::new(false),
            record,
        };
        self.bytes += kept.bytes;
        self.due.push(Reverse((kept.due, id)));
        self.records_of(&kept.record).insert(id, kept);
        // What was destroyed before its time leaves a number behind.
        if self.due.len() > 2 * self.len() + SHARDS {
            let mut due = std::mem::take(&mut self.due);
            due.retain(|Reverse((due, id))| self.get(*id).is_some_and(|kept| kept.due == *due));
            self.due = due;
        }
    }

    fn take(&mut self, id: StoreId) -> Option<Record> {
        let of_users = self.of_users.remove(&id);
        let kept = of_users.or_else(|| self.anonymous.remove(&id))?;
        self.bytes -= kept.bytes;
        Some(kept.record)
    }

    /// Returns where a new record belongs. A tombstone outlives anonymous sessions, because it
    /// keeps a log-out final.
    fn records_of(&mut self, record: &Record) -> &mut Records {
        match record.user.is_some() || record.verifier == Verifier::NONE {
            true => &mut self.of_users,
            false => &mut self.anonymous,
        }
    }

    /// Writes to a record. Returns what became of it, and whose it was.
    fn apply(&mut self, id: StoreId, write: &Write) -> (Applied, Option<Arc<str>>) {
        let of_users = self.of_users.get_mut(&id);
        let Some(kept) = of_users.or_else(|| self.anonymous.get_mut(&id)) else {
            return (Applied::Gone, None);
        };
        let was = kept.record.user.clone();
        let applied = kept.record.apply(write);
        if applied != Applied::Done {
            return (applied, was);
        }
        kept.is_used.set(true);
        let bytes = size_of(&kept.record);
        self.bytes = self.bytes - kept.bytes + bytes;
        kept.bytes = bytes;
        if kept.record.expires < kept.due {
            kept.due = kept.record.expires;
            self.due.push(Reverse((kept.due, id)));
        }
        if was.is_none()
            && kept.record.user.is_some()
            && let Some(kept) = self.anonymous.remove(&id)
        {
            self.of_users.insert(id, kept);
        }
        (applied, was)
    }

    /// Returns the next record whose time is over, if there is one; looks at `most` at most.
    fn next_over(&mut self, now: Timestamp, most: usize) -> Option<StoreId> {
        for _ in 0..most {
            let &Reverse((due, id)) = self.due.peek()?;
            if now < due {
                return None;
            }
            self.due.pop();
            let of_users = self.of_users.get_mut(&id);
            let kept = of_users.or_else(|| self.anonymous.get_mut(&id));
            match kept.filter(|kept| kept.due == due) {
                Some(kept) if !is_live(&kept.record, now) => return Some(id),
                Some(kept) => {
                    kept.due = kept.record.expires;
                    self.due.push(Reverse((kept.due, id)));
                }
                None => {}
            }
        }
        None
    }

    /// Returns the record to evict for that under `id`.
    fn least_used_but(&mut self, id: StoreId) -> Option<StoreId> {
        for records in [&mut self.anonymous, &mut self.of_users] {
            // The second time round none is used any more.
            for _ in 0..=2 * records.len() {
                let Some((&first, kept)) = records.front() else {
                    break;
                };
                if first != id && !kept.is_used.replace(false) {
                    return Some(first);
                }
                records.to_back(&first);
            }
        }
        None
    }
}

/// Returns roughly how many bytes a record takes.
fn size_of(record: &Record) -> usize {
    let user = record.user.as_ref().map_or(0, |user| user.len());
    RECORD + user + record.entries.bytes() + ENTRY * record.entries.len()
}

/// An id is the output of SHA-256, which no client can steer: its first bytes are hash enough.
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

    /// How many bytes sessions may take unless [`max_bytes`](Self::max_bytes) says otherwise: 256
    /// MiB, a quarter of a small server's memory, and room for about 400,000 sessions of three
    /// short values.
    pub const DEFAULT_MAX_BYTES: usize = 256 << 20;

    /// Returns a store for [`DEFAULT_CAPACITY`](Self::DEFAULT_CAPACITY) sessions.
    pub fn new() -> Self {
        Self::with_capacity(Self::DEFAULT_CAPACITY)
    }

    /// Returns a store for about `sessions` sessions, 64 at least. Memory is taken as they come.
    pub fn with_capacity(sessions: usize) -> Self {
        Self(Arc::new(Inner {
            shards: std::array::from_fn(|_| Mutex::default()),
            users: Users::default(),
            places: [const { Mutex::new(()) }; SHARDS],
            shard_capacity: sessions.div_ceil(SHARDS).max(1),
            shard_bytes: AtomicUsize::new(Self::DEFAULT_MAX_BYTES / SHARDS),
            watchers: Watchers::default(),
        }))
    }

    /// Sets how many bytes all sessions may take together. Default:
    /// [`DEFAULT_MAX_BYTES`](Self::DEFAULT_MAX_BYTES).
    ///
    /// Counted are keys, values, users and about 400 bytes for each session and 64 for each value,
    /// which the store itself takes. The bound is kept in 64 parts, and each part holds at least
    /// one session whatever its size: with less than 64 times
    /// [`max_size`](crate::ServerSide::max_size) it may be exceeded by so much.
    #[must_use]
    pub fn max_bytes(self, bytes: usize) -> Self {
        self.0.shard_bytes.store(bytes / SHARDS, Relaxed);
        self
    }

    /// Returns how many bytes the sessions take, as [`max_bytes`](Self::max_bytes) counts them.
    pub fn bytes(&self) -> usize {
        self.0.shards.iter().map(|shard| lock(shard).bytes).sum()
    }

    /// Returns the number of sessions, expired ones among them.
    pub fn len(&self) -> usize {
        self.0.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Returns `true` if there are no sessions.
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

    /// Removes some of the sessions whose time is over.
    fn sweep(&self, shard: &mut Shard, now: Timestamp) {
        for _ in 0..SWEPT {
            let Some(over) = shard.next_over(now, SWEPT) else {
                break;
            };
            self.remove(shard, over);
        }
    }

    /// Evicts others for the record under `id` until the shard is within its bounds.
    fn make_room(&self, shard: &mut Shard, id: StoreId, now: Timestamp) {
        let bytes = self.shard_bytes.load(Relaxed);
        while shard.len() > self.shard_capacity || shard.bytes > bytes {
            let over = shard.next_over(now, usize::MAX);
            let Some(evicted) = over.or_else(|| shard.least_used_but(id)) else {
                break;
            };
            self.remove(shard, evicted);
        }
    }

    /// Puts a record under `id` in place of what is there.
    fn replace(&self, shard: &mut Shard, id: StoreId, record: Record, now: Timestamp) {
        self.remove(shard, id);
        self.users.insert(id, record.user.as_deref());
        shard.put(id, record);
        self.make_room(shard, id, now);
    }

    fn remove(&self, shard: &mut Shard, id: StoreId) {
        if let Some(record) = shard.take(id) {
            self.users.remove(id, record.user.as_deref());
            self.watchers.tell(id);
        }
    }
}

impl Store for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn answers_at_once(&self) -> bool {
        true
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        let mut shard = self.0.shard(id);
        self.0.sweep(&mut shard, now);
        let kept = shard.get(id).filter(|kept| is_live(&kept.record, now));
        Ok(kept.map(|kept| {
            kept.is_used.set(true);
            kept.record.clone()
        }))
    }

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        let mut shard = self.0.shard(id);
        self.0.sweep(&mut shard, write.now);
        if shard
            .get(id)
            .is_some_and(|kept| is_live(&kept.record, write.now))
        {
            return Ok(false);
        }
        let record = write.to_record();
        self.0.replace(&mut shard, id, record, write.now);
        Ok(true)
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        let mut shard = self.0.shard(id);
        self.0.sweep(&mut shard, write.now);
        let (applied, was) = shard.apply(id, write);
        if applied == Applied::Done {
            if let Some(user) = &write.user
                && was.as_deref() != Some(&**user)
            {
                self.0.users.insert(id, Some(user));
                self.0.users.remove(id, was.as_deref());
            }
            self.0.make_room(&mut shard, id, write.now);
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

    /// Reports evictions too.
    async fn watch_ended(&self, endings: &Endings) -> Result<(), StoreError> {
        let watching = self.0.watchers.watch(endings);
        watching.endings.complete();
        std::future::pending().await
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
            let record = &shard.get(id)?.record;
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
            let found = shard.get(**id);
            let is_theirs = found.is_some_and(|kept| kept.record.user.as_deref() == Some(user));
            if is_theirs {
                self.0.remove(&mut shard, **id);
            }
            is_theirs
        });
        BackendFuture::ready(Ok(ended.count()))
    }

    fn limit(&self) -> Option<&dyn UserLimit> {
        Some(self)
    }
}

impl UserLimit for MemoryStore {
    fn reserve<'a>(
        &'a self,
        user: &'a str,
        place: &'a Reservation,
    ) -> BackendFuture<'a, Result<bool, StoreError>> {
        let users = &self.0.users;
        let turn = &self.0.places[users.hasher.hash_one(user) as usize % SHARDS];
        let _turn = lock(turn);
        let is_live = |id: &StoreId| {
            let shard = self.0.shard(*id);
            let record = shard.get(*id).map(|kept| &kept.record);
            record.is_some_and(|record| {
                is_live(record, place.now) && record.user.as_deref() == Some(user)
            })
        };
        let mut ids = users.all(user);
        let is_free = loop {
            if place.is_full(ids.iter().copied().filter(is_live)) {
                break false;
            }
            // A log-in that has reserved may write its session and give its place back in between:
            // then neither was counted.
            let now = users.all(user);
            if now.is_subset(&ids) {
                break true;
            }
            ids = now;
        };
        if is_free {
            let (id, record) = (place.id(), place.write(user).to_record());
            let mut shard = self.0.shard(id);
            self.0.replace(&mut shard, id, record, place.now);
        }
        BackendFuture::ready(Ok(is_free))
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
    fn insert(&self, id: StoreId, user: Option<&str>) {
        if let Some(user) = user {
            lock(&self.ids).insert((self.hasher.hash_one(user), id));
        }
    }

    fn remove(&self, id: StoreId, user: Option<&str>) {
        if let Some(user) = user {
            lock(&self.ids).remove(&(self.hasher.hash_one(user), id));
        }
    }

    /// Returns all ids of a user as they are at one moment.
    fn all(&self, user: &str) -> BTreeSet<StoreId> {
        let hash = self.hasher.hash_one(user);
        let [first, last] = [0, u8::MAX].map(|byte| (hash, StoreId::from_bytes([byte; 32])));
        let ids = lock(&self.ids);
        ids.range(first..=last).map(|(_, id)| *id).collect()
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
    use std::time::Duration;

    use sha2::{Digest, Sha256};

    use super::*;

    #[tokio::test]
    async fn the_index_of_users_forgets_sessions_that_went_whichever_way_they_did() {
        let now = Timestamp::from_millis(1_000);
        let verifier = Verifier::from_bytes([7; 32]);
        let mut write = Write::touch(verifier, now, now, Timestamp::from_millis(2_000));
        write.user = Some("ada".into());
        // All in one shard, which has room for one.
        let id = |number: u8| StoreId::from_bytes([number.wrapping_mul(64); 32]);
        let store = MemoryStore::with_capacity(1);
        let indexed = || store.0.users.page("ada", &[]).items.len();

        assert_eq!(store.create(id(0), &write).await.ok(), Some(true));
        assert_eq!(store.create(id(1), &write).await.ok(), Some(true));
        assert_eq!(indexed(), 1, "one made room for the other");
        assert_eq!(store.apply(id(1), &write).await.ok(), Some(Applied::Done));
        assert_eq!(
            indexed(),
            1,
            "a session whose user is set twice is listed once"
        );
        write.user = Some("grace".into());
        assert_eq!(store.apply(id(1), &write).await.ok(), Some(Applied::Done));
        assert_eq!(indexed(), 0, "it belongs to another user now");
        write.verifier = Verifier::NONE;
        write.user = Some("ada".into());
        assert_eq!(store.apply(id(1), &write).await.ok(), Some(Applied::Gone));
        assert_eq!(indexed(), 0, "what was not written is not found");
        assert!(store.destroy(id(1)).await.is_ok());
        assert!(lock(&store.0.users.ids).is_empty(), "and gone");
    }

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    /// Ids as SHA-256 spreads them.
    fn nth(number: u32) -> StoreId {
        StoreId::from_bytes(Sha256::digest(number.to_be_bytes()).into())
    }

    fn write_of(user: Option<&str>, bytes: usize) -> Write {
        let mut write = Write::touch(Verifier::from_bytes([7; 32]), NOW, NOW, NOW.plus(HOUR));
        write.user = user.map(Box::from);
        write.set = vec![(
            "key".into(),
            crate::value::Value::Text("x".repeat(bytes).into()),
        )];
        write
    }

    async fn create(store: &MemoryStore, number: u32, write: &Write) {
        assert_eq!(store.create(nth(number), write).await.ok(), Some(true));
    }

    async fn is_there(store: &MemoryStore, number: u32) -> bool {
        let found = store.load(nth(number), NOW).await;
        found.unwrap().is_some()
    }

    #[tokio::test]
    async fn many_anonymous_sessions_evict_no_user() {
        let store = MemoryStore::with_capacity(6_400);
        for number in 0..1_000 {
            create(&store, number, &write_of(Some("ada"), 10)).await;
        }
        for number in 1_000..100_000 {
            create(&store, number, &write_of(None, 10)).await;
        }
        for number in 0..1_000 {
            assert!(is_there(&store, number).await, "{number}");
        }
        assert!(store.len() <= 6_400);
    }

    #[tokio::test]
    async fn a_session_that_is_read_outlives_those_that_are_not() {
        for user in [None, Some("ada")] {
            let store = MemoryStore::with_capacity(6_400);
            for number in 0..30_000 {
                create(&store, number, &write_of(user, 10)).await;
                assert!(is_there(&store, number % 100).await, "{number}");
            }
            assert!(!is_there(&store, 1_000).await);
        }
    }

    #[tokio::test]
    async fn bytes_are_bounded_whether_sessions_are_new_or_grow() {
        let store = MemoryStore::new().max_bytes(64 * 20_000);
        for number in 0..1_000 {
            create(&store, number, &write_of(None, 4_000)).await;
            assert!(store.bytes() <= 64 * 20_000);
        }
        assert!(store.len() > 150, "{store:?}");
        let mut grown = 0;
        for number in 0..1_000 {
            let applied = store.apply(nth(number), &write_of(None, 15_000)).await;
            grown += u32::from(applied.unwrap() == Applied::Done);
            assert!(store.bytes() <= 64 * 20_000);
        }
        assert!(grown >= 64, "{grown}");
        // One that is larger than a part of the store is kept alone.
        create(&store, 5_000, &write_of(None, 100_000)).await;
        assert!(is_there(&store, 5_000).await);
        for number in 0..1_000 {
            let _ = store.destroy(nth(number)).await;
        }
        let _ = store.destroy(nth(5_000)).await;
        assert_eq!(
            (store.bytes(), store.len()),
            (0, 0),
            "each byte is given back"
        );
    }

    #[tokio::test]
    async fn sessions_whose_time_is_over_go_first_and_by_themselves() {
        let store = MemoryStore::with_capacity(6_400);
        for number in 0..1_000 {
            create(&store, number, &write_of(Some("ada"), 10)).await;
        }
        // Half of them are used later.
        let later = NOW.plus(HOUR / 2);
        for number in 0..500 {
            let mut touch = write_of(None, 10);
            (touch.now, touch.expires) = (later, later.plus(HOUR));
            let applied = store.apply(nth(number), &touch).await;
            assert_eq!(applied.ok(), Some(Applied::Done));
        }
        let over = NOW.plus(HOUR);
        for number in 0..1_000 {
            let _ = store.load(nth(number), over).await;
        }
        assert_eq!(store.len(), 500, "reading others is enough");
        let mut late = write_of(None, 10);
        let last = later.plus(HOUR);
        (late.now, late.expires) = (last, last.plus(HOUR));
        for number in 1_000..7_400 {
            create(&store, number, &late).await;
        }
        assert!(store.len() <= 6_400);
        assert_eq!(
            store.0.users.page("ada", &[]).items,
            [],
            "nor are they indexed"
        );
        let shards = store.0.shards.iter();
        assert!(shards.map(|shard| lock(shard).due.len()).sum::<usize>() <= 6_400);
    }

    #[tokio::test]
    async fn sessions_that_end_before_their_time_leave_nothing_behind() {
        let store = MemoryStore::new();
        for number in 0..100_000 {
            create(&store, number, &write_of(None, 10)).await;
            let _ = store.destroy(nth(number)).await;
        }
        let due = store.0.shards.iter().map(|shard| lock(shard).due.len());
        assert!(due.sum::<usize>() <= SHARDS * (SHARDS + 1));
    }
}
