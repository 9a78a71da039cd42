//! The errors of a connection that cannot be made.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use hotgate_nats_tests::{NatsSetup, Proxy, eventually};

use super::{Node, config};
use crate::hub::nats::{BusConfig, BusError, Event, Target};

async fn error(config: BusConfig) -> BusError {
    match Node::try_connect(config, 1).await {
        Ok(_) => panic!("a connection"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_server_that_does_not_listen_is_named() {
    // The port is free: it was bound a moment ago.
    let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port").local_addr().expect("bound");
    let mut settings = config(&[format!("nats://{free}")]);
    settings.connect_timeout = Duration::from_millis(300);
    let error = error(settings).await;
    assert_eq!(error.to_string(), format!("cannot reach nats://{free}: nothing listens there"));
}

#[tokio::test]
async fn a_host_without_address_is_named() {
    let mut settings = config(&["nats://nowhere.invalid:4222".to_owned()]);
    settings.connect_timeout = Duration::from_secs(3);
    let error = error(settings).await.to_string();
    assert!(error.starts_with("cannot reach nats://nowhere.invalid:4222: "), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_in_time() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let proxy = Proxy::start(nats.address()).await;
    proxy.hold();
    let mut settings = config(&[proxy.url()]);
    (settings.attempt_timeout, settings.connect_timeout) = (Duration::from_millis(300), Duration::from_millis(1000));
    let begin = Instant::now();
    let error = error(settings).await;
    assert_eq!(error.to_string(), format!("cannot reach {}: it does not answer", proxy.url()));
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn one_server_that_works_is_enough() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let servers = ["nats://127.0.0.1:1".to_owned(), "nats://nowhere.invalid:4222".to_owned(), nats.url()];
    let node = Node::connect(config(&servers), 1).await;
    assert_eq!(node.server, "nats-1");
}

#[tokio::test]
async fn a_connection_is_made_when_the_server_starts_late() {
    let Some(mut nats) = NatsSetup::new().start().await else { return };
    nats.kill();
    let connecting = tokio::spawn(Node::connect(config(&[nats.url()]), 1));
    nats.restart().await;
    connecting.await.expect("a connection");
}

#[tokio::test]
async fn a_small_max_payload_is_refused() {
    let Some(nats) = NatsSetup::new().and("max_payload: 65536").start().await else { return };
    let server = nats.url();
    assert_eq!(
        error(config(std::slice::from_ref(&server))).await,
        BusError::Payload { server, max: 65536, needed: 66560 }
    );
}

#[tokio::test]
async fn a_server_without_headers_is_refused() {
    let Some(nats) = NatsSetup::new().and("no_header_support: true").start().await else { return };
    let error = error(config(&[nats.url()])).await;
    assert!(matches!(error, BusError::NoResponders { .. }), "{error:?}");
    assert!(error.to_string().contains("its headers are off (no_header_support)"), "{error}");
}

#[tokio::test]
async fn a_subscriber_that_hides_notices_is_found() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let spy = std::net::TcpStream::connect(nats.address()).expect("the port is open");
    std::io::Write::write_all(&mut &spy, b"CONNECT {}\r\nSUB hg.> 1\r\nPING\r\n").expect("written");
    eventually("the spy's subscription", async || {
        nats.ask("/subsz").await["num_subscriptions"].as_u64().expect("a number") > 0
            && nats.ask("/connz?subs=1").await.to_string().contains("hg.>")
    })
    .await;
    let error = error(config(&[nats.url()])).await;
    assert!(matches!(&error, BusError::NoResponders { reason, .. } if reason.contains("wildcard")), "{error:?}");
}

#[tokio::test]
async fn a_full_server_refuses() {
    let Some(nats) = NatsSetup::new().and("max_connections: 1").start().await else { return };
    // The harness itself has asked whether the server listens.
    eventually("no client", async || nats.clients().await == 0).await;
    let node = Node::connect(config(&[nats.url()]), 1).await;
    let error = error(config(&[nats.url()])).await;
    assert_eq!(error.to_string(), format!("{} refuses this gateway: maximum connections exceeded", nats.url()));
    drop(node);
}

#[tokio::test]
async fn a_server_that_will_stop_says_so() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let mut node = Node::connect(config(&[nats.url()]), 1).await;
    nats.lame_duck();
    node.until("the announcement", |event| matches!(event, Event::LameDuck).then_some(())).await;
    // It is still of use.
    node.bus.publish(Target::All, None, "x").expect("sent");
    assert_eq!(node.frame().await, "x");
}

#[tokio::test]
async fn settings_are_checked() {
    let good = || config(&["nats://127.0.0.1:4222".to_owned()]);
    let servers = |servers: &[&str]| config(&servers.iter().map(ToString::to_string).collect::<Vec<_>>());
    let bad = [
        servers(&[]),
        servers(&["nats://127.0.0.1:4222"; 65]),
        servers(&["127.0.0.1:4222"]),
        servers(&["http://127.0.0.1:4222"]),
        servers(&["nats://127.0.0.1"]),
        servers(&["nats://127.0.0.1:0"]),
        servers(&["nats://:4222"]),
        servers(&["nats://me:secret@127.0.0.1:4222"]),
        servers(&["nats://127.0.0.1:4222/x"]),
        BusConfig { prefix: "hg.>".to_owned(), ..good() },
        BusConfig { prefix: String::new(), ..good() },
        BusConfig { prefix: "a..b".to_owned(), ..good() },
        BusConfig { ping_interval: Duration::ZERO, ..good() },
        BusConfig { queue: 1, ..good() },
        BusConfig { unconfirmed: 1000, ..good() },
    ];
    for settings in bad {
        let error = settings.check().expect_err("refused");
        assert!(matches!(error, BusError::Setting { .. }) && !error.to_string().contains("secret"), "{error}");
    }
    for server in ["nats://[::1]:4222", "tls://nats-1.example.com:4222"] {
        assert_eq!(servers(&[server]).check(), Ok(()));
    }
}
