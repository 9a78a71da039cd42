//! Decisions as plain Rust: [`Authenticator`] (who is this?) and [`Router`] (who gets this?). The only user of the plugin
//! runtime: what plugins return is checked and translated here, and what is left can be carried out as it is.

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

pub use self::ask::{Handshake, Identity};
pub use self::authenticator::{Authenticator, Decision, Login};
pub use self::harness::{Harness, Verdict};
pub use self::router::{Failed, Router};
use self::shadow::Shadow;
use crate::base::state::StateFolder;
use crate::config::{Config, Loaded, Missing, PluginConfig, PluginLimits};
use crate::hub::registry::Registry;
use crate::plugin::status::{Deployed, PluginStatus};
use crate::plugin::{Demand, Keepers, Ledgers, Roles, Runtime, Seat, Slot, look_after};
pub use crate::plugin::{DeployError, status};

/// How long a start waits for what is new on disk: what is found good or bad by then is so from the first connection on.
const HEAD_START: Duration = Duration::from_millis(500);

/// All plugins, in their places. Watches their files for as long as it lives.
#[derive(Debug)]
pub struct Policy {
    /// Who is this?
    pub authenticator: Authenticator,
    /// Who gets this?
    pub router: Router,
    slots: Vec<Arc<Slot>>,
    memory: usize,
    _keepers: Keepers,
    /// Ended with it.
    _tasks: JoinSet<()>,
}

impl Policy {
    /// Loads every plugin, if possible the generation that served for good in the last run. What is new on disk is offered
    /// afterwards, like any change; the start waits a short time for that.
    ///
    /// # Errors
    /// When nothing has proven itself in a slot, and what is on disk cannot be loaded or refuses to serve. The error names
    /// slot, file and cause.
    pub async fn load(loaded: &Loaded, registry: Arc<Registry>, state: Arc<StateFolder>) -> anyhow::Result<Self> {
        let config = &loaded.config;
        let places = places(config);
        let demand = places.iter().map(|place| Demand::of(&place.plugin.limits, place.roles())).sum();
        let runtime = Runtime::start(demand, &config.engine, &config.compiler, registry.clone(), state)?;

        // What a plugin receives it may return, unless the configuration says otherwise.
        let largest = config.websocket.max_message.max(config.text.max_line);
        let default = PluginLimits::default().max_output;
        let names: Vec<_> = places.iter().map(|place| place.name(config)).collect();
        let plugins = places.iter().map(|place| place.plugin);
        let ledgers = Ledgers::open(&runtime, names.iter().map(String::as_str).zip(plugins)).await?;
        let mut slots = Vec::new();
        let mut chain: Vec<Option<Seat>> = vec![None; config.authenticators.len()];
        for (place, name) in places.iter().zip(names) {
            let mut plugin = place.plugin.clone();
            if plugin.limits.max_output == default {
                plugin.limits.max_output = default.max(largest);
            }
            let slot = Slot::load(name, &plugin, place.roles(), runtime.clone(), &ledgers).await;
            let slot = slot.map_err(|error| match place.missing(loaded).next() {
                Some(missing) => anyhow::Error::msg(missing.problem.clone()),
                None => error,
            })?;
            for &index in &place.authenticators {
                chain[index] = Some(Seat::new(slot.clone(), config.authenticators[index].isolation));
            }
            slots.push(slot);
        }
        let router = places.iter().position(|place| place.router).map(|index| slots[index].clone());
        let router = router.ok_or_else(|| anyhow::anyhow!("there is no router"))?;
        ledgers.prune().await;
        let mut keepers = Keepers::start(&slots, &config.watch);
        let _ = timeout(HEAD_START, keepers.looked()).await;
        let mut tasks = JoinSet::new();
        tasks.spawn(look_after(slots.clone()));
        let chain = chain.into_iter().flatten().map(|seat| (seat.clone(), Shadow::start(seat, &mut tasks)));
        Ok(Self {
            authenticator: Authenticator::new(chain.collect()),
            router: Router::new(Seat::new(router, config.router.plugin.isolation), registry),
            _keepers: keepers,
            _tasks: tasks,
            memory: runtime.memory(),
            slots,
        })
    }

    /// Bytes of linear memory that all plugins together may have.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// What serves in each slot, and what else is there.
    pub fn plugins(&self) -> Vec<PluginStatus> {
        self.slots.iter().map(|slot| slot.status()).collect()
    }

    /// On to the next stage, in the slot of this name, if the newest generation is this one.
    ///
    /// # Errors
    /// Why there is nothing to promote.
    pub async fn promote(&self, slot: &str, generation: Option<u64>) -> Result<PluginStatus, DeployError> {
        let slot = self.slot(slot)?;
        slot.promote(generation).await.map(|()| slot.status())
    }

    /// Back to what served before, in the slot of this name, if the newest generation is this one.
    ///
    /// # Errors
    /// Why there is nothing to go back to.
    pub async fn rollback(&self, slot: &str, generation: Option<u64>) -> Result<PluginStatus, DeployError> {
        let slot = self.slot(slot)?;
        slot.rollback(generation).await.map(|()| slot.status())
    }

    /// Reads source and settings of a slot again, and offers them even if they were rolled back before.
    ///
    /// # Errors
    /// Why they do not do.
    pub async fn reload(&self, slot: &str) -> Result<PluginStatus, DeployError> {
        let slot = self.slot(slot)?;
        slot.reload().await.map(|()| slot.status())
    }

    /// Puts a component in the place of a slot's file, if it passes all checks, and offers it.
    ///
    /// # Errors
    /// Why it does not do, or why the file cannot be written.
    pub async fn deploy(&self, slot: &str, component: Vec<u8>) -> Result<Deployed, DeployError> {
        let slot = self.slot(slot)?;
        let replaced_link = slot.deploy(component).await?;
        let of_file = self.slots.iter().filter(|other| other.source() == slot.source());
        let slots = of_file.map(|slot| slot.name().to_owned()).collect();
        Ok(Deployed { status: slot.status(), slots, replaced_link })
    }

    /// Takes over what another configuration of the same plugins says of their settings and deployment: what comes of it, each
    /// slot says itself. What a slot refused before is tried again if somebody insists.
    pub fn configure(&self, loaded: &Loaded, insist: bool) -> Configured {
        let (config, mut configured) = (&loaded.config, Configured::default());
        for place in places(config) {
            let name = place.name(config);
            // Settings belong to a file: where another one is configured, they wait with it.
            match self.slots.iter().find(|slot| slot.name() == name && *slot.source() == place.plugin.source) {
                Some(slot) => slot.configure(&place.plugin.settings, &place.plugin.deploy, insist),
                None => {
                    configured.missing.extend(place.missing(loaded).map(|missing| missing.problem.clone()));
                    configured.waiting.push(name);
                }
            }
        }
        configured
    }

    /// Has every slot look at its file and the files of its settings again. What was refused before is tried again if somebody
    /// insists.
    pub fn look_again(&self, insist: bool) {
        self.slots.iter().for_each(|slot| slot.look_again(insist));
    }

    /// Waits until what must be remembered is on disk.
    pub async fn save(&self) {
        join_all(self.slots.iter().map(|slot| slot.save())).await;
    }

    /// The largest component that a slot takes, in bytes.
    ///
    /// # Errors
    /// When there is no slot of this name.
    pub fn max_component(&self, slot: &str) -> Result<usize, DeployError> {
        self.slot(slot).map(|slot| slot.max_component())
    }

    /// The slot of this name, or that has this place among others, or else the only one whose plugin has the name.
    fn slot(&self, name: &str) -> Result<&Arc<Slot>, DeployError> {
        let has_place = |slot: &&Arc<Slot>| slot.name() == name || slot.name().split('+').any(|place| place == name);
        let by_slot = self.slots.iter().find(has_place);
        let mut by_plugin = self.slots.iter().filter(|slot| slot.plugin() == name);
        let by_plugin = by_plugin.next().filter(|_| by_plugin.next().is_none());
        by_slot.or(by_plugin).ok_or_else(|| {
            let known = self.slots.iter().map(|slot| slot.name().to_owned()).collect();
            DeployError::NoSuchSlot { slot: name.to_owned(), known }
        })
    }
}

/// What of another configuration is not taken over.
#[derive(Debug, Default)]
pub struct Configured {
    /// Slots that are not there, or hold another plugin: they wait for the next start.
    pub waiting: Vec<String>,
    /// Files that those need and that cannot be read.
    pub missing: Vec<String>,
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

    /// Its files that cannot be read.
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
