//! What waits to be written to one connection: a queue bounded in bytes, and the only way to send to a peer. Whoever
//! sends never waits; a connection that does not read is closed instead.

mod budget;
mod queued;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::Waker;

use bytestring::ByteString;
use parking_lot::{Mutex, MutexGuard};
use thiserror::Error;

pub use self::budget::{Budget, Shared};
use self::queued::Queued;
pub use self::queued::{SHARED_COST, cost};

use crate::base::message::{Cause, CloseReason, Message};
use crate::base::metrics::{METRICS, Overflow};

/// How much an outbox draws beyond what it needs, so that not every message draws: an eighth, between these two.
const AMPLE: (usize, usize) = (1 << 10, 64 << 10);
/// A queue with more places than this gives some back when most of them are empty.
const MANY_PLACES: usize = 64;

/// Why a connection is to be closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// What the close frame says.
    pub reason: CloseReason,
    /// What the router is told.
    pub cause: Cause,
}

/// Why a message was not queued.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// The connection is closing or closed.
    #[error("the connection is closed")]
    Closed,
    /// The outbox is full. Its connection is now closing: it did not read.
    #[error("the outbox is full")]
    Full,
    /// All outboxes together hold too much. This is the message; it can be tried again once there is room.
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
    /// What the messages cost, those on their way included: a peer that does not read owes them still.
    bytes: usize,
    /// What of that is drawn already, once for all who share it.
    shared: usize,
    /// What the messages cost that have been handed out and not written yet, and what of that is shared.
    leaving: usize,
    leaving_shared: usize,
    /// What has been drawn from the budget for the rest.
    drawn: usize,
    /// The peer has not taken the last batch at once.
    stuck: bool,
    /// It was closed for want of room: the budget expects back what is drawn.
    relieved: bool,
    /// Most never have one.
    closing: Option<Box<Closing>>,
    /// The connection's task while it waits for something to do.
    task: Option<Waker>,
}

impl Queue {
    /// The memory that this outbox takes by itself.
    fn owed(&self) -> usize {
        self.bytes - self.shared
    }

    fn closing<T>(&self, otherwise: T) -> Result<T, Closing> {
        self.closing.as_deref().cloned().map_or(Ok(otherwise), Err)
    }
}

impl Outbox {
    /// An empty outbox for at most `max_bytes` (but always for one message, whatever its size).
    pub fn new(max_bytes: usize, budget: Arc<Budget>) -> Self {
        Self { queue: Mutex::default(), max_bytes, budget }
    }

    /// What it has in common with all others.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Queues a message for this connection alone.
    ///
    /// # Errors
    /// [`Refused`]; when the outbox is full, the connection is closed with 4905.
    pub fn push(&self, message: Message) -> Result<(), Refused> {
        self.enqueue(Queued { message, shared: false })
    }

    /// Queues a message that others get, too.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_shared(&self, message: &Shared) -> Result<(), Refused> {
        self.enqueue(Queued { message: message.0.clone(), shared: true })
    }

    fn enqueue(&self, queued: Queued) -> Result<(), Refused> {
        let mut queue = self.lock();
        if queue.closing.is_some() {
            return Err(Refused::Closed);
        }
        let idle = queue.messages.is_empty();
        let bytes = queue.bytes + queued.bytes();
        let shared = queue.shared + queued.shared();
        if bytes > self.max_bytes && !idle {
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
        if idle {
            notify(queue);
        }
        METRICS.messages_queued.increment();
        Ok(())
    }

    /// Asks for the connection to be closed once what is queued has been sent. The first reason given stands.
    /// Returns whether this was the first.
    pub fn close(&self, reason: CloseReason, cause: Cause) -> bool {
        let mut queue = self.lock();
        if queue.closing.is_some() {
            return false;
        }
        queue.closing = Some(Box::new(Closing { reason, cause }));
        notify(queue);
        true
    }

    /// Closes the connection with 4905 and throws away what waits for it, to make room for others.
    pub fn relieve(&self) {
        let mut queue = self.lock();
        if queue.closing.is_none() {
            self.discard(&mut queue);
            queue.relieved = true;
            self.budget.will_return(queue.drawn);
            METRICS.connections_relieved.increment();
            self.cut_off(queue, "the outboxes of all connections are full, and this one holds most");
        }
    }

    /// How many bytes wait.
    ///
    /// # Errors
    /// Why the connection is to be closed, if it is. From then on nothing more is queued.
    pub fn waiting(&self) -> Result<usize, Closing> {
        let queue = self.lock();
        queue.closing(queue.bytes)
    }

    /// Gives back all that is drawn and not needed. Returns how many bytes wait.
    ///
    /// # Errors
    /// As [`waiting`](Self::waiting).
    pub fn trim(&self) -> Result<usize, Closing> {
        let mut queue = self.lock();
        let surplus = queue.drawn.saturating_sub(queue.owed().saturating_sub(self.budget.share()));
        self.give_back(&mut queue, surplus);
        queue.closing(queue.bytes)
    }

    /// Whether messages are still taken.
    pub fn is_open(&self) -> bool {
        self.lock().closing.is_none()
    }

    /// To be called by the connection's task while it runs, which is not woken from now on until it [waits](Self::wait)
    /// again. Returns how many bytes wait.
    ///
    /// # Errors
    /// As [`waiting`](Self::waiting).
    pub fn awake(&self) -> Result<usize, Closing> {
        let mut queue = self.lock();
        queue.task = None;
        queue.closing(queue.bytes)
    }

    /// Has the connection's task woken when there is something to do for it. Returns whether messages are queued
    /// already, for which it is not.
    ///
    /// # Errors
    /// As [`waiting`](Self::waiting).
    pub fn wait(&self, task: &Waker) -> Result<bool, Closing> {
        let mut queue = self.lock();
        match &mut queue.task {
            Some(known) => known.clone_from(task),
            none => *none = Some(task.clone()),
        }
        queue.closing(!queue.messages.is_empty())
    }

    /// Wakes the connection's task for something that is not in the outbox.
    pub fn wake(&self) {
        notify(self.lock());
    }

    /// Hands messages to `take`, oldest first, until it breaks or none is left. Those handed out before have been written.
    pub fn drain(&self, mut take: impl FnMut(Message) -> ControlFlow<()>) {
        let mut queue = self.lock();
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
            // Its memory, too: an idle connection holds none.
            queue.messages = VecDeque::new();
        } else if queue.messages.capacity() > MANY_PLACES.max(4 * queue.messages.len()) {
            queue.messages.shrink_to(2 * queue.messages.len());
        }
        self.settle(queue);
    }

    /// Says that the peer has not taken the batch at once, of which `copied` bytes are left: what it holds of shared
    /// payloads is memory of this outbox alone. That is charged even where there is no room for it, since it is taken.
    pub fn keep_batch(&self, copied: usize) {
        let mut queue = self.lock();
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

    /// Throws away what is queued.
    pub fn clear(&self) {
        self.discard(&mut self.lock());
    }

    /// Closes the connection because its peer does not read, and wakes its task.
    fn cut_off(&self, mut queue: MutexGuard<'_, Queue>, why: impl std::fmt::Display) {
        self.discard(&mut queue);
        let reason = ByteString::from(format!("slow consumer: {why}"));
        queue.closing = Some(Box::new(Closing { reason: CloseReason { code: 4905, reason }, cause: Cause::Slow }));
        notify(queue);
    }

    /// Draws on the budget so that it covers what is `owed`: amply, if it can.
    fn draw(&self, queue: &mut Queue, owed: usize) -> bool {
        let needed = owed - self.budget.share();
        let drawn = [needed + ample(needed), needed].into_iter().find(|goal| self.budget.draw(goal - queue.drawn));
        queue.drawn = drawn.unwrap_or(queue.drawn);
        drawn.is_some()
    }

    /// Gives back what is drawn and not needed, once it is more than an ample part.
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

    /// Empties the queue, and its memory. What is on its way is still owed.
    fn discard(&self, queue: &mut Queue) {
        queue.messages = VecDeque::new();
        (queue.bytes, queue.shared) = (queue.leaving, queue.leaving_shared);
        self.settle(queue);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }
}

fn ample(needed: usize) -> usize {
    (needed / 8).clamp(AMPLE.0, AMPLE.1)
}

/// Wakes the connection's task, if it waits.
fn notify(mut queue: MutexGuard<'_, Queue>) {
    let task = queue.task.take();
    drop(queue);
    if let Some(task) = task {
        task.wake();
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let mut queue = self.lock();
        if queue.drawn > 0 {
            let drawn = queue.drawn;
            self.give_back(&mut queue, drawn);
        }
    }
}

#[cfg(test)]
mod tests;
