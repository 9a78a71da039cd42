//! The default plugins as files, in two versions each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TARGET: &str = "wasm32-wasip2";
const FILES: [&str; 2] = ["origin_auth.wasm", "origin_router.wasm"];

/// A custom section that has only a name. It makes another file with the same plugin.
const CUSTOM_SECTION: [u8; 6] = *b"\0\x04\x03new";

/// Builds the plugins with cargo. Returns their folder.
pub(super) fn build() -> Result<PathBuf, String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = workspace.join("target");
    eprintln!("building the default plugins");
    let status = Command::new("cargo")
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--target",
            TARGET,
            "-p",
            "origin-auth",
            "-p",
            "origin-router",
        ])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(&workspace)
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("cannot run cargo, to build the plugins: {error}"))?;
    if !status.success() {
        return Err(format!("the plugins cannot be built. Is the target there? rustup target add {TARGET}"));
    }
    Ok(target.join(TARGET).join("release"))
}

/// A folder with plugin files and their next versions.
pub(super) struct Plugins {
    pub(super) folder: PathBuf,
}

impl Plugins {
    pub(super) fn lay_out(from: &Path, folder: PathBuf) -> Result<Plugins, String> {
        for file in FILES {
            let from = from.join(file);
            let mut component = fs::read(&from).map_err(|error| format!("{}: {error}", from.display()))?;
            let write = |name: &str, component: &[u8]| {
                fs::write(folder.join(name), component).map_err(|error| format!("{name}: {error}"))
            };
            write(file, &component)?;
            component.extend_from_slice(&CUSTOM_SECTION);
            write(&format!("{file}.next"), &component)?;
        }
        Ok(Plugins { folder })
    }

    /// The settings for a `hotgate.toml` in the same folder.
    pub(super) fn settings(&self) -> String {
        let [auth, router] = FILES;
        format!("[[authenticator]]\nfile = \"{auth}\"\n[router]\nfile = \"{router}\"")
    }

    /// The shell command that replaces the plugins by their next versions.
    pub(super) fn swap(&self) -> String {
        let [auth, router] = FILES;
        format!("cd '{}' && mv {auth}.next {auth} && mv {router}.next {router}", self.folder.display())
    }
}
