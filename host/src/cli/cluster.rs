//! `hotgate cluster …`: shows all gateways of a cluster. Any of them is asked, and asks the others.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;

use super::client::{Client, Target};
use super::failure::Failure;
use super::output::{print, print_json};
use super::show::{aligned, short, span, tame};
use crate::config::Source;
use crate::edge::http::token::READ_FILE;

/// The command, and the gateway that is asked.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    target: Target,
    /// Print the answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
enum Action {
    /// Show how the cluster is: NATS, how many gateways there are and which do not answer or drain, all connections,
    /// warnings
    Status,
    /// List the gateways: state, version, uptime, connections, plugins
    Nodes,
}

/// The answer of the gateway that is asked.
#[derive(Debug, Deserialize)]
pub(super) struct Cluster {
    /// The number of this gateway.
    pub(super) node: u16,
    nats: String,
    connections: Connections,
    /// All gateways.
    pub(super) nodes: Vec<GatewayLine>,
    /// Those that did not answer.
    pub(super) missing: Vec<u16>,
    /// `Some(false)` if there may be gateways of which nothing is known.
    pub(super) complete: Option<bool>,
    warnings: Vec<String>,
}

/// A gateway. Of one that did not answer, only the first fields are known.
#[derive(Debug, Deserialize)]
pub(super) struct GatewayLine {
    /// Its number.
    pub(super) node: u16,
    /// The name of its process.
    pub(super) incarnation: String,
    state: String,
    version: Option<String>,
    commit: Option<String>,
    uptime_seconds: Option<u64>,
    connections: Option<Connections>,
    #[serde(default)]
    plugins: Vec<Generation>,
    /// Where its admin listener listens.
    #[serde(default)]
    pub(super) admin: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Connections {
    open: u64,
    limit: u64,
    unauthenticated: u64,
}

#[derive(Debug, Deserialize)]
struct Generation {
    slot: String,
    plugin: String,
    generation: u64,
    stage: String,
    digest: String,
}

impl Cluster {
    /// Asks a gateway about its cluster. Also returns the answer as it is.
    ///
    /// # Errors
    /// If it belongs to none, or does not answer.
    pub(super) fn ask(client: &Client) -> Result<(Self, Value), Failure> {
        let answer = client.ask(Method::GET, "/cluster", ())?;
        let cluster = Self::deserialize(&answer)
            .map_err(|error| Failure::Failed(format!("cannot understand the answer of the gateway: {error}")))?;
        Ok((cluster, answer))
    }
}

/// Runs a command.
pub(super) fn run(arguments: &Arguments, source: &Source) -> ExitCode {
    let client = Client::new(&arguments.target, READ_FILE, source);
    let (cluster, answer) = match client.and_then(|client| Cluster::ask(&client)) {
        Ok(answered) => answered,
        Err(failure) => return failure.report(),
    };
    match (arguments.action, arguments.json) {
        (Action::Status, true) => print_json(&answer),
        (Action::Nodes, true) => print_json(&json!({ "nodes": answer["nodes"], "missing": answer["missing"] })),
        (Action::Status, false) => print(&page(&cluster)),
        (Action::Nodes, false) => print(&table(&cluster)),
    }
}

/// Returns one page about the cluster.
fn page(cluster: &Cluster) -> String {
    let Cluster { node, nats, connections, nodes, complete, warnings, .. } = cluster;
    let count = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let mut text = format!("{}; this is gateway {node}; NATS is {}\n", count(nodes.len(), "gateway"), tame(nats));
    // Here and below: writing to a string does not fail.
    let _ = writeln!(
        text,
        "{} of {} connections, {} not authenticated yet{}",
        connections.open,
        connections.limit,
        connections.unauthenticated,
        if complete.unwrap_or(true) { "" } else { "; not counted are gateways that do not answer" }
    );

    let mut states: Vec<&str> = nodes.iter().map(|gateway| gateway.state.as_str()).collect();
    states.sort_unstable();
    states.dedup();
    let mut rows = vec![["STATE", "GATEWAYS", "NUMBERS"].map(str::to_owned)];
    rows.extend(states.iter().map(|state| {
        let of = nodes.iter().filter(|gateway| gateway.state == *state);
        let numbers: Vec<_> = of.map(|gateway| gateway.node.to_string()).collect();
        [tame(state), numbers.len().to_string(), numbers.join(", ")]
    }));
    let _ = write!(text, "\n{}", aligned(&rows));

    let _ = match warnings.is_empty() {
        true => write!(text, "\nNo warnings\n"),
        false => write!(text, "\nWARNINGS\n"),
    };
    for warning in warnings {
        let _ = writeln!(text, "{}", tame(warning));
    }
    text
}

const HEAD: [&str; 10] =
    ["NODE", "STATE", "VERSION", "UPTIME", "CONNECTIONS", "SLOT", "PLUGIN", "GENERATION", "STAGE", "DIGEST"];

/// Returns the table of all gateways, and a line about those that did not answer.
fn table(cluster: &Cluster) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    for gateway in &cluster.nodes {
        let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
        let version = gateway.version.as_ref().zip(gateway.commit.as_ref());
        let own = [
            gateway.node.to_string(),
            tame(&gateway.state),
            or_dash(version.map(|(version, commit)| format!("{} ({})", tame(version), short(commit)))),
            or_dash(gateway.uptime_seconds.map(|seconds| span(Duration::from_secs(seconds)))),
            or_dash(gateway.connections.as_ref().map(|connections| connections.open.to_string())),
        ];
        let none = || std::array::from_fn(|_| "-".to_owned());
        let plugins: Vec<[String; 5]> = match gateway.plugins.is_empty() {
            true => vec![none()],
            false => gateway.plugins.iter().map(Generation::cells).collect(),
        };
        for (index, [slot, plugin, generation, stage, digest]) in plugins.into_iter().enumerate() {
            let [node, state, version, uptime, connections] =
                if index == 0 { own.clone() } else { std::array::from_fn(|_| String::new()) };
            rows.push([node, state, version, uptime, connections, slot, plugin, generation, stage, digest]);
        }
    }
    let mut text = aligned(&rows);
    if !cluster.missing.is_empty() {
        let numbers: Vec<_> = cluster.missing.iter().map(u16::to_string).collect();
        let _ = write!(text, "\nDid not answer: {}\n", numbers.join(", "));
    }
    text
}

impl Generation {
    fn cells(&self) -> [String; 5] {
        let Self { slot, plugin, generation, stage, digest } = self;
        [tame(slot), tame(plugin), generation.to_string(), tame(stage), short(digest)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Cluster {
        let generation = |slot: &str, generation: u64, stage: &str| json!({ "slot": slot, "plugin": "p", "generation": generation, "stage": stage, "digest": "9f2c1a".repeat(10) });
        let connections = json!({ "open": 12, "limit": 100, "unauthenticated": 2 });
        let told = |node: u16, state: &str, plugins: Value| {
            json!({
                "node": node, "incarnation": "00ff", "state": state, "version": "0.1.0", "commit": "0123456789abcdef",
                "started": "2026-01-02T03:04:05Z", "uptime_seconds": 7300, "connections": connections,
                "plugins": plugins, "admin": ["127.0.0.1:1235"]
            })
        };
        let first = json!([
            generation("authenticator", 1, "live"),
            generation("router", 2, "live"),
            generation("router", 3, "canary")
        ]);
        let nodes = json!([
            told(1, "serving", first),
            told(2, "draining", json!([generation("router", 1, "live")])),
            { "node": 7, "incarnation": "01", "state": "unreachable" }
        ]);
        serde_json::from_value(json!({
            "node": 1, "nats": "connected", "connections": { "open": 24, "limit": 200, "unauthenticated": 4 },
            "nodes": nodes, "missing": [7], "complete": false, "warnings": ["the gateway 7 does not answer\u{1b}[31m"]
        }))
        .unwrap()
    }

    #[test]
    fn the_page_says_who_is_there_and_who_does_not_answer() {
        let expected = "\
3 gateways; this is gateway 1; NATS is connected
24 of 200 connections, 4 not authenticated yet; not counted are gateways that do not answer

STATE        GATEWAYS  NUMBERS
draining     1         2
serving      1         1
unreachable  1         7

WARNINGS
the gateway 7 does not answer [31m
";
        assert_eq!(page(&cluster()), expected);
    }

    #[test]
    fn the_table_has_a_row_for_each_generation_that_serves() {
        let expected = "\
NODE  STATE        VERSION               UPTIME  CONNECTIONS  SLOT           PLUGIN  GENERATION  STAGE   DIGEST
1     serving      0.1.0 (0123456789ab)  2 h     12           authenticator  p       1           live    9f2c1a9f2c1a
                                                              router         p       2           live    9f2c1a9f2c1a
                                                              router         p       3           canary  9f2c1a9f2c1a
2     draining     0.1.0 (0123456789ab)  2 h     12           router         p       1           live    9f2c1a9f2c1a
7     unreachable  -                     -       -            -              -       -           -       -

Did not answer: 7
";
        assert_eq!(table(&cluster()), expected);
    }
}
