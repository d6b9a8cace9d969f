//! Sessions in stores for tower-sessions: each cell of the table in the documentation of `TowerStore`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::common::records::{FIRST, HOUR, SECOND, now, write};
use async_trait::async_trait;
use axum::{Router, routing::get};
use session_manager::{
    Error, Manager, MemoryStore, ServerSide, Session, Store, StoreError, Timestamp, Tower014,
    TowerStore,
    store::{Applied, StoreId, Value},
    testing::check_store,
};
use tokio::{sync::Semaphore, task::JoinHandle};
use tower_sessions_core::{
    CachingSessionStore, SessionStore,
    session::{Id, Record as Theirs},
    session_store,
};
use tower_sessions_memory_store::MemoryStore as TheirMemory;

/// Long enough for a call that nothing holds up.
const MOMENT: Duration = Duration::from_millis(50);
const ID: StoreId = StoreId::from_bytes(*b"0123456789abcdef another half   ");

/// How a store takes a new record.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Create {
    #[default]
    UnlessTaken,
    /// As the trait does it by default.
    BySaving,
    /// As if another process had been faster.
    UnderAnotherId,
}

/// A slow memory store that records its calls, and fails as a test demands.
#[derive(Clone, Debug, Default)]
struct Puppet {
    memory: TheirMemory,
    asked: Arc<Mutex<Vec<&'static str>>>,
    create: Create,
    /// If set, every save takes a permit and does not return it.
    saves: Option<Arc<Semaphore>>,
    fails: Arc<Mutex<Option<session_store::Error>>>,
}

impl Puppet {
    /// Returns the calls since the last time.
    fn asked(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// Returns a store whose saves wait for a permit.
    fn gated() -> (Self, Arc<Semaphore>) {
        let gate = Arc::new(Semaphore::new(0));
        let puppet = Self {
            saves: Some(Arc::clone(&gate)),
            ..Default::default()
        };
        (puppet, gate)
    }

    async fn until_asked(&self, call: &str) {
        let begun = Instant::now();
        while self.asked.lock().unwrap().last() != Some(&call) {
            assert!(begun.elapsed() < Duration::from_secs(10), "no {call}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Yields, so that calls overlap, and fails if a test demands it.
    async fn begin(&self, call: &'static str) -> session_store::Result<()> {
        self.asked.lock().unwrap().push(call);
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        self.fails.lock().unwrap().take().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl SessionStore for Puppet {
    async fn create(&self, record: &mut Theirs) -> session_store::Result<()> {
        match self.create {
            Create::BySaving => return self.save(record).await,
            Create::UnderAnotherId => record.id = Id::default(),
            Create::UnlessTaken => {}
        }
        self.begin("create").await?;
        self.memory.create(record).await
    }

    async fn save(&self, record: &Theirs) -> session_store::Result<()> {
        self.begin("save").await?;
        if let Some(saves) = &self.saves {
            saves.acquire().await.unwrap().forget();
        }
        self.memory.save(record).await
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Theirs>> {
        self.begin("load").await?;
        let found = self.memory.load(id).await;
        // Yields, so that the record may be outdated when it is used.
        tokio::task::yield_now().await;
        found
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        self.begin("delete").await?;
        self.memory.delete(id).await
    }
}

/// Runs `call` on another handle of `store`, in parallel with the test.
fn spawn<S, F, T>(store: &S, call: impl FnOnce(S) -> F) -> JoinHandle<T>
where
    S: Store + Clone,
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    tokio::spawn(call(store.clone()))
}

fn their_id() -> Id {
    Id(i128::from_be_bytes(*b"0123456789abcdef"))
}

async fn keys(store: &impl Store) -> Vec<String> {
    let record = store.load(ID, now()).await.unwrap();
    let entries = record.map(|record| record.entries).unwrap_or_default();
    let mut keys: Vec<_> = entries.iter().map(|(key, _)| key.to_owned()).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn a_store_for_tower_sessions_0_14_keeps_the_store_contract() {
    let theirs = tower_sessions_memory_store_0_14::MemoryStore::default();
    check_store(TowerStore::new(Tower014::new(theirs))).await;
}

#[tokio::test]
async fn the_tower_sessions_memory_store_keeps_the_store_contract() {
    check_store(TowerStore::new(TheirMemory::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_calls_of_a_tower_sessions_store_keep_the_contract() {
    for create in [Create::UnlessTaken, Create::BySaving] {
        let theirs = Puppet {
            create,
            ..Default::default()
        };
        check_store(TowerStore::new(theirs)).await;
    }
}

/// A read fills the cache, which must not restore what a log-out deletes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caching_tower_sessions_store_keeps_the_store_contract() {
    let theirs = CachingSessionStore::new(Puppet::default(), Puppet::default());
    check_store(TowerStore::new(theirs)).await;

    let (cache, gate) = Puppet::gated();
    let store = TowerStore::new(CachingSessionStore::new(cache.clone(), Puppet::default()));
    assert!(store.create(ID, &write(&[("key", "value")])).await.unwrap());
    cache.delete(&their_id()).await.unwrap();
    let read = spawn(&store, |store| async move { store.load(ID, now()).await });
    cache.until_asked("save").await;
    let out = spawn(&store, |store| async move { store.destroy(ID).await });
    tokio::time::sleep(MOMENT).await;
    gate.add_permits(1);
    assert!(read.await.unwrap().unwrap().is_some());
    out.await.unwrap().unwrap();
    assert_eq!(keys(&store).await, [""; 0], "the cache holds nothing");
}

#[tokio::test]
async fn a_cancelled_save_ends_before_a_log_out_begins() {
    let (theirs, gate) = Puppet::gated();
    let store = TowerStore::new(theirs.clone());
    assert!(store.create(ID, &write(&[("key", "value")])).await.unwrap());
    let late = write(&[("late", "value")]);
    let broken_off = tokio::time::timeout(MOMENT, store.apply(ID, &late)).await;
    assert!(broken_off.is_err());
    let out = spawn(&store, |store| async move { store.destroy(ID).await });
    tokio::time::sleep(MOMENT).await;
    assert!(!out.is_finished(), "it waits for what is on its way");
    gate.add_permits(1);
    out.await.unwrap().unwrap();
    assert_eq!(keys(&store).await, [""; 0]);
    assert_eq!(
        theirs.asked(),
        ["load", "create", "load", "save", "delete", "load"]
    );
}

#[tokio::test]
async fn a_call_cancelled_while_waiting_does_nothing() {
    let (theirs, gate) = Puppet::gated();
    let store = TowerStore::new(theirs);
    assert!(store.create(ID, &write(&[("key", "value")])).await.unwrap());
    let first = spawn(&store, |store| async move {
        store.apply(ID, &write(&[("first", "value")])).await
    });
    tokio::task::yield_now().await;
    let second = write(&[("second", "value")]);
    let gave_up = tokio::time::timeout(MOMENT, store.apply(ID, &second)).await;
    assert!(gave_up.is_err());
    gate.add_permits(2);
    assert_eq!(first.await.unwrap().unwrap(), Applied::Done);
    assert_eq!(keys(&store).await, ["first", "key"]);
}

#[tokio::test]
async fn a_hanging_call_delays_only_its_own_session() {
    let (theirs, _gate) = Puppet::gated();
    let store = TowerStore::new(theirs.clone());
    assert!(store.create(ID, &write(&[("key", "value")])).await.unwrap());
    let hangs = spawn(&store, |store| async move {
        store.apply(ID, &write(&[("key", "value")])).await
    });
    theirs.until_asked("save").await;
    let other = StoreId::from_bytes([0xcd; 32]);
    assert!(
        store
            .create(other, &write(&[("key", "value")]))
            .await
            .unwrap()
    );
    store.destroy(other).await.unwrap();
    assert!(!hangs.is_finished());
}

#[tokio::test]
async fn opening_costs_one_tower_sessions_call_and_writing_two() {
    let theirs = Puppet::default();
    let store = TowerStore::new(theirs.clone());
    assert!(store.create(ID, &write(&[("key", "value")])).await.unwrap());
    assert_eq!(theirs.asked(), ["load", "create"], "a new session");
    store.load(ID, now()).await.unwrap();
    assert_eq!(theirs.asked(), ["load"], "opening");
    assert_eq!(
        store.apply(ID, &write(&[("more", "value")])).await.unwrap(),
        Applied::Done
    );
    assert_eq!(theirs.asked(), ["load", "save"], "a write");
    let mut renewal = write(&[("more", "value")]);
    renewal.new_verifier = Some(SECOND);
    assert_eq!(store.apply(ID, &renewal).await.unwrap(), Applied::Done);
    assert_eq!(theirs.asked(), ["load", "save"], "a renewal");
    assert_eq!(store.apply(ID, &renewal).await.unwrap(), Applied::Gone);
    assert_eq!(theirs.asked(), ["load"], "what is gone");
    store.destroy(ID).await.unwrap();
    assert_eq!(theirs.asked(), ["delete"], "logging out");
}

#[tokio::test]
async fn an_id_that_is_in_use_is_refused() {
    let theirs = Puppet {
        create: Create::UnderAnotherId,
        ..Default::default()
    };
    let store = TowerStore::new(theirs.clone());
    assert!(!store.create(ID, &write(&[("key", "value")])).await.unwrap());
    assert_eq!(theirs.asked(), ["load", "create", "delete"]);
    let memory = format!("{:?}", theirs.memory);
    assert!(!memory.contains("session-manager"), "{memory}");
}

#[tokio::test]
async fn of_two_sessions_created_under_one_id_one_is_refused() {
    let (mut theirs, gate) = Puppet::gated();
    theirs.create = Create::BySaving;
    let store = TowerStore::new(theirs.clone());
    let create = |key: &'static str| {
        spawn(&store, move |store| async move {
            store.create(ID, &write(&[(key, "value")])).await
        })
    };
    let first = create("first");
    theirs.until_asked("save").await;
    let second = create("second");
    tokio::time::sleep(MOMENT).await;
    gate.add_permits(2);
    assert!(first.await.unwrap().unwrap());
    assert!(!second.await.unwrap().unwrap());
    assert_eq!(keys(&store).await, ["first"]);
}

#[tokio::test]
async fn a_tower_sessions_record_is_one_string_that_expires() {
    let theirs = TheirMemory::default();
    let store = TowerStore::new(theirs.clone());
    let mut write = write(&[("name", "value")]);
    // Half a second past a whole one.
    let expires = now().plus(HOUR).millis() / 1_000 * 1_000 + 500;
    write.expires = Timestamp::from_millis(expires);
    write.set.push(("n".into(), Value::Json("1.0e400".into())));
    write.user = Some("\"ada\"".into());
    assert!(store.create(ID, &write).await.unwrap());
    let record = theirs.load(&their_id()).await.unwrap().unwrap();
    assert_eq!(
        record.expiry_date.unix_timestamp_nanos(),
        i128::from(expires + 500 + 60_000) * 1_000_000
    );
    let now = write.now.millis();
    assert_eq!(
        record.data["session-manager"],
        format!(
            r#"{{"verifier":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE","created":{now},"last_seen":{now},"expires":{expires},"version":1,"user":"\"ada\"","values":{{"name":"tvalue","n":"j1.0e400"}}}}"#
        )
    );
    assert_eq!(record.data.len(), 1);
    assert!(!format!("{store:?}").contains("session-manager"));

    write.now = write.expires;
    write.expires = Timestamp::from_millis(u64::MAX);
    assert!(store.create(ID, &write).await.unwrap(), "its time was over");
    let record = theirs.load(&their_id()).await.unwrap().unwrap();
    assert_eq!(record.expiry_date.year(), 9999);
    let record = store.load(ID, write.now).await.unwrap().unwrap();
    assert_eq!(record.expires, write.expires);
}

#[tokio::test]
async fn a_foreign_tower_sessions_record_is_corrupt_and_unchanged() {
    let theirs = Puppet::default();
    let store = TowerStore::new(theirs.clone());
    assert!(store.create(ID, &write(&[("key", "value")])).await.unwrap());
    let good = theirs.load(&their_id()).await.unwrap().unwrap();
    let text = good.data["session-manager"].as_str().unwrap();
    let with = |text: &str| HashMap::from([("session-manager".to_owned(), text.into())]);
    let mut beside = good.data.clone();
    beside.insert("user".into(), "ada".into());
    let bad = [
        HashMap::new(),
        HashMap::from([("user".to_owned(), "ada".into())]),
        HashMap::from([("session-manager".to_owned(), 1.into())]),
        beside,
        with(""),
        with("{}"),
        with(&text[1..]),
        with(&format!("{text}{text}")),
        with(&text.replace("AQE\"", "AQ\"")),
        with(&text.replace("\"version\":1", "\"version\":-1")),
        with(&text.replace("\"version\":1,", "")),
        with(&text.replace("\"tvalue\"", "\"value\"")),
        with(&text.replace("\"tvalue\"", "1")),
    ];
    for data in bad {
        let bad = Theirs {
            data,
            ..good.clone()
        };
        theirs.save(&bad).await.unwrap();
        let is_corrupt = |error| matches!(error, StoreError::Corrupt { .. });
        assert!(is_corrupt(store.load(ID, now()).await.unwrap_err()));
        assert!(is_corrupt(
            store
                .create(ID, &write(&[("new", "value")]))
                .await
                .unwrap_err()
        ));
        assert!(is_corrupt(
            store
                .apply(ID, &write(&[("new", "value")]))
                .await
                .unwrap_err()
        ));
        let left = theirs.load(&their_id()).await.unwrap().unwrap();
        assert_eq!(left, bad);
    }
    *theirs.fails.lock().unwrap() = Some(session_store::Error::Decode("no MessagePack".into()));
    let error = store.load(ID, now()).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn errors_keep_the_tower_sessions_error_as_source() {
    let theirs = Puppet::default();
    let store = TowerStore::new(theirs.clone());
    let fail = || {
        let error = session_store::Error::Backend("connection refused".into());
        *theirs.fails.lock().unwrap() = Some(error);
    };
    let check = |error: StoreError| {
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(source, "connection refused");
        assert!(error.to_string().starts_with("tower-sessions failed"));
    };
    fail();
    check(store.load(ID, now()).await.unwrap_err());
    fail();
    check(
        store
            .create(ID, &write(&[("key", "value")]))
            .await
            .unwrap_err(),
    );
    fail();
    check(
        store
            .apply(ID, &write(&[("key", "value")]))
            .await
            .unwrap_err(),
    );
    fail();
    check(store.destroy(ID).await.unwrap_err());
    assert!(
        store.create(ID, &write(&[("key", "value")])).await.unwrap(),
        "and is back"
    );
}

/// Two values over one store wait for each other as little as two processes do.
#[tokio::test]
async fn in_two_processes_sequential_calls_keep_the_contract() {
    let theirs = TheirMemory::default();
    let [one, two] = [(); 2].map(|()| TowerStore::new(theirs.clone()));
    assert!(one.create(ID, &write(&[("one", "value")])).await.unwrap());
    assert!(!two.create(ID, &write(&[("two", "value")])).await.unwrap());
    assert_eq!(
        two.apply(ID, &write(&[("two", "value")])).await.unwrap(),
        Applied::Done
    );
    let mut renewal = write(&[("three", "value")]);
    renewal.new_verifier = Some(SECOND);
    renewal.if_version = Some(1);
    assert_eq!(one.apply(ID, &renewal).await.unwrap(), Applied::Conflict);
    renewal.if_version = Some(2);
    assert_eq!(one.apply(ID, &renewal).await.unwrap(), Applied::Done);
    assert_eq!(
        two.apply(ID, &write(&[("late", "value")])).await.unwrap(),
        Applied::Gone
    );
    assert_eq!(keys(&two).await, ["one", "three", "two"]);
    one.destroy(ID).await.unwrap();
    renewal.verifier = SECOND;
    assert_eq!(two.apply(ID, &renewal).await.unwrap(), Applied::Gone);
    assert_eq!(keys(&two).await, [""; 0]);
}

/// The promise that the table says cannot be kept; a failure means that it can be.
#[tokio::test]
async fn in_two_processes_a_write_may_undo_an_overlapping_one() {
    let mut renewal = write(&[("renewed", "value")]);
    renewal.new_verifier = Some(SECOND);
    for overlapped in [Some(write(&[("other", "value")])), Some(renewal), None] {
        let (slow, gate) = Puppet::gated();
        let fast = TowerStore::new(slow.memory.clone());
        let store = TowerStore::new(slow.clone());
        assert!(store.create(ID, &write(&[("key", "value")])).await.unwrap());
        let late = spawn(&store, |store| async move {
            store.apply(ID, &write(&[("late", "value")])).await
        });
        slow.until_asked("save").await;
        match overlapped {
            Some(write) => assert_eq!(fast.apply(ID, &write).await.unwrap(), Applied::Done),
            None => fast.destroy(ID).await.unwrap(),
        }
        gate.add_permits(1);
        assert_eq!(late.await.unwrap().unwrap(), Applied::Done);
        assert_eq!(keys(&fast).await, ["key", "late"]);
        let record = fast.load(ID, now()).await.unwrap().unwrap();
        assert_eq!(record.verifier, FIRST);
    }
}

#[test]
fn sessions_migrate_from_tower_sessions_to_a_native_store() {
    async fn count(session: Session) -> Result<String, Error> {
        let count = session.update("count", |count: Option<u32>| count.unwrap_or(0) + 1)?;
        Ok(count.to_string())
    }
    async fn read(session: Session) -> String {
        session.get("count").unwrap_or("none".into())
    }
    async fn out(session: Session) {
        session.destroy();
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let serve = |manager: &Manager| {
        let app = Router::new()
            .route("/count", get(count))
            .route("/read", get(read))
            .route("/out", get(out))
            .layer(manager.middleware());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0");
        let listener = runtime.block_on(listener).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async { axum::serve(listener, app).await.unwrap() });
        address
    };
    let call = |address, path: &str, cookie: &str| {
        let request = ureq::get(format!("http://{address}{path}")).header("cookie", cookie);
        let mut response = request.call().unwrap();
        let set = response.headers().get("set-cookie").map(|line| {
            let pair = line.to_str().unwrap().split(';').next();
            pair.unwrap().to_owned()
        });
        (response.body_mut().read_to_string().unwrap(), set)
    };
    let theirs = Puppet::default();
    let memory = || format!("{:?}", theirs.memory);
    let old = Manager::new(ServerSide::new(TowerStore::new(theirs.clone())));
    let ours = MemoryStore::new();
    let new = Manager::builder(ServerSide::new(ours.clone()))
        .migrate_from(old.clone())
        .build()
        .unwrap();
    let (before, after) = (serve(&old), serve(&new));

    let (body, cookie) = call(before, "/count", "");
    let cookie = cookie.unwrap();
    assert_eq!(body, "1");
    assert_eq!(call(before, "/count", &cookie), ("2".into(), None));
    assert_eq!(
        theirs.asked(),
        ["load", "create", "load", "load", "save"],
        "a request that writes asks three times"
    );
    assert!(memory().contains("j2"), "{}", memory());
    let (_, token) = cookie.split_once('=').unwrap();
    for part in [token, &token[..21], &token[22..]] {
        assert!(!memory().contains(part), "nothing of the cookie is there");
    }

    assert_eq!(call(after, "/read", &cookie), ("2".into(), None));
    let (body, moved) = call(after, "/count", &cookie);
    let moved = moved.unwrap();
    assert_eq!(body, "3");
    assert_eq!(ours.len(), 1);
    assert!(!memory().contains("session-manager"), "{}", memory());
    assert_eq!(call(after, "/read", &moved).0, "3");
    assert_eq!(call(after, "/read", &cookie).0, "3", "it keeps its id");
    assert_eq!(call(before, "/read", &cookie).0, "none");

    let (_, cookie) = call(before, "/count", "");
    let cookie = cookie.unwrap();
    theirs.asked();
    call(before, "/out", &cookie);
    assert_eq!(theirs.asked(), ["load", "delete"]);
    assert_eq!(call(before, "/read", &cookie).0, "none");
}
