//! What is kept of revocations: one record for each user whose logins were revoked.
//!
//! ```text
//! "all"          the revocation that the last log-out everywhere was: a moment, later than any before
//! "kept"         the login that it kept
//! "out.<login>"  the moment when the last cookie of a login is over that ended by itself
//! ```

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sha2::{Digest, Sha256};

use crate::{
    changes::write::{Applied, Write},
    error::Error,
    expiry::{Lifetime, Timestamp},
    future::BackendFuture,
    record::{
        Record,
        entries::Entries,
        id::{StoreId, Verifier},
        login::Login,
    },
    settings::Settings,
    store::{
        Store, StoreError,
        limit::{limited, within},
    },
    value::Value,
};

/// How many logins of a user may have ended by themselves and still have cookies. One more revokes all
/// older ones, so that the record stays small.
const MOST: usize = 256;

/// How often a write may find that another one was faster.
const TRIES: u32 = 32;

/// How long one call of the store may take.
const TIME_LIMIT: Duration = Duration::from_secs(2);

const SHARDS: usize = 16;
/// How many users a shard of the cache holds.
const CACHED: usize = 1_024;

/// The revocations of a user's logins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Revoked {
    all: u64,
    kept: Option<u64>,
    out: Vec<(u64, Timestamp)>,
}

impl Revoked {
    /// Returns `true` if the cookies of `login` open nothing.
    pub(crate) fn revokes(&self, login: &Login) -> bool {
        login.since < self.all && self.kept != Some(login.id)
            || self.out.iter().any(|(id, _)| *id == login.id)
    }

    /// Returns the last revocation of all logins.
    pub(crate) fn last(&self) -> u64 {
        self.all
    }

    fn read(entries: &Entries) -> Option<Self> {
        let mut read = Self::default();
        for (key, value) in entries.iter() {
            let value = value.as_str();
            match key {
                "all" => read.all = value.parse().ok()?,
                "kept" => read.kept = Some(u64::from_str_radix(value, 16).ok()?),
                _ => {
                    let id = u64::from_str_radix(key.strip_prefix("out.")?, 16).ok()?;
                    let until = Timestamp::from_millis(value.parse().ok()?);
                    read.out.push((id, until));
                }
            }
        }
        Some(read)
    }

    /// Adds what `other` revokes.
    fn add(&mut self, other: &Self, now: Timestamp) {
        if other.all > self.all {
            (self.all, self.kept) = (other.all, other.kept);
        }
        let ids: Vec<_> = self.out.iter().map(|(id, _)| *id).collect();
        let new = other.out.iter().filter(|(id, _)| !ids.contains(id));
        self.out.extend(new);
        self.out.retain(|(_, until)| now < *until);
    }
}

fn key_of(id: u64) -> Box<str> {
    format!("out.{}", hex(id)).into()
}

/// What to revoke of a user's logins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Revoke {
    /// All of them, but for the login of this id.
    All { kept: Option<u64> },
    /// One login, whose cookies are over by then.
    One { id: u64, until: Timestamp },
}

/// The store of revocations, whatever its type.
pub(crate) trait Revocations: Send + Sync {
    /// Returns what the store said of the user no longer than `span` ago.
    fn cached(&self, user: &str, now: Timestamp, span: Duration) -> Option<Arc<Revoked>>;

    /// Asks the store.
    fn stored(
        &self,
        user: &str,
        now: Timestamp,
    ) -> BackendFuture<'static, Result<Arc<Revoked>, Error>>;

    fn revoke(
        &self,
        user: &str,
        what: Revoke,
        now: Timestamp,
        settings: &Settings,
    ) -> BackendFuture<'static, Result<(), Error>>;
}

/// Keeps revocations in a store.
pub(crate) struct Kept<S>(Arc<Inner<S>>);

struct Inner<S> {
    store: S,
    cache: [Mutex<Cache>; SHARDS],
    /// Revocations of a user wait for each other here, so that only another process is faster.
    turns: [tokio::sync::Mutex<()>; SHARDS],
}

type Cache = HashMap<StoreId, (Timestamp, Arc<Revoked>)>;

#[derive(Debug, thiserror::Error)]
#[error("{store} holds a revocation that this version cannot read")]
struct Unreadable {
    store: &'static str,
}

#[derive(Debug, thiserror::Error)]
#[error("{store} says each time that another revocation of the user was faster")]
struct Contended {
    store: &'static str,
}

impl<S: Store> Kept<S> {
    pub(crate) fn new(store: S) -> Self {
        Self(Arc::new(Inner {
            store,
            cache: std::array::from_fn(|_| Mutex::default()),
            turns: std::array::from_fn(|_| tokio::sync::Mutex::default()),
        }))
    }
}

/// Returns the id of a user's record.
fn id_of(user: &str) -> StoreId {
    let hash = Sha256::new().chain_update(b"revocations\0");
    StoreId::from_bytes(hash.chain_update(user).finalize().into())
}

impl<S: Store> Inner<S> {
    fn cache(&self, id: StoreId) -> MutexGuard<'_, Cache> {
        let shard = &self.cache[usize::from(id.as_bytes()[0]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what the store says. A revocation that is known stays known, because an answer may be
    /// older than it.
    fn learn(&self, id: StoreId, mut said: Revoked, now: Timestamp) -> Arc<Revoked> {
        let mut cache = self.cache(id);
        if let Some((_, known)) = cache.get(&id) {
            said.add(known, now);
        }
        let said = Arc::new(said);
        if cache.len() >= CACHED && !cache.contains_key(&id) {
            cache.clear();
        }
        cache.insert(id, (now, Arc::clone(&said)));
        said
    }

    fn limited<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> impl Future<Output = Result<T, StoreError>> {
        limited(self.store.name(), TIME_LIMIT, call)
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<(Revoked, Record)>, Error> {
        let found = self.limited(self.store.load(id, now)).await?;
        let Some(record) = found else { return Ok(None) };
        let unreadable = Unreadable {
            store: self.store.name(),
        };
        let read = Revoked::read(&record.entries).ok_or(Error::unavailable(unreadable))?;
        Ok(Some((read, record)))
    }

    async fn stored(&self, id: StoreId, now: Timestamp) -> Result<Arc<Revoked>, Error> {
        let found = self.load(id, now).await?;
        let said = found.map(|(said, _)| said).unwrap_or_default();
        Ok(self.learn(id, said, now))
    }

    async fn revoke(
        &self,
        id: StoreId,
        what: Revoke,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<(), Error> {
        let turn = &self.turns[usize::from(id.as_bytes()[0]) % SHARDS];
        let _turn = within(TIME_LIMIT, turn.lock()).await;
        for attempt in 0..TRIES {
            if attempt > 0 {
                let pause = RandomState::new().build_hasher().finish() % 32;
                tokio::time::sleep(Duration::from_millis(1 + pause)).await;
            }
            let found = self.load(id, now).await?;
            let (said, write) = plan(found.as_ref(), what, now, until);
            let is_done = match found {
                Some(_) => self.limited(self.store.apply(id, &write)).await? == Applied::Done,
                None => self.limited(self.store.create(id, &write)).await?,
            };
            if is_done {
                self.learn(id, said, now);
                return Ok(());
            }
        }
        let store = self.store.name();
        Err(Error::unavailable(Contended { store }))
    }
}

/// Returns the revocations of a user after the one of `what`, and what writes it.
fn plan(
    found: Option<&(Revoked, Record)>,
    what: Revoke,
    now: Timestamp,
    until: Timestamp,
) -> (Revoked, Write) {
    let mut said = found.map(|(said, _)| said.clone()).unwrap_or_default();
    let mut write = Write::touch(Verifier::NONE, now, now, until);
    let before: Vec<_> = said.out.iter().map(|(id, _)| *id).collect();
    said.out.retain(|(_, until)| now < *until);
    match what {
        Revoke::One { id, until } if said.out.len() < MOST => {
            said.out.retain(|(out, _)| *out != id);
            said.out.push((id, until));
            write.set = vec![(key_of(id), text(until.millis()))];
        }
        what => {
            let kept = match what {
                Revoke::All { kept } => kept,
                Revoke::One { .. } => None,
            };
            // Later than the one before, whatever the clocks of two processes say.
            said.all = (said.all + 1).max(now.millis()).min(Login::LAST);
            said.kept = kept;
            said.out.retain(|(id, _)| Some(*id) == kept);
            write.set = vec![("all".into(), text(said.all))];
            match kept {
                Some(id) => write.set.push(("kept".into(), Value::Text(hex(id).into()))),
                None => write.remove.push("kept".into()),
            }
            if let Some((_, record)) = found {
                write.if_version = Some(record.version);
                let former = record.entries.get("all").map(Value::into_owned);
                write.expected = vec![("all".into(), former)];
            }
        }
    }
    let stays = |id: &u64| said.out.iter().any(|(out, _)| out == id);
    let over = before.into_iter().filter(|id| !stays(id));
    write.remove.extend(over.map(key_of));
    (said, write)
}

fn hex(id: u64) -> String {
    format!("{id:x}")
}

fn text(number: u64) -> Value {
    Value::Text(number.to_string().into())
}

impl<S: Store> Revocations for Kept<S> {
    fn cached(&self, user: &str, now: Timestamp, span: Duration) -> Option<Arc<Revoked>> {
        let id = id_of(user);
        let cache = self.0.cache(id);
        let (asked, said) = cache.get(&id)?;
        (*asked <= now && now.since(*asked) < span).then(|| Arc::clone(said))
    }

    fn stored(
        &self,
        user: &str,
        now: Timestamp,
    ) -> BackendFuture<'static, Result<Arc<Revoked>, Error>> {
        let (inner, id) = (Arc::clone(&self.0), id_of(user));
        BackendFuture::pending(async move { inner.stored(id, now).await })
    }

    fn revoke(
        &self,
        user: &str,
        what: Revoke,
        now: Timestamp,
        settings: &Settings,
    ) -> BackendFuture<'static, Result<(), Error>> {
        let (inner, id) = (Arc::clone(&self.0), id_of(user));
        // Any session may have a lifetime of its own, so this is the longest that a cookie lives.
        let until = now.plus(settings.expiry().absolute.max(Lifetime::MAX));
        BackendFuture::pending(async move { inner.revoke(id, what, now, until).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn later(millis: u64) -> Timestamp {
        NOW.plus(Duration::from_millis(millis))
    }

    /// Plans revocations one after the other, each from the record that the one before left.
    fn after(revocations: &[(Revoke, Timestamp)]) -> Revoked {
        let mut found: Option<(Revoked, Record)> = None;
        for (what, now) in revocations {
            let (said, write) = plan(found.as_ref(), *what, *now, later(1_000_000));
            let record = match found {
                Some((_, mut record)) => {
                    assert_eq!(record.apply(&write), Applied::Done);
                    record
                }
                None => write.to_record(),
            };
            let mut read = Revoked::read(&record.entries).unwrap();
            read.out.sort_unstable();
            let mut sorted = said.clone();
            sorted.out.sort_unstable();
            assert_eq!(read, sorted, "what is known is what is stored");
            found = Some((said, record));
        }
        found.unwrap().0
    }

    #[test]
    fn each_revocation_is_later_than_the_one_before_whatever_the_clock_says() {
        let all = Revoke::All { kept: None };
        let mut last = 0;
        for count in 1..5 {
            let clock_goes_back = (0..count).map(|n| (all, later(10 - n)));
            let revoked = after(&clock_goes_back.collect::<Vec<_>>());
            assert!(revoked.last() > last);
            last = revoked.last();
        }
        let login = Login::new("ada", last);
        assert!(!after(&[(all, later(10))]).revokes(&login));
        let five = [
            (all, later(10)),
            (all, NOW),
            (all, NOW),
            (all, NOW),
            (all, NOW),
        ];
        assert!(after(&five).revokes(&login));
    }

    #[test]
    fn a_login_that_ended_stays_ended_while_it_has_cookies_and_is_then_forgotten() {
        let one = |id, millis| Revoke::One {
            id,
            until: later(millis),
        };
        let login = |id| Login {
            id,
            ..Login::new("ada", 0)
        };
        let revoked = after(&[(one(1, 100), NOW), (one(2, 200), NOW)]);
        assert!(revoked.revokes(&login(1)) && revoked.revokes(&login(2)));
        assert!(!revoked.revokes(&login(3)));
        let revoked = after(&[
            (one(1, 100), NOW),
            (one(2, 200), NOW),
            (one(3, 300), later(100)),
        ]);
        assert_eq!(revoked.out.len(), 2);
        let kept = Revoke::All { kept: Some(2) };
        let revoked = after(&[(one(1, 100), NOW), (kept, NOW)]);
        assert!(revoked.revokes(&login(1)) && revoked.revokes(&login(3)));
        assert!(!revoked.revokes(&login(2)));
        let revoked = after(&[(kept, NOW), (one(2, 100), NOW)]);
        assert!(revoked.revokes(&login(2)), "the one that was kept ends too");
        let revoked = after(&[(one(2, 100), NOW), (kept, NOW)]);
        assert!(revoked.revokes(&login(2)), "what ended is not kept");
    }

    #[cfg(feature = "memory")]
    #[test]
    fn what_is_known_is_not_forgotten_for_an_older_answer() {
        let store = Kept::new(crate::store::memory::MemoryStore::new());
        let id = id_of("ada");
        let login = Login::new("ada", 0);
        let said = Revoked {
            all: 7,
            ..Revoked::default()
        };
        store.0.learn(id, said, NOW);
        let known = store.0.learn(id, Revoked::default(), NOW);
        assert!(known.revokes(&login));
        for user in 0..30_000 {
            let id = id_of(&user.to_string());
            store.0.learn(id, Revoked::default(), NOW);
        }
        let cached: usize = store
            .0
            .cache
            .iter()
            .map(|shard| shard.lock().unwrap().len())
            .sum();
        assert!(cached <= SHARDS * CACHED, "{cached}");
    }
}
