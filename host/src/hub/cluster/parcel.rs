//! Commands and their outcomes as bytes, for the way to another gateway. Whoever reads them bounds and checks each
//! length. A gateway believes the others, but not that their bytes are whole.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use bytestring::ByteString;

use super::questions::PartRequest;
use crate::base::message::{CloseReason, ConnectionId, Message};
use crate::hub::command::{Closing, Command, Delivery, Elsewhere, Membership, Outcome, Recipient};

/// Payloads up to this length are copied out of the frame that they came in, so that a short message does not hold a
/// long frame in memory.
const COPIED: usize = 16 << 10;

/// What one gateway asks another one to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parcel {
    /// Apply a command to the connections of this gateway.
    Command(Command),
    /// Close the connections of a uid that logged in before this stamp: a newer login replaces them.
    Replace(ByteString, u64),
    /// Close connections for an operator, and keep a uid out for so many seconds.
    Kick(Closing, u32),
    /// Let a uid in again.
    Lift(ByteString),
    /// List a page of the uids in a group: of the connections with ids above `after`, at most `limit`.
    Members {
        /// The group.
        group: ByteString,
        /// The connection after which the page begins.
        after: u64,
        /// The most uids.
        limit: u32,
    },
    /// Say whether a connection is in a group.
    IsMember(ConnectionId, ByteString),
    /// Answer an operator's question.
    Question(PartRequest),
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
pub fn encode_members(group: &str, after: u64, limit: usize) -> Bytes {
    let mut into = BytesMut::with_capacity(13 + group.len());
    into.put_u8(13);
    into.put_u64(after);
    into.put_u32(u32::try_from(limit).unwrap_or(u32::MAX));
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

/// Writes a [`Parcel::Lift`].
pub fn encode_lift(uid: &str) -> Bytes {
    let mut into = BytesMut::with_capacity(1 + uid.len());
    into.put_u8(10);
    into.put_slice(uid.as_bytes());
    into.freeze()
}

/// The first byte of a [`Parcel::Question`].
const QUESTION: u8 = 12;

/// Returns `true` if these bytes are a [`Parcel::Question`].
pub fn is_question(parcel: &[u8]) -> bool {
    parcel.first() == Some(&QUESTION)
}

/// Writes a [`Parcel::Question`].
pub fn encode_question(PartRequest { id, offset, text }: &PartRequest) -> Bytes {
    let mut into = BytesMut::with_capacity(13 + text.len());
    into.put_u8(QUESTION);
    into.put_u64(*id);
    into.put_u32(*offset);
    into.put_slice(text);
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

/// Reads a parcel. A number never gets another meaning: an older gateway then answers that it does not know it.
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
        13 => {
            let (after, limit) = (from.try_get_u64()?, from.try_get_u32()?);
            return Ok(Parcel::Members { group: text(own(from.split_off(0)))?, after, limit });
        }
        9 => {
            let id = ConnectionId(from.try_get_u64()?);
            return Ok(Parcel::IsMember(id, text(own(from.split_off(0)))?));
        }
        10 => return Ok(Parcel::Lift(text(own(from.split_off(0)))?)),
        QUESTION => {
            let (id, offset) = (from.try_get_u64()?, from.try_get_u32()?);
            return Ok(Parcel::Question(PartRequest { id, offset, text: own(from.split_off(0)) }));
        }
        _ => return Err(Malformed),
    }))
}

fn closing(from: &mut Bytes) -> Result<Closing, Malformed> {
    let (who, code) = (recipient(from)?, from.try_get_u16()?);
    let reason = text(own(from.split_off(0)))?;
    if reason.len() > CloseReason::LONGEST {
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
    let name = name(from)?;
    match kind {
        2 => Ok(Recipient::Uid(name)),
        3 => Ok(Recipient::Group(name)),
        _ => Err(Malformed),
    }
}

pub(super) fn name(from: &mut Bytes) -> Result<ByteString, Malformed> {
    let length = usize::from(from.try_get_u16()?);
    text(own((length <= from.len()).then(|| from.split_to(length)).ok_or(Malformed)?))
}

fn own(bytes: Bytes) -> Bytes {
    if bytes.len() <= COPIED { Bytes::copy_from_slice(&bytes) } else { bytes }
}

fn text(bytes: Bytes) -> Result<ByteString, Malformed> {
    ByteString::try_from(bytes).map_err(|_| Malformed)
}

/// Writes what became of a command.
pub fn encode_outcome(outcome: &Outcome) -> Bytes {
    let Outcome { reached, full, over_budget, elsewhere, missing: _ } = outcome;
    let mut into = BytesMut::with_capacity(13);
    for &count in [reached, full, over_budget] {
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
        let [reached, full, over_budget] = [reached, full, over_budget].map(|count| count as usize);
        Ok(Outcome { reached, full, over_budget, elsewhere, missing: Vec::new() })
    };
    read().unwrap_or(Outcome::failed(Elsewhere::Unknown))
}

#[cfg(test)]
mod tests;
