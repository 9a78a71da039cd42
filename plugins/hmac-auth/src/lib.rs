//! An authenticator by challenge and response: a client proves that it knows a secret, without sending the secret.
//!
//! A new connection gets the challenge: a random number that is used once. The client answers with a uid and with a MAC
//! (HMAC-SHA256, RFC 2104) of challenge and uid, which only the secret can make. Whoever listens cannot log in with
//! what was sent: the next connection has another challenge, and a MAC is valid for one uid.
//!
//! | who | message |
//! | --- | --- |
//! | gateway, at once | `{"challenge":"…"}`: 64 hexadecimal digits |
//! | client | `{"uid":"u1","mac":"…"}`: 64 hexadecimal digits of either case; an integer is a uid, too |
//! | gateway | the reply |
//!
//! The text of the key is the HMAC key. The MAC covers three lines, joined by `\n`, without one at the end: the
//! purpose, the challenge as it was sent, and the uid.
//!
//! ```python
//! text = f"hotgate:hmac-auth:1:login\n{challenge}\n{uid}"
//! mac = hmac.new(key.encode(), text.encode(), "sha256").hexdigest()
//! ```
//!
//! # Settings
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `HMAC_SECRET` | needed | a text of at least 32 bytes, without white space at its beginning or end, random: `openssl rand -hex 32` |
//! | `HMAC_KEYS` | `shared` | `shared`: the key is the secret; whoever has it can log in as any uid. `per-uid`: each uid has a key of its own, made from the secret, and can log in only as itself |
//! | `HMAC_REPLY` | `Link_successful` | the reply to a client that has logged in; no reply if empty |
//!
//! With `per-uid`, the key of a uid is a MAC in lower-case hexadecimal digits. The secret makes this MAC over two
//! lines:
//!
//! ```sh
//! printf 'hotgate:hmac-auth:1:key\n%s' u1 | openssl dgst -sha256 -hmac "$HMAC_SECRET" -r
//! ```
//!
//! # What it does not do
//!
//! - It protects the secret, not the connection: an attacker who can change data on the wire can take over an open
//!   session. Put TLS in front of the gateway.
//! - It cannot recognise a stolen key: a new secret is the only way to lock somebody out.
//! - It does not renew sessions: its sessions do not expire. When a session of another authenticator is to be renewed,
//!   this plugin has no open challenge, and passes.
//!
//! # In a chain
//!
//! It must be the first authenticator that greets, because only the first greeting is sent. It passes on a packet
//! without `mac`. So never put an authenticator that believes everybody, such as `origin-auth`, behind it: a client
//! could leave out the `mac` and log in as any uid. (In front of it, such an authenticator would take every packet.)
//!
//! # Close codes
//!
//! | code | meaning |
//! | --- | --- |
//! | 4001 | the answer cannot be read |
//! | 4002 | the answer is wrong; the connection does not get another try |
//! | 1013 | the settings cannot be used (`check` refuses such settings before), or there are no random numbers |

mod answer;
mod mac;
mod settings;
#[cfg(test)]
mod tests;

use exports::hotgate::gateway::authenticator::{self, Handshake, Identity, Prompt, Verdict};
use exports::hotgate::gateway::lifecycle;
use hotgate::gateway::types::{CloseReason, Message, Payload};

use answer::Answer;
use mac::CHALLENGE_BYTES;
use settings::HmacSettings;

wit_bindgen::generate!({ path: "../../wit", world: "authentication" });

/// The close code for an answer that cannot be read.
const UNREADABLE: u16 = 4001;
/// The close code for a wrong answer.
const WRONG: u16 = 4002;
/// The close code for an answer that cannot be checked.
const TRY_AGAIN_LATER: u16 = 1013;

/// The plugin. It keeps no state: the host hands each challenge back with the answer.
pub struct HmacAuth;

// Only the linker of the wasm target accepts the names by which a component is linked.
#[cfg(target_family = "wasm")]
export!(HmacAuth);

impl lifecycle::Guest for HmacAuth {
    fn check() -> Result<(), String> {
        HmacSettings::from_environment()?;
        challenge().ok_or("there are no random numbers").map(drop).map_err(Into::into)
    }
}

impl authenticator::Guest for HmacAuth {
    fn greet(_: Handshake) -> Verdict {
        match challenge() {
            Some(challenge) => greeting(challenge),
            None => deny(TRY_AGAIN_LATER, "there are no random numbers"),
        }
    }

    fn authenticate(_: Handshake, packet: Message, state: Vec<u8>) -> Verdict {
        match HmacSettings::from_environment() {
            Ok(settings) => authenticate(&settings, &packet, &state),
            Err(_) => deny(TRY_AGAIN_LATER, "answers cannot be checked at the moment"),
        }
    }
}

/// Returns a number that nobody can guess, and that was never used before.
fn challenge() -> Option<[u8; CHALLENGE_BYTES]> {
    let mut challenge = [0; CHALLENGE_BYTES];
    getrandom::fill(&mut challenge).ok().map(|()| challenge)
}

/// Returns the greeting. Its state is the challenge itself, which is no secret: the client gets it, too.
fn greeting(challenge: [u8; CHALLENGE_BYTES]) -> Verdict {
    let message = format!(r#"{{"challenge":"{}"}}"#, hex::encode(challenge));
    Verdict::Challenge(Prompt { message: Some(Payload::Text(message)), state: challenge.to_vec() })
}

fn authenticate(settings: &HmacSettings, packet: &Message, state: &[u8]) -> Verdict {
    // Without a challenge of this plugin, an answer proves nothing: the packet is to renew a session.
    let Ok(challenge) = state.try_into() else { return Verdict::Pass };
    match Answer::read(packet) {
        None => Verdict::Pass,
        Some(Err(problem)) => deny(UNREADABLE, &problem),
        Some(Ok(answer)) if answer.is_right(settings, challenge) => Verdict::Accept(Identity {
            uid: answer.uid,
            reply: settings.reply.clone().map(Payload::Text),
            attributes: Vec::new(),
            expires_at: None,
        }),
        Some(Ok(_)) => deny(WRONG, "the answer to the challenge is wrong"),
    }
}

fn deny(code: u16, reason: &str) -> Verdict {
    Verdict::Deny(CloseReason { code, reason: reason.into() })
}
