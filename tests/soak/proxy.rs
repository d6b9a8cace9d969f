//! A way to a server that a test can break.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use super::Dice;

/// On a port of its own.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    way: Arc<Way>,
}

struct Way {
    open: AtomicUsize,
    cuts: AtomicU64,
    late: AtomicBool,
    refuses: AtomicBool,
    /// One in three replies is cut while there is something to decide where.
    cutting: Mutex<Option<Dice>>,
}

impl Proxy {
    pub(crate) fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let way = Arc::new(Way {
            open: AtomicUsize::new(0),
            cuts: AtomicU64::new(0),
            late: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            cutting: Mutex::new(None),
        });
        let all = Arc::clone(&way);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, way) = (client.unwrap(), Arc::clone(&all));
                // Where the server is down, who connects is told so by the end of the connection.
                if way.refuses.load(SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else {
                    continue;
                };
                thread::spawn(move || way.carry(&client, &server));
            }
        });
        Self { port, way }
    }

    /// How many connections go through it.
    pub(crate) fn open(&self) -> usize {
        self.way.open.load(SeqCst)
    }

    /// How many replies were cut.
    pub(crate) fn cuts(&self) -> u64 {
        self.way.cuts.load(SeqCst)
    }

    pub(crate) fn breaks(&self, way: &str, span: Duration, dice: &mut Dice) {
        let this = &self.way;
        match way {
            "500 ms late" => {
                this.late.store(true, SeqCst);
                thread::sleep(span + Duration::from_millis(500));
                this.late.store(false, SeqCst);
            }
            "replies cut" => {
                *this.cutting.lock().unwrap() = Some(dice.clone());
                thread::sleep(span);
                *this.cutting.lock().unwrap() = None;
            }
            "refused" => {
                this.refuses.store(true, SeqCst);
                thread::sleep(span);
                this.refuses.store(false, SeqCst);
            }
            _ => panic!("no proxy breaks so: {way}"),
        }
    }
}

impl Way {
    /// Until either end has closed.
    fn carry(&self, client: &TcpStream, server: &TcpStream) {
        self.open.fetch_add(1, SeqCst);
        for stream in [client, server] {
            stream.set_nodelay(true).unwrap();
        }
        thread::scope(|scope| {
            scope.spawn(|| self.pass(client, server, |_| Some(usize::MAX)));
            self.pass(server, client, |length| self.reply(length));
        });
        self.open.fetch_sub(1, SeqCst);
    }

    /// How much of a reply goes on; none, if nothing does any more.
    fn reply(&self, length: usize) -> Option<usize> {
        if self.late.load(SeqCst) {
            thread::sleep(Duration::from_millis(500));
        }
        if let Some(dice) = self.cutting.lock().unwrap().as_mut()
            && dice.of(3) == 0
        {
            self.cuts.fetch_add(1, SeqCst);
            return Some(dice.of(length as u64) as usize);
        }
        (!self.refuses.load(SeqCst)).then_some(usize::MAX)
    }

    fn pass(
        &self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        goes_on: impl Fn(usize) -> Option<usize>,
    ) {
        let mut buffer = [0; 16_384];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let part = goes_on(length).unwrap_or(0);
            if to.write_all(&buffer[..length.min(part)]).is_err() || part < length {
                break;
            }
        }
        for stream in [from, to] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
