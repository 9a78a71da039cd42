//! The limit on all outboxes together: how queued messages are counted, and which connections are closed at the limit.

use hotgate_tests::{Admin, Component, Gateway, Setup, eventually};

const BUDGET: &str = "hotgate_outbox_budget_bytes";

fn line(uid: &str, n: usize, length: usize) -> String {
    format!(r#"{{"uid":"{uid}","n":{n},"msg":"{}"}}"#, "x".repeat(length))
}

/// Pushes lines of 64 KiB to `uid` until `bytes` more are drawn from the budget. Returns the number of lines taken.
async fn fill(gateway: &Gateway, admin: &Admin, uid: &str, bytes: f64) -> usize {
    let mut sender = gateway.sender().await;
    let goal = admin.metric(BUDGET).await + bytes;
    let mut taken = 0;
    while admin.metric(BUDGET).await < goal {
        assert_eq!(sender.ask(line(uid, taken, 64 << 10)).await, "ok");
        taken += 1;
        assert!(taken < 1000, "it does not wait, or it is not counted");
    }
    taken
}

/// The messages have 60 MB if counted for each recipient, and 0.2 MB as they are held in memory.
#[tokio::test]
async fn a_message_to_many_is_counted_once() {
    let config = "[sessions]\nduplicate_login = \"all\"\n[outbox]\nmax_bytes = \"1MiB\"\ntotal_bytes = \"1MiB\"\n[limits]\nconnections = 310";
    let gateway = Gateway::configured(config).await;
    let mut clients = Vec::new();
    for _ in 0..300 {
        clients.push(gateway.login("u").await);
    }
    let mut sender = gateway.sender().await;
    for n in 0..2 {
        assert_eq!(sender.ask(line("u", n, 100_000)).await, "ok");
    }
    for client in &mut clients {
        for n in 0..2 {
            client.expect(line("u", n, 100_000)).await;
        }
        client.expect_nothing().await;
    }
    let admin = gateway.admin().await;
    eventually("nothing waits any more", async || admin.metric(BUDGET).await == 0.0).await;
    assert_eq!(admin.metric("hotgate_slow_consumers_total").await, 0.0);
}

#[tokio::test]
async fn past_the_budget_whoever_has_most_waiting_is_closed_and_bystanders_lose_nothing() {
    let config = "[outbox]\nmax_bytes = \"4MiB\"\ntotal_bytes = \"4MiB\"\n[limits]\nconnections = 10";
    let gateway = Gateway::configured(config).await;
    let admin = gateway.admin().await;
    let _greedy = gateway.login_narrow("greedy").await;
    let mut bystander = gateway.login_narrow("bystander").await;
    fill(&gateway, &admin, "greedy", 2_500_000.0).await;
    let mut taken = fill(&gateway, &admin, "bystander", 1_000_000.0).await;
    let mut sender = gateway.sender().await;
    while gateway.reaches("greedy").await {
        assert_eq!(sender.ask(line("bystander", taken, 64 << 10)).await, "ok");
        taken += 1;
        assert!(taken < 1000, "nothing bounds what waits");
    }
    assert_eq!(admin.metric("hotgate_connections_relieved_total").await, 1.0);
    assert_eq!(admin.metric("hotgate_slow_consumers_total").await, 0.0);
    gateway.logged(|line| line.message().starts_with("the outboxes were full") && line.number("closed") == 1).await;
    for n in 0..taken {
        bystander.expect(line("bystander", n, 64 << 10)).await;
    }
    bystander.expect_nothing().await;
}

/// A call is checked before any of its actions is carried out, so it has all its effects or none.
#[tokio::test]
async fn a_call_that_is_about_too_many_connections_has_no_effect() {
    let keys = "limits = { max_recipients = 10, max_actions = 100 }";
    let gateway = Setup::plugin(&Component::fixture(""), keys).and("[limits]\nconnections = 10").start().await;
    let mut clients = Vec::new();
    for n in 0..4 {
        clients.push(gateway.enter(&format!("u{n}")).await);
    }
    clients[0].send("everyone-times 3 too-many").await;
    let failed = gateway.logged(|line| line.message() == "plugin failed").await;
    let reason = "it returned actions for at least 12 connections, the limit is 10 (limits.max_recipients)";
    assert_eq!((failed.get("call"), failed.get("kind"), failed.get("reason")), ("route", "result", reason));
    clients[0].send("everyone-times 2 hello").await;
    for client in &mut clients {
        for _ in 0..2 {
            client.expect("hello").await;
        }
        client.expect_nothing().await;
    }
}

/// A sender pushes all the time, while one login after another fails in `opened`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_login_failed_gets_no_push() {
    let gateway = Setup::plugin(&Component::fixture(""), "").start().await;
    let (mut writer, mut answers) = gateway.sender().await.split();
    let hammer = tokio::spawn(async move {
        let lines = "to bob hello\n".repeat(100);
        while tokio::io::AsyncWriteExt::write_all(&mut writer, lines.as_bytes()).await.is_ok() {
            for _ in 0..100 {
                answers.next().await;
            }
        }
    });
    for _ in 0..200 {
        let mut bob = gateway.connect().await;
        bob.expect("hello v1").await;
        bob.send("login bob opened=do_trap").await;
        bob.expect_close(1013).await;
    }
    hammer.abort();
}

#[tokio::test]
async fn replies_that_senders_do_not_read_are_bounded_together() {
    let setup = Setup::plugin(&Component::fixture(""), "").and("[text]\ntotal_replies = \"64KiB\"");
    let gateway = setup.start().await;
    let reply = "x".repeat(60_000);
    let lines = format!("say {reply}\n").repeat(300);
    let (mut writer, mut answers) = gateway.sender().await.split();
    let writing = tokio::spawn(async move {
        tokio::io::AsyncWriteExt::write_all(&mut writer, lines.as_bytes()).await.expect("the connection is open");
        writer
    });
    let mut sender = gateway.sender().await;
    let ask = format!("say {reply}");
    eventually("there is no room", async || sender.ask(&ask).await == "fail").await;
    // A small reply finds room. An answer without a reply needs no room.
    assert_eq!(sender.ask("say hello").await, "hello");
    assert_eq!(sender.ask("to nobody hello").await, "fail");
    for _ in 0..300 {
        let answer = answers.next().await;
        assert!(answer.as_ref() == Some(&reply) || answer.as_deref() == Some("fail"));
    }
    eventually("there is room again", async || sender.ask(&ask).await == reply).await;
    writing.await.expect("all is written");
    let failed = gateway.admin().await.metric("hotgate_pushes_failed_total{reason=\"no-room\"}").await;
    assert!(failed >= 1.0, "{failed}");
}
