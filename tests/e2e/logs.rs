//! What the log says of connections that have ended (`log.access`) and of logins (`log.decisions`).

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hotgate_tests::{Component, Gateway, Line, Setup, Upgrade, eventually};
use tokio::time::sleep;

const ENDED: &str = "connection ended";
const ACCEPTED: &str = "authenticated";
const DENIED: &str = "login denied";

/// The first line of a connection that has ended.
async fn ended(gateway: &Gateway) -> Line {
    gateway.logged(|line| line.message() == ENDED).await
}

/// Waits until nobody is connected and all that has happened is in the log. Returns the lines with this message.
async fn lines(gateway: &Gateway, message: &str) -> Vec<Line> {
    let admin = gateway.admin().await;
    eventually("nobody is connected", async || admin.metric("hotgate_connections").await == 0.0).await;
    let mark = gateway.log().mark();
    assert_eq!(admin.ask("POST /plugins/router/rollback").await.status, 409);
    gateway.logged_since(mark, |line| line.message() == "admin request").await;
    gateway.log().since(Default::default()).into_iter().filter(|line| line.message() == message).collect()
}

/// Sends this as the first packet, and expects to be closed with this code.
async fn denied(gateway: &Gateway, packet: &str, code: u16) {
    let mut client = gateway.connect().await;
    client.text().await;
    client.send(packet).await;
    client.expect_close(code).await;
}

fn has(line: &Line, field: &str) -> bool {
    line.says(&format!("\"{field}\":"))
}

#[tokio::test]
async fn a_connection_that_has_ended_leaves_one_line() {
    let gateway = Gateway::configured("log.access = \"ended\"").await;
    let live = gateway.logged(|line| line.message() == "plugin live" && line.get("plugin") == "origin-auth").await;
    let begun = Instant::now();
    let mut anna = gateway.login("anna").await;
    let listed = gateway.admin().await.json("GET /connections").await;
    let upgraded = Instant::now();
    sleep(Duration::from_millis(50)).await;
    anna.send("{}").await;
    anna.expect("Already_Linked").await;
    assert_eq!(gateway.sender().await.ask(r#"{"uid":"anna"}"#).await, "ok");
    anna.expect(r#"{"uid":"anna"}"#).await;
    let at_least = upgraded.elapsed();
    anna.close().await;
    let line = ended(&gateway).await;
    let at_most = begun.elapsed();

    assert_eq!((line.get("level"), line.get("cause"), line.number("code")), ("INFO", "client", 1000));
    assert_eq!(listed["connections"][0]["id"], line.number("connection").to_string());
    assert_eq!(listed["connections"][0]["address"], line.get("address"), "{listed}");
    let lasted = u128::from(line.number("duration_ms"));
    assert!((at_least.as_millis()..=at_most.as_millis()).contains(&lasted), "{lasted}");
    // {"id":"anna"} and {}; HeartBeat, Link_successful, Already_Linked and {"uid":"anna"}.
    assert_eq!((line.number("messages_in"), line.number("bytes_in")), (2, 13 + 2));
    assert_eq!((line.number("messages_out"), line.number("bytes_out")), (4, 9 + 15 + 14 + 14));
    assert_eq!((line.get("authenticator"), line.get("digest")), ("origin-auth", live.get("digest")));
    assert!(!live.get("digest").is_empty());
    assert_eq!(lines(&gateway, ENDED).await.len(), 1);
}

#[tokio::test]
async fn the_line_has_the_uid_only_if_the_settings_want_it() {
    for (uids, uid) in [(false, ""), (true, "anna@example.com")] {
        let config = format!("[log]\naccess = \"ended\"\ndecisions = 100\nuids = {uids}");
        let gateway = Gateway::configured(&config).await;
        gateway.login("anna@example.com").await.close().await;
        assert_eq!(ended(&gateway).await.get("uid"), uid);
        let accepted = lines(&gateway, ACCEPTED).await;
        assert_eq!(accepted.iter().map(|line| line.get("uid")).collect::<Vec<_>>(), [uid], "one line for a login");
    }
}

#[tokio::test]
async fn the_line_says_why_a_connection_has_ended() {
    let gateway = Gateway::configured("log.access = \"ended\"").await;
    denied(&gateway, "{}", 4400).await;
    let line = ended(&gateway).await;
    assert_eq!((line.get("cause"), line.number("code")), ("plugin", 4400));
    assert_eq!((line.number("messages_in"), line.number("messages_out")), (1, 1));
    assert!(!has(&line, "authenticator") && !has(&line, "digest"), "nobody has accepted it: {line:?}");

    gateway.login("anna").await.reset();
    let lost = gateway.logged(|line| line.message() == ENDED && line.get("cause") == "lost").await;
    assert!(!has(&lost, "code") && lost.get("authenticator") == "origin-auth", "{lost:?}");

    let mut unmasked = gateway.login("anna").await;
    unmasked.bytes(b"\x81\x01x").await;
    unmasked.expect_close(1002).await;
    drop(unmasked);
    let broken = gateway.logged(|line| line.message() == ENDED && line.get("cause") == "protocol-error").await;
    assert_eq!(broken.number("code"), 1002);

    // One that was not upgraded is none.
    gateway.upgrade(&Upgrade::default().start("POST / HTTP/1.1")).await.expect_err("a refusal");
    assert_eq!(lines(&gateway, ENDED).await.len(), 3);
}

#[tokio::test]
async fn behind_a_proxy_the_line_has_the_address_of_the_client() {
    let gateway = Gateway::configured("log.access = \"ended\"\nwebsocket.trusted_proxies = [\"127.0.0.1\"]").await;
    let forwarded = Upgrade::default().header("X-Forwarded-For", "203.0.113.7");
    let mut client = gateway.upgrade(&forwarded).await.expect("an upgrade");
    client.expect("HeartBeat").await;
    client.close().await;
    assert_eq!(ended(&gateway).await.get("address"), "203.0.113.7:0");
}

#[tokio::test]
async fn the_log_says_nothing_of_connections_and_logins_unless_the_settings_want_it() {
    let gateway = Gateway::start().await;
    gateway.login("anna").await.close().await;
    denied(&gateway, "{}", 4400).await;
    for message in [ENDED, ACCEPTED, DENIED] {
        assert!(lines(&gateway, message).await.is_empty(), "{message}");
    }
}

#[tokio::test]
async fn each_of_these_lines_can_be_left_out_by_its_target() {
    let config = "[log]\naccess = \"ended\"\ndecisions = 100\nlevel = \"info,access=off,decisions=off\"";
    let gateway = Gateway::configured(config).await;
    gateway.login("anna").await.close().await;
    denied(&gateway, "{}", 4400).await;
    for message in [ENDED, ACCEPTED, DENIED] {
        assert!(lines(&gateway, message).await.is_empty(), "{message}");
    }
}

#[tokio::test]
async fn a_login_leaves_a_line_about_the_plugin_that_has_accepted() {
    let gateway = Gateway::configured("log.decisions = 100").await;
    let live = gateway.logged(|line| line.message() == "plugin live" && line.get("plugin") == "origin-auth").await;
    let _anna = gateway.login("anna").await;
    let line = gateway.logged(|line| line.message() == ACCEPTED).await;
    let took = Duration::from_micros(line.number("duration_us"));
    assert!(!took.is_zero() && took < Duration::from_secs(5), "{line:?}");
    assert_eq!((line.get("level"), line.get("outcome"), line.get("plugin")), ("INFO", "accept", "origin-auth"));
    assert_eq!((line.number("generation"), line.get("digest")), (1, live.get("digest")));
    let listed = gateway.admin().await.json("GET /connections").await;
    assert_eq!(listed["connections"][0]["id"], line.number("connection").to_string());
}

#[tokio::test]
async fn of_the_logins_a_sample_leaves_lines() {
    let gateway = Gateway::configured("log.decisions = 50").await;
    for uid in 0..50 {
        gateway.login(&uid.to_string()).await.close().await;
    }
    let sampled = lines(&gateway, ACCEPTED).await.len();
    assert!((1..50).contains(&sampled), "{sampled}");
}

#[tokio::test]
async fn each_denied_login_leaves_a_line_with_its_reason() {
    let config = "log.decisions = 1\nwebsocket.authentication_timeout = \"2s\"\n";
    let gateway = Setup::new(config)
        .and("[[authenticator]]\nfile = \"plugin.wasm\"\n[router]\nfile = \"plugin.wasm\"\n")
        .file("plugin.wasm", &Component::fixture(""))
        .start()
        .await;
    denied(&gateway, "deny 4321 secret words", 4321).await;
    denied(&gateway, "pass", 4902).await;
    denied(&gateway, &format!("login {}", "u".repeat(257)), 4902).await;
    gateway.greeted().await.expect_close(4901).await;
    // Who leaves is not denied, and a plugin that fails has a line of its own.
    gateway.greeted().await.close().await;
    denied(&gateway, "do trap", 1013).await;
    let failed = gateway.logged(|line| line.message() == "plugin failed").await;

    let lines = lines(&gateway, DENIED).await;
    let said: Vec<_> = lines.iter().map(|line| (line.get("reason"), line.number("code"), line.get("plugin"))).collect();
    let expected = [
        ("plugin", 4321, "plugin"),
        ("not-accepted", 4902, ""),
        ("not-accepted", 4902, "plugin"),
        ("too-late", 4901, ""),
    ];
    assert_eq!(said, expected);
    for line in &lines {
        assert_eq!((line.get("level"), line.get("outcome"), line.number("unlogged")), ("INFO", "deny", 0));
        assert!(line.number("connection") > 0 && line.number("connection") != failed.number("connection"), "{line:?}");
        let decided = !line.get("plugin").is_empty();
        assert!(decided == has(line, "digest") && decided == (line.number("duration_us") > 0), "{line:?}");
        assert!(!line.says("secret"), "{line:?}");
    }
}

#[tokio::test]
async fn of_many_denied_logins_ten_a_second_leave_lines_and_the_others_are_counted() {
    const MANY: usize = 200;
    let gateway = Gateway::configured("log.decisions = 1").await;
    let begun = Instant::now();
    join_all((0..MANY).map(|_| denied(&gateway, "{}", 4400))).await;
    let flood = lines(&gateway, DENIED).await.len();
    let most = 11.0 + 10.0 * begun.elapsed().as_secs_f64();
    assert!(flood >= 10 && flood as f64 <= most, "{flood} lines, at most {most}");
    assert!(flood < MANY, "the machine is too slow for this test");
    sleep(Duration::from_millis(1200)).await;
    denied(&gateway, "{}", 4400).await;
    let lines = lines(&gateway, DENIED).await;
    let unlogged: u64 = lines.iter().map(|line| line.number("unlogged")).sum();
    assert_eq!(lines.len() as u64 + unlogged, MANY as u64 + 1);
}
