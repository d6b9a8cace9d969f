//! What the applications of every bench do with a session, whichever crate keeps it.

use std::{cell::Cell, future::ready};

use actix_web::web::{self, ServiceConfig};
use axum::{
    Router,
    extract::{FromRequestParts, Path},
    routing::get,
};
use serde::Serialize;

/// What a session holds.
#[derive(Clone, Copy)]
pub(crate) struct Visitor {
    pub(crate) user: &'static str,
    pub(crate) name: &'static str,
    pub(crate) visits: u64,
}

/// What a session holds from its beginning.
pub(crate) const STORED: Visitor = Visitor {
    user: "5f0c9a52-7b1e-4a5c-9d57-0f6f3c1e8b21",
    name: "Ada Lovelace",
    visits: 41,
};

thread_local! {
    /// How often this thread wrote.
    static WRITES: Cell<u64> = const { Cell::new(0) };
}

/// What the last write wrote. It changes all three keys, because a crate may leave out a write of
/// what is there: in a cookie [`STORED`], and in a store what the write before it wrote.
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

/// The operations that the handlers use; the crates differ in their names alone, and in whether they
/// wait. Of two that do not, what they return is there at once.
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

/// Its session cannot be sent to another thread, and neither could what borrows it.
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

// What is read is compared at once, so that no request counts that read anything else.

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

/// Begins a session of so many keys.
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

/// What the rows ask for.
const PATHS: [&str; 4] = ["/untouched", "/read-one", "/read-three", "/write-three"];

/// These for actix-web, and what begins and checks a session.
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

/// The same for an application without sessions.
pub(crate) fn bare_actix_routes(config: &mut ServiceConfig) {
    for path in PATHS {
        config.route(path, web::get().to(untouched));
    }
}

/// The same for axum, where sessions may also be larger than a cookie.
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
