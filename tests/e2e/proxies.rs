//! The handshake as plugins see it.

use hotgate_tests::{Component, Gateway, Setup, Upgrade};

async fn start(config: &str) -> Gateway {
    Setup::plugin(&Component::fixture(""), "").and(config).start().await
}

/// Sends this request. Returns the handshake that the authenticator received.
async fn shown(gateway: &Gateway, upgrade: Upgrade) -> String {
    let mut client = gateway.upgrade(&upgrade).await.expect("an upgrade");
    client.expect("hello v1").await;
    client.send("show").await;
    client.text().await
}

#[tokio::test]
async fn path_and_query_are_shown() {
    let gateway = start("").await;
    let shown_ = shown(&gateway, Upgrade::path("/a/b%20c?token=x&y=?")).await;
    assert!(shown_.contains(r#"path=/a/b%20c query=Some("token=x&y=?")"#), "{shown_}");
    for (target, seen) in [
        ("ws://127.0.0.1:1234", "path=/ query=None"),
        ("ws://127.0.0.1:1234?token=x", "path=/ query=Some(\"token=x\")"),
        ("ws://127.0.0.1:1234/a?token=x", "path=/a query=Some(\"token=x\")"),
    ] {
        let shown_ = shown(&gateway, Upgrade::path(target)).await;
        assert!(shown_.contains(seen), "{target}: {shown_}");
    }
    let shown_ = shown(&gateway, Upgrade::path("/")).await;
    assert!(shown_.contains("path=/ query=None"), "{shown_}");
    assert!(shown_.contains("remote=127.0.0.1:"), "{shown_}");
}

#[tokio::test]
async fn only_the_configured_headers_are_shown_in_lower_case() {
    let gateway = start("[websocket]\npass_headers = [\"x-tenant\", \"User-Agent\"]").await;
    let upgrade = Upgrade::default()
        .header("X-Tenant", "blue")
        .and("x-tenant", "green")
        .header("USER-AGENT", "tests")
        .header("Cookie", "secret=1")
        .header("Authorization", "secret");
    let shown = shown(&gateway, upgrade).await;
    assert!(shown.contains("x-tenant:blue,x-tenant:green"), "{shown}");
    assert!(shown.contains("user-agent:tests"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
}

#[tokio::test]
async fn no_header_is_shown_by_default() {
    let gateway = start("").await;
    let shown = shown(&gateway, Upgrade::default().header("Cookie", "secret=1")).await;
    assert!(shown.ends_with("headers="), "{shown}");
}

#[tokio::test]
async fn a_trusted_proxy_names_the_client() {
    let gateway = start("[websocket]\ntrusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]").await;
    for (forwarded, client) in [
        ("203.0.113.7", "203.0.113.7:"),
        ("198.51.100.1, 203.0.113.7, 10.1.2.3", "203.0.113.7:"),
        ("2001:db8::7", "[2001:db8::7]:"),
        ("nonsense", "127.0.0.1:"),
    ] {
        let shown = shown(&gateway, Upgrade::default().header("X-Forwarded-For", forwarded)).await;
        assert!(shown.contains(&format!("remote={client}")), "{forwarded}: {shown}");
    }
    let twice = Upgrade::default().and("X-Forwarded-For", "203.0.113.7").and("X-Forwarded-For", "10.1.2.3");
    assert!(shown(&gateway, twice).await.contains("remote=203.0.113.7:"));
}

#[tokio::test]
async fn a_proxy_may_be_named_by_the_ipv6_form_of_its_ipv4_address() {
    let gateway = start("[websocket]\ntrusted_proxies = [\"::ffff:127.0.0.0/104\"]").await;
    let shown = shown(&gateway, Upgrade::default().header("X-Forwarded-For", "203.0.113.7")).await;
    assert!(shown.contains("remote=203.0.113.7:"), "{shown}");
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let gateway = start("[websocket]\ntrusted_proxies = [\"10.0.0.0/8\"]").await;
    let shown = shown(&gateway, Upgrade::default().header("X-Forwarded-For", "203.0.113.7")).await;
    assert!(shown.contains("remote=127.0.0.1:"), "{shown}");
}

#[tokio::test]
async fn a_proxy_is_not_counted_before_it_says_for_whom_it_connects() {
    let config = "[websocket]\ntrusted_proxies = [\"127.0.0.1/32\"]\nhandshake_timeout = \"1m\"\n\
                  [limits]\nunauthenticated = 10\nunauthenticated_share = 20";
    let gateway = Gateway::configured(config).await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(tokio::net::TcpStream::connect(gateway.websocket).await.expect("the port is open"));
    }
    let of = |client: &str| Upgrade::default().header("X-Forwarded-For", client);
    let _first = gateway.upgrade(&of("203.0.113.1")).await.expect("an upgrade");
    let _second = gateway.upgrade(&of("203.0.113.1")).await.expect("an upgrade");
    let refusal = gateway.upgrade(&of("203.0.113.1")).await.expect_err("a refusal");
    assert!(refusal.status == 503 && refusal.body.contains("limits.unauthenticated_share"), "{refusal:?}");
    gateway.upgrade(&of("203.0.113.2")).await.expect("an upgrade");
}

/// A client of IPv6 has many addresses: a whole network.
#[tokio::test]
async fn a_network_of_ipv6_counts_as_one_client() {
    let config = "[websocket]\ntrusted_proxies = [\"127.0.0.1/32\"]\n[limits]\nconnections_per_address = 1";
    let gateway = Gateway::configured(config).await;
    let of = |client: &str| Upgrade::default().header("X-Forwarded-For", client);
    let _first = gateway.upgrade(&of("2001:db8:0:1::1")).await.expect("an upgrade");
    let refusal = gateway.upgrade(&of("2001:db8:0:1:2:3:4:5")).await.expect_err("a refusal");
    assert!(refusal.status == 503 && refusal.body.contains("limits.connections_per_address"), "{refusal:?}");
    gateway.upgrade(&of("2001:db8:0:2::1")).await.expect("an upgrade");
}

#[tokio::test]
async fn limits_count_the_clients_behind_a_proxy_not_the_proxy() {
    let config = "[websocket]\ntrusted_proxies = [\"127.0.0.1/32\"]\n[limits]\nconnections_per_address = 1";
    let gateway = Gateway::configured(config).await;
    let of = |client: &str| Upgrade::default().header("X-Forwarded-For", client);
    let _first = gateway.upgrade(&of("203.0.113.1")).await.expect("an upgrade");
    let _second = gateway.upgrade(&of("203.0.113.2")).await.expect("an upgrade");
    assert_eq!(gateway.upgrade(&of("203.0.113.1")).await.expect_err("a refusal").status, 503);
}
