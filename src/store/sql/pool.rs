//! The connections of a pool: which of them are tested, replaced or closed.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use sqlx::{
    Connection, Database, Pool,
    pool::{PoolConnection, PoolOptions},
};
use tokio::{
    runtime::{Handle, Id},
    sync::{Semaphore, SemaphorePermit},
    time,
};

use super::Dialect;

/// How long a call waits for a connection of the pool: less than the limit of a call, so that the
/// error is the one that says why.
pub(super) const ACQUIRE_LIMIT: Duration = Duration::from_millis(1_500);
/// A connection that was idle for this long is tested before it is used.
const TESTED_AFTER: Duration = Duration::from_secs(5);
/// A connection is handed from call to call for this long, or until no call has used it for this long.
/// Then it returns to its pool, which closes those that are old or idle.
const READY_FOR: Duration = Duration::from_secs(60);
/// A call that waited this long had time to be answered.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a call waits for the pool before it closes a connection that another runtime has ready.
const ROOM_AFTER: Duration = Duration::from_millis(50);
/// How many runtimes are known at most.
const MAX_RUNTIMES: usize = 64;
/// How often the connections are renewed at most because the server takes no writes.
const RENEWED_AFTER: Duration = Duration::from_secs(1);

/// Where statements that read and those that write are sent; the same pool but for SQLite's file.
pub(crate) struct Pools<Db: Database> {
    pub(crate) reads: Connections<Db>,
    pub(crate) writes: Connections<Db>,
}

impl<Db: Database> Pools<Db> {
    pub(super) fn one(pool: Pool<Db>, lost: &Lost) -> Self {
        let connections = Connections::new(pool, lost);
        Self {
            reads: connections.clone(),
            writes: connections,
        }
    }
}

impl<Db: Database> Clone for Pools<Db> {
    fn clone(&self) -> Self {
        Self {
            reads: self.reads.clone(),
            writes: self.writes.clone(),
        }
    }
}

/// A pool, and those of its connections that are kept ready for the next call.
///
/// A connection that returns to its pool costs a task and a round trip, because `sqlx` tests it. One
/// that has just brought an answer needs no test, so calls hand it on among themselves.
pub(crate) struct Connections<Db: Database> {
    pub(crate) pool: Pool<Db>,
    lost: Lost,
    /// `None` if the pool is the application's, which needs its connections too.
    ready: Option<Arc<Ready<Db>>>,
}

impl<Db: Database> Connections<Db> {
    pub(super) fn new(pool: Pool<Db>, lost: &Lost) -> Self {
        let ready = (!lost.is_shared).then(|| {
            let calls = pool.options().get_max_connections() as usize;
            Arc::new(Ready {
                turns: Semaphore::new(calls),
                stack: Mutex::default(),
            })
        });
        Self {
            pool,
            lost: lost.clone(),
            ready,
        }
    }

    /// Closes all connections that no call uses.
    fn close_unused(&self) {
        let ready = self.ready.as_deref().map(|ready| {
            let mut stack = ready.stack();
            std::mem::take(&mut stack.connections)
        });
        let ready = ready.into_iter().flatten().map(|ready| ready.connection);
        let idle = std::iter::from_fn(|| self.pool.try_acquire());
        for mut connection in ready.chain(idle) {
            connection.close_on_drop();
        }
    }
}

impl<Db: Database> Clone for Connections<Db> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            lost: self.lost.clone(),
            ready: self.ready.clone(),
        }
    }
}

/// The connections that are ready; the last one on the stack was used last.
struct Ready<Db: Database> {
    /// One for each connection that the pool may have: a call that finds none ready may take one from
    /// the pool, so that no call waits there while a connection lies here.
    turns: Semaphore,
    stack: Mutex<Stack<Db>>,
}

struct Stack<Db: Database> {
    connections: Vec<ReadyConnection<Db>>,
    /// Whether a task gives back what is not used.
    is_watched: bool,
}

struct ReadyConnection<Db: Database> {
    connection: PoolConnection<Db>,
    /// When it was taken from the pool.
    taken: Instant,
    /// When it last brought an answer.
    used: Instant,
    /// The runtime that uses it, and with which it dies.
    runtime: Option<Id>,
}

/// Returns the runtime that a connection over the network belongs to. After that has ended, a ping may
/// still succeed, and the next statement fail.
fn runtime<D: Dialect>() -> Option<Id> {
    let current = Handle::try_current().ok().filter(|_| D::HAS_NETWORK);
    current.map(|current| current.id())
}

impl<Db: Database> Default for Stack<Db> {
    fn default() -> Self {
        Self {
            connections: Vec::new(),
            is_watched: false,
        }
    }
}

impl<Db: Database> Ready<Db> {
    fn stack(&self) -> MutexGuard<'_, Stack<Db>> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pop(&self) -> Option<ReadyConnection<Db>> {
        self.stack().connections.pop()
    }

    /// Takes the connection that this runtime used last.
    fn pop_own(&self, runtime: Option<Id>) -> Option<ReadyConnection<Db>> {
        let mut stack = self.stack();
        let own = |ready: &ReadyConnection<Db>| ready.runtime == runtime;
        let last = stack.connections.iter().rposition(own)?;
        Some(stack.connections.remove(last))
    }

    fn push(self: &Arc<Self>, connection: PoolConnection<Db>, taken: Instant, runtime: Option<Id>) {
        let used = Instant::now();
        let is_watched = {
            let mut stack = self.stack();
            stack.connections.push(ReadyConnection {
                connection,
                taken,
                used,
                runtime,
            });
            std::mem::replace(&mut stack.is_watched, true)
        };
        if !is_watched {
            let watch = Watch(Arc::downgrade(self));
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(watch.give_back_unused());
            }
        }
    }
}

/// Outside of a runtime, where the pool cannot take them back.
impl<Db: Database> Drop for Ready<Db> {
    fn drop(&mut self) {
        for ready in self.stack().connections.drain(..) {
            drop(ready.connection.detach());
        }
    }
}

/// Gives unused connections back, so that the pool can close them; ends when none is left, or with
/// its runtime.
struct Watch<Db: Database>(Weak<Ready<Db>>);

impl<Db: Database> Watch<Db> {
    async fn give_back_unused(self) {
        loop {
            time::sleep(READY_FOR).await;
            let Some(ready) = self.0.upgrade() else {
                return;
            };
            let mut stack = ready.stack();
            let is_unused = |ready: &mut ReadyConnection<Db>| ready.used.elapsed() >= READY_FOR;
            let unused = Vec::from_iter(stack.connections.extract_if(.., is_unused));
            let is_over = stack.connections.is_empty();
            drop(stack);
            drop(unused);
            if is_over {
                return;
            }
        }
    }
}

impl<Db: Database> Drop for Watch<Db> {
    fn drop(&mut self) {
        if let Some(ready) = self.0.upgrade() {
            ready.stack().is_watched = false;
        }
    }
}

/// What was found out about the connections of a pool.
///
/// After a connection was found dead, those that are idle since before then have most likely died
/// of the same, and each is tested once before it is used. So a restart of the server fails as few
/// calls as possible, and otherwise no call pays for a test.
#[derive(Clone, Default)]
pub(crate) struct Lost {
    marks: Arc<Mutex<Marks>>,
    /// Whether the pool is the application's, so that the marks are not read when it gives out a
    /// connection.
    is_shared: bool,
}

#[derive(Default)]
struct Marks {
    /// When a connection was last found dead, or did not answer in time.
    dead: Option<Instant>,
    /// When the server was last found to take no writes, which a ping does not show.
    read_only: Option<Instant>,
    /// The runtimes that called; a new one may have come in place of one that ended.
    runtimes: Vec<Id>,
}

impl Lost {
    /// Creates the marks of a pool that the application made.
    pub(super) fn of_shared_pool() -> Self {
        Self {
            is_shared: true,
            ..Self::default()
        }
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn mark(&self) {
        self.marks().dead = Some(Instant::now());
    }

    /// Returns `true` if another runtime called before, and this one did not.
    fn enters(&self, runtime: Option<Id>) -> bool {
        let mut marks = self.marks();
        let Some(new) = runtime.filter(|id| !marks.runtimes.contains(id)) else {
            return false;
        };
        let is_first = marks.runtimes.is_empty();
        marks.runtimes.truncate(MAX_RUNTIMES - 1);
        marks.runtimes.insert(0, new);
        !is_first
    }

    /// A connection is pinged when it returns to its pool, so one that returned after the mark has
    /// answered since.
    fn is_suspect(&self, idle_for: Duration) -> bool {
        self.marks()
            .dead
            .is_some_and(|dead| dead.elapsed() <= idle_for)
    }

    /// Marks all connections for closing because a call that began at `begun` was refused for
    /// writing. Returns `true` if the call's connection may be older than the mark: another may
    /// lead to a server that takes writes. Otherwise there is none at present, and connecting for
    /// each call would only add to its load.
    pub(super) fn mark_read_only(&self, begun: Instant) -> bool {
        let mut marks = self.marks();
        match marks.read_only {
            Some(marked) if begun <= marked => true,
            Some(marked) if marked.elapsed() < RENEWED_AFTER => self.is_shared,
            _ => {
                marks.read_only = Some(Instant::now());
                true
            }
        }
    }

    /// Returns `true` if a connection that is ready has to be tested or replaced before it is used.
    fn is_doubtful(&self, taken: Instant, used: Instant) -> bool {
        let marks = self.marks();
        used.elapsed() >= TESTED_AFTER
            || marks.dead.is_some_and(|dead| used <= dead)
            || marks.read_only.is_some_and(|marked| taken <= marked)
    }

    fn is_replaced(&self, age: Duration) -> bool {
        let marked = self.marks().read_only;
        marked.is_some_and(|marked| marked.elapsed() <= age)
    }

    /// Returns the options that every pool of this crate has.
    pub(crate) fn pool_options<Db: Database>(&self) -> PoolOptions<Db> {
        let lost = self.clone();
        PoolOptions::new()
            .acquire_timeout(ACQUIRE_LIMIT)
            .test_before_acquire(false)
            .before_acquire(move |connection: &mut Db::Connection, known| {
                let is_replaced = lost.is_replaced(known.age);
                let test = known.idle_for >= TESTED_AFTER || lost.is_suspect(known.idle_for);
                Box::pin(async move {
                    if test && !is_replaced {
                        connection.ping().await?;
                    }
                    Ok(!is_replaced)
                })
            })
    }
}

/// A connection while one call uses it.
///
/// If the call is dropped before it is answered, a ping in the background decides whether the
/// connection returns to its pool. The pool itself would ping too, without a time limit: a server
/// that is gone without a word would keep the whole pool waiting.
pub(crate) struct Call<'c, D: Dialect> {
    connection: Option<PoolConnection<D::Db>>,
    connections: &'c Connections<D::Db>,
    /// When the connection was taken from the pool.
    taken: Instant,
    since: Instant,
    _turn: Option<SemaphorePermit<'c>>,
}

impl<'c, D: Dialect> Call<'c, D> {
    pub(crate) async fn begin(connections: &'c Connections<D::Db>) -> Result<Self, sqlx::Error> {
        let Some(ready) = connections.ready.as_deref() else {
            let connection = connections.pool.acquire().await?;
            return Ok(Self::new(connections, connection, Instant::now(), None));
        };
        if let Ok(turn) = ready.turns.try_acquire() {
            match ready.pop_own(runtime::<D>()) {
                Some(last) if !connections.lost.is_doubtful(last.taken, last.used) => {
                    let (connection, taken) = (last.connection, last.taken);
                    return Ok(Self::new(connections, connection, taken, Some(turn)));
                }
                Some(last) => ready.stack().connections.push(last),
                None => {}
            }
        }
        let begin = time::timeout(ACQUIRE_LIMIT, Self::begin_slowly(connections, ready));
        begin.await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// Waits for a turn, tests what is ready, and asks the pool.
    async fn begin_slowly(
        connections: &'c Connections<D::Db>,
        ready: &'c Ready<D::Db>,
    ) -> Result<Self, sqlx::Error> {
        let (pool, runtime) = (&connections.pool, runtime::<D>());
        if connections.lost.enters(runtime) {
            while let Some(idle) = pool.try_acquire() {
                drop(idle.detach());
            }
        }
        let turn = ready.turns.acquire().await;
        let mut turn = Some(turn.map_err(|_| sqlx::Error::PoolClosed)?);
        while let Some(last) = ready.pop_own(runtime) {
            let mut call = Self::new(connections, last.connection, last.taken, turn.take());
            if !connections.lost.is_doubtful(last.taken, last.used) {
                return Ok(call);
            }
            let is_replaced = connections.lost.is_replaced(last.taken.elapsed());
            if !is_replaced && call.connection().ping().await.is_ok() {
                return Ok(call);
            }
            turn = call._turn.take();
            drop(call.connection.take().map(PoolConnection::detach));
        }
        // Another runtime's connection makes room, if the pool has none.
        let is_full = pool.num_idle() == 0 && pool.size() >= pool.options().get_max_connections();
        let mut wait = if is_full { Duration::ZERO } else { ROOM_AFTER };
        let mut acquiring = pin!(pool.acquire());
        let connection = loop {
            if let Ok(acquired) = time::timeout(wait, acquiring.as_mut()).await {
                break acquired?;
            }
            drop(ready.pop().map(|other| other.connection.detach()));
            wait = ROOM_AFTER;
        };
        Ok(Self::new(connections, connection, Instant::now(), turn))
    }

    fn new(
        connections: &'c Connections<D::Db>,
        connection: PoolConnection<D::Db>,
        taken: Instant,
        turn: Option<SemaphorePermit<'c>>,
    ) -> Self {
        Self {
            connection: Some(connection),
            connections,
            taken,
            since: Instant::now(),
            _turn: turn,
        }
    }

    #[expect(clippy::expect_used, reason = "`end` and `drop` alone take it")]
    pub(crate) fn connection(&mut self) -> &mut <D::Db as Database>::Connection {
        self.connection.as_mut().expect("the call has not ended")
    }

    /// Gives the connection back, with the answer that it brought.
    pub(crate) fn end<T>(mut self, answer: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        let Some(mut connection) = self.connection.take() else {
            return answer;
        };
        let Connections { lost, ready, .. } = self.connections;
        match (&answer, ready) {
            (Err(error), _) if matches!(trouble::<D>(error), Trouble::ReadOnly) => {
                let is_known = lost.is_replaced(self.since.elapsed());
                if lost.mark_read_only(self.since) {
                    connection.close_on_drop();
                    if ready.is_some() && !is_known {
                        self.connections.close_unused();
                    }
                }
            }
            (Ok(_), Some(_)) if lost.is_replaced(self.taken.elapsed()) => {
                connection.close_on_drop();
            }
            (Ok(_), Some(ready)) if self.taken.elapsed() < READY_FOR => {
                ready.push(connection, self.taken, runtime::<D>());
            }
            _ => {}
        }
        answer
    }
}

impl<D: Dialect> Drop for Call<'_, D> {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take().filter(|_| D::HAS_NETWORK) else {
            return;
        };
        let lost = self.connections.lost.clone();
        if self.since.elapsed() >= PATIENCE {
            lost.mark();
        }
        let Ok(runtime) = Handle::try_current() else {
            drop(connection.detach());
            return;
        };
        runtime.spawn(async move {
            let answer = time::timeout(ACQUIRE_LIMIT, connection.ping()).await;
            if !matches!(answer, Ok(Ok(()))) {
                lost.mark();
                drop(connection.detach());
            }
        });
    }
}

/// What an error means for the statement.
#[cfg_attr(
    not(any(feature = "postgres", feature = "mysql")),
    allow(dead_code, reason = "a file has no server that goes down")
)]
pub(crate) enum Trouble {
    /// It was undone in favour of another one, and may be sent again.
    Undone,
    /// The server went down before it was done.
    Ended,
    /// The connection was lost, before or after it was done.
    Lost,
    /// The server takes no writes: after a failover, it is the former primary.
    ReadOnly,
    Other,
}

pub(super) fn trouble<D: Dialect>(error: &sqlx::Error) -> Trouble {
    match error {
        sqlx::Error::Io(_) => Trouble::Lost,
        sqlx::Error::Database(error) => D::trouble(&**error),
        _ => Trouble::Other,
    }
}
