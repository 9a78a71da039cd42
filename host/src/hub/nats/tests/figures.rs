//! Not promises: figures, by hand. `cargo test --workspace --release -- --ignored --nocapture nats::tests::figures`

use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _};
use hotgate_nats_tests::{Nats, NatsSetup};

use super::{Node, config};
use crate::hub::cluster::id::Incarnation;
use crate::hub::nats::{Event, Target};

/// The time that this process and the server have spent on processors.
fn processors(nats: &Nats) -> [Duration; 2] {
    ["self".to_owned(), nats.id().to_string()].map(|id| {
        let text = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("Linux");
        let (_, fields) = text.rsplit_once(')').expect("a name");
        let ticks = |index: usize| fields.split_whitespace().nth(index).and_then(|field| field.parse::<u64>().ok());
        Duration::from_millis(10 * (ticks(11).expect("user") + ticks(12).expect("system")))
    })
}

fn report(what: &str, nats: &Nats, before: [Duration; 2], begin: Instant, count: u32) {
    let (time, after) = (begin.elapsed(), processors(nats));
    let each = |index: usize| (after[index] - before[index]).as_secs_f64() * 1e6 / f64::from(count);
    let rate = f64::from(count) / time.as_secs_f64();
    println!("{what}: {rate:.0}/s; CPU per frame: clients {:.2} µs, server {:.2} µs", each(0), each(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn the_cost_of_a_frame() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let anna = Node::connect(config(&[nats.url()]), 1).await;
    let mut times = Vec::new();
    for _ in 0..5000 {
        let begin = Instant::now();
        anna.bus.publish(Target::Link(Incarnation(9)), None, "x").expect("sent");
        anna.bus.flushed().await.expect("flushed");
        times.push(begin.elapsed());
    }
    times.sort();
    println!("publish + flushed: p50 {:?}, p99 {:?}", times[2500], times[4950]);

    for size in [240, 4096, 65_536] {
        let count = 2_000_000_000 / (size as u32 * 20 + 10_000);
        // One frame is under way at a time, as a link sends its batches.
        let mut berta = Node::connect(config(&[nats.url()]), 2).await;
        let (before, begin) = (processors(&nats), Instant::now());
        let reading = tokio::spawn(async move {
            for _ in 0..count {
                while !matches!(berta.events.next().await, Some(Event::Frame { .. })) {}
            }
        });
        for _ in 0..count {
            anna.bus.publish(Target::Link(Incarnation(2)), None, vec![0; size]).expect("sent");
            anna.bus.flushed().await.expect("flushed");
        }
        reading.await.expect("read");
        report(&format!("{size} bytes, one under way"), &nats, before, begin, count);

        // As many as fit.
        let mut berta = Node::connect(config(&[nats.url()]), 2).await;
        let (before, begin) = (processors(&nats), Instant::now());
        let reading = tokio::spawn(async move {
            let mut missing = i64::from(count);
            while missing > 0 {
                match berta.events.next().await {
                    Some(Event::Frame { .. }) => missing -= 1,
                    Some(Event::Dropped { count, .. }) => missing -= i64::try_from(count).expect("few"),
                    other => panic!("{other:?}"),
                }
            }
        });
        for _ in 0..count {
            while anna.bus.publish(Target::Link(Incarnation(2)), None, vec![0; size]).is_err() {
                anna.bus.flushed().await.expect("flushed");
            }
        }
        reading.await.expect("read");
        report(&format!("{size} bytes, as many as fit"), &nats, before, begin, count);

        // The library alone, flushed as its own `flush` does.
        let receiver = async_nats::connect(nats.url()).await.expect("a connection");
        let mut subscriber = receiver.subscribe("x").await.expect("subscribed");
        receiver.flush().await.expect("flushed");
        let sender = async_nats::connect(nats.url()).await.expect("a connection");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (before, begin) = (processors(&nats), Instant::now());
        let reading = tokio::spawn(async move {
            for _ in 0..count {
                subscriber.next().await.expect("a message");
            }
        });
        for _ in 0..count {
            let sent = tokio::task::unconstrained(sender.publish("x", vec![0; size].into())).now_or_never();
            sent.expect("room").expect("sent");
            sender.flush().await.expect("flushed");
        }
        reading.await.expect("read");
        report(&format!("{size} bytes, the library alone, written"), &nats, before, begin, count);
    }
}
