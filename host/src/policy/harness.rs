//! Calls one plugin by itself, for the devkit. Every result is returned whole, and none is carried out.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use super::ask::{self, Handshake, Held, Identity};
use super::router;
use crate::base::message::{CloseReason, Message};
use crate::config::{Isolation, PluginConfig};
use crate::hub::command::{Action, Answer, Command, Ending, Publisher, Recipient, Ruling, Sender, Session};
use crate::hub::registry::Registry;
use crate::plugin::{CallError, Ledgers, PluginHandle, Roles, Runtime, Slot};

/// The verdict of an authenticator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The client has this identity.
    Accept(Identity),
    /// Send the message, if there is one, and call `authenticate` with the next packet and this state.
    Challenge {
        /// The message to the client.
        message: Option<Message>,
        /// Kept until the next packet.
        state: Bytes,
    },
    /// The next authenticator is asked.
    Pass,
    /// Close with this reason.
    Deny(CloseReason),
}

/// One loaded plugin. A call of a role that the plugin was not loaded for fails, as if the plugin lacked the function.
pub struct Harness {
    slot: Arc<Slot>,
    authenticator: PluginHandle,
    router: PluginHandle,
    /// Counts the recipients of a call.
    registry: Arc<Registry>,
    /// The state of the last challenge.
    held: Option<Held>,
}

impl Harness {
    /// Loads a plugin for these roles.
    ///
    /// # Errors
    /// Why the gateway would refuse it.
    pub async fn load(plugin: &PluginConfig, roles: Roles, runtime: Arc<Runtime>) -> anyhow::Result<Self> {
        let registry = runtime.registry().clone();
        let name = roles.to_string();
        let ledgers = Ledgers::open(&runtime, [(name.as_str(), plugin)]).await?;
        let slot = Slot::load(name, plugin, roles, runtime, &ledgers).await?;
        let handle = |isolation| PluginHandle::new(slot.clone(), isolation);
        // The defaults of a gateway.
        let (authenticator, router) = (handle(Isolation::PerCall), handle(Isolation::Pooled));
        Ok(Self { slot, authenticator, router, registry, held: None })
    }

    /// Returns the same plugin with this isolation in both roles.
    pub fn isolated(&self, isolation: Isolation) -> Self {
        let handle = || PluginHandle::new(self.slot.clone(), isolation);
        let (slot, registry) = (self.slot.clone(), self.registry.clone());
        Self { slot, authenticator: handle(), router: handle(), registry, held: None }
    }

    /// Returns the slot of the plugin.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Calls `greet`: a connection has opened.
    ///
    /// # Errors
    /// When the plugin failed.
    pub async fn greet(&mut self, handshake: &Handshake) -> Result<Verdict, CallError> {
        let verdict = ask::greet(&self.authenticator, None, handshake).await?;
        Ok(self.keep_state(verdict))
    }

    /// Calls `authenticate`: a connection that is not authenticated has sent a packet.
    ///
    /// # Errors
    /// When the plugin failed.
    pub async fn authenticate(&mut self, handshake: &Handshake, packet: &Message) -> Result<Verdict, CallError> {
        let held = self.held.take();
        let verdict = ask::authenticate(&self.authenticator, held, handshake, packet).await?;
        Ok(self.keep_state(verdict))
    }

    /// Calls `opened`: a client is authenticated.
    ///
    /// # Errors
    /// When the plugin failed.
    pub async fn opened(&self, session: &Session) -> Result<Vec<Action>, CallError> {
        router::opened(&self.router, &self.registry, session).await
    }

    /// Calls `route`: an authenticated client has sent a packet.
    ///
    /// # Errors
    /// When the plugin failed.
    pub async fn route(&self, session: &Session, packet: &Message) -> Result<Vec<Action>, CallError> {
        router::route(&self.router, &self.registry, session, packet).await
    }

    /// Calls `closed`: a session has ended.
    ///
    /// # Errors
    /// When the plugin failed.
    pub async fn closed(&self, session: &Session, ending: Ending) -> Result<Vec<Command>, CallError> {
        router::closed(&self.router, &self.registry, session, ending).await
    }

    /// Calls `push`: an internal sender has sent a line. The inner error is the plugin's refusal of the line.
    ///
    /// # Errors
    /// When the plugin failed.
    pub async fn push(&self, sender: &Sender, line: &ByteString) -> Result<Result<Answer, String>, CallError> {
        router::push(&self.router, &self.registry, sender, line).await
    }

    /// Calls `publish`: an internal system wants to send a message to these recipients.
    ///
    /// # Errors
    /// When the plugin failed.
    pub async fn publish(
        &self,
        publisher: &Publisher,
        to: &[Recipient],
        message: &Message,
    ) -> Result<Ruling, CallError> {
        router::publish(&self.router, &self.registry, publisher, to, message).await
    }

    /// Keeps the state of a challenge for the next packet.
    fn keep_state(&mut self, verdict: ask::CheckedVerdict) -> Verdict {
        match verdict {
            ask::CheckedVerdict::Accept(identity, _) => Verdict::Accept(identity),
            ask::CheckedVerdict::Pass => Verdict::Pass,
            ask::CheckedVerdict::Deny(reason, _) => Verdict::Deny(reason),
            ask::CheckedVerdict::Challenge(message, held) => {
                self.held = held;
                let state = self.held.as_ref().map(|held| held.state.clone()).unwrap_or_default();
                Verdict::Challenge { message, state }
            }
        }
    }
}
