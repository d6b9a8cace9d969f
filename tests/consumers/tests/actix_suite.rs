//! actix-session's own acceptance suite over the stores of this crate, taken from its source as it was
//! downloaded.

#![allow(dead_code, missing_docs, unused, reason = "not written here")]

include!(concat!(env!("OUT_DIR"), "/suite.rs"));

use session_manager::{MemoryStore, web::StoreForActixSession};

#[actix_web::test]
async fn memory_passes_the_acceptance_suite_of_actix_session() {
    let store = MemoryStore::default();
    let build = move || StoreForActixSession::new(store.clone());
    test_helpers::acceptance_test_suite(build, true).await;
}

#[cfg(feature = "servers")]
#[actix_web::test]
async fn sqlite_passes_the_acceptance_suite_of_actix_session() {
    let path = std::env::temp_dir().join(format!("suite-{}.db", std::process::id()));
    let path = path.to_str().unwrap().to_owned();
    let build = move || {
        StoreForActixSession::new(session_manager::SqliteStore::connect_lazy(&path).unwrap())
    };
    test_helpers::acceptance_test_suite(build, true).await;
}

/// The server's address is in `REDIS_URL`.
#[cfg(feature = "servers")]
#[actix_web::test]
#[ignore = "needs Redis"]
async fn redis_passes_the_acceptance_suite_of_actix_session() {
    let url = std::env::var("REDIS_URL").expect("REDIS_URL");
    let build =
        move || StoreForActixSession::new(session_manager::RedisStore::connect_lazy(&url).unwrap());
    test_helpers::acceptance_test_suite(build, true).await;
}
