//! Deleting expired rows, again and again.

use std::{fmt, time::Duration};

use tokio::{task::JoinHandle, time};

use super::{Dialect, SqlStore};
use crate::log::log;

/// Sweeps for as long as it is held; see `start_sweeping` of a store.
#[must_use = "dropping it ends the sweeping"]
pub struct SweepHandle(JoinHandle<()>);

impl SweepHandle {
    pub(crate) fn start<D: Dialect>(store: SqlStore<D>, every: Duration) -> Self {
        Self(tokio::spawn(async move {
            loop {
                match store.sweep().await {
                    Ok(swept) => log!(DEBUG, "{}: {swept} sessions whose time is over", D::NAME),
                    Err(error) => log!(ERROR, "sweeping sessions failed: {error}"),
                }
                // Never a busy loop, whatever the application says.
                time::sleep(every.max(Duration::from_millis(10))).await;
            }
        }))
    }

    /// Ends the sweeping.
    pub fn stop(self) {}
}

impl Drop for SweepHandle {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for SweepHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SweepHandle")
            .field("stopped", &self.0.is_finished())
            .finish()
    }
}
