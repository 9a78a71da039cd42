//! Compares what senders were told with what clients have received. Exact: each message has a number, one recipient or
//! set of recipients, and one outcome.

use std::collections::BTreeMap;
use std::time::Duration;

use super::record::{Connection, Events, Kind, Outcome, Push, Time, To};

/// After a fault, a gateway needs this time until all others know its connections again: they must find each other and
/// compare their rows. On a busy machine, some more.
const SETTLE: Duration = Duration::from_secs(8);

/// `cluster.timeout`, and some seconds for a busy machine: later, nothing may arrive of a push.
const LATEST: Duration = Duration::from_millis(1_000 + 2_000);

/// What makes others give up the connections of a gateway.
pub(super) const UNKNOWN: [Kind; 2] = [Kind::Link, Kind::Stopped];

/// What may keep a message from reaching a gateway in time.
const ANY: [Kind; 3] = [Kind::Slow, Kind::Link, Kind::Stopped];

/// A message that reached a connection may be lost if the connection ends so soon before or after the push.
const LINGER: Duration = Duration::from_secs(2);

/// The same if the connection's gateway was stopped or could not be reached. The longest faults are shorter.
const LINGER_IN_TROUBLE: Duration = Duration::from_secs(20);

/// What the check has seen.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What is wrong, in words.
    pub(super) wrong: Vec<String>,
    /// How many pushes had which outcome.
    pub(super) outcomes: BTreeMap<String, usize>,
    /// How many messages were received.
    pub(super) received: usize,
    /// How many pushes reached a connection that ended before it could read the message.
    pub(super) lost: usize,
}

impl Events {
    /// Checks everything. All outcomes must be known, and clients must have read everything.
    pub(super) fn check(&self) -> Report {
        let mut report = Report {
            wrong: self.odd.iter().map(|text| format!("stray message {text:?}")).collect(),
            ..Report::default()
        };
        let mut readers: BTreeMap<u64, Vec<(&Connection, Time)>> = BTreeMap::new();
        for connection in self.connections.values() {
            self.check_order(connection, &mut report);
            for (number, at) in &connection.received {
                report.received += 1;
                readers.entry(*number).or_default().push((connection, *at));
            }
        }
        for (number, push) in &self.pushes {
            let readers = readers.remove(number).unwrap_or_default();
            let outcome = match &push.outcome {
                Outcome::Reached(..) => "ok",
                Outcome::Failed(reason) => reason,
                Outcome::Unknown => "unknown",
            };
            *report.outcomes.entry(outcome.to_owned()).or_default() += 1;
            let found = report.wrong.len();
            self.check_readers(push, &readers, &mut report);
            match push.to {
                To::Uid(uid) => self.check_one(push, uid, &readers, &mut report),
                To::Group | To::Everyone => self.check_many(push, &readers, &mut report),
            }
            for wrong in &mut report.wrong[found..] {
                *wrong = format!("{number}: {wrong}\n    {push:?}\n    read by {readers:?}");
            }
        }
        report.wrong.extend(readers.keys().map(|number| format!("{number} was not pushed, or long ago")));
        report
    }

    /// Each connection reads the messages of one stream in the order in which they were pushed, each once.
    fn check_order(&self, connection: &Connection, report: &mut Report) {
        let mut last = BTreeMap::new();
        for (number, _) in &connection.received {
            let Some(push) = self.pushes.get(number) else { continue };
            if let Some(before) = last.insert(push.stream, *number).filter(|before| before >= number) {
                let what = if before == *number { "twice" } else { "in the wrong order" };
                report.wrong.push(format!("{before} and then {number}, of one stream: {what} {connection:?}"));
            }
        }
    }

    /// Only those read a message that it is for, in time, and only if nobody was told that it had failed.
    fn check_readers(&self, push: &Push, readers: &[(&Connection, Time)], report: &mut Report) {
        for (reader, at) in readers {
            let is_recipient = match push.to {
                To::Uid(uid) => reader.uid == uid,
                To::Group => reader.joining.is_some_and(|joining| joining < *at),
                To::Everyone => true,
            };
            if !is_recipient {
                report.wrong.push("a stranger has read it".to_owned());
            }
            let stood_still = [push.gateway, reader.gateway]
                .into_iter()
                .any(|gateway| self.is_in_trouble(gateway, &[Kind::Stopped], push.begin, *at));
            // What comes while a login waits for other gateways is read after its reply.
            let begin = push.begin.max(reader.confirmed.unwrap_or_default());
            if *at > begin + LATEST && !stood_still {
                report.wrong.push("it came late".to_owned());
            }
        }
        if let (Outcome::Failed(reason), 1..) = (&push.outcome, readers.len()) {
            report.wrong.push(format!("failed ({reason}), and was read all the same"));
        }
    }

    /// A message to a uid: at most one connection reads it, exactly one if it was reached.
    fn check_one(&self, push: &Push, uid: usize, readers: &[(&Connection, Time)], report: &mut Report) {
        if readers.len() > 1 {
            report.wrong.push("several connections have read it".to_owned());
        }
        let of_uid = || self.connections.values().filter(|connection| connection.uid == uid);
        match push.outcome {
            Outcome::Reached(1, _) if readers.is_empty() => {
                match of_uid().any(|connection| self.may_have_lost(connection, push)) {
                    true => report.lost += 1,
                    false => report.wrong.push("reached, and was not read".to_owned()),
                }
            }
            Outcome::Reached(1, _) | Outcome::Unknown => {}
            Outcome::Reached(count, _) => report.wrong.push(format!("reached {count} connections of a uid")),
            Outcome::Failed(ref reason) if reason == "offline" => {
                // Its reply had been read, and nothing was wrong with its gateway: everybody had to know of it.
                for connection in of_uid().filter(|connection| self.had_to_be_known(connection, push, &UNKNOWN)) {
                    report.wrong.push(format!("offline, with {connection:?}"));
                }
            }
            Outcome::Failed(_) => {}
        }
        // A gateway that has lost the others serves its own clients.
        if self.is_in_trouble(push.gateway, &UNKNOWN, push.begin.saturating_sub(SETTLE), push.end) {
            return;
        }
        // A newer connection, that everybody had to know of, gets the message.
        for (reader, _) in readers {
            let is_newer =
                |connection: &&Connection| reader.confirmed.is_some_and(|confirmed| confirmed < connection.asked);
            for newer in of_uid().filter(is_newer).filter(|newer| self.had_to_be_known(newer, push, &UNKNOWN)) {
                report.wrong.push(format!("not the newest has read it, but the one before {newer:?}"));
            }
        }
    }

    /// A message to a group or everyone: as many read it as the sender was told, each once. Whoever had to be known
    /// reads it.
    fn check_many(&self, push: &Push, readers: &[(&Connection, Time)], report: &mut Report) {
        let Outcome::Reached(reached, missing) = &push.outcome else { return };
        let may_be_member = |connection: &&Connection| push.to == To::Everyone || connection.joining.is_some();
        let members = self.connections.values().filter(may_be_member);
        let lost = members.filter(|connection| self.may_have_lost(connection, push)).count();
        if *reached > readers.len() + lost {
            report.wrong.push(format!("reached {reached}, read by {}, lost by at most {lost}", readers.len()));
        }
        if self.is_in_trouble(push.gateway, &ANY, push.begin.saturating_sub(SETTLE), push.end) {
            return;
        }
        for connection in self.connections.values().filter(|connection| self.had_to_be_known(connection, push, &ANY)) {
            let is_recipient = push.to == To::Everyone || connection.joined.is_some_and(|joined| joined < push.begin);
            let has_read = || readers.iter().any(|(reader, _)| std::ptr::eq(*reader, connection));
            if is_recipient && !missing.contains(&connection.gateway) && !has_read() {
                report.wrong.push(format!("not read by {connection:?}"));
            }
        }
    }

    /// Returns `true` if a connection was open during the push, and its gateway was in no such trouble: others had to
    /// know of it. (The connections of a gateway that others do not hear count as offline after 3 s.)
    fn had_to_be_known(&self, connection: &Connection, push: &Push, kinds: &[Kind]) -> bool {
        let begin = push.begin.saturating_sub(SETTLE);
        connection.is_open(push.begin, push.end) && !self.is_in_trouble(connection.gateway, kinds, begin, push.end)
    }

    /// Returns `true` if a message that was in the outbox of this connection may have been lost with it.
    fn may_have_lost(&self, connection: &Connection, push: &Push) -> bool {
        let Some(ended) = connection.ended else { return false };
        let begin = push.begin.saturating_sub(LINGER_IN_TROUBLE);
        let linger = match self.is_in_trouble(connection.gateway, &UNKNOWN, begin, push.end + LINGER_IN_TROUBLE) {
            true => LINGER_IN_TROUBLE,
            false => LINGER,
        };
        connection.asked < push.end && ended + linger > push.begin && ended < push.end + linger
    }

    /// Returns `true` if a gateway was in such trouble during this time.
    pub(super) fn is_in_trouble(&self, gateway: usize, kinds: &[Kind], begin: Time, end: Time) -> bool {
        self.troubles.iter().any(|trouble| {
            trouble.gateway == gateway
                && kinds.contains(&trouble.kind)
                && trouble.begin <= end
                && trouble.end.is_none_or(|over| over >= begin)
        })
    }
}
