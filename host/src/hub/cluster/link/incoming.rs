//! The receiving side of a link.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::super::frame::{Answers, Body, Command, MAX_ANSWER, Reply, SEGMENT, Segment, Target};

/// The most answers, and ranges of skipped commands, that wait to be sent. Past it the oldest are dropped: the sender
/// then does not know what became of them.
const MAX_ANSWERS: usize = 65_536;
/// The most bytes of answers that wait to be sent.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// A command that arrived in time and in order.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) number: u64,
    pub(crate) command: Command,
}

/// A long command of which segments are missing.
#[derive(Debug)]
struct Partial {
    number: u64,
    target: Target,
    deadline: Duration,
    total: usize,
    body: BytesMut,
}

/// The receiving side of a link.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    /// The largest number whose command was taken or refused. Smaller ones are never taken.
    last: u64,
    /// Its number is larger than `last`.
    partial: Option<Partial>,
    replies: VecDeque<(u64, Reply)>,
    reply_bytes: usize,
    skipped: VecDeque<(u64, u64)>,
}

impl Incoming {
    /// Takes the commands of one frame, of which the first has the number `first`.
    pub(crate) fn commands(
        &mut self,
        now: Duration,
        first: u64,
        commands: Vec<Command>,
        mut take: impl FnMut(Arrived),
    ) {
        for (number, command) in (first..=u64::MAX).zip(commands) {
            if self.advance(number)
                && let Some(arrived) = self.in_time(now, number, command)
            {
                take(arrived);
            }
        }
    }

    /// Takes a segment. Returns the command if it is complete.
    pub(crate) fn segment(&mut self, now: Duration, segment: Segment) -> Option<Arrived> {
        let Segment { number, target, deadline, total, offset, bytes } = segment;
        if number <= self.last {
            return None;
        }
        let (total, offset) = (total as usize, offset as usize);
        if offset == 0 && self.partial.as_ref().is_none_or(|partial| partial.number < number) {
            self.advance(number - 1);
            self.partial = Some(Partial { number, target, deadline, total, body: BytesMut::new() });
        }
        let partial = self.partial.as_mut().filter(|partial| partial.number == number);
        let Some(partial) = partial.filter(|it| it.body.len() == offset && offset + bytes.len() <= it.total) else {
            // A segment is missing, so the command can never be complete.
            self.advance(number);
            self.skip(number, number);
            return None;
        };
        partial.body.extend_from_slice(&bytes);
        if partial.body.len() < partial.total {
            return None;
        }
        let Partial { target, deadline, body, .. } = self.partial.take()?;
        self.advance(number);
        self.in_time(now, number, Command { target, deadline, body: body.freeze() })
    }

    /// Goes on to a number. Those in between are refused for ever. Returns `false` if the number is refused itself.
    fn advance(&mut self, number: u64) -> bool {
        if number <= self.last {
            return false;
        }
        if number > self.last + 1 {
            self.skip(self.last + 1, number - 1);
        }
        self.last = number;
        self.partial.take_if(|partial| partial.number <= number);
        true
    }

    fn skip(&mut self, first: u64, last: u64) {
        match self.skipped.back_mut() {
            Some((_, before)) if *before + 1 == first => *before = last,
            _ => self.skipped.push_back((first, last)),
        }
        if self.skipped.len() > MAX_ANSWERS {
            self.skipped.pop_front();
        }
    }

    /// Returns the command unless its deadline has passed; that is answered at once.
    fn in_time(&mut self, now: Duration, number: u64, command: Command) -> Option<Arrived> {
        if now > command.deadline {
            self.answer(number, Reply::Expired);
            return None;
        }
        Some(Arrived { number, command })
    }

    /// Queues an answer. A longer one than [`MAX_ANSWER`] is cut.
    pub(crate) fn answer(&mut self, number: u64, mut reply: Reply) {
        if let Reply::Done(bytes) = &mut reply {
            bytes.truncate(MAX_ANSWER);
        }
        self.reply_bytes += length(&reply);
        self.replies.push_back((number, reply));
        while self.replies.len() > MAX_ANSWERS || self.reply_bytes > MAX_ANSWER_BYTES {
            let Some((_, oldest)) = self.replies.pop_front() else { return };
            self.reply_bytes -= length(&oldest);
        }
    }

    /// Makes the next frame of answers.
    pub(crate) fn frame(&mut self) -> Option<Body> {
        if self.replies.is_empty() && self.skipped.is_empty() {
            return None;
        }
        let skipped = self.skipped.drain(..self.skipped.len().min(256)).collect::<Vec<_>>();
        let (mut replies, mut size) = (Vec::new(), skipped.len() * 16);
        while let Some((_, reply)) = self.replies.front() {
            size += length(reply) + 13;
            if size > SEGMENT && !replies.is_empty() {
                break;
            }
            let Some(reply) = self.replies.pop_front() else { break };
            self.reply_bytes -= length(&reply.1);
            replies.push(reply);
        }
        Some(Body::Answers(Answers { replies, skipped }))
    }

    /// Frees what is only needed while the peer lives. The last number stays.
    pub(crate) fn rest(&mut self) {
        *self = Self { last: self.last, ..Self::default() };
    }
}

fn length(reply: &Reply) -> usize {
    if let Reply::Done(bytes) = reply { Bytes::len(bytes) } else { 0 }
}
