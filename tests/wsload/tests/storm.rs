//! `storm`: logins while many connections are cut.

use crate::harness::{Run, Server};

const CUT: &str = "--warmup 0.2 --cut-at 1";

fn storm(server: &str, args: &str) -> Run {
    let server = Server::start(server);
    server.run(&format!("storm --connections 400 --auth-rate 100 --duration 2 {args}"))
}

fn p99(r: &Run, when: &str) -> f64 {
    r.json[when]["p99"].as_f64().expect("a figure")
}

#[test]
fn newcomers_get_in_before_and_after() {
    for close in ["rst", "fin"] {
        let r = storm("", &format!("{CUT} --close {close}"));
        assert_eq!((r.code, &r.json["faults"]), (0, &0.into()), "{}", r.json);
        assert_eq!((r.count("cut"), r.count("auth_ok")), (400, 200), "{}", r.json);
        assert_eq!(r.json["before_us"]["count"], 80);
        assert_eq!(r.json["after_us"]["count"], 100);
        assert!(r.json["cut_ms"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn sees_newcomers_wait_for_those_who_leave() {
    let r = storm("--leave-us 1500", CUT);
    assert_eq!(r.json["faults"], 0, "{}", r.json);
    assert!(p99(&r, "after_us") > 300_000.0, "{}", r.json);
    assert!(p99(&r, "after_us") > 2.0 * p99(&r, "before_us"), "{}", r.json);
}

#[test]
fn sees_newcomers_refused() {
    // The first 400 connections are cut.
    let r = storm("--refuse-auth-every 450", &format!("{CUT} --strict"));
    assert_eq!((r.code, r.count("auth_failed")), (3, 1), "{}", r.json);
    assert!(r.json["counts"]["failures"].to_string().contains("Auth_failed"));
}

#[test]
fn a_cut_that_never_comes_is_refused() {
    let r = storm("", "--warmup 0.2 --cut-at 3");
    assert_eq!(r.code, 2, "{}", r.stderr);
}
