//! A host in the simulator: a registry with locks, and the steps that a gateway takes one after the other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::super::clock::{Now, Stamp};
use super::super::frame::Row;
use super::super::id::{Incarnation, Ticket, UidKey};
use super::super::{Apply, Fatal, Lock, Node};
use super::truth::Truth;

/// 2026-11-30.
const WALL: u64 = 1_796_000_000_000_000;

#[derive(Debug)]
pub(super) struct Host {
    pub(super) node: Node,
    pub(super) incarnation: Incarnation,
    pub(super) is_alive: bool,
    pub(super) is_open: bool,
    pub(super) fatal: Option<Fatal>,
    /// True for a host with another secret. It may open if nobody answers while it listens; then it is alone.
    pub(super) is_foreign: bool,
    /// Counts the lives of this host: events of an earlier one are void.
    pub(super) life: u32,
    pub(super) booted: u64,
    /// How long the machine's clocks have stood still.
    pub(super) stopped: u64,
    /// The error of the wall clock, in microseconds.
    pub(super) wall_error: i64,
    pub(super) paused_until: u64,
    /// How much later than its own work the host does what arrived during a pause.
    pub(super) thaw: u64,
    /// Connections in the registry.
    pub(super) registry: BTreeSet<usize>,
    pub(super) locked: BTreeSet<UidKey>,
    pub(super) locks: VecDeque<Lock>,
    pub(super) applies: VecDeque<Apply>,
    pub(super) logins: BTreeMap<Ticket, usize>,
    pub(super) departures: BTreeMap<Ticket, usize>,
    pub(super) pushes: BTreeMap<Ticket, usize>,
    /// What each sender counted last.
    pub(super) senders: [u64; 3],
}

impl Host {
    pub(super) fn new(node: Node, incarnation: Incarnation, booted: u64) -> Self {
        Self {
            node,
            incarnation,
            is_alive: true,
            is_open: false,
            fatal: None,
            is_foreign: false,
            life: 0,
            booted,
            stopped: 0,
            wall_error: 0,
            paused_until: 0,
            thaw: 0,
            registry: BTreeSet::new(),
            locked: BTreeSet::new(),
            locks: VecDeque::new(),
            applies: VecDeque::new(),
            logins: BTreeMap::new(),
            departures: BTreeMap::new(),
            pushes: BTreeMap::new(),
            senders: [0; 3],
        }
    }

    /// True if clients and senders find the host.
    pub(super) fn serves(&self) -> bool {
        self.is_alive && self.is_open && !self.is_foreign
    }

    /// What the host's clocks show.
    pub(super) fn now(&self, time: u64) -> Now {
        clocks(time, self.booted, self.stopped, self.wall_error)
    }

    /// The connections of a uid, and the newest of them.
    pub(super) fn newest(&self, truth: &Truth, uid: u64) -> Option<usize> {
        let same = self.registry.iter().copied().filter(|&conn| truth.conns[conn].uid == uid);
        same.max_by_key(|&conn| truth.conns[conn].stamp)
    }

    pub(super) fn row(&self, truth: &Truth, uid: u64) -> Option<Row> {
        let newest = truth.conns[self.newest(truth, uid)?].stamp;
        let count = self.registry.iter().filter(|&&conn| truth.conns[conn].uid == uid).count() as u32;
        Some(Row { newest, count })
    }

    pub(super) fn newest_stamp(&self, truth: &Truth, uid: u64) -> Option<Stamp> {
        self.newest(truth, uid).map(|conn| truth.conns[conn].stamp)
    }
}

pub(super) fn clocks(time: u64, booted: u64, stopped: u64, wall_error: i64) -> Now {
    let time = time - stopped;
    let wall = (WALL + time).saturating_add_signed(wall_error);
    Now { boot: Duration::from_micros(booted + time), wall: Duration::from_micros(wall) }
}
