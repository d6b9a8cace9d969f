//! The manager that there is until the application sets one.

use std::sync::Once;

use super::{Manager, builder::Builder};
use crate::log::{log, print_if_unheard};

/// The environment variable with the secret, unless a [`Config`](crate::Config) has one.
#[cfg(any(feature = "cookies", feature = "server-side"))]
pub(super) const SECRET: &str = "SESSION_SECRET";

/// The environment variable with the former secrets, unless a [`Config`](crate::Config) has some.
#[cfg(any(feature = "cookies", feature = "server-side"))]
pub(super) const ACCEPT: &str = "SESSION_ACCEPT";

/// Returns `true` in a debug build: the profile is `dev` or inherits from it, and has debug assertions.
///
/// Only then are this crate's defaults made for development. A library crate with a page for developers
/// asks this, because `debug_assertions` may be on in a release profile.
///
/// ```
/// use session_manager::manager;
///
/// if !manager::is_debug_build() {
///     // … do not mount the page …
/// }
/// ```
pub fn is_debug_build() -> bool {
    crate::profile::IS_DEBUG_BUILD
}

/// Why the default manager protects nothing, or not for long.
#[derive(Debug)]
pub(super) struct Insecure {
    why: Why,
    said: Once,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    #[cfg(feature = "cookies")]
    KnownKey(crate::key::KeyError),
    #[cfg(feature = "cookies")]
    RandomKey(crate::key::KeyError),
    #[cfg(not(feature = "cookies"))]
    NoBackend,
}

impl Insecure {
    fn new(why: Why) -> Self {
        Self {
            why,
            said: Once::new(),
        }
    }

    /// Says it when the first session is opened: before that, the application may still set a
    /// manager of its own.
    pub(super) fn say_once(&self) {
        self.said.call_once(|| match &self.why {
            #[cfg(feature = "cookies")]
            Why::KnownKey(error) => say(Severity::Warning, &format!(
                "sessions are signed with a development key that is public, so that any client can \
                 forge them; a release build would not do that. Set SESSION_SECRET, or call \
                 `session_manager::manager::set` at start-up ({error})"
            )),
            #[cfg(feature = "cookies")]
            Why::RandomKey(error) => say(Severity::Error, &format!(
                "sessions are signed with a key drawn for this process, so they end with it and no \
                 other process accepts them. Set SESSION_SECRET, or call \
                 `session_manager::manager::set` at start-up ({error})"
            )),
            #[cfg(not(feature = "cookies"))]
            Why::NoBackend => say(Severity::Error, &crate::error::Error::NoBackend.to_string()),
        });
    }
}

#[derive(Clone, Copy)]
enum Severity {
    #[cfg(feature = "cookies")]
    Warning,
    Error,
}

/// Logs, or writes to standard error if nothing receives the log: an insecure default must not go
/// unnoticed.
fn say(severity: Severity, text: &str) {
    match severity {
        #[cfg(feature = "cookies")]
        Severity::Warning => log!(WARN, "{text}"),
        Severity::Error => log!(ERROR, "{text}"),
    }
    print_if_unheard(text);
}

#[cfg(feature = "cookies")]
pub(super) fn default_builder() -> Builder {
    use crate::{backend::signed_cookie::SignedCookie, key::Key};

    let (key, why) = default_key(Key::from_env(SECRET), crate::profile::IS_DEBUG_BUILD);
    let accept = Key::list_from_env(ACCEPT).unwrap_or_else(|error| {
        log!(ERROR, "no former secret is accepted: {error}");
        Vec::new()
    });
    let backend = accept
        .into_iter()
        .fold(SignedCookie::new(key), SignedCookie::accept);
    default_with(backend, why)
}

#[cfg(not(feature = "cookies"))]
pub(super) fn default_builder() -> Builder {
    default_with(crate::backend::missing::Missing, Some(Why::NoBackend))
}

fn default_with(backend: impl crate::backend::Backend, why: Option<Why>) -> Builder {
    Manager::builder(backend).insecure(why.map(Insecure::new))
}

pub(super) fn default_manager() -> Manager {
    #[expect(
        clippy::expect_used,
        reason = "nothing was set that a browser could refuse"
    )]
    default_builder().build().expect("the defaults are valid")
}

/// Returns the development key in a debug build, and `error` in a release build.
#[cfg(feature = "cookies")]
pub(super) fn development_key(
    error: crate::key::KeyError,
) -> Result<(crate::key::Key, Insecure), crate::key::KeyError> {
    match default_key(Err(error.clone()), crate::profile::IS_DEBUG_BUILD) {
        (key, Some(why @ Why::KnownKey(_))) => Ok((key, Insecure::new(why))),
        _ => Err(error),
    }
}

/// Returns the default manager's key, and why it is insecure.
#[cfg(feature = "cookies")]
fn default_key(
    secret: Result<crate::key::Key, crate::key::KeyError>,
    is_debug_build: bool,
) -> (crate::key::Key, Option<Why>) {
    use crate::key::Key;

    const KNOWN: &str = "session-manager's development key, which everybody knows";
    let error = match secret {
        Ok(key) => return (key, None),
        Err(error) => error,
    };
    if is_debug_build && let Ok(key) = Key::from_secret(KNOWN) {
        (key, Some(Why::KnownKey(error)))
    } else {
        (Key::generate(), Some(Why::RandomKey(error)))
    }
}

#[cfg(all(test, feature = "cookies"))]
mod tests {
    use super::*;
    use crate::{key::Key, key::KeyError};

    fn unset() -> Result<Key, KeyError> {
        Err(KeyError::NotSet {
            name: "SESSION_SECRET".into(),
        })
    }

    #[test]
    fn a_debug_build_without_a_secret_has_the_known_key_and_says_so() {
        let (first, why) = default_key(unset(), true);
        let (second, _) = default_key(unset(), true);
        assert_eq!(
            first.derive("x"),
            second.derive("x"),
            "sessions survive a restart"
        );
        assert!(matches!(why, Some(Why::KnownKey(_))));
    }

    #[test]
    fn a_release_build_without_a_secret_never_signs_with_a_key_that_others_know() {
        let (first, why) = default_key(unset(), false);
        let (second, _) = default_key(unset(), false);
        let (known, _) = default_key(unset(), true);
        assert_ne!(first.derive("x"), second.derive("x"));
        assert_ne!(first.derive("x"), known.derive("x"));
        assert!(matches!(why, Some(Why::RandomKey(_))));
    }

    #[test]
    fn a_secret_is_used_in_every_build() {
        for is_debug_build in [true, false] {
            let secret = || Key::from_secret([1; 32]);
            let (key, why) = default_key(secret(), is_debug_build);
            assert_eq!(key.derive("x"), secret().unwrap().derive("x"));
            assert_eq!(why, None);
        }
    }
}
