//! What a sender is answered, until it has been written.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::metrics::{METRICS, PushFailure};

/// Answers gathered before they are written although more lines wait, in bytes.
const MANY: usize = 16 << 10;
/// A buffer that has grown past this for a reply is given back once that is written.
const KEEP: usize = 2 * MANY;

/// Lines of one sender that are answered: `ok`, `fail`, or a plugin's own reply. There are only so many of the first two
/// before they are written; a reply may be long, and so needs room that all senders have in common.
pub(super) struct Answers<'a> {
    text: String,
    replies: &'a Arc<Semaphore>,
    room: Option<OwnedSemaphorePermit>,
}

impl<'a> Answers<'a> {
    /// None yet; `replies` is the room for all senders together, in bytes.
    pub(super) fn new(replies: &'a Arc<Semaphore>) -> Self {
        Self { text: String::new(), replies, room: None }
    }

    /// Takes room for a reply of so many bytes. Returns whether there is enough.
    pub(super) fn make_room(&mut self, bytes: usize) -> bool {
        let taken = u32::try_from(bytes).ok().and_then(|bytes| self.replies.clone().try_acquire_many_owned(bytes).ok());
        match (taken, &mut self.room) {
            (None, _) => return false,
            (Some(taken), Some(room)) => room.merge(taken),
            (taken, none) => *none = taken,
        }
        true
    }

    /// Answers with a reply, for which [`make_room`](Self::make_room) has found room.
    pub(super) fn reply(&mut self, reply: &str) {
        METRICS.pushes_ok.increment();
        self.line(reply);
    }

    pub(super) fn ok(&mut self) {
        METRICS.pushes_ok.increment();
        self.line("ok");
    }

    pub(super) fn fail(&mut self, why: PushFailure) {
        METRICS.pushes_failed.increment(why);
        self.line("fail");
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether it is time to write them.
    pub(super) fn are_many(&self) -> bool {
        self.text.len() >= MANY
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Forgets them, and gives back their room.
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
