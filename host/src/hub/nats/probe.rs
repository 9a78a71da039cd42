//! The check that begins each connection: whether messages come back, and whether the server says that nobody listens.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::client::{Incoming, Link, Signal};
use super::error::BusError;
use super::subject::{Channel, Subjects, Target};
use crate::hub::cluster::id::Incarnation;

/// What has not come back yet.
struct Missing {
    /// The probe of each channel, in the order of [`Channel::EACH`].
    channels: [bool; 4],
    /// The notice that nobody listens.
    notice: bool,
}

/// Publishes an empty message to each own subject, and one to a subject that nobody listens on, and waits for what must
/// come back. So a missing right, a wrong account and a subscriber that hides notices are found before a frame is sent.
///
/// # Errors
/// The first thing that does not work.
pub(super) async fn check(
    link: &mut Link,
    subjects: &Subjects,
    nobody: Incarnation,
    time: Duration,
) -> Result<(), BusError> {
    let deadline = Instant::now() + time;
    let server = link.server.server.clone();
    let own = subjects.own();
    let with_reply = [Target::All, Target::Link(own), Target::Snapshots(own), Target::Link(nobody)];
    let messages = with_reply.map(|target| (subjects.target(target), Some(subjects.probe())));
    for (subject, reply) in messages.into_iter().chain([(subjects.probe(), None)]) {
        let sent = link.client.publish(subject, reply, Bytes::new());
        sent.map_err(|error| BusError::unreachable(&server, error))?;
    }
    let mut missing = Missing { channels: [true; 4], notice: true };
    let waiting = poll_fn(|cx| missing.poll(link, subjects, cx));
    if let Ok(checked) = timeout_at(deadline, waiting).await {
        return checked;
    }
    let silent = Channel::EACH.into_iter().zip(missing.channels).find_map(|(channel, is)| is.then_some(channel));
    Err(match silent {
        Some(channel) => BusError::Silent { server, subject: subjects.subscription(channel), millis: time.as_millis() },
        None => {
            let reason = "a message to an unused subject was accepted. Another client of this account subscribes to a \
                wildcard that covers the subjects of gateways; forbid it";
            BusError::NoResponders { server, reason: reason.to_owned() }
        }
    })
}

impl Missing {
    fn poll(&mut self, link: &mut Link, subjects: &Subjects, cx: &mut Context<'_>) -> Poll<Result<(), BusError>> {
        let server = || link.server.server.clone();
        while let Poll::Ready(signal) = link.signals.poll_recv(cx) {
            match signal {
                Some(Signal::Dropped) => {}
                Some(Signal::Denied(right, subject)) => {
                    return Poll::Ready(Err(BusError::Denied { server: server(), right, subject }));
                }
                Some(Signal::Said(reason)) => return Poll::Ready(Err(BusError::Refused { server: server(), reason })),
                Some(Signal::LameDuck) => {
                    return Poll::Ready(Err(BusError::unreachable(&server(), "it is about to stop")));
                }
                None => return Poll::Ready(Err(BusError::unreachable(&server(), "the connection was lost"))),
            }
        }
        for (index, subscription) in link.subscriptions.iter_mut().enumerate() {
            while self.channels[index] || (Channel::EACH[index] == Channel::Inbox && self.notice) {
                match subscription.poll_queue(cx) {
                    Poll::Pending => break,
                    Poll::Ready(None) => {
                        return Poll::Ready(Err(BusError::unreachable(&server(), "the connection was lost")));
                    }
                    Poll::Ready(Some(message)) if is_notice(&message, subjects) => self.notice = false,
                    Poll::Ready(Some(message)) if is_probe(&message, subjects) => self.channels[index] = false,
                    Poll::Ready(Some(message)) => subscription.put_back(message),
                }
            }
        }
        if self.notice || self.channels.contains(&true) { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

fn is_notice(message: &Incoming, subjects: &Subjects) -> bool {
    message.is_no_responders() && message.subject() == subjects.probe()
}

fn is_probe(message: &Incoming, subjects: &Subjects) -> bool {
    let probe = subjects.probe();
    message.is_empty() && (message.subject() == probe || message.reply() == Some(&probe))
}
