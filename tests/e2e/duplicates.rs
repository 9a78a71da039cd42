//! Several connections of one uid.

use hotgate_tests::{Client, Gateway};

/// Pushes to the uid `u`, and returns the line.
async fn push(gateway: &Gateway, n: u32) -> String {
    let line = format!(r#"{{"uid":"u","n":{n}}}"#);
    assert_eq!(gateway.sender().await.ask(&line).await, "ok");
    line
}

async fn expect_push(gateway: &Gateway, client: &mut Client, n: u32) {
    let line = push(gateway, n).await;
    client.expect(line).await;
}

#[tokio::test]
async fn pushes_go_to_the_newest() {
    let gateway = Gateway::start().await;
    let mut older = gateway.login("u").await;
    let mut newer = gateway.login("u").await;
    expect_push(&gateway, &mut newer, 1).await;
    older.send(r#"{"id":"u","msg":"from the older"}"#).await;
    older.expect("Already_Linked").await;
    newer.expect("from the older").await;
    older.expect_nothing().await;
}

#[tokio::test]
async fn an_older_close_never_unmaps_a_newer_login() {
    let gateway = Gateway::start().await;
    let older = gateway.login("u").await;
    let mut newer = gateway.login("u").await;
    older.close().await;
    newer.expect("123").await;
    expect_push(&gateway, &mut newer, 1).await;
}

#[tokio::test]
async fn when_the_newest_closes_the_next_newest_is_told_and_takes_over() {
    let gateway = Gateway::start().await;
    let mut first = gateway.login("u").await;
    let mut second = gateway.login("u").await;
    let third = gateway.login("u").await;
    third.close().await;
    second.expect("123").await;
    expect_push(&gateway, &mut second, 1).await;
    second.close().await;
    first.expect("123").await;
    expect_push(&gateway, &mut first, 2).await;
    first.close().await;
    assert!(!gateway.reaches("u").await);
}

#[tokio::test]
async fn a_connection_that_is_cut_is_told_of_as_well() {
    let gateway = Gateway::start().await;
    let mut older = gateway.login("u").await;
    gateway.login("u").await.reset();
    older.expect("123").await;
    expect_push(&gateway, &mut older, 1).await;
}

#[tokio::test]
async fn nobody_is_told_of_another_uid_or_an_unauthenticated_connection() {
    let gateway = Gateway::start().await;
    let mut client = gateway.login("u").await;
    gateway.login("other").await.close().await;
    let mut stranger = gateway.connect().await;
    stranger.expect("HeartBeat").await;
    stranger.close().await;
    client.expect_nothing().await;
}

#[tokio::test]
async fn under_all_every_connection_is_reached() {
    let gateway = Gateway::configured("[sessions]\nduplicate_login = \"all\"").await;
    let mut first = gateway.login("u").await;
    let mut second = gateway.login("u").await;
    let line = push(&gateway, 1).await;
    first.expect(&line).await;
    second.expect(&line).await;
}

#[tokio::test]
async fn under_close_older_the_older_is_replaced() {
    let gateway = Gateway::configured("[sessions]\nduplicate_login = \"close-older\"").await;
    let mut older = gateway.login("u").await;
    let mut newer = gateway.login("u").await;
    older.expect_close(4903).await;
    assert!(gateway.reaches("u").await);
    newer.send(r#"{"id":"u","msg":"still here"}"#).await;
    while newer.text().await != "still here" {}
}

#[tokio::test]
async fn under_reject_the_newer_is_refused() {
    let gateway = Gateway::configured("[sessions]\nduplicate_login = \"reject\"").await;
    let mut older = gateway.login("u").await;
    let mut newer = gateway.connect().await;
    newer.expect("HeartBeat").await;
    newer.send(r#"{"id":"u"}"#).await;
    newer.expect_close(4904).await;
    expect_push(&gateway, &mut older, 1).await;
    older.close().await;
    let mut newer = gateway.login("u").await;
    expect_push(&gateway, &mut newer, 2).await;
}

#[tokio::test]
async fn many_logins_and_closes_of_one_uid_leave_one_or_none() {
    let gateway = Gateway::start().await;
    let mut survivor = gateway.login("u").await;
    for _ in 0..50 {
        let newer = gateway.login("u").await;
        newer.close().await;
        survivor.expect("123").await;
    }
    expect_push(&gateway, &mut survivor, 1).await;
    survivor.close().await;
    assert!(!gateway.reaches("u").await);
}
