//! Limits on how fast clients connect and send. Loopback is exempt from the rate of one address, so these clients come
//! from a trusted proxy that names other addresses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hotgate_tests::{Client, Frame, Gateway, Opcode, Response, Upgrade, eventually};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// A gateway behind a proxy.
const PROXY: &str = "[websocket]\ntrusted_proxies = [\"127.0.0.1/32\"]\n";

fn of(client: &str) -> Upgrade {
    Upgrade::default().header("X-Forwarded-For", client)
}

/// Connects, and leaves after the greeting.
async fn visit(gateway: &Gateway, upgrade: &Upgrade) {
    let mut client = gateway.upgrade(upgrade).await.expect("an upgrade");
    client.expect("HeartBeat").await;
    client.close().await;
}

async fn refusal(gateway: &Gateway, client: &str) -> Response {
    gateway.upgrade(&of(client)).await.expect_err("a refusal")
}

#[tokio::test]
async fn who_connects_too_often_is_told_when_to_come_again() {
    let gateway =
        Gateway::configured(&format!("{PROXY}[limits]\nconnections_per_address = 3\naccept_rate_per_address = 1"))
            .await;
    for _ in 0..3 {
        visit(&gateway, &of("203.0.113.1")).await;
    }
    let begun = Instant::now();
    let refused = refusal(&gateway, "203.0.113.1").await;
    assert_eq!((refused.status, refused.header("Retry-After")), (429, Some("1")), "{refused:?}");
    assert!(begun.elapsed() >= Duration::from_secs(1), "the answer must come late: {:?}", begun.elapsed());
    assert!(refused.body.contains("limits.accept_rate_per_address"), "{refused:?}");
    let line = gateway.logged(|line| line.message() == "client refused").await;
    assert_eq!((line.get("client"), line.get("level")), ("203.0.113.1", "WARN"));
    assert!(line.number("connection") > 0, "{line:?}");
    assert!(line.says("limits.accept_rate_per_address") && line.says("websocket.trusted_proxies"), "{line:?}");
    let reason = "hotgate_handshakes_refused_total{reason=\"accept-rate\"}";
    assert!(gateway.admin().await.metric(reason).await >= 1.0);
    // Others are not concerned, nor is the proxy itself, which is on loopback.
    for _ in 0..2 {
        visit(&gateway, &of("203.0.113.2")).await;
        visit(&gateway, &of("2001:db8:0:1::1")).await;
    }
    for _ in 0..6 {
        visit(&gateway, &Upgrade::default()).await;
    }
    visit(&gateway, &of("2001:db8:0:1::2")).await;
    assert_eq!(refusal(&gateway, "2001:db8:0:1:9::9").await.status, 429, "a network of IPv6 is one client");
    tokio::time::sleep(Duration::from_secs(1)).await;
    gateway.upgrade(&of("203.0.113.1")).await.expect("an upgrade");
}

#[tokio::test]
async fn each_refusal_is_counted_by_its_reason_and_names_its_setting() {
    let limits =
        "[limits]\nconnections = 4\nconnections_per_address = 2\nunauthenticated = 3\nunauthenticated_share = 60\n";
    let config = format!("{PROXY}allowed_origins = []\nhandshake_timeout = \"1s\"\n{limits}");
    let gateway = Gateway::configured(&config).await;
    let (admin, mark) = (gateway.admin().await, gateway.log().mark());
    let expect = async |upgrade: Upgrade, status: u16, reason: &str, key: &str| {
        let refused = gateway.upgrade(&upgrade).await.expect_err("a refusal");
        assert!(refused.status == status && refused.body.contains(key), "{key}: {refused:?}");
        let metric = format!("hotgate_handshakes_refused_total{{reason=\"{reason}\"}}");
        eventually(reason, async || admin.metric(&metric).await >= 1.0).await;
        if !key.is_empty() {
            gateway.logged_since(mark, |line| line.message() == "client refused" && line.says(key)).await;
        }
    };
    expect(of("203.0.113.1").header("Origin", "https://x.test"), 403, "origin", "websocket.allowed_origins").await;
    expect(of("203.0.113.1").start("POST / HTTP/1.1"), 405, "request", "").await;
    let first = gateway.upgrade(&of("203.0.113.1")).await.expect("an upgrade");
    let second = gateway.upgrade(&of("203.0.113.1")).await.expect("an upgrade");
    let per_address = "limits.connections_per_address";
    expect(of("203.0.113.1"), 503, "connections-per-address", per_address).await;
    let third = gateway.upgrade(&of("203.0.113.2")).await.expect("an upgrade");
    expect(of("203.0.113.3"), 503, "unauthenticated", "limits.unauthenticated)").await;
    let [first, second] = [(first, "1"), (second, "2")].map(|(client, uid)| logged_in(client, uid));
    let (first, second) = tokio::join!(first, second);
    let fourth = gateway.upgrade(&of("203.0.113.2")).await.expect("an upgrade");
    expect(of("203.0.113.3"), 503, "connections", "limits.connections)").await;
    drop((first, second));
    eventually("places are free", async || admin.metric("hotgate_connections").await == 2.0).await;
    let config = config.replace("connections_per_address = 2", "connections_per_address = 9");
    crate::reloading::write(&gateway, "hotgate.toml", &config);
    gateway.logged_since(mark, |line| line.says("take effect now")).await;
    expect(of("203.0.113.2"), 503, "unauthenticated-share", "limits.unauthenticated_share").await;
    drop((third, fourth));

    let silent = TcpStream::connect(gateway.websocket).await.expect("the port is open");
    let timeout = "hotgate_handshakes_refused_total{reason=\"timeout\"}";
    eventually("a timeout", async || admin.metric(timeout).await == 1.0).await;
    drop(silent);
}

async fn logged_in(mut client: Client, uid: &str) -> Client {
    client.expect("HeartBeat").await;
    client.send(format!(r#"{{"id":"{uid}"}}"#)).await;
    client.expect("Link_successful").await;
    client
}

#[tokio::test]
async fn past_the_rate_of_all_clients_accepting_pauses_and_nobody_is_refused() {
    let gateway = Gateway::configured("[limits]\naccept_rate = 20").await;
    gateway.connect().await;
    let begin = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..31 {
        let address = gateway.websocket;
        clients.spawn(async move { Client::connect(address, &Upgrade::default()).await.expect("HeartBeat").await });
    }
    clients.join_all().await;
    assert!(begin.elapsed() >= Duration::from_millis(1450), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_client_that_sends_too_fast_is_paused_and_loses_nothing() {
    let config = "[limits]\nmessages_per_second = 10\n[heartbeat]\ntimeout = \"1s\"\ncheck_interval = \"100ms\"";
    let gateway = Gateway::configured(config).await;
    let (mut anna, mut bob) = (gateway.login("anna").await, gateway.login("bob").await);
    let begin = Instant::now();
    for number in 0..60 {
        anna.send(format!(r#"{{"id":"bob","msg":"{number}"}}"#)).await;
    }
    anna.frame(Frame::ping("after all of them")).await;
    let receiving = async {
        for number in 0..60 {
            bob.expect(number.to_string()).await;
            // It is not limited, because it sends little.
            bob.frame(Frame::new(Opcode::PONG, "")).await;
        }
        begin.elapsed()
    };
    let answered = async {
        for _ in 0..60 {
            anna.expect("Already_Linked").await;
        }
        anna.expect_frame(Opcode::PONG, "after all of them").await;
    };
    let (took, ()) = tokio::join!(receiving, answered);
    // Twenty at once. The login has counted, too.
    assert!(took >= Duration::from_millis(3800), "{took:?}");
    let admin = gateway.admin().await;
    assert!(admin.metric("hotgate_rates_exceeded_total{rate=\"messages\"}").await >= 30.0);
    gateway.logged(|line| line.get("key") == "limits.messages_per_second").await;
}

#[tokio::test]
async fn a_paused_client_still_gets_its_messages_and_a_shutdown_does_not_wait_for_it() {
    let mut gateway = Gateway::configured("[limits]\nbytes_per_second = 100").await;
    let mut anna = gateway.login("anna").await;
    // It takes a minute to read.
    let stream = format!(r#"{{"id":"nobody","msg":"{}"}}"#, "x".repeat(6_000));
    anna.send(&stream).await;
    eventually("a pause", async || {
        gateway.admin().await.metric("hotgate_rates_exceeded_total{rate=\"bytes\"}").await >= 1.0
    })
    .await;
    assert!(gateway.reaches("anna").await);
    anna.expect(r#"{"uid":"anna"}"#).await;
    let begin = Instant::now();
    gateway.signal("TERM");
    anna.expect_close(1001).await;
    assert_eq!(gateway.exit_code().await, Some(0));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_client_that_sends_too_fast_may_be_closed_with_1008() {
    let config = "[limits]\nmessages_per_second = 5\nbytes_per_second = 1000\npast_rate = \"close\"";
    let gateway = Gateway::configured(config).await;
    let (mut many, mut large, mut calm) =
        (gateway.login("many").await, gateway.login("large").await, gateway.login("calm").await);
    for _ in 0..12 {
        many.try_bytes(&Frame::text(r#"{"id":"nobody"}"#).encode()).await;
    }
    let reason = closed(&mut many).await;
    assert_eq!(reason, (1008, "more than 5 messages a second".to_owned()));
    large.try_bytes(&Frame::text(format!(r#"{{"id":"{}"}}"#, "x".repeat(3000))).encode()).await;
    assert_eq!(closed(&mut large).await, (1008, "more than 1000 bytes a second".to_owned()));
    for _ in 0..5 {
        calm.expect_nothing().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ended = gateway.admin().await.metric("hotgate_connections_ended_total{cause=\"protocol-error\"}").await;
    assert_eq!(ended, 2.0);
}

/// Skips answers until the close frame, and answers that.
async fn closed(client: &mut Client) -> (u16, String) {
    loop {
        let frame = client.next_frame().await;
        if frame.opcode == Opcode::CLOSE {
            client.try_bytes(&Frame { masked: true, ..frame.clone() }.encode()).await;
            client.ended().await;
            return frame.close_reason();
        }
    }
}

/// Returns the 99th percentile of logins that come one after the other.
async fn login_p99(gateway: &Gateway, count: usize) -> Duration {
    let mut times = Vec::new();
    for number in 0..count {
        let begin = Instant::now();
        let client = gateway.upgrade(&of("203.0.113.200")).await.expect("an upgrade");
        let client = logged_in(client, &format!("u{number}")).await;
        times.push(begin.elapsed());
        client.close().await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    times.sort_unstable();
    times[count * 99 / 100]
}

/// One address opens connections as fast as it can. `wsload` measures this without the noise of other tests.
#[tokio::test]
async fn one_address_that_opens_as_fast_as_it_can_does_not_keep_others_out() {
    let config = format!("{PROXY}[limits]\nconnections_per_address = 500\naccept_rate_per_address = 200");
    let gateway = Gateway::configured(&config).await;
    let calm = login_p99(&gateway, 200).await;
    let (stop, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let storm: Vec<_> = (0..16)
        .map(|_| {
            let (stop, opened, address) = (stop.clone(), opened.clone(), gateway.websocket);
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    _ = Client::try_connect(address, &of("203.0.113.66")).await;
                    opened.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    eventually("refusals", async || {
        let reason = "hotgate_handshakes_refused_total{reason=\"accept-rate\"}";
        gateway.admin().await.metric(reason).await >= 100.0
    })
    .await;
    let (before, begin) = (opened.load(Ordering::Relaxed), Instant::now());
    let stormy = login_p99(&gateway, 200).await;
    let rate = f64::from(opened.load(Ordering::Relaxed) - before) / begin.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for task in storm {
        task.await.expect("it ends");
    }
    println!("p99 of logins: {calm:?}, and {stormy:?} while one address opens {rate:.0} a second");
    assert!(stormy <= 2 * calm + Duration::from_millis(100), "{calm:?} became {stormy:?}");
}
