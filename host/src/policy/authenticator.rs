//! Calls the chain of authenticator plugins (who is this?), and keeps one connection's progress through it.

use super::ask::{CheckedVerdict, Decider, Handshake, Held, Identity, authenticate, greet};
use super::shadow::Shadow;
use crate::base::message::{Cause, CloseReason, Message};
use crate::config::PluginLimits;
use crate::plugin::{CallError, PluginHandle};

/// How many challenges `authenticate` may return for one connection.
const MAX_ROUNDS: u32 = 8;

/// The close code for a client that no authenticator accepts.
const NOT_ACCEPTED: u16 = 4902;

/// The decision of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Register the client.
    Accept(Identity),
    /// Send this message, if there is one, and hand the next packet to [`Authenticator::authenticate`].
    Prompt(Option<Message>),
    /// Close with this reason: a plugin's own, or 4902, which the gateway itself uses.
    Deny(Cause, CloseReason),
    /// A plugin failed: close with 1013. The failure is logged already.
    Failed,
}

impl Decision {
    fn deny(reason: &'static str) -> Self {
        Self::Deny(Cause::Unauthenticated, CloseReason::new(NOT_ACCEPTED, reason))
    }

    fn accept(identity: Identity, limits: &PluginLimits) -> Self {
        let (bytes, most) = (identity.uid.len(), limits.max_name);
        if bytes == 0 || bytes > most {
            let reason = format!("the uid has {bytes} bytes, allowed are 1 to {most}").into();
            return Self::Deny(Cause::Unauthenticated, CloseReason { code: NOT_ACCEPTED, reason });
        }
        Self::Accept(identity)
    }
}

/// One connection's progress through the chain.
#[derive(Debug, Default)]
pub struct Login {
    /// The state of each plugin's last prompt, by the plugin's position in the chain.
    held: Vec<Option<Held>>,
    /// The position of the plugin whose `authenticate` returned a challenge. From then on no other plugin is asked.
    bound: Option<usize>,
    /// How many challenges `authenticate` has returned so far.
    rounds: u32,
    /// The plugin that has accepted or denied the client.
    decider: Option<Decider>,
}

impl Login {
    /// Returns the plugin that has accepted or denied the client. `None` if none has, or if it failed.
    pub fn take_decider(&mut self) -> Option<Decider> {
        self.decider.take()
    }
}

/// The chain of authenticators. Each call runs in the generation that serves its connection when the call begins; a
/// state that is held goes back to the generation that returned it. Dropping the future of a call ends the call.
#[derive(Debug)]
pub struct Authenticator {
    chain: Vec<(PluginHandle, Shadow)>,
}

impl Authenticator {
    pub(super) fn new(chain: Vec<(PluginHandle, Shadow)>) -> Self {
        Self { chain }
    }

    /// A connection has opened: calls `greet` of each plugin in order, until one accepts or denies. Of all challenges,
    /// the first message is the greeting that is sent.
    pub async fn greet(&self, handshake: &Handshake) -> (Login, Decision) {
        let mut login = Login { held: self.chain.iter().map(|_| None).collect(), ..Login::default() };
        let mut greeting = None;
        for ((handle, shadow), held) in self.chain.iter().zip(&mut login.held) {
            let outcome = greet(handle, None, handshake).await;
            trace(handle, "greet", handshake, &outcome);
            if !matches!(outcome, Ok(CheckedVerdict::Pass | CheckedVerdict::Challenge(..))) {
                shadow.sample(handle, handshake, None, &outcome);
            }
            let decision = match outcome {
                Ok(CheckedVerdict::Pass) => continue,
                Ok(CheckedVerdict::Challenge(message, state)) => {
                    greeting = greeting.or(message);
                    *held = state;
                    continue;
                }
                Ok(CheckedVerdict::Accept(identity, by)) => {
                    login.decider = Some(by);
                    Decision::accept(identity, handle.limits())
                }
                Ok(CheckedVerdict::Deny(reason, by)) => {
                    login.decider = Some(by);
                    Decision::Deny(Cause::Plugin, reason)
                }
                Err(_logged) => Decision::Failed,
            };
            return (login, decision);
        }
        (login, Decision::Prompt(greeting))
    }

    /// A connection that is not authenticated has sent a packet: calls `authenticate` of each plugin in order until one
    /// does not pass, or only of the plugin that the connection is bound to.
    pub async fn authenticate(&self, login: &mut Login, handshake: &Handshake, packet: &Message) -> Decision {
        let bound = login.bound;
        let first = login.rounds == 0;
        for (index, (handle, shadow)) in self.chain.iter().enumerate() {
            if bound.is_some_and(|bound| bound != index) {
                continue;
            }
            let held = login.held.get_mut(index).and_then(Option::take);
            let outcome = authenticate(handle, held, handshake, packet).await;
            trace(handle, "authenticate", handshake, &outcome);
            if first {
                shadow.sample(handle, handshake, Some(packet), &outcome);
            }
            match outcome {
                Ok(CheckedVerdict::Pass) => {}
                Ok(CheckedVerdict::Challenge(message, state)) => {
                    if login.rounds == MAX_ROUNDS {
                        return Decision::deny("too many rounds of authentication");
                    }
                    login.rounds += 1;
                    login.bound = Some(index);
                    // Drop the states of the other plugins: each would keep its generation alive.
                    login.held.iter_mut().for_each(|held| *held = None);
                    if let Some(held) = login.held.get_mut(index) {
                        *held = state;
                    }
                    return Decision::Prompt(message);
                }
                Ok(CheckedVerdict::Accept(identity, by)) => {
                    login.decider = Some(by);
                    return Decision::accept(identity, handle.limits());
                }
                Ok(CheckedVerdict::Deny(reason, by)) => {
                    login.decider = Some(by);
                    return Decision::Deny(Cause::Plugin, reason);
                }
                Err(_logged) => return Decision::Failed,
            }
        }
        Decision::deny("no authenticator accepted")
    }

    /// The router has handed over a packet to renew a session. The packet goes down the whole chain, like a first
    /// packet without a greeting before it. A challenge counts as a denial.
    pub async fn renew(&self, handshake: &Handshake, packet: &Message) -> Decision {
        for (handle, _) in &self.chain {
            let outcome = authenticate(handle, None, handshake, packet).await;
            trace(handle, "authenticate", handshake, &outcome);
            match outcome {
                Ok(CheckedVerdict::Pass) => {}
                Ok(CheckedVerdict::Challenge(..)) => {
                    return Decision::deny("a session is renewed with one packet, without a challenge");
                }
                Ok(CheckedVerdict::Accept(identity, _)) => return Decision::accept(identity, handle.limits()),
                Ok(CheckedVerdict::Deny(reason, _)) => return Decision::Deny(Cause::Plugin, reason),
                Err(_logged) => return Decision::Failed,
            }
        }
        Decision::deny("no authenticator accepted")
    }
}

fn trace(
    handle: &PluginHandle,
    function: &'static str,
    handshake: &Handshake,
    outcome: &Result<CheckedVerdict, CallError>,
) {
    if let Ok(verdict) = outcome {
        verdict.trace(handle, function, handshake.connection);
    }
}
