//! Sessions in a cookie that nobody but the server can read.

use std::fmt;

use aes_gcm_siv::{AeadInOut, Aes256GcmSiv, KeyInit, Nonce, Tag};

use super::cookies::Seal;
use crate::{Key, Refused, random};

const NONCE: usize = 12;
const TAG: usize = 16;

/// Keeps each session in its own cookie, encrypted and authenticated: nobody but the server reads
/// or forges it. What [`SignedCookie`](crate::SignedCookie) says of size, overlap and logging out
/// holds here too.
///
/// AES-256-GCM-SIV (RFC 8452): should a nonce ever be drawn twice, it shows that two cookies are the
/// same, and nothing else, where AES-GCM would give its key away; so nonces may be drawn at random.
/// The cookie's name and the format's version are authenticated with the session.
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
    keys: Vec<Aes256GcmSiv>,
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
            .push(Aes256GcmSiv::new(&old.derive("private cookie").into()));
        self
    }
}

impl Seal for PrivateCookie {
    const ENGINE: &'static str = "private cookie";
    const VERSION: u8 = 1;
    const BEFORE: usize = 1 + NONCE;
    const BEHIND: usize = TAG;

    fn seal(&self, name: &str, buffer: &mut Vec<u8>) {
        let mut nonce = Nonce::default();
        random::fill(&mut nonce);
        buffer[1..Self::BEFORE].copy_from_slice(&nonce);
        let body = &mut buffer[Self::BEFORE..];
        #[expect(
            clippy::expect_used,
            reason = "it fails beyond 64 GiB, and a cookie has 4 KiB"
        )]
        let tag = self.keys[0]
            .encrypt_inout_detached(&nonce, &associated(name), body.into())
            .expect("a cookie is short enough to encrypt");
        buffer.extend(tag);
    }

    fn unseal(&self, name: &str, sealed: &mut [u8]) -> Result<(), Refused> {
        let (before, rest) = sealed.split_at_mut(Self::BEFORE);
        let (body, tag) = rest.split_at_mut(rest.len() - TAG);
        let (Ok(nonce), Ok(tag)) = (Nonce::try_from(&before[1..]), Tag::try_from(&*tag)) else {
            return Err(Refused::Malformed);
        };
        let associated = associated(name);
        // A key that does not fit leaves the body as it was, for the next one.
        let opened_by = |key: &Aes256GcmSiv| {
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
