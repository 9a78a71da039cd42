//! Signals: every client gets a close frame, no queued message is lost, and the gateway ends in time.

use std::time::{Duration, Instant};

use hotgate_tests::{Frame, Gateway};

#[tokio::test]
async fn on_a_signal_everybody_is_closed_with_1001_and_the_exit_code_is_0() {
    for signal in ["TERM", "INT"] {
        let mut gateway = Gateway::start().await;
        let mut clients = Vec::new();
        for n in 0..50 {
            clients.push(gateway.login(&n.to_string()).await);
        }
        let mut stranger = gateway.connect().await;
        stranger.expect("HeartBeat").await;
        let mut sender = gateway.sender().await;
        assert_eq!(sender.ask(r#"{"uid":7}"#).await, "ok");
        clients[7].expect(r#"{"uid":7}"#).await;

        let begin = Instant::now();
        gateway.signal(signal);
        for client in clients.iter_mut().chain([&mut stranger]) {
            assert_ne!(client.expect_close(1001).await, "");
        }
        sender.ended().await;
        assert_eq!(gateway.exit_code().await, Some(0));
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn what_is_queued_is_sent_before_the_end() {
    let mut gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    let line = format!(r#"{{"uid":"anna","msg":"{}"}}"#, "x".repeat(1 << 20));
    let mut sender = gateway.sender().await;
    for _ in 0..3 {
        assert_eq!(sender.ask(&line).await, "ok");
    }
    gateway.signal("TERM");
    for _ in 0..3 {
        anna.expect(&line).await;
    }
    assert_eq!(anna.next_frame().await.close_reason().0, 1001);
    anna.frame(Frame::close(1001, "")).await;
    anna.ended().await;
    assert_eq!(gateway.exit_code().await, Some(0));
}

#[tokio::test]
async fn nobody_is_accepted_any_more() {
    let mut gateway = Gateway::configured("shutdown_grace = \"20s\"").await;
    let mut slow = gateway.login("slow").await;
    gateway.signal("TERM");
    assert_eq!(slow.next_frame().await.close_reason().0, 1001);
    assert!(tokio::net::TcpStream::connect(gateway.websocket).await.is_err());
    // Senders are served until the last client has closed.
    assert!(!gateway.reaches("slow").await);
    slow.frame(Frame::close(1001, "")).await;
    assert_eq!(gateway.exit_code().await, Some(0));
}

#[tokio::test]
async fn peers_that_do_not_answer_delay_the_end_by_the_grace_at_most() {
    let mut gateway = Gateway::configured("shutdown_grace = \"1s\"").await;
    let mut mute = gateway.login("mute").await;
    let _stuck = gateway.login_narrow("stuck").await;
    let line = format!(r#"{{"uid":"stuck","msg":"{}"}}"#, "x".repeat(1 << 20));
    let mut sender = gateway.sender().await;
    for _ in 0..3 {
        assert_eq!(sender.ask(&line).await, "ok");
    }
    let begin = Instant::now();
    gateway.signal("TERM");
    assert_eq!(mute.next_frame().await.close_reason().0, 1001);
    assert_eq!(gateway.exit_code().await, Some(0));
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut gateway = Gateway::configured("shutdown_grace = \"60s\"").await;
    let mut mute = gateway.login("mute").await;
    gateway.signal("TERM");
    assert_eq!(mute.next_frame().await.close_reason().0, 1001);
    gateway.signal("TERM");
    // The harness waits half as long as `shutdown_grace`.
    gateway.exit_code().await;
}

/// Each connection takes at most 10 KB, and all get a close frame within the default grace of 10 s.
#[tokio::test]
#[ignore = "takes half a minute, and descriptors for 5,000 connections"]
async fn soak_5000_idle_connections_are_cheap_and_all_are_told() {
    let config = "[heartbeat]\ntimeout = \"10m\"\n[limits]\nconnections = 6000\nunauthenticated = 6000";
    let mut gateway = Gateway::configured(config).await;
    gateway.login("warm-up").await.close().await;
    let before = gateway.resident_bytes();
    let mut clients = Vec::new();
    for n in 0..5000 {
        clients.push(gateway.login(&n.to_string()).await);
    }
    if let (Some(before), Some(after)) = (before, gateway.resident_bytes()) {
        let each = after.saturating_sub(before) / 5000;
        eprintln!("{each} bytes for each connection");
        assert!(each <= 10_000, "{each} bytes for each connection");
    }
    let begin = Instant::now();
    gateway.signal("TERM");
    for client in &mut clients {
        client.expect_close(1001).await;
    }
    assert_eq!(gateway.exit_code().await, Some(0));
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_client_that_does_not_answer_the_close_is_not_waited_for_all_the_grace() {
    let mut gateway = Gateway::configured("shutdown_grace = \"1m\"\n[websocket]\nclose_timeout = \"500ms\"").await;
    let mut deaf = gateway.login("deaf").await;
    gateway.signal("TERM");
    assert_eq!(deaf.next_frame().await.close_reason().0, 1001);
    let begin = Instant::now();
    assert_eq!(gateway.exit_code().await, Some(0));
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}
