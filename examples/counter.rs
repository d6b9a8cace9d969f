//! Counts visits in axum: the counterpart of the tower-sessions example of the same name.
//!
//! `cargo run --example counter --features axum,memory`, then <http://127.0.0.1:3000>.

use std::time::Duration;

use axum::{Router, routing::get};
use session_manager::{Error, Manager, MemoryStore, ServerSide, Session, manager};

async fn handler(session: Session) -> Result<String, Error> {
    // `update` also counts overlapping visits correctly.
    let count = session.update("counter", |count: Option<usize>| count.unwrap_or(0) + 1)?;
    Ok(format!("Current count: {}", count - 1))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manager = Manager::builder(ServerSide::new(MemoryStore::new()))
        .secure(false)
        .idle_timeout(Duration::from_secs(10));
    manager::set(manager.build()?);
    let app = Router::new()
        .route("/", get(handler))
        .layer(manager::middleware());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, app).await?;
    Ok(())
}
