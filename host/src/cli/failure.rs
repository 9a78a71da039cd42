//! Why a command failed, and the exit code that says so.

use std::process::ExitCode;

use super::output::{complain, refuse};

/// The exit code when the gateway cannot be reached: `EX_UNAVAILABLE` of sysexits.h.
const EXIT_UNAVAILABLE: u8 = 69;

/// Why a command failed.
pub(super) enum Failure {
    /// The settings are wrong.
    Settings(String),
    /// The gateway cannot be reached.
    Unavailable(String),
    /// The request was refused, or did not work.
    Failed(String),
}

impl Failure {
    /// Returns the problem.
    pub(super) fn problem(&self) -> &str {
        match self {
            Self::Settings(problem) | Self::Unavailable(problem) | Self::Failed(problem) => problem,
        }
    }

    /// Names what the problem is about, such as a gateway.
    pub(super) fn about(self, what: &str) -> Self {
        match self {
            Self::Settings(problem) => Self::Settings(format!("{what}: {problem}")),
            Self::Unavailable(problem) => Self::Unavailable(format!("{what}: {problem}")),
            Self::Failed(problem) => Self::Failed(format!("{what}: {problem}")),
        }
    }

    /// Adds what follows from the problem.
    pub(super) fn and(self, what: &str) -> Self {
        match self {
            Self::Settings(problem) => Self::Settings(format!("{problem}; {what}")),
            Self::Unavailable(problem) => Self::Unavailable(format!("{problem}; {what}")),
            Self::Failed(problem) => Self::Failed(format!("{problem}; {what}")),
        }
    }

    /// Prints the problem, and returns the exit code.
    pub(super) fn report(&self) -> ExitCode {
        match self {
            Self::Settings(problem) => refuse(problem),
            Self::Unavailable(problem) => fail(EXIT_UNAVAILABLE, problem),
            Self::Failed(problem) => fail(1, problem),
        }
    }
}

/// Prints a problem, and returns this exit code.
pub(super) fn fail(code: u8, problem: &str) -> ExitCode {
    complain(&problem);
    ExitCode::from(code)
}
