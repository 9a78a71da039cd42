//! Commands of other gateways. Each gateway has a task of its own, so that its commands are carried out in their order.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::hub::cluster::handle::Cluster;
use crate::hub::cluster::id::Incarnation;
use crate::hub::cluster::parcel::{decode, encode_outcome};
use crate::hub::cluster::{Apply, Target};
use crate::hub::command::{Elsewhere, Outcome};
use crate::hub::everywhere::carry_out_for_others;
use crate::hub::registry::Registry;

/// The most commands of one gateway that wait. It has its own bound, in bytes, on those that are not answered.
const WAITING: usize = 16 << 10;

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
        if let Err(error) = sender.try_send(apply) {
            let outcome = encode_outcome(Outcome::failed(Elsewhere::Overload));
            self.cluster.node(|node, now| node.answer(now, &error.into_inner(), outcome));
        }
    }

    /// Forgets a gateway that has ended. What it has sent is still carried out.
    pub(super) fn end(&mut self, gateway: Incarnation) {
        self.of.remove(&gateway);
        while self.tasks.try_join_next().is_some() {}
    }
}

async fn carry_out(registry: Arc<Registry>, cluster: Arc<Cluster>, mut commands: mpsc::Receiver<Apply>) {
    while let Some(apply) = commands.recv().await {
        let is_late = cluster.node(|_, now| now.boot > apply.deadline);
        let answer = match decode(apply.body.clone()) {
            _ if is_late => encode_outcome(Outcome::failed(Elsewhere::Expired)),
            Err(_malformed) => encode_outcome(Outcome::failed(Elsewhere::Unknown)),
            Ok(parcel) => {
                let seen = match apply.target {
                    Target::Uid(stamp) => Some(stamp.0),
                    Target::All => None,
                };
                carry_out_for_others(&registry, parcel, seen).await
            }
        };
        cluster.call(|node, now| node.answer(now, &apply, answer));
        tokio::task::coop::consume_budget().await;
    }
}
