//! Shows all metrics in the format of Prometheus. For each slot it shows only the live, the next and the previous
//! generation, so the number of samples stays bounded however often plugins are swapped.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::cluster;
use super::exposition::{self, Exposition};
use super::others::{OneNode, Question, ask_one, other};
use super::plugin_metrics::plugins;
use super::process_metrics::process;
use super::shared::Shared;
use crate::base::metrics::{Count, METRICS};
use crate::edge::drain::{DrainStage, DrainStatus};
use crate::edge::http::problem::{Problem, Reason};
use crate::edge::http::query::Query;
use crate::edge::tls::{CertificateStatus, Certificates};
use crate::edge::websocket::{Admission, InboxBudget};
use crate::hub::outbox::Budget;
use crate::hub::registry::{Registry, Several};

/// Shows the metrics of this gateway, or of another one.
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Query(about): Query<OneNode>,
) -> Result<impl IntoResponse, Problem> {
    let elsewhere = match about.node()? {
        None => None,
        Some(node) => other(shared.served()?, node)?,
    };
    let text = match elsewhere {
        None => Bytes::from(text(shared).await?),
        Some(node) => ask_one(shared.served()?, node, &Question::Metrics).await?,
    };
    Ok(([(CONTENT_TYPE, exposition::CONTENT_TYPE)], text))
}

/// Returns the metrics of this gateway.
pub(super) async fn text(shared: Arc<Shared>) -> Result<String, Problem> {
    // This visits the outbox of every connection.
    let text = spawn_blocking(move || {
        let mut text = Exposition::default();
        process(&mut text, shared.started);
        counted(&mut text);
        ready(&mut text, shared.served.get().is_some_and(|served| served.drain.is_ready()));
        shared.served.get().into_iter().for_each(|served| {
            connections(&mut text, &served.registry, &served.admission, &served.budget, &served.inbox);
            certificates(&mut text, &served.certificates);
            drain(&mut text, served.drain.status());
            if let Some(own) = served.registry.cluster() {
                cluster::metrics(&mut text, &own.status());
            }
            plugins(&mut text, &served.policy.plugins(), served.policy.memory());
        });
        text.text()
    });
    text.await.map_err(|error| Problem::new(Reason::Internal, error))
}

fn counted(text: &mut Exposition) {
    for (name, meaning, count) in METRICS.all() {
        let name = format!("hotgate_{name}");
        match count {
            Count::Total(total) => text.single(&(name + "_total"), "counter", meaning, total),
            Count::By(label, counts) => {
                let name = name + "_total";
                text.metric(&name, "counter", meaning);
                for (reason, count) in counts {
                    text.sample(&name, &[(label, reason)], count);
                }
            }
            Count::Labelled(label, counts) => {
                let name = name + "_total";
                text.metric(&name, "counter", meaning);
                for (value, count) in counts {
                    text.sample(&name, &[(label, &value)], count);
                }
            }
            Count::Requests(counts) => {
                let name = name + "_total";
                text.metric(&name, "counter", meaning);
                for ((route, status), count) in counts {
                    text.sample(&name, &[("route", route), ("status", &status.to_string())], count);
                }
            }
            Count::Times(edges, times) => {
                text.metric(&name, "histogram", meaning);
                text.histogram(&name, &[], edges, &times);
            }
            Count::TimesBy(label, edges, by) => {
                text.metric(&name, "histogram", meaning);
                for (reason, times) in by {
                    text.histogram(&name, &[(label, reason)], edges, &times);
                }
            }
        }
    }
}

fn ready(text: &mut Exposition, is_ready: bool) {
    let meaning =
        "1 while the gateway takes new connections, as /readyz says. 0 while it starts, drains or is drained.";
    text.single("hotgate_ready", "gauge", meaning, u8::from(is_ready));
}

fn connections(
    text: &mut Exposition,
    registry: &Registry,
    admission: &Admission,
    budget: &Budget,
    inbox: &InboxBudget,
) {
    let (connections, unauthenticated) = (admission.connections(), admission.unauthenticated());
    text.single(
        "hotgate_connections",
        "gauge",
        "Connections on the WebSocket port, including those that are not upgraded yet.",
        connections,
    );
    let meaning = "Connections on the WebSocket port that no authenticator has accepted yet.";
    text.single("hotgate_connections_unauthenticated", "gauge", meaning, unauthenticated);
    let (mut walk, mut part, mut queued_bytes) = (registry.walk(Several::Everyone), Vec::new(), 0);
    while walk.next(&mut part) {
        queued_bytes += part.iter().map(|peer| peer.outbox.queued_bytes().unwrap_or(0)).sum::<usize>();
    }
    text.single("hotgate_outbox_bytes", "gauge", "Bytes queued for authenticated connections.", queued_bytes);
    let meaning = "Bytes of outbox.total_bytes that outboxes have drawn, in steps, beyond each connection's own share.";
    text.single("hotgate_outbox_budget_bytes", "gauge", meaning, budget.used());
    let meaning =
        "The most bytes that they may draw. Beyond them, the connections with the most queued bytes are closed.";
    text.single("hotgate_outbox_budget_limit_bytes", "gauge", meaning, budget.limit());
    let meaning = "Bytes of inbox.total_bytes that are in use.";
    text.single("hotgate_inbox_budget_bytes", "gauge", meaning, inbox.used());
    text.single("hotgate_inbox_budget_limit_bytes", "gauge", "Bytes of inbox.total_bytes.", inbox.limit());
}

fn certificates(text: &mut Exposition, certificates: &Certificates) {
    let name = "hotgate_tls_certificate_expires_seconds";
    text.metric(name, "gauge", "When each certificate expires, in seconds since 1970.");
    for (listener, CertificateStatus { names, expires, file }) in certificates.all() {
        let expires = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let file = file.display().to_string();
        let own = names.first().map_or("", String::as_str);
        text.sample(name, &[("listener", listener.as_str()), ("name", own), ("file", &file)], expires);
    }
}

fn drain(text: &mut Exposition, DrainStatus { stage, remaining, .. }: DrainStatus) {
    let meaning =
        "1 while the gateway drains or is drained; new connections are refused, or will be. 0 at other times.";
    text.single("hotgate_draining", "gauge", meaning, u8::from(stage != DrainStage::Serving));
    let meaning = "Connections that have still to close in the drain. 0 without a drain.";
    text.single("hotgate_drain_remaining", "gauge", meaning, remaining);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::SystemTime;

    use super::*;
    use crate::edge::live::LiveConfig;
    use crate::hub::cluster::Counts;
    use crate::hub::cluster::handle::ClusterStatus;
    use crate::hub::cluster::id::{Incarnation, NodeId};
    use crate::hub::outbox::Budget;

    #[test]
    fn the_page_of_metrics_has_all_of_them() {
        let mut text = Exposition::default();
        process(&mut text, SystemTime::now());
        counted(&mut text);
        ready(&mut text, true);
        certificates(&mut text, &Certificates::default());
        plugins(&mut text, &[], 0);
        let budget = Budget::new(1, 1);
        let registry = Registry::new(crate::config::DuplicateLogin::All);
        let admission = Admission::new(Arc::new(LiveConfig::new(Default::default())));
        connections(&mut text, &registry, &admission, &budget, &InboxBudget::new(1));
        drain(&mut text, DrainStatus { stage: DrainStage::Closing, remaining: 3, ending: false });
        let (node, peers) = (NodeId::from_low_bits(1), Vec::new());
        let status = ClusterStatus {
            node,
            incarnation: Incarnation(0),
            is_connected: true,
            peers,
            unanswered_bytes: 0,
            counts: Counts::default(),
        };
        cluster::metrics(&mut text, &status);
        let text = text.text();
        let shown: BTreeSet<_> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
        let page = include_str!("../../../METRICS.md");
        let documented: BTreeSet<_> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
            .filter(|(name, _)| name.starts_with("hotgate_") || name.starts_with("process_"))
            .map(|(name, rest)| (name, rest.split(' ').next().unwrap_or_default()))
            .collect();
        assert_eq!(shown, documented);
    }
}
