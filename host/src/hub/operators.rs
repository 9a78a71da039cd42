//! Asks other gateways for an operator. How they answer is in [`questions`](super::cluster::questions).

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use super::cluster::handle::Cluster;
use super::cluster::id::NodeId;
use super::cluster::parcel::encode_question;
use super::cluster::questions::{Parts, Question};

/// Asks all other gateways at the same time. Returns each of them with its answer, or with `None` if it did not answer
/// in time.
pub async fn ask_all(cluster: &Cluster, text: Bytes) -> Vec<(NodeId, Option<Bytes>)> {
    let asked = cluster.others().into_iter().map(|gateway| {
        let text = text.clone();
        async move { (gateway, ask(cluster, gateway, text).await) }
    });
    join_all(asked).await
}

/// Asks another gateway. Returns its answer, or `None` if it has not answered the whole within `cluster.timeout`.
pub async fn ask(cluster: &Cluster, gateway: NodeId, text: Bytes) -> Option<Bytes> {
    let deadline = Instant::now() + cluster.timeout();
    let mut question = Question { id: rand::random(), offset: 0, text };
    let mut parts = Parts::default();
    loop {
        let asked = cluster.ask_gateway(gateway, encode_question(&question));
        if !parts.add(timeout_at(deadline, asked).await.ok()?.ok()?) {
            return None;
        }
        match parts.next() {
            None => return Some(parts.whole()),
            // The gateway keeps its answer, so it needs only the number of the question.
            Some(offset) => question = Question { offset, text: Bytes::new(), ..question },
        }
    }
}
