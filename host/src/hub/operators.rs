//! Asks other gateways for an operator. How they answer is in [`questions`](super::cluster::questions).

use bytes::Bytes;
use futures_util::future::join_all;
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use super::cluster::handle::Cluster;
use super::cluster::id::NodeId;
use super::cluster::parcel::encode_question;
use super::cluster::questions::{COLLECTED, PartRequest, Parts, Room};

/// Why another gateway has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoAnswer {
    /// It has not answered the whole within `cluster.timeout`.
    #[error("it does not answer")]
    Silent,
    /// This gateway has no memory for it: [`COLLECTED`].
    #[error(
        "the answers of other gateways that this one collects may take {} MiB together: ask again later, for fewer \
         connections (limit), or for one gateway (node)",
        COLLECTED >> 20
    )]
    NoRoom,
}

/// An answer of another gateway.
#[derive(Debug)]
pub struct Answered {
    /// The answer.
    pub text: Bytes,
    /// The memory for it, and for what is made of it.
    pub room: Room,
}

/// Asks all other gateways at the same time. Returns each of them with its answer.
pub async fn ask_all(cluster: &Cluster, text: Bytes) -> Vec<(NodeId, Result<Answered, NoAnswer>)> {
    let asked = cluster.others().into_iter().map(|gateway| {
        let text = text.clone();
        async move { (gateway, ask(cluster, gateway, text).await) }
    });
    join_all(asked).await
}

/// Asks another gateway.
///
/// # Errors
/// [`NoAnswer`]
pub async fn ask(cluster: &Cluster, gateway: NodeId, text: Bytes) -> Result<Answered, NoAnswer> {
    let deadline = Instant::now() + cluster.timeout();
    let mut request = PartRequest { id: rand::random(), offset: 0, text };
    let (mut parts, mut reserved) = (Parts::default(), None);
    loop {
        let asked = timeout_at(deadline, cluster.ask_gateway(gateway, encode_question(&request))).await;
        let part = asked.ok().and_then(Result::ok).ok_or(NoAnswer::Silent)?;
        if !parts.add(part) {
            return Err(NoAnswer::Silent);
        }
        // The first part says how long the whole answer is.
        let room = match reserved.take() {
            Some(room) => room,
            None => cluster.questions.reserve(parts.total()).ok_or(NoAnswer::NoRoom)?,
        };
        match parts.next() {
            None => return Ok(Answered { text: parts.whole(), room }),
            // The gateway keeps its answer, so it needs only the number of the question.
            Some(offset) => request = PartRequest { offset, text: Bytes::new(), ..request },
        }
        reserved = Some(room);
    }
}
