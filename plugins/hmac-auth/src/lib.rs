//! Who is this? Whoever knows the secret, and proves it without sending it.
//!
//! A new connection is sent a random number that is used once, the challenge. The client answers with a uid and a MAC
//! (HMAC-SHA256, RFC 2104) of both, which only the secret can make. Whoever listens learns nothing to log in with: the
//! next connection has another challenge, and a MAC is good for one uid.
//!
//! | who | message |
//! | --- | --- |
//! | gateway, at once | `{"challenge":"…"}`: 64 hexadecimal digits |
//! | client | `{"uid":"u1","mac":"…"}`: 64 hexadecimal digits of either case; an integer is a uid, too |
//! | gateway | the reply |
//!
//! The MAC is made with the key's text over three lines, joined by `\n` and with none at the end: what this is for, the
//! challenge as it was sent, and the uid.
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
//! | `HMAC_KEYS` | `shared` | `shared`: the key is the secret; whoever has it may be any uid. `per-uid`: each uid has a key of its own, made from the secret, and can be nobody else |
//! | `HMAC_REPLY` | `Link_successful` | what a client is told once it is in; nothing if empty |
//!
//! The key of a uid (`per-uid`) is the MAC, in lower case, that the secret makes over two such lines:
//!
//! ```sh
//! printf 'hotgate:hmac-auth:1:key\n%s' u1 | openssl dgst -sha256 -hmac "$HMAC_SECRET" -r
//! ```
//!
//! # What it does not do
//!
//! It protects the secret, not the connection: who can change what is on the wire takes over a session that is open. Put
//! TLS in front of it. It sees whether an answer is good, and cannot know a key that was stolen: a new secret is the only
//! way to lock somebody out. And it does not renew sessions: these do not expire, and where another authenticator renews
//! its own, there is no open challenge, so that it passes.
//!
//! # In a chain
//!
//! It must be the first that greets, for only the first greeting is sent. A packet without `mac` is passed on. So no
//! authenticator that believes everybody, such as `origin-auth`, may stand after it: leaving out the `mac` would be enough
//! to be anybody. (Before it, such a one would not even leave it a packet.)
//!
//! # Close codes
//!
//! | code | meaning |
//! | --- | --- |
//! | 4001 | the answer cannot be read |
//! | 4002 | the answer is wrong; the connection does not get another try |
//! | 1013 | the settings cannot be used, which `check` refuses before, or there are no random numbers |

mod answer;
mod mac;
mod settings;
#[cfg(test)]
mod tests;

use exports::hotgate::gateway::authenticator::{self, Handshake, Identity, Prompt, Verdict};
use exports::hotgate::gateway::lifecycle;
use hotgate::gateway::types::{CloseReason, Message, Payload};

use answer::Answer;
use mac::{CHALLENGE_BYTES, hex};
use settings::HmacSettings;

wit_bindgen::generate!({ path: "../../wit", world: "authentication" });

/// Why a connection is closed whose answer cannot be read.
const UNREADABLE: u16 = 4001;
/// Why one is closed whose answer is wrong.
const WRONG: u16 = 4002;
/// Why one is closed that cannot be judged.
const TRY_AGAIN_LATER: u16 = 1013;

/// The plugin. It keeps nothing: the host hands each challenge back with the answer to it.
pub struct HmacAuth;

// A component is linked by names that only its own target's linker takes.
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
            Err(_) => deny(TRY_AGAIN_LATER, "answers cannot be judged here at the moment"),
        }
    }
}

/// A number that nobody can guess, and that has never been used before.
fn challenge() -> Option<[u8; CHALLENGE_BYTES]> {
    let mut challenge = [0; CHALLENGE_BYTES];
    getrandom::fill(&mut challenge).ok().map(|()| challenge)
}

/// The host keeps the challenge itself. It is no secret: the client is told it, too.
fn greeting(challenge: [u8; CHALLENGE_BYTES]) -> Verdict {
    let message = format!(r#"{{"challenge":"{}"}}"#, hex(&challenge));
    Verdict::Challenge(Prompt { message: Some(Payload::Text(message)), state: challenge.to_vec() })
}

fn authenticate(settings: &HmacSettings, packet: &Message, state: &[u8]) -> Verdict {
    // Without a challenge of this plugin there is nothing that an answer could prove: a session is to be renewed.
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
