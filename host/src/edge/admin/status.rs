//! The status of the whole gateway, on one page: for `hotgate status`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::Value;

use super::cluster::{self, ClusterPage};
use super::history::PerSecond;
use super::others::{OneNode, Question, ask_one_json, other};
use super::shared::{ListenerStatus, Served, Shared};
use crate::base::metrics::METRICS;
use crate::base::version::{COMMIT, VERSION};
use crate::config::ListenerName;
use crate::edge::http::problem::Problem;
use crate::edge::http::query::Query;
use crate::edge::tls::CertificateStatus;
use crate::policy::status::{EventKind, PluginStatus};

/// The share of a limit, in percent, from which on it is a warning.
const NEARLY: u128 = 90;

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    version: &'static str,
    commit: &'static str,
    /// `serving` or `draining`. A gateway that is starting has no status yet.
    state: &'static str,
    /// When the process started.
    started: String,
    uptime_seconds: u64,
    listeners: Vec<ListenerStatus>,
    certificates: Vec<CertificateRow>,
    connections: Connections,
    per_second: PerSecond,
    /// As in `GET /plugins`.
    plugins: Vec<PluginStatus>,
    budgets: Vec<BudgetStatus>,
    /// Missing if this gateway belongs to no cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterPage>,
    /// What an operator should look at.
    warnings: Vec<String>,
}

/// A certificate of a listener.
#[derive(Debug, Serialize)]
struct CertificateRow {
    listener: ListenerName,
    file: String,
    names: Vec<String>,
    expires: String,
}

/// Connections on the WebSocket port.
#[derive(Debug, Serialize)]
struct Connections {
    open: usize,
    limit: usize,
    /// Those that no authenticator has accepted yet.
    unauthenticated: usize,
    unauthenticated_limit: usize,
}

/// Memory that many share, within a limit.
#[derive(Debug, Serialize)]
struct BudgetStatus {
    /// The setting with the limit.
    setting: &'static str,
    used_bytes: usize,
    limit_bytes: usize,
}

/// Shows the page about this gateway, or about another one.
pub(super) async fn show(State(shared): State<Arc<Shared>>, Query(about): Query<OneNode>) -> Result<Response, Problem> {
    let served = shared.served()?;
    let elsewhere = match about.node()? {
        None => None,
        Some(node) => other(served, node)?,
    };
    Ok(match elsewhere {
        None => Json(page(&shared, served)).into_response(),
        Some(node) => Json(ask_one_json::<Value>(served, node, &Question::Status).await?).into_response(),
    })
}

/// Returns the page about this gateway.
pub(super) fn page(shared: &Shared, served: &Served) -> Status {
    let plugins = served.policy.plugins();
    let (limit, unauthenticated_limit) = served.admission.limits();
    let (open, unauthenticated) = (served.admission.connections(), served.admission.unauthenticated());
    let connections = Connections { open, limit, unauthenticated, unauthenticated_limit };
    let budgets = budgets(served, &plugins);
    let cluster = served.registry.cluster();
    let of_cluster = cluster.map_or_else(Vec::new, |cluster| cluster::warnings(cluster));
    let notices = [served.notices.all(), served.certificates.expiring(), of_cluster].concat();
    Status {
        version: VERSION,
        commit: COMMIT,
        state: if served.drain.is_ready() { "serving" } else { "draining" },
        started: humantime::format_rfc3339_seconds(shared.started).to_string(),
        uptime_seconds: shared.started.elapsed().unwrap_or_default().as_secs(),
        listeners: served.listeners.clone(),
        certificates: served.certificates.all().map(certificate).collect(),
        per_second: shared.history.per_second(),
        warnings: warnings(&connections, &plugins, &budgets, notices),
        connections,
        plugins,
        budgets,
        cluster: cluster.map(|cluster| cluster::page(cluster)),
    }
}

fn certificate((listener, status): (ListenerName, CertificateStatus)) -> CertificateRow {
    let CertificateStatus { file, names, expires } = status;
    let expires = humantime::format_rfc3339_seconds(expires).to_string();
    CertificateRow { listener, file: file.display().to_string(), names, expires }
}

fn budgets(served: &Served, plugins: &[PluginStatus]) -> Vec<BudgetStatus> {
    let of_plugins = plugins.iter().map(|plugin| plugin.memory_bytes).sum();
    let budget = |setting, used_bytes, limit_bytes| BudgetStatus { setting, used_bytes, limit_bytes };
    vec![
        budget("outbox.total_bytes", served.budget.used(), served.budget.limit()),
        budget("inbox.total_bytes", served.inbox.used(), served.inbox.limit()),
        budget("engine.memory", of_plugins, served.policy.memory()),
    ]
}

/// Returns what an operator should look at: limits that are nearly reached, problems of plugins, and `notices`.
fn warnings(
    connections: &Connections,
    plugins: &[PluginStatus],
    budgets: &[BudgetStatus],
    notices: Vec<String>,
) -> Vec<String> {
    let mut warnings = notices;
    let mut limit = |setting: &str, used: usize, limit: usize| {
        if is_nearly_reached(used, limit) {
            warnings.push(format!("{setting}: {used} of {limit} are used"));
        }
    };
    limit("limits.connections", connections.open, connections.limit);
    limit("limits.unauthenticated", connections.unauthenticated, connections.unauthenticated_limit);
    for budget in budgets {
        limit(budget.setting, budget.used_bytes, budget.limit_bytes);
    }
    for plugin in plugins {
        let slot = &plugin.slot;
        for unserved in &plugin.refused {
            let verb = if unserved.what == "settings" { "do" } else { "does" };
            warnings.push(format!("{slot}: the {} on disk {verb} not serve: {}", unserved.what, unserved.reason));
        }
        if let Some(event) = plugin.history.last().filter(|event| event.what == EventKind::Alert) {
            let reason = event.reason.as_deref().unwrap_or("it fails more often than the generation before");
            warnings.push(format!("{slot}: alert: {reason}"));
        }
        if let Some(problem) = &plugin.unsaved {
            warnings.push(format!("{slot}: rollbacks cannot be saved: {problem}"));
        }
    }
    let lost = METRICS.log_lines_lost.get();
    if lost > 0 {
        warnings.push(format!("log: {lost} lines were lost"));
    }
    warnings
}

fn is_nearly_reached(used: usize, limit: usize) -> bool {
    used as u128 * 100 >= limit as u128 * NEARLY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_nearly_reached_at_90_percent() {
        for (used, limit, nearly) in [
            (0, 50, false),
            (1, 50, false),
            (44, 50, false),
            (45, 50, true),
            (89, 99, false),
            (90, 99, true),
            (899_999, 1_000_000, false),
            (900_000, 1_000_000, true),
            (usize::MAX / 2, usize::MAX, false),
            (usize::MAX, usize::MAX, true),
        ] {
            assert_eq!(is_nearly_reached(used, limit), nearly, "{used} of {limit}");
        }
    }
}
