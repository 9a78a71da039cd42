//! Asks the plugins and returns their decisions as plain Rust types: [`Authenticator`] (who is this?) and [`Router`]
//! (who gets this?).
//!
//! In a running gateway only this module calls plugins. It checks and converts everything that a plugin returns, so
//! that its callers can carry out the result as it is.

mod ask;
mod authenticator;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod harness;
mod lower;
mod read;
mod router;
mod shadow;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use self::ask::{Decider, Handshake, Identity};
pub use self::authenticator::{Authenticator, Decision, Login};
pub use self::harness::{Harness, Verdict};
pub use self::router::{Failed, PushError, Router};
use self::shadow::Shadow;
use crate::base::state::StateFolder;
use crate::config::{ApiRules, Config, Loaded, Missing, PluginConfig, PluginLimits};
use crate::hub::registry::Registry;
use crate::plugin::status::{Deployed, PluginStatus};
use crate::plugin::{Demand, FileWatchers, Ledgers, PluginHandle, Roles, Runtime, Slot, look_after};
pub use crate::plugin::{DeployError, status};

/// How long a start waits for new components and settings on disk. Those that are accepted or refused within this time
/// already count for the first connection.
const HEAD_START: Duration = Duration::from_millis(500);

/// All plugins of the gateway. Watches their files for as long as it lives.
#[derive(Debug)]
pub struct Policy {
    /// Answers: who is this?
    pub authenticator: Authenticator,
    /// Answers: who gets this?
    pub router: Router,
    slots: Vec<Arc<Slot>>,
    memory: usize,
    _file_watchers: FileWatchers,
    /// Background tasks. They end when this is dropped.
    _tasks: JoinSet<()>,
}

impl Policy {
    /// Loads every plugin. A slot starts with the generation that served for good in the last run, if there was one. A
    /// newer component on disk is offered afterwards, like any change; the start waits a short time for it.
    ///
    /// # Errors
    /// When a slot has no generation that served for good, and the component on disk cannot be loaded or refuses to
    /// serve. The error names slot, file and cause.
    pub async fn load(loaded: &Loaded, registry: Arc<Registry>, state: Arc<StateFolder>) -> anyhow::Result<Self> {
        let config = &loaded.config;
        let slot_configs = slot_configs(config);
        let demand = slot_configs
            .iter()
            .map(|slot_config| Demand::of(&slot_config.plugin.limits, slot_config.roles(config)))
            .sum();
        let runtime = Runtime::start(demand, &config.engine, &config.compiler, registry.clone(), state)?;

        // A plugin may return the largest message that it can receive, unless the configuration sets `max_output`.
        let largest = config.websocket.max_message.max(config.text.max_line).max(config.api.max_message);
        let default = PluginLimits::default().max_output;
        let names: Vec<_> = slot_configs.iter().map(|slot_config| slot_config.name(config)).collect();
        let plugins = slot_configs.iter().map(|slot_config| slot_config.plugin);
        let ledgers = Ledgers::open(&runtime, names.iter().map(String::as_str).zip(plugins)).await?;
        let mut slots = Vec::new();
        let mut chain: Vec<Option<PluginHandle>> = vec![None; config.authenticators.len()];
        for (slot_config, name) in slot_configs.iter().zip(names) {
            let mut plugin = slot_config.plugin.clone();
            if plugin.limits.max_output == default {
                plugin.limits.max_output = default.max(largest);
            }
            let slot = Slot::load(name, &plugin, slot_config.roles(config), runtime.clone(), &ledgers).await;
            let slot = slot.map_err(|error| match slot_config.missing(loaded).next() {
                Some(missing) => anyhow::Error::msg(missing.problem.clone()),
                None => error,
            })?;
            for &index in &slot_config.authenticators {
                chain[index] = Some(PluginHandle::new(slot.clone(), config.authenticators[index].isolation));
            }
            slots.push(slot);
        }
        let router = slot_configs.iter().position(|slot_config| slot_config.router).map(|index| slots[index].clone());
        let router = router.ok_or_else(|| anyhow::anyhow!("there is no router"))?;
        ledgers.prune().await;
        let mut file_watchers = FileWatchers::start(&slots, &config.watch);
        let _ = timeout(HEAD_START, file_watchers.first_checks()).await;
        let mut tasks = JoinSet::new();
        tasks.spawn(look_after(slots.clone()));
        let chain = chain.into_iter().flatten().map(|handle| (handle.clone(), Shadow::start(handle, &mut tasks)));
        Ok(Self {
            authenticator: Authenticator::new(chain.collect()),
            router: Router::new(PluginHandle::new(router, config.router.plugin.isolation), registry),
            _file_watchers: file_watchers,
            _tasks: tasks,
            memory: runtime.memory(),
            slots,
        })
    }

    /// Returns how many bytes of linear memory all plugins together may have.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Returns the status of every slot.
    pub fn plugins(&self) -> Vec<PluginStatus> {
        self.slots.iter().map(|slot| slot.status()).collect()
    }

    /// Moves the newest generation of a slot to its next stage. If `generation` is given, only if it is the newest.
    ///
    /// # Errors
    /// Why no generation was promoted.
    pub async fn promote(&self, slot: &str, generation: Option<u64>) -> Result<PluginStatus, DeployError> {
        let slot = self.slot(slot)?;
        slot.promote(generation).await.map(|()| slot.status())
    }

    /// Returns a slot to the generation that served before. If `generation` is given, only if it is the newest.
    ///
    /// # Errors
    /// Why no generation was rolled back.
    pub async fn rollback(&self, slot: &str, generation: Option<u64>) -> Result<PluginStatus, DeployError> {
        let slot = self.slot(slot)?;
        slot.rollback(generation).await.map(|()| slot.status())
    }

    /// Reads component and settings of a slot again, and offers them even if they were rolled back before.
    ///
    /// # Errors
    /// Why they are refused.
    pub async fn reload(&self, slot: &str) -> Result<PluginStatus, DeployError> {
        let slot = self.slot(slot)?;
        slot.reload().await.map(|()| slot.status())
    }

    /// Replaces a slot's file by this component, if the component passes all checks, and offers it.
    ///
    /// # Errors
    /// Why the component is refused, or why the file cannot be written.
    pub async fn deploy(&self, slot: &str, component: Vec<u8>) -> Result<Deployed, DeployError> {
        let slot = self.slot(slot)?;
        let replaced_link = slot.deploy(component).await?;
        let of_file = self.slots.iter().filter(|other| other.source() == slot.source());
        let slots = of_file.map(|slot| slot.name().to_owned()).collect();
        Ok(Deployed { status: slot.status(), slots, replaced_link })
    }

    /// Takes over the plugins' settings and deploy options from a new configuration. Each slot logs whether it accepts
    /// them. With `insist`, settings that a slot refused before are tried again.
    pub fn configure(&self, loaded: &Loaded, insist: bool) -> Configured {
        let (config, mut configured) = (&loaded.config, Configured::default());
        for slot_config in slot_configs(config) {
            let name = slot_config.name(config);
            // Settings belong to a file. If the configuration names another file, its settings wait with it.
            match self.slots.iter().find(|slot| slot.name() == name && *slot.source() == slot_config.plugin.source) {
                Some(slot) => slot.configure(&slot_config.plugin.settings, &slot_config.plugin.deploy, insist),
                None => {
                    configured.missing.extend(slot_config.missing(loaded).map(|missing| missing.problem.clone()));
                    configured.waiting.push(name);
                }
            }
        }
        configured
    }

    /// Makes every slot look at its file and the files of its settings again. With `insist`, components and settings
    /// that were refused before are tried again.
    pub fn look_again(&self, insist: bool) {
        self.slots.iter().for_each(|slot| slot.look_again(insist));
    }

    /// Waits until the records of all slots are on disk.
    pub async fn save(&self) {
        join_all(self.slots.iter().map(|slot| slot.save())).await;
    }

    /// Returns the size of the largest component that a slot accepts, in bytes.
    ///
    /// # Errors
    /// When no slot has this name.
    pub fn max_component(&self, slot: &str) -> Result<usize, DeployError> {
        self.slot(slot).map(|slot| slot.max_component())
    }

    /// Finds a slot: by its name, by one of its places (`router` finds `authenticator+router`), or by the name of its
    /// plugin if no other slot has a plugin of this name.
    fn slot(&self, name: &str) -> Result<&Arc<Slot>, DeployError> {
        let is_named = |slot: &&Arc<Slot>| slot.name() == name || slot.name().split('+').any(|part| part == name);
        let by_slot = self.slots.iter().find(is_named);
        let mut by_plugin = self.slots.iter().filter(|slot| slot.plugin() == name);
        let by_plugin = by_plugin.next().filter(|_| by_plugin.next().is_none());
        by_slot.or(by_plugin).ok_or_else(|| {
            let known = self.slots.iter().map(|slot| slot.name().to_owned()).collect();
            DeployError::NoSuchSlot { slot: name.to_owned(), known }
        })
    }
}

/// The part of a new configuration that is not taken over.
#[derive(Debug, Default)]
pub struct Configured {
    /// Slots that do not exist, or that hold another plugin: they wait for the next start.
    pub waiting: Vec<String>,
    /// The problems with files that these slots need and that cannot be read.
    pub missing: Vec<String>,
}

/// The configuration of one slot: one distinct plugin, and all its places.
struct SlotConfig<'a> {
    plugin: &'a PluginConfig,
    /// Its positions in the chain of authenticators.
    authenticators: Vec<usize>,
    router: bool,
}

impl SlotConfig<'_> {
    /// Returns whether `other` is the same plugin. `isolation` is ignored: it may differ from role to role.
    fn is(&self, other: &PluginConfig) -> bool {
        let PluginConfig { source, settings, isolation: _, limits, deploy } = other;
        let own = self.plugin;
        (&own.source, &own.settings, &own.limits, &own.deploy) == (source, settings, limits, deploy)
    }

    fn roles(&self, config: &Config) -> Roles {
        let publications = self.router && config.api.enabled && config.api.rules == ApiRules::Router;
        Roles { authenticator: !self.authenticators.is_empty(), router: self.router, publications }
    }

    /// Returns the plugin's files that cannot be read.
    fn missing<'l>(&self, loaded: &'l Loaded) -> impl Iterator<Item = &'l Missing> {
        loaded.missing.iter().filter(|missing| match missing.authenticator {
            Some(index) => self.authenticators.contains(&index),
            None => self.router,
        })
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

/// Returns the slots that a configuration needs: one for each distinct plugin.
fn slot_configs(config: &Config) -> Vec<SlotConfig<'_>> {
    let mut slot_configs: Vec<SlotConfig<'_>> = Vec::new();
    let plugins = config.authenticators.iter().enumerate().map(|(index, plugin)| (Some(index), plugin));
    for (index, plugin) in plugins.chain([(None, &config.router.plugin)]) {
        let known = slot_configs.iter().position(|slot_config| slot_config.is(plugin)).unwrap_or_else(|| {
            slot_configs.push(SlotConfig { plugin, authenticators: Vec::new(), router: false });
            slot_configs.len() - 1
        });
        match index {
            Some(index) => slot_configs[known].authenticators.push(index),
            None => slot_configs[known].router = true,
        }
    }
    slot_configs
}
