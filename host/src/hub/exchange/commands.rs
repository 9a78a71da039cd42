//! Commands of other gateways. Each gateway has a task of its own, so that its commands are carried out in their order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;
use tracing::error;

use crate::base::message::{Cause, ConnectionId};
use crate::hub::cluster::handle::Cluster;
use crate::hub::cluster::id::Incarnation;
use crate::hub::cluster::machine_clock::Deadline;
use crate::hub::cluster::page::PageWriter;
use crate::hub::cluster::parcel::{Parcel, decode, encode_outcome, is_question};
use crate::hub::cluster::{Apply, Target};
use crate::hub::command::{Elsewhere, Outcome};
use crate::hub::delivery::elsewhere::apply_for_others;
use crate::hub::everywhere::{kick_here, lift_here};
use crate::hub::registry::{REPLACED, Registry};

/// The most commands of one gateway that wait. It has its own bound, in bytes, on those that are not answered.
const WAITING: usize = 16 << 10;
/// The most commands that are answered together.
const TOGETHER: usize = 64;

/// The tasks that carry out the commands of other gateways.
pub(super) struct Commands {
    registry: Arc<Registry>,
    cluster: Arc<Cluster>,
    of: HashMap<Incarnation, mpsc::Sender<Apply>>,
    tasks: JoinSet<()>,
}

impl Commands {
    pub(super) fn new(registry: Arc<Registry>, cluster: Arc<Cluster>) -> Self {
        Self { registry, cluster, of: HashMap::new(), tasks: JoinSet::new() }
    }

    /// Passes a command to the task of its gateway.
    pub(super) fn pass(&mut self, apply: Apply) {
        let tasks = &mut self.tasks;
        let sender = self.of.entry(apply.from).or_insert_with(|| {
            let (sender, commands) = mpsc::channel(WAITING);
            tasks.spawn(carry_out(self.registry.clone(), self.cluster.clone(), commands));
            sender
        });
        let (apply, why) = match sender.try_send(apply) {
            Ok(()) => return,
            Err(TrySendError::Full(apply)) => (apply, Elsewhere::Overload),
            Err(TrySendError::Closed(apply)) => {
                error!("the task for the commands of another gateway has failed; the next command begins a new one");
                self.of.remove(&apply.from);
                (apply, Elsewhere::Unknown)
            }
        };
        let outcome = encode_outcome(&Outcome::failed(why));
        self.cluster.node(|node, now| node.answer(now, &apply, outcome));
    }

    /// Forgets a gateway that has ended. What it has sent is still carried out.
    pub(super) fn end(&mut self, gateway: Incarnation) {
        self.of.remove(&gateway);
        while self.tasks.try_join_next().is_some() {}
    }
}

async fn carry_out(registry: Arc<Registry>, cluster: Arc<Cluster>, mut commands: mpsc::Receiver<Apply>) {
    let (mut answers, mut questions) = (Vec::new(), JoinSet::new());
    while let Some(mut apply) = commands.recv().await {
        loop {
            if is_question(&apply.body) {
                // An answer to an operator may take some time: messages do not wait for it.
                while questions.try_join_next().is_some() {}
                questions.spawn(answer_question(registry.clone(), cluster.clone(), apply));
            } else {
                // It may take long, and the others should not wait for it.
                if apply.target == Target::All {
                    answer_all(&cluster, &mut answers);
                }
                let answer = carry_out_one(&registry, &apply).await;
                answers.push((apply, answer));
            }
            tokio::task::coop::consume_budget().await;
            match commands.try_recv() {
                Ok(next) if answers.len() < TOGETHER => apply = next,
                Ok(next) => {
                    answer_all(&cluster, &mut answers);
                    apply = next;
                }
                Err(_) => break,
            }
        }
        answer_all(&cluster, &mut answers);
    }
}

async fn answer_question(registry: Arc<Registry>, cluster: Arc<Cluster>, apply: Apply) {
    let answer = carry_out_one(&registry, &apply).await;
    cluster.call(|node, now| node.answer(now, &apply, answer));
}

async fn carry_out_one(registry: &Registry, apply: &Apply) -> Bytes {
    let deadline = Deadline(apply.deadline);
    match decode(apply.body.clone()) {
        _ if deadline.is_over() => encode_outcome(&Outcome::failed(Elsewhere::Expired)),
        Err(_malformed) => encode_outcome(&Outcome::failed(Elsewhere::Unknown)),
        Ok(parcel) => carry_out_parcel(registry, parcel, apply.target, deadline).await,
    }
}

/// Carries out what another gateway asks for. `target` says which login it means, if it means one. Returns the answer.
async fn carry_out_parcel(registry: &Registry, parcel: Parcel, target: Target, deadline: Deadline) -> Bytes {
    match parcel {
        Parcel::Kick(closing, block) => {
            let block = (block > 0).then(|| Duration::from_secs(block.into()));
            let kicked = kick_here(registry, &closing, block);
            encode_outcome(&kicked.unwrap_or(Outcome::failed(Elsewhere::Overload)))
        }
        Parcel::Lift(uid) => encode_outcome(&lift_here(registry, &uid)),
        Parcel::Members { group, after, limit } => {
            let (mut page, mut left) = (PageWriter::begin(), limit);
            let next = registry.visit_group(&group, ConnectionId(after), |uid| {
                let is_taken = left > 0 && page.add(uid);
                left = left.saturating_sub(1);
                is_taken
            });
            page.end(next)
        }
        Parcel::IsMember(connection, group) => {
            Bytes::from_static(if registry.is_member(connection, &group) { &[1] } else { &[0] })
        }
        Parcel::Command(command) => encode_outcome(&apply_for_others(registry, command, target, deadline).await),
        Parcel::Replace(uid, stamp) => {
            for peer in registry.of_uid(&uid).iter().filter(|peer| peer.stamp() < stamp) {
                peer.outbox.close(REPLACED, Cause::Replaced);
            }
            encode_outcome(&Outcome::OFFLINE)
        }
        Parcel::Question(question) => match registry.cluster() {
            Some(cluster) => cluster.questions.answer(question).await,
            None => Bytes::new(),
        },
    }
}

fn answer_all(cluster: &Cluster, answers: &mut Vec<(Apply, Bytes)>) {
    if answers.is_empty() {
        return;
    }
    cluster.call(|node, now| {
        for (apply, answer) in answers.drain(..) {
            node.answer(now, &apply, answer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::message::CloseReason;
    use crate::config::DuplicateLogin;
    use crate::hub::blocks::MAX_BLOCKS;
    use crate::hub::cluster::parcel::decode_outcome;
    use crate::hub::command::{Closing, Recipient};

    #[tokio::test]
    async fn a_uid_that_cannot_be_kept_out_here_is_no_success_elsewhere() {
        let registry = Registry::new(DuplicateLogin::Newest);
        let kick = async |block| {
            let closing = Closing { who: Recipient::Uid("anna".into()), reason: CloseReason::new(4907, "bye") };
            let deadline = Deadline(Duration::MAX);
            decode_outcome(carry_out_parcel(&registry, Parcel::Kick(closing, block), Target::All, deadline).await)
        };
        for number in 0..MAX_BLOCKS {
            registry.blocks.insert(number.to_string().into(), Duration::from_secs(60)).unwrap();
        }
        assert_eq!(kick(60).await, Outcome::failed(Elsewhere::Overload));
        assert_eq!(kick(0).await, Outcome::OFFLINE);
        registry.blocks.lift("7");
        assert_eq!(kick(60).await, Outcome::OFFLINE);
        assert!(registry.blocks.is_blocked("anna"));
    }
}
