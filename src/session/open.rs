//! Opening a session: before the handler runs, at its first look, or on demand.

use std::{
    any::Any,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::Inner;
use crate::{
    backend::{CommitOutcome, OpenOutcome},
    cookie::Tokens,
    error::Error,
    expiry::Timestamp,
    future::BackendFuture,
    manager::Manager,
    session::{
        Session,
        state::{Head, Life, Pending, State},
        told::Done,
    },
    settings::OnStoreError,
};
#[cfg(any(feature = "actix", feature = "tower"))]
use crate::{cookie::RequestHead, observer::Event};

impl Session {
    /// Creates the session of a request that begins.
    pub(crate) fn new(
        manager: Manager,
        is_global: bool,
        is_https: bool,
        outer: Option<Self>,
    ) -> Self {
        let state = State {
            tokens: Tokens::default(),
            by_host: None,
            life: Life::Unread,
            record: None,
            origin: None,
            live: None,
            live_done: Done::default(),
            pending: Pending::default(),
            head: Head {
                sent: false,
                secure: true,
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
        };
        let session = Self(Arc::new(Inner {
            manager,
            is_global,
            is_https,
            outer,
            inner: Mutex::default(),
            state: Mutex::new(state),
        }));
        if let Some(outer) = session.outer() {
            *outer.lock_inner() = Arc::downgrade(&session.0);
        }
        session
    }

    pub(crate) fn is_global(&self) -> bool {
        self.0.is_global
    }

    pub(crate) fn outer(&self) -> Option<&Self> {
        self.0.outer.as_ref()
    }

    pub(crate) fn inner(&self) -> Option<Self> {
        self.lock_inner().upgrade().map(Self)
    }

    pub(super) fn lock_inner(&self) -> MutexGuard<'_, Weak<Inner>> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parses the request head, once.
    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn read(&self, request: &dyn RequestHead) {
        let mut state = self.lock_unsettled();
        if state.life != Life::Unread {
            return;
        }
        let (manager, is_https) = (&self.0.manager, self.0.is_https);
        let settings = manager.settings();
        let (tokens, refused) = manager.tokens(request);
        if let Some((why, text)) = refused {
            state.warn(settings.refused(text));
            self.tell(&mut state, Event::Refused { why });
        }
        let has_cookie = tokens.own.is_some();
        let is_to_loopback = || request.is_to_loopback();
        if let Some(warning) = settings.secure_warning(is_https, has_cookie, is_to_loopback) {
            state.warn(warning);
        }
        state.head.secure = settings.is_secure(is_https, is_to_loopback);
        state.tokens = tokens;
        if let Some((settings, warning)) = settings.for_host(request.host()) {
            state.by_host = Some(Arc::new(settings));
            warning.into_iter().for_each(|warning| state.warn(warning));
        }
        state.life = Life::Unopened;
    }

    /// Returns the session if it is loaded.
    pub(crate) fn loaded(self) -> Result<Self, Error> {
        let is_unopened = self.looked_at().life.is_unopened();
        if is_unopened && !self.opens_at_once() {
            Err(Error::NotLoaded)
        } else {
            Ok(self)
        }
    }

    /// Opens the session, unless it is open.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], if the backend cannot tell and
    /// [`OnStoreError::Fail`](crate::OnStoreError::Fail) is in force.
    pub(crate) fn open(&self, request: &dyn Any) -> BackendFuture<'static, Result<(), Error>> {
        let opening = {
            let state = self.lock();
            // What opens at once waits until the handler looks.
            if !state.life.is_unopened() || self.opens_at_once() {
                return BackendFuture::ready(Ok(()));
            }
            self.0
                .manager
                .opening(&state.tokens, self.settings(&state), request)
        };
        match opening.now() {
            Ok(opened) => BackendFuture::ready(self.opened(opened)),
            Err(opening) => {
                let session = self.clone();
                BackendFuture::pending(async move { session.opened(opening.await) })
            }
        }
    }

    /// Applies what the backend opened. If that failed, the session may read as empty and take no
    /// writes.
    pub(crate) fn opened(&self, opened: Result<OpenOutcome, Error>) -> Result<(), Error> {
        let mut state = self.lock();
        match opened {
            // A second caller got the same answer, and the session may have been written since.
            Ok(_) if !state.life.is_unopened() => {}
            Ok(opened) => {
                self.tell_opened(&mut state, &opened);
                state.open(opened, &self.0.manager);
            }
            Err(error @ Error::Unavailable { .. })
                if self.0.manager.settings().on_store_error() == OnStoreError::Anonymous =>
            {
                let why = crate::error::chain(&error);
                state.error(format!("{why}; the session reads as empty"));
                state.life = Life::ReadOnly;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Returns `true` if the session is opened only by an extractor or [`Manager::open`].
    ///
    /// Also without a cookie, so that a missing `open` fails for the first visitor, too.
    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn waits_for_demand(&self) -> bool {
        self.0.manager.settings().loads_on_demand() && !self.needs_response()
    }

    pub(super) fn opens_at_once(&self) -> bool {
        self.0.manager.backend().opens_at_once()
    }
}
