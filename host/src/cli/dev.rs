//! `hotgate dev`: builds the plugin in a folder before it is served.

use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::output::refuse;
use crate::config::{Config, Source};
use crate::devkit::dev::Builder;

/// `hotgate dev`: builds the plugin in a folder until it can serve. Returns what to serve it with, and what builds it from
/// then on; or the exit code.
///
/// # Errors
/// The exit code: of a folder that is no project, of settings that cannot be, or of being asked to end before there is
/// anything to serve.
pub(super) fn prepare(source: &Source, folder: &Path) -> Result<(Config, Source, Builder), ExitCode> {
    if source.file.is_some() {
        let problem = "`hotgate dev` makes its own configuration: settings of the plugin stand in plugin.toml, the rest \
                       is set by flags";
        return Err(refuse(&problem));
    }
    let refused = |error: anyhow::Error| refuse(&format_args!("{error:#}"));
    let mut builder = Builder::open(folder, &source.overrides).map_err(refused)?;
    let mut prepare = || -> anyhow::Result<Option<_>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (mut terminate, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
            // Ended here, and not by the signal itself, a build ends, too.
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
