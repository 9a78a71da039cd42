//! What happened, as clients, senders and the world have seen it: the material of the [checker](super::checker).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The time since the record began.
pub(super) type Time = Duration;

/// All that happened since the last check.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// All connections that were open since the last check, by number.
    pub(super) connections: BTreeMap<u64, Connection>,
    /// All pushes since the last check, by number. The number is the message.
    pub(super) pushes: BTreeMap<u64, Push>,
    pub(super) troubles: Vec<Trouble>,
    /// Messages that nobody pushed.
    pub(super) odd: Vec<String>,
    /// How often a gateway did not get its turns.
    pub(super) starved: usize,
    numbers: u64,
}

/// A connection of a client.
#[derive(Clone, Default)]
pub(super) struct Connection {
    pub(super) uid: usize,
    pub(super) gateway: usize,
    /// When the client began to log in.
    pub(super) asked: Time,
    /// When it had read the reply.
    pub(super) confirmed: Option<Time>,
    /// When it began to join the group, and when it had read that it had joined.
    pub(super) joining: Option<Time>,
    pub(super) joined: Option<Time>,
    /// When it began to leave, or saw that the connection had ended. What is sent to it later may be lost.
    pub(super) ended: Option<Time>,
    /// The numbers of the messages, in order.
    pub(super) received: Vec<(u64, Time)>,
}

/// Whom a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    Uid(usize),
    Group,
    Everyone,
}

/// A message of a sender.
#[derive(Debug, Clone)]
pub(super) struct Push {
    /// The sender's stream: its messages must arrive in order.
    pub(super) stream: u64,
    /// The gateway that was asked.
    pub(super) gateway: usize,
    pub(super) to: To,
    pub(super) begin: Time,
    pub(super) end: Time,
    pub(super) outcome: Outcome,
}

/// What the sender was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// So many connections were reached. The gateways in the list may have missed a message to several.
    Reached(usize, Vec<usize>),
    /// Nobody was reached, for this reason.
    Failed(String),
    /// Nobody knows.
    Unknown,
}

/// What a fault does to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its connection to NATS is slow. Messages to it may come too late, but it stays known.
    Slow,
    /// Its connection to NATS is disturbed.
    Link,
    /// The process stands still, or has ended.
    Stopped,
}

/// A time in which something was wrong with a gateway.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) gateway: usize,
    pub(super) kind: Kind,
    pub(super) begin: Time,
    pub(super) end: Option<Time>,
}

/// Without the messages, which may be thousands.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uid, gateway, asked, confirmed, joined, ended, received, .. } = self;
        write!(f, "u{uid} at gateway {gateway}: asked {asked:.3?}, confirmed {confirmed:.3?}, joined {joined:.3?}, ")?;
        write!(f, "ended {ended:.3?}, {} messages", received.len())
    }
}

impl Connection {
    /// Returns `true` if the connection was certainly open during this time: others had to know of it.
    pub(super) fn is_open(&self, begin: Time, end: Time) -> bool {
        self.confirmed.is_some_and(|confirmed| confirmed < begin) && self.ended.is_none_or(|ended| ended > end)
    }
}

/// The record that all tasks write to.
#[derive(Debug)]
pub(super) struct Record {
    begin: Instant,
    events: Mutex<Events>,
}

impl Record {
    pub(super) fn new() -> Self {
        Self { begin: Instant::now(), events: Mutex::default() }
    }

    pub(super) fn now(&self) -> Time {
        self.begin.elapsed()
    }

    pub(super) fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().expect("not poisoned")
    }

    /// Notes that a client begins to log in. Returns the connection's number.
    pub(super) fn open(&self, uid: usize, gateway: usize) -> u64 {
        let (mut events, asked) = (self.events(), self.now());
        let number = events.number();
        events.connections.insert(number, Connection { uid, gateway, asked, ..Connection::default() });
        number
    }

    /// Notes something about a connection, unless it had ended before the last check.
    pub(super) fn connection(&self, number: u64, note: impl FnOnce(&mut Connection, Time)) {
        let (mut events, now) = (self.events(), self.now());
        if let Some(connection) = events.connections.get_mut(&number) {
            note(connection, now);
        }
    }

    /// Notes that a client has read a message.
    pub(super) fn received(&self, connection: u64, text: &str) {
        match text.parse() {
            Ok(push) => self.connection(connection, |connection, now| connection.received.push((push, now))),
            Err(_) => self.events().odd.push(text.to_owned()),
        }
    }

    /// Returns the number of a new stream of messages.
    pub(super) fn stream(&self) -> u64 {
        self.events().number()
    }

    /// Notes that a message is about to be pushed. Returns its number. Nobody knows yet what becomes of it.
    pub(super) fn push(&self, stream: u64, gateway: usize, to: To) -> u64 {
        let (mut events, begin) = (self.events(), self.now());
        let number = events.number();
        events.pushes.insert(number, Push { stream, gateway, to, begin, end: begin, outcome: Outcome::Unknown });
        number
    }

    /// Notes what the sender was told.
    pub(super) fn pushed(&self, number: u64, outcome: Outcome) {
        let (mut events, end) = (self.events(), self.now());
        let push = events.pushes.get_mut(&number).expect("a push of this record");
        (push.end, push.outcome) = (end, outcome);
    }

    /// Notes that something goes wrong with these gateways.
    pub(super) fn trouble(&self, gateways: &[usize], kind: Kind) {
        let (mut events, begin) = (self.events(), self.now());
        events.troubles.extend(gateways.iter().map(|&gateway| Trouble { gateway, kind, begin, end: None }));
    }

    /// Notes that a gateway did not get its turns on this machine since `begin`: others may have given it up.
    pub(super) fn starved(&self, gateway: usize, begin: Time) {
        let (mut events, now) = (self.events(), self.now());
        events.troubles.push(Trouble { gateway, kind: Kind::Link, begin, end: Some(now) });
        events.starved += 1;
    }

    /// Notes that it is over.
    pub(super) fn healed(&self, gateways: &[usize], kind: Kind) {
        let (mut events, now) = (self.events(), self.now());
        for gateway in gateways {
            let open = |trouble: &&mut Trouble| (trouble.gateway, trouble.kind, trouble.end) == (*gateway, kind, None);
            events.troubles.iter_mut().find(open).expect("a trouble that has begun").end = Some(now);
        }
    }

    /// Returns how many connections each uid has now, and which uids are in the group.
    pub(super) fn connected(&self) -> (BTreeMap<usize, u64>, BTreeSet<usize>) {
        let (mut counts, mut members) = (BTreeMap::new(), BTreeSet::new());
        for connection in self.events().connections.values() {
            if connection.confirmed.is_some() && connection.ended.is_none() {
                *counts.entry(connection.uid).or_default() += 1;
                members.extend(connection.joined.map(|_| connection.uid));
            }
        }
        (counts, members)
    }

    /// Begins anew with the connections that are still open. Nothing may arrive any more of what was pushed so far.
    pub(super) fn begin_anew(&self) {
        let mut events = self.events();
        events.connections.retain(|_, connection| connection.ended.is_none());
        events.connections.values_mut().for_each(|connection| connection.received.clear());
        events.pushes.clear();
        let recent = self.now().saturating_sub(Time::from_secs(60));
        events.troubles.retain(|trouble| trouble.end.is_none_or(|end| end > recent));
    }
}

impl Events {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}
