//! The secret key for signing and encrypting cookies.

use std::{env::VarError, fmt};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{error::debug_as_display, random};

/// The secret key for signing and encrypting cookies. `Debug` does not print it.
///
/// Each backend derives its own key from it, so one secret can serve several backends.
///
/// ```
/// use session_manager::Key;
///
/// let key = Key::from_secret("0123456789abcdef0123456789abcdef")?;
/// assert_eq!(format!("{key:?}"), "Key(..)");
/// # Ok::<(), session_manager::KeyError>(())
/// ```
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl Key {
    /// The minimum length of a secret, in bytes.
    pub const MIN_LEN: usize = 32;

    /// Generates a random key. Its sessions end with the process; for a key that lasts, see
    /// [`from_env`](Self::from_env).
    ///
    /// # Panics
    ///
    /// If the operating system's random generator fails.
    pub fn generate() -> Self {
        let mut secret = [0; Self::MIN_LEN];
        random::fill(&mut secret);
        Self::derive_from(&secret)
    }

    /// Creates a key from a random secret of at least [`MIN_LEN`](Self::MIN_LEN) bytes, for example
    /// the output of `openssl rand -base64 48`. All bytes are used.
    ///
    /// # Errors
    ///
    /// [`KeyError::TooShort`] if the secret has fewer bytes.
    pub fn from_secret(secret: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        let secret = secret.as_ref();
        if secret.len() < Self::MIN_LEN {
            return Err(KeyError::TooShort {
                len: secret.len(),
                min: Self::MIN_LEN,
            });
        }
        Ok(Self::derive_from(secret))
    }

    /// Creates a key from the secret in the environment variable `name`.
    ///
    /// # Errors
    ///
    /// [`KeyError::NotSet`], [`KeyError::NotUnicode`] or [`KeyError::VariableTooShort`]; each names
    /// the variable.
    ///
    /// ```
    /// let error = session_manager::Key::from_env("NO_SUCH_VARIABLE").unwrap_err();
    /// assert!(error.to_string().contains("NO_SUCH_VARIABLE"));
    /// ```
    pub fn from_env(name: &str) -> Result<Self, KeyError> {
        let secret = std::env::var(name).map_err(|error| match error {
            VarError::NotPresent => KeyError::NotSet { name: name.into() },
            VarError::NotUnicode(_) => KeyError::NotUnicode { name: name.into() },
        })?;
        Self::from_secret(secret).map_err(|error| error.of(name))
    }

    /// Creates the keys that the environment variable `name` lists, separated by commas: none if it is
    /// not set or empty.
    pub(crate) fn list_from_env(name: &str) -> Result<Vec<Self>, KeyError> {
        let list = match std::env::var(name) {
            Ok(list) => list,
            Err(VarError::NotPresent) => return Ok(Vec::new()),
            Err(VarError::NotUnicode(_)) => {
                return Err(KeyError::NotUnicode { name: name.into() });
            }
        };
        let secrets = list.split(',').map(str::trim).filter(|it| !it.is_empty());
        let keys = secrets.map(|secret| Self::from_secret(secret).map_err(|error| error.of(name)));
        keys.collect()
    }

    /// The extract step of HKDF (RFC 5869); [`Self::derive`] is the expand step.
    fn derive_from(secret: &[u8]) -> Self {
        let extracted = hmac(b"session-manager")
            .chain_update(secret)
            .finalize()
            .into_bytes();
        Self(hmac(&extracted))
    }

    /// Derives the key for one purpose. It reveals neither the secret nor the key of another
    /// purpose.
    pub(crate) fn derive(&self, purpose: &str) -> [u8; 32] {
        self.0
            .clone()
            .chain_update(purpose)
            .chain_update([1])
            .finalize()
            .into_bytes()
            .into()
    }
}

/// The length of a cookie's signature in bytes: half of HMAC-SHA-256's output, the minimum that
/// RFC 2104, section 5, recommends. 128 bits cannot be guessed, and save 21 characters per cookie.
pub(crate) const TAG: usize = 16;

/// Returns an HMAC with `key` already absorbed; cloning it saves two hash blocks per use.
pub(crate) fn hmac(key: &[u8]) -> Hmac<Sha256> {
    #[expect(
        clippy::expect_used,
        reason = "HMAC takes a key of any length (RFC 2104)"
    )]
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

debug_as_display!(KeyError);

/// The reason why a secret was rejected.
///
/// `Debug` prints the same text as `Display`.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The secret is shorter than [`Key::MIN_LEN`].
    #[error(
        "the secret is {len} bytes long, but at least {min} are required: generate one with \
         `openssl rand -base64 48`"
    )]
    TooShort {
        /// Its length in bytes.
        len: usize,
        /// The least length in bytes.
        min: usize,
    },
    /// The environment variable's value is shorter than [`Key::MIN_LEN`].
    #[error(
        "the secret in the environment variable {name} is {len} bytes long, but at least {min} are \
         required: generate one with `openssl rand -base64 48`"
    )]
    VariableTooShort {
        /// The variable.
        name: String,
        /// Its length in bytes.
        len: usize,
        /// The least length in bytes.
        min: usize,
    },
    /// The environment variable is not set.
    #[error(
        "the environment variable {name} is not set: set it to a secret of at least 32 bytes, for \
         example from `openssl rand -base64 48`"
    )]
    NotSet {
        /// The variable.
        name: String,
    },
    /// The value of the environment variable is not valid Unicode.
    #[error(
        "the environment variable {name} is not valid Unicode: set it to a secret written as text, \
         for example from `openssl rand -base64 48`"
    )]
    NotUnicode {
        /// The variable.
        name: String,
    },
}

impl KeyError {
    /// Names the environment variable that the secret is from.
    fn of(self, variable: &str) -> Self {
        match self {
            Self::TooShort { len, min } => Self::VariableTooShort {
                name: variable.to_owned(),
                len,
                min,
            },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_secret_is_an_error_that_says_how_long_it_must_be() {
        let error = Key::from_secret([7; 31]).unwrap_err();
        assert_eq!(error, KeyError::TooShort { len: 31, min: 32 });
        assert!(error.to_string().contains("31 bytes") && error.to_string().contains("32"));
        assert!(Key::from_secret([7; 32]).is_ok());
    }

    #[test]
    fn every_byte_of_a_secret_and_every_purpose_gives_another_key() {
        let key = |secret: &[u8], purpose| Key::from_secret(secret).unwrap().derive(purpose);
        let long = [7; 100];
        let mut last_differs = long;
        last_differs[99] = 8;
        assert_eq!(key(&long, "a"), key(&long, "a"));
        assert_ne!(key(&long, "a"), key(&last_differs, "a"));
        assert_ne!(key(&long, "a"), key(&long, "b"));
        assert_ne!(Key::generate().derive("a"), Key::generate().derive("a"));
    }
}
