//! {{name}}: who is this, and who gets this? A new client is greeted, and the `id` in its first
//! packet becomes its uid. After that, a packet `{"id":"u2","msg":"hi"}` sends `hi` to the client
//! u2; a line `{"uid":"u1"}` of an internal system goes to u1 unchanged.
//!
//! The gateway calls the functions below, and carries out each result in its order. Each call may
//! run in another instance, so keep nothing in a global: keep the data of a client in its session
//! (`Action::Remember`). `wit/*.wit` explains the interfaces;
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
use bindings::exports::hotgate::gateway::router::{
    self, Action, Answer, Command, Delivery, Ending, Recipient, Sender, Session,
};
use bindings::hotgate::gateway::logging::{Level, log};
use bindings::hotgate::gateway::types::{CloseReason, Message, Payload};

/// Sent once a client is authenticated.
const WELCOME: &str = "Link_successful";
/// The answer to every later packet.
const RECEIVED: &str = "Already_Linked";
/// Sent to a client when another connection of the same uid has closed.
const OTHER_CLOSED: &str = "123";
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
                attributes: Vec::new(), // for the router below: roles, a tenant…
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

impl router::Guest for Plugin {
    /// A client has been authenticated. Here you can put it into groups (`Action::Join`).
    fn opened(_session: Session) -> Vec<Action> {
        Vec::new()
    }

    /// A client has sent a packet.
    fn route(_session: Session, packet: Message) -> Vec<Action> {
        let mut actions = Vec::new();
        match delivery(&packet) {
            Ok(delivery) => actions.extend(delivery.map(Action::Deliver)),
            Err(reason) => log(Level::Debug, &format!("nothing delivered: {reason}")),
        }
        actions.push(Action::Reply(Payload::Text(RECEIVED.into())));
        actions
    }

    /// A client has gone. Nothing can be sent to its connection any more, only to others.
    fn closed(session: Session, ending: Ending) -> Vec<Command> {
        if ending.remaining == 0 {
            return Vec::new();
        }
        vec![Command::Deliver(to(
            session.uid,
            Payload::Text(OTHER_CLOSED.into()),
        ))]
    }

    /// An internal system has sent a line to the text port. The answer is `ok` if every delivery
    /// reaches somebody, else `fail`.
    fn push(_sender: Sender, line: String) -> Result<Answer, String> {
        let uid = packet::uid(&packet::object(&line)?, "uid")?;
        // `Input` is the line itself: it is passed on without a copy.
        Ok(Answer {
            commands: vec![Command::Deliver(to(uid, Payload::Input))],
            reply: None,
        })
    }
}

// Optional: decide about messages that internal systems publish by HTTP (`api.rules = "router"` in
// the gateway's settings). Write the world `authentication-routing-and-publishing` in place of
// `{{world}}` in src/bindings.rs (cargo-component: in Cargo.toml), and remove the slashes below.
// A case for it: { publish = { uid = "u1", message = "hi" }, expect = "pass" }
//
// use bindings::exports::hotgate::gateway::publications::{self, Publisher, Ruling};
//
// impl publications::Guest for Plugin {
//     fn publish(publisher: Publisher, _to: Vec<Recipient>, _message: Message) -> Ruling {
//         match publisher.token.as_str() {
//             "default" => Ruling::Pass,
//             other => Ruling::Refuse(format!("the token {other} may not publish")),
//         }
//     }
// }

/// Returns the uid for a first packet. Change this rule for logins.
fn identify(packet: &Message) -> Result<String, String> {
    let fields = packet::object(packet::text(packet)?)?;
    packet::uid(&fields, "id")
}

/// Returns the delivery that a packet asks for; none without `msg`. Change this rule for messages.
fn delivery(packet: &Message) -> Result<Option<Delivery>, String> {
    let mut fields = packet::object(packet::text(packet)?)?;
    let uid = packet::uid(&fields, "id")?;
    let message = fields.remove("msg").map(|msg| match msg {
        serde_json::Value::String(text) => text,
        other => other.to_string(), // as JSON
    });
    Ok(message.map(|message| to(uid, Payload::Text(message))))
}

/// Returns a delivery to a uid. It reaches nobody if the uid is offline.
fn to(uid: String, message: Payload) -> Delivery {
    Delivery {
        to: Recipient::Uid(uid),
        message,
        otherwise: None,
    }
}

/// Returns the message to a new client: the setting GREETING. Settings are environment variables.
fn greeting() -> Result<String, String> {
    let greeting = std::env::var("GREETING").unwrap_or_else(|_| "HeartBeat".into());
    match greeting.chars().count() {
        1..=100 => Ok(greeting),
        _ => Err("GREETING must have 1 to 100 characters".into()),
    }
}
