//! The handlers of the bench applications, generic over the session crate.

use std::{cell::Cell, future::ready};

use actix_web::web::{self, ServiceConfig};
use axum::{
    Router,
    extract::{FromRequestParts, Path},
    routing::get,
};
use serde::Serialize;

/// The content of a session.
#[derive(Clone, Copy)]
pub(crate) struct Visitor {
    pub(crate) user: &'static str,
    pub(crate) name: &'static str,
    pub(crate) visits: u64,
}

/// The initial content of a session.
pub(crate) const STORED: Visitor = Visitor {
    user: "5f0c9a52-7b1e-4a5c-9d57-0f6f3c1e8b21",
    name: "Ada Lovelace",
    visits: 41,
};

thread_local! {
    /// The number of writes of this thread.
    static WRITES: Cell<u64> = const { Cell::new(0) };
}

/// Returns the content after the last write. It differs in all three keys from [`STORED`] (in a
/// cookie) and from the write before (in a store), because a crate may skip a write that changes
/// nothing.
fn last_written() -> Visitor {
    let writes = WRITES.get();
    let (user, name) = if writes.is_multiple_of(2) {
        ("c21f7d0e-93b4-4c1a-8a6e-52d90b7f4e63", "Grace Hopper")
    } else {
        ("0b8e4f36-2d7a-4f19-b6c3-7e15a9d0c842", "Annie Easley")
    };
    let visits = STORED.visits + writes;
    Visitor { user, name, visits }
}

/// The operations that the handlers use. The crates differ only in names and in whether the
/// operations are asynchronous; for synchronous crates the futures are ready at once.
pub(crate) trait Visit: 'static {
    fn text(&self, key: &str) -> impl Future<Output = Option<String>> + Send;
    fn number(&self, key: &str) -> impl Future<Output = Option<u64>> + Send;
    fn put(
        &self,
        key: &str,
        value: impl Serialize + Send + Sync,
    ) -> impl Future<Output = ()> + Send;
}

impl Visit for session_manager::Session {
    async fn text(&self, key: &str) -> Option<String> {
        self.get(key)
    }

    async fn number(&self, key: &str) -> Option<u64> {
        self.load(key).unwrap()
    }

    async fn put(&self, key: &str, value: impl Serialize + Send + Sync) {
        self.add(key, value).unwrap();
    }
}

/// This session is not `Sync`, so the futures must not borrow it.
impl Visit for actix_session::Session {
    fn text(&self, key: &str) -> impl Future<Output = Option<String>> + Send {
        ready(self.get(key).unwrap())
    }

    fn number(&self, key: &str) -> impl Future<Output = Option<u64>> + Send {
        ready(self.get(key).unwrap())
    }

    fn put(
        &self,
        key: &str,
        value: impl Serialize + Send + Sync,
    ) -> impl Future<Output = ()> + Send {
        self.insert(key, value).unwrap();
        ready(())
    }
}

impl Visit for tower_sessions::Session {
    async fn text(&self, key: &str) -> Option<String> {
        self.get(key).await.unwrap()
    }

    async fn number(&self, key: &str) -> Option<u64> {
        self.get(key).await.unwrap()
    }

    async fn put(&self, key: &str, value: impl Serialize + Send + Sync) {
        self.insert(key, value).await.unwrap();
    }
}

async fn untouched() -> &'static str {
    "done"
}

// The read handlers compare the values, so that a wrong read fails the bench.

async fn read_one(session: impl Visit) -> &'static str {
    assert_eq!(session.text("name").await.as_deref(), Some(STORED.name));
    untouched().await
}

async fn read_three(session: impl Visit, expected: Visitor) -> &'static str {
    assert_eq!(session.text("user").await.as_deref(), Some(expected.user));
    assert_eq!(session.text("name").await.as_deref(), Some(expected.name));
    assert_eq!(session.number("visits").await, Some(expected.visits));
    untouched().await
}

async fn put_three(session: impl Visit, visitor: Visitor) -> &'static str {
    session.put("user", visitor.user).await;
    session.put("name", visitor.name).await;
    session.put("visits", visitor.visits).await;
    untouched().await
}

/// Starts a session with `keys` keys.
async fn begin_large(session: impl Visit, keys: usize) -> &'static str {
    for key in 3..keys {
        session.put(&format!("key{key}"), "value").await;
    }
    put_three(session, STORED).await
}

async fn write_three(session: impl Visit) -> &'static str {
    WRITES.set(WRITES.get() + 1);
    put_three(session, last_written()).await
}

/// The paths that the rows request.
const PATHS: [&str; 4] = ["/untouched", "/read-one", "/read-three", "/write-three"];

/// Adds [`PATHS`] and the routes that start and check a session, for actix-web.
pub(crate) fn actix_routes<S: Visit + actix_web::FromRequest>(config: &mut ServiceConfig) {
    config
        .route("/untouched", web::get().to(untouched))
        .route("/read-one", web::get().to(|s: S| read_one(s)))
        .route("/read-three", web::get().to(|s: S| read_three(s, STORED)))
        .route("/write-three", web::get().to(|s: S| write_three(s)))
        .route("/begin", web::get().to(|s: S| put_three(s, STORED)))
        .route(
            "/written",
            web::get().to(|s: S| read_three(s, last_written())),
        );
}

/// Adds [`PATHS`] for an actix-web application without sessions.
pub(crate) fn bare_actix_routes(config: &mut ServiceConfig) {
    for path in PATHS {
        config.route(path, web::get().to(untouched));
    }
}

/// Returns all routes for axum, where sessions may be larger than a cookie.
pub(crate) fn axum_routes<S: Visit + FromRequestParts<()> + Send + Sync>() -> Router {
    Router::new()
        .route("/untouched", get(untouched))
        .route("/read-one", get(|s: S| read_one(s)))
        .route("/read-three", get(|s: S| read_three(s, STORED)))
        .route("/write-three", get(|s: S| write_three(s)))
        .route("/begin", get(|s: S| put_three(s, STORED)))
        .route("/written", get(|s: S| read_three(s, last_written())))
        .route(
            "/begin/{keys}",
            get(|Path(keys): Path<usize>, s: S| begin_large(s, keys)),
        )
}

pub(crate) fn bare_axum_routes() -> Router {
    let route = |router: Router, path| router.route(path, get(untouched));
    PATHS.into_iter().fold(Router::new(), route)
}
