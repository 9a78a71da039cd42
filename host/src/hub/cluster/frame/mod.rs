//! Frames: what nodes send each other, written byte by byte. Each begins with version, kind, node, incarnation and the
//! fingerprint of the secret.
//!
//! Decoding never panics and reserves no more memory than a small multiple of the input. What it does not accept is
//! dropped and counted by the node.

mod body;
mod fields;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

pub use self::body::{
    Answers, Batch, Beat, Body, Change, Command, Departure, Digest, NO_SHARD, Reply, Row, Segment, SnapshotPart, Target,
};
use self::fields::{Malformed, Read, put_bytes, put_list, stamp_or_none};
use super::clock::{Stamp, micros};
use super::id::{Fingerprint, Incarnation, NodeId, UidKey};

/// The version of the frames. A later version that this one cannot read gets another number.
pub const VERSION: u8 = 1;

/// The most bytes of commands, rows or answers in one frame: far below the 1 MiB of NATS, so that no frame holds up the
/// others for long.
pub const SEGMENT: usize = 64 * 1024;

/// The longest command in bytes: an output of 8 MiB, and what the host writes around it.
pub const MAX_COMMAND: usize = 9 * 1024 * 1024;

/// The longest answer in bytes. A host shortens longer lists.
pub const MAX_ANSWER: usize = 60 * 1024;

/// The bytes of one [`Change`] or row on the wire.
pub const ROW: usize = 20;

/// Who sent a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The kind of the body.
    pub kind: u8,
    /// The sender.
    pub node: NodeId,
    /// The sender's incarnation.
    pub incarnation: Incarnation,
    /// The fingerprint of the sender's secret.
    pub secret: Fingerprint,
}

/// Why a frame cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// Another version of the protocol.
    #[error("another version")]
    Version,
    /// A kind that this version does not know.
    #[error("unknown kind")]
    Kind,
    /// A length or value is wrong.
    #[error("malformed")]
    Malformed,
}

impl From<Malformed> for Unreadable {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

/// Takes the header off a frame.
///
/// # Errors
/// The frame is too short or of another version.
pub fn take_header(frame: &mut Bytes) -> Result<Header, Unreadable> {
    if frame.u8()? != VERSION {
        return Err(Unreadable::Version);
    }
    let kind = frame.u8()?;
    let node = NodeId::new(frame.u16()?).ok_or(Unreadable::Malformed)?;
    Ok(Header { kind, node, incarnation: Incarnation(frame.u64()?), secret: Fingerprint(frame.u64()?) })
}

/// Reads what follows the header.
///
/// # Errors
/// The kind is unknown, or a length or value is wrong.
pub fn decode(kind: u8, mut from: Bytes) -> Result<Body, Unreadable> {
    let from = &mut from;
    let body = match kind {
        1 => Body::Beat(Beat {
            number: from.u64()?,
            started: Stamp(from.u64()?),
            ready: flag(from)?,
            draining: flag(from)?,
            boot: Duration::from_micros(from.u64()?),
            batches: from.u64()?,
            digest: Digest { rows: from.u64()?, hash: from.u64()? },
            heard: from.list(16, |from| Ok((Incarnation(from.u64()?), from.u64()?)))?,
        }),
        2 => Body::Batch(Batch {
            number: from.u64()?,
            changes: from.list(ROW, change)?,
            departures: from.list(16, departure)?,
        }),
        3 => Body::Leave,
        4 => Body::SnapshotRequest { request: from.u64()?, from: from.u16()? },
        5 => Body::SnapshotPart(SnapshotPart {
            request: from.u64()?,
            as_of: from.u64()?,
            from: from.u16()?,
            part: from.u16()?,
            next: from.u16()?,
            end: flag(from)?,
            rows: from.list(ROW, row)?,
            departures: from.list(24, |from| Ok((from.u64()?, departure(from)?)))?,
        }),
        6 => Body::Commands { first: from.u64()?, commands: from.list(13, command)? },
        7 => Body::Segment(Segment {
            number: from.u64()?,
            target: target(from)?,
            deadline: Duration::from_micros(from.u64()?),
            total: from.u32().and_then(|total| at_most(total, MAX_COMMAND))?,
            offset: from.u32()?,
            bytes: long_bytes(from, SEGMENT)?,
        }),
        8 => Body::Answers(Answers {
            replies: from.list(9, |from| Ok((from.u64()?, reply(from)?)))?,
            skipped: from.list(16, |from| Ok((from.u64()?, from.u64()?)))?,
        }),
        9 => Body::Confirm { batch: from.u64()?, after: from.u64()? },
        10 => Body::Probe { number: from.u64()? },
        11 => Body::Pong { number: from.u64()?, heard: from.u64()?, batches: from.u64()? },
        _ => return Err(Unreadable::Kind),
    };
    // A later version may not append fields: it would have to say so by its number.
    if from.is_empty() { Ok(body) } else { Err(Unreadable::Malformed) }
}

fn flag(from: &mut Bytes) -> Result<bool, Malformed> {
    match from.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed),
    }
}

fn at_most(number: u32, limit: usize) -> Result<u32, Malformed> {
    if number as usize <= limit { Ok(number) } else { Err(Malformed) }
}

fn long_bytes(from: &mut Bytes, limit: usize) -> Result<Bytes, Malformed> {
    let length = from.u32().and_then(|length| at_most(length, limit))?;
    from.bytes(length as usize)
}

fn change(from: &mut Bytes) -> Result<Change, Malformed> {
    let (key, newest, count) = (UidKey(from.u64()?), stamp_or_none(from)?, from.u32()?);
    match (newest, count) {
        (None, 0) => Ok(Change { key, row: None }),
        (Some(newest), 1..) => Ok(Change { key, row: Some(Row { newest, count }) }),
        _ => Err(Malformed),
    }
}

fn row(from: &mut Bytes) -> Result<(UidKey, Row), Malformed> {
    let change = change(from)?;
    Ok((change.key, change.row.ok_or(Malformed)?))
}

fn departure(from: &mut Bytes) -> Result<Departure, Malformed> {
    Ok(Departure { key: UidKey(from.u64()?), stamp: Stamp(from.u64()?) })
}

fn target(from: &mut Bytes) -> Result<Target, Malformed> {
    match from.u8()? {
        0 => Ok(Target::All),
        1 => Ok(Target::Uid(Stamp(from.u64()?))),
        _ => Err(Malformed),
    }
}

fn command(from: &mut Bytes) -> Result<Command, Malformed> {
    Ok(Command {
        target: target(from)?,
        deadline: Duration::from_micros(from.u64()?),
        body: long_bytes(from, SEGMENT)?,
    })
}

fn reply(from: &mut Bytes) -> Result<Reply, Malformed> {
    match from.u8()? {
        0 => Ok(Reply::Expired),
        1 => Ok(Reply::Done(long_bytes(from, MAX_ANSWER)?)),
        _ => Err(Malformed),
    }
}

/// Writes a frame. The lists in `body` must be short enough for [`SEGMENT`]; whoever fills them takes care of that.
pub fn encode(node: NodeId, incarnation: Incarnation, secret: Fingerprint, body: &Body) -> Bytes {
    let mut into = BytesMut::with_capacity(64 + body_size(body));
    into.put_u8(VERSION);
    into.put_u8(kind(body));
    into.put_u16(node.get());
    into.put_u64(incarnation.0);
    into.put_u64(secret.0);
    put_body(&mut into, body);
    into.freeze()
}

fn kind(body: &Body) -> u8 {
    match body {
        Body::Beat(_) => 1,
        Body::Batch(_) => 2,
        Body::Leave => 3,
        Body::SnapshotRequest { .. } => 4,
        Body::SnapshotPart(_) => 5,
        Body::Commands { .. } => 6,
        Body::Segment(_) => 7,
        Body::Answers(_) => 8,
        Body::Confirm { .. } => 9,
        Body::Probe { .. } => 10,
        Body::Pong { .. } => 11,
    }
}

/// Returns about how many bytes a body takes, so that writing it seldom moves the buffer.
fn body_size(body: &Body) -> usize {
    match body {
        Body::Beat(beat) => 64 + beat.heard.len() * 16,
        Body::Batch(batch) => 16 + batch.changes.len() * ROW + batch.departures.len() * 16,
        Body::SnapshotPart(part) => 32 + part.rows.len() * ROW + part.departures.len() * 24,
        Body::Commands { commands, .. } => 16 + commands.iter().map(|it| 24 + it.body.len()).sum::<usize>(),
        Body::Segment(segment) => 40 + segment.bytes.len(),
        Body::Answers(answers) => 16 + answers.replies.len() * 24 + answers.skipped.len() * 16,
        _ => 32,
    }
}

fn put_body(into: &mut BytesMut, body: &Body) {
    match body {
        Body::Beat(beat) => {
            into.put_u64(beat.number);
            into.put_u64(beat.started.0);
            into.put_u8(beat.ready.into());
            into.put_u8(beat.draining.into());
            into.put_u64(micros(beat.boot));
            into.put_u64(beat.batches);
            into.put_u64(beat.digest.rows);
            into.put_u64(beat.digest.hash);
            put_list(into, &beat.heard, |into, (incarnation, number)| {
                into.put_u64(incarnation.0);
                into.put_u64(*number);
            });
        }
        Body::Batch(batch) => {
            into.put_u64(batch.number);
            put_list(into, &batch.changes, |into, change| {
                put_row(into, change.key, change.row);
            });
            put_list(into, &batch.departures, put_departure);
        }
        Body::Leave => {}
        Body::SnapshotRequest { request, from } => {
            into.put_u64(*request);
            into.put_u16(*from);
        }
        Body::SnapshotPart(part) => {
            into.put_u64(part.request);
            into.put_u64(part.as_of);
            into.put_u16(part.from);
            into.put_u16(part.part);
            into.put_u16(part.next);
            into.put_u8(part.end.into());
            put_list(into, &part.rows, |into, (key, row)| put_row(into, *key, Some(*row)));
            put_list(into, &part.departures, |into, (batch, departure)| {
                into.put_u64(*batch);
                put_departure(into, departure);
            });
        }
        Body::Commands { first, commands } => {
            into.put_u64(*first);
            put_list(into, commands, |into, command| {
                put_target(into, command.target);
                into.put_u64(micros(command.deadline));
                put_bytes(into, &command.body);
            });
        }
        Body::Segment(segment) => {
            into.put_u64(segment.number);
            put_target(into, segment.target);
            into.put_u64(micros(segment.deadline));
            into.put_u32(segment.total);
            into.put_u32(segment.offset);
            put_bytes(into, &segment.bytes);
        }
        Body::Answers(answers) => {
            put_list(into, &answers.replies, |into, (number, reply)| {
                into.put_u64(*number);
                match reply {
                    Reply::Expired => into.put_u8(0),
                    Reply::Done(bytes) => {
                        into.put_u8(1);
                        put_bytes(into, bytes);
                    }
                }
            });
            put_list(into, &answers.skipped, |into, (first, last)| put_pair(into, *first, *last));
        }
        Body::Confirm { batch, after } => put_pair(into, *batch, *after),
        Body::Probe { number } => into.put_u64(*number),
        Body::Pong { number, heard, batches } => {
            put_pair(into, *number, *heard);
            into.put_u64(*batches);
        }
    }
}

fn put_pair(into: &mut BytesMut, first: u64, second: u64) {
    into.put_u64(first);
    into.put_u64(second);
}

fn put_row(into: &mut BytesMut, key: UidKey, row: Option<Row>) {
    put_pair(into, key.0, row.map_or(0, |row| row.newest.0));
    into.put_u32(row.map_or(0, |row| row.count));
}

fn put_departure(into: &mut BytesMut, departure: &Departure) {
    put_pair(into, departure.key.0, departure.stamp.0);
}

fn put_target(into: &mut BytesMut, target: Target) {
    match target {
        Target::All => into.put_u8(0),
        Target::Uid(seen) => {
            into.put_u8(1);
            into.put_u64(seen.0);
        }
    }
}
