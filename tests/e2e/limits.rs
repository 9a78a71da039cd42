//! Limits on the number of connections, and the answer past each limit.

use hotgate_tests::{Gateway, Response, Setup, Upgrade, eventually};

async fn refusal(gateway: &Gateway) -> Response {
    gateway.upgrade(&Upgrade::default()).await.expect_err("a refusal")
}

#[tokio::test]
async fn past_the_connections_in_all_the_upgrade_is_refused() {
    let gateway = Gateway::configured("[limits]\nconnections = 2").await;
    let (first, mut second) = (gateway.login("first").await, gateway.login("second").await);
    let refusal = refusal(&gateway).await;
    assert_eq!(refusal.status, 503);
    assert!(refusal.body.contains("limits.connections"), "{refusal:?}");
    second.expect_nothing().await;
    first.close().await;
    eventually("the place is free", async || gateway.upgrade(&Upgrade::default()).await.is_ok()).await;
}

#[tokio::test]
async fn past_those_of_one_address_the_upgrade_is_refused() {
    let gateway = Gateway::configured("[limits]\nconnections_per_address = 1").await;
    let first = gateway.connect().await;
    let refusal = refusal(&gateway).await;
    assert_eq!(refusal.status, 503);
    assert!(refusal.body.contains("limits.connections_per_address"), "{refusal:?}");
    if cfg!(target_os = "linux") {
        gateway.connect_from([127, 0, 0, 2]).await.expect("another address has places of its own");
    }
    drop(first);
    eventually("the place is free", async || gateway.upgrade(&Upgrade::default()).await.is_ok()).await;
}

#[tokio::test]
async fn past_the_unauthenticated_the_upgrade_is_refused() {
    let gateway = Gateway::configured("[limits]\nunauthenticated = 1").await;
    let mut first = gateway.connect().await;
    first.expect("HeartBeat").await;
    let refusal = refusal(&gateway).await;
    assert_eq!(refusal.status, 503);
    assert!(refusal.body.contains("limits.unauthenticated"), "{refusal:?}");
    first.send(r#"{"id":"first"}"#).await;
    first.expect("Link_successful").await;
    let second = gateway.login("second").await;
    let third = gateway.login("third").await;
    drop((second, third));
}

/// Connections that never log in block only others from the same address.
#[tokio::test]
async fn one_address_takes_at_most_its_share_of_the_unauthenticated() {
    let config = "[websocket]\nhandshake_timeout = \"1m\"\n[limits]\nunauthenticated = 4";
    let gateway = Gateway::configured(config).await;
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(tokio::net::TcpStream::connect(gateway.websocket).await.expect("the port is open"));
    }
    let refusal = refusal(&gateway).await;
    assert_eq!(refusal.status, 503);
    assert!(refusal.body.contains("limits.unauthenticated_share"), "{refusal:?}");
    if cfg!(target_os = "linux") {
        let mut other = gateway.connect_from([127, 0, 0, 2]).await.expect("half of the places are left to others");
        other.expect("HeartBeat").await;
    }
    silent.pop();
    eventually("a place of its own is free", async || gateway.upgrade(&Upgrade::default()).await.is_ok()).await;
}

#[tokio::test]
async fn past_the_text_connections_a_sender_is_turned_away() {
    let gateway = Gateway::configured("[limits]\ntext_connections = 1").await;
    let mut first = gateway.sender().await;
    assert_eq!(first.ask("x").await, "fail");
    let mut second = gateway.sender().await;
    let answer = second.answer().await;
    assert!(answer.is_none() || answer.as_deref() == Some("fail"), "{answer:?}");
    assert_eq!(first.ask("x").await, "fail");
    drop(first);
    eventually("the place is free", async || {
        let mut sender = gateway.sender().await;
        sender.try_bytes("x\n").await;
        sender.answer().await.is_some()
    })
    .await;
}

#[tokio::test]
async fn the_text_port_serves_only_whom_it_is_told_to() {
    let config = "[text]\nallow_from = [\"127.0.0.2/32\"]";
    let gateway = Gateway::configured(config).await;
    let mut sender = gateway.sender().await;
    sender.try_bytes("{\"uid\":\"anna\"}\n").await;
    let answer = sender.answer().await;
    assert!(answer.is_none(), "{answer:?}");
    let line = gateway.logged(|line| line.message() == "sender refused").await;
    assert_eq!((line.get("level"), line.get("reason")), ("WARN", "its address is not in text.allow_from"));
    assert!(line.get("peer").starts_with("127.0.0.1:"), "{line:?}");
    // However many senders are refused, only a few log lines say so.
    for _ in 0..50 {
        gateway.sender().await.ended().await;
    }
    let lines = gateway.log().since(Default::default());
    let told = lines.iter().filter(|line| line.message() == "sender refused").count();
    assert!((1..30).contains(&told), "{told}");
}

#[tokio::test]
async fn an_ipv4_address_is_one_however_it_is_written() {
    let gateway = Gateway::configured("[text]\nallow_from = [\"::ffff:127.0.0.1\"]").await;
    assert_eq!(gateway.sender().await.ask("hello").await, "fail");
}

#[tokio::test]
async fn a_part_of_the_processors_is_nothing_to_talk_about() {
    let told = Setup::new("").one_processor().run(&["--version"]).await;
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn running_out_of_descriptors_passes() {
    let gateway = Setup::new("").descriptors(64).start().await;
    let mut early = gateway.login("early").await;
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(tokio::net::TcpStream::connect(gateway.websocket).await.expect("the backlog takes it"));
    }
    gateway.logged(|line| line.says("cannot accept")).await;
    early.expect_nothing().await;
    drop(crowd);
    gateway.login("late").await.close().await;
    early.expect_nothing().await;
}
