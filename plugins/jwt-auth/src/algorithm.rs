use ed25519_dalek as ed25519;
use hmac::{Hmac, KeyInit, Mac};
use p256::ecdsa::signature::Verifier;
use rsa::pkcs1v15;
use sha2::{Sha256, Sha384, Sha512};

/// The shortest secret, in bytes: HS256 needs this length (RFC 7518 §3.2).
pub(crate) const MIN_SECRET: usize = 32;

/// The algorithms that can sign a token (RFC 7518 §3.1, RFC 8037 §3.1). There is no `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    pub(crate) const ALL: [Self; 6] = [Self::Hs256, Self::Hs384, Self::Hs512, Self::Rs256, Self::Es256, Self::EdDsa];

    /// Returns the length of the shortest secret for the algorithm, in bytes: the length of its hash (RFC 7518 §3.2).
    /// `None` if it uses no secret.
    pub(crate) fn min_secret(self) -> Option<usize> {
        match self {
            Self::Hs256 => Some(MIN_SECRET),
            Self::Hs384 => Some(48),
            Self::Hs512 => Some(64),
            Self::Rs256 | Self::Es256 | Self::EdDsa => None,
        }
    }

    /// Returns the algorithm of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::Hs256,
            "HS384" => Self::Hs384,
            "HS512" => Self::Hs512,
            "RS256" => Self::Rs256,
            "ES256" => Self::Es256,
            // RFC 9864 gives it the second name.
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// A key that checks signatures. Its type says for which algorithms: a public key is never used as a secret.
pub(crate) enum Key {
    Secret(Vec<u8>),
    Rsa(Box<pkcs1v15::VerifyingKey<Sha256>>),
    P256(Box<p256::ecdsa::VerifyingKey>),
    Ed25519(Box<ed25519::VerifyingKey>),
}

impl Key {
    /// Returns whether this is a key for that algorithm.
    pub(crate) fn suits(&self, algorithm: Algorithm) -> bool {
        match (self, algorithm) {
            (Self::Secret(secret), _) => algorithm.min_secret().is_some_and(|min| secret.len() >= min),
            (Self::Rsa(_), Algorithm::Rs256)
            | (Self::P256(_), Algorithm::Es256)
            | (Self::Ed25519(_), Algorithm::EdDsa) => true,
            _ => false,
        }
    }

    /// Returns whether this key made this signature with that algorithm; `false` if the key does not suit the
    /// algorithm.
    pub(crate) fn verifies(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        if !self.suits(algorithm) {
            return false;
        }
        match self {
            Self::Secret(secret) => match algorithm {
                Algorithm::Hs384 => mac::<Hmac<Sha384>>(secret, signed, signature),
                Algorithm::Hs512 => mac::<Hmac<Sha512>>(secret, signed, signature),
                _ => mac::<Hmac<Sha256>>(secret, signed, signature),
            },
            Self::Rsa(key) => {
                pkcs1v15::Signature::try_from(signature).is_ok_and(|signature| key.verify(signed, &signature).is_ok())
            }
            Self::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(signed, &signature).is_ok()),
            // Strict: refuses keys and signatures that are valid for many messages.
            Self::Ed25519(key) => ed25519::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(signed, &signature).is_ok()),
        }
    }
}

/// Checks a MAC, in a time that does not show how much of the signature is right.
fn mac<M: Mac + KeyInit>(secret: &[u8], signed: &[u8], signature: &[u8]) -> bool {
    <M as KeyInit>::new_from_slice(secret).is_ok_and(|mac| mac.chain_update(signed).verify_slice(signature).is_ok())
}
