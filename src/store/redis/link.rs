//! The connection to the servers: made when it is needed, found lost, made again.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use redis::{
    Arg, AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, RedisResult,
    ServerErrorKind, Value,
    aio::{ConnectionLike, ConnectionManager, MultiplexedConnection, PubSub},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    sentinel::SentinelClient,
};
use tokio::{
    runtime::Handle,
    sync::Mutex,
    time::{Instant, timeout},
};

use super::url::Hosts;

/// How long making a connection may take. Below the two seconds that a call may take, so that a
/// process that starts while the server hangs gets the error of the store.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_millis(1_500);
/// How long a connection may leave a call unanswered before it is taken for dead.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// How long no call tries again after a connection could not be made: what a server that is down is
/// spared, and what a visitor waits at most after it is back.
const PAUSE: Duration = Duration::from_millis(20);

/// Where connections come from.
pub(super) enum Source {
    /// One server.
    Node(Box<Client>),
    /// Whichever server the Sentinels say is the master.
    Sentinel(Box<Mutex<SentinelClient>>),
    /// A cluster, and its servers that the url names.
    Cluster(Box<ClusterClient>, Vec<Client>),
    /// The application's own, which renews itself.
    Manager(ConnectionManager),
}

#[derive(Clone)]
enum Connection {
    Node(MultiplexedConnection),
    Cluster(ClusterConnection),
    Manager(ConnectionManager),
}

/// One connection that all calls share, and what makes another when it is lost.
pub(super) struct Link {
    source: Source,
    hosts: Hosts,
    line: ArcSwapOption<Line>,
    /// Held by the call that makes a connection; when that last failed, and how.
    failed: Mutex<Option<(Instant, Unreachable)>>,
}

/// A connection, and whether it still answers.
struct Line {
    connection: Connection,
    /// Whether a call had time to be answered and was not: a server that hangs, or a network that
    /// drops packets, closes no connection. Once dead, a connection stays dead, because in a cluster
    /// the other servers still answer.
    is_dead: AtomicBool,
    /// Whether a check is under way.
    is_checked: AtomicBool,
}

/// Nothing could be connected to.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot connect to {hosts}")]
pub(super) struct Unreachable {
    hosts: Arc<str>,
    source: RedisError,
}

/// What is sent at once.
#[derive(Clone, Copy)]
pub(super) enum Call<'a> {
    One(&'a Cmd),
    All(&'a Pipeline),
}

/// What went wrong with a command.
#[derive(Debug)]
pub(super) enum Fault {
    Unreachable(Unreachable),
    Redis(RedisError),
}

impl Link {
    pub(super) fn new(source: Source, hosts: Hosts) -> Self {
        Self {
            source,
            hosts,
            line: ArcSwapOption::empty(),
            failed: Mutex::new(None),
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.source, Source::Cluster(..))
    }

    /// Connects, if that is not so yet.
    pub(super) async fn connect(&self) -> Result<(), Unreachable> {
        self.line().await.map(drop)
    }

    /// Opens a connection that receives what is published on `channel`. `None` if there is no client
    /// to make one with: of a cluster or a connection that the application made.
    pub(super) async fn subscribe(&self, channel: &str) -> RedisResult<Option<PubSub>> {
        let late = || std::io::Error::from(std::io::ErrorKind::TimedOut).into();
        let subscribing = timeout(CONNECT_LIMIT, async {
            let Some(mut subscription) = self.source.pubsub().await? else {
                return Ok(None);
            };
            subscription.subscribe(channel).await?;
            Ok(Some(subscription))
        });
        subscribing.await.unwrap_or_else(|_| Err(late()))
    }

    /// Sends `call`, and once more if the connection turns out to be lost: every command here may be
    /// sent twice.
    ///
    /// On the heap, because the futures around it are moved as they are nested, and this one holds what
    /// each kind of connection needs.
    pub(super) fn send<'a>(
        &'a self,
        call: Call<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<Value, Fault>> + Send + 'a>> {
        Box::pin(async move {
            let line = self.line().await.map_err(Fault::Unreachable)?;
            match line.send(call).await {
                Err(error) if is_lost(&error) => self.forget(&line),
                answer => return answer.map_err(Fault::Redis),
            }
            let line = self.line().await.map_err(Fault::Unreachable)?;
            line.send(call).await.map_err(|error| {
                if is_lost(&error) {
                    self.forget(&line);
                }
                Fault::Redis(error)
            })
        })
    }

    fn usable(&self) -> Option<Arc<Line>> {
        self.line
            .load_full()
            .filter(|line| !line.is_dead.load(Relaxed))
    }

    async fn line(&self) -> Result<Arc<Line>, Unreachable> {
        match self.usable() {
            Some(line) => Ok(line),
            // Large, and rare.
            None => Box::pin(self.new_line()).await,
        }
    }

    async fn new_line(&self) -> Result<Arc<Line>, Unreachable> {
        let asked = Instant::now();
        let mut failed = self.failed.lock().await;
        if let Some(line) = self.usable() {
            return Ok(line);
        }
        // Who waited for an attempt shares how it went, so that a thousand waiting requests are one
        // attempt and not a queue of them.
        if let Some((when, error)) = &*failed
            && *when + PAUSE > asked
        {
            return Err(error.clone());
        }
        let made = timeout(CONNECT_LIMIT, self.source.connect())
            .await
            .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()));
        match made {
            Ok(connection) => {
                let line = Arc::new(Line {
                    connection,
                    is_dead: AtomicBool::new(false),
                    is_checked: AtomicBool::new(false),
                });
                self.line.store(Some(Arc::clone(&line)));
                *failed = None;
                Ok(line)
            }
            Err(source) => {
                let error = Unreachable {
                    hosts: self.hosts.to_string().into(),
                    source,
                };
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Uses `line` no more, unless another has taken its place already.
    fn forget(&self, line: &Arc<Line>) {
        self.line.rcu(|now| match now {
            Some(now) if !Arc::ptr_eq(now, line) => Some(Arc::clone(now)),
            _ => None,
        });
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hosts.to_string())
    }
}

/// Whether another connection may do better.
pub(super) fn is_lost(error: &RedisError) -> bool {
    // A master that was replaced says that it is read-only.
    let is_replaced = matches!(
        error.kind(),
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
    );
    is_replaced || error.is_io_error() || error.is_unrecoverable_error()
}

impl Source {
    async fn connect(&self) -> RedisResult<Connection> {
        // How long an answer may take is for who asks to say.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_response_timeout(None);
        Ok(match self {
            Self::Node(client) => Connection::Node(
                client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await?,
            ),
            Self::Sentinel(client) => Connection::Node(
                client
                    .lock()
                    .await
                    .get_async_connection_with_config(&config)
                    .await?,
            ),
            Self::Cluster(client, _) => Connection::Cluster(client.get_async_connection().await?),
            Self::Manager(manager) => Connection::Manager(manager.clone()),
        })
    }

    async fn pubsub(&self) -> RedisResult<Option<PubSub>> {
        Ok(Some(match self {
            Self::Node(client) => client.get_async_pubsub().await?,
            Self::Sentinel(client) => {
                let client = client.lock().await.async_get_client().await?;
                client.get_async_pubsub().await?
            }
            // What is published reaches every server of a cluster.
            Self::Cluster(_, seeds) => {
                let mut failed = None;
                for seed in seeds {
                    match seed.get_async_pubsub().await {
                        Ok(subscription) => return Ok(Some(subscription)),
                        Err(error) => failed = Some(error),
                    }
                }
                return failed.map_or(Ok(None), Err);
            }
            Self::Manager(_) => return Ok(None),
        }))
    }
}

impl Line {
    async fn send(self: &Arc<Self>, call: Call<'_>) -> RedisResult<Value> {
        let mut waiting = Waiting {
            line: self,
            call,
            since: Instant::now(),
            answered: false,
        };
        let answer = self.query(call).await;
        waiting.answered = true;
        answer
    }

    async fn query(&self, call: Call<'_>) -> RedisResult<Value> {
        match self.connection.clone() {
            Connection::Node(mut node) => call.query(&mut node).await,
            Connection::Cluster(mut cluster) => call.query(&mut cluster).await,
            Connection::Manager(mut manager) => call.query(&mut manager).await,
        }
    }

    /// Asks the server of `call` in the background and gives it time to answer. One check at a
    /// time, however many calls are dropped.
    fn check(self: &Arc<Self>, call: Call<'_>) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if self.is_checked.swap(true, Relaxed) {
            return;
        }
        let mut check = redis::cmd("EXISTS");
        // In a cluster the key decides which server is asked.
        check.arg(call.key().unwrap_or_default());
        let line = Arc::clone(self);
        runtime.spawn(async move {
            // An error is an answer too; the next call meets it and decides.
            if timeout(PATIENCE, line.query(Call::One(&check)))
                .await
                .is_err()
            {
                line.is_dead.store(true, Relaxed);
            }
            line.is_checked.store(false, Relaxed);
        });
    }
}

impl<'a> Call<'a> {
    async fn query(self, connection: &mut (impl ConnectionLike + Send)) -> RedisResult<Value> {
        match self {
            Self::One(command) => command.query_async(connection).await,
            Self::All(commands) => commands.query_async(connection).await,
        }
    }

    fn key(self) -> Option<&'a [u8]> {
        let command = match self {
            Self::One(command) => command,
            Self::All(commands) => commands.cmd_iter().next()?,
        };
        let mut args = command.args_iter();
        let name = args.next();
        let is_script = matches!(name, Some(Arg::Simple(b"EVALSHA" | b"EVAL")));
        match args.nth(if is_script { 2 } else { 0 }) {
            Some(Arg::Simple(key)) => Some(key),
            _ => None,
        }
    }
}

/// A call that waits for its answer.
///
/// Dropped before that, it tells about the connection only if it waited long enough: a client that
/// goes away, or resets its streams, says nothing about the server.
struct Waiting<'a> {
    line: &'a Arc<Line>,
    call: Call<'a>,
    since: Instant,
    answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        if self.since.elapsed() >= PATIENCE {
            self.line.is_dead.store(true, Relaxed);
        } else {
            self.line.check(self.call);
        }
    }
}
