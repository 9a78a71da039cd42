use std::fmt::Write;

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
    let text = format!("{LOGIN}\n{}\n{uid}", hex(challenge));
    let expected = match settings.keys {
        Keys::Shared => hmac(&settings.secret, &text),
        Keys::PerUid => hmac(&settings.secret, &format!("{KEY}\n{uid}"))
            .and_then(|key| hmac(&hex(&key.finalize().into_bytes()), &text)),
    };
    expected.is_some_and(|expected| expected.verify_slice(mac).is_ok())
}

fn hmac(key: &str, text: &str) -> Option<Hmac<Sha256>> {
    Hmac::new_from_slice(key.as_bytes()).ok().map(|hmac: Hmac<Sha256>| hmac.chain_update(text))
}

/// Returns bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut digits, byte| {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// Returns the bytes of hexadecimal digits of either case.
pub(crate) fn unhex(digits: &str) -> Option<[u8; MAC_BYTES]> {
    let mut bytes = [0; MAC_BYTES];
    if digits.len() != 2 * MAC_BYTES {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}
