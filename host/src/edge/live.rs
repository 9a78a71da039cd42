//! The configuration in effect. Some of its keys change while the gateway runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::{ArcSwap, Guard};

use crate::config::Config;

/// The configuration in effect. A key that may change while the gateway runs must be read here each time that it is
/// needed.
#[derive(Debug)]
pub struct LiveConfig {
    config: ArcSwap<Config>,
    /// True if the rates of connections are limited. It is kept apart, because it is read for each message.
    limits_rates: AtomicBool,
}

impl LiveConfig {
    /// Begins with this configuration.
    pub fn new(config: Config) -> Self {
        Self { limits_rates: limits_rates(&config).into(), config: ArcSwap::from_pointee(config) }
    }

    /// Returns the configuration for a short use: not across an `await`.
    pub fn load(&self) -> Guard<Arc<Config>> {
        self.config.load()
    }

    /// Returns the configuration.
    pub fn get(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Puts another configuration into effect.
    pub fn set(&self, config: Config) {
        self.limits_rates.store(limits_rates(&config), Relaxed);
        self.config.store(Arc::new(config));
    }

    /// Returns `true` if the rates of connections are limited.
    pub fn limits_rates(&self) -> bool {
        self.limits_rates.load(Relaxed)
    }
}

fn limits_rates(config: &Config) -> bool {
    config.limits.messages_per_second > 0 || config.limits.bytes_per_second > 0
}
