//! The time limit of a store call.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use super::StoreError;

/// Waits for the call of the store with this name, but no longer than `limit`.
pub(crate) async fn limited<T>(
    store: &'static str,
    limit: Duration,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    within(limit, call).await.unwrap_or_else(|| {
        Err(StoreError::TimedOut {
            store,
            millis: limit.as_millis().try_into().unwrap_or(u64::MAX),
        })
    })
}

/// Waits no longer than `limit`.
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    // What is there at once needs no timer: 0.04 to 0.08 µs in place of 0.6 to 0.8.
    let mut future = pin!(future);
    let at_once = poll_fn(|context| Poll::Ready(future.as_mut().poll(context)));
    if let Poll::Ready(done) = at_once.await {
        return Some(done);
    }
    tokio::time::timeout(limit, future).await.ok()
}
