mod claims;
mod forgeries;
mod places;
mod settings;
mod vectors;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha384, Sha512};

use crate::denial::Denial;
use crate::exports::hotgate::gateway::authenticator::Identity;
use crate::settings::JwtSettings;

/// The secret of most tests: exactly as long as HS256 needs.
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// The claims of most tokens.
const CLAIMS: &str = r#"{"sub":"u1","exp":2000}"#;
/// The time of most tests: before these tokens expire.
const NOW: u64 = 1000;

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Returns a token with this header and these claims, signed with HS256 whatever the header says.
fn signed(header: &str, claims: impl AsRef<[u8]>, secret: impl AsRef<[u8]>) -> String {
    with_mac::<Hmac<Sha256>>(header, claims, secret)
}

fn signed_384(claims: &str, secret: &str) -> String {
    with_mac::<Hmac<Sha384>>(r#"{"alg":"HS384"}"#, claims, secret)
}

fn signed_512(claims: &str, secret: &str) -> String {
    with_mac::<Hmac<Sha512>>(r#"{"alg":"HS512"}"#, claims, secret)
}

fn with_mac<M: Mac + KeyInit>(header: &str, claims: impl AsRef<[u8]>, secret: impl AsRef<[u8]>) -> String {
    let signed = format!("{}.{}", base64url(header), base64url(claims));
    let mac = <M as KeyInit>::new_from_slice(secret.as_ref()).unwrap().chain_update(&signed).finalize().into_bytes();
    format!("{signed}.{}", base64url(mac))
}

/// Returns a token with these claims, signed with [`SECRET`].
fn genuine(claims: impl AsRef<[u8]>) -> String {
    signed(r#"{"alg":"HS256"}"#, claims, SECRET)
}

/// Returns settings with [`SECRET`] and these settings.
fn with(settings: &[(&str, &str)]) -> JwtSettings {
    JwtSettings::new(&[&[("JWT_SECRET", SECRET)], settings].concat()).unwrap()
}

fn identity(settings: &JwtSettings, token: &str) -> Result<Identity, Denial> {
    crate::identity(settings, token, NOW)
}

/// Returns why a token is denied. The client gets this text, so it must fit a close frame.
#[track_caller]
fn denied(settings: &JwtSettings, token: &str) -> String {
    let denial = identity(settings, token).expect_err(token);
    let reason = format!("{} {denial}", denial.code());
    assert!(denial.to_string().len() <= 123, "{reason}");
    reason
}

/// The denials of tokens that an unknown key signed, or that are signed or written wrongly.
const NO_KEY: &str = "4002 the token is not trusted: no key of its name and algorithm is known";
const NOT_SAID_WHICH: &str = "4002 the token is not trusted: it does not say which of the keys it is signed with";
const WRONG_SIGNATURE: &str = "4002 the token is not trusted: its signature is wrong";
const NOT_BASE64: &str = "4001 the token cannot be read: a part of it is not base64url without padding";
const NOT_THREE_PARTS: &str = "4001 the token cannot be read: it does not consist of three parts";
