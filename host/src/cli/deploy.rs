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
use super::cluster::{Cluster, Gateway};
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

/// A gateway that was named, or why it cannot be asked.
struct Named {
    address: String,
    found: Result<Found, Failure>,
}

struct Found {
    node: u16,
    client: Client,
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
        Err(failure) => return failure.report(),
    };
    let (mut entries, mut done, mut left, mut failed) = (Vec::new(), Vec::new(), Vec::new(), false);
    for Named { address, found } in named {
        let node = found.as_ref().ok().map(|found| found.node);
        let name = node.map_or_else(|| address.clone(), |node| format!("gateway {node} ({address})"));
        if failed && !everywhere.keep_going {
            entries.push(json!({ "node": node, "address": address, "skipped": true }));
            left.push(name);
            continue;
        }
        let deployed = found.and_then(|found| send(&found.client, component, slot));
        match deployed {
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
        [] => "no gateway has the component".to_owned(),
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

/// Finds the gateways, and checks that they are all gateways of the cluster, each once.
fn find(everywhere: &Everywhere, target: &Target, source: &Source) -> Result<Vec<Named>, Failure> {
    let first = Client::new(target, ADMIN_FILE, source)?;
    let (cluster, _) = Cluster::ask(&first)?;
    if !cluster.missing.is_empty() && !everywhere.keep_going {
        let missing = numbers(cluster.missing.iter().copied());
        let problem =
            format!("these gateways do not answer: {missing}; nothing was deployed (--keep-going: to the others)");
        return Err(Failure::Failed(problem));
    }
    let mut unnamed: BTreeSet<u16> = cluster.nodes.iter().map(|gateway| gateway.node).collect();
    unnamed.remove(&cluster.node);
    let mut all = vec![Named { address: first.shown(), found: Ok(Found { node: cluster.node, client: first }) }];
    let mut unreached = 0;
    for gateway in &everywhere.gateway {
        let (address, token_file) = match gateway.split_once('=') {
            Some((address, file)) => (address, Some(file.into())),
            None => (gateway.as_str(), target.token_file.clone()),
        };
        let target = Target { address: Some(address.to_owned()), ca: target.ca.clone(), token_file };
        let found = match Client::new(&target, ADMIN_FILE, source).and_then(|client| member(client, &cluster, address))
        {
            Err(failure) if !everywhere.keep_going => return Err(failure.about(address)),
            found => found,
        };
        match &found {
            Ok(Found { node, .. }) if !unnamed.remove(node) => {
                return Err(Failure::Failed(format!("{address} is gateway {node}, which is named twice")));
            }
            Ok(_) => {}
            Err(_) => unreached += 1,
        }
        all.push(Named { address: address.to_owned(), found });
    }
    // Of a gateway that cannot be reached, nobody knows its number.
    if unnamed.len() > unreached {
        return Err(Failure::Failed(unnamed_gateways(&cluster, &unnamed)));
    }
    Ok(all)
}

fn unnamed_gateways(cluster: &Cluster, unnamed: &BTreeSet<u16>) -> String {
    let hints = cluster.nodes.iter().filter(|gateway| unnamed.contains(&gateway.node));
    let hint = |Gateway { node, admin, .. }: &Gateway| match admin.is_empty() {
        true => node.to_string(),
        false => format!("{node} (it says that it listens on {})", admin.join(", ")),
    };
    let hints: Vec<_> = hints.map(hint).collect();
    format!(
        "name each gateway of the cluster by --gateway ADDRESS; missing: {}; nothing was deployed",
        hints.join("; ")
    )
}

/// Asks a gateway who it is.
fn member(client: Client, cluster: &Cluster, address: &str) -> Result<Found, Failure> {
    let (own, _) = Cluster::ask(&client)?;
    let names = |gateway: &Gateway| (gateway.node, gateway.incarnation.clone());
    let itself = own.nodes.iter().find(|gateway| gateway.node == own.node).map(names);
    match itself {
        Some(itself) if cluster.nodes.iter().any(|gateway| names(gateway) == itself) => {
            Ok(Found { node: own.node, client })
        }
        _ => {
            let problem = format!("{address} belongs to another cluster than gateway {}", cluster.node);
            Err(Failure::Failed(problem))
        }
    }
}

fn numbers(nodes: impl Iterator<Item = u16>) -> String {
    nodes.map(|node| node.to_string()).collect::<Vec<_>>().join(", ")
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
        assert_eq!(summary(&[], &[]), "no gateway has the component");
    }
}
