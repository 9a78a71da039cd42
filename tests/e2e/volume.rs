//! Many connections at once, with exact counts.

use hotgate_tests::{Client, Frame, Gateway, Opcode};
use tokio::task::JoinSet;

/// Sends `count` messages to one neighbour, while another neighbour sends as many. Each arrives once, in order, and is
/// acknowledged.
async fn relay(mut client: Client, to: usize, from: usize, count: usize) -> Client {
    let packets: Vec<u8> =
        (0..count).flat_map(|n| Frame::text(format!(r#"{{"id":"{to}","msg":"{n} to {to}"}}"#)).encode()).collect();
    client.bytes(&packets).await;
    let me = (from + 1) % 500;
    let (mut acknowledged, mut received) = (0, 0);
    while acknowledged < count || received < count {
        match client.text().await.as_str() {
            "Already_Linked" => acknowledged += 1,
            text => {
                assert_eq!(text, format!("{received} to {me}"));
                received += 1;
            }
        }
    }
    assert_eq!((acknowledged, received), (count, count));
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_500_relay_to_their_neighbours_with_exact_counts_and_order() {
    let gateway = Gateway::start().await;
    let mut clients = Vec::new();
    for n in 0..500 {
        clients.push(gateway.login(&n.to_string()).await);
    }
    let mut relays = JoinSet::new();
    for (n, client) in clients.into_iter().enumerate() {
        relays.spawn(relay(client, (n + 1) % 500, (n + 499) % 500, 100));
    }
    let mut clients = Vec::new();
    while let Some(client) = relays.join_next().await {
        clients.push(client.expect("exact counts and order"));
    }
    // No client receives anything more.
    for mut client in clients {
        client.expect_nothing().await;
        client.close().await;
    }
}

#[tokio::test]
async fn lines_10_000_in_one_go_get_10_000_answers_in_order() {
    const LINES: usize = 10_000;
    let gateway = Gateway::start().await;
    let mut anna = gateway.login("anna").await;
    let (mut writer, mut answers) = gateway.sender().await.split();
    let line = |n: usize| match n % 3 {
        0 => format!(r#"{{"uid":"anna","n":{n}}}"#),
        1 => format!(r#"{{"uid":"nobody","n":{n}}}"#),
        _ => format!("nonsense {n}"),
    };
    let lines: String = (0..LINES).map(|n| line(n) + "\n").collect();
    let writing = tokio::spawn(async move {
        tokio::io::AsyncWriteExt::write_all(&mut writer, lines.as_bytes()).await.expect("the connection is open");
        writer
    });
    for n in 0..LINES {
        answers.expect(if n % 3 == 0 { "ok" } else { "fail" }).await;
    }
    for n in (0..LINES).step_by(3) {
        anna.expect(line(n)).await;
    }
    anna.expect_nothing().await;
    writing.await.expect("all is written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_and_closes_in_a_crowd_leave_nobody_behind() {
    let gateway = std::sync::Arc::new(Gateway::start().await);
    let mut crowd = JoinSet::new();
    for task in 0..20 {
        let gateway = std::sync::Arc::clone(&gateway);
        crowd.spawn(async move {
            for n in 0..25 {
                let client = gateway.login(&format!("{task}-{n}")).await;
                match n % 3 {
                    0 => client.close().await,
                    1 => client.reset(),
                    _ => drop(client),
                }
            }
        });
    }
    while let Some(done) = crowd.join_next().await {
        done.expect("every login succeeds");
    }
    for task in 0..20 {
        for n in 0..25 {
            let uid = format!("{task}-{n}");
            hotgate_tests::eventually("nobody is left", async || !gateway.reaches(&uid).await).await;
        }
    }
}

#[tokio::test]
async fn a_message_to_everyone_of_many_arrives_once_at_each() {
    let component = hotgate_tests::Component::fixture("");
    let gateway = Gateway::with_plugin(&component).await;
    let mut clients = Vec::new();
    for n in 0..100 {
        clients.push(gateway.enter(&n.to_string()).await);
    }
    let text = format!("everyone {}", "x".repeat(10_000));
    for _ in 0..10 {
        assert_eq!(gateway.sender().await.ask(&text).await, "ok");
    }
    for mut client in clients {
        for _ in 0..10 {
            let frame = client.next_frame().await;
            assert_eq!((frame.opcode, frame.payload.len()), (Opcode::TEXT, 10_000));
        }
        client.expect_nothing().await;
    }
}
