//! Why a slot does not serve what its source and settings hold.

use tokio::task::JoinError;

use crate::plugin::blocking::Unready;
use crate::plugin::compile::CompileError;
use crate::plugin::identity::Digest;
use crate::plugin::runtime::error::{CallError, ENGINE_MEMORY};
use crate::plugin::text::line;

/// Bytes of the reason of an event.
pub(crate) const MAX_REASON: usize = 512;

/// Why a slot stays as it is.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeployError {
    /// There is no slot of this name.
    #[error("there is no slot {slot:?}; there are {}", .known.join(", "))]
    NoSuchSlot {
        /// The name.
        slot: String,
        /// The names of all slots.
        known: Vec<String>,
    },
    /// There is nothing to do it to.
    #[error("{0}")]
    NotNow(String),
    /// The component, or its settings, did not pass the checks.
    #[error("refused: {0}")]
    Refused(String),
    /// The component would do, but its file cannot be written.
    #[error("{0}")]
    Failed(String),
}

/// What of a slot's source and settings does not serve, and why.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refused {
    pub(crate) component: Option<Reason>,
    pub(crate) settings: Option<Reason>,
}

/// Why something does not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    /// Of the component, if it could be read.
    pub(crate) digest: Option<Digest>,
    pub(crate) text: String,
    /// It might do at another time.
    pub(crate) is_transient: bool,
    /// There is no machine code: other settings do not help.
    pub(crate) is_of_compiling: bool,
}

impl Reason {
    pub(crate) fn of(error: &anyhow::Error, digest: Option<Digest>) -> Self {
        let is_of_compiling = error.is::<CompileError>();
        Self { digest, text: line(error), is_transient: is_transient(error), is_of_compiling }
    }

    pub(crate) fn rolled_back(digest: Option<Digest>, reason: &str) -> Self {
        Self { digest, text: format!("it was rolled back: {reason}"), is_transient: false, is_of_compiling: false }
    }
}

impl Refused {
    pub(crate) fn reasons(&self) -> impl Iterator<Item = &Reason> {
        self.component.iter().chain(&self.settings)
    }

    /// All of it in one sentence, if there is anything, with the digest of the component that it is about.
    pub(crate) fn told(self) -> Option<(Option<Digest>, String)> {
        match (self.component, self.settings) {
            (Some(component), Some(settings)) if component.text != settings.text => {
                Some((component.digest, format!("{}; its settings: {}", component.text, settings.text)))
            }
            (Some(component), _) => Some((component.digest, component.text)),
            (None, settings) => settings.map(|settings| (None, format!("its settings: {}", settings.text))),
        }
    }
}

/// Whether what was refused for this reason might do at another time: it is not, or not surely, the plugin's doing.
pub(crate) fn is_transient(reason: &anyhow::Error) -> bool {
    let failure = reason.downcast_ref::<CallError>();
    reason.is::<JoinError>()
        || reason.is::<Unready>()
        || reason.downcast_ref::<CompileError>().is_some_and(CompileError::is_transient)
        || failure.is_some_and(|failure| {
            matches!(
                failure,
                CallError::Deadline { .. }
                    | CallError::Overloaded { .. }
                    | CallError::NoRoom(_)
                    | CallError::Limit { setting: ENGINE_MEMORY, .. }
            )
        })
}
