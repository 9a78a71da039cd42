//! {{name}}: who is this? A new client is greeted, and the `id` in its first packet becomes its
//! uid.
//!
//! This proves nothing: put your own rule into [`identify`].
//!
//! The gateway calls the functions below, and carries out the results. Each call may run in a fresh
//! instance, so keep nothing in a global. `wit/*.wit` explains the interfaces;
//! `cargo doc --document-private-items --open` shows their names in Rust.

// Rust types and traits of the interfaces in wit/, generated at each build.
#[allow(warnings)]
#[rustfmt::skip]
mod bindings;
mod packet;

use bindings::exports::hotgate::gateway::authenticator::{
    self, Handshake, Identity, Prompt, Verdict,
};
use bindings::exports::hotgate::gateway::lifecycle;
use bindings::hotgate::gateway::logging::{Level, log};
use bindings::hotgate::gateway::types::{CloseReason, Message, Payload};

/// Sent once a client is authenticated.
const WELCOME: &str = "Link_successful";
/// The close code for a first packet that cannot be used. You may give 3000 to 4899 any meaning.
const BAD_REQUEST: u16 = 4400;

struct Plugin;

bindings::export!(Plugin with_types_in bindings);

impl lifecycle::Guest for Plugin {
    /// Called before this plugin goes live. An error refuses it: the old plugin goes on serving.
    fn check() -> Result<(), String> {
        greeting().map(|_| ())
    }
}

impl authenticator::Guest for Plugin {
    /// A connection has opened. `handshake` holds all that is known: address, path, query, and the
    /// headers that `websocket.pass_headers` lists. If it holds a token, you can accept or deny
    /// here already.
    fn greet(_handshake: Handshake) -> Verdict {
        // `check` has made sure that there is a greeting. `authenticate` would get the state; none
        // is needed.
        Verdict::Challenge(Prompt {
            message: greeting().ok().map(Payload::Text),
            state: Vec::new(),
        })
    }

    /// The client has sent its first packet.
    fn authenticate(_handshake: Handshake, packet: Message, _state: Vec<u8>) -> Verdict {
        match identify(&packet) {
            Ok(uid) => Verdict::Accept(Identity {
                uid,
                reply: Some(Payload::Text(WELCOME.into())),
                attributes: Vec::new(), // for the router: roles, a tenant…
                expires_at: None,       // seconds since 1970, when the session ends
            }),
            Err(reason) => {
                // Log the decision, never the packet: it may carry a password.
                log(Level::Debug, &format!("denied: {reason}"));
                Verdict::Deny(CloseReason {
                    code: BAD_REQUEST,
                    reason,
                })
            }
        }
    }
}

/// Returns the uid for a first packet. Change this rule.
fn identify(packet: &Message) -> Result<String, String> {
    let fields = packet::object(packet::text(packet)?)?;
    packet::uid(&fields, "id")
}

/// Returns the message to a new client: the setting GREETING. Settings are environment variables.
fn greeting() -> Result<String, String> {
    let greeting = std::env::var("GREETING").unwrap_or_else(|_| "HeartBeat".into());
    match greeting.chars().count() {
        1..=100 => Ok(greeting),
        _ => Err("GREETING must have 1 to 100 characters".into()),
    }
}
