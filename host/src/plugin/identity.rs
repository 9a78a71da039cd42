//! The identity of a generation: the digests of its component and its settings.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest. `Display` writes its first 12 digits, as in the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Computes the digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Returns all 64 digits.
    pub fn full(&self) -> String {
        hex::encode(self.0)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).ok().map(|()| Self(digest))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full()[..12])
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.full())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not a SHA-256 in hexadecimal"))
    }
}

/// The component and the settings of a generation, as digests. Only the component's digest is ever shown: a hash of the
/// settings would help to guess them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GenerationIdentity {
    pub(crate) component: Digest,
    settings: Digest,
}

impl GenerationIdentity {
    pub(crate) fn new(component: Digest, settings: &BTreeMap<String, String>) -> Self {
        let mut hash = Sha256::new();
        for text in settings.iter().flat_map(|(name, value)| [name, value]) {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        Self { component, settings: Digest(hash.finalize().into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_being_written() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string(), "ba7816bf8f01");
        assert_eq!(serde_json::from_str::<Digest>(&serde_json::to_string(&digest).unwrap()).unwrap(), digest);
        for text in
            ["\"\"", "\"ba7816bf8f01\"", "7", &format!("{:?}", "g".repeat(64)), &format!("{:?}", "é".repeat(32))]
        {
            assert!(serde_json::from_str::<Digest>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn settings_are_part_of_it() {
        let identity = |settings: &[(&str, &str)]| {
            let own = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
            GenerationIdentity::new(Digest::of(b""), &settings.iter().map(own).collect())
        };
        assert_eq!(identity(&[("a", "b")]), identity(&[("a", "b")]));
        assert_ne!(identity(&[("a", "b")]), identity(&[("a", "c")]));
        assert_ne!(identity(&[("a", "bc")]), identity(&[("ab", "c")]));
        assert_ne!(identity(&[]), identity(&[("", "")]));
    }
}
