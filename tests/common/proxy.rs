//! A TCP proxy in front of a server: it counts what passes, and breaks as a test demands.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

/// Decides how many bytes of a reply of this length are passed on before its connection is closed;
/// `None` passes it on whole.
type CutReply = Box<dyn FnMut(usize) -> Option<usize> + Send>;

/// Listens on a port of its own until the process ends.
pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// The address that new connections lead to.
    server: Mutex<String>,
    /// The number of connections that were made, and of those that are open to each address.
    made: AtomicU64,
    open: Mutex<BTreeMap<String, usize>>,
    /// The number of bytes sent to the server, and of times that they followed a reply.
    sent: AtomicU64,
    turns: AtomicU64,
    /// The number of times that all connections went silent: those made before stay so.
    silenced: AtomicU64,
    late: AtomicBool,
    refuses: AtomicBool,
    lose_next_reply: AtomicBool,
    cut_reply: Mutex<Option<CutReply>>,
    replies_cut: AtomicU64,
}

/// The host and port in a url.
fn address(url: &str) -> &str {
    let (_, rest) = url.split_once("://").unwrap();
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split('/').next().unwrap()
}

impl Proxy {
    /// Starts a proxy to the server in `url`. Returns the url that leads through it.
    pub fn before(url: &str) -> (String, Self) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<State>::default();
        let proxy = Self {
            port,
            state: Arc::clone(&state),
        };
        proxy.lead_to(url);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, state) = (client.unwrap(), Arc::clone(&state));
                let server = state.server.lock().unwrap().clone();
                // If the server is down, the client learns it from the end of its connection.
                if state.refuses.load(SeqCst) {
                    continue;
                }
                let Ok(stream) = TcpStream::connect(&server) else {
                    continue;
                };
                state.made.fetch_add(1, SeqCst);
                *state
                    .open
                    .lock()
                    .unwrap()
                    .entry(server.clone())
                    .or_default() += 1;
                thread::spawn(move || {
                    state.carry(&client, &stream);
                    *state.open.lock().unwrap().get_mut(&server).unwrap() -= 1;
                });
            }
        });
        (
            url.replace(address(url), &format!("127.0.0.1:{port}")),
            proxy,
        )
    }

    /// Leads new connections to the server in `url`, as after a failover.
    pub fn lead_to(&self, url: &str) {
        address(url).clone_into(&mut self.state.server.lock().unwrap());
    }

    /// The number of connections that were made.
    pub fn made(&self) -> u64 {
        self.state.made.load(SeqCst)
    }

    /// The number of open connections.
    pub fn open(&self) -> usize {
        self.state.open.lock().unwrap().values().sum()
    }

    /// The number of open connections to the server in `url`.
    pub fn open_to(&self, url: &str) -> usize {
        let open = self.state.open.lock().unwrap();
        open.get(address(url)).copied().unwrap_or_default()
    }

    /// Since the last call: the bytes sent to the server, and how often the client spoke after it.
    pub fn take_sent_and_turns(&self) -> (u64, u64) {
        let take = |count: &AtomicU64| count.swap(0, SeqCst);
        (take(&self.state.sent), take(&self.state.turns))
    }

    /// The number of replies that were cut.
    pub fn replies_cut(&self) -> u64 {
        self.state.replies_cut.load(SeqCst)
    }

    /// Makes the connections that are open now pass nothing on, without closing them.
    pub fn silence(&self) {
        self.state.silenced.fetch_add(1, SeqCst);
    }

    /// Closes the connection of the next reply in place of passing the reply on.
    pub fn lose_next_reply(&self) {
        self.state.lose_next_reply.store(true, SeqCst);
    }

    /// Delays every reply by 500 ms during `span`.
    pub fn be_late(&self, span: Duration) {
        self.state.late.store(true, SeqCst);
        thread::sleep(span + Duration::from_millis(500));
        self.state.late.store(false, SeqCst);
    }

    /// Closes connections in the middle of replies during `span`, as `cut_reply` decides.
    pub fn cut_replies(
        &self,
        span: Duration,
        cut_reply: impl FnMut(usize) -> Option<usize> + Send + 'static,
    ) {
        *self.state.cut_reply.lock().unwrap() = Some(Box::new(cut_reply));
        thread::sleep(span);
        *self.state.cut_reply.lock().unwrap() = None;
    }

    /// Refuses connections during `span`, and closes those that get a reply.
    pub fn refuse(&self, span: Duration) {
        self.state.refuses.store(true, SeqCst);
        thread::sleep(span);
        self.state.refuses.store(false, SeqCst);
    }
}

impl State {
    /// Carries one connection until either end closes it.
    fn carry(&self, client: &TcpStream, server: &TcpStream) {
        for stream in [client, server] {
            stream.set_nodelay(true).unwrap();
        }
        let silenced_before = self.silenced.load(SeqCst);
        let is_silent = || self.silenced.load(SeqCst) > silenced_before;
        let is_after_reply = AtomicBool::new(true);
        thread::scope(|scope| {
            scope.spawn(|| {
                pass(client, server, |length| {
                    if is_silent() {
                        return Passed::Nothing;
                    }
                    self.sent.fetch_add(length as u64, SeqCst);
                    if is_after_reply.swap(false, SeqCst) {
                        self.turns.fetch_add(1, SeqCst);
                    }
                    Passed::All
                });
            });
            pass(server, client, |length| {
                if is_silent() {
                    return Passed::Nothing;
                }
                is_after_reply.store(true, SeqCst);
                self.reply(length)
            });
        });
    }

    fn reply(&self, length: usize) -> Passed {
        if self.late.load(SeqCst) {
            thread::sleep(Duration::from_millis(500));
        }
        if let Some(cut_reply) = self.cut_reply.lock().unwrap().as_mut()
            && let Some(part) = cut_reply(length)
        {
            self.replies_cut.fetch_add(1, SeqCst);
            return Passed::CutAfter(part);
        }
        if self.refuses.load(SeqCst) || self.lose_next_reply.swap(false, SeqCst) {
            return Passed::CutAfter(0);
        }
        Passed::All
    }
}

/// What becomes of the bytes that were read.
enum Passed {
    All,
    Nothing,
    /// So many bytes are passed on, and the connection is closed.
    CutAfter(usize),
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, decide: impl Fn(usize) -> Passed) {
    let mut buffer = [0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let (part, goes_on) = match decide(length) {
            Passed::All => (length, true),
            Passed::Nothing => (0, true),
            Passed::CutAfter(part) => (part, false),
        };
        if to.write_all(&buffer[..part]).is_err() || !goes_on {
            break;
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
