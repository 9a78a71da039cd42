//! Frames, order, answers, and the notice that nobody listens.

use std::time::Duration;

use bytes::Bytes;
use hotgate_nats_tests::{NatsSetup, eventually, within};

use super::{Node, at, config};
use crate::hub::cluster::id::Incarnation;
use crate::hub::nats::{Channel, Event, MAX_FRAME, PublishError, Target};

#[tokio::test]
async fn frames_arrive_on_their_channels() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let anna = Node::connect(config(&[nats.url()]), 1).await;
    let mut berta = Node::connect(config(&[nats.url()]), 2).await;
    for (target, channel) in [
        (Target::All, Channel::All),
        (Target::Link(berta.own), Channel::Link),
        (Target::Snapshots(berta.own), Channel::Snapshots),
    ] {
        anna.bus.publish(target, None, "x").expect("sent");
        let expected = Event::Frame { channel, answer: None, bytes: Bytes::from("x") };
        assert_eq!(berta.event().await, expected);
    }
    anna.bus.publish(Target::Link(berta.own), Some(7), "ask").expect("sent");
    let answer = Some((anna.own, 7));
    assert_eq!(berta.event().await, Event::Frame { channel: Channel::Link, answer, bytes: Bytes::from("ask") });
    let mut anna = anna;
    berta.bus.publish(Target::Inbox(anna.own, 7), None, "answer").expect("sent");
    let is_answer =
        |event: &Event| matches!(event, Event::Answer { token: 7, bytes } if bytes == "answer").then_some(());
    anna.until("an answer", is_answer).await;
}

#[tokio::test]
async fn the_largest_frame_passes_and_a_larger_one_is_refused() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let mut anna = Node::connect(config(&[nats.url()]), 1).await;
    assert_eq!(anna.bus.publish(Target::All, None, vec![0; MAX_FRAME + 1]), Err(PublishError::TooLarge));
    assert_eq!(anna.bus.publish(Target::All, None, ""), Err(PublishError::Empty));
    anna.bus.publish(Target::All, None, vec![b'x'; MAX_FRAME]).expect("sent");
    assert_eq!(anna.frame().await.len(), MAX_FRAME);
}

#[tokio::test]
async fn the_order_of_publishing_is_the_order_of_arrival() {
    const FRAMES: u32 = 20_000;
    let Some(cluster) = NatsSetup::new().cluster(3).await else { return };
    let (anna, mut berta) = (at(&cluster, 0, 1).await, at(&cluster, 1, 2).await);
    let target = Target::Link(berta.own);
    heard(&anna, target, &mut berta).await;
    let sending = async {
        for number in 0..FRAMES {
            while let Err(error) = anna.bus.publish(target, None, format!("{number}")) {
                assert_eq!(error, PublishError::Full);
                anna.bus.flushed().await.expect("flushed");
            }
        }
    };
    let receiving = async {
        for number in 0..FRAMES {
            assert_eq!(berta.frame().await, number.to_string());
        }
    };
    within("all frames", async { tokio::join!(sending, receiving) }).await;
}

/// Waits until the servers of a cluster know of a subscription.
async fn heard(from: &Node, target: Target, to: &mut Node) {
    eventually("a frame on its way", async || {
        from.bus.publish(target, None, "hello").expect("sent");
        tokio::time::timeout(Duration::from_millis(50), to.frame()).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn nobody_listens_is_told_by_token() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let mut anna = Node::connect(config(&[nats.url()]), 1).await;
    anna.bus.publish(Target::Link(Incarnation(99)), Some(5), "x").expect("sent");
    assert_eq!(anna.event().await, Event::NoResponder { token: 5 });
    // Without a token, nothing is told.
    anna.bus.publish(Target::Link(Incarnation(99)), None, "x").expect("sent");
    anna.bus.publish(Target::Link(Incarnation(99)), Some(u64::MAX), "x").expect("sent");
    assert_eq!(anna.event().await, Event::NoResponder { token: u64::MAX });
}

#[tokio::test]
async fn a_gateway_that_has_ended_is_told_as_nobody() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let mut anna = Node::connect(config(&[nats.url()]), 1).await;
    let berta = Node::connect(config(&[nats.url()]), 2).await;
    berta.bus.publish(Target::Link(anna.own), None, "the last").expect("sent");
    berta.bus.close().await;
    assert_eq!(anna.frame().await, "the last");
    eventually("one client left", async || nats.clients().await == 1).await;
    anna.bus.publish(Target::Link(Incarnation(2)), Some(1), "x").expect("sent");
    assert_eq!(anna.event().await, Event::NoResponder { token: 1 });
}

#[tokio::test]
async fn a_closed_bus_ends_its_events() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let mut anna = Node::connect(config(&[nats.url()]), 1).await;
    drop(anna.bus);
    assert_eq!(within("the end", anna.events.next()).await, None);
    eventually("no client left", async || nats.clients().await == 0).await;
}

#[tokio::test]
async fn flushed_means_that_the_server_has_processed_it() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let anna = Node::connect(config(&[nats.url()]), 1).await;
    for round in 1..=50_u64 {
        for _ in 0..20 {
            anna.bus.publish(Target::Link(Incarnation(99)), None, vec![b'x'; 1000]).expect("sent");
        }
        within("flushed", anna.bus.flushed()).await.expect("flushed");
        if round % 25 == 0 {
            let bytes = nats.ask("/varz").await["in_bytes"].as_u64().expect("a number");
            assert!(bytes >= round * 20_000, "{bytes} of {}", round * 20_000);
        }
    }
    // Nothing is under way: it is told at once.
    anna.bus.flushed().await.expect("flushed");
    assert_eq!(anna.bus.confirmed(), 1000);
    assert_eq!(anna.bus.publish(Target::All, None, "x"), Ok(1001));
}

#[tokio::test]
async fn what_is_not_taken_out_in_time_is_dropped_and_counted() {
    const FRAMES: u64 = 200;
    let Some(nats) = NatsSetup::new().start().await else { return };
    let mut settings = config(&[nats.url()]);
    settings.queue = 16;
    let anna = Node::connect(config(&[nats.url()]), 1).await;
    let mut berta = Node::connect(settings, 2).await;
    for number in 0..FRAMES {
        anna.bus.publish(Target::Link(berta.own), None, number.to_string()).expect("sent");
        // The library has room for 128 events; a pause gives its task a turn.
        anna.bus.flushed().await.expect("flushed");
    }
    anna.bus.publish(Target::Snapshots(berta.own), None, "end").expect("sent");
    anna.bus.flushed().await.expect("flushed");
    // The server's answer comes after all frames: none arrives when one that is taken out has made room.
    berta.bus.flushed().await.expect("flushed");
    let (mut frames, mut dropped, mut ended) = (0, 0, false);
    while !ended || frames + dropped < FRAMES {
        match berta.event().await {
            Event::Frame { channel: Channel::Snapshots, .. } => ended = true,
            Event::Frame { .. } => frames += 1,
            Event::Dropped { channel: Channel::Link, count } => dropped += count,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((frames, dropped), (16, FRAMES - 16));
}
