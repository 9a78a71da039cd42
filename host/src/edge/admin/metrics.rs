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
use super::shared::Shared;
use crate::base::metrics::{Count, METRICS};
use crate::base::version::{COMMIT, VERSION};
use crate::edge::drain::{DrainStage, DrainStatus};
use crate::edge::http::problem::{Problem, Reason};
use crate::edge::http::query::Query;
use crate::edge::tls::{CertificateStatus, Certificates};
use crate::edge::websocket::{Admission, InboxBudget};
use crate::hub::outbox::Budget;
use crate::hub::registry::{Registry, Several};
use crate::policy::status::{FunctionStatus, GenerationStatus, PluginStatus};

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

fn process(text: &mut Exposition, started: SystemTime) {
    text.metric("hotgate_build_info", "gauge", "The version that runs, and the commit that it was built from.");
    text.sample("hotgate_build_info", &[("version", VERSION), ("commit", COMMIT)], 1);
    let started = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    text.single("process_start_time_seconds", "gauge", "When the process started, in seconds since 1970.", started);
    memory(text);
}

/// Shows the statistics of jemalloc. Other systems than Linux use the system's allocator, which has none.
#[cfg(target_os = "linux")]
fn memory(text: &mut Exposition) {
    use tikv_jemalloc_ctl::{epoch, stats};
    // jemalloc updates its statistics only on this call.
    let _ = epoch::advance();
    let allocated = stats::allocated::read().unwrap_or_default();
    let meaning = "Bytes that the gateway has allocated, without the memory of plugins.";
    text.single("hotgate_memory_allocated_bytes", "gauge", meaning, allocated);
    let resident = stats::resident::read().unwrap_or_default();
    let meaning = "Bytes of physical memory that these allocations take.";
    text.single("hotgate_memory_resident_bytes", "gauge", meaning, resident);
}

#[cfg(not(target_os = "linux"))]
fn memory(_: &mut Exposition) {}

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
            Count::Time(count, total) => {
                text.metric(&name, "summary", meaning);
                text.sample(&format!("{name}_sum"), &[], total.as_secs_f64());
                text.sample(&format!("{name}_count"), &[], count);
            }
        }
    }
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
    let meaning = "Bytes of inbox.total_bytes that are in use.";
    text.single("hotgate_inbox_budget_bytes", "gauge", meaning, inbox.used());
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

/// Returns each generation to show, with its slot, plugin and number.
fn generations(plugins: &[PluginStatus]) -> impl Iterator<Item = (&GenerationStatus, [(&str, &str); 2], String)> {
    plugins.iter().flat_map(|plugin| {
        let labels = [("slot", &*plugin.slot), ("plugin", &*plugin.plugin)];
        let generations = [plugin.previous.as_ref(), Some(&plugin.live), plugin.candidate.as_ref()];
        generations.into_iter().flatten().map(move |status| (status, labels, status.generation.to_string()))
    })
}

fn functions(plugins: &[PluginStatus]) -> impl Iterator<Item = (&FunctionStatus, [(&str, &str); 2], String)> {
    generations(plugins).flat_map(|(status, labels, number)| {
        status.functions.iter().map(move |function| (function, labels, number.clone()))
    })
}

fn plugins(text: &mut Exposition, plugins: &[PluginStatus], memory: usize) {
    let name = "hotgate_plugin_info";
    text.metric(name, "gauge", "Each slot's live generation, the candidate and the one before, with their stages.");
    for (status, [slot, plugin], number) in generations(plugins) {
        let stage = status.stage.to_string();
        let labels = [slot, plugin, ("generation", &number), ("digest", &status.digest), ("stage", &stage)];
        text.sample(name, &labels, 1);
    }

    let name = "hotgate_plugin_calls_total";
    text.metric(name, "counter", "Plugin calls that have ended, by outcome.");
    for (function, [slot, plugin], number) in functions(plugins) {
        let labels =
            |outcome| [slot, plugin, ("generation", &*number), ("function", function.function), ("outcome", outcome)];
        let failed: u64 = function.failures.values().sum();
        text.sample(name, &labels("ok"), function.calls.saturating_sub(failed));
        for (kind, count) in &function.failures {
            text.sample(name, &labels(kind), count);
        }
    }

    let name = "hotgate_plugin_call_seconds";
    text.metric(name, "summary", "Duration of plugin calls.");
    for (function, [slot, plugin], number) in functions(plugins) {
        let labels = [slot, plugin, ("generation", &*number), ("function", function.function)];
        let [slot, plugin, generation, of] = labels;
        for (quantile, micros) in [("0.5", function.p50_us), ("0.99", function.p99_us)] {
            text.sample(name, &[slot, plugin, generation, of, ("quantile", quantile)], seconds(micros));
        }
        text.sample(&format!("{name}_sum"), &labels, seconds(function.total_us));
        text.sample(&format!("{name}_count"), &labels, function.calls);
    }

    let name = "hotgate_plugin_shadow_verdicts_total";
    text.metric(name, "counter", "Verdicts of shadow generations, compared with the verdicts of the live generation.");
    for (status, [slot, plugin], number) in generations(plugins) {
        let Some(shadow) = &status.shadow else { continue };
        let labels = |outcome| [slot, plugin, ("generation", &*number), ("outcome", outcome)];
        text.sample(name, &labels("agreed"), shadow.agreed);
        text.sample(name, &labels("skipped"), shadow.skipped);
        for (difference, count) in &shadow.differed {
            text.sample(name, &labels(difference), count);
        }
    }

    let meaning = "Bytes of linear memory that all plugins together may use (engine.memory).";
    text.single("hotgate_plugin_memory_limit_bytes", "gauge", meaning, memory);

    let mut per_slot = |name: &str, meaning, count: fn(&PluginStatus) -> u64| {
        text.metric(name, if name.ends_with("_total") { "counter" } else { "gauge" }, meaning);
        for status in plugins {
            text.sample(name, &[("slot", &status.slot), ("plugin", &status.plugin)], count(status));
        }
    };
    let meaning = "Bytes of linear memory that the instances of a plugin use, including idle instances.";
    per_slot("hotgate_plugin_memory_bytes", meaning, |status| status.memory_bytes as u64);
    per_slot("hotgate_plugin_instances", "Instances of a plugin, including idle instances.", |status| {
        status.instances as u64
    });
    let meaning = "Generations that have gone live, not counting the first.";
    per_slot("hotgate_plugin_swaps_total", meaning, |status| status.swaps);
    let meaning = "Generations that were rolled back, automatically or by an operator.";
    per_slot("hotgate_plugin_rollbacks_total", meaning, |status| status.rollbacks);
    let meaning = "Components and settings that were refused.";
    per_slot("hotgate_plugin_refusals_total", meaning, |status| status.refusals);
    let meaning = "Generations that failed too often and kept serving.";
    per_slot("hotgate_plugin_alerts_total", meaning, |status| status.alerts);
    let meaning = "Calls refused because no instance, or no memory for one, became free in time.";
    per_slot("hotgate_plugin_calls_shed_total", meaning, |status| status.overloaded);
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::edge::live::LiveConfig;
    use crate::hub::cluster::Counts;
    use crate::hub::cluster::handle::ClusterStatus;
    use crate::hub::cluster::id::{Incarnation, NodeId};
    use crate::hub::outbox::Budget;
    use crate::policy::status::{ShadowStatus, Stage};

    fn sample() -> PluginStatus {
        let function = FunctionStatus {
            function: "greet",
            calls: 10,
            failures: BTreeMap::from([("trap", 3)]),
            total_us: 2_500_000,
            p50_us: 100,
            p99_us: 2000,
        };
        let live = GenerationStatus {
            generation: 7,
            digest: "abc".to_owned(),
            stage: Stage::Live,
            since: SystemTime::now(),
            calls: 10,
            failures: BTreeMap::new(),
            functions: vec![function],
            last_error: None,
            load_ms: 1,
            compile_ms: None,
            code_bytes: 0,
            memory_bytes: 0,
            shadow: None,
        };
        let shadow = ShadowStatus {
            agreed: 5,
            differed: BTreeMap::from([("accept → deny".to_owned(), 2)]),
            ..Default::default()
        };
        let candidate = GenerationStatus { generation: 8, stage: Stage::Shadow, shadow: Some(shadow), ..live.clone() };
        let (slot, plugin, source) = ("router".to_owned(), "my \"own\"".to_owned(), "/x".to_owned());
        let (candidate, previous, refused, history) = (Some(candidate), None, Vec::new(), Vec::new());
        let (swaps, rollbacks, refusals, alerts, overloaded, unsaved) = (6, 5, 4, 3, 1, None);
        let (instances, memory_bytes) = (2, 2 << 20);
        #[rustfmt::skip]
        let status = PluginStatus {
            slot, plugin, source, live, candidate, previous, refused, history, swaps, rollbacks, refusals, alerts, overloaded,
            instances, memory_bytes, unsaved,
        };
        status
    }

    #[test]
    fn every_slot_generation_function_and_outcome_is_shown() {
        let mut text = Exposition::default();
        plugins(&mut text, &[sample()], 1 << 30);
        let text = text.text();
        let of = r#"slot="router",plugin="my \"own\"",generation="7""#;
        for line in [
            format!(r#"hotgate_plugin_info{{{of},digest="abc",stage="live"}} 1"#),
            format!(r#"hotgate_plugin_calls_total{{{of},function="greet",outcome="ok"}} 7"#),
            format!(r#"hotgate_plugin_calls_total{{{of},function="greet",outcome="trap"}} 3"#),
            format!(r#"hotgate_plugin_call_seconds{{{of},function="greet",quantile="0.99"}} 0.002"#),
            format!(r#"hotgate_plugin_call_seconds_sum{{{of},function="greet"}} 2.5"#),
            format!(r#"hotgate_plugin_call_seconds_count{{{of},function="greet"}} 10"#),
            format!(
                r#"hotgate_plugin_shadow_verdicts_total{{{},outcome="accept → deny"}} 2"#,
                of.replace("\"7\"", "\"8\"")
            ),
            "hotgate_plugin_memory_limit_bytes 1073741824".to_owned(),
            r#"hotgate_plugin_memory_bytes{slot="router",plugin="my \"own\""} 2097152"#.to_owned(),
            r#"hotgate_plugin_instances{slot="router",plugin="my \"own\""} 2"#.to_owned(),
            r#"hotgate_plugin_swaps_total{slot="router",plugin="my \"own\""} 6"#.to_owned(),
            r#"hotgate_plugin_refusals_total{slot="router",plugin="my \"own\""} 4"#.to_owned(),
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in:\n{text}");
        }
    }

    #[test]
    fn the_page_of_metrics_has_all_of_them() {
        let mut text = Exposition::default();
        process(&mut text, SystemTime::now());
        counted(&mut text);
        certificates(&mut text, &Certificates::default());
        plugins(&mut text, &[sample()], 0);
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
