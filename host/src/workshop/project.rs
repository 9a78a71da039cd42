//! `plugin.toml`: how the plugin in a folder is built, and what it is told while it is developed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use toml::Value;

/// Its name.
pub(super) const FILE: &str = "plugin.toml";

/// A folder with a plugin's sources.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Project {
    /// The shell command that builds it, run in its folder.
    pub(super) build: String,
    /// What comes out.
    pub(super) component: PathBuf,
    /// Files and folders whose change makes it worth building again.
    pub(super) watch: Vec<PathBuf>,
    /// As in `hotgate.toml`.
    #[serde(default)]
    pub(super) settings: BTreeMap<String, Value>,
}

impl Project {
    /// Reads the project in a folder. Blocks. Paths in it stay relative.
    ///
    /// # Errors
    /// When there is none, or it is not one.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let text = fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read {}, which says how the plugin is built (`hotgate plugin new` writes one)",
                path.display()
            )
        })?;
        let project: Self = toml::from_str(&text).with_context(|| format!("{} cannot be", path.display()))?;
        ensure!(!project.watch.is_empty(), "{}: watch names no files or folders", path.display());
        Ok(project)
    }

    /// Builds it; what the command says goes to standard error. Blocks. Returns whether it succeeded.
    ///
    /// # Errors
    /// When there is no shell.
    pub(super) fn build(&self, folder: &Path) -> anyhow::Result<bool> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{{ {}\n}} >&2", self.build)).current_dir(folder).stdin(Stdio::null());
        Ok(shell.status().context("cannot run sh to build the plugin")?.success())
    }
}
