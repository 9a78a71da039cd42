//! The drain: readiness ends first, connections close at a steady pace, senders are served until the last of them has
//! closed, and an operator can start and cancel all that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hotgate_tests::{Client, Frame, Gateway, Opcode, Received, Upgrade, eventually, patience};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

/// What a client has seen of the drain.
struct Closed {
    /// When the close frame arrived.
    at: Instant,
    code: u16,
    reason: String,
    /// The messages before it.
    messages: usize,
}

/// Reads until the close frame, which may take long, and answers it.
fn waits(mut client: Client) -> JoinHandle<Closed> {
    tokio::spawn(async move {
        let mut messages = 0;
        loop {
            let received = timeout(4 * patience(), client.next_slowly()).await.expect("a close frame in time");
            let Received::Frame(frame) = received else { panic!("a frame, not {received:?}") };
            if frame.opcode != Opcode::CLOSE {
                messages += 1;
                continue;
            }
            let (at, (code, reason)) = (Instant::now(), frame.close_reason());
            client.try_bytes(&Frame { masked: true, ..frame }.encode()).await;
            client.ended().await;
            return Closed { at, code, reason, messages };
        }
    })
}

async fn all(clients: impl IntoIterator<Item = JoinHandle<Closed>>) -> Vec<Closed> {
    let mut closed = Vec::new();
    for client in clients {
        closed.push(client.await.expect("a close frame"));
    }
    closed
}

async fn logins(gateway: &Gateway, count: usize) -> Vec<JoinHandle<Closed>> {
    let mut clients = Vec::new();
    for n in 0..count {
        clients.push(waits(gateway.login(&n.to_string()).await));
    }
    clients
}

async fn ready(gateway: &Gateway) -> u16 {
    gateway.admin().await.ask("GET /readyz").await.status
}

/// The most that happened within any second.
fn busiest_second(times: &[Instant]) -> usize {
    let mut times = times.to_vec();
    times.sort();
    let within =
        |(first, from): (usize, &Instant)| times[first..].iter().take_while(|at| **at < *from + SECOND).count();
    times.iter().enumerate().map(within).max().unwrap_or(0)
}

/// The longest time that this process was held up while this exists. What clients measure is then worth nothing.
struct Stalls(Arc<AtomicBool>, std::thread::JoinHandle<Duration>);

impl Stalls {
    fn watch() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        Self(
            over,
            std::thread::spawn(move || {
                let mut longest = Duration::ZERO;
                while !stop.load(Relaxed) {
                    let begin = Instant::now();
                    std::thread::sleep(Duration::from_millis(5));
                    longest = longest.max(begin.elapsed());
                }
                longest
            }),
        )
    }

    fn longest(self) -> Duration {
        self.0.store(true, Relaxed);
        self.1.join().expect("it only sleeps")
    }
}

/// Drains this many connections by SIGTERM, a tenth of them not authenticated. Checks order, pace and reasons.
async fn drains_at_its_pace(connections: usize, spread: u32) {
    for attempt in 1.. {
        let config = format!("[drain]\nspread = \"{spread}s\"\nmin_rate = 1\n[heartbeat]\ntimeout = \"10m\"\n");
        let config = config + "[websocket]\nauthentication_timeout = \"10m\"";
        let mut gateway = Gateway::configured(&config).await;
        let users = logins(&gateway, connections - connections / 10).await;
        let mut strangers = Vec::new();
        for _ in 0..connections / 10 {
            let mut stranger = gateway.connect().await;
            stranger.expect("HeartBeat").await;
            strangers.push(waits(stranger));
        }
        let (begin, stalls) = (Instant::now(), Stalls::watch());
        gateway.signal("TERM");
        let (strangers, users) = (all(strangers).await, all(users).await);
        let (took, stalls) = (begin.elapsed(), stalls.longest());
        assert_eq!(gateway.exit_code().await, Some(0));
        for Closed { code, reason, .. } in users.iter().chain(&strangers) {
            assert_eq!(*code, 1001);
            let hint = reason.strip_prefix("restart; retry=").and_then(|rest| rest.strip_suffix('s'));
            let hint: f64 = hint.and_then(|hint| hint.parse().ok()).unwrap_or_else(|| panic!("{reason}"));
            assert!((0.1..=5.0).contains(&hint), "{reason}");
        }
        let times: Vec<_> = users.iter().chain(&strangers).map(|closed| closed.at).collect();
        let (busiest, planned) = (busiest_second(&times), connections / spread as usize);
        let last_stranger = strangers.iter().map(|closed| closed.at).max().expect("some");
        let early = users.iter().filter(|closed| closed.at < last_stranger).count();
        println!(
            "{connections}: took {took:?}, busiest second {busiest}, planned {planned}, early {early}, stalls {stalls:?}"
        );
        // Clients see what the gateway does a little late, and not in its exact order.
        let is_late = took < spread * SECOND * 9 / 10 || took > spread * SECOND + 3 * SECOND;
        if stalls < SECOND / 10 || attempt == 3 || !(busiest * 10 > planned * 13 || early > planned / 20 || is_late) {
            assert!(busiest * 10 <= planned * 13, "{busiest} closes in a second, planned are {planned}");
            assert!(early <= planned / 20, "{early} users were closed before a stranger");
            assert!(!is_late, "{took:?}");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_close_at_the_planned_pace_and_strangers_first() {
    drains_at_its_pace(1000, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute, and descriptors for 9,000 connections"]
async fn nine_thousand_connections_close_at_the_planned_pace_and_strangers_first() {
    drains_at_its_pace(9000, 15).await;
}

#[tokio::test]
async fn readiness_ends_first_and_during_the_notice_everybody_is_served() {
    let mut gateway = Gateway::configured("[drain]\nnotice = \"5s\"\ncode = 1012\nretry = \"0s\"").await;
    let mut anna = gateway.login("anna").await;
    assert_eq!(ready(&gateway).await, 200);
    let begin = Instant::now();
    gateway.signal("TERM");
    eventually("it is not ready", async || ready(&gateway).await == 503).await;
    let mut late = gateway.login("late").await;
    assert!(gateway.reaches("anna").await && gateway.reaches("late").await);
    assert!(begin.elapsed() < 5 * SECOND, "{:?}: this machine is too slow for this test", begin.elapsed());
    for client in [&mut anna, &mut late] {
        assert_eq!(client.next_frame().await.opcode, Opcode::TEXT);
        assert_eq!(client.closed().await, (1012, "restart".to_owned()));
    }
    assert!(begin.elapsed() >= 5 * SECOND, "{:?}", begin.elapsed());
    assert_eq!(gateway.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_message_during_the_drain_is_delivered_or_its_sender_is_told() {
    let mut gateway = Gateway::configured("[drain]\nspread = \"2s\"\nmin_rate = 1").await;
    let clients = logins(&gateway, 100).await;
    let (mut sender, api) = (gateway.sender().await, gateway.api().await);
    gateway.signal("TERM");
    let (mut delivered, mut failed) = ([0; 100], 0);
    // Until nobody is left: then both ports are closed.
    for n in 0.. {
        let uid = n * 37 % 100;
        sender.try_bytes(format!("{{\"uid\":\"{uid}\",\"msg\":\"x\"}}\n")).await;
        match sender.answer().await.as_deref() {
            Some("ok") => delivered[uid] += 1,
            Some("fail") => failed += 1,
            _ => break,
        }
        if n % 10 == 0 && TcpStream::connect(api.address).await.is_ok() {
            let request = api.request(&format!("POST /v1/push?uid={uid}")).and("Connection", "close");
            match api.bytes(&[&request.and("Content-Length", "1").encode()[..], b"x"].concat()).await {
                Some(answer) if answer.status == 200 => delivered[uid] += 1,
                Some(answer) if answer.status == 404 => assert_eq!(answer.json()["reason"], "offline"),
                Some(answer) => assert_eq!((answer.status, &answer.json()["reason"]), (503, &"draining".into())),
                None => {}
            }
        }
        sleep(Duration::from_millis(1)).await;
    }
    let received: Vec<_> = all(clients).await.iter().map(|closed| closed.messages).collect();
    assert_eq!(received, delivered);
    assert!(failed > 0 && delivered.iter().sum::<usize>() > 100, "{failed} failed, {delivered:?}");
    assert_eq!(gateway.exit_code().await, Some(0));
}

#[tokio::test]
async fn an_operator_drains_without_an_end_and_cancels() {
    // These clients do not answer a close frame, so a connection that was closed ends after `close_timeout`.
    let settings = "[drain]\nspread = \"30s\"\nmin_rate = 1\n[websocket]\nclose_timeout = \"100ms\"";
    let gateway = Gateway::configured(settings).await;
    let mut anna = gateway.login("anna").await;
    let clients = logins(&gateway, 20).await;
    let admin = gateway.admin().await;
    assert!(gateway.drain(&["--status"]).await.stdout.contains("no drain"));
    let started = gateway.drain(&["--no-wait", "--json"]).await;
    assert!(started.code == Some(0) && started.stdout.contains("\"remaining\": 21"), "{started:?}");
    assert_eq!(ready(&gateway).await, 503);
    assert_eq!(admin.metric("hotgate_draining").await, 1.0);
    eventually("somebody is closed", async || (1.0..21.0).contains(&admin.metric("hotgate_drain_remaining").await))
        .await;
    let refused = gateway.upgrade(&Upgrade::default()).await.expect_err("a refusal");
    assert_eq!(refused.status, 503);
    let seconds = refused.header("retry-after").and_then(|seconds| seconds.parse().ok());
    assert!(seconds.is_some_and(|seconds: u64| (1..=5).contains(&seconds)), "{refused:?}");
    assert!(refused.body.contains("draining"), "{refused:?}");

    let cancelled = gateway.drain(&["--cancel"]).await;
    assert!(cancelled.code == Some(0) && cancelled.stdout.contains("no drain"), "{cancelled:?}");
    assert_eq!(ready(&gateway).await, 200);
    assert_eq!((admin.metric("hotgate_draining").await, admin.metric("hotgate_drain_remaining").await), (0.0, 0.0));
    gateway.login("new").await.close().await;
    let open = async || admin.metric("hotgate_connections").await;
    eventually("those that were closed have left", async || {
        let before = open().await;
        sleep(SECOND).await;
        before < 21.0 && open().await == before
    })
    .await;
    let left = open().await;
    assert!((2.0..21.0).contains(&left), "{left}");
    sleep(2 * SECOND).await;
    assert_eq!(admin.metric("hotgate_connections").await, left, "nobody else is closed");
    if gateway.reaches("anna").await {
        assert_eq!(anna.next_frame().await.opcode, Opcode::TEXT);
    }
    drop(clients);
}

#[tokio::test]
async fn hotgate_drain_waits_and_after_it_a_signal_ends_the_gateway_soon() {
    let mut gateway = Gateway::configured("[drain]\nspread = \"1s\"\nmin_rate = 1").await;
    for round in 0..2 {
        let begin = Instant::now();
        let clients = logins(&gateway, 5).await;
        let drained = gateway.drain(&[]).await;
        assert!(drained.code == Some(0) && drained.stdout.contains("All connections have closed"), "{drained:?}");
        assert_eq!(all(clients).await.len(), 5);
        assert!(begin.elapsed() >= SECOND * 4 / 5, "{:?}", begin.elapsed());
        assert_eq!(gateway.upgrade(&Upgrade::default()).await.expect_err("a refusal").status, 503);
        assert!(!gateway.reaches("1").await, "senders are still answered");
        if round == 0 {
            assert_eq!(gateway.drain(&["--cancel"]).await.code, Some(0));
        }
    }
    let begin = Instant::now();
    gateway.signal("TERM");
    assert_eq!(gateway.exit_code().await, Some(0));
    assert!(begin.elapsed() < 5 * SECOND, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_signal_joins_the_drain_and_the_next_one_ends_at_once() {
    let mut gateway = Gateway::configured("[drain]\nspread = \"60s\"\nmin_rate = 1").await;
    let clients = logins(&gateway, 200).await;
    let admin = gateway.admin().await;
    gateway.drain(&["--no-wait"]).await;
    let left = async || admin.json("GET /drain").await["remaining"].as_u64().expect("a number");
    eventually("some are closed", async || left().await <= 195).await;
    let mark = gateway.log().mark();
    gateway.signal("TERM");
    gateway.logged_since(mark, |line| line.message() == "shutting down").await;
    eventually("the port is closed", async || TcpStream::connect(gateway.websocket).await.is_err()).await;
    let status = admin.json("GET /drain").await;
    assert_eq!((&status["stage"], &status["ending"]), (&"closing".into(), &true.into()));
    let late = gateway.drain(&["--cancel"]).await;
    assert!(late.code == Some(1) && late.stderr.contains("cannot be cancelled"), "{late:?}");
    // It goes on where it was, and at the same pace.
    let before = left().await;
    sleep(2 * SECOND).await;
    let closed = before - left().await;
    assert!((2..=20).contains(&closed), "{closed} closed in 2 s");
    gateway.signal("TERM");
    let begin = Instant::now();
    assert_eq!(gateway.exit_code().await, Some(1));
    assert!(begin.elapsed() < 2 * SECOND, "{:?}", begin.elapsed());
    clients.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn ctrl_c_waits_for_no_notice_and_no_spread() {
    let mut gateway = Gateway::configured("[drain]\nnotice = \"1h\"\nspread = \"1h\"\nmin_rate = 1").await;
    let clients = logins(&gateway, 50).await;
    let begin = Instant::now();
    gateway.signal("INT");
    assert!(all(clients).await.iter().all(|closed| closed.code == 1001));
    assert_eq!(gateway.exit_code().await, Some(0));
    assert!(begin.elapsed() < 5 * SECOND, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn connections_are_rotated_at_their_age() {
    let gateway = Gateway::configured("[websocket]\nmax_age = \"2s\"\n[drain]\ncode = 1012\nretry = \"700ms\"").await;
    let begin = Instant::now();
    for closed in all(logins(&gateway, 20).await).await {
        assert_eq!(closed.code, 1012);
        assert!(closed.reason.starts_with("rotate; retry=0."), "{}", closed.reason);
        let age = closed.at - begin;
        assert!(age >= SECOND * 3 / 2, "{age:?}");
        assert!(age < 10 * SECOND, "{age:?}");
    }
    assert_eq!(ready(&gateway).await, 200);
}
