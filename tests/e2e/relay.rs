//! The origin protocol between clients: the target receives the message, then the sender always receives
//! `Already_Linked`.

use hotgate_tests::{Frame, Gateway};

#[tokio::test]
async fn a_message_goes_to_its_uid_then_the_sender_is_told() {
    let gateway = Gateway::start().await;
    let (mut anna, mut bob) = (gateway.login("anna").await, gateway.login("bob").await);
    anna.send(r#"{"id":"bob","msg":"hi"}"#).await;
    anna.expect("Already_Linked").await;
    bob.expect("hi").await;
    bob.expect_nothing().await;
    anna.expect_nothing().await;
}

/// The client leaves without reading any answer, so that writing answers fails.
#[tokio::test]
async fn what_a_client_sent_before_it_left_is_carried_out() {
    let gateway = Gateway::start().await;
    let mut bob = gateway.login("bob").await;
    for round in 0..10 {
        let packet = |n: usize| Frame::text(format!(r#"{{"id":"bob","msg":"{round}: {n}"}}"#)).encode();
        let login = Frame::text(r#"{"id":"anna"}"#).encode();
        let mut anna = gateway.connect().await;
        anna.bytes(&[login, (0..100).flat_map(packet).collect()].concat()).await;
        drop(anna);
        for n in 0..100 {
            bob.expect(format!("{round}: {n}")).await;
        }
    }
}

#[tokio::test]
async fn a_message_to_oneself_arrives_before_the_acknowledgement() {
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    anna.send(r#"{"id":"anna","msg":"note"}"#).await;
    anna.expect("note").await;
    anna.expect("Already_Linked").await;
}

#[tokio::test]
async fn a_message_to_nobody_is_acknowledged_all_the_same() {
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    anna.send(r#"{"id":"nobody","msg":"hello?"}"#).await;
    anna.expect("Already_Linked").await;
    anna.expect_nothing().await;
}

#[tokio::test]
async fn a_message_is_delivered_as_text_whatever_its_type() {
    let gateway = Gateway::start().await;
    let (mut anna, mut bob) = (gateway.login("anna").await, gateway.login("bob").await);
    for (msg, delivered) in [
        (r#""""#, ""),
        (r#"" two  spaces ""#, " two  spaces "),
        (r#""\u00e9\ud83d\ude00\n\"""#, "é😀\n\""),
        (r#""{\"a\": 1}""#, r#"{"a": 1}"#),
        ("5", "5"),
        ("-1.50e3", "-1.50e3"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("true", "true"),
        ("null", "null"),
        ("[ 1, 2 ]", "[1,2]"),
        (r#"{ "a" : 1, "b": [ "x y" ] }"#, r#"{"a":1,"b":["x y"]}"#),
    ] {
        anna.send(format!(r#"{{"id":"bob","msg":{msg}}}"#)).await;
        anna.expect("Already_Linked").await;
        bob.expect(delivered).await;
    }
}

#[tokio::test]
async fn without_a_message_or_a_target_nothing_is_delivered() {
    let gateway = Gateway::start().await;
    let (mut anna, mut bob) = (gateway.login("anna").await, gateway.login("bob").await);
    for packet in [
        r#"{"id":"bob"}"#,
        r#"{"msg":"hi"}"#,
        r#"{"id":"","msg":"hi"}"#,
        r#"{"id":null,"msg":"hi"}"#,
        r#"{"id":["bob"],"msg":"hi"}"#,
        r#"{"id":{"bob":1},"msg":"hi"}"#,
        r#"{"id":true,"msg":"hi"}"#,
        r#"{"id":1.5,"msg":"hi"}"#,
        r#"["bob","hi"]"#,
        r#""bob""#,
        "5",
        "null",
        "hello",
        "{",
        "",
    ] {
        anna.send(packet).await;
        anna.expect("Already_Linked").await;
    }
    bob.expect_nothing().await;
}

#[tokio::test]
async fn binary_messages_count_as_text_and_are_answered_in_text() {
    let gateway = Gateway::start().await;
    let (mut anna, mut bob) = (gateway.login("anna").await, gateway.login("bob").await);
    anna.frame(Frame::binary(r#"{"id":"bob","msg":"hi"}"#)).await;
    anna.expect("Already_Linked").await;
    bob.expect("hi").await;
    anna.frame(Frame::binary([0xff, 0x00])).await;
    anna.expect("Already_Linked").await;
    bob.expect_nothing().await;
}

#[tokio::test]
async fn the_packets_of_a_connection_are_carried_out_in_order() {
    let gateway = Gateway::start().await;
    let (mut anna, mut bob) = (gateway.login("anna").await, gateway.login("bob").await);
    for n in 0..200 {
        anna.send(format!(r#"{{"id":"bob","msg":{n}}}"#)).await;
    }
    for n in 0..200 {
        anna.expect("Already_Linked").await;
        bob.expect(n.to_string()).await;
    }
}

#[tokio::test]
async fn a_message_of_1_mib_passes() {
    let gateway = Gateway::start().await;
    let (mut anna, mut bob) = (gateway.login("anna").await, gateway.login("bob").await);
    let msg = "x".repeat((1 << 20) - r#"{"id":"bob","msg":""}"#.len());
    let packet = format!(r#"{{"id":"bob","msg":"{msg}"}}"#);
    assert_eq!(packet.len(), 1 << 20);
    anna.send(packet).await;
    anna.expect("Already_Linked").await;
    bob.expect(msg).await;
}

#[tokio::test]
async fn a_message_in_many_fragments_is_one_message() {
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    let packet = r#"{"id":"anna","msg":"é in pieces"}"#.as_bytes();
    anna.frame(Frame::text(&packet[..1]).unfinished()).await;
    for byte in &packet[1..packet.len() - 1] {
        anna.frame(Frame::continuation([*byte]).unfinished()).await;
    }
    anna.frame(Frame::continuation(&packet[packet.len() - 1..])).await;
    anna.expect("é in pieces").await;
    anna.expect("Already_Linked").await;
}

#[tokio::test]
async fn whoever_leaves_without_reading_the_answers_has_all_packets_carried_out() {
    const PACKETS: usize = 64;
    let gateway = Gateway::start().await;
    let mut bob = gateway.login("bob").await;
    for round in 0..10 {
        let message = |number: usize| format!("{round}: {number}");
        let packet = |number| Frame::text(format!(r#"{{"id":"bob","msg":"{}"}}"#, message(number))).encode();
        let mut anna = gateway.login("anna").await;
        anna.bytes(&(0..PACKETS).flat_map(packet).collect::<Vec<_>>()).await;
        drop(anna);
        for number in 0..PACKETS {
            bob.expect(message(number)).await;
        }
    }
    bob.expect_nothing().await;
}
