//! Sessions, the files of the page, and the command that prints its address.

use hotgate_tests::{Admin, Gateway, Setup};
use serde_json::json;

use super::{Stream, read_token, session, trade};

#[tokio::test]
async fn a_code_opens_one_session_which_ends_when_its_user_logs_out() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let made = admin.json("POST /codes").await;
    assert_eq!(made["expires_in_seconds"], 60);
    let opened = trade(&admin, &json!({ "code": made["code"] })).await.json();
    assert_eq!((&opened["read_only"], &opened["expires_in_seconds"]), (&json!(false), &json!(12 * 3600)));
    let again = trade(&admin, &json!({ "code": made["code"] })).await;
    assert!(again.status == 401 && again.error().contains("hotgate dashboard"), "{again:?}");

    let mine = Admin { token: opened["token"].as_str().expect("a token").to_owned(), ..admin.clone() };
    assert_eq!(mine.token.len(), 64);
    let shown = mine.json("GET /session").await;
    assert!(shown["expires_in_seconds"].as_u64().is_some_and(|left| left > 43_000), "{shown}");
    let mut events = Stream::open(&mine, "GET /events").await;
    events.next().await.expect("a sample");
    assert_eq!(mine.json("DELETE /session").await, json!({ "closed": true }));
    while events.next().await.is_some() {}
    assert_eq!(mine.ask("GET /session").await.status, 401);

    // Who it was, is in the log; what opened it, is not.
    let line = gateway.logged(|line| line.message() == "session opened").await;
    assert_eq!((line.get("by"), line.number("session")), ("code", 1));
    let line = gateway.logged(|line| line.get("method") == "DELETE").await;
    assert_eq!((line.get("by"), line.get("path"), line.number("status")), ("session 1", "/session", 200));
    assert!(line.get("peer").starts_with("127.0.0.1:"), "{line:?}");
    let code = made["code"].as_str().expect("a code");
    let lines = gateway.log().since(Default::default());
    assert!(!lines.iter().any(|line| [code, &mine.token, &admin.token].iter().any(|secret| line.says(secret))));
}

#[tokio::test]
async fn a_pasted_token_opens_a_session_with_its_rights() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let reader = read_token(&gateway, &admin).await;
    for (token, read_only) in [(&admin.token, false), (&reader.token, true)] {
        let opened = trade(&admin, &json!({ "token": format!(" {token}\n") })).await;
        assert_eq!(opened.json()["read_only"], read_only, "{opened:?}");
    }
    let mine = session(&admin, "").await;
    for (body, status) in [
        (json!({ "token": mine.token }), 401),
        (json!({ "token": "" }), 401),
        (json!({ "code": mine.token }), 401),
        (json!({ "code": "é" }), 401),
        (json!({ "code": 7 }), 400),
        (json!({}), 400),
        (json!({ "code": "a", "token": "b" }), 400),
        (json!(7), 400),
        (json!({ "token": "x".repeat(5000) }), 413),
    ] {
        let response = trade(&admin, &body).await;
        assert_eq!(response.status, status, "{body}: {response:?}");
    }
    gateway.logged(|line| line.message() == "admin request refused" && line.get("path") == "/session").await;
    assert!(admin.metric("hotgate_admin_refused_total").await >= 4.0);
}

#[tokio::test]
async fn the_oldest_of_many_sessions_makes_room() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let first = session(&admin, "").await;
    let second = session(&admin, "").await;
    for _ in 0..7 {
        session(&admin, "").await;
        session(&admin, "?read-only=true").await;
    }
    assert_eq!((first.ask("GET /session").await.status, second.ask("GET /session").await.status), (401, 200));
}

#[tokio::test]
async fn the_page_comes_with_headers_that_let_it_do_little_and_is_sent_once() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let ask = async |line: &str| admin.send(admin.request(line).without("Authorization"), b"").await;
    let page = ask("GET /").await;
    assert!(page.status == 200 && page.body.contains("<title>"), "{page:?}");
    for (name, value) in [
        ("Content-Type", "text/html; charset=utf-8"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Cache-Control", "no-cache"),
    ] {
        assert_eq!(page.header(name), Some(value));
    }
    let policy = page.header("Content-Security-Policy").expect("a policy");
    for part in
        ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"]
    {
        assert!(policy.contains(part), "{policy}");
    }
    let tag = page.header("ETag").expect("a tag");
    for (known, status) in [(tag, 304), (&*format!("\"x\", {tag}"), 304), ("\"x\"", 200)] {
        let request = admin.request("GET /").without("Authorization").and("If-None-Match", known);
        assert_eq!(admin.send(request, b"").await.status, status, "{known}");
    }
    assert_eq!((ask("HEAD /").await.status, ask("GET /?a=b").await.status), (200, 400));
    for path in ["/assets/", "/assets/nothing.js", "/assets/../index.html", "/assets/%2e%2e/index.html"] {
        assert_eq!(ask(&format!("GET {path}")).await.status, 404, "{path}");
    }
    assert_eq!(ask("GET /index.html").await.status, 401);
    gateway.logged(|line| line.message().contains("hotgate dashboard")).await;

    let gateway = Setup::new("[admin]\ndashboard = false").start().await;
    let admin = gateway.admin().await;
    for line in ["GET /", "GET /assets/x.js", "POST /codes", "GET /session", "POST /session"] {
        let without = admin.send(admin.request(line).without("Authorization"), b"").await;
        assert_eq!((without.status, admin.ask(line).await.status), (401, 404), "{line}");
    }
    let command = gateway.run(&["dashboard", "--address", &admin.address.to_string()]).await;
    assert!(command.code == Some(1) && command.stderr.contains("admin.dashboard = false"), "{command:?}");
}

#[tokio::test]
async fn the_command_prints_an_address_that_works_once() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let address = admin.address.to_string();
    for (flags, read_only) in [(&[][..], false), (&["--read-only"], true)] {
        let command = gateway.run(&[&["dashboard", "--address", &address], flags].concat()).await;
        assert_eq!(command.code, Some(0), "{command:?}");
        let url = command.stdout.lines().next().expect("a line");
        let code = url.strip_prefix(&format!("http://{address}/#code=")).unwrap_or_else(|| panic!("{url}"));
        let opened = trade(&admin, &json!({ "code": code })).await;
        assert_eq!(opened.json()["read_only"], read_only, "{opened:?}");
    }
    let token = gateway.state_folder().join("admin-read-token").display().to_string();
    let command = gateway.run(&["dashboard", "--address", &address, "--token-file", &token]).await;
    assert!(command.code == Some(1) && command.stderr.contains("admin-token"), "{command:?}");
}
