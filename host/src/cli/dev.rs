//! `hotgate dev`: builds the plugin in a folder before it is served.

use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::output::refuse;
use crate::config::{Config, Source};
use crate::devkit::dev::Builder;

/// Builds the plugin in a folder until it can serve. Returns the configuration to serve it with, the source of the
/// configuration, and the builder for later changes.
///
/// # Errors
/// The exit code, if the folder is no project, the settings are wrong, or a signal ends the command before the plugin
/// can serve.
pub(super) fn prepare(source: &Source, folder: &Path) -> Result<(Config, Source, Builder), ExitCode> {
    if source.file.is_some() {
        let problem = "`hotgate dev` does not take --config: write the plugin's settings into plugin.toml, and set the \
                       rest by flags";
        return Err(refuse(&problem));
    }
    let refused = |error: anyhow::Error| refuse(&format_args!("{error:#}"));
    let mut builder = Builder::open(folder, &source.overrides).map_err(refused)?;
    let mut prepare = || -> anyhow::Result<Option<_>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (mut terminate, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
            // The signals are handled here, so that a running build ends, too.
            tokio::select! {
                ready = builder.first() => ready.map(Some),
                _ = tokio::signal::ctrl_c() => Ok(None),
                _ = terminate.recv() => Ok(None),
                _ = hangup.recv() => Ok(None),
            }
        })
    };
    match prepare().map_err(refused)? {
        Some((source, config)) => Ok((config, source, builder)),
        None => Err(ExitCode::SUCCESS),
    }
}
