//! Sessions on their way from one engine to another.

use std::sync::Arc;
#[cfg(feature = "server-side")]
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

#[cfg(feature = "server-side")]
use tokio::sync::OnceCell;

use crate::{
    Backend, BackendFuture, Changes, Commit, Error, Manager, Opened, Opening, Record, Refused,
    Reply, Settings, Size, StoreId, Timestamp, View, cookie::Tokens, log::log,
};

/// Opens what a new engine or an old manager knows, and keeps all of it in the new engine.
pub(crate) struct Moving {
    new: Arc<dyn Backend>,
    old: Manager,
    #[cfg(feature = "server-side")]
    moves: Moves,
}

impl Moving {
    pub(crate) fn new(new: Arc<dyn Backend>, old: Manager) -> Self {
        Self {
            new,
            old,
            #[cfg(feature = "server-side")]
            moves: Moves::default(),
        }
    }

    fn new_arc(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.new)
    }

    /// Ends the session where it was.
    async fn end_old(&self, commit: &Owned) -> Result<(), Error> {
        let mut changes = Changes::default();
        changes.destroy();
        let old = commit.tokens.as_ref();
        let ending = self.old.engine_arc().commit(Commit {
            token: old.and_then(Tokens::own),
            old: old.and_then(Tokens::old),
            age: commit.age.saturating_sub(1),
            stored: Some(&commit.stored),
            changes: &changes,
            now: commit.now,
            settings: self.old.settings(),
        });
        ending.await.map(|_| ())
    }

    /// Brings the session here, with what the request did to it. The new record is written before the
    /// old one is deleted.
    async fn bring(&self, commit: &Owned) -> Result<Reply, Error> {
        let mut all = Changes::default();
        all.clear();
        if commit.changes.is_renewed() {
            all.renew();
        }
        if let Some(user) = commit.changes.user().or(commit.stored.user.as_deref()) {
            all.set_user(user);
        }
        for (key, value) in commit.view().iter() {
            all.set(key, value.into_owned());
        }
        let reply = self.new_arc().commit(commit.here(None, &all)).await?;
        if let Err(error) = self.end_old(commit).await {
            // The client has to be told of the new one all the same.
            let why = crate::error::chain(&error);
            log!(
                ERROR,
                "a session was moved, and its old record is left: {why}"
            );
        }
        Ok(without_old_cookie(reply))
    }

    async fn carry(self: Arc<Self>, commit: Owned) -> Result<Reply, Error> {
        if commit.changes.is_destroyed() {
            self.end_old(&commit).await?;
            let mut ending = commit.here(commit.token.as_deref(), &commit.changes);
            ending.stored = ending.stored.filter(|_| commit.age == 0);
            let reply = self.new_arc().commit(ending).await?;
            return Ok(without_old_cookie(reply));
        }
        if let Some(Size { used, limit }) = self.new.size(commit.view(), &commit.settings)
            && used > limit
        {
            if commit.changes.is_empty() {
                return Ok(Reply::Keep);
            }
            return Err(Error::TooLarge { size: used, limit });
        }
        #[cfg(feature = "server-side")]
        if !self.new.needs_response() {
            return self.carry_once(commit).await;
        }
        self.bring(&commit).await
    }

    /// Brings the session here, or merges into it what the request did if another request of the same
    /// old session was faster: of requests that overlap, none loses what the others did.
    #[cfg(feature = "server-side")]
    async fn carry_once(&self, mut commit: Owned) -> Result<Reply, Error> {
        let cell = self.moves.of(commit.old_token());
        let mut brought = None;
        let moved = cell.get_or_try_init(async || {
            let reply = self.bring(&commit).await?;
            let moved = match &reply {
                Reply::Set { token, expires } => Some((token.clone(), *expires)),
                _ => None,
            };
            brought = Some(reply);
            Ok::<_, Error>(moved)
        });
        let moved = moved.await?;
        if let Some(reply) = brought {
            return Ok(reply);
        }
        let Some((token, expires)) = moved else {
            return Ok(Reply::Gone);
        };
        // What was computed from the old record is computed anew.
        commit.stored.version = 0;
        let merging = self
            .new_arc()
            .commit(commit.here(Some(token), &commit.changes));
        Ok(match merging.await? {
            Reply::Keep => Reply::Set {
                token: token.clone(),
                expires: *expires,
            },
            reply => reply,
        })
    }
}

impl Backend for Moving {
    fn engine(&self) -> &'static str {
        self.new.engine()
    }

    fn needs_response(&self) -> bool {
        self.new.needs_response()
    }

    fn open(
        self: Arc<Self>,
        request: Opening<'_>,
    ) -> BackendFuture<'static, Result<Opened, Error>> {
        let new = self.new_arc().open(request);
        let Some(old) = request.old.filter(|old| old.name_a_session()) else {
            return new;
        };
        let settings = request.settings.clone();
        let token = request.token.map(Box::<str>::from);
        let opening = self.old.opening(old, request.request);
        let old_token = old.own.clone().unwrap_or_default();
        BackendFuture::pending(async move {
            let refused = match new.await?.unsealed(&*self.new, token.as_deref(), &settings) {
                Opened::Nothing => None,
                Opened::Refused(why) => Some(why),
                opened => return Ok(opened),
            };
            let (engine, settings) = (self.old.backend(), self.old.settings());
            Ok(
                match opening.await?.unsealed(engine, Some(&old_token), settings) {
                    Opened::Loaded(record) => Opened::Old(record, 1),
                    Opened::Old(record, age) => Opened::Old(record, age + 1),
                    Opened::Refused(why) => Opened::Refused(refused.unwrap_or(why)),
                    _ => refused.map_or(Opened::Nothing, Opened::Refused),
                },
            )
        })
    }

    fn unseal(&self, token: &str, settings: &Settings) -> Result<Record, Refused> {
        self.new.unseal(token, settings)
    }

    fn size(&self, session: View<'_>, settings: &Settings) -> Option<Size> {
        self.new.size(session, settings)
    }

    fn commit(self: Arc<Self>, commit: Commit<'_>) -> BackendFuture<'static, Result<Reply, Error>> {
        let ends_old =
            commit.changes.is_destroyed() && commit.old.is_some_and(Tokens::name_a_session);
        match commit.stored {
            Some(stored) if commit.age > 0 || ends_old => {
                let commit = Owned::new(&commit, stored);
                BackendFuture::pending(self.carry(commit))
            }
            _ => self.new_arc().commit(commit),
        }
    }

    fn handle(&self, token: &str) -> Option<StoreId> {
        self.new.handle(token)
    }

    fn has_user_index(&self) -> bool {
        self.new.has_user_index()
    }

    fn user_sessions<'a>(
        &'a self,
        user: &'a str,
        now: Timestamp,
    ) -> BackendFuture<'a, Result<Vec<(StoreId, Record)>, Error>> {
        let new = self.new.user_sessions(user, now);
        let old = self.old.backend();
        if !old.has_user_index() {
            return new;
        }
        let old = old.user_sessions(user, now);
        BackendFuture::pending(async move {
            let mut sessions = new.await?;
            sessions.extend(old.await?);
            Ok(sessions)
        })
    }

    fn destroy_stored(&self, id: StoreId) -> BackendFuture<'_, Result<(), Error>> {
        let new = self.new.destroy_stored(id);
        let old = self.old.backend();
        if !old.has_user_index() {
            return new;
        }
        let old = old.destroy_stored(id);
        BackendFuture::pending(async move {
            new.await?;
            old.await
        })
    }
}

/// Where nothing was left to keep, nothing is left of its cookie.
fn without_old_cookie(reply: Reply) -> Reply {
    match reply {
        Reply::Keep => Reply::Remove,
        reply => reply,
    }
}

/// A [`Commit`] that outlives its request.
struct Owned {
    token: Option<Box<str>>,
    tokens: Option<Tokens>,
    age: usize,
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
            age: commit.age,
            stored: stored.clone(),
            changes: commit.changes.clone(),
            now: commit.now,
            settings: commit.settings.clone(),
        }
    }

    fn view(&self) -> View<'_> {
        self.changes.over(Some(&self.stored.entries))
    }

    /// A commit in the new engine, of the session that `token` names there.
    fn here<'c>(&'c self, token: Option<&'c str>, changes: &'c Changes) -> Commit<'c> {
        Commit {
            token,
            old: None,
            age: 0,
            stored: Some(&self.stored),
            changes,
            now: self.now,
            settings: &self.settings,
        }
    }

    /// The cookie under which the session was opened.
    #[cfg(feature = "server-side")]
    fn old_token(&self) -> &str {
        let mut by_age = self.tokens.iter().flat_map(Tokens::by_age);
        let tokens = by_age.nth(self.age.saturating_sub(1));
        tokens.and_then(Tokens::own).unwrap_or_default()
    }
}

/// Where the sessions went that moved in the last minute, by their old cookies: longer than a request
/// lasts that began before.
#[cfg(feature = "server-side")]
#[derive(Default)]
struct Moves(Mutex<HashMap<Box<str>, (Moved, Instant)>>);

/// The new cookie, if there was anything to keep, and when the session ends.
#[cfg(feature = "server-side")]
type Moved = Arc<OnceCell<Option<(String, Timestamp)>>>;

#[cfg(feature = "server-side")]
impl Moves {
    const KEPT: Duration = Duration::from_secs(60);

    fn of(&self, token: &str) -> Moved {
        let mut moves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // So seldom that it costs each move the same, however many there are.
        if moves.len() == moves.capacity() {
            moves.retain(|_, (_, since)| since.elapsed() < Self::KEPT);
        }
        let entry = moves.entry(token.into());
        let (moved, _) = entry.or_insert_with(|| (Arc::default(), Instant::now()));
        Arc::clone(moved)
    }
}
