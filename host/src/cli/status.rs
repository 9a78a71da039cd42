//! `hotgate status` and `hotgate ready`: how a running gateway is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde::Deserialize;
use ureq::http::Method;

use super::client::{Client, RUNNING, Target};
use super::failure::Failure;
use super::output::{print, print_json};
use super::show::{Plugin, aligned, generations, short, span, tame};
use crate::config::Source;
use crate::edge::http::token::READ_FILE;

/// `hotgate status`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Show the gateway with this number, which the asked gateway asks: both are in one cluster
    #[arg(long, value_name = "N")]
    node: Option<u16>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// `hotgate ready`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(super) struct Probe {
    /// The gateway's admin listener: HOST:PORT, https://HOST:PORT or unix:PATH [default: admin.listen of the settings]
    #[arg(long, value_name = "ADDRESS", help_heading = RUNNING)]
    address: Option<String>,
    /// The file with the certificates that an https address must have, or their authorities
    #[arg(long, value_name = "FILE", help_heading = RUNNING)]
    ca: Option<PathBuf>,
    /// Only ask whether the process answers, even while it starts and shuts down
    #[arg(long)]
    live: bool,
}

/// The answer of the gateway.
#[derive(Debug, Deserialize)]
struct Status {
    version: String,
    commit: String,
    state: String,
    uptime_seconds: u64,
    listeners: Vec<Listener>,
    certificates: Vec<CertificateRow>,
    connections: Connections,
    per_second: PerSecond,
    plugins: Vec<Plugin>,
    budgets: Vec<BudgetStatus>,
    cluster: Option<Cluster>,
    warnings: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Listener {
    listener: String,
    address: String,
    tls: bool,
}

#[derive(Debug, Deserialize)]
struct Cluster {
    node: u16,
    nats: String,
    others: Vec<OtherGateway>,
}

#[derive(Debug, Deserialize)]
struct OtherGateway {
    node: u16,
    state: String,
}

#[derive(Debug, Deserialize)]
struct CertificateRow {
    listener: String,
    file: String,
    names: Vec<String>,
    expires: String,
}

#[derive(Debug, Deserialize)]
struct Connections {
    open: u64,
    limit: u64,
    unauthenticated: u64,
    unauthenticated_limit: u64,
}

#[derive(Debug, Deserialize)]
struct PerSecond {
    seconds: f64,
    #[serde(flatten)]
    rates: BTreeMap<String, f64>,
}

#[derive(Debug, Deserialize)]
struct BudgetStatus {
    setting: String,
    used_bytes: u64,
    limit_bytes: u64,
}

/// Runs `hotgate status`.
pub(super) fn run(arguments: &Arguments, source: &Source) -> ExitCode {
    let client = Client::new(&arguments.target, READ_FILE, source);
    let query = arguments.node.map(|node| format!("?node={node}")).unwrap_or_default();
    let answer = match client.and_then(|client| client.ask(Method::GET, &format!("/status{query}"), ())) {
        Ok(answer) if arguments.json => return print_json(&answer),
        Ok(answer) => answer,
        Err(failure) => return failure.report(),
    };
    match serde_json::from_value::<Status>(answer) {
        Ok(status) => print(&page(&status, SystemTime::now())),
        Err(error) => Failure::Failed(format!("cannot understand the answer of the gateway: {error}")).report(),
    }
}

/// Runs `hotgate ready`.
pub(super) fn ready(probe: &Probe, source: &Source) -> ExitCode {
    let client = Client::probe(probe.address.as_deref(), probe.ca.as_deref(), source);
    let (path, answer) = if probe.live { ("/healthz", "live\n") } else { ("/readyz", "ready\n") };
    match client.and_then(|client| client.ask(Method::GET, path, ())) {
        Ok(_) => print(answer),
        Err(failure) => failure.report(),
    }
}

/// Returns the page, as of `now`.
fn page(status: &Status, now: SystemTime) -> String {
    let Status { version, commit, state, connections, per_second, .. } = status;
    let uptime = span(Duration::from_secs(status.uptime_seconds));
    let mut text = format!("Hotgate {} ({}), {} for {uptime}\n", tame(version), short(commit), tame(state));
    // Here and below: writing to a string does not fail.
    let _ = writeln!(
        text,
        "{} of {} connections, {} of {} not authenticated yet",
        connections.open, connections.limit, connections.unauthenticated, connections.unauthenticated_limit
    );

    let mut rows = vec![["LISTENER", "ADDRESS", "TLS"].map(str::to_owned)];
    rows.extend(status.listeners.iter().map(|Listener { listener, address, tls }| {
        [tame(listener), tame(address), if *tls { "yes" } else { "no" }.to_owned()]
    }));
    let _ = write!(text, "\n{}", aligned(&rows));

    let mut rows = vec![["CERTIFICATE OF", "NAMES", "EXPIRES", "FILE"].map(str::to_owned)];
    rows.extend(status.certificates.iter().map(|certificate| {
        let CertificateRow { listener, file, names, expires } = certificate;
        [tame(listener), tame(&names.join(", ")), tame(expires), tame(file)]
    }));
    if rows.len() > 1 {
        let _ = write!(text, "\n{}", aligned(&rows));
    }

    if let Some(Cluster { node, nats, others }) = &status.cluster {
        let mut rows = vec![["GATEWAY", "STATE"].map(str::to_owned)];
        rows.push([node.to_string(), format!("this one; NATS {}", tame(nats))]);
        rows.extend(others.iter().map(|OtherGateway { node, state }| [node.to_string(), tame(state)]));
        let _ = write!(text, "\n{}", aligned(&rows));
    }

    let head = format!("PER SECOND (last {:.0} s)", per_second.seconds);
    let rate = |(name, rate): (&String, &f64)| [tame(name).replace('_', " "), rate.to_string()];
    let rows: Vec<_> = [[head, String::new()]].into_iter().chain(per_second.rates.iter().map(rate)).collect();
    let _ = write!(text, "\n{}", aligned(&rows));

    let mut rows = vec![["BUDGET", "USED", "OF"].map(str::to_owned)];
    rows.extend(status.budgets.iter().map(|budget| {
        let BudgetStatus { setting, used_bytes, limit_bytes } = budget;
        [tame(setting), size(*used_bytes), size(*limit_bytes)]
    }));
    let _ = write!(text, "\n{}", aligned(&rows));

    let _ = write!(text, "\n{}", generations(&status.plugins, now));

    let _ = match status.warnings.is_empty() {
        true => write!(text, "\nNo warnings\n"),
        false => write!(text, "\nWARNINGS\n"),
    };
    for warning in &status.warnings {
        let _ = writeln!(text, "{}", tame(warning));
    }
    text
}

/// Returns a size in its largest unit that it has at least one of.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match UNITS.into_iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_stands_on_one_page_and_no_text_commands_the_terminal() {
        let status: Status = serde_json::from_value(json!({
            "version": "0.1.0", "commit": "0123456789abcdef0123", "state": "serving", "uptime_seconds": 7300,
            "listeners": [
                { "listener": "websocket", "address": "0.0.0.0:1234", "tls": true },
                { "listener": "text", "address": "127.0.0.1:5678", "tls": false }
            ],
            "certificates": [{
                "listener": "websocket", "file": "/etc/push.pem", "names": ["push.example.com", "a.example.com"],
                "expires": "2027-01-02T03:04:05Z"
            }],
            "connections": { "open": 900, "limit": 1000, "unauthenticated": 3, "unauthenticated_limit": 100 },
            "per_second": { "seconds": 55.0, "logins": 1.25, "messages_received": 30.0 },
            "plugins": [],
            "budgets": [
                { "setting": "outbox.total_bytes", "used_bytes": 0, "limit_bytes": 1 << 30 },
                { "setting": "inbox.total_bytes", "used_bytes": 1536, "limit_bytes": 128 << 20 }
            ],
            "warnings": ["router: the component on disk does not serve: \u{1b}[31m\nbad"]
        }))
        .unwrap();
        let expected = "\
Hotgate 0.1.0 (0123456789ab), serving for 2 h
900 of 1000 connections, 3 of 100 not authenticated yet

LISTENER   ADDRESS         TLS
websocket  0.0.0.0:1234    yes
text       127.0.0.1:5678  no

CERTIFICATE OF  NAMES                            EXPIRES               FILE
websocket       push.example.com, a.example.com  2027-01-02T03:04:05Z  /etc/push.pem

PER SECOND (last 55 s)
logins                  1.25
messages received       30

BUDGET              USED     OF
outbox.total_bytes  0 B      1.0 GiB
inbox.total_bytes   1.5 KiB  128.0 MiB

SLOT  PLUGIN  GENERATION  STAGE  SINCE  CALLS  FAILED  P50  P99  DIGEST

WARNINGS
router: the component on disk does not serve:  [31m bad
";
        assert_eq!(page(&status, SystemTime::now()), expected);
    }
}
