//! Messages from one gateway to the connections of another.

use std::time::Duration;

use hotgate_tests::{Client, within};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::{outcome, post, push, setup, start, start_fixture, tell};

#[tokio::test]
async fn a_gateway_for_senders_only_passes_on_what_is_pushed() {
    let Some((nats, [a, b])) = start::<2>("").await else { return };
    let sender = setup(&nats, "role = \"sender\"").start().await;
    let (mut anna, mut bob) = (a.login("anna").await, b.login("bob").await);
    let api = sender.api().await;
    for (uid, client) in [("anna", &mut anna), ("bob", &mut bob)] {
        assert_eq!(sender.sender().await.ask(format!(r#"{{"uid":"{uid}","by":"line"}}"#)).await, "ok");
        client.expect(format!(r#"{{"uid":"{uid}","by":"line"}}"#)).await;
        assert_eq!(push(&api, uid, "by HTTP").await, "ok");
        client.expect("by HTTP").await;
    }
    assert_eq!(post(&api, "everyone=true", "to all").await.json(), json!({ "reached": 2 }));
    assert_eq!(push(&api, "nobody", "hi").await, "offline");
    let log = sender.log().since(Default::default());
    assert!(!log.iter().any(|line| line.get("listener") == "websocket"), "{log:?}");
    assert_eq!(sender.admin().await.ask("GET /readyz").await.status, 200);
    drop(sender);
    assert_eq!(push(&a.api().await, "bob", "still here").await, "ok");
}

#[tokio::test]
async fn a_push_reaches_a_uid_wherever_it_is() {
    let Some((_nats, [a, b, c])) = start::<3>("").await else { return };
    let mut clients = [a.login("anna").await, b.login("bob").await, c.login("carl").await];
    let uids = ["anna", "bob", "carl"];
    for gateway in [&a, &b, &c] {
        let (mut sender, api) = (gateway.sender().await, gateway.api().await);
        for (uid, client) in uids.iter().zip(&mut clients) {
            let line = format!(r#"{{"uid":"{uid}","msg":"é"}}"#);
            assert_eq!(sender.ask(&line).await, "ok", "{uid}");
            client.expect(&line).await;
            let reached = post(&api, &format!("uid={uid}"), "by HTTP").await;
            assert_eq!((reached.status, reached.json()), (200, json!({ "reached": 1 })), "{uid}");
            client.expect("by HTTP").await;
        }
        assert_eq!(sender.ask(r#"{"uid":"nobody"}"#).await, "fail");
        let offline = post(&api, "uid=nobody", "x").await;
        assert_eq!((offline.status, outcome(&offline)), (404, "offline".to_owned()));
        let some = post(&api, "uid=anna&uid=nobody&uid=bob&uid=carl", "to all").await;
        assert_eq!((some.status, some.json()), (200, json!({ "reached": 3, "offline": ["nobody"] })));
        for client in &mut clients {
            client.expect("to all").await;
        }
    }
    for client in &mut clients {
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn a_push_reaches_a_connection_by_its_id() {
    let Some((_nats, [a, b])) = start::<2>("").await else { return };
    let mut anna = b.login("anna").await;
    let page = b.admin().await.json("GET /connections?uid=anna").await;
    let id = page["connections"][0]["id"].as_str().expect("an id").to_owned();
    for gateway in [&a, &b] {
        let api = gateway.api().await;
        assert_eq!(post(&api, &format!("connection={id}"), "hi").await.json(), json!({ "reached": 1 }));
        anna.expect("hi").await;
    }
    anna.close().await;
    for gateway in [&a, &b] {
        assert_eq!(outcome(&post(&gateway.api().await, &format!("connection={id}"), "hi").await), "offline");
    }
}

#[tokio::test]
async fn clients_of_two_gateways_write_to_each_other() {
    let Some((_nats, [a, b])) = start::<2>("").await else { return };
    let (mut anna, mut bob) = (a.login("anna").await, b.login("bob").await);
    for n in 0..20 {
        anna.send(format!(r#"{{"id":"bob","msg":"to bob {n}"}}"#)).await;
        anna.expect("Already_Linked").await;
        bob.expect(format!("to bob {n}")).await;
        bob.send(format!(r#"{{"id":"anna","msg":"to anna {n}"}}"#)).await;
        bob.expect("Already_Linked").await;
        anna.expect(format!("to anna {n}")).await;
    }
    anna.send(r#"{"id":"nobody","msg":"hello?"}"#).await;
    anna.expect("Already_Linked").await;
    anna.expect_nothing().await;
    bob.expect_nothing().await;
}

#[tokio::test]
async fn a_sender_learns_that_nobody_was_reached_anywhere() {
    let Some((_nats, [a, b])) = start_fixture::<2>("").await else { return };
    let (mut anna, mut bob) = (a.enter("anna").await, b.enter("bob").await);
    anna.send("to bob hi").await;
    bob.expect("hi").await;
    anna.send("to carl hi").await;
    anna.expect("nobody").await;
    anna.expect_nothing().await;
}

/// One sender's lines for uids here and there, for everybody and for nobody.
#[tokio::test]
async fn lines_are_carried_out_and_answered_in_their_order() {
    const LINES: usize = 2_000;
    let Some((_nats, [a, b])) = start_fixture::<2>("").await else { return };
    let (mut near, mut far) = (a.enter("near").await, b.enter("far").await);
    let line = |n: usize| match n % 10 {
        0..6 => format!("to far {n}"),
        6 => format!("to near {n}"),
        7 | 8 => format!("everyone {n}"),
        _ if n % 20 == 9 => format!("say {n}"),
        _ => format!("to nobody {n}"),
    };
    let (mut writer, mut answers) = a.sender().await.split();
    let all = (0..LINES).map(|n| line(n) + "\n").collect::<String>();
    let writing = async { within("writing", writer.write_all(all.as_bytes())).await.expect("written") };
    let answering = async {
        for n in 0..LINES {
            let expected = match n % 20 {
                9 => n.to_string(),
                19 => "fail".to_owned(),
                _ => "ok".to_owned(),
            };
            assert_eq!(answers.next().await.as_deref(), Some(&*expected), "{}", line(n));
        }
    };
    let reading = async |client: &mut Client, own: std::ops::Range<usize>| {
        for n in (0..LINES).filter(|n| own.contains(&(n % 10)) || [7, 8].contains(&(n % 10))) {
            client.expect(n.to_string()).await;
        }
    };
    tokio::join!(writing, answering, reading(&mut near, 6..7), reading(&mut far, 0..6));
    near.expect_nothing().await;
    far.expect_nothing().await;
}

#[tokio::test]
async fn a_client_s_messages_arrive_in_their_order() {
    const MESSAGES: usize = 2_000;
    let Some((_nats, [a, b])) = start_fixture::<2>("").await else { return };
    let (mut anna, mut far) = (a.enter("anna").await, b.enter("far").await);
    tell(&mut far, "join all").await;
    let sending = async {
        for n in 0..MESSAGES {
            anna.send(match n % 3 {
                0 => format!("to far {n}"),
                1 => format!("others all {n}"),
                _ => format!("relay far {n}"),
            })
            .await;
        }
    };
    let reading = async {
        for n in 0..MESSAGES {
            let expected = if n % 3 == 2 { format!("v1 anna {n}") } else { n.to_string() };
            far.expect(expected).await;
        }
    };
    tokio::join!(sending, reading);
    anna.expect_nothing().await;
}

#[tokio::test]
async fn a_large_message_arrives_whole() {
    let Some((_nats, [a, b])) = start::<2>("").await else { return };
    let (mut anna, api) = (b.login("anna").await, a.api().await);
    let large = (0..1 << 20).map(|n| char::from(b'a' + (n / 7 % 26) as u8)).collect::<String>();
    for n in 0..3 {
        let sending = async {
            let answers = tokio::join!(
                post(&api, "uid=anna", &large),
                // Begun later, so that its frame follows those of the large one.
                async {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    post(&api, "uid=anna", "small").await
                },
            );
            assert_eq!((outcome(&answers.0), outcome(&answers.1)), ("ok".to_owned(), "ok".to_owned()), "{n}");
        };
        let reading = async {
            let mut texts = [anna.text().await, anna.text().await];
            texts.sort_by_key(String::len);
            assert_eq!(texts[0], "small");
            assert!(texts[1] == large, "{n}: {} bytes", texts[1].len());
        };
        tokio::join!(sending, reading);
    }
    let line = format!(r#"{{"uid":"anna","msg":"{}"}}"#, &large[..(1 << 20) - 100]);
    assert_eq!(a.sender().await.ask(&line).await, "ok");
    anna.expect(&line).await;
    anna.expect_nothing().await;
}
