//! `pinned`, with which `compare` starts servers and loads.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::BIN;

/// A core that this test may use.
fn core() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("it is Linux");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("a list");
    list.trim().split(['-', ',']).next().expect("a core").to_owned()
}

fn pinned(parent: u32, command: &[&str]) -> Command {
    let mut pinned = Command::new(BIN);
    pinned.args(["pinned", "--cores", &core(), "--parent", &parent.to_string(), "--"]).args(command);
    pinned
}

#[test]
fn a_program_runs_where_it_is_told() {
    let out = pinned(std::process::id(), &["grep", "Cpus_allowed_list", "/proc/self/status"]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(text.split_whitespace().last(), Some(core().as_str()), "{text}");
}

#[test]
fn it_ends_with_whoever_started_it() {
    let script = format!("{BIN} pinned --cores {} --parent $$ -- sleep 60 & echo started; sleep 0.5", core());
    let started = Instant::now();
    // The output ends only when the program ends, because the program holds the pipe.
    let out = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(out.stdout, b"started\n");
    assert!(started.elapsed() < Duration::from_secs(20), "it still ran");
}

#[test]
fn it_does_not_start_for_somebody_who_is_gone() {
    let out = pinned(1, &["true"]).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
}
