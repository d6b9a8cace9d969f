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
    let url = format!("sqlite://{}", path.display());
    // Creates the table.
    session_manager::SqliteStore::connect(&url).await.unwrap();
    let build = move || {
        StoreForActixSession::new(session_manager::SqliteStore::connect_lazy(&url).unwrap())
    };
    test_helpers::acceptance_test_suite(build, true).await;
    std::fs::remove_file(path).unwrap();
}

/// One test per store on a server, whose address is in an environment variable.
#[cfg(feature = "servers")]
macro_rules! on_a_server {
    ($($test:ident: $store:ident at $variable:literal;)+) => {
        $(
            #[actix_web::test]
            #[ignore = "needs the server that tests/run.sh starts"]
            async fn $test() {
                let url = std::env::var($variable).expect($variable);
                // Creates the table of a database.
                session_manager::$store::connect(&url).await.unwrap();
                let build = move || {
                    StoreForActixSession::new(session_manager::$store::connect_lazy(&url).unwrap())
                };
                test_helpers::acceptance_test_suite(build, true).await;
            }
        )+
    };
}

#[cfg(feature = "servers")]
on_a_server! {
    redis_passes_the_acceptance_suite_of_actix_session: RedisStore at "SESSION_TEST_REDIS";
    postgres_passes_the_acceptance_suite_of_actix_session: PostgresStore at "SESSION_TEST_POSTGRES";
    mysql_passes_the_acceptance_suite_of_actix_session: MySqlStore at "SESSION_TEST_MYSQL";
}
