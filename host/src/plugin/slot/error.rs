//! Why a slot does not serve the component and the settings on disk.

use tokio::task::JoinError;

use crate::plugin::blocking::Unready;
use crate::plugin::compile::CompileError;
use crate::plugin::identity::Digest;
use crate::plugin::runtime::error::{CallError, ENGINE_MEMORY};
use crate::plugin::text::line;

/// The most bytes of an event's reason.
pub(crate) const MAX_REASON: usize = 512;

/// Why an operation did not change a slot.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeployError {
    /// There is no slot of this name.
    #[error("there is no slot {slot:?}; the slots are {}", .known.join(", "))]
    NoSuchSlot {
        /// The name.
        slot: String,
        /// The names of all slots.
        known: Vec<String>,
    },
    /// The operation is not possible in the slot's present state.
    #[error("{0}")]
    NotNow(String),
    /// The component or its settings did not pass the checks.
    #[error("refused: {0}")]
    Refused(String),
    /// Nothing is wrong with the component, but its file cannot be written.
    #[error("{0}")]
    Failed(String),
}

/// Why the component and the settings on disk do not serve; `None` for each that serves.
#[derive(Debug, Clone, Default)]
pub(crate) struct RefusedOnDisk {
    pub(crate) component: Option<UnservedReason>,
    pub(crate) settings: Option<UnservedReason>,
}

/// Why a component or settings do not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnservedReason {
    /// The digest of the component, if it could be read.
    pub(crate) digest: Option<Digest>,
    pub(crate) text: String,
    /// True if the same component and settings may pass at another time.
    pub(crate) is_transient: bool,
    /// True if the component could not be compiled: other settings do not help.
    pub(crate) is_of_compiling: bool,
}

impl UnservedReason {
    pub(crate) fn of(error: &anyhow::Error, digest: Option<Digest>) -> Self {
        let is_of_compiling = error.is::<CompileError>();
        Self { digest, text: line(error), is_transient: is_transient(error), is_of_compiling }
    }

    pub(crate) fn rolled_back(digest: Option<Digest>, reason: &str) -> Self {
        Self { digest, text: format!("it was rolled back: {reason}"), is_transient: false, is_of_compiling: false }
    }
}

impl RefusedOnDisk {
    pub(crate) fn reasons(&self) -> impl Iterator<Item = &UnservedReason> {
        self.component.iter().chain(&self.settings)
    }

    /// Returns all reasons in one sentence, with the digest of the component; `None` if there are no reasons.
    pub(crate) fn in_words(self) -> Option<(Option<Digest>, String)> {
        match (self.component, self.settings) {
            (Some(component), Some(settings)) if component.text != settings.text => {
                Some((component.digest, format!("{}; the settings: {}", component.text, settings.text)))
            }
            (Some(component), _) => Some((component.digest, component.text)),
            (None, settings) => settings.map(|settings| (None, format!("the settings: {}", settings.text))),
        }
    }
}

/// Returns `true` if the same component and settings may pass at another time, because the plugin may not be the cause.
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
