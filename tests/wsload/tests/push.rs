//! `push` against a correct server and a deliberately broken server.

use crate::harness::{Run, Server};

fn push(server: &str, args: &str) -> Run {
    Server::start(server).run(&format!("push --duration 0.5 --warmup 0.1 {args}"))
}

fn lines(r: &Run) -> u64 {
    r.count("sent") + r.count("sent_offline")
}

#[test]
fn closed_loop_is_clean() {
    let r = push("", "--offline-ratio 0.2 --strict");
    r.assert_clean();
    assert_eq!(r.count("replies_ok"), r.count("sent"));
    assert_eq!(r.count("replies_fail"), r.count("sent_offline"));
    assert_eq!((r.count("replies_other"), r.count("replies_missing"), r.count("reply_mismatch")), (0, 0, 0));
    let share = r.count("sent_offline") as f64 / lines(&r) as f64;
    assert!((0.17..0.23).contains(&share), "{share}");
    assert_eq!(r.json["effective_size"], 64);
    assert!(r.json["reply_latency_us"]["p50"].as_f64().unwrap() > 0.0);
}

#[test]
fn open_loop_zipf_large_and_small() {
    let r = push("", "--rate 4000 --spread zipf --zipf-s 1.1 --senders 2");
    r.assert_clean();
    assert_eq!(lines(&r) + r.count("not_sent"), 2000);
    push("", "--size 70000 --window 4 --connections 5").assert_clean();
    push("--trickle 3", "--window 4 --connections 8").assert_clean();
    // More senders than clients, and one sender with one client.
    push("", "--senders 9 --connections 4").assert_clean();
    push("", "--senders 1 --connections 1 --window 1").assert_clean();
}

#[test]
fn sees_ok_for_offline_uids() {
    let r = push("--ok-for-offline", "--offline-ratio 0.1");
    assert!(r.count("sent_offline") > 0);
    assert_eq!(r.count("ok_for_offline"), r.count("sent_offline"));
    assert_eq!(r.count("reply_mismatch"), r.count("sent_offline"));
    assert_eq!((r.count("fail_for_online"), r.count("lost")), (0, 0));
}

#[test]
fn sees_fail_for_online_uids() {
    let r = push("--fail-every 1000", "");
    assert!(r.count("fail_for_online") > 0);
    assert_eq!(r.count("fail_for_online"), lines(&r) / 1000);
    assert_eq!(r.count("lost"), 0);
}

#[test]
fn sees_lost_duplicated_and_misrouted_lines() {
    let r = push("--drop-every 1000", "");
    assert!(r.count("lost") > 0);
    assert_eq!(r.count("lost"), r.count("sent") / 1000);
    assert_eq!(r.count("lost_after_ok"), r.count("lost"));
    let r = push("--dup-every 1000", "");
    assert_eq!(r.count("duplicated"), r.count("sent") / 1000);
    assert_eq!(r.count("lost"), 0);
    let r = push("--misroute-every 1000", "");
    assert!(r.count("wrong_recipient") > 0);
    assert_eq!(r.count("wrong_recipient"), r.count("sent") / 1000);
    let r = push("--corrupt-every 1000", "");
    assert_eq!(r.count("corrupt"), r.count("sent") / 1000);
}

#[test]
fn sees_missing_answers() {
    let r = push("--mute-every 1000", "--rate 5000");
    assert!(r.count("replies_missing") > 0);
    assert_eq!(r.count("replies_missing"), lines(&r) / 1000);
    assert_eq!(r.count("lost"), 0);
}
