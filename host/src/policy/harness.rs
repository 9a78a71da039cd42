//! One plugin on its own, as its author tries it: nothing comes of what it says, but the whole of it is seen.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use super::ask::{self, Handshake, Held, Identity};
use super::router;
use crate::base::message::{CloseReason, Message};
use crate::config::{Isolation, PluginConfig};
use crate::hub::command::{Action, Answer, Command, Ending, Sender, Session};
use crate::hub::registry::Registry;
use crate::plugin::{CallError, Ledgers, Roles, Runtime, Seat, Slot};

/// What an authenticator says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This is who it is.
    Accept(Identity),
    /// Send this, if anything, and come back with the next packet and this state.
    Challenge {
        /// What is sent.
        message: Option<Message>,
        /// What is kept until then.
        state: Bytes,
    },
    /// Somebody else's to judge.
    Pass,
    /// Close with this reason.
    Deny(CloseReason),
}

/// A plugin that is tried. Calls of another role than its own fail like a plugin that lacks the function.
pub struct Harness {
    slot: Arc<Slot>,
    authenticator: Seat,
    router: Seat,
    /// Where the recipients of a call are counted.
    registry: Arc<Registry>,
    /// What the last challenge left.
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
        let seat = |isolation| Seat::new(slot.clone(), isolation);
        // As they are by default in a gateway.
        let (authenticator, router) = (seat(Isolation::PerCall), seat(Isolation::Pooled));
        Ok(Self { slot, authenticator, router, registry, held: None })
    }

    /// The same plugin with fresh instances for each call, or with shared ones, whatever the role.
    pub fn isolated(&self, isolation: Isolation) -> Self {
        let seat = || Seat::new(self.slot.clone(), isolation);
        let (slot, registry) = (self.slot.clone(), self.registry.clone());
        Self { slot, authenticator: seat(), router: seat(), registry, held: None }
    }

    /// Its place.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// A connection has opened.
    ///
    /// # Errors
    /// When the plugin failed.
    pub async fn greet(&mut self, handshake: &Handshake) -> Result<Verdict, CallError> {
        let said = ask::greet(&self.authenticator, None, handshake).await?;
        Ok(self.keep(said))
    }

    /// A connection that is not authenticated has sent a packet.
    ///
    /// # Errors
    /// When the plugin failed.
    pub async fn authenticate(&mut self, handshake: &Handshake, packet: &Message) -> Result<Verdict, CallError> {
        let held = self.held.take();
        let said = ask::authenticate(&self.authenticator, held, handshake, packet).await?;
        Ok(self.keep(said))
    }

    /// A client is authenticated.
    ///
    /// # Errors
    /// When the plugin failed.
    pub async fn opened(&self, session: &Session) -> Result<Vec<Action>, CallError> {
        router::opened(&self.router, &self.registry, session).await
    }

    /// An authenticated client has sent a packet.
    ///
    /// # Errors
    /// When the plugin failed.
    pub async fn route(&self, session: &Session, packet: &Message) -> Result<Vec<Action>, CallError> {
        router::route(&self.router, &self.registry, session, packet).await
    }

    /// A session has ended.
    ///
    /// # Errors
    /// When the plugin failed.
    pub async fn closed(&self, session: &Session, ending: Ending) -> Result<Vec<Command>, CallError> {
        router::closed(&self.router, &self.registry, session, ending).await
    }

    /// An internal sender has sent a line. The inner error is the plugin's own refusal.
    ///
    /// # Errors
    /// When the plugin failed.
    pub async fn push(&self, sender: &Sender, line: &ByteString) -> Result<Result<Answer, String>, CallError> {
        router::push(&self.router, &self.registry, sender, line).await
    }

    fn keep(&mut self, said: ask::Verdict) -> Verdict {
        match said {
            ask::Verdict::Accept(identity) => Verdict::Accept(identity),
            ask::Verdict::Pass => Verdict::Pass,
            ask::Verdict::Deny(reason) => Verdict::Deny(reason),
            ask::Verdict::Challenge(message, held) => {
                self.held = held;
                let state = self.held.as_ref().map(|held| held.state.clone()).unwrap_or_default();
                Verdict::Challenge { message, state }
            }
        }
    }
}
