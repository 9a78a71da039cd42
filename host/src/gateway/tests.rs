//! Tests of the shutdown: clients on streams in memory, and a paused clock that goes on when all tasks wait.

use tokio::time::{Instant, pause, sleep, timeout};

use super::*;
use crate::config::DrainConfig;
use crate::edge::drain::DrainStage;
use crate::edge::listener::Remote;
use crate::edge::websocket::tests::{Client, TEXT, context};
use crate::hub::registry::Several;

/// A gateway without ports: clients are handed to its acceptor.
struct Served {
    tasks: Tasks,
    acceptor: Arc<websocket::Acceptor>,
    registry: Arc<Registry>,
    drain: Arc<Drain>,
    heartbeat: Arc<Heartbeat>,
    grace: Duration,
}

impl Served {
    /// Loads the built-in plugins and pauses the clock. A connection has `grace` to take what is queued, and then
    /// `close_timeout` to answer the close frame.
    async fn new(grace: Duration, close_timeout: Duration) -> Self {
        Self::draining(grace, close_timeout, DrainConfig { spread: Duration::ZERO, ..DrainConfig::default() }).await
    }

    /// The same with these settings of the drain.
    async fn draining(grace: Duration, close_timeout: Duration, drain: DrainConfig) -> Self {
        let (config, tasks) = (Config::default(), Tasks::default());
        let drain = Arc::new(Drain::new(drain, tasks.clients.connections.clone()));
        let mut context = Arc::into_inner(context("origin-router").await).unwrap();
        let mut live = Config::clone(&context.live.load());
        (live.shutdown_grace, live.websocket.close_timeout) = (grace, close_timeout);
        context.live.set(live);
        context.drain = drain.clone();
        let registry = context.registry.clone();
        let heartbeat = Arc::new(Heartbeat::new(config.heartbeat));
        let acceptor = websocket::Acceptor::new(
            Arc::new(context),
            Arc::new(Admission::new(Arc::new(LiveConfig::new(Config::default())))),
            heartbeat.clone(),
            1 << 20,
            Arc::new(Budget::new(1 << 20, 100)),
        );
        pause();
        Self { tasks, acceptor: Arc::new(acceptor), registry, drain, heartbeat, grace }
    }

    /// Connects a client. `buffer` bytes may be on their way in each direction.
    fn connect(&self, buffer: usize) -> Client {
        let (client, pipe) = Client::new(buffer);
        self.acceptor.admit(&self.tasks.clients.connections, pipe, Remote::Unix);
        client
    }

    /// Connects a client and logs it in.
    async fn login(&self, uid: &str, buffer: usize) -> Client {
        let mut client = self.connect(buffer);
        client.upgrade().await;
        client.expect("HeartBeat").await;
        client.send(TEXT, format!(r#"{{"id":"{uid}"}}"#).as_bytes()).await;
        client.expect("Link_successful").await;
        client
    }

    fn drains(&self) -> Drains<'_> {
        let (drain, heartbeat) = (self.drain.clone(), self.heartbeat.clone());
        Drains { drain, heartbeat, tasks: &self.tasks, cluster: None, grace: self.grace }
    }

    /// Shuts down. Returns how long that took.
    async fn drain(&self) -> Duration {
        let begin = Instant::now();
        self.drain.end(Ending::Drained);
        let end = self.drains().run().await;
        self.tasks.finish(end).await;
        begin.elapsed()
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Checks a time. A timer ends at a whole millisecond, which may be up to one later.
#[track_caller]
fn assert_took(took: Duration, expected: Duration) {
    assert!((expected..expected + Duration::from_millis(2)).contains(&took), "{took:?} instead of {expected:?}");
}

#[tokio::test]
async fn everybody_gets_1001_and_the_end_waits_for_nobody_who_has_closed() {
    let served = Served::new(10 * SECOND, 5 * SECOND).await;
    let mut half_open = served.connect(1 << 16);
    let mut stranger = served.connect(1 << 16);
    stranger.upgrade().await;
    stranger.expect("HeartBeat").await;
    let mut clients = vec![stranger];
    for uid in 1..=20 {
        clients.push(served.login(&uid.to_string(), 1 << 16).await);
    }
    let closing = async {
        half_open.ended().await;
        for mut client in clients {
            client.expect_close(1001).await;
            client.close(1001).await;
            client.ended().await;
            assert!(!client.is_cut_off());
        }
    };
    let (took, ()) = tokio::join!(served.drain(), closing);
    assert_eq!(took, Duration::ZERO);
    assert!(served.tasks.clients.connections.is_empty());
}

#[tokio::test]
async fn a_connection_that_is_accepted_at_the_last_moment_is_closed_too() {
    let served = Served::new(10 * SECOND, 5 * SECOND).await;
    let (mut late, pipe) = Client::new(1 << 16);
    let (tasks, acceptor) = (served.tasks.clients.connections.clone(), served.acceptor.clone());
    let stopped = served.tasks.clients.stop.clone();
    served.tasks.clients.listener.spawn(async move {
        stopped.cancelled().await;
        sleep(SECOND).await;
        acceptor.admit(&tasks, pipe, Remote::Unix);
    });
    assert_took(served.drain().await, SECOND);
    late.ended().await;
}

#[tokio::test]
async fn whoever_does_not_answer_is_cut_off_after_its_time_to_answer() {
    let served = Served::new(10 * SECOND, 3 * SECOND).await;
    let mut mute = served.login("mute", 1 << 16).await;
    assert_took(served.drain().await, 3 * SECOND);
    mute.expect_close(1001).await;
    assert!(mute.is_cut_off());
}

#[tokio::test]
async fn whoever_does_not_read_delays_the_end_by_the_grace_at_most() {
    let served = Served::new(10 * SECOND, 3 * SECOND).await;
    let mut stuck = served.login("stuck", 200).await;
    // Messages to itself that it does not read.
    for _ in 0..3 {
        stuck.send(TEXT, format!(r#"{{"id":"stuck","msg":"{}"}}"#, "x".repeat(150)).as_bytes()).await;
    }
    sleep(SECOND).await;
    assert_took(served.drain().await, 10 * SECOND);
    sleep(SECOND).await;
    assert!(stuck.is_cut_off() && served.tasks.clients.connections.is_empty());
}

#[tokio::test]
async fn whoever_reads_slowly_gets_everything_within_the_grace() {
    let served = Served::new(10 * SECOND, 3 * SECOND).await;
    let mut slow = served.login("slow", 200).await;
    let message = "x".repeat(150);
    for _ in 0..3 {
        slow.send(TEXT, format!(r#"{{"id":"slow","msg":"{message}"}}"#).as_bytes()).await;
    }
    sleep(SECOND).await;
    let reading = async {
        // Longer than a close frame may take at other times.
        sleep(8 * SECOND).await;
        for _ in 0..3 {
            slow.expect(&message).await;
            slow.expect("Already_Linked").await;
        }
        slow.expect_close(1001).await;
        slow.close(1001).await;
        slow.ended().await;
        assert!(!slow.is_cut_off());
        drop(slow);
    };
    let (took, ()) = tokio::join!(served.drain(), reading);
    assert_took(took, 8 * SECOND);
}

#[tokio::test]
async fn the_grace_is_for_reading_and_answering_together() {
    let served = Served::new(10 * SECOND, 3 * SECOND).await;
    let mut slow = served.login("slow", 40).await;
    slow.send(TEXT, b"longer than it takes to answer, and never read").await;
    slow.send(TEXT, b"x").await;
    slow.send(TEXT, b"x").await;
    sleep(SECOND).await;
    let reading = async {
        sleep(9 * SECOND).await;
        for _ in 0..3 {
            slow.expect("Already_Linked").await;
        }
        slow.expect_close(1001).await;
        assert!(!slow.is_cut_off());
    };
    let (took, ()) = tokio::join!(served.drain(), reading);
    assert_took(took, 10 * SECOND);
    assert_eq!(served.tasks.clients.connections.len(), 1, "the process ends with a connection open");
}

fn settings(notice: Duration, spread: Duration) -> DrainConfig {
    DrainConfig { notice, spread, min_rate: 1, ..DrainConfig::default() }
}

/// Answers the close frame.
async fn leaves(mut client: Client) {
    client.expect_close(1001).await;
    client.close(1001).await;
    client.ended().await;
}

#[tokio::test]
async fn during_the_notice_everybody_is_served_and_new_clients_too() {
    let served = Served::draining(10 * SECOND, 3 * SECOND, settings(5 * SECOND, Duration::ZERO)).await;
    let clients = async {
        sleep(SECOND).await;
        assert!(!served.drain.is_ready());
        let mut late = served.login("late", 1 << 16).await;
        late.send(TEXT, br#"{"id":"late","msg":"to myself"}"#).await;
        late.expect("to myself").await;
        late.expect("Already_Linked").await;
        leaves(late).await;
    };
    let (took, ()) = tokio::join!(served.drain(), clients);
    assert_took(took, 5 * SECOND);
}

#[tokio::test]
async fn a_drain_of_an_operator_can_be_cancelled_and_started_again() {
    let served = Served::draining(10 * SECOND, 3 * SECOND, settings(Duration::ZERO, 10 * SECOND)).await;
    let mut clients = Vec::new();
    for uid in 0..10 {
        clients.push(served.login(&uid.to_string(), 1 << 16).await);
    }
    let closed = || 10 - served.registry.count(Several::Everyone);
    let operator = async {
        sleep(SECOND).await;
        assert_eq!(served.drain.start().remaining, 10);
        sleep(3 * SECOND + SECOND / 2).await;
        assert_eq!((served.drain.status().stage, closed()), (DrainStage::Closing, 4));
        let mut refused = served.connect(1 << 16);
        refused.refused("503").await;
        assert_eq!(served.drain.cancel().unwrap().stage, DrainStage::Serving);
        sleep(20 * SECOND).await;
        assert_eq!(closed(), 4, "nobody else was asked to close");
        let new = served.login("new", 1 << 16).await;
        assert_eq!(served.drain.start().stage, DrainStage::Notice);
        sleep(20 * SECOND).await;
        assert_eq!(served.drain.status().stage, DrainStage::Drained);
        drop(new);
        served.drain.end(Ending::Drained);
    };
    let leaving: Vec<_> = clients.into_iter().map(|client| tokio::spawn(leaves(client))).collect();
    let drains = served.drains();
    let run = async { timeout(100 * SECOND, drains.run()).await.expect("it ends") };
    tokio::join!(operator, run);
    for client in leaving {
        client.await.unwrap();
    }
}

/// Starts a drain of 10 s, and ends the gateway after 4 s of it. Returns how long everything took.
async fn joined_by(ending: Ending) -> Duration {
    let served = Served::draining(10 * SECOND, 3 * SECOND, settings(Duration::ZERO, 10 * SECOND)).await;
    for uid in 0..10 {
        tokio::spawn(leaves(served.login(&uid.to_string(), 1 << 16).await));
    }
    let begin = Instant::now();
    served.drain.start();
    let signal = async {
        sleep(4 * SECOND).await;
        served.drain.end(ending);
    };
    let drains = served.drains();
    tokio::join!(drains.run(), signal);
    assert!(served.tasks.clients.stop.is_cancelled() && served.tasks.clients.connections.is_empty());
    begin.elapsed()
}

#[tokio::test]
async fn a_shutdown_joins_the_drain_that_runs() {
    // One turn more than connections: the last one finds nobody.
    assert_took(joined_by(Ending::Drained).await, 10 * SECOND);
}

#[tokio::test]
async fn a_quick_end_hurries_the_drain_that_runs() {
    assert_took(joined_by(Ending::Quick).await, 4 * SECOND);
}

/// Connects during a drain that ends the gateway. Checks that the upgrade is refused, and whether the port stays open.
async fn connects_late(is_inherited: bool) {
    let mut served = Served::draining(10 * SECOND, 3 * SECOND, settings(Duration::ZERO, 5 * SECOND)).await;
    served.tasks.clients.is_inherited = is_inherited;
    for uid in 0..5 {
        tokio::spawn(leaves(served.login(&uid.to_string(), 1 << 16).await));
    }
    served.drain.end(Ending::Drained);
    let drains = served.drains();
    tokio::join!(drains.run(), async {
        sleep(SECOND).await;
        assert_eq!(served.tasks.clients.stop.is_cancelled(), !is_inherited);
        served.connect(1 << 16).refused("503").await;
    });
    served.tasks.finish(Instant::now() + SECOND).await;
    assert!(served.tasks.clients.stop.is_cancelled());
}

#[tokio::test]
async fn the_port_closes_before_the_connections() {
    connects_late(false).await;
}

#[tokio::test]
async fn a_port_that_systemd_keeps_open_refuses_clients_until_the_end() {
    connects_late(true).await;
}

#[tokio::test]
async fn senders_are_served_until_shortly_before_the_end() {
    let served = Served::new(10 * SECOND, 3 * SECOND).await;
    let mut stuck = served.login("stuck", 200).await;
    for _ in 0..3 {
        stuck.send(TEXT, format!(r#"{{"id":"stuck","msg":"{}"}}"#, "x".repeat(150)).as_bytes()).await;
    }
    sleep(SECOND).await;
    let begin = Instant::now();
    served.drain.end(Ending::Drained);
    let drains = served.drains();
    let (end, ()) = tokio::join!(drains.run(), async {
        sleep(9 * SECOND - SECOND / 10).await;
        assert!(!served.tasks.senders.stop.is_cancelled() && !served.tasks.shutdown.is_cancelled());
    });
    assert_took(begin.elapsed(), 9 * SECOND);
    assert_eq!(end, begin + 10 * SECOND);
}

#[tokio::test]
async fn senders_have_time_to_end_when_the_drain_was_over_long_ago() {
    let served = Served::new(10 * SECOND, 3 * SECOND).await;
    served.drain.start();
    let drains = served.drains();
    let (end, ()) = tokio::join!(drains.run(), async {
        sleep(60 * SECOND).await;
        assert_eq!(served.drain.status().stage, DrainStage::Drained);
        served.drain.end(Ending::Drained);
    });
    assert_eq!(end, Instant::now() + SECOND);
}
