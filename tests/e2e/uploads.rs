//! Components on their way to the admin listener.

use std::time::{Duration, Instant};

use hotgate_tests::{Admin, Component, Gateway, Setup, eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn start() -> (Gateway, Admin) {
    let gateway = Setup::plugin(&Component::version(1), "").start().await;
    let admin = gateway.admin().await;
    (gateway, admin)
}

/// Begins to send a component of this length.
async fn begin(admin: &Admin, length: u64) -> TcpStream {
    let mut stream = TcpStream::connect(admin.address).await.expect("the port is open");
    let request = admin.request("PUT /plugins/plugin").and("Content-Length", &length.to_string());
    stream.write_all(&[&request.encode(), &b"\0asm"[..]].concat()).await.expect("sent");
    stream
}

async fn status(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    _ = within("an answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).chars().take("HTTP/1.1 000".len()).collect()
}

#[tokio::test]
async fn one_that_stands_still_is_given_up_and_meanwhile_others_are_told() {
    let (gateway, admin) = start().await;
    let stalled = begin(&admin, 1000).await;
    let deploy = async || admin.send(admin.request("PUT /plugins/plugin"), &Component::version(2).bytes()).await;
    eventually("the first is being received", async || {
        let begin = Instant::now();
        let response = deploy().await;
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
        response.status == 409 && response.error().contains("another component")
    })
    .await;
    assert_eq!(status(stalled).await, "HTTP/1.1 408");
    gateway.logged(|line| line.message() == "admin request" && line.number("status") == 408).await;
    assert_eq!(deploy().await.status, 200);
}

#[tokio::test]
async fn one_that_is_too_large_is_refused_unseen() {
    let (_gateway, admin) = start().await;
    assert_eq!(status(begin(&admin, 1 << 40).await).await, "HTTP/1.1 413");
}

#[tokio::test]
async fn one_that_breaks_off_leaves_a_line_in_the_log() {
    let (gateway, admin) = start().await;
    let stream = begin(&admin, 1000).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(stream);
    let line = gateway.logged(|line| line.message().starts_with("admin request")).await;
    assert_eq!((line.get("method"), line.get("path")), ("PUT", "/plugins/plugin"));
    assert_eq!(admin.send(admin.request("PUT /plugins/plugin"), &Component::version(2).bytes()).await.status, 200);
}
