//! Clients that arrive in open loop, log in and leave.

use crate::cli::Common;
use crate::net::{ConnId, Gone, NO_CONN, Net};
use crate::open::{Sources, secs};
use crate::proto::{Proto, Step};
use crate::stats::{Latency, Samples};

/// The most newcomers at a time.
const MOST: usize = 4096;
/// Uids are used again after so many newcomers.
const NAMES: u64 = 100_000;

struct Place {
    conn: ConnId,
    ready: bool,
    due: u64,
    since: u64,
    uid: String,
}

/// The result of one newcomer: when it was due, and the time from then until it was logged in.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) due: u64,
    pub(crate) took: Option<u64>,
}

pub(crate) struct Newcomers {
    rate: f64,
    /// The time that newcomers stay after their login.
    hold: u64,
    timeout: u64,
    uid_prefix: String,
    /// The tag of the first place. Tags of other places follow.
    first_tag: u32,
    places: Vec<Place>,
    vacant: Vec<u32>,
    started: u64,
    pub(crate) arrivals: Vec<Arrival>,
    pub(crate) errors: Samples,
    /// The number of newcomers that were due while all places were taken.
    pub(crate) skipped: u64,
}

impl Newcomers {
    pub(crate) fn new(c: &Common, rate: f64, hold_s: f64, first_tag: u32) -> Newcomers {
        let places = if rate > 0.0 { ((rate * (hold_s + 2.0)) as usize + 64).min(MOST) } else { 0 };
        Newcomers {
            rate,
            hold: secs(hold_s),
            timeout: secs(c.connect_timeout),
            uid_prefix: format!("{}new", c.uid_prefix),
            first_tag,
            places: (0..places)
                .map(|_| Place { conn: NO_CONN, ready: false, due: 0, since: 0, uid: String::new() })
                .collect(),
            vacant: (0..places as u32).rev().collect(),
            started: 0,
            arrivals: Vec::new(),
            errors: Samples::default(),
            skipped: 0,
        }
    }

    /// The most newcomers at a time.
    pub(crate) fn places(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn under_way(&self) -> u64 {
        (self.places.len() - self.vacant.len()) as u64
    }

    pub(crate) fn logged_in(&self) -> u64 {
        self.arrivals.iter().filter(|arrival| arrival.took.is_some()).count() as u64
    }

    /// The number of newcomers that were due and failed to log in.
    pub(crate) fn failed(&self) -> u64 {
        self.arrivals.len() as u64 - self.logged_in() - self.skipped
    }

    /// The login times of newcomers that were due in this time.
    pub(crate) fn latency(&self, from: u64, to: u64) -> Latency {
        let mut latency = Latency::default();
        let due = self.arrivals.iter().filter(|arrival| (from..to).contains(&arrival.due));
        due.filter_map(|arrival| arrival.took).for_each(|took| latency.record(took));
        latency
    }

    /// Starts newcomers that are due, until the time is over. Returns the time at which the next newcomer is due.
    pub(crate) fn start(&mut self, net: &mut Net, proto: &Proto, sources: &Sources, (t0, until): (u64, u64)) -> u64 {
        if self.rate <= 0.0 {
            return u64::MAX;
        }
        let now = net.now();
        loop {
            let due = t0 + (self.started as f64 * 1e9 / self.rate) as u64;
            if due > now || due >= until {
                return due;
            }
            let number = self.started;
            self.started += 1;
            let Some(slot) = self.vacant.pop() else {
                self.skipped += 1;
                self.arrivals.push(Arrival { due, took: None });
                continue;
            };
            let uid = format!("{}{}", self.uid_prefix, number % NAMES);
            let opened = net.open_ws(proto.path(&uid), self.first_tag + slot, sources.pick(number));
            self.places[slot as usize] = Place { conn: NO_CONN, ready: false, due, since: now, uid };
            match opened {
                Ok(conn) => self.places[slot as usize].conn = conn,
                Err(e) => self.fail(slot, &format!("connect: {e}")),
            }
        }
    }

    pub(crate) fn on_open(&mut self, net: &mut Net, proto: &Proto, conn: ConnId, tag: u32, now: u64) {
        let slot = tag - self.first_tag;
        let step = proto.on_open(net, conn, &self.places[slot as usize].uid);
        self.step(net, slot, step, now);
    }

    pub(crate) fn on_message(&mut self, net: &mut Net, proto: &Proto, tag: u32, data: &[u8], now: u64) {
        let slot = tag - self.first_tag;
        if !self.places[slot as usize].ready {
            self.step(net, slot, proto.on_setup_message(data), now);
        }
    }

    pub(crate) fn on_close(&mut self, tag: u32, why: &Gone) {
        let slot = tag - self.first_tag;
        if self.places[slot as usize].ready {
            // The server closed the connection after the login.
            self.vacate(slot);
        } else {
            self.fail(slot, &why.to_string());
        }
    }

    /// Closes newcomers that have stayed long enough, and gives up those that have waited too long.
    pub(crate) fn tick(&mut self, net: &mut Net, now: u64) {
        for i in 0..self.places.len() as u32 {
            let slot = &self.places[i as usize];
            if slot.conn == NO_CONN {
                continue;
            }
            if slot.ready && now >= slot.since + self.hold {
                self.leave(net, i);
            } else if !slot.ready && now >= slot.since + self.timeout {
                net.close(slot.conn, true);
                self.fail(i, "timed out");
            }
        }
    }

    fn step(&mut self, net: &mut Net, i: u32, step: Step, now: u64) {
        let slot = &mut self.places[i as usize];
        match step {
            Step::Wait => {}
            Step::Ready => {
                (slot.ready, slot.since) = (true, now);
                self.arrivals.push(Arrival { due: slot.due, took: Some(now.saturating_sub(slot.due)) });
                if self.hold == 0 {
                    self.leave(net, i);
                }
            }
            Step::Failed(e) => {
                net.close(slot.conn, false);
                self.fail(i, &e);
            }
        }
    }

    fn leave(&mut self, net: &mut Net, i: u32) {
        let conn = self.places[i as usize].conn;
        net.send_close(conn, 1000);
        net.flush_one(conn);
        net.close(conn, false);
        self.vacate(i);
    }

    fn fail(&mut self, i: u32, why: &str) {
        self.errors.add(why);
        self.arrivals.push(Arrival { due: self.places[i as usize].due, took: None });
        self.vacate(i);
    }

    fn vacate(&mut self, i: u32) {
        self.places[i as usize].conn = NO_CONN;
        self.vacant.push(i);
    }
}
