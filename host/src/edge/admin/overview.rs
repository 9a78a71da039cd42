//! All gateways of the cluster on one page: for `hotgate cluster`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::{Deserialize, Serialize};

use super::cluster::{NO_NATS, state};
use super::others::{Question, Told, ask_others, cluster};
use super::shared::{ListenerStatus, Served, Shared};
use crate::base::version::{COMMIT, VERSION};
use crate::config::ListenerName;
use crate::edge::http::problem::Problem;
use crate::edge::http::query::no_query;

/// Digits of a digest in a warning, as many as in the log.
const DIGITS: usize = 12;

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Overview {
    /// The number of the gateway that was asked.
    node: u16,
    /// `connected` or `disconnected`.
    nats: &'static str,
    /// The sums of the gateways that answered.
    connections: Connections,
    /// All gateways, this one included.
    nodes: Vec<Entry>,
    /// The gateways that did not answer in time.
    missing: Vec<u16>,
    /// False if gateways have told nothing, or if there may be others.
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<bool>,
    /// What an operator should look at.
    warnings: Vec<String>,
}

/// A gateway, as this one sees it.
#[derive(Debug, Serialize)]
struct Entry {
    node: u16,
    /// Names the process: a gateway that starts again gets another one.
    incarnation: String,
    /// `serving`, `draining`, `joining`; or why nothing else is known: `unreachable`; `silent` if its link works but it
    /// did not answer; `gone` if it went meanwhile.
    state: &'static str,
    #[serde(flatten)]
    told: Option<GatewayReport>,
}

/// What a gateway says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct GatewayReport {
    version: String,
    commit: String,
    started: String,
    uptime_seconds: u64,
    connections: Connections,
    /// The generations that serve: of each slot the live one, then the candidate.
    plugins: Vec<Generation>,
    /// Where its admin listener listens.
    admin: Vec<String>,
}

/// Connections on the WebSocket port.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Connections {
    open: u64,
    limit: u64,
    /// Those that no authenticator has accepted yet.
    unauthenticated: u64,
}

/// A generation of a plugin.
#[derive(Debug, Serialize, Deserialize)]
struct Generation {
    slot: String,
    plugin: String,
    generation: u64,
    stage: String,
    digest: String,
}

/// Shows all gateways.
pub(super) async fn show(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Json<Overview>, Problem> {
    no_query(&uri)?;
    let served = shared.served()?;
    let cluster = cluster(served)?;
    let before = cluster.status();
    let told_by_others = ask_others(served, &Question::Node).await?;
    let (complete, Told { mut by, missing, room: _room, .. }) = (told_by_others.complete(), told_by_others);
    let after = cluster.status();

    let is_draining = !served.drain.is_ready();
    let mut nodes = vec![Entry {
        node: after.node.get(),
        incarnation: after.incarnation.to_string(),
        state: if is_draining { "draining" } else { "serving" },
        told: Some(own(&shared, served)),
    }];
    nodes.extend(before.peers.iter().map(|peer| {
        let told: Option<GatewayReport> = by.remove(&peer.node.get());
        let now = after.peers.iter().find(|now| now.incarnation == peer.incarnation);
        let state = match (now.map(state), &told) {
            (Some("draining"), _) => "draining",
            (_, Some(_)) => "serving",
            (Some("serving"), None) => "silent",
            (Some(state), None) => state,
            (None, None) => "gone",
        };
        Entry { node: peer.node.get(), incarnation: peer.incarnation.to_string(), state, told }
    }));
    nodes.sort_by_key(|entry| entry.node);

    let mut connections = Connections::default();
    for GatewayReport { connections: Connections { open, limit, unauthenticated }, .. } in
        told(&nodes).map(|(_, told)| told)
    {
        connections.open = connections.open.saturating_add(*open);
        connections.limit = connections.limit.saturating_add(*limit);
        connections.unauthenticated = connections.unauthenticated.saturating_add(*unauthenticated);
    }
    let mut warnings = Vec::new();
    if !after.is_connected {
        warnings.push(NO_NATS.to_owned());
    }
    warnings.extend(missing.iter().map(|node| format!("the gateway {node} does not answer")));
    warnings.extend(differences(&nodes));
    let nats = if after.is_connected { "connected" } else { "disconnected" };
    Ok(Json(Overview { node: after.node.get(), nats, connections, nodes, missing, complete, warnings }))
}

/// Returns what this gateway says of itself.
pub(super) fn own(shared: &Shared, served: &Served) -> GatewayReport {
    // A gateway without the listener lets no clients in.
    let has_clients = served.listeners.iter().any(|listener| listener.listener == ListenerName::WebSocket);
    let limit = if has_clients { served.admission.limits().0 } else { 0 };
    let (open, unauthenticated) = (served.admission.connections(), served.admission.unauthenticated());
    let mut plugins = Vec::new();
    for status in served.policy.plugins() {
        for generation in [Some(&status.live), status.candidate.as_ref()].into_iter().flatten() {
            plugins.push(Generation {
                slot: status.slot.clone(),
                plugin: status.plugin.clone(),
                generation: generation.generation,
                stage: generation.stage.to_string(),
                digest: generation.digest.clone(),
            });
        }
    }
    let admin = served.listeners.iter().filter(|listener| listener.listener == ListenerName::Admin);
    let address = |ListenerStatus { address, tls, .. }: &ListenerStatus| match tls {
        true => format!("https://{address}"),
        false => address.clone(),
    };
    GatewayReport {
        version: VERSION.to_owned(),
        commit: COMMIT.to_owned(),
        started: humantime::format_rfc3339_seconds(shared.started).to_string(),
        uptime_seconds: shared.started.elapsed().unwrap_or_default().as_secs(),
        connections: Connections { open: open as u64, limit: limit as u64, unauthenticated: unauthenticated as u64 },
        plugins,
        admin: admin.map(address).collect(),
    }
}

fn told(nodes: &[Entry]) -> impl Iterator<Item = (u16, &GatewayReport)> {
    nodes.iter().filter_map(|entry| Some((entry.node, entry.told.as_ref()?)))
}

/// Returns in what the gateways differ: their versions, and the live component of each slot.
fn differences(nodes: &[Entry]) -> Vec<String> {
    let mut live: BTreeMap<&str, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for (node, gateway) in told(nodes) {
        let version = format!("{} ({})", gateway.version, short(&gateway.commit));
        live.entry("").or_default().entry(version).or_default().push(node.to_string());
        for Generation { slot, digest, .. } in gateway.plugins.iter().filter(|generation| generation.serves_most()) {
            live.entry(slot).or_default().entry(short(digest)).or_default().push(node.to_string());
        }
    }
    let several = live.into_iter().filter(|(_, kinds)| kinds.len() > 1);
    let warning = |(slot, kinds): (&str, BTreeMap<String, Vec<String>>)| {
        let kinds: Vec<_> = kinds.iter().map(|(kind, nodes)| format!("{kind} on {}", nodes.join(", "))).collect();
        match slot {
            "" => format!("the gateways have different versions: {}", kinds.join("; ")),
            slot => format!("{slot}: the gateways have different components: {}", kinds.join("; ")),
        }
    };
    several.map(warning).collect()
}

impl Generation {
    /// Returns `true` if it is no candidate.
    fn serves_most(&self) -> bool {
        !["shadow", "canary"].contains(&self.stage.as_str())
    }
}

fn short(digest: &str) -> String {
    digest.chars().take(DIGITS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(node: u16, version: &str, digests: &[(&str, &str)]) -> Entry {
        let generation = |&(stage, digest): &(&str, &str)| Generation {
            slot: "router".to_owned(),
            plugin: "x".to_owned(),
            generation: 1,
            stage: stage.to_owned(),
            digest: digest.to_owned(),
        };
        let told = GatewayReport {
            version: version.to_owned(),
            commit: "0123456789abcdef".to_owned(),
            started: String::new(),
            uptime_seconds: 0,
            connections: Connections::default(),
            plugins: digests.iter().map(generation).collect(),
            admin: Vec::new(),
        };
        Entry { node, incarnation: String::new(), state: "serving", told: Some(told) }
    }

    #[test]
    fn it_is_said_in_what_gateways_differ() {
        let silent = Entry { node: 9, incarnation: String::new(), state: "unreachable", told: None };
        assert_eq!(json!(silent), json!({ "node": 9, "incarnation": "", "state": "unreachable" }));
        let same = [entry(1, "1", &[("live", "a")]), silent, entry(3, "1", &[("probation", "a"), ("canary", "b")])];
        assert_eq!(differences(&same), Vec::<String>::new());
        let other = [entry(1, "1", &[("live", "a")]), entry(3, "2", &[("live", "b")]), entry(7, "1", &[("live", "a")])];
        let expected = [
            "the gateways have different versions: 1 (0123456789ab) on 1, 7; 2 (0123456789ab) on 3",
            "router: the gateways have different components: a on 1, 7; b on 3",
        ];
        assert_eq!(differences(&other), expected);
    }
}
