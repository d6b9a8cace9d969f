//! A user's sessions: listing and ending them.

use crate::{Error, Manager, Record, Session, StoreId, Timestamp, session::NOTE};

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
    fn new((id, record): (StoreId, Record)) -> Self {
        Self {
            handle: id.to_string(),
            created: record.created,
            last_seen: record.seen,
            note: record
                .entries
                .get(NOTE)
                .map(|note| note.as_str().to_owned()),
        }
    }
}

/// A user's sessions, for engines whose store has an index of users.
impl Manager {
    /// The live sessions of which [`Session::set_user`] said that they are this user's, the one seen
    /// last first.
    ///
    /// # Errors
    ///
    /// [`Error::NoUserIndex`], if the engine cannot find them, and [`Error::Unavailable`].
    ///
    /// ```
    /// # async fn f() -> Result<(), session_manager::Error> {
    /// for session in session_manager::manager::get().user_sessions("ada").await? {
    ///     println!("{} {:?}", session.handle, session.note);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn user_sessions(&self, user: &str) -> Result<Vec<UserSession>, Error> {
        let found = self.find(user).await?;
        let mut sessions: Vec<_> = found.into_iter().map(UserSession::new).collect();
        sessions.sort_by_key(|session| std::cmp::Reverse((session.last_seen, session.created)));
        Ok(sessions)
    }

    /// Ends all of a user's sessions, and returns how many: for a stolen device, or a new password.
    ///
    /// # Errors
    ///
    /// As [`user_sessions`](Self::user_sessions). Some may have ended by then.
    pub async fn destroy_user_sessions(&self, user: &str) -> Result<usize, Error> {
        self.destroy_where(user, |_| true).await
    }

    /// Ends all of a user's sessions but `present`, and returns how many.
    ///
    /// # Errors
    ///
    /// As [`user_sessions`](Self::user_sessions). Some may have ended by then.
    pub async fn destroy_other_user_sessions(
        &self,
        user: &str,
        present: &Session,
    ) -> Result<usize, Error> {
        let present = present.handle();
        self.destroy_where(user, |handle| Some(handle) != present.as_deref())
            .await
    }

    /// Ends the one session of the user that has this [`handle`](UserSession::handle), and returns
    /// whether there was one.
    ///
    /// # Errors
    ///
    /// As [`user_sessions`](Self::user_sessions).
    pub async fn destroy_user_session(&self, user: &str, handle: &str) -> Result<bool, Error> {
        Ok(self.destroy_where(user, |other| other == handle).await? > 0)
    }

    async fn find(&self, user: &str) -> Result<Vec<(StoreId, Record)>, Error> {
        let mut found = self
            .backend()
            .user_sessions(user, self.settings().now())
            .await?;
        let (now, expiry) = (self.settings().now(), self.settings().expiry());
        found.retain(|(_, record)| !expiry.is_over(record.created, record.expires, now));
        Ok(found)
    }

    async fn destroy_where(
        &self,
        user: &str,
        is_meant: impl Fn(&str) -> bool,
    ) -> Result<usize, Error> {
        let mut count = 0;
        for (id, _) in self.find(user).await? {
            if is_meant(&id.to_string()) {
                self.backend().destroy_stored(id).await?;
                count += 1;
            }
        }
        Ok(count)
    }
}
