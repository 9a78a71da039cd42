//! Compiles the built-in plugins to WebAssembly, so that they can be embedded in the binary.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use anyhow::{Context as _, Result, bail, ensure};

const TARGET: &str = "wasm32-wasip2";

/// The packages to compile, and the files that cargo writes for them.
const PLUGINS: [(&str, &str); 6] = [
    ("echo-router", "echo_router.wasm"),
    ("hmac-auth", "hmac_auth.wasm"),
    ("jwt-auth", "jwt_auth.wasm"),
    ("origin-auth", "origin_auth.wasm"),
    ("origin-router", "origin_router.wasm"),
    ("rooms-router", "rooms_router.wasm"),
];

/// The sources of the plugins. Cargo runs this script again when one of them changes.
const SOURCES: [&str; 11] = [
    "plugins/echo-router",
    "plugins/hmac-auth",
    "plugins/jwt-auth",
    "plugins/origin-auth",
    "plugins/origin-packet",
    "plugins/origin-router",
    "plugins/plugin-settings",
    "plugins/rooms-router",
    "wit",
    "Cargo.toml",
    "Cargo.lock",
];

/// Variables that cargo, clippy or the user set for the build of the host. They must not affect the build of the
/// plugins.
const NOT_INHERITED: [&str; 7] = [
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_BUILD_BUILD_DIR",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTFLAGS",
];

fn main() {
    if let Err(error) = build() {
        println!("cargo::error={error:#}");
        exit(1);
    }
}

fn build() -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package is in no workspace")?;
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo has not set OUT_DIR")?);
    println!("cargo::rerun-if-changed=build.rs");
    // `tests/fuzz/run` sets this cfg.
    println!("cargo::rustc-check-cfg=cfg(fuzzing)");
    // The templates and the dashboard are embedded, too. Only these lines notice an added or removed file.
    println!("cargo::rerun-if-changed=templates");
    println!("cargo::rerun-if-changed=dashboard");
    println!("cargo::rustc-env=TARGET={}", env::var("TARGET").context("cargo has not set TARGET")?);
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    println!("cargo::rustc-env=HOTGATE_COMMIT={}", commit(workspace).as_deref().unwrap_or("unknown"));

    ensure!(
        target_installed()?,
        "the built-in plugins need the Rust target {TARGET}, which is not installed: rustup target add {TARGET}"
    );
    // The plugins need their own target directory: the cargo that runs this script holds the lock of the usual one, and
    // a second cargo would wait for it for ever.
    let target_dir = out.join("plugins");
    compile(workspace, &target_dir)?;
    for (_, file) in PLUGINS {
        let from = target_dir.join(TARGET).join("release").join(file);
        std::fs::copy(&from, out.join(file)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

/// Returns the commit that the host is built from: the value of `$HOTGATE_COMMIT`, or for a release the commit that is
/// checked out. Other builds do not ask git, so that they need not compile again after each commit.
fn commit(workspace: &Path) -> Option<String> {
    println!("cargo::rerun-if-env-changed=HOTGATE_COMMIT");
    let given = env::var("HOTGATE_COMMIT").ok().filter(|commit| !commit.is_empty());
    if given.is_some() || env::var("PROFILE").ok()? != "release" {
        return given;
    }
    let git = |arguments: &[&str]| {
        let answer = Command::new("git").current_dir(workspace).args(arguments).output().ok()?;
        let text = String::from_utf8(answer.stdout).ok()?;
        answer.status.success().then(|| text.trim().to_owned())
    };
    // The sources may stand in a folder of another project's repository.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if std::fs::canonicalize(top).ok()? != std::fs::canonicalize(workspace).ok()? {
        return None;
    }
    // Git writes to both files only when another commit is checked out.
    for file in ["HEAD", "logs/HEAD"] {
        let path = workspace.join(git(&["rev-parse", "--git-path", file])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(&["rev-parse", "HEAD"])
}

/// Returns `true` if the compiler has a standard library for the target.
fn target_installed() -> Result<bool> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let answer = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    let answer = answer.context("cannot run rustc")?;
    Ok(Path::new(String::from_utf8_lossy(&answer.stdout).trim()).is_dir())
}

/// Returns the folder with the sources of dependencies.
fn cargo_home() -> Result<PathBuf> {
    let default = || env::home_dir().map(|home| home.join(".cargo"));
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(default).context("there is no home folder")
}

fn compile(workspace: &Path, target_dir: &Path) -> Result<()> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace)
        .args(["build", "--release", "--locked", "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir);
    // A configuration file may set one build directory for all builds. Then both cargos would need the same lock again.
    cargo.arg("--config").arg(format!("build.build-dir={:?}", target_dir.display().to_string()));
    // The same settings for each profile of the host. Function names stay, for the backtraces of traps.
    for setting in
        ["opt-level=3", "lto=true", "codegen-units=1", "debug=false", "strip=\"debuginfo\"", "panic=\"abort\""]
    {
        cargo.arg("--config").arg(format!("profile.release.{setting}"));
    }
    for (package, _) in PLUGINS {
        cargo.args(["--package", package]);
    }
    for name in NOT_INHERITED {
        cargo.env_remove(name);
    }
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PROFILE_")) {
            cargo.env_remove(name);
        }
    }
    // The same commit gives the same plugins, with the same digests, wherever it is built: they name no folders of this
    // machine. Set in any case: this overrides the flags for the host's processor or linker in a configuration file.
    let remapped = [(workspace, "hotgate"), (&cargo_home()?, "cargo")];
    let flags = remapped.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    let output = cargo.output().context("cannot run cargo to compile the built-in plugins")?;
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        bail!("the built-in plugins do not compile for {TARGET}; the compiler's messages are above");
    }
    Ok(())
}
