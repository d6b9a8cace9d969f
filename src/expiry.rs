//! Idle and absolute timeouts, and the clock that they are measured with.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A moment: milliseconds since 1970-01-01 00:00 UTC.
///
/// ```
/// use std::time::Duration;
/// use session_manager::Timestamp;
///
/// let begun = Timestamp::from_millis(1_000);
/// assert_eq!(begun.plus(Duration::from_secs(2)).millis(), 3_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// This moment and `span` more. Saturates: a timeout too long to express never ends.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(span.as_millis().try_into().unwrap_or(u64::MAX)),
        )
    }

    /// The time from `earlier` to this moment; zero if `earlier` is not earlier.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Where the present moment comes from: the system, or a test that moves it.
#[derive(Clone, Default)]
pub(crate) struct Clock(Option<Arc<dyn Fn() -> SystemTime + Send + Sync>>);

impl Clock {
    pub(crate) fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(now)))
    }

    pub(crate) fn now(&self) -> Timestamp {
        let now = self.0.as_ref().map_or_else(system_now, |now| now());
        // A clock set before 1970 reads as 1970: sessions then live longer, and nothing panics.
        Timestamp(0).plus(now.duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

/// The present moment, to a few milliseconds: every request asks twice or more, and in a loop of nothing else
/// the exact one took 34 ns where this took 3.
#[cfg(target_os = "linux")]
fn system_now() -> SystemTime {
    use rustix::time::{ClockId, clock_gettime};

    let now = clock_gettime(ClockId::RealtimeCoarse);
    let since = Duration::try_from(now).unwrap_or_default();
    UNIX_EPOCH + since
}

#[cfg(not(target_os = "linux"))]
fn system_now() -> SystemTime {
    SystemTime::now()
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Clock(custom)"
        } else {
            "Clock(system)"
        })
    }
}

/// How long sessions live: the idle and the absolute timeout of a manager.
///
/// Both are kept by the server, as OWASP's Session Management Cheat Sheet asks; what a browser does
/// with a cookie changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Expiry {
    pub(crate) idle: Duration,
    pub(crate) absolute: Duration,
}

impl Default for Expiry {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(24 * 60 * 60),
            absolute: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

impl Expiry {
    /// When a session begun at `created` and used at `now` ends if nobody uses it again.
    pub fn deadline(&self, created: Timestamp, now: Timestamp) -> Timestamp {
        now.plus(self.idle).min(created.plus(self.absolute))
    }

    /// Whether a session begun at `created`, kept until `expires`, is over at `now`.
    ///
    /// The absolute timeout counts from `created` by today's settings, so that shortening it ends
    /// old sessions at once.
    pub fn is_over(&self, created: Timestamp, expires: Timestamp, now: Timestamp) -> bool {
        now >= expires || now >= created.plus(self.absolute)
    }

    /// Whether a session in use at `now` should have its end, `expires`, moved.
    ///
    /// At most once per twentieth of the idle time: writing at every request would buy nothing.
    pub fn touch_due(&self, created: Timestamp, expires: Timestamp, now: Timestamp) -> bool {
        let gained = self.deadline(created, now).since(expires);
        !gained.is_zero() && gained >= self.idle / 20
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const BEGUN: Timestamp = Timestamp::from_millis(1_000_000);

    fn expiry() -> Expiry {
        Expiry {
            idle: 20 * MINUTE,
            absolute: 60 * MINUTE,
        }
    }

    #[test]
    fn a_session_ends_at_the_idle_timeout_and_never_after_the_absolute_one() {
        let expiry = expiry();
        assert_eq!(expiry.deadline(BEGUN, BEGUN), BEGUN.plus(20 * MINUTE));
        assert_eq!(
            expiry.deadline(BEGUN, BEGUN.plus(50 * MINUTE)),
            BEGUN.plus(60 * MINUTE)
        );
        let expires = BEGUN.plus(20 * MINUTE);
        assert!(!expiry.is_over(
            BEGUN,
            expires,
            BEGUN.plus(20 * MINUTE - Duration::from_millis(1))
        ));
        assert!(expiry.is_over(BEGUN, expires, expires));
        let long = BEGUN.plus(600 * MINUTE);
        assert!(
            expiry.is_over(BEGUN, long, BEGUN.plus(60 * MINUTE)),
            "settings were shortened"
        );
    }

    #[test]
    fn a_touch_is_due_once_per_twentieth_of_the_idle_time_and_not_at_the_very_end() {
        let expiry = expiry();
        let expires = BEGUN.plus(20 * MINUTE);
        assert!(!expiry.touch_due(BEGUN, expires, BEGUN));
        assert!(!expiry.touch_due(BEGUN, expires, BEGUN.plus(Duration::from_secs(59))));
        assert!(expiry.touch_due(BEGUN, expires, BEGUN.plus(MINUTE)));
        let last = BEGUN.plus(60 * MINUTE);
        assert!(
            !expiry.touch_due(BEGUN, last, BEGUN.plus(59 * MINUTE)),
            "nothing left to gain"
        );
    }

    #[test]
    fn extreme_timeouts_and_clocks_never_panic() {
        let forever = Expiry {
            idle: Duration::MAX,
            absolute: Duration::MAX,
        };
        let end = forever.deadline(BEGUN, BEGUN);
        assert_eq!(end, Timestamp::from_millis(u64::MAX));
        assert!(!forever.is_over(BEGUN, end, BEGUN));
        assert!(!forever.touch_due(BEGUN, end, BEGUN.plus(MINUTE)));
        let before_1970 = Clock::new(|| UNIX_EPOCH - MINUTE);
        assert_eq!(before_1970.now(), Timestamp::from_millis(0));
    }
}
