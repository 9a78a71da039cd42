//! Whose failures cause a rollback: those of many clients, and never those of one malicious client.

use hotgate_tests::{Client, Component, Gateway, Mark};

use crate::rollback::{SLOT, fragile, plugins};

async fn swapped_to(gateway: &Gateway, component: &Component) -> Mark {
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(component);
    gateway.swapped_since(mark).await;
    mark
}

async fn alerted(gateway: &Gateway, mark: Mark) -> String {
    let line = gateway.logged_since(mark, |line| line.message() == "plugin fails too often").await;
    line.get("reason").to_owned()
}

async fn rolled_back(gateway: &Gateway, mark: Mark) {
    let back = gateway.logged_since(mark, |line| line.message() == "plugin rolled back").await;
    assert_eq!((back.number("generation"), back.get("slot")), (2, SLOT));
}

/// Sends packets that make the plugin fail, and waits until the gateway has decided them.
async fn fail(client: &mut Client, packets: usize) {
    for _ in 0..packets {
        client.send("say unlucky").await;
    }
    client.send("version").await;
    client.text().await;
}

#[tokio::test]
async fn one_client_alone_cannot_bring_back_what_served_before() {
    let gateway = Gateway::with_plugin(&Component::version(1)).await;
    // Two connections of the same uid and address are one client.
    let mut mallory = [gateway.enter("mallory").await, gateway.enter("mallory").await];
    let mut others = Vec::new();
    for n in 0..4 {
        others.push(gateway.enter(&format!("c{n}")).await);
    }
    let mark = swapped_to(&gateway, &fragile()).await;
    for client in &mut mallory {
        fail(client, 200).await;
    }
    let reason = alerted(&gateway, mark).await;
    assert!(reason.contains("only 1 client is affected, and a rollback at once needs 5"), "{reason}");
    let status = plugins(&gateway).await;
    assert_eq!((&status["live"]["generation"], &status["live"]["stage"]), (&2.into(), &"probation".into()), "{status}");
    // Now the plugin fails for other clients, too.
    for client in &mut others {
        client.send("say unlucky").await;
    }
    rolled_back(&gateway, mark).await;
}

#[tokio::test]
async fn a_failure_for_each_of_five_clients_is_enough() {
    let gateway = Gateway::with_plugin(&Component::version(1)).await;
    let mut clients = Vec::new();
    for n in 0..5 {
        clients.push(gateway.enter(&format!("c{n}")).await);
    }
    let mark = swapped_to(&gateway, &fragile()).await;
    for client in &mut clients {
        client.send("say unlucky").await;
    }
    rolled_back(&gateway, mark).await;
}

#[tokio::test]
async fn who_has_no_uid_yet_is_an_address_behind_which_there_may_be_many() {
    let gateway = Gateway::with_plugin(&Component::version(1)).await;
    let mark = swapped_to(&gateway, &Component::fixture("version=2;authenticate=do trap")).await;
    let knock = async |last: u8| {
        let mut client = gateway.connect_from([127, 0, 0, last]).await.expect("an upgrade");
        client.expect("hello v2").await;
        client.send("login anna").await;
        client.expect_close(1013).await;
    };
    for _ in 0..99 {
        knock(1).await;
    }
    alerted(&gateway, mark).await;
    assert_eq!(plugins(&gateway).await["live"]["generation"], 2);
    knock(1).await;
    rolled_back(&gateway, mark).await;

    // Five failures from five addresses are enough.
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::fixture("version=3;authenticate=do trap"));
    gateway.swapped_since(mark).await;
    for last in 1..=5 {
        let mut client = gateway.connect_from([127, 0, 0, last]).await.expect("an upgrade");
        client.expect("hello v3").await;
        client.send("login anna").await;
        client.expect_close(1013).await;
    }
    gateway.logged_since(mark, |line| line.message() == "plugin rolled back").await;
}

#[tokio::test]
async fn failed_pushes_always_count() {
    let gateway = Gateway::with_plugin(&Component::version(1)).await;
    let mut sender = gateway.sender().await;
    let mark = swapped_to(&gateway, &Component::fixture("version=2;push=do trap")).await;
    for _ in 0..5 {
        assert_eq!(sender.ask("say hi").await, "fail");
    }
    rolled_back(&gateway, mark).await;
    assert_eq!(sender.ask("say hi").await, "hi");
}
