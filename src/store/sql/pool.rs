//! The connections of a pool: which of them are tested, replaced or closed.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{
    Connection, Database, Pool,
    pool::{PoolConnection, PoolOptions},
};
use tokio::{runtime::Handle, time};

use super::Dialect;

/// How long a call waits for a connection of the pool: less than the limit of a call, so that the
/// error is the one that says why.
pub(super) const ACQUIRE_LIMIT: Duration = Duration::from_millis(1_500);
/// A connection that was idle for this long is tested before it is used.
const TESTED_AFTER: Duration = Duration::from_secs(5);
/// A call that waited this long had time to be answered.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the connections are renewed at most because the server takes no writes.
const RENEWED_AFTER: Duration = Duration::from_secs(1);

/// Where statements that read and those that write are sent; the same pool but for SQLite's file.
pub(crate) struct Pools<Db: Database> {
    pub(crate) reads: Pool<Db>,
    pub(crate) writes: Pool<Db>,
}

impl<Db: Database> Clone for Pools<Db> {
    fn clone(&self) -> Self {
        Self {
            reads: self.reads.clone(),
            writes: self.writes.clone(),
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
pub(crate) struct Call<D: Dialect> {
    connection: Option<PoolConnection<D::Db>>,
    lost: Lost,
    since: Instant,
}

impl<D: Dialect> Call<D> {
    pub(crate) async fn begin(pool: &Pool<D::Db>, lost: &Lost) -> Result<Self, sqlx::Error> {
        Ok(Self {
            connection: Some(pool.acquire().await?),
            lost: lost.clone(),
            since: Instant::now(),
        })
    }

    #[expect(clippy::expect_used, reason = "`end` and `drop` alone take it")]
    pub(crate) fn connection(&mut self) -> &mut <D::Db as Database>::Connection {
        self.connection.as_mut().expect("the call has not ended")
    }

    /// Gives the connection back, with the answer that it brought.
    pub(crate) fn end<T>(mut self, answer: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        let connection = self.connection.take();
        if let (Some(mut connection), Err(error)) = (connection, &answer)
            && self.lost.is_shared
            && matches!(trouble::<D>(error), Trouble::ReadOnly)
        {
            connection.close_on_drop();
        }
        answer
    }
}

impl<D: Dialect> Drop for Call<D> {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take().filter(|_| D::HAS_NETWORK) else {
            return;
        };
        if self.since.elapsed() >= PATIENCE {
            self.lost.mark();
        }
        let Ok(runtime) = Handle::try_current() else {
            drop(connection.detach());
            return;
        };
        let lost = self.lost.clone();
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
