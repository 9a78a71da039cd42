//! The shadow stage: after the live generation has judged a client, the candidate judges the same client, too. Most
//! clients are judged by their first packet. If the greeting call decides, the client is judged by that alone. Both
//! verdicts are compared and counted; the candidate's verdict has no effect. The packets are neither stored nor logged.

use std::sync::Arc;

use bytestring::ByteString;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::ask::{CheckedVerdict, Handshake, Held, authenticate, greet};
use crate::base::message::Message;
use crate::plugin::{CallError, Generation, PluginHandle};

/// How many clients may wait for the candidate, each with its first packet if it sent one. More are skipped.
const MAX_WAITING: usize = 64;

/// The kind of a verdict, with the uid of an accepted client.
#[derive(Debug, PartialEq, Eq)]
enum VerdictKind {
    Accept(ByteString),
    Challenge,
    Pass,
    Deny,
    Failed,
}

impl VerdictKind {
    /// Returns the kind of a verdict, or `None` for a call that was refused for lack of capacity: such a call says
    /// nothing about the plugin.
    fn of(outcome: &Result<CheckedVerdict, CallError>) -> Option<Self> {
        Some(match outcome {
            Ok(CheckedVerdict::Accept(identity, _)) => Self::Accept(identity.uid.clone()),
            Ok(CheckedVerdict::Challenge(..)) => Self::Challenge,
            Ok(CheckedVerdict::Pass) => Self::Pass,
            Ok(CheckedVerdict::Deny(..)) => Self::Deny,
            Err(error) if error.is_overload() => return None,
            Err(_) => Self::Failed,
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Accept(_) => "accept",
            Self::Challenge => "challenge",
            Self::Pass => "pass",
            Self::Deny => "deny",
            Self::Failed => "failed",
        }
    }
}

/// A client that the live generation has judged.
#[derive(Debug)]
struct Sampled {
    handshake: Handshake,
    /// The first packet; `None` if `greet` decided.
    packet: Option<Message>,
    /// The live generation's verdict.
    live: VerdictKind,
}

/// Queues the clients of one plugin for its candidate.
#[derive(Debug)]
pub(super) struct Shadow(mpsc::Sender<Sampled>);

impl Shadow {
    /// Starts the task that asks the candidate about queued clients. It ends when `tasks` is dropped.
    pub(super) fn start(handle: PluginHandle, tasks: &mut JoinSet<()>) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        tasks.spawn(compare(handle, receiver));
        Self(sender)
    }

    /// Queues a client that the live generation has judged. Never waits: if the queue is full, the client is skipped.
    pub(super) fn sample(
        &self,
        handle: &PluginHandle,
        handshake: &Handshake,
        packet: Option<&Message>,
        outcome: &Result<CheckedVerdict, CallError>,
    ) {
        let Some(candidate) = handle.slot().shadow(handshake.connection) else { return };
        let Some(live) = VerdictKind::of(outcome) else { return };
        let sampled = Sampled { handshake: handshake.clone(), packet: packet.cloned(), live };
        if self.0.try_send(sampled).is_err() {
            candidate.skipped();
        }
    }
}

/// Asks the candidate about the queued clients, one client at a time. If the slot is busy, the client is skipped, so
/// that live calls come first.
async fn compare(handle: PluginHandle, mut sampled: mpsc::Receiver<Sampled>) {
    while let Some(Sampled { handshake, packet, live }) = sampled.recv().await {
        let Some(candidate) = handle.slot().shadow(handshake.connection) else { continue };
        if !handle.slot().authenticator_has_room() {
            candidate.skipped();
            continue;
        }
        match VerdictKind::of(&ask(&handle, &candidate, &handshake, packet.as_ref()).await) {
            Some(own) => candidate.compared(live.name(), own.name(), live == own),
            None => candidate.skipped(),
        }
    }
}

/// Calls `greet` on the candidate. If `greet` passes or challenges and there is a packet, calls `authenticate`, too.
/// Returns the candidate's verdict.
async fn ask(
    handle: &PluginHandle,
    candidate: &Arc<Generation>,
    handshake: &Handshake,
    packet: Option<&Message>,
) -> Result<CheckedVerdict, CallError> {
    let greeted = greet(handle, Some(candidate.clone()), handshake).await;
    let state = match &greeted {
        Ok(CheckedVerdict::Pass) => Default::default(),
        Ok(CheckedVerdict::Challenge(_, held)) => held.as_ref().map(|held| held.state.clone()).unwrap_or_default(),
        Ok(CheckedVerdict::Accept(..) | CheckedVerdict::Deny(..)) | Err(_) => return greeted,
    };
    let Some(packet) = packet else { return greeted };
    authenticate(handle, Some(Held { state, generation: candidate.clone() }), handshake, packet).await
}
