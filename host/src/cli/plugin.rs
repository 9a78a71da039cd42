//! `hotgate plugin …`: sends requests to the admin listener of a running gateway.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::http::Method;

use super::author;
use super::client::{Client, Target};
use super::failure::{Failure, fail};
use super::output::{print, print_json};
use super::show::{Plugin, table};
use crate::config::{Source, open_file};
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
    List,
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
    let client = Client::new(&arguments.target, ADMIN_FILE, source);
    let answered = client.and_then(|client| client.answer(operation));
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

/// Returns the plugins in an answer, which is a list of plugins or one plugin.
fn plugins(mut answer: Value) -> Result<Vec<Plugin>, Failure> {
    let list = match answer.get_mut("plugins") {
        Some(list) => list.take(),
        None => Value::Array(vec![answer]),
    };
    serde_json::from_value(list)
        .map_err(|error| Failure::Failed(format!("cannot understand the answer of the gateway: {error}")))
}

/// The requests of the commands.
impl Client {
    fn answer(&self, operation: &Operation) -> Result<Value, Failure> {
        let act = |slot: &str, action: &str, generation: &Option<u64>| {
            let query = generation.map(|number| format!("?generation={number}")).unwrap_or_default();
            self.ask(Method::POST, &format!("/plugins/{}/{action}{query}", encoded(slot)), ())
        };
        match operation {
            Operation::List => self.ask(Method::GET, "/plugins", ()),
            Operation::Rollback { slot, generation } => act(slot, "rollback", generation),
            Operation::Promote { slot, generation } => act(slot, "promote", generation),
            Operation::Reload { slot } => act(slot, "reload", &None),
            Operation::Deploy { file, slot } => {
                // The file is sent while it is read. The gateway refuses a file that is too large before it is sent.
                let component = open_file(file)
                    .map_err(|error| Failure::Failed(format!("cannot read {}: {error}", file.display())))?;
                let slot = slot.clone().map_or_else(|| self.only_slot(), Ok)?;
                self.ask(Method::PUT, &format!("/plugins/{}", encoded(&slot)), component)
            }
        }
    }

    /// Returns the slot that has a file, if there is only one.
    fn only_slot(&self) -> Result<String, Failure> {
        let plugins = plugins(self.ask(Method::GET, "/plugins", ())?)?;
        let mut of_files = plugins.iter().filter(|plugin| !plugin.source.starts_with("builtin:"));
        match (of_files.next(), of_files.next()) {
            (Some(only), None) => Ok(only.slot.clone()),
            (Some(_), Some(_)) => {
                let slots: Vec<_> = plugins.iter().map(|plugin| plugin.slot.as_str()).collect();
                Err(Failure::Failed(format!("--slot must name one of these: {}", slots.join(", "))))
            }
            (None, _) => {
                let problem = "no slot has a file that could be replaced: all plugins are built in. Start the gateway \
                               with files, like --authenticator auth.wasm";
                Err(Failure::Failed(problem.to_owned()))
            }
        }
    }
}

/// Encodes a name as one segment of a path (RFC 3986 §2.3).
fn encoded(segment: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(segment, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(encoded("authenticator+router"), "authenticator%2Brouter");
        assert_eq!(encoded("../a b?ä"), "..%2Fa%20b%3F%C3%A4");
    }
}
