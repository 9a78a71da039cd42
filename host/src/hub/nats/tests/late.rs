//! Nothing is sent late.

use std::time::{Duration, Instant};

use hotgate_nats_tests::{NatsSetup, Proxy};

use super::{Node, config};
use crate::hub::nats::{BusConfig, Event, PublishError, Target};

/// Publishes numbers until told to stop. Returns those that were accepted, with the time.
async fn publish_numbers(node: &Node, target: Target, until: Instant) -> (Vec<Instant>, u64) {
    let (mut accepted, mut refused) = (Vec::new(), 0);
    while Instant::now() < until {
        match node.bus.publish(target, None, accepted.len().to_string()) {
            Ok(_) => accepted.push(Instant::now()),
            Err(_) => refused += 1,
        }
        if refused % 8 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
    (accepted, refused)
}

/// How long frames were under way: how many more than `limit`, and the longest.
fn lateness(accepted: &[Instant], arrived: &[(usize, Instant)], limit: Duration) -> (usize, Duration) {
    let times = arrived.iter().map(|&(number, at)| at.saturating_duration_since(accepted[number]));
    let (mut late, mut longest) = (0, Duration::ZERO);
    for time in times {
        late += usize::from(time > limit);
        longest = longest.max(time);
    }
    (late, longest)
}

/// Reads numbers until nothing has come for a second.
async fn read_numbers(node: &mut Node, until: Instant) -> Vec<(usize, Instant)> {
    let mut arrived = Vec::new();
    loop {
        let wait = until.saturating_duration_since(Instant::now()) + Duration::from_secs(1);
        match tokio::time::timeout(wait, node.events.next()).await {
            Ok(Some(Event::Frame { bytes, .. })) => {
                let number = str::from_utf8(&bytes).expect("a number").parse().expect("a number");
                arrived.push((number, Instant::now()));
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return arrived,
        }
    }
}

/// Two servers: the receiver stays connected to the one that is not disturbed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_late_when_the_server_is_killed_and_restarted() {
    let Some(mut cluster) = NatsSetup::new().cluster(2).await else { return };
    let urls = cluster.urls();
    let sender = Node::connect(config(&urls[..1]), 1).await;
    let mut receiver = Node::connect(config(&urls[1..]), 2).await;
    let until = Instant::now() + Duration::from_secs(10);
    let target = Target::Link(receiver.own);
    let publishing = tokio::spawn(async move {
        let done = publish_numbers(&sender, target, until).await;
        (done, sender)
    });
    let reading = tokio::spawn(async move { read_numbers(&mut receiver, until).await });
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(900)).await;
        cluster.servers[0].kill();
        tokio::time::sleep(Duration::from_millis(900)).await;
        cluster.servers[0].restart().await;
    }
    let ((accepted, refused), _sender) = publishing.await.expect("published");
    let arrived = reading.await.expect("read");
    let (late, longest) = lateness(&accepted, &arrived, Duration::from_millis(400));
    println!(
        "{} accepted, {refused} refused, {} arrived, {late} late, the slowest took {longest:?}",
        accepted.len(),
        arrived.len()
    );
    assert!(refused > 100 && arrived.len() > 500, "{refused} {}", arrived.len());
    assert!(arrived.is_sorted_by_key(|&(number, _)| number), "in order, and none twice");
    assert_eq!(late, 0, "{longest:?}");
}

const FRAME: usize = 10_000;
/// The most frames of that size that may be unconfirmed.
const MOST: usize = 100;

/// Publishes for so long while the way to the server is closed. Returns how many frames were accepted.
async fn publish_in_vain(sender: &Node, target: Target, time: Duration) -> usize {
    let begin = Instant::now();
    let (mut accepted, mut errors) = (0, Vec::new());
    while begin.elapsed() < time {
        match sender.bus.publish(target, None, vec![b'x'; FRAME]) {
            Ok(_) => accepted += 1,
            Err(error) if errors.last() == Some(&error) => {}
            Err(error) => errors.push(error),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // On a busy machine, a later one may be the first.
    let order = [PublishError::Full, PublishError::Stalled, PublishError::Disconnected];
    let at = |error: &PublishError| order.iter().position(|expected| expected == error);
    assert!(!errors.is_empty() && errors.iter().all(|error| at(error).is_some()), "{errors:?}");
    assert!(errors.is_sorted_by_key(at), "{errors:?}");
    accepted
}

/// Publishes the last frame on the next connection. Returns how many frames arrived before it.
async fn count_late(sender: &mut Node, target: Target, receiver: &mut Node) -> usize {
    sender.disconnected().await;
    sender.connected().await;
    sender.bus.publish(target, None, "end").expect("sent");
    let mut late = 0;
    while receiver.frame().await != "end" {
        late += 1;
    }
    late
}

fn narrow(server: String) -> BusConfig {
    BusConfig { unconfirmed: MOST * FRAME, ..config(&[server]) }
}

/// A frozen server has frames in its socket and delivers them when it thaws. Their number is bounded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_frozen_server_delivers_late_is_bounded() {
    let Some(cluster) = NatsSetup::new().cluster(2).await else { return };
    let urls = cluster.urls();
    let mut sender = Node::connect(narrow(urls[0].clone()), 1).await;
    let mut receiver = Node::connect(config(&urls[1..]), 2).await;
    let target = Target::Link(receiver.own);
    cluster.servers[0].freeze().await;
    let accepted = publish_in_vain(&sender, target, Duration::from_millis(2300)).await;
    cluster.servers[0].thaw();
    let late = count_late(&mut sender, target, &mut receiver).await;
    println!("{accepted} accepted after the freeze, {late} delivered after the thaw; at most {MOST}");
    assert!(accepted <= MOST && late <= accepted, "{accepted} {late}");
}

/// The network holds packets back and then delivers them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_network_delivers_late_is_bounded() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let proxy = Proxy::start(nats.address()).await;
    let mut sender = Node::connect(narrow(proxy.url()), 1).await;
    let mut receiver = Node::connect(config(&[nats.url()]), 2).await;
    let target = Target::Link(receiver.own);
    proxy.hold();
    let accepted = publish_in_vain(&sender, target, Duration::from_millis(2600)).await;
    proxy.pass();
    let late = count_late(&mut sender, target, &mut receiver).await;
    println!("{accepted} accepted after the hold, {late} delivered after it; at most {MOST}");
    assert!(accepted < MOST + 10 && late <= MOST, "{accepted} {late}");
}

/// What was waiting in the library's queue when the connection ended is dropped with it, not sent later.
#[tokio::test]
async fn what_waits_in_a_queue_is_dropped_with_the_connection() {
    let Some(mut nats) = NatsSetup::new().start().await else { return };
    let mut sender = Node::connect(config(&[nats.url()]), 1).await;
    nats.kill();
    // The library's task has had no turn since, so it does not know yet: all these wait in its queue.
    let mut accepted = 0;
    while sender.bus.publish(Target::Link(crate::hub::cluster::id::Incarnation(2)), None, "late").is_ok() {
        accepted += 1;
    }
    assert!(accepted > 200, "{accepted}");
    sender.disconnected().await;
    nats.restart().await;
    let mut receiver = Node::connect(config(&[nats.url()]), 2).await;
    sender.connected().await;
    sender.bus.publish(Target::Link(receiver.own), None, "end").expect("sent");
    assert_eq!(receiver.frame().await, "end");
    println!("{accepted} waited, none was sent");
}
