//! The secret that cookies are signed and encrypted with.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{error::debug_as_display, random};

/// The secret that cookies are signed and encrypted with. It prints as nothing.
///
/// Every engine derives a key of its own from it, so that one secret may serve several.
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
    /// How long a secret must be at least, in bytes.
    pub const MIN_LEN: usize = 32;

    /// Draws a key at random. Sessions signed with it end with the process: see
    /// [`from_env`](Self::from_env) for a key that lasts.
    ///
    /// # Panics
    ///
    /// If the operating system has no randomness to give, where nothing safe is left to do.
    pub fn generate() -> Self {
        let mut secret = [0; Self::MIN_LEN];
        random::fill(&mut secret);
        Self::derive_from(&secret)
    }

    /// Makes a key of a secret: [`MIN_LEN`](Self::MIN_LEN) bytes or more, drawn at random by
    /// something like `openssl rand -base64 48`. All bytes count.
    ///
    /// # Errors
    ///
    /// [`KeyError::TooShort`].
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

    /// Makes a key of the secret in the environment variable `name`.
    ///
    /// # Errors
    ///
    /// [`KeyError::NotSet`], [`KeyError::NotUnicode`] or, naming the variable,
    /// [`KeyError::VariableTooShort`].
    ///
    /// ```
    /// let error = session_manager::Key::from_env("NO_SUCH_VARIABLE").unwrap_err();
    /// assert!(error.to_string().contains("NO_SUCH_VARIABLE"));
    /// ```
    pub fn from_env(name: &str) -> Result<Self, KeyError> {
        use std::env::VarError;
        let name = || name.to_owned();
        let secret = std::env::var(name()).map_err(|error| match error {
            VarError::NotPresent => KeyError::NotSet { name: name() },
            VarError::NotUnicode(_) => KeyError::NotUnicode { name: name() },
        })?;
        Self::from_secret(secret).map_err(|error| match error {
            KeyError::TooShort { len, min } => KeyError::VariableTooShort {
                name: name(),
                len,
                min,
            },
            other => other,
        })
    }

    /// HMAC with the secret is the extract step of HKDF (RFC 5869); [`Self::derive`] expands.
    fn derive_from(secret: &[u8]) -> Self {
        let extracted = hmac(b"session-manager")
            .chain_update(secret)
            .finalize()
            .into_bytes();
        Self(hmac(&extracted))
    }

    /// A key for one purpose, from which neither the secret nor any other purpose's key follows.
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

/// The key from which the successors of cookies follow that `key` made: see
/// [`Migration`](crate::backend::Migration).
pub(crate) fn successors(key: &Key) -> Hmac<Sha256> {
    hmac(&key.derive("successor of a cookie"))
}

/// How many bytes of a signature a cookie has: half of what HMAC-SHA-256 gives, the least that
/// RFC 2104, section 5, recommends. Nobody tries 2^128 cookies, and each is shorter by 21 characters.
pub(crate) const TAG: usize = 16;

/// A prepared HMAC, which costs two hash blocks less for every use than one made anew.
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

/// Why a secret makes no key.
///
/// `Debug` prints the same text as `Display`.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The secret is shorter than [`Key::MIN_LEN`].
    #[error(
        "the secret is {len} bytes long, and must be {min} or more: \
         `openssl rand -base64 48` makes one"
    )]
    TooShort {
        /// Its length in bytes.
        len: usize,
        /// The least length in bytes.
        min: usize,
    },
    /// The environment variable's value is shorter than [`Key::MIN_LEN`].
    #[error(
        "the secret in the environment variable {name} is {len} bytes long, and must be {min} or \
         more: `openssl rand -base64 48` makes one"
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
        "the environment variable {name} is not set: give it a secret of 32 bytes or more, for \
         instance from `openssl rand -base64 48`"
    )]
    NotSet {
        /// The variable.
        name: String,
    },
    /// The environment variable holds no text.
    #[error(
        "the environment variable {name} is no valid Unicode: give it a secret written as text, \
         for instance from `openssl rand -base64 48`"
    )]
    NotUnicode {
        /// The variable.
        name: String,
    },
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
