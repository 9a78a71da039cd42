//! Tells the trace what becomes of actions and messages, for operators who follow a client.

use std::sync::Arc;

use bytestring::ByteString;
use tracing::debug;

use super::issued::Issued;
use super::repeats::payload;
use crate::base::message::{ConnectionId, Message};
use crate::base::trace::{Payload, Reached, TRACE, Target, TraceEvent};
use crate::hub::command::{Action, Elsewhere, Outcome, Recipient};
use crate::hub::outbox::Refused;
use crate::hub::registry::Peer;

/// Returns the description of a message, if this connection is followed.
pub(super) fn described(peer: &Peer, message: &Message) -> Option<Payload> {
    TRACE.follows(peer.id).then(|| Payload::of(message))
}

/// Returns what became of a message to one connection; logs a refusal.
pub(super) fn became(peer: &Peer, pushed: &Result<(), Refused>, described: Option<Payload>) -> Outcome {
    if let Err(refused) = pushed {
        debug!(connection = peer.id.0, %refused, "message refused");
    }
    if let Some(payload) = described {
        TRACE.record(peer.id, || TraceEvent::Message { result: result(pushed), payload });
    }
    match pushed {
        Ok(()) => Outcome { reached: 1, ..Outcome::OFFLINE },
        Err(Refused::Full) => Outcome { full: 1, ..Outcome::OFFLINE },
        Err(Refused::OverBudget(_)) => Outcome { over_budget: 1, ..Outcome::OFFLINE },
        Err(Refused::Closed) => Outcome::OFFLINE,
    }
}

/// Names what became of a message to one connection, for the trace.
pub fn result(pushed: &Result<(), Refused>) -> &'static str {
    match pushed {
        Ok(()) => "queued",
        Err(Refused::Full) => "outbox-full",
        Err(Refused::OverBudget(_)) => "over-budget",
        Err(Refused::Closed) => "closing",
    }
}

/// The uid that somebody watches, and a message for it.
pub(super) type Awaited = (ByteString, Payload);

/// Describes a message for a uid, if anybody watches anything.
pub(super) fn awaited(to: &Recipient, message: &Message) -> Option<Box<Awaited>> {
    match to {
        Recipient::Uid(uid) if TRACE.is_watched() => Some(Box::new((uid.clone(), Payload::of(message)))),
        _ => None,
    }
}

/// Records a message for a uid that has no connection.
pub(super) fn missed(awaited: Awaited) {
    let (uid, payload) = awaited;
    TRACE.missed(&uid, || TraceEvent::Missed(payload));
}

/// An action for a session that somebody follows. It is recorded once its result is known.
#[derive(Debug)]
pub(super) struct TracedAction {
    own: ConnectionId,
    action: &'static str,
    to: Option<Target>,
    payload: Option<Payload>,
}

impl TracedAction {
    /// Describes an action. Returns `None` if nobody follows the session.
    pub(super) fn of(own: Option<&Arc<Peer>>, action: &Action) -> Option<Box<Self>> {
        let own = own.map(|own| own.id).filter(|own| TRACE.follows(*own))?;
        let (to, payload) = match action {
            Action::Command(command) => (Some(target(command.recipient())), payload(command).map(Payload::of)),
            Action::Reply(message) => (None, Some(Payload::of(message))),
            Action::Remember(state) => (None, Some(Payload::of_bytes(state))),
            Action::Authenticate => (None, None),
        };
        Some(Box::new(Self { own, action: action.name(), to, payload }))
    }

    /// Records the action. `None`: it has no result.
    pub(super) fn done(self, outcome: Option<&Outcome>) {
        let Self { own, action, to, payload } = self;
        let result = outcome.map(|outcome| Reached {
            reached: outcome.reached,
            outbox_full: outcome.full,
            over_budget: outcome.over_budget,
            elsewhere: outcome.elsewhere.map(name),
        });
        TRACE.record(own, || TraceEvent::Action { action, to, payload, result });
    }

    /// Records an action about which other gateways may still have to answer.
    pub(super) fn issued(self, issued: &Issued) {
        match issued {
            Issued::Done(outcome) => self.done(Some(outcome)),
            Issued::Away(here, _) => {
                let Self { own, action, to, payload } = self;
                let Outcome { reached, full, over_budget, .. } = *here;
                let result = Reached { reached, outbox_full: full, over_budget, elsewhere: Some("asked") };
                let result = Some(result);
                TRACE.record(own, || TraceEvent::Action { action, to, payload, result });
            }
        }
    }
}

fn target(recipient: &Recipient) -> Target {
    match recipient {
        Recipient::Uid(uid) => Target::Uid((&**uid).into()),
        Recipient::Connection(id) => Target::Connection(id.to_string()),
        Recipient::Group(group) => Target::Group((&**group).into()),
        Recipient::GroupOthers(group) => Target::GroupOthers((&**group).into()),
        Recipient::Everyone => Target::Everyone(true),
    }
}

fn name(elsewhere: Elsewhere) -> &'static str {
    match elsewhere {
        Elsewhere::Moved => "moved",
        Elsewhere::Expired => "expired",
        Elsewhere::Unreachable => "unreachable",
        Elsewhere::Overload => "overload",
        Elsewhere::Unknown => "unknown",
    }
}
