//! Sessions in a signed cookie, which is readable but cannot be forged.

use std::{fmt, ops::Range};

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::cookie_format::Seal;
use crate::{
    backend::{Refused, successor},
    key::{self, Key, TAG},
};

/// Keeps each session in a signed cookie. The client can read it but cannot forge it.
///
/// It needs no store and no clean-up. In return, a session must fit into 4,096 bytes (otherwise the
/// write fails with [`Error::TooLarge`](crate::Error::TooLarge)), and of two overlapping requests
/// the later response wins. A cookie that was copied before a logout opens the session until it
/// expires, because the server keeps no state that could revoke it;
/// [`Builder::revocations`](crate::Builder::revocations) adds that.
///
/// The signature is HMAC-SHA-256, truncated to 128 bits, over the cookie's name, the format
/// version, the session's times and its data. The server refuses an expired cookie, whatever the
/// browser sends (CVE-2024-31999).
///
/// ```
/// use session_manager::{Key, Manager, SignedCookie};
///
/// let old = Key::from_secret("the secret from before the rotation!")?;
/// let new = Key::from_secret("the secret from after the rotation!")?;
/// let manager = Manager::new(SignedCookie::new(new).accept(old));
/// assert_eq!(manager.backend_name(), "signed cookie");
/// # Ok::<(), session_manager::KeyError>(())
/// ```
#[derive(Clone)]
pub struct SignedCookie {
    /// The first key signs.
    keys: Vec<Keys>,
}

/// The keys derived from one [`Key`].
#[derive(Clone)]
struct Keys {
    signer: Hmac<Sha256>,
    successors: Hmac<Sha256>,
}

impl SignedCookie {
    /// Creates a backend that signs with `key` and accepts its signatures.
    pub fn new(key: Key) -> Self {
        Self { keys: Vec::new() }.accept(key)
    }

    /// Accepts cookies signed with `old` too, to rotate keys. The next write signs the session with
    /// the first key (CVE-2025-47278 is about a framework that signed with the old one).
    #[must_use]
    pub fn accept(mut self, old: Key) -> Self {
        self.keys.push(Keys {
            signer: key::hmac(&old.derive("signed cookie")),
            successors: successor::keyed(&old),
        });
        self
    }
}

impl Seal for SignedCookie {
    const NAME: &'static str = "signed cookie";
    const BEFORE: usize = 0;
    const BEHIND: usize = TAG;

    fn seal(&self, buffer: &mut Vec<u8>, _: usize) {
        let tag = self.keys[0]
            .signer
            .clone()
            .chain_update(&*buffer)
            .finalize();
        buffer.extend(&tag.into_bytes()[..TAG]);
    }

    fn unseal(&self, buffer: &mut [u8], start: usize) -> Result<(Range<usize>, usize), Refused> {
        let end = buffer.len().checked_sub(TAG).filter(|end| *end > start);
        let end = end.ok_or(Refused::Malformed)?;
        let (content, tag) = buffer.split_at(end);
        // In constant time.
        let signed_by = |key: &Keys| {
            let mac = key.signer.clone().chain_update(content);
            mac.verify_truncated_left(tag).is_ok()
        };
        let key = self.keys.iter().position(signed_by);
        Ok((start + 1..end, key.ok_or(Refused::Forged)?))
    }

    fn successors(&self, key: usize) -> &Hmac<Sha256> {
        &self.keys[key].successors
    }
}

impl fmt::Debug for SignedCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedCookie")
            .field("keys", &self.keys.len())
            .finish()
    }
}
