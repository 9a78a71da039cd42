//! Which web pages may connect, and the warning if every page may.

use hotgate_tests::{Gateway, Setup, Upgrade};

fn page(origin: &str, host: &str) -> Upgrade {
    Upgrade::default().header("Origin", origin).header("Host", host)
}

async fn expect_refusal(gateway: &Gateway, upgrade: Upgrade) {
    let refusal = gateway.upgrade(&upgrade).await.expect_err("a refusal");
    assert!(refusal.status == 403 && refusal.body.contains("websocket.allowed_origins"), "{upgrade:?}: {refusal:?}");
}

#[tokio::test]
async fn pages_of_the_same_host_may_connect_with_any_scheme_and_port() {
    let gateway = Gateway::configured("[websocket]\nallowed_origins = [\"same-host\"]").await;
    for (origin, host) in [
        ("https://gateway.test", "gateway.test"),
        ("http://Gateway.test:8080", "gateway.test:1234"),
        ("http://[::1]:3000", "[0:0::1]:1234"),
        ("http://127.0.0.1:3000", "127.0.0.1"),
    ] {
        gateway.upgrade(&page(origin, host)).await.expect("an upgrade");
    }
    gateway.upgrade(&Upgrade::default()).await.expect("an upgrade without an origin");
    for (origin, host) in [
        ("null", "gateway.test"),
        ("null", "null"),
        ("", "gateway.test"),
        ("https://", "gateway.test"),
        ("https://evil.test", "gateway.test"),
        ("https://www.gateway.test", "gateway.test"),
        ("https://gateway.test.evil.test", "gateway.test"),
        ("https://gateway.test@evil.test", "gateway.test"),
        ("https://evil.test/gateway.test", "gateway.test"),
        ("https://evil.test, https://gateway.test", "gateway.test"),
        ("http://[::2]", "[::1]"),
        ("http://::1", "[::1]:1234"),
    ] {
        expect_refusal(&gateway, page(origin, host)).await;
    }
    expect_refusal(&gateway, page("https://gateway.test", "gateway.test").and("Origin", "https://evil.test")).await;
    gateway.logged(|line| line.message() == "client refused" && line.says("websocket.allowed_origins")).await;
}

#[tokio::test]
async fn a_wildcard_is_for_the_hosts_below_a_domain() {
    let config = "[websocket]\nallowed_origins = [\"https://*.example.com\", \"https://app.test\"]";
    let gateway = Gateway::configured(config).await;
    for origin in ["https://www.example.com", "https://A.b.Example.com", "https://app.test"] {
        gateway.upgrade(&page(origin, "gateway.test")).await.expect("an upgrade");
    }
    for origin in [
        "https://example.com",
        "https://evil-example.com",
        "https://.example.com",
        "http://www.example.com",
        "https://www.example.com:8443",
        "https://www.example.com.evil.test",
        "https://evil.test/www.example.com",
        "https://www.app.test",
        "null",
    ] {
        expect_refusal(&gateway, page(origin, "example.com")).await;
    }
}

#[tokio::test]
async fn a_gateway_that_believes_everybody_on_a_network_says_so_once() {
    let warns = async |setup: Setup| {
        let gateway = setup.start().await;
        // This line comes after all lines of the start.
        gateway.signal("HUP");
        gateway.logged(|line| line.says("reading the configuration again")).await;
        let lines = gateway.log().since(Default::default());
        lines.iter().filter(|line| line.says("believes every client") && line.get("level") == "WARN").count()
    };
    assert_eq!(warns(Setup::new("").websocket("0.0.0.0:0")).await, 1);
    assert_eq!(warns(Setup::new("")).await, 0, "loopback");
    let listed = Setup::new("[websocket]\nallowed_origins = [\"same-host\"]").websocket("0.0.0.0:0");
    assert_eq!(warns(listed).await, 0, "origins are listed");
    let other = "[[authenticator]]\nfile = \"builtin:hmac-auth\"\nsettings = { HMAC_SECRET = \"0123456789abcdef0123456789abcdef\" }";
    assert_eq!(warns(Setup::new(other).websocket("0.0.0.0:0")).await, 0, "another authenticator");
}
