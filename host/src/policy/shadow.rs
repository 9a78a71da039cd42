//! A new generation judges first packets in the shadow of the live one: what it says is compared and counted, and has no
//! effect. Packets go nowhere else.

use std::sync::Arc;

use bytestring::ByteString;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::ask::{Handshake, Held, Verdict, authenticate, greet};
use crate::base::message::Message;
use crate::plugin::{CallError, Generation, Seat};

/// First packets that wait to be judged; more are skipped.
const MAX_WAITING: usize = 64;

/// What one plugin said about a client.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Accept(ByteString),
    Challenge,
    Pass,
    Deny,
    Failed,
}

impl Said {
    /// `None` for a call that was shed: that says nothing of the plugin.
    fn of(outcome: &Result<Verdict, CallError>) -> Option<Self> {
        Some(match outcome {
            Ok(Verdict::Accept(identity)) => Self::Accept(identity.uid.clone()),
            Ok(Verdict::Challenge(..)) => Self::Challenge,
            Ok(Verdict::Pass) => Self::Pass,
            Ok(Verdict::Deny(_)) => Self::Deny,
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

/// A client whom the live generation has judged.
#[derive(Debug)]
struct Sampled {
    handshake: Handshake,
    /// `None` if it was judged when it connected.
    packet: Option<Message>,
    said: Said,
}

/// Where the clients of one plugin are handed over.
#[derive(Debug)]
pub(super) struct Shadow(mpsc::Sender<Sampled>);

impl Shadow {
    /// Starts to judge what will be handed over, for as long as `tasks` lives.
    pub(super) fn start(seat: Seat, tasks: &mut JoinSet<()>) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        tasks.spawn(judge(seat, receiver));
        Self(sender)
    }

    /// The live generation has judged a client. Never waits.
    pub(super) fn sample(
        &self,
        seat: &Seat,
        handshake: &Handshake,
        packet: Option<&Message>,
        outcome: &Result<Verdict, CallError>,
    ) {
        let Some(candidate) = seat.slot().shadow(handshake.connection) else { return };
        let Some(said) = Said::of(outcome) else { return };
        let sampled = Sampled { handshake: handshake.clone(), packet: packet.cloned(), said };
        if self.0.try_send(sampled).is_err() {
            candidate.skipped();
        }
    }
}

/// One after the other, and only while there is room: the live generation's calls come first.
async fn judge(seat: Seat, mut sampled: mpsc::Receiver<Sampled>) {
    while let Some(Sampled { handshake, packet, said }) = sampled.recv().await {
        let Some(candidate) = seat.slot().shadow(handshake.connection) else { continue };
        if !seat.slot().has_room() {
            candidate.skipped();
            continue;
        }
        match Said::of(&ask(&seat, &candidate, &handshake, packet.as_ref()).await) {
            Some(own) => candidate.compared(said.name(), own.name(), said == own),
            None => candidate.skipped(),
        }
    }
}

/// What the candidate says when it is asked all that the live one was.
async fn ask(
    seat: &Seat,
    candidate: &Arc<Generation>,
    handshake: &Handshake,
    packet: Option<&Message>,
) -> Result<Verdict, CallError> {
    let greeted = greet(seat, Some(candidate.clone()), handshake).await;
    let state = match &greeted {
        Ok(Verdict::Pass) => Default::default(),
        Ok(Verdict::Challenge(_, held)) => held.as_ref().map(|held| held.state.clone()).unwrap_or_default(),
        Ok(Verdict::Accept(_) | Verdict::Deny(_)) | Err(_) => return greeted,
    };
    let Some(packet) = packet else { return greeted };
    authenticate(seat, Some(Held { state, generation: candidate.clone() }), handshake, packet).await
}
