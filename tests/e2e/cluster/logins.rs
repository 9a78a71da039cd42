//! Logins and departures: which connection of a uid is the newest, wherever it is, and who is told.

use std::time::{Duration, Instant};

use hotgate_tests::{Client, Frame, Gateway, NatsSetup};
use serde_json::json;
use tokio::time::sleep;

use super::{closed, post, refused, setup, start, start_fixture};

async fn expect_push(gateways: [&Gateway; 2], client: &mut Client) {
    for (n, gateway) in gateways.into_iter().enumerate() {
        let line = format!(r#"{{"uid":"u","n":{n}}}"#);
        assert_eq!(gateway.sender().await.ask(&line).await, "ok", "{n}");
        client.expect(line).await;
    }
}

#[tokio::test]
async fn a_uid_is_reached_from_everywhere_once_its_client_has_its_reply() {
    let Some((_nats, gateways)) = start::<3>("").await else { return };
    let mut senders = Vec::new();
    for gateway in &gateways {
        senders.push(gateway.sender().await);
    }
    for n in 0..200 {
        let (at, uid) = (n % 3, format!("u{n}"));
        let mut client = gateways[at].login(&uid).await;
        for from in [(at + 1) % 3, (at + 2) % 3] {
            let line = format!(r#"{{"uid":"{uid}","from":{from}}}"#);
            assert_eq!(senders[from].ask(&line).await, "ok", "{n}");
            client.expect(line).await;
        }
    }
    // The same uid, now here and now there: always the newest.
    let mut clients = Vec::new();
    for n in 0..100 {
        let at = n % 3;
        let mut client = gateways[at].login("moving").await;
        let line = format!(r#"{{"uid":"moving","n":{n}}}"#);
        assert_eq!(senders[(at + 1 + n / 3 % 2) % 3].ask(&line).await, "ok", "{n}");
        client.expect(line).await;
        clients.push(client);
    }
}

#[tokio::test]
async fn a_login_waits_for_other_gateways_only_some_milliseconds() {
    let Some((_nats, [a, _b, _c])) = start::<3>("").await else { return };
    let alone = Gateway::start().await;
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..21 {
        for (gateway, took) in [&alone, &a].into_iter().zip(&mut took) {
            // All gateways are at rest: nothing else wakes them.
            sleep(Duration::from_millis(60)).await;
            let begin = Instant::now();
            _ = gateway.login("u").await;
            took.push(begin.elapsed());
        }
    }
    let [alone, in_cluster] = took.map(|mut took| {
        took.sort();
        took[took.len() / 2]
    });
    assert!(in_cluster < alone + Duration::from_millis(15), "{in_cluster:?}, alone {alone:?}");
}

#[tokio::test]
async fn pushes_go_to_the_newest_wherever_it_is() {
    let Some((_nats, [a, b])) = start::<2>("").await else { return };
    let mut first = a.login("u").await;
    let mut second = b.login("u").await;
    expect_push([&a, &b], &mut second).await;
    first.send(r#"{"id":"u","msg":"from the first"}"#).await;
    first.expect("Already_Linked").await;
    second.expect("from the first").await;
    let mut third = a.login("u").await;
    expect_push([&a, &b], &mut third).await;

    // An older one that closes changes nothing; the newest is told.
    first.close().await;
    third.expect("123").await;
    expect_push([&a, &b], &mut third).await;
    // When the newest closes, the next newest is told and takes over.
    third.close().await;
    second.expect("123").await;
    expect_push([&a, &b], &mut second).await;
    let fourth = a.login("u").await;
    fourth.reset();
    second.expect("123").await;
    expect_push([&a, &b], &mut second).await;
    second.close().await;
    for gateway in [&a, &b] {
        assert!(!gateway.reaches("u").await);
    }
}

#[tokio::test]
async fn nobody_is_told_of_another_uid_elsewhere() {
    let Some((_nats, [a, b])) = start::<2>("").await else { return };
    let mut client = a.login("u").await;
    b.login("other").await.close().await;
    let mut stranger = b.connect().await;
    stranger.expect("HeartBeat").await;
    stranger.close().await;
    assert!(b.reaches("u").await);
    client.expect(r#"{"uid":"u"}"#).await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn under_all_every_connection_is_reached_wherever_it_is() {
    let Some((_nats, [a, b])) = start::<2>("[sessions]\nduplicate_login = \"all\"").await else { return };
    let (mut first, mut second, mut third) = (a.login("u").await, b.login("u").await, b.login("u").await);
    for (n, gateway) in [&a, &b].into_iter().enumerate() {
        let line = format!(r#"{{"uid":"u","n":{n}}}"#);
        assert_eq!(gateway.sender().await.ask(&line).await, "ok");
        assert_eq!(post(&gateway.api().await, "uid=u", "by HTTP").await.json(), json!({ "reached": 3 }));
        for client in [&mut first, &mut second, &mut third] {
            client.expect(&line).await;
            client.expect("by HTTP").await;
        }
    }
}

#[tokio::test]
async fn under_close_older_the_older_is_closed_before_the_newer_has_its_reply() {
    let Some((_nats, [a, b])) = start::<2>("[sessions]\nduplicate_login = \"close-older\"").await else { return };
    let apis = [a.api().await, b.api().await];
    let mut older = a.login("u").await;
    for n in 0..40 {
        let newer = if n % 2 == 0 { &b } else { &a }.login("u").await;
        // One that has been told to close gets no message any more.
        let reached = post(&apis[n % 2], "everyone=true", "who is left?").await;
        assert_eq!(reached.json(), json!({ "reached": 1 }), "{n}");
        assert_eq!(closed(&mut older).await, 4903, "{n}");
        older = newer;
    }
}

#[tokio::test]
async fn reject_is_refused_at_the_start() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let finished = refused(setup(&nats, "[sessions]\nduplicate_login = \"reject\"")).await;
    assert_eq!(finished.code, Some(78), "{finished:?}");
    for word in ["sessions.duplicate_login", "reject", "cluster"] {
        assert!(finished.stderr.contains(word), "{finished:?}");
    }
}

/// Reads the watcher's next message about the end of a session, and returns the number of connections that are left.
async fn remaining(watcher: &mut Client) -> u32 {
    let text = watcher.text().await;
    let Some(("u", rest)) = text.split_once(' ') else { panic!("{text}") };
    rest.rsplit_once(' ').and_then(|(_, number)| number.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[tokio::test]
async fn of_connections_that_close_at_the_same_time_exactly_one_is_the_last() {
    let Some((_nats, [a, b, c])) = start_fixture::<3>("").await else { return };
    let mut watcher = a.enter("watcher").await;
    for n in 0..60 {
        let clients = [a.enter("u").await, b.enter("u").await, c.enter("u").await];
        let count = clients.len() as u32;
        for (index, mut client) in clients.into_iter().enumerate() {
            match (n + index) % 3 {
                0 => client.reset(),
                1 => client.frame(Frame::close(1000, "")).await,
                _ => drop(client),
            }
            if n % 4 == 3 {
                tokio::time::sleep(Duration::from_millis(n as u64 % 7)).await;
            }
        }
        let mut numbers = Vec::new();
        for _ in 0..count {
            numbers.push(remaining(&mut watcher).await);
        }
        assert_eq!(numbers.iter().filter(|number| **number == 0).count(), 1, "{n}: {numbers:?}");
    }
    watcher.expect_nothing().await;
}

#[tokio::test]
async fn connections_that_close_one_after_the_other_are_counted_down() {
    let Some((_nats, [a, b])) = start_fixture::<2>("").await else { return };
    let mut watcher = a.enter("watcher").await;
    for _ in 0..5 {
        let mut clients = Vec::new();
        for gateway in [&a, &b, &b, &a] {
            clients.push(gateway.enter("u").await);
        }
        while let Some(client) = clients.pop() {
            client.close().await;
            assert_eq!(remaining(&mut watcher).await as usize, clients.len());
        }
    }
}
