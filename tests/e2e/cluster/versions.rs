//! A gateway of the version before in one cluster with those of this version, as during an update.

use std::path::PathBuf;

use hotgate_tests::{Client, Frame, Gateway, NatsSetup, skip};
use serde_json::json;

use super::{closed, fixture, join, logged, post, push, tell};

/// The binary of the version before. `.ci/run --full` builds it.
fn old_binary() -> Option<PathBuf> {
    let path = std::env::var_os("HOTGATE_OLD_BINARY").map(PathBuf::from);
    if path.is_none() {
        skip("HOTGATE_OLD_BINARY does not name the binary of an older version");
    }
    path
}

/// Pushes to each client from each gateway.
async fn reach_each_other(gateways: &[&Gateway], clients: &mut [(&str, Client)]) {
    for gateway in gateways {
        let (api, mut sender) = (gateway.api().await, gateway.sender().await);
        for (uid, client) in &mut *clients {
            assert_eq!(push(&api, uid, "by HTTP").await, "ok", "{uid}");
            client.expect("by HTTP").await;
            assert_eq!(sender.ask(format!("to {uid} by line")).await, "ok", "{uid}");
            client.expect("by line").await;
        }
        assert_eq!(push(&api, "nobody", "x").await, "offline");
        assert_eq!(post(&api, "group=room", "to the group").await.json(), json!({ "reached": clients.len() }));
        assert_eq!(post(&api, "everyone=true", "to all").await.json(), json!({ "reached": clients.len() }));
        for (uid, client) in &mut *clients {
            client.expect("to the group").await;
            client.expect("to all").await;
            let online = api.json(&format!("GET /v1/online?uid={uid}")).await;
            assert_eq!(online, json!({ "online": { *uid: 1 }, "offline": [] }));
        }
        let mut members: Vec<String> =
            serde_json::from_value(api.json("GET /v1/members?group=room").await["uids"].clone()).expect("a list");
        members.sort();
        let uids: Vec<_> = clients.iter().map(|(uid, _)| *uid).collect();
        assert_eq!(members, uids);
    }
}

async fn enter<'a>(gateway: &Gateway, uid: &'a str) -> (&'a str, Client) {
    let mut client = gateway.enter(uid).await;
    tell(&mut client, "join room").await;
    (uid, client)
}

#[tokio::test]
async fn a_gateway_of_the_version_before_works_with_those_of_this_version() {
    let Some(binary) = old_binary() else { return };
    let Some(nats) = NatsSetup::new().start().await else { return };
    let setup = || fixture(&nats, "[drain]\nspread = \"0s\"");
    let [a, mut old, b] = join([setup(), setup().binary(&binary), setup()]).await;
    let mut clients = [enter(&a, "anna").await, enter(&b, "bob").await, enter(&old, "olga").await];
    reach_each_other(&[&a, &old, &b], &mut clients).await;

    // A login is known everywhere once the client has its reply, wherever it was before.
    let mut before: Option<Client> = None;
    for n in 0..30 {
        let at = [&a, &old, &b][n % 3];
        let mut client = at.enter("moving").await;
        for gateway in [&a, &old, &b] {
            assert_eq!(push(&gateway.api().await, "moving", &n.to_string()).await, "ok");
            client.expect(n.to_string()).await;
        }
        if let Some(client) = before.replace(client) {
            client.close().await;
        }
    }
    before.expect("the last one").close().await;

    // Closes, in both directions.
    for (from, at) in [(&a, &old), (&old, &a)] {
        let mut client = at.enter("spam").await;
        assert_eq!(from.api().await.json("DELETE /v1/connections?uid=spam&code=4001").await, json!({ "closed": 1 }));
        assert_eq!(closed(&mut client).await, 4001);
    }
    clients[0].1.send("close olga 4002 enough").await;
    assert_eq!(closed(&mut clients[2].1).await, 4002);
    clients[2] = enter(&old, "olga").await;
    reach_each_other(&[&old, &a], &mut clients).await;

    // The update goes on: the old one leaves, and its place is taken by one of this version.
    let mark = a.log().mark();
    old.signal("TERM");
    assert_eq!(closed(&mut clients[2].1).await, 1001);
    assert_eq!(old.exit_code().await, Some(0));
    logged(&a, mark, "another gateway has left").await;
    assert_eq!(push(&a.api().await, "olga", "x").await, "offline");
    let c = setup().start().await;
    clients[2] = enter(&c, "olga").await;
    reach_each_other(&[&a, &b, &c], &mut clients).await;
    for (_, client) in &mut clients {
        client.frame(Frame::ping("anything?")).await;
        assert_eq!(client.next_frame().await.payload, "anything?");
    }
}
