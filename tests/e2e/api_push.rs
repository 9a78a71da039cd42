//! Pushes by HTTP: who gets the message, and what the answer says. Each status and each reason of a push is here.

use hotgate_tests::{Admin, Client, Component, Frame, Gateway, Opcode, Response, Setup};
use serde_json::json;

async fn post(api: &Admin, path: &str, body: impl AsRef<[u8]>) -> Response {
    api.send(api.request(&format!("POST {path}")), body.as_ref()).await
}

/// The status and the reason of an answer that is a refusal.
fn refusal(response: &Response) -> (u16, String) {
    (response.status, response.json()["reason"].as_str().unwrap_or_default().to_owned())
}

async fn id_of(gateway: &Gateway, uid: &str) -> String {
    let page = gateway.admin().await.json(&format!("GET /connections?uid={uid}")).await;
    page["connections"][0]["id"].as_str().expect("an id").to_owned()
}

async fn binary(client: &mut Client) -> Vec<u8> {
    let frame = client.next_frame().await;
    assert_eq!(frame.opcode, Opcode::BINARY);
    frame.payload.to_vec()
}

#[tokio::test]
async fn a_message_reaches_those_it_is_for_byte_for_byte() {
    let gateway = Gateway::start().await;
    let api = gateway.api().await;
    let (mut anna, mut bob) = (gateway.login("+49 30/ü").await, gateway.login("bob").await);
    let text = " {\"uid\":\"not read\"}\r\n\té ";
    let reached = post(&api, "/v1/push?uid=+49%2030%2F%C3%BC", text).await;
    assert_eq!((reached.status, reached.json()), (200, json!({ "reached": 1 })));
    assert_eq!(anna.text().await, text);
    let id = id_of(&gateway, "bob").await;
    assert_eq!(post(&api, &format!("/v1/push?connection={id}"), "").await.json(), json!({ "reached": 1 }));
    assert_eq!(bob.text().await, "");
    let request = api.request("POST /v1/push?uid=bob").and("Content-Type", "application/octet-stream");
    assert_eq!(api.send(request, b"\x00\xff").await.status, 200);
    assert_eq!(binary(&mut bob).await, b"\x00\xff");
    assert_eq!(post(&api, "/v1/push?everyone=true", "all").await.json(), json!({ "reached": 2 }));
    anna.expect("all").await;
    bob.expect("all").await;

    assert_eq!(post(&api, "/v1/push?group=g", "x").await.json(), json!({ "reached": 0 }));
    assert_eq!(api.json("PUT /v1/membership?group=g&uid=bob").await, json!({ "connections": 1 }));
    assert_eq!(post(&api, "/v1/push?group=g", "to g").await.json(), json!({ "reached": 1 }));
    bob.expect("to g").await;
    assert_eq!(api.json("GET /v1/members?group=g").await, json!({ "uids": ["bob"], "more": false }));
    assert_eq!(api.json("DELETE /v1/membership?group=g&uid=bob").await, json!({ "connections": 1 }));
    assert_eq!(api.json("GET /v1/members?group=g").await, json!({ "uids": [], "more": false }));
    let offline = api.ask("PUT /v1/membership?group=g&uid=nobody").await;
    assert_eq!(refusal(&offline), (404, "offline".to_owned()));
    let online = api.json("GET /v1/online?uid=bob&uid=nobody").await;
    assert_eq!(online, json!({ "online": { "bob": 1 }, "offline": ["nobody"] }));
    anna.expect_nothing().await;
    bob.expect_nothing().await;
}

#[tokio::test]
async fn the_answer_says_who_was_not_reached() {
    let gateway = Gateway::start().await;
    let api = gateway.api().await;
    let mut anna = gateway.login("anna").await;
    let some = post(&api, "/v1/push?uid=anna&uid=carl&uid=anna&uid=dora", "hi").await;
    assert_eq!((some.status, some.json()), (200, json!({ "reached": 1, "offline": ["carl", "dora"] })));
    anna.expect("hi").await;
    let none = post(&api, "/v1/push?uid=carl&uid=dora", "hi").await;
    assert_eq!(refusal(&none), (404, "offline".to_owned()));
    assert_eq!((&none.json()["reached"], &none.json()["offline"]), (&json!(0), &json!(["carl", "dora"])));
    for path in ["/v1/push?uid=carl", "/v1/push?connection=4711"] {
        let offline = post(&api, path, "hi").await;
        assert_eq!(refusal(&offline), (404, "offline".to_owned()), "{path}");
        assert_eq!(offline.json().as_object().map(serde_json::Map::len), Some(2), "{offline:?}");
    }
    anna.expect_nothing().await;
}

#[tokio::test]
async fn a_slow_consumer_is_a_409_once_and_offline_afterwards() {
    let gateway = Gateway::configured("[outbox]\nmax_bytes = \"64KiB\"").await;
    let api = gateway.api().await;
    let _slow = gateway.login_narrow("slow").await;
    let _bob = gateway.login("bob").await;
    let message = "x".repeat(60_000);
    let mut full = post(&api, "/v1/push?uid=slow", &message).await;
    for _ in 0..1000 {
        if full.status != 200 {
            break;
        }
        full = post(&api, "/v1/push?uid=slow", &message).await;
    }
    assert_eq!(refusal(&full), (409, "full".to_owned()));
    assert!(full.error().contains("4905"), "{full:?}");
    assert_eq!(refusal(&post(&api, "/v1/push?uid=slow", "x").await), (404, "offline".to_owned()));
    let _slow = gateway.login_narrow("slow").await;
    let mut full = json!({ "reached": 2 });
    for _ in 0..1000 {
        if full["reached"] != 2 {
            break;
        }
        full = post(&api, "/v1/push?uid=slow&uid=bob", &message).await.json();
    }
    // Bob reads as fast as he can, but he may be slow on a busy machine.
    assert!(full["full"].as_array().is_some_and(|full| full.contains(&json!("slow"))), "{full}");
}

#[tokio::test]
async fn a_message_that_no_outbox_has_room_for_is_a_503() {
    let config = "[outbox]\nmax_bytes = \"1MiB\"\ntotal_bytes = \"1MiB\"\n[limits]\nconnections = 10";
    let gateway = Gateway::configured(config).await;
    let api = gateway.api().await;
    let mut anna = gateway.login("anna").await;
    let message = "x".repeat(1 << 20);
    for path in ["/v1/push?uid=anna", "/v1/push?everyone=true"] {
        let refused = post(&api, path, &message).await;
        assert_eq!(refusal(&refused), (503, "budget".to_owned()), "{path}");
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    let several = post(&api, "/v1/push?uid=anna&uid=bob", &message).await;
    assert_eq!(refusal(&several), (503, "budget".to_owned()));
    assert_eq!(several.json()["budget"], json!(["anna"]));
    assert_eq!(post(&api, "/v1/push?uid=anna", "small").await.status, 200);
    anna.expect("small").await;
}

#[tokio::test]
async fn a_request_that_is_wrong_says_what_is_wrong_and_sends_nothing() {
    let gateway = Gateway::configured("[api]\nmax_message = \"1KiB\"\nmax_body = \"2KiB\"\nmax_items = 2").await;
    let api = gateway.api().await;
    let mut anna = gateway.login("anna").await;
    let long = "x".repeat(1025);
    for (path, body, status, reason, error) in [
        ("/v1/push", "x", 400, "bad-request", "name exactly one kind of recipient"),
        ("/v1/push?uid=", "x", 400, "bad-request", "a uid must not be empty"),
        ("/v1/push?uid=anna&group=g", "x", 400, "bad-request", "name exactly one kind of recipient"),
        ("/v1/push?uid=anna&user=b", "x", 400, "bad-request", "wrong query parameter user"),
        ("/v1/push?uid=%ff", "x", 400, "bad-request", "not UTF-8"),
        ("/v1/push?connection=one", "x", 400, "bad-request", "must be a number"),
        ("/v1/push?uid=anna", &long, 413, "too-large", "api.max_message"),
        ("/v1/batch", "nonsense", 400, "bad-request", "this is no batch"),
        ("/v1/batch?x=1", "{\"items\":[]}", 400, "bad-request", "takes no query"),
        ("/v1/batch", "{\"items\":[1,2,3]}", 413, "too-large", "api.max_items"),
        ("/v1/line", "two\nlines", 400, "bad-request", "one line"),
        ("/v1/line?x=1", "x", 400, "bad-request", "takes no query"),
        ("/v1/push?uid=a&everyone=false", "x", 400, "bad-request", "wrong query parameter everyone"),
        ("/v1/stream?results=some", "", 400, "bad-request", "results=all or results=errors"),
        ("/v1/pull?uid=anna", "x", 404, "no-such-path", "no such path"),
    ] {
        let refused = post(&api, path, body).await;
        assert_eq!(refusal(&refused), (status, reason.to_owned()), "{path}");
        assert!(refused.error().contains(error), "{path}: {refused:?}");
    }
    let batch = post(&api, "/v1/batch", format!("{{\"items\":[\"{}\"]}}", "x".repeat(2048))).await;
    assert_eq!(refusal(&batch), (413, "too-large".to_owned()));
    for (line, status, reason) in [
        ("GET /v1/push?uid=anna", 405, "method"),
        ("GET /v1/online", 400, "bad-request"),
        ("GET /v1/online?group=g", 400, "bad-request"),
        ("GET /v1/members", 400, "bad-request"),
        ("GET /v1/members?group=g&limit=0", 400, "bad-request"),
        ("GET /v1/events?after=yesterday", 400, "bad-request"),
        ("DELETE /v1/connections", 400, "bad-request"),
        ("DELETE /v1/connections?id=1&block=1m", 400, "bad-request"),
        ("DELETE /v1/connections?uid=anna&code=999", 400, "bad-request"),
        ("DELETE /v1/connections?uid=m%FCller&block=1h", 400, "bad-request"),
        ("DELETE /v1/connections?uid=anna&block=soon", 400, "bad-request"),
        ("DELETE /v1/connections?id=4711", 404, "offline"),
    ] {
        assert_eq!(refusal(&api.ask(line).await), (status, reason.to_owned()), "{line}");
    }
    let picture = api.request("POST /v1/push?uid=anna").and("Content-Type", "image/png");
    assert_eq!(refusal(&api.send(picture, b"x").await), (415, "media-type".to_owned()));
    let text = api.request("POST /v1/push?uid=anna").and("Content-Type", "text/plain");
    assert_eq!(refusal(&api.send(text, b"\xff").await), (400, "bad-request".to_owned()));
    let keyed = api.request("POST /v1/stream").and("Idempotency-Key", "k");
    assert_eq!(refusal(&api.send(keyed, b"").await), (400, "bad-request".to_owned()));
    for key in ["", "two words", "ä", &"x".repeat(256)] {
        let keyed = api.request("POST /v1/push?uid=anna").and("Idempotency-Key", key);
        assert_eq!(refusal(&api.send(keyed, b"x").await), (400, "bad-request".to_owned()), "{key:?}");
    }
    anna.expect_nothing().await;
}

#[tokio::test]
async fn a_line_goes_through_the_router_as_on_the_text_port() {
    let gateway = Gateway::start().await;
    let api = gateway.api().await;
    let mut anna = gateway.login("anna").await;
    let line = r#"{"uid":"anna","msg":"é"}"#;
    let ok = post(&api, "/v1/line", format!("{line}\r\n")).await;
    assert_eq!((ok.status, &*ok.body, ok.header("content-type")), (200, "ok", Some("text/plain; charset=utf-8")));
    anna.expect(line).await;
    assert_eq!(refusal(&post(&api, "/v1/line", r#"{"uid":"bob"}"#).await), (404, "offline".to_owned()));
    assert_eq!(refusal(&post(&api, "/v1/line", "nonsense").await), (403, "refused".to_owned()));
    anna.expect_nothing().await;
}

#[tokio::test]
async fn a_line_that_the_router_cannot_decide_is_a_503() {
    let gateway = Gateway::with_plugin(&Component::fixture("")).await;
    let api = gateway.api().await;
    let failed = post(&api, "/v1/line", "do trap").await;
    assert_eq!(refusal(&failed), (503, "failed".to_owned()));
    assert_eq!(failed.header("retry-after"), Some("1"));
    assert_eq!(post(&api, "/v1/line", "say hello").await.body, "hello");
}

#[tokio::test]
async fn a_request_that_comes_twice_is_carried_out_once() {
    let gateway = Gateway::with_plugin(&Component::fixture("")).await;
    let api = gateway.api().await;
    let keyed = |path: &str, key: &str| api.request(&format!("POST {path}")).and("Idempotency-Key", key);
    // Nobody was reached, so the key is free again.
    assert_eq!(api.send(keyed("/v1/push?uid=anna", "k1"), b"hi").await.status, 404);
    let mut anna = gateway.enter("anna").await;
    for replayed in [None, Some("true"), Some("true")] {
        let answer = api.send(keyed("/v1/push?uid=anna", "k1"), b"hi").await;
        assert_eq!((answer.status, answer.json()), (200, json!({ "reached": 1 })));
        assert_eq!(answer.header("idempotency-replayed"), replayed);
    }
    anna.expect("hi").await;
    for request in [keyed("/v1/push?uid=anna&uid=b", "k1"), keyed("/v1/line", "k1")] {
        assert_eq!(refusal(&api.send(request, b"hi").await), (422, "key-reused".to_owned()));
    }
    assert_eq!(refusal(&api.send(keyed("/v1/push?uid=anna", "k1"), b"other").await), (422, "key-reused".to_owned()));

    let batch = br#"{"items":[{"uid":"anna","text":"one"},{"uid":"nobody","text":"two"}]}"#;
    let first = api.send(keyed("/v1/batch", "k2"), batch).await;
    let second = api.send(keyed("/v1/batch", "k2"), batch).await;
    assert_eq!((first.status, &first.body), (second.status, &second.body));
    assert_eq!(second.header("idempotency-replayed"), Some("true"));
    anna.expect("one").await;
    anna.expect_nothing().await;
}

/// The client still sends when the answer comes. It must get the answer, and no reset.
#[tokio::test]
async fn a_refusal_arrives_even_if_its_body_was_not_read() {
    let gateway = Gateway::configured("[api]\nmax_message = \"1KiB\"").await;
    let api = gateway.api().await;
    for _ in 0..5 {
        let refused = post(&api, "/v1/push?uid=anna", vec![b'x'; 3 << 20]).await;
        assert_eq!(refusal(&refused), (413, "too-large".to_owned()));
    }
}

#[tokio::test]
async fn concurrent_requests_with_one_key_send_one_message() {
    let gateway = Gateway::start().await;
    let api = gateway.api().await;
    let mut anna = gateway.login("anna").await;
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let api = api.clone();
        requests.spawn(async move {
            let request = api.request("POST /v1/push?uid=anna&uid=bob").and("Idempotency-Key", "once");
            api.send(request, b"once").await
        });
    }
    while let Some(answer) = requests.join_next().await {
        let answer = answer.expect("an answer");
        assert!(answer.status == 200 || refusal(&answer) == (409, "in-flight".to_owned()), "{answer:?}");
    }
    anna.expect("once").await;
    anna.expect_nothing().await;
}

#[tokio::test]
async fn a_blocked_uid_is_closed_and_not_let_in_until_the_block_is_lifted() {
    let gateway = Gateway::start().await;
    let api = gateway.api().await;
    let mut anna = gateway.login("anna").await;
    let closed = api.json("DELETE /v1/connections?uid=anna&block=1h&code=4001&reason=spam").await;
    assert_eq!(closed, json!({ "closed": 1 }));
    assert_eq!(anna.next_frame().await.close_reason(), (4001, "spam".to_owned()));
    let mut again = gateway.connect().await;
    again.expect("HeartBeat").await;
    again.frame(Frame::text(r#"{"id":"anna"}"#)).await;
    assert_eq!(again.next_frame().await.close_reason().0, 4908);
    let blocks = api.json("GET /v1/blocks").await;
    assert_eq!(blocks["blocks"][0]["uid"], "anna");
    assert!(blocks["blocks"][0]["seconds"].as_u64().is_some_and(|left| (3500..3600).contains(&left)), "{blocks}");
    assert_eq!(api.json("DELETE /v1/blocks?uid=anna").await, json!({ "lifted": 1 }));
    assert_eq!(api.json("DELETE /v1/blocks?uid=anna").await, json!({ "lifted": 0 }));
    let _anna = gateway.login("anna").await;
    let id = id_of(&gateway, "anna").await;
    assert_eq!(api.json(&format!("DELETE /v1/connections?id={id}")).await, json!({ "closed": 1 }));
}

#[tokio::test]
async fn a_connection_in_very_many_groups_joins_no_more() {
    let gateway = Gateway::start().await;
    let api = gateway.api().await;
    let _anna = gateway.login("anna").await;
    for number in 0..1024 {
        assert_eq!(api.ask(&format!("PUT /v1/membership?group=g{number}&uid=anna")).await.status, 200);
    }
    let refused = api.ask("PUT /v1/membership?group=one-more&uid=anna").await;
    assert_eq!(refusal(&refused), (409, "too-many-groups".to_owned()));
    assert_eq!(api.ask("PUT /v1/membership?group=g7&uid=anna").await.status, 200);
}

/// What the requests of a token may do, and how often.
#[tokio::test]
async fn a_token_opens_only_what_its_scopes_and_patterns_name() {
    let token = "0123456789abcdef0123456789abcdef";
    let config = "[[api.token]]\nname = \"shop\"\nsecret = { file = \"secret\" }\nscopes = [\"push:uid\", \"query\"]\n\
                  uids = [\"shop-*\"]\nrate = 40\n\
                  [[api.token]]\nname = \"groups\"\nsecret = { file = \"other\" }\nscopes = [\"membership\"]\n";
    let other = "fedcba9876543210fedcba9876543210";
    let setup = Setup::new(config).bytes("secret", token.as_bytes()).bytes("other", other.as_bytes());
    let gateway = setup.start().await;
    let mut api = gateway.api().await;
    token.clone_into(&mut api.token);
    let groups = Admin { token: other.to_owned(), ..api.clone() };
    let mut anna = gateway.login("shop-anna").await;
    let _bob = gateway.login("bob").await;
    assert_eq!(post(&api, "/v1/push?uid=shop-anna", "hi").await.status, 200);
    anna.expect("hi").await;
    let id = id_of(&gateway, "bob").await;
    for path in [
        "/v1/push?uid=bob".to_owned(),
        "/v1/push?uid=shop-anna&uid=bob".to_owned(),
        "/v1/push?group=g".to_owned(),
        "/v1/push?everyone=true".to_owned(),
        "/v1/line".to_owned(),
    ] {
        assert_eq!(refusal(&post(&api, &path, "x").await), (403, "scope".to_owned()), "{path}");
    }
    for line in [
        "GET /v1/online?uid=bob",
        "DELETE /v1/connections?uid=shop-anna",
        "GET /v1/blocks",
        "PUT /v1/membership?group=g&uid=shop-anna",
        "GET /v1/events",
    ] {
        assert_eq!(refusal(&api.ask(line).await), (403, "scope".to_owned()), "{line}");
    }
    // The token does not learn who else is connected.
    let unseen = post(&api, &format!("/v1/push?connection={id}"), "x").await;
    assert_eq!((unseen.status, unseen.body), (404, post(&api, "/v1/push?connection=4711", "x").await.body));
    for uid in ["bob", "shop-anna"] {
        assert_eq!(groups.ask(&format!("PUT /v1/membership?group=g&uid={uid}")).await.status, 200);
    }
    assert_eq!(api.json("GET /v1/members?group=g&limit=1").await, json!({ "uids": ["shop-anna"], "more": false }));
    for path in ["/v1/batch", "/v1/stream", "/v1/push?uid=shop-anna"] {
        assert_eq!(refusal(&post(&groups, path, "{}").await), (403, "scope".to_owned()), "{path}");
    }
    let items = json!({ "items": [{ "uid": "shop-anna", "text": "1" }, { "uid": "bob", "text": "2" }] }).to_string();
    let results = post(&api, "/v1/batch", &items).await.json();
    assert_eq!((&results["results"][0]["status"], &results["results"][1]["reason"]), (&json!(200), &json!("scope")));
    anna.expect("1").await;
    anna.expect_nothing().await;
    let many = json!({ "items": vec![json!({ "uid": "shop-x", "text": "" }); 200] }).to_string();
    assert_eq!(post(&api, "/v1/batch", &many).await.status, 200);
    let refused = post(&api, "/v1/push?uid=shop-anna", "x").await;
    assert_eq!(refusal(&refused), (429, "rate".to_owned()));
    let item = json!({ "uid": "shop-anna", "text": "x" }).to_string();
    assert_eq!(refusal(&post(&api, "/v1/stream", &item).await), (429, "rate".to_owned()));
    assert!(refused.header("retry-after").is_some_and(|after| (1..=6).contains(&after.parse().unwrap_or(0))));
}
