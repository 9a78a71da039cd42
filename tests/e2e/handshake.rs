//! The opening handshake: which requests are upgraded, and the one line that explains each refusal.

use std::time::{Duration, Instant};

use hotgate_tests::{Gateway, Upgrade, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Expects a refusal with one line of explanation.
async fn expect_refusal(gateway: &Gateway, upgrade: Upgrade, status: u16, words: &str) {
    let refusal = gateway.upgrade(&upgrade).await.expect_err("a refusal");
    assert_eq!(refusal.status, status, "{refusal:?}");
    let body = refusal.body.trim_end();
    assert!(body.lines().count() == 1 && body.contains(words), "expected one line about {words:?}: {refusal:?}");
    if status == 426 {
        assert_eq!(refusal.header("Sec-WebSocket-Version"), Some("13"));
    }
}

#[tokio::test]
async fn what_is_no_upgrade_is_refused_with_a_reason() {
    let gateway = Gateway::start().await;
    let upgrade = Upgrade::default;
    for (upgrade, status, words) in [
        (upgrade().start("POST / HTTP/1.1"), 405, "GET"),
        (upgrade().start("GET / HTTP/1.0"), 400, "HTTP/1.1"),
        (upgrade().start("hello"), 400, "HTTP"),
        (upgrade().without("Upgrade"), 426, "WebSocket"),
        (upgrade().header("Upgrade", "h2c"), 426, "WebSocket"),
        (upgrade().header("Connection", "keep-alive"), 426, "WebSocket"),
        (upgrade().without("Sec-WebSocket-Key"), 400, "sec-websocket-key"),
        (upgrade().header("Sec-WebSocket-Key", "short"), 400, "Sec-WebSocket-Key"),
        (upgrade().without("Sec-WebSocket-Version"), 400, "sec-websocket-version"),
        (upgrade().header("Sec-WebSocket-Version", "8"), 426, "Sec-WebSocket-Version"),
        (upgrade().without("Host"), 400, "host"),
        (upgrade().header("Cookie", &"x".repeat(64 << 10)), 431, "larger"),
    ] {
        expect_refusal(&gateway, upgrade, status, words).await;
    }
    let many = (0..200).fold(upgrade(), |upgrade, n| upgrade.header(&format!("X-{n}"), "x"));
    expect_refusal(&gateway, many, 431, "header").await;
}

#[tokio::test]
async fn names_and_tokens_compare_without_case() {
    let gateway = Gateway::start().await;
    let upgrade = Upgrade::default()
        .without("Upgrade")
        .header("uPGRADE", "WebSocket")
        .header("connection", "keep-alive, UPGRADE");
    gateway.upgrade(&upgrade).await.expect("an upgrade").expect("HeartBeat").await;
}

#[tokio::test]
async fn no_extension_or_subprotocol_is_negotiated_by_default() {
    let gateway = Gateway::start().await;
    let upgrade = Upgrade::default()
        .header("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
        .header("Sec-WebSocket-Protocol", "chat, superchat");
    let mut client = gateway.upgrade(&upgrade).await.expect("an upgrade");
    assert_eq!(client.response.header("Sec-WebSocket-Extensions"), None);
    assert_eq!(client.response.header("Sec-WebSocket-Protocol"), None);
    client.expect("HeartBeat").await;
}

#[tokio::test]
async fn a_listed_subprotocol_is_echoed() {
    let gateway = Gateway::configured("[websocket]\nsubprotocols = [\"chat\", \"superchat\"]").await;
    for (offered, chosen) in
        [("superchat, chat", Some("superchat")), ("other, chat", Some("chat")), ("other", None), ("CHAT", None)]
    {
        let upgrade = Upgrade::default().header("Sec-WebSocket-Protocol", offered);
        let client = gateway.upgrade(&upgrade).await.expect("an upgrade");
        assert_eq!(client.response.header("Sec-WebSocket-Protocol"), chosen, "{offered}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_where_origins_are_listed() {
    let gateway = Gateway::configured("[websocket]\nallowed_origins = [\"https://app.test\"]").await;
    for origin in
        ["https://evil.test", "http://app.test", "https://app.test.evil.test", "https://app.test:8443", "null"]
    {
        expect_refusal(&gateway, Upgrade::default().header("Origin", origin), 403, "origin").await;
    }
    for upgrade in [Upgrade::default(), Upgrade::default().header("Origin", "https://APP.test")] {
        gateway.upgrade(&upgrade).await.expect("an upgrade");
    }
}

#[tokio::test]
async fn any_origin_is_allowed_by_default() {
    let gateway = Gateway::start().await;
    gateway.upgrade(&Upgrade::default().header("Origin", "https://any.test")).await.expect("an upgrade");
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_cut() {
    let gateway = Gateway::configured("[websocket]\nhandshake_timeout = \"1s\"").await;
    let mut stream = TcpStream::connect(gateway.websocket).await.expect("the port is open");
    let begin = Instant::now();
    // Sends one header at a time. Each header is in time, but not the whole request.
    let mut answer = Vec::new();
    let (mut reader, mut writer) = stream.split();
    let drip = async {
        _ = writer.write_all(b"GET / HTTP/1.1\r\n").await;
        while writer.write_all(b"X-Header: x\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        std::future::pending::<()>().await;
    };
    let end = within("the end", async {
        tokio::select! {
            () = drip => {}
            _ = reader.read_to_end(&mut answer) => {}
        }
    });
    end.await;
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn what_is_no_http_is_told_so_at_once() {
    let gateway = Gateway::start().await;
    // The first two are the beginning of a TLS connection.
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"\x16", b"SSH-2.0-OpenSSH_9.9\r\n"] {
        let mut stream = TcpStream::connect(gateway.websocket).await.expect("the port is open");
        let begin = Instant::now();
        stream.write_all(bytes).await.expect("the connection is open");
        let mut status = [0; 12];
        within("a response", stream.read_exact(&mut status)).await.expect("a response");
        assert_eq!(&status, b"HTTP/1.1 400");
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_cut() {
    let gateway = Gateway::configured(
        "[websocket]\nhandshake_timeout = \"1s\"\nclose_timeout = \"500ms\"\n[limits]\nconnections = 1",
    )
    .await;
    let _mute = TcpStream::connect(gateway.websocket).await.expect("the port is open");
    hotgate_tests::eventually("the place is free", async || gateway.upgrade(&Upgrade::default()).await.is_ok()).await;
}

#[tokio::test]
async fn a_request_in_many_segments_is_one_request() {
    let gateway = Gateway::start().await;
    let mut stream = TcpStream::connect(gateway.websocket).await.expect("the port is open");
    stream.set_nodelay(true).expect("no delay");
    let request = Upgrade::default().encode();
    for byte in &request[..request.len() - 1] {
        stream.write_all(&[*byte]).await.expect("the connection is open");
    }
    let mut client = hotgate_tests::Client::open(stream, &request[request.len() - 1..]).await.expect("an upgrade");
    client.expect("HeartBeat").await;
}
