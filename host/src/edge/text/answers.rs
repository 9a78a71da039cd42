//! The answers to a sender that are not written yet.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::metrics::{METRICS, PushFailure};

/// Bytes of answers that are written at once, even if more lines wait.
const MANY: usize = 16 << 10;
/// A buffer that a reply made larger than this shrinks after the reply is written.
const KEEP: usize = 2 * MANY;

/// The answers to the lines of one sender: `ok`, `fail`, or a plugin's own reply. Only few `ok` and `fail` gather
/// before they are written. A reply may be long, so it takes room from a budget that all senders share.
pub(super) struct Answers<'a> {
    text: String,
    replies: &'a Arc<Semaphore>,
    room: Option<OwnedSemaphorePermit>,
}

impl<'a> Answers<'a> {
    /// Creates an empty list. `replies` is the shared budget of all senders, in bytes.
    pub(super) fn new(replies: &'a Arc<Semaphore>) -> Self {
        Self { text: String::new(), replies, room: None }
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

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}
