//! Cookie sessions that can be revoked: a backend around the one that keeps them in cookies.

mod revocations;

use std::{sync::Arc, time::Duration};

pub(crate) use self::revocations::{Kept, Revocations, Revoke};
use crate::{
    backend::{
        Backend, Commit, CommitOutcome, Observers, OpenOutcome, OpenRequest, Size,
        migration::Migration,
    },
    changes::{Changes, View},
    cookie::Tokens,
    error::Error,
    expiry::{Lifetime, Timestamp},
    future::BackendFuture,
    record::{
        Record,
        login::{self, Login},
    },
    settings::Settings,
};

/// Opens no cookie of a login that was revoked.
pub(crate) struct Revocable {
    inner: Arc<dyn Backend>,
    revocations: Arc<dyn Revocations>,
    /// How long an answer of the store is used again.
    cached_for: Duration,
}

impl Revocable {
    pub(crate) fn new(
        inner: Arc<dyn Backend>,
        revocations: Arc<dyn Revocations>,
        cached_for: Duration,
    ) -> Self {
        Self {
            inner,
            revocations,
            cached_for,
        }
    }

    /// Checks the login of a session that the inner backend opened.
    fn check(
        &self,
        mut record: Record,
        now: Timestamp,
    ) -> BackendFuture<'static, Result<OpenOutcome, Error>> {
        let login = match Login::of(&record.entries) {
            None => return BackendFuture::ready(Ok(OpenOutcome::Loaded(record))),
            Some(None) => return BackendFuture::ready(Ok(OpenOutcome::Ended)),
            Some(Some(login)) => login,
        };
        record.user = Some(login.user.as_str().into());
        if let Some(known) = self.revocations.cached(&login.user, now, self.cached_for) {
            return BackendFuture::ready(Ok(outcome(known.revokes(&login), record)));
        }
        let revocations = Arc::clone(&self.revocations);
        BackendFuture::pending(async move {
            let stored = revocations.stored(&login.user, now).await?;
            Ok(outcome(stored.revokes(&login), record))
        })
    }

    /// Keeps what a request did that begins, ends or prolongs a login.
    async fn carry(self: Arc<Self>, mut commit: Owned) -> Result<CommitOutcome, Error> {
        let ends = commit.changes.is_destroyed();
        let before = commit.stored.as_ref();
        let before = before.and_then(|record| Login::of(&record.entries)?);
        if ends && let Some(login) = &before {
            let until = commit.opens_until();
            let revoke = Revoke::One {
                id: login.id,
                until,
            };
            let settings = &commit.settings;
            let revoking = self
                .revocations
                .revoke(&login.user, revoke, commit.now, settings);
            revoking.await?;
        }
        let before = before.filter(|_| !ends);
        let user = commit.changes.user();
        if let Some(user) = user.or(before.as_ref().map(|login| &*login.user)) {
            let stored = self.revocations.stored(user, commit.now).await?;
            match before.as_ref().filter(|before| before.user == user) {
                // Another request revoked it while this one was served.
                Some(login) if stored.revokes(login) => return Ok(CommitOutcome::Gone),
                Some(_) => {}
                None => {
                    let login = Login::new(user, stored.last());
                    commit.changes.set(login::KEY, login.encode());
                }
            }
        }
        Arc::clone(&self.inner).commit(commit.commit()).await
    }
}

fn outcome(is_revoked: bool, record: Record) -> OpenOutcome {
    match is_revoked {
        true => OpenOutcome::Ended,
        false => OpenOutcome::Loaded(record),
    }
}

impl Backend for Revocable {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn needs_response(&self) -> bool {
        self.inner.needs_response()
    }

    fn can_move(&self) -> bool {
        self.inner.can_move()
    }

    /// A log-out is kept in the store.
    fn keeps_records(&self) -> bool {
        true
    }

    fn observe(&self, observers: &Observers) {
        self.inner.observe(observers);
    }

    fn migration(self: Arc<Self>) -> Option<Arc<dyn Migration>> {
        Arc::clone(&self.inner).migration()
    }

    fn open(
        self: Arc<Self>,
        request: OpenRequest<'_>,
    ) -> BackendFuture<'static, Result<OpenOutcome, Error>> {
        let now = request.settings.now();
        match Arc::clone(&self.inner).open(request).now() {
            Ok(Ok(OpenOutcome::Loaded(record))) => self.check(record, now),
            Ok(opened) => BackendFuture::ready(opened),
            Err(opening) => BackendFuture::pending(async move {
                match opening.await? {
                    OpenOutcome::Loaded(record) => self.check(record, now).await,
                    opened => Ok(opened),
                }
            }),
        }
    }

    /// With the login that the commit will add.
    fn size(&self, session: View<'_>, settings: &Settings) -> Option<Size> {
        let Some(user) = session.changes().user() else {
            return self.inner.size(session, settings);
        };
        let mut changes = session.changes().clone();
        changes.set(login::KEY, Login::new(user, 0).encode());
        self.inner.size(session.with(&changes), settings)
    }

    fn commit(
        self: Arc<Self>,
        commit: Commit<'_>,
    ) -> BackendFuture<'static, Result<CommitOutcome, Error>> {
        let changes = commit.changes;
        let has_login = |record: &Record| record.entries.get(login::KEY).is_some();
        // What makes the cookies of a login valid for longer.
        let prolongs = changes.is_destroyed()
            || changes.is_renewed()
            || changes.entry(Lifetime::KEY).is_some();
        let is_asked = changes.user().is_some() || prolongs && commit.stored.is_some_and(has_login);
        if !is_asked {
            return Arc::clone(&self.inner).commit(commit);
        }
        let commit = Owned::new(&commit);
        BackendFuture::pending(self.carry(commit))
    }
}

/// A [`Commit`] that outlives its request.
struct Owned {
    token: Option<Box<str>>,
    old: Option<Tokens>,
    resend: bool,
    stored: Option<Record>,
    changes: Changes,
    now: Timestamp,
    settings: Settings,
}

impl Owned {
    fn new(commit: &Commit<'_>) -> Self {
        Self {
            token: commit.token.map(Box::from),
            old: commit.old.cloned(),
            resend: commit.resend,
            stored: commit.stored.cloned(),
            changes: commit.changes.clone(),
            now: commit.now,
            settings: commit.settings.clone(),
        }
    }

    /// Returns when the last cookie of the session is over.
    fn opens_until(&self) -> Timestamp {
        let own = |record: &Record| self.settings.expiry_of(&record.entries).absolute;
        let own = self.stored.as_ref().map(own).unwrap_or_default();
        self.now.plus(own.max(self.settings.expiry().absolute))
    }

    fn commit(&self) -> Commit<'_> {
        Commit {
            token: self.token.as_deref(),
            old: self.old.as_ref(),
            // It is this backend's own: a migrating one hands over sessions that it has adopted.
            origin: None,
            resend: self.resend,
            stored: self.stored.as_ref(),
            changes: &self.changes,
            now: self.now,
            settings: &self.settings,
        }
    }
}
