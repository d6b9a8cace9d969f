//! What a manager needs of a request, whatever framework it came in.

use super::Manager;
#[cfg(any(feature = "actix", feature = "axum"))]
use crate::BackendFuture;
use crate::{
    Error, Session,
    cookie::{Found, SessionCookie},
};

/// What a manager reads of a request before its handler runs.
pub(crate) trait RequestHead {
    /// Finds the session cookie in the `Cookie` headers.
    fn find<'r>(&'r self, cookie: &SessionCookie) -> Found<'r>;

    /// Whether the request names a loopback host, came through no proxy, and does not say that it
    /// came over https.
    fn is_to_loopback(&self) -> bool;
}

/// A request whose session can be found: what the methods of [`Manager`] take as `&req`.
///
/// In actix-web: `HttpRequest`, `ServiceRequest`, `ServiceResponse` and `GuardContext`; in axum,
/// tonic and tower: `http::Request`, `http::request::Parts` and `http::Extensions`; and a
/// [`Session`] itself, wherever one is at hand instead. A type that wraps a request passes
/// [`sessions`](Self::sessions) on:
///
/// ```
/// use session_manager::{Error, HasSession, Sessions};
///
/// struct Page<R> { request: R }
///
/// impl<R: HasSession> HasSession for Page<R> {
///     fn sessions(&self) -> Result<Sessions, Error> {
///         self.request.sessions()
///     }
/// }
/// ```
pub trait HasSession {
    /// The sessions that middleware opened for the request.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], if there are none.
    fn sessions(&self) -> Result<Sessions, Error>;

    /// The request's own session: the one that follows the process-wide manager; if none does, the
    /// one whose middleware is nearest to the handler.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], if there is none; [`Error::NotLoaded`], if it is loaded on demand and
    /// nobody demanded it.
    fn session(&self) -> Result<Session, Error> {
        self.sessions()?.own().loaded()
    }
}

/// The sessions that middleware opened for one request, at least one.
///
/// Any of them leads to all: a manager finds its own session from every handle of the request.
#[derive(Clone, Debug)]
pub struct Sessions {
    /// The one that the handle knows: of a request, the one whose middleware is nearest to the handler.
    known: Session,
    /// Whether the handle is that session itself.
    is_session: bool,
}

impl Sessions {
    /// The sessions of a request, of which `nearest` is nearest to the handler.
    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn new(nearest: Session) -> Self {
        Self {
            known: nearest,
            is_session: false,
        }
    }

    /// The session nearest to the handler, and those around it.
    fn iter(&self) -> impl Iterator<Item = Session> {
        let nearest = std::iter::successors(Some(self.known.clone()), Session::inner).last();
        std::iter::successors(nearest, |session| session.outer().cloned())
    }

    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn known(&self) -> &Session {
        &self.known
    }

    /// Whether `manager` opened this session or one around it.
    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn has(&self, manager: &Manager) -> bool {
        let mut around = std::iter::successors(Some(&self.known), |session| session.outer());
        around.any(|session| session.manager().is(manager))
    }

    /// Sees to it that each of them knows what the request says of it.
    #[cfg(feature = "actix")]
    pub(crate) fn read(&self, request: &dyn RequestHead) {
        self.iter().for_each(|session| session.read(request));
    }

    fn own(&self) -> Session {
        // All there is, as a rule.
        if self.is_session || self.known.is_global() {
            return self.known.clone();
        }
        let global = self.iter().find(Session::is_global);
        // The iterator has one session at least.
        global
            .or_else(|| self.iter().next())
            .unwrap_or_else(|| self.known.clone())
    }

    /// The request's own session for an extractor: loaded now, if it is loaded on demand.
    #[cfg(any(feature = "actix", feature = "axum"))]
    pub(crate) fn extract(
        found: Result<&Self, Error>,
    ) -> BackendFuture<'static, Result<Session, Error>> {
        let session = match found {
            Ok(sessions) => sessions.own(),
            Err(error) => return BackendFuture::ready(Err(error)),
        };
        session.mark_looked();
        match session.open(&()).now() {
            Ok(opened) => BackendFuture::ready(opened.map(|()| session)),
            Err(opening) => BackendFuture::pending(async move {
                opening.await?;
                Ok(session)
            }),
        }
    }

    /// The session that `manager` opened; for one that is or was the process-wide manager, or else the
    /// request's own.
    pub(super) fn of(&self, manager: &Manager) -> Result<Session, Error> {
        let opened = |session: &Session| session.manager().is(manager);
        if opened(&self.known) {
            return Ok(self.known.clone());
        }
        match self.iter().find(opened) {
            Some(session) => Ok(session),
            None if manager.is_process_wide() => Ok(self.own()),
            None => Err(Error::NotMounted),
        }
    }
}

impl HasSession for Sessions {
    fn sessions(&self) -> Result<Sessions, Error> {
        Ok(self.clone())
    }
}

/// [`session`](HasSession::session) is the session itself; a manager finds the one that it opened for
/// the same request.
impl HasSession for Session {
    fn sessions(&self) -> Result<Sessions, Error> {
        Ok(Sessions {
            known: self.clone(),
            is_session: true,
        })
    }
}
