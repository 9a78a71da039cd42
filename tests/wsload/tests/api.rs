//! Pushing through the HTTP API, against a correct server and a deliberately broken server.

use crate::harness::{Run, Server, wsload};

const SENDERS: [&str; 4] =
    ["http --senders 1", "http --senders 16", "batch --senders 2 --batch 50", "stream --senders 2"];

fn push(server: &str, sender: &str, args: &str) -> Run {
    Server::start(server).run(&format!("push --duration 0.3 --warmup 0.1 --sender {sender} {args}"))
}

fn messages(r: &Run) -> u64 {
    r.count("sent") + r.count("sent_offline")
}

#[test]
fn every_sender_is_clean() {
    for sender in SENDERS {
        let r = push("", sender, "--offline-ratio 0.2 --strict");
        r.assert_clean();
        assert_eq!((r.count("replies_ok"), r.count("replies_fail")), (r.count("sent"), r.count("sent_offline")));
        assert_eq!((r.count("replies_other"), r.count("replies_missing"), r.count("reply_mismatch")), (0, 0, 0));
        assert!(r.count("sent_offline") > 0 && r.json["reply_latency_us"]["p50"].as_f64().unwrap() > 0.0, "{}", r.json);
        assert_eq!(r.json["effective_size"], 64);
    }
}

#[test]
fn messages_are_whole_whatever_surrounds_them() {
    for sender in SENDERS {
        push("", sender, "--size 70000 --connections 5").assert_clean();
        push("--trickle 3", sender, "--connections 8 --window 4").assert_clean();
        let awkward =
            "--item text --size 100 --line-template '{\"uid\":\"{uid}\",\"x\":\"\\n\u{e4}\",\"msg\":\"{payload}\"} \\'";
        push("", sender, awkward).assert_clean();
    }
}

#[test]
fn requests_wait_for_the_answer_before() {
    let r = push("", "batch --senders 1 --batch 7", "");
    assert_eq!((r.count("sent") % 7, &r.json["config"]["window"]), (0, &7.into()), "{}", r.json);
    let r = push("", "http --senders 1", "");
    assert_eq!(r.json["config"]["window"], 1);
}

#[test]
fn a_stream_keeps_the_rate() {
    let r = push("", "stream --senders 2", "--rate 4000");
    r.assert_clean();
    assert_eq!(r.count("sent") + r.count("not_sent"), 1200);
}

#[test]
fn sees_wrong_answers() {
    for sender in SENDERS {
        let r = push("--ok-for-offline", sender, "--offline-ratio 0.1");
        assert!(r.count("sent_offline") > 0);
        assert_eq!(r.count("ok_for_offline"), r.count("sent_offline"), "{sender}");
        let r = push("--fail-every 100", sender, "");
        assert!(r.count("fail_for_online") > 0);
        assert_eq!((r.count("fail_for_online"), r.count("lost")), (messages(&r) / 100, 0), "{sender}");
    }
}

#[test]
fn sees_lost_duplicated_and_changed_messages() {
    for sender in SENDERS {
        let r = push("--drop-every 100", sender, "");
        assert_eq!((r.count("lost"), r.count("lost_after_ok")), (r.count("sent") / 100, r.count("sent") / 100));
        let r = push("--dup-every 100", sender, "");
        assert_eq!((r.count("duplicated"), r.count("lost")), (r.count("sent") / 100, 0), "{sender}");
        let r = push("--misroute-every 100", sender, "");
        assert_eq!(r.count("wrong_recipient"), r.count("sent") / 100, "{sender}");
        let r = push("--corrupt-every 100", sender, "");
        assert_eq!(r.count("corrupt"), r.count("sent") / 100, "{sender}");
        assert!(r.count("corrupt") > 0);
    }
    let r = push("--swap-every 100", "stream --senders 1 --connections 1", "");
    assert!(r.count("out_of_order") > 0, "{}", r.json);
}

#[test]
fn other_answers_are_errors() {
    for sender in SENDERS {
        let r = push("--busy-every 100", sender, "");
        let others = r.count("replies_other");
        assert!(others > 0, "{sender}");
        assert_eq!((others, r.count("lost")), (messages(&r) / 100, messages(&r) / 100), "{sender}");
        assert_eq!((r.count("replies_missing"), r.count("lost_after_ok")), (0, 0), "{sender}");
        let samples = r.json["counts"]["unexpected_samples"].to_string();
        assert!(samples.contains("503") && samples.contains("budget"), "{samples}");
    }
    let r = push("--busy-batch-every 10", "batch --senders 1 --batch 20", "");
    assert_eq!(r.count("replies_other"), messages(&r) / 20 / 10 * 20, "{}", r.json);
}

#[test]
fn sees_missing_answers() {
    let r = push("--mute-every 100", "http --senders 16", "--drain 0.2");
    // Each sender waits for ever after the first missing answer.
    assert_eq!((r.count("replies_missing"), r.count("lost")), (16, 0), "{}", r.json);
    let r = push("--mute-every 100", "batch --senders 1 --batch 50", "");
    assert_eq!(r.count("replies_other"), messages(&r) / 100, "{}", r.json);
    let r = push("--mute-every 100", "stream --senders 1", "--drain 0.2");
    let samples = r.json["counts"]["unexpected_samples"].to_string();
    assert!(r.count("replies_missing") > 0 && samples.contains("summary"), "{}", r.json);
}

#[test]
fn a_stream_that_the_server_ends_is_an_error() {
    let r = push("--end-stream-at 200", "stream --senders 1", "");
    assert_eq!((r.count("connections_closed"), r.count("replies_other")), (1, 1), "{}", r.json);
    assert!(r.json["counts"]["unexpected_samples"].to_string().contains("draining"), "{}", r.json);
}

#[test]
fn a_wrong_token_is_told() {
    for sender in SENDERS {
        let r = push("--api-token other", sender, "");
        assert_eq!(r.count("delivered"), 0, "{sender}");
        let counts = r.json["counts"].to_string();
        assert!(r.json["faults"].as_u64() > Some(0) && counts.contains("401"), "{counts}");
    }
}

#[test]
fn impossible_runs_are_refused() {
    for (args, why) in [
        ("http --rate 1000", "--rate"),
        ("batch --rate 1000", "--rate"),
        ("batch --batch 0", "--batch"),
        ("stream --line-template '{uid} {payload}'", "--item text"),
    ] {
        refused(&push("", args, ""), why);
    }
    refused(&wsload("push --sender http --api 192.0.2.1:80"), "loopback");
    refused(&wsload("push --sender http --api-token-file /nonexistent"), "/nonexistent");
}

fn refused(r: &Run, why: &str) {
    assert_eq!(r.code, 2, "{}", r.json);
    assert!(r.json["error"].as_str().is_some_and(|said| said.contains(why)), "{}", r.json);
}
