//! A browser: Chromium runs the program on the page OPERATING.md, over TLS.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use hotgate_tests::{Authority, Client, Setup, skip};
use serde_json::json;
use tokio::process::Command;

const NAME: &str = "push.example.com";

/// The program under "Clients that connect again".
fn program() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/OPERATING.md");
    let page = std::fs::read_to_string(page).expect("a page");
    let program = page.split_once("```js\n").and_then(|(_, rest)| rest.split_once("```")).expect("a program").0;
    assert!(program.starts_with("function connect(url, onOpen, onMessage)"), "{program}");
    program.to_owned()
}

/// Where Debian and Chrome's own packages put it.
pub(crate) fn chromium() -> Option<PathBuf> {
    let found = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].map(PathBuf::from);
    found.into_iter().find(|path| path.exists())
}

#[tokio::test]
async fn chromium_logs_in_over_tls_and_connects_again() {
    let Some(chromium) = chromium() else { return skip("there is no Chromium") };
    let authority = Authority::new();
    let config = "[[websocket.tls]]\ncertificate = \"push.pem\"\nkey = \"push.key\"\n";
    let gateway = Setup::new(config).identity("push", &authority.issue(&[NAME])).start().await;
    let login = r#"socket => socket.send(JSON.stringify({ id: "browser" }))"#;
    let message = r#"(data, socket) => {
        if (data === "Link_successful") socket.send(JSON.stringify({ id: "anna", msg: "the browser is in" }));
    }"#;
    let connect = format!("connect('wss://{NAME}:{}', {login}, {message})", gateway.websocket.port());
    let page = gateway.folder().join("page.html");
    std::fs::write(&page, format!("<!doctype html><script>{}{connect};</script>", program()))
        .expect("a writable folder");
    let mut anna = Client::connect_tls(gateway.websocket, NAME, &authority).await.expect("an upgrade");
    anna.expect("HeartBeat").await;
    anna.send(r#"{"id":"anna"}"#).await;
    anna.expect("Link_successful").await;

    let profile = gateway.folder().join("profile");
    let _browser = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        // The authority of this test is not among those that Chromium trusts.
        .args(["--ignore-certificate-errors", "--remote-debugging-port=0"])
        .arg(format!("--host-resolver-rules=MAP {NAME} 127.0.0.1"))
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(&page)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("Chromium starts");
    anna.expect("the browser is in").await;
    let closed = gateway.admin().await.json("DELETE /connections?uid=browser").await;
    assert_eq!(closed, json!({"closed": 1}));
    anna.expect("the browser is in").await;
}
