//! Server-side sessions on stores that need no server of their own, and moving sessions between backends.
//! The stores that need one are in `store_redis`, `store_sql` and `store_http`.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "testing")]
mod check_store;
mod migrate;
mod observe;
#[cfg(feature = "testing")]
mod revocations;
#[cfg(feature = "testing")]
mod server_side;
mod take;
#[cfg(all(feature = "testing", feature = "tower-sessions-0-14"))]
mod tower_sessions;
mod user_sessions;
