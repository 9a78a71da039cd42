//! Builds what the tests start: the binary, and plugins as component files.
//!
//! Cargo gives a package's binaries to its own integration tests only, and `cargo test` builds those of another package
//! just when that one happens to have integration tests. So the tests ask Cargo themselves, once per run and into the
//! same target directory: that is fresh code however they were started, and next to no time when it is built already.
//! The lock on the target directory is free by then: `cargo test` releases it before it runs anything.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The `hotgate` to test: the one that `HOTGATE_BIN` names, or else built from this workspace with the profile of the
/// tests themselves.
pub(crate) fn hotgate() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("HOTGATE_BIN") {
        Some(path) => path.into(),
        None => {
            let profile = profile_folder();
            // The whole workspace, as `cargo test --workspace` takes it: alone, the binary would be built with fewer
            // features of what it shares with the others, which is to say with most of it compiled once more.
            let mut cargo = cargo();
            cargo.args(["build", "--workspace", "--bins"]);
            cargo.args(["--profile", profile_name(&profile)]).arg("--target-dir").arg(parent(&profile));
            run(cargo);
            profile.join(format!("hotgate{}", std::env::consts::EXE_SUFFIX))
        }
    })
}

/// A component built from this workspace for `wasm32-wasip2`, by its file name.
pub(crate) fn component(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let target = parent(&profile_folder()).join("fixtures");
            let mut cargo = cargo();
            cargo.args(["build", "--release", "--target", "wasm32-wasip2", "--target-dir"]).arg(&target);
            cargo.args(["--package", "hotgate-fixtures", "--package", "origin-auth", "--package", "origin-router"]);
            run(cargo);
            target.join("wasm32-wasip2").join("release")
        })
        .join(name)
}

/// A place below the target directory for what is worth keeping between runs.
pub fn cache(name: &str) -> PathBuf {
    parent(&profile_folder()).join(name)
}

/// `target/PROFILE`, where the running test was built.
fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its own file");
    let folder = parent(&test);
    if folder.ends_with("deps") { parent(&folder) } else { folder }
}

/// The profile that builds into this folder.
fn profile_name(folder: &Path) -> &str {
    match folder.file_name().and_then(|name| name.to_str()).expect("a folder named as a profile") {
        "debug" => "dev",
        name => name,
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().expect("a path below the target directory").to_owned()
}

/// Cargo in the workspace, as if called from a shell: the variables that it sets for a running test are about the test.
fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_"].iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// # Panics
/// When it fails, with what it said.
fn run(mut command: Command) {
    // Past the runner's capture of what tests print: this may take a while.
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    _ = writeln!(std::io::stderr(), "cargo {}", arguments.join(" "));
    let output = command.stdin(Stdio::null()).output().expect("cargo runs");
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
}
