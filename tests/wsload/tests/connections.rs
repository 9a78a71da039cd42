//! `connect` and `idle`.

use crate::harness::{Server, free_port, wsload};

#[test]
fn connect_is_clean_in_every_close_mode() {
    for mode in ["clean", "fin", "rst"] {
        let s = Server::start("");
        let r = s.run(&format!("connect --duration 1 --warmup 0.2 --concurrency 16 --close {mode} --strict"));
        assert_eq!(r.code, 0, "{mode}: {} {}", r.stderr, r.json);
        assert!(r.count("ready") > 200, "{mode}: {}", r.json);
        assert_eq!((r.count("failed"), r.count("unfinished"), r.count("close_timeouts")), (0, 0, 0), "{mode}");
        if mode == "clean" {
            assert_eq!(r.count("clean_closes"), r.count("ready"));
        }
        assert!(r.json["connects_per_s"].as_f64().unwrap() > 100.0);
        assert!(r.json["handshake_us"]["p50"].as_f64().unwrap() > 0.0);
        assert!(r.json["auth_us"]["count"].as_u64() == r.json["latency_us"]["count"].as_u64());
    }
}

#[test]
fn connect_sees_refusals() {
    let s = Server::start("--refuse-auth-every 10");
    let r = s.run("connect --duration 1 --warmup 0");
    let total = r.count("failed") + r.count("ready");
    assert_eq!(r.count("failed"), total / 10, "{}", r.json);
    assert!(r.json["counts"]["failures"].to_string().contains("Auth_failed"));
}

#[test]
fn connect_fails_clearly() {
    let dead = free_port();
    let r = wsload(&format!("connect --ws ws://127.0.0.1:{dead}/ --duration 3 --warmup 0"));
    assert_eq!(r.code, 2);
    assert!(r.json["error"].as_str().unwrap().contains("no connection could be made"), "{}", r.json);
    let s = Server::start("--bad-accept");
    let r = s.run("connect --duration 2 --warmup 0");
    assert_eq!(r.code, 2);
    assert!(r.stderr.contains("Sec-WebSocket-Accept"));
}

#[test]
fn idle_holds_connections_and_measures_memory() {
    let s = Server::start("--ping-ms 300 --enforce-pong");
    let r = s.run(&format!(
        "idle --connections 600 --duration 1.5 --warmup 0 --settle 0.2 --keepalive 0.5 --source-addrs 3 --strict \
         --server-pid {}",
        s.pid()
    ));
    assert_eq!(r.code, 0, "{} {}", r.stderr, r.json);
    assert_eq!((r.count("opened"), r.count("alive"), r.count("closed")), (600, 600, 0));
    assert_eq!(r.count("responsive"), 600);
    assert!(r.count("pings_received") >= 600 * 3, "{}", r.json);
    // Three rounds of keepalives, each answered by a pong.
    assert!((1200..=1800).contains(&r.count("keepalives_sent")), "{}", r.json);
    assert!(r.count("pongs_received") >= 1200);
    let m = &r.json["server"];
    assert!(m["rss_bytes_connected"].as_u64() > m["rss_bytes_before"].as_u64(), "{m}");
    assert!(m["rss_per_connection"].as_f64().unwrap() > 0.0);
}

#[test]
fn idle_sees_connections_die() {
    let s = Server::start("--ping-ms 300 --enforce-pong");
    let r = s.run("idle --connections 100 --duration 1.2 --warmup 0 --settle 0 --ignore-pings");
    assert_eq!((r.count("opened"), r.count("alive"), r.count("closed")), (100, 0, 100), "{}", r.json);
}

#[test]
fn idle_sees_connections_that_do_not_answer() {
    let s = Server::start("--no-pong");
    let r = s.run("idle --connections 100 --duration 0.3 --settle 0 --drain 0.3");
    assert_eq!((r.count("alive"), r.count("responsive")), (100, 0), "{}", r.json);
}

#[test]
fn idle_says_when_there_are_too_few_descriptors() {
    let s = Server::start("");
    let r = s.run("idle --connections 50000000 --duration 1 --warmup 0");
    assert_eq!(r.code, 2);
    assert!(r.stderr.contains("file descriptors"), "{}", r.stderr);
}
