//! What waits to be written to one connection: a queue bounded in bytes, and the only way to send to a peer. Whoever
//! sends never waits; a connection that does not read is closed instead.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytestring::ByteString;
use thiserror::Error;

use crate::message::{Cause, CloseReason, Message};
use crate::metrics::{METRICS, Overflow};

/// What a queued message costs beside its payload, in bytes, so that a flood of empty messages is bounded, too.
const OVERHEAD: usize = 64;
/// The first bytes of each outbox are free of the common budget, so that ordinary traffic does not touch it.
const FREE: usize = 4 << 10;
/// The budget is drawn on in steps of so many bytes.
const STEP: usize = 64 << 10;

/// Bytes that may wait in all outboxes together.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    limit: usize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit }
    }

    /// How many bytes are drawn, which is more than wait: outboxes draw in steps.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    fn draw(&self, bytes: usize) -> bool {
        self.used
            .fetch_update(Relaxed, Relaxed, |used| used.checked_add(bytes).filter(|&sum| sum <= self.limit))
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

/// Why a connection is to be closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// What the close frame says.
    pub reason: CloseReason,
    /// What the router is told.
    pub cause: Cause,
}

/// Why a message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// The connection is closing or closed.
    #[error("the connection is closed")]
    Closed,
    /// The outbox is full. Its connection is now closing: it did not read.
    #[error("the outbox is full")]
    Full,
    /// All outboxes together hold too much.
    #[error("the outboxes of all connections are full")]
    OverBudget,
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
    messages: VecDeque<Message>,
    /// What the messages cost, those on their way included: a peer that does not read owes them still.
    bytes: usize,
    /// What the messages cost that have been handed out and not written yet.
    leaving: usize,
    /// What has been drawn from the budget for them.
    drawn: usize,
    closing: Option<Closing>,
    /// The connection's task while it waits for something to do.
    task: Option<Waker>,
}

impl Outbox {
    /// An empty outbox for at most `max_bytes` (but always for one message, whatever its size).
    pub fn new(max_bytes: usize, budget: Arc<Budget>) -> Self {
        Self { queue: Mutex::default(), max_bytes, budget }
    }

    /// Queues a message.
    ///
    /// # Errors
    /// [`Refused`]; unless the connection was closed before, or its outbox empty, a refusal closes it with 4905.
    pub fn push(&self, message: Message) -> Result<(), Refused> {
        let mut queue = self.lock();
        if queue.closing.is_some() {
            return Err(Refused::Closed);
        }
        let idle = queue.messages.is_empty();
        let bytes = queue.bytes + message.len() + OVERHEAD;
        let (refused, overflow) = if bytes > self.max_bytes && !idle {
            (Refused::Full, Overflow::Full)
        } else if bytes > FREE + queue.drawn && !self.draw(&mut queue, bytes) {
            (Refused::OverBudget, Overflow::OverBudget)
        } else {
            queue.bytes = bytes;
            queue.messages.push_back(message);
            if idle {
                wake(queue);
            }
            METRICS.messages_queued.increment();
            return Ok(());
        };
        METRICS.messages_refused.increment(overflow);
        if !idle {
            METRICS.slow_consumers.increment();
            self.discard(&mut queue);
            let reason = ByteString::from(format!("slow consumer: {refused}"));
            queue.closing = Some(Closing { reason: CloseReason { code: 4905, reason }, cause: Cause::Slow });
            wake(queue);
        }
        Err(refused)
    }

    /// Asks for the connection to be closed once what is queued has been sent. The first reason given stands.
    /// Returns whether this was the first.
    pub fn close(&self, reason: CloseReason, cause: Cause) -> bool {
        let mut queue = self.lock();
        if queue.closing.is_some() {
            return false;
        }
        queue.closing = Some(Closing { reason, cause });
        wake(queue);
        true
    }

    /// How many bytes wait.
    ///
    /// # Errors
    /// Why the connection is to be closed, if it is. From then on nothing more is queued.
    pub fn waiting(&self) -> Result<usize, Closing> {
        let queue = self.lock();
        queue.closing.clone().map_or(Ok(queue.bytes), Err)
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
        queue.closing.clone().map_or(Ok(queue.bytes), Err)
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
        queue.closing.clone().map_or(Ok(!queue.messages.is_empty()), Err)
    }

    /// Wakes the connection's task for something that is not in the outbox.
    pub fn wake(&self) {
        wake(self.lock());
    }

    /// Hands messages to `take`, oldest first, until it breaks or none is left. Those handed out before have been written.
    pub fn drain(&self, mut take: impl FnMut(Message) -> ControlFlow<()>) {
        let mut queue = self.lock();
        queue.bytes -= std::mem::take(&mut queue.leaving);
        while let Some(message) = queue.messages.pop_front() {
            queue.leaving += message.len() + OVERHEAD;
            if take(message).is_break() {
                break;
            }
        }
        if queue.messages.is_empty() {
            self.discard(&mut queue);
        }
    }

    /// Throws away what is queued.
    pub fn clear(&self) {
        self.discard(&mut self.lock());
    }

    /// Draws on the budget so that it covers `bytes`: in whole steps while there are any.
    fn draw(&self, queue: &mut Queue, bytes: usize) -> bool {
        let missing = bytes - FREE - queue.drawn;
        let drawn = [missing.next_multiple_of(STEP), missing].into_iter().find(|&step| self.budget.draw(step));
        queue.drawn += drawn.unwrap_or(0);
        drawn.is_some()
    }

    /// Empties the queue, and its memory: an idle connection holds none. What is on its way is still owed.
    fn discard(&self, queue: &mut Queue) {
        queue.messages = VecDeque::new();
        queue.bytes = queue.leaving;
        if queue.bytes == 0 && queue.drawn > 0 {
            self.budget.give_back(std::mem::take(&mut queue.drawn));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the connection's task, if it waits.
fn wake(mut queue: MutexGuard<'_, Queue>) {
    let task = queue.task.take();
    drop(queue);
    if let Some(task) = task {
        task.wake();
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.budget.give_back(self.lock().drawn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(length: usize) -> Message {
        Message::Text("x".repeat(length).into())
    }

    fn outbox(max_bytes: usize, budget: usize) -> (Outbox, Arc<Budget>) {
        let budget = Arc::new(Budget::new(budget));
        (Outbox::new(max_bytes, budget.clone()), budget)
    }

    #[test]
    fn one_message_always_fits_an_empty_outbox() {
        let (outbox, _) = outbox(1000, 1 << 20);
        assert_eq!(outbox.push(text(5000)), Ok(()));
        assert_eq!(outbox.push(text(1)), Err(Refused::Full));
        assert_eq!(outbox.waiting().unwrap_err().reason.code, 4905);
        assert_eq!(outbox.push(text(1)), Err(Refused::Closed));
    }

    #[test]
    fn messages_leave_in_order_and_free_their_bytes() {
        let (outbox, budget) = outbox(1 << 20, 1 << 20);
        for length in [1, 70_000, 3] {
            outbox.push(text(length)).unwrap();
        }
        assert!(budget.used.load(Relaxed) >= 70_000 - FREE);
        let mut lengths = Vec::new();
        outbox.drain(|message| {
            lengths.push(message.len());
            ControlFlow::Continue(())
        });
        assert_eq!(lengths, [1, 70_000, 3]);
        assert!(budget.used.load(Relaxed) > 0, "they have not been written yet");
        outbox.drain(|_| ControlFlow::Continue(()));
        assert_eq!(budget.used.load(Relaxed), 0);
        assert_eq!(outbox.waiting(), Ok(0));
    }

    #[test]
    fn what_is_on_its_way_is_still_owed() {
        let (outbox, budget) = outbox(100_000, 1 << 20);
        outbox.push(text(90_000)).unwrap();
        outbox.drain(|_| ControlFlow::Continue(()));
        outbox.push(text(1)).unwrap();
        assert_eq!(outbox.push(text(90_000)), Err(Refused::Full));
        assert!(budget.used.load(Relaxed) > 0);
        drop(outbox);
        assert_eq!(budget.used.load(Relaxed), 0);
    }

    #[test]
    fn a_small_budget_is_used_to_the_last_byte() {
        let (outbox, budget) = outbox(1 << 20, 32 << 10);
        outbox.push(text(5000)).unwrap();
        outbox.push(text(20_000)).unwrap();
        assert_eq!(outbox.push(text(20_000)), Err(Refused::OverBudget));
        drop(outbox);
        assert_eq!(budget.used.load(Relaxed), 0);
    }

    #[test]
    fn the_budget_bounds_all_outboxes_together_and_spares_who_owes_nothing() {
        let (first, budget) = outbox(4 << 20, 1 << 20);
        let second = Outbox::new(4 << 20, budget.clone());
        first.push(text(1_000_000)).unwrap();
        assert_eq!(second.push(text(500_000)), Err(Refused::OverBudget));
        assert!(second.is_open(), "an empty outbox is nobody's fault");
        second.push(text(10)).unwrap();
        assert_eq!(second.push(text(500_000)), Err(Refused::OverBudget));
        assert!(!second.is_open());
        drop(first);
        assert_eq!(budget.used.load(Relaxed), 0);
    }

    #[test]
    fn the_first_reason_to_close_stands_and_what_is_queued_still_leaves() {
        let (outbox, _) = outbox(1000, 1000);
        outbox.push(text(5)).unwrap();
        assert!(outbox.close(CloseReason::new(4900, "silent"), Cause::Silent));
        assert!(!outbox.close(CloseReason::new(4907, "kicked"), Cause::Operator));
        assert_eq!(outbox.waiting().unwrap_err().cause, Cause::Silent);
        let mut left = 0;
        outbox.drain(|_| {
            left += 1;
            ControlFlow::Continue(())
        });
        assert_eq!(left, 1);
    }
}
