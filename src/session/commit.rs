//! Keeping what a request did: commits, one at a time, and what they tell the client.

use std::{future::poll_fn, sync::Arc, task::Poll};

#[cfg(feature = "server-side")]
use crate::log::log;
use crate::{
    backend::{Commit, CommitOutcome},
    carrier::Carrier,
    changes::Changes,
    cookie::SessionCookie,
    error::Error,
    expiry::Timestamp,
    future::BackendFuture,
    record::Record,
    session::{
        Session,
        state::{Life, Locked, State},
        told::Telling,
    },
    settings::Settings,
};

/// What a response has to carry for its session.
#[derive(Debug)]
pub(crate) struct Headers {
    /// How the session's token travels.
    pub(crate) carrier: Carrier,
    /// The value of the header that gives the client a new token or takes it away.
    pub(crate) token: Option<String>,
    /// Those that remove the cookies of a manager that this one takes over from.
    pub(crate) removed: Vec<String>,
    /// Whether the response depends on the session: `Vary`.
    pub(crate) vary: bool,
}

impl Headers {
    /// Returns `true` if the response stays as it is.
    #[cfg(feature = "actix")]
    pub(crate) fn is_empty(&self) -> bool {
        self.token.is_none() && !self.vary
    }
}

impl Session {
    pub(super) async fn save_all(&self, keep: Keep) -> Result<(), Error> {
        let committing = self.in_turn(|state| {
            state.drop_if_renewed();
            match state.life {
                Life::ReadOnly => Err(Error::ReadOnly),
                Life::Ended => Err(Error::Ended),
                _ if state.head.lost => Err(Error::HeadSent),
                _ if self.needs_response() => Ok(None),
                // A session that would begin now has no response to reach the client with.
                _ if state.head.sent
                    && state.record().is_none()
                    && !state.pending.changes.is_empty() =>
                {
                    Err(Error::HeadSent)
                }
                _ => Ok(self.begin_commit(state, keep)),
            }
        });
        match committing.await? {
            Some(committing) => committing.end().await,
            None => Ok(()),
        }
    }

    /// Ends the request before the head of its response is sent, and returns what commits its changes
    /// and gives the headers of the response. Called once.
    ///
    /// `None` if it neither looked at its session nor has one to touch: the response goes as it is
    /// (bench `overhead`, rows "no cookie" and "untouched").
    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn end(
        &self,
        succeeded: bool,
    ) -> Option<BackendFuture<'static, Result<Headers, Error>>> {
        let mut slot = self.slot();
        if slot.end() {
            return None;
        }
        let mut state = self.locked(slot);
        let is_untouched = !state.head.looked
            && state.in_flight.is_none()
            && state.record().is_none()
            && state.settled.is_none()
            && state.live.is_none()
            && !state.head.sent;
        if is_untouched {
            state.head.sent = true;
            return None;
        }
        Some(self.commit(state, succeeded))
    }

    /// Commits the request's changes, and returns the headers of its response.
    fn commit(
        &self,
        mut state: Locked<'_>,
        succeeded: bool,
    ) -> BackendFuture<'static, Result<Headers, Error>> {
        state.show_settled(self.0.manager.settings());
        let (mut committing, mut waits) = (None, None);
        let keep = match succeeded || self.0.manager.settings().commit_on_server_error() {
            true => Keep::All,
            false => Keep::End,
        };
        if state.life == Life::ReadOnly {
            if state.pending.changes.is_destroyed() {
                state.error(
                    "a session was not ended, because its store was away when the request came; it \
                     lives until its time is over, unless the client logs out again",
                );
            }
            let is_lost = match keep == Keep::All {
                true => !state.pending.changes.is_empty(),
                false => state.pending.changes.is_destroyed(),
            };
            if is_lost {
                return BackendFuture::ready(Err(Error::ReadOnly));
            }
        }
        if !state.head.sent {
            if let Some(live) = state.live.clone() {
                state.write_through();
                if let Some(lost) = live.end(keep == Keep::All) {
                    state.error(lost);
                }
                self.tell_live(&mut state, keep == Keep::All);
            } else if state.in_flight.is_some() {
                waits = Some(keep);
            } else {
                committing = self.begin_commit(&mut state, keep);
            }
            state.head.sent = true;
        }
        if waits.is_none() {
            let Some(begun) = committing else {
                return BackendFuture::ready(Ok(self.headers(&mut state)));
            };
            drop(state);
            match begun.now() {
                Ok(result) => {
                    let headers = || self.headers(&mut self.lock_unsettled());
                    return BackendFuture::ready(answered(result).map(|()| headers()));
                }
                Err(pending) => committing = Some(pending),
            }
        } else {
            drop(state);
        }
        let session = self.clone();
        BackendFuture::pending(async move {
            if let Some(keep) = waits {
                let begin = session.in_turn(|state| session.begin_commit(state, keep));
                committing = begin.await;
            }
            if let Some(committing) = committing {
                answered(committing.end().await)?;
            }
            let mut state = session.lock_unsettled();
            Ok(session.headers(&mut state))
        })
    }

    pub(super) fn headers(&self, state: &mut State) -> Headers {
        let by_host = state.by_host.clone();
        let settings = by_host.as_deref();
        let settings = settings.unwrap_or_else(|| self.0.manager.settings());
        let (cookie, carrier) = (settings.cookie(), settings.carrier());
        let (secure, is_cookie) = (self.is_secure(state), carrier == Carrier::Cookie);
        let token = match std::mem::replace(&mut state.head.outcome, CommitOutcome::Keep) {
            CommitOutcome::Keep | CommitOutcome::Gone => None,
            CommitOutcome::Set { token, .. } if !is_cookie => Some(token),
            CommitOutcome::Remove if !is_cookie => Some(String::new()),
            CommitOutcome::Set { token, expires } => {
                let expires = state.head.persistent.then_some(expires);
                Some(cookie.set(&token, secure, state.committed, expires))
            }
            CommitOutcome::Remove => Some(cookie.remove(secure)),
        };
        let removed = match token {
            Some(_) => self.removed(state),
            None => Vec::new(),
        };
        Headers {
            carrier,
            token,
            removed,
            vary: state.head.looked,
        }
    }

    /// Returns the `Set-Cookie` values that remove the cookies of managers that this one migrates
    /// from.
    pub(super) fn removed(&self, state: &State) -> Vec<String> {
        let old = self.0.manager.by_age().zip(state.tokens.by_age()).skip(1);
        let sent = old.filter(|(_, tokens)| tokens.own.is_some());
        let settings = self.settings(state);
        let is_replaced = |old: &SessionCookie| {
            settings.carrier() == Carrier::Cookie && settings.cookie().replaces(old)
        };
        sent.map(|(manager, _)| manager.settings())
            .filter(|old| old.carrier() == Carrier::Cookie)
            .map(Settings::cookie)
            .filter(|old| !is_replaced(old))
            .map(|old| old.remove(self.is_secure(state)))
            .collect()
    }

    /// Returns `true` if this client's cookie is `Secure`.
    fn is_secure(&self, state: &State) -> bool {
        let settings = self.0.manager.settings();
        settings.is_secure(self.0.is_https, || state.head.is_to_loopback)
    }

    /// Ends a request without a response: a handler panicked, or the client went away: ending the
    /// session sticks, all else is dropped. Code that still has the session goes on
    /// as after any response.
    pub(crate) fn abandon(&self) {
        let mut slot = self.slot();
        if slot.end() {
            return;
        }
        let mut state = self.locked(slot);
        if !state.head.sent && state.life != Life::ReadOnly {
            state.head.sent = true;
            self.end_anyway(&state, Keep::End);
        }
    }

    /// Ends the session in a spawned task, if this request was ending it.
    pub(super) fn end_anyway(&self, state: &State, keep: Keep) {
        if state.pending.changes.is_destroyed() && self.0.manager.backend().keeps_records() {
            #[cfg(not(feature = "server-side"))]
            let _ = keep;
            #[cfg(feature = "server-side")]
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                let session = self.clone();
                runtime.spawn(async move {
                    let committing = session.in_turn(|state| session.begin_commit(state, keep));
                    if let Some(committing) = committing.await
                        && let Err(error) = committing.end().await
                    {
                        let why = crate::error::chain(&error);
                        log!(ERROR, "a session could not be ended: {why}");
                    }
                });
            }
        }
    }

    /// Begins a commit, if the request changed anything or a touch is due.
    pub(super) fn begin_commit(&self, state: &mut State, keep: Keep) -> Option<Committing> {
        let manager = &self.0.manager;
        let by_host = state.by_host.clone();
        let settings = by_host.as_deref().unwrap_or_else(|| manager.settings());
        if state.drop_if_renewed() {
            return None;
        }
        let mut later = None;
        if matches!(keep, Keep::End | Keep::EndFirst) {
            let end = state.pending.changes.surviving_failure();
            let changes = std::mem::replace(&mut state.pending.changes, end);
            later = (keep == Keep::EndFirst).then(|| changes.after_end());
        }
        let writes = !state.pending.changes.is_empty();
        if !writes && state.record().is_none() {
            return None;
        }
        let now = settings.now();
        let touch_due = |record: &Record| {
            settings
                .expiry_of(&record.entries)
                .touch_due(record.created, record.expires, now)
        };
        let touches = match keep {
            Keep::All => state.record().is_some_and(touch_due),
            Keep::Touch => true,
            Keep::End | Keep::EndFirst => false,
        };
        if !writes && !touches {
            return None;
        }
        let commit = Commit {
            token: state.tokens.own.as_deref(),
            old: state.tokens.old(),
            origin: state.origin.as_ref(),
            resend: state.head.resend,
            stored: state.record(),
            changes: &state.pending.changes,
            now,
            settings,
        };
        let is_persistent = commit.is_persistent();
        let telling = self.telling(state);
        #[cfg(feature = "server-side")]
        let reserving = self.reserving(state);
        #[cfg(not(feature = "server-side"))]
        let reserving = None::<()>;
        let kept = match reserving {
            None => manager.backend().commit_now(&commit),
            Some(_) => None,
        };
        let future = match kept {
            Some(kept) => BackendFuture::ready(kept),
            None => manager.backend_arc().commit(commit),
        };
        #[cfg(feature = "server-side")]
        let future = match reserving {
            Some(reserving) => reserving.around(future),
            None => future,
        };
        state.head.persistent = is_persistent;
        state.committed = now;
        // The changes of a cookie backend are final: the cookie is with the client.
        let undo = (!self.needs_response()).then(|| state.settle());
        if let Some(later) = later.filter(|_| undo.is_some()) {
            state.pending.changes = later;
        }
        state.in_flight = Some(Vec::new());
        Some(Committing {
            session: self.clone(),
            is_over: false,
            future,
            writes: writes || keep == Keep::Touch,
            undo,
            telling,
        })
    }

    /// Runs `f` once no commit is in flight; a commit may assign an id that the next one needs.
    pub(super) fn in_turn<'s, T>(
        &'s self,
        mut f: impl FnMut(&mut State) -> T + 's,
    ) -> impl Future<Output = T> + 's {
        poll_fn(move |context| {
            let mut state = self.lock();
            if let Some(waiting) = &mut state.in_flight {
                waiting.push(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(f(&mut state))
        })
    }
}

/// The changes that [`State::settle`] treats as stored, and what undoes that.
#[derive(Clone)]
pub(super) struct Settled {
    pub(super) changes: Changes,
    pub(super) stored: Option<Record>,
    pub(super) committed: Timestamp,
    /// Whether the record that it makes counts its versions from the beginning.
    pub(super) migrates: bool,
}

impl Settled {
    /// Returns the record as it is stored after the commit.
    pub(super) fn record(&self, settings: &Settings) -> Option<Record> {
        let stored = self.stored.as_ref();
        let commit = Commit {
            token: None,
            old: None,
            origin: None,
            resend: false,
            stored,
            changes: &self.changes,
            now: self.committed,
            settings,
        };
        let (write, _) = commit.to_write();
        let Some(stored) = stored.filter(|_| !self.changes.is_destroyed()) else {
            return write.begins_a_session().then(|| write.to_record());
        };
        let mut record = stored.clone();
        record.merge(&write);
        record.created = write.created;
        if self.migrates {
            // Another request may have made it: what is there is not known.
            record.version = 0;
        }
        Some(record)
    }
}

/// What a commit keeps of what was done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// All of it.
    All,
    /// All of it; a touch is made even if it is not due.
    Touch,
    /// What survives a failed request; all else is dropped.
    End,
    /// The same; all else is left to the next commit.
    EndFirst,
}

/// Treats [`Error::Ended`] as success: another request ended the session, and this one did nothing
/// wrong.
pub(super) fn answered(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Ended) => Ok(()),
        result => result,
    }
}

/// A commit in flight.
pub(super) struct Committing {
    pub(super) session: Session,
    pub(super) is_over: bool,
    pub(super) future: BackendFuture<'static, Result<CommitOutcome, Error>>,
    /// Whether something is written, and not only touched.
    pub(super) writes: bool,
    /// What undoes it, where it shows as done already.
    pub(super) undo: Option<Arc<Settled>>,
    /// What observers are told once it is done.
    telling: Option<Box<Telling>>,
}

/// A commit that is dropped may or may not have been done. As after an error, the next commit does
/// it again.
impl Drop for Committing {
    fn drop(&mut self) {
        if !self.is_over {
            let session = self.session.clone();
            let mut state = session.lock_unsettled();
            if let Some(undo) = self.let_next(&mut state) {
                state.unsettle(undo);
            }
            session.end_anyway(&state, Keep::EndFirst);
        }
    }
}

impl Committing {
    /// Polls once; returns the result if the backend answers at once.
    pub(super) fn now(mut self) -> Result<Result<(), Error>, Self> {
        match self.future.take_now() {
            Some(result) => Ok(self.take(result)),
            None => Err(self),
        }
    }

    /// Waits for the backend.
    pub(super) async fn end(mut self) -> Result<(), Error> {
        let result = (&mut self.future).await;
        self.take(result)
    }

    /// Applies the backend's answer.
    pub(super) fn take(mut self, result: Result<CommitOutcome, Error>) -> Result<(), Error> {
        let session = self.session.clone();
        let mut state = session.lock_unsettled();
        let undo = self.let_next(&mut state);
        match result {
            Ok(reply) => {
                match &reply {
                    // A cookie backend is not asked again before the next request.
                    CommitOutcome::Set { token, .. } if !session.needs_response() => {
                        state.tokens.own = Some(token.as_str().into());
                        state.origin = None;
                        state.head.resend = false;
                        state.life = Life::Open;
                    }
                    CommitOutcome::Set { .. } => {}
                    CommitOutcome::Gone => {
                        state.end();
                        state.head.outcome = CommitOutcome::Keep;
                        return Err(Error::Ended);
                    }
                    CommitOutcome::Remove => state.life = Life::Removed,
                    CommitOutcome::Keep => {}
                }
                if let Some(telling) = self.telling.take() {
                    session.tell_done(&mut state, *telling, &reply);
                }
                // What an earlier commit has for the head stays.
                if !matches!(reply, CommitOutcome::Keep) {
                    state.head.outcome = reply;
                }
                Ok(())
            }
            Err(error) => {
                if let Some(undo) = undo {
                    state.unsettle(undo);
                }
                if self.writes {
                    return Err(error);
                }
                // The session is as it was, only its end did not move.
                let why = crate::error::chain(&error);
                state.warn(format!(
                    "a session's idle timeout could not be prolonged: {why}"
                ));
                Ok(())
            }
        }
    }

    /// Wakes the next commit, and returns the rollback of this one.
    pub(super) fn let_next(&mut self, state: &mut State) -> Option<Arc<Settled>> {
        self.is_over = true;
        state.let_next();
        self.undo.take()
    }
}
