//! Builds the binary and the plugin components that the tests start.
//!
//! Cargo passes a package's binaries only to the integration tests of the same package. `cargo test` builds binaries of
//! another package only if that package has integration tests. So the tests call Cargo themselves, once in each run,
//! and build into the same target directory. The code is always up to date, and an up-to-date build takes almost no
//! time. `cargo test` has released the lock on the target directory before it runs a test.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use hotgate_nats_tests::profile_folder;

/// The `hotgate` binary to test: the file that `HOTGATE_BIN` names, or a build of this workspace with the tests' own
/// profile.
pub(crate) fn hotgate() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("HOTGATE_BIN") {
        Some(path) => path.into(),
        None => {
            let profile = profile_folder();
            // Builds the whole workspace. Alone, the binary would need fewer features of the dependencies that it
            // shares with other packages, and cargo would compile the WebAssembly engine again. `cargo test` has
            // compiled tokio and what uses it with the paused clock of unit tests. The binary must not have that, so
            // they are compiled once more.
            let mut cargo = cargo();
            cargo.args(["build", "--workspace", "--bins"]);
            cargo.args(["--profile", profile_name(&profile)]).arg("--target-dir").arg(parent(&profile));
            run(cargo);
            profile.join(format!("hotgate{}", std::env::consts::EXE_SUFFIX))
        }
    })
}

/// The path of a component with this file name, built from this workspace for `wasm32-wasip2`.
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

/// A cargo command in the workspace, as if called from a shell. It removes variables that cargo sets for the running
/// test, because they describe the test's package.
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

/// Runs cargo.
///
/// # Panics
/// When cargo fails, with cargo's output.
fn run(mut command: Command) {
    // Writes past the test runner's capture of output, because the build may take long.
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    _ = writeln!(std::io::stderr(), "cargo {}", arguments.join(" "));
    let output = command.stdin(Stdio::null()).output().expect("cargo runs");
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
}
