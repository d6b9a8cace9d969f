//! Successors of cookies that hold their session: see [`Migration`](super::Migration).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::key::{Key, hmac};

/// Returns the HMAC that derives the successors of cookies made with `key`.
pub(crate) fn keyed(key: &Key) -> Hmac<Sha256> {
    hmac(&key.derive("successor of a cookie"))
}

/// Returns the successor of a cookie: 48 bytes as a server-side backend writes them, 16 that name the
/// session and a secret of 32.
pub(crate) fn successor(key: &Hmac<Sha256>, cookie: &[u8]) -> String {
    let part = |label: u8| {
        key.clone()
            .chain_update([label])
            .chain_update(cookie)
            .finalize()
    };
    let (root, secret) = (part(0).into_bytes(), part(1).into_bytes());
    BASE64.encode([&root[..16], &secret[..]].concat())
}
