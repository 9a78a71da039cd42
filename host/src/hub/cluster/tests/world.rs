//! The simulator: virtual time, hosts, and the network between them. What a gateway does in one go is one event here;
//! everything else can happen between two events.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use bytes::Bytes;

use super::super::id::{Fingerprint, Incarnation, NodeId, UidKey};
use super::super::{Config, Event as Told, Keys, Node, Output, REMEMBERED, Subject};
use super::faults::Fault;
use super::host::{Host, clocks};
use super::net::{Arrival, MS, Net, SECOND};
use super::rng::Rng;
use super::truth::{Fate, Truth};

/// Something that happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    Arrives(Arrival),
    /// Of one life of a host.
    Step(usize, u32, Step),
    Traffic,
    Fault(Fault),
    Heal(Fault),
}

/// A step of a host.
#[derive(Debug)]
pub(super) enum Step {
    Tick,
    Published(Incarnation),
    TakeLocks,
    Apply,
    /// A client of this uid logs in: lock and stamp, then note and unlock, then announce.
    Login(u64),
    NoteLogin(usize),
    Flush,
    Reply(usize),
    /// Somebody pushes to a uid, or to everyone.
    Push(Option<u64>),
    Logout(usize),
    NoteLogout(usize),
}

/// What differs from seed to seed.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) seed: u64,
    pub(super) hosts: usize,
    pub(super) servers: usize,
    pub(super) uids: u64,
    /// The number of different keys: fewer than uids, so that some are twins.
    pub(super) keys: u64,
    pub(super) is_calm: bool,
    /// True for a story of two servers that lose each other, one way after the other, and of many who come and go.
    pub(super) is_parted: bool,
    /// How long clients come and go, and how often something happens, in microseconds.
    pub(super) storm: u64,
    pub(super) pace: u64,
}

pub(super) struct World {
    pub(super) setup: Setup,
    pub(super) now: u64,
    pub(super) rng: Rng,
    pub(super) net: Net,
    pub(super) hosts: Vec<Host>,
    pub(super) truth: Truth,
    pub(super) suspects: u64,
    pub(super) storm_until: u64,
    /// What happens later, by time and order.
    later: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    count: u64,
}

pub(super) fn secret() -> Fingerprint {
    Fingerprint(0x5ec2e7)
}

impl World {
    pub(super) fn new(setup: Setup) -> Self {
        Self {
            rng: Rng::new(setup.seed),
            now: 1,
            net: Net::new(),
            hosts: Vec::new(),
            truth: Truth { has_twins: setup.keys < setup.uids, ..Truth::default() },
            suspects: 0,
            setup,
            storm_until: 0,
            later: BinaryHeap::new(),
            events: BTreeMap::new(),
            count: 0,
        }
    }

    pub(super) fn key(&self, uid: u64) -> UidKey {
        UidKey((uid % self.setup.keys + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(super) fn at(&mut self, time: u64, event: Event) {
        self.count += 1;
        self.later.push(Reverse((time, self.count)));
        self.events.insert(self.count, event);
    }

    pub(super) fn step(&mut self, host: usize, delay: u64, step: Step) {
        let life = self.hosts[host].life;
        self.at(self.now + delay, Event::Step(host, life, step));
    }

    fn config(&mut self, id: Option<NodeId>, secret: Fingerprint) -> Config {
        Config {
            node: id,
            incarnation: Incarnation(self.rng.next()),
            secret,
            timeout: Duration::from_secs(1),
            before: [None; REMEMBERED],
            confirm: Duration::from_millis(100),
            window: 64 * 1024,
        }
    }

    /// Adds a host that starts now.
    pub(super) fn add(&mut self, id: Option<NodeId>, secret: Fingerprint) -> usize {
        let config = self.config(id, secret);
        let booted = self.rng.below(1_000_000 * SECOND);
        let (host, server) = (self.hosts.len(), self.hosts.len() % self.setup.servers);
        // One that starts in the storm may have a wrong clock.
        let wall_error = [0, -3_600 * SECOND as i64][if self.storm_until > 0 { self.rng.pick(2) } else { 0 }];
        let node = Node::new(clocks(self.now, booted, 0, wall_error), config);
        self.hosts.push(Host { wall_error, ..Host::new(node, config.incarnation, booted) });
        self.net.add(server);
        self.net.subscribe(self.now, host, config.incarnation, &mut self.rng);
        self.step(host, 0, Step::Tick);
        host
    }

    /// Ends a host at once.
    pub(super) fn kill(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        (it.is_alive, it.is_open, it.life) = (false, false, it.life + 1);
        for conn in std::mem::take(&mut it.registry) {
            self.truth.conns[conn].is_lost = true;
        }
        let incarnation = self.hosts[host].incarnation;
        self.net.disconnect(host);
        self.net.unsubscribe(self.now, incarnation, &mut self.rng);
        // Logins that were under way have no client any more.
        for conn in self.truth.conns.iter_mut().filter(|conn| conn.incarnation == incarnation) {
            conn.is_lost |= conn.departed.is_none();
            conn.is_certain = false;
        }
    }

    /// Starts a host again, as another incarnation that knows nothing.
    pub(super) fn restart(&mut self, host: usize) {
        let config = self.config(Some(NodeId::from_low_bits(host as u64)), secret());
        let it = &self.hosts[host];
        let (life, booted, stopped, wall_error) = (it.life + 1, it.booted, it.stopped, it.wall_error);
        let node = Node::new(clocks(self.now, booted, stopped, wall_error), config);
        let new = Host::new(node, config.incarnation, booted);
        self.hosts[host] = Host { life, stopped, wall_error, ..new };
        let server = self.net.clients[host].server;
        self.net.connect(host, server);
        self.net.subscribe(self.now, host, config.incarnation, &mut self.rng);
        self.step(host, 0, Step::Tick);
    }

    /// Runs until a time, or until a promise is broken.
    pub(super) fn run_until(&mut self, end: u64) {
        while let Some(&Reverse((time, number))) = self.later.peek()
            && time <= end
            && (self.truth.broken.is_none() || self.net.corrupts > 0)
        {
            self.later.pop();
            self.now = self.now.max(time);
            let Some(event) = self.events.remove(&number) else { continue };
            let host = match &event {
                Event::Arrives(Arrival::Frame { to, .. } | Arrival::NoResponders { to, .. }) => Some((*to, true)),
                Event::Step(host, ..) => Some((*host, false)),
                _ => None,
            };
            if let Some((host, is_arrival)) = host
                && let host = &self.hosts[host]
                && host.paused_until > self.now
            {
                self.later.push(Reverse((host.paused_until + if is_arrival { host.thaw } else { 0 }, number)));
                self.events.insert(number, event);
                continue;
            }
            match event {
                Event::Arrives(arrival) => self.arrives(arrival),
                Event::Step(host, life, step) => {
                    if self.hosts[host].life == life && self.hosts[host].is_alive {
                        self.does(host, step);
                    }
                }
                Event::Traffic => self.traffic(),
                Event::Fault(fault) => self.fault(fault),
                Event::Heal(fault) => self.heal(fault),
            }
        }
        self.now = self.now.max(end);
    }

    fn arrives(&mut self, arrival: Arrival) {
        let (to, link) = match &arrival {
            Arrival::Frame { to, link, .. } | Arrival::NoResponders { to, link, .. } => (*to, *link),
        };
        if self.net.clients[to].link != link || !self.hosts[to].is_alive {
            return;
        }
        let host = &mut self.hosts[to];
        let now = host.now(self.now);
        match arrival {
            Arrival::Frame { frame, .. } => host.node.receive(now, frame),
            Arrival::NoResponders { about, token, .. } => host.node.no_responders(now, about, token),
        }
        self.carry_out(to);
    }

    fn does(&mut self, at: usize, step: Step) {
        let host = &mut self.hosts[at];
        let now = host.now(self.now);
        match step {
            Step::Tick => {
                host.node.tick(now);
                let wait = (host.node.wake_at(now) - now.boot).as_micros() as u64;
                self.step(at, wait, Step::Tick);
            }
            Step::Published(to) => host.node.published(now, to),
            Step::TakeLocks => self.take_locks(at),
            Step::Apply => self.apply(at),
            Step::Login(uid) => self.login(at, uid),
            Step::NoteLogin(conn) => self.note_login(at, conn),
            Step::Flush => host.node.flush(now),
            Step::Reply(conn) => self.truth.conns[conn].replied = Some(self.now),
            Step::Push(uid) => self.push(at, uid),
            Step::Logout(conn) => self.logout(at, conn),
            Step::NoteLogout(conn) => self.note_logout(at, conn),
        }
        self.carry_out(at);
    }

    /// Does what the node wants.
    pub(super) fn carry_out(&mut self, at: usize) {
        while let Some(output) = self.hosts[at].node.output() {
            let host = &mut self.hosts[at];
            match output {
                Output::Publish { to, frame, token, is_turn } => {
                    self.publish(at, to, frame, token);
                    if let (true, Subject::Node(to)) = (is_turn, to) {
                        let delay = if self.rng.one_in(50) { self.rng.below(3 * MS) } else { self.rng.below(60) };
                        self.step(at, delay, Step::Published(to));
                    }
                }
                Output::Apply(apply) => {
                    host.applies.push_back(apply);
                    let delay = if self.rng.one_in(50) { self.rng.below(5 * MS) } else { self.rng.below(50) };
                    self.step(at, delay, Step::Apply);
                }
                Output::Answered { ticket, incarnation, answer, .. } => self.answered(at, ticket, incarnation, answer),
                Output::Lock(lock) => {
                    host.locks.push_back(lock);
                    if host.locks.len() == 1 {
                        let delay = self.rng.below(40);
                        self.step(at, delay, Step::TakeLocks);
                    }
                }
                Output::LoginConfirmed { ticket, is_complete } => self.confirmed(at, ticket, is_complete),
                Output::Departed { ticket, remaining, is_complete } => {
                    self.departed(at, ticket, remaining, is_complete);
                }
                Output::Event(event) => {
                    if self.setup.seed == super::replayed() {
                        println!("{:>9} us  host {at}: {event:?}", self.now);
                    }
                    match event {
                        Told::Opened(_) => host.is_open = true,
                        Told::Dead(..) | Told::Suspect(..) => self.suspects += 1,
                        _ => {}
                    }
                }
                Output::Fatal(fatal) => {
                    host.fatal = Some(fatal);
                    host.node.leave(host.now(self.now));
                    self.carry_out(at);
                    return self.kill(at);
                }
            }
        }
        let (unanswered, limit) = (self.hosts[at].node.unanswered(), 64 * 1024 + self.hosts.len() * 200_100);
        if unanswered > limit {
            self.truth.breaks("the window is bounded", || format!("{unanswered} bytes"));
        }
    }

    pub(super) fn publish(&mut self, from: usize, to: Subject, frame: Bytes, token: Option<u64>) {
        for (time, arrival) in self.net.publish(self.now, from, (to, frame, token), &mut self.rng) {
            self.at(time, Event::Arrives(arrival));
        }
    }

    fn take_locks(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let Some(lock) = host.locks.front() else { return };
        let is_free = match &lock.keys {
            Keys::All => host.locked.is_empty(),
            Keys::Some(keys) => !keys.iter().any(|key| host.locked.contains(key)),
        };
        let now = host.now(self.now);
        if is_free && let Some(lock) = host.locks.pop_front() {
            host.node.locks_taken(now, &lock);
        }
        if !self.hosts[at].locks.is_empty() {
            let delay = if is_free { self.rng.below(20) } else { 100 };
            self.step(at, delay, Step::TakeLocks);
        }
    }

    /// Applies the next command of another node: what a gateway does under the shard's lock.
    fn apply(&mut self, at: usize) {
        let Some(apply) = self.hosts[at].applies.pop_front() else { return };
        let number = apply.body.get(..8).and_then(|number| number.try_into().ok()).map_or(u64::MAX, u64::from_be_bytes);
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let Some(push) = self.truth.pushes.get(number) else {
            return self.truth.breaks("a command arrives whole", || "no such push".to_owned());
        };
        let host = &self.hosts[at];
        let (now, uid) = (host.now(self.now), push.uid);
        let fate = if now.boot > apply.deadline {
            Fate::Expired
        } else if apply.body.len() != self.truth.pushes[number].length {
            return self.truth.breaks("a command arrives whole", || format!("push {number}"));
        } else if let Some(uid) = uid {
            match host.newest(&self.truth, uid) {
                Some(conn) if apply.target.is_here(host.newest_stamp(&self.truth, uid)) => {
                    self.truth.entered(self.now, number, conn);
                    Fate::Ok
                }
                _ => Fate::Moved,
            }
        } else {
            for conn in host.registry.clone() {
                self.truth.entered(self.now, number, conn);
            }
            Fate::Ok
        };
        self.hosts[at].node.answer(now, &apply, Bytes::copy_from_slice(&[fate as u8]));
    }
}
