//! Crates that keep their own session middleware over a store of this crate. `/do/insert:a=1+get:a` does
//! things to their session; `/together/…` does so when as many requests as the barrier counts are there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
        mpsc,
    },
    time::Duration,
};

use session_manager::{
    MemoryStore, Store, StoreError, Timestamp,
    store::{Applied, Entries, Record, StoreId, UserIndex, Value, Write},
};

use super::{Server, at_once, server_side::How, wire::Wire};

/// Fifty overlapping requests that each insert a key keep fifty of fifty, and later writes and removals
/// merge by key too.
pub fn their_writes_merge_by_key(server: &Server) {
    let cookie = server.visitor().get("/do/insert:first=0").cookie();
    let run = |what: &str| server.with_cookie(&format!("/do/{what}"), &cookie).body;
    at_once(50, |n| {
        server.with_cookie(&format!("/together/insert:key{n}=1"), &cookie)
    });
    let all: Vec<_> = (0..50).map(|n| format!("get:key{n}")).collect();
    assert_eq!(run(&all.join("+")), ["1"; 50].join(" "));
    run("remove:first+insert:key0=2");
    assert_eq!(run("get:first+get:key0+get:key1"), "none 2 1");
    run("clear+insert:only=1");
    assert_eq!(run("get:key1+get:only"), "none 1");
}

/// Of fifty overlapping requests the first logs out with `log_out`; the others answer as ever, and what
/// they write is not there afterwards.
pub fn their_log_out_wins(server: &Server, cookie: &str, log_out: &str) {
    let answers = at_once(50, |n| {
        let what = if n == 0 { log_out } else { "insert:late=1" };
        let answer = server.with_cookie(&format!("/together/{what}"), cookie);
        answer.status
    });
    assert_eq!(answers, [200; 50], "each late response is delivered");
    let read = server.with_cookie("/do/get:a+get:late", cookie);
    assert_eq!(read.body, "none none");
}

/// Lets a handler stay until its request is dropped.
#[derive(Clone)]
pub struct Stay(mpsc::Sender<mpsc::Receiver<()>>);

/// What a test knows of a handler that stays.
pub struct Stayed(mpsc::Receiver<mpsc::Receiver<()>>);

impl Stay {
    pub fn new() -> (Self, Stayed) {
        let (send, entered) = mpsc::channel();
        (Self(send), Stayed(entered))
    }

    pub async fn forever<T>(&self) -> T {
        let (_alive, dropped) = mpsc::channel();
        self.0.send(dropped).unwrap();
        std::future::pending().await
    }
}

impl Stayed {
    /// Sends a request, goes away when its handler stays, and waits until the handler is dropped.
    pub fn leave(&self, server: &Server, path: &str, cookie: &str) {
        let mut client = Wire::to(server.address);
        client.send(path, cookie).unwrap();
        let limit = Duration::from_secs(10);
        let dropped = self.0.recv_timeout(limit).unwrap();
        drop(client);
        let ended = dropped.recv_timeout(limit);
        assert_eq!(ended, Err(mpsc::RecvTimeoutError::Disconnected));
    }
}

/// A memory store with one fault.
#[derive(Clone, Default)]
pub struct Faulty {
    store: MemoryStore,
    fault: Arc<AtomicU8>,
}

impl Faulty {
    /// Each value that is loaded is no JSON.
    pub const UNREADABLE: u8 = 1;
    /// No record can be created.
    pub const CREATES_NOTHING: u8 = 2;

    pub fn set(&self, fault: u8) {
        self.fault.store(fault, Ordering::SeqCst);
    }

    fn has(&self, fault: u8) -> bool {
        self.fault.load(Ordering::SeqCst) == fault
    }
}

impl Store for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        let mut found = self.store.load(id, now).await?;
        if let Some(record) = found.as_mut().filter(|_| self.has(Self::UNREADABLE)) {
            let keys = record.entries.iter().map(|(key, _)| key);
            let broken: Entries = keys.map(|key| (key, Value::Json("{\"secret"))).collect();
            record.entries = broken;
        }
        Ok(found)
    }

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        if self.has(Self::CREATES_NOTHING) {
            return How::Refuses.answer(self.name()).await;
        }
        self.store.create(id, write).await
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        self.store.apply(id, write).await
    }

    async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
        self.store.destroy(id).await
    }

    fn users(&self) -> Option<&dyn UserIndex> {
        self.store.users()
    }
}
