//! Tests of the heartbeat, most of them on a paused clock: it goes on when all tasks wait.

use std::collections::HashMap;
use std::task::Waker;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::*;
use crate::hub::outbox::Budget;

fn heartbeat(timeout: u64, ping_interval: Option<u64>) -> Arc<Heartbeat> {
    Arc::new(Heartbeat::new(HeartbeatConfig {
        timeout: Duration::from_secs(timeout),
        check_interval: Duration::from_secs(1),
        ping_interval: ping_interval.map(Duration::from_secs),
    }))
}

fn watch(heartbeat: &Arc<Heartbeat>, id: u64) -> Arc<Link> {
    heartbeat.watch(ConnectionId(id), Outbox::new(1 << 20, Arc::new(Budget::new(1 << 20, 1))))
}

#[test]
fn who_leaves_is_forgotten_at_once() {
    let heartbeat = heartbeat(24 * 3600, None);
    let stays = watch(&heartbeat, 0);
    for id in 1..10_000 {
        drop(watch(&heartbeat, id));
    }
    assert_eq!(heartbeat.watched.lock().links.len(), 1);
    // The same for a connection that ends while it is checked, or after that.
    let leaves = watch(&heartbeat, 10_000);
    heartbeat.watched.lock().tick = 24 * 3600;
    let due = heartbeat.take(true);
    assert_eq!(due.len(), 2);
    drop(leaves);
    due.iter().for_each(|link| heartbeat.check(link));
    drop(due);
    assert_eq!(heartbeat.watched.lock().links.len(), 1);
    drop(stays);
    assert!(heartbeat.watched.lock().links.is_empty());
}

#[test]
fn clients_that_come_together_are_not_pinged_together() {
    let heartbeat = heartbeat(60, Some(40));
    let silence = Some(Duration::from_secs(5));
    let mut ticks = HashMap::<_, u32>::new();
    for id in 1..=1000 {
        let NextStep::Wait(wait) = heartbeat.next_step(silence, ConnectionId(id)) else { panic!("it is heard") };
        assert!((25..=35).contains(&wait.as_secs()), "{wait:?}");
        *ticks.entry(heartbeat.ticks(wait)).or_default() += 1;
        let later = silence.map(|silence| silence + wait);
        assert!(matches!(heartbeat.next_step(later, ConnectionId(id)), NextStep::Ping(_)));
    }
    assert!(ticks.len() >= 10 && ticks.values().all(|&count| count < 150), "{ticks:?}");
}

#[test]
fn silence_is_judged_while_somebody_listens() {
    let heartbeat = heartbeat(30, None);
    let next_step = |silence: Option<u64>| heartbeat.next_step(silence.map(Duration::from_secs), ConnectionId(1));
    assert_eq!(next_step(Some(10)), NextStep::Wait(Duration::from_secs(20)));
    assert_eq!(next_step(Some(31)), NextStep::Close);
    assert_eq!(next_step(None), NextStep::Probe(Duration::from_secs(30)));
    let link = watch(&heartbeat, 1);
    assert_eq!(link.silence(), None);
    link.set_listening(true);
    assert!(link.silence().is_some());
}

const SECOND: Duration = Duration::from_secs(1);

/// Runs a heartbeat that checks each second. Returns it with the token that ends it.
fn beating(timeout: u64, ping_interval: Option<u64>) -> (Arc<Heartbeat>, CancellationToken) {
    let (heartbeat, shutdown) = (heartbeat(timeout, ping_interval), CancellationToken::new());
    let (running, until) = (heartbeat.clone(), shutdown.clone());
    tokio::spawn(async move { running.run(until, CloseReason::new(1001, "bye")).await });
    (heartbeat, shutdown)
}

/// Returns a link whose task waits for the client.
fn listening(heartbeat: &Arc<Heartbeat>, id: u64) -> Arc<Link> {
    let link = watch(heartbeat, id);
    link.set_listening(true);
    link
}

/// Waits until the connection closes, like its task. Returns the code.
async fn closed(link: &Link) -> u16 {
    let never = std::pin::pin!(std::future::pending::<()>());
    let closing = timeout(1000 * SECOND, link.unless_closing(never)).await.expect("a close in time");
    closing.unwrap_err().reason.code
}

/// Waits until the connection's task is woken, and takes the request for a ping.
async fn pinged(link: &Link) {
    let asked = std::future::poll_fn(|cx| {
        assert_eq!(link.outbox.register_waker(cx.waker()), Ok(false));
        if link.take_ping() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    timeout(1000 * SECOND, asked).await.expect("a ping in time");
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed_with_4900_after_the_timeout_and_not_before() {
    let (heartbeat, _shutdown) = beating(30, None);
    // The connection begins between two ticks.
    sleep(SECOND / 2).await;
    let (link, begin) = (listening(&heartbeat, 1), Instant::now());
    assert_eq!(closed(&link).await, 4900);
    assert!((30 * SECOND..=31 * SECOND).contains(&begin.elapsed()), "{:?}", begin.elapsed());

    let (link, begin) = (listening(&heartbeat, 2), Instant::now());
    sleep(20 * SECOND).await;
    link.heard();
    assert_eq!(closed(&link).await, 4900);
    assert!((50 * SECOND..=51 * SECOND).contains(&begin.elapsed()), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_heard_stays() {
    let (heartbeat, _shutdown) = beating(30, None);
    let link = listening(&heartbeat, 1);
    for _ in 0..100 {
        sleep(28 * SECOND).await;
        link.heard();
    }
    assert!(link.outbox.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_pinged_at_each_interval_and_closed_if_it_never_answers() {
    let (heartbeat, _shutdown) = beating(60, Some(20));
    let (link, begin) = (listening(&heartbeat, 1), Instant::now());
    // A ping comes early by up to a quarter of the interval, and late by up to a tick.
    for round in 1..=2 {
        let before = Instant::now();
        pinged(&link).await;
        assert!((15 * SECOND..=21 * SECOND).contains(&before.elapsed()), "{round}: {:?}", before.elapsed());
    }
    assert_eq!(closed(&link).await, 4900);
    assert!((60 * SECOND..=61 * SECOND).contains(&begin.elapsed()), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_its_pings_stays_and_is_not_pinged_more_often() {
    let (heartbeat, _shutdown) = beating(60, Some(20));
    let (link, begin) = (listening(&heartbeat, 1), Instant::now());
    for _ in 0..100 {
        pinged(&link).await;
        link.heard();
    }
    assert!((1500 * SECOND..2100 * SECOND).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    assert!(link.outbox.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_nobody_reads_is_not_silent_but_its_task_looks_whether_the_peer_is_gone() {
    let (heartbeat, _shutdown) = beating(30, Some(20));
    let (link, begin) = (watch(&heartbeat, 1), Instant::now());
    for round in 1..=10 {
        sleep_until(begin + round * 30 * SECOND + SECOND / 2).await;
        assert!(link.take_probe(), "round {round}");
        assert_eq!(link.outbox.register_waker(Waker::noop()), Ok(false), "it is open");
        assert!(!link.take_ping(), "a ping would wait in its queue");
    }
    // Once somebody listens, the client has its time again.
    while !link.take_probe() {
        sleep(SECOND).await;
    }
    let begin = Instant::now();
    link.set_listening(true);
    assert_eq!(closed(&link).await, 4900);
    assert!(begin.elapsed() >= 29 * SECOND, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_asks_everybody_to_close_at_once() {
    let (heartbeat, shutdown) = beating(30, None);
    let links: Vec<_> = (0..3 * AT_ONCE as u64 + 1).map(|id| listening(&heartbeat, id)).collect();
    assert!(links[0].outbox.close(CloseReason::new(4000, "earlier"), Cause::Plugin));
    sleep(10 * SECOND).await;
    let begin = Instant::now();
    shutdown.cancel();
    assert_eq!(closed(&links[0]).await, 4000, "the first reason counts");
    for link in &links[1..] {
        assert_eq!(closed(link).await, 1001);
        assert_eq!(link.outbox.queued_bytes().unwrap_err().cause, Cause::Shutdown);
    }
    assert_eq!(begin.elapsed(), Duration::ZERO);
}
