//! Certificates: what happens when their files are wrong, change or expire.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hotgate_tests::{Authority, Client, Gateway, Identity, Setup, Stream, eventually};
use serde_json::json;

const NAME: &str = "push.example.com";

/// The table of a certificate of the WebSocket port.
const TABLE: &str = "[[websocket.tls]]\ncertificate = \"push.pem\"\nkey = \"push.key\"\n";

/// Connects by TLS and logs in.
async fn enter(gateway: &Gateway, authority: &Authority, uid: &str) -> Client {
    let mut client = Client::connect_tls(gateway.websocket, NAME, authority).await.expect("an upgrade");
    client.expect("HeartBeat").await;
    client.send(format!(r#"{{"id":"{uid}"}}"#)).await;
    client.expect("Link_successful").await;
    client
}

#[tokio::test]
async fn certificates_are_replaced_while_connections_stay() {
    let authority = Authority::new();
    let setup = Setup::new(TABLE).identity("push", &authority.issue(&[NAME]));
    let gateway = setup.start().await;
    let mut anna = enter(&gateway, &authority, "anna").await;
    let is_served = async |name: &'static str| {
        eventually("the certificate is served", async || {
            Stream::tls(gateway.websocket, name, authority.client(None)).await.is_ok()
        })
        .await;
    };

    authority.issue(&["renewed.example.com"]).replace(gateway.folder(), "push");
    is_served("renewed.example.com").await;
    gateway.logged(|line| line.message() == "certificate loaded").await;

    // A key that belongs to no certificate is refused, and the pair before it stays.
    std::fs::write(gateway.folder().join("push.key"), authority.issue(&[NAME]).key).unwrap();
    let refused = gateway.logged(|line| line.message().starts_with("configuration refused")).await;
    let reason = refused.get("reason");
    assert!(reason.contains("websocket.tls: ") && reason.contains("push.key: this key does not belong"), "{reason}");
    is_served("renewed.example.com").await;
    assert_eq!(gateway.admin().await.metric("hotgate_tls_reloads_total{outcome=\"loaded\"}").await, 1.0);

    // Half a pair is no pair: the key is there, and its certificate comes later.
    let next = authority.issue(&["next.example.com"]);
    std::fs::write(gateway.folder().join("push.key"), &next.key).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    is_served("renewed.example.com").await;
    std::fs::write(gateway.folder().join("push.pem"), &next.certificate).unwrap();
    is_served("next.example.com").await;
    anna.expect_nothing().await;
}

#[tokio::test]
async fn certificates_behind_links_are_replaced_when_the_link_changes() {
    let authority = Authority::new();
    let config = "[[websocket.tls]]\ncertificate = \"live/tls.crt\"\nkey = \"live/tls.key\"\n";
    let setup = Setup::new(config);
    let folder = setup.path().to_owned();
    let put = |name: &str, identity: &Identity| {
        std::fs::create_dir(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("tls.crt"), &identity.certificate).unwrap();
        std::fs::write(folder.join(name).join("tls.key"), &identity.key).unwrap();
    };
    put("1", &authority.issue(&["one.example.com"]));
    std::os::unix::fs::symlink("1", folder.join("live")).unwrap();
    let gateway = setup.start().await;
    put("2", &authority.issue(&["two.example.com"]));
    std::os::unix::fs::symlink("2", folder.join("new")).unwrap();
    std::fs::rename(folder.join("new"), folder.join("live")).unwrap();
    eventually("the certificate is served", async || {
        Stream::tls(gateway.websocket, "two.example.com", authority.client(None)).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_ends_the_start() {
    let authority = Authority::new();
    let (good, other) = (authority.issue(&[NAME]), authority.issue(&[NAME]));
    let config = TABLE;
    for (certificate, key, problem) in [
        ("", &*good.key, "push.pem: it contains no certificate in PEM"),
        (&*good.certificate, "", "push.key: it contains no private key in PEM"),
        (&good.certificate, &other.key, "push.key: this key does not belong to the certificate in "),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &good.key,
            "push.pem: the certificate cannot be understood",
        ),
    ] {
        let setup = Setup::new(config).bytes("push.pem", certificate.as_bytes()).bytes("push.key", key.as_bytes());
        for command in [&["serve"][..], &["config", "check"]] {
            let finished = setup.run(&[command, &["--config", "hotgate.toml"]].concat()).await;
            assert_eq!(finished.code, Some(78), "{finished:?}");
            assert!(finished.stderr.contains(problem), "{problem} in {finished:?}");
            assert!(!finished.stderr.contains(&good.key[40..80]), "{finished:?}");
        }
    }
    let finished = Setup::new(config).run(&["serve", "--config", "hotgate.toml"]).await;
    assert!(finished.code == Some(78) && finished.stderr.contains("push.pem: cannot read it"), "{finished:?}");
}

#[tokio::test]
async fn a_certificate_that_expires_soon_is_in_the_log_and_in_the_metrics() {
    let authority = Authority::new();
    let config = TABLE;
    let gateway = Setup::new(config).identity("push", &authority.issue_until(&[NAME], (2001, 2, 3))).start().await;
    let line = gateway.logged(|line| line.message() == "certificate").await;
    let problem = line.get("problem");
    assert!(problem.contains("push.pem has expired, at 2001-02-03T00:00:00Z"), "{problem}");
    let status = gateway.admin().await.json("GET /status").await;
    assert_eq!(status["certificates"][0]["names"], json!([NAME]));
    assert!(status["warnings"].to_string().contains("has expired"), "{status}");
    let metrics = gateway.admin().await.ask("GET /metrics").await.body;
    let sample = metrics.lines().find(|line| line.starts_with("hotgate_tls_certificate_expires_seconds{")).unwrap();
    assert!(sample.contains(r#"listener="websocket",name="push.example.com""#), "{sample}");
    assert!(sample.ends_with(" 981158400"), "{sample}");
}

/// Replaces a certificate again and again under load. Every handshake and every open connection must survive it.
async fn reloads(times: u32) {
    let authority = Arc::new(Authority::new());
    let config = format!("[watch]\nsettle = \"1ms\"\n{TABLE}");
    let gateway = Arc::new(Setup::new(&config).identity("push", &authority.issue(&[NAME])).start().await);
    let mut stay = Vec::new();
    for index in 0..20 {
        stay.push(enter(&gateway, &authority, &format!("stays{index}")).await);
    }
    let (stop, logins) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load: Vec<_> = (0..4)
        .map(|index| {
            let (gateway, authority) = (gateway.clone(), authority.clone());
            let (stop, logins) = (stop.clone(), logins.clone());
            tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    let client = enter(&gateway, &authority, &format!("comes{index}")).await;
                    client.close().await;
                    logins.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    let admin = gateway.admin().await;
    let served = async || admin.metric("hotgate_tls_reloads_total{outcome=\"loaded\"}").await;
    let mut sender = gateway.sender().await;
    for time in 1..=times {
        authority.issue(&[NAME]).replace(gateway.folder(), "push");
        eventually("the certificate is loaded", async || served().await >= f64::from(time)).await;
        let index = time as usize % stay.len();
        let line = format!(r#"{{"uid":"stays{index}","n":{time}}}"#);
        assert_eq!(sender.ask(&line).await, "ok");
        stay[index].expect(&line).await;
    }
    stop.store(true, Relaxed);
    for task in load {
        task.await.expect("every handshake succeeds");
    }
    assert!(logins.load(Relaxed) > 0);
    assert_eq!(admin.metric("hotgate_tls_handshakes_failed_total").await, 0.0);
    for client in &mut stay {
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn certificates_change_under_load() {
    reloads(20).await;
}

#[tokio::test]
#[ignore = "takes a minute"]
async fn soak_1000_certificates() {
    reloads(1000).await;
}
