//! The sending side of a link.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::super::clock::PeerClock;
use super::super::frame::{Body, Command, Reply, SEGMENT, Segment, Target};
use super::super::id::Ticket;

/// What a command is charged beyond its bytes: its entry here and on the receiver's side.
const OVERHEAD: usize = 96;

/// The most commands of one link that wait for their answers, those behind an unanswered one included.
const MAX_SENT: usize = 262_144;

/// The bytes of the commands that wait for their answers, on all links together.
#[derive(Debug)]
pub(crate) struct Window {
    used: usize,
    limit: usize,
}

impl Window {
    /// Creates an empty window of this many bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { used: 0, limit }
    }

    /// Returns the bytes that are in use.
    pub(crate) fn used(&self) -> usize {
        self.used
    }
}

/// What became of a command, from the sender's point of view. All but [`Done`](Self::Done) and
/// [`Unknown`](Self::Unknown) are certain: nothing of the command was done, nor will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The other host's answer.
    Done(Bytes),
    /// The deadline passed before the command was done.
    Expired,
    /// Later frames overtook the command.
    Skipped,
    /// The node could not be reached.
    Unreachable,
    /// No answer within the timeout: the command may have been done.
    Unknown,
}

/// A command that was not sent yet.
#[derive(Debug)]
struct Queued {
    ticket: Ticket,
    target: Target,
    body: Bytes,
    since: Duration,
}

/// A command that was sent, as a whole or in part.
#[derive(Debug)]
struct Sent {
    ticket: Ticket,
    /// What the window is charged.
    cost: usize,
    /// The number of the first command in the same frame.
    frame: u64,
    since: Duration,
    is_done: bool,
}

/// A long command that is being sent in segments. It is the last one in [`Outgoing::sent`].
#[derive(Debug)]
struct Sending {
    number: u64,
    target: Target,
    deadline: Duration,
    body: Bytes,
    offset: usize,
}

/// The answers of a link's commands, in the order in which they were found.
pub(crate) type Found = Vec<(Ticket, Answer)>;

/// The sending side of a link. Its numbers go on for as long as both incarnations do.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    queue: VecDeque<Queued>,
    sending: Option<Sending>,
    sent: VecDeque<Sent>,
    /// The commands that have left `sent`: the number of its first command, minus 1.
    before: u64,
    /// What this link uses of the window.
    used: usize,
}

fn cost(body: &Bytes) -> usize {
    body.len() + OVERHEAD
}

impl Outgoing {
    /// Queues a command. Returns `false` if the window is full. One command always fits a link without any.
    pub(crate) fn issue(
        &mut self,
        now: Duration,
        ticket: Ticket,
        target: Target,
        body: Bytes,
        window: &mut Window,
    ) -> bool {
        let cost = cost(&body);
        let fits = window.used + cost <= window.limit && self.queue.len() + self.sent.len() < MAX_SENT;
        if !fits && (self.used > 0 || !self.sent.is_empty()) {
            return false;
        }
        (self.used, window.used) = (self.used + cost, window.used + cost);
        self.queue.push_back(Queued { ticket, target, body, since: now });
        true
    }

    /// Returns `true` if nothing waits to be sent or answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.sent.is_empty()
    }

    /// Makes the next frame, with the number that names it to [`no_responders`](Self::no_responders).
    pub(crate) fn frame(
        &mut self,
        now: Duration,
        clock: PeerClock,
        timeout: Duration,
        window: &mut Window,
        found: &mut Found,
    ) -> Option<(u64, Body)> {
        if let Some(frame) = self.segment() {
            return Some(frame);
        }
        let (mut commands, mut size, first) = (Vec::new(), 0, self.next_number());
        while let Some(next) = self.queue.front() {
            let left = timeout.saturating_sub(now.saturating_sub(next.since));
            size += next.body.len() + 21;
            let is_long = size > SEGMENT;
            if is_long && !commands.is_empty() {
                break;
            }
            let Some(Queued { ticket, target, body, since }) = self.queue.pop_front() else { break };
            if left.is_zero() {
                size -= body.len() + 21;
                self.release(cost(&body), window);
                found.push((ticket, Answer::Expired));
                continue;
            }
            let deadline = clock.deadline(now, left);
            self.sent.push_back(Sent { ticket, cost: cost(&body), frame: first, since, is_done: false });
            if is_long {
                self.sending = Some(Sending { number: first, target, deadline, body, offset: 0 });
                return self.segment();
            }
            commands.push(Command { target, deadline, body });
        }
        if commands.is_empty() { None } else { Some((first, Body::Commands { first, commands })) }
    }

    /// Makes the next segment of a long command.
    fn segment(&mut self) -> Option<(u64, Body)> {
        let Sending { number, target, deadline, body, offset } = self.sending.as_mut()?;
        let end = body.len().min(*offset + SEGMENT);
        let segment = Segment {
            number: *number,
            target: *target,
            deadline: *deadline,
            total: u32::try_from(body.len()).unwrap_or(u32::MAX),
            offset: u32::try_from(*offset).unwrap_or(u32::MAX),
            bytes: body.slice(*offset..end),
        };
        *offset = end;
        if end == body.len() {
            self.sending = None;
        }
        Some((segment.number, Body::Segment(segment)))
    }

    fn next_number(&self) -> u64 {
        self.before + self.sent.len() as u64 + 1
    }

    fn release(&mut self, cost: usize, window: &mut Window) {
        self.used = self.used.saturating_sub(cost);
        window.used = window.used.saturating_sub(cost);
    }

    /// Notes the answer to one command. Does nothing if the command was answered before.
    fn settle(&mut self, number: u64, answer: Answer, window: &mut Window, found: &mut Found) {
        let at = number.checked_sub(self.before + 1).and_then(|at| usize::try_from(at).ok());
        let Some(sent) = at.and_then(|at| self.sent.get_mut(at)).filter(|sent| !sent.is_done) else { return };
        sent.is_done = true;
        found.push((sent.ticket, answer));
        let cost = sent.cost;
        self.release(cost, window);
        self.sending.take_if(|sending| sending.number == number);
        while self.sent.front().is_some_and(|sent| sent.is_done) {
            self.sent.pop_front();
            self.before += 1;
        }
    }

    /// Takes one answer of the peer.
    pub(crate) fn reply(&mut self, number: u64, reply: Reply, window: &mut Window, found: &mut Found) {
        let answer = match reply {
            Reply::Done(answer) => Answer::Done(answer),
            Reply::Expired => Answer::Expired,
        };
        self.settle(number, answer, window, found);
    }

    /// Notes that the peer will never do these commands.
    pub(crate) fn skipped(&mut self, first: u64, last: u64, window: &mut Window, found: &mut Found) {
        for number in first.max(self.before + 1)..=last.min(self.next_number() - 1) {
            self.settle(number, Answer::Skipped, window, found);
        }
    }

    /// Notes that nobody got a frame. It is named by its first command.
    pub(crate) fn no_responders(&mut self, frame: u64, window: &mut Window, found: &mut Found) {
        let mut number = frame;
        loop {
            // Settling the oldest command lets others leave, too.
            number = number.max(self.before + 1);
            let sent = usize::try_from(number - self.before - 1).ok().and_then(|at| self.sent.get(at));
            if sent.is_none_or(|sent| sent.frame != frame) {
                return;
            }
            self.settle(number, Answer::Unreachable, window, found);
            number = number.saturating_add(1);
        }
    }

    /// Gives up all commands that were not sent, or only in part.
    pub(crate) fn give_up(&mut self, window: &mut Window, found: &mut Found) {
        if let Some(sending) = &self.sending {
            self.settle(sending.number, Answer::Unreachable, window, found);
        }
        while let Some(queued) = self.queue.pop_front() {
            self.release(cost(&queued.body), window);
            found.push((queued.ticket, Answer::Unreachable));
        }
    }

    /// Gives up all commands whose timeout has passed.
    pub(crate) fn expire(&mut self, now: Duration, timeout: Duration, window: &mut Window, found: &mut Found) {
        while let Some(sent) = self.sent.front()
            && now >= sent.since + timeout
        {
            // A command that was not sent to its end cannot have been done.
            let number = self.before + 1;
            let is_partial = self.sending.as_ref().is_some_and(|sending| sending.number == number);
            let answer = if is_partial { Answer::Expired } else { Answer::Unknown };
            self.settle(number, answer, window, found);
        }
        while self.queue.front().is_some_and(|queued| now >= queued.since + timeout) {
            let Some(queued) = self.queue.pop_front() else { break };
            self.release(cost(&queued.body), window);
            found.push((queued.ticket, Answer::Expired));
        }
    }
}
