//! What the gateways of one cluster share.

use sha2::{Digest as _, Sha256};
use siphasher::sip::SipHasher13;

use super::id::{Fingerprint, UidKey};

/// What the gateways of one cluster share.
#[derive(Clone)]
pub struct Secret {
    fingerprint: Fingerprint,
    uids: SipHasher13,
}

impl Secret {
    /// Derives keys from `cluster.secret`.
    pub fn new(secret: &[u8]) -> Self {
        let derive = |purpose: &str| -> [u8; 32] {
            let mut hash = Sha256::new();
            hash.update(purpose);
            hash.update(secret);
            hash.finalize().into()
        };
        let [fingerprint, uids] = ["hotgate cluster: fingerprint\n", "hotgate cluster: uids\n"].map(derive);
        let word = |bytes: &[u8; 32], at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(word)
        };
        Self {
            fingerprint: Fingerprint(word(&fingerprint, 0)),
            uids: SipHasher13::new_with_keys(word(&uids, 0), word(&uids, 8)),
        }
    }

    /// Returns the fingerprint, which others may see.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Returns the key by which the directory knows a uid.
    pub fn key(&self, uid: &str) -> UidKey {
        UidKey(self.uids.hash(uid.as_bytes()))
    }
}
