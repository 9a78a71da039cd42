//! `plugin.toml`: how the plugin in a folder is built, and what it is told while it is developed.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::process::{Child, Command};

use super::MAX_TEXT;
use super::setting::Written;
use crate::config::read_text;

/// Its name.
pub(super) const FILE: &str = "plugin.toml";

/// A folder with a plugin's sources.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Project {
    /// The shell command that builds it, run in its folder.
    pub(super) build: String,
    /// What comes out.
    pub(super) component: PathBuf,
    /// Files and folders whose change makes it worth building again.
    pub(super) watch: Vec<PathBuf>,
    /// Of those, what the build itself writes.
    #[serde(default)]
    pub(super) ignore: Vec<PathBuf>,
    /// As in `hotgate.toml`.
    #[serde(default)]
    pub(super) settings: Written,
}

impl Project {
    /// Reads the project in a folder. Blocks. Paths in it stay relative.
    ///
    /// # Errors
    /// When there is none, or it is not one.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let shown = path.display();
        let text = read_text(&path, MAX_TEXT).with_context(|| {
            format!("cannot read {shown}, which says how the plugin is built (`hotgate plugin new` writes one)")
        })?;
        let project: Self = toml::from_str(&text).with_context(|| format!("{shown} cannot be"))?;
        ensure!(!project.build.trim().is_empty(), "{shown}: build must be a shell command");
        ensure!(!project.watch.is_empty(), "{shown}: watch must name files or folders");
        for path in &project.watch {
            ensure!(folder.join(path).exists(), "{shown}: watch: there is no {}", path.display());
        }
        Ok(project)
    }

    /// Starts to build it; what the command says goes to standard error.
    ///
    /// # Errors
    /// When there is no shell.
    pub(super) fn build(&self, folder: &Path) -> anyhow::Result<Build> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(&self.build).current_dir(folder).stdin(Stdio::null()).stdout(std::io::stderr());
        // Of its own group, to be ended with all that it starts.
        let child = shell.process_group(0).spawn().context("cannot run sh to build the plugin")?;
        Ok(Build { group: child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)), child })
    }
}

/// A build that is under way. It ends when this is dropped.
pub(super) struct Build {
    child: Child,
    /// Its processes, while there are some.
    group: Option<Pid>,
}

impl Build {
    /// Waits for its end. Returns whether it has succeeded.
    ///
    /// # Errors
    /// When the operating system does not tell.
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
