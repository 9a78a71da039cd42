//! Commands and their outcomes as bytes, for the way to another gateway. Whoever reads them bounds and checks each
//! length. A gateway believes the others, but not that their bytes are whole.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use bytestring::ByteString;

use crate::base::message::{CloseReason, ConnectionId, Message};
use crate::hub::command::{Closing, Command, Delivery, Elsewhere, Membership, Outcome, Recipient};

/// Payloads up to this length are copied out of the frame that they came in, so that a short message does not hold a
/// long frame in memory.
const COPIED: usize = 16 << 10;

/// The longest reason that fits a close frame, in bytes (RFC 6455 §5.5).
const LONGEST_REASON: usize = 123;

/// What one gateway asks another one to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parcel {
    /// Apply a command to the connections of this gateway.
    Command(Command),
    /// Close the connections of a uid that logged in before this stamp: a newer login replaces them.
    Replace(ByteString, u64),
    /// Close connections for an operator, and keep a uid out for so many seconds.
    Kick(Closing, u32),
    /// List at most so many uids of a group.
    Members(ByteString, u32),
    /// Say whether a connection is in a group.
    IsMember(ConnectionId, ByteString),
}

/// The bytes are no parcel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it cannot be read")]
pub struct Malformed;

/// Writes a command. The connection that [`Recipient::GroupOthers`] leaves out is on the sending gateway, so for the
/// others it means the whole group.
pub fn encode(command: &Command) -> Bytes {
    let mut into = BytesMut::new();
    match command {
        Command::Deliver(Delivery { to, message, .. }) => {
            into.reserve(64 + message.len());
            into.put_u8(if matches!(message, Message::Text(_)) { 1 } else { 2 });
            put_recipient(&mut into, to);
            into.put_slice(message.as_bytes());
        }
        Command::Join(Membership { who, group }) => {
            into.put_u8(3);
            put_recipient(&mut into, who);
            into.put_slice(group.as_bytes());
        }
        Command::Leave(Membership { who, group }) => {
            into.put_u8(4);
            put_recipient(&mut into, who);
            into.put_slice(group.as_bytes());
        }
        Command::Close(Closing { who, reason }) => {
            into.put_u8(5);
            put_recipient(&mut into, who);
            into.put_u16(reason.code);
            into.put_slice(reason.reason.as_bytes());
        }
    }
    into.freeze()
}

/// Writes a [`Parcel::Replace`].
pub fn encode_replacement(uid: &str, stamp: u64) -> Bytes {
    let mut into = BytesMut::with_capacity(9 + uid.len());
    into.put_u8(6);
    into.put_u64(stamp);
    into.put_slice(uid.as_bytes());
    into.freeze()
}

/// Writes a [`Parcel::Kick`].
pub fn encode_kick(Closing { who, reason }: &Closing, block: u32) -> Bytes {
    let mut into = BytesMut::new();
    into.put_u8(7);
    into.put_u32(block);
    put_recipient(&mut into, who);
    into.put_u16(reason.code);
    into.put_slice(reason.reason.as_bytes());
    into.freeze()
}

/// Writes a [`Parcel::Members`].
pub fn encode_members(group: &str, limit: u32) -> Bytes {
    let mut into = BytesMut::with_capacity(5 + group.len());
    into.put_u8(8);
    into.put_u32(limit);
    into.put_slice(group.as_bytes());
    into.freeze()
}

/// Writes a [`Parcel::IsMember`].
pub fn encode_is_member(ConnectionId(id): ConnectionId, group: &str) -> Bytes {
    let mut into = BytesMut::with_capacity(9 + group.len());
    into.put_u8(9);
    into.put_u64(id);
    into.put_slice(group.as_bytes());
    into.freeze()
}

fn put_recipient(into: &mut BytesMut, to: &Recipient) {
    let (kind, name) = match to {
        Recipient::Everyone => return into.put_u8(0),
        Recipient::Connection(ConnectionId(id)) => {
            into.put_u8(1);
            return into.put_u64(*id);
        }
        Recipient::Uid(uid) => (2, uid),
        Recipient::Group(group) | Recipient::GroupOthers(group) => (3, group),
    };
    into.put_u8(kind);
    // A longer name names nobody.
    let name = if name.len() <= usize::from(u16::MAX) { &name.as_bytes()[..] } else { &[] };
    into.put_u16(name.len() as u16);
    into.put_slice(name);
}

/// Reads a parcel.
///
/// # Errors
/// [`Malformed`]
pub fn decode(mut from: Bytes) -> Result<Parcel, Malformed> {
    let from = &mut from;
    Ok(Parcel::Command(match from.try_get_u8()? {
        kind @ (1 | 2) => {
            let (to, payload) = (recipient(from)?, own(from.split_off(0)));
            let message = if kind == 1 { Message::Text(text(payload)?) } else { Message::Binary(payload) };
            Command::Deliver(Delivery { to, message, otherwise: None })
        }
        3 => Command::Join(Membership { who: recipient(from)?, group: text(own(from.split_off(0)))? }),
        4 => Command::Leave(Membership { who: recipient(from)?, group: text(own(from.split_off(0)))? }),
        5 => Command::Close(closing(from)?),
        6 => {
            let stamp = from.try_get_u64()?;
            return Ok(Parcel::Replace(text(own(from.split_off(0)))?, stamp));
        }
        7 => {
            let block = from.try_get_u32()?;
            return Ok(Parcel::Kick(closing(from)?, block));
        }
        8 => {
            let limit = from.try_get_u32()?;
            return Ok(Parcel::Members(text(own(from.split_off(0)))?, limit));
        }
        9 => {
            let id = ConnectionId(from.try_get_u64()?);
            return Ok(Parcel::IsMember(id, text(own(from.split_off(0)))?));
        }
        _ => return Err(Malformed),
    }))
}

fn closing(from: &mut Bytes) -> Result<Closing, Malformed> {
    let (who, code) = (recipient(from)?, from.try_get_u16()?);
    let reason = text(own(from.split_off(0)))?;
    if reason.len() > LONGEST_REASON {
        return Err(Malformed);
    }
    Ok(Closing { who, reason: CloseReason { code, reason } })
}

impl From<bytes::TryGetError> for Malformed {
    fn from(_: bytes::TryGetError) -> Self {
        Self
    }
}

fn recipient(from: &mut Bytes) -> Result<Recipient, Malformed> {
    let kind = from.try_get_u8()?;
    match kind {
        0 => return Ok(Recipient::Everyone),
        1 => return Ok(Recipient::Connection(ConnectionId(from.try_get_u64()?))),
        _ => {}
    }
    let length = usize::from(from.try_get_u16()?);
    let name = (length <= from.len()).then(|| from.split_to(length)).ok_or(Malformed)?;
    let name = text(own(name))?;
    match kind {
        2 => Ok(Recipient::Uid(name)),
        3 => Ok(Recipient::Group(name)),
        _ => Err(Malformed),
    }
}

fn own(bytes: Bytes) -> Bytes {
    if bytes.len() <= COPIED { Bytes::copy_from_slice(&bytes) } else { bytes }
}

fn text(bytes: Bytes) -> Result<ByteString, Malformed> {
    ByteString::try_from(bytes).map_err(|_| Malformed)
}

/// Writes what became of a command.
pub fn encode_outcome(outcome: Outcome) -> Bytes {
    let Outcome { reached, full, over_budget, elsewhere } = outcome;
    let mut into = BytesMut::with_capacity(13);
    for count in [reached, full, over_budget] {
        into.put_u32(u32::try_from(count).unwrap_or(u32::MAX));
    }
    into.put_u8(match elsewhere {
        None => 0,
        Some(Elsewhere::Moved) => 1,
        Some(Elsewhere::Expired) => 2,
        Some(Elsewhere::Unreachable) => 3,
        Some(Elsewhere::Overload) => 4,
        Some(Elsewhere::Unknown) => 5,
    });
    into.freeze()
}

/// Reads what became of a command. Of an answer that cannot be read, nothing is known.
pub fn decode_outcome(mut from: Bytes) -> Outcome {
    let mut read = || -> Result<Outcome, Malformed> {
        let [reached, full, over_budget] = [from.try_get_u32()?, from.try_get_u32()?, from.try_get_u32()?];
        let elsewhere = match from.try_get_u8()? {
            0 => None,
            1 => Some(Elsewhere::Moved),
            2 => Some(Elsewhere::Expired),
            3 => Some(Elsewhere::Unreachable),
            4 => Some(Elsewhere::Overload),
            _ => Some(Elsewhere::Unknown),
        };
        Ok(Outcome { reached: reached as usize, full: full as usize, over_budget: over_budget as usize, elsewhere })
    };
    read().unwrap_or(Outcome::failed(Elsewhere::Unknown))
}

/// The most bytes of the uids in one answer.
const LIST: usize = 48 << 10;

/// Writes uids, as many as fit one answer.
pub fn encode_uids(uids: &[ByteString]) -> Bytes {
    let mut into = BytesMut::new();
    for uid in uids {
        let Ok(length) = u16::try_from(uid.len()) else { continue };
        if into.len() + 2 + uid.len() > LIST {
            break;
        }
        into.put_u16(length);
        into.put_slice(uid.as_bytes());
    }
    into.freeze()
}

/// Reads uids, up to the first that cannot be read.
pub fn decode_uids(mut from: Bytes) -> Vec<ByteString> {
    let mut uids = Vec::new();
    while let Ok(length) = from.try_get_u16()
        && usize::from(length) <= from.len()
        && let Ok(uid) = text(own(from.split_to(length.into())))
    {
        uids.push(uid);
    }
    uids
}

#[cfg(test)]
mod tests {
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
            let outcome = Outcome { reached: 3, full: 2, over_budget: 1, elsewhere };
            assert_eq!(decode_outcome(encode_outcome(outcome)), outcome);
        }
        assert_eq!(decode(encode_replacement("anna", 7)), Ok(Parcel::Replace("anna".into(), 7)));
        let kick = Closing { who: Recipient::Uid("anna".into()), reason: CloseReason::new(4907, "bye") };
        assert_eq!(decode(encode_kick(&kick, 60)), Ok(Parcel::Kick(kick, 60)));
        assert_eq!(decode(encode_members("room", 9)), Ok(Parcel::Members("room".into(), 9)));
        let long = CloseReason { code: 4907, reason: "x".repeat(LONGEST_REASON + 1).into() };
        let too_long = Closing { who: Recipient::Everyone, reason: long };
        assert_eq!(decode(encode_kick(&too_long, 0)), Err(Malformed), "it would fit no close frame");
        let id = ConnectionId(1 << 60);
        assert_eq!(decode(encode_is_member(id, "room")), Ok(Parcel::IsMember(id, "room".into())));
        let uids = ["anna".into(), ByteString::new(), "bob".into()];
        assert_eq!(decode_uids(encode_uids(&uids)), uids);
        let many = vec![ByteString::from("x".repeat(1000)); 100];
        assert_eq!(decode_uids(encode_uids(&many)).len(), LIST / 1002, "as many as fit");
        assert_eq!(decode_outcome(Bytes::from_static(b"abc")), Outcome::failed(Elsewhere::Unknown));
    }
}
