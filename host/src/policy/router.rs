//! Calls the router plugin: who gets this?

use std::sync::Arc;

use bytestring::ByteString;
use tracing::trace;

use super::lower::{attributes, message, recipient};
use super::read::Reader;
use crate::base::message::{ConnectionId, Message};
use crate::hub::command::{Action, Answer, Command, Ending, Publisher, Recipient, Ruling, Sender, Session};
use crate::hub::registry::Registry;
use crate::plugin::{CallError, Caller, Generation, PluginHandle, publications, router, types};

/// A plugin failed. The failure is logged already; the caller decides what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a plugin failed")]
pub struct Failed;

/// A pushed line had no effect. The reason is logged already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The plugin refused the line.
    #[error("the router refused the line")]
    Refused,
    /// The plugin failed, or no instance became free in time.
    #[error("a plugin failed")]
    Failed,
}

/// Decides who gets a message. Each call runs in the generation that serves its connection when the call begins.
/// Dropping the future of a call ends the call.
#[derive(Debug)]
pub struct Router {
    handle: PluginHandle,
    /// Counts the recipients of a call.
    registry: Arc<Registry>,
}

impl Router {
    pub(super) fn new(handle: PluginHandle, registry: Arc<Registry>) -> Self {
        Self { handle, registry }
    }

    /// Calls `opened`: a client is authenticated, and has received nothing since.
    ///
    /// # Errors
    /// When the plugin failed, or no instance became free in time.
    pub async fn opened(&self, session: &Session) -> Result<Vec<Action>, Failed> {
        opened(&self.handle, &self.registry, session).await.map_err(|_logged| Failed)
    }

    /// Calls `route`: an authenticated client has sent a packet. Waits for as long as all instances are busy; the
    /// connection is not read meanwhile.
    ///
    /// # Errors
    /// When the plugin failed.
    pub async fn route(&self, session: &Session, packet: &Message) -> Result<Vec<Action>, Failed> {
        route(&self.handle, &self.registry, session, packet).await.map_err(|_logged| Failed)
    }

    /// Calls `closed`: a session has ended.
    ///
    /// # Errors
    /// When the plugin failed, or no instance became free in time.
    pub async fn closed(&self, session: &Session, ending: Ending) -> Result<Vec<Command>, Failed> {
        closed(&self.handle, &self.registry, session, ending).await.map_err(|_logged| Failed)
    }

    /// Calls `push`: an internal sender has sent a line.
    ///
    /// # Errors
    /// When the plugin refused the line or failed, or no instance became free in time.
    pub async fn push(&self, sender: &Sender, line: &ByteString) -> Result<Answer, PushError> {
        match push(&self.handle, &self.registry, sender, line).await {
            Ok(answer) => answer.map_err(|_logged| PushError::Refused),
            Err(_logged) => Err(PushError::Failed),
        }
    }

    /// Calls `publish`: an internal system wants to send a message to these recipients by the HTTP API. Only for
    /// `api.rules = "router"`: otherwise the plugin need not have this function.
    ///
    /// # Errors
    /// When the plugin failed, or no instance became free in time.
    pub async fn publish(&self, publisher: &Publisher, to: &[Recipient], message: &Message) -> Result<Ruling, Failed> {
        publish(&self.handle, &self.registry, publisher, to, message).await.map_err(|_logged| Failed)
    }
}

pub(super) async fn opened(
    handle: &PluginHandle,
    registry: &Registry,
    session: &Session,
) -> Result<Vec<Action>, CallError> {
    let attributes = attributes(&session.attributes);
    let read = |actions, _: &_| Reader::new(handle.limits(), None).counting(registry).actions(actions);
    let actions = handle.opened(Caller::Client(session.client), borrow(session, &attributes), read).await?;
    log(session.connection, "opened", actions.iter().map(Action::name));
    Ok(actions)
}

pub(super) async fn route(
    handle: &PluginHandle,
    registry: &Registry,
    session: &Session,
    packet: &Message,
) -> Result<Vec<Action>, CallError> {
    let attributes = attributes(&session.attributes);
    let read = |actions, _: &_| Reader::new(handle.limits(), Some(packet)).counting(registry).actions(actions);
    let actions =
        handle.route(Caller::Client(session.client), borrow(session, &attributes), message(packet), read).await?;
    log(session.connection, "route", actions.iter().map(Action::name));
    Ok(actions)
}

pub(super) async fn closed(
    handle: &PluginHandle,
    registry: &Registry,
    session: &Session,
    ending: Ending,
) -> Result<Vec<Command>, CallError> {
    let attributes = attributes(&session.attributes);
    let groups: Vec<&str> = ending.groups.iter().map(|group| &**group).collect();
    let Ending { cause, code, remaining, .. } = ending;
    let ending = router::Ending { cause: cause.into(), code, groups: &groups, remaining };
    let read = |commands, _: &_| Reader::new(handle.limits(), None).counting(registry).commands(commands);
    let commands = handle.closed(Caller::Client(session.client), borrow(session, &attributes), ending, read).await?;
    log(session.connection, "closed", commands.iter().map(Command::name));
    Ok(commands)
}

pub(super) async fn push(
    handle: &PluginHandle,
    registry: &Registry,
    sender: &Sender,
    line: &ByteString,
) -> Result<Result<Answer, String>, CallError> {
    let Sender { connection, remote_address } = sender;
    let lowered = router::Sender { connection: connection.0, remote_address };
    let input = Message::Text(line.clone());
    let read = |outcome: Result<_, String>, by: &Arc<Generation>| match outcome {
        Ok(answer) => Reader::new(handle.limits(), Some(&input)).counting(registry).answer(answer).map(Ok),
        Err(text) => {
            by.say_of(*connection, remote_address, None, &text);
            Ok(Err(text))
        }
    };
    let answer = handle.push(Caller::Sender, lowered, line, read).await?;
    if let Ok(answer) = &answer {
        log(sender.connection, "push", answer.commands.iter().map(Command::name));
    }
    Ok(answer)
}

pub(super) async fn publish(
    handle: &PluginHandle,
    registry: &Registry,
    publisher: &Publisher,
    to: &[Recipient],
    published: &Message,
) -> Result<Ruling, CallError> {
    let Publisher { connection, token, remote_address } = publisher;
    let lowered = publications::Publisher { connection: connection.0, token, remote_address };
    let to: Vec<_> = to.iter().map(recipient).collect();
    let read = |ruling, by: &Arc<Generation>| {
        if let publications::Ruling::Refuse(text) = &ruling {
            by.say_of(*connection, remote_address, Some(token), text);
        }
        Reader::new(handle.limits(), Some(published)).counting(registry).ruling(ruling)
    };
    let ruling = handle.publish(Caller::Sender, lowered, &to, message(published), read).await?;
    match &ruling {
        Ruling::Pass => log(*connection, "publish", ["pass"].into_iter()),
        Ruling::Instead(commands) => log(*connection, "publish", commands.iter().map(Command::name)),
        Ruling::Refuse(_) => log(*connection, "publish", ["refuse"].into_iter()),
    }
    Ok(ruling)
}

/// Logs the names of the returned actions, for plugin authors. Packets are left out: they carry credentials.
fn log(ConnectionId(connection): ConnectionId, call: &'static str, actions: impl Iterator<Item = &'static str>) {
    trace!(target: "verdict", connection, "{call}: {}", actions.collect::<Vec<_>>().join(", "));
}

fn borrow<'a>(session: &'a Session, attributes: &'a [types::AttributeParam<'a>]) -> router::Session<'a> {
    router::Session { connection: session.connection.0, uid: &session.uid, attributes, state: &session.state }
}
