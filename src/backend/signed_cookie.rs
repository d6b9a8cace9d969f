//! Sessions in a cookie that anybody can read and nobody can forge.

use std::{fmt, ops::Range};

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::cookie_format::Seal;
use crate::{
    backend::Refused,
    key::{self, Key, TAG},
};

/// Keeps each session in its own cookie: readable by whoever has it, forgeable by nobody.
///
/// No store, no clean-up, nothing to fail. In exchange a session must fit into 4,096 bytes
/// ([`Error::TooLarge`](crate::Error::TooLarge) says so where it is written), of two overlapping
/// requests the later response wins, and a cookie that was copied before logging out opens the
/// session until its time is over: the server keeps nothing that could know better.
///
/// The signature is HMAC-SHA-256, cut to 128 bits, over the cookie's name, the format's version, the
/// session's times and its data. A cookie past its time is refused, whatever the browser thinks (CVE-2024-31999).
///
/// ```
/// use session_manager::{Key, Manager, SignedCookie};
///
/// let old = Key::from_secret("the secret of the year before last..")?;
/// let new = Key::from_secret("the secret of this year, drawn anew")?;
/// let manager = Manager::new(SignedCookie::new(new).accept(old));
/// assert_eq!(manager.engine(), "signed cookie");
/// # Ok::<(), session_manager::KeyError>(())
/// ```
#[derive(Clone)]
pub struct SignedCookie {
    /// The first one signs.
    keys: Vec<Keys>,
}

/// What one key signs and opens.
#[derive(Clone)]
struct Keys {
    signer: Hmac<Sha256>,
    successors: Hmac<Sha256>,
}

impl SignedCookie {
    /// Signs with `key`, and accepts what it signed.
    pub fn new(key: Key) -> Self {
        Self { keys: Vec::new() }.accept(key)
    }

    /// Accepts also what `old` signed; such a session is signed with the first key when it is next
    /// written (CVE-2025-47278 is about a framework that did this the other way round).
    #[must_use]
    pub fn accept(mut self, old: Key) -> Self {
        self.keys.push(Keys {
            signer: key::hmac(&old.derive("signed cookie")),
            successors: key::successors(&old),
        });
        self
    }
}

impl Seal for SignedCookie {
    const ENGINE: &'static str = "signed cookie";
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
