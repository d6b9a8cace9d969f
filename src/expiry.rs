//! Idle and absolute timeouts, and the clock that measures them.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{error::Error, value::Value};

/// A point in time, in milliseconds since the Unix epoch (1970-01-01 00:00 UTC).
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
    /// Creates the timestamp `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since the epoch.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Returns the timestamp `span` later. Saturates: a timeout too long to express never ends.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(span.as_millis().try_into().unwrap_or(u64::MAX)),
        )
    }

    /// Returns the time from `earlier` to this timestamp, or zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The source of the current time: the system clock, or a function that a test controls.
#[derive(Clone, Default)]
pub(crate) struct Clock(Option<Arc<dyn Fn() -> SystemTime + Send + Sync>>);

impl Clock {
    pub(crate) fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(now)))
    }

    pub(crate) fn now(&self) -> Timestamp {
        let now = self.0.as_ref().map_or_else(SystemTime::now, |now| now());
        // A clock before 1970 reads as 1970: sessions live longer, and nothing panics.
        Timestamp(0).plus(now.duration_since(UNIX_EPOCH).unwrap_or_default())
    }
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

/// The idle and absolute timeouts of a manager.
///
/// The server enforces both, as OWASP's Session Management Cheat Sheet requires. The lifetime of
/// the browser's cookie does not extend them.
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
    /// Returns when a session created at `created` expires if its last use is at `now`.
    pub fn deadline(&self, created: Timestamp, now: Timestamp) -> Timestamp {
        now.plus(self.idle).min(created.plus(self.absolute))
    }

    /// Returns the timeouts of a session with a lifetime of its own.
    pub(crate) fn with(self, lifetime: Option<Lifetime>) -> Self {
        match lifetime {
            Some(Lifetime::Persistent { idle, absolute }) => Self { idle, absolute },
            Some(Lifetime::Browser) | None => self,
        }
    }

    /// Returns `true` if a session created at `created` that expires at `expires` is over at `now`.
    ///
    /// The absolute timeout of the current settings counts from `created`, so shortening it ends
    /// old sessions at once.
    pub fn is_over(&self, created: Timestamp, expires: Timestamp, now: Timestamp) -> bool {
        now >= expires || now >= created.plus(self.absolute)
    }

    /// Returns `true` if a session used at `now` should have its expiry time `expires` extended.
    ///
    /// This is due at most once per twentieth of the idle timeout, to avoid a write per request.
    pub fn touch_due(&self, created: Timestamp, expires: Timestamp, now: Timestamp) -> bool {
        let gained = self.deadline(created, now).since(expires);
        !gained.is_zero() && gained >= self.idle / 20
    }
}

/// The lifetime of one session, which [`Session::set_lifetime`](crate::Session::set_lifetime) sets in
/// place of the manager's.
///
/// ```
/// use std::time::Duration;
/// use session_manager::{Error, Lifetime, Session};
///
/// const DAY: Duration = Duration::from_secs(24 * 60 * 60);
///
/// fn log_in(session: &Session, remember_me: bool) -> Result<(), Error> {
///     session.renew();
///     session.set_lifetime(match remember_me {
///         true => Lifetime::Persistent { idle: 30 * DAY, absolute: 90 * DAY },
///         false => Lifetime::Browser,
///     })
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lifetime {
    /// Until the browser is closed: the cookie has no `Max-Age`. The manager's timeouts apply.
    Browser,
    /// Also after the browser is closed: the cookie has a `Max-Age`.
    Persistent {
        /// The idle timeout of this session.
        idle: Duration,
        /// The absolute timeout of this session.
        absolute: Duration,
    },
}

impl Lifetime {
    /// The longest timeout of a session: browsers keep no cookie for more than 400 days (RFC
    /// 6265bis, section 5.5).
    pub const MAX: Duration = Duration::from_secs(400 * 24 * 60 * 60);

    /// The key under which a session stores its lifetime.
    pub(crate) const KEY: &str = "\u{2}lifetime";

    pub(crate) fn check(self) -> Result<(), Error> {
        let Self::Persistent { idle, absolute } = self else {
            return Ok(());
        };
        let why = if idle.as_millis() == 0 || absolute.as_millis() == 0 {
            "a timeout of it is zero, so that the session would be over at once"
        } else if idle > absolute {
            "its idle timeout is longer than its absolute timeout, and would have no effect"
        } else if absolute > Self::MAX {
            "its absolute timeout is longer than 400 days, the most that a browser keeps a cookie"
        } else {
            return Ok(());
        };
        Err(Error::InvalidLifetime { why })
    }

    /// Returns what a session stores under [`KEY`](Self::KEY) in place of `former`. A cookie that was
    /// made before may still be with the client, so the longest absolute timeout is kept too.
    pub(crate) fn encode(self, former: Option<Value<&str>>) -> Value {
        let (mut text, own) = match self {
            Self::Browser => ("browser".to_owned(), Duration::ZERO),
            Self::Persistent { idle, absolute } => {
                let text = format!("{} {}", idle.as_millis(), absolute.as_millis());
                (text, absolute)
            }
        };
        let longest = Self::longest(former);
        if longest > own {
            text = format!("{text} {}", longest.as_millis());
        }
        Value::Text(text.into())
    }

    /// Returns the lifetime that a session stores under [`KEY`](Self::KEY), if it has one.
    pub(crate) fn decode(value: Option<Value<&str>>) -> Option<Self> {
        Self::parse(value).map(|(lifetime, _)| lifetime)
    }

    /// Returns the longest absolute timeout of its own that a session ever had, from the value under
    /// [`KEY`](Self::KEY).
    pub(crate) fn longest(value: Option<Value<&str>>) -> Duration {
        Self::parse(value).map_or(Duration::ZERO, |(_, longest)| longest)
    }

    fn parse(value: Option<Value<&str>>) -> Option<(Self, Duration)> {
        let value = value?;
        let mut parts = value.as_str().split(' ');
        let millis = |text: &str| text.parse().ok().map(Duration::from_millis);
        let (lifetime, own) = match parts.next()? {
            "browser" => (Self::Browser, Duration::ZERO),
            idle => {
                let (idle, absolute) = (millis(idle)?, millis(parts.next()?)?);
                (Self::Persistent { idle, absolute }, absolute)
            }
        };
        let longest = parts.next().map_or(Some(own), millis)?;
        parts.next().is_none().then_some((lifetime, longest))
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
    fn a_lifetime_is_read_as_it_was_written() {
        let persistent = Lifetime::Persistent {
            idle: MINUTE,
            absolute: Lifetime::MAX,
        };
        for lifetime in [Lifetime::Browser, persistent] {
            lifetime.check().unwrap();
            let value = lifetime.encode(None);
            assert_eq!(Lifetime::decode(Some(value.borrowed())), Some(lifetime));
        }
        let long = persistent.encode(None);
        let short = Lifetime::Browser.encode(Some(long.borrowed()));
        let short = Lifetime::Browser.encode(Some(short.borrowed()));
        assert_eq!(
            Lifetime::decode(Some(short.borrowed())),
            Some(Lifetime::Browser)
        );
        assert_eq!(Lifetime::longest(Some(short.borrowed())), Lifetime::MAX);
        for text in [
            "",
            "x",
            "1",
            "1 ",
            "1 2 3 4",
            "browser 1 2",
            "-1 2",
            "99999999999999999999 1",
        ] {
            assert_eq!(Lifetime::decode(Some(Value::Text(text))), None, "{text}");
        }
    }

    #[test]
    fn a_lifetime_without_effect_is_an_error() {
        let zero = Duration::from_nanos(1);
        let day = Duration::from_secs(24 * 60 * 60);
        for (idle, absolute) in [
            (zero, day),
            (day, Duration::ZERO),
            (2 * day, day),
            (day, Lifetime::MAX + day),
            (Duration::MAX, Duration::MAX),
        ] {
            let refused = Lifetime::Persistent { idle, absolute }.check();
            assert!(
                matches!(refused, Err(Error::InvalidLifetime { .. })),
                "{idle:?}"
            );
        }
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
