//! actix-session's own acceptance suite over the stores of this crate, taken from its source as it was
//! downloaded.

#![allow(dead_code, missing_docs, unused, reason = "not written here")]

include!(concat!(env!("OUT_DIR"), "/suite.rs"));

use consumers::on_each_store;
use session_manager::{Store, web::StoreForActixSession};

on_each_store!(passes_the_acceptance_suite_of_actix_session);

async fn passes_the_acceptance_suite_of_actix_session<S: Store>(
    build: impl Fn() -> S + Clone + Send + 'static,
) {
    let build = move || StoreForActixSession::new(build());
    test_helpers::acceptance_test_suite(build, true).await;
}
