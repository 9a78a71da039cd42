//! The login of the origin protocol: the greeting and the first packet.

use hotgate_tests::{Frame, Gateway, Opcode, Upgrade};

#[tokio::test]
async fn the_server_greets_at_once_on_any_path() {
    let gateway = Gateway::start().await;
    for path in ["/", "/any/path", "/?token=1", "/%e2%9c%93"] {
        gateway.upgrade(&Upgrade::path(path)).await.expect("an upgrade").expect("HeartBeat").await;
    }
}

#[tokio::test]
async fn the_first_packet_makes_the_connection_its_uid() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect().await;
    client.expect("HeartBeat").await;
    assert!(!gateway.reaches("u1").await);
    client.send(r#"{"id":"u1","token":"…","more":[1,2]}"#).await;
    client.expect("Link_successful").await;
    assert!(gateway.reaches("u1").await);
    client.expect(r#"{"uid":"u1"}"#).await;
}

#[tokio::test]
async fn a_binary_first_packet_counts_as_text() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect().await;
    client.expect("HeartBeat").await;
    client.frame(Frame::binary(r#"{"id":"u1"}"#)).await;
    client.expect("Link_successful").await;
}

#[tokio::test]
async fn a_first_packet_in_the_same_segment_as_the_upgrade_is_not_lost() {
    let gateway = Gateway::start().await;
    let frames = [Frame::text(r#"{"id":"u1"}"#), Frame::text(r#"{"id":"u1","msg":"early"}"#), Frame::ping("early")];
    let first = [Upgrade::default().encode(), frames.iter().flat_map(Frame::encode).collect()].concat();
    let mut client = gateway.connect_with(&first).await.expect("an upgrade");
    let mut answers = Vec::new();
    while answers.len() < 4 {
        match client.next_frame().await {
            frame if frame.opcode == Opcode::PONG => assert_eq!(frame.payload, "early"),
            frame => answers.push(String::from_utf8(frame.payload.into()).expect("text")),
        }
    }
    assert_eq!(answers, ["HeartBeat", "Link_successful", "early", "Already_Linked"]);
}

#[tokio::test]
async fn a_first_packet_without_a_usable_id_is_denied_in_words() {
    let gateway = Gateway::start().await;
    let mut bystander = gateway.login("bystander").await;
    for (packet, words) in [
        ("hello", "JSON"),
        ("", "JSON"),
        (r#"{"id":"u1""#, "JSON"),
        (r#"{"id":"u1"} x"#, "JSON"),
        (r#"["u1"]"#, "object"),
        (r#""u1""#, "object"),
        ("5", "object"),
        ("null", "object"),
        ("{}", "missing"),
        (r#"{"ID":"u1"}"#, "missing"),
        (r#"{"id":null}"#, "null"),
        (r#"{"id":["u1"]}"#, "array"),
        (r#"{"id":{"id":"u1"}}"#, "object"),
        (r#"{"id":true}"#, "bool"),
        (r#"{"id":1.5}"#, "fraction"),
        (r#"{"id":1e3}"#, "fraction"),
        (r#"{"id":1.0}"#, "fraction"),
        (r#"{"id":""}"#, "empty"),
        (r#"{"id":"u1","id":""}"#, "empty"),
    ] {
        let mut client = gateway.connect().await;
        client.expect("HeartBeat").await;
        client.send(packet).await;
        let (code, reason) = client.closed().await;
        assert_eq!(code, 4400, "{packet}");
        assert!(reason.contains(words), "{packet} was denied with {reason:?}");
    }
    for uid in ["", "u1", "null", "true", "1.5"] {
        assert!(!gateway.reaches(uid).await, "{uid:?} is registered");
    }
    bystander.expect_nothing().await;
}

#[tokio::test]
async fn a_binary_first_packet_that_is_not_utf_8_is_denied() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect().await;
    client.expect("HeartBeat").await;
    client.frame(Frame::binary([0xff, 0xfe])).await;
    assert!(client.expect_close(4400).await.contains("UTF-8"));
}

#[tokio::test]
async fn an_unauthenticated_connection_is_reached_by_nobody() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect().await;
    client.expect("HeartBeat").await;
    let mut sender = gateway.sender().await;
    for line in [r#"{"uid":""}"#, r#"{"uid":null}"#, r#"{"msg":"to nobody"}"#, ""] {
        assert_eq!(sender.ask(line).await, "fail", "{line}");
    }
    client.expect_nothing().await;
}
