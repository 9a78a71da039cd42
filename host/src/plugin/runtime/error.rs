//! The errors of plugin calls.

use std::time::Duration;

use super::frames::Frames;

/// Why a call of a plugin has no result. The call has had no effect at all.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The plugin's code failed: a panic, an out-of-bounds access, an exit.
    #[error("it trapped: {reason}{}", said(.stderr))]
    Trap {
        /// The reason that the WebAssembly engine gives.
        reason: String,
        /// The functions that were running.
        backtrace: Frames,
        /// What the plugin wrote to stderr during the call.
        stderr: String,
    },
    /// The call ran or waited for too long.
    #[error("it had not ended after {:?} (limits.{}){}", .limit.value, .limit.setting, said(.stderr))]
    Deadline {
        /// How long the call may take.
        limit: TimeLimit,
        /// What the plugin wrote to stderr during the call.
        stderr: String,
    },
    /// The plugin wanted more of something than it may have.
    #[error("it {did}, the limit is {limit} ({setting}){}{}", then(.reason), said(.stderr))]
    Limit {
        /// What the plugin did.
        did: String,
        /// The value of the setting.
        limit: usize,
        /// The name of the setting.
        setting: &'static str,
        /// How the plugin failed then; may be empty.
        reason: String,
        /// The functions that were running.
        backtrace: Frames,
        /// What the plugin wrote to stderr during the call.
        stderr: String,
    },
    /// The plugin returned something that the contract does not allow, or too much.
    #[error("it returned {0}")]
    Result(String),
    /// The call could not begin in time.
    #[error(
        "it could not begin within {waited:?} (limits.max_wait); {concurrency} calls may run at a time \
         (limits.concurrency)"
    )]
    Overloaded {
        /// `limits.concurrency`.
        concurrency: usize,
        /// `limits.max_wait`.
        waited: Duration,
    },
    /// The host has no room for another instance.
    #[error("no instance could be made: {0}")]
    NoRoom(String),
}

/// How long a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimit {
    /// The name of the setting.
    pub setting: &'static str,
    /// The value of the setting.
    pub value: Duration,
}

fn then(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!("; {reason}") }
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("; stderr: {stderr}") }
}

pub(crate) const MEMORY: &str = "limits.memory";
pub(crate) const ENGINE_MEMORY: &str = "engine.memory";
pub(crate) const TABLE_ELEMENTS: &str = "limits.table_elements";

/// The kinds of failures, which are counted separately.
pub(crate) const KINDS: [&str; 5] = ["trap", "deadline", "memory", "limit", "result"];

impl CallError {
    /// Returns the kind of the failure in one word, as it is counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Trap { .. } => "trap",
            Self::Deadline { .. } => "deadline",
            Self::Limit { setting, .. } if [MEMORY, ENGINE_MEMORY].contains(setting) => "memory",
            Self::Limit { .. } => "limit",
            Self::Result(_) => "result",
            Self::Overloaded { .. } | Self::NoRoom(_) => "overloaded",
        }
    }

    /// Returns `true` if the call was refused because of overload. That is not a failure of the plugin.
    pub fn is_overload(&self) -> bool {
        matches!(self, Self::Overloaded { .. } | Self::NoRoom(_))
    }

    /// Returns the functions that were running when the call failed, if known.
    pub fn backtrace(&self) -> Option<&Frames> {
        match self {
            Self::Trap { backtrace, .. } | Self::Limit { backtrace, .. } => Some(backtrace).filter(|it| !it.is_empty()),
            _ => None,
        }
    }
}
