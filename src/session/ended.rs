//! Waiting for the end of a session.

use std::time::Duration;

use super::{
    Session,
    commit::Keep,
    state::{Life, State},
};
use crate::{
    error::Error,
    expiry::{Lifetime, Timestamp},
    future::BackendFuture,
};

/// How long the clock is trusted to go as the timer does: a machine may sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// How the end of a session is awaited.
enum Wait {
    /// It has ended.
    Over,
    /// It has to be saved first, so that the backend knows it.
    SaveFirst,
    /// The backend says when it ends.
    Backend(BackendFuture<'static, Result<(), Error>>),
    /// Nothing says so but the clock.
    Clock(Timestamp),
}

impl Session {
    /// Waits until the session has ended: logged out, ended by an administrator or evicted in any
    /// process, or expired. For a WebSocket or a stream, which must not outlive its login.
    ///
    /// The session that is meant is the one at the first poll. It goes on when it is
    /// [renewed](Self::renew) or migrates, so the future then waits on. Nothing is written to this
    /// handle: [`revalidate`](Self::revalidate) shows what others wrote. The future owns what it
    /// needs and is `Send`; drop it to stop waiting.
    ///
    /// | backend | a log-out in this process | in another process | expiry |
    /// |---|---|---|---|
    /// | `MemoryStore` | at once, also an eviction | | at once |
    /// | `RedisStore` | at once | at once: `PUBLISH`, `SUBSCRIBE` | at once |
    /// | `PostgresStore` | at once | at once: `NOTIFY`, `LISTEN` | at once |
    /// | `MySqlStore`, `SqliteStore`, `TowerStore` | at once | by [polling](crate::ServerSide::poll_ended_every): 5 seconds | at once |
    /// | your own [`Store`](crate::Store) | at once | by polling, or [`Store::watch_ended`](crate::Store::watch_ended) | at once |
    /// | cookie backends | | | at once |
    ///
    /// `RedisStore` polls too if the application made its connection
    /// ([`from_connection_manager`](crate::RedisStore::from_connection_manager)) or its client of a
    /// cluster ([`from_cluster`](crate::RedisStore::from_cluster)). A subscription that breaks is
    /// made again; until then sessions are polled, and after that each is loaded once, so that no
    /// end is missed. One process has one subscription per backend, and loads each session once
    /// per interval, however many tasks await it. Without a task that awaits a session there is no
    /// connection and no task.
    ///
    /// A cookie backend keeps nothing that could tell of a log-out: there the future waits until
    /// the cookie of this request expires.
    ///
    /// A session that is not stored yet, or still has to [migrate](crate::Builder::migrate_from),
    /// is saved first, with all that was done to it.
    ///
    /// # Errors
    ///
    /// [`Error::NotStored`] if there is no session that could end: the request has none and wrote
    /// nothing. [`Error::NeedsStore`] if other code keeps the session (`ActixSession`);
    /// [`Error::NotLoaded`], [`Error::ReadOnly`], and as [`save`](Self::save) if it is saved first.
    /// A store that does not answer is no error: the future waits on.
    ///
    /// ```
    /// # async fn next_message() {}
    /// # async fn f(session: session_manager::Session) -> Result<(), session_manager::Error> {
    /// let mut ended = std::pin::pin!(session.ended());
    /// loop {
    ///     tokio::select! {
    ///         result = &mut ended => return result, // logged out: close the connection
    ///         message = next_message() => { /* … */ }
    ///     }
    /// }
    /// # }
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "server-side")))]
    #[doc(alias("closed", "logged_out", "cancelled"))]
    pub fn ended(&self) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let session = self.clone();
        async move { session.until_ended().await }
    }

    async fn until_ended(&self) -> Result<(), Error> {
        // Opens a session that opens at its first look.
        drop(self.look());
        for _ in 0..2 {
            match self.in_turn(|state| self.begin_waiting(state)).await? {
                Wait::Over => return Ok(()),
                Wait::Backend(ended) => return ended.await,
                Wait::Clock(until) => return self.until(until).await,
                Wait::SaveFirst => match self.save_all(Keep::Touch).await {
                    Err(Error::Ended) => return Ok(()),
                    saved => saved?,
                },
            }
        }
        Err(Error::NotStored)
    }

    fn begin_waiting(&self, state: &mut State) -> Result<Wait, Error> {
        let (manager, is_cookie) = (self.manager(), self.needs_response());
        let settings = self.settings(state);
        match state.life {
            Life::Unread | Life::Unopened => return Err(Error::NotLoaded),
            Life::ReadOnly => return Err(Error::ReadOnly),
            Life::Renewed => return Err(Error::NotStored),
            Life::Ended | Life::Removed => return Ok(Wait::Over),
            Life::Open if state.live.is_some() => return Err(self.needs_store()),
            Life::Open => {}
        }
        let Some(record) = state.record() else {
            return match state.pending.changes.is_empty() || state.head.sent && !is_cookie {
                true => Err(Error::NotStored),
                // Its cookie is made with the response.
                false if is_cookie => {
                    let now = settings.now();
                    let lifetime = Lifetime::decode(state.view().get(Lifetime::KEY));
                    let expiry = settings.expiry_for(lifetime);
                    Ok(Wait::Clock(expiry.deadline(now, now)))
                }
                false => Ok(Wait::SaveFirst),
            };
        };
        if let Some(origin) = state.origin.as_ref().filter(|_| !is_cookie)
            && origin.successor.is_some()
        {
            return Ok(Wait::SaveFirst);
        }
        let backend = manager.backend_arc();
        let id = state.tokens.own().filter(|_| state.origin.is_none());
        let id = id.and_then(|token| backend.handle(token, settings));
        if let Some(ended) = id.and_then(|id| backend.ended(id, settings)) {
            return Ok(Wait::Backend(ended));
        }
        let expiry = settings.expiry_of(&record.entries);
        let ends = record.expires.min(record.created.plus(expiry.absolute));
        Ok(Wait::Clock(ends))
    }

    /// Waits until the clock says so.
    async fn until(&self, mut ends: Timestamp) -> Result<(), Error> {
        let settings = self.manager().settings();
        loop {
            let left = ends.since(settings.now());
            if !left.is_zero() {
                tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
            } else if self.needs_response() {
                return Ok(());
            } else {
                // A backend of the application's own keeps it, and another request may have used it.
                match self.revalidate().await {
                    Err(Error::Ended) => return Ok(()),
                    Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
                    Ok(()) => match self.expires() {
                        Some(later) if later > ends => ends = later,
                        Some(_) => tokio::time::sleep(Duration::from_secs(1)).await,
                        None => return Ok(()),
                    },
                }
            }
        }
    }
}
