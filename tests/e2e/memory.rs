//! The linear memory of all plugins together.

use std::time::Duration;

use hotgate_tests::{Component, Gateway, Setup, eventually};

const MIB: u64 = 1 << 20;

/// `engine.memory`: each plugin has a quarter, and the plugins share the other half.
const BUDGET: u64 = 256 * MIB;

/// The number of clients whose packets make the router leak memory, and the MiB that each packet leaks.
const CLIENTS: usize = 32;
const LEAKED: usize = 24;

async fn start() -> Gateway {
    let config = "[[authenticator]]\nfile = \"auth.wasm\"\n\
                  [router]\nfile = \"router.wasm\"\nlimits.deadline = \"5s\"\n\
                  [engine]\nmemory = \"256MiB\"\n";
    let setup = Setup::new(config).file("auth.wasm", &Component::fixture(""));
    setup.file("router.wasm", &Component::fixture("version=router")).start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_leaks_takes_no_more_than_there_is_and_only_its_own_calls_fail() {
    let gateway = start().await;
    let admin = gateway.admin().await;
    assert_eq!(admin.metric("hotgate_plugin_memory_limit_bytes").await, BUDGET as f64);
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        clients.push(gateway.enter(&format!("client-{n}")).await);
    }
    let before = gateway.resident_bytes();
    for client in &mut clients {
        for _ in 0..LEAKED {
            client.send("hoard 1").await;
        }
        client.send("say done").await;
    }
    let mut most = 0;
    let all_done = async {
        for client in &mut clients {
            while client.text().await != "done" {}
        }
    };
    let watch = async {
        loop {
            most = most.max(gateway.resident_bytes().unwrap_or_default());
            // The other plugin still works.
            let mut bystander = gateway.connect().await;
            bystander.expect("hello v1").await;
            bystander.send("deny 4000 no").await;
            bystander.expect_close(4000).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! { () = all_done => {}, () = watch => {} }
    if let Some(before) = before {
        let leaked = CLIENTS * LEAKED;
        assert!(most < before + BUDGET, "{leaked} MiB were leaked, and memory grew from {before} to {most}");
    }
    for (slot, most) in [("router", BUDGET * 3 / 4), ("authenticator", BUDGET / 4)] {
        let plugin = if slot == "router" { "router" } else { "auth" };
        let of = async |metric: &str| admin.metric(&format!("{metric}{{slot=\"{slot}\",plugin=\"{plugin}\"}}")).await;
        assert!(of("hotgate_plugin_memory_bytes").await <= most as f64, "{slot}");
    }
    let shed = "hotgate_plugin_calls_shed_total{slot=\"authenticator\",plugin=\"auth\"}";
    assert_eq!(admin.metric(shed).await, 0.0);
    let failures = gateway.log().since(Default::default());
    let mut failures = failures.iter().filter(|line| line.message() == "plugin failed");
    assert!(failures.all(|line| line.get("slot") == "router"), "the authenticator failed");
}

#[tokio::test]
async fn memory_and_instances_of_a_plugin_are_shown_and_come_back() {
    let gateway = start().await;
    let admin = gateway.admin().await;
    let mut anna = gateway.enter("anna").await;
    anna.send("hoard 20").await;
    anna.expect("hoarded").await;
    let of = async |metric: &str| admin.metric(&format!("{metric}{{slot=\"router\",plugin=\"router\"}}")).await;
    assert!(of("hotgate_plugin_memory_bytes").await >= (20 * MIB) as f64);
    assert!(of("hotgate_plugin_instances").await >= 1.0);
    // Idle instances end after a while.
    eventually("it comes back", async || {
        of("hotgate_plugin_memory_bytes").await + of("hotgate_plugin_instances").await == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_finds_no_memory_fails_and_the_log_names_the_budget() {
    let gateway = start().await;
    let mut clients = Vec::new();
    for n in 0..8 {
        clients.push(gateway.enter(&format!("client-{n}")).await);
    }
    // Asks for 8 times 50 MiB at once. The router can have 192 MiB.
    let words = "all plugins together had no more, the limit is 268435456 (engine.memory)";
    eventually("a call fails", async || {
        for client in &mut clients {
            client.send("hoard 50").await;
            client.send("say done").await;
        }
        for client in &mut clients {
            while client.text().await != "done" {}
        }
        let log = gateway.log().since(Default::default());
        log.iter().any(|line| line.get("kind") == "memory" && line.get("reason").contains(words))
    })
    .await;
}
