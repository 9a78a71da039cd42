//! TLS: certificates, their choice and their renewal, clients with certificates.

use std::process::Stdio;

use hotgate_tests::{
    Authority, Client, Frame, Gateway, Identity, Opcode, Setup, Stream, Upgrade, eventually, skip, within,
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

const NAME: &str = "push.example.com";

/// The table of a certificate for a listener.
fn table(listener: &str, name: &str) -> String {
    format!("[[{listener}.tls]]\ncertificate = \"{name}.pem\"\nkey = \"{name}.key\"\n")
}

async fn login(mut client: Client, uid: &str) -> Client {
    client.expect("HeartBeat").await;
    client.send(format!(r#"{{"id":"{uid}"}}"#)).await;
    client.expect("Link_successful").await;
    client
}

/// Connects by TLS and logs in.
async fn enter(gateway: &Gateway, authority: &Authority, uid: &str) -> Client {
    login(Client::connect_tls(gateway.websocket, NAME, authority).await.expect("an upgrade"), uid).await
}

#[tokio::test]
async fn clients_and_senders_speak_through_tls() {
    let authority = Authority::new();
    let config = table("websocket", "push") + &table("text", "push");
    let gateway = Setup::new(&config).identity("push", &authority.issue(&[NAME])).start().await;
    let line = gateway.logged(|line| line.message() == "listening" && line.get("listener") == "websocket").await;
    assert!(line.says("\"tls\":true"), "{line:?}");
    let mut anna = enter(&gateway, &authority, "anna").await;

    let mut sender = Stream::tls(gateway.text, NAME, authority.client(None)).await.unwrap();
    for length in [0, 1000, 16 << 10, 40 << 10, 1 << 20] {
        let line = format!(r#"{{"uid":"anna","text":"{}"}}"#, "x".repeat(length));
        sender.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut answer = [0; 3];
        within("an answer", sender.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"ok\n");
        anna.expect(&line).await;
    }
    anna.frame(Frame::ping("still there?")).await;
    anna.expect_frame(Opcode::PONG, "still there?").await;
    anna.close().await;
}

#[tokio::test]
async fn who_does_not_speak_tls_is_refused_and_hurts_nobody() {
    let authority = Authority::new();
    let gateway = Setup::new(&table("websocket", "push")).identity("push", &authority.issue(&[NAME])).start().await;
    let mut anna = enter(&gateway, &authority, "anna").await;
    for bytes in [&Upgrade::default().encode()[..], b"\0", b"\x16\x03\x01\xff\xff\x01", &[b'\x16'; 70_000]] {
        let mut stream = TcpStream::connect(gateway.websocket).await.unwrap();
        _ = stream.write_all(bytes).await;
        _ = stream.shutdown().await;
        let mut answer = Vec::new();
        _ = within("the end", stream.read_to_end(&mut answer)).await;
        assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    }
    // Another authority's clients do not trust this certificate.
    let stranger = Authority::new();
    Stream::tls(gateway.websocket, NAME, stranger.client(None)).await.unwrap_err();
    let admin = gateway.admin().await;
    eventually("the failures are counted", async || admin.metric("hotgate_tls_handshakes_failed_total").await >= 4.0)
        .await;
    anna.expect_nothing().await;
}

#[tokio::test]
async fn a_handshake_may_come_byte_by_byte_but_must_end_in_time() {
    let authority = Authority::new();
    let config = "[websocket]\nhandshake_timeout = \"2s\"\n".to_owned() + &table("websocket", "push");
    let gateway = Setup::new(&config).identity("push", &authority.issue(&[NAME])).start().await;
    // A proxy of our own passes bytes on one by one.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let slow = listener.local_addr().unwrap();
    let target = gateway.websocket;
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(target).await.unwrap();
        server.set_nodelay(true).unwrap();
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
            (client.into_split(), server.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        while let Ok(byte) = from_client.read_u8().await {
            to_server.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    let mut client = Client::connect_tls(slow, NAME, &authority).await.expect("an upgrade");
    client.expect("HeartBeat").await;

    // Half a handshake is cut off.
    let mut silent = TcpStream::connect(gateway.websocket).await.unwrap();
    silent.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
    let mut rest = Vec::new();
    _ = within("the end", silent.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn handshakes_beyond_the_limit_wait_and_one_address_has_its_share() {
    let authority = Authority::new();
    let limits = "[limits]\ntls_handshakes = 1\nunauthenticated_share = 100\n";
    let config = limits.to_owned() + &table("websocket", "push");
    let gateway = Setup::new(&config).identity("push", &authority.issue(&[NAME])).start().await;
    let shake_hands = async || Stream::tls(gateway.websocket, NAME, authority.client(None)).await.is_ok();
    let mut stalled = Vec::new();
    eventually("a refusal", async || {
        // This handshake has the only turn, for a second.
        let mut stream = TcpStream::connect(gateway.websocket).await.unwrap();
        stream.write_all(b"\x16").await.unwrap();
        stalled.push(stream);
        !shake_hands().await
    })
    .await;
    let admin = gateway.admin().await;
    let refused = "hotgate_handshakes_refused_total{reason=\"tls-handshakes\"}";
    assert!(admin.metric(refused).await >= 1.0);
    gateway.logged(|line| line.message() == "client refused" && line.says("limits.tls_handshakes")).await;
    eventually("the turn is over", shake_hands).await;
    assert_eq!(admin.metric("hotgate_tls_handshakes_failed_total").await, 0.0, "stalled ones are still under way");
    drop(stalled);
}

#[tokio::test]
async fn the_name_that_a_client_wants_chooses_the_certificate() {
    let authority = Authority::new();
    let config = ["first", "second", "wild"].map(|name| table("websocket", name)).concat();
    let gateway = Setup::new(&config)
        .identity("first", &authority.issue(&["one.example.com"]))
        .identity("second", &authority.issue(&["two.example.com", "deux.example.com"]))
        .identity("wild", &authority.issue(&["*.example.org"]))
        .start()
        .await;
    for name in ["one.example.com", "two.example.com", "deux.example.com", "any.example.org"] {
        Client::connect_tls(gateway.websocket, name, &authority).await.expect(name).expect("HeartBeat").await;
    }
    // A wildcard stands for one label. Unknown names get the first certificate, which the client then refuses.
    for name in ["a.b.example.org", "example.org", "three.example.com"] {
        let error = Stream::tls(gateway.websocket, name, authority.client(None)).await.unwrap_err();
        assert!(error.to_string().contains("one.example.com"), "{name}: {error}");
    }
}

#[tokio::test]
async fn clients_need_a_certificate_where_the_settings_say_so() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let config = ["text", "api"].map(|listener| {
        let auth = if listener == "text" { "required" } else { "optional" };
        format!(
            "{}[{listener}.tls_options]\nclient_ca = \"ca.pem\"\nclient_auth = \"{auth}\"\n",
            table(listener, "push")
        )
    });
    let token =
        "[[api.token]]\nname = \"billing\"\nclient_certificate = \"billing.internal\"\nscopes = [\"push:uid\"]\n";
    let gateway = Setup::new(&(config.concat() + token))
        .identity("push", &authority.issue(&[NAME]))
        .bytes("ca.pem", clients.certificate().as_bytes())
        .start()
        .await;
    let mut anna = gateway.login("anna").await;
    let (billing, stranger) = (clients.issue(&["billing.internal"]), authority.issue(&["billing.internal"]));

    // The text port: nobody without a certificate of this authority.
    for own in [None, Some(&stranger)] {
        let answered = async {
            let mut sender = Stream::tls(gateway.text, NAME, authority.client(own)).await?;
            sender.write_all(b"{\"uid\":\"anna\"}\n").await?;
            sender.read_u8().await
        };
        within("a refusal", answered).await.unwrap_err();
    }
    let mut sender = Stream::tls(gateway.text, NAME, authority.client(Some(&billing))).await.unwrap();
    sender.write_all(b"{\"uid\":\"anna\"}\n").await.unwrap();
    let mut answer = [0; 3];
    within("an answer", sender.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"ok\n");
    anna.expect(r#"{"uid":"anna"}"#).await;

    // The API: the certificate stands for a token.
    let api = gateway.api().await;
    let ask = async |own: Option<&Identity>, path: &str| {
        let mut stream = Stream::tls(api.address, NAME, authority.client(own)).await.unwrap();
        let body = "hello";
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        within("an answer", stream.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8(answer).unwrap()
    };
    let answer = ask(Some(&billing), "/v1/push?uid=anna").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(&json!({ "reached": 1 }).to_string()), "{answer}");
    anna.expect("hello").await;
    let answer = ask(Some(&billing), "/v1/push?everyone=true").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let answer = ask(Some(&clients.issue(&["shop.internal"])), "/v1/push?uid=anna").await;
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("client_certificate"), "{answer}");
    let answer = ask(None, "/v1/push?uid=anna").await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

#[tokio::test]
async fn impossible_rules_of_tls_are_refused() {
    let push = table("api", "push");
    for (config, problem) in [
        ("[[websocket.tls]]\ncertificate = \"a\"".to_owned(), "hotgate.toml:1: websocket.tls[0].key: must be set"),
        (
            "[[websocket.tls]]\nfile = \"a\"".to_owned(),
            "websocket.tls[0].file: unknown key; allowed here: certificate, key",
        ),
        ("[websocket]\ntls = 1".to_owned(), "websocket.tls: must be at most 64 tables, each headed [[websocket.tls]]"),
        (push.clone() + "[api.tls_options]\nclient_auth = \"required\"", "api.tls_options.client_ca: must be set"),
        (
            push.clone() + "[api.tls_options]\nclient_ca = \"ca.pem\"",
            "api.tls_options.client_auth: must be \"optional\"",
        ),
        (
            "[text.tls_options]\nclient_auth = \"required\"\nclient_ca = \"x\"".to_owned(),
            "text.tls_options.client_auth: needs a certificate",
        ),
        (
            push + "[api.tls_options]\nminimum = \"1.1\"",
            "api.tls_options.minimum = \"1.1\": must be \"1.2\" or \"1.3\"",
        ),
        (
            "[[api.token]]\nname = \"a\"\nclient_certificate = \"x\"\nscopes = [\"line\"]".to_owned(),
            "api.token[0].client_certificate: needs api.tls_options.client_auth",
        ),
        (
            "[admin]\nlisten = \"0.0.0.0:1235\"".to_owned(),
            "admin.listen = \"0.0.0.0:1235\": tokens would cross the network",
        ),
        (
            "[api]\nlisten = \"0.0.0.0:1236\"".to_owned(),
            "api.listen = \"0.0.0.0:1236\": tokens would cross the network",
        ),
        (
            "[websocket]\nlisten = \"unix:ws.sock\"\n".to_owned() + &table("websocket", "push"),
            "websocket.tls: needs an IP address in websocket.listen: Unix sockets have no TLS",
        ),
        (
            "[text.tls_options]\nminimum = \"1.3\"\n".to_owned(),
            "text.tls_options.minimum: needs a certificate by [[text.tls]]",
        ),
        ("[api]\nmode = \"0600\"\n".to_owned(), "api.mode: needs a Unix socket in api.listen"),
    ] {
        let setup = Setup::new(&config).environment("HOTGATE_ADMIN_LISTEN", "").environment("HOTGATE_API_LISTEN", "");
        let finished = setup.run(&["config", "check", "--config", "hotgate.toml"]).await;
        assert!(finished.code == Some(78) && finished.stderr.contains(problem), "{problem} in {finished:?}");
    }
}

#[tokio::test]
async fn openssl_and_python_speak_with_it() {
    for program in ["openssl", "python3"] {
        if Command::new(program).arg("--help").stdin(Stdio::null()).output().await.is_err() {
            return skip(&format!("there is no {program}"));
        }
    }
    let authority = Authority::new();
    let gateway = Setup::new(&table("websocket", "push"))
        .identity("push", &authority.issue(&[NAME]))
        .bytes("ca.pem", authority.certificate().as_bytes())
        .start()
        .await;
    let run = async |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(gateway.folder()).stdin(Stdio::null()).kill_on_drop(true);
        let output = within(program, command.output()).await.expect(program);
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let address = gateway.websocket.to_string();
    for (version, shown) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let connect = ["s_client", "-connect", &address, "-servername", NAME, "-CAfile", "ca.pem", "-alpn", "http/1.1"];
        let verify = ["-verify_return_error", "-verify_hostname", NAME, version];
        let seen = run("openssl", &[&connect[..], &verify].concat()).await;
        assert!(seen.contains("Verify return code: 0 (ok)") && seen.contains(shown), "{seen}");
        assert!(seen.contains("ALPN protocol: http/1.1"), "{seen}");
    }
    let seen = run("openssl", &["s_client", "-connect", &address, "-tls1_1"]).await;
    assert!(seen.contains("no peer certificate available"), "{seen}");
    let script = format!(
        "import socket, ssl\n\
         context = ssl.create_default_context(cafile='ca.pem')\n\
         raw = socket.create_connection(('127.0.0.1', {}))\n\
         tls = context.wrap_socket(raw, server_hostname='{NAME}')\n\
         tls.sendall({:?}.encode())\n\
         print(tls.version(), tls.recv(1000).split(b'\\r\\n')[0])\n",
        gateway.websocket.port(),
        String::from_utf8(Upgrade::default().encode()).unwrap(),
    );
    let seen = run("python3", &["-c", &script]).await;
    assert!(seen.contains("TLSv1.3 b'HTTP/1.1 101 Switching Protocols'"), "{seen}");
}

#[tokio::test]
async fn the_command_line_trusts_the_certificate_of_the_settings() {
    let port = within("a free port", tokio::net::TcpListener::bind("127.0.0.1:0")).await.unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let authority = Authority::new();
    let config = format!("[admin]\nlisten = \"{address}\"\n{}", table("admin", "push"));
    let pair = authority.issue(&["*.example.com"]);
    let chain = Identity { certificate: pair.certificate.clone() + &authority.certificate(), key: pair.key };
    let gateway = Setup::new(&config)
        .identity("push", &chain)
        .bytes("ca.pem", authority.certificate().as_bytes())
        .bytes("other.pem", Authority::new().certificate().as_bytes())
        .environment("HOTGATE_ADMIN_LISTEN", "")
        .start()
        .await;
    let seen = gateway.run(&["status", "--config", "hotgate.toml"]).await;
    assert!(seen.code == Some(0) && seen.stdout.contains("*.example.com"), "{seen:?}");
    let at = format!("https://127.0.0.1:{}", address.port());
    for (ca, problem) in [
        ("other.pem", "invalid peer certificate"),
        ("ca.pem", "invalid peer certificate"),
        ("none", "none: cannot read it"),
    ] {
        // The second one is trusted, but is not for this name.
        let seen = gateway.run(&["ready", "--address", &at, "--ca", ca]).await;
        assert!(seen.code != Some(0) && seen.stderr.contains(problem), "{seen:?}");
    }
    let seen = gateway.run(&["ready", "--address", &at]).await;
    assert!(seen.code == Some(78) && seen.stderr.contains("needs --ca"), "{seen:?}");
    // Without TLS there is no answer, and no token is sent.
    let seen = gateway.run(&["status", "--address", &address.to_string(), "--config", "hotgate.toml"]).await;
    assert_eq!(seen.code, Some(1), "{seen:?}");
}

#[tokio::test]
async fn the_command_line_reaches_a_unix_socket() {
    let gateway =
        Setup::new("[admin]\nlisten = \"unix:admin.sock\"\n").environment("HOTGATE_ADMIN_LISTEN", "").start().await;
    let seen = gateway.run(&["status", "--config", "hotgate.toml"]).await;
    assert!(seen.code == Some(0) && seen.stdout.contains("unix:"), "{seen:?}");
    let seen = gateway.run(&["plugin", "list", "--config", "hotgate.toml"]).await;
    assert!(seen.code == Some(0) && seen.stdout.contains("origin-auth"), "{seen:?}");
    let seen = gateway.run(&["ready", "--address", "unix:admin.sock"]).await;
    assert_eq!(seen.code, Some(0), "{seen:?}");
    let seen = gateway.run(&["ready", "--address", "unix:none.sock"]).await;
    assert_eq!(seen.code, Some(69), "{seen:?}");
}
