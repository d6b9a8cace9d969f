//! Sessions in Redis or Valkey.

mod ended;
mod link;
mod reserve;
mod url;
mod users;

use std::{fmt, str, sync::Arc};

use redis::{
    Client, Cmd, ErrorKind, Pipeline, RedisWrite, ServerErrorKind, ToRedisArgs, Value as Reply,
    aio::ConnectionManager, cluster::ClusterClient, sentinel::SentinelClient,
};
use sha2::{Digest, Sha256};

use self::{
    link::{Call, Fault, Link, Source},
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
    store::{Endings, Store, StoreError, UserIndex},
    value::Value,
};

const NAME: &str = "Redis";

/// How much of a verifier's text the names of its fields begin with.
const GEN: usize = 11;

/// Keeps sessions in Redis (7.0 or later; tested with 7.0) or Valkey (tested with 9.1): a hash per
/// session, written field by field.
///
/// | url | |
/// |---|---|
/// | `redis://[user:password@]host:6379/0` | one server; `rediss://` over TLS (feature `redis-tls`) |
/// | `redis+sentinel://[user:password@]host:26379,host:26379/mymaster[/db]` | the master that the Sentinels name; user and password are the servers' |
/// | `redis+cluster://[user:password@]host:7000,host:7001`, or several urls with commas between | a cluster, of which one host is enough to begin with |
///
/// `valkey` and `valkeys` do as well for `redis` and `rediss`.
///
/// # Cost
///
/// | | round trips | commands |
/// |---|---|---|
/// | opening a session | 1 | `HGETALL` |
/// | a request that sets keys | 1 | `HSET`, `PEXPIRE`, `HGET` |
/// | a request that removes keys | 1 | the same and `HDEL`, in `MULTI` and `EXEC` |
/// | such a request, once per tenth of the session's lifetime | 2 | the same, then a script that moves the expiry time in Redis |
/// | creating, updating, clearing, renewing, touching, ending; setting a user | 1 | a script (`EVALSHA`); the one that ends a session also calls `PUBLISH` |
///
/// A write sends only what changed. Requests that overlap contend for nothing: Redis merges their
/// fields. An [`update`](crate::Session::update) is a compare-and-set of the keys it read, so
/// writes of other keys do not make it run again.
///
/// In a cluster, a session and its user's index (see [`UserIndex`]) are in two slots. A script then
/// takes one more round trip when the index changes, and two when the session becomes another
/// user's. A page of a user's sessions takes two to list and two to end (in a cluster three),
/// however many there are.
///
/// # Failures
///
/// The next call after a connection was lost makes another; while no server can be reached, calls
/// fail at once, and each tries again. A call whose connection broke is sent again. If it had been
/// done the first time:
///
/// - A plain write is done a second time, over what another request wrote to the same keys between
///   the two; if the session was renewed between the two, it is reported as dropped.
/// - A script is done once, unless another script came between the two: a record remembers the last
///   one. An update then finds a conflict and runs its closure again on the stored value.
///
/// # Setup
///
/// Sessions are worth keeping over a restart: set `appendonly yes`. With a `maxmemory`, set
/// `maxmemory-policy volatile-ttl` or give sessions a server of their own: `noeviction` fails every
/// log-in when memory is full, and `allkeys-lru` ends sessions before their time. A failover loses
/// what the replica had not received; `min-replicas-to-write 1` bounds that. An ACL user needs
/// `~session:* +@read +@write +@scripting +@transaction +@connection`, with `+cluster` in a cluster
/// and `+role` behind Sentinels. With `&session:ended +publish +subscribe`,
/// [`Session::ended`](crate::Session::ended) is told at once of what another process ends; without it,
/// sessions are polled.
///
/// Redis drops a session a minute and up to a tenth of its lifetime after it expired, by the
/// server's own clock. No clock of an application server is compared with it: a span is sent.
/// Application servers whose clocks differ by less than a minute lose no session early. Whether a
/// session has expired is decided by what is stored.
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
    /// If the url is malformed, and at once if no server answers. No error shows the url's password.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let store = Self::connect_lazy(url)?;
        store
            .link
            .connect()
            .await
            .map_err(|error| StoreError::failed(NAME, error))?;
        Ok(store)
    }

    /// Creates the store without connecting: the first session that is opened connects. For an
    /// application that may start before its Redis does.
    ///
    /// # Errors
    ///
    /// If the url is malformed.
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
        let source = Source::Cluster(Box::new(client), Vec::new());
        Self::new(Link::new(source, Hosts::own()))
    }

    /// Uses the application's own client of Sentinels, with a connection of its own.
    ///
    /// It must be one for the master (`SentinelServerType::Master`): a replica takes no writes, and
    /// opens sessions that were ended until it has received that.
    pub fn from_sentinel(client: SentinelClient) -> Self {
        let source = Source::Sentinel(Box::new(client.into()));
        Self::new(Link::new(source, Hosts::own()))
    }

    /// Sets the prefix of every key in Redis. Default: `session:`.
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
        self.link.send(Call::One(command)).await.map_err(failed)
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
        match self
            .link
            .send(Call::One(&call("EVALSHA", &script.hash)))
            .await
        {
            Err(Fault::Redis(error))
                if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) =>
            {
                self.send(&call("EVAL", script.text)).await
            }
            answer => answer.map_err(failed),
        }
    }

    /// Runs a script that changes the record under `id`.
    async fn change(
        &self,
        script: &Script,
        id: StoreId,
        args: impl Fn(&mut Cmd),
    ) -> Result<Changed, StoreError> {
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
        let part = |index| reply.get(index).and_then(text);
        Ok(Changed {
            applied,
            owner: part(1).filter(|owner| !owner.is_empty()).map(str::to_owned),
            kept: part(2)
                .and_then(|kept| kept.parse().ok())
                .map(Timestamp::from_millis),
        })
    }

    /// Runs a script that writes, with its arguments in the order in which `record.lua` takes them.
    async fn write(
        &self,
        script: &Script,
        id: StoreId,
        write: &Write,
        kind: &str,
        owner: Option<&str>,
    ) -> Result<Changed, StoreError> {
        let index = self.index_prefix();
        self.write_indexed(script, id, write, kind, owner, &index)
            .await
    }

    /// The same, where `index` is what the names of the indexes begin with; empty to leave them alone.
    async fn write_indexed(
        &self,
        script: &Script,
        id: StoreId,
        write: &Write,
        kind: &str,
        owner: Option<&str>,
        index: &str,
    ) -> Result<Changed, StoreError> {
        // By which a script recognizes a write that was sent again.
        let mut nonce = [0; 8];
        random::fill_nonce(&mut nonce);
        let nonce = format!("{:x}", u64::from_ne_bytes(nonce));
        let verifier = write.verifier.to_text();
        let new_verifier = write.new_verifier.map(Verifier::to_text);
        let from = generation(&verifier);
        let to = new_verifier.as_deref().map_or(from, generation);
        let keep = keep(write);
        let args = |command: &mut Cmd| {
            command.arg(index).arg(write.now.millis());
            command.arg(&verifier);
            command.arg(new_verifier.as_deref().unwrap_or_default());
            command.arg(&nonce);
            match write.if_version {
                Some(version) => command.arg(version),
                None => command.arg(""),
            };
            command.arg(write.expires.millis());
            command.arg(keep.millis()).arg(ttl(keep, write.now));
            command.arg(write.created.millis()).arg(kind);
            command.arg(owner.unwrap_or_default());
            command.arg(write.user.as_deref().unwrap_or_default());
            // How many of the arguments that follow are fields and values to set, and fields and
            // expected values; the others are fields to delete.
            let expected = write.if_version.map_or(&[][..], |_| &write.expected);
            command.arg(2 * write.set.len()).arg(2 * expected.len());
            for (key, value) in &write.set {
                command.arg(Marked(to, key)).arg(stored(value));
            }
            for (key, value) in expected {
                command.arg(Marked(from, key));
                command.arg(value.as_ref().map_or(Marked("", ""), stored));
            }
            for key in &write.remove {
                command.arg(Marked(from, key));
            }
        };
        self.change(script, id, args).await
    }

    /// Writes without a script: native commands in one round trip. They may meet a record that was
    /// destroyed or renewed, because none of them depends on what is stored; the fields are then not
    /// part of any record, and the last command says so. `None` if a script has to do it.
    ///
    /// Without a transaction, which costs as much as the commands in it, another client's command may
    /// come between them. The record is read last: if it still answers to this verifier, it did when the
    /// fields were set. If it was renewed in between, the renewal took the fields along, and the write is
    /// reported as dropped.
    async fn write_plainly(
        &self,
        id: StoreId,
        write: &Write,
    ) -> Result<Option<Applied>, StoreError> {
        let (key, verifier) = (self.key(id), write.verifier.to_text());
        let from = generation(&verifier);
        let mut set = redis::cmd("HSET");
        set.arg(&key).arg(Marked("e", from));
        set.arg(format!("{} {}", write.expires.millis(), write.now.millis()));
        for (key, value) in &write.set {
            set.arg(Marked(from, key)).arg(stored(value));
        }
        let mut all = Pipeline::with_capacity(4);
        all.add_command(set);
        if !write.remove.is_empty() {
            // A reader must not see one without the other.
            let delete = all.atomic().cmd("HDEL").arg(&key);
            for key in &write.remove {
                delete.arg(Marked(from, key));
            }
        }
        // Only for a hash that this makes, so that it does not stay if the process ends here.
        let lasts = ttl(write.expires, write.now);
        all.cmd("PEXPIRE").arg(&key).arg(lasts).arg("NX");
        all.cmd("HGET").arg(&key).arg("meta");
        let reply = match self.link.send(Call::All(&all)).await {
            Ok(Reply::Array(mut reply)) => reply.pop(),
            Ok(_) => return Err(no_answer()),
            Err(Fault::Unreachable(error)) => return Err(failed(Fault::Unreachable(error))),
            Err(Fault::Redis(error)) if link::is_lost(&error) || error.is_timeout() => {
                return Err(failed(Fault::Redis(error)));
            }
            // The slot moved, the server is a replica by now, memory is full, or it is older than
            // Redis 7. The script does what was not done, where that helps, and says what is wrong.
            Err(Fault::Redis(_)) => return Ok(None),
        };
        let meta = match &reply {
            Some(Reply::Nil) => None,
            Some(meta) => Some(text(meta).and_then(split_meta).ok_or_else(no_meta)?),
            None => return Err(no_answer()),
        };
        match meta {
            Some((answers_to, kept)) if answers_to == verifier => {
                if kept <= write.now {
                    return Ok(Some(Applied::Gone));
                }
                if kept < write.expires {
                    Box::pin(self.raise(id, write)).await?;
                }
                Ok(Some(Applied::Done))
            }
            _ => {
                let args = |command: &mut Cmd| {
                    command.arg(&verifier).arg(Marked("e", from));
                    for (key, _) in &write.set {
                        command.arg(Marked(from, key));
                    }
                };
                let _ = Box::pin(self.run(&LATE, &key, args)).await?;
                Ok(Some(Applied::Gone))
            }
        }
    }

    async fn create_by_script(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        let owner = write.user.as_deref().map(owner_of);
        let owner = owner.as_deref();
        self.index(owner, id, write.now, keep(write)).await?;
        let changed = self.write(&CREATE, id, write, "", owner).await?;
        Ok(changed.applied == Applied::Done)
    }

    async fn apply_by_script(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        let kind = match (write.clear, write.is_touch()) {
            (true, _) => "clear",
            (false, true) => "touch",
            (false, false) => "",
        };
        let owner = write.user.as_deref().map(owner_of);
        let owner = owner.as_deref();
        let told = keep(write);
        self.index(owner, id, write.now, told).await?;
        let changed = self.write(&APPLY, id, write, kind, owner).await?;
        let was = changed.owner.as_deref();
        match changed.applied {
            Applied::Done => {
                // It is found for as long as it is kept.
                if let Some(kept) = changed.kept.filter(|kept| owner.is_none() || *kept > told) {
                    self.index(owner.or(was), id, write.now, kept).await?;
                }
                if owner.is_some() && was != owner {
                    self.unindex(was, id).await?;
                }
            }
            // A record that was renewed may be theirs all the same.
            Applied::Gone if was != owner => self.unindex(owner, id).await?,
            Applied::Gone | Applied::Conflict => {}
        }
        Ok(changed.applied)
    }

    async fn destroy_by_script(&self, id: StoreId) -> Result<(), StoreError> {
        let args = |command: &mut Cmd| {
            command.arg(self.index_prefix()).arg(0);
            command.arg(self.channel());
        };
        let changed = self.change(&DESTROY, id, args).await?;
        self.unindex(changed.owner.as_deref(), id).await
    }

    /// Tells the server to keep a record for longer, before the plain write is acknowledged that
    /// made it necessary. What became of the record since does not matter.
    async fn raise(&self, id: StoreId, write: &Write) -> Result<(), StoreError> {
        let touch = Write::touch(write.verifier, write.created, write.now, write.expires);
        let changed = self.write(&APPLY, id, &touch, "raise", None).await?;
        match (changed.owner, changed.kept) {
            (Some(owner), Some(kept)) => self.index(Some(&owner), id, write.now, kept).await,
            _ => Ok(()),
        }
    }

    /// Adds `id` to the index of `owner`, in a cluster, until `kept`.
    async fn index(
        &self,
        owner: Option<&str>,
        id: StoreId,
        now: Timestamp,
        kept: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(owner) = owner.filter(|_| self.link.is_cluster()) else {
            return Ok(());
        };
        let args = |command: &mut Cmd| {
            command.arg(id.to_string()).arg(now.millis());
            command.arg(kept.millis());
        };
        let _ = self.run(&INDEX, &self.index_key(owner), args).await?;
        Ok(())
    }

    /// Removes `id` from the index of `owner`, in a cluster.
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

/// What became of a record that a script changed.
struct Changed {
    applied: Applied,
    /// Its owner before that.
    owner: Option<String>,
    /// Until when the server keeps it, if an index has to know.
    kept: Option<Timestamp>,
}

/// What the names of a record's fields begin with: 66 bits of the verifier.
fn generation(verifier: &str) -> &str {
    verifier.get(..GEN).unwrap_or_default()
}

/// Until when the server is told to keep a record: a tenth of its lifetime longer than it lives, so
/// that only a tenth of the writes to a busy session have to tell the server again.
fn keep(write: &Write) -> Timestamp {
    write.expires.plus(write.expires.since(write.now) / 10)
}

/// What the server is told, in milliseconds: a minute longer, so that what is stored decides.
fn ttl(keep: Timestamp, now: Timestamp) -> u64 {
    keep.since(now).as_millis().min(1 << 50) as u64 + 60_000
}

/// Whether `write` needs no script: it depends on nothing but whether the record is there.
fn is_plain(write: &Write) -> bool {
    let depends = write.clear
        || write.new_verifier.is_some()
        || write.user.is_some()
        || write.if_version.is_some();
    // What a plain write says of the end replaces what is stored, so the record must not be over.
    let is_live = write
        .seen_expires
        .is_some_and(|expires| write.now < expires);
    is_live && !depends && !write.is_touch()
}

fn stored(value: &Value) -> Marked<'_> {
    match value {
        Value::Text(text) => Marked("t", text),
        Value::Json(json) => Marked("j", json),
    }
}

/// A text with another one before it.
struct Marked<'a>(&'a str, &'a str);

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
script!(LATE, "redis/record.lua", "redis/late.lua");
script!(LIST, "redis/list.lua");
script!(RESERVE, "redis/record.lua", "redis/reserve.lua");
script!(SUMMARY, "redis/summary.lua");

impl Store for RedisStore {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn load(&self, id: StoreId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        let reply = self.send(redis::cmd("HGETALL").arg(self.key(id))).await?;
        let record = read(&reply)?;
        Ok(record.filter(|record| now < record.expires))
    }

    // What is not called by every request is on the heap: the futures around a call have room for each.

    async fn create(&self, id: StoreId, write: &Write) -> Result<bool, StoreError> {
        Box::pin(self.create_by_script(id, write)).await
    }

    async fn apply(&self, id: StoreId, write: &Write) -> Result<Applied, StoreError> {
        if is_plain(write)
            && let Some(applied) = Box::pin(self.write_plainly(id, write)).await?
        {
            return Ok(applied);
        }
        Box::pin(self.apply_by_script(id, write)).await
    }

    async fn destroy(&self, id: StoreId) -> Result<(), StoreError> {
        Box::pin(self.destroy_by_script(id)).await
    }

    fn users(&self) -> Option<&dyn UserIndex> {
        Some(self)
    }

    async fn watch_ended(&self, endings: &Endings) -> Result<(), StoreError> {
        self.follow(endings).await
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
    let named = |name: &str| {
        let mut found = fields.iter().filter(|(field, _)| is(field, name));
        found.next().map(|(_, value)| *value)
    };
    // Without it, the fields are a late write to a record that was destroyed.
    let Some(meta) = named("meta") else {
        return Ok(None);
    };
    let (verifier, kept) = text(meta).and_then(split_meta).ok_or_else(no_meta)?;
    let from = generation(verifier);
    let (mut head, mut user, mut seen) = (None, None, None);
    let mut entries = Vec::with_capacity(fields.len());
    for (field, value) in &fields {
        let (Some(field), Some(value)) = (text(field), text(value)) else {
            return Err(corrupt("a field of the hash is no text"));
        };
        // Other fields are a late write's under a former verifier, or those of a later version.
        match field {
            "head" => head = Some(value),
            "user" => user = Some(value),
            _ if field.strip_prefix('e') == Some(from) => seen = Some(value),
            _ => {
                let Some(key) = field.strip_prefix(from) else {
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
    let record = assemble(verifier, kept, head, seen, Entries::from_iter(entries));
    let mut record = record.ok_or_else(no_meta)?;
    record.user = user.map(Arc::from);
    Ok(Some(record))
}

fn is(field: &Reply, name: &str) -> bool {
    matches!(field, Reply::BulkString(bytes) if bytes == name.as_bytes())
}

/// The verifier, and until when the server keeps the record.
fn split_meta(meta: &str) -> Option<(&str, Timestamp)> {
    let (verifier, kept) = meta.split_once(' ')?;
    // `generation` takes a part of it, so it must be a whole verifier.
    Verifier::parse(verifier)?;
    Some((verifier, Timestamp::from_millis(kept.parse().ok()?)))
}

/// What `record.lua` describes.
fn assemble(
    verifier: &str,
    kept: Timestamp,
    head: Option<&str>,
    seen: Option<&str>,
    entries: Entries,
) -> Option<Record> {
    let (head, seen) = (head?, seen?);
    let mut head = head.split(' ');
    let version = head.next()?.parse().ok()?;
    let created = Timestamp::from_millis(head.next()?.parse().ok()?);
    let (expires, last_seen) = seen.split_once(' ')?;
    // The server was told this end, whatever a plain write says whose author ended before it told
    // the server another one.
    let expires = Timestamp::from_millis(expires.parse().ok()?).min(kept);
    let mut record = Record::new(created, expires, entries);
    record.last_seen = Timestamp::from_millis(last_seen.parse().ok()?);
    record.version = version;
    record.verifier = Verifier::parse(verifier)?;
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Each request moves such a future to the heap, and each caller on the way keeps room for it.
    #[test]
    fn the_future_of_a_call_is_small() {
        let store = RedisStore::connect_lazy("redis://127.0.0.1:1").unwrap();
        let (id, now) = (StoreId::from_bytes([0; 32]), Timestamp::from_millis(0));
        let verifier = Verifier::from_bytes([0; 32]);
        let write = Write::touch(verifier, now, now, now.plus(Duration::from_secs(1)));
        let sizes = [
            ("load", size_of_val(&store.load(id, now))),
            ("create", size_of_val(&store.create(id, &write))),
            ("apply", size_of_val(&store.apply(id, &write))),
            ("destroy", size_of_val(&store.destroy(id))),
        ];
        for (call, size) in sizes {
            assert!(size <= 256, "{call} of {sizes:?}");
        }
    }
}
