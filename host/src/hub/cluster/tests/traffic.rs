//! What clients and senders do.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::id::{Incarnation, Ticket};
use super::super::{Answer, Pushed, Refusal};
use super::net::{MS, SECOND};
use super::truth::{Conn, Fate, Push, Told};
use super::world::{Event, Step, World};

/// The fates that another host answers with, by their numbers.
const FATES: [Fate; 6] = [Fate::Ok, Fate::Moved, Fate::Offline, Fate::Unreachable, Fate::Full, Fate::Expired];

impl World {
    /// Lets one client or sender do something, then goes on.
    pub(super) fn traffic(&mut self) {
        if self.now > self.storm_until {
            return;
        }
        let open = (0..self.hosts.len()).filter(|&host| self.hosts[host].serves());
        let open = open.collect::<Vec<_>>();
        if !open.is_empty() {
            let host = open[self.rng.pick(open.len())];
            let uid = self.rng.below(self.setup.uids);
            let logins = if self.setup.is_parted { 3 } else { 5 };
            match self.rng.below(16) {
                chance if chance < logins => self.step(host, 0, Step::Login(uid)),
                ..8 => self.log_somebody_out(uid),
                8..14 => {
                    // Often the one who has just logged in.
                    let last = self.truth.conns.last().filter(|conn| conn.replied.is_some()).map(|conn| conn.uid);
                    let uid = last.filter(|_| self.rng.one_in(2)).unwrap_or(uid);
                    let burst = if self.rng.one_in(10) { 8 } else { 1 };
                    (0..burst).for_each(|_| self.step(host, 0, Step::Push(Some(uid))));
                }
                _ => self.step(host, 0, Step::Push(None)),
            }
        }
        let wait = self.rng.below(2 * self.setup.pace);
        self.at(self.now + wait, Event::Traffic);
    }

    /// Some or all connections of a uid end, all at about the same time.
    fn log_somebody_out(&mut self, uid: u64) {
        let there = |conn: &Conn| conn.uid == uid && conn.leaving.is_none() && !conn.is_lost && conn.replied.is_some();
        let there = (0..self.truth.conns.len()).filter(|&conn| there(&self.truth.conns[conn])).collect::<Vec<_>>();
        let is_all = self.rng.one_in(2);
        for conn in there {
            if is_all || self.rng.one_in(2) {
                let (host, delay) = (self.truth.conns[conn].host, self.rng.below(if is_all { 500 } else { 5 * MS }));
                self.step(host, delay, Step::Logout(conn));
            }
        }
    }

    pub(super) fn login(&mut self, at: usize, uid: u64) {
        let key = self.key(uid);
        let host = &mut self.hosts[at];
        if !host.is_open {
            return;
        }
        if !host.locked.insert(key) {
            self.step(at, 50, Step::Login(uid));
            return;
        }
        let stamp = host.node.clock().stamp(host.now(self.now), host.node.id());
        let conn = Conn {
            uid,
            host: at,
            incarnation: host.incarnation,
            stamp,
            login_began: self.now,
            replied: None,
            confirmed_by: Default::default(),
            leaving: None,
            departed: None,
            told: None,
            is_lost: false,
            is_certain: true,
        };
        self.truth.conns.push(conn);
        let (delay, conn) = (self.under_lock(), self.truth.conns.len() - 1);
        self.step(at, delay, Step::NoteLogin(conn));
    }

    /// How long a task holds a lock: now and then it is preempted.
    fn under_lock(&mut self) -> u64 {
        if self.rng.one_in(12) { self.rng.below(20 * MS) } else { self.rng.below(20) }
    }

    pub(super) fn note_login(&mut self, at: usize, conn: usize) {
        let uid = self.truth.conns[conn].uid;
        let key = self.key(uid);
        let host = &mut self.hosts[at];
        let before = host.row(&self.truth, uid);
        host.registry.insert(conn);
        let after = host.row(&self.truth, uid);
        let ticket = host.node.note_login(host.now(self.now), key, before, after);
        host.logins.insert(ticket, conn);
        host.locked.remove(&key);
        let delay = self.rng.below(100);
        self.step(at, delay, Step::Flush);
    }

    pub(super) fn confirmed(&mut self, at: usize, ticket: Ticket, is_complete: bool) {
        let host = &mut self.hosts[at];
        let Some(conn) = host.logins.remove(&ticket) else { return };
        let it = &mut self.truth.conns[conn];
        it.confirmed_by = host.node.peers().map(|peer| peer.incarnation).collect();
        it.is_certain &= is_complete;
        if is_complete {
            let delay = self.rng.below(MS);
            self.step(at, delay, Step::Reply(conn));
        } else if self.setup.is_calm {
            self.truth.breaks("a calm cluster confirms", || format!("login {conn}"));
        }
    }

    pub(super) fn logout(&mut self, at: usize, conn: usize) {
        let key = self.key(self.truth.conns[conn].uid);
        let host = &mut self.hosts[at];
        if self.truth.conns[conn].leaving.is_some() || !host.registry.contains(&conn) {
            return;
        }
        if !host.locked.insert(key) {
            self.step(at, 50, Step::Logout(conn));
            return;
        }
        let it = &mut self.truth.conns[conn];
        it.leaving = Some(self.now);
        let delay = self.under_lock();
        self.step(at, delay, Step::NoteLogout(conn));
    }

    pub(super) fn note_logout(&mut self, at: usize, conn: usize) {
        let uid = self.truth.conns[conn].uid;
        let key = self.key(uid);
        let host = &mut self.hosts[at];
        let before = host.row(&self.truth, uid);
        host.registry.remove(&conn);
        let after = host.row(&self.truth, uid);
        let (ticket, stamp) = host.node.note_departure(host.now(self.now), key, before, after);
        self.truth.conns[conn].departed = Some(stamp);
        host.departures.insert(ticket, conn);
        host.locked.remove(&key);
        let delay = self.rng.below(100);
        self.step(at, delay, Step::Flush);
    }

    pub(super) fn departed(&mut self, at: usize, ticket: Ticket, remaining: u32, is_complete: bool) {
        let host = &mut self.hosts[at];
        let Some(conn) = host.departures.remove(&ticket) else { return };
        let mut live = host.node.peers().map(|peer| peer.incarnation).collect::<BTreeSet<_>>();
        live.insert(host.incarnation);
        let it = &mut self.truth.conns[conn];
        it.told = Some(Told { at: self.now, remaining, live });
        it.is_certain &= is_complete;
    }

    /// Pushes to a uid or to everyone.
    pub(super) fn push(&mut self, at: usize, uid: Option<u64>) {
        let (id, sender) = (self.truth.pushes.len(), self.rng.pick(3));
        let length = if self.rng.one_in(40) { self.rng.between(60_000, 200_000) } else { self.rng.between(8, 200) };
        let mut body = vec![0; length as usize];
        body[..8].copy_from_slice(&(id as u64).to_be_bytes());
        let body = Bytes::from(body);
        let host = &mut self.hosts[at];
        let now = host.now(self.now);
        host.senders[sender] += 1;
        self.truth.pushes.push(Push {
            uid,
            host: at,
            incarnation: host.incarnation,
            sender,
            number: host.senders[sender],
            began: self.now,
            length: body.len(),
            synced: host.node.peers().filter(|peer| peer.is_synced).map(|peer| peer.incarnation).collect(),
            fates: BTreeMap::new(),
            entries: BTreeMap::new(),
        });
        let Some(uid) = uid else {
            let spread = host.node.send_to_all(now, &body);
            host.pushes.insert(spread.ticket, id);
            for conn in host.registry.clone() {
                self.truth.entered(self.now, id, conn);
            }
            return self.carry_out(at);
        };
        let (key, here) = (self.key(uid), self.hosts[at].newest_stamp(&self.truth, uid));
        let host = &mut self.hosts[at];
        match host.node.push(now, key, here, body) {
            Ok(Pushed::Sent(ticket)) => _ = host.pushes.insert(ticket, id),
            Ok(Pushed::Here) => {
                if let Some(conn) = host.newest(&self.truth, uid) {
                    self.truth.entered(self.now, id, conn);
                    let incarnation = self.hosts[at].incarnation;
                    self.truth.answered(id, incarnation, Fate::Ok);
                }
            }
            Err(refusal) => self.refused(at, id, refusal),
        }
        self.carry_out(at);
    }

    fn refused(&mut self, at: usize, id: usize, refusal: Refusal) {
        let fate = match refusal {
            Refusal::Offline => Fate::Offline,
            Refusal::Unreachable => Fate::Unreachable,
            Refusal::Full | Refusal::TooLong => Fate::Full,
        };
        let incarnation = self.hosts[at].incarnation;
        self.truth.answered(id, incarnation, fate);
        let Some(uid) = self.truth.pushes[id].uid else { return };
        let alone_since = self.net.clients[at].alone_since;
        if fate == Fate::Offline
            && !self.truth.a_clock_stopped
            && alone_since.is_some_and(|since| self.now > since + 2 * SECOND)
        {
            self.truth.breaks("without NATS nobody is offline", || format!("push {id} at host {at}"));
        }
        let host = &self.hosts[at];
        if fate == Fate::Offline && !self.truth.a_clock_stopped {
            // A node that this one believes dead may have the uid: nobody can know.
            let lives = |incarnation| {
                incarnation == host.incarnation || host.node.peers().any(|peer| peer.incarnation == incarnation)
            };
            let there = self.truth.present(uid, self.now).find(|conn| lives(conn.incarnation));
            if let Some(there) = there {
                let detail = format!("push {id} at host {at}, but {there:?}");
                self.truth.breaks("never offline after a confirmed reply", || detail);
            }
        }
        if self.setup.is_calm && fate == Fate::Unreachable {
            self.truth.breaks("a calm cluster reaches", || format!("push {id}"));
        }
    }

    pub(super) fn answered(&mut self, at: usize, ticket: Ticket, from: Incarnation, answer: Answer) {
        let Some(&id) = self.hosts[at].pushes.get(&ticket) else { return };
        let fate = match answer {
            Answer::Done(bytes) => bytes.first().and_then(|&byte| FATES.get(usize::from(byte))).copied(),
            Answer::Expired => Some(Fate::Expired),
            Answer::Skipped => Some(Fate::Skipped),
            Answer::Unreachable => Some(Fate::Unreachable),
            Answer::Unknown => Some(Fate::Unknown),
        };
        let fate = fate.unwrap_or(Fate::Unknown);
        self.truth.answered(id, from, fate);
        if self.setup.is_calm && matches!(fate, Fate::Unreachable | Fate::Unknown | Fate::Skipped) {
            self.truth.breaks("a calm cluster reaches", || format!("push {id}: {fate:?}"));
        }
    }
}
