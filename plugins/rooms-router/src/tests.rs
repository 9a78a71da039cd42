use super::directory::Directory;
use super::router::{Cause, Guest, Membership};
use super::*;
use hotgate::gateway::types::Attribute;

/// A directory for the tests: pairs of a room and a uid in it. Connection 1 is `u1`.
struct Who(&'static [(&'static str, &'static str)]);

impl Directory for Who {
    fn is_member(&self, connection: u64, room: &str) -> bool {
        assert_eq!(connection, 1);
        self.0.contains(&(room, "u1"))
    }

    fn members(&self, room: &str, limit: u32) -> Vec<String> {
        let members = self.0.iter().filter(|(of, _)| *of == room).map(|(_, uid)| (*uid).to_owned());
        members.take(limit as usize).collect()
    }
}

const NOBODY: Who = Who(&[]);

fn session(attributes: &[(&str, &str)], state: &str) -> Session {
    let attribute = |(name, value): &(&str, &str)| Attribute { name: (*name).into(), value: (*value).into() };
    Session {
        connection: 1,
        uid: "u1".into(),
        attributes: attributes.iter().map(attribute).collect(),
        state: state.into(),
    }
}

fn settings(more: &[(&str, &str)]) -> RoomSettings {
    let all = [("ROOMS_JOIN", "*"), ("ROOMS_PUBLISH", "*"), ("ROOMS_SEND", "*")];
    let all = all.iter().filter(|(name, _)| more.iter().all(|(other, _)| name != other));
    RoomSettings::new(&all.chain(more).copied().collect::<Vec<_>>()).unwrap()
}

/// Returns the actions for a text packet, a line for each.
fn route(more: &[(&str, &str)], who: &Who, session: &Session, packet: &str) -> Vec<String> {
    room::route(&settings(more), who, session, &Message::Text(packet.into())).iter().map(line).collect()
}

fn line(action: &Action) -> String {
    let to = |recipient: &Recipient| match recipient {
        Recipient::Uid(uid) => format!("uid {uid}"),
        Recipient::Group(room) => format!("room {room}"),
        Recipient::GroupOthers(room) => format!("others {room}"),
        other => format!("{other:?}"),
    };
    match action {
        Action::Reply(message) => format!("reply {}", text(message)),
        Action::Join(Membership { who: Recipient::Connection(1), group }) => format!("join {group}"),
        Action::Leave(Membership { who: Recipient::Connection(1), group }) => format!("leave {group}"),
        Action::Remember(state) => format!("remember {}", str::from_utf8(state).unwrap()),
        Action::Deliver(Delivery { to: who, message, otherwise }) => {
            let otherwise = otherwise.as_ref().map_or(String::new(), |message| format!(" or {}", text(message)));
            format!("{} {}{otherwise}", to(who), text(message))
        }
        Action::Authenticate => "authenticate".into(),
        other => panic!("{other:?}"),
    }
}

fn text(message: &Payload) -> &str {
    match message {
        Payload::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_room_is_joined_and_left() {
    let join = r#"{"type":"join","room":"lobby"}"#;
    let joined = r#"reply {"type":"joined","room":"lobby"}"#;
    let inside = Who(&[("lobby", "u1")]);
    assert_eq!(route(&[], &NOBODY, &session(&[], ""), join), ["join lobby", "remember 1", joined]);
    assert_eq!(route(&[], &NOBODY, &session(&[], "7"), join), ["join lobby", "remember 8", joined]);
    assert_eq!(route(&[], &inside, &session(&[], "1"), join), [joined]);

    let leave = r#"{"type":"leave","room":"lobby"}"#;
    let left = r#"reply {"type":"left","room":"lobby"}"#;
    assert_eq!(route(&[], &inside, &session(&[], "2"), leave), ["leave lobby", "remember 1", left]);
    assert_eq!(route(&[], &inside, &session(&[], ""), leave), ["leave lobby", "remember 0", left]);
    assert_eq!(route(&[], &NOBODY, &session(&[], "2"), leave), [left]);
    // Leaving needs no permission.
    assert_eq!(route(&[("ROOMS_JOIN", "x")], &inside, &session(&[], "1"), leave).len(), 3);
}

#[test]
fn with_presence_the_others_are_told() {
    let on = &[("ROOMS_PRESENCE", "on")];
    let inside = Who(&[("lobby", "u1"), ("lobby", "u2")]);
    let told = |actions: Vec<String>| actions[2].clone();
    assert_eq!(
        told(route(on, &NOBODY, &session(&[], ""), r#"{"type":"join","room":"lobby"}"#)),
        r#"others lobby {"type":"member-joined","room":"lobby","uid":"u1"}"#
    );
    assert_eq!(
        told(route(on, &inside, &session(&[], "1"), r#"{"type":"leave","room":"lobby"}"#)),
        r#"others lobby {"type":"member-left","room":"lobby","uid":"u1"}"#
    );
    // Without a change, nothing is announced.
    assert_eq!(route(on, &inside, &session(&[], "1"), r#"{"type":"join","room":"lobby"}"#).len(), 1);
    assert_eq!(route(on, &NOBODY, &session(&[], "1"), r#"{"type":"leave","room":"lobby"}"#).len(), 1);
}

#[test]
fn the_rooms_of_a_connection_are_bounded() {
    let join = r#"{"type":"join","room":"lobby","id":5}"#;
    let full = [concat!(
        r#"reply {"type":"error","error":"too-many-rooms","#,
        r#""detail":"this connection is in as many rooms as it may be","id":5}"#
    )];
    for (max, state, expected) in [("3", "2", 3), ("3", "3", 1), ("3", "4294967295", 1), ("3", "x", 3), ("3", "-1", 3)]
    {
        let actions = route(&[("ROOMS_MAX", max)], &NOBODY, &session(&[], state), join);
        assert_eq!(actions.len(), expected, "{state}");
        assert!(expected == 3 || actions == full, "{actions:?}");
    }
    let mut foreign = session(&[], "");
    foreign.state = vec![0xff, 0];
    assert_eq!(route(&[], &NOBODY, &foreign, join).len(), 3);
}

#[test]
fn members_are_listed_up_to_a_bound() {
    let who = Who(&[("lobby", "u3"), ("lobby", "u1"), ("lobby", "u2"), ("other", "u4")]);
    let members = |more: &[_], room: &str| {
        route(more, &who, &session(&[], ""), &format!(r#"{{"type":"members","room":"{room}"}}"#))
    };
    let all = r#"reply {"type":"members","room":"lobby","members":["u1","u2","u3"],"more":false}"#;
    assert_eq!(members(&[], "lobby"), [all]);
    assert_eq!(members(&[("ROOMS_MEMBERS", "3")], "lobby"), [all]);
    let some = r#"reply {"type":"members","room":"lobby","members":["u1","u3"],"more":true}"#;
    assert_eq!(members(&[("ROOMS_MEMBERS", "2")], "lobby"), [some]);
    assert_eq!(members(&[], "empty"), [r#"reply {"type":"members","room":"empty","members":[],"more":false}"#]);
}

#[test]
fn a_message_goes_to_the_others_as_it_is_written() {
    let publish = |data: &str| {
        let packet = format!(r#"{{"type":"publish","room":"a \"b\"","data":{data},"id":"x"}}"#);
        route(&[], &NOBODY, &session(&[], ""), &packet)
    };
    for data in
        ["5", "null", "1.50E+3", r#""hi""#, r#"{ "a": [1, 2 ] , "a":1}"#, r#""\ud83d\ude00""#, "123456789012345678901"]
    {
        let expected = format!(r#"others a "b" {{"type":"message","room":"a \"b\"","from":"u1","data":{data}}}"#);
        assert_eq!(publish(data), [expected]);
    }
}

#[test]
fn what_recipients_might_be_unable_to_read_is_refused() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for kind in [r#""type":"publish","room":"a""#, r#""type":"send","to":"u2""#] {
        let answer = |data: &str| route(&[], &NOBODY, &session(&[], ""), &format!(r#"{{{kind},"data":{data}}}"#));
        let refused =
            |detail: &str| [format!(r#"reply {{"type":"error","error":"bad-packet","detail":"`data` is {detail}"}}"#)];
        assert!(answer(&deep(64))[0].contains(r#"{"type":"message","#));
        assert_eq!(answer(&deep(65)), refused("nested deeper than 64"));
        assert_eq!(answer(&deep(200_000)), refused("nested deeper than 64"));
        for data in [r#""\ud800""#, r#"{"a":["\udc00"]}"#, r#"{"\ud800":1}"#, r#""\ude00\ud83d""#] {
            assert_eq!(answer(data), refused("not Unicode text"), "{data}");
        }
    }
}

#[test]
fn a_message_goes_to_a_uid_or_is_said_to_have_not() {
    let sent = route(&[], &NOBODY, &session(&[], ""), r#"{"type":"send","to":7,"data":[1],"id":9}"#);
    assert_eq!(
        sent,
        [concat!(
            r#"uid 7 {"type":"message","from":"u1","data":[1]}"#,
            r#" or {"type":"error","error":"offline","detail":"the message has reached nobody","id":9}"#
        )]
    );
}

#[test]
fn a_session_is_renewed_by_the_authenticators() {
    let packet = r#"{"type":"authenticate","token":"a.b.c"}"#;
    assert_eq!(route(&[], &NOBODY, &session(&[], ""), packet), ["authenticate"]);
}

#[test]
fn everything_needs_a_permission() {
    let nothing = RoomSettings::new(&[]).unwrap();
    let route = |settings: &RoomSettings, attributes: &[(&str, &str)], packet: &str| {
        let actions = room::route(settings, &NOBODY, &session(attributes, ""), &Message::Text(packet.into()));
        actions.iter().map(line).collect::<Vec<_>>()
    };
    for (packet, kind, what) in [
        (r#"{"type":"join","room":"a1"}"#, "rooms", "to join this room"),
        (r#"{"type":"members","room":"a1"}"#, "rooms", "to see who is in this room"),
        (r#"{"type":"publish","room":"a1","data":1}"#, "publish", "to publish in this room"),
        (r#"{"type":"send","to":"a1","data":1}"#, "send", "to write to this uid"),
    ] {
        let refused =
            format!(r#"reply {{"type":"error","error":"forbidden","detail":"there is no permission {what}"}}"#);
        for attributes in [&[][..], &[(kind, "")], &[(kind, "b")], &[(kind, "a")], &[("role", "*")]] {
            assert_eq!(route(&nothing, attributes, packet), [refused.as_str()], "{packet} {attributes:?}");
        }
        for attributes in [&[(kind, "a1")], &[(kind, "b,a*")], &[(kind, "*")]] {
            assert_ne!(route(&nothing, attributes, packet), [refused.as_str()], "{packet} {attributes:?}");
        }
        // An attribute can take away a permission that the setting gives everybody.
        assert_eq!(route(&settings(&[]), &[(kind, "")], packet), [refused.as_str()], "{packet}");
    }
}

#[test]
fn what_is_not_understood_is_answered_in_words() {
    let error = |packet: Message| {
        let actions = room::route(&settings(&[]), &NOBODY, &session(&[], ""), &packet);
        let [Action::Reply(message)] = &actions[..] else { panic!("{actions:?}") };
        let rest = text(message).strip_prefix(r#"{"type":"error","error":"bad-packet","detail":""#).expect("an error");
        rest.strip_suffix("\"}").unwrap_or(rest).to_owned()
    };
    let long = format!(r#"{{"type":"join","room":"{}"}}"#, "r".repeat(257));
    let long_id = format!(r#"{{"type":"join","room":"a","id":"{}"}}"#, "i".repeat(63));
    for (packet, expected) in [
        ("[]", "not a JSON object"),
        ("{}", "`type` is missing"),
        (r#"{"type":null}"#, "`type` is null, not a string or an integer"),
        (r#"{"type":"Join"}"#, "`type` is none of join, leave, members, publish, send and authenticate"),
        (r#"{"type":"join"}"#, "`room` is missing"),
        (r#"{"type":"join","room":""}"#, "`room` is empty"),
        (r#"{"type":"leave","room":["a"]}"#, "`room` is an array, not a string or an integer"),
        (&long, "`room` is longer than 256 bytes"),
        (r#"{"type":"members","room":"\ud800"}"#, "`room` is not Unicode text"),
        (r#"{"type":"publish","room":"a"}"#, "`data` is missing"),
        (r#"{"type":"send","data":1}"#, "`to` is missing"),
        (r#"{"type":"send","to":"u2"}"#, "`data` is missing"),
        (&long_id, "`id` is not a string or a number of up to 64 bytes"),
        (r#"{"type":"join","room":"a","id":{}}"#, "`id` is not a string or a number of up to 64 bytes"),
        (r#"{"type":"join","room":"a","id":null}"#, "`id` is not a string or a number of up to 64 bytes"),
        (
            r#"{"type":"x","id":"7"}"#,
            r#"`type` is none of join, leave, members, publish, send and authenticate","id":"7"#,
        ),
    ] {
        assert_eq!(error(Message::Text(packet.into())), expected, "{packet}");
    }
    assert!(error(Message::Text("hi".into())).starts_with("not JSON: "));
    assert!(error(Message::Text("[".repeat(1 << 20))).starts_with("not "));
    assert_eq!(error(Message::Binary(vec![0xff])), "not UTF-8");
    assert_eq!(error(Message::Binary(b"{}".to_vec())), "`type` is missing");
}

#[test]
fn the_rooms_of_a_session_that_ended_are_told() {
    let closed = |presence: &str, cause: Cause| {
        let ending = Ending { cause, code: Some(1000), groups: vec!["a".into(), "b".into()], remaining: 0 };
        room::closed(&settings(&[("ROOMS_PRESENCE", presence)]), &session(&[], "2"), &ending).len()
    };
    assert_eq!(closed("on", Cause::Client), 2);
    assert_eq!(closed("on", Cause::Lost), 2);
    assert_eq!(closed("on", Cause::Shutdown), 0);
    assert_eq!(closed("off", Cause::Client), 0);

    let ending = Ending { cause: Cause::Silent, code: Some(4900), groups: vec!["a".into()], remaining: 0 };
    let commands = room::closed(&settings(&[("ROOMS_PRESENCE", "on")]), &session(&[], "1"), &ending);
    let [Command::Deliver(Delivery { to: Recipient::Group(room), message, otherwise: None })] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!((room.as_str(), text(message)), ("a", r#"{"type":"member-left","room":"a","uid":"u1"}"#));
}

#[test]
fn a_line_goes_as_it_came_to_a_uid_or_a_room() {
    let push = |line: &str| RoomsRouter::push(Sender { connection: 2, remote_address: String::new() }, line.into());
    let to = |line: &str| {
        let answer = push(line).unwrap();
        let [Command::Deliver(Delivery { to, message: Payload::Input, otherwise: None })] = &answer.commands[..] else {
            panic!("{answer:?}");
        };
        assert!(answer.reply.is_none());
        format!("{to:?}")
    };
    assert_eq!(to(r#"{"uid":"u1","x":1}"#), format!("{:?}", Recipient::Uid("u1".into())));
    assert_eq!(to(r#"{"type":"news","room":7}"#), format!("{:?}", Recipient::Group("7".into())));
    for (line, expected) in [
        (r#"{"uid":"u1","room":"a"}"#, "both `uid` and `room` are given: give one of them"),
        ("{}", "neither `uid` nor `room` is given"),
        (r#"{"uid":""}"#, "`uid` is empty"),
        (r#"{"room":[]}"#, "`room` is an array, not a string or an integer"),
        ("[]", "not a JSON object"),
    ] {
        assert_eq!(push(line).unwrap_err(), expected, "{line}");
    }
    assert!(push("").unwrap_err().starts_with("not JSON: "));
}

#[test]
fn settings_are_checked_in_words() {
    for (setting, expected) in [
        (("ROOMS_JOIN", "a,,b"), "ROOMS_JOIN is a list with an empty item; items stand between commas"),
        (("ROOMS_SEND", "a*b"), "ROOMS_SEND has a pattern with a * before its end: a * stands for the rest of a name"),
        (
            ("ROOMS_PUBLISH", "**"),
            "ROOMS_PUBLISH has a pattern with a * before its end: a * stands for the rest of a name",
        ),
        (("ROOMS_MEMBERS", "0"), "ROOMS_MEMBERS must be a whole number from 1 to 1000"),
        (("ROOMS_MAX", "1025"), "ROOMS_MAX must be a whole number from 1 to 1024"),
        (("ROOMS_PRESENCE", "yes"), "ROOMS_PRESENCE must be \"off\" or \"on\""),
    ] {
        assert_eq!(RoomSettings::new(&[setting]).err().as_deref(), Some(expected));
    }
    assert!(RoomSettings::new(&[]).is_ok());
}
