//! Who is this? The chain of authenticators, and one connection's progress through it.

use super::ask::{Handshake, Held, Identity, Verdict, authenticate, greet};
use super::shadow::Shadow;
use crate::base::message::{Cause, CloseReason, Message};
use crate::config::PluginLimits;
use crate::plugin::Seat;

/// Challenges that may follow packets of one connection.
const MAX_ROUNDS: u32 = 8;

/// The close code for a client that no authenticator accepts.
const NOT_ACCEPTED: u16 = 4902;

/// What the chain decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Register the client.
    Accept(Identity),
    /// Send this, if anything, and hand the next packet to [`Authenticator::authenticate`].
    Prompt(Option<Message>),
    /// Close with this reason: a plugin's, or 4902, which is no plugin's.
    Deny(Cause, CloseReason),
    /// A plugin failed; close with 1013. Logged already.
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
    /// What each plugin keeps, by its place in the chain.
    held: Vec<Option<Held>>,
    /// The place of the plugin that has challenged after a packet: the others are not asked any more.
    bound: Option<usize>,
    /// Challenges after packets so far.
    rounds: u32,
}

/// The chain. Each call is decided by the generation of a plugin that is newest when it begins, but for states that are held; dropping a call
/// ends it.
#[derive(Debug)]
pub struct Authenticator {
    chain: Vec<(Seat, Shadow)>,
}

impl Authenticator {
    pub(super) fn new(chain: Vec<(Seat, Shadow)>) -> Self {
        Self { chain }
    }

    /// A connection has opened: all are greeted in order until one accepts or denies. The first message of a challenge is
    /// the greeting.
    pub async fn greet(&self, handshake: &Handshake) -> (Login, Decision) {
        let mut login = Login { held: self.chain.iter().map(|_| None).collect(), ..Login::default() };
        let mut greeting = None;
        for ((seat, shadow), held) in self.chain.iter().zip(&mut login.held) {
            let outcome = greet(seat, None, handshake).await;
            if !matches!(outcome, Ok(Verdict::Pass | Verdict::Challenge(..))) {
                shadow.sample(seat, handshake, None, &outcome);
            }
            let decision = match outcome {
                Ok(Verdict::Pass) => continue,
                Ok(Verdict::Challenge(message, state)) => {
                    greeting = greeting.or(message);
                    *held = state;
                    continue;
                }
                Ok(Verdict::Accept(identity)) => Decision::accept(identity, seat.limits()),
                Ok(Verdict::Deny(reason)) => Decision::Deny(Cause::Plugin, reason),
                Err(_logged) => Decision::Failed,
            };
            return (login, decision);
        }
        (login, Decision::Prompt(greeting))
    }

    /// A connection that is not authenticated has sent a packet: it goes down the chain until one does not pass, or to the
    /// plugin that has challenged.
    pub async fn authenticate(&self, login: &mut Login, handshake: &Handshake, packet: &Message) -> Decision {
        let bound = login.bound;
        let first = login.rounds == 0;
        for (index, (seat, shadow)) in self.chain.iter().enumerate() {
            if bound.is_some_and(|bound| bound != index) {
                continue;
            }
            let held = login.held.get_mut(index).and_then(Option::take);
            let outcome = authenticate(seat, held, handshake, packet).await;
            if first {
                shadow.sample(seat, handshake, Some(packet), &outcome);
            }
            match outcome {
                Ok(Verdict::Pass) => {}
                Ok(Verdict::Challenge(message, state)) => {
                    if login.rounds == MAX_ROUNDS {
                        return Decision::deny("too many rounds of authentication");
                    }
                    login.rounds += 1;
                    login.bound = Some(index);
                    // What the others hold would keep their generations.
                    login.held.iter_mut().for_each(|held| *held = None);
                    if let Some(held) = login.held.get_mut(index) {
                        *held = state;
                    }
                    return Decision::Prompt(message);
                }
                Ok(Verdict::Accept(identity)) => return Decision::accept(identity, seat.limits()),
                Ok(Verdict::Deny(reason)) => return Decision::Deny(Cause::Plugin, reason),
                Err(_logged) => return Decision::Failed,
            }
        }
        Decision::deny("no authenticator accepted")
    }

    /// A router hands over a packet to renew a session: it goes down the whole chain, as a first packet does that no
    /// greeting preceded. A challenge is a denial.
    pub async fn renew(&self, handshake: &Handshake, packet: &Message) -> Decision {
        for (seat, _) in &self.chain {
            match authenticate(seat, None, handshake, packet).await {
                Ok(Verdict::Pass) => {}
                Ok(Verdict::Challenge(..)) => return Decision::deny("a session is renewed by one packet"),
                Ok(Verdict::Accept(identity)) => return Decision::accept(identity, seat.limits()),
                Ok(Verdict::Deny(reason)) => return Decision::Deny(Cause::Plugin, reason),
                Err(_logged) => return Decision::Failed,
            }
        }
        Decision::deny("no authenticator accepted")
    }
}
