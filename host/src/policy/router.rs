//! Who gets this?

use std::sync::Arc;

use bytestring::ByteString;
use tracing::trace;

use super::lower::{attributes, message};
use super::read::Reader;
use crate::base::message::{ConnectionId, Message};
use crate::hub::command::{Action, Answer, Command, Ending, Sender, Session};
use crate::hub::registry::Registry;
use crate::plugin::{CallError, Caller, Generation, Seat, router, types};

/// A plugin failed. It has been logged; what comes of it is the caller's to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a plugin failed")]
pub struct Failed;

/// Decides what becomes of messages. A call is decided by the generation that serves its connection when it begins;
/// dropping a call ends it.
#[derive(Debug)]
pub struct Router {
    seat: Seat,
    /// Where the recipients of a call are counted.
    registry: Arc<Registry>,
}

impl Router {
    pub(super) fn new(seat: Seat, registry: Arc<Registry>) -> Self {
        Self { seat, registry }
    }

    /// A client is authenticated, and has received nothing yet.
    ///
    /// # Errors
    /// When the plugin failed, or no instance became free in time.
    pub async fn opened(&self, session: &Session) -> Result<Vec<Action>, Failed> {
        opened(&self.seat, &self.registry, session).await.map_err(|_logged| Failed)
    }

    /// An authenticated client has sent a packet. Waits for as long as all instances are busy, which is to pause the
    /// reading of its connection.
    ///
    /// # Errors
    /// When the plugin failed.
    pub async fn route(&self, session: &Session, packet: &Message) -> Result<Vec<Action>, Failed> {
        route(&self.seat, &self.registry, session, packet).await.map_err(|_logged| Failed)
    }

    /// A session has ended.
    ///
    /// # Errors
    /// When the plugin failed, or no instance became free in time.
    pub async fn closed(&self, session: &Session, ending: Ending) -> Result<Vec<Command>, Failed> {
        closed(&self.seat, &self.registry, session, ending).await.map_err(|_logged| Failed)
    }

    /// An internal sender has sent a line. The inner error is the plugin's own refusal, logged already.
    ///
    /// # Errors
    /// When the plugin failed, or no instance became free in time.
    pub async fn push(&self, sender: &Sender, line: &ByteString) -> Result<Result<Answer, String>, Failed> {
        push(&self.seat, &self.registry, sender, line).await.map_err(|_logged| Failed)
    }
}

pub(super) async fn opened(seat: &Seat, registry: &Registry, session: &Session) -> Result<Vec<Action>, CallError> {
    let attributes = attributes(&session.attributes);
    let read = |actions, _: &_| Reader::new(seat.limits(), None).counting(registry).actions(actions);
    let actions = seat.opened(Caller::Client(session.client), borrow(session, &attributes), read).await?;
    tell(session.connection, "opened", actions.iter().map(Action::name));
    Ok(actions)
}

pub(super) async fn route(
    seat: &Seat,
    registry: &Registry,
    session: &Session,
    packet: &Message,
) -> Result<Vec<Action>, CallError> {
    let attributes = attributes(&session.attributes);
    let read = |actions, _: &_| Reader::new(seat.limits(), Some(packet)).counting(registry).actions(actions);
    let actions =
        seat.route(Caller::Client(session.client), borrow(session, &attributes), message(packet), read).await?;
    tell(session.connection, "route", actions.iter().map(Action::name));
    Ok(actions)
}

pub(super) async fn closed(
    seat: &Seat,
    registry: &Registry,
    session: &Session,
    ending: Ending,
) -> Result<Vec<Command>, CallError> {
    let attributes = attributes(&session.attributes);
    let groups: Vec<&str> = ending.groups.iter().map(|group| &**group).collect();
    let Ending { cause, code, remaining, .. } = ending;
    let ending = router::Ending { cause: cause.into(), code, groups: &groups, remaining };
    let read = |commands, _: &_| Reader::new(seat.limits(), None).counting(registry).commands(commands);
    let commands = seat.closed(Caller::Client(session.client), borrow(session, &attributes), ending, read).await?;
    tell(session.connection, "closed", commands.iter().map(Command::name));
    Ok(commands)
}

pub(super) async fn push(
    seat: &Seat,
    registry: &Registry,
    sender: &Sender,
    line: &ByteString,
) -> Result<Result<Answer, String>, CallError> {
    let lowered = || router::Sender { connection: sender.connection.0, remote_address: &sender.remote_address };
    let input = Message::Text(line.clone());
    let read = |outcome: Result<_, String>, by: &Arc<Generation>| match outcome {
        Ok(answer) => Reader::new(seat.limits(), Some(&input)).counting(registry).answer(answer).map(Ok),
        Err(text) => {
            by.say_of(&lowered(), &text);
            Ok(Err(text))
        }
    };
    let answer = seat.push(Caller::Sender, lowered(), line, read).await?;
    if let Ok(answer) = &answer {
        tell(sender.connection, "push", answer.commands.iter().map(Command::name));
    }
    Ok(answer)
}

/// For whoever develops a plugin. Packets are not shown: they carry credentials.
fn tell(ConnectionId(connection): ConnectionId, call: &'static str, decided: impl Iterator<Item = &'static str>) {
    trace!(target: "verdict", connection, "{call}: {}", decided.collect::<Vec<_>>().join(", "));
}

fn borrow<'a>(session: &'a Session, attributes: &'a [types::AttributeParam<'a>]) -> router::Session<'a> {
    router::Session { connection: session.connection.0, uid: &session.uid, attributes, state: &session.state }
}
