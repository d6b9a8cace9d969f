//! What happened to sessions, as the observer is told.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use session_manager::{
    Observer,
    observer::{About, Event},
};

/// How many events are kept, of all sessions together.
const MAX: usize = 500;

/// The last events. Clones share them.
#[derive(Clone, Default)]
pub(super) struct History(Arc<Mutex<VecDeque<Entry>>>);

/// An event, and what it is about.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) at: Instant,
    pub(super) event: Event,
    pub(super) backend: &'static str,
    handle: Option<String>,
}

impl History {
    /// Returns the events of the session with this handle, the newest first. Without a handle, as with a
    /// backend that keeps sessions in cookies: the events that are about no handle.
    pub(super) fn of(&self, handle: Option<&str>) -> Vec<Entry> {
        let entries = self.lock();
        let own = entries.iter().rev();
        own.filter(|entry| entry.handle.as_deref() == handle)
            .cloned()
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for History {
    fn event(&self, event: Event, about: &About<'_>) {
        let entry = Entry {
            at: Instant::now(),
            event,
            backend: about.backend,
            handle: about.handle.map(str::to_owned),
        };
        let mut entries = self.lock();
        if entries.len() == MAX {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    fn wants_names(&self) -> bool {
        true
    }
}

/// Shows no handle.
impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History")
            .field("events", &self.lock().len())
            .finish()
    }
}
