//! What is particular to axum and tower.
#![cfg(all(feature = "axum", feature = "cookies"))]

use axum::{Router, http::Request, routing::get};
use session_manager::{Error, Key, Manager, Session, SignedCookie, manager};

#[test]
fn a_session_is_extracted_and_its_cookie_is_sent() {
    async fn count(session: Session) -> Result<String, Error> {
        let count = session.update("count", |count: Option<u32>| count.unwrap_or(0) + 1)?;
        Ok(count.to_string())
    }
    async fn read(request: Request<axum::body::Body>) -> Result<String, Error> {
        Ok(manager::get().get(&request, "count")?.unwrap_or_default())
    }
    let manager = Manager::new(SignedCookie::new(Key::generate()));
    let app = Router::new()
        .route("/", get(count))
        .route("/read", get(read))
        .layer(manager.middleware());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async { axum::serve(listener, app).await.unwrap() });
    let agent = ureq::agent();
    let get = |path: &str| {
        let url = format!("http://{address}{path}");
        agent
            .get(url)
            .call()
            .unwrap()
            .body_mut()
            .read_to_string()
            .unwrap()
    };
    assert_eq!([get("/"), get("/"), get("/read")], ["1", "2", "2"]);
}
