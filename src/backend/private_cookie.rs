//! Sessions in a cookie that nobody but the server can read.

use std::{fmt, ops::Range};

use aes_gcm_siv::{AeadInOut, Aes128GcmSiv, KeyInit, Nonce, Tag};
use hmac::Hmac;
use sha2::Sha256;

use super::cookie_format::Seal;
use crate::{
    backend::Refused,
    key::{self, Key},
    random,
};

const NONCE: usize = 12;
const TAG: usize = 16;

/// Keeps each session in its own cookie, encrypted and authenticated: nobody but the server reads
/// or forges it. What [`SignedCookie`](crate::SignedCookie) says of size, overlap and logging out
/// holds here too.
///
/// AES-128-GCM-SIV (RFC 8452): should a nonce ever be drawn twice, it shows that two cookies are the
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
    keys: Vec<Keys>,
}

/// What one key opens.
#[derive(Clone)]
struct Keys {
    cipher: Aes128GcmSiv,
    successors: Hmac<Sha256>,
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
        let [key @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
            old.derive("private cookie");
        self.keys.push(Keys {
            cipher: Aes128GcmSiv::new(&key.into()),
            successors: key::successors(&old),
        });
        self
    }
}

impl Seal for PrivateCookie {
    const ENGINE: &'static str = "private cookie";
    const BEFORE: usize = NONCE;
    const BEHIND: usize = TAG;

    fn seal(&self, buffer: &mut Vec<u8>, start: usize) {
        let mut nonce = Nonce::default();
        random::fill_nonce(&mut nonce);
        let (before, body) = buffer.split_at_mut(start + 1 + NONCE);
        let (associated, place) = before.split_at_mut(start + 1);
        place.copy_from_slice(&nonce);
        #[expect(
            clippy::expect_used,
            reason = "it fails beyond 64 GiB, and a cookie has 4 KiB"
        )]
        let tag = self.keys[0]
            .cipher
            .encrypt_inout_detached(&nonce, associated, body.into())
            .expect("a cookie is short enough to encrypt");
        buffer.extend(tag);
    }

    fn unseal(&self, buffer: &mut [u8], start: usize) -> Result<(Range<usize>, usize), Refused> {
        let begin = start + 1 + NONCE;
        let end = buffer.len().checked_sub(TAG).filter(|end| *end >= begin);
        let end = end.ok_or(Refused::Malformed)?;
        let (before, rest) = buffer.split_at_mut(begin);
        let (body, tag) = rest.split_at_mut(end - begin);
        let (associated, nonce) = before.split_at(start + 1);
        let (Ok(nonce), Ok(tag)) = (Nonce::try_from(nonce), Tag::try_from(&*tag)) else {
            return Err(Refused::Malformed);
        };
        // A key that does not fit leaves the body as it was, for the next one.
        let opened_by = |keys: &Keys| {
            let opened =
                keys.cipher
                    .decrypt_inout_detached(&nonce, associated, (&mut *body).into(), &tag);
            opened.is_ok()
        };
        let key = self.keys.iter().position(opened_by);
        Ok((begin..end, key.ok_or(Refused::Forged)?))
    }

    fn successors(&self, key: usize) -> &Hmac<Sha256> {
        &self.keys[key].successors
    }
}

impl fmt::Debug for PrivateCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateCookie")
            .field("keys", &self.keys.len())
            .finish()
    }
}
