//! The HTTP push API: who may use it, and where it listens.

use std::net::SocketAddr;

use hotgate_tests::{Admin, Gateway, Setup, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A token of the least length, and another one.
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "ABCDEF0123456789ABCDEF0123456789";

/// The settings of a token in this file.
fn token(name: &str, file: &str) -> String {
    format!("[[api.token]]\nname = \"{name}\"\nsecret = {{ file = \"{file}\" }}\nscopes = [\"push:uid\"]\n")
}

/// The status of a request that has the right path only if it has the right token.
async fn status(api: &Admin, token: &str) -> u16 {
    let api = Admin { token: token.to_owned(), ..api.clone() };
    api.ask("GET /v1/nothing").await.status
}

fn write(gateway: &Gateway, name: &str, text: &str) {
    let path = gateway.folder().join(name);
    std::fs::write(path.with_extension("new"), text).expect("a writable folder");
    std::fs::rename(path.with_extension("new"), path).expect("a writable folder");
}

/// Serves with this configuration, on the port that it names, until the gateway ends.
async fn end_of(setup: Setup) -> (Option<i32>, String) {
    let ports = ["--websocket-listen", "127.0.0.1:0", "--text-listen", "127.0.0.1:0"];
    let setup = setup.environment("HOTGATE_API_LISTEN", "");
    let finished = setup.run(&[&["--config", "hotgate.toml"], &ports[..]].concat()).await;
    (finished.code, finished.stderr)
}

#[tokio::test]
async fn only_a_token_opens_it() {
    let gateway = Setup::new("").argument("--log-level=debug").start().await;
    let (api, admin) = (gateway.api().await, gateway.admin().await);
    assert_eq!(api.token.len(), 64);
    for line in ["POST /v1/push?uid=anna", "GET /v1/events", "DELETE /v1/blocks", "GET /v1/nothing", "GET /"] {
        for given in [None, Some(format!("Bearer {TOKEN}")), Some("Basic eDp5".to_owned()), Some("Bearer ".to_owned())]
        {
            let request = api.request(line).without("Authorization");
            let response =
                api.send(given.iter().fold(request, |it, given| it.header("Authorization", given)), b"").await;
            assert_eq!(
                (response.status, &response.json()["reason"]),
                (401, &"unauthorized".into()),
                "{line} {given:?}"
            );
            assert!(response.header("WWW-Authenticate").is_some_and(|value| value.starts_with("Bearer")));
        }
    }
    let twice = api.request("GET /v1/nothing").and("Authorization", "Bearer x");
    assert_eq!(api.send(twice, b"").await.status, 401);
    // Each listener has a token of its own.
    assert_eq!((status(&api, &admin.token).await, status(&admin, &api.token).await), (401, 401));
    for (line, status, reason) in [
        ("GET /v1/nothing", 404, "no-such-path"),
        ("GET /", 404, "no-such-path"),
        ("DELETE /v1/nothing", 404, "no-such-path"),
        ("PATCH /v1/push", 405, "method"),
    ] {
        let response = api.ask(line).await;
        assert_eq!((response.status, &response.json()["reason"]), (status, &reason.into()), "{line}");
    }
    // Each request is logged with the name of its token; those that may have changed something at a level of their own.
    for (method, level) in [("GET", "DEBUG"), ("DELETE", "INFO")] {
        let line = gateway.logged(|line| line.message() == "api request" && line.get("method") == method).await;
        assert_eq!((line.get("token"), line.get("level"), line.number("status")), ("default", level, 404), "{line:?}");
        assert!(line.get("path").starts_with('/'), "{line:?}");
    }
    let lines = gateway.log().since(Default::default());
    let said = lines.iter().filter(|line| line.message() == "api request refused").count();
    assert!((1..=5).contains(&said), "{said}");
    assert!(
        !lines.iter().any(|line| [&*api.token, TOKEN].iter().any(|token| line.says(token))),
        "a token is in the log"
    );
    assert!(admin.metric("hotgate_api_refused_total").await >= 22.0);
    for (route, status) in [("get /v1/events", 401), ("other", 404), ("other", 405)] {
        let name = format!("hotgate_api_requests_total{{route=\"{route}\",status=\"{status}\"}}");
        assert!(admin.metric(&name).await >= 1.0, "{name}");
    }
}

#[tokio::test]
async fn web_pages_and_foreign_names_are_refused() {
    let gateway = Setup::new("[api]\nallowed_hosts = [\"push.internal\"]").start().await;
    let api = gateway.api().await;
    for origin in ["http://attacker.example", "null", "http://localhost"] {
        for line in ["POST /v1/push?uid=anna", "GET /openapi.json"] {
            let response = api.send(api.request(line).and("Origin", origin), b"").await;
            assert_eq!((response.status, &response.json()["reason"]), (403, &"origin".into()), "{line} {origin}");
        }
    }
    for (host, status, reason) in [
        ("localhost", 404, "no-such-path"),
        ("[::1]:99", 404, "no-such-path"),
        ("Push.Internal:80", 404, "no-such-path"),
        ("attacker.example", 421, "host"),
        ("192.0.2.1", 421, "host"),
        ("local host", 400, "bad-request"),
        ("", 400, "bad-request"),
    ] {
        let response = api.send(api.request("GET /v1/nothing").header("Host", host), b"").await;
        assert_eq!((response.status, &response.json()["reason"]), (status, &reason.into()), "{host}");
    }
    let foreign = api.ask("GET http://attacker.example/v1/nothing").await;
    assert!(foreign.status == 421 && foreign.error().contains("api.allowed_hosts"), "{foreign:?}");
    // HTTP/1.0 is answered, too, but it needs a Host here.
    for (host, status) in [(format!("Host: {}\r\n", api.address), "404"), (String::new(), "400")] {
        let head = format!("GET /v1/nothing HTTP/1.0\r\n{host}Authorization: Bearer {}\r\n\r\n", api.token);
        let mut stream = TcpStream::connect(api.address).await.expect("the port is open");
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        within("an answer", stream.read_to_string(&mut answer)).await.expect("text");
        assert_eq!(answer.split(' ').nth(1), Some(status), "{answer}");
    }
}

/// Sends a request on an open connection, and returns the status.
async fn on(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).await.expect("sent");
    let mut answer = vec![0; 4096];
    let length = within("an answer", stream.read(&mut answer)).await.expect("an answer");
    String::from_utf8_lossy(&answer[..length]).split(' ').nth(1).expect("a status").to_owned()
}

#[tokio::test]
async fn strangers_keep_nobody_out_and_may_send_one_request() {
    let gateway = Setup::new("[api]\nconnections = 4").start().await;
    let api = gateway.api().await;
    let connect = async || TcpStream::connect(api.address).await.expect("the port is open");
    let request = api.request("GET /v1/nothing").encode();
    let mut sender = connect().await;
    assert_eq!(on(&mut sender, &request).await, "404");
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(connect().await);
    }
    for _ in 0..5 {
        assert_eq!(api.ask("GET /v1/nothing").await.status, 404);
    }
    assert_eq!(on(&mut sender, &request).await, "404");
    let begin = std::time::Instant::now();
    let wrong = api.bytes(&api.request("GET /v1/nothing").without("Authorization").encode()).await.expect("an answer");
    assert_eq!((wrong.status, wrong.header("Connection")), (401, Some("close")), "{wrong:?}");
    assert!(begin.elapsed().as_secs() < 5, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_port_that_is_taken_stops_the_gateway_only_if_the_settings_name_the_listener() {
    let other = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = other.local_addr().expect("bound").to_string();
    let (code, stderr) = end_of(Setup::new(&format!("[api]\nlisten = \"{address}\""))).await;
    assert!(code == Some(1) && stderr.contains(&address) && stderr.contains("api.listen"), "{code:?} {stderr}");
    // The default port. Somebody else may have it already.
    let _taken = TcpListener::bind("127.0.0.1:1236").await;
    let gateway = Setup::new("").environment("HOTGATE_API_LISTEN", "").start().await;
    let line = gateway.logged(|line| line.message().starts_with("no HTTP push API")).await;
    assert!(line.get("level") == "WARN" && line.get("error").contains("127.0.0.1:1236"), "{line:?}");
    let _anna = gateway.login("anna").await;
    assert!(gateway.reaches("anna").await);
    let disabled = Setup::new("[api]\nenabled = false").start().await;
    disabled.login("anna").await;
    assert!(!disabled.log().since(Default::default()).iter().any(|line| line.says("api")));
}

#[tokio::test]
async fn without_a_state_folder_it_needs_a_token_in_the_settings() {
    let nowhere = "state_folder = \"/dev/null/no\"\n";
    let (code, stderr) = end_of(Setup::new(&format!("{nowhere}[api]\nlisten = \"127.0.0.1:0\""))).await;
    let problem = "the HTTP push API has no token: add an [[api.token]]";
    assert!(code == Some(1) && stderr.contains(problem) && stderr.contains("no state folder"), "{code:?} {stderr}");
    let gateway = Setup::new(nowhere).environment("HOTGATE_API_LISTEN", "").start().await;
    gateway.logged(|line| line.message().starts_with("no HTTP push API")).await;
    gateway.login("anna").await;
    let gateway = Setup::new(nowhere).and(&token("a", "a")).bytes("a", TOKEN.as_bytes()).start().await;
    assert_eq!(status(&gateway.api().await, TOKEN).await, 404);
}

#[tokio::test]
async fn beyond_this_machine_it_listens_only_if_the_settings_say_so() {
    let (code, stderr) = end_of(Setup::new("[api]\nlisten = \"0.0.0.0:0\"")).await;
    assert!(code == Some(78) && stderr.contains("api.listen") && stderr.contains("api.plaintext"), "{code:?} {stderr}");
    let setup = Setup::new("[api]\nlisten = \"0.0.0.0:0\"\nplaintext = true");
    let gateway = setup.environment("HOTGATE_API_LISTEN", "").start().await;
    gateway.logged(|line| line.get("level") == "WARN" && line.says("the API speaks plain HTTP")).await;
    let Admin { address, token } = gateway.api().await;
    let api = Admin { address: SocketAddr::from(([127, 0, 0, 1], address.port())), token };
    assert_eq!(api.ask("GET /v1/nothing").await.status, 404);
}

#[tokio::test]
async fn its_token_is_private_stays_the_same_and_can_be_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let mut gateway = Gateway::start().await;
    let api = gateway.api().await;
    let file = gateway.state_folder().join("api-token");
    assert_eq!(std::fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    let line = gateway.logged(|line| line.get("listener") == "api").await;
    assert_eq!(line.get("token"), file.to_str().expect("a path in UTF-8"));
    gateway.restart().await;
    assert_eq!(gateway.api().await.token, api.token);
    std::fs::remove_file(&file).expect("it is there");
    gateway.signal("HUP");
    gateway.logged(|line| line.message() == "tokens of the API changed" && line.get("names") == "default").await;
    let new = gateway.api().await;
    assert_eq!((status(&new, &api.token).await, status(&new, &new.token).await), (401, 404));
}

#[tokio::test]
async fn tokens_change_with_the_configuration_while_connections_stay() {
    let config = |tokens: &str| format!("[watch]\nrescan = \"1h\"\n{tokens}");
    let setup = Setup::new(&config(&token("a", "a"))).bytes("a", TOKEN.as_bytes()).bytes("b", OTHER.as_bytes());
    let gateway = setup.start().await;
    let api = Admin { token: TOKEN.to_owned(), ..gateway.api().await };
    let line = gateway.logged(|line| line.get("listener") == "api").await;
    assert_eq!(line.get("token"), "", "{line:?}");
    let request = api.request("GET /v1/nothing").encode();
    let mut open = TcpStream::connect(api.address).await.expect("the port is open");
    assert_eq!(on(&mut open, &request).await, "404");

    let mark = gateway.log().mark();
    write(&gateway, "hotgate.toml", &config(&(token("b", "b") + &token("a", "a"))));
    let changed = gateway.logged_since(mark, |line| line.message() == "tokens of the API changed").await;
    assert_eq!(changed.get("names"), "b, a");
    assert_eq!((status(&api, TOKEN).await, status(&api, OTHER).await), (404, 404));
    assert_eq!(on(&mut open, &request).await, "404");

    // What is wrong changes nothing.
    for (tokens, problem) in [
        (token("b", "nowhere"), "api.token[0].secret: cannot use the file "),
        (token("b", "b") + "uid = [\"a\"]", "api.token[0].uid: unknown key"),
        (token("b", "b") + &token("b", "a"), "is the name of api.token[0], too"),
    ] {
        let mark = gateway.log().mark();
        write(&gateway, "hotgate.toml", &config(&tokens));
        let refused = gateway.logged_since(mark, |line| line.says("configuration refused")).await;
        assert!(refused.says(problem) && refused.says("hotgate.toml:"), "{refused:?}");
        assert_eq!((status(&api, TOKEN).await, status(&api, OTHER).await), (404, 404));
    }

    let mark = gateway.log().mark();
    write(&gateway, "hotgate.toml", &config(&token("b", "b")));
    gateway.logged_since(mark, |line| line.message() == "tokens of the API changed").await;
    assert_eq!((status(&api, TOKEN).await, status(&api, OTHER).await), (401, 404));
    assert_eq!(on(&mut open, &request).await, "401");

    // Without any, the token in the state folder opens it.
    let mark = gateway.log().mark();
    write(&gateway, "hotgate.toml", &config(""));
    gateway.logged_since(mark, |line| line.message() == "tokens of the API changed").await;
    assert_eq!((status(&api, OTHER).await, status(&api, &gateway.api().await.token).await), (401, 404));
    let lines = gateway.log().since(Default::default());
    assert!(!lines.iter().any(|line| line.says(TOKEN) || line.says(OTHER)), "a token is in the log");
}

#[tokio::test]
async fn a_token_in_a_file_changes_with_the_file() {
    let setup = Setup::new("[watch]\nrescan = \"1h\"\n").and(&token("a", "a")).bytes("a", TOKEN.as_bytes());
    let gateway = setup.start().await;
    let api = gateway.api().await;
    let mark = gateway.log().mark();
    write(&gateway, "a", &format!("{OTHER}\n"));
    gateway.logged_since(mark, |line| line.message() == "tokens of the API changed").await;
    assert_eq!((status(&api, TOKEN).await, status(&api, OTHER).await), (401, 404));
    let mark = gateway.log().mark();
    write(&gateway, "a", &TOKEN[1..]);
    let refused = gateway.logged_since(mark, |line| line.says("configuration refused")).await;
    assert!(refused.says("api.token[0].secret") && refused.says("at least 32 characters"), "{refused:?}");
    assert!(!refused.says(&TOKEN[1..]), "{refused:?}");
    assert_eq!(status(&api, OTHER).await, 404);

    let (code, stderr) = end_of(Setup::new(&token("a", "missing"))).await;
    assert!(
        code == Some(78) && stderr.contains("hotgate.toml:3: api.token[0].secret: cannot use the file"),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_new_token_works_with_the_lines_that_are_printed() {
    let made = Setup::new("").run(&["token", "new", "billing"]).await;
    assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""), "{made:?}");
    let (words, config) = made.stdout.split_at(made.stdout.find("[[api.token]]").expect("lines to paste"));
    let token = words.lines().find(|line| line.len() == 64).expect("a token");
    assert!(!config.contains(token), "{made:?}");
    let gateway = Setup::new(config).argument("--log-level=debug").start().await;
    let api = gateway.api().await;
    assert_eq!((status(&api, token).await, status(&api, &api.token).await), (404, 401));
    gateway.logged(|line| line.message() == "api request" && line.get("token") == "billing").await;
    let again = Setup::new("").run(&["token", "new", "billing"]).await;
    assert!(again.stdout != made.stdout);
    for wrong in ["a b", "", "ä", "a/b"] {
        let refused = Setup::new("").run(&["token", "new", wrong]).await;
        assert!(refused.code == Some(2) && refused.stderr.contains("a name of 1 to 64 letters"), "{refused:?}");
    }
}
