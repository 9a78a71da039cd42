//! `broadcast`: each connection gets each line exactly once.

use crate::harness::{Run, Server};

fn broadcast(server: &str) -> Run {
    let server = Server::start(&format!("--bare-broadcast {server}"));
    server.run("broadcast --connections 300 --repeat 5 --pause 0.02 --loss-timeout 1")
}

#[test]
fn everybody_gets_each_line_once() {
    let r = broadcast("");
    assert_eq!((r.code, &r.json["faults"]), (0, &0.into()), "{}", r.json);
    assert_eq!((r.count("sent"), r.count("delivered"), r.count("replies_ok")), (5, 1500, 5));
    assert_eq!(r.json["last_us"]["count"], 5);
    assert_eq!(r.json["last_ms"].as_array().unwrap().len(), 5);
    assert!(r.json["last_us"]["min"].as_f64().unwrap() > 0.0);
    assert_eq!(r.json["effective_size"], 64);
}

#[test]
fn sees_who_is_left_out() {
    let r = broadcast("--drop-every 100");
    assert_eq!((r.count("delivered"), r.count("lost")), (1485, 15), "{}", r.json);
    assert_eq!(r.json["last_us"]["count"], 0, "no line has reached everybody");
    assert_eq!(r.json["faults"], 15);
}

#[test]
fn sees_what_comes_twice() {
    let r = broadcast("--dup-every 100");
    assert_eq!((r.count("delivered"), r.count("surplus"), r.count("lost")), (1500, 15, 0), "{}", r.json);
}

#[test]
fn sees_wrong_and_missing_answers() {
    let r = broadcast("--fail-every 5");
    assert_eq!((r.count("replies_ok"), r.count("replies_fail")), (4, 1), "{}", r.json);
    let r = broadcast("--mute-every 5");
    assert_eq!((r.count("replies_ok"), r.count("replies_missing")), (4, 1), "{}", r.json);
}

/// Tests a server that sends to only one connection of a uid.
#[test]
fn sees_a_server_that_does_not_broadcast() {
    let r = Server::start("").run("broadcast --connections 50 --repeat 1 --pause 0 --loss-timeout 0.5 --strict");
    assert_eq!((r.code, r.count("delivered"), r.count("lost")), (3, 1, 49), "{}", r.json);
}

#[test]
fn many_lines_at_a_time_are_counted_like_one() {
    let run = |server: &str| {
        let server = Server::start(&format!("--bare-broadcast {server}"));
        server.run("broadcast --connections 100 --repeat 50 --window 50 --pause 0 --loss-timeout 1")
    };
    let r = run("");
    assert_eq!((r.code, &r.json["faults"]), (0, &0.into()), "{}", r.json);
    assert_eq!((r.count("sent"), r.count("delivered"), r.count("replies_ok")), (50, 5000, 50));
    assert_eq!((&r.json["last_us"]["count"], &r.json["latency_us"]["count"]), (&50.into(), &5000.into()));
    let counts = |server| {
        let r = run(server);
        (r.count("delivered"), r.count("lost"), r.count("surplus"))
    };
    assert_eq!(counts("--drop-every 70"), (4929, 71, 0));
    assert_eq!(counts("--dup-every 70"), (5000, 0, 71));
}

#[test]
fn a_broadcast_by_http_is_counted_like_one_by_the_text_port() {
    let run = |server: &str| {
        Server::start(server).run("broadcast --sender http --connections 100 --repeat 10 --pause 0.01 --loss-timeout 1")
    };
    let r = run("");
    assert_eq!((r.code, &r.json["faults"]), (0, &0.into()), "{}", r.json);
    assert_eq!((r.count("sent"), r.count("delivered"), r.count("replies_ok")), (10, 1000, 10));
    let r = run("--drop-every 100");
    assert_eq!((r.count("delivered"), r.count("lost")), (990, 10), "{}", r.json);
    let r = run("--fail-every 5");
    assert_eq!((r.count("replies_ok"), r.count("replies_fail"), r.count("lost")), (8, 2, 0), "{}", r.json);
    let r = run("--mute-every 10");
    assert_eq!((r.count("replies_ok"), r.count("replies_missing")), (9, 1), "{}", r.json);
    for args in ["--sender http --window 2", "--sender stream", "--sender batch"] {
        assert_eq!(Server::start("").run(&format!("broadcast {args}")).code, 2);
    }
}
