//! Silent connections: what counts as a sign of life, and that silent connections are closed without waiting for them.

use std::time::{Duration, Instant};

use hotgate_tests::{Client, Component, Frame, Gateway, Opcode, Setup, eventually};

/// Silence is noticed after 2 s.
const QUICK: &str = "[heartbeat]\ntimeout = \"2s\"\ncheck_interval = \"100ms\"\n";

/// Makes the client send signs of life for twice the heartbeat timeout.
async fn keep_alive(client: &mut Client, mut sign_of_life: impl AsyncFnMut(&mut Client)) {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        sign_of_life(client).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn the_times_are_by_default_those_of_the_origin() {
    let gateway = Gateway::start().await;
    let begin = Instant::now();
    let mut idle_sender = gateway.sender().await;
    let mut half_open = tokio::net::TcpStream::connect(gateway.websocket).await.expect("the port is open");
    let mut stranger = gateway.connect().await;
    stranger.expect("HeartBeat").await;
    let mut silent = gateway.login("silent").await;

    let handshake = async {
        let mut answer = Vec::new();
        _ = tokio::io::AsyncReadExt::read_to_end(&mut half_open, &mut answer).await;
        assert!((5.0..8.0).contains(&begin.elapsed().as_secs_f64()), "a handshake has 5 s, not {:?}", begin.elapsed());
    };
    let authentication = async {
        stranger.expect_close(4901).await;
        assert!((10.0..13.0).contains(&begin.elapsed().as_secs_f64()), "a login has 10 s, not {:?}", begin.elapsed());
    };
    let silence = async {
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert!(silent.expect_close(4900).await.contains("heard"));
        assert!((30.0..34.0).contains(&begin.elapsed().as_secs_f64()), "silence is 30 s, not {:?}", begin.elapsed());
    };
    tokio::join!(handshake, authentication, silence);
    assert!(!gateway.reaches("silent").await);
    assert_eq!(idle_sender.ask("still there?").await, "fail");
}

#[tokio::test]
async fn a_silent_connection_is_closed_with_4900_and_a_reason() {
    let gateway = Gateway::configured(QUICK).await;
    let mut silent = gateway.login("silent").await;
    let begin = Instant::now();
    assert_ne!(silent.expect_close(4900).await, "");
    assert!(begin.elapsed() >= Duration::from_millis(1900), "{:?}", begin.elapsed());
    assert!(!gateway.reaches("silent").await);
}

#[tokio::test]
async fn what_a_client_is_sent_does_not_count_as_its_life() {
    let gateway = Gateway::configured(QUICK).await;
    let mut silent = gateway.login("silent").await;
    eventually("the mapping is dropped", async || !gateway.reaches("silent").await).await;
    let mut last = silent.next_frame().await;
    while last.opcode == Opcode::TEXT {
        last = silent.next_frame().await;
    }
    assert_eq!(last.close_reason().0, 4900);
}

#[tokio::test]
async fn messages_count_as_life() {
    let gateway = Gateway::configured(QUICK).await;
    let mut client = gateway.login("client").await;
    keep_alive(&mut client, async |client| {
        client.send("anything").await;
        client.expect("Already_Linked").await;
    })
    .await;
}

#[tokio::test]
async fn pings_count_as_life() {
    let gateway = Gateway::configured(QUICK).await;
    let mut client = gateway.login("client").await;
    keep_alive(&mut client, Client::expect_nothing).await;
}

#[tokio::test]
async fn pongs_that_nobody_asked_for_count_as_life() {
    let gateway = Gateway::configured(QUICK).await;
    let mut client = gateway.login("client").await;
    keep_alive(&mut client, async |client| client.frame(Frame::new(Opcode::PONG, "")).await).await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn fragments_count_as_life() {
    let gateway = Gateway::configured(QUICK).await;
    let mut client = gateway.login("client").await;
    client.frame(Frame::text(r#"{"id":"client","msg":""#).unfinished()).await;
    // Faster than the least rate of an unfinished message.
    let more = Frame::continuation("x".repeat(300)).unfinished();
    keep_alive(&mut client, async |client| client.frame(more.clone()).await).await;
    client.frame(Frame::continuation(r#""}"#)).await;
    assert!(client.text().await.starts_with("xx"));
}

#[tokio::test]
async fn an_unfinished_message_must_make_progress() {
    let gateway = Gateway::configured(QUICK).await;
    let begin = Frame::text(r#"{"id":"client","msg":""#).unfinished();
    for sign_of_life in [Frame::ping(""), Frame::ping("x".repeat(125)), Frame::continuation("x").unfinished()] {
        let mut client = gateway.login("client").await;
        client.frame(begin.clone()).await;
        let begun = Instant::now();
        let mut last = None;
        while last.as_ref().is_none_or(|frame: &Frame| frame.opcode != Opcode::CLOSE) {
            client.try_bytes(&sign_of_life.encode()).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            last = tokio::time::timeout(Duration::from_millis(10), client.next_frame()).await.ok();
        }
        let (code, reason) = last.expect("a close frame").close_reason();
        assert_eq!(code, 4900, "{reason:?}");
        assert!(begun.elapsed() >= Duration::from_millis(1900), "{:?}", begun.elapsed());
    }
}

/// The router's only instance is busy. Meanwhile the gateway does not read what clients send.
#[tokio::test]
async fn who_is_not_read_is_not_silent() {
    let limits = "limits = { deadline = \"20s\", concurrency = 1 }";
    let gateway = Setup::plugin(&Component::fixture(""), limits).and(QUICK).start().await;
    let (mut anna, mut bob) = (gateway.enter("anna").await, gateway.enter("bob").await);
    anna.send("nap 6000").await;
    bob.send("say hello").await;
    let begin = Instant::now();
    let pings = async |client: &mut Client| {
        while begin.elapsed() < Duration::from_secs(5) {
            client.frame(Frame::ping("")).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::join!(pings(&mut anna), pings(&mut bob));
    for (client, answer) in [(&mut anna, "v1"), (&mut bob, "hello")] {
        let mut frame = client.next_frame().await;
        while frame.opcode == Opcode::PONG {
            frame = client.next_frame().await;
        }
        assert_eq!((frame.opcode, &frame.payload[..]), (Opcode::TEXT, answer.as_bytes()));
    }
}

#[tokio::test]
async fn a_dead_peer_is_found_although_it_is_not_read() {
    let limits = "limits = { deadline = \"25s\" }";
    let config = format!("{QUICK}[limits]\nconnections = 1");
    let gateway = Setup::plugin(&Component::fixture(""), limits).and(&config).start().await;
    let mut client = gateway.enter("client").await;
    client.send("nap 20000").await;
    let begin = Instant::now();
    // By now the router handles the packet.
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.reset();
    eventually("the place is free", async || gateway.upgrade(&Default::default()).await.is_ok()).await;
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn the_server_pings_where_that_is_configured() {
    let gateway = Gateway::configured(&format!("{QUICK}ping_interval = \"500ms\"")).await;
    let mut lively = gateway.login("lively").await;
    let mut dead = gateway.login("dead").await;
    for _ in 0..8 {
        let ping = lively.next_frame().await;
        assert_eq!(ping.opcode, Opcode::PING);
        lively.frame(Frame::new(Opcode::PONG, ping.payload)).await;
    }
    // A client that does not answer pings is closed.
    let mut last = dead.next_frame().await;
    while last.opcode == Opcode::PING {
        last = dead.next_frame().await;
    }
    assert_eq!(last.close_reason().0, 4900);
    lively.send("still here").await;
    while lively.next_frame().await.opcode != Opcode::TEXT {}
}

#[tokio::test]
async fn every_connection_is_on_the_heartbeat_also_one_that_was_replaced() {
    let gateway = Gateway::configured(QUICK).await;
    let mut older = gateway.login("u").await;
    let mut newer = gateway.login("u").await;
    let pings = keep_alive(&mut newer, async |newer| newer.frame(Frame::new(Opcode::PONG, "")).await);
    tokio::join!(pings, older.expect_close(4900));
    newer.expect("123").await;
    assert!(gateway.reaches("u").await);
}

#[tokio::test]
async fn one_that_does_not_authenticate_in_time_is_closed_with_4901() {
    let gateway = Gateway::configured("[websocket]\nauthentication_timeout = \"1s\"").await;
    let mut stranger = gateway.connect().await;
    stranger.expect("HeartBeat").await;
    let mut client = gateway.login("client").await;
    // Signs of life do not replace a login.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(700) {
        stranger.expect_nothing().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_ne!(stranger.expect_close(4901).await, "");
    client.expect_nothing().await;
}

#[tokio::test]
async fn a_silent_peer_that_never_reads_is_cut_within_a_bound() {
    let gateway =
        Gateway::configured(&format!("{QUICK}[websocket]\nclose_timeout = \"1s\"\n[limits]\nconnections = 1")).await;
    let _stuck = gateway.login_narrow("stuck").await;
    // More data than the socket takes, so that the close frame cannot be sent.
    let line = format!(r#"{{"uid":"stuck","msg":"{}"}}"#, "x".repeat(1 << 20));
    let mut sender = gateway.sender().await;
    for _ in 0..3 {
        assert_eq!(sender.ask(&line).await, "ok");
    }
    // The place is free once the gateway has given up the connection.
    eventually("the place is free", async || gateway.upgrade(&Default::default()).await.is_ok()).await;
    assert!(!gateway.reaches("stuck").await);
}
