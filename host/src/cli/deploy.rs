//! `hotgate plugin deploy --all-nodes`: deploys to each gateway of a cluster, one after the other.
//!
//! The operator names the admin listener of each gateway: a token must go to nobody who only says on NATS that he is a
//! gateway. The cluster's page says whether all of its gateways are named.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, Target};
use super::cluster::{Cluster, GatewayLine};
use super::failure::Failure;
use super::output::{complain, print, print_json};
use super::slots::plugins;
use crate::config::Source;
use crate::edge::http::token::ADMIN_FILE;

/// The flags of a deploy to all gateways.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(super) struct Everywhere {
    /// Deploy to all gateways of the cluster, one after the other: first to the gateway of these settings (or
    /// --address), then to those of --gateway, which must be all others
    #[arg(long)]
    pub(super) all_nodes: bool,
    /// The admin listener of another gateway, as for --address; repeat this flag. It is asked with the same token, or
    /// with the token in FILE
    #[arg(long, value_name = "ADDRESS[=FILE]", requires = "all_nodes")]
    gateway: Vec<String>,
    /// Go on with the next gateway if one cannot be reached or refuses
    #[arg(long, requires = "all_nodes")]
    keep_going: bool,
}

/// A gateway that was named, or one that does not answer.
struct Named {
    node: Option<u16>,
    address: Option<String>,
    /// Or why it cannot be asked.
    client: Result<Client, Failure>,
}

impl Named {
    fn name(&self) -> String {
        match (self.node, &self.address) {
            (Some(node), Some(address)) => format!("gateway {node} ({address})"),
            (Some(node), None) => format!("gateway {node}"),
            (None, address) => address.clone().unwrap_or_default(),
        }
    }
}

/// Runs the command. `component` is sent to each gateway.
pub(super) fn run(
    everywhere: &Everywhere,
    target: &Target,
    source: &Source,
    (component, slot): (&[u8], Option<&str>),
    as_json: bool,
) -> ExitCode {
    let named = match find(everywhere, target, source) {
        Ok(named) => named,
        Err(failure) => return failure.and("nothing was deployed").report(),
    };
    let (mut entries, mut done, mut left, mut failed) = (Vec::new(), Vec::new(), Vec::new(), false);
    for gateway in named {
        let name = gateway.name();
        let Named { node, address, client } = gateway;
        if failed && !everywhere.keep_going {
            entries.push(json!({ "node": node, "address": address, "skipped": true }));
            left.push(name);
            continue;
        }
        match client.and_then(|client| send(&client, component, slot)) {
            Ok((answer, line)) => {
                if !as_json {
                    print(&format!("{name}: {line}\n"));
                }
                entries.push(json!({ "node": node, "address": address, "plugin": answer }));
                done.push(name);
            }
            Err(failure) => {
                complain(&format_args!("{name}: {}", failure.problem()));
                entries.push(json!({ "node": node, "address": address, "error": failure.problem() }));
                failed = true;
            }
        }
    }
    if as_json {
        print_json(&json!({ "nodes": entries }));
    }
    if failed {
        complain(&summary(&done, &left));
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Says how far a deploy has come that did not reach all gateways.
fn summary(done: &[String], left: &[String]) -> String {
    let mut text = match done {
        [] => "no gateway has confirmed that it has the component".to_owned(),
        done => format!("these have the component: {}", done.join(", ")),
    };
    // Here and below: writing to a string does not fail.
    if !left.is_empty() {
        let _ = write!(text, "; these were not tried (--keep-going): {}", left.join(", "));
    }
    if !done.is_empty() {
        let _ = write!(text, "; run the command again, or `hotgate plugin rollback` on those that have it");
    }
    text
}

/// Deploys to one gateway. Returns its answer, and a line about it.
fn send(client: &Client, component: &[u8], slot: Option<&str>) -> Result<(Value, String), Failure> {
    let answer = client.deploy(component, slot)?;
    let line = plugins(answer.clone())?.first().map(super::show::Plugin::newest).unwrap_or_default();
    Ok((answer, line))
}

/// Finds the gateways, and checks that they are all gateways of the cluster, each once. To go on, those that do not
/// answer need not be named.
fn find(everywhere: &Everywhere, target: &Target, source: &Source) -> Result<Vec<Named>, Failure> {
    let first = Client::new(target, ADMIN_FILE, source)?;
    let (cluster, _) = Cluster::ask(&first)?;
    let mut silent: BTreeSet<u16> = cluster.missing.iter().copied().collect();
    match (silent.is_empty(), everywhere.keep_going) {
        (true, _) if cluster.complete == Some(false) => {
            let problem =
                format!("gateway {} cannot speak with all others now (`hotgate cluster status`)", cluster.node);
            return Err(Failure::Failed(problem));
        }
        (false, false) => {
            let problem = format!("these gateways do not answer: {} (--keep-going: to the others)", numbers(&silent));
            return Err(Failure::Failed(problem));
        }
        _ => {}
    }
    let mut unnamed: BTreeSet<u16> = cluster.nodes.iter().map(|gateway| gateway.node).collect();
    unnamed.remove(&cluster.node);
    let mut all = vec![Named { node: Some(cluster.node), address: Some(first.shown()), client: Ok(first) }];
    let mut unreached = 0;
    for gateway in &everywhere.gateway {
        let (address, token_file) = match gateway.split_once('=') {
            Some((address, file)) => (address, Some(file.into())),
            None => (gateway.as_str(), target.token_file.clone()),
        };
        let target = Target { address: Some(address.to_owned()), ca: target.ca.clone(), token_file };
        let asked = Client::new(&target, ADMIN_FILE, source).and_then(|client| {
            let (itself, _) = Cluster::ask(&client)?;
            Ok((client, itself))
        });
        let (node, client) = match asked {
            Ok((client, itself)) => (Some(member(&itself, &cluster, address)?), Ok(client)),
            Err(failure) if everywhere.keep_going => (None, Err(failure)),
            Err(failure) => return Err(failure.about(address)),
        };
        match node {
            Some(node) if !unnamed.remove(&node) => {
                return Err(Failure::Failed(format!("{address} is gateway {node}, which is named twice")));
            }
            Some(node) => _ = silent.remove(&node),
            None => unreached += 1,
        }
        all.push(Named { node, address: Some(address.to_owned()), client });
    }
    unnamed.retain(|node| !silent.contains(node));
    // Of a gateway that cannot be reached, nobody knows its number.
    if unnamed.len() > unreached {
        return Err(Failure::Failed(unnamed_gateways(&cluster, &unnamed)));
    }
    // One of them may be a gateway that was named and cannot be reached.
    all.extend(silent.into_iter().map(|node| {
        let client = Err(Failure::Unavailable("it does not answer".to_owned()));
        Named { node: Some(node), address: None, client }
    }));
    Ok(all)
}

fn unnamed_gateways(cluster: &Cluster, unnamed: &BTreeSet<u16>) -> String {
    let hints = cluster.nodes.iter().filter(|gateway| unnamed.contains(&gateway.node));
    let hint = |GatewayLine { node, admin, .. }: &GatewayLine| match admin.is_empty() {
        true => node.to_string(),
        false => format!("{node} (it says that it listens on {})", admin.join(", ")),
    };
    let hints: Vec<_> = hints.map(hint).collect();
    format!("name each gateway of the cluster by --gateway ADDRESS; not named: {}", hints.join("; "))
}

/// Returns the number of a gateway that says so of itself, if the cluster knows it.
fn member(itself: &Cluster, cluster: &Cluster, address: &str) -> Result<u16, Failure> {
    let names = |gateway: &GatewayLine| (gateway.node, gateway.incarnation.clone());
    let own = itself.nodes.iter().find(|gateway| gateway.node == itself.node).map(names);
    match own {
        Some(own) if cluster.nodes.iter().any(|gateway| names(gateway) == own) => Ok(itself.node),
        _ => {
            let problem =
                format!("{address} belongs to another cluster than gateway {}, or has just started", cluster.node);
            Err(Failure::Failed(problem))
        }
    }
}

fn numbers(nodes: &BTreeSet<u16>) -> String {
    nodes.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_who_has_it() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let text = summary(&names(&["gateway 1 (a)"]), &names(&["gateway 3 (c)"]));
        let expected =
            "these have the component: gateway 1 (a); these were not tried (--keep-going): gateway 3 (c); run";
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(summary(&[], &[]), "no gateway has confirmed that it has the component");
    }
}
