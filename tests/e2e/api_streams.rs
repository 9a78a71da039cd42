//! Requests with many messages, and answers that stay open: batches, streams, events.

use hotgate_tests::{Admin, Gateway, Response, Setup, eventually, within};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn post(api: &Admin, path: &str, body: impl AsRef<[u8]>) -> Response {
    api.send(api.request(&format!("POST {path}")), body.as_ref()).await
}

/// A request whose body is sent in pieces, and an answer that is read line by line.
struct Open {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Open {
    async fn request(api: &Admin, line: &str) -> Self {
        let mut stream = TcpStream::connect(api.address).await.expect("the port is open");
        let request = match line.starts_with("POST") {
            true => api.request(line).and("Transfer-Encoding", "chunked"),
            false => api.request(line),
        };
        stream.write_all(&request.encode()).await.expect("it reads");
        Self { stream, received: Vec::new() }
    }

    async fn send(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        within("the gateway reading", self.stream.write_all(chunk.as_bytes())).await.expect("it reads");
    }

    async fn finish(&mut self) {
        self.stream.write_all(b"0\r\n\r\n").await.expect("it reads");
    }

    /// The next line of JSON in the answer. Heads of chunks are no JSON objects.
    async fn next(&mut self) -> Value {
        loop {
            while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                let value: Value = serde_json::from_slice(&line).unwrap_or_default();
                if value.is_object() && value["event"] != "cursor" {
                    return value;
                }
            }
            let count = within("a line", self.stream.read_buf(&mut self.received)).await.expect("it is open");
            assert!(count > 0, "the answer has ended");
        }
    }
}

#[tokio::test]
async fn a_batch_is_carried_out_in_order_and_each_item_has_a_result() {
    let gateway = Gateway::start().await;
    let api = gateway.api().await;
    let (mut anna, mut bob) = (gateway.login("anna").await, gateway.login("bob").await);
    let items = r#"{"items":[
        {"id":"first","uid":"anna","text":"1 é"},
        {"uid":"anna","json":{"b": 2,  "a":[1.50]}},
        {"uids":["anna","bob","nobody"],"base64":"AP8="},
        {"uid":"nobody","text":"x"},
        {"id":"odd","uid":"anna"},
        "no item",
        {"uid":"anna","text":"x","base64":"eA=="},
        {"uid":"anna","base64":"?"},
        {"connection":5,"text":"x"},
        {"everyone":true,"text":"all"},
        {"uid":"anna","text":"keyed","key":"k"},
        {"uid":"anna","text":"keyed","key":"k"},
        {"uid":"anna","text":"other","key":"k"},
        {"uid":"anna","json":null},
        {"uid":"anna","uids":["bob"],"text":"x"},
        {"id":"new","uid":"anna","text":"x","color":"red"},
        {"uid":"anna","everyone":false,"text":"x"}
    ]}"#;
    let answer = post(&api, "/v1/batch", items).await;
    assert_eq!(answer.status, 200);
    let results = answer.json()["results"].as_array().expect("a list").clone();
    assert_eq!(results[0], json!({ "id": "first", "status": 200, "reached": 1 }));
    assert_eq!(results[2], json!({ "status": 200, "reached": 2, "offline": ["nobody"] }));
    assert_eq!(results[11], json!({ "status": 200, "reached": 1, "replayed": true }));
    assert_eq!(results[4]["id"], "odd");
    let seen: Vec<_> = results.iter().map(|it| (it["status"].as_u64(), it["reason"].as_str())).collect();
    let (ok, bad) = ((Some(200), None), (Some(400), Some("bad-request")));
    let (offline, reused) = ((Some(404), Some("offline")), (Some(422), Some("key-reused")));
    assert_eq!(seen, [ok, ok, ok, offline, bad, bad, bad, bad, bad, ok, ok, ok, reused, ok, bad, bad, bad]);
    assert_eq!(results[15]["id"], "new");
    anna.expect("1 é").await;
    anna.expect(r#"{"b": 2,  "a":[1.50]}"#).await;
    for client in [&mut anna, &mut bob] {
        assert_eq!(&client.next_frame().await.payload[..], b"\x00\xff");
        client.expect("all").await;
    }
    anna.expect("keyed").await;
    anna.expect("null").await;
    anna.expect_nothing().await;
    bob.expect_nothing().await;
    assert_eq!(post(&api, "/v1/batch", r#"{"items":[]}"#).await.json(), json!({ "results": [] }));
}

#[tokio::test]
async fn a_stream_is_answered_while_its_body_still_arrives() {
    let gateway = Gateway::start().await;
    let api = gateway.api().await;
    let mut anna = gateway.login("anna").await;
    let mut stream = Open::request(&api, "POST /v1/stream").await;
    for n in 0..3 {
        // A line may arrive in pieces, and empty lines are nothing.
        stream.send("\n{\"uid\":\"anna\",").await;
        stream.send(&format!("\"text\":\"{n}\"}}\n\r\n")).await;
        assert_eq!(stream.next().await, json!({ "status": 200, "reached": 1 }));
        anna.expect(n.to_string()).await;
    }
    stream
        .send("{\"id\":\"a\",\"uid\":\"nobody\",\"text\":\"x\"}\nnonsense\n{\"uid\":\"anna\",\"text\":\"last\"}")
        .await;
    let offline = stream.next().await;
    assert_eq!((&offline["id"], &offline["reason"]), (&json!("a"), &json!("offline")));
    assert_eq!(stream.next().await["reason"], "bad-request");
    stream.finish().await;
    assert_eq!(stream.next().await, json!({ "status": 200, "reached": 1 }));
    assert_eq!(stream.next().await, json!({ "summary": { "items": 6, "reached": 4, "failed": 2 } }));
    anna.expect("last").await;
    anna.expect_nothing().await;
}

#[tokio::test]
async fn a_stream_may_want_failures_only() {
    let gateway = Gateway::start().await;
    let api = gateway.api().await;
    let mut anna = gateway.login("anna").await;
    let mut stream = Open::request(&api, "POST /v1/stream?results=errors").await;
    let items: String = (0..5000).map(|n| format!("{{\"uid\":\"anna\",\"text\":\"{n}\"}}\n")).collect();
    stream.send(&items).await;
    stream.send("{\"uid\":\"nobody\",\"text\":\"x\"}\n").await;
    assert_eq!(stream.next().await["reason"], "offline");
    stream.finish().await;
    assert_eq!(stream.next().await["summary"], json!({ "items": 5001, "reached": 5000, "failed": 1 }));
    for n in 0..5000 {
        anna.expect(n.to_string()).await;
    }
}

#[tokio::test]
async fn a_line_that_is_too_long_ends_its_stream() {
    let gateway = Gateway::configured("[api]\nmax_message = \"1KiB\"").await;
    let api = gateway.api().await;
    let mut anna = gateway.login("anna").await;
    let mut stream = Open::request(&api, "POST /v1/stream").await;
    stream.send("{\"uid\":\"anna\",\"text\":\"1\"}\n").await;
    assert_eq!(stream.next().await["status"], 200);
    stream.send(&format!("{{\"uid\":\"anna\",\"text\":\"{}\"}}\n", "x".repeat(1025))).await;
    assert_eq!(stream.next().await["reason"], "too-large");
    stream.send(&"x".repeat(20_000)).await;
    let summary = &stream.next().await["summary"];
    assert_eq!(*summary, json!({ "items": 2, "reached": 1, "failed": 1, "ended": "too-large" }));
    anna.expect("1").await;
    anna.expect_nothing().await;
}

/// The client writes and never reads. Its results fill the buffers of the connection, and then it is not read any more.
#[tokio::test]
async fn a_client_that_never_reads_its_results_is_not_read_any_more() {
    let gateway = Gateway::start().await;
    let api = gateway.api().await;
    let mut stream = Open::request(&api, "POST /v1/stream").await;
    let items = "{\"uid\":\"nobody\",\"text\":\"x\"}\n".repeat(1000);
    let chunk = format!("{:x}\r\n{items}\r\n", items.len());
    let mut written = 0;
    while tokio::time::timeout(std::time::Duration::from_secs(2), stream.stream.write_all(chunk.as_bytes()))
        .await
        .is_ok()
    {
        written += 1;
        assert!(written < 5000, "nothing bounds the results");
    }
    // Others are served meanwhile.
    let mut anna = gateway.login("anna").await;
    assert_eq!(post(&api, "/v1/push?uid=anna", "hi").await.status, 200);
    anna.expect("hi").await;
}

#[tokio::test]
async fn events_say_who_came_and_went_and_can_be_resumed() {
    let gateway = Gateway::start().await;
    let api = gateway.api().await;
    let mut events = Open::request(&api, "GET /v1/events").await;
    // The answer begins, so it follows from here on.
    within("the head", async {
        while !events.received.windows(4).any(|four| four == b"\r\n\r\n") {
            events.stream.read_buf(&mut events.received).await.expect("it is open");
        }
    })
    .await;
    let first = gateway.login("anna").await;
    let login = events.next().await;
    assert_eq!((&login["event"], &login["uid"], &login["first"]), (&json!("login"), &json!("anna"), &json!(true)));
    assert!(
        login["connection"].is_string() && login["time"].as_str().is_some_and(|time| time.ends_with('Z')),
        "{login}"
    );
    let _second = gateway.login("anna").await;
    assert_eq!(events.next().await["first"], false);
    first.close().await;
    let departure = events.next().await;
    let (event, cause, last) = (&departure["event"], &departure["cause"], &departure["last"]);
    assert_eq!((event, cause, last), (&json!("departure"), &json!("client"), &json!(false)));
    assert_eq!(departure["connection"], login["connection"]);

    let cursor = login["cursor"].as_str().expect("a cursor");
    let mut resumed = Open::request(&api, &format!("GET /v1/events?after={cursor}")).await;
    assert_eq!(resumed.next().await["first"], false);
    assert_eq!(resumed.next().await, departure);
    let mut strange = Open::request(&api, "GET /v1/events?after=1-1").await;
    assert_eq!(strange.next().await, json!({ "event": "missed", "count": null }));
    assert_eq!(strange.next().await, login);
    gateway.signal("TERM");
    eventually("the answer ends", async || {
        matches!(strange.stream.read_buf(&mut strange.received).await, Ok(0) | Err(_))
    })
    .await;
}

#[tokio::test]
async fn who_follows_too_late_is_told_how_many_events_are_gone() {
    let gateway = Gateway::start().await;
    let api = gateway.api().await;
    let mut events = Open::request(&api, "GET /v1/events").await;
    let mut cursor = String::new();
    // Each login and departure is an event, and 8,192 are kept.
    for n in 0..4200 {
        let client = gateway.login("anna").await;
        if n == 0 {
            events.next().await["cursor"].as_str().expect("a cursor").clone_into(&mut cursor);
            drop(std::mem::replace(&mut events, Open::request(&api, "GET /v1/online?uid=x").await));
        }
        client.close().await;
    }
    let mut late = Open::request(&api, &format!("GET /v1/events?after={cursor}")).await;
    let missed = late.next().await;
    assert_eq!(missed["event"], "missed");
    assert!(missed["count"].as_u64().is_some_and(|count| (200..=210).contains(&count)), "{missed}");
    assert!(late.next().await["cursor"].is_string());
}

#[tokio::test]
async fn a_stream_that_waits_because_of_its_rate_ends_with_the_gateway() {
    let token = "0123456789abcdef0123456789abcdef";
    let config = "[[api.token]]\nname = \"slow\"\nsecret = { file = \"secret\" }\nscopes = [\"push:uid\"]\nrate = 1";
    let mut gateway = Setup::new(config).bytes("secret", token.as_bytes()).start().await;
    let api = Admin { token: token.to_owned(), ..gateway.api().await };
    let mut stream = Open::request(&api, "POST /v1/stream").await;
    let item = "{\"uid\":\"nobody\",\"text\":\"x\"}\n";
    stream.send(&item.repeat(100)).await;
    assert_eq!(stream.next().await["status"], 404);
    gateway.signal("TERM");
    let mut results = 1;
    let summary = loop {
        let line = stream.next().await;
        match line.get("summary") {
            Some(summary) => break summary.clone(),
            None => results += 1,
        }
    };
    assert_eq!((&summary["ended"], summary["items"].as_u64()), (&"draining".into(), Some(results)));
    assert!(results < 20, "{results} items were sent");
    assert_eq!(gateway.exit_code().await, Some(0));
}
