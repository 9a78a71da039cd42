//! `hotgate plugin …`: sends requests to the admin listener of a running gateway.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::author;
use super::client::{Client, Target};
use super::deploy::{self, Everywhere};
use super::failure::{Failure, fail};
use super::output::{print, print_json};
use super::show::table;
use super::slots::{open, plugins, read};
use crate::config::Source;
use crate::edge::http::token::ADMIN_FILE;

/// The exit code for wrong usage, the same as clap's.
const EXIT_USAGE: u8 = 2;

/// The command, and its gateway.
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

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
enum Action {
    #[command(flatten)]
    Operate(Operation),
    #[command(flatten)]
    Author(author::Action),
}

/// A command for a running gateway.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
enum Operation {
    /// Show the plugin in each slot, its calls and failures, and the last events
    List {
        /// Of the gateway with this number, which the asked gateway asks: both are in one cluster
        #[arg(long, value_name = "N")]
        node: Option<u16>,
    },
    /// Go back to the generation before
    Rollback {
        /// The slot, or the name of its plugin
        slot: String,
        /// Only if this is the newest generation, the one to give up
        #[arg(long, value_name = "N")]
        generation: Option<u64>,
    },
    /// Move a new generation to its next stage: from shadow to canary, to all clients, to the end of its probation
    Promote {
        /// The slot, or the name of its plugin
        slot: String,
        /// Only if this is the newest generation, the one to promote
        #[arg(long, value_name = "N")]
        generation: Option<u64>,
    },
    /// Read the slot's file again, even if it was refused or rolled back
    Reload {
        /// The slot, or the name of its plugin
        slot: String,
    },
    /// Check a component, and replace the slot's file with it
    Deploy {
        /// The component
        file: PathBuf,
        /// The slot, or the name of its plugin [default: the slot that has a file, if there is only one]
        #[arg(long)]
        slot: Option<String>,
        #[command(flatten)]
        everywhere: Everywhere,
    },
}

/// Runs a command. Loads the settings only if they are needed.
pub(super) fn run(arguments: &Arguments, source: &Source) -> ExitCode {
    let operation = match &arguments.action {
        Action::Operate(operation) => operation,
        Action::Author(action) if arguments.json && !action.has_json() => {
            return fail(EXIT_USAGE, "--json is for `check` and for the commands to a running gateway");
        }
        Action::Author(action) => return author::run(action, arguments.json, || Ok(source.load_to_serve()?.config)),
    };
    if let Operation::Deploy { file, slot, everywhere } = operation
        && everywhere.all_nodes
    {
        return match read(file) {
            Ok(component) => {
                deploy::run(everywhere, &arguments.target, source, (&component, slot.as_deref()), arguments.json)
            }
            Err(failure) => failure.report(),
        };
    }
    let client = Client::new(&arguments.target, ADMIN_FILE, source);
    let answered = client.and_then(|client| answer(&client, operation));
    let plugins = match answered {
        Ok(answer) if arguments.json => return print_json(&answer),
        Ok(answer) => plugins(answer),
        Err(failure) => Err(failure),
    };
    match plugins {
        Ok(plugins) => print(&table(&plugins, SystemTime::now())),
        Err(failure) => failure.report(),
    }
}

/// Carries out a command for one gateway.
fn answer(client: &Client, operation: &Operation) -> Result<Value, Failure> {
    match operation {
        Operation::List { node } => client.list(*node),
        Operation::Rollback { slot, generation } => client.act(slot, "rollback", *generation),
        Operation::Promote { slot, generation } => client.act(slot, "promote", *generation),
        Operation::Reload { slot } => client.act(slot, "reload", None),
        Operation::Deploy { file, slot, .. } => client.deploy(open(file)?, slot.as_deref()),
    }
}
