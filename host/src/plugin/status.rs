//! The status of a slot for operators: which generation serves, which one comes next, which one served before, and how
//! they performed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::base::histogram::Times;

/// A slot and its generations.
#[derive(Debug, Clone, Serialize)]
pub struct PluginStatus {
    /// The name of the slot, after the roles of its plugin: `authenticator`, `authenticator-2`, `router`,
    /// `authenticator+router`.
    pub slot: String,
    /// The stem of the plugin file's name, or the name of the built-in plugin.
    pub plugin: String,
    /// Where the component comes from: a path or `builtin:NAME`.
    pub source: String,
    /// The generation that serves all connections, or all except the connections of the canary.
    pub live: GenerationStatus,
    /// The generation that is in shadow or serves as a canary.
    pub candidate: Option<GenerationStatus>,
    /// The generation that a rollback brings back.
    pub previous: Option<GenerationStatus>,
    /// Components or settings that are there now but do not serve. Empty if all of them serve or are being deployed.
    pub refused: Vec<Unserved>,
    /// The latest events, oldest first.
    pub history: Vec<Event>,
    /// Number of generations that went live after the first generation.
    pub swaps: u64,
    /// Number of generations that were rolled back, automatically or by an operator.
    pub rollbacks: u64,
    /// Number of components that were refused.
    pub refusals: u64,
    /// Number of times that a generation failed too often and was not rolled back.
    pub alerts: u64,
    /// Number of calls that were refused because too many calls were running or no memory was free.
    pub overloaded: u64,
    /// Number of calls that run now.
    pub running: usize,
    /// Number of calls that wait now for a place (`limits.concurrency`), for their turn or for memory.
    pub waiting: usize,
    /// Number of instances of all generations.
    pub instances: usize,
    /// Bytes of linear memory of these instances.
    pub memory_bytes: usize,
    /// Why rollbacks cannot be remembered for the next start; `None` if they can.
    pub unsaved: Option<String>,
}

/// The result of a deploy.
#[derive(Debug, Clone, Serialize)]
pub struct Deployed {
    /// The slot that the component was deployed to.
    #[serde(flatten)]
    pub status: PluginStatus,
    /// All slots that serve the file, including this slot. The other slots take the component like any changed file.
    pub slots: Vec<String>,
    /// Where the symbolic link led, if the plugin file was one. The component has replaced the link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_link: Option<String>,
}

/// A component or settings that should serve but do not.
#[derive(Debug, Clone, Serialize)]
pub struct Unserved {
    /// `component` or `settings`.
    pub what: &'static str,
    /// The SHA-256 of the component, in hexadecimal, if it could be read.
    pub digest: Option<String>,
    /// Why they do not serve.
    pub reason: String,
}

/// The stage of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It decides about some first packets, without effect.
    Shadow,
    /// It serves some of the new connections.
    Canary,
    /// It serves all connections, and is rolled back if it fails too often.
    Probation,
    /// It serves all connections, for good.
    Live,
    /// It served before, and is kept for a rollback.
    Kept,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shadow => "shadow",
            Self::Canary => "canary",
            Self::Probation => "probation",
            Self::Live => "live",
            Self::Kept => "kept",
        })
    }
}

/// One generation.
#[derive(Debug, Clone, Serialize)]
pub struct GenerationStatus {
    /// The number of the generation in its slot, from 1.
    pub generation: u64,
    /// The SHA-256 of its component, in hexadecimal.
    pub digest: String,
    /// The stage of the generation.
    pub stage: Stage,
    /// When the generation reached this stage.
    #[serde(serialize_with = "time")]
    pub since: SystemTime,
    /// Number of calls that have ended, successful or failed.
    pub calls: u64,
    /// Number of failed calls by kind: `trap`, `deadline`, `memory`, `limit`, `result`.
    pub failures: BTreeMap<&'static str, u64>,
    /// The functions that were called, with their times.
    pub functions: Vec<FunctionStatus>,
    /// The last failure.
    pub last_error: Option<LastError>,
    /// Time from reading the component to the end of its checks, in ms.
    pub load_ms: u64,
    /// Time that compiling took, now or in an earlier run, in ms; `None` if the component came from another generation.
    pub compile_ms: Option<u64>,
    /// Bytes of machine code.
    pub code_bytes: usize,
    /// Bytes of linear memory of an instance at its start.
    pub memory_bytes: usize,
    /// How its decisions in shadow compare with the live generation's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowStatus>,
}

/// One function of a plugin.
#[derive(Debug, Clone, Serialize)]
pub struct FunctionStatus {
    /// The name of the function in the contract: `greet`, `authenticate`, `opened`, `route`, `closed`, `push`,
    /// `publish`.
    pub function: &'static str,
    /// Number of calls that have ended, successful or failed.
    pub calls: u64,
    /// Number of failed calls by kind.
    pub failures: BTreeMap<&'static str, u64>,
    /// Time of all calls together, in microseconds.
    pub total_us: u64,
    /// Half of the calls took at most this long, in microseconds.
    pub p50_us: u64,
    /// 99 of 100 calls took at most this long, in microseconds.
    pub p99_us: u64,
    /// The times of all calls, for the metrics.
    #[serde(skip)]
    pub times: Times,
}

/// A failure.
#[derive(Debug, Clone, Serialize)]
pub struct LastError {
    /// When it happened.
    #[serde(serialize_with = "time")]
    pub at: SystemTime,
    /// The function that failed.
    pub function: &'static str,
    /// `trap`, `deadline`, `memory`, `limit` or `result`.
    pub kind: &'static str,
    /// The reason, as in the log.
    pub reason: String,
}

/// The verdicts of a generation in shadow, compared with the verdicts of the live generation.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ShadowStatus {
    /// First packets for which both verdicts are known.
    pub compared: u64,
    /// First packets with the same verdict, and for `accept` the same uid.
    pub agreed: u64,
    /// First packets with different verdicts, counted by both verdicts, the live generation's first: `accept → deny`.
    /// `accept → accept` means different uids.
    pub differed: BTreeMap<String, u64>,
    /// Sampled first packets that were not judged, because the generation in shadow did not keep up.
    pub skipped: u64,
}

/// An event in a slot.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// When it happened.
    #[serde(serialize_with = "time")]
    pub at: SystemTime,
    /// What happened.
    pub what: EventKind,
    /// The generation that the event is about; `None` for a component that did not become a generation.
    pub generation: Option<u64>,
    /// The SHA-256 of the component, in hexadecimal, if it could be read.
    pub digest: Option<String>,
    /// Why it happened, if a reason is known.
    pub reason: Option<String>,
}

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The component did not pass the checks, or was refused before.
    Refused,
    /// The generation decides in shadow.
    Shadow,
    /// The generation serves some of the new connections.
    Canary,
    /// The generation serves all connections, on probation.
    Probation,
    /// The generation serves all connections, for good.
    Live,
    /// The generation fails more often than the generation before, and was not rolled back.
    Alert,
    /// The generation was given up before it served all connections: its file is the live component again.
    Withdrawn,
    /// The generation was rolled back, or given up before it served all connections.
    RolledBack,
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Shadow => "in shadow",
            Self::Canary => "canary",
            Self::Probation => "on probation",
            Self::Live => "live",
            Self::Alert => "alert",
            Self::Withdrawn => "withdrawn",
            Self::RolledBack => "rolled back",
        })
    }
}

fn time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}
