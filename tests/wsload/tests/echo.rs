//! Servers that send every message back.

use crate::harness::Server;

#[test]
fn echo() {
    let s = Server::start("--mode echo");
    let r = s.run("relay --adapter echo --duration 0.5 --warmup 0.1");
    r.assert_clean();
    let r = s.run("relay --adapter echo --duration 0.5 --warmup 0.1 --rate 3000 --size 500");
    r.assert_clean();
    let r = s.run("connect --adapter echo --duration 0.5 --warmup 0.1 --strict");
    assert_eq!(r.code, 0, "{}", r.json);
}

#[test]
fn a_broken_echo_is_accounted_for() {
    let s = Server::start("--mode echo --drop-every 1000 --dup-every 700");
    let r = s.run("relay --adapter echo --duration 0.5 --warmup 0.1");
    assert_eq!(r.count("lost"), r.count("sent") / 1000);
    assert!(r.count("duplicated") > 0);
}
