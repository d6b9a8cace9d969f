//! Sessions whose end is awaited: one task per backend loads them, when the store reports an end and
//! at an interval.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::{pending, poll_fn},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::ServerSide;
use crate::{
    error::Error,
    expiry::Timestamp,
    log::log,
    observer::Operation,
    record::{
        Record,
        id::{StoreId, Verifier},
    },
    settings::Settings,
    store::{
        Store,
        endings::{Endings, Heard, Tag, tag_of},
    },
};

/// How often an awaited session is loaded if the store reports nothing, unless
/// [`ServerSide::poll_ended_every`] says otherwise.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// The shortest interval, so that no setting makes a busy loop.
const SHORTEST: Duration = Duration::from_millis(10);
/// How many intervals are between two loads while the store reports ends.
const REPORTED: u32 = 12;
/// How long after a subscription broke another one is made.
const RETRY: Duration = Duration::from_secs(1);
/// How many sessions are loaded at once, so that requests find a connection to the store.
const LOADS: usize = 4;

/// The sessions whose end is awaited.
#[derive(Default)]
pub(super) struct Awaited {
    all: Mutex<All>,
    endings: Endings,
    /// Whether there are any, for requests that end a session.
    any: AtomicBool,
}

#[derive(Default)]
struct All {
    sessions: BTreeMap<StoreId, One>,
    /// When to load which session.
    due: BTreeSet<(Instant, StoreId)>,
    /// Whether a task loads them.
    is_served: bool,
}

struct One {
    /// Tells all that await the session whether it has ended.
    told: watch::Sender<bool>,
    settings: Settings,
    /// When it is loaded next; `None` while it is loaded.
    due: Option<Instant>,
    /// Whether it has to be loaded again, because an end was reported while it was loaded.
    again: bool,
}

/// What a load shows.
enum Found {
    Ended,
    /// It lives for this long, unless it is used.
    Lives(Duration),
    /// The store did not answer.
    Unknown,
}

#[derive(Debug, thiserror::Error)]
#[error("`ended` was awaited outside of a tokio runtime: await it in a task of one")]
struct NoRuntime;

impl Awaited {
    /// Reports that this process ended the record under `id`.
    pub(super) fn tell(&self, id: StoreId) {
        if self.any.load(SeqCst) {
            self.endings.ended(id);
        }
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, id: StoreId, settings: Settings) -> watch::Receiver<bool> {
        let mut all = self.all();
        if let Some(one) = all.sessions.get(&id) {
            return one.told.subscribe();
        }
        let (told, receiver) = watch::channel(false);
        let one = One {
            told,
            settings,
            due: None,
            again: false,
        };
        all.sessions.insert(id, one);
        self.any.store(true, SeqCst);
        // It may have ended since its request opened it.
        all.load_at(id, Instant::now());
        drop(all);
        self.endings.wake();
        receiver
    }

    /// Forgets the session if it is awaited no longer.
    fn unregister(&self, id: StoreId) {
        let mut all = self.all();
        let is_awaited = |one: &One| one.told.receiver_count() > 0;
        if all.sessions.get(&id).is_some_and(|one| !is_awaited(one)) {
            all.remove(id);
            self.any.store(!all.sessions.is_empty(), SeqCst);
        }
    }

    /// Makes due what the store reported.
    fn hear(&self, heard: Heard) {
        let (mut all, now) = (self.all(), Instant::now());
        if heard.begins {
            all.load_all_at(now);
        }
        for tag in heard.tags {
            all.load_like(tag, now);
        }
    }

    /// Returns up to `room` sessions to load now.
    fn take_due(&self, room: usize) -> Vec<(StoreId, Settings)> {
        let (mut all, now) = (self.all(), Instant::now());
        let mut taken = Vec::new();
        while taken.len() < room
            && let Some(&(due, id)) = all.due.first()
            && due <= now
        {
            all.due.pop_first();
            if let Some(one) = all.sessions.get_mut(&id) {
                one.due = None;
                taken.push((id, one.settings.clone()));
            }
        }
        taken
    }

    fn next_due(&self) -> Option<Instant> {
        self.all().due.first().map(|(due, _)| *due)
    }

    /// Applies what a load of the session showed, and looks at it again within `interval`.
    fn found(&self, id: StoreId, found: Found, interval: Duration) {
        let mut all = self.all();
        let Some(one) = all.sessions.get_mut(&id) else {
            return;
        };
        let again = std::mem::replace(&mut one.again, false);
        let wait = match found {
            Found::Ended => {
                one.told.send_replace(true);
                all.remove(id);
                self.any.store(!all.sessions.is_empty(), SeqCst);
                return;
            }
            _ if again => Duration::ZERO,
            Found::Lives(left) => left.min(interval) + Duration::from_millis(1),
            Found::Unknown => interval.min(INTERVAL),
        };
        all.load_at(id, Instant::now() + wait);
    }
}

impl All {
    /// Loads the session at `when`, if not earlier.
    fn load_at(&mut self, id: StoreId, when: Instant) {
        let Some(one) = self.sessions.get_mut(&id) else {
            return;
        };
        if one.due.is_none_or(|due| when < due) {
            let due = one.due.replace(when);
            due.map(|due| self.due.remove(&(due, id)));
            self.due.insert((when, id));
        }
    }

    fn load_all_at(&mut self, when: Instant) {
        let ids: Vec<_> = self.sessions.keys().copied().collect();
        ids.into_iter().for_each(|id| self.load_soon(id, when));
    }

    /// Loads the sessions whose ids begin with `tag`: one, as a rule.
    fn load_like(&mut self, tag: Tag, when: Instant) {
        let mut first = [0; 32];
        first[..tag.len()].copy_from_slice(&tag);
        let like = self.sessions.range(StoreId::from_bytes(first)..);
        let like = like.take_while(|(id, _)| tag_of(**id) == tag);
        let ids: Vec<_> = like.map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.load_soon(id, when));
    }

    /// Loads the session now, or again if a load is under way: that one may have been too early.
    fn load_soon(&mut self, id: StoreId, when: Instant) {
        match self.sessions.get_mut(&id) {
            Some(one) if one.due.is_none() => one.again = true,
            _ => self.load_at(id, when),
        }
    }

    fn remove(&mut self, id: StoreId) {
        let one = self.sessions.remove(&id);
        if let Some(due) = one.and_then(|one| one.due) {
            self.due.remove(&(due, id));
        }
    }
}

/// Waits for the end of a session. Dropped, it leaves nothing behind.
struct Waiting<'a> {
    awaited: &'a Awaited,
    id: StoreId,
    told: Option<watch::Receiver<bool>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.told = None;
        self.awaited.unregister(self.id);
    }
}

/// The task that loads sessions. Its runtime may end before the process does: then another one
/// takes over.
struct Serving<S: Store> {
    backend: Arc<ServerSide<S>>,
    is_over: bool,
}

impl<S: Store> Drop for Serving<S> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        self.backend.awaited.endings.broken();
        let mut all = self.backend.awaited.all();
        all.is_served = false;
        all.load_all_again(Instant::now());
    }
}

impl All {
    /// Makes all sessions due whose loads were dropped, and wakes all that await them.
    fn load_all_again(&mut self, when: Instant) {
        let ids: Vec<_> = self.sessions.keys().copied().collect();
        for id in ids {
            self.load_at(id, when);
        }
        for one in self.sessions.values() {
            one.told.send_modify(|_| ());
        }
    }
}

impl<S: Store> ServerSide<S> {
    /// Waits until the record under `id` is gone or its time is over.
    pub(super) async fn until_ended(
        self: Arc<Self>,
        id: StoreId,
        settings: Settings,
    ) -> Result<(), Error> {
        let mut waiting = Waiting {
            awaited: &self.awaited,
            id,
            told: Some(self.awaited.register(id, settings)),
        };
        while let Some(told) = &mut waiting.told
            && !*told.borrow_and_update()
        {
            self.serve()?;
            // An error says that the sender was dropped, which happens after it said `true`.
            let _ = told.changed().await;
        }
        Ok(())
    }

    /// Starts the task that loads sessions, unless it runs.
    fn serve(self: &Arc<Self>) -> Result<(), Error> {
        let mut all = self.awaited.all();
        if !all.is_served {
            let runtime = Handle::try_current().map_err(|_| Error::unavailable(NoRuntime))?;
            all.is_served = true;
            let serving = Serving {
                backend: Arc::clone(self),
                is_over: false,
            };
            runtime.spawn(serving.run());
        }
        Ok(())
    }

    /// Takes the store's reports for as long as it is polled.
    async fn watch_store(&self) {
        let mut is_said = false;
        loop {
            let watched = self.store.watch_ended(&self.awaited.endings).await;
            let was_complete = self.awaited.endings.broken();
            let Err(error) = watched else {
                return pending().await;
            };
            if was_complete || !is_said {
                is_said = true;
                let error = Error::from(error);
                let why = crate::error::chain(&error);
                log!(
                    WARN,
                    "sessions that are awaited are polled, until the store reports their ends \
                     again: {why}"
                );
            }
            sleep(self.interval().min(RETRY)).await;
        }
    }

    fn interval(&self) -> Duration {
        self.poll_ended_every.max(SHORTEST)
    }

    /// Loads a session that is awaited.
    async fn look_at(&self, id: StoreId, settings: &Settings) -> Found {
        let loaded = self
            .limited(Operation::Load, id, self.store.load(id, settings.now()))
            .await;
        match loaded {
            Ok(Some(record)) => found(&record, settings),
            Ok(None) => Found::Ended,
            Err(_) => Found::Unknown,
        }
    }
}

/// A record that no secret opens is the mark of a log-out.
fn found(record: &Record, settings: &Settings) -> Found {
    let (now, expiry) = (settings.now(), settings.expiry_of(&record.entries));
    let is_over = expiry.is_over(record.created, record.expires, now);
    if record.verifier == Verifier::NONE || is_over {
        return Found::Ended;
    }
    let ends: Timestamp = record.expires.min(record.created.plus(expiry.absolute));
    Found::Lives(ends.since(now))
}

impl<S: Store> Serving<S> {
    async fn run(mut self) {
        let backend = Arc::clone(&self.backend);
        let awaited = &backend.awaited;
        let mut watching = pin!(backend.watch_store());
        let mut loads = JoinSet::new();
        let (mut is_complete, mut idle_since) = (false, None);
        loop {
            for (id, settings) in awaited.take_due(LOADS - loads.len()) {
                let backend = Arc::clone(&backend);
                loads.spawn(async move { (id, backend.look_at(id, &settings).await) });
            }
            // The subscription stays for an interval: a page that is loaded again awaits its session
            // again.
            let mut next = awaited.next_due().filter(|_| loads.len() < LOADS);
            if awaited.all().sessions.is_empty() {
                let since = *idle_since.get_or_insert_with(Instant::now);
                next = Some(since + backend.interval());
                let mut all = awaited.all();
                if since.elapsed() >= backend.interval() && all.sessions.is_empty() {
                    all.is_served = false;
                    self.is_over = true;
                    awaited.endings.broken();
                    return;
                }
            } else {
                idle_since = None;
            }
            let mut timer = pin!(async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => pending().await,
                }
            });
            poll_fn(|context| {
                let _ = watching.as_mut().poll(context);
                let mut is_awake = timer.as_mut().poll(context).is_ready();
                if let Poll::Ready(heard) = awaited.endings.poll(context) {
                    is_complete = heard.is_complete;
                    awaited.hear(heard);
                    is_awake = true;
                }
                while let Poll::Ready(Some(load)) = loads.poll_join_next(context) {
                    let interval = match is_complete {
                        true => REPORTED * backend.interval(),
                        false => backend.interval(),
                    };
                    match load {
                        Ok((id, found)) => awaited.found(id, found, interval),
                        // The store panicked.
                        Err(_) => awaited.all().load_all_again(Instant::now() + interval),
                    }
                    is_awake = true;
                }
                match is_awake {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
        }
    }
}
