//! `drain`: the server closes its clients, who come back elsewhere.

use crate::harness::Server;

#[test]
fn everybody_who_is_closed_comes_back_elsewhere() {
    let (drained, other) = (Server::start(""), Server::start(""));
    let pid = drained.pid();
    let r = drained.run(&format!(
        "drain --connections 300 --auth-rate 100 --duration 3 --warmup 0.2 --drain-at 1 --retry 0.5 --planned 100 \
         --elsewhere ws://127.0.0.1:{}/ --command 'kill -TERM {pid}'",
        other.ws
    ));
    // This server ends at once, without a close frame.
    assert_eq!((r.code, r.count("closed"), r.count("away")), (0, 300, 0), "{}", r.json);
    assert_eq!((&r.json["faults"], &r.json["busiest_second"]), (&300.into(), &300.into()), "{}", r.json);
    assert_eq!(r.json["busiest_to_planned"], 3.0);
    assert_eq!((r.count("auth_ok"), &r.json["back_us"]["count"]), (300, &300.into()), "{}", r.json);
}

#[test]
fn a_drain_that_does_not_begin_is_a_fault() {
    let server = Server::start("");
    let r = server
        .run("drain --connections 10 --auth-rate 10 --duration 1 --warmup 0.2 --drain-at 0.5 --command false --strict");
    assert_eq!((r.code, r.count("closed")), (3, 0), "{}", r.json);
    assert_eq!(r.json["faults"], 1, "{}", r.json);
}
