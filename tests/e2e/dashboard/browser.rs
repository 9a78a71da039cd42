//! Chromium does with the dashboard what an operator and a newcomer do.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use hotgate_tests::{Component, Gateway, Setup, skip};
use tokio::process::Command;
use tokio::time::timeout;

use crate::browser::chromium;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/browser");
/// The folder for the program's packages. It stays from run to run.
const PACKAGES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/browser");
/// The longest time of an installation, or of all checks.
const LONGEST: Duration = Duration::from_secs(300);

async fn run(command: &mut Command) -> Option<Output> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    timeout(LONGEST, output).await.expect("it ends in time").ok()
}

/// Installs the packages, unless they are there. Returns why they are not there.
async fn install() -> Result<(), &'static str> {
    let (locked, installed) = (Path::new(PROGRAM).join("package-lock.json"), Path::new(PACKAGES).join("installed"));
    let lock = std::fs::read(&locked).expect("it is there");
    if std::fs::read(&installed).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    std::fs::create_dir_all(PACKAGES).expect("a writable folder");
    for name in ["package.json", "package-lock.json"] {
        std::fs::copy(Path::new(PROGRAM).join(name), Path::new(PACKAGES).join(name)).expect("a writable folder");
    }
    let output = run(Command::new("npm").arg("ci").current_dir(PACKAGES)).await.ok_or("there is no npm")?;
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        return Err("npm cannot install playwright-core");
    }
    std::fs::write(installed, lock).expect("a writable folder");
    Ok(())
}

/// The address that `hotgate dashboard` prints.
async fn address(gateway: &Gateway, arguments: &[&str]) -> String {
    let listener = gateway.admin().await.address.to_string();
    let printed = gateway.run(&[&["dashboard", "--address", &listener], arguments].concat()).await;
    assert_eq!(printed.code, Some(0), "{printed:?}");
    printed.stdout.lines().next().expect("an address").to_owned()
}

#[tokio::test]
async fn chromium_does_what_an_operator_does() {
    let Some(chromium) = chromium() else { return skip("there is no Chromium") };
    if let Err(missing) = install().await {
        return skip(missing);
    }
    let config = "[[authenticator]]\nfile = \"auth.wasm\"\ndeploy = { shadow = 100, canary = 50, probation = \"10m\" }";
    let component = Component::origin_auth();
    let gateway = Setup::new(config).file("auth.wasm", &component).start().await;
    let changed: PathBuf = gateway.folder().join("changed.wasm");
    std::fs::write(&changed, component.tagged(2).bytes()).expect("a writable folder");
    let mut program = Command::new("node");
    program
        .arg(Path::new(PROGRAM).join("dashboard.mjs"))
        .env("DASHBOARD", address(&gateway, &[]).await)
        .env("DASHBOARD_READ_ONLY", address(&gateway, &["--read-only"]).await)
        .env("CHANGED", &changed)
        .env("CHROMIUM", chromium)
        .env("NODE_PACKAGES", PACKAGES);
    let output = run(&mut program).await.expect("node is there, because npm is");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.lines().filter(|line| line.starts_with("ok: ")).count() >= 15, "{said}");
}
