//! `RedisStore` under load, against a plain model: no write that was acknowledged is lost, and none comes
//! back that was refused, or whose session was destroyed. `SESSION_STRESS_SECONDS` says how long each part
//! takes.

#[path = "services/servers.rs"]
mod servers;

use std::{
    env,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Waker},
    time::{Duration, Instant},
};

use servers::{Redis as Server, cli};
use session_manager::{
    RedisStore, Store, Timestamp,
    store::{Applied, Record, StoreId, Value, Verifier, Write},
};

/// Sessions at once, and the requests at once of each.
const SESSIONS: usize = 6;
const WRITERS: usize = 8;
/// How long a session lasts, by a clock of its own that each of its requests moves by some seconds: the
/// server has to be told a later end every hundred requests or so.
const LIFETIME: Duration = Duration::from_secs(3_600);
const STEP: u64 = 4_000;
const BEGIN: u64 = 1_800_000_000_000;

fn seconds() -> Duration {
    let seconds = env::var("SESSION_STRESS_SECONDS").map(|text| text.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(3))
}

fn unique() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    COUNT.fetch_add(1, SeqCst)
}

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn new_verifier() -> Verifier {
    // As a SHA-256 is: its first bytes differ.
    let mut bytes = [0; 32];
    let number = unique().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[31] = 1;
    Verifier::from_bytes(bytes)
}

fn new_id() -> StoreId {
    let mut bytes = [0; 32];
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    bytes[..16].copy_from_slice(&now.as_nanos().to_be_bytes());
    bytes[16..24].copy_from_slice(&unique().to_be_bytes());
    StoreId::from_bytes(bytes)
}

/// A session, and what was done to it.
struct Model {
    id: StoreId,
    clock: AtomicU64,
    user: String,
    /// Updates that were acknowledged, and those of which nothing is known.
    counted: AtomicU64,
    maybe_counted: AtomicU64,
    destroyed: AtomicBool,
}

/// A count in a session, and what its writer knows of it.
#[derive(Default)]
struct Count {
    last: u64,
    done: u64,
    /// Those after it of which nothing is known.
    maybe: Vec<u64>,
}

impl Count {
    fn check(&self, found: u64, writer: usize) {
        assert!(
            found == self.done || self.maybe.contains(&found),
            "writer {writer} finds {found}, wrote {} and maybe {:?} since: lost or revived",
            self.done,
            self.maybe,
        );
    }

    fn next(&mut self) -> (u64, Value) {
        self.last += 1;
        (self.last, Value::Text(self.last.to_string().into()))
    }

    /// A write that was done, and whose answer was lost with its connection, is sent again; if the session
    /// was renewed between the two, that is refused.
    fn learn(&mut self, applied: Option<Applied>, is_rough: bool) {
        match applied {
            Some(Applied::Done) => {
                self.done = self.last;
                self.maybe.clear();
            }
            Some(_) if !is_rough => {}
            _ => self.maybe.push(self.last),
        }
    }
}

/// The keys of one writer.
#[derive(Default)]
struct Mine {
    /// Under two keys, of which each write removes one: the odd counts and the even ones.
    pair: Count,
    /// Under a key that is only set.
    single: Count,
}

impl Mine {
    fn check(&self, record: &Record, writer: usize) {
        let count = |name: &str| {
            let value = record.entries.get(&format!("{name} {writer}"));
            value.map(|value| value.as_str().parse::<u64>().unwrap())
        };
        let found = match (count("odd"), count("even")) {
            (Some(_), Some(_)) => panic!("half of a write is seen: {:?}", record.entries),
            (odd, even) => odd.or(even).unwrap_or(0),
        };
        self.pair.check(found, writer);
        self.single.check(count("single").unwrap_or(0), writer);
    }

    /// Sets the next count of one of the two, and returns that one.
    fn next(&mut self, write: &mut Write, writer: usize, only_sets: bool) -> &mut Count {
        if only_sets {
            let (_, value) = self.single.next();
            write.set.push((format!("single {writer}").into(), value));
            return &mut self.single;
        }
        let (count, value) = self.pair.next();
        let (set, remove) = match count % 2 {
            1 => ("odd", "even"),
            _ => ("even", "odd"),
        };
        write.set.push((format!("{set} {writer}").into(), value));
        write.remove.push(format!("{remove} {writer}").into());
        &mut self.pair
    }
}

impl Model {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.load(SeqCst))
    }

    fn later(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.fetch_add(STEP, SeqCst))
    }
}

/// A request that loaded `record`.
fn request(record: &Record, now: Timestamp) -> Write {
    let mut write = Write::touch(record.verifier, record.created, now, now.plus(LIFETIME));
    write.seen_expires = Some(record.expires);
    write
}

/// The outcome of a call; `None` if it is not known, because it failed or was dropped.
async fn call<T>(
    is_rough: bool,
    random: &mut Random,
    call: impl Future<Output = Result<T, session_manager::StoreError>>,
) -> Option<T> {
    if !is_rough {
        return Some(call.await.expect("the store answers"));
    }
    // Some clients do not wait for their answer.
    let patience = match random.below(20) {
        0 => Duration::from_micros(random.below(2_000)),
        _ => Duration::from_secs(5),
    };
    tokio::time::timeout(patience, call).await.ok()?.ok()
}

async fn write_until(
    store: RedisStore,
    model: Arc<Model>,
    writer: usize,
    end: Instant,
    is_rough: bool,
) -> (Mine, [u64; 2]) {
    let mut random = Random(unique().wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
    let (mut mine, mut outcomes) = (Mine::default(), [0; 2]);
    while Instant::now() < end {
        let was_destroyed = model.destroyed.load(SeqCst);
        let now = model.now();
        let loaded = call(is_rough, &mut random, store.load(model.id, now)).await;
        let Some(found) = loaded else { continue };
        assert!(found.is_none() || !was_destroyed, "a session is revived");
        let Some(record) = found else {
            assert!(
                model.destroyed.load(SeqCst) || is_destroying(&model),
                "a session is lost"
            );
            // Late writes of requests that loaded it before.
            let mut late = request(
                &Record::new(now, now.plus(LIFETIME), Default::default()),
                now,
            );
            late.verifier = new_verifier();
            mine.next(&mut late, writer, random.below(2) == 0);
            let applied = call(is_rough, &mut random, store.apply(model.id, &late)).await;
            assert!(matches!(applied, None | Some(Applied::Gone)));
            continue;
        };
        mine.check(&record, writer);
        if random.below(4) == 0 {
            tokio::time::sleep(Duration::from_micros(random.below(3_000))).await;
        }
        let was_destroyed = model.destroyed.load(SeqCst);
        let mut write = request(&record, model.later());
        let kind = random.below(20);
        match kind {
            0 => write.new_verifier = Some(new_verifier()),
            1 => write.user = Some(model.user.as_str().into()),
            2..5 => {
                let old = record.entries.get("count").map(Value::into_owned);
                let count: u64 = old.as_ref().map_or(0, |old| old.as_str().parse().unwrap());
                let value = Value::Json((count + 1).to_string().into());
                write.set.push(("count".into(), value));
                write.if_version = Some(record.version);
                write.expected = vec![("count".into(), old)];
            }
            5 => {
                let applied = call(is_rough, &mut random, store.apply(model.id, &write)).await;
                assert!(applied != Some(Applied::Done) || !was_destroyed);
                continue;
            }
            _ => {}
        }
        let mut counted = None;
        if random.below(3) > 0 || write.is_touch() {
            counted = Some(mine.next(&mut write, writer, random.below(2) == 0));
        } else if write.if_version.is_none() {
            continue;
        }
        let applied = call(is_rough, &mut random, store.apply(model.id, &write)).await;
        assert!(
            applied != Some(Applied::Done) || !was_destroyed,
            "a write to a destroyed session is acknowledged"
        );
        outcomes[usize::from(applied == Some(Applied::Done))] += 1;
        if let Some(counted) = counted {
            counted.learn(applied, is_rough);
        }
        if write.if_version.is_some() {
            match applied {
                Some(Applied::Done) => model.counted.fetch_add(1, SeqCst),
                None => model.maybe_counted.fetch_add(1, SeqCst),
                Some(_) => 0,
            };
        } else {
            assert_ne!(applied, Some(Applied::Conflict));
        }
    }
    (mine, outcomes)
}

/// Whether its destruction may be under way.
fn is_destroying(model: &Model) -> bool {
    model.user.ends_with('d')
}

async fn stress(urls: [&str; 2], seconds: Duration, is_rough: bool) -> Vec<StoreId> {
    let mut stores = Vec::new();
    for url in urls.iter().chain(&urls) {
        // A connection that is killed while it is made is an error.
        stores.push(RedisStore::connect_lazy(url).unwrap());
    }
    let end = Instant::now() + seconds;
    let mut models = Vec::new();
    let mut tasks = Vec::new();
    for session in 0..SESSIONS {
        let id = new_id();
        let kind = if session % 2 == 0 {
            "kept"
        } else {
            "destroyed"
        };
        let model = Arc::new(Model {
            id,
            clock: AtomicU64::new(BEGIN),
            user: format!("{id} {kind}"),
            counted: AtomicU64::new(0),
            maybe_counted: AtomicU64::new(0),
            destroyed: AtomicBool::new(false),
        });
        let now = model.now();
        let mut first = Write::touch(new_verifier(), now, now, now.plus(LIFETIME));
        first.user = Some(model.user.as_str().into());
        match is_rough {
            true => while stores[0].create(id, &first).await.is_err() {},
            false => assert!(stores[0].create(id, &first).await.unwrap()),
        }
        for writer in 0..WRITERS {
            // A writer stays with its connection, so that what it dropped does not overtake what it did next.
            let store = stores[writer % stores.len()].clone();
            let writing = write_until(store, Arc::clone(&model), writer, end, is_rough);
            tasks.push((session, writer, tokio::spawn(writing)));
        }
        if is_destroying(&model) {
            let (store, model) = (stores[session % stores.len()].clone(), Arc::clone(&model));
            let wait = seconds * (session as u32 + 1) / (SESSIONS as u32 + 2);
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                while store.destroy(model.id).await.is_err() {}
                model.destroyed.store(true, SeqCst);
            });
        }
        models.push(model);
    }
    let mut total = [0; 2];
    let mut known = Vec::new();
    for (session, writer, task) in tasks {
        let (mine, outcomes) = task.await.unwrap();
        total = [total[0] + outcomes[0], total[1] + outcomes[1]];
        known.push((session, writer, mine));
    }
    println!("{} writes were done, {} were not", total[1], total[0]);
    assert!(total[1] > 100);
    // What was dropped may still be on its way.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let store = RedisStore::connect_lazy(urls[0]).unwrap();
    let index = store.users().unwrap();
    for (session, model) in models.iter().enumerate() {
        let now = model.now();
        let record = store.load(model.id, now).await.unwrap();
        let listed = index.sessions_of(&model.user, &[], now).await.unwrap();
        let Some(record) = record else {
            assert!(model.destroyed.load(SeqCst), "a session is lost");
            assert!(listed.items.is_empty());
            continue;
        };
        assert!(!model.destroyed.load(SeqCst), "a session is revived");
        assert_eq!(
            listed.items.len(),
            1,
            "the index knows it for as long as it lives"
        );
        for (_, writer, mine) in known.iter().filter(|(of, ..)| *of == session) {
            mine.check(&record, *writer);
        }
        let count = record
            .entries
            .get("count")
            .map_or(0, |count| count.as_str().parse().unwrap());
        let counted = model.counted.load(SeqCst);
        assert!(count >= counted, "{count} of {counted} updates are left");
        // A script that is sent again after another came between may count twice.
        assert!(is_rough || count == counted, "{count} of {counted} updates");
    }
    models.iter().map(|model| model.id).collect()
}

async fn destroy_all(url: &str, ids: &[StoreId]) {
    let store = RedisStore::connect(url).await.unwrap();
    for id in ids {
        store.destroy(*id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis: tests/run.sh"]
async fn requests_that_overlap_lose_and_revive_nothing() {
    let server = Server::start(&[]);
    let (url, resp3) = (server.url(), format!("{}?protocol=resp3", server.url()));
    let ids = stress([&url, &resp3], seconds(), false).await;
    let mut kept = 0;
    for id in &ids {
        let pttl = cli(server.port, &["pttl", &format!("session:{{{id}}}")]);
        let pttl: i64 = pttl.parse().unwrap();
        assert!(
            pttl == -2 || pttl > 60_000,
            "the server keeps it for its time: {pttl}"
        );
        kept += usize::from(pttl > 0);
    }
    assert_eq!(kept, SESSIONS / 2, "late writes leave nothing");
    destroy_all(&url, &ids).await;
    assert_eq!(cli(server.port, &["dbsize"]), "0", "nothing is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis: tests/run.sh"]
async fn nor_do_they_in_a_cluster_and_behind_sentinels() {
    for variable in ["SESSION_TEST_REDIS_CLUSTER", "SESSION_TEST_REDIS_SENTINEL"] {
        let url = env::var(variable)
            .unwrap_or_else(|_| panic!("{variable} is not set: run tests/run.sh"));
        let ids = stress([&url, &url], seconds(), false).await;
        destroy_all(&url, &ids).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis: tests/run.sh"]
async fn nor_do_they_if_connections_break_and_clients_go_away() {
    let server = Server::start(&[]);
    let (port, ends) = (server.port, Arc::new(AtomicBool::new(false)));
    let over = Arc::clone(&ends);
    let killing = std::thread::spawn(move || {
        let mut kills = 0;
        while !over.load(SeqCst) {
            let kill = cli(port, &["client", "kill", "type", "normal", "skipme", "yes"]);
            kills += kill.parse::<u32>().unwrap_or(0);
            std::thread::sleep(Duration::from_millis(30));
        }
        kills
    });
    let ids = stress([&server.url(); 2], seconds(), true).await;
    ends.store(true, SeqCst);
    println!("{} connections were killed", killing.join().unwrap());
    // A write that was dropped, or whose answer was lost, may leave fields of no record, for a while.
    for key in cli(port, &["keys", "*"]).lines() {
        let pttl = cli(port, &["pttl", key]);
        let is_over = pttl == "-2";
        assert!(
            is_over || pttl.parse::<i64>().unwrap() > 0,
            "{key} stays for ever: {pttl}"
        );
    }
    destroy_all(&server.url(), &ids).await;
}

/// What no model sees, because the store cleans up after itself unless the process ends.
#[tokio::test]
#[ignore = "needs Redis: tests/run.sh"]
async fn a_late_write_whose_process_ends_stays_for_no_longer_than_its_session_would() {
    let server = Server::start(&[]);
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let (id, now) = (new_id(), Timestamp::from_millis(BEGIN));
    let mut late = request(
        &Record::new(now, now.plus(LIFETIME), Default::default()),
        now,
    );
    assert!(store.load(id, now).await.unwrap().is_none());
    late.set.push(("key".into(), Value::Text("late".into())));
    {
        let mut call = pin!(store.apply(id, &late));
        let mut context = Context::from_waker(Waker::noop());
        assert!(call.as_mut().poll(&mut context).is_pending());
        // It is sent, and its answer is never looked at.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        store.load(id, now).await.unwrap().is_none(),
        "it is no record"
    );
    let key = format!("session:{{{id}}}");
    let pttl: u64 = cli(server.port, &["pttl", &key]).parse().unwrap();
    assert!((60_000..=3_660_000).contains(&pttl), "{pttl}");
    // Nor does it hinder one.
    assert!(store.create(id, &late).await.unwrap());
    assert_eq!(store.load(id, now).await.unwrap().unwrap().version, 1);
}
