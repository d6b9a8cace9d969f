//! Limiting how many sessions a user has.

use super::{Session, check_key};
use crate::{changes::limit::Evict, error::Error};

impl Session {
    /// Sets the user of this session, as [`set_user`](Self::set_user) does, if the user then has at most
    /// `max` sessions. Two log-ins at once, in one process or several, cannot both take the last place.
    ///
    /// Counted are the user's live sessions, whichever call set their user. This session counts once,
    /// also if it is the user's already. Expired and ended sessions do not count.
    ///
    /// - [`Evict::Refuse`] asks the store now. A user who has `max` other sessions gets
    ///   [`Error::TooManySessions`], and this session is as it was. Otherwise the place is reserved
    ///   until the response is sent. It is free again if the request fails (a server error, a panic, a
    ///   client that goes away), at the latest after a minute.
    /// - [`Evict::Oldest`] ends sessions when the response is sent, so that a request that fails ends
    ///   none: those that began or were renewed first, as
    ///   [`destroy_user_session`](crate::Manager::destroy_user_session) ends them. Of log-ins at once,
    ///   the last ones that are stored stay.
    ///
    /// The commit checks the limit again, in one step with the other log-ins of the user. If a handler
    /// takes longer than a minute, its place may be taken by then, and the response is a server error.
    ///
    /// # Errors
    ///
    /// [`Error::TooManySessions`]; [`Error::ZeroLimit`] if `max` is 0; [`Error::NoUserIndex`] if the
    /// backend cannot find a user's sessions, such as a cookie backend; [`Error::NoUserLimit`] if the
    /// store cannot limit them; [`Error::Unavailable`] if the store does not answer;
    /// [`Error::NotLoaded`], [`Error::Ended`]; and as [`add`](Self::add).
    ///
    /// ```
    /// use session_manager::{Error, Evict, Session};
    ///
    /// async fn log_in(session: &Session, user: &str) -> Result<&'static str, Error> {
    ///     match session.set_user_limited(user, 3, Evict::Refuse).await {
    ///         Ok(()) => {}
    ///         Err(Error::TooManySessions { .. }) => return Ok("Log out on another device first"),
    ///         Err(error) => return Err(error),
    ///     }
    ///     session.renew();
    ///     session.add("user", user)?;
    ///     Ok("Welcome")
    /// }
    /// ```
    pub async fn set_user_limited(
        &self,
        user: &str,
        max: usize,
        evict: Evict,
    ) -> Result<(), Error> {
        let backend = self.0.manager.backend();
        if max == 0 {
            return Err(Error::ZeroLimit);
        }
        let index = backend.users().ok_or(Error::NoUserIndex {
            backend: backend.name(),
        })?;
        check_key(user)?;
        let unlimited = Error::NoUserLimit {
            backend: backend.name(),
        };
        let Some(limit) = index.limit() else {
            return Err(unlimited);
        };
        #[cfg(feature = "server-side")]
        return self.reserve(limit, user, max, evict).await;
        #[cfg(not(feature = "server-side"))]
        {
            let _ = (limit, evict);
            Err(unlimited)
        }
    }
}

#[cfg(feature = "server-side")]
mod reserving {
    use std::{
        collections::HashSet,
        hash::{BuildHasher, Hasher, RandomState},
        sync::Arc,
        time::Duration,
    };

    use tokio::{
        runtime::Handle,
        time::{Instant, sleep},
    };

    use crate::{
        backend::CommitOutcome,
        changes::limit::{Evict, Limit, Place},
        error::{self, Error},
        future::BackendFuture,
        log::log,
        manager::Manager,
        observer::EndedBy,
        record::id::StoreId,
        session::{
            Session,
            state::{Life, State},
        },
        store::{Reservation, SessionSummary, StoreError, UserIndex, UserLimit},
    };

    /// How long a place is reserved at most: longer than a handler and a write of the store take.
    const RESERVED: Duration = Duration::from_secs(60);

    /// How long a commit waits for the log-ins that are under way.
    const PATIENCE: Duration = Duration::from_secs(2);

    impl Session {
        pub(super) async fn reserve(
            &self,
            limit: &dyn UserLimit,
            user: &str,
            max: usize,
            evict: Evict,
        ) -> Result<(), Error> {
            let begin = self.in_turn(|state| self.begin_reserving(state, user, max, evict));
            let (mut new, session, _turn) = begin.await?;
            if evict == Evict::Refuse {
                let is_new = new.place.is_none();
                let release = || release(self.manager().clone(), user.to_owned(), session);
                let place = new.place.get_or_insert_with(|| Place::new(release()));
                let now = self.manager().settings().now();
                let reservation = Reservation::new(session, max, now, now.plus(RESERVED));
                if !limit.reserve(user, &reservation).await? {
                    if is_new {
                        place.disarm();
                    }
                    return Err(Error::TooManySessions { max });
                }
            }
            let mut state = self.look();
            self.writable(&state)?;
            state.pending.changes.set_user_limited(user, new);
            Ok(())
        }

        /// Returns the limit, and the id that the session has or will have. No commit begins until the
        /// last part is dropped.
        fn begin_reserving(
            &self,
            state: &mut State,
            user: &str,
            max: usize,
            evict: Evict,
        ) -> Result<(Limit, StoreId, Turn), Error> {
            state.head.looked = true;
            match state.life {
                Life::Unread | Life::Unopened => return Err(Error::NotLoaded),
                _ => self.writable(state)?,
            }
            let changes = &state.pending.changes;
            let before = changes.limit().filter(|_| changes.user() == Some(user));
            let unlimited = || Error::NoUserLimit {
                backend: self.manager().backend_name(),
            };
            let (token, place) = match before {
                Some(limit) => (limit.token.clone(), limit.place.clone()),
                None => {
                    let drawn = self.manager().backend().draw_token();
                    (drawn.ok_or_else(unlimited)?.into(), None)
                }
            };
            let session = self.id_in(state, &token).ok_or_else(unlimited)?;
            let limit = Limit {
                max,
                evict,
                token,
                place,
            };
            state.in_flight = Some(Vec::new());
            Ok((limit, session, Turn(self.clone())))
        }

        /// Returns the id of the session, or the one that it will have if this request begins it.
        fn id_in(&self, state: &State, drawn: &str) -> Option<StoreId> {
            let is_stored = state.record().is_some() && !state.pending.changes.is_destroyed();
            let own = match &state.origin {
                _ if !is_stored => None,
                Some(origin) => origin.successor.as_ref().map(|token| &*token.0),
                None => state.tokens.own(),
            };
            let token = own.unwrap_or(drawn);
            let backend = self.manager().backend();
            backend.handle(token, self.settings(state))
        }

        /// Returns what a commit has to reserve.
        pub(in crate::session) fn reserving(&self, state: &State) -> Option<Reserving> {
            let changes = &state.pending.changes;
            let limit = changes.limit()?;
            Some(Reserving {
                manager: self.manager().clone(),
                user: changes.user()?.into(),
                session: self.id_in(state, &limit.token)?,
                limit: limit.clone(),
            })
        }
    }

    /// Keeps commits waiting.
    struct Turn(Session);

    impl Drop for Turn {
        fn drop(&mut self) {
            self.0.lock_unsettled().let_next();
        }
    }

    /// Returns what gives a place back in the background. Without a runtime, only a store that answers
    /// at once does.
    fn release(manager: Manager, user: String, session: StoreId) -> impl FnOnce() + Send + 'static {
        let runtime = Handle::try_current();
        move || {
            let releasing = async move { give_back(&manager, &user, session).await };
            match runtime {
                Ok(runtime) => drop(runtime.spawn(releasing)),
                Err(_) => drop(BackendFuture::pending(releasing).now()),
            }
        }
    }

    async fn give_back(manager: &Manager, user: &str, session: StoreId) {
        if let Some(index) = manager.backend().users()
            && let Err(error) = index.destroy_of(user, &[session.place()]).await
        {
            let error = Error::from(error);
            let why = error::chain(&error);
            log!(
                WARN,
                "a log-in's place is reserved for up to a minute: {why}"
            );
        }
    }

    /// The place that a commit reserves for its session.
    pub(in crate::session) struct Reserving {
        manager: Manager,
        user: Arc<str>,
        session: StoreId,
        limit: Limit,
    }

    impl Reserving {
        /// Runs `commit` while the place is reserved.
        pub(in crate::session) fn around(
            self,
            commit: BackendFuture<'static, Result<CommitOutcome, Error>>,
        ) -> BackendFuture<'static, Result<CommitOutcome, Error>> {
            BackendFuture::pending(async move {
                // From here on a write may be under way when this is dropped. The place must not be
                // free before it is done.
                if let Some(place) = &self.limit.place {
                    place.disarm();
                }
                let committed = match self.reserve().await {
                    Ok(()) => commit.await,
                    Err(error) => Err(error),
                };
                give_back(&self.manager, &self.user, self.session).await;
                committed
            })
        }

        async fn reserve(&self) -> Result<(), Error> {
            let Limit { max, evict, .. } = self.limit;
            let Some(index) = self.manager.backend().users() else {
                return Ok(());
            };
            let Some(limit) = index.limit() else {
                return Ok(());
            };
            let begun = Instant::now();
            loop {
                let now = self.manager.settings().now();
                let place = Reservation::new(self.session, max, now, now.plus(RESERVED));
                if limit.reserve(&self.user, &place).await? {
                    return Ok(());
                }
                let full = Error::TooManySessions { max };
                if evict == Evict::Refuse {
                    return Err(full);
                }
                if !self.evict(index, &place).await? {
                    // All places are those of log-ins that are under way.
                    if begun.elapsed() >= PATIENCE {
                        return Err(full);
                    }
                    let pause = 1 + RandomState::new().build_hasher().finish() % 16;
                    sleep(Duration::from_millis(pause)).await;
                }
            }
        }

        /// Ends the oldest sessions that are in the way; returns whether any ended.
        async fn evict(
            &self,
            index: &dyn UserIndex,
            place: &Reservation,
        ) -> Result<bool, StoreError> {
            let (mut found, mut longest) = (Vec::<SessionSummary>::new(), 1);
            let mut from = Some(Vec::new());
            while let Some(last) = from {
                let page = index.sessions_of(&self.user, &last, place.now).await?;
                longest = longest.max(page.items.len());
                found.extend(page.items);
                from = page.next;
            }
            found.retain(|session| session.id.place() != place.id());
            found.sort_unstable_by_key(|session| (session.created, session.id));
            found.dedup_by_key(|session| session.id);
            let taken: HashSet<_> = found.iter().map(|session| session.id.place()).collect();
            let excess = (taken.len() + 1).saturating_sub(place.max);
            let sessions = found.iter().map(|session| session.id);
            let oldest = sessions.filter(|id| !id.is_place()).take(excess);
            let oldest: Vec<_> = oldest.collect();
            let mut ended = 0;
            for ids in oldest.chunks(longest) {
                let count = index.destroy_of(&self.user, ids).await?;
                self.manager
                    .tell_destroyed(EndedBy::Evicted, count, &self.user, None);
                ended += count;
            }
            Ok(ended > 0)
        }
    }
}
