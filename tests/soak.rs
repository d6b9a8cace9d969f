//! Mixed traffic on every store while it is killed, stopped, restarted, cut off, slow or locked: nothing
//! that was acknowledged is lost, nothing comes back, and no client sees what is another's.
//!
//! `SOAK_SECONDS` says for how long; by default every fault comes once. `SOAK_SEED` repeats a run's
//! decisions, not its timing.

mod common;
#[path = "soak/known.rs"]
mod known;

use std::{
    alloc::System,
    collections::BTreeMap,
    fs,
    io::Read,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant, UNIX_EPOCH},
};

use common::{
    Answer, Server, Stops, Web, Wire,
    proxy::Proxy,
    redis,
    server_side::{Flaky, How},
    servers::{MariaDb, Postgres, Redis, Servers, cli, pid_of, resident, signal, temp_dir},
    setting, watch,
};
use known::{Does, Known};
use session_manager::{
    Manager, MySqlStore, PostgresStore, RedisStore, ServerSide, SqliteStore, Store,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::Runtime;

/// Says to the byte what is still in use.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn in_use() -> i64 {
    let all = ALLOCATOR.stats();
    // Growing and shrinking are in both.
    all.bytes_allocated as i64 - all.bytes_deallocated as i64
}

/// How many clients each store has.
const CLIENTS: u64 = 12;
/// What a client waits between its requests at most, in milliseconds.
const PAUSE: u64 = 8;
/// A server closes a connection that was idle for five seconds.
const IDLE: Duration = Duration::from_secs(3);

/// How long it may take after a fault until connections that were lost are closed.
const WELL: Duration = Duration::from_secs(10);

/// Decides.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of so many.
    fn of(&mut self, count: u64) -> u64 {
        self.next() % count
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.of(to - from))
    }
}

/// One server in each framework over one store, as two processes have.
struct Service {
    name: &'static str,
    servers: [Server; 2],
}

impl Service {
    fn new<S: Store>(name: &'static str, mut store: impl FnMut() -> S) -> Self {
        let servers = Web::ALL.map(|web| {
            let manager = Manager::new(ServerSide::new(store()));
            Server::scripts(web, manager.middleware())
        });
        Self { name, servers }
    }

    fn memory() -> (Self, Place) {
        let store = Flaky::default();
        let service = Self::new("memory", || store.clone());
        (service, Place::Memory(store))
    }

    fn redis() -> (Self, Place) {
        // So that what was answered outlives a kill.
        let redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
        let (url, proxy) = Proxy::before(&redis.url());
        // Connected by the server's own threads.
        let service = Self::new("Redis", || RedisStore::connect_lazy(&url).unwrap());
        (service, Place::Redis(redis, proxy))
    }

    /// `pools` is where the pools of connections do what they do by themselves.
    fn postgres(pools: &Runtime) -> (Self, Place) {
        let postgres = Postgres::start_durable();
        let (url, proxy) = Proxy::before(&postgres.url);
        // Makes the table.
        pools.block_on(async { drop(PostgresStore::connect(&postgres.url).await.unwrap()) });
        let _pools = pools.enter();
        let service = Self::new("PostgreSQL", || PostgresStore::connect_lazy(&url).unwrap());
        (service, Place::Postgres(postgres, proxy))
    }

    fn cluster() -> (Self, Place) {
        let servers = Servers::durable_cluster();
        let store = || RedisStore::connect_lazy(&servers.url).unwrap();
        (Self::new("cluster", store), Place::Many(servers))
    }

    fn sentinel() -> (Self, Place) {
        let servers = Servers::durable_sentinel();
        let store = || RedisStore::connect_lazy(&servers.url).unwrap();
        (Self::new("Sentinels", store), Place::Many(servers))
    }

    fn mariadb(pools: &Runtime) -> (Self, Place) {
        let mariadb = MariaDb::start();
        // Which the server's own connections, and the test's, are not of.
        let url = mariadb.app_url();
        pools.block_on(async { drop(MySqlStore::connect(&url).await.unwrap()) });
        let (url, proxy) = Proxy::before(&url);
        let _pools = pools.enter();
        let service = Self::new("MariaDB", || MySqlStore::connect_lazy(&url).unwrap());
        (service, Place::MariaDb(mariadb, proxy))
    }

    fn sqlite(pools: &Runtime) -> (Self, Place) {
        let file = SqliteFile(temp_dir());
        let path = file.path();
        pools.block_on(async { drop(SqliteStore::connect(&path).await.unwrap()) });
        let _pools = pools.enter();
        let service = Self::new("SQLite", || SqliteStore::connect_lazy(&path).unwrap());
        (service, Place::Sqlite(file))
    }
}

/// A file of SQLite, in a folder of its own.
struct SqliteFile(PathBuf);

impl SqliteFile {
    const NAME: &str = "soak-sessions.db";

    fn path(&self) -> String {
        self.0.join(Self::NAME).display().to_string()
    }

    /// Another process, in which `done` is run with a connection `db` to the file.
    fn python(&self, done: &str) -> Command {
        let mut python = Command::new("python3");
        let connect = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)";
        python.args(["-c", &format!("{connect}\n{done}"), &self.path()]);
        python.stdin(Stdio::piped()).stdout(Stdio::piped());
        python
    }

    fn count(&self) -> usize {
        let count = "print(*db.execute('SELECT count(*) FROM sessions').fetchone())";
        let output = self.python(count).output().unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    /// Another process has the write lock, in the middle of a transaction that it does not end.
    fn is_locked(&self, span: Duration) {
        let lock = "
db.execute('BEGIN IMMEDIATE'); db.execute('DELETE FROM sessions')
print('locked', flush=True); sys.stdin.read()";
        let mut python = self.python(lock).spawn().unwrap();
        let mut said = [0; 6];
        python
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut said)
            .unwrap();
        thread::sleep(span);
        python.kill().unwrap();
        python.wait().unwrap();
    }
}

impl Drop for SqliteFile {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Breaks the connections of a store for `span`.
fn break_connections(proxy: &Proxy, way: &str, span: Duration, dice: &mut Dice) {
    match way {
        "500 ms late" => proxy.be_late(span),
        "replies cut" => {
            let mut dice = dice.clone();
            let one_in_three =
                move |length| (dice.of(3) == 0).then(|| dice.of(length as u64) as usize);
            proxy.cut_replies(span, one_in_three);
        }
        "refused" => proxy.refuse(span),
        _ => panic!("the proxy cannot break connections so: {way}"),
    }
}

/// Where the sessions are, and what breaks it.
enum Place {
    Memory(Flaky),
    Redis(Redis, Proxy),
    Postgres(Postgres, Proxy),
    MariaDb(MariaDb, Proxy),
    Sqlite(SqliteFile),
    /// A cluster, or servers behind Sentinels.
    Many(Servers),
}

impl Place {
    /// How many connections the store's server has, and how many go through the proxy.
    fn connections(&self) -> (usize, usize) {
        match self {
            Place::Memory(_) | Place::Sqlite(_) => (0, 0),
            Place::Redis(redis, proxy) => (redis::connections(redis.port).len(), proxy.open()),
            Place::Many(servers) => (servers.connections(), 0),
            Place::Postgres(postgres, proxy) => {
                let own = "backend_type = 'client backend' AND pid <> pg_backend_pid()";
                let count = psql(
                    postgres,
                    &format!("SELECT count(*) FROM pg_stat_activity WHERE {own}"),
                );
                (count, proxy.open())
            }
            Place::MariaDb(mariadb, proxy) => {
                let own =
                    "SELECT count(*) FROM information_schema.processlist WHERE user = \"app\"";
                (mariadb.query(own).parse().unwrap(), proxy.open())
            }
        }
    }

    /// How many sessions are kept.
    fn kept(&self) -> usize {
        match self {
            Place::Memory(store) => store.len(),
            Place::Redis(redis, _) => cli(redis.port, &["dbsize"]).parse().unwrap(),
            Place::Postgres(postgres, _) => psql(postgres, "SELECT count(*) FROM sessions"),
            Place::MariaDb(mariadb, _) => {
                let count = mariadb.query("SELECT count(*) FROM sessions");
                count.parse().unwrap()
            }
            Place::Sqlite(file) => file.count(),
            Place::Many(servers) => {
                let masters = servers.masters().into_iter();
                masters
                    .map(|port| cli(port, &["dbsize"]).parse::<usize>().unwrap())
                    .sum()
            }
        }
    }

    /// How many replies were cut.
    fn cuts(&self) -> u64 {
        match self {
            Self::Memory(_) | Self::Sqlite(_) | Self::Many(_) => 0,
            Self::Redis(_, proxy) | Self::Postgres(_, proxy) | Self::MariaDb(_, proxy) => {
                proxy.replies_cut()
            }
        }
    }

    /// Breaks the store, each way once and in any order, and mends it. Counts what it does by its name.
    fn break_each_way(&mut self, dice: &mut Dice, faults: &mut BTreeMap<&'static str, u64>) {
        let mut ways = match self {
            Place::Memory(_) => vec!["hangs", "refuses", "answers late"],
            Place::Many(_) => vec!["killed", "stopped", "failed over"],
            Place::Sqlite(_) => vec!["locked for a moment", "locked for long"],
            _ => vec![
                "500 ms late",
                "replies cut",
                "refused",
                "killed",
                "stopped",
                "restarted",
            ],
        };
        while !ways.is_empty() {
            let way = ways.swap_remove(dice.of(ways.len() as u64) as usize);
            thread::sleep(dice.millis(300, 1000));
            let span = dice.millis(200, 1000);
            match self {
                Place::Memory(store) => {
                    store.set(Some(match way {
                        "hangs" => How::Hangs,
                        "refuses" => How::Refuses,
                        _ => How::AnswersLate,
                    }));
                    // One in two hangs is longer than the time limit of a call.
                    let longer = (way == "hangs").then(|| dice.millis(0, 3000));
                    thread::sleep(span + longer.unwrap_or_default());
                    store.set(None);
                }
                Place::Redis(redis, proxy) => match way {
                    "killed" => {
                        redis.kill();
                        thread::sleep(span);
                        redis.restart();
                    }
                    "stopped" => {
                        redis.signal("STOP");
                        thread::sleep(span + dice.millis(0, 3000));
                        redis.signal("CONT");
                    }
                    "restarted" => {
                        redis.stop();
                        redis.restart();
                    }
                    _ => break_connections(proxy, way, span, dice),
                },
                Place::Postgres(postgres, proxy) => match way {
                    "killed" => {
                        postgres.kill();
                        thread::sleep(span);
                        postgres.begin();
                    }
                    "stopped" => {
                        postgres.signal("STOP");
                        thread::sleep(span + dice.millis(0, 3000));
                        postgres.signal("CONT");
                    }
                    "restarted" => postgres.restart(),
                    _ => break_connections(proxy, way, span, dice),
                },
                Place::MariaDb(mariadb, proxy) => match way {
                    "killed" => {
                        mariadb.kill();
                        thread::sleep(span);
                        mariadb.begin();
                    }
                    "stopped" => {
                        mariadb.signal("STOP");
                        thread::sleep(span + dice.millis(0, 3000));
                        mariadb.signal("CONT");
                    }
                    "restarted" => mariadb.restart(),
                    _ => break_connections(proxy, way, span, dice),
                },
                Place::Many(servers) => {
                    let masters = servers.masters();
                    let port = masters[dice.of(masters.len() as u64) as usize];
                    match way {
                        "killed" => servers.kill_for(port, span),
                        "stopped" => {
                            let pid = pid_of(port);
                            signal(pid, "STOP");
                            thread::sleep(span + dice.millis(0, 3000));
                            signal(pid, "CONT");
                        }
                        _ => servers.fail_over(port),
                    }
                }
                Place::Sqlite(file) => {
                    // Longer than a call waits for the lock.
                    let longer = (way == "locked for long").then(|| dice.millis(1500, 3000));
                    file.is_locked(span + longer.unwrap_or_default());
                }
            }
            *faults.entry(way).or_default() += 1;
            let begun = Instant::now();
            while !self.is_well() {
                let held = self.connections();
                assert!(begun.elapsed() < WELL, "{way}: {held:?} connections");
                thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// Whether no server holds more connections than it needs: one to Redis for each server, and no more
    /// than a pool may have.
    fn is_well(&self) -> bool {
        let (theirs, through) = self.connections();
        if let Self::Many(servers) = self {
            // One to each of them for each server.
            return theirs <= 2 * servers.ports().len();
        }
        let most = match self {
            Self::Memory(_) | Self::Sqlite(_) | Self::Many(_) => 0,
            Self::Redis(..) => 2,
            Self::Postgres(..) | Self::MariaDb(..) => 20,
        };
        theirs == through && theirs <= most
    }
}

fn psql(postgres: &Postgres, query: &str) -> usize {
    let url = &postgres.url;
    let count = postgres.bash(&format!("psql --no-psqlrc -At '{url}' -c \"{query}\""));
    count.parse().unwrap()
}

/// What all clients of a store did.
#[derive(Debug, Default)]
struct Figures {
    requests: AtomicU64,
    unavailable: AtomicU64,
    hung_up: AtomicU64,
    sessions: AtomicU64,
    dead: AtomicU64,
    /// Sessions that may have been created although no client received their cookie.
    orphans: AtomicU64,
    /// The slowest 503, in milliseconds.
    slowest: AtomicU64,
}

/// A visitor, its session, and the cookies of those that it ended.
struct Client<'a> {
    name: String,
    service: &'a Service,
    figures: &'a Figures,
    wires: [Option<(Wire, Instant)>; 2],
    dice: Dice,
    session: Option<Known>,
    /// Cookies that open nothing any more.
    dead: Vec<String>,
    /// Sessions that a request with an outdated cookie began.
    strays: Vec<String>,
    made: u64,
}

impl<'a> Client<'a> {
    fn new(service: &'a Service, figures: &'a Figures, number: u64, dice: &mut Dice) -> Self {
        Self {
            name: format!("{}-{number}", service.name),
            service,
            figures,
            wires: [None, None],
            dice: Dice(dice.next()),
            session: None,
            dead: Vec::new(),
            strays: Vec::new(),
            made: 0,
        }
    }

    /// Returns a text that no client used before.
    fn new_text(&mut self) -> String {
        self.made += 1;
        format!("{}-{}", self.name, self.made)
    }

    fn send(&mut self, to: usize, script: &str, cookie: &str) {
        self.figures.requests.fetch_add(1, SeqCst);
        let wire = self.wires[to].take_if(|(_, used)| used.elapsed() < IDLE);
        let (mut wire, _) =
            wire.unwrap_or_else(|| (Wire::to(self.service.servers[to].address), Instant::now()));
        wire.send(&format!("/run/{script}"), cookie).unwrap();
        self.wires[to] = Some((wire, Instant::now()));
    }

    /// The answer; none, if the store was away.
    fn receive(&mut self, to: usize) -> Option<Answer> {
        let (wire, used) = self.wires[to].as_mut().unwrap();
        let answer = wire.receive();
        let answer = answer.unwrap_or_else(|error| panic!("{}: no answer: {error}", self.name));
        let took = used.elapsed().as_millis() as u64;
        *used = Instant::now();
        match answer.status {
            200 => Some(answer),
            503 => {
                self.figures.unavailable.fetch_add(1, SeqCst);
                self.figures.slowest.fetch_max(took, SeqCst);
                None
            }
            _ => panic!("{}: {answer:?}", self.name),
        }
    }

    fn ask(&mut self, script: &str, cookie: &str) -> Option<Answer> {
        let to = self.dice.of(2) as usize;
        self.send(to, script, cookie);
        self.receive(to)
    }

    /// Does one thing or another.
    fn step(&mut self) {
        self.end_stray();
        let Some(session) = self.session.take() else {
            return self.log_in();
        };
        let odds = self.dice.of(100);
        match odds {
            // What is in doubt is settled, before too much is.
            _ if session.may_be_gone && odds < 50 => self.alone(session, Does::Logout),
            _ if session.may_be_gone => self.alone(session, Does::Look),
            0..3 => self.alone(session, Does::Logout),
            3..8 => self.alone(session, Does::Renew),
            8..13 => {
                self.session = Some(session);
                self.replay();
            }
            13..16 => self.hang_up(session),
            16..36 => self.at_once(session),
            _ => {
                let does = self.plain();
                self.alone(session, does);
            }
        }
    }

    fn end_stray(&mut self) {
        if let Some(stray) = self.strays.pop() {
            match self.ask("destroy", &stray) {
                Some(_) => self.dead.push(stray),
                None => self.strays.push(stray),
            }
        }
    }

    /// What neither ends the session nor renews it.
    fn plain(&mut self) -> Does {
        let key = self.dice.of(Known::KEYS as u64) as usize;
        match self.dice.of(10) {
            0..3 => Does::Write(key, self.new_text()),
            3 => Does::Pop(key),
            4..6 => Does::Count,
            6 => Does::Flash(self.new_text()),
            7 => Does::Flashes,
            _ => Does::Look,
        }
    }

    /// Begins a session; at times with a dead cookie, which must not become its own.
    fn log_in(&mut self) {
        let (mark, value) = (self.new_text(), self.new_text());
        let old = match self.dice.of(2) {
            0 => self.any_dead().unwrap_or_default(),
            _ => String::new(),
        };
        let script = format!("get.mark,renew,add.mark.{mark},add.k0.{value}");
        let Some(answer) = self.ask(&script, &old) else {
            self.figures.orphans.fetch_add(1, SeqCst);
            return;
        };
        assert!(
            answer.body.starts_with("none,"),
            "{}: {old} opened {answer:?}",
            self.name
        );
        if answer.set_cookie().is_none() {
            // The session behind that cookie was renewed a moment ago: what is written is dropped.
            assert!(!old.is_empty(), "{}: no session {answer:?}", self.name);
            return;
        }
        let cookie = answer.cookie();
        assert_ne!(cookie, old, "an id is not adopted");
        self.figures.sessions.fetch_add(1, SeqCst);
        self.session = Some(Known::new(mark, cookie, value));
    }

    fn any_dead(&mut self) -> Option<String> {
        match self.dead.len() as u64 {
            0 => None,
            count => Some(self.dead[self.dice.of(count) as usize].clone()),
        }
    }

    /// Tries the cookie of a session that was ended.
    fn replay(&mut self) {
        if let Some(cookie) = self.any_dead() {
            self.check_dead(&cookie);
        }
    }

    /// Whether the store was there to say that the cookie opens nothing.
    fn check_dead(&mut self, cookie: &str) -> bool {
        let (script, nothing) = match self.dice.of(2) {
            0 => ("get.mark,len", "none,0"),
            _ => ("get.mark,renew,len", "none,done,0"),
        };
        let Some(answer) = self.ask(script, cookie) else {
            return false;
        };
        assert_eq!(answer.body, nothing, "{}: {cookie} came back", self.name);
        assert_eq!(answer.set_cookie(), None, "{}", self.name);
        self.figures.dead.fetch_add(1, SeqCst);
        true
    }

    /// One request, and nothing else at the same time.
    fn alone(&mut self, mut session: Known, does: Does) {
        let answer = self.ask(&does.script(), &session.cookie);
        session.learn(&does, answer.as_ref());
        self.settle(session);
    }

    /// Sends a request, and is gone before its answer is there.
    fn hang_up(&mut self, mut session: Known) {
        let does = match self.dice.of(10) {
            0 => Does::Renew,
            1 => Does::Logout,
            _ => match self.plain() {
                // If it is read late, it takes messages that are left later.
                Does::Flashes => Does::Look,
                does => does,
            },
        };
        let to = self.dice.of(2) as usize;
        self.send(to, &does.script(), &session.cookie);
        thread::sleep(Duration::from_micros(self.dice.of(2_000)));
        self.wires[to] = None;
        self.figures.hung_up.fetch_add(1, SeqCst);
        // If it is read after the session has ended, it begins one.
        self.figures.orphans.fetch_add(1, SeqCst);
        session.learn(&does, None);
        self.settle(session);
    }

    /// Two requests at the same time, one on each server.
    fn at_once(&mut self, mut session: Known) {
        let key = self.dice.of(Known::KEYS as u64) as usize;
        let one = match self.dice.of(3) {
            0 => Does::Write(key, self.new_text()),
            1 => Does::Count,
            _ => Does::Flash(self.new_text()),
        };
        let other = match self.dice.of(8) {
            0 => Does::Logout,
            1 => Does::Renew,
            2..5 => Does::Count,
            _ => Does::Write((key + 1) % Known::KEYS, self.new_text()),
        };
        let ends = matches!(other, Does::Logout | Does::Renew);
        let one = match (&other, self.dice.of(3)) {
            (Does::Logout, 0) => Does::Renew,
            _ => one,
        };
        self.send(0, &one.script(), &session.cookie);
        self.send(1, &other.script(), &session.cookie);
        let answers = [self.receive(0), self.receive(1)];
        if let (true, None) = (ends, &answers[0]) {
            // It may have come late, and begun a session.
            self.figures.orphans.fetch_add(1, SeqCst);
        }
        let strays = session.learn_both([&one, &other], answers.each_ref().map(Option::as_ref));
        self.strays.extend(strays);
        self.settle(session);
    }

    /// Goes on with the session, unless it is over.
    fn settle(&mut self, mut session: Known) {
        self.dead.append(&mut session.dead);
        if session.is_lost {
            self.figures.orphans.fetch_add(1, SeqCst);
        }
        if !session.is_over {
            self.session = Some(session);
        }
    }

    /// When all is quiet: looks at everything once more, and ends it.
    fn finish(mut self) {
        let since = Instant::now();
        let mut looked = false;
        while self.session.is_some() || !self.strays.is_empty() || !self.dead.is_empty() {
            assert!(
                since.elapsed() < Duration::from_secs(60),
                "{} finds the store away",
                self.name
            );
            self.end_stray();
            if let Some(mut session) = self.session.take() {
                let does = if looked {
                    Does::Logout
                } else {
                    Does::LookAtAll
                };
                let answer = self.ask(&does.script(), &session.cookie);
                looked |= answer.is_some();
                session.learn(&does, answer.as_ref());
                self.settle(session);
            } else if let Some(cookie) = self.dead.pop()
                && !self.check_dead(&cookie)
            {
                self.dead.push(cookie);
            }
        }
    }
}

/// Clients ask while the stores break for so long, or for a second and nothing does. What they did,
/// and what happened, for each store.
fn traffic(
    services: &[Service],
    places: &mut [Place],
    dice: &mut Dice,
    breaks: Option<Duration>,
) -> Vec<(Figures, BTreeMap<&'static str, u64>)> {
    let (begun, quiet) = (Instant::now(), AtomicBool::new(false));
    let figures: Vec<_> = services.iter().map(|_| Figures::default()).collect();
    let faults = thread::scope(|scope| {
        let mut clients = Vec::new();
        for (service, figures) in services.iter().zip(&figures) {
            for number in 0..CLIENTS {
                let (mut client, quiet) = (Client::new(service, figures, number, dice), &quiet);
                clients.push(scope.spawn(move || {
                    let _stops = Stops(quiet);
                    while !quiet.load(SeqCst) {
                        client.step();
                        thread::sleep(client.dice.millis(0, PAUSE));
                    }
                    client.finish();
                }));
            }
        }
        let breaking = places.iter_mut().map(|place| {
            let (mut dice, quiet) = (Dice(dice.next()), &quiet);
            scope.spawn(move || {
                let mut faults = BTreeMap::new();
                match breaks {
                    None => thread::sleep(Duration::from_secs(1)),
                    Some(span) => loop {
                        place.break_each_way(&mut dice, &mut faults);
                        if begun.elapsed() >= span || quiet.load(SeqCst) {
                            break;
                        }
                    },
                }
                faults
            })
        });
        let breaking: Vec<_> = breaking.collect();
        let faults: Vec<_> = breaking.into_iter().map(|service| service.join()).collect();
        quiet.store(true, SeqCst);
        clients
            .into_iter()
            .for_each(|client| client.join().unwrap());
        faults
    });
    let faults = faults.into_iter().map(|faults| faults.unwrap());
    figures.into_iter().zip(faults).collect()
}

/// What must be at the end as it was at the beginning.
#[derive(Clone, Debug)]
struct Held {
    resident: u64,
    in_use: i64,
    /// Files and sockets, but for those that lead to a store.
    files: usize,
    /// Connections to each store: by its server, and through the proxy.
    connections: Vec<(usize, usize)>,
}

impl Held {
    fn by(places: &[Place]) -> Self {
        let connections: Vec<_> = places.iter().map(Place::connections).collect();
        // The store's end, and two of the proxy if there is one.
        let led = connections.iter().map(|(all, open)| all + 2 * open);
        let led: usize = led.sum();
        let files = fs::read_dir("/proc/self/fd").unwrap();
        let is_store = |file: &fs::DirEntry| {
            let path = fs::read_link(file.path()).unwrap_or_default();
            path.to_string_lossy().contains(SqliteFile::NAME)
        };
        let files = files.flatten().filter(|file| !is_store(file)).count();
        Self {
            resident: resident(),
            in_use: in_use(),
            files: files.saturating_sub(led),
            connections,
        }
    }

    /// As soon as what was closed is: whoever has closed a connection tells nobody when the other end
    /// has seen it.
    fn settled(places: &[Place]) -> Self {
        let (mut held, mut same) = (Self::by(places), 0);
        let begun = Instant::now();
        while same < 5 {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "never quiet: {held:?}"
            );
            thread::sleep(Duration::from_millis(100));
            let now = Self::by(places);
            let still = (now.files, &now.connections) == (held.files, &held.connections);
            same = if still { same + 1 } else { 0 };
            held = now;
        }
        held
    }
}

/// Whatever breaks, nothing that was acknowledged is lost, nothing comes back, and no client sees another's
/// session. The stores are asked at the same time, each by its own clients.
fn soak(stores: impl FnOnce(&Runtime) -> Vec<(Service, Place)>) {
    // Memory and open files are those of the whole process.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // The watch keeps all that is said, and what is kept is counted here.
    watch::nobody_listens();
    let span = setting("SOAK_SECONDS", 0);
    let now = UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = setting("SOAK_SEED", now);
    println!("SOAK_SEED={seed}");
    let mut dice = Dice(seed);
    let mut pools = tokio::runtime::Builder::new_multi_thread();
    let pools = pools.worker_threads(1).enable_all().build().unwrap();
    let (services, mut places): (Vec<_>, Vec<_>) = stores(&pools).into_iter().unzip();
    // So that what is made once is there.
    traffic(&services, &mut places, &mut dice, None);
    let before = Held::settled(&places);
    let kept: Vec<_> = places.iter().map(Place::kept).collect();

    let begun = Instant::now();
    let done = traffic(
        &services,
        &mut places,
        &mut dice,
        Some(Duration::from_secs(span)),
    );
    let seconds = begun.elapsed().as_secs();
    let after = Held::settled(&places);

    for (((service, place), kept), (figures, faults)) in
        services.iter().zip(&places).zip(kept).zip(done)
    {
        let now = place.kept();
        println!(
            "{}: {figures:?} in {seconds} s; {faults:?}; {} replies cut; {kept} records before, {now} after",
            service.name,
            place.cuts(),
        );
        let orphans = figures.orphans.into_inner() as usize;
        assert!(
            now <= kept + orphans,
            "{now} records, {orphans} that nobody was told of"
        );
        // A call may take two seconds, and without a conflict a request makes at most two.
        let slowest = figures.slowest.into_inner();
        assert!(slowest < 8_000, "a 503 after {slowest} ms");
    }
    let in_memory = services.iter().zip(&places);
    let in_memory = in_memory.filter(|(service, _)| service.name == "memory");
    let in_memory: usize = in_memory.map(|(_, place)| place.kept()).sum();
    println!("before: {before:?}\nafter:  {after:?}");
    assert_eq!(after.files, before.files, "open files");
    // What stays is a kilobyte for each record in memory that nobody was told of, and what new
    // connections have prepared: nothing for each request. The pages that hold it are the
    // allocator's, which gives back few.
    let (grown, most) = (after.in_use - before.in_use, (1 << 20) + 2048 * in_memory);
    assert!(grown < most as i64, "{grown} bytes more are in use");
    assert!(
        after.resident < before.resident + (64 << 10),
        "resident memory"
    );
    assert!(places.iter().all(Place::is_well), "connections");
}

#[test]
#[ignore = "needs Redis and PostgreSQL: tests/run.sh"]
fn memory_redis_and_postgresql_lose_no_acknowledged_write() {
    soak(|pools| {
        vec![
            Service::memory(),
            Service::redis(),
            Service::postgres(pools),
        ]
    });
}

#[test]
#[ignore = "needs MariaDB: tests/run.sh"]
fn mariadb_and_sqlite_lose_no_acknowledged_write() {
    soak(|pools| vec![Service::mariadb(pools), Service::sqlite(pools)]);
}

#[test]
#[ignore = "needs Redis: tests/run.sh"]
fn cluster_and_sentinels_lose_no_acknowledged_write() {
    soak(|_| vec![Service::cluster(), Service::sentinel()]);
}
