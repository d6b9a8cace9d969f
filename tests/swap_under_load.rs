//! The process-wide manager is replaced every 10 ms while as many requests are served as two cores can:
//! not one fails, and not one session is lost or another client's.
//!
//! `SWAP_SECONDS` says for how long each of them runs (default: 2), and `SWAP_RATE` how many requests a
//! second it must serve; `tests/long.sh` says a minute and 10,000.

mod common;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{
    Server, Stops, Web, Wire, on_every_framework,
    servers::{self, Redis},
    setting, watch,
};
use session_manager::{Key, Manager, RedisStore, ServerSide, SignedCookie, manager};

const EVERY: Duration = Duration::from_millis(10);
/// Threads of clients, and how many clients each has.
const LANES: usize = 2;
const CLIENTS: usize = 32;

/// The manager is the process's, and so are its two cores.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    // It would take more time for each request than to serve it.
    watch::nobody_listens();
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client, which knows what its session must hold.
struct Client {
    id: String,
    /// As many as it has requests under way at once.
    wires: Vec<Wire>,
    cookie: String,
    /// How often the session counted, as it was answered.
    counted: u64,
    /// Which of its rounds write.
    writes_every: u64,
    rounds: u64,
    requests: u64,
    sessions: u64,
    /// How many swaps there were when this round began; and when the one did that its cookie is from.
    begun: u64,
    signed: Arc<AtomicU64>,
    /// Where it gets a session that is still in a cookie, and how often.
    old: Option<(SocketAddr, u64)>,
}

impl Client {
    fn new(server: &Server, number: usize, at_once: usize, writes_every: u64) -> Self {
        let mut client = Self {
            id: format!("client{number}"),
            wires: (0..at_once).map(|_| Wire::to(server.address)).collect(),
            cookie: String::new(),
            counted: 0,
            writes_every,
            rounds: 0,
            requests: 0,
            sessions: 1,
            begun: 0,
            signed: Arc::default(),
            old: None,
        };
        let path = format!("/run/add.id.{}", client.id);
        client.cookie = client.wires[0].ask(&path, "").unwrap().cookie();
        client
    }

    fn writes(&self) -> bool {
        self.rounds.is_multiple_of(self.writes_every)
    }

    /// Begins a round: one request on each of its connections.
    fn send(&mut self, swaps: &AtomicU64) {
        self.rounds += 1;
        if let Some((_, every)) = self.old
            && self.rounds.is_multiple_of(every)
        {
            self.begin_anew();
        }
        self.begun = swaps.load(SeqCst);
        let path = match self.writes() {
            true => "/run/get.id,count.n",
            false => "/run/get.id,get.n",
        };
        for wire in &mut self.wires {
            wire.send(path, &self.cookie).unwrap();
        }
    }

    /// Ends a round: what each answer says must be what was answered before, and what this round did.
    fn receive(&mut self) {
        let (before, mut cookie) = (self.counted, None);
        let (at_once, writes) = (self.wires.len() as u64, u64::from(self.writes()));
        for wire in &mut self.wires {
            let answer = wire.receive();
            let answer = answer.unwrap_or_else(|error| panic!("{}: no answer: {error}", self.id));
            self.requests += 1;
            assert_eq!(answer.status, 200, "{}: {answer:?}", self.id);
            let (id, count) = answer.body.split_once(',').unwrap();
            assert_eq!(id, self.id, "whose session it is: {answer:?}");
            let count: u64 = count.replace("none", "0").parse().unwrap();
            let least = before + writes;
            let most = before + at_once * writes;
            assert!(
                (least..=most).contains(&count),
                "{}: {least} to {most}: {answer:?}",
                self.id
            );
            self.counted += writes;
            if answer.set_cookie().is_some() {
                cookie = Some(answer.cookie());
            }
        }
        if let Some(cookie) = cookie {
            assert!(!cookie.ends_with('='), "{} loses its session", self.id);
            self.cookie = cookie;
            self.signed.store(self.begun, SeqCst);
        }
    }

    /// Logs out, and has a session in a cookie from then on, which its next write moves.
    fn begin_anew(&mut self) {
        let (old, _) = self.old.unwrap();
        let wire = &mut self.wires[0];
        let out = wire.ask("/run/destroy", &self.cookie).unwrap();
        assert!(out.cookie().ends_with('='), "{out:?}");
        let dead = wire.ask("/run/get.id,len", &self.cookie).unwrap();
        assert_eq!(dead.body, "none,0", "{} logged out", self.id);
        let path = format!("/run/add.id.{}", self.id);
        // Not kept open: it would be closed for its idleness.
        self.cookie = Wire::to(old).ask(&path, "").unwrap().cookie();
        let moved = wire.ask("/run/get.id,count.n", &self.cookie).unwrap();
        assert_eq!(moved.body, format!("{},1", self.id));
        self.cookie = moved.cookie();
        self.counted = 1;
        self.requests += 3;
        self.sessions += 1;
    }
}

/// Lets the clients ask as fast as they can while `swap` replaces the manager; it is told how many
/// swaps there were, and may decline.
fn under_load(
    web: Web,
    name: &str,
    clients: Vec<Client>,
    swaps: &AtomicU64,
    mut swap: impl FnMut(u64) -> Option<Manager> + Send,
) {
    let stop = AtomicBool::new(false);
    let span = Duration::from_secs(setting("SWAP_SECONDS", 2));
    let resident = servers::resident();
    let (begun, mut held) = (Instant::now(), 0);
    let mut lanes: Vec<Vec<Client>> = (0..LANES).map(|_| Vec::new()).collect();
    for (number, client) in clients.into_iter().enumerate() {
        lanes[number % LANES].push(client);
    }
    let clients = thread::scope(|scope| {
        let lanes = lanes.into_iter().map(|mut clients| {
            let stop = &stop;
            scope.spawn(move || {
                let _stops = Stops(stop);
                while begun.elapsed() < span && !stop.load(SeqCst) {
                    clients.iter_mut().for_each(|client| client.send(swaps));
                    clients.iter_mut().for_each(Client::receive);
                }
                clients
            })
        });
        let lanes: Vec<_> = lanes.collect();
        while !stop.load(SeqCst) {
            // By the clock, so that the time a swap takes does not make them fewer.
            let next = EVERY * u32::try_from(swaps.load(SeqCst) + held).unwrap();
            thread::sleep(next.saturating_sub(begun.elapsed()));
            match swap(swaps.load(SeqCst)) {
                Some(manager) => {
                    manager::set(manager);
                    swaps.fetch_add(1, SeqCst);
                }
                None => held += 1,
            }
        }
        let clients = lanes.into_iter().map(|lane| lane.join().unwrap());
        clients.flatten().collect::<Vec<_>>()
    });
    let seconds = begun.elapsed().as_secs_f64();
    let requests: u64 = clients.iter().map(|client| client.requests).sum();
    let sessions: u64 = clients.iter().map(|client| client.sessions).sum();
    let rate = requests as f64 / seconds;
    let swaps = swaps.load(SeqCst);
    println!(
        "{web}, {name}: {requests} requests in {seconds:.1} s, {rate:.0} a second; {swaps} swaps, {held} \
         put off; {sessions} sessions of {} clients; 0 failed, 0 lost, 0 foreign; resident {resident} \
         kB before, {} kB after",
        clients.len(),
        servers::resident(),
    );
    let least = setting("SWAP_RATE", 0);
    assert!(
        rate >= least as f64,
        "{rate:.0} requests a second of {least}"
    );
    assert!(swaps > 50, "{swaps} swaps");
}

/// Each swap draws a key, and accepts so many that were drawn before.
fn constant_key_rotation_loses_no_session(web: Web) {
    const ACCEPTED: usize = 100;
    let _alone = alone();
    let mut keys = vec![Key::generate()];
    manager::set(Manager::new(SignedCookie::new(keys[0].clone())));
    let server = Server::scripts(web, manager::middleware());
    let clients = (0..LANES * CLIENTS).map(|number| {
        // One in eight is idle nearly as long as its cookie lasts.
        let writes_every = if number % 8 == 0 { 64 } else { 8 };
        Client::new(&server, number, 1, writes_every)
    });
    let clients: Vec<_> = clients.collect();
    let signed: Vec<_> = clients.iter().map(|client| client.signed.clone()).collect();
    under_load(web, "keys", clients, &AtomicU64::new(0), |swaps| {
        // However slow this machine is: the client with the oldest cookie keeps its session.
        let oldest = signed.iter().map(|signed| signed.load(SeqCst)).min();
        if swaps - oldest.unwrap() + 2 > ACCEPTED as u64 {
            return None;
        }
        keys.insert(0, Key::generate());
        keys.truncate(ACCEPTED);
        let [new, old @ ..] = &keys[..] else {
            unreachable!()
        };
        let backend = SignedCookie::new(new.clone());
        let accept = |backend: SignedCookie, old: &Key| backend.accept(old.clone());
        Some(Manager::new(old.iter().fold(backend, accept)))
    });
}

/// A Redis, and a key: builds managers that store sessions in one or in a cookie.
struct Service {
    _redis: Redis,
    store: RedisStore,
    key: Key,
}

impl Service {
    fn new() -> Self {
        let redis = Redis::start(&[]);
        Self {
            // Connected by the server's own threads.
            store: RedisStore::connect_lazy(&redis.url()).unwrap(),
            _redis: redis,
            key: Key::generate(),
        }
    }

    fn in_redis(&self) -> ServerSide<RedisStore> {
        ServerSide::new(self.store.clone())
    }

    fn in_cookies(&self) -> SignedCookie {
        SignedCookie::new(self.key.clone())
    }

    fn to_redis(&self) -> Manager {
        let old = Manager::new(self.in_cookies());
        let builder = Manager::builder(self.in_redis()).migrate_from(old);
        builder.build().unwrap()
    }

    fn to_cookies(&self) -> Manager {
        let old = Manager::new(self.in_redis());
        let builder = Manager::builder(self.in_cookies()).migrate_from(old);
        builder.build().unwrap()
    }
}

/// Each swap moves all sessions from cookies to Redis, or back.
fn migrating_to_redis_and_back_loses_no_session(web: Web) {
    let _alone = alone();
    let service = Service::new();
    manager::set(Manager::new(service.in_cookies()));
    let server = Server::scripts(web, manager::middleware());
    let clients = (0..LANES * CLIENTS).map(|number| Client::new(&server, number, 1, 4));
    let clients = clients.collect();
    under_load(
        web,
        "cookie to Redis and back",
        clients,
        &AtomicU64::new(0),
        |swaps| {
            Some(match swaps % 2 {
                0 => service.to_redis(),
                _ => service.to_cookies(),
            })
        },
    );
}

/// Each swap builds the same manager again. A client makes its requests two at a time, but for the one
/// that moves its session: of several managers that move one session at the same time, each makes one.
fn migrating_to_redis_loses_no_overlapping_update(web: Web) {
    let _alone = alone();
    let service = Service::new();
    manager::set(service.to_redis());
    let server = Server::scripts(web, manager::middleware());
    let before = Server::scripts(web, Manager::new(service.in_cookies()).middleware());
    let clients = (0..LANES * CLIENTS / 2).map(|number| {
        let mut client = Client::new(&server, number, 2, 4);
        client.old = Some((before.address, 256));
        // Not all at once.
        client.rounds = 8 * number as u64;
        client
    });
    let clients = clients.collect();
    under_load(web, "cookie to Redis", clients, &AtomicU64::new(0), |_| {
        Some(service.to_redis())
    });
}

on_every_framework! {
    constant_key_rotation_loses_no_session,
    #[ignore = "needs Redis: tests/run.sh"]
    migrating_to_redis_and_back_loses_no_session,
    #[ignore = "needs Redis: tests/run.sh"]
    migrating_to_redis_loses_no_overlapping_update,
}
