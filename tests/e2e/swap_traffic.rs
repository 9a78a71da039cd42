//! Swaps under load: no connection is dropped, no message is lost, doubled or misrouted, no login fails. Once the log
//! has announced a swap, the new plugin makes every decision.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hotgate_tests::{Client, Component, Setup, Upgrade};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// The load during the swaps.
struct Load {
    clients: usize,
    /// Messages a second of each client.
    rate: u32,
    /// Logins a second.
    logins: u32,
    swaps: u32,
    /// The time from one swap to the next.
    pause: Duration,
}

/// The versions that the log has announced as live. Later decisions must come from these or newer versions.
#[derive(Debug, Default)]
struct Said {
    router: AtomicU32,
    authenticator: AtomicU32,
    stop: AtomicBool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_by_cp_and_mv_under_traffic_are_noticed_by_nobody() {
    swap_under(Load { clients: 20, rate: 20, logins: 10, swaps: 20, pause: Duration::from_millis(100) }).await;
}

/// The full load: 200 clients, 5,000 messages and 50 logins a second, 100 swaps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute, and a machine of its own"]
async fn soak_100_swaps_under_5000_messages_and_50_logins_a_second() {
    swap_under(Load { clients: 200, rate: 25, logins: 50, swaps: 100, pause: Duration::from_millis(300) }).await;
}

async fn swap_under(load: Load) {
    let gateway = Setup::new("[[authenticator]]\nfile = \"auth.wasm\"\n[router]\nfile = \"router.wasm\"\n")
        .file("auth.wasm", &Component::version(1))
        .file("router.wasm", &Component::version(1))
        .start()
        .await;
    let said = Arc::new(Said::default());
    let mut clients = JoinSet::new();
    let mut connected = Vec::new();
    for n in 0..load.clients {
        connected.push(gateway.enter(&format!("c{n}")).await);
    }
    for (n, client) in connected.into_iter().enumerate() {
        clients.spawn(relay(client, n, load.clients, load.rate, Arc::clone(&said)));
    }
    let logins = tokio::spawn(log_in(gateway.websocket, load.logins, Arc::clone(&said)));

    for swap in 0..load.swaps {
        let version = swap / 2 + 2;
        let (name, live) =
            if swap % 2 == 0 { ("router.wasm", &said.router) } else { ("auth.wasm", &said.authenticator) };
        let (file, component) = (gateway.file(name), Component::version(version));
        let mark = gateway.log().mark();
        if swap % 4 < 2 {
            file.copy_over(&component);
        } else {
            file.move_over(&component);
        }
        gateway.swapped_since(mark).await;
        live.store(version, Ordering::SeqCst);
        tokio::time::sleep(load.pause).await;
    }

    said.stop.store(true, Ordering::SeqCst);
    let logins = logins.await.expect("no login fails");
    let mut relayed = 0;
    while let Some(client) = clients.join_next().await {
        relayed += client.expect("nobody notices");
    }
    eprintln!("{relayed} messages and {logins} logins during {} swaps", load.swaps);
    assert!(relayed > 0 && logins > 0);
    let log = gateway.log().since(Default::default());
    let count = |message| log.iter().filter(|line| line.message() == message).count();
    assert_eq!(count("plugin swapped"), load.swaps as usize);
    assert_eq!(count("plugin refused"), 0);
}

/// Sends messages to the next client at a steady rate until the test stops it, and checks the messages from the client
/// before: each once, in order, and routed by no older version than the log had announced when it was sent. Returns the
/// number of messages sent.
async fn relay(mut client: Client, me: usize, all: usize, rate: u32, said: Arc<Said>) -> u32 {
    let (next, before) = ((me + 1) % all, (me + all - 1) % all);
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut sent, mut received, mut last) = (0, 0, None);
    let begin = Instant::now();
    loop {
        tokio::select! {
            _ = ticks.tick(), if last.is_none() => {
                let word = if said.stop.load(Ordering::SeqCst) { "last" } else { "more" };
                let live = said.router.load(Ordering::SeqCst);
                client.send(format!("relay c{next} {sent} {live} {word}")).await;
                sent += 1;
                if word == "last" {
                    last = Some(begin.elapsed());
                }
            }
            text = client.text() => {
                let words: Vec<_> = text.split(' ').collect();
                let &[version, from, number, live, word] = words.as_slice() else { panic!("{text:?}") };
                assert_eq!(from, format!("c{before}"), "misrouted: {text:?}");
                assert_eq!(number, received.to_string(), "lost, doubled or overtaken: {text:?}");
                let version: u32 = version[1..].parse().expect("a version");
                assert!(version >= live.parse().expect("a version"), "decided by an older plugin: {text:?}");
                received += 1;
                if word == "last" {
                    break;
                }
            }
        }
    }
    // The neighbour's last message may arrive before this client sends its own.
    if last.is_none() {
        client.send(format!("relay c{next} {sent} 0 last")).await;
        sent += 1;
    }
    client.send("say bye").await;
    client.expect("bye").await;
    client.close().await;
    sent
}

/// Logs in at a steady rate until the test stops it. Checks that the authenticator is no older than the log has
/// announced. Returns the number of logins.
async fn log_in(address: std::net::SocketAddr, rate: u32, said: Arc<Said>) -> u32 {
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let version =
        |text: &str| text.rsplit('v').next().and_then(|version| version.parse::<u32>().ok()).expect("a version");
    let mut count = 0;
    while !said.stop.load(Ordering::SeqCst) {
        ticks.tick().await;
        let live = said.authenticator.load(Ordering::SeqCst);
        let mut client = Client::connect(address, &Upgrade::default()).await;
        assert!(version(&client.text().await) >= live, "greeted by an older plugin");
        let live = said.authenticator.load(Ordering::SeqCst);
        client.send(format!("login l{count}")).await;
        let welcome = client.text().await;
        assert!(welcome.starts_with(&format!("welcome l{count} v")) && version(&welcome) >= live, "{welcome:?}");
        client.close().await;
        count += 1;
    }
    count
}
