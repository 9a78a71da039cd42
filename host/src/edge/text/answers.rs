//! The answers to a sender that are not written yet.

use std::collections::VecDeque;
use std::sync::Arc;

use bytestring::ByteString;
use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::base::metrics::{METRICS, PushFailure, PushWay};
use crate::hub::delivery::Unanswered;

/// Bytes of answers that are written at once, even if more lines wait.
const MANY: usize = 16 << 10;
/// A buffer that a reply made larger than this shrinks after the reply is written.
const KEEP: usize = 2 * MANY;

/// The most lines of one sender that wait for answers of other gateways.
const MAX_WAITING: usize = 1024;

/// The answers to the lines of one sender: `ok`, `fail`, or a plugin's own reply. Only few `ok` and `fail` gather
/// before they are written. A reply may be long, so it takes room from a budget that all senders share.
pub(super) struct Answers<'a> {
    /// What can be written now.
    known: Text,
    /// What follows: lines for which other gateways are asked, and the answers that must not overtake them.
    waiting: VecDeque<Waiting>,
    /// The bytes of answers and replies in `waiting`.
    waiting_bytes: usize,
    replies: &'a Arc<Semaphore>,
}

/// A line that waits for answers of other gateways, or answers behind such a line.
enum Waiting {
    Line { begun: Instant, reached: bool, unanswered: Unanswered, reply: Option<Reply> },
    Text(Text),
}

/// Lines of answers, and the room that their replies take.
#[derive(Default)]
struct Text {
    lines: String,
    room: Option<OwnedSemaphorePermit>,
}

/// A router's own answer, with room for it.
pub(super) struct Reply {
    text: ByteString,
    room: OwnedSemaphorePermit,
}

impl<'a> Answers<'a> {
    /// Creates an empty list. `replies` is the shared budget of all senders, in bytes.
    pub(super) fn new(replies: &'a Arc<Semaphore>) -> Self {
        Self { known: Text::default(), waiting: VecDeque::new(), waiting_bytes: 0, replies }
    }

    /// Takes room for a reply. Returns `None` if there is not enough.
    pub(super) fn make_room(&self, text: ByteString) -> Option<Reply> {
        let bytes = u32::try_from(text.len()).ok()?;
        let room = self.replies.clone().try_acquire_many_owned(bytes).ok()?;
        Some(Reply { text, room })
    }

    pub(super) fn fail(&mut self, why: PushFailure) {
        METRICS.pushes_failed.increment(why);
        self.add("fail", None);
    }

    /// Answers a line, which was `begun` at this time, once other gateways have said what became of its deliveries.
    /// `reached` tells whether each of its other deliveries has reached somebody; `reply` is the router's own answer.
    pub(super) fn later(&mut self, begun: Instant, reached: bool, unanswered: Unanswered, reply: Option<Reply>) {
        self.waiting_bytes += length(&reply);
        self.waiting.push_back(Waiting::Line { begun, reached, unanswered, reply });
    }

    /// Answers a line.
    pub(super) fn delivered(&mut self, reached: bool, reply: Option<Reply>) {
        if reply.is_none() && !reached {
            return self.fail(PushFailure::Unreached);
        }
        METRICS.pushes_ok.increment();
        match reply {
            None => self.add("ok", None),
            Some(Reply { text, room }) => self.add(&text, Some(room)),
        }
    }

    /// Returns `true` if lines wait for other gateways.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Returns `true` if so many lines wait for other gateways that no more should be read.
    pub(super) fn too_many_wait(&self) -> bool {
        self.waiting.len() >= MAX_WAITING || self.waiting_bytes >= MANY
    }

    /// Waits until the first line that waits can be answered, and answers all that can be answered then: together they
    /// take one write. Dropping the future loses nothing.
    pub(super) async fn wait_for_some(&mut self) {
        self.wait_for_first().await;
        while self.has_waiting() && self.wait_for_first().now_or_never().is_some() {}
    }

    /// Waits until all lines that wait can be answered.
    pub(super) async fn wait_for_all(&mut self) {
        while self.has_waiting() {
            self.wait_for_first().await;
        }
    }

    /// Waits until the first line that waits can be answered. Dropping the future loses nothing.
    async fn wait_for_first(&mut self) {
        if let Some(Waiting::Line { reached, unanswered, .. }) = self.waiting.front_mut() {
            *reached &= unanswered.all_reached().await;
        }
        // The rest may wait again: what is answered now can be written now.
        let mut rest = std::mem::take(&mut self.waiting);
        if let Some(Waiting::Line { begun, reached, reply, .. }) = rest.pop_front() {
            METRICS.push_seconds.observe(PushWay::Text, begun.elapsed());
            self.waiting_bytes -= length(&reply);
            self.delivered(reached, reply);
        }
        while let Some(Waiting::Text(Text { lines, room })) = rest.pop_front_if(|next| matches!(next, Waiting::Text(_)))
        {
            self.waiting_bytes -= lines.len();
            self.known.add(&lines, room);
        }
        self.waiting = rest;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.lines.is_empty()
    }

    /// Returns `true` if there are enough answers to write them now.
    pub(super) fn are_many(&self) -> bool {
        self.known.lines.len() >= MANY
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.known.lines.as_bytes()
    }

    /// Removes the answers that were known, which have been written, and gives back their room.
    pub(super) fn written(&mut self) {
        self.known.lines.clear();
        self.known.lines.shrink_to(KEEP);
        self.known.room = None;
    }

    /// Forgets the answers to lines that wait.
    pub(super) fn forget_waiting(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
    }

    /// Adds a line behind all others.
    fn add(&mut self, line: &str, room: Option<OwnedSemaphorePermit>) {
        let text = if self.waiting.is_empty() {
            &mut self.known
        } else {
            self.waiting_bytes += line.len() + 1;
            if !matches!(self.waiting.back(), Some(Waiting::Text(_))) {
                self.waiting.push_back(Waiting::Text(Text::default()));
            }
            let Some(Waiting::Text(text)) = self.waiting.back_mut() else { return };
            text
        };
        text.add(line, room);
        text.lines.push('\n');
    }
}

impl Text {
    fn add(&mut self, lines: &str, room: Option<OwnedSemaphorePermit>) {
        self.lines.push_str(lines);
        match (&mut self.room, room) {
            (Some(room), Some(more)) => room.merge(more),
            (none @ None, more) => *none = more,
            (Some(_), None) => {}
        }
    }
}

fn length(reply: &Option<Reply>) -> usize {
    reply.as_ref().map_or(0, |reply| reply.text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::command::Outcome;

    #[tokio::test]
    async fn replies_keep_their_room_until_they_are_written() {
        let replies = Arc::new(Semaphore::new(100));
        let mut answers = Answers::new(&replies);
        let reply = |answers: &Answers<'_>, length: usize| answers.make_room("x".repeat(length).into());
        let (done, unanswered) = Unanswered::waiting_for_one();
        let first = reply(&answers, 60);
        answers.later(Instant::now(), true, unanswered, first);
        let second = reply(&answers, 40);
        answers.delivered(true, second);
        assert!(reply(&answers, 1).is_none(), "all room is taken");
        answers.written();
        assert!(reply(&answers, 1).is_none(), "nothing was written yet");
        done.send(Outcome::OFFLINE).unwrap();
        answers.wait_for_some().await;
        assert_eq!(answers.as_bytes().len(), 102);
        answers.written();
        assert_eq!(replies.available_permits(), 100);
    }

    #[tokio::test]
    async fn many_bytes_that_wait_stop_the_reading() {
        let replies = Arc::new(Semaphore::new(1 << 20));
        let mut answers = Answers::new(&replies);
        let (done, unanswered) = Unanswered::waiting_for_one();
        answers.later(Instant::now(), true, unanswered, None);
        let reply = answers.make_room("x".repeat(MANY).into());
        answers.delivered(true, reply);
        assert!(answers.too_many_wait() && answers.is_empty());
        done.send(Outcome::OFFLINE).unwrap();
        answers.wait_for_all().await;
        assert!(!answers.too_many_wait() && answers.are_many());
        assert!(answers.as_bytes().starts_with(b"fail\nxxx"));
    }
}
