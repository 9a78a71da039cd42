//! `hotgate config`: checks or prints the configuration.

use std::process::ExitCode;
use std::sync::Arc;

use super::output::{self, refuse, show};
use crate::base::state::StateFolder;
use crate::config::{Config, Source};
use crate::edge::tls::Certificates;
use crate::hub::registry::Registry;
use crate::policy::Policy;
use crate::policy::status::PluginStatus;

/// `hotgate config check`: loads the configuration, its certificates and its plugins as a start would. Prints the
/// plugins that would serve, or the problem.
pub(super) fn check(source: &Source) -> ExitCode {
    let config = match source.load() {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    if let Err(error) = Certificates::load(&config) {
        return refuse(&error);
    }
    match load_plugins(&config) {
        Ok(plugins) => {
            let name = source.file.as_ref().map_or("settings".into(), |path| path.to_string_lossy());
            show(&format!("{plugins}{name}: ok\n"))
        }
        Err(error) => refuse(&format_args!("{error:#}")),
    }
}

/// `hotgate config print`: prints the configuration in effect, or the problem.
pub(super) fn print(source: &Source) -> ExitCode {
    match source.load() {
        Ok(config) => output::print(&config.to_toml()),
        Err(error) => refuse(&error),
    }
}

fn load_plugins(config: &Config) -> anyhow::Result<String> {
    let registry = Arc::new(Registry::new(config.sessions.duplicate_login));
    // Without a state folder: the check leaves no files, and a component kept by an earlier start cannot hide a
    // problem.
    let state = Arc::new(StateFolder::none("it is only a check"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let policy = runtime.block_on(Policy::load(&config.clone().into(), registry, state))?;
    let line = |plugin: PluginStatus| {
        let PluginStatus { slot, plugin, source, live, .. } = plugin;
        format!("{slot}: {plugin}, {}, from {source}\n", &live.digest[..12])
    };
    Ok(policy.plugins().into_iter().map(line).collect())
}
