//! `hotgate status` and `hotgate ready`, and the token that only reads.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use hotgate_tests::{Admin, Component, Finished, Gateway, Setup, eventually};
use serde_json::{Value, json};

fn read_token(gateway: &Gateway) -> PathBuf {
    gateway.state_folder().join("admin-read-token")
}

/// Runs `hotgate status` with the token that only reads.
async fn status(gateway: &Gateway, flags: &[&str]) -> Finished {
    let (address, token) = (gateway.admin().await.address.to_string(), read_token(gateway));
    let arguments = ["status", "--address", &address, "--token-file", token.to_str().expect("UTF-8")];
    gateway.hotgate(&[&arguments, flags].concat()).await
}

async fn status_json(gateway: &Gateway) -> Value {
    let asked = status(gateway, &["--json"]).await;
    assert_eq!(asked.code, Some(0), "{asked:?}");
    serde_json::from_str(&asked.stdout).expect("JSON")
}

#[tokio::test]
async fn status_shows_the_gateway_on_one_page() {
    let gateway = Gateway::start().await;
    let anna = gateway.login("anna").await;
    let stranger = gateway.connect().await;
    assert!(gateway.reaches("anna").await);
    let shown = status(&gateway, &[]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let lines: Vec<_> = shown.stdout.lines().collect();
    assert!(lines[0].starts_with("Hotgate 0.") && lines[0].contains(", serving for "), "{shown:?}");
    assert_eq!(lines[1], "2 of 60000 connections, 1 of 10000 not authenticated yet");
    for part in [
        &format!("websocket  {}", gateway.websocket),
        &format!("text       {}", gateway.text),
        "PER SECOND",
        "outbox.total_bytes",
        "engine.memory",
        "authenticator  origin-auth",
        "No warnings",
    ] {
        assert!(shown.stdout.contains(part), "{part}: {}", shown.stdout);
    }
    assert!(lines.len() < 40, "one page: {}", shown.stdout);

    let status = status_json(&gateway).await;
    assert_eq!(status["state"], "serving");
    assert_eq!(status["connections"]["open"], 2);
    assert_eq!(status["warnings"], json!([]));
    assert!(status["per_second"]["pushes"].as_f64().expect("a number") > 0.0, "{status}");
    let commit = status["commit"].as_str().expect("text");
    assert!(commit == "unknown" || commit.len() == 40, "{commit}");
    let listeners: Vec<_> = status["listeners"].as_array().expect("a list").iter().map(|it| &it["listener"]).collect();
    assert_eq!(listeners, ["websocket", "text", "admin", "api"]);
    drop((anna, stranger));
}

#[tokio::test]
async fn what_is_wrong_is_a_warning_until_it_is_right_again() {
    let gateway = Setup::plugin(&Component::version(1), "").start().await;
    let file = gateway.folder().join("hotgate.toml");
    let good = std::fs::read_to_string(&file).expect("a file");
    std::fs::write(&file, format!("{good}\n[nonsense]\n")).expect("written");
    gateway.file("plugin.wasm").copy_over(&Component::from_bytes(b"no component"));
    let warnings = async || status_json(&gateway).await["warnings"].to_string();
    eventually("both problems are shown", async || {
        let warnings = warnings().await;
        warnings.contains("configuration: ") && warnings.contains("nonsense") && warnings.contains("does not serve")
    })
    .await;
    let shown = status(&gateway, &[]).await;
    assert!(shown.stdout.contains("\nWARNINGS\nconfiguration: "), "{shown:?}");

    std::fs::write(&file, good).expect("written");
    gateway.file("plugin.wasm").copy_over(&Component::version(1));
    eventually("neither is shown", async || warnings().await == "[]").await;
}

#[tokio::test]
async fn ready_tells_supervisors_whether_the_gateway_serves() {
    let mut gateway = Gateway::start().await;
    let address = gateway.admin().await.address.to_string();
    let asked = gateway.hotgate(&["ready", "--address", &address]).await;
    assert_eq!((asked.code, asked.stdout.as_str()), (Some(0), "ready\n"), "{asked:?}");

    // While a client keeps the shutdown waiting, the gateway lives but is not ready.
    let mut mute = gateway.login("mute").await;
    gateway.signal("TERM");
    assert_eq!(mute.next_frame().await.close_reason().0, 1001);
    let asked = gateway.hotgate(&["ready", "--address", &address]).await;
    assert!(asked.code == Some(1) && asked.stderr.contains("draining"), "{asked:?}");
    let asked = gateway.hotgate(&["ready", "--live", "--address", &address]).await;
    assert_eq!((asked.code, asked.stdout.as_str()), (Some(0), "live\n"), "{asked:?}");
    let draining = status_json(&gateway).await;
    assert_eq!(draining["state"], "draining");

    drop(mute);
    assert_eq!(gateway.exit_code().await, Some(0));
    for flags in [&["ready"] as &[&str], &["ready", "--live"]] {
        let asked = gateway.hotgate(&[flags, &["--address", &address]].concat()).await;
        assert_eq!(asked.code, Some(69), "{asked:?}");
    }
}

#[tokio::test]
async fn the_token_that_only_reads_changes_nothing() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let file = read_token(&gateway);
    let token = std::fs::read_to_string(&file).expect("the gateway has made it");
    assert_eq!(std::fs::metadata(&file).expect("it").permissions().mode() & 0o777, 0o600);
    assert!(token.len() == 64 && token != admin.token, "{token}");
    let reader = Admin { token, ..admin.clone() };
    for line in ["GET /status", "GET /metrics", "GET /plugins", "GET /connections", "HEAD /metrics"] {
        assert_eq!(reader.ask(line).await.status, 200, "{line}");
    }
    for line in [
        "PUT /plugins/router",
        "POST /plugins/router/rollback",
        "POST /plugins/router/reload",
        "DELETE /connections?uid=anna",
        "DELETE /connections/1",
        "POST /nothing",
    ] {
        let refused = reader.ask(line).await;
        assert_eq!(refused.status, 403, "{line}: {refused:?}");
        assert_eq!(refused.json()["reason"], "scope");
        assert!(refused.error().contains("admin-token"), "{refused:?}");
    }
    let log = gateway.log().since(Default::default());
    assert!(!log.iter().any(|line| line.says(&reader.token)), "the token is in the log");
}
