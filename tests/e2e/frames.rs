//! Strict RFC 6455 on the wire: valid frames, and the close code for each invalid frame.

use hotgate_tests::{Client, Frame, Gateway, Opcode, Upgrade};

/// Sends the frames of each case as a logged-in client, and expects the close code of the case.
async fn expect_close(cases: impl IntoIterator<Item = (&'static str, Vec<Frame>, u16)>) {
    let gateway = Gateway::start().await;
    let mut bystander = gateway.login("bystander").await;
    for (what, frames, code) in cases {
        eprintln!("{what}");
        let mut client = gateway.login("client").await;
        client.bytes(&frames.iter().flat_map(Frame::encode).collect::<Vec<_>>()).await;
        client.expect_close(code).await;
    }
    bystander.expect_nothing().await;
}

#[tokio::test]
async fn what_is_no_valid_frame_is_a_protocol_error() {
    let text = || Frame::text("hi");
    expect_close([
        ("an unmasked frame", vec![text().unmasked()], 1002),
        ("a reserved bit", vec![text().reserved(4)], 1002),
        ("the last reserved bit", vec![text().reserved(1)], 1002),
        ("a reserved data opcode", vec![Frame::new(Opcode(3), "hi")], 1002),
        ("a reserved control opcode", vec![Frame::new(Opcode(11), "hi")], 1002),
        ("a fragmented ping", vec![Frame::ping("hi").unfinished()], 1002),
        ("a ping of 126 bytes", vec![Frame::ping("x".repeat(126))], 1002),
        ("a close of 126 bytes", vec![Frame::close(1000, &"x".repeat(124))], 1002),
        ("a continuation of nothing", vec![Frame::continuation("hi")], 1002),
        ("a message inside a message", vec![text().unfinished(), text()], 1002),
    ])
    .await;
}

/// Each case is a frame header, or the beginning of one. Its payload never comes.
#[tokio::test]
async fn a_wrong_frame_is_refused_before_its_payload_is_there() {
    let gateway = Gateway::start().await;
    let large = (1_u64 << 20).to_be_bytes();
    for (what, header) in [
        ("an unmasked frame", [&[0x82, 0x7f][..], &large].concat()),
        ("a reserved bit", [&[0xa2, 0xff][..], &large, &[0; 4]].concat()),
        ("a reserved opcode", [&[0x83, 0xff][..], &large, &[0; 4]].concat()),
        ("a ping of a megabyte", [&[0x89, 0xff][..], &large, &[0; 4]].concat()),
        ("a close of 126 bytes", vec![0x88, 0xfe, 0, 126, 0, 0, 0, 0]),
        ("a fragmented ping", vec![0x09, 0x80 | 125]),
        ("a continuation of nothing", [&[0x80, 0xff][..], &large, &[0; 4]].concat()),
        ("125 bytes, said in 16 bits", vec![0x81, 0xfe, 0, 125]),
        ("no byte, said in 16 bits", vec![0x81, 0xfe, 0, 0]),
        ("65,535 bytes, said in 64 bits", [&[0x81, 0xff][..], &65_535_u64.to_be_bytes()].concat()),
        ("more than 63 bits", vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]),
    ] {
        eprintln!("{what}");
        let mut client = gateway.login("client").await;
        // The message before the wrong frame still takes effect.
        client.bytes(&[Frame::text("anything").encode(), header].concat()).await;
        client.expect("Already_Linked").await;
        client.expect_close(1002).await;
    }
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_refused() {
    let text = |bytes: &[u8]| Frame::text(bytes);
    expect_close([
        ("a stray byte", vec![text(b"\xff")], 1007),
        ("a character cut short", vec![text(b"hi \xe2\x82")], 1007),
        ("a surrogate", vec![text(b"\xed\xa0\x80")], 1007),
        ("an overlong form", vec![text(b"\xc0\xaf")], 1007),
        ("in a fragment", vec![text(b"hi").unfinished(), Frame::continuation(*b"\xff")], 1007),
        ("cut short by the last", vec![text(b"\xe2").unfinished(), Frame::continuation("")], 1007),
        ("in a close reason", vec![Frame::new(Opcode::CLOSE, [0x03, 0xe8, 0xff])], 1007),
    ])
    .await;
}

#[tokio::test]
async fn a_character_may_be_split_over_fragments() {
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    let (first, last) = r#"{"id":"anna","msg":"é"}"#.as_bytes().split_at(20);
    anna.frame(Frame::text(first).unfinished()).await;
    anna.frame(Frame::continuation(last)).await;
    anna.expect("é").await;
}

#[tokio::test]
async fn a_message_over_the_bound_is_too_big() {
    let gateway = Gateway::configured("[websocket]\nmax_message = \"1KiB\"").await;
    let half = || "x".repeat(600);
    let big = Frame::text("x".repeat(1025)).encode();
    for frames in [
        big.clone(),
        // The gateway does not wait for bytes that may never come.
        big[..20].to_owned(),
        [Frame::text(half()).unfinished().encode(), Frame::continuation(half()).encode()].concat(),
        [Frame::binary(half()).unfinished().encode(), Frame::continuation(half()).unfinished().encode()].concat(),
    ] {
        let mut client = gateway.login("client").await;
        client.bytes(&frames).await;
        client.expect_close(1009).await;
    }
    let mut client = gateway.login("client").await;
    client.send("x".repeat(1024)).await;
    client.expect("Already_Linked").await;
}

#[tokio::test]
async fn before_the_login_a_message_is_smaller() {
    let gateway = Gateway::configured("[websocket]\nmax_first_message = \"1KiB\"").await;
    let padded = |length: usize| {
        let packet = r#"{"id":"anna"}"#.to_owned();
        packet.clone() + &" ".repeat(length - packet.len())
    };
    let mut client = gateway.connect().await;
    client.expect("HeartBeat").await;
    // The gateway does not wait for the payload.
    client.bytes(&Frame::text(padded(1025)).encode()[..20]).await;
    assert!(client.expect_close(1009).await.contains("1024"));

    let mut client = gateway.connect().await;
    client.expect("HeartBeat").await;
    let large = format!(r#"{{"id":"anna","msg":"{}"}}"#, "x".repeat(1_000_000));
    client.bytes(&[Frame::text(padded(1024)).encode(), Frame::text(&*large).encode()].concat()).await;
    client.expect("Link_successful").await;
    client.expect("x".repeat(1_000_000)).await;
    client.expect("Already_Linked").await;
}

#[tokio::test]
async fn a_message_in_too_many_fragments_is_refused() {
    let gateway = Gateway::start().await;
    let mut client = gateway.login("client").await;
    client.frame(Frame::text("").unfinished()).await;
    let fragments = Frame::continuation("").unfinished().encode().repeat(1000);
    for _ in 0..1000 {
        client.try_bytes(&fragments).await;
    }
    let (code, reason) = client.closed().await;
    assert!([1008, 1009].contains(&code), "closed with {code}: {reason:?}");
}

#[tokio::test]
async fn pings_between_fragments_do_not_renew_their_bound() {
    let gateway = Gateway::start().await;
    let mut client = gateway.login("client").await;
    client.frame(Frame::text("").unfinished()).await;
    let fragments = Frame::continuation("").unfinished().encode().repeat(1000);
    let fragments = [fragments, Frame::ping("").encode()].concat();
    for _ in 0..1000 {
        client.try_bytes(&fragments).await;
    }
    while client.next_frame().await.opcode == Opcode::PONG {}
    client.ended().await;
}

#[tokio::test]
async fn any_number_of_pings_is_no_message() {
    let gateway = Gateway::start().await;
    let mut client = gateway.login("client").await;
    let pings = Frame::ping("x".repeat(125)).encode().repeat(100);
    for n in 0..300 {
        client.bytes(&pings).await;
        client.frame(Frame::ping(n.to_string())).await;
        while client.next_frame().await.payload != n.to_string() {}
    }
    client.expect_nothing().await;
}

#[tokio::test]
async fn a_close_reaches_a_client_that_is_still_sending() {
    let gateway = Gateway::start().await;
    let mut client = gateway.login("client").await;
    client.try_bytes(&Frame::text("x".repeat(3 << 20)).encode()).await;
    client.expect_close(1009).await;
}

#[tokio::test]
async fn a_length_beyond_all_bounds_is_too_big_or_wrong() {
    let gateway = Gateway::start().await;
    for length in [u64::MAX, 1 << 63, 1 << 40] {
        let mut client = gateway.login("client").await;
        client.bytes(&[&[0x82, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat()).await;
        let (code, _) = client.closed().await;
        assert!([1002, 1009].contains(&code), "{length} was closed with {code}");
    }
}

#[tokio::test]
async fn pings_are_answered_also_inside_a_message() {
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    anna.frame(Frame::ping("")).await;
    anna.expect_frame(Opcode::PONG, "").await;
    anna.frame(Frame::ping("x".repeat(125))).await;
    anna.expect_frame(Opcode::PONG, "x".repeat(125)).await;

    anna.frame(Frame::text(r#"{"id":"anna","#).unfinished()).await;
    anna.frame(Frame::ping("inside")).await;
    anna.expect_frame(Opcode::PONG, "inside").await;
    anna.frame(Frame::continuation(r#""msg":"whole"}"#)).await;
    anna.expect("whole").await;
    anna.expect("Already_Linked").await;
}

#[tokio::test]
async fn a_pong_that_nobody_asked_for_is_ignored() {
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    anna.frame(Frame::new(Opcode::PONG, "well?")).await;
    anna.expect_nothing().await;
}

#[tokio::test]
async fn a_frame_in_many_segments_is_one_frame() {
    let gateway = Gateway::start().await;
    let bytes = [Upgrade::default().encode(), Frame::text(r#"{"id":"anna"}"#).encode()].concat();
    let stream = tokio::net::TcpStream::connect(gateway.websocket).await.expect("the port is open");
    let mut client = Client::open(stream, &bytes[..bytes.len() - 10]).await.expect("an upgrade");
    client.expect("HeartBeat").await;
    for byte in &bytes[bytes.len() - 10..] {
        client.bytes(&[*byte]).await;
    }
    client.expect("Link_successful").await;
}

#[tokio::test]
async fn a_bad_packet_never_affects_another_connection() {
    let gateway = Gateway::start().await;
    let (mut anna, mut bob) = (gateway.login("anna").await, gateway.login("bob").await);
    let mut sender = gateway.sender().await;
    for line in [r#"{"uid":["anna"]}"#, r#"{"uid":{"a":1}}"#, r#""anna""#, "7", "[[[[", r#"{"uid":7e999}"#] {
        assert_eq!(sender.ask(line).await, "fail", "{line}");
        anna.send(line).await;
        anna.expect("Already_Linked").await;
        let mut newcomer = gateway.connect().await;
        newcomer.expect("HeartBeat").await;
        newcomer.send(line).await;
        newcomer.expect_close(4400).await;
        bob.send(r#"{"id":"anna","msg":5}"#).await;
        bob.expect("Already_Linked").await;
        anna.expect("5").await;
    }
}
