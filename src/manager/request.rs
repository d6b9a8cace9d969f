//! What a manager needs of a request, whatever framework it came in.

use std::{any::Any, sync::Arc};

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

    /// Whether the request came over plain http to a loopback host, and through no proxy.
    fn is_http_to_loopback(&self) -> bool;

    /// The request as the framework has it: see [`Opening::request`](crate::Opening::request).
    fn framework(&self) -> &dyn Any;
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
    session: Session,
    is_global: bool,
    /// Those whose middleware is further out.
    outer: Option<Arc<Sessions>>,
}

impl Sessions {
    pub(crate) fn new(session: Session, is_global: bool, outer: Option<Self>) -> Self {
        Self {
            session,
            is_global,
            outer: outer.map(Arc::new),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |sessions| sessions.outer.as_deref())
    }

    /// Whether `manager` opened one of them.
    pub(super) fn has(&self, manager: &Manager) -> bool {
        self.opened_by(manager).is_some()
    }

    /// The session that `manager` opened.
    fn opened_by(&self, manager: &Manager) -> Option<&Session> {
        self.iter()
            .map(|sessions| &sessions.session)
            .find(|session| session.manager().is(manager))
    }

    fn own(&self) -> Session {
        self.iter()
            .find(|sessions| sessions.is_global)
            .unwrap_or(self)
            .session
            .clone()
    }

    /// The request's own session for an extractor: loaded now, if it is loaded on demand.
    #[cfg(any(feature = "actix", feature = "axum"))]
    pub(crate) fn extract(
        found: Result<Self, Error>,
    ) -> BackendFuture<'static, Result<Session, Error>> {
        let session = match found {
            Ok(sessions) => sessions.own(),
            Err(error) => return BackendFuture::ready(Err(error)),
        };
        match session.clone().loaded() {
            Err(Error::NotLoaded) => BackendFuture::pending(async move {
                session.open().await?;
                Ok(session)
            }),
            loaded => BackendFuture::ready(loaded),
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
            session: self.clone(),
            is_global: false,
            outer: None,
        })
    }
}
