//! The text port: one answer for each line.

use hotgate_tests::Gateway;
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn a_line_is_delivered_as_received_then_answered() {
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    let mut sender = gateway.sender().await;
    for line in [
        r#"{"uid":"anna"}"#,
        r#"{"uid":"anna","msg":{"any":["thing",1.50]}}"#,
        r#"  { "uid" : "anna" ,  "n" : 1 }  "#,
        "\t{\"uid\":\"anna\"}\t",
        r#"{"msg":"é😀","uid":"anna"}"#,
        r#"{"uid":"anna","id":"bob"}"#,
    ] {
        assert_eq!(sender.ask(line).await, "ok", "{line}");
        anna.expect(line).await;
    }
}

#[tokio::test]
async fn a_uid_that_is_offline_fails() {
    let gateway = Gateway::start().await;
    let mut sender = gateway.sender().await;
    assert_eq!(sender.ask(r#"{"uid":"anna"}"#).await, "fail");
    let mut anna = gateway.login("anna").await;
    assert_eq!(sender.ask(r#"{"uid":"anna"}"#).await, "ok");
    anna.expect(r#"{"uid":"anna"}"#).await;
    anna.close().await;
    assert_eq!(sender.ask(r#"{"uid":"anna"}"#).await, "fail");
}

#[tokio::test]
async fn several_lines_in_one_segment_get_one_answer_each_in_order() {
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    let mut sender = gateway.sender().await;
    sender.bytes("{\"uid\":\"anna\",\"n\":1}\n{\"uid\":\"bob\"}\n\nnonsense\n{\"uid\":\"anna\",\"n\":2}\n").await;
    for answer in ["ok", "fail", "fail", "fail", "ok"] {
        sender.expect(answer).await;
    }
    anna.expect(r#"{"uid":"anna","n":1}"#).await;
    anna.expect(r#"{"uid":"anna","n":2}"#).await;
}

#[tokio::test]
async fn a_line_over_several_segments_is_one_line() {
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    let mut sender = gateway.sender().await;
    for byte in "{\"uid\":\"anna\",\"msg\":\"é\"}\r\n".bytes() {
        sender.bytes([byte]).await;
    }
    sender.expect("ok").await;
    anna.expect(r#"{"uid":"anna","msg":"é"}"#).await;
}

#[tokio::test]
async fn crlf_ends_a_line_as_lf_does() {
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    let mut sender = gateway.sender().await;
    sender.bytes("{\"uid\":\"anna\",\"n\":1} \r\n{\"uid\":\"anna\",\"n\":2}\n\r\n").await;
    for answer in ["ok", "ok", "fail"] {
        sender.expect(answer).await;
    }
    anna.expect(r#"{"uid":"anna","n":1} "#).await;
    anna.expect(r#"{"uid":"anna","n":2}"#).await;
}

#[tokio::test]
async fn what_is_not_a_push_fails_and_the_connection_stays() {
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    let mut sender = gateway.sender().await;
    let lines: [&[u8]; 9] = [
        b"hello",
        b"",
        b"   ",
        b"{",
        b"[]",
        b"5",
        br#"{"id":"anna"}"#,
        b"{\"uid\":\"anna\",\"msg\":\"\xff\"}",
        b"{\"uid\":\"anna\"}\0",
    ];
    for line in lines {
        sender.bytes([line, b"\n"].concat()).await;
        sender.expect("fail").await;
    }
    assert_eq!(sender.ask(r#"{"uid":"anna"}"#).await, "ok");
    anna.expect(r#"{"uid":"anna"}"#).await;
}

#[tokio::test]
async fn a_line_that_the_router_refuses_is_logged_with_its_sender() {
    let gateway = Gateway::start().await;
    let mut sender = gateway.sender().await;
    assert_eq!(sender.ask("hello").await, "fail");
    let line = gateway.logged(|line| line.message() == "plugin says").await;
    assert!(line.says("json") && line.number("connection") > 0, "{line:?}");
    assert!(line.get("sender").starts_with("127.0.0.1:"), "{line:?}");
}

#[tokio::test]
async fn an_unterminated_line_at_the_end_is_dropped() {
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    let mut sender = gateway.sender().await;
    sender.bytes("{\"uid\":\"anna\",\"n\":1}\n{\"uid\":\"anna\",\"n\":2}").await;
    sender.finish().await;
    sender.expect("ok").await;
    sender.ended().await;
    anna.expect(r#"{"uid":"anna","n":1}"#).await;
    anna.expect_nothing().await;
}

#[tokio::test]
async fn a_sender_that_has_finished_still_gets_its_answers() {
    let gateway = Gateway::start().await;
    let mut sender = gateway.sender().await;
    sender.bytes("x\n".repeat(1000)).await;
    sender.finish().await;
    for _ in 0..1000 {
        sender.expect("fail").await;
    }
    sender.ended().await;
}

#[tokio::test]
async fn a_line_of_1_mib_passes() {
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    let line = format!(r#"{{"uid":"anna","msg":"{}"}}"#, "x".repeat((1 << 20) - 23));
    assert_eq!(line.len(), 1 << 20);
    assert_eq!(gateway.sender().await.ask(&line).await, "ok");
    anna.expect(line).await;
}

#[tokio::test]
async fn by_default_2_mib_are_the_longest_line() {
    let gateway = Gateway::start().await;
    let mut sender = gateway.sender().await;
    sender.send("x".repeat(2 << 20)).await;
    sender.expect("fail").await;
    assert_eq!(sender.ask("still there?").await, "fail");
    sender.send("x".repeat((2 << 20) + 1)).await;
    sender.expect("fail").await;
    sender.ended().await;
}

#[tokio::test]
async fn a_line_over_the_bound_fails_and_ends_the_connection() {
    let gateway = Gateway::configured("[text]\nmax_line = \"1KiB\"").await;
    let _anna = gateway.login("anna").await;
    let line = |length: usize| format!(r#"{{"uid":"anna","msg":"{}"}}"#, "x".repeat(length - 23));
    let mut sender = gateway.sender().await;
    assert_eq!(sender.ask(line(1024)).await, "ok");
    sender.send(line(1025)).await;
    sender.expect("fail").await;
    sender.ended().await;

    // The gateway does not wait for a line end that may never come.
    let mut sender = gateway.sender().await;
    sender.bytes("x".repeat(5000)).await;
    sender.expect("fail").await;
    sender.ended().await;
}

#[tokio::test]
async fn line_ends_without_a_line_are_bounded_like_lines() {
    let gateway = Gateway::configured("[text]\nmax_line = \"1KiB\"").await;
    let mut sender = gateway.sender().await;
    sender.bytes("\r".repeat(1025)).await;
    sender.bytes("\r".repeat(1025)).await;
    sender.expect("fail").await;
    sender.ended().await;
}

/// Each case is the request of a program that an attacker told to fetch an address, with a line of the attacker in it.
#[tokio::test]
async fn no_other_protocol_reaches_a_push() {
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    let push = "\n{\"uid\":\"anna\"}\n";
    let hello = |session: &str, ticket: &str| {
        let mut body = b"\x03\x03".to_vec();
        body.extend([7; 32]);
        body.push(session.len() as u8);
        body.extend(session.as_bytes());
        body.extend(b"\0\x02\x13\x01\x01\0");
        let ticket = [b"\0\x23", &(ticket.len() as u16).to_be_bytes()[..], ticket.as_bytes()].concat();
        body.extend((ticket.len() as u16).to_be_bytes());
        body.extend(ticket);
        let length = (body.len() as u32).to_be_bytes();
        let handshake = [b"\x01", &length[1..], &body].concat();
        [b"\x16\x03\x01", &(handshake.len() as u16).to_be_bytes()[..], &handshake].concat()
    };
    let text = |start: &str| format!("{start}{push}").into_bytes();
    for (what, bytes) in [
        ("a TLS session", hello(push, "")),
        ("a TLS ticket", hello("", push)),
        ("TURN", [&b"\0\x03\0\x20\x21\x12\xa4\x42"[..], push.as_bytes()].concat()),
        ("LDAP", [&b"0\x30\x02\x01\x01\x60"[..], push.as_bytes()].concat()),
        ("a body", text("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n")),
        ("a header", text("GET / HTTP/1.1\r\nHost: x\r\nX-Any: ")),
        ("a method of its own", text("anna's / HTTP/1.1\r\n\r\n")),
        ("a method in lower case", text("post / HTTP/1.1\r\n\r\n")),
        ("an empty line and a request", text("\r\nGET / HTTP/1.1\r\n\r\n")),
        ("a path with a line end", text("GET /")),
        ("a query with a line end", text("GET /?q=")),
        ("an address with a line end", text("GET http://x/")),
        ("RTSP", text("OPTIONS rtsp://x/ RTSP/1.0\r\n\r\n")),
        ("git", text("0032git-upload-pack /")),
        ("dict", text("CLIENT libcurl 8.5.0\r\n")),
        ("SMTP", text("EHLO x\r\n")),
        ("FTP", text("USER anonymous\r\n")),
    ] {
        eprintln!("{what}");
        let mut sender = gateway.sender().await;
        sender.try_bytes(bytes).await;
        sender.expect("fail").await;
        // An empty line before the request is answered, too.
        while let Some(answer) = sender.answer().await {
            assert_eq!(answer, "fail");
        }
    }
    anna.expect_nothing().await;
    let line = gateway.logged(|line| line.message() == "sender refused").await;
    assert!(line.get("reason").contains("another protocol") && line.get("peer").starts_with("127.0.0.1:"), "{line:?}");
}

#[tokio::test]
async fn a_binary_protocol_is_not_waited_for() {
    let gateway = Gateway::start().await;
    let mut sender = gateway.sender().await;
    sender.bytes(b"\x16\x03\x01").await;
    sender.expect("fail").await;
    sender.ended().await;
}

#[tokio::test]
async fn http_is_answered_fail_once_and_closed() {
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    for request in [
        "GET / HTTP/1.1\r\nHost: gateway.test\r\n\r\n",
        "POST /push HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 15\r\n\r\n{\"uid\":\"anna\"}\n",
        "OPTIONS * HTTP/1.0\r\n\r\n",
    ] {
        let mut sender = gateway.sender().await;
        sender.bytes(request).await;
        sender.expect("fail").await;
        sender.ended().await;
    }
    // HTTP is also refused after lines that a real sender may send.
    let mut sender = gateway.sender().await;
    sender.bytes("{\"uid\":\"bob\"}\nGET / HTTP/1.1\r\n\r\n{\"uid\":\"anna\"}\n").await;
    sender.expect("fail").await;
    sender.expect("fail").await;
    sender.ended().await;
    anna.expect_nothing().await;
}

#[tokio::test]
async fn whoever_leaves_without_reading_the_answers_has_all_lines_carried_out() {
    const LINES: usize = 300;
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    for round in 0..5 {
        let line =
            |number: usize| format!(r#"{{"uid":"anna","round":{round},"n":{number},"msg":"{}"}}"#, "x".repeat(90));
        let mut sender = gateway.sender().await;
        sender.bytes((0..LINES).map(|number| line(number) + "\n").collect::<String>()).await;
        drop(sender);
        for number in 0..LINES {
            anna.expect(line(number)).await;
        }
    }
    anna.expect_nothing().await;
}

#[tokio::test]
async fn a_sender_that_does_not_read_its_answers_holds_up_nobody() {
    const LINES: usize = 200_000;
    let gateway = Gateway::start().await;
    let _anna = gateway.login("anna").await;
    let (mut writer, mut answers) = gateway.sender().await.split();
    let writing = tokio::spawn(async move {
        writer.write_all("{\"uid\":\"nobody\"}\n".repeat(LINES).as_bytes()).await.expect("the connection is open");
        writer
    });
    for _ in 0..100 {
        assert!(gateway.reaches("anna").await);
    }
    for _ in 0..LINES {
        answers.expect("fail").await;
    }
    writing.await.expect("all is written");
}
