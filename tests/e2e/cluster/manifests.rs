//! The manifests of a cluster in Kubernetes: NATS servers and gateways run with the settings that stand there, but for
//! addresses and folders.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use hotgate_tests::{Admin, Gateway, Layout, NatsCluster, ServerSetup, Setup, eventually, patience};
use serde_json::json;

use super::{closed, join, outcome, post, push};

/// What `openssl rand -hex` may print, and NATS takes for a number if it is not in quotes.
const PASSWORD: &str = "1000000000000000000000000000000000000000000000000000000000000005";

const SERVERS: usize = 3;

/// Replaces words that must be there.
fn replace(text: &str, from: &str, to: impl ToString) -> String {
    assert!(text.contains(from), "no {from} in {text}");
    text.replace(from, &to.to_string())
}

/// A file of the manifests.
fn manifest(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/ops/kubernetes/cluster");
    std::fs::read_to_string(folder.join(name)).expect("a manifest")
}

/// The value behind the first `key` in `nats.yaml`.
fn value(key: &str) -> String {
    let text = manifest("nats.yaml");
    let value = text.lines().find_map(|line| line.trim_start_matches([' ', '-']).strip_prefix(key));
    value.unwrap_or_else(|| panic!("no {key} in nats.yaml")).trim().to_owned()
}

/// Starts the servers of `nats.yaml`. Returns `None` if the test must be skipped.
async fn start_nats() -> Option<NatsCluster> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let layouts = [(); SERVERS].map(|()| Layout::free());
    // Kubernetes puts the secret into this variable.
    let password = value("value:").trim_matches('\'').replace("$(PASSWORD)", PASSWORD);
    let setup = |index: usize| {
        let (name, layout) = (format!("nats-{index}"), layouts[index]);
        let mut text = replace(&manifest("nats.conf"), "0.0.0.0:4222", layout.client);
        text = replace(&text, "0.0.0.0:6222", layout.route);
        text = replace(&text, "0.0.0.0:8222", layout.monitor);
        text = replace(&text, "/run/nats/nats.pid", folder.path().join(format!("{name}.pid")).display());
        for (index, layout) in layouts.iter().enumerate() {
            text = replace(&text, &format!("nats-{index}.nats:6222"), layout.route);
        }
        let environment = [("POD_NAME", &name), ("NATS_PASSWORD", &password)];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.clone())).to_vec();
        ServerSetup { name, layout, configuration: text, environment }
    };
    let setups = (0..SERVERS).map(setup).collect();
    NatsCluster::start(folder, setups).await
}

/// One gateway with the settings of the manifest. A second token may do everything.
fn gateway(nats: &NatsCluster) -> Setup {
    let mut text = manifest("hotgate.toml");
    for (index, server) in nats.servers.iter().enumerate() {
        text = replace(&text, &format!("nats-{index}.nats:4222"), server.address());
    }
    text = replace(&text, "/run/secrets/hotgate-cluster/", "");
    text = replace(&text, "/run/secrets/hotgate/", "");
    let scopes = "[\"push:group\", \"push:everyone\", \"kick\", \"membership\"]";
    text += &format!("\n[[api.token]]\nname = \"test\"\nsecret = {{ file = \"test\" }}\nscopes = {scopes}\n");
    Setup::new(&text)
        .bytes("nats", PASSWORD.as_bytes())
        .bytes("secret", b"0123456789abcdef0123456789abcdef")
        .bytes("shop", b"shop-0123456789abcdef0123456789abcdef")
        .bytes("test", b"test-0123456789abcdef0123456789abcdef")
}

/// The API of a gateway with the token of this name.
async fn api(gateway: &Gateway, name: &str) -> Admin {
    Admin { token: format!("{name}-0123456789abcdef0123456789abcdef"), ..gateway.api().await }
}

/// Logs in at each gateway, and pushes from each to each: to uids, to a group and to everyone. The uids of each `round`
/// are others.
async fn work_together(gateways: &[Gateway; SERVERS], round: u32) {
    let uid = |index: usize| format!("client{index}-{round}");
    for gateway in gateways {
        let shop = api(gateway, "shop").await;
        // Who has just changed to another server says first that it cannot know.
        eventually("all others answer", async || push(&shop, "nobody", "x").await == "offline").await;
    }
    let mut clients = Vec::new();
    for (index, gateway) in gateways.iter().enumerate() {
        clients.push(gateway.login(&uid(index)).await);
        let joined =
            api(gateway, "test").await.json(&format!("PUT /v1/membership?group=all{round}&uid={}", uid(index))).await;
        assert_eq!(joined, json!({ "connections": 1 }));
    }
    for gateway in gateways {
        let (shop, test) = (api(gateway, "shop").await, api(gateway, "test").await);
        for (index, client) in clients.iter_mut().enumerate() {
            assert_eq!(push(&shop, &uid(index), "to one").await, "ok");
            client.expect("to one").await;
        }
        let members = post(&test, &format!("group=all{round}"), "to a group").await;
        let all = post(&test, "everyone=true", "to all").await;
        for answer in [&members, &all] {
            assert_eq!((outcome(answer).as_str(), answer.json()["reached"].as_u64()), ("ok", Some(3)), "{answer:?}");
        }
        for client in &mut clients {
            client.expect("to a group").await;
            client.expect("to all").await;
        }
    }
    // The first gateway closes a connection at the last one.
    let answer = api(&gateways[0], "test").await.json(&format!("DELETE /v1/connections?uid={}", uid(2))).await;
    assert_eq!(answer["closed"], 1, "{answer}");
    assert_eq!(closed(&mut clients.pop().expect("a client")).await, 4907);
    for client in clients {
        client.close().await;
    }
}

/// What a server answers to these lines.
fn ask(nats: &NatsCluster, password: &str, line: &str) -> String {
    let mut stream = TcpStream::connect(nats.servers[0].address()).expect("the port is open");
    stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a time");
    let connect = json!({ "verbose": false, "user": "hotgate", "pass": password });
    stream.write_all(format!("CONNECT {connect}\r\n{line}\r\nPING\r\n").as_bytes()).expect("the server reads");
    let (mut seen, mut bytes) = (String::new(), [0; 4096]);
    let begin = Instant::now();
    while !seen.contains("PONG") && begin.elapsed() < patience() {
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => seen += &String::from_utf8_lossy(&bytes[..read]),
            Err(_) => {}
        }
    }
    seen
}

#[tokio::test]
async fn the_manifests_of_kubernetes_work_as_they_stand() {
    // What the names and ports in the other files come from.
    let values = ["name:", "serviceName:", "replicas:", "containerPort:"].map(value);
    assert_eq!(values, ["nats", "nats", "3", "4222"]);
    let Some(mut nats) = start_nats().await else { return };
    let gateways: [Gateway; SERVERS] = join([(); SERVERS].map(|()| gateway(&nats))).await;
    work_together(&gateways, 1).await;

    // A pod ends: its server sends the gateways to the others.
    nats.servers[0].lame_duck();
    let first = &nats.servers[0];
    eventually("the end of the server", async || TcpStream::connect(first.address()).is_err()).await;
    work_together(&gateways, 2).await;
    nats.servers[0].restart().await;
    nats.complete().await;
    work_together(&gateways, 3).await;

    for server in &nats.servers {
        assert!(!server.log().contains("Violation"), "{}", server.log());
    }
    // Nobody but the gateways gets in, and they may use nothing but their subjects.
    assert!(ask(&nats, "0", "PING").contains("Authorization Violation"));
    assert!(!ask(&nats, PASSWORD, "SUB hg.test 1").contains("-ERR"));
    for line in ["SUB > 1", "SUB orders 1", "SUB _INBOX.> 1", "SUB $SYS.> 1", "PUB orders 0\r\n"] {
        let seen = ask(&nats, PASSWORD, line);
        assert!(seen.contains("Permissions Violation"), "{line}: {seen}");
    }
}
