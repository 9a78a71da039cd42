//! What a unit of work may cost, in figures that are the same on a busy machine: instructions, system calls, bytes.
//!
//! One unit at a time, so that nothing is done for two at once. Each test prints its row of the table, which
//! `cargo test -p hotgate-tests --test e2e costs:: -- --nocapture` shows.

use std::io::Write;

use hotgate_tests::{Callgrind, Component, Cost, Frame, Gateway, Opcode, Setup, eventually};

/// How much more than its budget a unit may cost.
const TOLERANCE: f64 = 1.05;

// The budgets: what was counted on 2026-11-23 with Rust 1.95 and the profile `dev`, on x86-64 with AVX2 and glibc 2.36.
// They are lowered when something has become cheaper, and raised only for something that is worth it.
const RELAYED_MESSAGE: Cost = Cost { instructions: 41_700.0, system_calls: 15.0 };
const PUSHED_LINE: Cost = Cost { instructions: 28_100.0, system_calls: 15.0 };
const LOGIN: Cost = Cost { instructions: 248_500.0, system_calls: 86.5 };
const POOLED_ROUTER_CALL: Cost = Cost { instructions: 15_000.0, system_calls: 4.0 };
const FRESH_AUTHENTICATOR_CALL: Cost = Cost { instructions: 50_000.0, system_calls: 10.0 };
const BYTES_OF_AN_IDLE_CONNECTION: f64 = 5_000.0;

/// What is relayed and pushed: 64 bytes.
const TEXT: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The default plugins, which may take their time under valgrind.
const PLUGINS: &str = "
[[authenticator]]
file = \"builtin:origin-auth\"
limits.deadline = \"1m\"
[router]
file = \"builtin:origin-router\"
limits.deadline = \"1m\"
";

/// Says something past the runner's capture of what passing tests print.
fn skip(why: &str) {
    _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

async fn counted(setup: Setup, name: &str) -> Option<Callgrind> {
    let callgrind = Callgrind::start(setup, name).await;
    if callgrind.is_none() {
        skip("there is no valgrind to count instructions with");
    }
    callgrind
}

/// Prints a row of the table, and says whether the figure is within its budget.
fn row(what: &str, unit: &str, figure: f64, budget: f64) -> bool {
    let change = (figure / budget - 1.0) * 100.0;
    println!("| {what} | {figure:.1} {unit} | budget {budget:.1} | {change:+.1} % |");
    figure <= budget * TOLERANCE
}

fn check(what: &str, cost: Cost, budget: Cost, callgrind: &Callgrind) {
    let instructions = row(what, "instructions", cost.instructions, budget.instructions);
    let system_calls = row(what, "system calls", cost.system_calls, budget.system_calls);
    assert!(
        instructions && system_calls,
        "{what} costs {cost:?}, more than 5 % above {budget:?}; where they go: callgrind_annotate --inclusive=yes {}",
        callgrind.profile().display()
    );
}

#[tokio::test]
async fn a_relayed_message() {
    let Some(callgrind) = counted(Setup::new(PLUGINS), "relayed-message").await else { return };
    let (mut anna, mut bob) = (callgrind.gateway().login("anna").await, callgrind.gateway().login("bob").await);
    let packet = format!(r#"{{"id":"bob","msg":"{TEXT}"}}"#);
    let relay = async || {
        anna.send(&packet).await;
        bob.expect(TEXT).await;
        anna.expect("Already_Linked").await;
    };
    check("a relayed message", callgrind.count(1000, relay).await, RELAYED_MESSAGE, &callgrind);
}

#[tokio::test]
async fn a_pushed_line() {
    let Some(callgrind) = counted(Setup::new(PLUGINS), "pushed-line").await else { return };
    let (mut sender, mut bob) = (callgrind.gateway().sender().await, callgrind.gateway().login("bob").await);
    let line = format!(r#"{{"uid":"bob","msg":"{TEXT}"}}"#);
    let push = async || {
        assert_eq!(sender.ask(&line).await, "ok");
        bob.expect(&line).await;
    };
    check("a pushed line", callgrind.count(1000, push).await, PUSHED_LINE, &callgrind);
}

#[tokio::test]
async fn a_login() {
    let Some(callgrind) = counted(Setup::new(PLUGINS), "login").await else { return };
    let login = async || callgrind.gateway().login("anna").await.close().await;
    check("a login: connect, authenticate, close", callgrind.count(100, login).await, LOGIN, &callgrind);
}

/// Two lines that are answered `fail`: the router is asked about one of them.
#[tokio::test]
async fn a_pooled_call_of_the_router() {
    let Some(callgrind) = counted(Setup::new(PLUGINS), "pooled-router-call").await else { return };
    let mut sender = callgrind.gateway().sender().await;
    let mut fail = async |line: &[u8]| {
        sender.bytes(line).await;
        sender.expect("fail").await;
    };
    let no_text = callgrind.count(1000, async || fail(b"{\"uid\":\"nobod\xff\"}\n").await).await;
    let nobody = callgrind.count(1000, async || fail(b"{\"uid\":\"nobody\"}\n").await).await;
    check("a pooled call of the router", nobody - no_text, POOLED_ROUTER_CALL, &callgrind);
}

/// Two frames that are answered by another: the authenticator is asked about one of them.
#[tokio::test]
async fn a_fresh_call_of_an_authenticator() {
    let setup = Setup::plugin(&Component::fixture(""), "limits.deadline = \"1m\"");
    let Some(callgrind) = counted(setup, "fresh-authenticator-call").await else { return };
    let mut client = callgrind.gateway().connect().await;
    client.text().await;
    let mut ask = async |question: Frame, opcode, answer| {
        client.frame(question).await;
        client.expect_frame(opcode, answer).await;
    };
    let ping = callgrind.count(1000, async || ask(Frame::ping("again?"), Opcode::PONG, "again?").await).await;
    let packet = callgrind.count(200, async || ask(Frame::text("ask again?"), Opcode::TEXT, "again?").await).await;
    check("a fresh call of an authenticator", packet - ping, FRESH_AUTHENTICATOR_CALL, &callgrind);
}

#[tokio::test]
async fn an_idle_connection() {
    const CONNECTIONS: usize = 1000;
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let mut clients = Vec::new();
    let mut login = async |count| {
        for _ in 0..count {
            clients.push(gateway.login(&format!("client-{}", clients.len())).await);
        }
        // What was needed for the logins alone goes soon after them.
        let mut allocated = 0.0;
        eventually("nothing happens any more", async || {
            let before = std::mem::replace(&mut allocated, admin.metric("hotgate_memory_allocated_bytes").await);
            allocated == before
        })
        .await;
        allocated
    };
    let (before, after) = (login(100).await, login(CONNECTIONS).await);
    let bytes = (after - before) / CONNECTIONS as f64;
    assert!(
        row("an idle connection", "bytes", bytes, BYTES_OF_AN_IDLE_CONNECTION),
        "an idle connection costs {bytes} bytes, more than 5 % above {BYTES_OF_AN_IDLE_CONNECTION}"
    );
}
