//! Listeners: several addresses, Unix sockets, sockets of systemd, and the PROXY protocol.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use hotgate_tests::{Authority, Client, Component, Gateway, Mark, Setup, Stream, Upgrade, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Lets the configuration choose the addresses of the WebSocket port and of the text port.
fn own_addresses(config: &str) -> Setup {
    Setup::new(config).without_addresses()
}

async fn greeted(stream: impl Into<Stream>) -> Client {
    let mut client = Client::open(stream, &Upgrade::default().encode()).await.expect("an upgrade");
    client.expect("HeartBeat").await;
    client
}

#[tokio::test]
async fn a_listener_may_have_several_addresses() {
    let setup = own_addresses(
        "[websocket]\nlisten = [\"127.0.0.1:0\", \"[::1]:0\", \"unix:ws.sock\"]\n\
         [text]\nlisten = [\"127.0.0.1:0\", \"unix:text.sock\"]\nmode = \"0600\"\n",
    );
    let mut gateway = setup.start().await;
    let lines = gateway.log().since(Mark::default()).into_iter();
    let addresses: Vec<_> =
        lines.filter(|line| line.message() == "listening" && line.get("listener") == "websocket").collect();
    assert_eq!(addresses.len(), 3);
    let mut clients = Vec::new();
    for line in &addresses {
        let address = line.get("address");
        let stream = match address.strip_prefix("unix:") {
            Some(path) => Stream::unix(Path::new(path)).await,
            None => Stream::tcp(address.parse().unwrap()).await,
        };
        clients.push(greeted(stream).await);
    }
    let path = gateway.folder().join("text.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(gateway.folder().join("ws.sock")).unwrap().permissions().mode() & 0o777, 0o660);
    clients[2].send(r#"{"id":"anna"}"#).await;
    clients[2].expect("Link_successful").await;
    let mut sender = Stream::unix(&path).await;
    sender.write_all(b"{\"uid\":\"anna\"}\n").await.unwrap();
    let mut answer = [0; 3];
    within("an answer", sender.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"ok\n");
    clients[2].expect(r#"{"uid":"anna"}"#).await;
    drop(clients);
    gateway.signal("TERM");
    assert_eq!(gateway.exit_code().await, Some(0));
    assert!(!gateway.folder().join("ws.sock").exists() && !path.exists(), "the sockets are removed at the end");
}

#[tokio::test]
async fn a_unix_socket_that_is_left_over_is_replaced_and_one_that_serves_is_not() {
    let config = "[websocket]\nlisten = \"unix:ws.sock\"\n";
    let mut gateway = own_addresses(config).start().await;
    // Killed: the socket stays behind.
    gateway.restart().await;
    greeted(Stream::unix(&gateway.folder().join("ws.sock")).await).await;

    let path = gateway.folder().join("ws.sock");
    let other = own_addresses(&format!("[websocket]\nlisten = \"unix:{}\"\n", path.display()));
    let finished = other.run(&["serve", "--config", "hotgate.toml"]).await;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("another process listens there"), "{finished:?}");
    greeted(Stream::unix(&path).await).await;

    let other = own_addresses("[websocket]\nlisten = \"unix:file\"\n").bytes("file", b"mine");
    let finished = other.run(&["serve", "--config", "hotgate.toml"]).await;
    assert!(finished.stderr.contains("there is a file that is not a socket"), "{finished:?}");
    assert_eq!(std::fs::read(other.path().join("file")).unwrap(), b"mine");
    let other = own_addresses("[websocket]\nlisten = \"unix:ws.sock\"\ngroup = \"no-such-group\"\n");
    let finished = other.run(&["serve", "--config", "hotgate.toml"]).await;
    assert!(finished.stderr.contains("websocket.group: there is no group"), "{finished:?}");
}

#[tokio::test]
async fn a_proxy_at_a_unix_socket_names_its_client() {
    let gateway = Setup::plugin(&Component::fixture(""), "")
        .and("[websocket]\nlisten = \"unix:ws.sock\"\n")
        .without_addresses()
        .start()
        .await;
    for (forwarded, shown) in [("192.0.2.7", "remote=192.0.2.7:0"), ("", "remote=127.0.0.1:0")] {
        let stream = Stream::unix(&gateway.folder().join("ws.sock")).await;
        let upgrade = Upgrade::default().header("X-Forwarded-For", forwarded);
        let mut client = Client::open(stream, &upgrade.encode()).await.expect("an upgrade");
        client.expect("hello v1").await;
        client.send("show").await;
        let seen = client.text().await;
        assert!(seen.contains(shown), "{seen}");
    }
}

#[tokio::test]
async fn sockets_of_systemd_take_the_place_of_the_addresses() {
    let setup = Setup::new("[websocket]\nlisten = \"192.0.2.1:1\"\n").without_addresses();
    let gateway = setup.activated(&[("websocket", "127.0.0.1:0"), ("text", "127.0.0.1:0")]).start().await;
    let mut anna = gateway.login("anna").await;
    assert!(gateway.reaches("anna").await);
    anna.expect(r#"{"uid":"anna"}"#).await;

    for (name, address, config, problem) in [
        ("web", "127.0.0.1:0", "", "FileDescriptorName= must be one of websocket, text, admin, api"),
        ("text", "0.0.0.0:0", "", "set text.allow_from to the addresses that may connect"),
        ("api", "0.0.0.0:0", "", "tokens would cross the network unencrypted"),
        ("api", "127.0.0.1:0", "api.enabled = false", "with the name \"api\", but api.enabled is false"),
    ] {
        let setup = Setup::new(config).without_addresses().activated(&[(name, address)]);
        let finished = setup.run(&["serve", "--config", "hotgate.toml"]).await;
        assert!(finished.code == Some(78) && finished.stderr.contains(problem), "{problem} in {finished:?}");
    }
}

/// The address that the authenticator sees after this header of a proxy.
async fn seen_behind(gateway: &Gateway, header: &[u8]) -> String {
    let mut stream = TcpStream::connect(gateway.websocket).await.expect("the port is open");
    stream.write_all(header).await.expect("it reads");
    let mut client = Client::open(stream, &Upgrade::default().encode()).await.expect("an upgrade");
    client.expect("hello v1").await;
    client.send("show").await;
    client.text().await
}

/// Sends these bytes and expects the end of the connection, without an answer that upgrades.
async fn refused(gateway: &Gateway, bytes: &[u8]) {
    let mut stream = TcpStream::connect(gateway.websocket).await.expect("the port is open");
    _ = stream.write_all(bytes).await;
    _ = stream.write_all(&Upgrade::default().encode()).await;
    _ = stream.shutdown().await;
    let mut answer = Vec::new();
    _ = within("the end", stream.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP/1.1 101"), "{bytes:?}: {answer:?}");
}

fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).expect("short").to_be_bytes();
    [V2, &[command, family], &length, addresses].concat()
}

#[tokio::test]
async fn a_trusted_proxy_names_its_client_before_the_first_byte() {
    let config =
        "[websocket]\nproxy_protocol = \"required\"\ntrusted_proxies = [\"127.0.0.1\"]\nhandshake_timeout = \"2s\"\n";
    let gateway = Setup::plugin(&Component::fixture(""), "").and(config).start().await;
    let v4 = [192, 0, 2, 7, 127, 0, 0, 1, 0x12, 0x67, 0, 80];
    let v6: Vec<u8> = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9], [0; 16]].concat();
    let v6 = [&v6[..], &[0x12, 0x67, 0, 80]].concat();
    for (header, shown) in [
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 80\r\n".to_vec(), "remote=192.0.2.7:4711"),
        (b"PROXY TCP6 2001:db8::9 ::1 4711 80\r\n".to_vec(), "remote=[2001:db8::9]:4711"),
        (v2(0x21, 0x11, &v4), "remote=192.0.2.7:4711"),
        (v2(0x21, 0x21, &v6), "remote=[2001:db8::9]:4711"),
        // With a field that the gateway does not know.
        (v2(0x21, 0x11, &[&v4[..], &[0xea, 0, 3, 1, 2, 3]].concat()), "remote=192.0.2.7:4711"),
    ] {
        let seen = seen_behind(&gateway, &header).await;
        assert!(seen.contains(shown), "{shown} in {seen}");
    }
    for wrong in [
        &b""[..],
        b"PROXY TCP4 192.0.2.7 127.0.0.1 4711\r\n",
        b"PROXY TCP4 2001:db8::9 ::1 4711 80\r\n",
        b"PROXY UNKNOWN\r\n",
        &[b"PROXY TCP4 ", &[b'1'; 200][..]].concat(),
        // A second header, and one whose addresses are too short.
        b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 80\r\nPROXY TCP4 192.0.2.8 127.0.0.1 4711 80\r\n",
        &v2(0x21, 0x11, &v4[..11]),
        &v2(0x20, 0x00, &[]),
        &v2(0x21, 0x31, &[0; 216]),
        &v2(0x21, 0x12, &v4),
        &v2(0x31, 0x11, &v4),
        &[V2, &[0x21, 0x11, 0xff, 0xff]].concat(),
    ] {
        refused(&gateway, wrong).await;
    }
    // Two of them were health checks, and one was a wrong request.
    let admin = gateway.admin().await;
    assert_eq!(admin.metric("hotgate_handshakes_refused_total{reason=\"proxy\"}").await, 9.0);
    assert_eq!(admin.metric("hotgate_handshakes_abandoned_total").await, 2.0);
    gateway.logged(|line| line.message() == "client refused" && line.says("websocket.proxy_protocol")).await;
    // Half a header is cut off in time.
    let mut silent = TcpStream::connect(gateway.websocket).await.expect("the port is open");
    silent.write_all(b"PROXY TCP4 192.0.2.7").await.unwrap();
    let mut answer = Vec::new();
    _ = within("the end", silent.read_to_end(&mut answer)).await;
    assert!(answer.is_empty(), "{answer:?}");
    assert_eq!(admin.metric("hotgate_handshakes_refused_total{reason=\"timeout\"}").await, 1.0);
    // Who is no proxy may not name addresses.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let mut stranger = socket.connect(gateway.websocket).await.unwrap();
    _ = stranger.write_all(b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 80\r\n").await;
    let mut answer = Vec::new();
    _ = within("the end", stranger.read_to_end(&mut answer)).await;
    assert!(answer.is_empty(), "{answer:?}");
    gateway.logged(|line| line.get("reason").contains("websocket.trusted_proxies")).await;
}

#[tokio::test]
async fn the_proxy_s_header_stands_before_tls_and_counts_for_the_text_port() {
    let authority = Authority::new();
    let identity = authority.issue(&["push.example.com"]);
    let proxy = "proxy_protocol = \"required\"\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let config = format!(
        "[websocket]\n{proxy}[[websocket.tls]]\ncertificate = \"c\"\nkey = \"k\"\n[text]\n{proxy}allow_from = [\"192.0.2.0/24\"]\n"
    );
    let gateway = Setup::new(&config)
        .bytes("c", identity.certificate.as_bytes())
        .bytes("k", identity.key.as_bytes())
        .start()
        .await;
    let mut stream = TcpStream::connect(gateway.websocket).await.expect("the port is open");
    stream.write_all(b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 80\r\n").await.unwrap();
    let stream = Stream::tls_over(stream, "push.example.com", authority.client(None)).await.unwrap();
    greeted(stream).await;
    for (address, answer) in [("192.0.2.9", "fail\n"), ("198.51.100.1", "")] {
        let mut sender = TcpStream::connect(gateway.text).await.unwrap();
        let line = format!("PROXY TCP4 {address} 127.0.0.1 4711 80\r\n{{\"uid\":\"nobody\"}}\n");
        _ = sender.write_all(line.as_bytes()).await;
        _ = sender.shutdown().await;
        let mut seen = String::new();
        _ = within("the end", sender.read_to_string(&mut seen)).await;
        assert_eq!(seen, answer, "{address}");
    }
    gateway.logged(|line| line.get("reason").contains("text.allow_from")).await;
}

#[tokio::test]
async fn impossible_listeners_are_refused() {
    for (config, problem) in [
        ("[websocket]\nlisten = []", "websocket.listen = []: must be an IP address and port"),
        (
            "[websocket]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:1\"]",
            "websocket.listen[1] = \"127.0.0.1:1\": is in the list twice",
        ),
        ("[websocket]\nlisten = \"unix:\"", "websocket.listen = \"unix:\": must be"),
        ("[websocket]\nmode = \"8\"", "websocket.mode = \"8\": must be three or four octal digits"),
        ("[websocket]\nlisten = \"unix:/a\"\n[text]\nlisten = \"unix:/a\"", "must not be the same as"),
        (
            "[websocket]\nproxy_protocol = \"auto\"",
            "websocket.proxy_protocol = \"auto\": must be \"off\" or \"required\"",
        ),
        ("[text]\nproxy_protocol = \"required\"", "text.proxy_protocol = \"required\": needs text.trusted_proxies"),
    ] {
        let finished = own_addresses(config).run(&["config", "check", "--config", "hotgate.toml"]).await;
        assert!(finished.code == Some(78) && finished.stderr.contains(problem), "{problem} in {finished:?}");
    }
}
