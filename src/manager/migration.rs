//! The backend of a manager that migrates sessions from another one.

mod users;

use std::sync::Arc;

#[cfg(feature = "server-side")]
use crate::record::login::Login;
use crate::{
    backend::{
        Backend, Commit, CommitOutcome, Exchange, Exchanged, Observers, OpenOutcome, OpenRequest,
        Size,
        migration::{Adopt, Claim, Migrating, Migration, Origin, Place, Token},
    },
    changes::{Changes, View},
    cookie::{NameHash, SessionCookie, Tokens},
    error::Error,
    expiry::{Lifetime, Timestamp},
    future::BackendFuture,
    log::log,
    manager::Manager,
    record::{Record, id::StoreId},
    settings::Settings,
    store::UserIndex,
};

/// How often a session that others write to is claimed before its migration is left to the next
/// request.
const CLAIMS: usize = 8;

/// Opens what the new backend or the old manager has, and keeps all of it in the new backend.
pub(crate) struct MigratingBackend {
    new: Arc<dyn Backend>,
    old: Manager,
    /// What makes of a session's id in a store under the one cookie name the id under the other.
    names: NameHash,
}

impl MigratingBackend {
    pub(crate) fn new(new: Arc<dyn Backend>, cookie: &SessionCookie, old: Manager) -> Self {
        let names = cookie.name_hash().xor(old.settings().cookie().name_hash());
        Self { new, old, names }
    }

    /// Returns the id of an old session in the new backend, and the other way round.
    fn renamed(&self, id: StoreId) -> StoreId {
        StoreId::from_bytes(self.names.xor(NameHash(*id.as_bytes())).0)
    }

    fn new_arc(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.new)
    }

    /// Returns what the new backend adopts sessions with, if it keeps records.
    fn adopt(&self) -> Option<Arc<dyn Adopt>> {
        self.new_arc().migration()?.records()
    }

    /// Returns the successors of the sessions that these cookies of the old manager name, the
    /// newest cookie first.
    fn successors(&self, old: &Tokens) -> Vec<Token> {
        let by_age = self.old.by_age().zip(old.by_age());
        let successors = by_age.filter_map(|(manager, tokens)| successor(manager, tokens.own()?));
        successors.collect()
    }

    /// Looks for a session in the old manager's backend.
    fn found_in_old(&self, opened: OpenOutcome, old: &Tokens, new: &Settings) -> OpenOutcome {
        let (record, token, inner) = match opened {
            OpenOutcome::Loaded(record) => match old.own() {
                Some(own) => (record, Token(own.into()), None),
                None => return OpenOutcome::Nothing,
            },
            OpenOutcome::Migrating(Migrating { record, place }) => match place {
                Place::Here(token) => (record, token, None),
                Place::Old(origin) => (record, origin.token.clone(), Some(Box::new(origin))),
            },
            // What was claimed there is in a cookie by now, which the client has or is about to
            // get.
            opened => return opened,
        };
        let (created, expires) = (record.created, record.expires);
        let expiry = new.expiry_of(&record.entries);
        if expiry.is_over(created, expires, new.now()) {
            return OpenOutcome::Nothing;
        }
        let successor = match &inner {
            Some(origin) => origin.successor.clone(),
            None => successor(&self.old, &token.0),
        };
        let origin = Origin {
            successor,
            token,
            inner,
        };
        OpenOutcome::Migrating(Migrating {
            record,
            place: Place::Old(origin),
        })
    }

    /// Opens the session that the new backend has under one of `successors`.
    async fn open_adopted(
        &self,
        successors: &[Token],
        settings: &Settings,
    ) -> Result<OpenOutcome, Error> {
        let Some(adopt) = self.adopt() else {
            return Ok(OpenOutcome::Nothing);
        };
        for successor in successors {
            let opening = Arc::clone(&adopt).open_successor(&successor.0, settings);
            match opening.await? {
                OpenOutcome::Loaded(record) => {
                    let token = adopt.token(&successor.0, settings);
                    return Ok(OpenOutcome::Migrating(Migrating {
                        record,
                        place: Place::Here(Token(token.into())),
                    }));
                }
                OpenOutcome::Nothing | OpenOutcome::Refused(_) => {}
                opened => return Ok(opened),
            }
        }
        Ok(OpenOutcome::Nothing)
    }

    /// Returns a commit for the old backend.
    fn in_old<'c>(&'c self, commit: &'c Owned, changes: &'c Changes) -> Commit<'c> {
        let old = commit.tokens.as_ref();
        let origin = commit.origin.as_ref();
        Commit {
            token: origin.map_or_else(
                || old.and_then(Tokens::own),
                |origin| Some(&*origin.token.0),
            ),
            old: old.and_then(Tokens::old),
            origin: origin.and_then(|origin| origin.inner.as_deref()),
            resend: false,
            stored: Some(&commit.stored),
            changes,
            now: commit.now,
            settings: self.old.settings(),
        }
    }

    /// Ends the session in the old backend.
    async fn end_old(&self, commit: &Owned) -> Result<(), Error> {
        let mut changes = Changes::default();
        changes.destroy();
        let ending = self.old.backend_arc().commit(self.in_old(commit, &changes));
        ending.await.map(|_| ())
    }

    /// Ends the session for good: what is under way, and the old cookie sent again, cannot bring it
    /// back. What the request wrote afterwards begins a new one.
    async fn end(&self, commit: &Owned) -> Result<CommitOutcome, Error> {
        if let Some(adopt) = self.adopt() {
            let mut ids: Vec<StoreId> = Vec::new();
            let own = commit.token.as_deref().filter(|_| commit.origin.is_none());
            let origin = commit.origin.as_ref();
            let successor = origin.and_then(|origin| origin.successor.as_ref());
            let old = commit.tokens.as_ref().map(|old| self.successors(old));
            let tokens = (own.into_iter())
                .chain(successor.map(|token| &*token.0))
                .chain(old.iter().flatten().map(|token| &*token.0));
            for id in tokens.filter_map(|token| self.new.handle(token, &commit.settings)) {
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
            // A cookie of this session may be as old as the longest lifetime that the session had.
            let longest = Lifetime::longest(commit.stored.entries.get(Lifetime::KEY));
            let until = self.buried_until(commit.now);
            let until = until.max(commit.now.plus(longest));
            for id in ids {
                Arc::clone(&adopt).bury(id, commit.now, until).await?;
            }
        }
        if commit.origin.is_some() || commit.tokens.as_ref().is_some_and(Tokens::name_a_session) {
            self.end_old(commit).await?;
        }
        let begins = Commit {
            stored: None,
            ..commit.here(commit.token.as_deref(), &commit.changes)
        };
        let reply = self.new_arc().commit(begins).await?;
        Ok(without_old_cookie(reply))
    }

    /// Returns until when an old cookie that was made before `now` may open its session.
    fn buried_until(&self, now: Timestamp) -> Timestamp {
        let until = |old: &Manager| {
            let settings = old.settings();
            match old.backend_arc().migration() {
                Some(migration) => migration.opens_until(now, settings),
                None => now.plus(settings.expiry().absolute),
            }
        };
        self.old.by_age().map(until).max().unwrap_or(now)
    }

    /// Brings the session to the new backend, with what the request did to it.
    async fn migrate(&self, commit: &mut Owned) -> Result<CommitOutcome, Error> {
        let origin = commit.origin.as_ref();
        if let Some(successor) = origin.and_then(|origin| origin.successor.clone())
            && let Some(adopt) = self.adopt()
        {
            let adopting = adopt.adopt(&successor.0, &commit.here(None, &commit.changes));
            let (reply, created) = adopting.await?;
            #[cfg(feature = "server-side")]
            if created && let Some(gone) = self.undo_if_revoked(commit, &successor.0).await? {
                return Ok(gone);
            }
            // The new record is written before the old one is deleted.
            if created && let Err(error) = self.end_old(commit).await {
                left_behind(&error);
            }
            return Ok(reply);
        }
        let ends = match self.old.backend_arc().migration() {
            // A claim ends the session there.
            Some(migration) => {
                if !self.claim(&migration, commit).await? {
                    log!(
                        WARN,
                        "a session ended or migrated while one of its requests was served; what that \
                         request wrote is dropped"
                    );
                    return Ok(CommitOutcome::Gone);
                }
                false
            }
            None => true,
        };
        let all = commit.all();
        let reply = self.new_arc().commit(commit.here(None, &all)).await?;
        if ends && let Err(error) = self.end_old(commit).await {
            left_behind(&error);
        }
        Ok(without_old_cookie(reply))
    }

    /// Ends a session that was adopted from a cookie if its login was revoked meanwhile. A revocation is
    /// stored before the sessions in this backend are ended, so that none is left out.
    #[cfg(feature = "server-side")]
    async fn undo_if_revoked(
        &self,
        commit: &Owned,
        successor: &str,
    ) -> Result<Option<CommitOutcome>, Error> {
        let Some(Some(login)) = Login::of(&commit.stored.entries) else {
            return Ok(None);
        };
        let Some(revocations) = self.old.by_age().find_map(Manager::revocations) else {
            return Ok(None);
        };
        let stored = revocations.stored(&login.user, commit.now).await;
        if matches!(&stored, Ok(stored) if !stored.revokes(&login)) {
            return Ok(None);
        }
        if let Some(id) = self.new.handle(successor, &commit.settings)
            && let Some(index) = self.new.users()
        {
            let user = commit.changes.user().unwrap_or(&login.user);
            index.destroy_of(user, &[id]).await?;
        }
        stored.map(|_| Some(CommitOutcome::Gone))
    }

    /// Takes the session out of the old backend; `false` if it is gone.
    async fn claim(
        &self,
        migration: &Arc<dyn Migration>,
        commit: &mut Owned,
    ) -> Result<bool, Error> {
        for _ in 0..CLAIMS {
            let claiming = Arc::clone(migration).claim(&self.in_old(commit, Changes::NONE));
            match claiming.await? {
                Claim::Taken => return Ok(true),
                Claim::Gone => return Ok(false),
                Claim::Changed(record) => {
                    commit.changes.recompute(&record.entries)?;
                    commit.stored = record;
                    self.check_size(commit)?;
                }
            }
        }
        Err(Error::unavailable(Contended))
    }

    fn check_size(&self, commit: &Owned) -> Result<(), Error> {
        match self.new.size(commit.view(), &commit.settings) {
            Some(Size { used, limit }) if used > limit => Err(Error::too_large(used, limit)),
            _ => Ok(()),
        }
    }

    async fn carry(self: Arc<Self>, mut commit: Owned) -> Result<CommitOutcome, Error> {
        if commit.changes.is_destroyed() {
            return self.end(&commit).await;
        }
        match self.check_size(&commit) {
            // The client need not learn that a touch failed; the session stays where it is.
            Err(Error::TooLarge { .. }) if commit.changes.is_empty() => Ok(CommitOutcome::Keep),
            Err(error) => Err(error),
            Ok(()) => self.migrate(&mut commit).await,
        }
    }
}

/// Returns the token in a server-side backend of the session that `token` names at `manager`.
fn successor(manager: &Manager, token: &str) -> Option<Token> {
    let migration = manager.backend_arc().migration()?;
    let successor = migration.successor(token, manager.settings())?;
    Some(Token(successor.into()))
}

/// Says that a migrated session could not be ended where it was.
fn left_behind(error: &Error) {
    let why = crate::error::chain(error);
    log!(
        ERROR,
        "a session was migrated, and its old record is left until its time is over: {why}"
    );
}

#[derive(Debug, thiserror::Error)]
#[error("the session was written again and again while it was to migrate; send the request again")]
struct Contended;

impl Backend for MigratingBackend {
    fn name(&self) -> &'static str {
        self.new.name()
    }

    fn needs_response(&self) -> bool {
        self.new.needs_response()
    }

    fn keeps_records(&self) -> bool {
        self.new.keeps_records() || self.old.backend().keeps_records()
    }

    fn migration(self: Arc<Self>) -> Option<Arc<dyn Migration>> {
        // A session that the new backend cannot name has nothing to promise.
        self.new_arc().migration()?;
        Some(self)
    }

    fn open(
        self: Arc<Self>,
        request: OpenRequest<'_>,
    ) -> BackendFuture<'static, Result<OpenOutcome, Error>> {
        let new = self.new_arc().open(request);
        let Some(old) = request.old.filter(|old| old.name_a_session()) else {
            return new;
        };
        let settings = request.settings.clone();
        let token = request.token.map(Box::<str>::from);
        let old = old.clone();
        BackendFuture::pending(async move {
            let refused = match new.await? {
                OpenOutcome::Nothing => None,
                OpenOutcome::Refused(why) => Some(why),
                opened => return Ok(opened),
            };
            // First where the session is if it has migrated: its old record may be there still.
            let successors = self.successors(&old);
            let mut unasked = successors.clone();
            if let Some(token) = token.as_deref().filter(|_| refused.is_none()) {
                let asked = self.new.handle(token, &settings);
                unasked.retain(|successor| self.new.handle(&successor.0, &settings) != asked);
            }
            match self.open_adopted(&unasked, &settings).await? {
                OpenOutcome::Nothing => {}
                opened => return Ok(opened),
            }
            // No backend that sessions migrate from looks at the framework's request.
            let opened = self.old.opening(&old, self.old.settings(), &()).await?;
            let mut found = self.found_in_old(opened, &old, &settings);
            // Another request may have migrated it between the two looks.
            if let OpenOutcome::Nothing = found {
                found = self.open_adopted(&successors, &settings).await?;
            }
            Ok(match found {
                OpenOutcome::Refused(why) => OpenOutcome::Refused(refused.unwrap_or(why)),
                OpenOutcome::Nothing => refused.map_or(OpenOutcome::Nothing, OpenOutcome::Refused),
                opened => opened,
            })
        })
    }

    fn size(&self, session: View<'_>, settings: &Settings) -> Option<Size> {
        self.new.size(session, settings)
    }

    fn commit(
        self: Arc<Self>,
        commit: Commit<'_>,
    ) -> BackendFuture<'static, Result<CommitOutcome, Error>> {
        match commit.stored {
            Some(stored) if commit.origin.is_some() || commit.changes.is_destroyed() => {
                let commit = Owned::new(&commit, stored);
                BackendFuture::pending(self.carry(commit))
            }
            // Nothing to end but the old cookie.
            None if commit.changes.is_destroyed()
                && commit.old.is_some_and(Tokens::name_a_session) =>
            {
                let committing = self.new_arc().commit(commit);
                BackendFuture::pending(async { Ok(without_old_cookie(committing.await?)) })
            }
            _ => self.new_arc().commit(commit),
        }
    }

    /// Serves a session that has migrated; the caller migrates any other one first.
    fn exchange(
        self: Arc<Self>,
        exchange: Exchange<'_>,
    ) -> BackendFuture<'static, Result<Exchanged, Error>> {
        self.new_arc().exchange(exchange)
    }

    fn observe(&self, observers: &Observers) {
        self.new.observe(observers);
        self.old.backend().observe(observers);
    }

    fn draw_token(&self) -> Option<String> {
        self.new.draw_token()
    }

    fn handle(&self, token: &str, settings: &Settings) -> Option<StoreId> {
        self.new.handle(token, settings)
    }

    fn ended(
        self: Arc<Self>,
        id: StoreId,
        settings: &Settings,
    ) -> Option<BackendFuture<'static, Result<(), Error>>> {
        self.new_arc().ended(id, settings)
    }

    fn users(&self) -> Option<&dyn UserIndex> {
        self.new.users().map(|_| self as &dyn UserIndex)
    }
}

/// For a manager that migrates from this one, which may itself migrate.
impl Migration for MigratingBackend {
    fn successor(&self, token: &str, settings: &Settings) -> Option<String> {
        self.new_arc().migration()?.successor(token, settings)
    }

    fn opens_until(&self, now: Timestamp, settings: &Settings) -> Timestamp {
        match self.new_arc().migration() {
            Some(migration) => migration.opens_until(now, settings),
            None => now.plus(settings.expiry().absolute),
        }
    }

    fn claim(self: Arc<Self>, claim: &Commit<'_>) -> BackendFuture<'static, Result<Claim, Error>> {
        let Some(stored) = claim.stored.filter(|_| claim.origin.is_some()) else {
            return match self.new_arc().migration() {
                Some(migration) => migration.claim(claim),
                None => BackendFuture::ready(Ok(Claim::Taken)),
            };
        };
        let Some(migration) = self.old.backend_arc().migration() else {
            return BackendFuture::ready(Ok(Claim::Taken));
        };
        let commit = Owned::new(claim, stored);
        migration.claim(&self.in_old(&commit, Changes::NONE))
    }

    fn records(self: Arc<Self>) -> Option<Arc<dyn Adopt>> {
        self.adopt()
    }
}

/// Removes the cookie if nothing was stored.
fn without_old_cookie(reply: CommitOutcome) -> CommitOutcome {
    match reply {
        CommitOutcome::Keep => CommitOutcome::Remove,
        reply => reply,
    }
}

/// A [`Commit`] that outlives its request.
struct Owned {
    token: Option<Box<str>>,
    tokens: Option<Tokens>,
    origin: Option<Origin>,
    stored: Record,
    changes: Changes,
    now: Timestamp,
    settings: Settings,
}

impl Owned {
    fn new(commit: &Commit<'_>, stored: &Record) -> Self {
        Self {
            token: commit.token.map(Box::from),
            tokens: commit.old.cloned(),
            origin: commit.origin.cloned(),
            stored: stored.clone(),
            changes: commit.changes.clone(),
            now: commit.now,
            settings: commit.settings.clone(),
        }
    }

    fn view(&self) -> View<'_> {
        self.changes.over(Some(&self.stored.entries))
    }

    /// Returns the changes that create the whole session again.
    fn all(&self) -> Changes {
        let mut all = Changes::default();
        all.clear();
        if self.changes.is_renewed() {
            all.renew();
        }
        if let Some(user) = self.changes.user().or(self.stored.user.as_deref()) {
            all.set_user(user);
            #[cfg(feature = "server-side")]
            if let Some(limit) = self.changes.limit() {
                all.set_user_limited(user, limit.clone());
            }
        }
        for (key, value) in self.view().iter() {
            all.set(key, value.into_owned());
        }
        all
    }

    /// Returns a commit for the new backend, of the session that `token` names there.
    fn here<'c>(&'c self, token: Option<&'c str>, changes: &'c Changes) -> Commit<'c> {
        Commit {
            token,
            old: None,
            origin: None,
            resend: false,
            stored: Some(&self.stored),
            changes,
            now: self.now,
            settings: &self.settings,
        }
    }
}
