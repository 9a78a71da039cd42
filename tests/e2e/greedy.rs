//! Clients that take too much of the gateway's time or memory, or that never finish.

use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use hotgate_tests::{Frame, Gateway, Setup, Upgrade, eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The receiving half of a client that sends and receives at the same time.
struct Reader {
    stream: OwnedReadHalf,
    received: BytesMut,
}

impl Reader {
    async fn text(&mut self) -> String {
        loop {
            if let Some(frame) = Frame::take(&mut self.received) {
                return String::from_utf8(frame.payload.into()).expect("text");
            }
            let count = within("a frame", self.stream.read_buf(&mut self.received)).await.expect("an open connection");
            assert!(count > 0, "the connection has ended");
        }
    }
}

async fn login(gateway: &Gateway, uid: &str) -> (Reader, OwnedWriteHalf) {
    let (stream, mut writer) = TcpStream::connect(gateway.websocket).await.expect("the port is open").into_split();
    let first = [Upgrade::default().encode(), Frame::text(format!(r#"{{"id":"{uid}"}}"#)).encode()].concat();
    writer.write_all(&first).await.expect("an open connection");
    let mut reader = Reader { stream, received: BytesMut::new() };
    while !reader.received.ends_with(b"Link_successful") {
        let count = within("a login", reader.stream.read_buf(&mut reader.received)).await.expect("an open connection");
        assert!(count > 0, "{:?}", reader.received);
    }
    let end = reader.received.windows(4).position(|window| window == b"\r\n\r\n").expect("a response");
    reader.received.advance(end + 4);
    assert_eq!(reader.text().await, "HeartBeat");
    assert_eq!(reader.text().await, "Link_successful");
    (reader, writer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_stops_sending_gets_its_pushes_at_once() {
    let gateway = Gateway::start().await;
    let (mut reader, mut writer) = login(&gateway, "flooder").await;
    let packet = Frame::text(format!(r#"{{"id":"nobody","msg":"{}"}}"#, "x".repeat(900_000))).encode();
    let flood = tokio::spawn(async move { while writer.write_all(&packet).await.is_ok() {} });
    let mut sender = gateway.sender().await;
    for n in 0..100 {
        let line = format!(r#"{{"uid":"flooder","n":{n}}}"#);
        let begin = Instant::now();
        assert_eq!(sender.ask(&line).await, "ok");
        while reader.text().await != line {}
        assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    }
    flood.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_is_not_slow_however_much_it_sends_itself() {
    let gateway = Gateway::start().await;
    let (mut reader, mut writer) = login(&gateway, "echo").await;
    let msg = "x".repeat(900_000);
    let packet = Frame::text(format!(r#"{{"id":"echo","msg":"{msg}"}}"#)).encode();
    let flood = tokio::spawn(async move {
        for _ in 0..30 {
            writer.write_all(&packet).await.expect("an open connection");
        }
        writer
    });
    for _ in 0..30 {
        assert_eq!(reader.text().await, msg);
        assert_eq!(reader.text().await, "Already_Linked");
    }
    flood.await.expect("all has been sent");
}

#[tokio::test]
async fn all_outboxes_together_hold_no_more_than_their_budget() {
    let gateway = Gateway::configured("[outbox]\ntotal_bytes = \"4MiB\"").await;
    let mut slow = Vec::new();
    for n in 0..20 {
        slow.push(gateway.login_narrow(&format!("slow{n}")).await);
    }
    let mut sender = gateway.sender().await;
    let before = gateway.resident_bytes();
    // The system's socket buffers hold a part of the data. The rest stays in the gateway.
    for _ in 0..3 {
        for n in 0..20 {
            sender.ask(format!(r#"{{"uid":"slow{n}","msg":"{}"}}"#, "x".repeat(1_900_000))).await;
        }
    }
    if let (Some(before), Some(after)) = (before, gateway.resident_bytes()) {
        assert!(after < before + (24 << 20), "114 MB were pushed, and memory grew from {before} to {after}");
    }
}

#[tokio::test]
async fn unfinished_messages_hold_no_more_than_their_budget() {
    let gateway = Gateway::configured("[inbox]\ntotal_bytes = \"2MiB\"").await;
    let admin = gateway.admin().await;
    let taken = async || admin.metric("hotgate_inbox_budget_bytes").await;
    let part = Frame::text("x".repeat(900_000)).unfinished();
    let (mut first, mut second) = (gateway.login("first").await, gateway.login("second").await);
    for client in [&mut first, &mut second] {
        let before = taken().await;
        client.frame(part.clone()).await;
        eventually("it has arrived", async || taken().await >= before + 895_000.0).await;
    }
    let mut third = gateway.login("third").await;
    third.try_bytes(&part.encode()).await;
    third.expect_close(1013).await;
    assert!(taken().await <= f64::from(2 << 20));

    // Normal traffic goes on. The messages that have begun also go on.
    let mut fourth = gateway.login("fourth").await;
    fourth.send(r#"{"id":"fourth","msg":"hello"}"#).await;
    fourth.expect("hello").await;
    fourth.expect("Already_Linked").await;
    first.frame(Frame::continuation("")).await;
    first.expect("Already_Linked").await;
    drop(second);
    eventually("all is given back", async || taken().await == 0.0).await;
}

#[tokio::test]
async fn a_large_message_leaves_nothing_behind() {
    const CLIENTS: usize = 20;
    let gateway = Setup::new("").environment("_RJEM_MALLOC_CONF", "tcache:false").start().await;
    let admin = gateway.admin().await;
    let allocated = async || admin.metric("hotgate_memory_allocated_bytes").await;
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        clients.push(gateway.login(&n.to_string()).await);
    }
    let before = allocated().await;
    let large = format!(r#"{{"id":"nobody","msg":"{}"}}"#, "x".repeat(1_000_000));
    for client in &mut clients {
        client.send(&large).await;
        client.expect("Already_Linked").await;
    }
    eventually("their memory is free", async || allocated().await < before + 2e6).await;
}

#[tokio::test]
async fn refused_requests_count_until_they_have_been_answered() {
    let gateway = Gateway::configured("[limits]\nconnections = 5\n[websocket]\nclose_timeout = \"1m\"").await;
    let mut refused = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(gateway.websocket).await.expect("the port is open");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("an open connection");
        let mut status = [0; 12];
        within("a response", stream.read_exact(&mut status)).await.expect("a response");
        assert_eq!(&status, b"HTTP/1.1 426");
        refused.push(stream);
    }
    let over = gateway.upgrade(&Default::default()).await.expect_err("all places are taken");
    assert_eq!(over.status, 503);
    drop(refused);
    eventually("places are free", async || gateway.upgrade(&Default::default()).await.is_ok()).await;
}
