//! Strangers who reach the admin listener without the token cannot block an operator with the token.

use std::time::{Duration, Instant};

use hotgate_tests::{Gateway, Setup, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let connect = || async { TcpStream::connect(admin.address).await.expect("the port is open") };
    // A connection that has shown the token stays open.
    let mut operator = connect().await;
    let request = admin.request("GET /plugins").encode();
    operator.write_all(&request).await.expect("sent");
    assert!(within("an answer", operator.read(&mut [0; 1 << 16])).await.expect("an answer") > 0);

    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(connect().await);
    }
    let begin = Instant::now();
    assert_eq!(admin.ask("GET /healthz").await.status, 200);
    assert_eq!(admin.ask("GET /plugins").await.status, 200);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());

    operator.write_all(&request).await.expect("sent");
    assert!(within("an answer", operator.read(&mut [0; 1 << 16])).await.expect("an answer") > 0);
}

#[tokio::test]
async fn without_the_token_a_connection_is_good_for_one_request() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let health = admin.request("GET /healthz").without("Authorization");
    for (request, status) in [
        (health.clone(), 200),
        (admin.request("GET /readyz"), 200),
        (admin.request("GET /plugins").without("Authorization"), 401),
        (health.clone().and("Origin", "http://attacker.example"), 403),
        (health.header("Host", "attacker.example"), 421),
    ] {
        // Reads until the connection ends. The gateway must close it, although the request does not ask for that.
        let begin = Instant::now();
        let response = admin.bytes(&request.encode()).await.expect("an answer");
        assert_eq!((response.status, response.header("Connection")), (status, Some("close")), "{response:?}");
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn a_listener_that_is_not_local_is_told_about() {
    let gateway =
        Setup::new("[admin]\nplaintext = true\n").argument("--admin-listen").argument("0.0.0.0:0").start().await;
    gateway.logged(|line| line.get("level") == "WARN" && line.says("plain HTTP")).await;
}
