//! `relay` against a correct server and a deliberately broken server.

use crate::harness::{Run, Scratch, Server, free_port, wsload};

fn relay(server: &str, args: &str) -> Run {
    Server::start(server).run(&format!("relay --duration 0.5 --warmup 0.1 {args}"))
}

#[test]
fn closed_loop_is_clean() {
    let r = relay("", "--strict");
    r.assert_clean();
    assert_eq!(r.count("acks"), r.count("sent"));
    assert_eq!(r.count("acks_missing"), 0);
    assert_eq!(r.count("greetings"), 64);
    assert_eq!(r.count("alive_at_end"), 64);
    assert!(r.json["delivered_per_s"].as_f64().unwrap() > 1000.0);
    let l = &r.json["latency_us"];
    let q: Vec<f64> = ["min", "p50", "p90", "p99", "p999", "max"].iter().map(|k| l[k].as_f64().unwrap()).collect();
    assert!(q[0] > 0.0 && q.windows(2).all(|w| w[0] <= w[1]), "{l}");
}

#[test]
fn open_loop_keeps_the_rate() {
    let r = relay("", "--rate 5000 --connections 20");
    r.assert_clean();
    assert_eq!(r.count("sent") + r.count("not_sent"), 2500);
    assert!(r.count("not_sent") < 700, "{}", r.json);
    let per_s = r.json["delivered_per_s"].as_f64().unwrap();
    assert!((4000.0..6000.0).contains(&per_s), "{per_s}");
    assert!(r.json["schedule_lag_us"]["count"].as_u64().unwrap() > 1500);
}

#[test]
fn random_targets_and_an_odd_number_of_clients() {
    relay("", "--targets random --fanout 5 --connections 33").assert_clean();
    relay("", "--connections 7 --window 3").assert_clean();
    relay("", "--connections 1 --window 1").assert_clean();
}

#[test]
fn every_length_class_and_mask() {
    for size in ["34", "120", "126", "1000", "66000", "300000"] {
        let r = relay("", &format!("--size {size} --connections 4 --window 4"));
        r.assert_clean();
        assert_eq!(r.json["effective_size"].to_string(), size);
    }
    relay("", "--zero-mask").assert_clean();
    let r = relay("", "--size 1 --connections 2");
    r.assert_clean();
    assert_eq!(r.json["effective_size"], 34);
}

#[test]
fn torn_reads_fragments_and_interleaved_pings() {
    let r = relay("--trickle 5", "--connections 8 --window 8");
    r.assert_clean();
    let r = relay("--fragment --ping-ms 20", "--connections 8");
    r.assert_clean();
    let r = relay("--fragment --trickle 3 --greet-ms 50", "--connections 4 --window 4 --size 200");
    r.assert_clean();
    assert!(r.count("greetings") > 20);
}

// ---------------------------------------------------------------- faults must be seen

#[test]
fn sees_lost_messages() {
    let r = relay("--drop-every 1000", "");
    assert!(r.count("sent") > 2000);
    assert_eq!(r.count("lost"), r.count("sent") / 1000);
    assert_eq!(r.count("lost") + r.count("delivered"), r.count("sent"));
    assert_eq!((r.count("duplicated"), r.count("wrong_recipient"), r.count("out_of_order")), (0, 0, 0));
    assert_eq!(r.code, 0);
    let r = relay("--drop-every 1000", "--rate 5000 --strict");
    assert_eq!(r.count("lost"), r.count("sent") / 1000);
    assert_eq!(r.code, 3, "--strict");
}

#[test]
fn sees_duplicates() {
    let r = relay("--dup-every 1000", "");
    assert_eq!(r.count("duplicated"), r.count("sent") / 1000);
    assert!(r.count("duplicated") > 0);
    assert_eq!(r.count("delivered"), r.count("sent"));
    assert_eq!((r.count("lost"), r.count("out_of_order")), (0, 0));
}

#[test]
fn sees_wrong_recipients() {
    let r = relay("--misroute-every 1000", "--targets random");
    assert!(r.count("wrong_recipient") > 0);
    assert_eq!(r.count("wrong_recipient"), r.count("sent") / 1000);
    assert_eq!(r.count("lost"), r.count("wrong_recipient"));
}

#[test]
fn sees_reordering() {
    let r = relay("--swap-every 1000", "");
    assert!(r.count("out_of_order") > 0);
    assert!(r.count("lost") <= 1, "only one held back at the end: {}", r.json);
    assert_eq!((r.count("duplicated"), r.count("wrong_recipient")), (0, 0));
}

#[test]
fn sees_changed_bytes() {
    let r = relay("--corrupt-every 1000", "");
    assert!(r.count("corrupt") > 0);
    assert_eq!(r.count("corrupt"), r.count("sent") / 1000);
}

#[test]
fn sees_missing_acks() {
    let r = relay("--mute-every 1000", "");
    assert!(r.count("acks_missing") > 0);
    assert_eq!(r.count("acks_missing"), r.count("sent") / 1000);
    assert_eq!(r.count("lost"), 0);
    assert!(r.json["faults"].as_u64().unwrap() > 0);
}

#[test]
fn sees_closed_connections_and_broken_framing() {
    let r = relay("--close-at 500", "--rate 20000");
    assert_eq!(r.count("connections_closed"), 1);
    assert!(r.json["counts"]["closed_reasons"].to_string().contains("1011"), "{}", r.json);
    assert_eq!(r.count("alive_at_end"), 63);
    let r = relay("--bad-frame-at 5000", "");
    assert!(r.json["counts"]["closed_reasons"].to_string().contains("protocol error"), "{}", r.json);
}

#[test]
fn a_server_that_delivers_nothing_does_not_hang_it() {
    let r = relay("--drop-every 1", "--loss-timeout 0.05 --drain 0.3");
    assert_eq!(r.count("delivered"), 0);
    assert_eq!(r.count("lost"), r.count("sent"));
    assert!(r.count("window_resets") >= 64 * 3, "{}", r.json);
    assert!(r.took.as_secs_f64() < 5.0);
}

#[test]
fn a_dying_server_ends_the_run_with_an_account() {
    for loop_args in ["--window 8", "--rate 2000"] {
        let s = Server::start("--max-seconds 1.5");
        let r = s.run(&format!("relay --duration 8 --warmup 0.2 {loop_args}"));
        assert_eq!(r.code, 4, "{}", r.stderr);
        assert!(r.json["aborted"].as_str().unwrap().contains("all connections are gone"), "{}", r.json);
        assert_eq!(r.count("connections_closed"), 64);
        assert!(r.count("delivered") > 0);
        assert!(r.took.as_secs_f64() < 7.0);
    }
}

/// When a server stands still, all messages that are due meanwhile must have a high latency, not only the few that are
/// under way.
#[test]
fn open_loop_does_not_omit() {
    let dir = Scratch::new();
    let file = dir.file("stall");
    let s = Server::start(&format!("--stall-file {file} --stall-ms 600"));
    let toucher = {
        let file = file.clone();
        std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(900));
            std::fs::write(file, "").unwrap();
        })
    };
    let r = s.run("relay --rate 2000 --duration 2 --warmup 0.1 --connections 10");
    toucher.join().unwrap();
    assert_eq!(r.count("lost"), 0);
    let q = |k: &str| r.json["latency_us"][k].as_f64().unwrap();
    // The server stalls for 0.6 s of 1.9 s: 16 % of the messages wait for more than 300 ms.
    assert!(q("p90") > 150_000.0, "{}", r.json["latency_us"]);
    assert!(q("max") > 500_000.0);
    assert!(q("p50") < 100_000.0);
}

// ---------------------------------------------------------------- impossible runs report an error

#[test]
fn clear_errors() {
    let dead = free_port();
    let r = wsload(&format!("relay --ws ws://127.0.0.1:{dead}/ --duration 1 --warmup 0"));
    assert_eq!(r.code, 2);
    assert!(r.json["error"].as_str().unwrap().contains("refused"), "{}", r.json);

    let r = relay("--bad-accept", "");
    assert_eq!(r.code, 2);
    assert!(r.stderr.contains("Sec-WebSocket-Accept"), "{}", r.stderr);

    let r = relay("--refuse-auth-every 3", "");
    assert_eq!(r.code, 2);
    assert!(r.stderr.contains("Auth_failed"), "{}", r.stderr);

    let r = wsload("relay --ws ws://192.0.2.1:80/");
    assert_eq!(r.code, 2);
    assert!(r.stderr.contains("loopback"));

    let r = relay("", "--connections 100000000");
    assert_eq!(r.code, 2);
    assert!(r.stderr.contains("file descriptors"), "{}", r.stderr);

    let r = Server::start("").run("relay --duration 1 --warmup 9");
    assert_eq!(r.code, 2);
}
