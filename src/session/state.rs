//! The state of a session while its request is served, and its lock.

use std::{
    borrow::Cow,
    ops::{Deref, DerefMut},
    sync::{Arc, MutexGuard, PoisonError},
    task::Waker,
};

use super::{FLASH, OWN};
use crate::{
    backend::{
        CommitOutcome, Live, LiveSession, OpenOutcome, Refused, Size, Written,
        migration::{Migrating, Origin, Place},
    },
    changes::{Change, Changes, View},
    cookie::Tokens,
    error::Error,
    expiry::{Lifetime, Timestamp},
    log::log,
    manager::Manager,
    observer::{Event, Names},
    record::{Record, login},
    session::{Session, commit::Settled, told::Done},
    settings::Settings,
    value::Value,
};

pub(super) struct State {
    /// The values of the session cookies, as the request sent them.
    pub(super) tokens: Tokens,
    /// The manager's settings for the request's host, if they depend on it.
    pub(super) by_host: Option<Arc<Settings>>,
    pub(super) life: Life,
    /// The stored session; `None` if there is none, or none that shows.
    pub(super) record: Option<Record>,
    /// The place of the session, if `Builder::migrate_from` found it and this backend does not have
    /// it yet.
    pub(super) origin: Option<Origin>,
    /// The session, if other code reads and writes it too.
    pub(super) live: Option<Arc<dyn Live>>,
    /// What was done to a live session.
    pub(super) live_done: Done,
    pub(super) pending: Pending,
    pub(super) head: Head,
    /// When the last commit began.
    pub(super) committed: Timestamp,
    /// The changes of the last commit, until the next look applies them to `record`.
    pub(super) settled: Option<Arc<Settled>>,
    /// `Some` while a commit is in flight: the tasks that wait for its end.
    pub(super) in_flight: Option<Vec<Waker>>,
    /// Lines to log once the state is unlocked.
    pub(super) lines: Vec<Line>,
}

/// The place of a session's state, which is made when it is first needed: a request without a cookie
/// that does not use its session needs none (bench `overhead`, row "no cookie").
#[derive(Default)]
pub(super) struct Slot {
    state: Option<State>,
    /// Whether the head was sent before the state was made.
    sent: bool,
}

impl Slot {
    /// Returns where the session is in its life, if its state was made.
    pub(super) fn life(&self) -> Option<Life> {
        self.state.as_ref().map(|state| state.life)
    }

    /// Ends a request that needed no state; `false` if it did.
    pub(super) fn end(&mut self) -> bool {
        self.sent = true;
        self.state.is_none()
    }
}

/// Where a session is in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// The request head has not been parsed yet, and so the cookies are not known.
    Unread,
    /// The backend has not opened it yet.
    Unopened,
    /// It can be read and written, whether or not it is stored already.
    Open,
    /// A renewal replaced its id shortly before ([`OpenOutcome::Renewed`]): it reads as empty, and
    /// its changes are dropped.
    Renewed,
    /// The backend could not open it: it reads as empty and takes no writes.
    ReadOnly,
    /// This request ended it, and has begun none since.
    Removed,
    /// Another request ended or renewed it, or it expired: it is empty and takes no writes.
    Ended,
}

impl Life {
    pub(super) fn is_unopened(self) -> bool {
        matches!(self, Self::Unread | Self::Unopened)
    }
}

/// What waits to be committed.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) changes: Changes,
    /// How many bytes may be added before the session has to be measured again.
    pub(super) room: usize,
    /// The time in the key of the last flash message, and their number, once one was added.
    pub(super) flashes: Option<(u64, usize)>,
    /// Whether a log line says that flash messages were dropped.
    pub(super) said_dropped: bool,
}

/// What the response head carries.
pub(super) struct Head {
    /// Whether it was sent.
    pub(super) sent: bool,
    /// Whether the request went to a loopback host over plain http; asked in a debug build alone.
    pub(super) is_to_loopback: bool,
    /// Whether the session's cookie has a `Max-Age`.
    pub(super) persistent: bool,
    /// Whether the handler read or wrote the session, so that the response depends on the cookie.
    pub(super) looked: bool,
    /// Whether the client sent an older manager's cookie, and needs the one of this manager.
    pub(super) resend: bool,
    /// Whether a change came too late for it.
    pub(super) lost: bool,
    /// The outcome of the last commit, until the head carries it.
    pub(super) outcome: CommitOutcome,
}

impl State {
    fn new(sent: bool) -> Self {
        Self {
            tokens: Tokens::default(),
            by_host: None,
            life: Life::Unread,
            record: None,
            origin: None,
            live: None,
            live_done: Done::default(),
            pending: Pending::default(),
            head: Head {
                sent,
                is_to_loopback: false,
                persistent: false,
                looked: false,
                resend: false,
                lost: false,
                outcome: CommitOutcome::Keep,
            },
            committed: Timestamp::from_millis(0),
            settled: None,
            in_flight: None,
            lines: Vec::new(),
        }
    }

    /// Applies what the backend opened for the first time.
    pub(super) fn open(&mut self, opened: OpenOutcome, manager: &Manager) {
        match opened {
            OpenOutcome::Live(LiveSession(live)) => {
                self.life = Life::Open;
                self.record = live.read();
                self.live_done.had = self.record().is_some_and(|it| !it.entries.is_empty());
                self.live = Some(live);
            }
            opened => self.take(opened, manager),
        }
    }

    /// Replaces what is known by what the backend opened.
    pub(super) fn take(&mut self, opened: OpenOutcome, manager: &Manager) {
        let settings = manager.settings();
        self.origin = None;
        let record = match opened {
            OpenOutcome::Loaded(record) => Some(record),
            OpenOutcome::Migrating(Migrating { record, place }) => {
                match place {
                    Place::Here(token) => {
                        self.tokens.own = Some(token.0);
                        self.head.resend = true;
                    }
                    Place::Old(origin) => self.origin = Some(origin),
                }
                Some(record)
            }
            OpenOutcome::Refused(Refused::Corrupt) => None,
            OpenOutcome::Refused(why) => {
                self.warn(settings.refused(why));
                None
            }
            OpenOutcome::Renewed => {
                self.know(None);
                self.life = Life::Renewed;
                return;
            }
            OpenOutcome::Nothing | OpenOutcome::Ended | OpenOutcome::Live(_) => None,
        };
        self.know(record);
        self.life = Life::Open;
    }

    /// Wakes the next commit.
    pub(super) fn let_next(&mut self) {
        let waiting = self.in_flight.take();
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    /// Replaces the record by one that the backend has just read.
    pub(super) fn know(&mut self, record: Option<Record>) {
        self.replace(record);
        // Other requests may have written to it since the last look.
        self.pending.room = 0;
        self.pending.flashes = None;
    }

    /// Replaces what is known of the record. Updates that are still to be committed were computed
    /// from another one, so they must be computed again: no stored record has the version 0, and
    /// the commit finds a conflict.
    pub(super) fn replace(&mut self, mut record: Option<Record>) {
        if let Some(record) = &mut record
            && !self.pending.changes.is_empty()
        {
            record.version = 0;
        }
        self.record = record;
    }

    pub(super) fn warn(&mut self, text: impl Into<Cow<'static, str>>) {
        self.lines.push(Line::Warn(text.into()));
    }

    pub(super) fn error(&mut self, text: impl Into<Cow<'static, str>>) {
        self.lines.push(Line::Error(text.into()));
    }

    /// Applies the changes to a live session, if it can be reached.
    pub(super) fn write_through(&mut self) {
        let Some(live) = &self.live else { return };
        if self.head.sent || self.pending.changes.is_empty() {
            return;
        }
        match live.write(&self.pending.changes) {
            Written::Done => {}
            Written::Later => return,
            Written::Lost(text) => self.error(text),
        }
        self.live_done.add(&self.pending.changes);
        self.pending.changes = Changes::default();
        self.read_through();
    }

    /// Reads a live session again.
    pub(super) fn read_through(&mut self) {
        if let Some(record) = self.live.as_ref().and_then(|live| live.read()) {
            self.record = Some(record);
        }
    }

    pub(super) fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Returns the stored values that this request still sees.
    pub(super) fn visible(&self) -> Option<&crate::record::entries::Entries> {
        self.record()
            .map(|record| &record.entries)
            .filter(|_| !self.pending.changes.hide_stored())
    }

    pub(super) fn view(&self) -> View<'_> {
        self.pending
            .changes
            .over(self.record().map(|record| &record.entries))
    }

    pub(super) fn own_keys(&self) -> impl Iterator<Item = &str> {
        self.view()
            .iter()
            .map(|(key, _)| key)
            .filter(|key| !key.starts_with([FLASH, OWN]))
    }

    pub(super) fn flash_keys(&self) -> impl Iterator<Item = &str> {
        self.view()
            .iter()
            .map(|(key, _)| key)
            .filter(|key| key.starts_with(FLASH))
    }

    /// Removes all values but the session's lifetime, and in a cookie its user.
    pub(super) fn clear(&mut self) {
        let kept = [Lifetime::KEY, login::KEY];
        let kept = kept.map(|key| Some((key, self.view().get(key)?.into_owned())));
        self.pending.changes.clear();
        for (key, value) in kept.into_iter().flatten() {
            self.pending.changes.set(key, value);
        }
    }

    pub(super) fn too_late(&mut self) {
        self.error(
            "a session was cleared, renewed or ended when that could no longer reach the client",
        );
        self.head.lost = true;
    }

    /// Drops what was done under an id that a renewal replaced shortly before. Returns whether
    /// anything was.
    pub(super) fn drop_if_renewed(&mut self) -> bool {
        if self.life != Life::Renewed || self.pending.changes.is_empty() {
            return false;
        }
        self.warn(
            "a request came under an id that a renewal had just replaced; what it wrote is dropped, so \
             that the renewed session stays",
        );
        self.end();
        true
    }

    /// Marks the session as ended by another request, and drops the changes of this one.
    pub(super) fn end(&mut self) {
        self.record = None;
        self.settled = None;
        self.pending.changes = Changes::default();
        self.life = Life::Ended;
    }

    /// Treats the changes as stored. Returns what undoes that.
    pub(super) fn settle(&mut self) -> Arc<Settled> {
        let settled = Arc::new(Settled {
            changes: std::mem::take(&mut self.pending.changes),
            stored: self.record.take(),
            committed: self.committed,
            migrates: self.origin.is_some(),
        });
        self.settled = Some(Arc::clone(&settled));
        settled
    }

    /// Applies the settled changes to the record: at the next look, which most requests never take
    /// (bench `overhead`, row "write three keys").
    pub(super) fn show_settled(&mut self, settings: &Settings) {
        if let Some(settled) = self.settled.take() {
            self.record = settled.record(settings);
        }
    }

    pub(super) fn unsettle(&mut self, settled: Arc<Settled>) {
        self.settled = None;
        let Settled {
            changes, stored, ..
        } = Arc::unwrap_or_clone(settled);
        let later = std::mem::replace(&mut self.pending.changes, changes);
        self.pending.changes.then(later);
        self.replace(stored);
    }
}

/// The locked state. Its log lines are written, and its events told, once it is unlocked, because a
/// subscriber of the log or an observer may use the session.
pub(super) struct Locked<'a> {
    slot: MutexGuard<'a, Slot>,
    /// Behind the guard, because fields are dropped in their order.
    after: Lines<'a>,
}

impl Deref for Locked<'_> {
    type Target = State;

    #[expect(
        clippy::expect_used,
        reason = "`locked` makes it, and nothing takes it"
    )]
    fn deref(&self) -> &State {
        self.slot.state.as_ref().expect("the state was made")
    }
}

impl DerefMut for Locked<'_> {
    #[expect(
        clippy::expect_used,
        reason = "`locked` makes it, and nothing takes it"
    )]
    fn deref_mut(&mut self) -> &mut State {
        self.slot.state.as_mut().expect("the state was made")
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if !self.lines.is_empty() {
            self.after.lines = std::mem::take(&mut self.lines);
        }
    }
}

/// A line of the log, or an event.
pub(super) enum Line {
    Warn(Cow<'static, str>),
    Error(Cow<'static, str>),
    Event(Event, Names),
}

/// Logs its lines and tells its events when it is dropped.
pub(super) struct Lines<'a> {
    lines: Vec<Line>,
    manager: &'a Manager,
}

impl Drop for Lines<'_> {
    fn drop(&mut self) {
        if !self.lines.is_empty() {
            self.write();
        }
    }
}

impl Lines<'_> {
    #[cold]
    fn write(&mut self) {
        for line in self.lines.drain(..) {
            match line {
                Line::Warn(text) => log!(WARN, "{text}"),
                Line::Error(text) => log!(ERROR, "{text}"),
                Line::Event(event, names) => {
                    if let Some(observers) = self.manager.observers() {
                        observers.tell_of(self.manager.backend_name(), event, &names);
                    }
                }
            }
        }
    }
}

/// The locked state, for reading or writing the session.
pub(super) struct Look<'a>(pub(super) Locked<'a>);

impl Deref for Look<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl DerefMut for Look<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.0
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        if self.0.live.is_some() {
            self.0.write_through();
        }
    }
}

impl Session {
    /// Notes that the response depends on the session, because a handler has it: a stream may read
    /// it when the head is on its way, too late for `Vary: Cookie`.
    pub(super) fn looked_at(&self) -> Locked<'_> {
        let mut state = self.lock();
        state.head.looked = true;
        state
    }

    pub(super) fn owned(&self, key: &str) -> Option<Value> {
        self.look().view().get(key).map(Value::into_owned)
    }

    /// Drops the oldest messages over [`MAX_FLASHES`](Self::MAX_FLASHES), and returns how many
    /// stay.
    pub(super) fn drop_flashes(&self, state: &mut State) -> usize {
        let mut keys: Vec<String> = state.flash_keys().map(str::to_owned).collect();
        keys.sort_unstable();
        let excess = keys.len().saturating_sub(Self::MAX_FLASHES);
        for key in &keys[..excess] {
            self.remove(state, key);
        }
        if excess > 0 && !std::mem::replace(&mut state.pending.said_dropped, true) {
            let name = self.0.manager.settings().cookie_name();
            state.warn(format!(
                "a session of the cookie `{name}` has more than {} flash messages that were never \
                 shown; the oldest are dropped",
                Self::MAX_FLASHES
            ));
        }
        keys.len() - excess
    }

    /// Returns the settings for this request.
    pub(super) fn settings<'s>(&'s self, state: &'s State) -> &'s Settings {
        match &state.by_host {
            Some(settings) => settings,
            None => self.0.manager.settings(),
        }
    }

    pub(super) fn needs_response(&self) -> bool {
        self.0.manager.backend().needs_response()
    }

    /// Locks the state, after applying the last commit to the record.
    pub(super) fn lock(&self) -> Locked<'_> {
        let mut state = self.lock_unsettled();
        state.show_settled(self.0.manager.settings());
        state
    }

    /// Locks the state without applying a settled commit. Poisoning is ignored: every mutation is
    /// one step.
    pub(super) fn lock_unsettled(&self) -> Locked<'_> {
        self.locked(self.slot())
    }

    pub(super) fn locked<'a>(&'a self, mut slot: MutexGuard<'a, Slot>) -> Locked<'a> {
        if slot.state.is_none() {
            slot.state = Some(State::new(slot.sent));
        }
        let after = Lines {
            lines: Vec::new(),
            manager: &self.0.manager,
        };
        Locked { slot, after }
    }

    pub(super) fn slot(&self) -> MutexGuard<'_, Slot> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the state for reading or writing the session. The first call opens a session that
    /// opens at once.
    pub(super) fn look(&self) -> Look<'_> {
        let mut state = self.looked_at();
        self.open_at_look(&mut state);
        if state.live.is_some() && !state.head.sent {
            state.write_through();
            state.read_through();
        }
        Look(state)
    }

    /// Writes a value: the one place that does.
    pub(super) fn insert(&self, state: &mut State, key: &str, change: Change) -> Result<(), Error> {
        self.writable(state)?;
        // After the head, what another request wrote meanwhile goes for it.
        if let Change::Set(value) = &change
            && !state.head.sent
            && self.holds(state, key, value)
        {
            return Ok(());
        }
        // What one more entry takes at most: as base64, with its lengths. Measuring the session at
        // each write took 120 ns for three (bench `overhead`, row "write three keys").
        let value = change.value().map_or(0, |value| value.as_str().len());
        let most = (key.len() + value + 16) * 4 / 3 + 4;
        let former = state.pending.changes.insert(key, change);
        if most < state.pending.room {
            state.pending.room -= most;
            return Ok(());
        }
        match self.size_of(state) {
            Some(Size { used, limit }) if used > limit => {
                state.pending.changes.undo(key, former);
                self.tell(state, Event::TooLarge);
                // Keys of its own begin with a control character.
                let key = (!key.starts_with([FLASH, OWN])).then(|| key.to_owned());
                return Err(Error::TooLarge {
                    size: used,
                    limit,
                    key,
                });
            }
            Some(Size { used, limit }) => state.pending.room = limit - used,
            None => state.pending.room = usize::MAX,
        }
        Ok(())
    }

    /// Removes a value: the one place that does.
    pub(super) fn remove(&self, state: &mut State, key: &str) {
        if self.writable(state).is_err() {
            state.error(
                "a value was taken out of a session after the response head was sent, and stays in it",
            );
            state.head.lost = true;
            return;
        }
        // After the head, another request may have stored what the snapshot does not have.
        let is_stored = state.head.sent || Changes::NONE.over(state.visible()).get(key).is_some();
        if is_stored {
            state.pending.changes.remove(key);
        } else {
            state.pending.changes.undo(key, None);
        }
    }

    /// Changes the session as a whole: the one place that does.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.look();
        match self.writable(&state) {
            // Of one that takes no writes the commit says that it was not done.
            Ok(()) | Err(Error::ReadOnly) => change(&mut state),
            // Nothing is left of it.
            Err(Error::Ended) => {}
            Err(_) => state.too_late(),
        }
    }

    pub(super) fn writable(&self, state: &State) -> Result<(), Error> {
        match state.life {
            Life::ReadOnly => Err(Error::ReadOnly),
            Life::Ended => Err(Error::Ended),
            _ if !state.head.sent => Ok(()),
            // The client has an id, and the backend alone can keep what is done under it.
            _ if !self.needs_response()
                && state.origin.is_none()
                && state.record().is_some()
                && !state.pending.changes.is_destroyed() =>
            {
                Ok(())
            }
            _ => Err(Error::HeadSent),
        }
    }

    pub(super) fn size_of(&self, state: &State) -> Option<Size> {
        let manager = &self.0.manager;
        manager.backend().size(state.view(), self.settings(state))
    }
}
