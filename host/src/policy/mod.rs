//! Decisions as plain Rust: [`Authenticator`] (who is this?) and [`Router`] (who gets this?). The only user of the plugin
//! runtime: what plugins return is checked and translated here, and what is left can be carried out as it is.

mod authenticator;
mod command;
mod deploy;
mod read;
mod router;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::authenticator::{Authenticator, Decision, Handshake, Identity, Login};
pub use self::command::{Action, Answer, Closing, Command, Delivery, Ending, Membership, Recipient, Sender, Session};
pub use self::deploy::DeployError;
pub use self::router::Router;
use crate::config::{Config, PluginConfig, PluginLimits};
pub use crate::plugin::PluginStatus;
use crate::plugin::{Roles, Runtime, Seat, Slot, Watch};
use crate::registry::Registry;

/// A plugin failed. It has been logged; what comes of it is the caller's to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a plugin failed")]
pub struct Failed;

/// All plugins, in their places. Watches their files for as long as it lives.
#[derive(Debug)]
pub struct Policy {
    /// Who is this?
    pub authenticator: Authenticator,
    /// Who gets this?
    pub router: Router,
    slots: Vec<Arc<Slot>>,
    _watch: Watch,
}

impl Policy {
    /// Loads every plugin.
    ///
    /// # Errors
    /// When one cannot be loaded or refuses to serve. The error names slot, file and cause.
    pub async fn load(config: &Config, registry: Arc<Registry>) -> anyhow::Result<Self> {
        let places = places(config);
        let concurrency = places.iter().map(|place| place.plugin.limits.concurrency).sum();
        let memory = places.iter().map(|place| place.plugin.limits.memory).max().unwrap_or(0);
        let runtime = Runtime::start(concurrency, memory, registry)?;

        // What a plugin receives it may return, unless the configuration says otherwise.
        let largest = config.websocket.max_message.max(config.text.max_line);
        let default = PluginLimits::default().max_output;
        let mut slots = Vec::new();
        let mut chain: Vec<Option<Seat>> = vec![None; config.authenticators.len()];
        for place in &places {
            let mut plugin = place.plugin.clone();
            if plugin.limits.max_output == default {
                plugin.limits.max_output = default.max(largest);
            }
            let slot = Slot::load(place.name(config), &plugin, place.roles(), runtime.clone()).await?;
            for &index in &place.authenticators {
                chain[index] = Some(Seat::new(slot.clone(), config.authenticators[index].isolation));
            }
            slots.push(slot);
        }
        let router = places.iter().position(|place| place.router).map(|index| slots[index].clone());
        let router = router.ok_or_else(|| anyhow::anyhow!("there is no router"))?;
        Ok(Self {
            authenticator: Authenticator::new(chain.into_iter().flatten().collect()),
            router: Router::new(Seat::new(router, config.router.plugin.isolation)),
            _watch: Watch::start(&slots, &config.watch),
            slots,
        })
    }

    /// What serves in each slot.
    pub fn plugins(&self) -> Vec<PluginStatus> {
        self.slots.iter().map(|slot| slot.status()).collect()
    }
}

/// One plugin and everything that it is for.
struct Place<'a> {
    plugin: &'a PluginConfig,
    /// Its places in the chain.
    authenticators: Vec<usize>,
    router: bool,
}

impl Place<'_> {
    /// Whether they are one plugin: how its calls share instances may differ from role to role.
    fn is(&self, other: &PluginConfig) -> bool {
        let PluginConfig { source, settings, isolation: _, limits, deploy } = other;
        let own = self.plugin;
        (&own.source, &own.settings, &own.limits, &own.deploy) == (source, settings, limits, deploy)
    }

    fn roles(&self) -> Roles {
        Roles { authenticator: !self.authenticators.is_empty(), router: self.router }
    }

    fn name(&self, config: &Config) -> String {
        let alone = config.authenticators.len() == 1;
        let authenticator = |index: &usize| match alone {
            true => "authenticator".to_owned(),
            false => format!("authenticator-{}", index + 1),
        };
        let router = self.router.then(|| "router".to_owned());
        self.authenticators.iter().map(authenticator).chain(router).collect::<Vec<_>>().join("+")
    }
}

/// The distinct plugins of a configuration.
fn places(config: &Config) -> Vec<Place<'_>> {
    let mut places: Vec<Place<'_>> = Vec::new();
    let plugins = config.authenticators.iter().enumerate().map(|(index, plugin)| (Some(index), plugin));
    for (index, plugin) in plugins.chain([(None, &config.router.plugin)]) {
        let known = places.iter().position(|place| place.is(plugin)).unwrap_or_else(|| {
            places.push(Place { plugin, authenticators: Vec::new(), router: false });
            places.len() - 1
        });
        match index {
            Some(index) => places[known].authenticators.push(index),
            None => places[known].router = true,
        }
    }
    places
}
