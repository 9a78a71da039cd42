//! The devkit: the tools of plugin authors, for the time before a plugin serves anybody. The devkit runs a plugin on
//! the gateway's own runtime, within the same limits, without a network. Unlike the gateway, it reports why a call
//! failed and why a component cannot be loaded. For this it uses `plugin` directly, beside `policy`.
//!
//! | file | what it does |
//! | --- | --- |
//! | `check`, `contract` | inspects a component, and compares it with the gateway's contract |
//! | `run`, `cases`, `conversation`, `expectation`, `comparison` | calls a plugin step by step, and compares the answers |
//! | `publication`, `data` | parts of a case as authors write them |
//! | `bench` | measures how long calls take |
//! | `new` | writes a new project |
//! | `dev`, `project`, `setting` | builds a project after each change, and serves the result |
//! | `capture` | keeps the log lines of the plugin |

pub mod bench;
pub mod capture;
mod cases;
pub mod check;
mod comparison;
mod contract;
mod conversation;
mod data;
pub mod dev;
mod expectation;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod new;
mod project;
pub mod publication;
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

/// One component, and the runtime that it is tried on.
pub struct DevKit {
    runtime: Arc<Runtime>,
    plugin: PluginConfig,
    code: Vec<u8>,
}

impl DevKit {
    /// Opens a component: a file, or `builtin:NAME`. If the configuration has a plugin with this file, its limits
    /// apply, and its settings unless `settings` are given; otherwise the defaults apply. Compiled code is kept in the
    /// folder `cache`.
    ///
    /// # Errors
    /// When the file cannot be read, or the runtime cannot be started.
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
        let demand = Demand::of(&plugin.limits, Roles { authenticator: true, router: true, publications: true });
        let runtime = Runtime::start(demand, &config.engine, &config.compiler, registry(), Arc::new(cache))?;
        Ok(Self { runtime, plugin, code })
    }

    /// Returns the bytes of the component.
    pub fn code(&self) -> &[u8] {
        &self.code
    }

    /// Loads the plugin for these roles. If `settings` are given, they replace the plugin's own.
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

/// Returns the user's cache folder for this program (XDG base directories).
pub fn cache_folder() -> PathBuf {
    let folder = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    // Without a home, a folder in the temporary directory. Others may write there: the folder is only used while it
    // belongs to the user.
    cache.map_or_else(|| env::temp_dir().join(format!("hotgate-{}", geteuid().as_raw())), |cache| cache.join("hotgate"))
}

/// The largest case file or `plugin.toml`, in bytes.
const MAX_TEXT: usize = 4 << 20;
