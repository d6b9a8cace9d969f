//! What a manager needs of a request, whatever framework it came in.

pub(crate) mod typed_key;
pub(crate) mod users;

use serde::{Serialize, de::DeserializeOwned};

#[cfg(feature = "actix")]
use crate::cookie::RequestHead;
#[cfg(any(feature = "actix", feature = "axum"))]
use crate::future::BackendFuture;
use crate::{error::Error, manager::Manager, message::Message, session::Session};

/// A request whose session can be found: what the methods of [`Manager`] take as `&req`.
///
/// In actix-web: `HttpRequest`, `ServiceRequest`, `ServiceResponse` and `GuardContext`; in axum,
/// tonic and tower: `http::Request`, `http::request::Parts` and `http::Extensions`; and a
/// [`Session`] or [`Sessions`] itself, wherever one is at hand instead. A type that wraps a request
/// passes [`sessions`](Self::sessions) on:
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
    /// Returns the sessions that middleware opened for the request.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], if there are none.
    fn sessions(&self) -> Result<Sessions, Error>;

    /// Returns the request's own session: the one that follows the process-wide manager; if none
    /// does, the one whose middleware is nearest to the handler.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], if there is none; [`Error::NotLoaded`], if it is loaded on demand and
    /// it is not loaded yet.
    fn session(&self) -> Result<Session, Error> {
        self.sessions()?.own().loaded()
    }
}

/// The sessions that middleware opened for one request, at least one.
///
/// Any of them leads to all: a manager finds its own session from every handle of the request.
#[derive(Clone, Debug)]
pub struct Sessions {
    /// The one that the handle knows: of a request, the one whose middleware is nearest to the
    /// handler.
    known: Session,
    /// Whether the handle is that session itself.
    is_session: bool,
}

impl Sessions {
    /// Creates the sessions of a request, of which `nearest` is nearest to the handler.
    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn new(nearest: Session) -> Self {
        Self {
            known: nearest,
            is_session: false,
        }
    }

    /// Iterates over the session nearest to the handler and those around it.
    fn iter(&self) -> impl Iterator<Item = Session> {
        let nearest = std::iter::successors(Some(self.known.clone()), Session::inner).last();
        std::iter::successors(nearest, |session| session.outer().cloned())
    }

    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn known(&self) -> &Session {
        &self.known
    }

    /// Returns `true` if `manager` opened this session or one around it.
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

    pub(crate) fn own(&self) -> Session {
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

    /// Returns the request's own session for an extractor: loaded now, if it is loaded on demand.
    #[cfg(any(feature = "actix", feature = "axum"))]
    pub(crate) fn extract(
        found: Result<&Self, Error>,
    ) -> BackendFuture<'static, Result<Session, Error>> {
        let session = match found {
            Ok(sessions) => sessions.own(),
            Err(error) => return BackendFuture::ready(Err(error)),
        };
        match session.open_for_handler().now() {
            Ok(opened) => BackendFuture::ready(opened.map(|()| session)),
            Err(opening) => BackendFuture::pending(async move {
                opening.await?;
                Ok(session)
            }),
        }
    }

    /// Returns the session that `manager` opened; for one that is or was the process-wide manager,
    /// or else the request's own.
    fn of(&self, manager: &Manager) -> Result<Session, Error> {
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

/// The session of a request, and what is done with it.
impl Manager {
    /// Returns the session that this manager opened for `req`. The process-wide manager, and one
    /// that was it before, returns the request's own session if it opened none.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`] if no middleware opened one; [`Error::NotLoaded`] if the session is
    /// loaded on demand and was not asked for yet.
    pub fn session(&self, req: &(impl HasSession + ?Sized)) -> Result<Session, Error> {
        req.sessions()?.of(self)?.loaded()
    }

    /// Returns the session of `req`, loaded now if it is loaded on demand
    /// ([`Builder::load_on_demand`](crate::Builder::load_on_demand)). The `Session` extractor does
    /// the same.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], and [`Error::Unavailable`], if the backend cannot tell.
    pub fn open<R: HasSession + ?Sized>(
        &self,
        req: &R,
    ) -> impl Future<Output = Result<Session, Error>> + Send + use<R> {
        let session = req.sessions().and_then(|sessions| sessions.of(self));
        async move {
            let session = session?;
            session.open_for_handler().await?;
            Ok(session)
        }
    }

    /// Calls [`Session::add`] on the session of `req`.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], and as [`Session::add`].
    #[doc(alias("insert", "set", "put"))]
    pub fn add(
        &self,
        req: &(impl HasSession + ?Sized),
        key: &str,
        value: impl Serialize,
    ) -> Result<(), Error> {
        self.session(req)?.add(key, value)
    }

    /// Calls [`Session::get`] on the session of `req`.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`].
    #[doc(alias("get_string", "read"))]
    pub fn get(
        &self,
        req: &(impl HasSession + ?Sized),
        key: &str,
    ) -> Result<Option<String>, Error> {
        Ok(self.session(req)?.get(key))
    }

    /// Calls [`Session::pop`] on the session of `req`.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`].
    #[doc(alias("remove", "unset", "delete"))]
    pub fn pop(
        &self,
        req: &(impl HasSession + ?Sized),
        key: &str,
    ) -> Result<Option<String>, Error> {
        Ok(self.session(req)?.pop(key))
    }

    /// Calls [`Session::load`] on the session of `req`.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], and as [`Session::load`].
    #[doc(alias("get_as", "get_value"))]
    pub fn load<T: DeserializeOwned>(
        &self,
        req: &(impl HasSession + ?Sized),
        key: &str,
    ) -> Result<Option<T>, Error> {
        self.session(req)?.load(key)
    }

    /// Calls [`Session::pop_load`] on the session of `req`.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], and as [`Session::pop_load`].
    #[doc(alias("remove", "unset", "remove_as", "remove_value"))]
    pub fn pop_load<T: DeserializeOwned>(
        &self,
        req: &(impl HasSession + ?Sized),
        key: &str,
    ) -> Result<Option<T>, Error> {
        self.session(req)?.pop_load(key)
    }

    /// Calls [`Session::flash`] on the session of `req`.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`], and as [`Session::flash`].
    #[doc(alias("message", "notice"))]
    pub fn flash(
        &self,
        req: &(impl HasSession + ?Sized),
        message: impl Into<Message>,
    ) -> Result<(), Error> {
        self.session(req)?.flash(message)
    }

    /// Calls [`Session::flashes`] on the session of `req`.
    ///
    /// # Errors
    ///
    /// [`Error::NotMounted`].
    #[doc(alias("messages"))]
    pub fn flashes(&self, req: &(impl HasSession + ?Sized)) -> Result<Vec<Message>, Error> {
        Ok(self.session(req)?.flashes())
    }
}

impl HasSession for Sessions {
    fn sessions(&self) -> Result<Sessions, Error> {
        Ok(self.clone())
    }
}

/// [`session`](HasSession::session) is the session itself; a manager finds the one that it opened
/// for the same request.
impl HasSession for Session {
    fn sessions(&self) -> Result<Sessions, Error> {
        Ok(Sessions {
            known: self.clone(),
            is_session: true,
        })
    }
}
