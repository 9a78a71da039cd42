//! What happens, as it happens.

use hotgate_tests::{Gateway, eventually};
use serde_json::{Value, json};

use super::{Stream, read_token};

#[tokio::test]
async fn what_happens_is_shown_with_what_happened_before() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let mut events = Stream::open(&admin, "GET /events").await;
    let first = events.next().await.expect("a sample");
    assert!(first["seq"] == 1 && first["logins"] == 0 && first["denials"] == json!({}), "{first}");
    let anna = gateway.login("anna").await;
    assert_eq!(gateway.sender().await.ask(r#"{"uid":"nobody"}"#).await, "fail");
    let second = events.find(|line| line["logins"] == 1 && line["pushes_failed"] == 1).await;
    assert_eq!((&second["connections"], &second["pushes"]), (&json!(1), &json!(1)));
    anna.close().await;
    let third = events.find(|line| line["connections"] == 0).await;
    assert_eq!(third["closed"], json!({ "client": 1 }));
    assert!(third["at"].as_str().is_some_and(|at| at.ends_with('Z') && at.len() == 24), "{third}");

    let seq = second["seq"].as_u64().expect("a number");
    let mut again = Stream::open(&admin, &format!("GET /events?after={seq}")).await;
    assert_eq!(again.next().await.expect("a sample")["seq"], seq + 1);
    // The gateway was started again meanwhile.
    let mut earlier = Stream::open(&admin, "GET /events?after=1000000").await;
    assert_eq!(earlier.next().await.expect("a sample")["seq"], 1);
    assert_eq!(admin.ask("GET /events?after=x").await.status, 400);
}

#[tokio::test]
async fn the_log_is_shown_with_its_last_lines() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let mut log = Stream::open(&admin, "GET /log").await;
    let line = log.find(|line| line["message"] == "listening" && line["fields"]["listener"] == "websocket").await;
    assert_eq!((&line["level"], &line["fields"]["address"]), (&json!("INFO"), &json!(gateway.websocket.to_string())));
    let _ = admin.ask("POST /plugins/router/rollback").await;
    let line = log.find(|line| line["message"] == "admin request").await;
    assert_eq!((&line["fields"]["by"], &line["fields"]["status"]), (&json!("admin token"), &json!(409)), "{line}");
    let after = line["seq"].as_u64().expect("a number") - 1;
    let mut again = Stream::open(&admin, &format!("GET /log?after={after}")).await;
    assert_eq!(again.next().await, Some(line));
}

#[tokio::test]
async fn streams_have_places_and_end_with_the_gateway() {
    let mut gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        let mut stream = Stream::open(&admin, "GET /log").await;
        stream.next().await.expect("a line");
        streams.push(stream);
    }
    let refused = admin.ask("GET /events").await;
    assert!(refused.status == 503 && refused.error().contains("16 streams"), "{refused:?}");
    assert!(refused.header("Retry-After").is_some());
    streams.pop();
    eventually("a place", async || Stream::open(&admin, "GET /events").await.status().await == 200).await;
    gateway.signal("TERM");
    for stream in &mut streams {
        while stream.next().await.is_some() {}
    }
    assert_eq!(gateway.exit_code().await, Some(0));
}

#[tokio::test]
async fn those_who_only_read_leave_places_to_others() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let reader = read_token(&gateway, &admin).await;
    let mut streams = Vec::new();
    for _ in 0..12 {
        let mut stream = Stream::open(&reader, "GET /log").await;
        stream.next().await.expect("a line");
        streams.push(stream);
    }
    assert_eq!(reader.ask("GET /events").await.status, 503);
    assert_eq!(Stream::open(&admin, "GET /events").await.status().await, 200);
}

#[tokio::test]
async fn the_slowest_clients_come_first() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let (_anna, _bob) = (gateway.login("anna").await, gateway.login("bob").await);
    // Its outbox fills once the kernel takes no more.
    let _slow = gateway.login_narrow("slow").await;
    let mut sender = gateway.sender().await;
    let line = json!({ "uid": "slow", "text": "x".repeat(10_000) }).to_string();
    eventually("the slow client comes first", async || {
        sender.ask(&line).await;
        let page = admin.json("GET /connections?sort=outbox").await;
        let listed = page["connections"].as_array().expect("a list");
        let bytes: Vec<_> = listed.iter().map(|listed| listed["outbox_bytes"].as_u64().expect("a number")).collect();
        assert!(
            bytes.len() == 3 && bytes.is_sorted_by(|one, next| one >= next) && page["next"] == Value::Null,
            "{page}"
        );
        bytes[0] > 0 && listed[0]["uid"] == "slow"
    })
    .await;
    let first = admin.json("GET /connections?sort=outbox&limit=1").await;
    assert_eq!(first["connections"].as_array().map(Vec::len), Some(1), "{first}");
    for query in ["sort=uid", "sort=outbox&after=1", "sort=outbox&uid=anna"] {
        assert_eq!(admin.ask(&format!("GET /connections?{query}")).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn the_log_says_more_for_a_while() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let set = async |body: Value| admin.send(admin.request("PUT /log-level"), body.to_string().as_bytes()).await;
    assert_eq!(admin.json("GET /log-level").await, json!({ "level": "info", "expires_in_seconds": null }));
    for (level, time) in [("degub", "10m"), ("debug", "0s"), ("debug", "25h"), ("debug", "soon"), ("", "10m")] {
        let refused = set(json!({ "level": level, "for": time })).await;
        assert_eq!(refused.status, 400, "{level} {time}: {refused:?}");
    }
    let ended = |line: &hotgate_tests::Line| line.message() == "connection ended";
    let mark = gateway.log().mark();
    assert_eq!(set(json!({ "level": "info,hotgate=debug", "for": "5s" })).await.status, 200);
    gateway.login("bob").await.close().await;
    gateway.logged_since(mark, ended).await;
    gateway.logged_since(mark, |line| line.says("that of the configuration again")).await;
    assert_eq!(admin.json("GET /log-level").await, json!({ "level": "info", "expires_in_seconds": null }));
    let mark = gateway.log().mark();
    gateway.login("carl").await.close().await;
    // What operators do is said at every level; here it is also the line after which there is no other of carl's.
    assert_eq!(set(json!({ "level": "off", "for": "1m" })).await.status, 200);
    assert_eq!(admin.ask("POST /plugins/router/rollback").await.status, 409);
    gateway.logged_since(mark, |line| line.message() == "admin request" && line.number("status") == 409).await;
    assert!(!gateway.log().since(mark).iter().any(ended));
}
