//! The messages queued for one connection: a queue bounded in bytes, and the only way to send to a client. Sending
//! never waits: a connection whose client does not read is closed instead.

mod budget;
mod queued;
mod shared;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::Waker;

use bytestring::ByteString;
use parking_lot::{Mutex, MutexGuard};
use thiserror::Error;

pub use self::budget::Budget;
use self::queued::Queued;
pub use self::queued::{SHARED_COST, cost};
pub use self::shared::Shared;

use crate::base::message::{Cause, CloseReason, Message};
use crate::base::metrics::{METRICS, Overflow};

/// An outbox draws a little more than it needs, so that not every message has to ask the budget: an eighth more, but at
/// least 1 KiB and at most 64 KiB.
const AMPLE: (usize, usize) = (1 << 10, 64 << 10);
/// A queue with more places than this shrinks when most of its places are empty.
const MANY_PLACES: usize = 64;

/// Why a connection closes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// Code and reason for the close frame.
    pub reason: CloseReason,
    /// The cause that the router is told.
    pub cause: Cause,
}

/// Why a message was not queued.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// The connection is closing or closed.
    #[error("the connection is closed")]
    Closed,
    /// The outbox is full. Its connection is now closing, because the client did not read.
    #[error("the outbox is full")]
    Full,
    /// All outboxes together hold too much. Contains the message, which can be queued again once there is room.
    #[error("the outboxes of all connections are full")]
    OverBudget(Message),
}

/// The queue of one connection.
#[derive(Debug)]
pub struct Outbox {
    queue: Mutex<Queue>,
    max_bytes: usize,
    budget: Arc<Budget>,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Queued>,
    /// Cost of all messages, including those being written: their memory is in use until the client has taken them.
    bytes: usize,
    /// The part of `bytes` that is shared payloads. A shared payload is charged to the budget once, however many
    /// outboxes hold it.
    shared: usize,
    /// Cost of the messages that were handed out and are not written yet.
    leaving: usize,
    /// The part of `leaving` that is shared payloads.
    leaving_shared: usize,
    /// Bytes drawn from the budget, beyond the outbox's own share.
    drawn: usize,
    /// True if the client did not take the last batch at once.
    stuck: bool,
    /// True if the connection was closed to make room. The budget already counts the drawn bytes as free soon.
    relieved: bool,
    /// The reason to close, once the connection is closing. Boxed, since most connections never have one.
    closing: Option<Box<Close>>,
    /// Wakes the connection's task, while the task waits for something to do.
    task: Option<Waker>,
}

impl Queue {
    /// Bytes of memory that only this outbox uses.
    fn owed(&self) -> usize {
        self.bytes - self.shared
    }

    fn closing<T>(&self, otherwise: T) -> Result<T, Close> {
        self.closing.as_deref().cloned().map_or(Ok(otherwise), Err)
    }
}

impl Outbox {
    /// Creates an empty outbox for at most `max_bytes`. An empty outbox takes one message of any size, if the budget
    /// has room for it.
    pub fn new(max_bytes: usize, budget: Arc<Budget>) -> Self {
        Self { queue: Mutex::default(), max_bytes, budget }
    }

    /// The budget that all outboxes have in common.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Queues a message for this connection alone.
    ///
    /// # Errors
    /// [`Refused`]. If the outbox is full, the connection is closed with 4905.
    pub fn push(&self, message: Message) -> Result<(), Refused> {
        self.enqueue(Queued { message, shared: false })
    }

    /// Queues a message that other connections get, too.
    ///
    /// # Errors
    /// See [`push`](Self::push).
    pub fn push_shared(&self, message: &Shared) -> Result<(), Refused> {
        self.enqueue(Queued { message: message.0.clone(), shared: true })
    }

    fn enqueue(&self, queued: Queued) -> Result<(), Refused> {
        let mut queue = self.queue.lock();
        if queue.closing.is_some() {
            return Err(Refused::Closed);
        }
        let queue_empty = queue.messages.is_empty();
        let bytes = queue.bytes + queued.bytes();
        let shared = queue.shared + queued.shared();
        if bytes > self.max_bytes && !queue_empty {
            METRICS.messages_refused.increment(Overflow::Full);
            METRICS.slow_consumers.increment();
            self.cut_off(queue, &Refused::Full);
            return Err(Refused::Full);
        }
        if bytes - shared > self.budget.share() + queue.drawn && !self.draw(&mut queue, bytes - shared) {
            return Err(Refused::OverBudget(queued.message));
        }
        (queue.bytes, queue.shared) = (bytes, shared);
        queue.messages.push_back(queued);
        if queue_empty {
            wake_task(queue);
        }
        METRICS.messages_queued.increment();
        Ok(())
    }

    /// Closes the connection after its queued messages are sent. The first call decides the reason. Returns `true` if
    /// this was the first call.
    pub fn close(&self, reason: CloseReason, cause: Cause) -> bool {
        let mut queue = self.queue.lock();
        if queue.closing.is_some() {
            return false;
        }
        queue.closing = Some(Box::new(Close { reason, cause }));
        wake_task(queue);
        true
    }

    /// Closes the connection with 4905 and discards its queued messages, to make room for other connections.
    pub fn relieve(&self) {
        let mut queue = self.queue.lock();
        if queue.closing.is_none() {
            self.discard(&mut queue);
            queue.relieved = true;
            self.budget.will_return(queue.drawn);
            METRICS.connections_relieved.increment();
            self.cut_off(queue, "the outboxes of all connections are full, and this one holds most");
        }
    }

    /// Returns the cost of all messages in the outbox, in bytes.
    ///
    /// # Errors
    /// [`Close`] if the connection is closing. The outbox then takes no more messages.
    pub fn queued_bytes(&self) -> Result<usize, Close> {
        let queue = self.queue.lock();
        queue.closing(queue.bytes)
    }

    /// Gives drawn bytes that are not needed back to the budget. Returns the queued bytes.
    ///
    /// # Errors
    /// See [`queued_bytes`](Self::queued_bytes).
    pub fn trim(&self) -> Result<usize, Close> {
        let mut queue = self.queue.lock();
        let surplus = queue.drawn.saturating_sub(queue.owed().saturating_sub(self.budget.share()));
        self.give_back(&mut queue, surplus);
        queue.closing(queue.bytes)
    }

    /// Returns `true` while the outbox takes messages.
    pub fn is_open(&self) -> bool {
        self.queue.lock().closing.is_none()
    }

    /// Clears the waker: nothing wakes the connection's task until it [registers](Self::register_waker) again. The task
    /// calls this each time it is polled to receive a packet. Returns the queued bytes.
    ///
    /// # Errors
    /// See [`queued_bytes`](Self::queued_bytes).
    pub fn begin_turn(&self) -> Result<usize, Close> {
        let mut queue = self.queue.lock();
        queue.task = None;
        queue.closing(queue.bytes)
    }

    /// Registers the waker of the connection's task. Returns `true` if messages are already queued. These messages will
    /// not wake the task: the caller must send them itself.
    ///
    /// # Errors
    /// See [`queued_bytes`](Self::queued_bytes).
    pub fn register_waker(&self, task: &Waker) -> Result<bool, Close> {
        let mut queue = self.queue.lock();
        match &mut queue.task {
            Some(known) => known.clone_from(task),
            none => *none = Some(task.clone()),
        }
        queue.closing(!queue.messages.is_empty())
    }

    /// Wakes the connection's task for something outside the outbox, such as a ping.
    pub fn notify(&self) {
        wake_task(self.queue.lock());
    }

    /// Passes messages to `take`, oldest first, until `take` breaks or the queue is empty. The caller promises:
    /// everything it took last time is written.
    pub fn drain(&self, mut take: impl FnMut(Message) -> ControlFlow<()>) {
        let mut queue = self.queue.lock();
        let queue = &mut *queue;
        queue.bytes -= std::mem::take(&mut queue.leaving);
        queue.shared -= std::mem::take(&mut queue.leaving_shared);
        queue.stuck = false;
        while let Some(next) = queue.messages.pop_front() {
            queue.leaving += next.bytes();
            queue.leaving_shared += next.shared();
            if take(next.message).is_break() {
                break;
            }
        }
        if queue.messages.is_empty() {
            // Frees the queue's memory, too: an idle connection holds none.
            queue.messages = VecDeque::new();
        } else if queue.messages.capacity() > MANY_PLACES.max(4 * queue.messages.len()) {
            queue.messages.shrink_to(2 * queue.messages.len());
        }
        self.settle(queue);
    }

    /// Records that the client did not take the last batch at once, and that `copied` bytes of the batch are left. The
    /// batch has copies of shared payloads, and these copies are memory of this outbox alone. They are charged even if
    /// the budget has no room, because the memory is already in use. Only the first call after a
    /// [`drain`](Self::drain) has an effect.
    pub fn keep_batch(&self, copied: usize) {
        let mut queue = self.queue.lock();
        if std::mem::replace(&mut queue.stuck, true) {
            return;
        }
        let own = copied.min(queue.leaving_shared);
        queue.leaving_shared -= own;
        queue.shared -= own;
        let missing = queue.owed().saturating_sub(self.budget.share() + queue.drawn);
        if missing > 0 {
            self.budget.draw_anyway(missing);
            queue.drawn += missing;
            if queue.relieved {
                self.budget.will_return(missing);
            }
        }
    }

    /// Discards all queued messages.
    pub fn clear(&self) {
        self.discard(&mut self.queue.lock());
    }

    /// Closes the connection as a slow consumer, and wakes its task.
    fn cut_off(&self, mut queue: MutexGuard<'_, Queue>, why: impl std::fmt::Display) {
        self.discard(&mut queue);
        let reason = ByteString::from(format!("slow consumer: {why}"));
        queue.closing = Some(Box::new(Close { reason: CloseReason { code: 4905, reason }, cause: Cause::Slow }));
        wake_task(queue);
    }

    /// Draws on the budget until it covers `owed` bytes, and more in advance if possible. Returns `false` if the budget
    /// has too little.
    fn draw(&self, queue: &mut Queue, owed: usize) -> bool {
        let needed = owed - self.budget.share();
        let drawn = [needed + ample(needed), needed].into_iter().find(|goal| self.budget.draw(goal - queue.drawn));
        queue.drawn = drawn.unwrap_or(queue.drawn);
        drawn.is_some()
    }

    /// Gives drawn bytes back to the budget. If nothing is needed, gives back all. Else keeps what is needed plus one
    /// advance, and gives back only if more than two advances are left over.
    fn settle(&self, queue: &mut Queue) {
        if queue.drawn == 0 {
            return;
        }
        let needed = queue.owed().saturating_sub(self.budget.share());
        let surplus = match needed {
            0 => queue.drawn,
            _ if queue.drawn > needed + 2 * ample(needed) => queue.drawn - needed - ample(needed),
            _ => return,
        };
        self.give_back(queue, surplus);
    }

    fn give_back(&self, queue: &mut Queue, bytes: usize) {
        queue.drawn -= bytes;
        self.budget.give_back(bytes);
        if queue.relieved {
            self.budget.has_returned(bytes);
        }
    }

    /// Empties the queue and frees its memory. Messages that are being written still count.
    fn discard(&self, queue: &mut Queue) {
        queue.messages = VecDeque::new();
        (queue.bytes, queue.shared) = (queue.leaving, queue.leaving_shared);
        self.settle(queue);
    }
}

/// Returns how many bytes to draw in advance.
fn ample(needed: usize) -> usize {
    (needed / 8).clamp(AMPLE.0, AMPLE.1)
}

/// Wakes the connection's task if its waker is registered. Releases the lock first.
fn wake_task(mut queue: MutexGuard<'_, Queue>) {
    let task = queue.task.take();
    drop(queue);
    if let Some(task) = task {
        task.wake();
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let mut queue = self.queue.lock();
        if queue.drawn > 0 {
            let drawn = queue.drawn;
            self.give_back(&mut queue, drawn);
        }
    }
}

#[cfg(test)]
mod tests;
