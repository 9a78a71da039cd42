//! Writes the answers of a plugin in the notation in which case files expect them.

use bytes::Bytes;
use toml::{Table, Value};

use crate::base::message::{Attribute, CloseReason, Message};
use crate::hub::command::{Action, Answer, Closing, Command, Delivery, Membership, Recipient, Ruling};
use crate::policy::{Identity, Verdict};

fn table<const N: usize>(entries: [(&str, Option<Value>); N]) -> Value {
    let entries = entries.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Table(entries.collect::<Table>())
}

fn text(text: &str) -> Option<Value> {
    Some(Value::String(text.to_owned()))
}

fn integer(number: u64) -> Option<Value> {
    // A number that TOML cannot hold is written as a string.
    Some(i64::try_from(number).map_or_else(|_| Value::String(number.to_string()), Value::Integer))
}

fn bytes(bytes: &[u8]) -> Value {
    table([("hex", Some(Value::String(hex::encode(bytes))))])
}

fn message(message: &Message) -> Option<Value> {
    Some(match message {
        Message::Text(text) => Value::String(text.to_string()),
        Message::Binary(binary) => bytes(binary),
    })
}

fn state(state: &Bytes) -> Option<Value> {
    Some(str::from_utf8(state).map_or_else(|_| bytes(state), |text| Value::String(text.to_owned())))
}

fn attributes(attributes: &[Attribute]) -> Option<Value> {
    let mut table = Table::new();
    for Attribute { name, value } in attributes {
        let value = Value::String(value.clone());
        match table.get_mut(name) {
            None => _ = table.insert(name.clone(), value),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.clone(), value]),
        }
    }
    (!table.is_empty()).then_some(Value::Table(table))
}

fn reason(CloseReason { code, reason }: &CloseReason) -> Value {
    table([("code", integer((*code).into())), ("reason", text(reason))])
}

/// Writes the verdict of an authenticator.
pub(super) fn verdict(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Pass => Value::String("pass".to_owned()),
        Verdict::Deny(why) => table([("deny", Some(reason(why)))]),
        Verdict::Challenge { message: prompt, state: kept } => {
            let kept = (!kept.is_empty()).then(|| state(kept)).flatten();
            let prompt = prompt.as_ref().and_then(message);
            table([("challenge", Some(table([("message", prompt), ("state", kept)])))])
        }
        Verdict::Accept(Identity { uid, reply, attributes: named, expires_at }) => {
            let identity = table([
                ("uid", text(uid)),
                ("reply", reply.as_ref().and_then(message)),
                ("attributes", attributes(named)),
                ("expires_at", expires_at.and_then(integer)),
            ]);
            table([("accept", Some(identity))])
        }
    }
}

fn recipient(to: &Recipient) -> Option<Value> {
    Some(match to {
        Recipient::Uid(uid) => table([("uid", text(uid))]),
        Recipient::Connection(id) => table([("connection", integer(id.0))]),
        Recipient::Group(group) => table([("group", text(group))]),
        Recipient::GroupOthers(group) => table([("group_others", text(group))]),
        Recipient::Everyone => Value::String("everyone".to_owned()),
    })
}

fn membership(Membership { who, group }: &Membership) -> Option<Value> {
    Some(table([("who", recipient(who)), ("group", text(group))]))
}

fn command(command: &Command) -> Value {
    match command {
        Command::Deliver(Delivery { to, message: sent, otherwise }) => {
            let otherwise = otherwise.as_ref().and_then(message);
            let delivery = table([("to", recipient(to)), ("message", message(sent)), ("otherwise", otherwise)]);
            table([("deliver", Some(delivery))])
        }
        Command::Join(entered) => table([("join", membership(entered))]),
        Command::Leave(left) => table([("leave", membership(left))]),
        Command::Close(Closing { who, reason: CloseReason { code, reason } }) => {
            let code = integer((*code).into());
            table([("close", Some(table([("who", recipient(who)), ("code", code), ("reason", text(reason))])))])
        }
    }
}

/// Writes the commands of a router.
pub(super) fn commands(commands: &[Command]) -> Value {
    Value::Array(commands.iter().map(command).collect())
}

/// Writes the actions of a router.
pub(super) fn actions(actions: &[Action]) -> Value {
    let action = |action: &Action| match action {
        Action::Command(done) => command(done),
        Action::Reply(reply) => table([("reply", message(reply))]),
        Action::Remember(kept) => table([("remember", state(kept))]),
        Action::Authenticate => Value::String("authenticate".to_owned()),
    };
    Value::Array(actions.iter().map(action).collect())
}

/// Writes a router's answer to a line.
pub(super) fn answer(answer: &Result<Answer, String>) -> Value {
    match answer {
        Ok(Answer { commands: done, reply }) => {
            table([("commands", Some(commands(done))), ("reply", reply.as_ref().and_then(|reply| text(reply)))])
        }
        Err(words) => table([("refused", text(words))]),
    }
}

/// Writes a router's ruling about a message.
pub(super) fn ruling(ruling: &Ruling) -> Value {
    match ruling {
        Ruling::Pass => Value::String("pass".to_owned()),
        Ruling::Instead(done) => table([("instead", Some(commands(done)))]),
        Ruling::Refuse(words) => table([("refuse", text(words))]),
    }
}

/// The name under which the answer of a failed call says how it failed.
pub(super) const FAILED: &str = "failed";

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::message::ConnectionId;

    /// Parses a value of TOML.
    pub(in crate::devkit) fn value(text: &str) -> Value {
        let table: Table = toml::from_str(&format!("value = {text}")).unwrap();
        table["value"].clone()
    }

    #[test]
    fn what_there_are_several_of_is_a_list() {
        let named = |name: &str, value: &str| Attribute { name: name.to_owned(), value: value.to_owned() };
        let several = [named("a", "1"), named("b", "2"), named("a", "3"), named("a", "4")];
        assert_eq!(attributes(&several), Some(value(r#"{ a = ["1", "3", "4"], b = "2" }"#)));
        assert_eq!(attributes(&[]), None);
    }

    #[test]
    fn what_is_shown_can_be_expected() {
        let answered = Ok(Answer {
            commands: vec![
                Command::Deliver(Delivery {
                    to: Recipient::GroupOthers("g".into()),
                    message: Message::Binary(Bytes::from_static(&[0, 255])),
                    otherwise: Some(Message::Text("none".into())),
                }),
                Command::Close(Closing {
                    who: Recipient::Connection(ConnectionId(1)),
                    reason: CloseReason::new(4000, "bye"),
                }),
            ],
            reply: Some("done".into()),
        });
        let expected = r#"{ commands = [
            { deliver = { to = { group_others = "g" }, message = { hex = "00ff" }, otherwise = "none" } },
            { close = { who = { connection = 1 }, code = 4000, reason = "bye" } },
        ], reply = "done" }"#;
        assert_eq!(answer(&answered), value(expected));
    }
}
