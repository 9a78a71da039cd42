//! Groups, everyone, and operators' commands, on all gateways.

use hotgate_tests::Frame;
use serde_json::json;

use super::{post, start_fixture, tell};

#[tokio::test]
async fn groups_and_everyone_are_those_of_all_gateways() {
    let Some((_nats, [a, b, c])) = start_fixture::<3>("").await else { return };
    let (mut anna, mut bob, mut carl) = (a.enter("anna").await, b.enter("bob").await, c.enter("carl").await);
    let mut bert = b.enter("bert").await;
    tell(&mut anna, "join room").await;
    tell(&mut bob, "join room").await;
    tell(&mut bert, "join room").await;

    carl.send("group room from outside").await;
    for member in [&mut anna, &mut bob, &mut bert] {
        member.expect("from outside").await;
    }
    bob.send("others room only you").await;
    anna.expect("only you").await;
    bert.expect("only you").await;
    for gateway in [&a, &b, &c] {
        let (mut sender, api) = (gateway.sender().await, gateway.api().await);
        assert_eq!(sender.ask("group room by line").await, "ok");
        assert_eq!(sender.ask("everyone hear ye").await, "ok");
        assert_eq!(sender.ask("group nobody by line").await, "fail");
        assert_eq!(post(&api, "group=room", "by HTTP").await.json(), json!({ "reached": 3 }));
        assert_eq!(post(&api, "everyone=true", "hear me").await.json(), json!({ "reached": 4 }));
        assert_eq!(post(&api, "group=nobody", "by HTTP").await.json(), json!({ "reached": 0 }));
        for client in [&mut anna, &mut bob, &mut bert] {
            for text in ["by line", "hear ye", "by HTTP", "hear me"] {
                client.expect(text).await;
            }
        }
        carl.expect("hear ye").await;
        carl.expect("hear me").await;
    }
    for client in [&mut anna, &mut bob, &mut bert, &mut carl] {
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn a_join_and_a_message_to_the_group_meet_in_their_order() {
    let Some((_nats, [a, b])) = start_fixture::<2>("").await else { return };
    let mut bob = b.enter("bob").await;
    let mut sender = a.sender().await;
    for n in 0..50 {
        sender.bytes(format!("enlist bob g{n}\ngroup g{n} hello {n}\nto bob and {n}\n")).await;
        for _ in 0..3 {
            sender.expect("ok").await;
        }
        bob.expect(format!("hello {n}")).await;
        bob.expect(format!("and {n}")).await;
    }
}

#[tokio::test]
async fn a_router_closes_connections_elsewhere() {
    let Some((_nats, [a, b])) = start_fixture::<2>("").await else { return };
    let (mut anna, mut bob) = (a.enter("anna").await, b.enter("bob").await);
    anna.send("close bob 4001 enough").await;
    assert_eq!(bob.expect_close(4001).await, "enough");
    anna.send("to bob hi").await;
    anna.expect("nobody").await;
}

#[tokio::test]
async fn a_router_s_directory_is_that_of_all_gateways() {
    let Some((_nats, [a, b])) = start_fixture::<2>("").await else { return };
    let (mut anna, mut bob) = (a.enter("anna").await, b.enter("bob").await);
    let _another = a.enter("bob").await;
    tell(&mut bob, "join room").await;
    tell(&mut anna, "join room").await;
    for client in [&mut anna, &mut bob] {
        client.send("connections bob").await;
        client.expect("2").await;
        client.send("connections carl").await;
        client.expect("0").await;
        client.send("member room").await;
        client.expect("true").await;
        client.send("members room").await;
        let mut members = client.text().await.split(',').map(str::to_owned).collect::<Vec<_>>();
        members.sort();
        assert_eq!(members, ["anna", "bob"]);
    }
}

#[tokio::test]
async fn the_http_api_of_one_gateway_is_that_of_all() {
    let Some((_nats, [a, b])) = start_fixture::<2>("").await else { return };
    let (mut bob, mut anna) = (b.enter("bob").await, a.enter("anna").await);
    let api = a.api().await;
    assert_eq!(api.json("PUT /v1/membership?group=g&uid=bob").await, json!({ "connections": 1 }));
    assert_eq!(post(&api, "group=g", "to g").await.json(), json!({ "reached": 1 }));
    bob.expect("to g").await;
    assert_eq!(api.json("GET /v1/members?group=g").await, json!({ "uids": ["bob"], "more": false }));
    let online = api.json("GET /v1/online?uid=bob&uid=anna&uid=carl").await;
    assert_eq!(online, json!({ "online": { "anna": 1, "bob": 1 }, "offline": ["carl"] }));
    assert_eq!(api.json("DELETE /v1/membership?group=g&uid=bob").await, json!({ "connections": 1 }));
    assert_eq!(api.json("GET /v1/members?group=g").await, json!({ "uids": [], "more": false }));
    assert_eq!(api.json("DELETE /v1/connections?uid=bob&code=4001&reason=spam").await, json!({ "closed": 1 }));
    assert_eq!(bob.expect_close(4001).await, "spam");
    anna.frame(Frame::ping("still here")).await;
    assert_eq!(anna.next_frame().await.payload, "still here");
}
