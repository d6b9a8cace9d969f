//! What can go wrong, and what to do about it.

/// Why an operation on a session failed. Each text says what to do.
///
/// In a response it is opaque: a status and its standard phrase, nothing of what is told here. Only the
/// response for [`NotMounted`](Self::NotMounted) shows its text, and only in a debug build.
///
/// `Debug` prints the same text as `Display`: it is what `main` prints when it returns an error,
/// and it quotes nothing that was stored.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No middleware opened a session for this request.
    #[error(
        "no session was opened for this request: mount `session_manager::manager::middleware()` \
         around the route that was called (`App::wrap` in actix-web, `Router::layer` in axum). Order \
         matters: add it after the middleware that uses the session, because the last one added runs \
         first, and in axum after the routes, because `layer` applies only to routes added before it. \
         If it is mounted, the program may have a second session-manager: Cargo refuses two versions, \
         but not a copy without `links` in its manifest; `cargo tree -d` shows both"
    )]
    NotMounted,

    /// The session would take more room than its backend has for one, so nothing was stored and all
    /// is as it was.
    #[error(
        "the session would take {size} bytes{}, and may take no more than {limit}: store less in it. \
         Browsers set the limit of a cookie, and `ServerSide::max_size` that of a session on the \
         server",
        key.as_ref().map(|key| format!(" with the new value of `{key}`")).unwrap_or_default()
    )]
    #[non_exhaustive]
    TooLarge {
        /// What it would take, in bytes: of a cookie the whole `Set-Cookie` value, on the server
        /// all keys and values.
        size: usize,
        /// The most that it may take, in bytes.
        limit: usize,
        /// The key whose value did not fit. `None` if it was a flash message or a note, or if the
        /// session as a whole did not fit at the commit.
        key: Option<String>,
    },

    /// JSON cannot express the value, or the value is nested too deeply to be read again. What was
    /// stored under the key before is still there.
    #[error(
        "the value for the session key `{key}` cannot be kept as JSON, which has no maps with keys \
         other than strings and no infinite numbers, and is read no deeper than 127 arrays and \
         objects; what was stored before is kept"
    )]
    Unserializable {
        /// The key.
        key: String,
        /// What JSON had against it.
        source: serde_json::Error,
    },

    /// What is stored is not of the type asked for. It is still there.
    ///
    /// The source may quote what is stored; this text does not.
    #[error(
        "the value under the session key `{key}` is no {expected}: load it as the type that was \
         added, or `get` its text; it is kept as it is"
    )]
    WrongType {
        /// The key.
        key: String,
        /// The type asked for.
        expected: &'static str,
        /// Where the value differs from the type.
        source: serde_json::Error,
    },

    /// Keys that begin with U+0001 or U+0002 belong to session-manager itself, and U+0000 is no
    /// character that every store can hold in a key.
    #[error("a session key must not begin with U+0001 or U+0002, nor hold U+0000: choose another")]
    ReservedKey,

    /// The response head is on its way, and what was done reaches the client only with it: what a
    /// cookie backend keeps, and everywhere a session that begins, moves or gets a new id.
    #[error(
        "the response head was already sent, and this reaches the client only with it: what an \
         backend keeps in a cookie, and a session that begins, moves or is renewed. Do it before the \
         handler returns; a server-side session that has begun takes writes later, too"
    )]
    HeadSent,

    /// The backend could not be asked when the request came, and
    /// [`OnStoreError::Anonymous`](crate::OnStoreError::Anonymous) lets it be read as empty; a
    /// write would be lost.
    #[error(
        "the session could not be opened, so it reads as empty and takes no writes \
         (`OnStoreError::Anonymous`): try again when the store is back"
    )]
    ReadOnly,

    /// Another request ended or renewed the session, so this one's changes are dropped.
    #[error("the session was ended or renewed meanwhile, and what was done to it is dropped")]
    Ended,

    /// Code of the caller that computes from a value changes that value each time it runs: the
    /// function given to [`update`](crate::Session::update), or the type's `Deserialize`.
    #[error(
        "the function given to `update`, or the type's `Deserialize`, changes the session key `{key}` \
         itself each time it runs, so that its result never fits: let it only compute"
    )]
    UpdateLoop {
        /// The key.
        key: String,
    },

    /// The backend cannot tell which of two overlapping requests was first, because it keeps the
    /// session in a cookie of each, or other code keeps it.
    #[error(
        "the backend `{backend}` cannot do this exactly once: of two overlapping requests it cannot \
         tell which was first, because each brings its own copy of the session. Use a server-side \
         backend (`ServerSide`) for one-time values and balances; a session that was found in an \
         older manager's cookie allows it once it has migrated"
    )]
    NeedsStore {
        /// [`Manager::backend_name`](crate::Manager::backend_name).
        backend: &'static str,
    },

    /// The backend could not open or keep the session.
    #[error("the session backend does not answer: see the source of this error")]
    Unavailable {
        /// What the backend said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The backend cannot find a user's sessions.
    #[error(
        "the backend `{backend}` cannot find a user's sessions, because it keeps none of them on the \
         server or has no index of users: use a server-side backend whose store has one. A cookie \
         backend can revoke all of a user's sessions with `Builder::revocations`"
    )]
    NoUserIndex {
        /// [`Manager::backend_name`](crate::Manager::backend_name).
        backend: &'static str,
    },

    /// The user has as many sessions as
    /// [`set_user_limited`](crate::Session::set_user_limited) allows, and
    /// [`Evict::Refuse`](crate::Evict::Refuse) keeps them.
    #[error(
        "the user has as many sessions as allowed ({max}), so this one is not the user's: end one of \
         them first, or evict the oldest (`Evict::Oldest`)"
    )]
    TooManySessions {
        /// The most sessions that the user may have.
        max: usize,
    },

    /// A user may have no session at all.
    #[error(
        "a limit of 0 sessions lets no user log in: allow at least 1, or call `set_user` for no limit"
    )]
    ZeroLimit,

    /// The backend's index of users cannot limit how many sessions a user has.
    #[error(
        "the backend `{backend}` cannot limit how many sessions a user has, because its store does not \
         implement `UserIndex::limit`: implement it, or use another store"
    )]
    NoUserLimit {
        /// [`Manager::backend_name`](crate::Manager::backend_name).
        backend: &'static str,
    },

    /// A session cannot have this lifetime.
    #[error("the session keeps its lifetime, because the new one is invalid: {why}")]
    InvalidLifetime {
        /// What is wrong with it.
        why: &'static str,
    },

    /// Other code keeps the session and decides how long it lasts.
    #[error(
        "the backend `{backend}` cannot set a session's lifetime: configure the middleware that keeps \
         the session"
    )]
    NoLifetime {
        /// [`Manager::backend_name`](crate::Manager::backend_name).
        backend: &'static str,
    },

    /// The session is loaded on demand, and is not loaded yet. The same for a request without a cookie.
    #[error(
        "the session is not loaded (`load_on_demand`): take `Session` as an extractor, or call \
         `manager.open(&req).await` first"
    )]
    NotLoaded,

    /// There is no session whose end could be awaited: the request has none, and nothing was written.
    #[error(
        "the session is not stored, so it cannot end: write to it before you await `ended`, or check \
         that the visitor is logged in"
    )]
    NotStored,

    /// No backend is compiled in, and no manager was set.
    #[error(
        "there is no session backend: call `session_manager::manager::set` at start-up, or turn on \
         the feature `cookies` of session-manager for its default"
    )]
    NoBackend,
}

/// What a browser would drop in silence, said when a manager is built.
///
/// `Debug` prints the same text as `Display`.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The cookie's name is not a token of RFC 6265.
    #[error(
        "`{name}` is no name for a cookie: use ASCII letters, digits and any of !#$%&'*+-.^_`|~ \
         (RFC 6265bis, section 4.1.1)"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// An attribute's value holds what would end it, or is longer than 1,024 bytes.
    #[error(
        "`{value}` is no value for the cookie's {attribute}: it must be visible ASCII without `;`, \
         of 1 to 1,024 bytes, and a path begins with `/` (RFC 6265bis, section 4.1.1)"
    )]
    Attribute {
        /// `Path` or `Domain`.
        attribute: &'static str,
        /// The value.
        value: String,
    },
    /// The name's prefix asks for an attribute that another setting rules out.
    #[error(
        "a browser drops a cookie whose name begins with `{prefix}` unless {rule} (RFC 6265bis, \
         section 4.1.3): change the setting or the name"
    )]
    Prefix {
        /// The prefix.
        prefix: &'static str,
        /// What it demands.
        rule: &'static str,
    },
    /// An attribute that browsers take only with `Secure`, and `secure(false)`.
    #[error(
        "a browser drops a cookie with `{attribute}` that is not `Secure`: leave out `secure(false)`"
    )]
    Insecure {
        /// `SameSite=None` or `Partitioned`.
        attribute: &'static str,
    },
    /// Sessions that other code keeps can move neither there nor from there.
    #[error(
        "sessions can move neither to nor from the backend `{backend}`, because other code keeps them: \
         leave out `migrate_from`"
    )]
    CannotMigrate {
        /// [`Manager::backend_name`](crate::Manager::backend_name).
        backend: &'static str,
    },
    /// [`cookie_domain_for`](crate::Builder::cookie_domain_for) on a manager that migrates sessions,
    /// or on the one that they migrate from.
    #[error(
        "`cookie_domain_for` cannot be used with `migrate_from`: the sessions of one of the two \
         managers belong to no tenant. Leave out `migrate_from`; sessions from before then end"
    )]
    MigrationByHost,
    /// The backend keeps its sessions in a store, or other code keeps them.
    #[error(
        "the backend `{backend}` has no cookies to revoke: leave out `revocations`; a server-side \
         session ends in its store"
    )]
    CannotRevoke {
        /// [`Manager::backend_name`](crate::Manager::backend_name).
        backend: &'static str,
    },
    /// A session's token cannot travel in a header of this name.
    #[error("the carrier `{name}` is invalid: {rule}")]
    Carrier {
        /// The name of the header.
        name: String,
        /// Which rule it breaks, and what to do.
        rule: &'static str,
    },
    /// The application set an idle timeout that is longer than the absolute timeout.
    #[error(
        "the idle timeout of {} has no effect, because the absolute timeout ends every session after \
         {}: call `absolute_timeout` with at least the idle timeout, or shorten `idle_timeout`",
        span(*idle), span(*absolute)
    )]
    IdleTimeoutTooLong {
        /// The idle timeout that was set.
        idle: std::time::Duration,
        /// The absolute timeout.
        absolute: std::time::Duration,
    },
    /// A timeout of zero, with which no session would ever be found again.
    #[error("the {which} timeout is zero, so that no session would outlive its own request")]
    ZeroTimeout {
        /// `idle` or `absolute`.
        which: &'static str,
    },
}

/// `main` prints the `Debug` form of the error that it returns, and that should say what to do.
macro_rules! debug_as_display {
    ($($error:ty),*) => {
        $(impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        })*
    };
}

debug_as_display!(Error, ConfigError);
pub(crate) use debug_as_display;

/// Formats an error for a log line. The source of [`Error::Unavailable`] belongs to it; that of a
/// value's errors does not, because it may quote the value.
pub(crate) fn chain(error: &Error) -> impl std::fmt::Display {
    let mut text = error.to_string();
    if let Error::Unavailable { source } = error {
        let mut next: Option<&dyn std::error::Error> = Some(&**source);
        while let Some(source) = next {
            text += ": ";
            text += &source.to_string();
            next = source.source();
        }
    }
    text
}

/// Returns `duration` in the largest unit that divides it.
fn span(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_nanos() > 0 || seconds == 0 {
        return format!("{duration:?}");
    }
    for (unit, name) in [(86_400, "days"), (3_600, "hours"), (60, "minutes")] {
        if seconds.is_multiple_of(unit) && seconds > unit {
            return format!("{} {name}", seconds / unit);
        }
    }
    format!("{seconds} seconds")
}

impl Error {
    /// Returns the HTTP status of a response that stands for the error.
    #[cfg(any(feature = "actix", feature = "tower"))]
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Unavailable { .. } | Self::ReadOnly => 503,
            _ => 500,
        }
    }

    /// Creates [`Error::TooLarge`] for a session that would take `size` bytes and may take `limit`.
    pub fn too_large(size: usize, limit: usize) -> Self {
        let key = None;
        Self::TooLarge { size, limit, key }
    }

    /// Creates [`Error::Unavailable`] from the error of a backend.
    pub fn unavailable(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unavailable {
            source: Box::new(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_has_two_spaces_in_a_row() {
        let json = || serde_json::from_str::<u8>("x").unwrap_err();
        let key = String::new;
        let backend = "backend";
        let errors = [
            Error::NotMounted,
            Error::too_large(2, 1),
            Error::Unserializable {
                key: key(),
                source: json(),
            },
            Error::WrongType {
                key: key(),
                expected: "u8",
                source: json(),
            },
            Error::ReservedKey,
            Error::HeadSent,
            Error::ReadOnly,
            Error::Ended,
            Error::unavailable(json()),
            Error::NoUserIndex { backend },
            Error::TooManySessions { max: 3 },
            Error::ZeroLimit,
            Error::NoUserLimit { backend },
            Error::InvalidLifetime { why: "it is zero" },
            Error::NoLifetime { backend },
            Error::NotLoaded,
            Error::NoBackend,
        ];
        let refused = [
            ConfigError::Name { name: key() },
            ConfigError::Attribute {
                attribute: "Path",
                value: key(),
            },
            ConfigError::Prefix {
                prefix: "__Host-",
                rule: "it is `Secure`",
            },
            ConfigError::Insecure {
                attribute: "Partitioned",
            },
            ConfigError::CannotMigrate { backend },
            ConfigError::CannotRevoke { backend },
            ConfigError::Carrier {
                name: key(),
                rule: "it is empty",
            },
            ConfigError::ZeroTimeout { which: "idle" },
            ConfigError::IdleTimeoutTooLong {
                idle: std::time::Duration::MAX,
                absolute: std::time::Duration::from_millis(1),
            },
        ];
        let texts = errors.iter().map(ToString::to_string);
        for text in texts.chain(refused.iter().map(ToString::to_string)) {
            assert!(!text.contains("  "), "{text}");
        }
    }

    #[test]
    fn a_span_of_time_is_told_in_its_largest_whole_unit() {
        let told = |seconds| span(std::time::Duration::from_secs(seconds));
        assert_eq!(told(30 * 86_400), "30 days");
        assert_eq!(told(86_400), "24 hours");
        assert_eq!(told(90 * 60), "90 minutes");
        assert_eq!(told(61), "61 seconds");
        assert_eq!(span(std::time::Duration::from_millis(1500)), "1.5s");
    }

    #[test]
    fn not_mounted_tells_what_to_mount_and_how_to_find_a_second_version() {
        let text = Error::NotMounted.to_string();
        for hint in [
            "manager::middleware()",
            "App::wrap",
            "Router::layer",
            "Order matters",
            "cargo tree -d",
        ] {
            assert!(text.contains(hint), "{hint}: {text}");
        }
    }
}
