//! Asks the other gateways of the cluster, for an operator who has asked this one.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::shared::Served;
use crate::edge::http::problem::{Problem, Reason, shown};
use crate::edge::http::query::Parameters;
use crate::hub::cluster::handle::Cluster;
use crate::hub::cluster::id::NodeId;
use crate::hub::cluster::questions::Room;
use crate::hub::operators::{NoAnswer, ask, ask_all};

/// Which gateway or gateways a request is about: `node` in its query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum Nodes {
    /// All gateways.
    All,
    /// The gateway with this number, which may be this one.
    One(NodeId),
}

impl TryFrom<String> for Nodes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = || text.parse().ok().and_then(NodeId::new).map(Self::One);
        let all = (text == "all").then_some(Self::All);
        all.or_else(number).ok_or_else(|| format!("{}: no number of a gateway", shown(&text)))
    }
}

/// The query of a page about one gateway or all.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct About {
    pub(super) node: Option<Nodes>,
}

impl Parameters for About {
    const ALLOWED: &'static str = "node=NUMBER or node=all";
}

/// The query of a page about one gateway.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OneNode {
    node: Option<Nodes>,
}

impl Parameters for OneNode {
    const ALLOWED: &'static str = "node=NUMBER";
}

impl OneNode {
    /// Returns the gateway, if one is named.
    ///
    /// # Errors
    /// If all are asked for.
    pub(super) fn node(&self) -> Result<Option<NodeId>, Problem> {
        match self.node {
            None => Ok(None),
            Some(Nodes::One(node)) => Ok(Some(node)),
            Some(Nodes::All) => Err(Problem::bad("node: this page is about one gateway; ask for each")),
        }
    }
}

/// What one gateway asks another one for an operator. Later versions may add questions: a gateway that does not know
/// one gives no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Question {
    /// Its line in the table of all gateways.
    Node,
    /// `GET /status`
    Status,
    /// `GET /plugins`
    Plugins,
    /// `GET /metrics`
    Metrics,
    /// `GET /connections`
    Connections {
        /// Only larger ids.
        after: u64,
        /// At most so many.
        limit: usize,
        /// Only of this uid.
        uid: Option<String>,
    },
    /// `GET /connections?sort=outbox`
    Slowest {
        /// At most so many.
        limit: usize,
    },
}

/// What all other gateways say.
#[derive(Debug, Default)]
pub(super) struct Told<T> {
    /// By the number of the gateway.
    pub(super) by: BTreeMap<u16, T>,
    /// The gateways that did not answer in time.
    pub(super) missing: Vec<u16>,
    /// False if there may be other gateways: this one cannot speak with all.
    pub(super) knows_all: bool,
    /// The memory for `by`.
    pub(super) room: Vec<Room>,
}

impl<T> Told<T> {
    /// Returns `Some(false)` if some gateway has not told anything.
    pub(super) fn complete(&self) -> Option<bool> {
        (!self.missing.is_empty() || !self.knows_all).then_some(false)
    }
}

/// Returns the cluster.
///
/// # Errors
/// If this gateway belongs to none.
pub(super) fn cluster(served: &Served) -> Result<&Arc<Cluster>, Problem> {
    let problem = || Problem::new(Reason::NoCluster, "this gateway belongs to no cluster: it has no cluster.nats");
    served.registry.cluster().ok_or_else(problem)
}

/// Finds the other gateway that a request is about. Returns `None` if it is this one.
///
/// # Errors
/// If there is no such gateway.
pub(super) fn other(served: &Served, node: NodeId) -> Result<Option<NodeId>, Problem> {
    let status = cluster(served)?.status();
    if status.node == node {
        return Ok(None);
    }
    if status.peers.iter().any(|peer| peer.node == node) {
        return Ok(Some(node));
    }
    Err(Problem::new(Reason::NoSuchNode, format_args!("the cluster has no gateway {node}")))
}

/// Asks one other gateway.
///
/// # Errors
/// If it does not answer, or if too many answers are collected.
pub(super) async fn ask_one(served: &Served, node: NodeId, question: &Question) -> Result<Bytes, Problem> {
    match ask(cluster(served)?, node, encode(question)?).await {
        Ok(answered) => Ok(answered.text),
        Err(NoAnswer::Silent) => Err(silent(node)),
        Err(NoAnswer::NoRoom) => Err(no_room()),
    }
}

/// Asks one other gateway. Its answer is JSON.
///
/// # Errors
/// If it does not answer, or not with what is expected.
pub(super) async fn ask_one_json<T: DeserializeOwned>(
    served: &Served,
    node: NodeId,
    question: &Question,
) -> Result<T, Problem> {
    let answer = ask_one(served, node, question).await?;
    serde_json::from_slice(&answer).map_err(|_| silent(node))
}

/// Asks all other gateways. An answer that cannot be read counts as none.
///
/// # Errors
/// If this gateway belongs to no cluster, or if too many answers are collected.
pub(super) async fn ask_others<T: DeserializeOwned>(served: &Served, question: &Question) -> Result<Told<T>, Problem> {
    let (cluster, mut by, mut missing, mut room) = (cluster(served)?, BTreeMap::new(), Vec::new(), Vec::new());
    let knows_all = cluster.may_say_offline();
    for (node, answer) in ask_all(cluster, encode(question)?).await {
        let answered = match answer {
            Err(NoAnswer::NoRoom) => return Err(no_room()),
            Err(NoAnswer::Silent) => None,
            Ok(answered) => {
                room.push(answered.room);
                serde_json::from_slice(&answered.text).ok()
            }
        };
        match answered {
            Some(answer) => _ = by.insert(node.get(), answer),
            None => missing.push(node.get()),
        }
    }
    missing.sort_unstable();
    Ok(Told { by, missing, knows_all, room })
}

fn no_room() -> Problem {
    Problem::new(Reason::Budget, NoAnswer::NoRoom)
}

fn silent(node: NodeId) -> Problem {
    Problem::new(Reason::Unreachable, format_args!("the gateway {node} does not answer"))
}

fn encode(question: &Question) -> Result<Bytes, Problem> {
    let encoded = serde_json::to_vec(question).map_err(|error| Problem::new(Reason::Internal, error))?;
    Ok(encoded.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_named_by_its_number() {
        let node = |text: &str| Nodes::try_from(text.to_owned());
        assert_eq!(node("all"), Ok(Nodes::All));
        assert_eq!(node("0"), Ok(Nodes::One(NodeId::from_low_bits(0))));
        assert_eq!(node("511"), Ok(Nodes::One(NodeId::from_low_bits(511))));
        for wrong in ["", "512", "-1", "ALL", "1,2", "99999"] {
            assert!(node(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn questions_are_read_as_they_were_written() {
        let listed = Question::Connections { after: u64::MAX, limit: 7, uid: Some("anna".to_owned()) };
        for question in [
            Question::Node,
            Question::Status,
            Question::Plugins,
            Question::Metrics,
            listed,
            Question::Slowest { limit: 7 },
        ] {
            let encoded = encode(&question).unwrap();
            assert_eq!(serde_json::from_slice::<Question>(&encoded).unwrap(), question);
        }
    }
}
