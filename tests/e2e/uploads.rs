//! Components on their way to the admin listener.

use std::time::{Duration, Instant};

use hotgate_tests::{Admin, Component, Gateway, Setup, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn start() -> (Gateway, Admin) {
    let gateway = Setup::plugin(&Component::version(1), "").start().await;
    let admin = gateway.admin().await;
    (gateway, admin)
}

/// Begins to send a component of this length, and reads what is said to that.
async fn begin(admin: &Admin, length: u64) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(admin.address).await.expect("the port is open");
    let request = admin.request("PUT /plugins/plugin").and("Expect", "100-continue");
    stream.write_all(&request.and("Content-Length", &length.to_string()).encode()).await.expect("sent");
    let status = status(&mut stream).await;
    (stream, status)
}

async fn status(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n\r\n") && line.len() < 4096 {
        line.push(within("an answer", stream.read_u8()).await.expect("an answer"));
    }
    String::from_utf8_lossy(&line).chars().take("HTTP/1.1 000".len()).collect()
}

#[tokio::test]
async fn one_that_stands_still_is_given_up_and_meanwhile_others_are_told() {
    let (gateway, admin) = start().await;
    let (mut stalled, answer) = begin(&admin, 1000).await;
    assert_eq!(answer, "HTTP/1.1 100");
    stalled.write_all(b"\0asm").await.expect("sent");
    let deploy = async || admin.send(admin.request("PUT /plugins/plugin"), Component::version(2).bytes()).await;
    let begin = Instant::now();
    let response = deploy().await;
    assert_eq!(response.status, 409, "{response:?}");
    assert!(response.error().contains("another component"), "{response:?}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert_eq!(status(&mut stalled).await, "HTTP/1.1 408");
    gateway.logged(|line| line.message() == "admin request" && line.number("status") == 408).await;
    assert_eq!(deploy().await.status, 200);
}

#[tokio::test]
async fn one_that_is_too_large_is_refused_unseen() {
    let (_gateway, admin) = start().await;
    assert_eq!(begin(&admin, 1 << 40).await.1, "HTTP/1.1 413");
}

#[tokio::test]
async fn one_that_breaks_off_leaves_a_line_in_the_log() {
    let (gateway, admin) = start().await;
    drop(begin(&admin, 1000).await);
    let line = gateway.logged(|line| line.message().starts_with("admin request")).await;
    assert_eq!((line.get("method"), line.get("path")), ("PUT", "/plugins/plugin"));
    assert_eq!(admin.send(admin.request("PUT /plugins/plugin"), Component::version(2).bytes()).await.status, 200);
}
