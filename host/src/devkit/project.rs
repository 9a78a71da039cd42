//! `plugin.toml`: how `hotgate dev` builds the plugin in a folder, and which settings the plugin gets.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::process::{Child, Command};

use super::MAX_TEXT;
use super::setting::Written;
use crate::config::read_text;

/// The name of the file.
pub(super) const FILE: &str = "plugin.toml";

/// The content of `plugin.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Project {
    /// The shell command that builds the plugin. It runs in the folder of `plugin.toml`.
    pub(super) build: String,
    /// The component that the build writes.
    pub(super) component: PathBuf,
    /// Files and folders. A change of them starts a build.
    pub(super) watch: Vec<PathBuf>,
    /// The parts of `watch` that the build itself writes.
    #[serde(default)]
    pub(super) ignore: Vec<PathBuf>,
    /// The settings of the plugin, written as in `hotgate.toml`.
    #[serde(default)]
    pub(super) settings: Written,
}

impl Project {
    /// Reads `plugin.toml` in a folder. Blocks. Its paths stay relative.
    ///
    /// # Errors
    /// When the folder has no `plugin.toml`, or the file cannot be used.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let shown = path.display();
        ensure!(
            path.try_exists().unwrap_or(true),
            "there is no {FILE} in {}: give the folder of a plugin's project, or make one with `hotgate plugin new`",
            folder.display()
        );
        let text = read_text(&path, MAX_TEXT).with_context(|| format!("cannot read {shown}"))?;
        let project: Self = toml::from_str(&text).with_context(|| format!("cannot use {shown}"))?;
        ensure!(!project.build.trim().is_empty(), "{shown}: build must be a shell command");
        ensure!(!project.watch.is_empty(), "{shown}: watch must name files or folders");
        for path in &project.watch {
            ensure!(folder.join(path).exists(), "{shown}: watch: there is no {}", path.display());
        }
        Ok(project)
    }

    /// Starts the build. The output of the command goes to standard error.
    ///
    /// # Errors
    /// When `sh` cannot be run.
    pub(super) fn build(&self, folder: &Path) -> anyhow::Result<Build> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(&self.build).current_dir(folder).stdin(Stdio::null()).stdout(std::io::stderr());
        // In a process group of its own, so that everything that it starts can be ended with it.
        let child = shell.process_group(0).spawn().context("cannot run sh to build the plugin")?;
        Ok(Build { group: child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)), child })
    }
}

/// A build that is running. Dropping this ends the build.
pub(super) struct Build {
    child: Child,
    /// Its process group, until the build has ended.
    group: Option<Pid>,
}

impl Build {
    /// Waits until the build has ended. Returns whether it succeeded.
    ///
    /// # Errors
    /// When the operating system does not report the exit status.
    pub(super) async fn succeeded(mut self) -> anyhow::Result<bool> {
        let status = self.child.wait().await?;
        self.group = None;
        Ok(status.success())
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        let _ = self.group.map(|group| kill_process_group(group, Signal::KILL));
    }
}
