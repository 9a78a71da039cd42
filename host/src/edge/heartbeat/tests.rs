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
    let due = heartbeat.take_due();
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

/// Runs a heartbeat that checks each second.
fn beating(timeout: u64, ping_interval: Option<u64>) -> Arc<Heartbeat> {
    run(heartbeat(timeout, ping_interval))
}

fn run(heartbeat: Arc<Heartbeat>) -> Arc<Heartbeat> {
    let running = heartbeat.clone();
    tokio::spawn(async move { running.run().await });
    heartbeat
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
    let heartbeat = beating(30, None);
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
    let heartbeat = beating(30, None);
    let link = listening(&heartbeat, 1);
    for _ in 0..100 {
        sleep(28 * SECOND).await;
        link.heard();
    }
    assert!(link.outbox.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_pinged_at_each_interval_and_closed_if_it_never_answers() {
    let heartbeat = beating(60, Some(20));
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
    let heartbeat = beating(60, Some(20));
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
    let heartbeat = beating(30, Some(20));
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

/// Drains, and returns the time until all were asked to close.
async fn drain(heartbeat: &Heartbeat, config: &DrainConfig) -> Duration {
    let begin = Instant::now();
    heartbeat.close_all(config, std::future::pending()).await;
    begin.elapsed()
}

fn settings(spread: u64, min_rate: u32) -> DrainConfig {
    DrainConfig { spread: Duration::from_secs(spread), min_rate, ..DrainConfig::default() }
}

#[tokio::test(start_paused = true)]
async fn without_a_spread_everybody_is_asked_to_close_at_once() {
    let heartbeat = beating(30, None);
    let links: Vec<_> = (0..3 * AT_ONCE as u64 + 1).map(|id| listening(&heartbeat, id)).collect();
    assert!(links[0].outbox.close(CloseReason::new(4000, "earlier"), Cause::Plugin));
    sleep(10 * SECOND).await;
    assert_eq!(drain(&heartbeat, &settings(0, 1)).await, Duration::ZERO);
    assert_eq!(closed(&links[0]).await, 4000, "the first reason counts");
    for link in &links[1..] {
        assert_eq!(closed(link).await, 1001);
        assert_eq!(link.outbox.queued_bytes().unwrap_err().cause, Cause::Shutdown);
    }
}

/// Drains this number of connections. Returns how long it took, and the seconds in which they were asked to close.
async fn spread(connections: u64, config: &DrainConfig) -> (Duration, Vec<usize>) {
    let heartbeat = beating(3600, None);
    let closing: Vec<_> = (0..connections)
        .map(|id| {
            let (link, begin) = (listening(&heartbeat, id), Instant::now());
            tokio::spawn(async move {
                assert_eq!(closed(&link).await, 1001);
                begin.elapsed().as_secs() as usize
            })
        })
        .collect();
    let took = drain(&heartbeat, config).await;
    let mut seconds = vec![0; took.as_secs() as usize + 1];
    for task in closing {
        seconds[task.await.unwrap()] += 1;
    }
    (took, seconds)
}

#[tokio::test(start_paused = true)]
async fn the_closes_are_spread_evenly() {
    let (took, seconds) = spread(9000, &settings(15, 100)).await;
    assert!((Duration::from_millis(14_900)..Duration::from_millis(15_010)).contains(&took), "{took:?}");
    assert!(seconds[..15].iter().all(|count| (595..=605).contains(count)), "{seconds:?}");
}

#[tokio::test(start_paused = true)]
async fn few_connections_take_less_time_than_the_spread() {
    let (took, seconds) = spread(250, &settings(15, 100)).await;
    assert!((Duration::from_millis(2480)..Duration::from_millis(2510)).contains(&took), "{took:?}");
    assert!(seconds.iter().all(|count| *count <= 102), "{seconds:?}");
    assert!(spread(0, &settings(15, 100)).await.0 < Duration::from_millis(20));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_by_itself_takes_no_turn() {
    let heartbeat = beating(30, None);
    let links: Vec<_> = (0..1000).map(|id| listening(&heartbeat, id)).collect();
    let stays: Vec<_> = links.iter().skip(990).cloned().collect();
    let config = settings(10, 1);
    let (took, ()) = tokio::join!(drain(&heartbeat, &config), async {
        sleep(SECOND / 10).await;
        drop(links);
    });
    assert!(took < SECOND, "{took:?}");
    assert!(stays.iter().all(|link| !link.outbox.is_open()));
}

#[tokio::test(start_paused = true)]
async fn unauthenticated_connections_are_closed_first_and_all_others_in_random_order() {
    let heartbeat = beating(3600, None);
    let links: Vec<_> = (0..1000).map(|id| listening(&heartbeat, id)).collect();
    links.iter().filter(|link| link.id.0 % 2 == 0).for_each(|link| link.set_authenticated());
    let order = Arc::new(Mutex::new(Vec::new()));
    let tasks: Vec<_> = links
        .into_iter()
        .map(|link| {
            let order = order.clone();
            tokio::spawn(async move {
                closed(&link).await;
                order.lock().push(link.id.0);
            })
        })
        .collect();
    drain(&heartbeat, &settings(10, 1)).await;
    for task in tasks {
        task.await.unwrap();
    }
    let order = order.lock().clone();
    assert!(order[..500].iter().all(|id| id % 2 == 1) && order[500..].iter().all(|id| id % 2 == 0), "{order:?}");
    assert!(!order[..500].is_sorted() && !order[500..].is_sorted());
}

#[tokio::test(start_paused = true)]
async fn a_hurry_closes_the_rest_at_once() {
    let heartbeat = beating(3600, None);
    let links: Vec<_> = (0..1000).map(|id| listening(&heartbeat, id)).collect();
    let begin = Instant::now();
    heartbeat.close_all(&settings(100, 1), sleep(10 * SECOND)).await;
    assert_eq!(begin.elapsed(), 10 * SECOND);
    assert!(links.iter().all(|link| !link.outbox.is_open()));
}

#[tokio::test]
async fn a_drain_that_was_held_up_does_not_catch_up() {
    let heartbeat = heartbeat(3600, None);
    let links: Vec<_> = (0..1000).map(|id| watch(&heartbeat, id)).collect();
    let closed = || links.iter().filter(|link| !link.outbox.is_open()).count();
    let (config, running) = (settings(5, 1), heartbeat.clone());
    tokio::time::pause();
    let draining = tokio::spawn(async move { running.close_all(&config, std::future::pending()).await });
    sleep(SECOND).await;
    let before = closed();
    // The clock goes on while no task runs.
    tokio::time::advance(2 * SECOND).await;
    sleep(Duration::from_millis(1)).await;
    assert!((195..=205).contains(&before) && closed() - before <= 25, "{before}, {}", closed());
    draining.abort();
}

#[tokio::test(start_paused = true)]
async fn connections_end_at_their_age_and_not_all_at_once() {
    let old = HeartbeatConfig { check_interval: SECOND, ..heartbeat(30, None).config.clone() };
    let heartbeat = run(Arc::new(Heartbeat::new(old).with_max_age(Some(600 * SECOND), &DrainConfig::default())));
    let begin = Instant::now();
    let closing: Vec<_> = (0..1000)
        .map(|id| {
            let link = listening(&heartbeat, id);
            tokio::spawn(async move {
                // Its client is heard all the time.
                while link.outbox.is_open() {
                    link.heard();
                    sleep(SECOND / 2).await;
                }
                let closing = link.outbox.queued_bytes().unwrap_err();
                assert!(
                    closing.reason.code == 1001 && closing.reason.reason.starts_with("rotate; retry="),
                    "{closing:?}"
                );
                begin.elapsed()
            })
        })
        .collect();
    let mut ends = Vec::new();
    for task in closing {
        ends.push(task.await.unwrap());
    }
    ends.sort();
    assert!(ends[0] >= 539 * SECOND && ends[999] <= 663 * SECOND, "{:?} {:?}", ends[0], ends[999]);
    assert!(ends.windows(50).all(|some| some[49] - some[0] >= 4 * SECOND), "{ends:?}");
}

#[test]
fn a_link_is_small() {
    assert_eq!(size_of::<Link>(), 48);
}
