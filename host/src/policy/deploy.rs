//! STAND-IN, replaced by the real one when the stages of a slot are merged: what operators do to slots.

use std::path::Path;

use super::Policy;
use crate::plugin::status::{GenerationStatus, PluginStatus, Stage};

/// Why an operator's wish is not fulfilled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeployError {
    /// No slot has this name.
    #[error("there is no slot {slot:?}; there are: {}", .known.join(", "))]
    NoSuchSlot {
        /// The name.
        slot: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// It makes no sense now.
    #[error("{0}")]
    NotNow(String),
    /// The component was refused.
    #[error("{0}")]
    Refused(String),
    /// The gateway could not do it.
    #[error("{0}")]
    Failed(String),
}

impl Policy {
    /// What serves in each slot.
    pub fn statuses(&self) -> Vec<PluginStatus> {
        let generation = |number, digest: String| GenerationStatus {
            generation: number,
            digest,
            stage: Stage::Live,
            since: std::time::SystemTime::now(),
            calls: 0,
            failures: Default::default(),
            functions: Vec::new(),
            last_error: None,
            shadow: None,
        };
        let status = |old: super::PluginStatus| PluginStatus {
            slot: old.slot,
            plugin: old.plugin,
            source: old.source,
            live: generation(old.generation, old.digest.full()),
            candidate: None,
            previous: None,
            history: Vec::new(),
            swaps: old.generation - 1,
            overloaded: 0,
        };
        self.plugins().into_iter().map(status).collect()
    }

    /// The largest component that this slot takes.
    ///
    /// # Errors
    /// When there is no such slot.
    pub fn max_component(&self, slot: &str) -> Result<usize, DeployError> {
        self.find(slot).map(|_| 64 << 20)
    }

    /// Brings back the generation before.
    ///
    /// # Errors
    /// See [`DeployError`].
    pub async fn rollback(&self, slot: &str) -> Result<PluginStatus, DeployError> {
        self.find(slot)?;
        Err(DeployError::NotNow(format!("{slot}: there is no generation to roll back to")))
    }

    /// Takes the candidate, or the generation on probation, one stage further.
    ///
    /// # Errors
    /// See [`DeployError`].
    pub async fn promote(&self, slot: &str) -> Result<PluginStatus, DeployError> {
        self.find(slot)?;
        Err(DeployError::NotNow(format!("{slot}: there is nothing to promote")))
    }

    /// Reads the slot's file again.
    ///
    /// # Errors
    /// See [`DeployError`].
    pub async fn reload(&self, slot: &str) -> Result<PluginStatus, DeployError> {
        let status = self.find(slot)?;
        match status.source.starts_with("builtin:") {
            true => Err(DeployError::NotNow(format!("{slot}: {} is no file", status.source))),
            false => Ok(status),
        }
    }

    /// Replaces the slot's file by this component.
    ///
    /// # Errors
    /// See [`DeployError`].
    pub async fn deploy(&self, slot: &str, component: Vec<u8>) -> Result<PluginStatus, DeployError> {
        let status = self.reload(slot).await?;
        if !component.starts_with(b"\0asm") {
            return Err(DeployError::Refused(format!("{slot}: it is no WebAssembly component")));
        }
        let path = Path::new(&status.source);
        let write = || {
            std::fs::write(path.with_extension("next"), component)?;
            std::fs::rename(path.with_extension("next"), path)
        };
        write().map_err(|error| DeployError::Failed(error.to_string()))?;
        self.find(slot)
    }

    fn find(&self, slot: &str) -> Result<PluginStatus, DeployError> {
        let mut all = self.statuses();
        let known = all.iter().map(|status| status.slot.clone()).collect();
        let by_slot = all.iter().position(|status| status.slot == slot);
        let position = by_slot.or_else(|| all.iter().position(|status| status.plugin == slot));
        let missing = DeployError::NoSuchSlot { slot: slot.to_owned(), known };
        position.map(|position| all.swap_remove(position)).ok_or(missing)
    }
}
