//! Sessions in a cookie that nobody but the server can read.

use std::fmt;

use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};

use super::cookies::Seal;
use crate::{Key, Refused, random};

const NONCE: usize = 24;
const TAG: usize = 16;

/// Keeps each session in its own cookie, encrypted and authenticated: nobody but the server reads
/// or forges it. What [`SignedCookie`](crate::SignedCookie) says of size, overlap and logging out
/// holds here too.
///
/// XChaCha20-Poly1305, because its nonce of 192 bits may be drawn at random for any number of
/// cookies; the 96 bits of AES-GCM may not (NIST SP 800-38D, section 8.3). The cookie's name and the
/// format's version are authenticated with it.
///
/// ```
/// use session_manager::{Key, Manager, PrivateCookie};
///
/// let manager = Manager::new(PrivateCookie::new(Key::generate()));
/// assert_eq!(manager.engine(), "private cookie");
/// ```
#[derive(Clone)]
pub struct PrivateCookie {
    /// The first one encrypts.
    keys: Vec<XChaCha20Poly1305>,
}

impl PrivateCookie {
    /// Encrypts with `key`, and accepts what it encrypted.
    pub fn new(key: Key) -> Self {
        Self { keys: Vec::new() }.accept(key)
    }

    /// Accepts also what `old` encrypted; such a session is encrypted with the first key when it is
    /// next written.
    #[must_use]
    pub fn accept(mut self, old: Key) -> Self {
        self.keys
            .push(XChaCha20Poly1305::new(&old.derive("private cookie").into()));
        self
    }
}

impl Seal for PrivateCookie {
    const ENGINE: &'static str = "private cookie";
    const VERSION: u8 = 1;
    const BEFORE: usize = 1 + NONCE;
    const BEHIND: usize = TAG;

    fn seal(&self, name: &str, buffer: &mut Vec<u8>) {
        let mut nonce = XNonce::default();
        random::fill(&mut nonce);
        buffer[1..Self::BEFORE].copy_from_slice(&nonce);
        let body = &mut buffer[Self::BEFORE..];
        #[expect(
            clippy::expect_used,
            reason = "it fails beyond 256 GiB, and a cookie has 4 KiB"
        )]
        let tag = self.keys[0]
            .encrypt_inout_detached(&nonce, &associated(name), body.into())
            .expect("a cookie is short enough to encrypt");
        buffer.extend(tag);
    }

    fn unseal(&self, name: &str, sealed: &mut [u8]) -> Result<(), Refused> {
        let (before, rest) = sealed.split_at_mut(Self::BEFORE);
        let (body, tag) = rest.split_at_mut(rest.len() - TAG);
        let (Ok(nonce), Ok(tag)) = (XNonce::try_from(&before[1..]), Tag::try_from(&*tag)) else {
            return Err(Refused::Malformed);
        };
        let associated = associated(name);
        // Nothing is decrypted before the tag fits, so the next key finds the body as it was.
        let opened_by = |key: &XChaCha20Poly1305| {
            key.decrypt_inout_detached(&nonce, &associated, (&mut *body).into(), &tag)
                .is_ok()
        };
        if self.keys.iter().any(opened_by) {
            Ok(())
        } else {
            Err(Refused::Forged)
        }
    }
}

fn associated(name: &str) -> Vec<u8> {
    [&[PrivateCookie::VERSION], name.as_bytes()].concat()
}

impl fmt::Debug for PrivateCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateCookie")
            .field("keys", &self.keys.len())
            .finish()
    }
}
