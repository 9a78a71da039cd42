//! `hotgate trace`: shows what happens to one client, as it happens.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::client::{Client, Target};
use super::failure::Failure;
use super::output::{print_json_line, show};
use crate::config::Source;
use crate::edge::http::token::READ_FILE;

/// Digits shown of a digest, as many as in the log.
const DIGITS: usize = 12;

/// The client, and its gateway.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    whom: Whom,
    /// Print each event as a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// The client.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// The uid of the client
    uid: Option<String>,
    /// The number of one connection
    #[arg(long, value_name = "NUMBER")]
    connection: Option<u64>,
    /// An address: shows the connections that open from it, also those that do not log in
    #[arg(long, value_name = "IP")]
    client_address: Option<IpAddr>,
}

/// Follows the client until this is interrupted, or the gateway ends.
pub(super) fn run(arguments: &Arguments, source: &Source) -> ExitCode {
    let client = Client::new(&arguments.target, READ_FILE, source);
    match client.and_then(|client| follow(&client, arguments)) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn follow(client: &Client, Arguments { whom, json, .. }: &Arguments) -> Result<ExitCode, Failure> {
    let query = match whom {
        Whom { connection: Some(id), .. } => format!("connection={id}"),
        Whom { client_address: Some(address), .. } => format!("address={address}"),
        Whom { uid, .. } => {
            format!("uid={}", utf8_percent_encode(uid.as_deref().unwrap_or_default(), NON_ALPHANUMERIC))
        }
    };
    loop {
        // The gateway ends each answer after 15 minutes.
        for line in BufReader::new(client.follow(&format!("/trace?{query}"))?).lines() {
            let line = line.map_err(|error| Failure::Failed(format!("{}: {error}", client.shown())))?;
            // An empty line only says that the gateway is still there.
            let Ok(event @ Value::Object(_)) = serde_json::from_str(&line) else { continue };
            let code = if *json { print_json_line(&event) } else { show(&text(&event)) };
            if code != ExitCode::SUCCESS {
                return Ok(code);
            }
        }
    }
}

/// Returns an event as a line for people.
fn text(event: &Value) -> String {
    let take = |name: &str| event.get(name).map(plain).unwrap_or_default();
    let (at, connection, uid, what) = (take("at"), take("connection"), take("uid"), take("what"));
    let time = at.get(11..23).unwrap_or_default();
    let mut line = format!("{time:12}  {connection:>6}  {uid:12}  {what:9}");
    for (name, value) in event.as_object().into_iter().flatten() {
        let value = match name.as_str() {
            "at" | "connection" | "uid" | "what" => continue,
            "digest" => plain(value).chars().take(DIGITS).collect(),
            _ => plain(value),
        };
        // Writing to a string cannot fail.
        let _ = write!(line, "  {name} {value}");
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

fn plain(value: &Value) -> String {
    match value {
        // A line end in it must not begin a line that looks like another event.
        Value::String(text) => text.replace(char::is_control, " "),
        Value::Object(fields) => {
            let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
            format!("({})", fields.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let call = json!({
            "at": "2026-11-30T20:46:46.123Z", "connection": "12", "uid": "anna", "what": "call",
            "function": "route", "generation": 3, "digest": "0123456789abcdef", "micros": 85,
            "failure": {"kind": "trap", "reason": "unreachable\n20:00"},
        });
        let expected = "20:46:46.123      12  anna          call       digest 0123456789ab  failure (kind trap, reason \
                        unreachable 20:00)  function route  generation 3  micros 85\n";
        assert_eq!(text(&call), expected);
        assert_eq!(text(&json!({"what": "watching", "connections": 1})).trim(), "watching   connections 1");
    }
}
