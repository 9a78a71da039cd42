//! WebSocket clients and pushes of operators.

use hotgate_tests::{Admin, Gateway, Setup, eventually};
use serde_json::{Value, json};

use super::Stream;

/// Opens a client of the operator. Returns its answer and its number.
async fn try_it(admin: &Admin, body: &Value) -> (Stream, String) {
    let mut client = Stream::send(admin, admin.request("POST /try"), &body.to_string()).await;
    let number = client.next().await.expect("a number")["client"].as_str().expect("text").to_owned();
    (client, number)
}

async fn say(admin: &Admin, number: &str, text: &str) {
    let body = json!({ "text": text }).to_string();
    let sent = admin.send(admin.request(&format!("POST /try/{number}")), body.as_bytes()).await;
    assert_eq!(sent.json(), json!({ "sent": true }));
}

#[tokio::test]
async fn an_operator_is_a_client_like_all_others() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let (mut client, number) = try_it(&admin, &json!({})).await;
    assert_eq!(client.next().await, Some(json!({ "text": "HeartBeat" })));
    say(&admin, &number, r#"{"id":"anna"}"#).await;
    assert_eq!(client.next().await, Some(json!({ "text": "Link_successful" })));
    let listed = admin.json("GET /connections?uid=anna").await;
    let address = listed["connections"][0]["address"].as_str().expect("an address");
    assert!(address.starts_with("127.0.0.1:") && !address.ends_with(":0"), "{address}");

    let line = r#"{"uid":"anna","text":"hello"}"#;
    let push = async |line: &str| admin.send(admin.request("POST /try/push"), line.as_bytes()).await;
    assert_eq!(push(&format!("{line}\r\n")).await.json(), json!({ "answer": "ok" }));
    let pushed = client.next().await.expect("a message");
    assert!(pushed["text"].as_str().is_some_and(|text| text.contains("hello")), "{pushed}");
    assert_eq!(push(r#"{"uid":"nobody"}"#).await.json(), json!({ "answer": "fail" }));
    assert_eq!(push("GET / HTTP/1.1").await.json(), json!({ "answer": "fail" }));
    assert_eq!(push("a\nb").await.status, 400);

    let closing = admin.send(admin.request(&format!("DELETE /try/{number}")), b"").await;
    assert_eq!(closing.json(), json!({ "closing": true }));
    assert_eq!(
        client.find(|line| line["closed"].is_object()).await,
        json!({ "closed": { "code": 1000, "reason": "" } })
    );
    assert_eq!(client.next().await, None);
    eventually("it is gone", async || admin.ask(&format!("DELETE /try/{number}")).await.status == 404).await;

    // The request ends, and its client with it.
    let (mut client, number) = try_it(&admin, &json!({})).await;
    client.next().await.expect("a greeting");
    say(&admin, &number, r#"{"id":"bob"}"#).await;
    client.next().await.expect("a welcome");
    drop(client);
    eventually("bob is gone", async || !gateway.reaches("bob").await).await;
}

#[tokio::test]
async fn an_operator_meets_the_rules_for_clients() {
    let config = "[websocket]\nallowed_origins = [\"https://app.example\"]\nproxy_protocol = \"required\"\n\
                  trusted_proxies = [\"127.0.0.0/8\"]";
    let gateway = Setup::new(config).start().await;
    let admin = gateway.admin().await;
    for (origin, is_admitted) in [("https://app.example", true), ("https://other.example", false)] {
        let (mut client, _) = try_it(&admin, &json!({ "path": "/x?a=b", "headers": { "Origin": origin } })).await;
        let line = client.next().await.expect("a line");
        match is_admitted {
            true => assert_eq!(line, json!({ "text": "HeartBeat" })),
            false => {
                let reason = line["closed"]["reason"].as_str().expect("a reason");
                assert!(line["closed"]["code"] == 1006 && reason.contains("403"), "{line}");
                assert_eq!(client.next().await, None);
            }
        }
    }
    for wrong in [json!({ "path": "x" }), json!({ "headers": { "X-Forwarded-For": "192.0.2.1" } }), json!([])] {
        let response = admin.send(admin.request("POST /try"), wrong.to_string().as_bytes()).await;
        assert_eq!(response.status, 400, "{wrong}: {response:?}");
    }
}
