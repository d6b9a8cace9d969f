//! Opening a session: before the handler runs, at its first look, or on demand.

use std::{
    any::Any,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::Inner;
use crate::{
    backend::OpenOutcome,
    error::Error,
    future::BackendFuture,
    manager::Manager,
    session::{
        Session,
        state::{Life, State},
    },
    settings::OnStoreError,
};
#[cfg(any(feature = "actix", feature = "tower"))]
use crate::{cookie::RequestHead, observer::Event};

impl Session {
    /// Creates the session of a request that begins.
    pub(crate) fn new(
        manager: Arc<Manager>,
        is_global: bool,
        is_https: bool,
        outer: Option<Self>,
    ) -> Self {
        let session = Self(Arc::new(Inner {
            manager,
            is_global,
            is_https,
            outer,
            inner: Mutex::default(),
            state: Mutex::default(),
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

    /// Parses the request head, once if it says anything of the session.
    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn read(&self, request: &dyn RequestHead) {
        let slot = self.slot();
        if slot.life().is_some_and(|life| life != Life::Unread) {
            return;
        }
        let (manager, is_https) = (&self.0.manager, self.0.is_https);
        let settings = manager.settings();
        let (tokens, refused) = manager.tokens(request);
        let has_cookie = tokens.own.is_some();
        let warning = settings.secure_warning(is_https, has_cookie, || request.is_to_loopback());
        let is_to_loopback = settings.goes_by_host(is_https) && request.is_to_loopback();
        let by_host = settings.for_host(request.host());
        let says_nothing =
            tokens.is_empty() && warning.is_none() && !is_to_loopback && by_host.is_none();
        if says_nothing && slot.life().is_none() {
            return;
        }
        let mut state = self.locked(slot);
        if let Some((why, text)) = refused {
            state.warn(settings.refused(text));
            self.tell(&mut state, Event::Refused { why });
        }
        if let Some(warning) = warning {
            state.warn(warning);
        }
        state.head.is_to_loopback = is_to_loopback;
        state.tokens = tokens;
        if let Some((settings, warning)) = by_host {
            state.by_host = Some(Arc::new(settings));
            warning.into_iter().for_each(|warning| state.warn(warning));
        }
        state.life = Life::Unopened;
    }

    /// Returns the session if it is loaded, or opens at once.
    pub(crate) fn loaded(self) -> Result<Self, Error> {
        let opening = {
            let mut state = self.looked_at();
            if state.life.is_unopened() && !self.opens_at_once() {
                return Err(Error::NotLoaded);
            }
            self.begin_open(&mut state, &())
        };
        match opening.map(BackendFuture::now) {
            None => {}
            Some(Ok(opened)) => self.opened(opened)?,
            // The backend broke its word: it has to be awaited.
            Some(Err(_)) => return Err(Error::NotLoaded),
        }
        Ok(self)
    }

    /// Opens the session before its handler runs. Returns what is left to be awaited.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], if the backend cannot tell and
    /// [`OnStoreError::Fail`](crate::OnStoreError::Fail) is in force.
    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn open(
        &self,
        request: &dyn Any,
    ) -> Option<BackendFuture<'static, Result<(), Error>>> {
        let opening = self.begin_open(&mut self.lock(), request);
        self.finish_open(opening)
    }

    /// Opens the session, unless it is open, for a handler that asks for it.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub(crate) fn open_for_handler(&self) -> BackendFuture<'static, Result<(), Error>> {
        let opening = self.begin_open(&mut self.looked_at(), &());
        let rest = self.finish_open(opening);
        rest.unwrap_or_else(|| BackendFuture::ready(Ok(())))
    }

    fn finish_open(
        &self,
        opening: Option<BackendFuture<'static, Result<OpenOutcome, Error>>>,
    ) -> Option<BackendFuture<'static, Result<(), Error>>> {
        match opening?.now() {
            Ok(opened) => match self.opened(opened) {
                Ok(()) => None,
                error => Some(BackendFuture::ready(error)),
            },
            Err(opening) => {
                let session = self.clone();
                let opened = async move { session.opened(opening.await) };
                Some(BackendFuture::pending(opened))
            }
        }
    }

    /// Opens the session for a handler that asks for it. Returns what is left to be awaited.
    fn begin_open(
        &self,
        state: &mut State,
        request: &dyn Any,
    ) -> Option<BackendFuture<'static, Result<OpenOutcome, Error>>> {
        let manager = &self.0.manager;
        let is_at_once = self.opens_at_once();
        // A cookie waits until the session is read: what it holds stays the same.
        if !state.life.is_unopened() || is_at_once && self.needs_response() {
            return None;
        }
        let settings = self.settings(state);
        match is_at_once.then(|| manager.opened_now(&state.tokens, settings)) {
            Some(Some(Ok(opened))) => {
                self.tell_opened(state, &opened);
                state.open(opened, manager);
                None
            }
            Some(Some(error)) => Some(BackendFuture::ready(error)),
            _ => Some(manager.opening(&state.tokens, settings, request)),
        }
    }

    /// Opens a session that opens at once when it is first read or written.
    pub(super) fn open_at_look(&self, state: &mut State) {
        if !state.life.is_unopened() || !self.opens_at_once() {
            return;
        }
        let manager = &self.0.manager;
        let settings = self.settings(state);
        let opened = manager
            .opened_now(&state.tokens, settings)
            .or_else(|| manager.opening(&state.tokens, settings, &()).now().ok());
        if let Some(Ok(opened)) = opened {
            self.tell_opened(state, &opened);
            state.open(opened, manager);
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

    /// Returns `true` if the session is opened when its handler asks for it, without waiting.
    pub(crate) fn opens_at_once(&self) -> bool {
        let manager = &self.0.manager;
        let is_on_demand = manager.settings().loads_on_demand() && !self.needs_response();
        !is_on_demand && manager.backend().opens_at_once()
    }
}
