//! `host/openapi.json` and the binary hold together.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use hotgate_tests::{Gateway, Upgrade, skip, within};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const DOCUMENT: &str = include_str!("../../host/openapi.json");

/// The version of schemathesis. A newer one may find other faults: try it before you change this.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
/// How long schemathesis may ask.
const ASKING: Duration = Duration::from_secs(80);

/// What schemathesis checks of each answer. The last one stands in `schemathesis_hooks.py`.
const CHECKS: &[&str] = &[
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
    "lines_conform",
];

/// The paths of the document, with the methods that each takes.
fn routes() -> Vec<(String, BTreeSet<String>)> {
    let document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let methods = |item: &Value| item.as_object().expect("methods").keys().map(|name| name.to_uppercase()).collect();
    paths.iter().map(|(path, item)| (path.clone(), methods(item))).collect()
}

/// The head of the answer to a request without a body, and what has arrived of the body. Does not wait for the end of
/// the body: an answer to `/v1/events` has none.
async fn head(gateway: &Gateway, method: &str, path: &str) -> String {
    let api = gateway.api().await;
    let request = Upgrade::bare(&format!("{method} {path} HTTP/1.1"))
        .and("Host", &api.address.to_string())
        .and("Authorization", &format!("Bearer {}", api.token))
        .and("Connection", "close")
        .and("Content-Length", "0");
    within("an answer of the API", async {
        let mut stream = TcpStream::connect(api.address).await.expect("the port is open");
        stream.write_all(&request.encode()).await.expect("sent");
        let mut received = Vec::new();
        while !received.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut received).await.expect("an answer"), 0, "{method} {path}");
        }
        if !received.starts_with(b"HTTP/1.1 200 ") {
            stream.read_to_end(&mut received).await.expect("an answer");
        }
        String::from_utf8(received).expect("text")
    })
    .await
}

#[tokio::test]
async fn the_document_is_served_as_it_is() {
    let gateway = Gateway::start().await;
    let response = gateway.api().await.ask("GET /openapi.json").await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.body, DOCUMENT);
}

#[tokio::test]
async fn each_path_takes_the_documented_methods_and_no_other() {
    let gateway = Gateway::start().await;
    for (path, methods) in routes() {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let answer = head(&gateway, method, &path).await;
            let is_refused = answer.starts_with("HTTP/1.1 405 ") || answer.contains("no-such-path");
            assert_eq!(is_refused, !methods.contains(method), "{method} {path}: {answer}");
            if is_refused {
                assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains(r#""reason":"method""#), "{answer}");
                let allowed = answer.lines().find_map(|line| line.strip_prefix("allow: ")).expect("Allow");
                let allowed = allowed.split(',').map(|name| name.trim().to_owned()).filter(|name| name != "HEAD");
                assert_eq!(allowed.collect::<BTreeSet<_>>(), methods, "{path}");
            }
        }
    }
    assert!(head(&gateway, "GET", "/v1/nothing").await.contains(r#""reason":"no-such-path""#));
}

/// The command of schemathesis, which is installed below the target directory. `None` if there is no `python3`.
fn schemathesis() -> Option<PathBuf> {
    let run = |command: &str, arguments: &[&str]| {
        let output = Command::new(command).args(arguments).stdin(Stdio::null()).output().ok()?;
        output.status.success().then_some(())
    };
    run("python3", &["-c", "import venv, ensurepip"])?;
    let folder = hotgate_tests::cache("schemathesis");
    let path = |name: &str| folder.join("bin").join(name).to_str().expect("a path in UTF-8").to_owned();
    let installed = folder.join(SCHEMATHESIS);
    if !installed.exists() {
        run("python3", &["-m", "venv", "--clear", folder.to_str().expect("a path in UTF-8")]).expect("an environment");
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", SCHEMATHESIS];
        run(&path("python"), &install).expect("schemathesis is installed");
        std::fs::write(installed, "").expect("a writable folder");
    }
    Some(path("schemathesis").into())
}

#[tokio::test]
#[ignore = "downloads schemathesis"]
async fn schemathesis_finds_no_fault() {
    let Some(schemathesis) = schemathesis() else {
        return skip("there is no python3 with venv");
    };
    let gateway = Gateway::start().await;
    let api = gateway.api().await;
    let _anna = gateway.login("u1").await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("openapi.json"), DOCUMENT).expect("a writable folder");
    std::fs::write(folder.path().join("hooks.py"), include_str!("schemathesis_hooks.py")).expect("a writable folder");
    let mut command = tokio::process::Command::new(schemathesis);
    command.current_dir(&folder).env("SCHEMATHESIS_HOOKS", "hooks").env("PYTHONPATH", ".").kill_on_drop(true);
    command.args(["run", "openapi.json", "--no-color", "--continue-on-failure", "--warnings", "off"]);
    command.args(["--url", &format!("http://{}", api.address)]);
    command.args(["--header", &format!("Authorization: Bearer {}", api.token)]);
    // An answer to `/v1/events` does not end. What is no 2xx or 4xx must be declared, and 500 is not.
    command.args(["--exclude-path", "/v1/events", "--checks", &CHECKS.join(",")]);
    command.args(["--phases", "examples,coverage,fuzzing", "--max-time", &ASKING.as_secs().to_string()]);
    command.args(["--request-timeout", "10", "--generation-database", "none"]);
    let output = timeout(2 * ASKING, command.output()).await.expect("it ends in time").expect("it starts");
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}");
}
