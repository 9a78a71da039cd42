//! What a plugin finds around it: its settings, as environment variables, and the clock and random numbers.

use std::time::SystemTime;

use crate::config::{Settings, Values};
use crate::plugin::blocking::Unready;

/// What a plugin is told.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    /// As the configuration has it.
    pub(crate) settings: Settings,
    /// The values as they were when it was loaded.
    pub(crate) values: Values,
}

impl Environment {
    /// Settings with their values as they are now. Blocks.
    ///
    /// # Errors
    /// [`Unready`] when a file that one of them stands in cannot be used.
    pub(crate) fn read(settings: Settings) -> anyhow::Result<Self> {
        let values = settings.read().map_err(Unready)?;
        Ok(Self { settings, values })
    }
}

/// What plugins find around them that differs from how it is, so that what they do can be foretold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// What the wall clock says.
    pub clock: Option<SystemTime>,
    /// A seed: each instance finds the same random numbers.
    pub random: Option<u64>,
}
