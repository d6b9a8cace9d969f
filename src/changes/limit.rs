//! How many sessions a user may have at once.

#[cfg(feature = "server-side")]
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// What becomes of a log-in by which a user would have more sessions than
/// [`Session::set_user_limited`](crate::Session::set_user_limited) allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evict {
    /// The user's oldest sessions end, as many as needed: those that began or were renewed first. A
    /// log-in that renews its session counts from there.
    Oldest,
    /// The log-in is refused, and the user's sessions stay.
    Refuse,
}

/// The limit of a user's sessions that a log-in keeps.
#[cfg(feature = "server-side")]
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    pub(crate) max: usize,
    pub(crate) evict: Evict,
    /// The token that the session gets if the commit creates it.
    pub(crate) token: Box<str>,
    /// The place that is reserved for it, unless that is left to the commit.
    pub(crate) place: Option<Arc<Place>>,
}

/// A reserved place. It is given back when the last handle is dropped: after a request that failed, or
/// whose client went away.
#[cfg(feature = "server-side")]
pub(crate) struct Place(Mutex<Option<Release>>);

#[cfg(feature = "server-side")]
type Release = Box<dyn FnOnce() + Send>;

#[cfg(feature = "server-side")]
impl Place {
    /// Creates a place that `release` gives back.
    pub(crate) fn new(release: impl FnOnce() + Send + 'static) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(Box::new(release)))))
    }

    /// Leaves it to the caller to give the place back.
    pub(crate) fn disarm(&self) {
        drop(self.take());
    }

    fn take(&self) -> Option<Release> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(feature = "server-side")]
impl Drop for Place {
    fn drop(&mut self) {
        if let Some(release) = self.take() {
            release();
        }
    }
}

#[cfg(feature = "server-side")]
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place(..)")
    }
}
