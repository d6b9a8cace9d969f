//! Sessions in Redis or Valkey.

mod link;
mod url;
mod users;

use std::{fmt, str, sync::Arc};

use redis::{
    Client, Cmd, ErrorKind, RedisWrite, ServerErrorKind, ToRedisArgs, Value as Reply,
    aio::ConnectionManager, cluster::ClusterClient, sentinel::SentinelClient,
};
use sha2::{Digest, Sha256};

use self::{
    link::{Fault, Link, Source},
    url::Hosts,
};

use crate::{
    changes::write::{Applied, Write},
    expiry::Timestamp,
    random,
    record::{
        Record,
        entries::Entries,
        id::{StoreId, Verifier},
    },
    store::{Store, StoreError, UserIndex},
    value::Value,
};

const NAME: &str = "Redis";

/// Keeps sessions in Redis (5 or later; tested with 7.0) or Valkey (tested with 9.1): a hash per session,
/// written field by field.
///
/// | url | |
/// |---|---|
/// | `redis://[user:password@]host:6379/0` | one server; `rediss://` over TLS (feature `redis-tls`) |
/// | `redis+sentinel://[user:password@]host:26379,host:26379/mymaster[/db]` | the master that the Sentinels name; user and password are the servers' |
/// | `redis+cluster://[user:password@]host:7000,host:7001`, or several urls with commas between | a cluster, of which one host is enough to begin with |
///
/// `valkey` and `valkeys` do as well for `redis` and `rediss`. Opening a session is one round trip
/// (`HGETALL`), and so is every write (`EVALSHA`), renewals among them, whose bytes follow what
/// changed. In a cluster, where a session and its user's index (see [`UserIndex`]) are in two slots,
/// a write to a session that is a user's takes one more, and two when it becomes another's. A page
/// of a user's sessions takes two to list and two to end (in a cluster three), however many there are.
///
/// The next call after a connection was lost makes another; while no server can be reached, calls fail
/// at once, and each tries again. A call whose connection broke is sent again. The record remembers
/// its last write alone, so a write that is sent again is done once unless another request's write
/// came between the two. Then a plain write is done a second time, over the other one; and an
/// [`update`](crate::Session::update) that was done finds a conflict and runs its closure again on the
/// stored value.
///
/// Sessions are worth keeping over a restart: set `appendonly yes`. With a `maxmemory`, set
/// `maxmemory-policy volatile-ttl` or give sessions a server of their own: `noeviction` fails every
/// log-in when memory is full, and `allkeys-lru` ends sessions before their time. A failover loses
/// what the replica had not received; `min-replicas-to-write 1` bounds that. An ACL user needs
/// `~session:* +@read +@write +@scripting +@connection`, with `+cluster` in a cluster and `+role`
/// behind Sentinels.
///
/// Redis drops a session a minute after its time by the server's own clock, counted from the last
/// write as a span: clocks that disagree lose nobody's session. That no session is served past its
/// time is checked on what is stored.
///
/// Clones are the same store.
///
/// ```no_run
/// use session_manager::{Manager, RedisStore, ServerSide, manager};
///
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStore::connect("redis://127.0.0.1:6379").await?;
/// manager::set(Manager::new(ServerSide::new(store)));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisStore {
    link: Arc<Link>,
    prefix: Arc<str>,
}

impl RedisStore {
    /// Connects to the servers at `url`.
    ///
    /// # Errors
    ///
    /// If the url is none, and at once if no server is there. None shows the url's password.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let store = Self::connect_lazy(url)?;
        store
            .link
            .connect()
            .await
            .map_err(|error| StoreError::failed(NAME, error))?;
        Ok(store)
    }

    /// As [`connect`](Self::connect), but the first session that is opened connects: for an
    /// application that may start before its Redis does.
    ///
    /// # Errors
    ///
    /// If the url is none.
    pub fn connect_lazy(url: &str) -> Result<Self, StoreError> {
        let (source, hosts) = url::source(url)?;
        Ok(Self::new(Link::new(source, hosts)))
    }

    /// Uses the application's own client of one server, with a connection of its own.
    pub fn from_client(client: Client) -> Self {
        Self::new(Link::new(Source::Node(Box::new(client)), Hosts::own()))
    }

    /// Uses the application's own connection, with its time limits and its way of reconnecting.
    pub fn from_connection_manager(manager: ConnectionManager) -> Self {
        Self::new(Link::new(Source::Manager(manager), Hosts::own()))
    }

    /// Uses the application's own client of a cluster, with a connection of its own.
    ///
    /// By default such a client waits longer than a second before it tries again what failed: set
    /// `min_retry_wait` and `max_retry_wait`, or a failover keeps visitors waiting.
    ///
    /// The client must read from the masters, as it does unless `read_routing_strategy` (or
    /// `read_from_replicas`) was set, which a store cannot see. A replica lags behind its master: a
    /// session that was ended (a log-out) opens again until the replica has received it, and
    /// [`update`](crate::Session::update) computes from an old value and fails after its retries.
    pub fn from_cluster(client: ClusterClient) -> Self {
        Self::new(Link::new(Source::Cluster(Box::new(client)), Hosts::own()))
    }

    /// Uses the application's own client of Sentinels, with a connection of its own.
    ///
    /// It must be one for the master (`SentinelServerType::Master`): a replica takes no writes, and
    /// opens sessions that were ended until it has received that.
    pub fn from_sentinel(client: SentinelClient) -> Self {
        let source = Source::Sentinel(Box::new(client.into()));
        Self::new(Link::new(source, Hosts::own()))
    }

    /// What every key in Redis begins with. Default: `session:`.
    ///
    /// Applications that share a server take one each.
    #[must_use]
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    fn new(link: Link) -> Self {
        Self {
            link: Arc::new(link),
            prefix: "session:".into(),
        }
    }

    /// The braces make a record of its id's slot in a cluster, whatever the prefix.
    fn key(&self, id: StoreId) -> String {
        format!("{}{{{id}}}", self.prefix)
    }

    fn index_key(&self, owner: &str) -> String {
        format!("{}user:{{{owner}}}", self.prefix)
    }

    /// What the names of all indexes begin with, for scripts that may reach them: those of a single
    /// server.
    fn index_prefix(&self) -> String {
        match self.link.is_cluster() {
            true => String::new(),
            false => format!("{}user:{{", self.prefix),
        }
    }

    async fn send(&self, command: &Cmd) -> Result<Reply, StoreError> {
        self.link.send(command).await.map_err(failed)
    }

    /// Runs `script` by its hash, or by its text where the server does not know it yet.
    async fn run(
        &self,
        script: &Script,
        key: &str,
        args: impl Fn(&mut Cmd),
    ) -> Result<Reply, StoreError> {
        let call = |by: &str, script: &str| {
            let mut command = redis::cmd(by);
            command.arg(script).arg(1).arg(key);
            args(&mut command);
            command
        };
        match self.link.send(&call("EVALSHA", &script.hash)).await {
            Err(Fault::Redis(error))
                if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) =>
            {
                self.send(&call("EVAL", script.text)).await
            }
            answer => answer.map_err(failed),
        }
    }

    /// Runs a script that changes the record under `id`: what became of it, and whose record it was.
    async fn change(
        &self,
        script: &Script,
        id: StoreId,
        args: impl Fn(&mut Cmd),
    ) -> Result<(Applied, Option<String>), StoreError> {
        let Reply::Array(reply) = self.run(script, &self.key(id), args).await? else {
            return Err(no_answer());
        };
        let applied = match reply.first() {
            Some(Reply::Int(1)) => Applied::Done,
            Some(Reply::Int(0)) => Applied::Gone,
            Some(Reply::Int(2)) => Applied::Conflict,
            Some(Reply::Int(3)) => {
                return Err(corrupt("it is not a hash with a record's fields"));
            }
            _ => return Err(no_answer()),
        };
        let owner = match reply.get(1) {
            Some(Reply::BulkString(owner)) if !owner.is_empty() => {
                String::from_utf8(owner.clone()).ok()
            }
            _ => None,
        };
        Ok((applied, owner))
    }

    /// Runs a script that writes, with what it is told in the order in which `record.lua` takes it.
    async fn write(
        &self,
        script: &Script,
        id: StoreId,
        write: &Write,
        owner: Option<&str>,
    ) -> Result<(Applied, Option<String>), StoreError> {
        // By which a script knows a write that was sent again.
        let mut nonce = [0; 8];
        random::fill(&mut nonce);
        let nonce = format!("{:016x}", u64::from_ne_bytes(nonce));
        // A minute longer than it lives, so that what is stored decides and no clock's pace.
        let ttl = write.expires.since(write.now).as_millis().min(1 << 50) as u64 + 60_000;
        let kind = match (write.clear, write.is_touch()) {
            (true, _) => "clear",
            (false, true) => "touch",
            (false, false) => "",
        };
        let args = |command: &mut Cmd| {
            command.arg(self.index_prefix()).arg(write.now.millis());
            command.arg(&nonce);
            match write.if_version {
                Some(version) => command.arg(version),
                None => command.arg(""),
            };
            command.arg(write.expires.millis()).arg(ttl);
            command.arg(write.created.millis()).arg(kind);
            command.arg(owner.unwrap_or_default());
            command.arg(write.user.as_deref().unwrap_or_default());
            command.arg(write.verifier.to_text());
            command.arg(
                write
                    .new_verifier
                    .map(Verifier::to_text)
                    .unwrap_or_default(),
            );
            // How many of those that follow are keys and values to set; the others are keys to
            // remove.
            command.arg(2 * write.set.len());
            for (key, value) in &write.set {
                command.arg(Marked(".", key)).arg(match value {
                    Value::Text(text) => Marked("t", text),
                    Value::Json(json) => Marked("j", json),
                });
            }
            for key in &write.remove {
                command.arg(Marked(".", key));
            }
        };
        self.change(script, id, args).await
    }

    /// Says in the index of `owner`, in a cluster, that `id` is theirs until `expires`.
    async fn index(
        &self,
        owner: Option<&str>,
        id: StoreId,
        now: Timestamp,
        expires: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(owner) = owner.filter(|_| self.link.is_cluster()) else {
            return Ok(());
        };
        let args = |command: &mut Cmd| {
            command.arg(id.to_string()).arg(now.millis());
            command.arg("").arg("").arg(expires.millis());
        };
        let _ = self.run(&INDEX, &self.index_key(owner), args).await?;
        Ok(())
    }

    /// Takes `id` out of the index of `owner`, in a cluster.
    async fn unindex(&self, owner: Option<&str>, id: StoreId) -> Result<(), StoreError> {
        let Some(owner) = owner.filter(|_| self.link.is_cluster()) else {
            return Ok(());
        };
        let args = |command: &mut Cmd| {
            command.arg(id.to_string());
        };
        let _ = self.run(&INDEX, &self.index_key(owner), args).await?;
        Ok(())
    }
}

fn failed(fault: Fault) -> StoreError {
    match fault {
        Fault::Redis(error) if error.code() == Some("WRONGTYPE") => corrupt("it is no hash"),
        Fault::Redis(error) => StoreError::failed(NAME, error),
        Fault::Unreachable(error) => StoreError::failed(NAME, error),
    }
}

fn corrupt(why: &'static str) -> StoreError {
    StoreError::Corrupt { store: NAME, why }
}

fn no_meta() -> StoreError {
    corrupt("it lacks what every record says of itself")
}

/// A proxy or a user's own function answered in the server's place.
fn no_answer() -> StoreError {
    StoreError::failed(
        NAME,
        redis::RedisError::from((
            ErrorKind::UnexpectedReturnType,
            "a script's answer was of another form",
        )),
    )
}

/// The name of a user's index.
fn owner_of(user: &str) -> String {
    StoreId::from_bytes(Sha256::digest(user).into()).to_string()
}

/// A text with a letter before it that says what it is.
struct Marked<'a>(&'static str, &'a str);

impl ToRedisArgs for Marked<'_> {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        let Self(mark, text) = self;
        out.write_arg(&[mark.as_bytes(), text.as_bytes()].concat());
    }
}

/// A Lua script, and the hash by which the server knows it.
struct Script {
    text: &'static str,
    hash: String,
}

macro_rules! script {
    ($name:ident, $($file:literal),+) => {
        static $name: std::sync::LazyLock<Script> = std::sync::LazyLock::new(|| {
            let text = concat!($(include_str!($file)),+);
            Script { text, hash: redis::Script::new(text).get_hash().to_owned() }
        });
    };
}

script!(CREATE, "redis/record.lua", "redis/create.lua");
script!(APPLY, "redis/record.lua", "redis/apply.lua");
script!(DESTROY, "redis/record.lua", "redis/destroy.lua");
script!(INDEX, "redis/record.lua", "redis/index.lua");
script!(LIST, "redis/list.lua");

impl Store for RedisStore {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        let reply = self.send(redis::cmd("HGETALL").arg(self.key(id))).await?;
        let record = read(&reply)?;
        Ok(record.filter(|record| now < record.expires))
    }

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        let owner = write.user.as_deref().map(owner_of);
        self.index(owner.as_deref(), id, write.now, write.expires)
            .await?;
        let (applied, _) = self.write(&CREATE, id, write, owner.as_deref()).await?;
        Ok(applied == Applied::Done)
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        let owner = write.user.as_deref().map(owner_of);
        let owner = owner.as_deref();
        self.index(owner, id, write.now, write.expires).await?;
        let (applied, was) = self.write(&APPLY, id, write, owner).await?;
        let was = was.as_deref();
        match applied {
            // It is found for as long as it lives, which is longer now.
            Applied::Done if owner.is_none() => {
                self.index(was, id, write.now, write.expires).await?;
            }
            Applied::Done if was != owner => self.unindex(was, id).await?,
            Applied::Gone => self.unindex(owner, id).await?,
            Applied::Done | Applied::Conflict => {}
        }
        Ok(applied)
    }

    async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
        // For a record whose time is over the same is done, so the moment does not matter.
        let args = |command: &mut Cmd| {
            command.arg(self.index_prefix()).arg(0);
        };
        let (_, owner) = self.change(&DESTROY, id, args).await?;
        self.unindex(owner.as_deref(), id).await
    }

    fn users(&self) -> Option<&dyn UserIndex> {
        Some(self)
    }
}

/// The record in a hash, if there is one.
pub(crate) fn read(reply: &Reply) -> Result<Option<Record>, StoreError> {
    // RESP2 has no maps.
    let fields: Vec<_> = match reply {
        Reply::Map(fields) => fields.iter().map(|(field, value)| (field, value)).collect(),
        Reply::Array(fields) => fields
            .chunks_exact(2)
            .map(|field| (&field[0], &field[1]))
            .collect(),
        _ => return Err(no_answer()),
    };
    if fields.is_empty() {
        return Ok(None);
    }
    let (mut meta, mut user) = (None, None);
    let mut entries = Vec::with_capacity(fields.len());
    for (field, value) in fields {
        let (Some(field), Some(value)) = (text(field), text(value)) else {
            return Err(corrupt("a field of the hash is no text"));
        };
        match field {
            "meta" => meta = Some(value),
            "user" => user = Some(value),
            _ => {
                // Other fields are some later version's, or somebody's note.
                let Some(key) = field.strip_prefix('.') else {
                    continue;
                };
                let value = match value.as_bytes().first() {
                    Some(b't') => Value::Text(&value[1..]),
                    Some(b'j') => Value::Json(&value[1..]),
                    _ => return Err(corrupt("a value is neither text nor JSON")),
                };
                entries.push((key, value));
            }
        }
    }
    let meta = meta.and_then(|meta| read_meta(meta, Entries::from_iter(entries)));
    let mut record = meta.ok_or_else(no_meta)?;
    record.user = user.map(Arc::from);
    Ok(Some(record))
}

/// What `record.lua` writes of a record.
fn read_meta(meta: &str, entries: Entries) -> Option<Record> {
    let mut parts = meta.split(' ');
    let mut number = || parts.next()?.parse().ok();
    let (version, expires, created, last_seen) = (number()?, number()?, number()?, number()?);
    let verifier = Verifier::parse(parts.next()?)?;
    let mut record = Record::new(
        Timestamp::from_millis(created),
        Timestamp::from_millis(expires),
        entries,
    );
    record.last_seen = Timestamp::from_millis(last_seen);
    record.version = version;
    record.verifier = verifier;
    Some(record)
}

fn text(reply: &Reply) -> Option<&str> {
    match reply {
        Reply::BulkString(bytes) => str::from_utf8(bytes).ok(),
        Reply::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// Shows where the servers are, and neither user nor password.
impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("servers", &self.link)
            .field("prefix", &self.prefix)
            .finish()
    }
}
