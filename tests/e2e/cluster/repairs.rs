//! What is put right after gateways could not speak to each other, and what is said while they cannot.

use std::time::{Duration, Instant};

use hotgate_tests::{Gateway, NatsSetup, Proxy, Setup};
use serde_json::json;
use tokio::time::sleep;

use super::{
    GONE, closed, join, logged, outcome, post, push, push_until_ok, refused, setup, start_fixture, table, tell,
};

/// Starts two gateways, the second of which reaches NATS through a proxy.
async fn start_behind_proxy(config: &str) -> Option<(hotgate_tests::Nats, Proxy, [Gateway; 2])> {
    let nats = NatsSetup::new().start().await?;
    let proxy = Proxy::start(nats.address()).await;
    let gateways = join([setup(&nats, config), Setup::new(&table(&[proxy.url()], config))]).await;
    Some((nats, proxy, gateways))
}

#[tokio::test]
async fn under_close_older_duplicates_of_a_partition_are_closed_when_it_heals() {
    let config = "[sessions]\nduplicate_login = \"close-older\"";
    let Some((_nats, proxy, [a, b])) = start_behind_proxy(config).await else { return };
    let mut older = [a.login("early-a").await, b.login("early-b").await];
    proxy.refuse();
    sleep(GONE + Duration::from_millis(500)).await;
    let mut newer = [b.login("early-a").await, a.login("early-b").await];
    for client in &mut older {
        client.expect_nothing().await;
    }
    proxy.pass();
    for client in &mut older {
        assert_eq!(closed(client).await, 4903);
    }
    for (from, uid, client) in [(&a, "early-a", 0), (&b, "early-b", 1)] {
        let (_, number) = push_until_ok(&from.api().await, uid).await;
        // It may have been told before that another connection of its uid has closed.
        let mut text = newer[client].text().await;
        if text == "123" {
            text = newer[client].text().await;
        }
        assert_eq!(text, number.to_string());
    }
}

#[tokio::test]
async fn under_close_older_a_gateway_that_does_not_answer_is_asked_again() {
    let config = "[sessions]\nduplicate_login = \"close-older\"";
    let Some((_nats, _proxy, [a, b])) = start_behind_proxy(config).await else { return };
    let mut older = b.login("u").await;
    // Shorter than it takes until it is gone for the other one.
    b.signal("STOP");
    let begin = Instant::now();
    let _newer = a.login("u").await;
    assert!(begin.elapsed() < Duration::from_millis(900), "{:?}", begin.elapsed());
    sleep(Duration::from_millis(1_500)).await;
    b.signal("CONT");
    assert_eq!(closed(&mut older).await, 4903);
}

#[tokio::test]
async fn a_gateway_that_loses_nats_while_it_joins_serves_alone() {
    let Some(mut nats) = NatsSetup::new().start().await else { return };
    let (serves, refuses) = (setup(&nats, "").start(), refused(setup(&nats, "without_nats = \"refuse\"")));
    let kill = async {
        sleep(Duration::from_secs(2)).await;
        nats.kill();
    };
    let (a, finished, ()) = tokio::join!(serves, refuses, kill);
    a.logged(|line| line.says("have not let this one in")).await;
    let mut anna = a.login("anna").await;
    assert_eq!(push(&a.api().await, "anna", "hi").await, "ok");
    anna.expect("hi").await;
    assert_eq!(push(&a.api().await, "bob", "hi").await, "unreachable");
    // Not 78: a supervisor should start it again.
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("have not let this one in"), "{finished:?}");
    nats.restart().await;
    logged(&a, Default::default(), "this gateway is part of the cluster").await;
}

#[tokio::test]
async fn of_two_that_took_the_same_number_without_nats_the_younger_one_ends() {
    let Some(mut nats) = NatsSetup::new().start().await else { return };
    nats.kill();
    let older = setup(&nats, "node = 5").start().await;
    let mut younger = setup(&nats, "node = 5").start().await;
    let mut clients = [older.login("anna").await, younger.login("bob").await];
    nats.restart().await;
    clients[1].expect_close(1001).await;
    assert_eq!(younger.exit_code().await, Some(1));
    let log = younger.log().since(Default::default());
    assert!(log.iter().any(|line| line.says("cannot stay in the cluster") && line.says("cluster.node")), "{log:?}");
    assert_eq!(push(&older.api().await, "anna", "hi").await, "ok");
    clients[0].expect("hi").await;
}

#[tokio::test]
async fn blocks_are_those_of_all_gateways_also_when_they_end() {
    let Some((_nats, [a, b])) = start_fixture::<2>("").await else { return };
    let (at_a, at_b) = (a.api().await, b.api().await);
    let mut anna = b.enter("anna").await;
    assert_eq!(at_a.json("DELETE /v1/connections?uid=anna&block=10m").await, json!({ "closed": 1 }));
    anna.expect_close(4907).await;
    for gateway in [&a, &b] {
        let mut client = gateway.greeted().await;
        client.send("login anna").await;
        client.expect_close(4908).await;
    }
    assert_eq!(at_b.json("DELETE /v1/blocks?uid=anna").await, json!({ "lifted": 1 }));
    assert_eq!(at_a.json("DELETE /v1/blocks?uid=anna").await, json!({ "lifted": 0 }));
    _ = [a.enter("anna").await, b.enter("anna").await];
}

#[tokio::test]
async fn long_lists_of_members_are_complete() {
    let Some((_nats, [a, b])) = start_fixture::<2>("").await else { return };
    // Of these, some 190 fit one answer of a gateway.
    let uid = |n: usize| format!("{n:0>250}");
    let mut clients = Vec::new();
    for n in 0..450 {
        let mut client = b.enter(&uid(n)).await;
        tell(&mut client, "join room").await;
        clients.push(client);
    }
    let mut here = a.enter(&uid(450)).await;
    tell(&mut here, "join room").await;
    let api = a.api().await;
    let answer = api.json("GET /v1/members?group=room&limit=451").await;
    let mut uids: Vec<_> = answer["uids"].as_array().expect("a list").iter().map(|uid| uid.as_str().unwrap()).collect();
    uids.sort_unstable();
    assert!(
        uids.iter().copied().eq((0..451).map(uid).collect::<Vec<_>>().iter().map(String::as_str)),
        "{}",
        uids.len()
    );
    assert_eq!(answer["more"], false);
    let answer = api.json("GET /v1/members?group=room&limit=450").await;
    assert_eq!((answer["uids"].as_array().map(Vec::len), &answer["more"]), (Some(450), &json!(true)));
}

#[tokio::test]
async fn who_did_not_answer_is_named() {
    let Some((_nats, [a, b])) = start_fixture::<2>("").await else { return };
    let (mut anna, mut bob) = (a.enter("anna").await, b.enter("bob").await);
    for client in [&mut anna, &mut bob] {
        tell(client, "join room").await;
    }
    let node = b.logged(|line| line.message() == "this gateway is part of the cluster").await.number("node");
    let api = a.api().await;
    b.signal("STOP");
    let pushed = post(&api, "group=room", "hi").await;
    assert_eq!(
        (outcome(&pushed), pushed.json()),
        ("ok".to_owned(), json!({ "reached": 1, "missing": [node], "complete": false }))
    );
    let members = api.json("GET /v1/members?group=room").await;
    assert_eq!(members, json!({ "uids": ["anna"], "more": false, "complete": false, "missing": [node] }));
    let kicked = api.ask("DELETE /v1/connections?uid=bob").await;
    assert_eq!(kicked.status, 503);
    assert!(kicked.error().contains(&format!("the gateways {node} did not confirm it")), "{kicked:?}");
    b.signal("CONT");
}

#[tokio::test]
async fn a_push_of_which_nothing_is_known_is_not_sent_again_with_its_key() {
    let Some((_nats, [a, b])) = start_fixture::<2>("").await else { return };
    let mut bob = b.enter("bob").await;
    tell(&mut bob, "join room").await;
    let api = a.api().await;
    let send = async |path: &str, body: &str| {
        let request = api.request(&format!("POST /v1/{path}")).header("Idempotency-Key", path);
        api.send(request, body.as_bytes()).await
    };
    let batch = r#"{"items":[{"group":"room","text":"once"}]}"#;
    let send_all = async || {
        let (uid, group) = (send("push?uid=bob", "once"), send("push?group=room", "once"));
        <[_; 4]>::from(tokio::join!(uid, group, send("batch", batch), send("line", "to bob once")))
    };
    b.signal("STOP");
    let first = send_all().await;
    assert_eq!(first.each_ref().map(outcome), ["unknown", "ok", "ok", "unknown"], "{first:?}");
    assert_eq!(first[1].json()["complete"], false);
    b.signal("CONT");
    for (first, again) in first.into_iter().zip(send_all().await) {
        assert_eq!((again.status, again.json()), (first.status, first.json()));
        assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    }
    bob.expect_nothing().await;
    let (_, number) = push_until_ok(&api, "bob").await;
    bob.expect(number.to_string()).await;
}

#[tokio::test]
async fn without_nats_nobody_is_said_to_be_away() {
    let Some((mut nats, [a])) = start_fixture::<1>("").await else { return };
    let _anna = a.enter("anna").await;
    let api = a.api().await;
    assert_eq!(api.json("GET /v1/online?uid=bob").await, json!({ "online": {}, "offline": ["bob"] }));
    let mark = a.log().mark();
    nats.kill();
    logged(&a, mark, "the connection to NATS was lost").await;
    let online = api.json("GET /v1/online?uid=anna&uid=bob").await;
    assert_eq!(online, json!({ "online": { "anna": 1 }, "offline": ["bob"], "complete": false }));
    assert_eq!(api.json("GET /v1/members?group=g").await["complete"], false);
    for request in ["DELETE /v1/connections?uid=bob", "DELETE /v1/blocks?uid=bob"] {
        let response = api.ask(request).await;
        assert_eq!(outcome(&response), "unreachable", "{request}: {response:?}");
    }
}
