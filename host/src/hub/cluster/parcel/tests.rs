//! What is written can be read; what cannot be read is refused.

use proptest::prelude::*;

use super::*;

fn recipients() -> impl Strategy<Value = Recipient> {
    prop_oneof![
        Just(Recipient::Everyone),
        any::<u64>().prop_map(|id| Recipient::Connection(ConnectionId(id))),
        ".{0,40}".prop_map(|uid: String| Recipient::Uid(uid.into())),
        ".{0,40}".prop_map(|group: String| Recipient::Group(group.into())),
    ]
}

fn commands() -> impl Strategy<Value = Command> {
    let message = prop_oneof![
        ".{0,200}".prop_map(|text: String| Message::Text(text.into())),
        prop::collection::vec(any::<u8>(), 0..40_000).prop_map(|bytes| Message::Binary(bytes.into())),
    ];
    prop_oneof![
        (recipients(), message)
            .prop_map(|(to, message)| { Command::Deliver(Delivery { to, message, otherwise: None }) }),
        (recipients(), ".{1,20}")
            .prop_map(|(who, group): (_, String)| Command::Join(Membership { who, group: group.into() })),
        (recipients(), ".{1,20}")
            .prop_map(|(who, group): (_, String)| Command::Leave(Membership { who, group: group.into() })),
        (recipients(), any::<u16>(), ".{0,20}").prop_map(|(who, code, reason): (_, _, String)| {
            Command::Close(Closing { who, reason: CloseReason { code, reason: reason.into() } })
        }),
    ]
}

proptest! {
    #[test]
    fn commands_arrive_as_they_were_sent(command in commands()) {
        prop_assert_eq!(decode(encode(&command)), Ok(Parcel::Command(command)));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        _ = decode(Bytes::from(bytes.clone()));
        _ = decode_outcome(bytes.into());
    }
}

#[test]
fn outcomes_and_replacements_arrive_as_they_were_sent() {
    for elsewhere in [None, Some(Elsewhere::Moved), Some(Elsewhere::Expired), Some(Elsewhere::Unknown)] {
        let outcome = Outcome { reached: 3, full: 2, over_budget: 1, elsewhere, missing: Vec::new() };
        assert_eq!(decode_outcome(encode_outcome(&outcome)), outcome);
    }
    assert_eq!(decode(encode_replacement("anna", 7)), Ok(Parcel::Replace("anna".into(), 7)));
    let kick = Closing { who: Recipient::Uid("anna".into()), reason: CloseReason::new(4907, "bye") };
    assert_eq!(decode(encode_kick(&kick, 60)), Ok(Parcel::Kick(kick, 60)));
    let members = Parcel::Members { group: "room".into(), after: 1 << 60, limit: 9 };
    assert_eq!(decode(encode_members("room", 1 << 60, 9)), Ok(members));
    assert_eq!(decode(encode_lift("anna")), Ok(Parcel::Lift("anna".into())));
    let long = CloseReason { code: 4907, reason: "x".repeat(CloseReason::LONGEST + 1).into() };
    let too_long = Closing { who: Recipient::Everyone, reason: long };
    assert_eq!(decode(encode_kick(&too_long, 0)), Err(Malformed), "it would fit no close frame");
    let id = ConnectionId(1 << 60);
    assert_eq!(decode(encode_is_member(id, "room")), Ok(Parcel::IsMember(id, "room".into())));
    assert_eq!(decode_outcome(Bytes::from_static(b"abc")), Outcome::failed(Elsewhere::Unknown));
}
