//! Clients that do not read: the meaning of `ok`, and what happens when an outbox is full.

use hotgate_tests::{Frame, Gateway, Opcode, eventually};

/// A line for the text port: a message of `length` characters to `uid`.
fn line(uid: &str, n: usize, length: usize) -> String {
    format!(r#"{{"uid":"{uid}","n":{n},"msg":"{}"}}"#, "x".repeat(length))
}

#[tokio::test]
async fn past_its_outbox_a_push_fails_and_the_slow_consumer_is_closed() {
    let gateway = Gateway::configured("[outbox]\nmax_bytes = \"256KiB\"\n[websocket]\nclose_timeout = \"20s\"").await;
    let mut slow = gateway.login_narrow("slow").await;
    let mut sender = gateway.sender().await;
    let mut ok = 0;
    while sender.ask(line("slow", ok, 16 << 10)).await == "ok" {
        ok += 1;
        assert!(ok < 2000, "nothing bounds what waits for a client that does not read");
    }
    assert!(ok >= 15, "{ok} lines of 16 KiB fill no outbox of 256 KiB");
    assert!(!gateway.reaches("slow").await);

    // The client still receives messages in order, and then the close reason.
    let mut received = 0;
    let reason = loop {
        let frame = slow.next_frame().await;
        if frame.opcode == Opcode::CLOSE {
            break frame.close_reason();
        }
        assert_eq!(frame.payload, line("slow", received, 16 << 10));
        received += 1;
    };
    assert_eq!(reason.0, 4905, "{reason:?}");
    assert!(received <= ok);
}

#[tokio::test]
async fn what_was_ok_arrives_once_the_client_reads() {
    let gateway = Gateway::configured("[outbox]\nmax_bytes = \"1MiB\"").await;
    let mut slow = gateway.login_narrow("slow").await;
    let mut sender = gateway.sender().await;
    for n in 0..50 {
        assert_eq!(sender.ask(line("slow", n, 16 << 10)).await, "ok");
    }
    for n in 0..50 {
        slow.expect(line("slow", n, 16 << 10)).await;
    }
}

#[tokio::test]
async fn a_full_outbox_is_no_reason_to_fall_back_to_an_older_connection() {
    let gateway = Gateway::configured("[outbox]\nmax_bytes = \"256KiB\"").await;
    let mut older = gateway.login("u").await;
    let _slow = gateway.login_narrow("u").await;
    let mut sender = gateway.sender().await;
    while sender.ask(line("u", 0, 16 << 10)).await == "ok" {}
    older.expect("123").await;
    assert_eq!(sender.ask(r#"{"uid":"u"}"#).await, "ok");
    older.expect(r#"{"uid":"u"}"#).await;
}

#[tokio::test]
async fn one_message_always_fits_an_empty_outbox() {
    let gateway = Gateway::configured("[outbox]\nmax_bytes = \"64KiB\"").await;
    let mut client = gateway.login("u").await;
    for n in 0..3 {
        // The outbox is empty once the gateway, too, knows that all messages are written.
        client.expect_nothing().await;
        let line = line("u", n, 1 << 20);
        assert_eq!(gateway.sender().await.ask(&line).await, "ok");
        client.expect(line).await;
    }
}

#[tokio::test]
async fn a_slow_consumer_slows_nobody_else() {
    let gateway = Gateway::start().await;
    let _slow = gateway.login_narrow("slow").await;
    let (mut anna, mut bob) = (gateway.login("anna").await, gateway.login("bob").await);
    let msg = "x".repeat(512 << 10);
    for n in 0..30 {
        anna.send(format!(r#"{{"id":"slow","msg":"{msg}"}}"#)).await;
        anna.expect("Already_Linked").await;
        anna.send(format!(r#"{{"id":"bob","msg":{n}}}"#)).await;
        anna.expect("Already_Linked").await;
        bob.expect(n.to_string()).await;
    }
}

#[tokio::test]
async fn a_slow_consumer_that_never_reads_is_cut_within_a_bound() {
    let config = "[outbox]\nmax_bytes = \"64KiB\"\n[websocket]\nclose_timeout = \"500ms\"\n[limits]\nconnections = 1";
    let gateway = Gateway::configured(config).await;
    let _slow = gateway.login_narrow("slow").await;
    let mut sender = gateway.sender().await;
    while sender.ask(line("slow", 0, 64 << 10)).await == "ok" {}
    eventually("the place is free", async || gateway.upgrade(&Default::default()).await.is_ok()).await;
}

#[tokio::test]
async fn a_client_that_floods_and_never_reads_is_closed() {
    let gateway = Gateway::configured("[outbox]\nmax_bytes = \"64KiB\"\n[limits]\nconnections = 1").await;
    let mut flooder = gateway.login_narrow("flooder").await;
    let packet = hotgate_tests::Frame::text(line("flooder", 0, 0).replace("uid", "id")).encode().repeat(100);
    let flood = async {
        loop {
            flooder.try_bytes(&packet).await;
            tokio::task::yield_now().await;
        }
    };
    let freed = eventually("the place is free", async || gateway.upgrade(&Default::default()).await.is_ok());
    tokio::select! {
        () = flood => unreachable!("it never ends"),
        () = freed => {}
    }
}

#[tokio::test]
async fn a_client_that_pings_and_never_reads_costs_no_memory() {
    let gateway = Gateway::start().await;
    let mut client = gateway.login("client").await;
    let before = gateway.resident_bytes();
    let mut flooder = gateway.login_narrow("flooder").await;
    let pings = hotgate_tests::Frame::ping("x".repeat(125)).encode().repeat(1000);
    let flood = async {
        for _ in 0..500 {
            flooder.try_bytes(&pings).await;
        }
    };
    // The gateway may read the pings or leave them unread.
    _ = tokio::time::timeout(std::time::Duration::from_secs(3), flood).await;
    client.expect_nothing().await;
    if let (Some(before), Some(after)) = (before, gateway.resident_bytes()) {
        assert!(after < before + (16 << 20), "65 MB of pings were sent, and memory grew from {before} to {after}");
    }
}

#[tokio::test]
async fn all_outboxes_together_are_bounded() {
    let gateway = Gateway::configured("[outbox]\nmax_bytes = \"8MiB\"\ntotal_bytes = \"8MiB\"").await;
    let mut sender = gateway.sender().await;
    let mut slow = Vec::new();
    let mut failed = 0;
    for n in 0..4 {
        let uid = format!("slow{n}");
        slow.push(gateway.login_narrow(&uid).await);
        // Less than the limit of one outbox. The sockets hold a part of all the data.
        for n in 0..7 * 16 {
            failed += usize::from(sender.ask(line(&uid, n, 64 << 10)).await == "fail");
        }
    }
    assert!(failed > 0, "28 MiB wait in outboxes that together take 8 MiB");
    // Normal traffic goes on.
    let mut client = gateway.login("client").await;
    assert!(gateway.reaches("client").await);
    client.expect(r#"{"uid":"client"}"#).await;
}

/// Only the latest ping must be answered (RFC 6455 §5.5.3). It must be answered even if the client sends nothing more.
#[tokio::test]
async fn the_last_of_many_pings_is_answered_once_the_client_reads() {
    let gateway = Gateway::configured("[outbox]\nmax_bytes = \"32MiB\"").await;
    let mut slow = gateway.login_narrow("slow").await;
    let mut sender = gateway.sender().await;
    // More than the system's buffers take for a connection that does not read.
    for n in 0..5 {
        assert_eq!(sender.ask(line("slow", n, 1_500_000)).await, "ok");
    }
    for n in 0..300 {
        slow.frame(Frame::ping(n.to_string())).await;
    }
    // Once this message has an answer, the pings have been read: they were sent before.
    slow.send(r#"{"id":"slow","msg":"after the pings"}"#).await;
    let mut left = ["after the pings", "Already_Linked", "299"].map(|text| (text, true));
    while left.iter().any(|(_, awaited)| *awaited) {
        let frame = slow.next_frame().await;
        if let Some((_, awaited)) = left.iter_mut().find(|(text, _)| frame.payload == text.as_bytes()) {
            *awaited = false;
        }
    }
}
