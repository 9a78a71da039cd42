//! Writes the answers of a plugin in the notation of case files, and compares them with the expected answers.

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

/// In an expected answer: the name must be absent. No answer holds a boolean.
const NONE: Value = Value::Boolean(false);

/// The name under which the answer of a failed call says how it failed.
pub(super) const FAILED: &str = "failed";

/// Returns the differences between the expected and the actual answer, each with its path. Names that an expected table
/// leaves out are not compared. A name whose expected value is `false` must be absent. Lists are compared whole.
pub(super) fn differences(expected: &Value, actual: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if actual.get(FAILED).is_some() && expected.get(FAILED).is_none() {
        found.push("the call failed".to_owned());
    }
    compare(String::new(), expected, actual, &mut found);
    found
}

fn compare(path: String, expected: &Value, actual: &Value, found: &mut Vec<String>) {
    let at = if path.is_empty() { String::new() } else { format!("{path}: ") };
    match (expected, actual) {
        (Value::Table(expected), Value::Table(actual)) => {
            for (name, wanted) in expected {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match actual.get(name) {
                    // A part of the text is enough: the text is for people.
                    Some(Value::String(words))
                        if ["refused", "refuse"].contains(&name.as_str())
                            && wanted.as_str().is_some_and(|wanted| words.contains(wanted)) => {}
                    Some(value) if *wanted == NONE => found.push(format!("{path}: expected none, got {value}")),
                    Some(value) => compare(path, wanted, value, found),
                    None if *wanted == NONE => {}
                    None => {
                        let present: Vec<_> = actual.keys().map(String::as_str).collect();
                        found.push(format!(
                            "{path}: expected {wanted}, got none; the answer has {}",
                            present.join(", ")
                        ));
                    }
                }
            }
        }
        (Value::Array(expected), Value::Array(actual)) => {
            for (index, wanted) in expected.iter().enumerate() {
                let path = format!("{path}[{index}]");
                match actual.get(index) {
                    Some(value) => compare(path, wanted, value, found),
                    None => found.push(format!("{path}: expected {wanted}, got nothing")),
                }
            }
            for (index, more) in actual.iter().enumerate().skip(expected.len()) {
                found.push(format!("{path}[{index}]: not expected: {more}"));
            }
        }
        _ if expected == actual => {}
        _ => found.push(format!("{at}expected {expected}, got {actual}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::message::ConnectionId;

    fn value(text: &str) -> Value {
        let table: Table = toml::from_str(&format!("value = {text}")).unwrap();
        table["value"].clone()
    }

    #[track_caller]
    fn differ(expected: &str, actual: &str, differences: &[&str]) {
        assert_eq!(super::differences(&value(expected), &value(actual)), differences);
    }

    #[test]
    fn what_is_not_mentioned_is_not_compared() {
        let accept = r#"{ accept = { uid = "u1", reply = "hi", expires_at = 5 } }"#;
        differ(r#"{ accept = {} }"#, accept, &[]);
        differ(r#"{ accept = { uid = "u1" } }"#, accept, &[]);
        differ(r#"{ accept = { uid = "u2" } }"#, accept, &["accept.uid: expected \"u2\", got \"u1\""]);
        differ(r#"{ deny = { code = 1 } }"#, accept, &["deny: expected { code = 1 }, got none; the answer has accept"]);
        differ(r#""pass""#, r#""pass""#, &[]);
        differ(r#"{ refused = "missing" }"#, r#"{ refused = "`uid` is missing" }"#, &[]);
        differ(r#"{ refuse = "no room" }"#, r#"{ refuse = "there is no room x" }"#, &[]);
        differ("{}", r#"{ failed = "trap" }"#, &["the call failed"]);
        differ(r#"{ failed = "trap" }"#, r#"{ failed = "trap", why = "…" }"#, &[]);
    }

    #[test]
    fn what_must_not_be_there_is_false() {
        differ(r#"{ accept = { reply = false, expires_at = false } }"#, r#"{ accept = { uid = "u1" } }"#, &[]);
        let more = r#"{ accept = { uid = "u1", reply = "hi" } }"#;
        differ("{ accept = { reply = false } }", more, &["accept.reply: expected none, got \"hi\""]);
    }

    #[test]
    fn lists_are_compared_whole() {
        differ("[]", "[]", &[]);
        differ(r#"[{ reply = "a" }]"#, "[]", &["[0]: expected { reply = \"a\" }, got nothing"]);
        differ("[]", r#"[{ reply = "a" }]"#, &["[0]: not expected: { reply = \"a\" }"]);
        differ(r#"[{ reply = "a" }]"#, r#"[{ reply = "b" }]"#, &["[0].reply: expected \"a\", got \"b\""]);
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
