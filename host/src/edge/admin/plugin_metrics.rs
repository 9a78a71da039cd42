//! The metrics of plugins. For each slot they are of the live, the next and the previous generation, so their number
//! stays bounded however often plugins are swapped.

use super::exposition::Exposition;
use crate::base::histogram::Edges;
use crate::policy::status::{FunctionStatus, GenerationStatus, PluginStatus};

/// Durations of calls from 10 µs to 1 s.
const CALL_EDGES: Edges = Edges::new(10_240, 12);

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

/// Shows the plugins. `memory` is the bound of all linear memory, in bytes.
pub(super) fn plugins(text: &mut Exposition, plugins: &[PluginStatus], memory: usize) {
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
    text.metric(name, "histogram", "Duration of plugin calls.");
    for (function, [slot, plugin], number) in functions(plugins) {
        let labels = [slot, plugin, ("generation", &*number), ("function", function.function)];
        text.histogram(name, &labels, CALL_EDGES, &function.times);
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
    let meaning = "Calls of a plugin that run now.";
    per_slot("hotgate_plugin_calls_running", meaning, |status| status.running as u64);
    let meaning = "Calls of a plugin that wait now for a place (limits.concurrency), for their turn or for memory.";
    per_slot("hotgate_plugin_calls_waiting", meaning, |status| status.waiting as u64);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::base::histogram::Histogram;
    use crate::policy::status::{ShadowStatus, Stage};

    /// A slot with two generations.
    fn sample() -> PluginStatus {
        let times = Histogram::new();
        (0..10).for_each(|_| times.record(Duration::from_millis(250)));
        let function = FunctionStatus {
            function: "greet",
            calls: 10,
            failures: BTreeMap::from([("trap", 3)]),
            total_us: 2_500_000,
            p50_us: 100,
            p99_us: 2000,
            times: times.load(),
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
        let (instances, memory_bytes, running, waiting) = (2, 2 << 20, 1, 3);
        #[rustfmt::skip]
        let status = PluginStatus {
            slot, plugin, source, live, candidate, previous, refused, history, swaps, rollbacks, refusals, alerts, overloaded,
            running, waiting, instances, memory_bytes, unsaved,
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
            format!(r#"hotgate_plugin_call_seconds_bucket{{{of},function="greet",le="0.00001024"}} 0"#),
            format!(r#"hotgate_plugin_call_seconds_bucket{{{of},function="greet",le="0.33554432"}} 10"#),
            format!(r#"hotgate_plugin_call_seconds_bucket{{{of},function="greet",le="+Inf"}} 10"#),
            format!(r#"hotgate_plugin_call_seconds_sum{{{of},function="greet"}} 2.5"#),
            format!(r#"hotgate_plugin_call_seconds_count{{{of},function="greet"}} 10"#),
            format!(
                r#"hotgate_plugin_shadow_verdicts_total{{{},outcome="accept → deny"}} 2"#,
                of.replace("\"7\"", "\"8\"")
            ),
            "hotgate_plugin_memory_limit_bytes 1073741824".to_owned(),
            r#"hotgate_plugin_memory_bytes{slot="router",plugin="my \"own\""} 2097152"#.to_owned(),
            r#"hotgate_plugin_calls_running{slot="router",plugin="my \"own\""} 1"#.to_owned(),
            r#"hotgate_plugin_calls_waiting{slot="router",plugin="my \"own\""} 3"#.to_owned(),
            r#"hotgate_plugin_instances{slot="router",plugin="my \"own\""} 2"#.to_owned(),
            r#"hotgate_plugin_swaps_total{slot="router",plugin="my \"own\""} 6"#.to_owned(),
            r#"hotgate_plugin_refusals_total{slot="router",plugin="my \"own\""} 4"#.to_owned(),
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in:\n{text}");
        }
    }
}
