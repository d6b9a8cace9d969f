//! The id in the cookie of a server-side session.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use hmac::{Hmac, Mac, digest::CtOutput};
use sha2::{Digest, Sha256};

use crate::{
    backend::CommitOutcome,
    cookie::NameHash,
    expiry::Timestamp,
    key::{self, Key, TAG},
    random,
    record::id::{StoreId, Verifier},
    settings::Settings,
};

/// What the ids of one manager's cookie are signed with and bound to.
pub(super) struct IdCookie {
    pub(super) signer: Option<Hmac<Sha256>>,
    pub(super) name: NameHash,
}

impl IdCookie {
    pub(super) fn stored(&self, id: &SessionId) -> StoreId {
        id.stored(self.name)
    }

    pub(super) fn token(&self, id: &SessionId) -> String {
        let mut token = id.text();
        if let Some(signer) = &self.signer {
            let tag = signer.clone().chain_update(id.0).finalize().into_bytes();
            BASE64.encode_string(&tag[..TAG], &mut token);
        }
        token
    }

    pub(super) fn reply(&self, id: &SessionId, expires: Timestamp) -> CommitOutcome {
        let token = self.token(id);
        CommitOutcome::Set { token, expires }
    }
}

/// Returns the store's id of a session of the manager with these settings.
pub(super) fn stored(id: &SessionId, settings: &Settings) -> StoreId {
    id.stored(settings.cookie().name_hash())
}

/// Returns the HMAC that signs the ids of one cookie.
pub(super) fn named(key: &Hmac<Sha256>, settings: &Settings) -> Hmac<Sha256> {
    // No name has a byte of zero, so that none goes on in an id.
    key.clone()
        .chain_update(settings.cookie().bound_name())
        .chain_update([0])
}

/// Derives the key for ids from `key`.
pub(super) fn id_key(key: &Key) -> Hmac<Sha256> {
    key::hmac(&key.derive("server-side id"))
}

/// What the cookie holds: 384 random bits. It is as good as a password, and never shown.
pub(super) struct SessionId([u8; SessionId::LEN]);

impl SessionId {
    /// The first bytes name the record for as long as it lives, so that a client that once opened
    /// it can end it.
    pub(super) const ROOT_LEN: usize = 16;
    /// The others are the secret that opens it, until it is renewed.
    pub(super) const LEN: usize = Self::ROOT_LEN + 32;
    /// As it is in a cookie: four characters for every three bytes.
    pub(super) const TEXT_LEN: usize = Self::LEN / 3 * 4;
    /// With a signature behind it.
    pub(super) const SIGNED_LEN: usize = Self::TEXT_LEN + (TAG * 4).div_ceil(3);

    pub(super) fn generate() -> Self {
        let mut id = [0; Self::LEN];
        random::fill(&mut id);
        Self(id)
    }

    /// Returns an id of the same record with another secret.
    pub(super) fn renewed(&self) -> Self {
        let mut id = self.0;
        random::fill(&mut id[Self::ROOT_LEN..]);
        Self(id)
    }

    /// Returns the id in a cookie, and its signature if it has one. Any other length or
    /// alphabet is refused before the store is asked (GO-2024-2730 is about a store that was).
    pub(super) fn parse(token: &str) -> Option<(Self, Option<[u8; TAG]>)> {
        // The length first, so that nothing long is decoded.
        let (id, tag) = match token.len() {
            Self::TEXT_LEN => (token, None),
            Self::SIGNED_LEN => {
                let (id, tag) = token.split_at_checked(Self::TEXT_LEN)?;
                (id, Some(decode(tag)?))
            }
            _ => return None,
        };
        Some((Self(decode(id)?), tag))
    }

    pub(super) fn is_signed(&self, signer: Hmac<Sha256>, tag: &[u8; TAG]) -> bool {
        // In constant time.
        signer
            .chain_update(self.0)
            .verify_truncated_left(tag)
            .is_ok()
    }

    /// Returns the text of the id in a cookie, without a signature.
    pub(super) fn text(&self) -> String {
        BASE64.encode(self.0)
    }

    /// Returns the store's id of a session: the SHA-256 of the id's first part, XOR that of the
    /// cookie's name, so that an id copied into a cookie of another name opens nothing.
    ///
    /// XOR, because `migrate_from` has to end sessions of which it has the store's id alone: from
    /// one name's id follows the other's.
    fn stored(&self, name: NameHash) -> StoreId {
        let id = Sha256::digest(&self.0[..Self::ROOT_LEN]).into();
        StoreId::from_bytes(name.xor(NameHash(id)).0)
    }

    pub(super) fn verifier(&self) -> Verifier {
        Verifier::from_bytes(Sha256::digest(&self.0[Self::ROOT_LEN..]).into())
    }

    /// Returns `true` if its secret opens the record. It is the one place where what a client
    /// sent is compared with what is stored; of hashes, and in constant time all the same.
    pub(super) fn matches(&self, verifier: Verifier) -> bool {
        let output = |verifier: Verifier| CtOutput::<Sha256>::new((*verifier.as_bytes()).into());
        output(self.verifier()) == output(verifier)
    }
}

/// Decodes a text of exactly `LEN` bytes.
pub(super) fn decode<const LEN: usize>(text: &str) -> Option<[u8; LEN]> {
    let mut bytes = [0; LEN];
    let len = BASE64.decode_slice(text, &mut bytes).ok()?;
    (len == LEN).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_id_as_this_backend_writes_them_is_one() {
        for (token, tag) in [
            (BASE64.encode([7; 48]), None),
            (BASE64.encode([7; 64]), Some([7; TAG])),
        ] {
            let (id, found) = SessionId::parse(&token).unwrap();
            assert_eq!((id.0, found), ([7; 48], tag));
            for bad in [
                &token[1..],
                &format!("{token}="),
                &format!("{}=", &token[1..]),
                &format!("{}==", &token[2..]),
                &format!("{}+", &token[1..]),
                &format!("{}é", &token[2..]),
                &format!("é{}", &token[2..]),
            ] {
                assert!(SessionId::parse(bad).is_none(), "{bad:?}");
            }
        }
        for bad in ["", "../../etc/passwd", "\0"] {
            assert!(SessionId::parse(bad).is_none(), "{bad:?}");
        }
        assert!(SessionId::parse(&"é".repeat(43)).is_none());
        assert!(SessionId::parse(&format!("{}é{}", "A".repeat(63), "A".repeat(21))).is_none());
        assert!(SessionId::parse(&"A".repeat(1_000_000)).is_none());
    }

    #[test]
    fn a_renewed_id_names_the_same_record_and_has_another_secret() {
        let id = SessionId::generate();
        let new = id.renewed();
        let cookie = |name: &str| IdCookie {
            signer: None,
            name: NameHash(Sha256::digest(name).into()),
        };
        let (cookie, other) = (cookie("_session"), cookie("__Host-admin"));
        assert_eq!(cookie.stored(&new), cookie.stored(&id));
        assert_ne!(other.stored(&id), cookie.stored(&id), "bound to the name");
        assert_ne!(new.verifier(), id.verifier());
        assert_ne!(new.renewed().verifier(), new.verifier());
        assert_ne!(cookie.stored(&SessionId::generate()), cookie.stored(&id));
    }
}
