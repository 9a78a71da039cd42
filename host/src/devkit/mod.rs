//! The devkit: what plugin authors use before a plugin serves anybody. Everything here runs a plugin on the runtime that
//! the gateway runs it on, within the same limits, without a network. Unlike the gateway it wants to know why a call failed,
//! and what a component is that could not be loaded: so it looks past `policy`, into `plugin`.
//!
//! | file | what |
//! | --- | --- |
//! | `check`, `contract` | what a component is, and where it is not what the gateway knows |
//! | `run`, `cases`, `play`, `outcome` | conversations with a plugin, and what is expected of it |
//! | `bench` | how long its calls take |
//! | `new` | a project to begin with |
//! | `dev`, `project`, `setting` | builds on each change, and serves what was built |
//! | `voice` | what a plugin says meanwhile |

pub mod bench;
pub mod capture;
mod cases;
pub mod check;
mod contract;
mod conversation;
pub mod dev;
mod expectation;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod new;
mod project;
pub mod run;
mod setting;

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rustix::process::geteuid;

use crate::base::state::StateFolder;
use crate::config::{Config, DuplicateLogin, PluginConfig, PluginSource, Settings};
use crate::hub::registry::Registry;
use crate::plugin::{Demand, Roles, Runtime, Surroundings, read_component};
use crate::policy::Harness;

/// A plugin that is worked on.
pub struct DevKit {
    runtime: Arc<Runtime>,
    plugin: PluginConfig,
    code: Vec<u8>,
}

impl DevKit {
    /// Takes a component from a file, or by `builtin:NAME`. Limits, and settings where none are given, are those of the plugin
    /// with this file in the configuration, or else the defaults. What was compiled is kept in the folder `cache`.
    ///
    /// # Errors
    /// When the file cannot be read, or the runtime not be started.
    pub fn open(file: &Path, config: &Config, settings: Option<Settings>, cache: &Path) -> anyhow::Result<Self> {
        let source = match file.to_str().and_then(|name| name.strip_prefix("builtin:")) {
            Some(name) => PluginSource::Builtin(name.to_owned()),
            None => PluginSource::File(std::path::absolute(file)?),
        };
        let configured =
            config.authenticators.iter().chain([&config.router.plugin]).find(|plugin| plugin.source == source);
        let mut plugin = configured.cloned().unwrap_or_else(|| PluginConfig::authenticator(source));
        if let Some(settings) = settings {
            plugin.settings = settings;
        }
        let code = read_component(&plugin.source, plugin.limits.max_component);
        let code = code.with_context(|| format!("cannot read {}", file.display()))?;
        let cache = StateFolder::open(Some(cache));
        let demand = Demand::of(&plugin.limits, Roles { authenticator: true, router: true });
        let runtime = Runtime::start(demand, &config.engine, &config.compiler, registry(), Arc::new(cache))?;
        Ok(Self { runtime, plugin, code })
    }

    /// The component.
    pub fn code(&self) -> &[u8] {
        &self.code
    }

    /// Loads the plugin for these roles, with other settings than its own where some are given.
    async fn load(
        &self,
        roles: Roles,
        settings: Option<Settings>,
        surroundings: Surroundings,
    ) -> anyhow::Result<(Harness, Arc<Registry>)> {
        let registry = registry();
        let mut plugin = self.plugin.clone();
        if let Some(settings) = settings {
            plugin.settings = settings;
        }
        let harness = Harness::load(&plugin, roles, self.runtime.apart(registry.clone(), surroundings)).await?;
        Ok((harness, registry))
    }
}

fn registry() -> Arc<Registry> {
    Arc::new(Registry::new(DuplicateLogin::Newest))
}

/// Where the user's programs keep what they can make again (XDG base directories).
pub fn cache_folder() -> PathBuf {
    let folder = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    // Where others may write, it is only used while it is the user's own.
    cache.map_or_else(|| env::temp_dir().join(format!("hotgate-{}", geteuid().as_raw())), |cache| cache.join("hotgate"))
}

/// Bytes of a case file or `plugin.toml`.
const MAX_TEXT: usize = 4 << 20;
