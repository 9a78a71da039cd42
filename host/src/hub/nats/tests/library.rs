//! What `async-nats` itself does, where the bus relies on it or works around it. These tests speak to the library
//! directly; when one fails after an upgrade, read `client.rs` again.

use std::time::{Duration, Instant};

use async_nats::{ConnectOptions, Event};
use futures_util::{FutureExt as _, StreamExt as _};
use hotgate_nats_tests::{NatsSetup, Proxy, Way, eventually, within};
use tokio::sync::mpsc;

/// A raw connection that tells its events.
async fn raw(options: ConnectOptions, url: String) -> (async_nats::Client, mpsc::UnboundedReceiver<Event>) {
    let (sender, events) = mpsc::unbounded_channel();
    let options = options.event_callback(move |event| {
        _ = sender.send(event);
        std::future::ready(())
    });
    (within("a connection", options.connect(url)).await.expect("a connection"), events)
}

async fn until(events: &mut mpsc::UnboundedReceiver<Event>, wanted: Event) {
    within("an event", async { while events.recv().await.expect("an event") != wanted {} }).await;
}

/// The reason for `once`: whatever waits in the queue while there is no connection is sent on the next one. The server
/// keeps running, so that the subscription is there when the connection comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_library_alone_sends_late() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let receiver = async_nats::connect(nats.url()).await.expect("a connection");
    for capacity in [2048_u32, 256, 1] {
        let proxy = Proxy::start(nats.address()).await;
        let mut subscriber = receiver.subscribe("x").await.expect("subscribed");
        within("flushed", receiver.flush()).await.expect("flushed");
        let options = ConnectOptions::new().ignore_discovered_servers().client_capacity(capacity as usize);
        let (sender, mut events) = raw(options, proxy.url()).await;
        until(&mut events, Event::Connected).await;
        proxy.refuse();
        until(&mut events, Event::Disconnected).await;
        let begin = Instant::now();
        let mut accepted = 0_u32;
        // Each is accepted at least half a second before connections are accepted again.
        for _ in 0..4000 {
            let sent = tokio::task::unconstrained(sender.publish("x", accepted.to_string().into())).now_or_never();
            accepted += u32::from(matches!(sent, Some(Ok(()))));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        proxy.pass();
        until(&mut events, Event::Connected).await;
        let (mut late, mut longest) = (0, Duration::ZERO);
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_secs(1), subscriber.next()).await {
            (late, longest) = (late + 1, begin.elapsed());
        }
        println!("capacity {capacity}: {accepted} of 4000 accepted while disconnected, {late} late, up to {longest:?}");
        assert!(accepted >= capacity && late >= capacity, "{accepted} {late}");
    }
}

/// The reason for echoes: `flush` says that the kernel has taken the bytes, not that the server has.
#[tokio::test]
async fn the_library_s_flush_tells_nothing_of_the_server() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let (client, mut events) = raw(ConnectOptions::new(), nats.url()).await;
    until(&mut events, Event::Connected).await;
    nats.freeze().await;
    let (mut frames, mut told) = (0, 0);
    // Far more than the buffers of both sockets take.
    for _ in 0..400 {
        let sent = client.publish("x", vec![0; 64 << 10].into()).now_or_never();
        frames += u32::from(matches!(sent, Some(Ok(()))));
        let flushed = tokio::time::timeout(Duration::from_millis(20), client.flush()).await;
        told += u32::from(matches!(flushed, Ok(Ok(()))));
    }
    println!("{frames} frames of 64 KiB to a frozen server, {told} times told that they were flushed");
    assert!(told > 10, "{told}");
    nats.thaw();
}

/// The reason for echoes, again: what the server sends counts as an answer, so the library never asks.
#[tokio::test]
async fn the_library_does_not_notice_a_server_that_hears_nothing_but_talks() {
    let Some(nats) = NatsSetup::new().and("ping_interval: \"1m\"").start().await else { return };
    let proxy = Proxy::start(nats.address()).await;
    let talker = async_nats::connect(nats.url()).await.expect("a connection");
    let options = ConnectOptions::new().ping_interval(Duration::from_millis(200));
    let client = options.connect(proxy.url()).await.expect("a connection");
    let mut subscriber = client.subscribe("x").await.expect("subscribed");
    within("flushed", client.flush()).await.expect("flushed");
    eventually("the first message", async || {
        talker.publish("x", "beat".into()).await.expect("sent");
        tokio::time::timeout(Duration::from_millis(50), subscriber.next()).await.is_ok()
    })
    .await;
    proxy.set(Way::Hold, Way::Pass);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        talker.publish("x", "beat".into()).await.expect("sent");
        within("a message", subscriber.next()).await.expect("a message");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(client.connection_state(), async_nats::connection::State::Connected);
}

/// `Client::publish` of the bus is synchronous: it relies on `unconstrained`.
#[tokio::test]
async fn publishing_needs_no_turn_of_the_runtime() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let (client, _events) = raw(ConnectOptions::new(), nats.url()).await;
    let count = |constrained: bool| {
        let mut accepted = 0;
        for _ in 0..1000 {
            let publish = client.publish("x", "y".into());
            let sent = match constrained {
                true => publish.now_or_never(),
                false => tokio::task::unconstrained(publish).now_or_never(),
            };
            accepted += u32::from(sent.is_some());
        }
        accepted
    };
    let constrained = count(true);
    let free = count(false);
    println!("of 1000: {constrained} accepted within the task's budget, then {free} without it");
    assert!(constrained < 1000 && free == 1000, "{constrained} {free}");
}
