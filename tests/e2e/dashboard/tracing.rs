//! The life of one client, as it happens.

use hotgate_tests::{Admin, Component, Gateway};
use serde_json::{Value, json};

use super::Stream;

/// Begins to follow a client. Returns the events, and how many connections the client has.
async fn follow(admin: &Admin, query: &str) -> (Stream, Value) {
    let mut trace = Stream::open(admin, &format!("GET /trace?{query}")).await;
    let mut first = trace.next().await.expect("a line");
    assert_eq!(first["what"], "watching");
    (trace, first["connections"].take())
}

/// The next events up to this one.
async fn until(trace: &mut Stream, last: &str) -> Vec<Value> {
    let mut events = vec![trace.next().await.expect("an event")];
    while events.last().is_some_and(|event| event["what"] != last) {
        events.push(trace.next().await.expect("an event"));
    }
    events
}

fn names(events: &[Value]) -> Vec<String> {
    let name = |event: &Value| match event["what"].as_str() {
        Some(what @ ("call" | "verdict")) => format!("{what} {}", event["function"].as_str().unwrap_or_default()),
        Some("action") => event["action"].as_str().unwrap_or_default().to_owned(),
        what => what.unwrap_or_default().to_owned(),
    };
    events.iter().map(name).collect()
}

#[tokio::test]
async fn a_client_is_followed_from_its_handshake_to_its_end() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let (mut trace, connections) = follow(&admin, "uid=anna").await;
    assert_eq!(connections, 0);
    let mut bob = gateway.login("bob").await;
    let mut anna = gateway.login("anna").await;
    let login = until(&mut trace, "login").await;
    let expected = ["handshake", "call greet", "verdict greet", "message", "packet", "call authenticate"];
    assert_eq!(names(&login)[..6], expected, "{login:?}");
    assert_eq!(login[0]["path"], "/");
    assert!(login[0]["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")));
    let call = &login[1];
    let plugins = admin.json("GET /plugins").await;
    let authenticator =
        plugins["plugins"].as_array().expect("a list").iter().find(|plugin| plugin["slot"] == "authenticator");
    let live = &authenticator.expect("it is there")["live"];
    assert_eq!(
        (&call["slot"], &call["generation"], &call["digest"]),
        (&json!("authenticator"), &live["generation"], &live["digest"])
    );
    assert!(call["micros"].is_u64() && call["failure"].is_null(), "{call}");
    let id = login[0]["connection"].clone();
    assert!(login.iter().all(|event| event["connection"] == id), "{login:?}");

    let packet = r#"{"id":"bob","msg":"hi"}"#;
    anna.send(packet).await;
    anna.expect("Already_Linked").await;
    bob.expect("hi").await;
    let routed = until(&mut trace, "action").await;
    let routed = [routed, until(&mut trace, "action").await].concat();
    let from = routed.iter().position(|event| event["what"] == "packet").expect("a packet");
    let routed = &routed[from..];
    assert_eq!(names(routed), ["packet", "call route", "deliver", "message", "reply"], "{routed:?}");
    assert_eq!((&routed[0]["uid"], &routed[0]["bytes"]), (&json!("anna"), &json!(packet.len())));
    assert_eq!(
        (&routed[2]["to"], &routed[2]["bytes"], &routed[2]["result"]),
        (&json!({"uid": "bob"}), &json!(2), &json!({"reached": 1}))
    );
    assert!(routed.iter().all(|event| event["payload"].is_null()), "payloads are secret: {routed:?}");

    assert_eq!(gateway.sender().await.ask(r#"{"uid":"anna"}"#).await, "ok");
    let pushed = trace.next().await.expect("an event");
    assert_eq!(
        (&pushed["what"], &pushed["result"], &pushed["bytes"]),
        (&json!("message"), &json!("queued"), &json!(14))
    );
    anna.expect(r#"{"uid":"anna"}"#).await;
    anna.close().await;
    let end = until(&mut trace, "closed").await;
    assert_eq!(names(&end), ["call closed", "closed"]);
    assert_eq!((&end[1]["cause"], &end[1]["code"]), (&json!("client"), &json!(1000)));
    assert_eq!(gateway.sender().await.ask(r#"{"uid":"anna"}"#).await, "fail");
    let missed = trace.next().await.expect("an event");
    assert_eq!(
        (&missed["what"], &missed["uid"], &missed["connection"]),
        (&json!("missed"), &json!("anna"), &Value::Null)
    );
}

#[tokio::test]
async fn one_that_is_connected_already_is_followed_by_uid_and_by_number() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let mut anna = gateway.login("anna").await;
    let listed = admin.json("GET /connections").await;
    let id = listed["connections"][0]["id"].as_str().expect("an id");
    let (mut by_uid, connections) = follow(&admin, "uid=anna").await;
    assert_eq!(connections, 1);
    let (mut by_number, connections) = follow(&admin, &format!("connection={id}")).await;
    assert_eq!(connections, 1);
    anna.send("{}").await;
    anna.expect("Already_Linked").await;
    for trace in [&mut by_uid, &mut by_number] {
        assert_eq!(trace.next().await.expect("an event")["what"], "packet");
    }
}

/// Whoever cannot log in has no uid.
#[tokio::test]
async fn a_client_that_is_denied_is_followed_by_its_address() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let (mut trace, connections) = follow(&admin, "address=127.0.0.1").await;
    assert_eq!(connections, Value::Null);
    let mut client = gateway.connect().await;
    client.expect("HeartBeat").await;
    client.send(r#"{"name":"anna"}"#).await;
    let code = client.closed().await.0;
    let events = until(&mut trace, "closed").await;
    let denial = events.iter().find(|event| event["verdict"] == "deny").expect("a denial");
    assert_eq!(denial["code"], code);
    assert_eq!(events.last().expect("the end")["code"], code);
}

#[tokio::test]
async fn payloads_are_shown_where_a_setting_allows_it() {
    let gateway = Gateway::configured("[admin]\ntrace_payloads = true").await;
    let admin = gateway.admin().await;
    let mut anna = gateway.login("anna").await;
    let (mut trace, _) = follow(&admin, "uid=anna").await;
    anna.send(r#"{"secret":"x"}"#).await;
    assert_eq!(trace.next().await.expect("an event")["payload"], r#"{"secret":"x"}"#);
}

#[tokio::test]
async fn nobody_is_followed_where_a_setting_forbids_it_or_the_query_is_wrong() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    for query in ["", "?uid=anna&connection=1", "?connection=x", "?address=x", "?user=anna"] {
        let refused = admin.ask(&format!("GET /trace{query}")).await;
        assert!(refused.status == 400 && refused.error().contains("uid=TEXT"), "{query}: {refused:?}");
    }
    let gateway = Gateway::configured("[admin]\ntrace = false").await;
    let refused = gateway.admin().await.ask("GET /trace?uid=anna").await;
    assert!(refused.status == 403 && refused.error().contains("admin.trace"), "{refused:?}");
}

#[tokio::test]
async fn a_call_that_fails_says_why() {
    let gateway = Gateway::with_plugin(&Component::fixture("")).await;
    let admin = gateway.admin().await;
    let mut anna = gateway.enter("anna").await;
    let (mut trace, _) = follow(&admin, "uid=anna").await;
    anna.send("do trap").await;
    let call = until(&mut trace, "call").await.pop().expect("a call");
    assert_eq!((&call["function"], &call["failure"]["kind"]), (&json!("route"), &json!("trap")), "{call}");
}

#[tokio::test]
async fn a_client_that_is_refused_after_its_login_is_followed_by_its_uid() {
    let gateway = Gateway::configured("[sessions]\nduplicate_login = \"reject\"").await;
    let admin = gateway.admin().await;
    let _first = gateway.login("anna").await;
    let (mut trace, connections) = follow(&admin, "uid=anna").await;
    assert_eq!(connections, 1);
    let mut second = gateway.connect().await;
    second.expect("HeartBeat").await;
    second.send(r#"{"id":"anna"}"#).await;
    second.expect_close(4904).await;
    let events = until(&mut trace, "closed").await;
    assert_eq!((&events[0]["what"], &events.last().expect("the end")["code"]), (&json!("handshake"), &json!(4904)));
    assert!(events.iter().all(|event| event["what"] != "login"), "{events:?}");
}

#[tokio::test]
async fn a_message_for_nobody_is_shown_also_where_a_uid_may_have_several_connections() {
    let gateway = Gateway::configured("[sessions]\nduplicate_login = \"all\"").await;
    let admin = gateway.admin().await;
    let (mut trace, _) = follow(&admin, "uid=anna").await;
    assert_eq!(gateway.sender().await.ask(r#"{"uid":"anna"}"#).await, "fail");
    assert_eq!(trace.next().await.expect("an event")["what"], "missed");
}
