//! Limits, origins, proxies and senders change while the gateway runs, and nobody is dropped.

use std::time::{Duration, Instant};

use hotgate_tests::{Client, Gateway, Line, Mark, Setup, Upgrade, eventually};

use crate::reloading::write;

/// Changes the configuration, and waits until these keys have taken effect.
async fn change(gateway: &Gateway, config: &str, keys: &str) {
    let mark = gateway.log().mark();
    write(gateway, "hotgate.toml", config);
    let line = gateway.logged_since(mark, |line| line.says("take effect now")).await;
    assert_eq!(line.get("keys"), keys);
    assert!(waiting(gateway, mark).is_none(), "{:?}", waiting(gateway, mark));
}

fn waiting(gateway: &Gateway, mark: Mark) -> Option<Line> {
    gateway.log().since(mark).into_iter().find(|line| line.says("next start"))
}

fn of(client: &str) -> Upgrade {
    Upgrade::default().header("X-Forwarded-For", client)
}

async fn status(gateway: &Gateway, upgrade: &Upgrade) -> u16 {
    match gateway.upgrade(upgrade).await {
        Ok(mut client) => {
            client.expect("HeartBeat").await;
            client.close().await;
            101
        }
        Err(refusal) => refusal.status,
    }
}

#[tokio::test]
async fn fewer_connections_refuse_new_ones_only_and_more_admit_them() {
    let gateway = Gateway::configured("").await;
    let mut clients = Vec::new();
    for uid in 0..4 {
        clients.push(gateway.login(&uid.to_string()).await);
    }
    let mut stranger = gateway.connect().await;
    for (key, value) in
        [("connections", 2), ("connections_per_address", 2), ("unauthenticated", 1), ("unauthenticated_share", 1)]
    {
        let config = format!("limits.{key} = {value}");
        let config = if key == "unauthenticated_share" { config + "\nlimits.unauthenticated = 100" } else { config };
        let keys = match key {
            // The one before it is taken back at the same time.
            "connections" => "limits.connections".to_owned(),
            "connections_per_address" => "limits.connections, limits.connections_per_address".to_owned(),
            "unauthenticated" => "limits.connections_per_address, limits.unauthenticated".to_owned(),
            _ => "limits.unauthenticated, limits.unauthenticated_share".to_owned(),
        };
        change(&gateway, &config, &keys).await;
        let refusal = gateway.upgrade(&Upgrade::default()).await.expect_err("a refusal");
        assert!(refusal.status == 503 && refusal.body.contains(&format!("limits.{key})")), "{refusal:?}");
    }
    change(&gateway, "", "limits.unauthenticated, limits.unauthenticated_share").await;
    gateway.login("late").await.close().await;
    stranger.expect("HeartBeat").await;
    stranger.expect_nothing().await;
    for client in &mut clients {
        client.expect_nothing().await;
    }
    change(&gateway, "limits.connections = 500000", "limits.connections").await;
    assert!(gateway.reaches("0").await);
    clients[0].expect(r#"{"uid":"0"}"#).await;
}

#[tokio::test]
async fn origins_and_proxies_change_for_new_connections() {
    let gateway = Gateway::configured("").await;
    let page = Upgrade::default().header("Origin", "https://app.test");
    let mut early = gateway.upgrade(&page).await.expect("an upgrade");
    early.expect("HeartBeat").await;
    change(&gateway, "websocket.allowed_origins = [\"https://other.test\"]", "websocket.allowed_origins").await;
    assert_eq!(status(&gateway, &page).await, 403);
    early.expect_nothing().await;
    change(&gateway, "websocket.allowed_origins = [\"https://*.test\"]", "websocket.allowed_origins").await;
    gateway.upgrade(&page).await.expect("an upgrade");

    let limit = "[limits]\nconnections_per_address = 2\naccept_rate_per_address = 1\n";
    let keys = "websocket.allowed_origins, limits.connections_per_address, limits.accept_rate_per_address";
    change(&gateway, limit, keys).await;
    // The name that a stranger gives counts for nothing.
    let statuses = async || {
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(status(&gateway, &of("203.0.113.1")).await);
        }
        all
    };
    drop(early);
    eventually("only open connections count", async || statuses().await == [101; 3]).await;
    let proxies = format!("{limit}[websocket]\ntrusted_proxies = [\"127.0.0.1\"]\n");
    change(&gateway, &proxies, "websocket.trusted_proxies").await;
    assert_eq!(statuses().await, [101, 101, 429]);
    let off = proxies.replace("_address = 1", "_address = 0");
    change(&gateway, &off, "limits.accept_rate_per_address").await;
    eventually("the rate is off", async || statuses().await == [101; 3]).await;
}

#[tokio::test]
async fn senders_change_and_those_that_are_connected_stay() {
    let gateway = Gateway::configured("").await;
    let mut early = gateway.sender().await;
    assert_eq!(early.ask("x").await, "fail");
    change(&gateway, "text.allow_from = [\"127.0.0.2\"]", "text.allow_from").await;
    gateway.sender().await.ended().await;
    let refused = "hotgate_senders_refused_total{reason=\"allow-from\"}";
    assert_eq!(gateway.admin().await.metric(refused).await, 1.0);
    assert_eq!(early.ask("x").await, "fail");
    change(&gateway, "limits.text_connections = 1", "text.allow_from, limits.text_connections").await;
    gateway.sender().await.ended().await;
    let refused = "hotgate_senders_refused_total{reason=\"connections\"}";
    assert_eq!(gateway.admin().await.metric(refused).await, 1.0);
    change(&gateway, "limits.text_connections = 2", "limits.text_connections").await;
    assert_eq!(gateway.sender().await.ask("x").await, "fail");
    assert_eq!(early.ask("x").await, "fail");
}

#[tokio::test]
async fn the_rate_of_all_connections_changes() {
    let gateway = Gateway::configured("").await;
    change(&gateway, "limits.accept_rate = 10", "limits.accept_rate").await;
    let took = async || {
        let begin = Instant::now();
        for _ in 0..11 {
            assert_eq!(status(&gateway, &Upgrade::default()).await, 101);
        }
        begin.elapsed()
    };
    assert!(took().await >= Duration::from_millis(900));
    change(&gateway, "", "limits.accept_rate").await;
    // One connection may have been waited for at the old rate.
    gateway.connect().await;
    assert!(took().await < Duration::from_millis(900));
}

#[tokio::test]
async fn the_rates_of_open_connections_change() {
    let gateway = Gateway::configured("").await;
    let mut anna = gateway.login("anna").await;
    let took = async |anna: &mut Client, count: usize| {
        let begin = Instant::now();
        for _ in 0..count {
            anna.send(r#"{"id":"anna","msg":"x"}"#).await;
        }
        for _ in 0..count {
            anna.expect("x").await;
            anna.expect("Already_Linked").await;
        }
        begin.elapsed()
    };
    took(&mut anna, 50).await;
    change(&gateway, "limits.messages_per_second = 10", "limits.messages_per_second").await;
    assert!(took(&mut anna, 40).await >= Duration::from_millis(1700));
    let bytes = "limits.bytes_per_second = 500";
    change(&gateway, bytes, "limits.messages_per_second, limits.bytes_per_second").await;
    // Each message is 29 bytes long. 1000 bytes may come at once, and as many again before the first pause.
    assert!(took(&mut anna, 130).await >= Duration::from_millis(3500));
    change(&gateway, "", "limits.bytes_per_second").await;
    took(&mut anna, 50).await;
    assert!(took(&mut anna, 200).await < Duration::from_secs(10));
    let close = "[limits]\nmessages_per_second = 10\npast_rate = \"close\"";
    change(&gateway, close, "limits.messages_per_second, limits.past_rate").await;
    for _ in 0..40 {
        anna.try_bytes(&hotgate_tests::Frame::text(r#"{"id":"nobody"}"#).encode()).await;
    }
    let code = loop {
        let frame = anna.next_frame().await;
        if frame.opcode == hotgate_tests::Opcode::CLOSE {
            break frame.close_reason().0;
        }
    };
    assert_eq!(code, 1008);
}

#[tokio::test]
async fn the_log_begins_and_ceases_to_say_more() {
    let gateway = Gateway::start().await;
    let (early, mark) = (gateway.login("early").await, gateway.log().mark());
    change(&gateway, "[log]\naccess = \"ended\"\ndecisions = 100", "log.access, log.decisions").await;
    early.close().await;
    let line = gateway.logged_since(mark, |line| line.message() == "connection ended").await;
    assert_eq!((line.number("messages_in"), line.get("authenticator")), (1, "origin-auth"));
    let anna = gateway.login("anna").await;
    gateway.logged_since(mark, |line| line.message() == "authenticated").await;
    change(&gateway, "log.decisions = 100", "log.access").await;
    let mark = gateway.log().mark();
    anna.close().await;
    gateway.login("bob").await.close().await;
    gateway.logged_since(mark, |line| line.message() == "authenticated").await;
    assert!(gateway.log().since(mark).iter().all(|line| line.message() != "connection ended"));
}

/// The new file is right, but the headers that plugins get wait for the next start. Until then, every page could act as
/// the user of a browser.
#[tokio::test]
async fn what_does_not_fit_keys_that_wait_waits_too() {
    let config = "[websocket]\npass_headers = [\"cookie\"]\nallowed_origins = [\"https://app.test\"]";
    let mut gateway = Setup::new(config).start().await;
    let evil = Upgrade::default().header("Origin", "https://evil.test");
    let mark = gateway.log().mark();
    write(&gateway, "hotgate.toml", "limits.connections = 1000");
    let line = gateway.logged_since(mark, |line| line.says("next start") && !line.get("keys").is_empty()).await;
    assert_eq!(line.get("keys"), "websocket.allowed_origins, websocket.pass_headers, limits.connections");
    gateway.logged_since(mark, |line| line.says("cross-site WebSocket hijacking")).await;
    assert_eq!(status(&gateway, &evil).await, 403);
    gateway.reconfigure("limits.connections = 1000");
    gateway.restart().await;
    assert_eq!(status(&gateway, &evil).await, 101);
}
