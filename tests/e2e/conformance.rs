//! The Autobahn test suite: an independent test of RFC 6455.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use hotgate_tests::{Authority, Component, Setup, Stream};
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// The name in the certificate.
const NAME: &str = "push.example.com";

/// The longest time for all cases together.
const PATIENCE: Duration = Duration::from_mins(10);

/// The command of the suite, which needs CPython 2.7: from `PATH`, or else installed below the target directory.
fn wstest() -> Option<PathBuf> {
    let works = |command: &Path| {
        let answer = Command::new(command).arg("--help").stdin(Stdio::null()).output();
        answer.is_ok_and(|answer| String::from_utf8_lossy(&answer.stdout).contains("fuzzingclient"))
    };
    let system = PathBuf::from("wstest");
    if works(&system) {
        return Some(system);
    }
    let folder = hotgate_tests::cache("autobahn");
    let ours = folder.join("bin/wstest");
    if works(&ours) {
        return Some(ours);
    }
    let run = |command: &Path, arguments: &[&str]| {
        let output = Command::new(command).args(arguments).stdin(Stdio::null()).output().ok()?;
        output.status.success().then_some(())
    };
    let python = PathBuf::from(std::env::var_os("PYTHON2").unwrap_or_else(|| "python2.7".into()));
    run(&python, &["-m", "pip", "install", "--quiet", "virtualenv"])?;
    run(&python, &["-m", "virtualenv", "--quiet", folder.to_str().expect("a path in UTF-8")])?;
    run(&folder.join("bin/pip"), &["install", "--quiet", "autobahntestsuite"])?;
    Some(ours)
}

/// The cases that failed in the suite's report, with their verdicts.
fn failed(index: &Value) -> Vec<String> {
    let cases = index["hotgate"].as_object().expect("a report on hotgate");
    assert!(cases.len() > 250, "only {} cases were run", cases.len());
    let verdicts = cases.iter().flat_map(|(case, report)| {
        ["behavior", "behaviorClose"].map(|key| (case, report[key].as_str().unwrap_or("missing").to_owned()))
    });
    let good = ["OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"];
    verdicts
        .filter(|(_, verdict)| !good.contains(&&**verdict))
        .map(|(case, verdict)| format!("{case}: {verdict}"))
        .collect()
}

#[tokio::test]
#[ignore = "needs CPython 2.7"]
async fn autobahn_finds_no_fault() {
    conforms(false).await;
}

#[tokio::test]
#[ignore = "needs CPython 2.7"]
async fn autobahn_finds_no_fault_over_tls() {
    conforms(true).await;
}

/// Passes the bytes of plain connections on to a server, through TLS. Returns the address to connect to.
async fn through_tls(server: SocketAddr, authority: Authority) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut plain, _)) = listener.accept().await {
            let mut encrypted = Stream::tls(server, NAME, authority.client(None)).await.expect("a handshake");
            tokio::spawn(async move { copy_bidirectional(&mut plain, &mut encrypted).await });
        }
    });
    address
}

/// Runs all cases of the suite against the gateway, which speaks TLS or does not.
async fn conforms(tls: bool) {
    let Some(wstest) = wstest() else {
        _ = writeln!(std::io::stderr(), "SKIPPED: there is no CPython 2.7 for the Autobahn test suite (PYTHON2)");
        return;
    };
    let limits = "[websocket]\nmax_message = \"16MiB\"\n[outbox]\nmax_bytes = \"32MiB\"\n";
    let plugins = "[[authenticator]]\nfile = \"plugin.wasm\"\n[router]\nfile = \"builtin:echo-router\"\n";
    let component = Component::fixture("greet=login anybody quiet");
    let mut setup = Setup::new(&format!("{limits}{plugins}")).file("plugin.wasm", &component);
    let authority = Authority::new();
    if tls {
        setup = setup.identity("push", &authority.issue(&[NAME])).tls("websocket", "push");
    }
    let gateway = setup.start().await;
    let address = if tls { through_tls(gateway.websocket, authority).await } else { gateway.websocket };

    let folder = tempfile::tempdir().expect("a temporary folder");
    let spec = json!({
        "outdir": folder.path(),
        "servers": [{"agent": "hotgate", "url": format!("ws://{address}")}],
        "cases": ["*"],
        // These cases need compression (RFC 7692), which the gateway does not offer.
        "exclude-cases": ["12.*", "13.*"],
        "exclude-agent-cases": {},
    });
    let file = folder.path().join("spec.json");
    fs::write(&file, spec.to_string()).expect("a writable folder");
    let mut command = tokio::process::Command::new(wstest);
    command.args(["--mode", "fuzzingclient", "--spec"]).arg(&file).current_dir(folder.path()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.expect("the suite ends in time").expect("the suite starts");
    assert!(output.status.success(), "{output:?}");

    let index = fs::read(folder.path().join("index.json")).expect("the report of the suite");
    let failed = failed(&serde_json::from_slice(&index).expect("JSON"));
    assert!(failed.is_empty(), "{failed:#?}");
}
