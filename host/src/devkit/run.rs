//! Sends packets and lines to a plugin, or runs the cases of case files, and reports the answers.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytestring::ByteString;
use toml::{Table, Value};

use super::cases::{Call, Case, Cases, Client, Opening};
use super::comparison::differences;
use super::conversation::{Conversation, Outcome, shown};
use super::expectation::FAILED;
use super::publication::Publication;
use super::{DevKit, capture};
use crate::base::message::{Attribute, Message};
use crate::plugin::{Roles, Surroundings};

/// The result of a run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Cases whose answers were all as expected.
    pub passed: usize,
    /// The other cases.
    pub failed: usize,
}

impl DevKit {
    /// Runs the cases of these files, and calls `report` after each case.
    ///
    /// # Errors
    /// When a file is not a case file. If the plugin cannot be loaded, only the case fails.
    pub async fn play(&self, files: &[PathBuf], roles: Roles, mut report: impl FnMut(&str)) -> anyhow::Result<Tally> {
        let mut tally = Tally::default();
        for file in files {
            for case in read(file).await? {
                let problems = self.case(&case, roles).await;
                let verdict = if problems.is_empty() { "ok  " } else { "FAIL" };
                report(&format!("{verdict}  {}\n{problems}", case.name));
                *(if problems.is_empty() { &mut tally.passed } else { &mut tally.failed }) += 1;
            }
        }
        Ok(tally)
    }

    /// Runs one case. Returns the differences from the expected answers, as lines; empty if there are none.
    async fn case(&self, case: &Case, roles: Roles) -> String {
        let surroundings = Surroundings { clock: case.clock, random: case.random };
        let loaded = self.load(roles, Some(case.settings()), surroundings).await;
        let (harness, registry) = match (loaded, &case.check) {
            (Ok(loaded), None) => loaded,
            (Err(error), Some(words)) if format!("{error:#}").contains(words) => return String::new(),
            (Ok(_), Some(words)) => return format!("      expected a refusal that contains {words:?}, got none\n"),
            (Err(error), Some(words)) => {
                return format!("      expected a refusal that contains {words:?}, got: {error:#}\n");
            }
            (Err(error), None) => return format!("      {error:#}\n"),
        };
        let mut conversation = Conversation::of_case(harness, registry, case);
        let mut problems = String::new();
        capture::take();
        for (number, step) in (1..).zip(&case.steps) {
            let (call, role) = (shown(&step.call), step.call.role());
            if !roles.include(role) {
                let _ = writeln!(
                    problems,
                    "      step {number}: {call}\n        needs a plugin with the role {role}; this plugin runs as {roles}"
                );
                continue;
            }
            let Outcome { value, backtrace } = conversation.call(&step.call).await;
            let log = capture::take();
            let anything = Value::Table(Table::new());
            let differences = match &step.expect {
                Some(expected) => differences(expected, &value),
                None if value.get(FAILED).is_some() => differences(&anything, &value),
                None => Vec::new(),
            };
            if differences.is_empty() {
                continue;
            }
            let _ = writeln!(problems, "      step {number}: {call}");
            for difference in differences {
                let _ = writeln!(problems, "        {difference}");
            }
            let _ = writeln!(problems, "        it answered {value}");
            indented(&mut problems, &log);
            indented(&mut problems, &backtrace);
        }
        problems
    }

    /// Sends packets as a client, then lines as an internal sender, then publishes messages, and calls `report` with
    /// each answer. An authenticator is greeted first, and gets packets until it accepts; a router gets the packets
    /// after that. Returns whether no call failed.
    ///
    /// # Errors
    /// When the plugin cannot be loaded.
    pub async fn talk(&self, roles: Roles, opening: &Talk, mut report: impl FnMut(&str)) -> anyhow::Result<bool> {
        let (harness, registry) = self.load(roles, None, Surroundings::default()).await?;
        let handshake = Opening {
            path: opening.path.clone(),
            query: opening.query.clone(),
            headers: opening.headers.clone(),
            ..Opening::default()
        };
        let client = Client { uid: opening.uid.clone(), ..Client::default() };
        let mut conversation = Conversation::new(harness, registry, &handshake, &client);
        capture::take();
        let mut well = true;
        let mut make = async |conversation: &mut Conversation, call: Call| {
            let outcome = conversation.call(&call).await;
            let mut text = format!("{}\n    {}\n", shown(&call), outcome.value);
            indented(&mut text, &capture::take());
            indented(&mut text, &outcome.backtrace);
            well &= !outcome.is(FAILED);
            report(&text);
            outcome
        };
        let mut packets = opening.packets.iter().map(|packet| Message::Text(packet.clone()));
        let mut end = None;
        if roles.authenticator {
            let mut outcome = make(&mut conversation, Call::Greet).await;
            while !outcome.is("accept") && end.is_none() {
                if outcome.is("deny") || outcome.is(FAILED) {
                    end = Some("the gateway closes this connection");
                } else if let Some(packet) = packets.next() {
                    outcome = make(&mut conversation, Call::Authenticate(packet)).await;
                    if outcome.is("pass") {
                        end = Some("the gateway asks the next authenticator, or closes this connection");
                    }
                } else {
                    end = Some("the client is not authenticated yet");
                }
            }
        }
        if end.is_none() && roles.router {
            make(&mut conversation, Call::Opened).await;
            for packet in packets.by_ref() {
                make(&mut conversation, Call::Route(packet)).await;
            }
        }
        if roles.router {
            for line in &opening.lines {
                make(&mut conversation, Call::Push(line.clone())).await;
            }
        }
        if roles.publications {
            for publication in &opening.publications {
                make(&mut conversation, Call::Publish(publication.clone())).await;
            }
        }
        let unsent = packets.count()
            + if roles.router { 0 } else { opening.lines.len() }
            + if roles.publications { 0 } else { opening.publications.len() };
        if let Some(end) = end {
            report(&format!("({end})\n"));
        }
        if unsent > 0 {
            report(&format!("({unsent} packets, lines or publications were not sent)\n"));
        }
        Ok(well)
    }
}

/// The input of a plugin: what one client, one internal sender and one publisher send.
#[derive(Debug, Clone, Default)]
pub struct Talk {
    /// The path of the handshake.
    pub path: String,
    /// Its query.
    pub query: Option<String>,
    /// Its headers, names in lower case.
    pub headers: Vec<Attribute>,
    /// The uid of the session, for a plugin that is only a router.
    pub uid: String,
    /// The packets of the client.
    pub packets: Vec<ByteString>,
    /// The lines of the internal sender.
    pub lines: Vec<ByteString>,
    /// The messages of the publisher.
    pub publications: Vec<Publication>,
}

async fn read(file: &Path) -> anyhow::Result<Vec<Case>> {
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || Cases::read(&file)).await?
}

/// Appends lines, indented.
fn indented(text: &mut String, lines: &str) {
    for line in lines.lines() {
        let _ = writeln!(text, "        {line}");
    }
}
