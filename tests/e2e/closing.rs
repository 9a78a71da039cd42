//! The closing handshake (RFC 6455 §7), begun by the client, by the gateway, or by neither.

use hotgate_tests::{Frame, Gateway, Opcode, eventually};

#[tokio::test]
async fn a_close_is_answered_with_its_code_and_the_mapping_dropped() {
    let gateway = Gateway::start().await;
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        let mut anna = gateway.login("anna").await;
        anna.frame(Frame::close(code, "bye")).await;
        assert_eq!(anna.next_frame().await.close_reason().0, code);
        anna.ended().await;
        assert!(!gateway.reaches("anna").await);
    }
}

#[tokio::test]
async fn a_close_without_a_code_is_answered_with_none_or_1000() {
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    anna.frame(Frame::new(Opcode::CLOSE, [])).await;
    let code = anna.next_frame().await.close_reason().0;
    assert!([1000, 1005].contains(&code), "{code}");
    anna.ended().await;
    assert!(!gateway.reaches("anna").await);
}

#[tokio::test]
async fn an_invalid_close_is_a_protocol_error() {
    let gateway = Gateway::start().await;
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        let mut anna = gateway.login("anna").await;
        eprintln!("{code}");
        anna.frame(Frame::close(code, "")).await;
        anna.expect_close(1002).await;
    }
    let mut anna = gateway.login("anna").await;
    anna.frame(Frame::new(Opcode::CLOSE, [3])).await;
    anna.expect_close(1002).await;
}

#[tokio::test]
async fn a_reason_may_fill_the_frame() {
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    anna.frame(Frame::close(4321, &"x".repeat(123))).await;
    anna.expect_close(4321).await;
}

#[tokio::test]
async fn what_follows_a_close_is_ignored() {
    let gateway = Gateway::start().await;
    let (mut anna, mut bob) = (gateway.login("anna").await, gateway.login("bob").await);
    let last_words = Frame::text(r#"{"id":"bob","msg":"one more thing"}"#);
    anna.bytes(&[Frame::close(1000, "").encode(), last_words.encode(), Frame::ping("").encode()].concat()).await;
    anna.expect_close(1000).await;
    assert!(!gateway.reaches("anna").await);
    bob.expect_nothing().await;
}

#[tokio::test]
async fn messages_before_a_close_are_carried_out_before_it() {
    let gateway = Gateway::start().await;
    let (mut anna, mut bob) = (gateway.login("anna").await, gateway.login("bob").await);
    let packet = Frame::text(r#"{"id":"bob","msg":"bye"}"#);
    anna.bytes(&[packet.encode(), packet.encode(), Frame::close(1000, "").encode()].concat()).await;
    bob.expect("bye").await;
    bob.expect("bye").await;
    anna.expect("Already_Linked").await;
    anna.expect("Already_Linked").await;
    anna.expect_close(1000).await;
}

#[tokio::test]
async fn a_close_before_the_login_is_answered_too() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect().await;
    client.expect("HeartBeat").await;
    client.close().await;
}

#[tokio::test]
async fn a_connection_that_is_cut_leaves_the_registry() {
    let gateway = Gateway::start().await;
    gateway.login("anna").await.reset();
    drop(gateway.login("bob").await);
    for uid in ["anna", "bob"] {
        eventually("the mapping is dropped", async || !gateway.reaches(uid).await).await;
    }
}

#[tokio::test]
async fn a_close_that_crosses_a_denial_does_not_hide_it() {
    let gateway = Gateway::start().await;
    let first = [Frame::text("nope").encode(), Frame::close(1000, "").encode()].concat();
    let mut client = gateway.connect().await;
    client.bytes(&first).await;
    client.expect("HeartBeat").await;
    client.expect_close(4400).await;
}

#[tokio::test]
async fn a_close_after_many_pings_is_answered() {
    let gateway = Gateway::start().await;
    let mut client = gateway.login("client").await;
    let pings = Frame::ping("x".repeat(125)).encode().repeat(40);
    client.bytes(&[pings, Frame::close(1000, "bye").encode()].concat()).await;
    loop {
        let frame = client.next_frame().await;
        if frame.opcode == Opcode::CLOSE {
            assert_eq!(frame.close_reason().0, 1000);
            break;
        }
        assert_eq!(frame.opcode, Opcode::PONG);
    }
    client.ended().await;
}
