//! Sessions in a store; the cookie holds a random id.

mod ended;
mod migration;

use std::{
    fmt,
    future::poll_fn,
    hash::{BuildHasher, Hasher, RandomState},
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use hmac::Hmac;
use sha2::Sha256;
use tokio::sync::{Mutex, MutexGuard};

use self::ended::Awaited;

#[cfg(feature = "tracing")]
use crate::observer::timed::span;
use crate::{
    backend::{
        Backend, Commit, CommitOutcome, Exchange, Exchanged, Observers, OpenOutcome, OpenRequest,
        Refused, Size,
        migration::Migration,
        session_id::{IdCookie, SessionId, id_key, named, stored},
    },
    changes::{
        Update, View,
        write::{Applied, Write},
    },
    error::Error,
    expiry::{Expiry, Lifetime, Timestamp},
    future::{BackendFuture, at_once},
    key::Key,
    log::log,
    observer::{
        CallOutcome, Event, Names, Operation,
        timed::{Held, Timed, Told, is_traced},
    },
    record::{
        Record,
        id::{StoreId, Verifier},
    },
    settings::Settings,
    store::{
        Page, Reservation, SessionSummary, Store, StoreError, UserIndex, UserLimit,
        limit::{limited, within},
    },
    value::Value,
};

/// For how long a request under an id that a renewal replaced sends no cookie: it was under way
/// when the login's answer came, and must not replace the login's cookie.
const RENEWED: Duration = Duration::from_secs(60);

/// How often a write may find that another one was faster. From the second time on it waits for up
/// to [`LONGEST_PAUSE`], so that this is half a second.
const CONFLICTS: u32 = 32;

const LONGEST_PAUSE: u64 = 32;

/// How many sessions that are contended at once wait each for its own writes alone, as a rule.
const TURNS: usize = 64;

/// How often a record that is destroyed may be there again.
const BURIALS: usize = 100;

/// Keeps each session in a store; its cookie holds nothing but a random id of 48 bytes: 16 that
/// name the session, and a secret of 32 bytes that every renewal replaces.
///
/// What it promises over every [`Store`]:
///
/// - No update is lost: requests that overlap merge key by key, of two that write one key the last
///   wins, and [`update`](crate::Session::update) counts every one.
/// - Logging out wins every race: after [`destroy`](crate::Session::destroy) no cookie, old or new,
///   opens the session again, whatever was in flight: a write, a touch or a renewal
///   (CVE-2025-46336).
/// - An id that it did not make is never adopted (session fixation, CVE-2022-25896), and the store
///   sees only the SHA-256 of each part of one.
/// - A request without a cookie that writes nothing asks the store nothing, and one that does not use
///   its session asks nothing of a store that [answers at once](Store::answers_at_once). Else one
///   round trip opens the session, and one commits it if something changed.
/// - Every call of the store has a time limit.
/// - With [`signed_with`](Self::signed_with), a made-up cookie does not reach the store.
///
/// `TowerStore` keeps the first two in one process; what it keeps in several is in its
/// documentation.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use session_manager::{Manager, MemoryStore, ServerSide};
///
/// let manager = Manager::new(ServerSide::new(MemoryStore::new()));
/// assert_eq!(manager.backend_name(), "memory");
/// # }
/// ```
pub struct ServerSide<S> {
    store: S,
    time_limit: Duration,
    max_size: usize,
    /// The key that signs ids; without it, ids have no signature.
    signer: Option<Hmac<Sha256>>,
    /// What signed them before.
    accepted: Vec<Hmac<Sha256>>,
    unsigned_until: Timestamp,
    /// A session's writes that met another one wait here for each other: of N that overlap each
    /// would else meet all that are faster, which takes N²/2 calls of the store.
    turns: [Mutex<()>; TURNS],
    poll_ended_every: Duration,
    awaited: Awaited,
    /// Set by the manager that this backend belongs to, if it has any.
    observers: OnceLock<Observers>,
}

impl<S: Store> ServerSide<S> {
    /// How large a session may be unless [`max_size`](Self::max_size) says otherwise, in bytes: 1
    /// MiB.
    pub const DEFAULT_MAX_SIZE: usize = 1 << 20;

    /// Keeps sessions in `store`.
    pub fn new(store: S) -> Self {
        Self {
            store,
            time_limit: Duration::from_secs(2),
            max_size: Self::DEFAULT_MAX_SIZE,
            signer: None,
            accepted: Vec::new(),
            unsigned_until: Timestamp::from_millis(0),
            turns: [const { Mutex::const_new(()) }; TURNS],
            poll_ended_every: ended::INTERVAL,
            awaited: Awaited::default(),
            observers: OnceLock::new(),
        }
    }

    /// Sets how long one call of the store may take. Default: 2 seconds.
    ///
    /// After it the request fails as [`on_store_error`](crate::Builder::on_store_error) says.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Sets how large a session may be, in bytes: all keys, and all values as they are stored, text
    /// or JSON in UTF-8. Default: [`DEFAULT_MAX_SIZE`](Self::DEFAULT_MAX_SIZE).
    ///
    /// A write that would go over it is [`Error::TooLarge`] where it is made, and the session is as
    /// it was. Requests that overlap each see the session as it was when they came, so that
    /// together they may go over it; what writes next is told then. A session that was larger
    /// before stays readable.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use session_manager::{MemoryStore, ServerSide};
    ///
    /// let backend = ServerSide::new(MemoryStore::new()).max_size(64 * 1024);
    /// # }
    /// ```
    #[must_use]
    pub fn max_size(mut self, bytes: usize) -> Self {
        self.max_size = bytes;
        self
    }

    /// Signs ids, and asks the store for none whose signature is not right: thousands of requests
    /// with made-up cookies are then answered without it, each for one HMAC per key.
    ///
    /// The id is as hard to guess without a signature; what this keeps off is the load. The
    /// signature is HMAC-SHA-256, cut to 128 bits, over the cookie's name and the id, and is
    /// compared in constant time. The cookie's value grows from 64 to 86 characters.
    ///
    /// # On a running site
    ///
    /// Clients with a session have a cookie without a signature, which
    /// [`accept_unsigned_until`](Self::accept_unsigned_until) lets in for a while. A backend
    /// without a key opens signed cookies too, so that while servers are updated one by one, and
    /// if all processes go back, no user is logged out.
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use session_manager::{Key, Manager, MemoryStore, ServerSide, Timestamp};
    ///
    /// # let key = Key::generate();
    /// // Signing began on 1 January 2027; sessions last 7 days.
    /// let last = Timestamp::from_millis(1_799_366_400_000); // `date -ud 2027-01-08 +%s000`
    /// let backend = ServerSide::new(MemoryStore::new()).signed_with(key).accept_unsigned_until(last);
    /// let manager = Manager::new(backend);
    /// # }
    /// ```
    #[must_use]
    pub fn signed_with(mut self, key: Key) -> Self {
        self.signer = Some(id_key(&key));
        self
    }

    /// Accepts also ids that `old` signed, where [`signed_with`](Self::signed_with) says who signs
    /// now. Such a cookie is signed again when its session is next written or touched, so `old` may
    /// go when the sessions of its time are over
    /// ([`absolute_timeout`](crate::Builder::absolute_timeout)).
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use session_manager::{Key, MemoryStore, ServerSide};
    ///
    /// # let (new, old) = (Key::generate(), Key::generate());
    /// let backend = ServerSide::new(MemoryStore::new()).signed_with(new).accept(old);
    /// # }
    /// ```
    #[must_use]
    pub fn accept(mut self, old: Key) -> Self {
        self.accepted.push(id_key(&old));
        self
    }

    /// Accepts ids without a signature until `last`, for a site that begins to sign. Their cookies
    /// are signed when their session is next written or touched.
    ///
    /// Until then a made-up cookie costs one store call, as it did before. The moment
    /// is one that you write down: the day on which the last server began to sign, and the
    /// [`absolute_timeout`](crate::Builder::absolute_timeout) more, when every session without a
    /// signature is over. One counted from the start of the process would restart with each.
    #[must_use]
    pub fn accept_unsigned_until(mut self, last: Timestamp) -> Self {
        self.unsigned_until = last;
        self
    }

    /// Sets how often a session is loaded while a task awaits [`Session::ended`], if the store does
    /// not report ends. Default: 5 seconds. While it does report them, a session is loaded once per
    /// twelve times this interval, and when it should expire.
    ///
    /// [`Session::ended`]: crate::Session::ended
    ///
    /// ```
    /// # #[cfg(feature = "memory")] {
    /// use std::time::Duration;
    /// use session_manager::{MemoryStore, ServerSide};
    ///
    /// let backend = ServerSide::new(MemoryStore::new()).poll_ended_every(Duration::from_secs(1));
    /// # }
    /// ```
    #[must_use]
    pub fn poll_ended_every(mut self, interval: Duration) -> Self {
        self.poll_ended_every = interval;
        self
    }

    /// Returns the id in a cookie, if the store may be asked for it.
    fn accepted(&self, token: &str, settings: &Settings) -> Result<SessionId, Refused> {
        let (id, tag) = SessionId::parse(token).ok_or(Refused::Malformed)?;
        let Some(signer) = &self.signer else {
            return Ok(id);
        };
        let is_accepted = match tag {
            Some(tag) => std::iter::once(signer)
                .chain(&self.accepted)
                .any(|key| id.is_signed(named(key, settings), &tag)),
            None => settings.now() < self.unsigned_until,
        };
        is_accepted.then_some(id).ok_or(Refused::Forged)
    }

    fn cookie(&self, settings: &Settings) -> IdCookie {
        IdCookie {
            signer: self.signer.as_ref().map(|key| named(key, settings)),
            name: settings.cookie().name_hash(),
        }
    }

    /// Opens the record of an id.
    fn open_id(
        self: Arc<Self>,
        id: SessionId,
        settings: &Settings,
    ) -> impl Future<Output = Result<OpenOutcome, Error>> + Send + use<S> {
        let at = stored(&id, settings);
        let (now, expiry) = (settings.now(), *settings.expiry());
        async move {
            let loading = self.limited(Operation::Load, at, self.store.load(at, now));
            let record = match loading.await {
                Ok(record) => record,
                // Nothing is written under an id that opened nothing, so an operator finds what is
                // stored as it is.
                Err(error @ StoreError::Corrupt { .. }) => {
                    log!(
                        ERROR,
                        "{error}; the session is empty, and what is stored is left alone"
                    );
                    return Ok(OpenOutcome::Refused(Refused::Corrupt));
                }
                Err(error) => return Err(error.into()),
            };
            Ok(opened(&id, record, expiry, now))
        }
    }

    /// Returns `true` if the store may be called while the session is locked: it answers at once, and
    /// the call is shown to no observer and no span, which may use the session.
    fn may_call_now(&self) -> bool {
        self.store.answers_at_once() && self.observers.get().is_none() && !is_traced()
    }

    /// Returns the id that a request names, if it names one.
    fn asked_for(&self, request: OpenRequest<'_>) -> Result<Option<SessionId>, Refused> {
        let token = request.token;
        token
            .map(|token| self.accepted(token, request.settings))
            .transpose()
    }

    /// Takes from a commit what [`keep`](Self::keep) needs.
    fn keeping(&self, commit: &Commit<'_>) -> Keeping {
        let (changes, settings) = (commit.changes, commit.settings);
        // An id that opened nothing is never written under.
        let found = commit.stored.and(commit.token).and_then(SessionId::parse);
        let cookie = self.cookie(settings);
        let is_signed = |(id, tag): &(SessionId, Option<_>)| match (&cookie.signer, tag) {
            (Some(signer), Some(tag)) => id.is_signed(signer.clone(), tag),
            (signer, _) => signer.is_none(),
        };
        let drawn = commit.drawn_token().and_then(SessionId::parse);
        let (write, updates) = commit.to_write();
        // A client that was told when the session ends is told again when that moves; one whose
        // cookie another key signed, or an older manager set, gets today's.
        let repeats = commit.resend
            || !found.as_ref().is_none_or(is_signed)
            || changes.entry(Lifetime::KEY).is_some()
            || commit.is_persistent()
                && commit.stored.is_some_and(|stored| {
                    let expiry = settings.expiry_of(&stored.entries);
                    expiry.touch_due(stored.created, stored.expires, commit.now)
                });
        Keeping {
            id: found.map(|(id, _)| id),
            drawn: drawn.map(|(id, _)| id),
            has_cookie: commit.token.is_some(),
            cookie,
            write,
            updates,
            destroyed: changes.is_destroyed(),
            renewed: changes.is_renewed(),
            repeats,
        }
    }

    async fn keep(&self, keeping: Keeping) -> Result<CommitOutcome, Error> {
        let Keeping {
            id,
            drawn,
            has_cookie,
            cookie,
            mut write,
            updates,
            destroyed,
            renewed,
            repeats,
        } = keeping;
        let id = match id {
            Some(id) if destroyed => {
                let id = cookie.stored(&id);
                self.limited(Operation::Destroy, id, self.store.destroy(id))
                    .await?;
                self.awaited.tell(id);
                None
            }
            id => id,
        };
        let Some(id) = id else {
            return match write.begins_a_session() {
                true => self.create(write, drawn, &cookie).await,
                false if destroyed && has_cookie => Ok(CommitOutcome::Remove),
                false => Ok(CommitOutcome::Keep),
            };
        };
        let expires = write.expires;
        let new = renewed.then(|| id.renewed());
        write.verifier = id.verifier();
        write.new_verifier = new.as_ref().map(SessionId::verifier);
        match self.write(cookie.stored(&id), write, &updates).await? {
            Applied::Done if repeats => Ok(cookie.reply(&new.unwrap_or(id), expires)),
            Applied::Done => Ok(new.map_or(CommitOutcome::Keep, |new| cookie.reply(&new, expires))),
            _ => Ok(CommitOutcome::Gone),
        }
    }

    /// Waits for the store, but not forever.
    fn limited<'f, T>(
        &'f self,
        operation: Operation,
        of: impl Into<Of<'f>>,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> impl Future<Output = Result<T, StoreError>> {
        self.measured(operation, of.into(), call, None)
    }

    /// Waits as [`limited`](Self::limited) does. What observers are told waits for the end of the
    /// turn.
    fn limited_in_turn<T>(
        &self,
        contest: &mut Contest<'_>,
        operation: Operation,
        id: StoreId,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> impl Future<Output = Result<T, StoreError>> {
        let held = contest.turn.is_some().then_some(&mut contest.told.events);
        self.measured(operation, id.into(), call, held)
    }

    /// The only async function around the call, because each of them doubles the size of its future.
    async fn measured<T>(
        &self,
        operation: Operation,
        of: Of<'_>,
        call: impl Future<Output = Result<T, StoreError>>,
        held: Option<&mut Vec<Told>>,
    ) -> Result<T, StoreError> {
        let store = self.store.name();
        let mut timed = self
            .observers
            .get()
            .map(|observers| Timed::begin(observers, store, operation, || of.names(), held));
        #[cfg(feature = "tracing")]
        let span = span(store, operation);
        let mut call = pin!(call);
        let polling = poll_fn(|context| {
            #[cfg(feature = "tracing")]
            let _entered = span.enter();
            call.as_mut().poll(context)
        });
        let result = limited(store, self.time_limit, polling).await;
        #[cfg(feature = "tracing")]
        span.record("outcome", outcome(&result).as_str());
        if let Some(timed) = &mut timed {
            timed.outcome = outcome(&result);
        }
        result
    }

    fn contest(&self) -> Contest<'_> {
        Contest {
            lost: 0,
            turn: None,
            told: Held {
                observers: self.observers.get(),
                store: self.store.name(),
                events: Vec::new(),
            },
        }
    }

    /// Waits until a write that met another one should be tried again.
    ///
    /// The first time it waits for its turn among this process's writes. What is faster after that
    /// comes from another process, or the store's reads lag behind its writes.
    async fn lost<'s>(&'s self, contest: &mut Contest<'s>, id: StoreId) -> Result<(), Error> {
        contest.lost += 1;
        contest.told.push(Event::Conflict, || Of::from(id).names());
        if contest.lost == 1 {
            contest.told.tell();
            let turn = &self.turns[usize::from(id.as_bytes()[0]) % TURNS];
            contest.turn = within(self.time_limit, turn.lock()).await;
            return Ok(());
        }
        if contest.lost > CONFLICTS {
            return Err(Error::unavailable(Contended {
                store: self.store.name(),
            }));
        }
        // Chance keeps processes from meeting again; it needs no secrecy, so the standard library's
        // hash keys serve.
        let most = LONGEST_PAUSE.min(1 << contest.lost.min(31));
        let pause = 1 + RandomState::new().build_hasher().finish() % most;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        Ok(())
    }

    async fn create(
        &self,
        mut write: Write,
        drawn: Option<SessionId>,
        cookie: &IdCookie,
    ) -> Result<CommitOutcome, Error> {
        if let Some(id) = drawn {
            let stored = cookie.stored(&id);
            write.verifier = id.verifier();
            let creating = self.store.create(stored, &write);
            let created = self.limited(Operation::Create, stored, creating).await?;
            // An earlier commit of this request may have created it, whose answer was lost.
            if !created && self.write(stored, write.clone(), &[]).await? != Applied::Done {
                return Ok(gone());
            }
            return Ok(cookie.reply(&id, write.expires));
        }
        // A second try is for an accident that 128 random bits make all but impossible.
        for _ in 0..2 {
            let id = SessionId::generate();
            write.verifier = id.verifier();
            let stored = cookie.stored(&id);
            let creating = self.store.create(stored, &write);
            if self.limited(Operation::Create, stored, creating).await? {
                return Ok(cookie.reply(&id, write.expires));
            }
        }
        Err(Error::unavailable(StoreError::Corrupt {
            store: self.store.name(),
            why: "every new id is taken",
        }))
    }

    /// Merges a write into the record under `id`. What `updates` computed is computed again if
    /// another request was faster.
    async fn write(
        &self,
        id: StoreId,
        mut write: Write,
        updates: &[(Box<str>, Update)],
    ) -> Result<Applied, Error> {
        let mut contest = self.contest();
        loop {
            let applying = self.store.apply(id, &write);
            let applying = self.limited_in_turn(&mut contest, Operation::Apply, id, applying);
            let applied = applying.await?;
            if applied != Applied::Conflict {
                return Ok(applied);
            }
            self.lost(&mut contest, id).await?;
            let loading = self.store.load(id, write.now);
            let loading = self.limited_in_turn(&mut contest, Operation::Load, id, loading);
            let Some(record) = loading.await? else {
                return Ok(Applied::Gone);
            };
            record.entries.recompute(updates, &mut write)?;
            write.if_version = Some(record.version);
        }
    }
}

impl<S: Store> Backend for ServerSide<S> {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    fn needs_response(&self) -> bool {
        false
    }

    fn opens_at_once(&self) -> bool {
        self.store.answers_at_once()
    }

    fn size(&self, session: View<'_>, _: &Settings) -> Option<Size> {
        Some(Size {
            used: session.bytes(),
            limit: self.max_size,
        })
    }

    fn open(
        self: Arc<Self>,
        request: OpenRequest<'_>,
    ) -> BackendFuture<'static, Result<OpenOutcome, Error>> {
        match self.asked_for(request) {
            Ok(Some(id)) => BackendFuture::pending(self.open_id(id, request.settings)),
            Ok(None) => BackendFuture::ready(Ok(OpenOutcome::Nothing)),
            Err(why) => BackendFuture::ready(Ok(OpenOutcome::Refused(why))),
        }
    }

    fn open_now(&self, request: OpenRequest<'_>) -> Option<Result<OpenOutcome, Error>> {
        let (id, settings) = match self.asked_for(request) {
            Ok(Some(id)) => (id, request.settings),
            Ok(None) => return Some(Ok(OpenOutcome::Nothing)),
            Err(why) => return Some(Ok(OpenOutcome::Refused(why))),
        };
        if !self.may_call_now() {
            return None;
        }
        let now = settings.now();
        let loading = self.store.load(stored(&id, settings), now);
        // After an error `open` asks again, which may log and wait.
        let record = at_once(loading)?.ok()?;
        Some(Ok(opened(&id, record, *settings.expiry(), now)))
    }

    fn commit(
        self: Arc<Self>,
        commit: Commit<'_>,
    ) -> BackendFuture<'static, Result<CommitOutcome, Error>> {
        let keeping = self.keeping(&commit);
        BackendFuture::pending(async move {
            Ok(match self.keep(keeping).await? {
                CommitOutcome::Gone => gone(),
                reply => reply,
            })
        })
    }

    fn commit_now(&self, commit: &Commit<'_>) -> Option<Result<CommitOutcome, Error>> {
        // A log-out wakes tasks.
        if !self.may_call_now() || commit.changes.is_destroyed() {
            return None;
        }
        let keeping = self.keeping(commit);
        // To compute an update again may use the session, which is locked.
        if !keeping.updates.is_empty() {
            return None;
        }
        // Of a session that is gone `commit` finds the same, and logs it.
        at_once(self.keep(keeping)).filter(|kept| !matches!(kept, Ok(CommitOutcome::Gone)))
    }

    fn exchange(
        self: Arc<Self>,
        exchange: Exchange<'_>,
    ) -> BackendFuture<'static, Result<Exchanged, Error>> {
        let settings = exchange.settings;
        let Some((id, _)) = exchange.token.and_then(SessionId::parse) else {
            return BackendFuture::ready(Ok(Exchanged::Gone));
        };
        let at = stored(&id, settings);
        let (now, expiry) = (exchange.now, *settings.expiry());
        let (key, compute) = (Box::<str>::from(exchange.key), exchange.compute);
        BackendFuture::pending(async move {
            let mut contest = self.contest();
            loop {
                let loading = self.store.load(at, now);
                let loading = self.limited_in_turn(&mut contest, Operation::Load, at, loading);
                let found = loading.await?;
                let found = found.filter(|record| {
                    let expiry = expiry.of(&record.entries);
                    id.matches(record.verifier)
                        && !expiry.is_over(record.created, record.expires, now)
                });
                let Some(mut record) = found else {
                    return Ok(Exchanged::Gone);
                };
                // The session's end does not move, because no response tells the client.
                let mut write = Write::touch(id.verifier(), record.created, now, record.expires);
                write.if_version = Some(record.version);
                let stored = record.entries.get(&key);
                write.expected = vec![(key.clone(), stored.map(Value::into_owned))];
                match compute(stored)? {
                    Some(value) => {
                        let old = stored.map_or(0, |old| key.len() + old.as_str().len());
                        let new = key.len() + value.as_str().len();
                        let size = record.entries.bytes() + new - old;
                        if size > self.max_size && new > old {
                            return Err(Error::TooLarge {
                                size,
                                limit: self.max_size,
                                key: Some(String::from(&*key)),
                            });
                        }
                        write.set.push((key.clone(), value));
                    }
                    None if stored.is_some() => write.remove.push(key.clone()),
                    None => return Ok(Exchanged::Done(record)),
                }
                let applying = self.store.apply(at, &write);
                let applying = self.limited_in_turn(&mut contest, Operation::Apply, at, applying);
                match applying.await? {
                    Applied::Done => {
                        record.merge(&write);
                        return Ok(Exchanged::Done(record));
                    }
                    Applied::Gone => return Ok(Exchanged::Gone),
                    Applied::Conflict => self.lost(&mut contest, at).await?,
                }
            }
        })
    }

    fn migration(self: Arc<Self>) -> Option<Arc<dyn Migration>> {
        Some(self)
    }

    fn observe(&self, observers: &Observers) {
        // The first ones stay: those of the manager that this backend was made for.
        let _ = self.observers.set(observers.clone());
    }

    fn draw_token(&self) -> Option<String> {
        Some(SessionId::generate().text())
    }

    fn handle(&self, token: &str, settings: &Settings) -> Option<StoreId> {
        let (id, _) = SessionId::parse(token)?;
        Some(stored(&id, settings))
    }

    fn ended(
        self: Arc<Self>,
        id: StoreId,
        settings: &Settings,
    ) -> Option<BackendFuture<'static, Result<(), Error>>> {
        let settings = settings.clone();
        Some(BackendFuture::pending(self.until_ended(id, settings)))
    }

    fn users(&self) -> Option<&dyn UserIndex> {
        self.store.users().map(|_| self as &dyn UserIndex)
    }
}

/// The store's own, with a time limit for each call; empty where the store has none.
impl<S: Store> UserIndex for ServerSide<S> {
    fn sessions_of<'a>(
        &'a self,
        user: &'a str,
        from: &'a [u8],
        now: Timestamp,
    ) -> BackendFuture<'a, Result<Page<SessionSummary>, StoreError>> {
        match self.store.users() {
            Some(index) => {
                let listing = index.sessions_of(user, from, now);
                BackendFuture::pending(self.limited(Operation::SessionsOf, user, listing))
            }
            None => BackendFuture::ready(Ok(Page::default())),
        }
    }

    fn ids_of<'a>(
        &'a self,
        user: &'a str,
        from: &'a [u8],
    ) -> BackendFuture<'a, Result<Page<StoreId>, StoreError>> {
        match self.store.users() {
            Some(index) => {
                let listing = index.ids_of(user, from);
                BackendFuture::pending(self.limited(Operation::IdsOf, user, listing))
            }
            None => BackendFuture::ready(Ok(Page::default())),
        }
    }

    fn destroy_of<'a>(
        &'a self,
        user: &'a str,
        ids: &'a [StoreId],
    ) -> BackendFuture<'a, Result<usize, StoreError>> {
        match self.store.users() {
            Some(index) => BackendFuture::pending(async move {
                let destroying = index.destroy_of(user, ids);
                let count = self.limited(Operation::DestroyOf, user, destroying).await?;
                ids.iter().for_each(|id| self.awaited.tell(*id));
                Ok(count)
            }),
            None => BackendFuture::ready(Ok(0)),
        }
    }

    fn limit(&self) -> Option<&dyn UserLimit> {
        self.store.users()?.limit().map(|_| self as &dyn UserLimit)
    }
}

impl<S: Store> UserLimit for ServerSide<S> {
    fn reserve<'a>(
        &'a self,
        user: &'a str,
        place: &'a Reservation,
    ) -> BackendFuture<'a, Result<bool, StoreError>> {
        match self.store.users().and_then(UserIndex::limit) {
            Some(limit) => {
                let reserving = limit.reserve(user, place);
                BackendFuture::pending(self.limited(Operation::Reserve, user, reserving))
            }
            None => BackendFuture::ready(Ok(false)),
        }
    }
}

impl<S: Store> fmt::Debug for ServerSide<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSide")
            .field("store", &self.store.name())
            .field("time_limit", &self.time_limit)
            .finish()
    }
}

/// What is left of a [`Commit`] to be done in the store.
struct Keeping {
    /// The session that is there.
    id: Option<SessionId>,
    /// The id that a new session was given before its commit.
    drawn: Option<SessionId>,
    has_cookie: bool,
    cookie: IdCookie,
    write: Write,
    updates: Vec<(Box<str>, Update)>,
    destroyed: bool,
    renewed: bool,
    /// Whether the client is told its cookie again.
    repeats: bool,
}

/// Returns what a request opens under `id`.
fn opened(id: &SessionId, record: Option<Record>, expiry: Expiry, now: Timestamp) -> OpenOutcome {
    let is_live = |record: &Record| {
        let expiry = expiry.of(&record.entries);
        !expiry.is_over(record.created, record.expires, now)
    };
    match record {
        // A tombstone has no age, so that its absolute time is not over.
        Some(record) if record.verifier != Verifier::NONE && !is_live(&record) => {
            OpenOutcome::Nothing
        }
        Some(record) if id.matches(record.verifier) => OpenOutcome::Loaded(record),
        Some(record) if now.since(record.created) < RENEWED => OpenOutcome::Renewed,
        Some(_) => OpenOutcome::Ended,
        None => OpenOutcome::Nothing,
    }
}

/// A write that others may be faster than.
struct Contest<'s> {
    /// How often one was.
    lost: u32,
    turn: Option<MutexGuard<'s, ()>>,
    /// Behind the turn, because fields are dropped in their order: a slow observer keeps no other
    /// write waiting.
    told: Held<'s>,
}

/// What a call of the store is about.
#[derive(Clone, Copy)]
enum Of<'a> {
    Record(StoreId),
    User(&'a str),
}

impl From<StoreId> for Of<'_> {
    fn from(id: StoreId) -> Self {
        Self::Record(id)
    }
}

impl<'a> From<&'a str> for Of<'a> {
    fn from(user: &'a str) -> Self {
        Self::User(user)
    }
}

impl Of<'_> {
    fn names(self) -> Names {
        match self {
            Self::Record(id) => Names {
                handle: Some(id.to_string()),
                user: None,
            },
            Self::User(user) => Names {
                handle: None,
                user: Some(user.to_owned()),
            },
        }
    }
}

fn outcome<T>(result: &Result<T, StoreError>) -> CallOutcome {
    match result {
        Ok(_) => CallOutcome::Done,
        Err(error) => error.outcome(),
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "{store} says each time that another write of the session was faster: too many requests compute \
     one value at once, or its reads lag behind its writes, as those of a replica do; read from the \
     primary"
)]
struct Contended {
    store: &'static str,
}

/// Returns the outcome for a request whose session ended or was renewed meanwhile.
fn gone() -> CommitOutcome {
    log!(
        WARN,
        "a session ended or was renewed while one of its requests was served; what that request \
         wrote is dropped"
    );
    CommitOutcome::Gone
}
