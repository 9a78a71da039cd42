//! Tests of the shutdown: clients on streams in memory, and a paused clock that goes on when all tasks wait.

use tokio::time::{pause, sleep};

use super::*;
use crate::edge::listener::Remote;
use crate::edge::websocket::tests::{Client, TEXT, context};

/// A gateway without ports: clients are handed to its acceptor.
struct Served {
    tasks: Tasks,
    acceptor: Arc<websocket::Acceptor>,
    grace: Duration,
}

impl Served {
    /// Loads the built-in plugins and pauses the clock. A connection has `grace` to take what is queued, and then
    /// `close_timeout` to answer the close frame.
    async fn new(grace: Duration, close_timeout: Duration) -> Self {
        let (config, tasks) = (Config::default(), Tasks::default());
        let mut context = Arc::into_inner(context("origin-router").await).unwrap();
        context.shutdown_grace = grace;
        context.config.close_timeout = close_timeout;
        let heartbeat = Arc::new(Heartbeat::new(config.heartbeat));
        let acceptor = websocket::Acceptor::new(
            Arc::new(context),
            Arc::new(Admission::new(Arc::new(LiveConfig::new(Config::default())))),
            heartbeat.clone(),
            1 << 20,
            Arc::new(Budget::new(1 << 20, 100)),
        );
        pause();
        tasks.beat(heartbeat);
        Self { tasks, acceptor: Arc::new(acceptor), grace }
    }

    /// Connects a client. `buffer` bytes may be on their way in each direction.
    fn connect(&self, buffer: usize) -> Client {
        let (client, pipe) = Client::new(buffer);
        self.acceptor.admit(&self.tasks.connections, pipe, Remote::Unix);
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

    /// Shuts down. Returns how long that took.
    async fn drain(&self) -> Duration {
        let begin = Instant::now();
        self.tasks.drain(begin + self.grace).await;
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
    assert!(served.tasks.connections.is_empty());
}

#[tokio::test]
async fn a_connection_that_is_accepted_at_the_last_moment_is_closed_too() {
    let served = Served::new(10 * SECOND, 5 * SECOND).await;
    let (mut late, pipe) = Client::new(1 << 16);
    let (tasks, acceptor) = (served.tasks.connections.clone(), served.acceptor.clone());
    let stopped = served.tasks.stop_accepting.clone();
    served.tasks.listeners.spawn(async move {
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
    assert!(stuck.is_cut_off() && served.tasks.connections.is_empty());
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
    assert_eq!(served.tasks.connections.len(), 1, "the process ends with a connection open");
}
