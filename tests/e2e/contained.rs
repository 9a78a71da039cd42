//! Plugins that go live and then misbehave. Only one decision fails, in the way that the contract says, and nobody else
//! notices.

use std::time::{Duration, Instant};

use hotgate_tests::{Component, Gateway, Opcode, Setup};

use crate::bystanders::Bystanders;

/// Every way of misbehaving that does not return.
const FATAL: [&str; 7] = ["trap", "exit", "loop", "sleep", "bomb", "recurse", "sprawl"];

/// Small limits, which are reached quickly.
const LIMITS: &str = "limits = { deadline = \"200ms\", memory = \"16MiB\", max_actions = 100, max_output = \"1MiB\" }";

async fn start(script: &str, config: &str) -> (Gateway, Bystanders) {
    let gateway = Setup::plugin(&Component::fixture(script), LIMITS).and(config).start().await;
    let bystanders = Bystanders::watch(&gateway, 100).await;
    (gateway, bystanders)
}

/// Expects that the bystanders noticed nothing, and never waited long.
async fn expect_unnoticed(bystanders: Bystanders) {
    let noticed = bystanders.stop().await;
    assert!(noticed.slowest < Duration::from_secs(3), "{noticed:?}");
}

/// Opens a connection and expects the greeting.
#[tokio::test]
async fn a_failed_login_is_told_to_try_again() {
    let (gateway, bystanders) = start("", "").await;
    for kind in FATAL {
        let mut client = gateway.greeted().await;
        client.send(format!("do {kind}")).await;
        client.expect_close(1013).await;
        gateway.enter("anna").await.close().await;
    }
    expect_unnoticed(bystanders).await;
}

#[tokio::test]
async fn a_failed_greeting_is_told_to_try_again() {
    let (gateway, bystanders) = start("", "[watch]\nrescan = \"1h\"").await;
    for kind in FATAL {
        let mark = gateway.log().mark();
        gateway.file("plugin.wasm").copy_over(&Component::fixture(&format!("greet=do {kind}")));
        gateway.swapped_since(mark).await;
        gateway.connect().await.expect_close(1013).await;
    }
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").copy_over(&Component::version(2));
    gateway.swapped_since(mark).await;
    gateway.enter("anna").await.close().await;
    expect_unnoticed(bystanders).await;
}

#[tokio::test]
async fn a_session_that_fails_to_open_is_told_to_try_again() {
    let (gateway, bystanders) = start("", "").await;
    for kind in FATAL {
        let mut client = gateway.greeted().await;
        client.send(format!("login anna opened=do_{kind}")).await;
        client.expect_close(1013).await;
        assert_eq!(gateway.sender().await.ask("to anna hi").await, "fail");
    }
    expect_unnoticed(bystanders).await;
}

#[tokio::test]
async fn a_packet_that_fails_to_route_is_dropped() {
    let (gateway, bystanders) = start("", "").await;
    let mut anna = gateway.enter("anna").await;
    for kind in FATAL {
        anna.send(format!("do {kind}")).await;
        anna.send("say still here").await;
        anna.expect("still here").await;
    }
    expect_unnoticed(bystanders).await;
}

#[tokio::test]
async fn or_its_connection_is_closed_where_that_is_configured() {
    let keys = "route_failure = \"close\"";
    let config = format!("[[authenticator]]\nfile = \"plugin.wasm\"\n[router]\nfile = \"plugin.wasm\"\n{keys}\n");
    let gateway = Setup::new(&config).file("plugin.wasm", &Component::fixture("")).start().await;
    let mut anna = gateway.enter("anna").await;
    anna.send("do trap").await;
    anna.expect_close(1013).await;
}

#[tokio::test]
async fn a_farewell_that_fails_is_dropped() {
    let (gateway, bystanders) = start("", "").await;
    for kind in FATAL {
        gateway.enter_as(&format!("login anna closed=do_{kind}")).await.close().await;
    }
    gateway.enter("anna").await.close().await;
    expect_unnoticed(bystanders).await;
}

#[tokio::test]
async fn a_line_that_fails_is_answered_fail_and_the_connection_stays() {
    let (gateway, bystanders) = start("", "").await;
    let mut sender = gateway.sender().await;
    for kind in FATAL {
        assert_eq!(sender.ask(format!("do {kind}")).await, "fail", "{kind}");
        assert_eq!(sender.ask("say well?").await, "well?");
    }
    // An answer must be one line.
    assert_eq!(sender.ask("lines").await, "fail");
    expect_unnoticed(bystanders).await;
}

#[tokio::test]
async fn a_result_past_its_bounds_is_a_failure() {
    let (gateway, bystanders) = start("", "").await;
    for sentence in
        ["state 4097", "deny 1001 reserved", "deny 1002 no", "deny 4900 ours", "deny 5000 no", "deny 999 no"]
    {
        let mut client = gateway.greeted().await;
        client.send(sentence).await;
        client.expect_close(1013).await;
    }
    let mut client = gateway.greeted().await;
    client.send(format!("deny 4000 {}", "x".repeat(124))).await;
    client.expect_close(1013).await;

    let mut anna = gateway.enter("anna").await;
    for sentence in [
        "flood 101",
        "big 1100000",
        "state 4097",
        "close bystander-0-a 1001 no",
        "join ",
        &format!("join {}", "g".repeat(257)),
    ] {
        anna.send(sentence).await;
        anna.expect_nothing().await;
    }
    anna.send("flood 100").await;
    for _ in 0..100 {
        anna.expect("flood").await;
    }
    anna.send("big 1000000").await;
    anna.expect("x".repeat(1_000_000)).await;
    anna.send("state 4096").await;
    anna.send("recall").await;
    assert_eq!(anna.text().await.len(), 4096);
    gateway.logged(|line| line.says("max_actions")).await;
    expect_unnoticed(bystanders).await;
}

#[tokio::test]
async fn the_log_names_the_plugin_and_the_cause() {
    let (gateway, _) = start("", "").await;
    let mut anna = gateway.enter("anna").await;
    for (kind, words) in [
        ("trap", "told to trap"),
        ("exit", "exited"),
        ("loop", "limits.deadline"),
        ("sleep", "limits.deadline"),
        ("bomb", "limits.memory"),
        ("recurse", "stack"),
    ] {
        let mark = gateway.log().mark();
        anna.send(format!("do {kind}")).await;
        let failed = gateway.logged_since(mark, |line| line.message() == "plugin failed").await;
        assert!(failed.get("reason").contains(words), "{kind}: {failed:?}");
        assert_eq!((failed.get("plugin"), failed.get("call"), failed.number("generation")), ("plugin", "route", 1));
    }
}

#[tokio::test]
async fn a_log_flood_is_cut_and_harms_nobody() {
    let (gateway, bystanders) = start("", "").await;
    let mut anna = gateway.enter("anna").await;
    let mark = gateway.log().mark();
    for kind in ["log-flood", "print-flood", "long-log"] {
        for _ in 0..3 {
            anna.send(format!("do {kind}")).await;
            anna.expect_nothing().await;
        }
    }
    anna.send("say still here").await;
    anna.expect("still here").await;
    let lines = gateway.log().since(mark).len();
    assert!(lines < 5000, "900,000 lines were asked for and {lines} written");
    expect_unnoticed(bystanders).await;
}

#[tokio::test]
async fn what_a_plugin_says_is_in_the_log_under_its_name() {
    let gateway = Gateway::with_plugin(&Component::fixture("")).await;
    let mut anna = gateway.enter("anna").await;
    for verb in ["log", "print", "eprint"] {
        anna.send(format!("{verb} said by {verb}")).await;
        anna.expect("done").await;
        let line = gateway.logged(|line| line.get("line") == format!("said by {verb}")).await;
        assert_eq!(line.message(), "plugin says");
        assert_eq!(line.get("plugin"), "plugin");
        assert_ne!(line.get("digest"), "");
    }
}

#[tokio::test]
async fn a_plugin_reaches_its_settings_and_nothing_else_of_the_host() {
    let keys = "settings = { KEY = \"value\" }";
    let gateway = Setup::plugin(&Component::fixture(""), keys).environment("SECRET", "of the host").start().await;
    let mut anna = gateway.enter("anna").await;
    anna.send("probe").await;
    anna.expect("files: false, sockets: false, arguments: 0, environment: KEY=value").await;
}

#[tokio::test]
async fn a_crowd_of_spinning_calls_holds_up_nobody_for_long() {
    let (gateway, bystanders) = start("", "").await;
    let mut crowd = Vec::new();
    for _ in 0..40 {
        let mut client = gateway.greeted().await;
        client.send("do loop").await;
        crowd.push(client);
    }
    for client in &mut crowd {
        client.expect_close(1013).await;
    }
    gateway.enter("anna").await.close().await;
    expect_unnoticed(bystanders).await;
}

/// A turn is a quarter of a millisecond. The router needs more than a hundred turns for each packet, however fast the
/// machine is.
#[tokio::test]
async fn an_authenticator_that_spins_takes_turns_from_itself() {
    let config = "[[authenticator]]\nfile = \"plugin.wasm\"\ndeploy = { probation = \"0s\" }\n\
                  [router]\nfile = \"second.wasm\"\nlimits = { deadline = \"1s\" }";
    let setup = Setup::new(config).file("plugin.wasm", &Component::fixture(""));
    let gateway = setup.file("second.wasm", &Component::fixture("")).start().await;
    let mut anna = gateway.enter("anna").await;
    let mut alone = Duration::MAX;
    for _ in 0..5 {
        let begin = Instant::now();
        anna.send("work 100").await;
        anna.expect("v1").await;
        alone = alone.min(begin.elapsed());
    }
    let packet = format!("work {:.0}", 100.0 * Duration::from_millis(30).div_duration_f64(alone));
    let gateway = std::sync::Arc::new(gateway);
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let gateway = gateway.clone();
        crowd.spawn(async move {
            loop {
                let mut client = gateway.greeted().await;
                client.send("do loop").await;
                client.expect_close(1013).await;
            }
        });
    }
    gateway.logged(|line| line.message() == "plugin failed").await;
    for _ in 0..8 {
        anna.send(&packet).await;
        anna.expect("v1").await;
    }
    crowd.shutdown().await;
}

#[tokio::test]
async fn when_all_instances_are_busy_logins_and_lines_are_shed_and_packets_wait() {
    let keys = "limits = { deadline = \"5s\", max_wait = \"100ms\", concurrency = 2 }";
    let gateway = Setup::plugin(&Component::fixture(""), keys).start().await;
    let mut anna = gateway.enter("anna").await;
    let (mut waiting, mut sender) = (gateway.greeted().await, gateway.sender().await);
    let mut busy = Vec::new();
    for uid in ["b", "c"] {
        let mut client = gateway.enter(uid).await;
        client.send("do sleep").await;
        busy.push(client);
    }
    hotgate_tests::eventually("lines are shed", async || sender.ask("say hello").await == "fail").await;
    waiting.send("login late").await;
    waiting.expect_close(1013).await;
    anna.send("say I can wait").await;
    anna.expect("I can wait").await;
    for client in &mut busy {
        client.send("say me too").await;
        client.expect("me too").await;
    }
}

#[tokio::test]
async fn logins_that_take_long_do_not_hold_up_packets_of_the_same_plugin() {
    let keys = "limits = { deadline = \"9s\", max_wait = \"100ms\", concurrency = 2 }";
    let gateway = Setup::plugin(&Component::fixture(""), keys).start().await;
    let mut anna = gateway.enter("anna").await;
    let mut logins = [gateway.greeted().await, gateway.greeted().await];
    for client in &mut logins {
        client.send("do sleep").await;
    }
    hotgate_tests::eventually("logins are shed", async || {
        gateway.connect().await.next_frame().await.opcode == Opcode::CLOSE
    })
    .await;
    let begun = std::time::Instant::now();
    anna.send("say at once").await;
    anna.expect("at once").await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn nothing_of_one_user_is_left_for_the_next_where_calls_are_isolated() {
    let count = async |isolation: &str| {
        let keys = format!("isolation = \"{isolation}\"\nlimits = {{ recycle_after = 10 }}");
        let gateway = Setup::plugin(&Component::fixture(""), &keys).start().await;
        let mut anna = gateway.enter("anna").await;
        let mut counts = Vec::new();
        for _ in 0..30 {
            anna.send("count").await;
            counts.push(anna.text().await.parse::<u32>().expect("a number"));
        }
        counts
    };
    assert_eq!(count("per-call").await, [1; 30]);
    let pooled = count("pooled").await;
    assert!(pooled.iter().any(|&calls| calls > 1), "{pooled:?}");
    assert!(pooled.iter().all(|&calls| calls <= 10), "{pooled:?}");
}

#[tokio::test]
async fn a_plugin_that_gossips_has_heard_nothing_where_calls_are_isolated() {
    for (isolation, heard) in [("per-call", r#"heard """#), ("pooled", r#"heard "login anna password=hunter2""#)] {
        let keys = format!("isolation = \"{isolation}\"\nlimits = {{ concurrency = 1 }}");
        let gateway = Setup::plugin(&Component::fixture(""), &keys).start().await;
        let _anna = gateway.enter_as("login anna password=hunter2").await;
        let mut bob = gateway.greeted().await;
        bob.send("gossip").await;
        bob.expect(heard).await;
    }
}

#[tokio::test]
async fn a_message_far_larger_than_the_bounds_never_reaches_a_plugin() {
    let (gateway, bystanders) = start("", "").await;
    let mut anna = gateway.enter("anna").await;
    anna.try_bytes(&hotgate_tests::Frame::text("x".repeat(2 << 20)).encode()).await;
    assert_eq!(anna.next_frame().await.opcode, Opcode::CLOSE);
    expect_unnoticed(bystanders).await;
}
