//! The admin listener: who may use it, its answers, and its metrics.

use hotgate_tests::{Admin, Component, Gateway, Setup, eventually, within};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn only_the_token_opens_it_and_health_needs_none() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    assert_eq!(admin.token.len(), 64);
    for line in ["GET /plugins", "GET /connections", "GET /metrics", "POST /plugins/router/rollback", "GET /nothing"] {
        for given in [None, Some("Bearer 0123456789abcdef0123456789abcdef"), Some("Basic eDp5"), Some("Bearer ")] {
            let request = admin.request(line).without("Authorization");
            let request = given.iter().fold(request, |request, given| request.header("Authorization", given));
            let response = admin.send(request, b"").await;
            assert_eq!(response.status, 401, "{line} {given:?}");
            assert!(response.header("WWW-Authenticate").is_some_and(|value| value.starts_with("Bearer")));
            assert!(!response.error().is_empty());
        }
    }
    let twice = admin.request("GET /plugins").and("Authorization", "Bearer x");
    assert_eq!(admin.send(twice, b"").await.status, 401);
    for line in ["GET /healthz", "GET /readyz"] {
        // The admin listener answers first. The gateway is ready once all its ports listen.
        eventually(line, async || admin.send(admin.request(line).without("Authorization"), b"").await.status == 200)
            .await;
    }
    assert_eq!(admin.ask("GET /plugins").await.status, 200);
    // However many requests are refused, only a few log lines say so.
    let refused = gateway.logged(|line| line.message() == "admin request refused").await;
    assert!(refused.get("path").starts_with('/') && refused.get("peer").starts_with("127.0.0.1:"), "{refused:?}");
    let lines = gateway.log().since(Default::default());
    let said = lines.iter().filter(|line| line.message() == "admin request refused").count();
    assert!((1..=3).contains(&said), "{said}");
    assert!(!lines.iter().any(|line| line.says(&admin.token)), "the token is in the log");
    assert!(admin.metric("hotgate_admin_refused_total").await >= 21.0);
}

#[tokio::test]
async fn a_name_that_was_made_to_point_here_is_refused() {
    let gateway = Setup::new("[admin]\nallowed_hosts = [\"hotgate.internal\", \"2001:DB8::0:1\", \"[2001:db8::2]\"]")
        .start()
        .await;
    let admin = gateway.admin().await;
    let port = admin.address.port();
    for (host, status) in [
        (format!("127.0.0.1:{port}"), 200),
        ("localhost".to_owned(), 200),
        (format!("LOCALHOST:{port}"), 200),
        ("[::1]:99".to_owned(), 200),
        ("hotgate.internal:80".to_owned(), 200),
        ("Hotgate.Internal.".to_owned(), 200),
        ("[2001:db8::1]:80".to_owned(), 200),
        ("[2001:db8:0::2]".to_owned(), 200),
        ("[2001:db8::3]".to_owned(), 421),
        (format!("attacker.example:{port}"), 421),
        ("localhost.attacker.example".to_owned(), 421),
        ("127.0.0.1.attacker.example".to_owned(), 421),
        ("192.0.2.1".to_owned(), 421),
        ("local host".to_owned(), 400),
        (String::new(), 400),
    ] {
        for line in ["GET /plugins", "GET /healthz"] {
            let response = admin.send(admin.request(line).header("Host", &host), b"").await;
            assert_eq!(response.status, status, "{host:?} {response:?}");
        }
    }
    let twice = admin.request("GET /plugins").and("Host", "localhost");
    assert_eq!(admin.send(twice, b"").await.status, 400);
    let absolute = admin.request("GET http://attacker.example/plugins");
    assert_eq!(admin.send(absolute, b"").await.status, 421);
}

#[tokio::test]
async fn web_pages_are_refused() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    for origin in ["http://attacker.example", "null", "http://localhost"] {
        let response = admin.send(admin.request("GET /healthz").and("Origin", origin), b"").await;
        assert_eq!(response.status, 403, "{origin}");
    }
}

#[tokio::test]
async fn the_token_is_private_and_stays_the_same() {
    use std::os::unix::fs::PermissionsExt;
    let mut gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&gateway.state_folder()), mode(&gateway.state_folder().join("admin-token"))), (0o700, 0o600));
    gateway.restart().await;
    let again = hotgate_tests::Admin { address: gateway.admin().await.address, ..admin };
    assert_eq!(again.ask("GET /plugins").await.status, 200);
}

#[tokio::test]
async fn without_a_private_place_for_the_token_only_probes_are_answered_and_the_rest_serves() {
    use std::os::unix::fs::PermissionsExt;
    let setup = Setup::new("state_folder = \"open\"").bytes("x", b"");
    let open = setup.path().join("open");
    std::fs::create_dir(&open).expect("a folder");
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o755)).expect("its mode");
    let gateway = setup.environment("HOTGATE_API_LISTEN", "").start().await;
    gateway.login("anna").await;
    let line = gateway.logged(|line| line.message().starts_with("no admin token")).await;
    assert!(line.get("error").contains("755"), "{line:?}");
    let line = gateway.logged(|line| line.get("listener") == "admin").await;
    let address = line.get("address").parse().expect("an address");
    let admin = Admin { address, token: "0123456789abcdef0123456789abcdef".to_owned() };
    for probe in ["GET /healthz", "GET /readyz"] {
        eventually(probe, async || admin.ask(probe).await.status == 200).await;
    }
    let refused = admin.ask("GET /plugins").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.error().contains("no state folder"), "{refused:?}");
    let disabled = Setup::new("[admin]\nenabled = false").start().await;
    disabled.login("anna").await;
    assert!(!disabled.log().since(Default::default()).iter().any(|line| line.get("listener") == "admin"));
}

#[tokio::test]
async fn probes_may_be_as_simple_as_supervisors_send_them() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let answer = async |request: String| {
        let mut stream = TcpStream::connect(admin.address).await.expect("the port is open");
        stream.write_all(request.as_bytes()).await.expect("it is sent");
        let mut answer = String::new();
        within("an answer", stream.read_to_string(&mut answer)).await.expect("text");
        answer.split(' ').nth(1).expect("a status").to_owned()
    };
    eventually("it is ready", async || admin.ask("GET /readyz").await.status == 200).await;
    for probe in ["GET /healthz", "GET /readyz", "HEAD /readyz"] {
        assert_eq!(answer(format!("{probe} HTTP/1.0\r\n\r\n")).await, "200", "{probe}");
        // A browser sends the name of the host that it asks. A foreign name is the name of a page that was made to
        // point here.
        let foreign = format!("{probe} HTTP/1.0\r\nHost: attacker.example\r\n\r\n");
        assert_eq!(answer(foreign).await, "421", "{probe}");
    }
    assert_eq!(answer("GET /plugins HTTP/1.0\r\n\r\n".to_owned()).await, "400");
    for wrong in ["GET /readyz/", "GET /healthz/"] {
        let response = admin.send(admin.request(wrong).without("Authorization"), b"").await;
        assert_eq!(response.status, 404, "{wrong} {response:?}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_in_json() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    for (line, status, words) in [
        ("DELETE /plugins", 405, "method"),
        ("POST /plugins/nobody/rollback", 404, "authenticator, router"),
        ("PUT /plugins/nobody", 404, "nobody"),
        ("POST /plugins/router/rollback", 409, "no earlier generation"),
        ("POST /plugins/origin-router/promote", 409, "there is nothing to promote"),
        ("PUT /plugins/router", 409, "builtin:origin-router"),
        ("PUT /plugins/%ff", 400, "UTF-8"),
        ("POST /plugins/router/promote?generation=x", 400, "generation"),
        ("POST /plugins/router/rollback?generation=7", 409, "not 7"),
        ("GET /connections?limit=0", 400, "limit"),
        ("GET /connections?limit=100000", 400, "1000"),
        ("GET /connections?after=x", 400, "query parameter after"),
        ("GET /connections?user=anna", 400, "query parameter user"),
        ("DELETE /connections/4711", 404, "4711"),
        ("DELETE /connections/anna", 400, "anna"),
        ("DELETE /connections", 400, "uid"),
        ("DELETE /connections?uid=a&code=1001", 400, "1001"),
        ("DELETE /connections?uid=a&code=5000", 400, "5000"),
        ("DELETE /connections/1?uid=a", 400, "not both"),
        (&*format!("DELETE /connections?uid=a&reason={}", "x".repeat(124)), 400, "123"),
    ] {
        let response = admin.ask(line).await;
        assert_eq!(response.status, status, "{line}: {response:?}");
        assert!(response.error().contains(words), "{line}: {response:?}");
    }
}

#[tokio::test]
async fn readiness_ends_when_the_gateway_drains() {
    let mut gateway = Setup::new("shutdown_grace = \"20s\"\n[websocket]\nclose_timeout = \"20s\"").start().await;
    let admin = gateway.admin().await;
    // A client that does not answer the close frame delays the drain.
    let client = gateway.login("anna").await;
    assert_eq!(admin.ask("GET /readyz").await.json(), json!({ "status": "ready" }));
    gateway.signal("TERM");
    eventually("it is not ready any more", async || admin.ask("GET /readyz").await.status == 503).await;
    assert_eq!(admin.ask("GET /healthz").await.status, 200);
    drop(client);
    assert_eq!(gateway.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_silent_connection_does_not_hold_up_a_shutdown() {
    let mut gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let _silent = TcpStream::connect(admin.address).await.expect("the port is open");
    let mut idle = TcpStream::connect(admin.address).await.expect("the port is open");
    idle.write_all(&admin.request("GET /healthz").encode()).await.expect("sent");
    assert!(idle.read(&mut [0; 1024]).await.expect("an answer") > 0);
    gateway.signal("TERM");
    let begin = std::time::Instant::now();
    assert_eq!(gateway.exit_code().await, Some(0));
    assert!(begin.elapsed().as_secs() < 5, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn connections_are_listed_in_pages_and_by_uid() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let mut clients = Vec::new();
    for number in 0..7 {
        clients.push(gateway.login(&format!("user {}", number % 3)).await);
    }
    // This connection is not authenticated, so it is not listed.
    clients.push(gateway.connect().await);
    let all = admin.json("GET /connections").await;
    let number = |id: &serde_json::Value| id.as_str().expect("an id is a string").parse().expect("of digits");
    let ids = |page: &serde_json::Value| -> Vec<u64> {
        page["connections"].as_array().expect("a list").iter().map(|one| number(&one["id"])).collect()
    };
    assert_eq!((ids(&all).len(), &all["next"]), (7, &json!(null)));
    assert!(ids(&all).is_sorted());
    let one = &all["connections"][0];
    assert_eq!((&one["uid"], &one["groups"], &one["outbox_bytes"]), (&json!("user 0"), &json!(0), &json!(0)));
    assert!(one["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")), "{one}");
    assert!(one["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{one}");

    let (mut paged, mut after) = (Vec::new(), json!("0"));
    while !after.is_null() {
        let page = admin.json(&format!("GET /connections?limit=3&after={}", number(&after))).await;
        paged.extend(ids(&page));
        after = page["next"].clone();
    }
    assert_eq!(paged, ids(&all));
    let own = admin.json("GET /connections?uid=user%200").await;
    assert_eq!(own["connections"].as_array().map(Vec::len), Some(3));
    let second = admin.json(&format!("GET /connections?uid=user%200&limit=1&after={}", ids(&own)[0])).await;
    assert_eq!((ids(&second), &second["next"]), (vec![ids(&own)[1]], &json!(ids(&own)[1].to_string())));
    assert_eq!(ids(&admin.json("GET /connections?uid=nobody").await), [0; 0]);
}

#[tokio::test]
async fn a_plus_in_a_query_is_a_plus() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let mut anna = gateway.login("+49 30").await;
    let listed = admin.json("GET /connections?uid=+49%2030").await;
    assert_eq!(listed["connections"].as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(admin.json("DELETE /connections?uid=%2049+30").await, json!({ "closed": 0 }));
    assert_eq!(admin.json("DELETE /connections?uid=+49%2030&reason=1+1").await, json!({ "closed": 1 }));
    assert_eq!(anna.next_frame().await.close_reason(), (4907, "1+1".to_owned()));
}

#[tokio::test]
async fn an_operator_closes_connections_with_code_and_reason() {
    let gateway = Gateway::with_plugin(&Component::fixture("")).await;
    let admin = gateway.admin().await;
    let mut watcher = gateway.enter("watcher").await;
    let (mut first, mut second) = (gateway.enter("anna").await, gateway.enter("anna").await);
    let page = admin.json("GET /connections?uid=anna").await;
    let id = page["connections"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(admin.json(&format!("DELETE /connections/{id}")).await, json!({ "closed": 1 }));
    assert_eq!(first.next_frame().await.close_reason(), (4907, "closed by an operator".to_owned()));
    let mut third = gateway.enter("anna").await;
    let line = "DELETE /connections?uid=anna&code=4000&reason=go%20%C3%A4way";
    let closed = admin.json(line).await["closed"].as_u64().expect("a number");
    assert!((2..=3).contains(&closed), "{closed}");
    for client in [&mut second, &mut third] {
        assert_eq!(client.next_frame().await.close_reason(), (4000, "go äway".to_owned()));
    }
    assert_eq!(admin.json("DELETE /connections?uid=nobody").await, json!({ "closed": 0 }));
    // The router receives the cause of each end.
    let told: Vec<_> = [watcher.text().await, watcher.text().await, watcher.text().await].into();
    assert!(told.iter().any(|line| line.starts_with("anna Cause::Operator 4907")), "{told:?}");
    assert!(told.iter().any(|line| line.starts_with("anna Cause::Operator 4000")), "{told:?}");
    assert!(admin.metric("hotgate_connections_ended_total{cause=\"operator\"}").await >= 2.0);
}

#[tokio::test]
async fn what_happens_is_counted() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let mut anna = gateway.login("anna").await;
    let mut denied = gateway.connect().await;
    denied.expect("HeartBeat").await;
    denied.send("nobody").await;
    denied.expect_close(4400).await;
    denied.ended().await;
    let _waiting = gateway.connect().await;
    let mut sender = gateway.sender().await;
    for (line, answer) in [(r#"{"uid":"anna"}"#, "ok"), (r#"{"uid":"bob"}"#, "fail"), ("no json", "fail")] {
        assert_eq!(sender.ask(line).await, answer);
    }
    anna.expect(r#"{"uid":"anna"}"#).await;
    anna.send(r#"{"id":"anna","msg":"hi"}"#).await;
    anna.expect("hi").await;
    let call = |slot: &str, function: &str, outcome: &str| {
        let plugin = if slot == "router" { "origin-router" } else { "origin-auth" };
        let labels = format!("slot=\"{slot}\",plugin=\"{plugin}\",generation=\"1\",function=\"{function}\"");
        format!("hotgate_plugin_calls_total{{{labels},outcome=\"{outcome}\"}}")
    };
    for (name, expected) in [
        ("hotgate_connections_accepted_total", 3.0),
        ("hotgate_logins_total{authenticator=\"origin-auth\"}", 1.0),
        ("hotgate_logins_denied_total{reason=\"plugin\"}", 1.0),
        ("hotgate_logins_denied_total{reason=\"too-late\"}", 0.0),
        ("hotgate_messages_received_total", 1.0),
        ("hotgate_pushes_ok_total", 1.0),
        ("hotgate_pushes_failed_total{reason=\"unreached\"}", 1.0),
        ("hotgate_pushes_failed_total{reason=\"refused\"}", 1.0),
        ("hotgate_outbox_bytes", 0.0),
        ("hotgate_slow_consumers_total", 0.0),
        ("hotgate_plugin_swaps_total{slot=\"router\",plugin=\"origin-router\"}", 0.0),
        ("hotgate_plugin_rollbacks_total{slot=\"router\",plugin=\"origin-router\"}", 0.0),
        ("hotgate_plugin_swap_seconds_count", 0.0),
        (&call("authenticator", "authenticate", "ok"), 2.0),
        (&call("authenticator", "greet", "ok"), 3.0),
        (&call("router", "push", "ok"), 3.0),
        (&call("router", "route", "ok"), 1.0),
    ] {
        assert_eq!(admin.metric(name).await, expected, "{name}");
    }
    eventually("the denied connection is gone", async || admin.metric("hotgate_connections").await == 2.0).await;
    assert_eq!(admin.metric("hotgate_connections_unauthenticated").await, 1.0);
    assert!(admin.metric("process_start_time_seconds").await > 1.6e9);
    let response = admin.ask("GET /metrics").await;
    assert_eq!(response.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    // Every sample belongs to a metric with a `# TYPE` line.
    for line in response.body.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().expect("a name");
        let of = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let known = |name: &str| response.body.contains(&format!("# TYPE {name} "));
        assert!(known(name) || known(of), "{line}");
    }
}

#[tokio::test]
async fn each_connection_that_is_accepted_comes_to_one_end() {
    let config = "[limits]\nconnections = 1\n[websocket]\nhandshake_timeout = \"500ms\"";
    let gateway = Gateway::configured(config).await;
    let admin = gateway.admin().await;
    let anna = gateway.login("anna").await;
    let refusal = gateway.upgrade(&Default::default()).await.expect_err("no place is left");
    assert_eq!(refusal.status, 503);
    // Too many for the gateway to answer each with 503: it drops some without an answer.
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(gateway.websocket).await.expect("the port is open"));
    }
    anna.close().await;
    drop(TcpStream::connect(gateway.websocket).await.expect("the port is open"));
    eventually("each is counted", async || {
        let text = admin.ask("GET /metrics").await.body;
        let sum = |name: &str| {
            let samples = text.lines().filter(|line| line.starts_with(&format!("hotgate_{name}_total")));
            samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
        };
        let names = ["connections_accepted", "handshakes_refused", "handshakes_abandoned", "connections_ended"];
        let [accepted, refused, abandoned, ended] = names.map(sum);
        (accepted, ended) == (303.0, 1.0) && accepted == refused + abandoned + ended
    })
    .await;
}

#[tokio::test]
async fn a_client_that_is_not_authenticated_is_no_plugin_s_doing() {
    let config = "[websocket]\nauthentication_timeout = \"500ms\"";
    let gateway = Setup::plugin(&Component::fixture(""), "").and(config).start().await;
    let admin = gateway.admin().await;
    for (sentence, code) in [("pass", 4902), ("silence", 4901), ("deny 4000 no", 4000)] {
        let mut client = gateway.connect().await;
        client.expect("hello v1").await;
        client.send(sentence).await;
        client.expect_close(code).await;
    }
    for (name, expected) in [
        ("hotgate_connections_ended_total{cause=\"unauthenticated\"}", 2.0),
        ("hotgate_connections_ended_total{cause=\"plugin\"}", 1.0),
        ("hotgate_logins_denied_total{reason=\"not-accepted\"}", 1.0),
        ("hotgate_logins_denied_total{reason=\"too-late\"}", 1.0),
        ("hotgate_logins_denied_total{reason=\"plugin\"}", 1.0),
    ] {
        assert_eq!(admin.metric(name).await, expected, "{name}");
    }
}

#[tokio::test]
async fn few_connections_and_short_requests_suffice() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let huge = admin.request("GET /healthz").and("X", &"x".repeat(1 << 20)).encode();
    let response = admin.bytes(&huge).await;
    assert!(response.is_none_or(|response| response.status == 431), "a head without end is read");
    assert!(admin.bytes(b"nonsense\r\n\r\n").await.is_none_or(|response| response.status == 400));
    assert_eq!(admin.ask("GET /healthz").await.status, 200);
}
