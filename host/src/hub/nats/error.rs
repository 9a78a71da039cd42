//! What can go wrong, in words for operators.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why there is no connection to a NATS server. No text shows a secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BusError {
    /// A setting cannot be used.
    #[error("{setting}: {reason}")]
    Setting {
        /// The name of the setting.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be used.
    #[error("{}: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The server does not answer.
    #[error("cannot reach {server}: {reason}")]
    Unreachable {
        /// The server, as in the settings.
        server: String,
        /// Why not.
        reason: String,
    },
    /// The server does not let this gateway in.
    #[error("{server} refuses this gateway: {reason}")]
    Refused {
        /// The server, as in the settings.
        server: String,
        /// The reason that the server gives.
        reason: String,
    },
    /// The server and this gateway do not agree on TLS.
    #[error("no TLS connection to {server}: {reason}")]
    Tls {
        /// The server, as in the settings.
        server: String,
        /// Why not.
        reason: String,
    },
    /// The server takes only smaller messages than a frame.
    #[error("{server} accepts at most {max} bytes a message: set its max_payload to at least {needed}")]
    Payload {
        /// The server, as in the settings.
        server: String,
        /// The server's `max_payload`, in bytes.
        max: usize,
        /// The largest frame, in bytes.
        needed: usize,
    },
    /// The server does not say that nobody listens on a subject.
    #[error("{server} does not report that nobody listens on a subject: {reason}")]
    NoResponders {
        /// The server, as in the settings.
        server: String,
        /// Why not.
        reason: String,
    },
    /// The server does not give this user the rights that the cluster needs.
    #[error("{server} does not allow this user to {right} {subject}")]
    Denied {
        /// The server, as in the settings.
        server: String,
        /// The right that is missing.
        right: Right,
        /// The subject.
        subject: String,
    },
    /// What this gateway publishes does not come back to its own subscription.
    #[error("{server} does not deliver messages to {subject} within {millis} ms")]
    Silent {
        /// The server, as in the settings.
        server: String,
        /// The subject.
        subject: String,
        /// The time that the message had, in ms.
        millis: u128,
    },
    /// No server can be used: one error for each.
    #[error("{}", list(.0))]
    Several(Vec<BusError>),
}

/// A right on a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Publishing to it.
    Publish,
    /// Subscribing to it.
    Subscribe,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish => "publish to",
            Self::Subscribe => "subscribe to",
        })
    }
}

/// Why a frame was not sent. It has not left this gateway, and never will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PublishError {
    /// There is no connection to a NATS server.
    #[error("there is no connection to a NATS server")]
    Disconnected,
    /// The server has not processed an earlier message in time.
    #[error("the NATS server does not answer")]
    Stalled,
    /// Too much is under way. Try again after [`flushed`](super::Bus::flushed).
    #[error("too many bytes are on their way to the NATS server")]
    Full,
    /// The frame is larger than [`MAX_FRAME`](super::subject::MAX_FRAME).
    #[error("the frame is larger than {} bytes", super::subject::MAX_FRAME)]
    TooLarge,
    /// The frame is empty. Empty messages are probes.
    #[error("the frame is empty")]
    Empty,
}

impl BusError {
    pub(super) fn setting(setting: &'static str, reason: impl ToString) -> Self {
        Self::Setting { setting, reason: reason.to_string() }
    }

    pub(super) fn file(file: &Path, reason: impl ToString) -> Self {
        Self::File { file: file.to_owned(), reason: reason.to_string() }
    }

    pub(super) fn unreachable(server: &str, reason: impl ToString) -> Self {
        Self::Unreachable { server: server.to_owned(), reason: reason.to_string() }
    }

    /// Makes one error of those of all servers; `None` if there is none.
    pub(super) fn of_all(mut errors: Vec<Self>) -> Option<Self> {
        match errors.len() {
            0 | 1 => errors.pop(),
            _ => Some(Self::Several(errors)),
        }
    }

    /// Returns `true` if the same attempt may succeed later without a change of settings.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } => true,
            Self::Several(errors) => errors.iter().any(Self::is_transient),
            _ => false,
        }
    }
}

fn list(errors: &[BusError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Says in plain words why a connection failed.
pub(super) fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there".to_owned(),
        io::ErrorKind::TimedOut => "it does not answer".to_owned(),
        _ => error.to_string(),
    }
}
