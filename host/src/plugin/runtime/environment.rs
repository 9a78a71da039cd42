//! The environment of a plugin: its settings as environment variables, the clock, and random numbers.

use std::time::SystemTime;

use crate::config::{Settings, Values};
use crate::plugin::blocking::Unready;

/// The settings that a plugin gets.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    /// The settings as configured.
    pub(crate) settings: Settings,
    /// The values at the time when the plugin was loaded.
    pub(crate) values: Values,
}

impl Environment {
    /// Reads the current values of settings. Blocks.
    ///
    /// # Errors
    /// [`Unready`] if a file that holds a value cannot be used.
    pub(crate) fn read(settings: Settings) -> anyhow::Result<Self> {
        let values = settings.read().map_err(Unready)?;
        Ok(Self { settings, values })
    }
}

/// A fixed clock and fixed random numbers, so that the behaviour of plugins is predictable. `None` means the real ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The time that the wall clock always shows.
    pub clock: Option<SystemTime>,
    /// The seed of random numbers: each instance gets the same numbers.
    pub random: Option<u64>,
}
