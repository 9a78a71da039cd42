//! The shadow stage: after the live generation has judged a first packet, a new generation judges it, too. Both
//! verdicts are compared and counted; the verdict of the new generation has no effect. The packets go nowhere else.

use std::sync::Arc;

use bytestring::ByteString;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::ask::{CheckedVerdict, Handshake, Held, authenticate, greet};
use crate::base::message::Message;
use crate::plugin::{CallError, Generation, PluginHandle};

/// How many first packets may wait for the new generation. More are skipped.
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
            Ok(CheckedVerdict::Accept(identity)) => Self::Accept(identity.uid.clone()),
            Ok(CheckedVerdict::Challenge(..)) => Self::Challenge,
            Ok(CheckedVerdict::Pass) => Self::Pass,
            Ok(CheckedVerdict::Deny(_)) => Self::Deny,
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
    /// `None` if `greet` decided.
    packet: Option<Message>,
    /// The live generation's verdict.
    live: VerdictKind,
}

/// Queues the clients of one plugin for its new generation.
#[derive(Debug)]
pub(super) struct Shadow(mpsc::Sender<Sampled>);

impl Shadow {
    /// Starts the task that asks the new generation about queued clients. It runs for as long as `tasks` lives.
    pub(super) fn start(handle: PluginHandle, tasks: &mut JoinSet<()>) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        tasks.spawn(compare(handle, receiver));
        Self(sender)
    }

    /// Queues a client that the live generation has judged. Never waits: a client that finds the queue full is skipped.
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

/// Asks the new generation about one queued client after the other, and only while the slot has room: the live
/// generation's calls come first.
async fn compare(handle: PluginHandle, mut sampled: mpsc::Receiver<Sampled>) {
    while let Some(Sampled { handshake, packet, live }) = sampled.recv().await {
        let Some(candidate) = handle.slot().shadow(handshake.connection) else { continue };
        if !handle.slot().has_room() {
            candidate.skipped();
            continue;
        }
        match VerdictKind::of(&ask(&handle, &candidate, &handshake, packet.as_ref()).await) {
            Some(new) => candidate.compared(live.name(), new.name(), live == new),
            None => candidate.skipped(),
        }
    }
}

/// Repeats on the candidate the calls that the live generation got. Returns the candidate's verdict.
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
        Ok(CheckedVerdict::Accept(_) | CheckedVerdict::Deny(_)) | Err(_) => return greeted,
    };
    let Some(packet) = packet else { return greeted };
    authenticate(handle, Some(Held { state, generation: candidate.clone() }), handshake, packet).await
}
