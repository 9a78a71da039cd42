//! The cluster, for operators.

use serde::Serialize;

use super::exposition::Exposition;
use crate::hub::cluster::PeerStatus;
use crate::hub::cluster::handle::{Cluster, ClusterStatus};

/// The cluster, as this gateway sees it.
#[derive(Debug, Serialize)]
pub(super) struct ClusterPage {
    /// The number of this gateway.
    node: u16,
    /// Whether there is a connection to NATS.
    nats: &'static str,
    /// The other gateways.
    others: Vec<Other>,
}

/// Another gateway.
#[derive(Debug, Serialize)]
struct Other {
    node: u16,
    /// One of [`STATES`].
    state: &'static str,
}

/// The warning about a lost connection to NATS.
pub(super) const NO_NATS: &str = "cluster: there is no connection to NATS (cluster.nats)";

/// The states of another gateway, as its beats and its link show it. `overview` has two more for one that is asked.
const STATES: [&str; 4] = ["serving", "draining", "joining", "unreachable"];

/// Returns the state of another gateway.
pub(super) fn state(peer: &PeerStatus) -> &'static str {
    match peer {
        PeerStatus { is_reachable: false, .. } => "unreachable",
        PeerStatus { is_draining: true, .. } => "draining",
        PeerStatus { is_synced: false, .. } => "joining",
        _ => "serving",
    }
}

/// Returns the page about the cluster.
pub(super) fn page(cluster: &Cluster) -> ClusterPage {
    let ClusterStatus { node, is_connected, peers, .. } = cluster.status();
    let mut others: Vec<_> = peers.iter().map(|peer| Other { node: peer.node.get(), state: state(peer) }).collect();
    others.sort_by_key(|other| other.node);
    ClusterPage { node: node.get(), nats: if is_connected { "connected" } else { "disconnected" }, others }
}

/// Returns what an operator should look at.
pub(super) fn warnings(cluster: &Cluster) -> Vec<String> {
    let status = cluster.status();
    let nats = (!status.is_connected).then(|| NO_NATS.to_owned());
    let lost = status.peers.iter().filter(|peer| !peer.is_reachable);
    nats.into_iter().chain(lost.map(|peer| format!("cluster: the gateway {} does not answer", peer.node))).collect()
}

/// Writes the metrics of the cluster.
pub(super) fn metrics(text: &mut Exposition, status: &ClusterStatus) {
    let meaning = "1 while there is a connection to NATS, else 0.";
    text.single("hotgate_cluster_connected", "gauge", meaning, u8::from(status.is_connected));
    let name = "hotgate_cluster_gateways";
    text.metric(name, "gauge", "The other gateways of the cluster that this one knows of, by state.");
    for wanted in STATES {
        let count = status.peers.iter().filter(|peer| state(peer) == wanted).count();
        text.sample(name, &[("state", wanted)], count);
    }
    let meaning = "Bytes of commands for other gateways that are not answered yet.";
    text.single("hotgate_cluster_unanswered_bytes", "gauge", meaning, status.unanswered_bytes);
    let counts = status.counts;
    let meaning = "Logins and departures that some gateway did not confirm in time (cluster.confirm).";
    text.single("hotgate_cluster_unconfirmed_total", "counter", meaning, counts.unconfirmed);
    let meaning = "Complete directories that this gateway took from others, because it had missed something.";
    text.single("hotgate_cluster_snapshots_total", "counter", meaning, counts.snapshots);
    let name = "hotgate_cluster_frames_dropped_total";
    text.metric(name, "counter", "Frames on the NATS subjects that this gateway did not accept, by reason.");
    for (reason, count) in [
        ("malformed", counts.malformed),
        ("version", counts.version),
        ("kind", counts.kind),
        ("secret", counts.secret),
        ("ended", counts.ended),
        ("stranger", counts.stranger),
    ] {
        text.sample(name, &[("reason", reason)], count);
    }
}
