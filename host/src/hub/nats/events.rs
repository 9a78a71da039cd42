//! What the bus reports to its owner.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::coop::has_budget_remaining;

use super::client::{ServerDescription, Subscription};
use super::error::{BusError, Right};
use super::state::Shared;
use super::subject::{Channel, MAX_FRAME, answer_address};
use crate::hub::cluster::id::Incarnation;

/// The channels of [`Lines`], in order.
const CHANNELS: [Channel; 3] = [Channel::All, Channel::Link, Channel::Snapshots];

/// Something that happened on the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A frame arrived. Frames of one channel and one sender keep their order while neither side connects again.
    Frame {
        /// The subscription that it came from.
        channel: Channel,
        /// The sender and the token, if it wants to hear that nobody listens. Answer to `Target::Inbox`.
        answer: Option<(Incarnation, u64)>,
        /// The content; 1 to [`MAX_FRAME`] bytes.
        bytes: Bytes,
    },
    /// A frame arrived in the own inbox: an answer to the frame that was published with this token.
    Answer {
        /// The token.
        token: u64,
        /// The content; 1 to [`MAX_FRAME`] bytes.
        bytes: Bytes,
    },
    /// Nobody listens on the subject that the frame with this token was published to.
    NoResponder {
        /// The token.
        token: u64,
    },
    /// There is a connection. It has been checked: messages to every own subject come back.
    Connected {
        /// The server.
        server: ServerDescription,
        /// `true` if the server's version has known faults: see [`is_outdated`](super::version::is_outdated).
        is_outdated: bool,
    },
    /// The connection has ended. Nothing that waited to be sent on it is sent. Frames that it has received may follow.
    Disconnected,
    /// An attempt to connect again has failed. Reported once for each reason; the bus goes on trying.
    Failed(BusError),
    /// Frames were dropped, because they were not taken out in time or because they were larger than [`MAX_FRAME`].
    Dropped {
        /// The subscription.
        channel: Channel,
        /// How many, at least.
        count: u64,
    },
    /// The server refused a frame or a subscription, because this user has no right on the subject.
    Denied {
        /// The right that is missing.
        right: Right,
        /// The subject.
        subject: String,
    },
    /// The server reported another error. Often it ends the connection.
    Said(String),
    /// The server will stop soon.
    LameDuck,
}

/// What the keeper tells.
#[derive(Debug)]
pub(super) enum Notice {
    /// An event as it is.
    Event(Event),
    /// A new connection, with its subscriptions.
    Connected(ServerDescription, Lines),
    /// Frames were dropped; the counts tell how many.
    Dropped,
}

/// The subscriptions that events read themselves, in the order of [`CHANNELS`]. One that has ended is `None`.
pub(super) type Lines = [Option<Subscription>; 3];

/// The events of a bus. Each subscription has a queue of its own, so that snapshots do not crowd out links.
#[derive(Debug)]
pub struct Events {
    shared: Arc<Shared>,
    notices: mpsc::Receiver<Notice>,
    /// The subscriptions of the connection that is read.
    current: Lines,
    /// The next connection, while frames of the one before it are left.
    next: Option<(ServerDescription, Lines)>,
    /// The subscription that is asked first. They take turns.
    turn: usize,
}

impl Events {
    pub(super) fn new(shared: Arc<Shared>, notices: mpsc::Receiver<Notice>) -> Self {
        Self { shared, notices, current: [None, None, None], next: None, turn: 0 }
    }

    /// Returns the next event; `None` when the bus has been closed. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Returns the next event; `None` when the bus has been closed.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            if let Some((channel, count)) = self.shared.dropped.take() {
                return Poll::Ready(Some(Event::Dropped { channel, count }));
            }
            if self.next.is_none()
                && let Poll::Ready(notice) = self.notices.poll_recv(cx)
            {
                match notice {
                    Some(Notice::Event(event)) => return Poll::Ready(Some(event)),
                    Some(Notice::Connected(server, lines)) => self.next = Some((server, lines)),
                    Some(Notice::Dropped) => {}
                    None => return Poll::Ready(None),
                }
                continue;
            }
            match self.poll_frame(cx) {
                Poll::Ready(Some(event)) => return Poll::Ready(Some(event)),
                // Dropped: a probe of another gateway, or a frame that is too large.
                Poll::Ready(None) => {}
                // The task has done enough in this turn; the queues may not be empty.
                Poll::Pending if !has_budget_remaining() => return Poll::Pending,
                // The queues of the old connection are empty. It may not have ended: a frozen server's socket stays
                // open for a while.
                Poll::Pending => match self.next.take() {
                    Some((server, lines)) => {
                        self.current = lines;
                        let is_outdated = super::version::is_outdated(&server.version);
                        return Poll::Ready(Some(Event::Connected { server, is_outdated }));
                    }
                    None => return Poll::Pending,
                },
            }
        }
    }

    /// Takes a message out of a queue. Returns `None` if it is no frame, or if a queue has ended.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        for step in 0..CHANNELS.len() {
            let index = (self.turn + step) % CHANNELS.len();
            let Some(subscription) = &mut self.current[index] else { continue };
            let Poll::Ready(message) = subscription.poll_next(cx) else { continue };
            self.turn = index + 1;
            let Some(message) = message else {
                self.current[index] = None;
                return Poll::Ready(None);
            };
            let answer = message.reply().and_then(answer_address);
            let event = |bytes| Event::Frame { channel: CHANNELS[index], answer, bytes };
            return Poll::Ready(frame(message.into_bytes(), CHANNELS[index], &self.shared).map(event));
        }
        Poll::Pending
    }
}

/// Returns the content if it can be a frame.
pub(super) fn frame(bytes: Bytes, channel: Channel, shared: &Shared) -> Option<Bytes> {
    if bytes.len() > MAX_FRAME {
        shared.dropped.add(channel, 1);
        return None;
    }
    (!bytes.is_empty()).then_some(bytes)
}
