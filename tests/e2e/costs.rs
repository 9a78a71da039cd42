//! Budgets for the cost of a unit of work: instructions, system calls, bytes. A busy machine does not change these
//! figures.
//!
//! Units run one at a time, so that no work is shared by two of them. Each test prints its row of a table. Show the
//! table with `cargo test -p hotgate-tests --test e2e costs:: -- --nocapture`.

use hotgate_tests::{Authority, Callgrind, Client, Cost, Gateway, Setup, eventually, skip};

/// The percentage by which instructions or bytes may exceed their budget.
const TOLERANCE: f64 = 5.0;
/// The same for system calls. A thread that had to wait makes some more of them.
const CALLS_TOLERANCE: f64 = 15.0;

// The budgets: counted on 2026-11-23 with Rust 1.95 and the profile `dev`, on x86-64 with AVX2 and glibc 2.36. Lower a
// budget when its unit has become cheaper. Raise a budget only for a change that is worth the cost.
const RELAYED_MESSAGE: Cost = Cost { instructions: 31_400.0, system_calls: 20.0 };
// Two of these system calls read the clock, for `hotgate_push_seconds`. They are system calls only under Valgrind.
const PUSHED_LINE: Cost = Cost { instructions: 22_500.0, system_calls: 15.0 };
const LOGIN: Cost = Cost { instructions: 213_600.0, system_calls: 87.8 };
const POOLED_ROUTER_CALL: Cost = Cost { instructions: 13_500.0, system_calls: 2.0 };
const FRESH_AUTHENTICATOR_CALL: Cost = Cost { instructions: 76_000.0, system_calls: 24.4 };
// Counted on 2026-11-28.
const IDLE_CONNECTION: f64 = 2_620.0;
// Counted on 2026-11-29.
const IDLE_TLS_CONNECTION: f64 = 7_000.0;

/// The payload that is relayed and pushed: 64 bytes.
const TEXT: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The default plugins, with long deadlines, because valgrind slows them down.
const PLUGINS: &str = "
[[authenticator]]
file = \"builtin:origin-auth\"
limits.deadline = \"1m\"
[router]
file = \"builtin:origin-router\"
limits.deadline = \"1m\"
";

async fn counted(setup: Setup, name: &str) -> Option<Callgrind> {
    if cfg!(not(target_arch = "x86_64")) {
        skip("there are budgets of instructions for x86-64 only");
        return None;
    }
    let callgrind = Callgrind::start(setup, name).await;
    if callgrind.is_none() {
        skip("there is no valgrind to count instructions with");
    }
    callgrind
}

/// Prints a row of the table: figures with their units, budgets and tolerances.
///
/// # Panics
/// When a figure is above its budget by more than its tolerance.
fn check(what: &str, figures: &[(f64, &str, f64, f64)], look: &str) {
    let mut above = Vec::new();
    let mut row = format!("| {what} |");
    for (figure, unit, budget, tolerance) in figures {
        let change = (figure / budget - 1.0) * 100.0;
        let said = format!("{figure:.1} {unit}, budget {budget:.1} ({change:+.1} %)");
        row += &format!(" {said} |");
        if change > *tolerance {
            above.push(format!("{said}, more than {tolerance} % above"));
        }
    }
    println!("{row}");
    assert!(above.is_empty(), "{what} costs {}; {look}", above.join(" and "));
}

fn check_cost(what: &str, cost: Cost, budget: Cost, callgrind: &Callgrind) {
    let figures = [
        (cost.instructions, "instructions", budget.instructions, TOLERANCE),
        (cost.system_calls, "system calls", budget.system_calls, CALLS_TOLERANCE),
    ];
    let look = format!("where it goes: callgrind_annotate --inclusive=yes {}", callgrind.profile().display());
    check(what, &figures, &look);
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
    check_cost("a relayed message", callgrind.count(500, relay).await, RELAYED_MESSAGE, &callgrind);
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
    check_cost("a pushed line", callgrind.count(500, push).await, PUSHED_LINE, &callgrind);
}

#[tokio::test]
async fn a_login() {
    let Some(callgrind) = counted(Setup::new(PLUGINS), "login").await else { return };
    let login = async || callgrind.gateway().login("anna").await.close().await;
    check_cost("a login: connect, authenticate, close", callgrind.count(100, login).await, LOGIN, &callgrind);
}

/// Compares two lines that are both answered `fail`. Only one of them reaches the router.
#[tokio::test]
async fn a_pooled_call_of_the_router() {
    let Some(callgrind) = counted(Setup::new(PLUGINS), "pooled-router-call").await else { return };
    let mut sender = callgrind.gateway().sender().await;
    let mut fail = async |line: &[u8]| {
        sender.bytes(line).await;
        sender.expect("fail").await;
    };
    let no_text = callgrind.count(500, async || fail(b"{\"uid\":\"nobod\xff\"}\n").await).await;
    let nobody = callgrind.count(500, async || fail(b"{\"uid\":\"nobody\"}\n").await).await;
    check_cost("a pooled call of the router", nobody - no_text, POOLED_ROUTER_CALL, &callgrind);
}

/// Compares two clients that are greeted and then go. Only one of them sends a packet to the authenticator.
#[tokio::test]
async fn a_fresh_call_of_an_authenticator() {
    let Some(callgrind) = counted(Setup::new(PLUGINS), "fresh-authenticator-call").await else { return };
    let visit = async || {
        let mut client = callgrind.gateway().connect().await;
        client.expect("HeartBeat").await;
        client
    };
    let leaves = callgrind.count(100, async || visit().await.close().await).await;
    let denied = async || {
        let mut client = visit().await;
        client.send("{}").await;
        client.expect_close(4400).await;
    };
    let denied = callgrind.count(100, denied).await;
    check_cost("a fresh call of an authenticator", denied - leaves, FRESH_AUTHENTICATOR_CALL, &callgrind);
}

#[tokio::test]
async fn an_idle_connection() {
    let gateway = uncached(Setup::new("")).start().await;
    let bytes = idle(&gateway, async |uid| gateway.login(&uid).await).await;
    check("an idle connection", &[(bytes, "bytes", IDLE_CONNECTION, TOLERANCE)], "look for what each connection holds");
}

#[tokio::test]
async fn an_idle_connection_over_tls() {
    let authority = Authority::new();
    let setup = uncached(Setup::new("")).identity("push", &authority.issue(&["push.example.com"]));
    let gateway = setup.tls("websocket", "push").start().await;
    let login = async |uid: String| {
        let client = Client::connect_tls(gateway.websocket, "push.example.com", &authority).await;
        let mut client = client.expect("an upgrade");
        client.expect("HeartBeat").await;
        client.send(format!(r#"{{"id":"{uid}"}}"#)).await;
        client.expect("Link_successful").await;
        client
    };
    let bytes = idle(&gateway, login).await;
    let look = "look for what each connection holds";
    check("an idle connection over TLS", &[(bytes, "bytes", IDLE_TLS_CONNECTION, TOLERANCE)], look);
}

/// Starts a gateway without the threads' caches: they would count as allocated memory.
fn uncached(setup: Setup) -> Setup {
    setup.environment("_RJEM_MALLOC_CONF", "tcache:false")
}

/// The bytes that one of many idle connections takes.
async fn idle(gateway: &Gateway, mut enter: impl AsyncFnMut(String) -> Client) -> f64 {
    const CONNECTIONS: usize = 1000;
    let admin = gateway.admin().await;
    let mut clients = Vec::new();
    let mut login = async |count| {
        for _ in 0..count {
            clients.push(enter(format!("client-{}", clients.len())).await);
        }
        // Memory that only the logins needed is freed soon after them.
        let mut allocated = 0.0;
        eventually("nothing happens any more", async || {
            let before = std::mem::replace(&mut allocated, admin.metric("hotgate_memory_allocated_bytes").await);
            allocated == before
        })
        .await;
        allocated
    };
    let (before, after) = (login(100).await, login(CONNECTIONS).await);
    (after - before) / CONNECTIONS as f64
}
