//! `compare`, with test servers instead of Hotgate and Node.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::harness::{BIN, Scratch, Turn};

/// Writes a program that starts a test server and ignores its arguments.
fn server(scratch: &Scratch, name: &str, faults: &str) -> String {
    let file = scratch.file(name);
    // The folder of Hotgate's state is beside its configuration: `--config FILE`.
    let token = "state=\"${2%/*}/state\" && mkdir -p \"$state\" && echo selftest >\"$state/api-token\"";
    let script = format!("#!/bin/sh\n[ \"$1\" != --config ] || {{ {token}; }}\nexec {BIN} selftest-server {faults}\n");
    fs::write(&file, script).expect("a writable folder");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a file of ours");
    file
}

/// Runs `wsload compare`. Returns its exit status, its output and the picture.
fn compare(faults: &str, only: &str) -> (Option<i32>, String, String) {
    let _turn = Turn::take();
    let scratch = Scratch::new();
    let (hotgate, node) = (server(&scratch, "hotgate", faults), server(&scratch, "node", ""));
    let out = scratch.file("out");
    let run = std::process::Command::new(BIN)
        .args(["compare", "--rounds", "1", "--seconds", "1", "--only", only, "--node-server", "-"])
        .args(["--hotgate", &hotgate, "--node", &node, "--out", &out])
        .output()
        .expect("run wsload");
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    (run.status.code(), said, fs::read_to_string(format!("{out}/compare.svg")).unwrap_or_default())
}

fn one_core() -> bool {
    let one = std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2);
    if one {
        eprintln!("SKIPPED: comparing needs two cores");
    }
    one
}

#[test]
fn two_servers_are_compared() {
    if one_core() {
        return;
    }
    let (code, said, picture) = compare("", "relay-8,latency");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("| relay, 8 in flight | **") && said.contains("| p99 latency"), "{said}");
    assert_eq!(picture.matches("<rect").count(), 2);
}

#[test]
fn faults_are_listed() {
    if one_core() {
        return;
    }
    let (code, said, _) = compare("--drop-every 10000", "relay-8,latency");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("relay-8, round 1, hotgate:") && said.contains("\"lost\""), "{said}");
}

#[test]
fn the_api_is_compared_with_the_text_port() {
    if one_core() {
        return;
    }
    let (code, said, picture) = compare("", "api-push-16,api-batch,api-stream");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("text port: ").count(), 3, "{said}");
    assert_eq!(picture.matches("<rect").count(), 3);
}
