//! Shows the plugins of a gateway on a terminal: a table of the generations, then the last events of each slot.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, de};

/// Events shown for each slot.
const EVENTS: usize = 10;
/// Digits shown of a digest, as many as in the log.
const DIGITS: usize = 12;

/// The status of a slot: the fields of [`PluginStatus`](crate::policy::status::PluginStatus) that are shown.
#[derive(Debug, Deserialize)]
pub(super) struct Plugin {
    pub(super) slot: String,
    plugin: String,
    pub(super) source: String,
    live: Generation,
    candidate: Option<Generation>,
    previous: Option<Generation>,
    #[serde(default)]
    refused: Vec<Unserved>,
    history: Vec<Event>,
    overloaded: u64,
    unsaved: Option<String>,
    /// After a deploy: the slots that serve the file.
    #[serde(default)]
    slots: Vec<String>,
    /// After a deploy: the target of the file, if it was a symbolic link.
    replaced_link: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Generation {
    generation: u64,
    digest: String,
    stage: String,
    #[serde(deserialize_with = "time")]
    since: SystemTime,
    calls: u64,
    failures: BTreeMap<String, u64>,
    functions: Vec<Function>,
    last_error: Option<LastError>,
    shadow: Option<Shadow>,
}

#[derive(Debug, Deserialize)]
struct Function {
    p50_us: u64,
    p99_us: u64,
}

#[derive(Debug, Deserialize)]
struct LastError {
    #[serde(deserialize_with = "time")]
    at: SystemTime,
    function: String,
    kind: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Shadow {
    compared: u64,
    agreed: u64,
    differed: BTreeMap<String, u64>,
    skipped: u64,
}

#[derive(Debug, Deserialize)]
struct Unserved {
    what: String,
    digest: Option<String>,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Event {
    #[serde(deserialize_with = "time")]
    at: SystemTime,
    what: String,
    generation: Option<u64>,
    digest: Option<String>,
    reason: Option<String>,
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_rfc3339(&text).map_err(de::Error::custom)
}

impl Plugin {
    fn generations(&self) -> impl Iterator<Item = &Generation> {
        [Some(&self.live), self.candidate.as_ref(), self.previous.as_ref()].into_iter().flatten()
    }

    /// Returns a line about the newest generation that serves or is about to.
    pub(super) fn newest(&self) -> String {
        let Generation { generation, stage, digest, .. } = self.candidate.as_ref().unwrap_or(&self.live);
        format!("generation {generation} of {}: {}, digest {}", tame(&self.slot), tame(stage), short(digest))
    }
}

const HEAD: [&str; 10] = ["SLOT", "PLUGIN", "GENERATION", "STAGE", "SINCE", "CALLS", "FAILED", "P50", "P99", "DIGEST"];

/// Returns the table of all generations, as of `now`.
pub(super) fn generations(plugins: &[Plugin], now: SystemTime) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    for plugin in plugins {
        for (index, generation) in plugin.generations().enumerate() {
            let name = |text: &str| if index == 0 { tame(text) } else { String::new() };
            rows.push(row([name(&plugin.slot), name(&plugin.plugin)], generation, now));
        }
    }
    aligned(&rows)
}

/// Returns the text for all plugins, as of `now`.
pub(super) fn table(plugins: &[Plugin], now: SystemTime) -> String {
    let mut text = generations(plugins, now);
    for plugin in plugins {
        notes(&mut text, plugin, now);
    }
    text
}

fn row([slot, plugin]: [String; 2], generation: &Generation, now: SystemTime) -> [String; 10] {
    let failed: u64 = generation.failures.values().sum();
    // The time of the slowest function.
    let slowest = |time: fn(&Function) -> u64| generation.functions.iter().map(time).max();
    let shown = |time: Option<u64>| time.map_or_else(|| "-".to_owned(), millis);
    [
        slot,
        plugin,
        generation.generation.to_string(),
        tame(&generation.stage),
        ago(generation.since, now),
        generation.calls.to_string(),
        failed.to_string(),
        shown(slowest(|function| function.p50_us)),
        shown(slowest(|function| function.p99_us)),
        short(&generation.digest),
    ]
}

/// Adds what does not fit the table: failures, refusals and events of a slot.
fn notes(text: &mut String, plugin: &Plugin, now: SystemTime) {
    let mut lines = Vec::new();
    for generation in plugin.generations() {
        let number = generation.generation;
        if let Some(LastError { at, function, kind, reason }) = &generation.last_error {
            let counts: Vec<_> = generation.failures.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            let (failures, at) = (counts.join(", "), ago(*at, now));
            lines.push(format!("generation {number} failed: {failures}; last {at}, {function} ({kind}): {reason}"));
        }
        if let Some(Shadow { compared, agreed, differed, skipped }) = &generation.shadow {
            let mut line = format!("generation {number} in shadow: {agreed} of {compared} verdicts agree");
            differed.iter().for_each(|(kind, count)| line += &format!(", {kind}: {count}"));
            lines.push(format!("{line}; {skipped} skipped"));
        }
    }
    if plugin.overloaded > 0 {
        lines.push(format!(
            "{} calls found no free instance in time (limits.concurrency, engine.memory)",
            plugin.overloaded
        ));
    }
    for Unserved { what, digest, reason } in &plugin.refused {
        let digest = digest.as_deref().map(|digest| format!(" ({})", short(digest))).unwrap_or_default();
        let verb = if what == "settings" { "do" } else { "does" };
        lines.push(format!("the {what} on disk{digest} {verb} not serve: {reason}"));
    }
    if let Some(problem) = &plugin.unsaved {
        lines.push(format!(
            "rollbacks cannot be saved, so a restart would load rolled-back components again: {problem}"
        ));
    }
    if plugin.slots.len() > 1 {
        lines.push(format!(
            "the slots {} have the same file; the other slots load it like any changed file",
            plugin.slots.join(", ")
        ));
    }
    if let Some(link) = &plugin.replaced_link {
        lines.push(format!("its file was a symbolic link to {link}; the component has replaced the link"));
    }
    let latest = &plugin.history[plugin.history.len().saturating_sub(EVENTS)..];
    if lines.is_empty() && latest.is_empty() {
        return;
    }
    // Writing to a string does not fail.
    let _ = writeln!(text, "\n{} from {}", tame(&plugin.slot), tame(&plugin.source));
    for line in lines {
        let _ = writeln!(text, "  {}", tame(&line));
    }
    let rows: Vec<_> = latest.iter().map(|event| event_row(event, now)).collect();
    for line in aligned(&rows).lines() {
        let _ = writeln!(text, "  {line}");
    }
}

fn event_row(event: &Event, now: SystemTime) -> [String; 4] {
    let generation = event.generation.map(|number| format!("generation {number}")).unwrap_or_default();
    let digest = event.digest.as_deref().map(short).unwrap_or_default();
    let last = match event.reason.as_deref().map(tame) {
        Some(reason) if digest.is_empty() => reason,
        Some(reason) => format!("{digest}: {reason}"),
        None => digest,
    };
    [ago(event.at, now), tame(&event.what.replace('-', " ")), generation, last]
}

/// Aligns the cells of each column, two spaces apart. The last column keeps its own width.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let line: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  ")).collect();
        text += line.trim_end();
        text.push('\n');
    }
    text
}

pub(super) fn short(digest: &str) -> String {
    tame(digest).chars().take(DIGITS).collect()
}

/// Replaces control characters and line ends: file names and text of plugins must not command the terminal, or look
/// like another line.
pub(super) fn tame(text: &str) -> String {
    crate::plugin::tame(text).replace('\n', " ")
}

fn millis(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10),
        _ => format!("{} ms", micros / 1000),
    }
}

fn ago(time: SystemTime, now: SystemTime) -> String {
    format!("{} ago", span(now.duration_since(time).unwrap_or(Duration::ZERO)))
}

/// Returns a time span in its largest unit.
pub(super) fn span(time: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let (count, unit) = match time.as_secs() {
        seconds @ ..MINUTE => (seconds, "s"),
        seconds @ ..HOUR => (seconds / MINUTE, "min"),
        seconds if seconds < 2 * DAY => (seconds / HOUR, "h"),
        seconds => (seconds / DAY, "days"),
    };
    format!("{count} {unit}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(time: &str) -> SystemTime {
        humantime::parse_rfc3339(time).unwrap()
    }

    #[test]
    fn the_table_tells_the_story() {
        let generation = |number: u64, stage: &str, function: serde_json::Value| {
            json!({
                "generation": number, "digest": "9f2c1a".repeat(10), "stage": stage, "since": "2026-01-02T03:00:00.123Z",
                "calls": 140, "failures": {}, "functions": function, "last_error": null
            })
        };
        let mut live =
            generation(2, "live", json!([{ "p50_us": 9, "p99_us": 12_345 }, { "p50_us": 950, "p99_us": 1 }]));
        live["failures"] = json!({ "trap": 3, "deadline": 1 });
        live["last_error"] = json!({
            "at": "2026-01-02T03:03:50Z", "function": "route", "kind": "trap", "reason": "it trapped: \u{1b}[31m\u{202e}bad"
        });
        let plugins: Vec<Plugin> = serde_json::from_value(json!([{
            "slot": "authenticator", "plugin": "jwt", "source": "/p/jwt.wasm", "live": live,
            "candidate": null, "previous": generation(1, "kept", json!([])), "swaps": 2, "overloaded": 7,
            "refused": [
                { "what": "component", "digest": "cd".repeat(32), "reason": "it is not a WebAssembly component" },
                { "what": "settings", "digest": null, "reason": "KEY is missing" }
            ],
            "history": [
                { "at": "2025-12-24T00:00:00Z", "what": "live", "generation": 1, "digest": "00".repeat(32), "reason": null },
                { "at": "2026-01-02T03:02:00Z", "what": "rolled-back", "generation": 3, "digest": "ab".repeat(32),
                  "reason": "21 % of 140 calls failed" },
                { "at": "2026-01-02T03:04:00Z", "what": "refused", "generation": null, "digest": null, "reason": "no file" }
            ]
        }]))
        .unwrap();
        let expected = "\
SLOT           PLUGIN  GENERATION  STAGE  SINCE      CALLS  FAILED  P50      P99    DIGEST
authenticator  jwt     2           live   4 min ago  140    4       0.95 ms  12 ms  9f2c1a9f2c1a
                       1           kept   4 min ago  140    0       -        -      9f2c1a9f2c1a

authenticator from /p/jwt.wasm
  generation 2 failed: 1 deadline, 3 trap; last 10 s ago, route (trap): it trapped:  [31m bad
  7 calls found no free instance in time (limits.concurrency, engine.memory)
  the component on disk (cdcdcdcdcdcd) does not serve: it is not a WebAssembly component
  the settings on disk do not serve: KEY is missing
  9 days ago  live         generation 1  000000000000
  2 min ago   rolled back  generation 3  abababababab: 21 % of 140 calls failed
  0 s ago     refused                    no file
";
        assert_eq!(table(&plugins, at("2026-01-02T03:04:00.500Z")), expected);
    }

    #[test]
    fn what_the_gateway_says_is_what_is_read() {
        use crate::policy::status::{Event, EventKind, GenerationStatus, PluginStatus, Stage, Unserved};
        let now = SystemTime::now();
        let live = GenerationStatus {
            generation: 1,
            digest: "00".repeat(32),
            stage: Stage::Probation,
            since: now,
            calls: 0,
            failures: BTreeMap::new(),
            functions: Vec::new(),
            last_error: None,
            load_ms: 0,
            compile_ms: None,
            code_bytes: 0,
            memory_bytes: 0,
            shadow: Some(Default::default()),
        };
        let event = Event { at: now, what: EventKind::RolledBack, generation: None, digest: None, reason: None };
        let (slot, plugin, source) = ("router".to_owned(), "x".to_owned(), "builtin:x".to_owned());
        let refused = vec![Unserved { what: "settings", digest: None, reason: "KEY is missing".to_owned() }];
        let (candidate, previous, history) = (None, Some(live.clone()), vec![event]);
        let (swaps, rollbacks, refusals, alerts, overloaded, unsaved) = (0, 0, 0, 0, 0, Some("full".to_owned()));
        #[rustfmt::skip]
        let status = PluginStatus {
            slot, plugin, source, live, candidate, previous, refused, history, swaps, rollbacks, refusals, alerts, overloaded,
            running: 0, waiting: 0, instances: 0, memory_bytes: 0, unsaved,
        };
        let read: Plugin = serde_json::from_value(json!(status)).unwrap();
        let shown = table(&[read], now);
        assert!(shown.contains("probation") && shown.contains("rollbacks cannot be saved"), "{shown}");
    }
}
