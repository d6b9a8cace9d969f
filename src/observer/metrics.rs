//! An observer that counts with the crate `metrics`.

use ::metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

use super::{About, Event, Observer};

/// Counts events and measures store calls with the crate `metrics`, for Prometheus and other systems.
///
/// | metric | type | unit | labels beside `backend` and `cookie` |
/// |---|---|---|---|
/// | `session_created_total` | counter | sessions | |
/// | `session_renewed_total` | counter | sessions | |
/// | `session_user_set_total` | counter | sessions | |
/// | `session_migrated_total` | counter | sessions | |
/// | `session_destroyed_total` | counter | sessions | `by`: [`EndedBy`](super::EndedBy) |
/// | `session_expired_total` | counter | requests | |
/// | `session_refused_total` | counter | requests | `reason`: [`Refusal`](super::Refusal) |
/// | `session_too_large_total` | counter | writes | |
/// | `session_conflicts_total` | counter | writes | |
/// | `session_store_call_seconds` | histogram | seconds | `operation`: [`Operation`](super::Operation), `outcome`: [`CallOutcome`](super::CallOutcome) |
///
/// The label `backend` is the name of the backend, of a store call the name of the store; `cookie` is
/// the name of the manager's cookie. No label has a value that a client chooses, so their number is
/// bounded: by the managers of the program, times the variants of the enums.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use session_manager::{Manager, MemoryStore, ServerSide, observer::Metrics};
///
/// // After the recorder was installed.
/// let manager = Manager::builder(ServerSide::new(MemoryStore::new()))
///     .observe(Metrics::new())
///     .build()?;
/// # }
/// # Ok::<(), session_manager::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Metrics(());

impl Metrics {
    /// Describes the metrics to the recorder that is installed, and returns the observer.
    ///
    /// Install the recorder first, or its descriptions are missing.
    #[expect(clippy::new_without_default, reason = "it describes the metrics")]
    pub fn new() -> Self {
        for (name, what) in [
            (CREATED, "Sessions that were first stored or sent"),
            (RENEWED, "Sessions that got a new id"),
            (USER_SET, "Sessions whose user was set"),
            (MIGRATED, "Sessions that moved here from an older manager"),
            (DESTROYED, "Sessions that were ended"),
            (EXPIRED, "Requests with a session whose time was over"),
            (REFUSED, "Requests whose cookie or token opened nothing"),
            (TOO_LARGE, "Writes refused because of the session's size"),
            (
                CONFLICTS,
                "Writes computed again, because another was faster",
            ),
        ] {
            describe_counter!(name, Unit::Count, what);
        }
        describe_histogram!(
            STORE_CALL,
            Unit::Seconds,
            "How long calls of the session store take"
        );
        Self(())
    }
}

const CREATED: &str = "session_created_total";
const RENEWED: &str = "session_renewed_total";
const USER_SET: &str = "session_user_set_total";
const MIGRATED: &str = "session_migrated_total";
const DESTROYED: &str = "session_destroyed_total";
const EXPIRED: &str = "session_expired_total";
const REFUSED: &str = "session_refused_total";
const TOO_LARGE: &str = "session_too_large_total";
const CONFLICTS: &str = "session_conflicts_total";
const STORE_CALL: &str = "session_store_call_seconds";

impl Observer for Metrics {
    fn event(&self, event: Event, about: &About<'_>) {
        let backend = about.backend;
        let cookie = || about.cookie_name.to_owned();
        let count = |name: &'static str| {
            counter!(name, "backend" => backend, "cookie" => cookie()).increment(1);
        };
        match event {
            Event::Created => count(CREATED),
            Event::Renewed => count(RENEWED),
            Event::UserSet => count(USER_SET),
            Event::Migrated => count(MIGRATED),
            Event::Expired => count(EXPIRED),
            Event::TooLarge => count(TOO_LARGE),
            Event::Conflict => count(CONFLICTS),
            Event::Destroyed { by, count } => counter!(
                DESTROYED,
                "backend" => backend, "cookie" => cookie(), "by" => by.as_str()
            )
            .increment(count as u64),
            Event::Refused { why } => counter!(
                REFUSED,
                "backend" => backend, "cookie" => cookie(), "reason" => why.as_str()
            )
            .increment(1),
            Event::StoreCall {
                operation,
                took,
                outcome,
            } => histogram!(
                STORE_CALL,
                "backend" => backend, "cookie" => cookie(),
                "operation" => operation.as_str(), "outcome" => outcome.as_str()
            )
            .record(took.as_secs_f64()),
        }
    }
}
