//! Sessions in an encrypted cookie, which only the server can read.

use std::{fmt, ops::Range};

use aes_gcm_siv::{AeadInOut, Aes128GcmSiv, KeyInit, Nonce, Tag};
use hmac::Hmac;
use sha2::Sha256;

use super::cookie_format::Seal;
use crate::{
    backend::{Refused, successor},
    key::Key,
    random,
};

const NONCE: usize = 12;
const TAG: usize = 16;

/// Keeps each session in an encrypted and authenticated cookie. Only the server can read or create
/// it. The limits of [`SignedCookie`](crate::SignedCookie) on size, overlapping requests and
/// logging out apply here too.
///
/// The cipher is AES-128-GCM-SIV (RFC 8452), which is safe with random nonces: a repeated nonce
/// reveals only whether two cookies are equal, whereas AES-GCM would reveal its authentication key.
/// The cookie's name and the format version are authenticated with the session.
///
/// ```
/// use session_manager::{Key, Manager, PrivateCookie};
///
/// let manager = Manager::new(PrivateCookie::new(Key::generate()));
/// assert_eq!(manager.backend_name(), "private cookie");
/// ```
#[derive(Clone)]
pub struct PrivateCookie {
    /// The first key encrypts.
    keys: Vec<Keys>,
}

/// The keys derived from one [`Key`].
#[derive(Clone)]
struct Keys {
    cipher: Aes128GcmSiv,
    successors: Hmac<Sha256>,
}

impl PrivateCookie {
    /// Creates a backend that encrypts with `key` and accepts its cookies.
    pub fn new(key: Key) -> Self {
        Self { keys: Vec::new() }.accept(key)
    }

    /// Accepts cookies encrypted with `old` too, to rotate keys. The next write encrypts the
    /// session with the first key.
    #[must_use]
    pub fn accept(mut self, old: Key) -> Self {
        let [key @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
            old.derive("private cookie");
        self.keys.push(Keys {
            cipher: Aes128GcmSiv::new(&key.into()),
            successors: successor::keyed(&old),
        });
        self
    }
}

impl Seal for PrivateCookie {
    const NAME: &'static str = "private cookie";
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
            reason = "encryption fails only beyond 64 GiB, and a cookie has at most 4 KiB"
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
        // A wrong key leaves the body unchanged for the next key.
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
