//! The functions of the contract, as calls of the generation that serves in a slot.

use std::pin::pin;
use std::sync::Arc;

use crate::base::message::ConnectionId;
use crate::config::{Isolation, PluginLimits};
use crate::plugin::contract::Function;
use crate::plugin::contract::authenticator::{Handshake, Verdict};
use crate::plugin::contract::publications::{Publisher, Ruling};
use crate::plugin::contract::router::{Action, Answer, Command, Ending, RecipientParam, Sender, Session};
use crate::plugin::contract::types::Message;
use crate::plugin::runtime::error::CallError;
use crate::plugin::runtime::instance::within;
use crate::plugin::slot::Slot;
use crate::plugin::slot::blame::Caller;
use crate::plugin::slot::call::{Call, Wait};
use crate::plugin::slot::generation::Generation;

/// One role of the plugin in a slot.
#[derive(Debug, Clone)]
pub struct PluginHandle {
    slot: Arc<Slot>,
    /// Whether the calls of this role share instances.
    isolation: Isolation,
}

impl PluginHandle {
    /// Creates a handle for one role of the plugin in this slot.
    pub fn new(slot: Arc<Slot>, isolation: Isolation) -> Self {
        Self { slot, isolation }
    }

    /// Returns the slot of the plugin.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Returns the limits of the plugin's calls.
    pub fn limits(&self) -> &PluginLimits {
        &self.slot.spec().limits
    }
}

/// Defines a method for each function of the contract. A method takes the caller, the arguments, and last a closure
/// that reads the result. A result that the closure refuses is a failure of the plugin, like a trap. A method with
/// `[held]` calls the held generation, if there is one, instead of the generation that serves the connection.
macro_rules! calls {
    ($(
        $(#[$doc:meta])*
        $name:ident$([$held:ident])?($about:ident: $record:ty $(, $argument:ident: $type:ty)*) -> $result:ty
            = $role:ident.$function:ident, $kind:ident, $wait:ident;
    )*) => {
        impl PluginHandle {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// Every failure of the plugin. It is logged already.
                pub async fn $name<T>(
                    &self,
                    $($held: Option<Arc<Generation>>,)?
                    caller: Caller,
                    $about: $record,
                    $($argument: $type,)*
                    read: impl FnOnce($result, &Arc<Generation>) -> Result<T, CallError>,
                ) -> Result<T, CallError> {
                    let held = None::<Arc<Generation>>$(.or($held))?;
                    // Boxed: otherwise every connection would hold this future, even while it makes no call.
                    Box::pin(async move {
                        let connection = ConnectionId($about.connection);
                        let begun = self.slot.begin(Function::$kind, self.isolation, Wait::$wait, connection, held).await;
                        let mut call = begun.inspect_err(|error| self.slot.failed(None, Function::$kind, connection, error))?;
                        let (turns, deadline) = call.instance.bounds();
                        let outcome = {
                            let Call { instance, generation, .. } = &mut call;
                            let running = pin!(async {
                                let exports = instance.$role(generation.prepared()).await?;
                                exports.$function(&mut instance.store, $about $(, $argument)*).await
                            });
                            within(&turns, deadline, running).await
                        };
                        if outcome.is_none() {
                            turns.teardown_turn().await;
                        }
                        let (outcome, by) = call.end(Function::$kind, caller, outcome, read);
                        outcome.inspect_err(|error| self.slot.failed(Some(&by), Function::$kind, connection, error))
                    })
                    .await
                }
            )*
        }
    };
}

calls! {
    /// Calls `greet`: a connection has opened.
    greet[held](handshake: Handshake<'_>) -> Verdict = authenticator.call_greet, Greet, Bounded;
    /// Calls `authenticate`: a connection that is not authenticated has sent a packet.
    authenticate[held](handshake: Handshake<'_>, packet: Message<'_>, state: &[u8]) -> Verdict
        = authenticator.call_authenticate, Authenticate, Bounded;
    /// Calls `opened`: a client is authenticated.
    opened(session: Session<'_>) -> Vec<Action> = router.call_opened, Opened, Bounded;
    /// Calls `route`: an authenticated client has sent a packet. Waits for as long as all instances are busy.
    route(session: Session<'_>, packet: Message<'_>) -> Vec<Action> = router.call_route, Route, Unbounded;
    /// Calls `closed`: a session has ended.
    closed(session: Session<'_>, ending: Ending<'_>) -> Vec<Command> = router.call_closed, Closed, Bounded;
    /// Calls `push`: an internal sender has sent a line.
    push(sender: Sender<'_>, line: &str) -> Result<Answer, String> = router.call_push, Push, Bounded;
    /// Calls `publish`: an internal system wants to publish a message.
    publish(publisher: Publisher<'_>, to: &[RecipientParam<'_>], message: Message<'_>) -> Ruling
        = publications.call_publish, Publish, Bounded;
}
