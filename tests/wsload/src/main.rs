//! A load generator for Hotgate and servers with the same protocol. It accounts for every message.
//!
//! It has one thread, edge-triggered epoll, its own framing, and no allocation for a message. The way of a message:
//! [`traffic`] decides who writes to whom and when, [`payload`] stamps the message, [`net`] and [`ws`] send and receive
//! it, [`track`] finds out whether it is new, late or a duplicate, [`stats`] and [`timeline`] keep the figures.

#[cfg(not(target_os = "linux"))]
compile_error!("wsload needs Linux, for epoll and /proc: leave it out (--exclude wsload)");

mod address;
mod api;
mod cli;
mod commands;
mod compare;
mod crowd;
mod http;
mod net;
mod newcomers;
mod open;
mod payload;
mod pinned;
mod proto;
mod rng;
mod scenarios;
mod selftest;
mod stats;
mod sys;
mod timeline;
mod track;
mod traffic;
mod ws;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use serde_json::{Value, json};

use crate::cli::{Cli, Command, Common};
use crate::stats::Report;

/// Exit codes: 0 for success, 2 if it could not run (clap also uses 2), 3 for faults with --strict, 4 if the traffic
/// ended early.
fn main() -> ExitCode {
    let cli = Cli::parse();
    let (name, common, result) = match &cli.command {
        Command::Relay(a) => ("relay", &a.common, scenarios::relay::run(a)),
        Command::Push(a) => ("push", &a.common, scenarios::push::run(a)),
        Command::Connect(a) => ("connect", &a.common, scenarios::connect::run(a)),
        Command::Idle(a) => ("idle", &a.common, scenarios::idle::run(a)),
        Command::Broadcast(a) => ("broadcast", &a.common, scenarios::broadcast::run(a)),
        Command::Storm(a) => ("storm", &a.common, scenarios::storm::run(a)),
        Command::Drain(a) => ("drain", &a.common, scenarios::drain::run(a)),
        Command::Swap(a) => ("swap", &a.common, scenarios::swap::run(a)),
        Command::Compare(a) => return compare::run(a),
        Command::Pinned(a) => {
            eprintln!("wsload pinned: {}", pinned::run(a));
            return ExitCode::from(2);
        }
        Command::SelftestServer(a) => {
            return match selftest::serve(a) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => {
                    eprintln!("wsload selftest-server: {e}");
                    ExitCode::from(2)
                }
            };
        }
    };
    finish(name, common, result)
}

fn finish(name: &str, common: &Common, result: Result<Report, String>) -> ExitCode {
    match result {
        Ok(mut r) => {
            r.json.insert("faults".into(), json!(r.faults));
            r.json.insert("aborted".into(), json!(r.aborted));
            r.json.insert("error".into(), Value::Null);
            if !common.quiet {
                eprintln!("wsload {name} [{}]: {}", common.adapter.name(), r.human.trim_end());
            }
            print_line(&Value::Object(r.json));
            if let Some(why) = r.aborted {
                eprintln!("wsload {name}: ended early: {why}");
                return ExitCode::from(4);
            }
            if common.strict && r.faults > 0 {
                eprintln!("wsload {name}: {} faults", r.faults);
                return ExitCode::from(3);
            }
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("wsload {name}: error: {e}");
            print_line(&json!({
                "wsload": env!("CARGO_PKG_VERSION"), "scenario": name, "adapter": common.adapter.name(),
                "label": common.label, "error": e,
            }));
            ExitCode::from(2)
        }
    }
}

fn print_line(v: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{v}");
    let _ = out.flush();
}
