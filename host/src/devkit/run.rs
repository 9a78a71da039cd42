//! Feeds a plugin packets and lines, or plays case files to it, and reports.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytestring::ByteString;
use toml::{Table, Value};

use super::DevKit;
use super::capture;
use super::cases::{Call, Case, Cases, Client, Opening};
use super::conversation::{Conversation, Outcome, shown};
use super::expectation::{FAILED, differences};
use crate::base::message::{Attribute, Message};
use crate::plugin::{Roles, Surroundings};

/// What a run came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Cases that went as expected.
    pub passed: usize,
    /// Cases that did not.
    pub failed: usize,
}

impl DevKit {
    /// Plays the cases of these files, and tells `report` of each when it is done.
    ///
    /// # Errors
    /// When a file is no case file. That the plugin cannot be loaded is a failure of its case.
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

    /// Plays one case. Returns what went otherwise than expected, in lines; empty if nothing did.
    async fn case(&self, case: &Case, roles: Roles) -> String {
        let surroundings = Surroundings { clock: case.clock, random: case.random };
        let loaded = self.load(roles, Some(case.settings()), surroundings).await;
        let (harness, registry) = match (loaded, &case.check) {
            (Ok(loaded), None) => loaded,
            (Err(error), Some(words)) if format!("{error:#}").contains(words) => return String::new(),
            (Ok(_), Some(words)) => return format!("      expected to be refused, in words that contain {words:?}\n"),
            (Err(error), Some(words)) => {
                return format!("      expected words that contain {words:?}, got: {error:#}\n");
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
                    "      step {number}: {call}\n        is for a plugin whose role is {role}; this one is played as {roles}"
                );
                continue;
            }
            let Outcome { value, backtrace } = conversation.call(&step.call).await;
            let said = capture::take();
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
            indented(&mut problems, &said);
            indented(&mut problems, &backtrace);
        }
        problems
    }

    /// Says these packets, then these lines, as a client and an internal sender would, and tells `report` of each answer. An
    /// authenticator is greeted first, and hears packets until it accepts; a router hears those after. Returns whether no
    /// call failed.
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
        let mut say = async |conversation: &mut Conversation, call: Call| {
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
            let mut said = say(&mut conversation, Call::Greet).await;
            while !said.is("accept") && end.is_none() {
                if said.is("deny") || said.is(FAILED) {
                    end = Some("the gateway closes this connection");
                } else if let Some(packet) = packets.next() {
                    said = say(&mut conversation, Call::Authenticate(packet)).await;
                    if said.is("pass") {
                        end = Some("the gateway asks the next authenticator, or closes this connection");
                    }
                } else {
                    end = Some("the client is not authenticated yet");
                }
            }
        }
        if end.is_none() && roles.router {
            say(&mut conversation, Call::Opened).await;
            for packet in packets.by_ref() {
                say(&mut conversation, Call::Route(packet)).await;
            }
        }
        if roles.router {
            for line in &opening.lines {
                say(&mut conversation, Call::Push(line.clone())).await;
            }
        }
        let unsaid = packets.count() + if roles.router { 0 } else { opening.lines.len() };
        if let Some(end) = end {
            report(&format!("({end})\n"));
        }
        if unsaid > 0 {
            report(&format!("({unsaid} packets or lines were not sent)\n"));
        }
        Ok(well)
    }
}

/// What is said to a plugin.
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
    /// What the client sends.
    pub packets: Vec<ByteString>,
    /// What the internal sender sends.
    pub lines: Vec<ByteString>,
}

async fn read(file: &Path) -> anyhow::Result<Vec<Case>> {
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || Cases::read(&file)).await?
}

fn indented(text: &mut String, lines: &str) {
    for line in lines.lines() {
        let _ = writeln!(text, "        {line}");
    }
}
