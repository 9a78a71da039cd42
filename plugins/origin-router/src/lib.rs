//! The router of the origin protocol: a packet goes to the client whose uid is the packet's `id`, a line to the client
//! whose uid is the line's `uid`.

use exports::hotgate::gateway::lifecycle;
use exports::hotgate::gateway::router::{self, Action, Answer, Command, Delivery, Ending, Recipient, Sender, Session};
use hotgate::gateway::types::{Message, Payload};
use origin_packet::Unusable;

wit_bindgen::generate!({ path: "../../wit", world: "routing" });

/// The answer to every packet of a client, whether or not its message reached anybody.
const RECEIVED: &str = "Already_Linked";
/// Sent to a client when another connection of the same uid has closed.
const OTHER_CLOSED: &str = "123";

/// The plugin. It has no settings and keeps no state.
pub struct OriginRouter;

// Only the linker of the wasm target accepts the names by which a component is linked.
#[cfg(target_family = "wasm")]
export!(OriginRouter);

impl lifecycle::Guest for OriginRouter {
    fn check() -> Result<(), String> {
        Ok(())
    }
}

impl router::Guest for OriginRouter {
    fn opened(_: Session) -> Vec<Action> {
        Vec::new()
    }

    fn route(_: Session, packet: Message) -> Vec<Action> {
        let delivery = delivery(&packet).ok().flatten().map(Action::Deliver);
        let reply = Action::Reply(Payload::Text(RECEIVED.into()));
        delivery.into_iter().chain([reply]).collect()
    }

    fn closed(session: Session, ending: Ending) -> Vec<Command> {
        if ending.remaining == 0 {
            return Vec::new();
        }
        vec![Command::Deliver(to(session.uid, Payload::Text(OTHER_CLOSED.into())))]
    }

    fn push(_: Sender, line: String) -> Result<Answer, String> {
        let uid = origin_packet::fields(&line, ["uid"])
            .and_then(|[uid]| origin_packet::uid("uid", uid))
            .map_err(|unusable| unusable.to_string())?;
        Ok(Answer { commands: vec![Command::Deliver(to(uid, Payload::Input))], reply: None })
    }
}

/// Returns the delivery that a packet asks for; none without `msg`. Binary packets are read as text.
fn delivery(packet: &Message) -> Result<Option<Delivery>, Unusable> {
    let packet = match packet {
        Message::Text(text) => text,
        Message::Binary(bytes) => origin_packet::text(bytes)?,
    };
    let [id, msg] = origin_packet::fields(packet, ["id", "msg"])?;
    let uid = origin_packet::uid("id", id)?;
    Ok(msg.and_then(origin_packet::message).map(|message| to(uid, Payload::Text(message))))
}

/// Returns a delivery to a uid. It reaches nobody if the uid is offline.
fn to(uid: String, message: Payload) -> Delivery {
    Delivery { to: Recipient::Uid(uid), message, otherwise: None }
}

#[cfg(test)]
mod tests {
    use super::router::{Cause, Guest};
    use super::*;

    fn session() -> Session {
        Session { connection: 1, uid: "u1".into(), attributes: Vec::new(), state: Vec::new() }
    }

    /// Returns the uid and the text of a delivery of text to a uid; `None` for any other delivery.
    fn delivered(delivery: &Delivery) -> Option<(&str, &str)> {
        match delivery {
            Delivery { to: Recipient::Uid(uid), message: Payload::Text(text), otherwise: None } => Some((uid, text)),
            _ => None,
        }
    }

    fn route(packet: Message) -> Vec<Action> {
        OriginRouter::route(session(), packet)
    }

    #[track_caller]
    fn assert_only_answered(actions: &[Action]) {
        assert!(matches!(actions, [Action::Reply(Payload::Text(reply))] if reply == "Already_Linked"), "{actions:?}");
    }

    #[test]
    fn a_message_goes_out_before_its_answer() {
        for (packet, expected) in [
            (Message::Text(r#"{"id":"u2","msg":"hi"}"#.into()), ("u2", "hi")),
            (Message::Text(r#"{"id":"u1","msg":""}"#.into()), ("u1", "")),
            (Message::Text(r#"{"id":7,"msg":{ "a": 1 }}"#.into()), ("7", r#"{"a":1}"#)),
            (Message::Text(r#"{"msg":null,"id":"u2"}"#.into()), ("u2", "null")),
            (Message::Binary(br#"{"id":"u2","msg":5}"#.to_vec()), ("u2", "5")),
        ] {
            let actions = route(packet);
            let [Action::Deliver(delivery), answer @ ..] = &actions[..] else { panic!("{actions:?}") };
            assert_eq!(delivered(delivery), Some(expected));
            assert_only_answered(answer);
        }
    }

    #[test]
    fn a_packet_that_asks_for_no_delivery_is_answered_all_the_same() {
        let long = format!(r#"{{"id":"{}","msg":"hi"}}"#, "u".repeat(257));
        for packet in ["", "hi", "[]", "{}", r#"{"msg":"hi"}"#, r#"{"id":"u2"}"#, r#"{"id":"","msg":"hi"}"#, &long] {
            assert_only_answered(&route(Message::Text(packet.into())));
        }
        assert_only_answered(&route(Message::Text(r#"{"id":[],"msg":"hi"}"#.into())));
        assert_only_answered(&route(Message::Text(r#"{"id":"u2","msg":"\ud800"}"#.into())));
        assert_only_answered(&route(Message::Binary(vec![0xff])));
    }

    #[test]
    fn opening_has_no_effect() {
        assert!(OriginRouter::opened(session()).is_empty());
    }

    #[test]
    fn a_close_is_told_to_the_connection_that_remains() {
        let ending = |remaining| Ending { cause: Cause::Client, code: Some(1000), groups: Vec::new(), remaining };
        assert!(OriginRouter::closed(session(), ending(0)).is_empty());
        let commands = OriginRouter::closed(session(), ending(1));
        let [Command::Deliver(delivery)] = &commands[..] else { panic!("{commands:?}") };
        assert_eq!(delivered(delivery), Some(("u1", "123")));
    }

    fn push(line: &str) -> Result<Answer, String> {
        OriginRouter::push(Sender { connection: 2, remote_address: "127.0.0.1:50000".into() }, line.into())
    }

    #[test]
    fn a_line_goes_as_it_came_to_its_uid() {
        for (line, expected) in [(r#" {"uid":"u1", "x": 1} "#, "u1"), (r#"{"uid":-0}"#, "-0")] {
            let answer = push(line).unwrap();
            let [Command::Deliver(delivery)] = &answer.commands[..] else { panic!("{answer:?}") };
            assert!(matches!(&delivery.to, Recipient::Uid(uid) if uid == expected), "{delivery:?}");
            assert!(matches!(delivery.message, Payload::Input) && delivery.otherwise.is_none());
            assert!(answer.reply.is_none());
        }
    }

    #[test]
    fn a_line_without_a_usable_uid_is_refused_in_words() {
        for (line, expected) in [
            ("{}", "`uid` is missing"),
            (r#"{"uid":""}"#, "`uid` is empty"),
            (r#"{"uid":["u1"]}"#, "`uid` is an array, not a string or an integer"),
            (r#"{"uid":true}"#, "`uid` is a boolean, not a string or an integer"),
            ("5", "not a JSON object"),
        ] {
            assert_eq!(push(line).unwrap_err(), expected);
        }
        assert!(push("hello").unwrap_err().starts_with("not JSON: "));
        assert!(push("").is_err());
    }
}
