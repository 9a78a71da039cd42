//! Who is this? Whoever a signed token says: JSON Web Tokens (RFC 7519), as Auth0, Keycloak and most others issue them,
//! or signed by a server of your own with a secret.
//!
//! A client sends the token as its first packet, alone or in a JSON object: `{"token":"eyJ…"}`. If a setting says so, it
//! may also come with the handshake. A packet without any token is passed on to the next authenticator; a token that is
//! no good denies the client, whatever comes after. A packet that is not JSON is a token if it is three parts of
//! base64url, none of them empty, with dots between them.
//!
//! So no authenticator that believes everybody, such as `origin-auth`, may stand after it in the chain: leaving out the
//! token would be enough to be anybody. (Before it, such a one would not even leave it a packet.)
//!
//! # Settings
//!
//! At least one of the first three is needed. Lists stand between commas. What is not in this table is refused.
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `JWT_KEYS` | | a JSON Web Key Set (RFC 7517), as issuers publish it, or a single key. Keys of a set that cannot check tokens here are passed over, but one must be left, and at most 16; private keys are refused. A member that is `null`, and an empty `key_ops`, count as absent |
//! | `JWT_PUBLIC_KEY` | | a public key in PEM: RSA (for RS256), P-256 (ES256) or Ed25519 (EdDSA), in lines of any length |
//! | `JWT_SECRET` | | a secret of at least 32 bytes (for HS256; 48 for HS384, 64 for HS512), its text taken as it is; white space at its beginning or end is refused. One in base64 goes into `JWT_KEYS`: `{"kty":"oct","k":"…"}` |
//! | `JWT_ISSUER` | anybody | a list; `iss` must be among them, to the letter (Auth0's ends with `/`) |
//! | `JWT_AUDIENCE` | nobody | a list; one in `aud` must be among them. Without it a token with an `aud` is denied, for it is meant for somebody else. `*` is anybody |
//! | `JWT_LEEWAY` | `60` | by how many seconds clocks may differ, up to 600 |
//! | `JWT_EXPIRY` | `required` | or `optional`: tokens without `exp` are good forever |
//! | `JWT_UID_CLAIM` | `sub` | the claim that holds the uid, a string or an integer |
//! | `JWT_ATTRIBUTES` | none | a list of claims that routers are told, each under its own name or another: `role,rooms=https://example.com/rooms` |
//! | `JWT_FIELD` | `token` | the field of a JSON packet that holds the token |
//! | `JWT_HEADER` | | a header of the handshake to look in, `authorization` most often: `Bearer …`; in any other header also a token alone. Pages can fill one only: see below |
//! | `JWT_QUERY` | | a parameter of the handshake's query to look in. Addresses end up in logs: rather for tokens that live for seconds |
//! | `JWT_COOKIE` | | a cookie of the handshake to look in |
//! | `JWT_REPLY` | `Link_successful` | what a client is told once it is in; nothing if empty |
//!
//! A claim is given by its name, or by a JSON pointer (RFC 6901) to what lies deeper, such as Keycloak's
//! `roles=/realm_access/roles`. A claim that is a list makes an attribute of each item that is not `null`. One that is
//! `null`, or a list without such an item, makes one attribute with an empty value; one that is missing makes none. For
//! routers that is a difference: by an empty attribute `rooms-router` grants nothing, without one whatever its setting
//! grants. An issuer takes a permission away by an empty claim, not by leaving the claim out.
//!
//! A page cannot set headers, but it can offer subprotocols, one of which may be a token: `new WebSocket(url, ["bearer",
//! token])`. Set `JWT_HEADER = "sec-websocket-protocol"`, and in the gateway's settings `pass_headers =
//! ["sec-websocket-protocol"]` and `subprotocols = ["bearer"]`: browsers go on only if the gateway answers with one of what
//! they offer, and that is `bearer`. A token offered alone is read, but never sent back, so that only other clients can
//! use that.
//!
//! The host shows no header that `websocket.pass_headers` does not list: `JWT_HEADER` needs its header there, and
//! `JWT_COOKIE` needs `cookie`, for which `websocket.allowed_origins` must name whose pages may connect.
//!
//! ```toml
//! [[authenticator]]
//! file = "jwt_auth.wasm"
//! settings = { JWT_KEYS = { file = "jwks.json" }, JWT_ISSUER = "https://example.eu.auth0.com/", JWT_AUDIENCE = "push" }
//! ```
//!
//! # What is accepted
//!
//! HS256, HS384, HS512, RS256, ES256 and EdDSA, each only with a key of its own type: a public key is never taken for a
//! secret, and there is no `none`. A key that says what it is for (`alg`) is used for nothing else. A token that names its
//! key (`kid`) is checked with those keys of `JWT_KEYS` that have that name, and is denied if there are none; one that
//! names no key, with a key that has a name only if that is the only one for its algorithm. Keys without a name, and those
//! of the other two settings, are tried with every token of their algorithm, for nothing says which are theirs. So that
//! nobody can have much computed by sending a token, that may be up to 4 keys, and RSA keys have 2048 to 4096 bits.
//! Headers with `crit`, objects that name a member twice, and tokens over 16 KiB are refused.
//!
//! `typ` is not looked at: a token that the same issuer made for the same audience, but for another purpose (an ID token,
//! or one that confirms an address), logs in as well. Give this gateway an audience of its own.
//!
//! # How long
//!
//! `exp` ends the session, too, with the same leeway: the host closes it with 4906 at the very second from which a new
//! login would be denied. To stay, a client sends a new token in time, and the router hands it over
//! (`action.authenticate`); a token of the same uid renews the session, anything else ends it.
//!
//! # Close codes
//!
//! | code | meaning | what a client does |
//! | --- | --- | --- |
//! | 4001 | not a token, or not one that can be read | has a mistake to be found |
//! | 4002 | not trusted: unknown key, wrong signature, refused algorithm | logs in again |
//! | 4003 | genuine, but not for here and now: `iss`, `aud`, `nbf`, no `exp`, no uid | logs in elsewhere |
//! | 4004 | expired | gets a new token and connects again |
//! | 1013 | the settings cannot be used; `check` refuses them before | tries again later |

mod algorithm;
mod claims;
mod denial;
mod jwk;
mod keys;
mod object;
mod places;
mod settings;
#[cfg(test)]
mod tests;
mod token;

use std::time::{SystemTime, UNIX_EPOCH};

use exports::hotgate::gateway::authenticator::{self, Handshake, Identity, Verdict};
use exports::hotgate::gateway::lifecycle;
use hotgate::gateway::types::{Message, Payload};

use denial::Denial;
use settings::JwtSettings;
use token::Token;

wit_bindgen::generate!({ path: "../../wit", world: "authentication" });

/// The plugin. It keeps nothing: its settings are read anew for each login, whose instance is its own.
pub struct JwtAuth;

// A component is linked by names that only its own target's linker takes.
#[cfg(target_family = "wasm")]
export!(JwtAuth);

impl lifecycle::Guest for JwtAuth {
    fn check() -> Result<(), String> {
        JwtSettings::from_environment()?.keys.check()
    }
}

impl authenticator::Guest for JwtAuth {
    fn greet(handshake: Handshake) -> Verdict {
        verdict(|settings| greet(settings, &handshake, now()))
    }

    fn authenticate(_: Handshake, packet: Message, _: Vec<u8>) -> Verdict {
        verdict(|settings| authenticate(settings, &packet, now()))
    }
}

/// The verdict by the settings; no identity and no denial is a pass.
fn verdict(judge: impl FnOnce(&JwtSettings) -> Result<Option<Identity>, Denial>) -> Verdict {
    match JwtSettings::from_environment().map_err(|_| Denial::NotSetUp).and_then(|settings| judge(&settings)) {
        Ok(Some(identity)) => Verdict::Accept(identity),
        Ok(None) => Verdict::Pass,
        Err(denial) => Verdict::Deny(denial.into()),
    }
}

fn greet(settings: &JwtSettings, handshake: &Handshake, now: u64) -> Result<Option<Identity>, Denial> {
    let token = settings.places.in_handshake(handshake)?;
    token.map(|token| identity(settings, token, now)).transpose()
}

fn authenticate(settings: &JwtSettings, packet: &Message, now: u64) -> Result<Option<Identity>, Denial> {
    let token = settings.places.in_packet(packet)?;
    token.map(|token| identity(settings, &token, now)).transpose()
}

/// Who bears this token at this time, in seconds since 1970. Nothing of it is believed before its signature is.
fn identity(settings: &JwtSettings, token: &str, now: u64) -> Result<Identity, Denial> {
    let token = Token::parse(token)?;
    settings.keys.vouch(&token)?;
    let bearer = settings.rules.judge(&token.payload()?, now)?;
    Ok(Identity {
        uid: bearer.uid,
        reply: settings.reply.clone().map(Payload::Text),
        attributes: bearer.attributes,
        expires_at: bearer.expires_at,
    })
}

/// Seconds since 1970. By a clock that is set to a time before, whatever expires has expired.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs())
}
