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
#[derive(Clone, Debug)]
pub struct Sessions {
    /// The one whose middleware is nearest to the handler.
    inner: Session,
    /// Whether those whose middleware is further out count too.
    all: bool,
}

impl Sessions {
    /// `inner`, and those around it.
    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn new(inner: Session) -> Self {
        Self { inner, all: true }
    }

    fn iter(&self) -> impl Iterator<Item = &Session> {
        std::iter::successors(Some(&self.inner), |session| {
            session.outer().filter(|_| self.all)
        })
    }

    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn inner(&self) -> &Session {
        &self.inner
    }

    /// Whether `manager` opened one of them.
    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn has(&self, manager: &Manager) -> bool {
        self.opened_by(manager).is_some()
    }

    /// Sees to it that each of them knows what the request says of it.
    #[cfg(feature = "actix")]
    pub(crate) fn read(&self, request: &dyn RequestHead) {
        self.iter().for_each(|session| session.read(request));
    }

    /// The session that `manager` opened.
    fn opened_by(&self, manager: &Manager) -> Option<&Session> {
        self.iter().find(|session| session.manager().is(manager))
    }

    fn own(&self) -> Session {
        let global = self.iter().find(|session| session.is_global());
        global.unwrap_or(&self.inner).clone()
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
        match session.open(&()).now() {
            Ok(opened) => BackendFuture::ready(opened.map(|()| session)),
            Err(opening) => BackendFuture::pending(async move {
                opening.await?;
                Ok(session)
            }),
        }
    }

    pub(super) fn of(&self, manager: &Manager) -> Session {
        self.opened_by(manager)
            .cloned()
            .unwrap_or_else(|| self.own())
    }
}

impl HasSession for Sessions {
    fn sessions(&self) -> Result<Sessions, Error> {
        Ok(self.clone())
    }
}

impl HasSession for Session {
    fn sessions(&self) -> Result<Sessions, Error> {
        Ok(Sessions {
            inner: self.clone(),
            all: false,
        })
    }
}
