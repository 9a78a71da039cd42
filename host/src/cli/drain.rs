//! `hotgate drain`: drains a running gateway, and waits until all its connections have closed.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use ureq::http::Method;

use super::client::{Client, Target};
use super::failure::Failure;
use super::output::{print, print_json};
use crate::config::Source;
use crate::edge::http::token::ADMIN_FILE;

const PATH: &str = "/drain";
/// How often the gateway is asked whether the drain is over.
const POLL: Duration = Duration::from_millis(200);

/// The command, and its gateway.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(super) struct Arguments {
    /// Cancel the drain: the gateway is ready again, and accepts connections
    #[arg(long, conflicts_with_all = ["status", "no_wait"])]
    cancel: bool,
    /// Only show how far the drain is
    #[arg(long, conflicts_with = "no_wait")]
    status: bool,
    /// Do not wait until all connections have closed
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    target: Target,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command. The exit code is 0 if the drain is over, or if nothing was to be waited for.
pub(super) fn run(arguments: &Arguments, source: &Source) -> ExitCode {
    let client = Client::new(&arguments.target, ADMIN_FILE, source);
    match client.and_then(|client| answer(&client, arguments)) {
        Ok(answer) if arguments.json => print_json(&answer),
        Ok(answer) => print(&sentence(&answer)),
        Err(failure) => failure.report(),
    }
}

fn answer(client: &Client, arguments: &Arguments) -> Result<Value, Failure> {
    if arguments.status {
        return client.ask(Method::GET, PATH, ());
    }
    if arguments.cancel {
        return client.ask(Method::DELETE, PATH, ());
    }
    let mut status = client.ask(Method::POST, PATH, ())?;
    while !arguments.no_wait && status["stage"] != "drained" {
        if status["stage"] == "serving" {
            return Err(Failure::Failed("the drain was cancelled".to_owned()));
        }
        sleep(POLL);
        status = match client.ask(Method::GET, PATH, ()) {
            // A signal has joined the drain, and the gateway has ended with it.
            Err(Failure::Unavailable(_)) if status["ending"] == true => {
                status["stage"] = "drained".into();
                status["remaining"] = 0.into();
                status
            }
            answer => answer?,
        };
    }
    Ok(status)
}

fn sentence(status: &Value) -> String {
    let remaining = &status["remaining"];
    let after = if status["ending"] == true { "then the gateway ends" } else { "`hotgate drain --cancel` cancels it" };
    match status["stage"].as_str() {
        Some("serving") => "The gateway serves; there is no drain.\n".to_owned(),
        Some("notice") => format!("The gateway is not ready, and still serves {remaining} connections; {after}.\n"),
        Some("closing") => format!("The gateway closes its connections; {remaining} are left; {after}.\n"),
        Some("drained") => format!("All connections have closed; {after}.\n"),
        _ => format!("{status}\n"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_sentence_says_how_far_it_is_and_what_comes_next() {
        let closing = json!({ "stage": "closing", "remaining": 7, "ending": false });
        let expected = "The gateway closes its connections; 7 are left; `hotgate drain --cancel` cancels it.\n";
        assert_eq!(sentence(&closing), expected);
        let drained = json!({ "stage": "drained", "remaining": 0, "ending": true });
        assert_eq!(sentence(&drained), "All connections have closed; then the gateway ends.\n");
    }
}
