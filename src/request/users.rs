//! A user's sessions: listing and ending them.

use std::{cmp::Reverse, collections::HashMap};

#[cfg(feature = "server-side")]
use crate::backend::revocable::Revoke;
use crate::{
    error::Error,
    expiry::Timestamp,
    manager::Manager,
    observer::EndedBy,
    record::id::StoreId,
    session::Session,
    store::{SessionSummary, UserIndex},
};

/// One of a user's sessions, as a page of "your devices" shows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct UserSession {
    /// What [`Manager::destroy_user_session`] takes, the same for as long as the session lives. It
    /// opens nothing: the id in the cookie does not follow from it.
    pub handle: String,
    /// When the session began, or was last renewed.
    pub created: Timestamp,
    /// When it was last written or touched; a touch comes once per twentieth of the idle timeout.
    pub last_seen: Timestamp,
    /// What [`Session::set_note`] noted.
    pub note: Option<String>,
}

impl UserSession {
    fn new(session: SessionSummary) -> Self {
        Self {
            handle: session.id.to_string(),
            created: session.created,
            last_seen: session.last_seen,
            note: session.note,
        }
    }
}

/// A user's sessions, for backends whose store has an index of users.
impl Manager {
    /// Returns the live sessions of which [`Session::set_user`] said that they are this user's, the
    /// one seen last first. It loads the notes, and no other value.
    ///
    /// A session is live until the end that is stored with it: one that a manager with a longer
    /// absolute timeout keeps in the same store is listed as well. The list is read a page at a time,
    /// each within the time limit of a store call.
    ///
    /// # Errors
    ///
    /// [`Error::NoUserIndex`], if the backend cannot find them, and [`Error::Unavailable`].
    ///
    /// ```
    /// # async fn f() -> Result<(), session_manager::Error> {
    /// for session in session_manager::manager::get().user_sessions("ada").await? {
    ///     println!("{} {:?}", session.handle, session.note);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn user_sessions(&self, user: &str) -> Result<Vec<UserSession>, Error> {
        let (index, now) = (self.users()?, self.settings().now());
        // By id, because a session that migrates or changes while it is listed may come twice.
        let mut found = HashMap::new();
        let mut from = Vec::new();
        loop {
            let page = index.sessions_of(user, &from, now).await?;
            let sessions = page.items.into_iter().filter(|found| !found.id.is_place());
            found.extend(sessions.map(|session| (session.id, session)));
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        let mut sessions: Vec<_> = found.into_values().map(UserSession::new).collect();
        sessions.sort_by_key(|session| Reverse((session.last_seen, session.created)));
        Ok(sessions)
    }

    /// Ends all of a user's sessions, and returns how many: for a stolen device, or a new password.
    ///
    /// A cookie backend with `Builder::revocations` revokes the user's cookies, and returns 0, because
    /// they cannot be counted.
    ///
    /// It ends every session that is stored, whatever timeouts this manager has: also those that a
    /// manager with longer ones keeps in the same store. They end a page at a time, without being
    /// loaded, and each page has the time limit of a store call, so that a user with very many or very
    /// large sessions can still end them.
    ///
    /// # Errors
    ///
    /// As [`user_sessions`](Self::user_sessions). Some may have ended by then; calling it again goes
    /// on with the others.
    pub async fn destroy_user_sessions(&self, user: &str) -> Result<usize, Error> {
        self.revoke(user, None).await?;
        self.destroy_but(user, None).await
    }

    /// Ends all of a user's sessions but `present`, and returns how many, as
    /// [`destroy_user_sessions`](Self::destroy_user_sessions) does.
    ///
    /// # Errors
    ///
    /// As [`destroy_user_sessions`](Self::destroy_user_sessions).
    pub async fn destroy_other_user_sessions(
        &self,
        user: &str,
        present: &Session,
    ) -> Result<usize, Error> {
        self.revoke(user, Some(present)).await?;
        self.destroy_but(user, Some(present)).await
    }

    /// Ends the one session of the user that has this [`handle`](UserSession::handle), and returns
    /// whether there was one. The handle of another user's session ends nothing.
    ///
    /// # Errors
    ///
    /// As [`user_sessions`](Self::user_sessions).
    pub async fn destroy_user_session(&self, user: &str, handle: &str) -> Result<bool, Error> {
        let index = self.users()?;
        match StoreId::parse(handle) {
            Some(id) => {
                let count = index.destroy_of(user, &[id]).await?;
                self.tell_destroyed(EndedBy::Administrator, count, user, Some(id));
                Ok(count > 0)
            }
            None => Ok(false),
        }
    }

    fn users(&self) -> Result<&dyn UserIndex, Error> {
        self.backend().users().ok_or(Error::NoUserIndex {
            backend: self.backend_name(),
        })
    }

    /// Revokes the cookies of a user's sessions, but those of `kept`, where that is set up.
    async fn revoke(&self, user: &str, kept: Option<&Session>) -> Result<(), Error> {
        #[cfg(feature = "server-side")]
        for manager in self.by_age() {
            let Some(revocations) = manager.revocations() else {
                continue;
            };
            let kept = kept.and_then(Session::login);
            let kept = kept.filter(|login| login.user == user);
            let revoke = Revoke::All {
                kept: kept.map(|login| login.id),
            };
            let settings = manager.settings();
            let revoking = revocations.revoke(user, revoke, settings.now(), settings);
            revoking.await?;
        }
        #[cfg(not(feature = "server-side"))]
        let _ = (user, kept);
        Ok(())
    }

    async fn destroy_but(&self, user: &str, present: Option<&Session>) -> Result<usize, Error> {
        // Sessions that are still to migrate to a cookie have an index at the older manager.
        let indexes = self.by_age().map(|manager| manager.backend().users());
        let index = match indexes.flatten().next() {
            Some(index) if self.has_users() => index,
            None if self.has_users() => return Ok(0),
            _ => self.users()?,
        };
        let kept = present.and_then(Session::id);
        let (mut count, mut from) = (0, Vec::new());
        loop {
            let mut page = index.ids_of(user, &from).await?;
            page.items.retain(|id| Some(*id) != kept && !id.is_place());
            if !page.items.is_empty() {
                let ended = index.destroy_of(user, &page.items).await?;
                self.tell_destroyed(EndedBy::Administrator, ended, user, None);
                count += ended;
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(count),
            }
        }
    }
}
