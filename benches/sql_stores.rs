//! Measures the SQL stores: a call beside its floor (one prepared statement by primary key on the same
//! pool settings), and a table of 1,000,000 rows beside one of 1,000.
//!
//! ```sh
//! benches/sql_stores.sh
//! ```
//!
//! starts the servers. Without the addresses of servers in the environment, only SQLite is measured.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench stops at the first error and prints its tables"
)]

use std::{
    env, fs,
    path::PathBuf,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, UNIX_EPOCH},
};

use session_manager::{
    MySqlStore, PostgresStore, SqliteStore, Store, Timestamp,
    store::{Applied, StoreId, Value, Verifier, Write},
};
use sqlx::{
    AssertSqlSafe, MySqlPool, PgPool, SqlitePool,
    pool::PoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

const VERIFIER: Verifier = Verifier::from_bytes([7; 32]);
const IDLE: Duration = Duration::from_secs(24 * 3600);
/// The values of a session, as they are stored.
const STORED: &str = r#"{"user_id":"t0123456789abcdef","name":"tAda Lovelace","theme":"tdark"}"#;

/// How much is measured.
#[derive(Clone, Copy)]
struct Size {
    sessions: u64,
    rounds: usize,
    calls: usize,
    rows: [u64; 2],
    expired: u64,
    /// How long requests are measured without a sweep.
    calm: Duration,
}

const FULL: Size = Size {
    sessions: 1_000,
    rounds: 11,
    calls: 400,
    rows: [1_000, 1_000_000],
    expired: 200_000,
    calm: Duration::from_secs(5),
};
const TEST: Size = Size {
    sessions: 20,
    rounds: 3,
    calls: 10,
    rows: [10, 100],
    expired: 50,
    calm: Duration::from_millis(50),
};

fn now() -> Timestamp {
    let since = UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_millis(since.as_millis().try_into().unwrap())
}

/// Returns an id. A multiplication spreads ids well enough for an index, as SHA-256 does.
fn id(number: u64) -> StoreId {
    let mut bytes = [0; 32];
    for (part, chunk) in bytes.chunks_exact_mut(8).enumerate() {
        let mixed = (number + 1)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(part as u32 * 17);
        chunk.copy_from_slice(&mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93).to_be_bytes());
    }
    StoreId::from_bytes(bytes)
}

fn touch() -> Write {
    let now = now();
    let mut write = Write::touch(VERIFIER, now, now, now.plus(IDLE));
    // As `ServerSide` says of a session that it loaded.
    write.seen_expires = Some(now.plus(IDLE / 2));
    write
}

fn write(set: &[(&str, &str)]) -> Write {
    let mut write = touch();
    let text = |(key, text): &(&str, &str)| ((*key).into(), Value::Text((*text).into()));
    write.set = set.iter().map(text).collect();
    write
}

#[derive(Clone, Copy)]
enum Action {
    Load,
    Apply,
    Touch,
    Create,
    Destroy,
}

const ACTIONS: [(Action, &str); 5] = [
    (Action::Load, "load"),
    (Action::Apply, "apply one value"),
    (Action::Touch, "touch"),
    (Action::Create, "create"),
    (Action::Destroy, "destroy"),
];

/// A store, or the statements that are its floor.
trait Calls: Clone + Send + Sync + 'static {
    fn call(&self, action: Action, id: StoreId) -> impl Future<Output = ()> + Send;
}

#[derive(Clone)]
struct Ours<S>(S);

impl<S: Store + Clone> Calls for Ours<S> {
    async fn call(&self, action: Action, id: StoreId) {
        let Self(store) = self;
        match action {
            Action::Load => {
                let record = store.load(id, now()).await.unwrap().unwrap();
                assert_eq!(record.entries.len(), 3);
            }
            Action::Apply => {
                let write = write(&[("theme", "light")]);
                assert_eq!(store.apply(id, &write).await.unwrap(), Applied::Done);
            }
            Action::Touch => {
                assert_eq!(store.apply(id, &touch()).await.unwrap(), Applied::Done);
            }
            Action::Create => {
                let three = [
                    ("user_id", "0123456789abcdef"),
                    ("name", "Ada Lovelace"),
                    ("theme", "dark"),
                ];
                assert!(store.create(id, &write(&three)).await.unwrap());
            }
            Action::Destroy => store.destroy(id).await.unwrap(),
        }
    }
}

/// One database: its store, its floor, and what only SQL can do or tell.
trait Database: Clone + Send + Sync + 'static {
    const NAME: &'static str;
    type Store: Store + Clone;

    fn store(&self) -> &Self::Store;
    /// The process of the server.
    fn server(&self) -> Option<u32>;
    fn floor(&self) -> impl Calls;
    async fn sweep(&self) -> u64;
    /// Fills the store's table with sessions whose time ends within the span before `last`.
    async fn fill(&self, rows: u64, span: Duration, last: Timestamp);
    async fn ids(&self) -> Vec<StoreId>;
    async fn empty(&self);
    async fn run(&self, sql: &str);
    async fn numbers(&self, sql: &str) -> Vec<i64>;
}

macro_rules! database {
    (
        $module:ident, $name:literal, $store:ident, $pool:ident,
        floor: $floor:literal, returning: $returning:literal, parameters: [$($parameter:literal),*],
        fill: $fill:expr
    ) => {
        mod $module {
            use super::*;

            #[derive(Clone)]
            pub(super) struct Db {
                pub(super) store: $store,
                pub(super) table: String,
                pub(super) admin: $pool,
                /// To read and to write; in SQLite, with a file and a log of its own.
                pub(super) floor: [$pool; 2],
            }

            #[derive(Clone)]
            struct Floor {
                reads: $pool,
                writes: $pool,
                sql: Arc<[sqlx::SqlStr; 5]>,
            }

            impl Calls for Floor {
                async fn call(&self, action: Action, id: StoreId) {
                    let sql = self.sql[action as usize].clone();
                    let id = id.as_bytes().to_vec();
                    let expires = i64::try_from(now().plus(IDLE).millis()).unwrap();
                    let done = match action {
                        Action::Load => {
                            let row = sqlx::query_scalar::<_, Vec<u8>>(sql).bind(id);
                            assert!(!row.fetch_one(&self.reads).await.unwrap().is_empty());
                            return;
                        }
                        Action::Apply => sqlx::query(sql).bind(STORED.as_bytes()).bind(expires).bind(id),
                        Action::Touch => sqlx::query(sql).bind(expires).bind(id),
                        Action::Create => sqlx::query(sql).bind(STORED.as_bytes()).bind(expires).bind(id),
                        Action::Destroy => sqlx::query(sql).bind(id),
                    };
                    let is_returning =
                        !$returning.is_empty() && matches!(action, Action::Apply | Action::Touch);
                    if is_returning {
                        done.fetch_one(&self.writes).await.unwrap();
                    } else {
                        done.execute(&self.writes).await.unwrap();
                    }
                }
            }

            impl Database for Db {
                const NAME: &'static str = $name;
                type Store = $store;

                fn store(&self) -> &$store {
                    &self.store
                }

                fn server(&self) -> Option<u32> {
                    let name = concat!("BENCH_", stringify!($module), "_pid");
                    env::var(name.to_uppercase()).ok()?.parse().ok()
                }

                fn floor(&self) -> impl Calls {
                    let [one, two, three] = [$($parameter),*];
                    let table = format!("{}_floor", self.table);
                    let statements = [
                        format!("SELECT data FROM {table} WHERE id = {one}"),
                        format!(
                            "UPDATE {table} SET data = {one}, expires = {two} WHERE id = {three} {}",
                            $returning
                        ),
                        format!(
                            "UPDATE {table} SET expires = {one} WHERE id = {two} {}",
                            $returning
                        ),
                        format!("INSERT INTO {table} (data, expires, id) VALUES ({one}, {two}, {three})"),
                        format!("DELETE FROM {table} WHERE id = {one}"),
                    ];
                    let sql = |text| sqlx::SqlSafeStr::into_sql_str(AssertSqlSafe(text));
                    Floor {
                        reads: self.floor[0].clone(),
                        writes: self.floor[1].clone(),
                        sql: Arc::new(statements.map(sql)),
                    }
                }

                async fn sweep(&self) -> u64 {
                    self.store.sweep().await.unwrap()
                }

                async fn fill(&self, rows: u64, span: Duration, last: Timestamp) {
                    let step = u64::try_from(span.as_millis()).unwrap() / rows.max(1);
                    let fill: fn(u64, u64, u64) -> String = $fill;
                    let columns = "id, verifier, created, last_seen, expires, sweep_at, version, data";
                    let select = fill(rows, step, last.millis());
                    self.run(&format!("INSERT INTO {} ({columns}) {select}", self.table)).await;
                }

                async fn ids(&self) -> Vec<StoreId> {
                    let sql = format!("SELECT id FROM {}", self.table);
                    let ids = sqlx::query_scalar::<_, Vec<u8>>(AssertSqlSafe(sql));
                    let ids = ids.fetch_all(&self.admin).await.unwrap();
                    let id = |id: Vec<u8>| StoreId::from_bytes(id.try_into().unwrap());
                    ids.into_iter().map(id).collect()
                }

                async fn empty(&self) {
                    self.run(&format!("DROP TABLE IF EXISTS {}", self.table)).await;
                    self.store.migrate().await.unwrap();
                }

                async fn run(&self, sql: &str) {
                    let sql = sqlx::raw_sql(AssertSqlSafe(sql.replace("TABLE_NAME", &self.table)));
                    sql.execute(&self.admin).await.unwrap();
                }

                async fn numbers(&self, sql: &str) -> Vec<i64> {
                    let sql = AssertSqlSafe(sql.replace("TABLE_NAME", &self.table));
                    sqlx::query_scalar(sql).fetch_all(&self.admin).await.unwrap()
                }
            }

            impl Db {
                pub(super) async fn create_floor(&self) {
                    let create = $floor.replace("FLOOR", &format!("{}_floor", self.table));
                    let create = sqlx::raw_sql(AssertSqlSafe(create));
                    create.execute(&self.floor[1]).await.unwrap();
                }
            }
        }
    };
}

database! {
    postgres, "PostgreSQL", PostgresStore, PgPool,
    floor: "CREATE TABLE FLOOR (id bytea PRIMARY KEY, expires bigint NOT NULL, data bytea NOT NULL)",
    returning: "RETURNING id", parameters: ["$1", "$2", "$3"],
    fill: |rows, step, last| format!(
        "SELECT sha256((random() || ' ' || n)::text::bytea), decode(repeat('07', 32), 'hex'), \
         0, 0, {last} - n * {step}, {last} - n * {step}, 1, '{STORED}'::jsonb \
         FROM generate_series(1, {rows}) AS n"
    )
}

database! {
    mysql, "MariaDB", MySqlStore, MySqlPool,
    floor: "CREATE TABLE FLOOR (id binary(32) PRIMARY KEY, expires bigint NOT NULL, data longblob NOT NULL)",
    returning: "", parameters: ["?", "?", "?"],
    fill: |rows, step, last| format!(
        "SELECT UNHEX(SHA2(CONCAT(RAND(), ' ', seq), 256)), UNHEX(REPEAT('07', 32)), \
         0, 0, {last} - seq * {step}, {last} - seq * {step}, 1, '{STORED}' FROM seq_1_to_{rows}"
    )
}

database! {
    sqlite, "SQLite", SqliteStore, SqlitePool,
    floor: "CREATE TABLE FLOOR (id blob PRIMARY KEY, expires integer NOT NULL, data blob NOT NULL)",
    returning: "RETURNING id", parameters: ["?", "?", "?"],
    fill: |rows, step, last| format!(
        "WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted LIMIT {rows}) \
         SELECT randomblob(32), unhex('{}'), 0, 0, {last} - n * {step}, {last} - n * {step}, 1, '{STORED}' \
         FROM counted", "07".repeat(32)
    )
}

/// Returns the nanoseconds that this process and the process `server` with its children have run.
///
/// On a shared machine they say more than the time by the clock.
fn processor(server: Option<u32>) -> f64 {
    let of = |process: &str| -> f64 {
        let threads = fs::read_dir(format!("/proc/{process}/task"))
            .into_iter()
            .flatten();
        let ran = threads.filter_map(|thread| {
            let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<f64>().ok()
        });
        ran.sum()
    };
    let Some(server) = server else {
        return of("self");
    };
    let processes = fs::read_dir("/proc").into_iter().flatten();
    let children = processes.filter_map(|process| {
        let name = process.ok()?.file_name().into_string().ok()?;
        let stat = fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?;
        (parent == server.to_string()).then(|| of(&name))
    });
    of("self") + of(&server.to_string()) + children.sum::<f64>()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// `median (least to most)`.
fn spread(numbers: &[f64]) -> String {
    let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let most = numbers.iter().copied().fold(0.0, f64::max);
    format!("{:.0} ({least:.0} to {most:.0})", median(numbers.to_vec()))
}

/// Microseconds per call: by the clock, and of the processor.
type Times = [f64; 2];

/// Lets `callers` each call `action` on every id of their part.
async fn time(
    calls: &impl Calls,
    server: Option<u32>,
    action: Action,
    ids: &[StoreId],
    callers: usize,
) -> Times {
    let part = ids.len().div_ceil(callers);
    let caller = |ids: &[StoreId]| {
        let (calls, ids) = (calls.clone(), ids.to_vec());
        async move {
            for id in ids {
                calls.call(action, id).await;
            }
        }
    };
    let callers = Vec::from_iter(ids.chunks(part).map(caller));
    let (ran, begun) = (processor(server), Instant::now());
    for caller in Vec::from_iter(callers.into_iter().map(tokio::spawn)) {
        caller.await.unwrap();
    }
    let took = begun.elapsed().as_secs_f64() * 1e6;
    let ran = (processor(server) - ran) / 1e3;
    [took, ran].map(|all| all / ids.len() as f64)
}

/// Each action beside its floor, in rounds that take turns.
async fn beside_the_floor(db: &impl Database, size: Size) {
    let (ours, floor, server) = (Ours(db.store().clone()), db.floor(), db.server());
    let sessions = Vec::from_iter((0..size.sessions).map(id));
    time(&ours, server, Action::Create, &sessions, 4).await;
    time(&floor, server, Action::Create, &sessions, 4).await;
    for callers in [1, 16] {
        println!(
            "\n{}, {} sessions, {callers} at a time\n\n\
             | µs per call, median (least to most) | floor | session-manager | ratio \
             | processor, floor | processor, session-manager | ratio |\n|---|---|---|---|---|---|---|",
            db_name(db),
            size.sessions
        );
        let mut times = ACTIONS.map(|_| [Vec::new(), Vec::new()]);
        for round in 0..=size.rounds {
            for (action, _) in ACTIONS {
                let ids: Vec<_> = (0..size.calls as u64)
                    .map(|n| match action {
                        Action::Create | Action::Destroy => id(1_000_000_000 + n),
                        // Steps of a prime number: consecutive calls are not neighbours.
                        _ => id((round as u64 * 31 + n * 7_919) % size.sessions),
                    })
                    .collect();
                let mut took = [[0.0; 2]; 2];
                for turn in 0..2 {
                    let whose = (round + turn) % 2;
                    took[whose] = match whose {
                        0 => time(&floor, server, action, &ids, callers).await,
                        _ => time(&ours, server, action, &ids, callers).await,
                    };
                }
                // The first round prepares statements and warms up.
                if round > 0 {
                    times[action as usize][0].push(took[0]);
                    times[action as usize][1].push(took[1]);
                }
            }
        }
        for (action, name) in ACTIONS {
            let cells = [0, 1].map(|kind| {
                let of = |whose: usize| {
                    let times = times[action as usize][whose].iter();
                    times.map(|times: &Times| times[kind]).collect::<Vec<_>>()
                };
                let (floor, ours) = (of(0), of(1));
                let ratios = floor.iter().zip(&ours).map(|(floor, ours)| ours / floor);
                let ratio = median(ratios.collect());
                format!("{} | {} | {ratio:.2}", spread(&floor), spread(&ours))
            });
            println!("| {name} | {} |", cells.join(" | "));
        }
    }
}

fn db_name<D: Database>(_: &D) -> &'static str {
    D::NAME
}

/// Latencies of requests in milliseconds, and how many there were.
struct Latencies(Vec<f64>);

impl Latencies {
    fn show(mut self) -> String {
        let Self(times) = &mut self;
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        format!("{:.2} / {:.2} / {:.1}", at(0.5), at(0.99), at(1.0))
    }
}

/// Loads and touches sessions, eight at a time, until `end` is done.
async fn requests<D: Database>(
    db: &D,
    ids: &Arc<[StoreId]>,
    end: impl Future<Output = ()>,
) -> Latencies {
    let is_over = Arc::new(AtomicBool::new(false));
    let next = Arc::new(AtomicU64::new(0));
    let caller = |_| {
        let (ours, ids) = (Ours(db.store().clone()), Arc::clone(ids));
        let (is_over, next) = (Arc::clone(&is_over), Arc::clone(&next));
        tokio::spawn(async move {
            let mut times = Vec::new();
            while !is_over.load(Relaxed) {
                let id = ids[(next.fetch_add(7_919, Relaxed) % ids.len() as u64) as usize];
                let begun = Instant::now();
                ours.call(Action::Load, id).await;
                ours.call(Action::Touch, id).await;
                times.push(begun.elapsed().as_secs_f64() * 1e3);
                // A busy server, but not one that is always behind.
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            times
        })
    };
    let callers = Vec::from_iter((0..8).map(caller));
    end.await;
    is_over.store(true, Relaxed);
    let mut all = Vec::new();
    for caller in callers {
        all.extend(caller.await.unwrap());
    }
    Latencies(all)
}

/// The same calls among few rows and many, and what a sweep does to the requests beside it.
async fn among_many_rows(db: &impl Database, size: Size) {
    let mut columns = Vec::new();
    for rows in size.rows {
        db.empty().await;
        db.fill(rows, IDLE / 2, now().plus(IDLE)).await;
        let ids = db.ids().await;
        let ours = Ours(db.store().clone());
        // Steps of a prime number: consecutive calls are not neighbours.
        let visit = |n: usize| ids[n * 7_919 % ids.len()];
        let mut times = ACTIONS.map(|_| [Vec::new(), Vec::new()]);
        for round in 0..=size.rounds {
            for (action, _) in ACTIONS {
                let ids: Vec<_> = (0..size.calls)
                    .map(|n| match action {
                        Action::Create | Action::Destroy => id(1_000_000_000 + n as u64),
                        _ => visit(round * size.calls + n),
                    })
                    .collect();
                let [took, ran] = time(&ours, db.server(), action, &ids, 1).await;
                if round > 0 {
                    times[action as usize][0].push(took);
                    times[action as usize][1].push(ran);
                }
            }
        }
        columns.push((rows, times));
    }
    println!("\n{}, one at a time\n", db_name(db));
    let [(few, fast), (many, slow)] = &columns[..] else {
        unreachable!("two sizes")
    };
    println!(
        "| µs per call, median (least to most) | {few} rows | {many} rows | ratio \
         | processor, {few} rows | processor, {many} rows | ratio |\n|---|---|---|---|---|---|---|"
    );
    for (action, name) in ACTIONS {
        let cells = [0, 1].map(|kind| {
            let (few, many) = (&fast[action as usize][kind], &slow[action as usize][kind]);
            let ratio = median(many.clone()) / median(few.clone());
            format!("{} | {} | {ratio:.2}", spread(few), spread(many))
        });
        println!("| {name} | {} |", cells.join(" | "));
    }

    let ids: Arc<[StoreId]> = db.ids().await.into();
    let calm = requests(db, &ids, tokio::time::sleep(size.calm))
        .await
        .show();
    db.fill(size.expired, IDLE / 2, now()).await;
    let begun = Instant::now();
    let mut swept = 0;
    let beside = requests(db, &ids, async { swept = db.sweep().await }).await;
    let took = begun.elapsed();
    assert!(swept >= size.expired);
    println!(
        "\n| {} rows: a load and a touch, ms | p50 / p99 / most |\n|---|---|",
        size.rows[1]
    );
    println!("| no sweep | {calm} |");
    println!(
        "| beside a sweep of {swept} rows, which takes {took:.1?} | {} |",
        beside.show()
    );
}

/// What touching every row once leaves behind in PostgreSQL.
async fn bloat(db: &postgres::Db, size: Size) {
    let rows = size.rows[1];
    db.empty().await;
    db.fill(rows, IDLE / 2, now().plus(IDLE)).await;
    db.run("VACUUM (ANALYZE) TABLE_NAME").await;
    let bytes = "SELECT unnest(ARRAY[pg_table_size('TABLE_NAME'), pg_indexes_size('TABLE_NAME')])";
    let updates = "SELECT unnest(ARRAY[n_tup_upd, n_tup_hot_upd]) FROM pg_stat_user_tables \
                   WHERE relname = 'TABLE_NAME'";
    let before = db.numbers(bytes).await;
    let ids = db.ids().await;
    let ours = Ours(db.store().clone());
    let order = Vec::from_iter((0..ids.len()).map(|n| ids[n * 7_919 % ids.len()]));
    let [each, _] = time(&ours, None, Action::Touch, &order, 16).await;
    // The server counts late.
    let mut counted = db.numbers(updates).await;
    let begun = Instant::now();
    while counted[0] < order.len() as i64 && begun.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        counted = db.numbers(updates).await;
    }
    let after = db.numbers(bytes).await;
    let mib = |bytes: i64| format!("{:.0}", bytes as f64 / f64::from(1 << 20));
    println!(
        "\nPostgreSQL, {rows} rows, each touched once ({each:.0} µs per touch, 16 at a time)\n"
    );
    println!("| | before | after |\n|---|---|---|");
    println!("| table, MiB | {} | {} |", mib(before[0]), mib(after[0]));
    println!("| indexes, MiB | {} | {} |", mib(before[1]), mib(after[1]));
    println!(
        "| updates that were HOT | | {} of {} |",
        counted[1], counted[0]
    );
}

struct TempFile(PathBuf);

impl Drop for TempFile {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm"] {
            let mut path = self.0.clone().into_os_string();
            path.push(suffix);
            let _ = fs::remove_file(path);
        }
    }
}

/// The pool settings of the stores.
fn pool_options<D: sqlx::Database>() -> PoolOptions<D> {
    PoolOptions::new()
        .acquire_timeout(Duration::from_millis(1_500))
        .test_before_acquire(false)
}

async fn measure(db: &impl Database, size: Size, what: &str) {
    if what != "rows" {
        beside_the_floor(db, size).await;
    }
    if what != "calls" {
        among_many_rows(db, size).await;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let is_test = env::args().any(|argument| argument == "--test");
    let size = if is_test { TEST } else { FULL };
    let what = env::args().find(|argument| ["calls", "rows"].contains(&&**argument));
    let what = what.as_deref().unwrap_or("all");
    let only = env::var("ONLY").ok();
    let is_asked = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let table = format!("bench_{}", process::id());

    if let Ok(url) = env::var("SESSION_TEST_POSTGRES")
        && is_asked("postgres")
    {
        let pool = pool_options().connect(&url).await.unwrap();
        let store = PostgresStore::connect_lazy(&url)
            .unwrap()
            .with_table(&table)
            .unwrap();
        let (floor, admin, table) = ([pool.clone(), pool.clone()], pool, table.clone());
        let db = postgres::Db {
            store,
            table,
            admin,
            floor,
        };
        db.empty().await;
        db.create_floor().await;
        measure(&db, size, what).await;
        if what != "calls" {
            bloat(&db, size).await;
        }
        db.run("DROP TABLE TABLE_NAME; DROP TABLE TABLE_NAME_floor")
            .await;
    }
    if let Ok(url) = env::var("SESSION_TEST_MYSQL")
        && is_asked("mysql")
    {
        let pool = pool_options().connect(&url).await.unwrap();
        let store = MySqlStore::connect_lazy(&url)
            .unwrap()
            .with_table(&table)
            .unwrap();
        let (floor, admin, table) = ([pool.clone(), pool.clone()], pool, table.clone());
        let db = mysql::Db {
            store,
            table,
            admin,
            floor,
        };
        db.empty().await;
        db.create_floor().await;
        measure(&db, size, what).await;
        db.run("DROP TABLE TABLE_NAME; DROP TABLE TABLE_NAME_floor")
            .await;
    }
    if is_asked("sqlite") {
        let file = |name: &str| TempFile(env::temp_dir().join(format!("{table}{name}.db")));
        let (file, floor_file) = (file(""), file("_floor"));
        let store = SqliteStore::connect_lazy(file.0.to_str().unwrap()).unwrap();
        let store = store.with_table(&table).unwrap();
        let pool = |file: &TempFile, most| {
            let options = SqliteConnectOptions::new()
                .filename(&file.0)
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Normal);
            pool_options()
                .max_connections(most)
                .connect_lazy_with(options)
        };
        let (admin, floor) = (pool(&file, 1), [pool(&floor_file, 4), pool(&floor_file, 1)]);
        let db = sqlite::Db {
            store,
            table,
            admin,
            floor,
        };
        db.empty().await;
        db.create_floor().await;
        measure(&db, size, what).await;
    }
}
