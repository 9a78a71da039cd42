//! What operators see of a slot: who serves, who is about to, who did, and how they fared.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

/// A slot and its generations.
#[derive(Debug, Clone, Serialize)]
pub struct PluginStatus {
    /// What the plugin does here: `authenticator`, `authenticator-2`, `router`, `authenticator+router`.
    pub slot: String,
    /// The stem of its file's name, or the name of the built-in plugin.
    pub plugin: String,
    /// Where its component comes from: a path or `builtin:NAME`.
    pub source: String,
    /// What serves everybody, or everybody but the canary's connections.
    pub live: GenerationStatus,
    /// What is in shadow, or serves as a canary.
    pub candidate: Option<GenerationStatus>,
    /// What a rollback brings back.
    pub previous: Option<GenerationStatus>,
    /// What source and settings hold and does not serve. Empty while all of it serves, or is on its way to.
    pub refused: Vec<Unserved>,
    /// What happened last, the oldest first.
    pub history: Vec<Event>,
    /// Generations that have gone live after the first.
    pub swaps: u64,
    /// Generations that were rolled back, by themselves or by an operator.
    pub rollbacks: u64,
    /// Components that were refused.
    pub refusals: u64,
    /// How often a generation failed too often and went on serving.
    pub alerts: u64,
    /// Calls that were shed because as many were running as may run, or no memory was free.
    pub overloaded: u64,
    /// Instances that there are, of all generations.
    pub instances: usize,
    /// Bytes of linear memory that they have.
    pub memory_bytes: usize,
    /// Why what was rolled back cannot be remembered for the next start; `None` if it can.
    pub unsaved: Option<String>,
}

/// What came of a deploy.
#[derive(Debug, Clone, Serialize)]
pub struct Deployed {
    /// The slot that it was deployed to.
    #[serde(flatten)]
    pub status: PluginStatus,
    /// All slots that serve the file, this one included. The others take the component like any changed file.
    pub slots: Vec<String>,
    /// Where the file led, if it was a symbolic link: the component has taken the link's place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_link: Option<String>,
}

/// Something that is there to be served and is not.
#[derive(Debug, Clone, Serialize)]
pub struct Unserved {
    /// `component` or `settings`.
    pub what: &'static str,
    /// The SHA-256 of the component, in hexadecimal, if it could be read.
    pub digest: Option<String>,
    /// Why it does not serve.
    pub reason: String,
}

/// How far a generation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It judges some first packets without effect.
    Shadow,
    /// It serves some of the new connections.
    Canary,
    /// It serves everybody, and is rolled back when it fails too often.
    Probation,
    /// It serves everybody.
    Live,
    /// It served before, and waits for a rollback.
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
    /// Counts the generations of its slot, from 1.
    pub generation: u64,
    /// The SHA-256 of its component, in hexadecimal.
    pub digest: String,
    /// How far it has come.
    pub stage: Stage,
    /// Since when it is at this stage.
    #[serde(serialize_with = "time")]
    pub since: SystemTime,
    /// Calls that have ended, well or not.
    pub calls: u64,
    /// Those that failed, by kind: `trap`, `deadline`, `memory`, `limit`, `result`.
    pub failures: BTreeMap<&'static str, u64>,
    /// Each function that was called, with its times.
    pub functions: Vec<FunctionStatus>,
    /// The last failure.
    pub last_error: Option<LastError>,
    /// From reading its component to the end of its checks, in ms.
    pub load_ms: u64,
    /// How long compiling it took, in ms, now or before; `None` for the component of another generation.
    pub compile_ms: Option<u64>,
    /// Bytes of its machine code.
    pub code_bytes: usize,
    /// Bytes of linear memory of an instance at its start.
    pub memory_bytes: usize,
    /// What came of judging in the shadow of the live one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowStatus>,
}

/// One function of a plugin.
#[derive(Debug, Clone, Serialize)]
pub struct FunctionStatus {
    /// As in the contract: `greet`, `authenticate`, `opened`, `route`, `closed`, `push`.
    pub function: &'static str,
    /// Calls that have ended, well or not.
    pub calls: u64,
    /// Those that failed, by kind.
    pub failures: BTreeMap<&'static str, u64>,
    /// All calls together, in microseconds.
    pub total_us: u64,
    /// Half of the calls took at most this long, in microseconds.
    pub p50_us: u64,
    /// 99 of 100 calls took at most this long, in microseconds.
    pub p99_us: u64,
}

/// A failure.
#[derive(Debug, Clone, Serialize)]
pub struct LastError {
    /// When it happened.
    #[serde(serialize_with = "time")]
    pub at: SystemTime,
    /// In which function.
    pub function: &'static str,
    /// `trap`, `deadline`, `memory`, `limit` or `result`.
    pub kind: &'static str,
    /// As in the log.
    pub reason: String,
}

/// Verdicts of a generation in shadow beside those of the live one.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ShadowStatus {
    /// First packets of which both verdicts are known.
    pub compared: u64,
    /// The same verdict, and for `accept` the same uid.
    pub agreed: u64,
    /// Others, by what the live one said and what this one: `accept → deny`; `accept → accept` is another uid.
    pub differed: BTreeMap<String, u64>,
    /// Sampled first packets that were not judged, because it did not keep up.
    pub skipped: u64,
}

/// Something that happened to a slot.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// When.
    #[serde(serialize_with = "time")]
    pub at: SystemTime,
    /// What.
    pub what: EventKind,
    /// The generation that it happened to; `None` for a component that did not become one.
    pub generation: Option<u64>,
    /// The SHA-256 of the component, in hexadecimal, if it could be read.
    pub digest: Option<String>,
    /// Why, where there is something to say.
    pub reason: Option<String>,
}

/// What can happen to a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// It did not pass the checks, or has been refused before.
    Refused,
    /// It judges in shadow.
    Shadow,
    /// It serves some of the new connections.
    Canary,
    /// It serves everybody, on probation.
    Probation,
    /// It serves everybody for good.
    Live,
    /// It fails more often than the one before; it was not rolled back.
    Alert,
    /// It was given up before it served everybody: its file is again what is live.
    Withdrawn,
    /// It was rolled back, or given up before it served everybody.
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
