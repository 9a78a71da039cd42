use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::settings::{HmacSettings, Keys};

/// The length of a challenge: 256 bits, so that no two connections ever get the same.
pub(crate) const CHALLENGE_BYTES: usize = 32;
/// The length of an HMAC-SHA256.
pub(crate) const MAC_BYTES: usize = 32;

/// The first line of a MAC's text is its purpose, so that no MAC is ever valid for another purpose.
const LOGIN: &str = "hotgate:hmac-auth:1:login";
const KEY: &str = "hotgate:hmac-auth:1:key";

/// Returns whether this is the MAC for a challenge and a uid. The time of the check does not show how much of the MAC
/// is right.
pub(crate) fn is_right(
    settings: &HmacSettings,
    challenge: &[u8; CHALLENGE_BYTES],
    uid: &str,
    mac: &[u8; MAC_BYTES],
) -> bool {
    // A challenge has a fixed length, and the uid is the rest: no two pairs of challenge and uid make the same text.
    let text = format!("{LOGIN}\n{}\n{uid}", hex::encode(challenge));
    let expected = match settings.keys {
        Keys::Shared => hmac(&settings.secret, &text),
        Keys::PerUid => hmac(&settings.secret, &format!("{KEY}\n{uid}"))
            .and_then(|key| hmac(&hex::encode(key.finalize().into_bytes()), &text)),
    };
    expected.is_some_and(|expected| expected.verify_slice(mac).is_ok())
}

fn hmac(key: &str, text: &str) -> Option<Hmac<Sha256>> {
    Hmac::new_from_slice(key.as_bytes()).ok().map(|hmac: Hmac<Sha256>| hmac.chain_update(text))
}

/// Returns the bytes of hexadecimal digits of either case.
pub(crate) fn unhex(digits: &str) -> Option<[u8; MAC_BYTES]> {
    let mut bytes = [0; MAC_BYTES];
    hex::decode_to_slice(digits, &mut bytes).ok().map(|()| bytes)
}
