//! Crates written for actix-session on the request's own session.

use std::{
    collections::HashMap,
    fmt,
    future::{Ready, ready},
    marker::PhantomData,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use actix_session::{SessionExt, SessionStatus};
use actix_web::{
    HttpMessage,
    dev::{self, Service, ServiceRequest, ServiceResponse, Transform},
};
use pin_project_lite::pin_project;
use serde_json::value::RawValue;

use super::{json, value};
use crate::{
    changes::Changes,
    error::Error,
    future::BackendFuture,
    log::log,
    request::HasSession,
    session::Session,
    web::{Answer, bridge::UserKey},
};

/// Gives each request an `actix_session::Session` with the values of the request's own session, so that
/// crates written for actix-session, such as actix-identity, share it.
///
/// Mount it inside of [`manager::middleware()`](crate::manager::middleware), and those crates'
/// middleware inside of it. No `SessionMiddleware` is needed.
///
/// ```
/// use actix_session::Session;
/// use actix_web::{App, web};
/// use session_manager::{manager, web::ActixSessions};
///
/// async fn count(session: Session) -> actix_web::Result<String> {
///     let count: u32 = session.get("count")?.unwrap_or(0) + 1;
///     session.insert("count", count)?;
///     Ok(count.to_string())
/// }
///
/// let app = App::new()
///     .route("/", web::get().to(count))
///     .wrap(ActixSessions::new()) // inside …
///     .wrap(manager::middleware()); // … of this
/// ```
///
/// Without the middleware outside of it, each request is answered by 500, and the log says why.
///
/// | actix-session | here |
/// |---|---|
/// | before the handler | the session gets the values of the request's own session. What this crate's API writes later is not seen there |
/// | at the response | what differs is applied, key by key; middleware outside of this one sees it in `manager::get()` |
/// | `update` | saved, which `SessionMiddleware` forgets |
/// | `renew` | [`renew`](crate::Session::renew) |
/// | `purge` | [`destroy`](crate::Session::destroy), also after a server error; what is inserted afterwards is dropped, as ever |
/// | `clear` | removes each value, but no flash messages of this crate |
/// | `status` | `Changed` from the start if the session has values, because actix-session can only be filled by inserting |
/// | a server error | saves nothing, unless [`commit_on_server_error`](crate::Builder::commit_on_server_error) is set |
/// | a value that does not fit | the response is 500 |
/// | a value that is not JSON for actix-session | the response is 500, and nothing changes |
///
/// Every request opens its session, also with
/// [`load_on_demand`](crate::Builder::load_on_demand), and its response has `Vary: Cookie`: the methods
/// of `actix_session::Session` cannot wait for a store.
///
/// Writes merge by key, as this crate's do: overlapping requests that write different keys lose nothing
/// on a server-side backend.
#[derive(Clone, Debug, Default)]
pub struct ActixSessions(Option<Arc<UserKey>>);

impl ActixSessions {
    /// Creates the middleware.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the user of the session when `key` is written: `user` returns the user for the key's new
    /// value. [`Manager::user_sessions`](crate::Manager::user_sessions) then lists the session. It has
    /// no effect if the backend has no index of users.
    ///
    /// ```
    /// use session_manager::web::ActixSessions;
    ///
    /// // actix-identity.
    /// let layer = ActixSessions::new().user_key("actix_identity.user_id", |id| {
    ///     Some(id.as_str()?.to_owned())
    /// });
    /// ```
    #[must_use]
    pub fn user_key(
        self,
        key: &str,
        user: impl Fn(&serde_json::Value) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(UserKey::new(key, user))))
    }
}

impl<S, B> Transform<S, ServiceRequest> for ActixSessions
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: 'static,
{
    type Response = ServiceResponse<B>;
    type Error = actix_web::Error;
    type InitError = ();
    type Transform = ActixSessionsService<S>;
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(ActixSessionsService {
            service: Rc::new(service),
            user_key: self.0.clone(),
        }))
    }
}

/// A service whose requests have an `actix_session::Session` that is the request's own session: what
/// [`ActixSessions`] makes of a service.
#[derive(Debug)]
pub struct ActixSessionsService<S> {
    service: Rc<S>,
    user_key: Option<Arc<UserKey>>,
}

impl<S, B> Service<ServiceRequest> for ActixSessionsService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: 'static,
{
    type Response = ServiceResponse<B>;
    type Error = actix_web::Error;
    type Future = ActixSessionsFuture<S, S::Future, B>;

    dev::forward_ready!(service);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let session = request.sessions().map(|sessions| sessions.own());
        let state = match session {
            Err(error) => {
                log!(
                    ERROR,
                    "the middleware for actix-session found no session: mount \
                     `session_manager::manager::middleware()` outside of it, which in actix-web is a \
                     later call of `App::wrap`"
                );
                State::Refused { error: Some(error) }
            }
            // With the backend `ActixSession` it is the same session already; of two such middlewares,
            // the outer one serves.
            Ok(session) if !session.is_live() && !is_served(&request) => State::Opening {
                opening: open(&session),
                call: Some((session, Rc::clone(&self.service), request)),
            },
            Ok(_) => State::Serving {
                served: self.service.call(request),
                visit: None,
            },
        };
        ActixSessionsFuture {
            state,
            user_key: self.user_key.clone(),
            body: PhantomData,
        }
    }
}

/// Marks a request that an [`ActixSessions`] serves.
struct Served;

fn is_served(request: &ServiceRequest) -> bool {
    request.extensions().contains::<Served>()
}

fn open(session: &Session) -> BackendFuture<'static, Result<(), Error>> {
    session.open_for_handler()
}

/// One request: its own session, the one of actix-session, and what the latter had at the start.
struct Visit {
    session: Session,
    theirs: actix_session::Session,
    before: HashMap<String, String>,
}

impl Visit {
    fn begin(session: Session, request: &ServiceRequest) -> Result<Self, Error> {
        request.extensions_mut().insert(Served);
        let theirs = request.get_session();
        if !theirs.entries().is_empty() {
            return Err(Error::unavailable(Taken));
        }
        for (key, value) in session.entries() {
            let text = json(value.borrowed());
            let raw =
                serde_json::from_str::<&RawValue>(&text).map_err(|source| Error::WrongType {
                    key: key.clone(),
                    expected: "JSON",
                    source,
                })?;
            theirs.insert(&*key, raw).map_err(Error::unavailable)?;
        }
        let before = theirs.entries().clone();
        Ok(Self {
            session,
            theirs,
            before,
        })
    }

    /// Applies what the request did to the session of actix-session. The commit drops it again if the
    /// response is a server error.
    fn end(&self, user_key: Option<&UserKey>) -> Result<(), Error> {
        let status = self.theirs.status();
        if status == SessionStatus::Purged {
            // Dropping this value ends the session.
            return Ok(());
        }
        let mut changes = Changes::default();
        if status == SessionStatus::Renewed {
            changes.renew();
        }
        let after = self.theirs.entries();
        for key in self.before.keys().filter(|key| !after.contains_key(*key)) {
            changes.remove(key.as_str());
        }
        for (key, json) in after.iter() {
            if self.before.get(key) != Some(json) {
                changes.set(key.as_str(), value(json));
            }
        }
        if let Some(user_key) = user_key {
            user_key.set(&mut changes, &self.session);
        }
        match changes.is_empty() {
            true => Ok(()),
            false => self.session.apply(changes),
        }
    }
}

/// Ends a purged session, also if the handler panicked or the client went away.
impl Drop for Visit {
    fn drop(&mut self) {
        if self.theirs.status() == SessionStatus::Purged {
            self.session.destroy();
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "the request has an actix-session with values already: mount either `ActixSessions` or \
     `actix_session::SessionMiddleware`, not both"
)]
struct Taken;

pin_project! {
    /// A request on its way through an [`ActixSessionsService`].
    pub struct ActixSessionsFuture<S, F, B> {
        #[pin]
        state: State<S, F>,
        user_key: Option<Arc<UserKey>>,
        body: PhantomData<B>,
    }
}

pin_project! {
    #[project = Step]
    enum State<S, F> {
        Refused {
            error: Option<Error>,
        },
        Opening {
            opening: BackendFuture<'static, Result<(), Error>>,
            call: Option<(Session, Rc<S>, ServiceRequest)>,
        },
        Serving {
            #[pin]
            served: F,
            visit: Option<Visit>,
        },
    }
}

impl<S, B> Future for ActixSessionsFuture<S, S::Future, B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error>,
{
    type Output = Result<ServiceResponse<B>, actix_web::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                Step::Refused { error } => {
                    #[expect(clippy::expect_used, reason = "the contract of `Future`")]
                    let error = error.take().expect("polled after it was ready");
                    return Poll::Ready(Answer::refused(error));
                }
                Step::Opening { opening, call } => {
                    let opened = ready!(Pin::new(opening).poll(context));
                    #[expect(clippy::expect_used, reason = "this state is left with it")]
                    let (session, service, request) = call.take().expect("served once");
                    let visit = opened.and_then(|()| Visit::begin(session, &request));
                    this.state.set(match visit {
                        Ok(visit) => State::Serving {
                            served: service.call(request),
                            visit: Some(visit),
                        },
                        Err(error) => State::Refused { error: Some(error) },
                    });
                }
                Step::Serving { served, visit } => {
                    let answer: Self::Output = ready!(served.poll(context));
                    let Some(visit) = visit.take() else {
                        return Poll::Ready(answer);
                    };
                    return Poll::Ready(match visit.end(this.user_key.as_deref()) {
                        Ok(()) => answer,
                        Err(error) => Answer::refused(error),
                    });
                }
            }
        }
    }
}

impl<S, F, B> fmt::Debug for ActixSessionsFuture<S, F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActixSessionsFuture")
            .finish_non_exhaustive()
    }
}
