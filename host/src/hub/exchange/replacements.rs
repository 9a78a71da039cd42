//! Closes older connections in the whole cluster, with `duplicate_login = "close-older"`.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use crate::base::message::Cause;
use crate::hub::cluster::handle::Cluster;
use crate::hub::cluster::parcel::encode_replacement;
use crate::hub::registry::{REPLACED, Registry, Several};

/// How often a gateway is asked that does not answer. After that it is dead, or its snapshot is taken anew.
const ATTEMPTS: usize = 5;
/// The most logins whose gateways are asked again at a time. Past it, each is asked once.
const MOST: usize = 1024;
/// The time between two attempts.
const AGAIN: Duration = Duration::from_secs(1);

/// The tasks that close older connections.
pub(super) struct Replacements {
    cluster: Arc<Cluster>,
    /// Wakes the task that looks through all connections of this gateway.
    look: Arc<Notify>,
    tasks: JoinSet<()>,
}

impl Replacements {
    pub(super) fn new(registry: Arc<Registry>, cluster: Arc<Cluster>) -> Self {
        let (look, mut tasks) = (Arc::new(Notify::new()), JoinSet::new());
        tasks.spawn(look_through(registry, cluster.clone(), look.clone()));
        Self { cluster, look, tasks }
    }

    /// Has the other gateways close the connections of a uid that logged in before this stamp. Tells `done` once they
    /// have, or after `cluster.confirm`.
    pub(super) fn close_elsewhere(&mut self, uid: &str, stamp: u64, done: oneshot::Sender<()>) {
        while self.tasks.try_join_next().is_some() {}
        let (cluster, parcel) = (self.cluster.clone(), encode_replacement(uid, stamp));
        let asks_again = self.tasks.len() < MOST;
        self.tasks.spawn(async move {
            let mut closing = pin!(async {
                let mut missing = cluster.send_to_all(&parcel).outcome().await.missing;
                for _ in 1..if asks_again { ATTEMPTS } else { 1 } {
                    if missing.is_empty() {
                        break;
                    }
                    sleep(AGAIN).await;
                    let ask = |gateway| cluster.send_to_node(gateway, parcel.clone()).outcome();
                    let answers = join_all(missing.into_iter().map(ask)).await;
                    missing = answers.into_iter().flat_map(|outcome| outcome.missing).collect();
                }
            });
            let closed = timeout(cluster.confirm(), &mut closing).await;
            // Nobody waits for it if the client has left.
            _ = done.send(());
            if closed.is_err() {
                closing.await;
            }
        });
    }

    /// Closes the connections of this gateway whose uids have logged in elsewhere since: all logins of another gateway
    /// have just been learned anew, because some may have been missed.
    pub(super) fn close_here(&self) {
        self.look.notify_one();
    }
}

async fn look_through(registry: Arc<Registry>, cluster: Arc<Cluster>, look: Arc<Notify>) {
    loop {
        look.notified().await;
        let (mut walk, mut part) = (registry.walk(Several::Everyone), Vec::new());
        while walk.next(&mut part) {
            for peer in part.drain(..).filter(|peer| cluster.is_elsewhere(&peer.uid, Some(peer.stamp()))) {
                peer.outbox.close(REPLACED, Cause::Replaced);
            }
            yield_now().await;
        }
    }
}
