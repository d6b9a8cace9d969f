//! For tests: the suite that every [`Store`](crate::Store) passes, and sessions without a server.
//!
//! The author of a store runs [`check_store`] on it, against the real thing:
//!
//! ```
//! # #[cfg(feature = "memory")] {
//! use session_manager::{MemoryStore, testing};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # runtime.block_on(async {
//! testing::check_store(MemoryStore::new()).await;
//! # });
//! # }
//! ```

mod fake;
mod store_suite;

pub use fake::session;
pub use store_suite::check_store;
