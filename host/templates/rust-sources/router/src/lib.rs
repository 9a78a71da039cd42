//! {{name}}: who gets this? A packet `{"id":"u2","msg":"hi"}` sends `hi` to the client u2; a line
//! `{"uid":"u1"}` of an internal system goes to u1 as it came.
//!
//! A plugin is asked and answers; the gateway does the rest, in the order of the answer. Instances
//! serve many users, so what belongs to one of them goes into its session (`Action::Remember`),
//! never into a global. The interfaces are explained in `wit/*.wit`; what they are called in Rust,
//! `cargo doc --document-private-items --open` shows.

// Rust types and traits of the interfaces in wit/, generated at each build.
#[allow(warnings)]
#[rustfmt::skip]
mod bindings;
mod packet;

use bindings::exports::hotgate::gateway::lifecycle;
use bindings::exports::hotgate::gateway::router::{
    self, Action, Answer, Command, Delivery, Ending, Recipient, Sender, Session,
};
use bindings::hotgate::gateway::logging::{Level, log};
use bindings::hotgate::gateway::types::{Message, Payload};

/// Sent to a client when another connection of the same uid has closed.
const OTHER_CLOSED: &str = "123";

struct Plugin;

bindings::export!(Plugin with_types_in bindings);

impl lifecycle::Guest for Plugin {
    /// Asked before this plugin goes live. An error refuses it, and what served before goes on.
    fn check() -> Result<(), String> {
        reply().map(|_| ())
    }
}

impl router::Guest for Plugin {
    /// A client has been authenticated. The place to put it into groups (`Action::Join`).
    fn opened(_session: Session) -> Vec<Action> {
        Vec::new()
    }

    /// A client has sent a packet.
    fn route(_session: Session, packet: Message) -> Vec<Action> {
        let mut actions = Vec::new();
        match delivery(&packet) {
            Ok(delivery) => actions.extend(delivery.map(Action::Deliver)),
            // Log what was decided, never the packet: it is private.
            Err(reason) => log(Level::Debug, &format!("nothing delivered: {reason}")),
        }
        // `check` has made sure that there is a reply.
        actions.extend(
            reply()
                .ok()
                .map(|reply| Action::Reply(Payload::Text(reply))),
        );
        actions
    }

    /// A client has gone. Nothing can be sent to that connection any more, but to others.
    fn closed(session: Session, ending: Ending) -> Vec<Command> {
        if ending.remaining == 0 {
            return Vec::new();
        }
        vec![Command::Deliver(to(
            session.uid,
            Payload::Text(OTHER_CLOSED.into()),
        ))]
    }

    /// An internal system has sent a line to the text port. It is answered `ok` if all deliveries
    /// reach somebody, else `fail`.
    fn push(_sender: Sender, line: String) -> Result<Answer, String> {
        let uid = packet::uid(&packet::object(&line)?, "uid")?;
        // `Input` is the line itself: it is passed on without a copy.
        Ok(Answer {
            commands: vec![Command::Deliver(to(uid, Payload::Input))],
            reply: None,
        })
    }
}

/// The delivery that a packet asks for; none without `msg`. This is the rule to change.
fn delivery(packet: &Message) -> Result<Option<Delivery>, String> {
    let mut fields = packet::object(packet::text(packet)?)?;
    let uid = packet::uid(&fields, "id")?;
    let message = fields.remove("msg").map(|msg| match msg {
        serde_json::Value::String(text) => text,
        other => other.to_string(), // as JSON
    });
    Ok(message.map(|message| to(uid, Payload::Text(message))))
}

/// A message to a uid, and to nobody if that is offline.
fn to(uid: String, message: Payload) -> Delivery {
    Delivery {
        to: Recipient::Uid(uid),
        message,
        otherwise: None,
    }
}

/// What every packet is answered with: the setting REPLY. Settings arrive as environment variables.
fn reply() -> Result<String, String> {
    let reply = std::env::var("REPLY").unwrap_or_else(|_| "Already_Linked".into());
    match reply.chars().count() {
        1..=100 => Ok(reply),
        _ => Err("REPLY must have 1 to 100 characters".into()),
    }
}
