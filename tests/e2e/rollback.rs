//! The stages of a new generation: shadow, canary, probation; and rollbacks, automatic or by an operator. A rollback
//! holds until the file changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hotgate_tests::{Client, Component, Gateway, Setup, eventually};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::bystanders::Bystanders;

/// Version 2, which fails on one packet of five. Version 1 does not.
pub(crate) fn fragile() -> Component {
    Component::fixture("version=2;trap-on=unlucky")
}

/// Clients that send an unlucky packet now and then, until a test stops them. No client may be disconnected.
struct Traffic {
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Traffic {
    async fn start(gateway: &Gateway, clients: u32) -> Self {
        let (stop, mut set) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for client in 0..clients {
            let mut client = gateway.enter(&format!("traffic-{client}")).await;
            let stop = Arc::clone(&stop);
            set.spawn(async move {
                for round in 0_u32.. {
                    // Some plugins fail on an unlucky packet. All plugins answer the packet after it.
                    client.send(if round % 5 == 0 { "remember unlucky" } else { "remember it" }).await;
                    client.send(format!("say {round}")).await;
                    client.expect(round.to_string()).await;
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                client.close().await;
            });
        }
        Self { stop, clients: set }
    }

    async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(client) = self.clients.join_next().await {
            client.expect("nobody is disconnected");
        }
    }
}

async fn expect_version(client: &mut Client, version: u32) {
    client.send("version").await;
    client.expect(format!("v{version}")).await;
}

pub(crate) async fn plugins(gateway: &Gateway) -> Value {
    let plugins = gateway.admin().await.json("GET /plugins").await;
    plugins["plugins"].as_array().map_or(&plugins, |list| &list[0]).clone()
}

/// Runs `hotgate plugin` with these arguments, expects success, and returns its output.
pub(crate) async fn plugin(gateway: &Gateway, arguments: &[&str]) -> String {
    let done = gateway.plugin(arguments).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    done.stdout
}

pub(crate) const SLOT: &str = "authenticator+router";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_fails_on_some_packets_is_rolled_back_within_two_seconds() {
    let gateway = Gateway::with_plugin(&Component::version(1)).await;
    let traffic = Traffic::start(&gateway, 20).await;
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&fragile());
    gateway.swapped_since(mark).await;
    let swapped = Instant::now();
    let back = gateway.logged_since(mark, |line| line.message() == "plugin rolled back").await;
    assert!(swapped.elapsed() < Duration::from_secs(2), "{:?}", swapped.elapsed());
    assert_eq!((back.number("generation"), back.number("serves"), back.get("slot")), (2, 1, SLOT));
    assert!(back.get("reason").contains("calls of route failed"), "{back:?}");
    traffic.stop().await;

    let mut anna = gateway.enter("anna").await;
    expect_version(&mut anna, 1).await;
    anna.send("say unlucky").await;
    anna.expect("unlucky").await;
    let list = plugin(&gateway, &["list"]).await;
    for words in [SLOT, "rolled back", "calls of route failed"] {
        assert!(list.contains(words), "{words} is not in:\n{list}");
    }

    // The same component is refused, another component is not.
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&fragile());
    let refused = gateway.refused_since(mark).await;
    assert!(refused.get("reason").contains("it was rolled back with these settings at"), "{refused:?}");
    gateway.file("plugin.wasm").move_over(&Component::version(3));
    gateway.swapped_since(mark).await;
    expect_version(&mut anna, 3).await;
}

#[tokio::test]
async fn a_rollback_without_a_state_folder_lasts_as_long_as_the_process() {
    let setup = Setup::plugin(&Component::version(1), "");
    std::fs::write(setup.path().join("no-folder"), "").expect("a writable folder");
    let setup = setup.environment("STATE_DIRECTORY", "/dev/null/no").environment("HOTGATE_API_LISTEN", "");
    let gateway = setup.argument("--log-level=info").start().await;
    gateway.logged(|line| line.says("no state folder")).await;
    let traffic = Traffic::start(&gateway, 5).await;
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&fragile());
    gateway.logged_since(mark, |line| line.message() == "plugin rolled back").await;
    traffic.stop().await;
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&fragile());
    gateway.refused_since(mark).await;
    gateway.connect().await.expect("hello v1").await;
}

#[tokio::test]
async fn of_two_deploys_in_a_row_the_last_stays() {
    let gateway = Setup::plugin(&Component::version(1), "deploy = { probation = \"0s\" }").start().await;
    for version in [10, 20, 30] {
        for next in [version, version + 1] {
            let file = format!("v{next}.wasm");
            gateway.file(&file).move_over(&Component::version(next));
            plugin(&gateway, &["deploy", &file]).await;
        }
        // The watcher has seen both files, and does not replace the newer by the older.
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(25)).await;
            gateway.connect().await.expect(format!("hello v{}", version + 1)).await;
        }
    }
    assert_eq!(plugins(&gateway).await["live"]["generation"], 7);
}

#[tokio::test]
async fn a_pause_of_the_process_is_not_held_against_a_plugin() {
    let gateway = Gateway::with_plugin(&Component::version(1)).await;
    let mut clients = Vec::new();
    for n in 0..12 {
        clients.push(gateway.enter(&format!("c{n}")).await);
    }
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::version(2));
    gateway.swapped_since(mark).await;
    for client in &mut clients {
        client.send("nap 100").await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    gateway.signal("STOP");
    tokio::time::sleep(Duration::from_millis(600)).await;
    gateway.signal("CONT");
    for client in &mut clients {
        client.send("say done").await;
        while client.text().await != "done" {}
    }
    let status = plugins(&gateway).await;
    assert_eq!((&status["live"]["generation"], &status["live"]["failures"]), (&2.into(), &serde_json::json!({})));
}

#[tokio::test]
async fn once_live_a_plugin_that_fails_is_not_rolled_back() {
    let gateway = Setup::plugin(&Component::version(1), "deploy = { probation_calls = 3 }").start().await;
    let mut anna = gateway.enter("anna").await;
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&fragile());
    gateway.swapped_since(mark).await;
    for _ in 0..3 {
        expect_version(&mut anna, 2).await;
    }
    gateway.logged_since(mark, |line| line.message() == "plugin passed its probation").await;
    for _ in 0..20 {
        anna.send("say unlucky").await;
    }
    gateway.logged_since(mark, |line| line.message() == "plugin fails too often").await;
    expect_version(&mut anna, 2).await;
    let status = plugins(&gateway).await;
    assert_eq!(status["live"]["stage"], "live", "{status}");
    assert_eq!(status["live"]["failures"]["trap"], 20, "{status}");
}

#[tokio::test]
async fn whoever_wants_to_decide_alone_is_only_told() {
    let gateway = Setup::plugin(&Component::version(1), "deploy = { rollback = \"alert\" }").start().await;
    let mut anna = gateway.enter("anna").await;
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&fragile());
    gateway.swapped_since(mark).await;
    for _ in 0..20 {
        anna.send("say unlucky").await;
    }
    gateway.logged_since(mark, |line| line.message() == "plugin fails too often").await;
    expect_version(&mut anna, 2).await;
    plugin(&gateway, &["rollback", SLOT]).await;
    expect_version(&mut anna, 1).await;
}

/// Logs in and returns the version that greeted, authenticated and routed. Checks that it is the same in all three.
async fn version_of(gateway: &Gateway, uid: &str) -> u32 {
    let mut client = gateway.connect().await;
    let greeted = client.text().await;
    client.send(format!("login {uid}")).await;
    let welcome = client.text().await;
    client.send("version").await;
    let routed = client.text().await;
    let version = routed.trim_start_matches('v').to_owned();
    assert_eq!((greeted, welcome), (format!("hello v{version}"), format!("welcome {uid} v{version}")));
    version.parse().expect("a number")
}

#[tokio::test]
async fn a_canary_serves_some_of_the_new_connections_until_it_is_promoted() {
    let gateway = Setup::plugin(&Component::version(1), "deploy = { canary = 50 }").start().await;
    let mut anna = gateway.enter("anna").await;
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::version(2));
    gateway.logged_since(mark, |line| line.message() == "plugin serves as a canary").await;
    let mut versions = [0, 0];
    for n in 0..40 {
        versions[version_of(&gateway, &format!("c{n}")).await as usize - 1] += 1;
    }
    assert!(versions.iter().all(|count| (6..=34).contains(count)), "{versions:?}");
    expect_version(&mut anna, 1).await;
    let status = plugins(&gateway).await;
    assert_eq!((&status["live"]["generation"], &status["candidate"]["stage"]), (&1.into(), &"canary".into()));

    plugin(&gateway, &["promote", SLOT]).await;
    expect_version(&mut anna, 2).await;
    let versions: BTreeSet<_> = [version_of(&gateway, "d1").await, version_of(&gateway, "d2").await].into();
    assert_eq!(versions, [2].into());
    plugin(&gateway, &["promote", SLOT]).await;
    assert_eq!(plugins(&gateway).await["live"]["stage"], "live");
    let nothing = gateway.plugin(&["promote", SLOT]).await;
    assert_eq!(nothing.code, Some(1));
    assert!(nothing.stderr.contains("there is nothing to promote"), "{nothing:?}");
}

#[tokio::test]
async fn a_canary_that_fails_is_withdrawn_and_harms_only_its_own() {
    let gateway = Setup::plugin(&Component::version(1), "deploy = { canary = 50 }").start().await;
    let bystanders = Bystanders::watch(&gateway, 5).await;
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::fixture("version=2;authenticate=do trap"));
    gateway.logged_since(mark, |line| line.message() == "plugin serves as a canary").await;
    let mut failed = 0;
    for n in 1_u8.. {
        // Before a login, each address is a client of its own.
        let mut client = gateway.connect_from([127, 0, 0, n]).await.expect("an upgrade");
        client.text().await;
        client.send(format!("login c{n}")).await;
        if let hotgate_tests::Received::Frame(frame) = client.next().await
            && frame.opcode == hotgate_tests::Opcode::CLOSE
        {
            assert_eq!(frame.close_reason().0, 1013);
            failed += 1;
        }
        if gateway.log().since(mark).iter().any(|line| line.message() == "plugin rolled back") {
            break;
        }
        assert!(failed <= 5, "five failures are enough");
    }
    bystanders.stop().await;
    for n in 0..10 {
        assert_eq!(version_of(&gateway, &format!("d{n}")).await, 1);
    }
}

#[tokio::test]
async fn in_shadow_verdicts_are_compared_and_have_no_effect() {
    let gateway = Setup::plugin(&Component::version(1), "deploy = { shadow = 100 }").start().await;
    let mark = gateway.log().mark();
    // Denies packets with `secret`. This word must not appear in the log.
    gateway.file("plugin.wasm").move_over(&Component::fixture("version=2;trap-on=secret"));
    gateway.logged_since(mark, |line| line.message() == "plugin judges in shadow").await;
    for n in 0..6 {
        assert_eq!(version_of(&gateway, &format!("c{n}")).await, 1);
    }
    for n in 0..3 {
        assert_eq!(version_of(&gateway, &format!("secret{n}")).await, 1);
    }
    let mut status = Value::Null;
    eventually("all are compared", async || {
        status = plugins(&gateway).await;
        status["candidate"]["shadow"]["compared"] == 9
    })
    .await;
    let shadow = &status["candidate"]["shadow"];
    assert_eq!((&shadow["agreed"], &shadow["differed"]["accept → failed"]), (&6.into(), &3.into()), "{status}");
    assert_eq!(status["live"]["failures"], serde_json::json!({}));
    assert!(gateway.log().since(mark).iter().all(|line| !line.says("secret")));
    let list = plugin(&gateway, &["list"]).await;
    assert!(list.contains("accept → failed"), "{list}");
    plugin(&gateway, &["promote", SLOT]).await;
    assert_eq!(version_of(&gateway, "last").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_amid_2000_logins_fails_none() {
    let gateway = Gateway::with_plugin(&Component::version(1)).await;
    let mut clients = Vec::new();
    for _ in 0..2000 {
        let mut client = gateway.connect().await;
        client.expect("hello v1").await;
        clients.push(client);
    }
    let mark = gateway.log().mark();
    let mut logins = JoinSet::new();
    for (n, mut client) in clients.into_iter().enumerate() {
        logins.spawn(async move {
            tokio::time::sleep(Duration::from_millis(n as u64 % 1000)).await;
            client.send(format!("login u{n}")).await;
            let welcome = client.text().await;
            client.send("version").await;
            (client.text().await, welcome, client)
        });
        if n == 500 {
            gateway.file("plugin.wasm").move_over(&Component::version(2));
        }
    }
    let mut versions = BTreeSet::new();
    let mut connected = Vec::new();
    while let Some(login) = logins.join_next().await {
        let (routed, welcome, client) = login.expect("no login fails");
        versions.insert(welcome.rsplit(' ').next().expect("a version").to_owned());
        assert!(["v1", "v2"].contains(&&*routed), "{routed}");
        connected.push(client);
    }
    gateway.swapped_since(mark).await;
    assert!(versions.contains("v2"), "{versions:?}");
    for client in &mut connected {
        expect_version(client, 2).await;
    }
}

/// Checks that many swaps take no memory, descriptors or threads. A few plugins take turns, and each is compiled once.
/// Resident memory differs by some percent from swap to swap, so the medians of the first and the second half are
/// compared.
async fn swaps(count: usize, percent: u64) {
    // Until then, memory still grows: not every size of allocation has been needed in every thread.
    const FIRST: usize = 100;
    let keys = "deploy = { probation = \"0s\" }\nlimits = { recycle_after = 100 }";
    let setup = Setup::plugin(&Component::version(0), keys).and("[watch]\nsettle = \"1ms\"");
    let gateway = setup.start().await;
    let bystanders = Bystanders::watch(&gateway, 10).await;
    let entries = |name: &str| std::fs::read_dir(format!("/proc/{}/{name}", gateway.id())).map_or(0, Iterator::count);
    let (mut resident, mut early) = (Vec::new(), (0, 0));
    for swap in 1..=FIRST + count {
        let mark = gateway.log().mark();
        gateway.file("plugin.wasm").move_over(&Component::version(swap as u32 % 8));
        gateway.swapped_since(mark).await;
        if swap == FIRST {
            early = (entries("fd"), entries("task"));
        } else if swap > FIRST {
            resident.push(gateway.resident_bytes().unwrap_or_default());
        }
    }
    bystanders.stop().await;
    let late = (entries("fd"), entries("task"));
    // The runtime ends its file threads after some seconds without work, and starts new ones later.
    assert!(late.0 <= early.0 + 2 && late.1 <= early.1 + 8, "descriptors, threads: {early:?}, then {late:?}");
    let (first, second) = resident.split_at_mut(count / 2);
    let [first, second] = [first, second].map(|half| *half.select_nth_unstable(half.len() / 2).1);
    eprintln!("resident after the first {FIRST} swaps: {first} bytes, after {count} more: {second}");
    assert!(second <= first + first * percent / 100, "memory: {first}, then {second}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_leave_nothing_behind() {
    swaps(200, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes, and a machine of its own"]
async fn soak_1000_swaps_leave_nothing_behind() {
    swaps(1000, 1).await;
}
