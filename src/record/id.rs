//! The names under which a store keeps records, and what opens them.

use std::fmt;

#[cfg(any(feature = "redis", feature = "tower-sessions"))]
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};

/// Writes the type of a SHA-256.
macro_rules! hash {
    ($(#[$docs:meta])* $name:ident) => {
        $(#[$docs])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Creates one from 32 bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Returns the 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        /// The first digits: enough to tell two apart in a log.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let [a, b, c, ..] = self.0;
                write!(f, concat!(stringify!($name), "({:02x}{:02x}{:02x}..)"), a, b, c)
            }
        }
    };
}

hash! {
    /// The name under which a store keeps a session: the SHA-256 of the first part of the id in its
    /// cookie. It stays the same for as long as the session lives, over every renewal.
    ///
    /// A thief of the store learns no id that opens a session, and how long a look-up takes
    /// tells nothing of an id (CVE-2019-16782). It is therefore not secret, and is what
    /// [`UserSession::handle`](crate::UserSession::handle) shows.
    StoreId
}

hash! {
    /// Whom a record answers to: the SHA-256 of the second part of the id in the cookie, the
    /// secret, which every renewal replaces.
    ///
    /// A thief of the store learns no secret from it.
    ///
    /// ```
    /// use session_manager::store::Verifier;
    ///
    /// assert_eq!(format!("{:?}", Verifier::from_bytes([171; 32])), "Verifier(ababab..)");
    /// ```
    Verifier
}

/// The bytes 8 to 15 of a reservation's id. A session's id is a SHA-256, which does not have them by
/// chance.
const PLACE: [u8; 8] = *b"reserved";

impl StoreId {
    /// Returns the id of the reservation for the session of this id; itself, if it is one.
    ///
    /// The bytes at both ends stay, because stores spread records by them.
    pub(crate) fn place(self) -> Self {
        let mut bytes = self.0;
        bytes[8..16].copy_from_slice(&PLACE);
        Self(bytes)
    }

    /// Returns `true` if it is the id of a reservation and not of a session.
    pub(crate) fn is_place(self) -> bool {
        self.0[8..16] == PLACE
    }

    /// Returns the id that [`Display`](fmt::Display) wrote so.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return None;
        }
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(bytes))
    }
}

impl Verifier {
    /// The verifier of no client: no secret is known that has this SHA-256. A
    /// [`Record::new`](crate::store::Record::new) has it.
    pub const NONE: Self = Self::from_bytes([0; 32]);

    #[cfg(any(feature = "redis", feature = "tower-sessions"))]
    pub(crate) fn to_text(self) -> String {
        BASE64.encode(self.0)
    }

    /// Parses the text of a verifier.
    #[cfg(any(feature = "redis", feature = "tower-sessions"))]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let length = BASE64.decode_slice(text, &mut bytes).ok()?;
        (length == bytes.len()).then_some(Self(bytes))
    }
}

/// 64 hexadecimal digits.
impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // At once, because it is written for every call of a store, and byte by byte takes long.
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (byte, two) in self.0.iter().zip(text.chunks_exact_mut(2)) {
            two[0] = DIGITS[usize::from(byte >> 4)];
            two[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}
