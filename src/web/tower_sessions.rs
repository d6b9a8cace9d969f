//! Crates written for tower-sessions on the request's own session.

mod store;

use std::{
    collections::HashMap,
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use http::{Request, Response};
use pin_project_lite::pin_project;
use serde_json::Value as Json;
use time::OffsetDateTime;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    Answer,
    bridge::{UserKey, json},
};
use crate::{
    changes::Changes,
    error::{Error, chain},
    expiry::Lifetime,
    future::BackendFuture,
    log::log,
    request::Sessions,
    session::Session,
    value::Value,
};

pub use store::StoreForTowerSessions;

type Data = HashMap<String, Json>;

/// The session of tower-sessions, in one of its versions.
pub(crate) trait Theirs: Clone + Send + Sync + 'static {
    /// Creates a session that is kept by `bridge`.
    fn new(bridge: Arc<Bridge<Self>>) -> Self;

    fn is_modified(&self) -> bool;

    fn has_id(&self) -> bool;

    /// Returns the expiry that the request set.
    fn until(&self) -> Option<Until>;

    /// Returns `true` if the session was flushed and nothing was inserted since.
    fn is_flushed(&self) -> impl Future<Output = bool> + Send;

    fn save(&self) -> impl Future<Output = Result<(), String>> + Send;
}

/// The expiry of tower-sessions.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Until {
    BrowserCloses,
    Unused(time::Duration),
    Date(OffsetDateTime),
}

/// The store of one request's tower-sessions session: it reads from the request's own session, and
/// writes the differences to it.
pub(crate) struct Bridge<T> {
    session: Session,
    user_key: Option<Arc<UserKey>>,
    known: Mutex<Known<T>>,
}

struct Known<T> {
    /// Their session, until the response: it owns this store, so the two would never be dropped.
    theirs: Option<T>,
    /// The values that their session was last known to have here.
    loaded: Option<Data>,
    /// The expiry that is the session's lifetime already.
    until: Option<Until>,
    is_renewed: bool,
    /// Why the last call failed: their error type has only a text.
    error: Option<Error>,
}

impl<T: Theirs> Bridge<T> {
    fn begin(session: Session, user_key: Option<Arc<UserKey>>) -> (Arc<Self>, T) {
        let bridge = Arc::new(Self {
            session,
            user_key,
            known: Mutex::new(Known {
                theirs: None,
                loaded: None,
                until: None,
                is_renewed: false,
                error: None,
            }),
        });
        let theirs = T::new(Arc::clone(&bridge));
        bridge.known().theirs = Some(theirs.clone());
        (bridge, theirs)
    }

    fn known(&self) -> MutexGuard<'_, Known<T>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn load(&self) -> Result<Data, Error> {
        self.session.open_for_handler().await?;
        let mut data = Data::new();
        for (key, value) in self.session.entries() {
            let json = json(value.borrowed()).map_err(|source| Error::WrongType {
                key: key.clone(),
                expected: "serde_json::Value",
                source,
            })?;
            data.insert(key, json);
        }
        self.known().loaded = Some(data.clone());
        Ok(data)
    }

    async fn save(&self, data: &Data) -> Result<(), Error> {
        let known = self.known().loaded.clone();
        let loaded = match known {
            Some(loaded) => loaded,
            // Cleared without being read.
            None => self.load().await?,
        };
        let lifetime = self.lifetime();
        if let Some((_, lifetime)) = lifetime {
            lifetime.check()?;
        }
        let mut changes = Changes::default();
        for key in loaded.keys().filter(|key| !data.contains_key(*key)) {
            changes.remove(key.as_str());
        }
        for (key, json) in data {
            if loaded.get(key) != Some(json) {
                changes.set(key.as_str(), encode(json));
            }
        }
        if let Some(user_key) = &self.user_key {
            user_key.set(&mut changes, &self.session);
        }
        if !changes.is_empty() {
            self.session.apply(changes)?;
        }
        if let Some((until, lifetime)) = lifetime {
            self.session.set_lifetime(lifetime)?;
            self.known().until = Some(until);
        }
        self.known().loaded = Some(data.clone());
        self.save_if_late().await
    }

    /// Returns the expiry that the request set since the last call, and the lifetime that it is here.
    fn lifetime(&self) -> Option<(Until, Lifetime)> {
        let (until, is_renewed) = {
            let known = self.known();
            let until = known.theirs.as_ref()?.until()?;
            (
                Some(until).filter(|_| known.until != Some(until))?,
                known.is_renewed,
            )
        };
        let positive = |span: time::Duration| Duration::try_from(span).unwrap_or_default();
        let settings = self.session.manager().settings();
        let lifetime = match until {
            Until::BrowserCloses => Lifetime::Browser,
            Until::Unused(idle) => {
                let idle = positive(idle);
                let absolute = settings.expiry().absolute.min(Lifetime::MAX).max(idle);
                Lifetime::Persistent { idle, absolute }
            }
            Until::Date(date) => {
                let now = settings.now();
                let millis = (date - OffsetDateTime::UNIX_EPOCH).whole_milliseconds();
                let millis = u64::try_from(millis).unwrap_or_default();
                let idle = Duration::from_millis(millis.saturating_sub(now.millis()));
                // A session that begins with the commit counts from then.
                let created = self.session.created().filter(|_| !is_renewed);
                let age = created.map_or(Duration::ZERO, |created| now.since(created));
                Lifetime::Persistent {
                    idle,
                    absolute: idle.saturating_add(age),
                }
            }
        };
        Some((until, lifetime))
    }

    /// Their `cycle_id` takes the id away before it deletes the old record; `flush` and `delete` do
    /// not.
    async fn delete(&self) -> Result<(), Error> {
        self.session.open_for_handler().await?;
        let is_renewed = {
            let mut known = self.known();
            known.is_renewed = known.theirs.as_ref().is_some_and(|theirs| !theirs.has_id());
            if !known.is_renewed {
                known.loaded = Some(Data::new());
            }
            known.is_renewed
        };
        if is_renewed {
            self.session.renew();
            return Ok(());
        }
        self.session.destroy();
        self.save_if_late().await
    }

    /// After the response, no commit follows.
    async fn save_if_late(&self) -> Result<(), Error> {
        match self.session.is_answered() {
            true => self.session.save().await,
            false => Ok(()),
        }
    }

    /// Brings the session up to what their session is when the response comes.
    async fn finish(self: Arc<Self>, theirs: T, keep: bool) -> Result<(), Error> {
        if theirs.is_flushed().await {
            // A `flush` after `cycle_id` calls no store.
            let had_values =
                |known: &Known<T>| known.loaded.as_ref().is_some_and(|it| !it.is_empty());
            if had_values(&self.known()) {
                self.session.destroy();
            }
            return Ok(());
        }
        if !keep {
            return Ok(());
        }
        theirs.save().await.map_err(|why| {
            let error = self.known().error.take();
            error.unwrap_or_else(|| Error::unavailable(Unsaved(why)))
        })
    }

    /// Returns their error for `result`, and keeps this crate's.
    fn keep_error<V>(&self, result: Result<V, Error>) -> Result<V, String> {
        result.map_err(|error| {
            let text = chain(&error).to_string();
            self.known().error = Some(error);
            text
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("tower-sessions did not save its session: {0}")]
struct Unsaved(String);

/// Shows the session's backend only.
impl<T> fmt::Debug for Bridge<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bridge").field(&self.session).finish()
    }
}

fn encode(json: &Json) -> Value {
    match json {
        Json::String(text) => Value::Text(text.as_str().into()),
        json => Value::Json(json.to_string().into()),
    }
}

/// Keeps a request's session connected to the layer until the response.
struct Connected<T>(Arc<Bridge<T>>, T);

impl<T> Drop for Connected<T> {
    fn drop(&mut self) {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let theirs = known.theirs.take();
        drop(known);
        drop(theirs);
    }
}

/// A service whose requests have a session of tower-sessions that is the request's own session: what
/// `TowerSessions` makes of a service.
#[derive(Clone, Debug)]
pub struct TowerSessionsService<S, T> {
    service: S,
    user_key: Option<Arc<UserKey>>,
    /// `fn() -> T`, because the service stores no session.
    theirs: std::marker::PhantomData<fn() -> T>,
}

impl<S, T, Req, Res> Service<Request<Req>> for TowerSessionsService<S, T>
where
    S: Service<Request<Req>, Response = Response<Res>> + Clone,
    Res: Default,
    T: Theirs,
{
    type Response = Response<Res>;
    type Error = S::Error;
    type Future = TowerSessionsFuture<S::Future, Result<Response<Res>, S::Error>, T>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Req>) -> Self::Future {
        // Call the service that reported ready, not its clone.
        let clone = self.service.clone();
        let mut service = mem::replace(&mut self.service, clone);
        let Some(sessions) = request.extensions().get::<Sessions>() else {
            let state = State::Refused;
            let connected = None;
            return TowerSessionsFuture { state, connected };
        };
        let (bridge, theirs) = Bridge::<T>::begin(sessions.own(), self.user_key.clone());
        request.extensions_mut().insert(theirs.clone());
        TowerSessionsFuture {
            state: State::Serving {
                served: service.call(request),
            },
            connected: Some(Connected(bridge, theirs)),
        }
    }
}

pin_project! {
    /// A request on its way through a [`TowerSessionsService`].
    pub struct TowerSessionsFuture<F, R, T> {
        #[pin]
        state: State<F, R>,
        connected: Option<Connected<T>>,
    }
}

pin_project! {
    #[project = Step]
    enum State<F, R> {
        Refused,
        Serving {
            #[pin]
            served: F,
        },
        Saving {
            saving: BackendFuture<'static, Result<(), Error>>,
            answer: Option<R>,
        },
    }
}

impl<F, R, T> Future for TowerSessionsFuture<F, R, T>
where
    F: Future<Output = R>,
    R: Answer,
    T: Theirs,
{
    type Output = R;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<R> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                Step::Refused => {
                    log!(
                        ERROR,
                        "the layer for tower-sessions found no session: mount \
                         `session_manager::manager::middleware()` outside of it, which in axum is a \
                         later call of `Router::layer`"
                    );
                    return Poll::Ready(R::refused(Error::NotMounted));
                }
                Step::Serving { served } => {
                    let answer = ready!(served.poll(context));
                    let Some(Connected(bridge, theirs)) = &*this.connected else {
                        return Poll::Ready(answer);
                    };
                    if !theirs.is_modified() {
                        return Poll::Ready(answer);
                    }
                    let settings = bridge.session.manager().settings();
                    let keep = answer.succeeded() || settings.commit_on_server_error();
                    let finish = Arc::clone(bridge).finish(theirs.clone(), keep);
                    this.state.set(State::Saving {
                        saving: BackendFuture::pending(finish),
                        answer: Some(answer),
                    });
                }
                Step::Saving { saving, answer } => {
                    let saved = ready!(Pin::new(saving).poll(context));
                    #[expect(clippy::expect_used, reason = "the contract of `Future`")]
                    let answer = answer.take().expect("polled after it was ready");
                    return Poll::Ready(match saved {
                        Ok(()) => answer,
                        Err(error) => R::refused(error),
                    });
                }
            }
        }
    }
}

impl<F, R, T> fmt::Debug for TowerSessionsFuture<F, R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TowerSessionsFuture")
            .finish_non_exhaustive()
    }
}

/// Writes the layer for one version of tower-sessions-core.
macro_rules! layer {
    ($(#[$docs:meta])* $name:ident, $core:ident) => {
        $(#[$docs])*
        #[derive(Clone, Debug, Default)]
        pub struct $name(Option<Arc<UserKey>>);

        impl $name {
            /// Creates the layer.
            pub fn new() -> Self {
                Self::default()
            }

            /// Sets the user of the session when `key` is written: `user` returns the user for the
            /// key's new value. [`Manager::user_sessions`](crate::Manager::user_sessions) then lists
            /// the session. It has no effect if the backend has no index of users.
            ///
            /// ```
            #[doc = concat!("use session_manager::web::", stringify!($name), ";")]
            ///
            /// // axum-login, with users whose id is a number.
            #[doc = concat!(
                "let layer = ", stringify!($name),
                "::new().user_key(\"axum-login.data\", |data| {"
            )]
            ///     Some(data["user_id"].as_i64()?.to_string())
            /// });
            /// ```
            #[must_use]
            pub fn user_key(
                self,
                key: &str,
                user: impl Fn(&Json) -> Option<String> + Send + Sync + 'static,
            ) -> Self {
                Self(Some(Arc::new(UserKey::new(key, user))))
            }
        }

        impl<S> Layer<S> for $name {
            type Service = TowerSessionsService<S, $core::Session>;

            fn layer(&self, service: S) -> Self::Service {
                TowerSessionsService {
                    service,
                    user_key: self.0.clone(),
                    theirs: std::marker::PhantomData,
                }
            }
        }

        impl Theirs for $core::Session {
            fn new(bridge: Arc<Bridge<Self>>) -> Self {
                // With an id, so that each of its methods calls the store. No store has the id.
                $core::Session::new(Some($core::session::Id::default()), bridge, None)
            }

            fn is_modified(&self) -> bool {
                $core::Session::is_modified(self)
            }

            fn has_id(&self) -> bool {
                self.id().is_some()
            }

            fn until(&self) -> Option<Until> {
                Some(match self.expiry()? {
                    $core::Expiry::OnSessionEnd => Until::BrowserCloses,
                    $core::Expiry::OnInactivity(span) => Until::Unused(span),
                    $core::Expiry::AtDateTime(date) => Until::Date(date),
                })
            }

            async fn is_flushed(&self) -> bool {
                self.is_empty().await
            }

            async fn save(&self) -> Result<(), String> {
                $core::Session::save(self).await.map_err(|error| error.to_string())
            }
        }

        #[async_trait]
        impl $core::SessionStore for Bridge<$core::Session> {
            async fn create(
                &self,
                record: &mut $core::session::Record,
            ) -> $core::session_store::Result<()> {
                $core::SessionStore::save(self, record).await
            }

            async fn save(
                &self,
                record: &$core::session::Record,
            ) -> $core::session_store::Result<()> {
                let saved = Bridge::save(self, &record.data).await;
                self.keep_error(saved).map_err($core::session_store::Error::Backend)
            }

            async fn load(
                &self,
                id: &$core::session::Id,
            ) -> $core::session_store::Result<Option<$core::session::Record>> {
                let data = Bridge::load(self).await;
                let data = self.keep_error(data).map_err($core::session_store::Error::Backend)?;
                Ok(Some($core::session::Record {
                    id: *id,
                    data,
                    // Only their stores read it.
                    expiry_date: OffsetDateTime::UNIX_EPOCH,
                }))
            }

            async fn delete(&self, _: &$core::session::Id) -> $core::session_store::Result<()> {
                let deleted = Bridge::delete(self).await;
                self.keep_error(deleted).map_err($core::session_store::Error::Backend)
            }
        }
    };
}

layer! {
    /// Gives each request a `Session` of tower-sessions-core 0.15 that is the request's own session, so
    /// that crates written for tower-sessions share it. For 0.14, as axum-login 0.18 and axum-messages
    /// 0.8 use it: `TowerSessions014`.
    ///
    /// Mount it inside of [`manager::middleware()`](crate::manager::middleware), and those crates'
    /// layers inside of it. No `SessionManagerLayer` is needed.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use session_manager::{manager, web::TowerSessions};
    /// use tower_sessions::{Session, session::Error};
    ///
    /// async fn next(session: &Session) -> Result<u32, Error> {
    ///     let count = session.get("count").await?.unwrap_or(0) + 1;
    ///     session.insert("count", count).await?;
    ///     Ok(count)
    /// }
    ///
    /// async fn count(session: Session) -> Result<String, String> {
    ///     let count = next(&session).await.map_err(|error| error.to_string())?;
    ///     Ok(count.to_string())
    /// }
    ///
    /// let app: Router = Router::new()
    ///     .route("/", get(count))
    ///     .layer(TowerSessions::new()) // inside …
    ///     .layer(manager::middleware()); // … of this
    /// ```
    ///
    /// Without the middleware outside of it, each request is answered by 500, and the log says why.
    ///
    /// | tower-sessions | here |
    /// |---|---|
    /// | first read or write of a request | reads the request's own session, with what this crate's API wrote before |
    /// | `load` | the same again; unsaved changes are dropped, as ever |
    /// | `save`, and the response if the session was modified | applies what differs from what was read, key by key; `manager::get()` sees it from then on |
    /// | after a server error | nothing is saved, unless [`commit_on_server_error`](crate::Builder::commit_on_server_error) is set |
    /// | `cycle_id` | [`renew`](crate::Session::renew), at once; a server error undoes it and keeps the session |
    /// | `flush`, `delete` | [`destroy`](crate::Session::destroy), at once; inserts afterwards begin a new session |
    /// | `clear` | removes each value, but no flash messages of this crate |
    /// | `set_expiry(OnInactivity)` | [`set_lifetime`](crate::Session::set_lifetime) with this idle timeout; the absolute one is the manager's, or this one if it is longer |
    /// | `set_expiry(AtDateTime)` | a lifetime that ends then; a date in the past is an error |
    /// | `set_expiry(OnSessionEnd)` | [`Lifetime::Browser`](crate::Lifetime::Browser) |
    /// | `expiry` | only what this request set |
    /// | a value that does not fit | an error of `save`, and at the response 500: `insert` cannot know the size |
    /// | `id` | random, and another one in each request: use [`handle`](crate::Session::handle) |
    /// | `is_empty` | `true` only after `flush` |
    ///
    /// The values are those of [`Session::entries`](crate::Session::entries): a string is
    /// [`Text`](crate::store::Value::Text), everything else JSON. Writes merge by key, as this crate's
    /// do: overlapping requests that write different keys lose nothing on a server-side backend.
    TowerSessions, tower_sessions_core
}

#[cfg(feature = "tower-sessions-0-14")]
layer! {
    /// [`TowerSessions`] for tower-sessions-core 0.14, as axum-login 0.18 and axum-messages 0.8 use it.
    TowerSessions014, tower_sessions_core_0_14
}
