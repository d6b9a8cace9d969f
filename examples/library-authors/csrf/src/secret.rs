//! The secret of a session, and the tokens that mask it.

use std::hint::black_box;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};

/// 128 random bits, short because the session may have to fit in a cookie.
const LEN: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Secret([u8; LEN]);

impl Secret {
    pub(super) fn generate() -> Self {
        Self(random())
    }

    pub(super) fn text(self) -> String {
        BASE64.encode(self.0)
    }

    /// Reads what [`text`](Self::text) wrote.
    pub(super) fn parse(text: &str) -> Option<Self> {
        BASE64.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// Returns a new token: random bytes, and the secret combined with them.
    pub(super) fn masked(self) -> String {
        let mask = random();
        BASE64.encode([mask, xor(mask, self.0)].concat())
    }

    /// Returns `true` if `token` masks this secret. The time does not depend on how much is right.
    pub(super) fn is_masked_in(self, token: &str) -> bool {
        let decoded = BASE64.decode(token).ok();
        let parts = decoded.as_deref().map(<[u8]>::as_chunks::<LEN>);
        let Some(([mask, masked], [])) = parts else {
            return false;
        };
        let other = xor(*mask, *masked);
        let differ = xor(self.0, other)
            .into_iter()
            .fold(0, |all, byte| all | byte);
        black_box(differ) == 0
    }
}

fn random() -> [u8; LEN] {
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes).expect("the operating system's random generator failed");
    bytes
}

fn xor(a: [u8; LEN], b: [u8; LEN]) -> [u8; LEN] {
    std::array::from_fn(|at| a[at] ^ b[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_different_and_masks_the_secret() {
        let (secret, other) = (Secret::generate(), Secret::generate());
        let (one, two) = (secret.masked(), secret.masked());
        assert_ne!(one, two);
        for token in [&one, &two] {
            assert!(secret.is_masked_in(token));
            assert!(!other.is_masked_in(token));
            assert!(!token.contains(&secret.text()));
        }
        assert!(Secret::parse(&secret.text()) == Some(secret));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let secret = Secret::generate();
        let token = secret.masked();
        let bytes = BASE64.decode(&token).unwrap();
        for bit in 0..8 * bytes.len() {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!secret.is_masked_in(&BASE64.encode(bytes)), "{bit}");
        }
        let text = secret.text();
        let longer = format!("{token}AAAA");
        for bad in [
            "",
            "=",
            "🦀",
            &text,
            &token[..42],
            &longer,
            &longer.repeat(99),
        ] {
            assert!(!secret.is_masked_in(bad), "{bad}");
            assert!(bad == text || Secret::parse(bad).is_none(), "{bad}");
        }
    }
}
