//! Moments at which the HTTP push API cannot serve: the start, the drain, and a body that does not arrive.

use std::time::Duration;

use hotgate_tests::{Admin, Gateway, Setup, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// The status and the reason of the answer to a push.
async fn push(api: &Admin) -> (u16, String) {
    let answer = api.send(api.request("POST /v1/push?uid=nobody"), b"x").await;
    (answer.status, answer.json()["reason"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_gateway_that_starts_says_so() {
    let address = {
        let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        free.local_addr().expect("bound")
    };
    let token = "0123456789abcdef0123456789abcdef".to_owned();
    let config = format!(
        "[api]\nlisten = \"{address}\"\n[[api.token]]\nname = \"a\"\nsecret = {{ file = \"secret\" }}\nscopes = [\"push:uid\"]\n"
    );
    let setup = Setup::new(&config).bytes("secret", token.as_bytes()).environment("HOTGATE_API_LISTEN", "").compiling();
    let api = Admin { address, token };
    let asking = async {
        let mut answers = Vec::new();
        eventually("the gateway serves", async || {
            if TcpStream::connect(address).await.is_err() {
                return false;
            }
            answers.push(push(&api).await);
            answers.last().is_some_and(|(status, _)| *status == 404)
        })
        .await;
        answers
    };
    let (_gateway, mut answers) = tokio::join!(setup.start(), asking);
    assert_eq!(answers.pop(), Some((404, "offline".to_owned())));
    assert!(!answers.is_empty() && answers.iter().all(|answer| *answer == (503, "starting".to_owned())), "{answers:?}");
}

#[tokio::test]
async fn requests_are_served_until_the_last_client_has_closed_and_refused_after_that() {
    let mut gateway = Gateway::configured("shutdown_grace = \"3s\"").await;
    let (api, mut sender) = (gateway.api().await, gateway.sender().await);
    // It does not read, so that the drain takes its time.
    let _stuck = gateway.login_narrow("stuck").await;
    let line = format!(r#"{{"uid":"stuck","msg":"{}"}}"#, "x".repeat(1 << 20));
    for _ in 0..3 {
        assert_eq!(sender.ask(&line).await, "ok");
    }
    gateway.signal("TERM");
    gateway.logged(|line| line.message() == "shutting down").await;
    let reach = async || api.send(api.request("POST /v1/push?uid=stuck"), b"x").await.status;
    eventually("its client is asked to close", async || reach().await == 404).await;
    assert_eq!(push(&api).await, (404, "offline".to_owned()));
    eventually("requests are refused", async || push(&api).await == (503, "draining".to_owned())).await;
    assert_eq!(gateway.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_body_that_stands_still_is_a_408() {
    let gateway = Gateway::start().await;
    let api = gateway.api().await;
    let mut stream = TcpStream::connect(api.address).await.expect("the port is open");
    let head = api.request("POST /v1/push?uid=anna").and("Content-Length", "10").encode();
    stream.write_all(&[&head, &b"half"[..]].concat()).await.expect("it reads");
    let mut answer = String::new();
    // The body may stand still for 30 s.
    timeout(Duration::from_secs(90), stream.read_to_string(&mut answer)).await.expect("an answer").expect("text");
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("\"reason\":\"timeout\""), "{answer}");
}
