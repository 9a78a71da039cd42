//! The calls that a generation serves: the functions of the contract.

use std::pin::pin;

use super::bindings::authenticator::{Handshake, Verdict};
use super::bindings::router::{Action, Answer, Command, Ending, Sender, Session};
use super::bindings::types::Message;
use super::error::CallError;
use super::generation::{Generation, Terms};
use super::instance::within;

/// Each function takes its arguments, and last how its result is read: what that refuses is a failure of the plugin
/// like a trap.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $result:ty = $role:ident.$function:ident;)*) => {
        impl Generation {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// Every failure of the plugin. It is counted and logged already.
                pub async fn $name<T>(
                    &self,
                    terms: Terms,
                    $($argument: $type,)*
                    read: impl FnOnce($result) -> Result<T, CallError>,
                ) -> Result<T, CallError> {
                    let outcome = async {
                        let mut call = self.begin(terms).await?;
                        let (turns, deadline) = (call.turns(), call.deadline());
                        let outcome = {
                            let running = pin!(async {
                                let exports = call.instance.$role(self)?;
                                exports.$function(&mut call.instance.store, $($argument),*).await
                            });
                            within(&turns, deadline, running).await
                        };
                        call.end(outcome, read)
                    };
                    self.settle(stringify!($name), outcome.await)
                }
            )*
        }
    };
}

calls! {
    /// A connection has opened.
    greet(handshake: Handshake<'_>) -> Verdict = authenticator.call_greet;
    /// A connection that is not authenticated has sent a packet.
    authenticate(handshake: Handshake<'_>, packet: Message<'_>, state: &[u8]) -> Verdict = authenticator.call_authenticate;
    /// A client is authenticated.
    opened(session: Session<'_>) -> Vec<Action> = router.call_opened;
    /// An authenticated client has sent a packet.
    route(session: Session<'_>, packet: Message<'_>) -> Vec<Action> = router.call_route;
    /// A session has ended.
    closed(session: Session<'_>, ending: Ending<'_>) -> Vec<Command> = router.call_closed;
    /// An internal sender has sent a line.
    push(sender: Sender<'_>, line: &str) -> Result<Answer, String> = router.call_push;
}
