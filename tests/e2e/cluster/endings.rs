//! Gateways that are killed, stopped, paused, and started again.

use std::time::{Duration, Instant};

use hotgate_tests::{Client, Gateway, NatsSetup, eventually};
use serde_json::json;
use tokio::time::sleep;

use super::{GONE, closed, fixture, join, logged, post, push, push_until_ok, start, start_fixture};

/// Kills a gateway, as a crash does.
async fn kill(gateway: &mut Gateway) {
    gateway.signal("KILL");
    assert_eq!(gateway.exit_code().await, None);
}

#[tokio::test]
async fn a_killed_gateway_delays_nobody_and_is_gone_after_3_seconds() {
    let Some((_nats, [a, mut b, c])) = start::<3>("").await else { return };
    let (_lost, mut carl, mut anna) = (b.login("lost").await, c.login("carl").await, a.login("anna").await);
    let (api, mut sender) = (a.api().await, a.sender().await);
    assert_eq!(push(&api, "lost", "x").await, "ok");
    kill(&mut b).await;
    let begin = Instant::now();
    let mut reasons = Vec::new();
    while begin.elapsed() < GONE {
        reasons.push(push(&api, "lost", "x").await);
        let asked = Instant::now();
        assert_eq!(sender.ask(r#"{"uid":"lost"}"#).await, "fail");
        // The first ones may wait for an answer until `cluster.timeout`; once the link is in doubt, none waits.
        assert!(reasons.len() < 3 || asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
        // The others are not concerned.
        assert_eq!(sender.ask(r#"{"uid":"carl"}"#).await, "ok");
        carl.expect(r#"{"uid":"carl"}"#).await;
        assert_eq!(c.sender().await.ask(r#"{"uid":"anna"}"#).await, "ok");
        anna.expect(r#"{"uid":"anna"}"#).await;
        let mut newcomer = a.login(&format!("newcomer {}", reasons.len())).await;
        assert_eq!(push(&c.api().await, &format!("newcomer%20{}", reasons.len()), "x").await, "ok");
        newcomer.expect("x").await;
        newcomer.close().await;
        sleep(Duration::from_millis(50)).await;
    }
    reasons.dedup();
    let is_allowed = |reason: &String| ["unknown", "unreachable", "offline"].contains(&reason.as_str());
    assert!(reasons.iter().all(is_allowed), "{reasons:?}");
    // Once it is offline, it stays so.
    assert!(reasons.iter().filter(|reason| *reason == "offline").count() <= 1, "{reasons:?}");
    for gateway in [&a, &c] {
        assert_eq!(push(&gateway.api().await, "lost", "x").await, "offline");
        assert_eq!(post(&gateway.api().await, "everyone=true", "all").await.json(), json!({ "reached": 2 }));
    }

    b.start_again().await;
    let mut found = b.login("lost").await;
    assert_eq!(push(&api, "lost", "again").await, "ok");
    found.expect("again").await;
    b.sender().await.send(r#"{"uid":"carl","n":2}"#).await;
    for text in ["all", "all", r#"{"uid":"carl","n":2}"#] {
        carl.expect(text).await;
    }
}

/// Its clients come back at other gateways, and their messages go there.
#[tokio::test]
async fn clients_of_a_killed_gateway_are_reached_where_they_log_in_again() {
    let Some((_nats, [a, mut b, c])) = start::<3>("").await else { return };
    let mut lost = Vec::new();
    for n in 0..20 {
        lost.push(b.login(&format!("u{n}")).await);
    }
    kill(&mut b).await;
    drop(lost);
    for n in 0..20 {
        let uid = format!("u{n}");
        let mut client = c.login(&uid).await;
        assert_eq!(push(&a.api().await, &uid, "hi").await, "ok");
        client.expect("hi").await;
    }
}

/// Presence in a router: nobody is told of the end of connections that are lost with their gateway, but `connections`
/// is right.
#[tokio::test]
async fn connections_of_a_killed_gateway_do_not_count() {
    let Some((_nats, [a, mut b])) = start_fixture::<2>("").await else { return };
    let mut anna = a.enter("anna").await;
    let _lost = [b.enter("lost").await, b.enter("lost").await];
    anna.send("connections lost").await;
    anna.expect("2").await;
    kill(&mut b).await;
    eventually("no connections", async || {
        anna.send("connections lost").await;
        anna.text().await == "0"
    })
    .await;
    anna.send("to lost hi").await;
    anna.expect("nobody").await;
}

#[tokio::test]
async fn a_gateway_that_stops_drains_and_leaves_no_ghost() {
    let Some((_nats, [a, mut b])) = start::<2>("[drain]\nnotice = \"0s\"\nspread = \"1s\"").await else { return };
    let mut clients = Vec::new();
    for n in 0..5 {
        clients.push((format!("u{n}"), b.login(&format!("u{n}")).await));
    }
    // One of them has a second connection on the other gateway.
    let mut other = a.login("u0").await;
    let newest = b.login("u0").await;
    let (api, mark) = (a.api().await, a.log().mark());
    b.signal("TERM");
    logged(&a, mark, "another gateway drains").await;
    for (uid, client) in &mut clients[1..] {
        // Each is reached until it is closed, and then it is offline: nothing in between.
        loop {
            match push(&api, uid, "x").await.as_str() {
                "ok" => client.expect("x").await,
                reason => break assert!(["offline", "moved"].contains(&reason), "{reason}"),
            }
            sleep(Duration::from_millis(10)).await;
        }
        client.expect_close(1001).await;
    }
    for mut client in [newest, clients.remove(0).1] {
        assert_eq!(closed(&mut client).await, 1001);
    }
    assert_eq!(b.exit_code().await, Some(0));
    logged(&a, mark, "another gateway has left").await;
    for (uid, _) in &clients {
        assert_eq!(push(&api, uid, "x").await, "offline", "{uid}");
    }
    // The one with a connection here was told of it, and is reached.
    other.expect("123").await;
    while push(&api, "u0", "still here").await != "ok" {}
    while other.text().await != "still here" {}
    assert!(!a.log().since(mark).iter().any(|line| line.says("gone") || line.says("does not answer")));
}

#[tokio::test]
async fn a_rolling_restart_loses_no_message_to_others() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let config = "node = NODE\n[drain]\nnotice = \"0s\"\nspread = \"0s\"";
    let numbered = |node: &str| fixture(&nats, &config.replace("NODE", node));
    let [mut a, mut b, c] = join([numbered("1"), numbered("2"), numbered("3")]).await;
    let mut carl = c.enter("carl").await;
    for round in 0..2 {
        for (stopping, other) in [(&mut a, &mut b)] {
            let (mut sender, mark) = (other.sender().await, other.log().mark());
            stopping.signal("TERM");
            for n in 0..20 {
                assert_eq!(sender.ask(format!("to carl {n}")).await, "ok", "{round}");
                carl.expect(n.to_string()).await;
                sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(stopping.exit_code().await, Some(0));
            stopping.start_again().await;
            logged(other, mark, "another gateway takes part").await;
            assert_eq!(stopping.sender().await.ask("to carl back").await, "ok", "{round}");
            carl.expect("back").await;
        }
        std::mem::swap(&mut a, &mut b);
    }
}

/// Pushes for some seconds, and returns each reason once.
async fn reasons(gateway: &Gateway, uid: &str, client: &mut Client, time: Duration) -> Vec<String> {
    let (api, begin, mut reasons) = (gateway.api().await, Instant::now(), Vec::new());
    while begin.elapsed() < time {
        let reason = push(&api, uid, "x").await;
        if reason == "ok" {
            client.expect("x").await;
        }
        reasons.push(reason);
        sleep(Duration::from_millis(5)).await;
    }
    reasons.dedup();
    reasons
}

#[tokio::test]
async fn a_gateway_that_was_paused_says_nothing_false() {
    let Some((_nats, [a, b])) = start::<2>("").await else { return };
    let (mut before, mut own) = (b.login("before").await, a.login("own").await);
    assert_eq!(push(&a.api().await, "before", "x").await, "ok");
    before.expect("x").await;
    a.signal("STOP");
    // It cannot know of this one.
    let mut meanwhile = b.login("meanwhile").await;
    let begin = Instant::now();
    let mut said = Vec::new();
    while begin.elapsed() < Duration::from_secs(5) {
        said.push(push(&b.api().await, "own", "lost").await);
        sleep(Duration::from_millis(50)).await;
    }
    said.dedup();
    assert!(said.iter().all(|reason| ["unknown", "unreachable", "offline"].contains(&reason.as_str())), "{said:?}");
    assert_eq!(b.sender().await.ask(r#"{"uid":"before","n":1}"#).await, "ok");
    before.expect(r#"{"uid":"before","n":1}"#).await;
    a.signal("CONT");
    let time = Duration::from_secs(6);
    let (first, second) =
        tokio::join!(reasons(&a, "meanwhile", &mut meanwhile, time), reasons(&a, "before", &mut before, time),);
    for reasons in [first, second] {
        let is_allowed = |reason: &String| ["ok", "unreachable", "unknown"].contains(&reason.as_str());
        assert!(reasons.iter().all(is_allowed), "{reasons:?}");
        assert_eq!(reasons.last().map(String::as_str), Some("ok"), "{reasons:?}");
    }
    // What was refused while it was paused does not come late.
    let (_, number) = push_until_ok(&b.api().await, "own").await;
    own.expect(number.to_string()).await;
    own.expect_nothing().await;
}

#[tokio::test]
async fn a_gateway_whose_neighbour_is_paused_goes_on() {
    let Some((_nats, [a, b, c])) = start::<3>("").await else { return };
    let (_own, mut bob) = (a.login("own").await, b.login("bob").await);
    let mark = b.log().mark();
    a.signal("STOP");
    let (begin, mut count) = (Instant::now(), 0);
    // Longer than it takes until the paused one is given up.
    while begin.elapsed() < Duration::from_secs(5) {
        let asked = Instant::now();
        count += 1;
        let client = b.login(&format!("newcomer {count}")).await;
        // A login waits for the others at most 100 ms (`cluster.confirm`).
        assert!(asked.elapsed() < Duration::from_millis(700), "{:?}", asked.elapsed());
        assert_eq!(push(&c.api().await, "bob", "x").await, "ok");
        bob.expect("x").await;
        client.close().await;
    }
    logged(&b, mark, "another gateway is gone").await;
    a.signal("CONT");
    logged(&b, mark, "another gateway answers").await;
}

/// The number of the newest connection without its node, and what the state folder remembers.
async fn ids(gateway: &Gateway) -> (u64, u64) {
    let _client = gateway.login("anna").await;
    let page = gateway.admin().await.json("GET /connections").await;
    let id: u64 = page["connections"][0]["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
    let file = gateway.state_folder().join("cluster-connection-ids");
    let remembered = std::fs::read_to_string(file).expect("it is written before the first connection");
    (id & ((1 << 54) - 1), remembered.trim().parse().expect("a number"))
}

/// The clock may be set back between two starts: ids go on above all that the state folder remembers.
#[tokio::test]
async fn ids_of_connections_never_come_again() {
    let Some((_nats, [mut a])) = start::<1>("node = 7").await else { return };
    let (first, remembered) = ids(&a).await;
    assert!(first < remembered, "{first} {remembered}");
    a.restart().await;
    let (second, remembered_then) = ids(&a).await;
    assert!(second > remembered && second < remembered_then, "{second} {remembered} {remembered_then}");
    // As if the clock had been a year ahead before.
    let ahead = second + 365 * 86_400 * 1_000_000;
    kill(&mut a).await;
    std::fs::write(a.state_folder().join("cluster-connection-ids"), format!("{ahead}\n")).expect("a writable folder");
    a.start_again().await;
    let (third, remembered_last) = ids(&a).await;
    assert!(third > ahead && third < ahead + 1_000 && third < remembered_last, "{third} {ahead} {remembered_last}");
}
