//! `swap`: commands under load, the timeline, and newcomers.

use crate::harness::{Scratch, Server};

#[test]
fn a_stall_is_found_and_attributed_to_its_command() {
    for via in ["relay", "push"] {
        let dir = Scratch::new();
        let file = dir.file("stall");
        let s = Server::start(&format!("--stall-file {file} --stall-ms 1000"));
        let r = s.run(&format!(
            "swap --via {via} --rate 2000 --duration 3.5 --warmup 0.3 --connections 10 --auth-rate 50 \
             --at '1.5:touch {file}' --at 0.4:true --after 0.6"
        ));
        r.assert_clean();
        let commands = r.json["commands"].as_array().unwrap();
        let max = |i: usize, k: &str| commands[i]["effect"]["max"][k].as_f64().unwrap();
        assert_eq!(commands[0]["exit"], 0);
        assert!(max(0, "worst_after_us") > 900_000.0, "{}", commands[0]);
        let at = max(0, "worst_at_s");
        assert!((1.4..2.0).contains(&at), "{at}");
        assert!(max(1, "worst_after_us") < 900_000.0, "{}", commands[1]);
        // Newcomers were delayed by the stall, too.
        assert!(commands[0]["effect"]["auth_max"]["worst_after_us"].as_f64().unwrap() > 700_000.0);
        let ok = r.json["auth"]["ok"].as_u64().unwrap();
        assert!((165..=175).contains(&ok), "{ok}");
        assert_eq!(r.json["auth"]["failed"], 0);
        let rows = r.json["timeline"]["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 35);
        let scheduled: u64 = rows.iter().map(|r| r[1].as_u64().unwrap()).sum();
        assert_eq!(scheduled + r.count("not_sent"), 7000);
    }
}

#[test]
fn refused_newcomers_and_failing_commands_are_reported() {
    let dir = Scratch::new();
    let file = dir.file("refuse");
    let s = Server::start(&format!("--refuse-file {file}"));
    let r = s.run(&format!(
        "swap --rate 1000 --duration 2 --warmup 0.2 --connections 4 --auth-rate 200 --auth-hold 0.1 \
         --at '0.8:touch {file}' --at '1.4:rm {file}; echo gone >&2; exit 4' --after 0.5"
    ));
    assert_eq!(r.code, 0, "{}", r.stderr);
    assert_eq!(r.count("lost"), 0);
    let failed = r.json["auth"]["failed"].as_u64().unwrap();
    assert!((40..=220).contains(&failed), "{}", r.json["auth"]);
    assert!(r.json["auth"]["ok"].as_u64().unwrap() > 200);
    assert!(r.json["auth"]["failures"].to_string().contains("Auth_failed"));
    let c = &r.json["commands"];
    assert!(c[0]["effect"]["auth_failed_after"].as_u64().unwrap() > 50, "{c}");
    assert_eq!(c[1]["exit"], 4);
    assert_eq!(c[1]["stderr"], "gone");
    assert!(r.json["faults"].as_u64().unwrap() > failed);
}

#[test]
fn losses_show_in_their_bucket() {
    let s = Server::start("--drop-every 500");
    let r = s.run("swap --rate 5000 --duration 1.5 --warmup 0.2 --connections 10");
    let rows = r.json["timeline"]["rows"].as_array().unwrap();
    let lost: u64 = rows.iter().map(|r| r[3].as_u64().unwrap()).sum();
    assert!(lost >= 10);
    assert_eq!(lost, r.count("lost"));
}

#[test]
fn a_command_that_runs_too_long_is_stopped() {
    let s = Server::start("");
    let r =
        s.run("swap --rate 500 --duration 1 --warmup 0.1 --connections 2 --at '0.2:sleep 30' --command-timeout 0.3");
    assert!(r.took.as_secs_f64() < 20.0, "{:?}", r.took);
    assert!(r.json["commands"][0]["problem"].as_str().unwrap().contains("too long"));
    let r = s.run("swap --duration 1 --at 5:true");
    assert_eq!(r.code, 2);
}
