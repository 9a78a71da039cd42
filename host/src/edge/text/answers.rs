//! The answers to a sender that are not written yet.

use std::collections::VecDeque;
use std::sync::Arc;

use bytestring::ByteString;
use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::metrics::{METRICS, PushFailure};
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
    text: String,
    /// What follows after `text`: lines for which other gateways are asked, and the answers that must not overtake
    /// them.
    waiting: VecDeque<Waiting>,
    replies: &'a Arc<Semaphore>,
    room: Option<OwnedSemaphorePermit>,
}

/// A line that waits for answers of other gateways, or answers behind such a line.
enum Waiting {
    Line { reached: bool, unanswered: Unanswered, reply: Option<ByteString> },
    Text(String),
}

impl<'a> Answers<'a> {
    /// Creates an empty list. `replies` is the shared budget of all senders, in bytes.
    pub(super) fn new(replies: &'a Arc<Semaphore>) -> Self {
        Self { text: String::new(), waiting: VecDeque::new(), replies, room: None }
    }

    /// Takes room for a reply of `bytes`. Returns `false` if there is not enough.
    pub(super) fn make_room(&mut self, bytes: usize) -> bool {
        let taken = u32::try_from(bytes).ok().and_then(|bytes| self.replies.clone().try_acquire_many_owned(bytes).ok());
        match (taken, &mut self.room) {
            (None, _) => return false,
            (Some(taken), Some(room)) => room.merge(taken),
            (taken, none) => *none = taken,
        }
        true
    }

    /// Adds a reply. The caller must have taken room for it with [`make_room`](Self::make_room), unless it is short.
    pub(super) fn reply(&mut self, reply: &str) {
        METRICS.pushes_ok.increment();
        self.line(reply);
    }

    pub(super) fn ok(&mut self) {
        self.reply("ok");
    }

    pub(super) fn fail(&mut self, why: PushFailure) {
        METRICS.pushes_failed.increment(why);
        self.line("fail");
    }

    /// Answers a line once other gateways have said what became of its deliveries. `reached` tells whether each of its
    /// other deliveries has reached somebody; `reply` is the router's own answer.
    pub(super) fn later(&mut self, reached: bool, unanswered: Unanswered, reply: Option<ByteString>) {
        self.waiting.push_back(Waiting::Line { reached, unanswered, reply });
    }

    /// Answers a line.
    pub(super) fn delivered(&mut self, reached: bool, reply: Option<ByteString>) {
        match reply {
            Some(reply) => self.reply(&reply),
            None if reached => self.ok(),
            None => self.fail(PushFailure::Unreached),
        }
    }

    /// Returns `true` if lines wait for other gateways.
    pub(super) fn wait(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Returns `true` if so many lines wait for other gateways that no more should be read.
    pub(super) fn too_many_wait(&self) -> bool {
        self.waiting.len() >= MAX_WAITING
    }

    /// Waits until the first line that waits can be answered, and answers all that can be answered then: together they
    /// take one write. Dropping the future loses nothing.
    pub(super) async fn some(&mut self) {
        self.next().await;
        while self.wait() && self.next().now_or_never().is_some() {}
    }

    /// Waits until the first line that waits can be answered. Dropping the future loses nothing.
    async fn next(&mut self) {
        if let Some(Waiting::Line { reached, unanswered, .. }) = self.waiting.front_mut() {
            *reached &= unanswered.all_reached().await;
        }
        // The rest may wait again: what is answered now goes to the text.
        let mut rest = std::mem::take(&mut self.waiting);
        if let Some(Waiting::Line { reached, reply, .. }) = rest.pop_front() {
            self.delivered(reached, reply);
        }
        while let Some(Waiting::Text(text)) = rest.pop_front_if(|next| matches!(next, Waiting::Text(_))) {
            self.text.push_str(&text);
        }
        self.waiting = rest;
    }

    /// Waits until all lines that wait can be answered.
    pub(super) async fn all(&mut self) {
        while self.wait() {
            self.next().await;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Returns `true` if there are enough answers to write them now.
    pub(super) fn are_many(&self) -> bool {
        self.text.len() >= MANY
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Removes the answers, which have been written, and gives back their room.
    pub(super) fn written(&mut self) {
        self.text.clear();
        self.text.shrink_to(KEEP);
        self.room = None;
    }

    /// Forgets the answers to lines that wait.
    pub(super) fn forget_waiting(&mut self) {
        self.waiting.clear();
    }

    fn line(&mut self, line: &str) {
        let text = match self.waiting.back_mut() {
            None => &mut self.text,
            Some(Waiting::Text(text)) => text,
            Some(Waiting::Line { .. }) => {
                self.waiting.push_back(Waiting::Text(String::new()));
                let Some(Waiting::Text(text)) = self.waiting.back_mut() else { return };
                text
            }
        };
        text.push_str(line);
        text.push('\n');
    }
}
