//! An authenticator for signed tokens: JSON Web Tokens (RFC 7519), as Auth0, Keycloak and most others issue them, or as
//! a server of your own signs them with a secret.
//!
//! A client sends the token as its first packet, alone or in a JSON object: `{"token":"eyJ…"}`. If a setting allows it,
//! the token may also come with the handshake. A packet without a token is passed on to the next authenticator. A bad
//! token denies the client, whatever comes after it. A packet that is not JSON counts as a token if it is three parts
//! of base64url, none of them empty, with dots between them.
//!
//! So never put an authenticator that believes everybody, such as `origin-auth`, behind this one in the chain: a client
//! could leave out the token and log in as any uid. (In front of it, such an authenticator would take every packet.)
//!
//! # Settings
//!
//! At least one of the first three is needed. The items of a list are separated by commas. A setting that is not in
//! this table is refused.
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `JWT_KEYS` | | a JSON Web Key Set (RFC 7517), as issuers publish it, or a single key. Keys of a set that cannot check tokens here are ignored, but at least one must remain, and at most 16. Private keys are refused. A member that is `null` counts as absent, and so does an empty `key_ops` |
//! | `JWT_PUBLIC_KEY` | | a public key in PEM: RSA (for RS256), P-256 (for ES256) or Ed25519 (for EdDSA), in lines of any length |
//! | `JWT_SECRET` | | a secret of at least 32 bytes (for HS256; 48 for HS384, 64 for HS512). Its text is used as it is; white space at its beginning or end is refused. Put a secret in base64 into `JWT_KEYS`: `{"kty":"oct","k":"…"}` |
//! | `JWT_ISSUER` | anybody | a list; `iss` must be exactly one of its items (Auth0's ends with `/`) |
//! | `JWT_AUDIENCE` | nobody | a list; one value of `aud` must be one of its items. Without this setting, a token with an `aud` is denied, because it is meant for somebody else. `*` accepts any `aud` |
//! | `JWT_LEEWAY` | `60` | by how many seconds the clocks of issuer and gateway may differ, up to 600 |
//! | `JWT_EXPIRY` | `required` | or `optional`: a token without `exp` never expires |
//! | `JWT_UID_CLAIM` | `sub` | the claim that holds the uid, a string or an integer |
//! | `JWT_ATTRIBUTES` | none | a list of claims that become attributes for the router, each under its own name or another: `role,rooms=https://example.com/rooms` |
//! | `JWT_FIELD` | `token` | the field of a JSON packet that holds the token |
//! | `JWT_HEADER` | | a header of the handshake that may hold the token, most often `authorization`: `Bearer …`; any other header may also hold a token alone. Web pages can set only one header: see below |
//! | `JWT_QUERY` | | a parameter of the handshake's query that may hold the token. Addresses end up in logs: use it for tokens that are valid for seconds |
//! | `JWT_COOKIE` | | a cookie of the handshake that may hold the token |
//! | `JWT_REPLY` | `Link_successful` | the reply to a client that has logged in; no reply if empty |
//!
//! A setting names a claim by the claim's name, or by a JSON pointer (RFC 6901) to a nested claim, such as Keycloak's
//! `roles=/realm_access/roles`. A claim that is a list makes an attribute of each item that is not `null`. A claim that
//! is `null`, or a list without such an item, makes one attribute with an empty value. A missing claim makes no
//! attribute. Routers see the difference: with an empty attribute, `rooms-router` grants nothing; without the
//! attribute, it grants what its setting grants. So an issuer takes a permission away with an empty claim, not by
//! leaving out the claim.
//!
//! A web page cannot set headers, but it can offer subprotocols, and one of them may be a token:
//! `new WebSocket(url, ["bearer", token])`. Set `JWT_HEADER = "sec-websocket-protocol"`, and in the gateway's settings
//! `pass_headers = ["sec-websocket-protocol"]` and `subprotocols = ["bearer"]`. A browser goes on only if the gateway
//! answers with one of the offered subprotocols, and the gateway answers `bearer`. A token that is offered alone is
//! read, too, but never sent back, so only clients that are not browsers can use this.
//!
//! The host shows only headers that `websocket.pass_headers` lists. So `JWT_HEADER` needs its header in that list, and
//! `JWT_COOKIE` needs `cookie` in it. With `cookie` in it, `websocket.allowed_origins` must name the origins whose
//! pages may connect.
//!
//! ```toml
//! [[authenticator]]
//! file = "jwt_auth.wasm"
//! [authenticator.settings]
//! JWT_KEYS = { file = "jwks.json" }
//! JWT_ISSUER = "https://example.eu.auth0.com/"
//! JWT_AUDIENCE = "push"
//! ```
//!
//! # What is accepted
//!
//! HS256, HS384, HS512, RS256, ES256 and EdDSA, each only with a key of its own type. A public key is never used as a
//! secret, and there is no `none`. A key with an `alg` is used for this algorithm only.
//!
//! A token that names its key (`kid`) is checked with the keys of `JWT_KEYS` that have this name, and is denied if
//! there are none. A token that names no key is checked with a key that has a name only if this is the only key for its
//! algorithm. Keys without a name, and the keys of the other two settings, are tried with every token of their
//! algorithm, because nothing says which tokens are theirs.
//!
//! Nobody can cause much work by sending a token: at most 4 keys are tried, and RSA keys have 2048 to 4096 bits.
//! Headers with `crit`, objects that name a member twice, and tokens over 16 KiB are refused.
//!
//! `typ` is not checked: a token that the same issuer made for the same audience, but for another purpose (an ID token,
//! or one that confirms an address), logs in, too. Give this gateway an audience of its own.
//!
//! # How long
//!
//! `exp` also ends the session, with the same leeway: the host closes the session with 4906 in the second from which a
//! new login would be denied. To stay, a client sends a new token in time, and the router hands it over
//! (`action.authenticate`). A token of the same uid renews the session; anything else ends it.
//!
//! # Close codes
//!
//! | code | meaning | what the client should do |
//! | --- | --- | --- |
//! | 4001 | the token cannot be read | find the mistake in the client |
//! | 4002 | the token is not trusted: unknown key, wrong signature, refused algorithm | log in again |
//! | 4003 | the token is genuine, but not for here and now: `iss`, `aud`, `nbf`, no `exp`, no uid | log in elsewhere |
//! | 4004 | the token has expired | get a new token and connect again |
//! | 1013 | the settings cannot be used (`check` refuses such settings before) | try again later |

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

/// The plugin. It keeps no state: it reads its settings anew for each login, because each login has its own instance.
pub struct JwtAuth;

// Only the linker of the wasm target accepts the names by which a component is linked.
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

/// Returns the verdict of a decision. A decision without an identity is a pass.
fn verdict(decide: impl FnOnce(&JwtSettings) -> Result<Option<Identity>, Denial>) -> Verdict {
    match JwtSettings::from_environment().map_err(|_| Denial::NotSetUp).and_then(|settings| decide(&settings)) {
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

/// Returns the identity of whoever bears this token at this time, in seconds since 1970. No part of the token is
/// believed before its signature is checked.
fn identity(settings: &JwtSettings, token: &str, now: u64) -> Result<Identity, Denial> {
    let token = Token::parse(token)?;
    settings.keys.vouch(&token)?;
    let bearer = settings.rules.bearer(&token.payload()?, now)?;
    Ok(Identity {
        uid: bearer.uid,
        reply: settings.reply.clone().map(Payload::Text),
        attributes: bearer.attributes,
        expires_at: bearer.expires_at,
    })
}

/// Returns the seconds since 1970. If the clock is set to a time before, everything that can expire has expired.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs())
}
