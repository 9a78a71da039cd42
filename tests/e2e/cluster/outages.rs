//! NATS servers that end, freeze and come back.

use std::time::{Duration, Instant};

use hotgate_tests::{Client, Gateway, NatsSetup, Setup, eventually};
use tokio::time::sleep;

use super::{join, logged, outcome, post, push, push_until_ok, refused, setup, start, table};

/// A push that must fail at once.
async fn fails_at_once(gateway: &Gateway, uid: &str) {
    let (api, mut sender) = (gateway.api().await, gateway.sender().await);
    let begin = Instant::now();
    assert_eq!(push(&api, uid, "late").await, "unreachable");
    assert_eq!(sender.ask(format!(r#"{{"uid":"{uid}","late":true}}"#)).await, "fail");
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
}

/// Local logins and messages are not concerned.
async fn works_alone(gateway: &Gateway, uid: &str) -> Client {
    let begin = Instant::now();
    let mut client = gateway.login(uid).await;
    assert!(begin.elapsed() < Duration::from_millis(700), "{:?}", begin.elapsed());
    for n in 0..20 {
        let line = format!(r#"{{"uid":"{uid}","n":{n}}}"#);
        assert_eq!(gateway.sender().await.ask(&line).await, "ok");
        client.expect(line).await;
    }
    client
}

#[tokio::test]
async fn without_nats_each_gateway_serves_its_own_and_nothing_arrives_late() {
    let Some((mut nats, [a, b])) = start::<2>("").await else { return };
    let (mut anna, mut bob) = (a.login("anna").await, b.login("bob").await);
    let marks = [a.log().mark(), b.log().mark()];
    nats.kill();
    for (gateway, mark) in [&a, &b].into_iter().zip(marks) {
        logged(gateway, mark, "the connection to NATS was lost").await;
    }
    let begin = Instant::now();
    let mut clients = Vec::new();
    while begin.elapsed() < Duration::from_secs(5) {
        fails_at_once(&a, "bob").await;
        fails_at_once(&b, "anna").await;
        clients.push(works_alone(&a, &format!("a{}", clients.len())).await);
        clients.push(works_alone(&b, &format!("b{}", clients.len())).await);
        // Nobody knows whether this one is elsewhere.
        assert_eq!(push(&a.api().await, "nobody", "x").await, "unreachable");
        sleep(Duration::from_millis(200)).await;
    }
    // A uid that logs in meanwhile is known when NATS is back.
    let mut meanwhile = b.login("meanwhile").await;
    nats.restart().await;
    let begin = Instant::now();
    for (from, uid, client) in [(&a, "bob", &mut bob), (&b, "anna", &mut anna), (&a, "meanwhile", &mut meanwhile)] {
        let (reasons, number) = push_until_ok(&from.api().await, uid).await;
        assert!(
            reasons.iter().all(|reason| ["expired", "unreachable", "unknown"].contains(&reason.as_str())),
            "{reasons:?}"
        );
        client.expect(number.to_string()).await;
        client.expect_nothing().await;
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    eventually("certainty about who is offline", async || push(&a.api().await, "nobody", "x").await == "offline").await;
}

#[tokio::test]
async fn a_frozen_nats_server_delays_nobody_and_brings_nothing_late() {
    let Some((nats, [a, b])) = start::<2>("").await else { return };
    let (_anna, mut bob) = (a.login("anna").await, b.login("bob").await);
    let mut alone = a.login("alone").await;
    let api = a.api().await;
    nats.freeze().await;
    let begin = Instant::now();
    let mut reasons = Vec::new();
    while begin.elapsed() < Duration::from_secs(5) {
        reasons.push(push(&api, "bob", "late").await);
        assert_eq!(push(&api, "alone", "x").await, "ok");
        alone.expect("x").await;
    }
    assert!(
        reasons.iter().all(|reason| ["expired", "unreachable", "unknown"].contains(&reason.as_str())),
        "{reasons:?}"
    );
    nats.thaw();
    let (_, number) = push_until_ok(&api, "bob").await;
    bob.expect(number.to_string()).await;
    bob.expect_nothing().await;
}

#[tokio::test]
async fn one_nats_server_of_three_may_end() {
    let Some(mut servers) = NatsSetup::new().cluster(3).await else { return };
    let urls = servers.urls();
    let at = |n: usize| {
        let mut urls = urls.clone();
        urls.rotate_left(n);
        Setup::new(&table(&urls, ""))
    };
    let [a, b] = join([at(0), at(1)]).await;
    let (mut bob, mut anna) = (b.login("bob").await, a.login("anna").await);
    for n in 0..3 {
        servers.servers[n].kill();
        for (from, uid, client) in [(&a, "bob", &mut bob), (&b, "anna", &mut anna)] {
            let begin = Instant::now();
            // A message whose outcome is unknown may have arrived, the others not.
            let (reasons, number) = push_until_ok(&from.api().await, uid).await;
            assert!(!reasons.contains("offline"), "{reasons:?}");
            assert!(begin.elapsed() < Duration::from_secs(6), "{:?} {reasons:?}", begin.elapsed());
            while client.text().await != number.to_string() {}
        }
        servers.servers[n].restart().await;
        servers.complete().await;
    }
}

#[tokio::test]
async fn without_nats_at_the_start_a_gateway_serves_alone_and_joins_later() {
    let Some(mut nats) = NatsSetup::new().start().await else { return };
    nats.kill();
    let begin = Instant::now();
    let [a, b] = join([setup(&nats, ""), setup(&nats, "")]).await;
    println!("served after {:?}", begin.elapsed());
    let _alone = [works_alone(&a, "anna").await, works_alone(&b, "bob").await];
    assert_eq!(push(&a.api().await, "bob", "x").await, "unreachable");
    nats.restart().await;
    for gateway in [&a, &b] {
        logged(gateway, Default::default(), "this gateway is part of the cluster").await;
    }
    let (mut carl, mut dora) = (a.login("carl").await, b.login("dora").await);
    for (from, uid, client) in [(&a, "dora", &mut dora), (&b, "carl", &mut carl)] {
        let (reasons, number) = push_until_ok(&from.api().await, uid).await;
        assert!(!reasons.contains("offline"), "{reasons:?}");
        client.expect(number.to_string()).await;
    }
    // Those that logged in before are known, too.
    assert_eq!(push(&a.api().await, "bob", "hi").await, "ok");
    assert_eq!(push(&b.api().await, "anna", "hi").await, "ok");
    let all = post(&a.api().await, "everyone=true", "all").await;
    assert_eq!((outcome(&all), all.json()["reached"].as_u64()), ("ok".to_owned(), Some(4)));
}

#[tokio::test]
async fn a_gateway_that_may_not_serve_alone_does_not_start_without_nats() {
    let Some(mut nats) = NatsSetup::new().start().await else { return };
    nats.kill();
    let begin = Instant::now();
    let finished = refused(setup(&nats, "without_nats = \"refuse\"")).await;
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    // Not 78: a supervisor should start it again.
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let words = ["cluster.nats", &nats.url(), "nothing listens there"];
    assert!(words.iter().all(|word| finished.stderr.contains(word)), "{finished:?}");
}
