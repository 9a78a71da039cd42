//! Connections coming and going: set-up, newcomers, closures, and the dispatch of events.

use super::{CLIENT, INDEX, KIND_SHIFT, NEWCOMER, PUBLISHER, Slot, Traffic};
use crate::net::{ConnId, Gone, Handler, NO_CONN, Net};
use crate::open::{Opener, Progress};
use crate::proto::Step;

impl Traffic {
    pub(super) fn publisher_ready(&mut self, m: u32) {
        let p = &mut self.publishers[m as usize];
        if !p.ready {
            p.ready = true;
            self.senders[m as usize].conn = p.conn;
            self.progress.ready += 1;
        }
    }

    pub(super) fn client_step(&mut self, net: &mut Net, i: u32, step: Step) {
        match step {
            Step::Wait => {}
            Step::Ready => {
                let c = &mut self.clients[i as usize];
                c.ready = true;
                if self.cfg.via.by_clients() {
                    self.senders[i as usize].conn = c.conn;
                }
                self.alive += 1;
                self.progress.ready += 1;
            }
            Step::Failed(e) => {
                let c = &mut self.clients[i as usize];
                net.close(c.conn, false);
                c.conn = NO_CONN;
                self.setup_failed(&e);
            }
        }
    }

    pub(super) fn setup_failed(&mut self, why: &str) {
        self.progress.failed += 1;
        self.setup_errors.add(why);
    }

    // ------------------------------------------------------------ newcomers

    pub(super) fn start_newcomers(&mut self, net: &mut Net, now: u64) -> u64 {
        let Some(cfg) = self.cfg.newcomers.filter(|n| n.rate > 0.0) else { return u64::MAX };
        loop {
            let due = self.t0 + (self.next_newcomer as f64 * 1e9 / cfg.rate) as u64;
            if due > now || due >= self.measure_to {
                return due;
            }
            let k = self.next_newcomer;
            self.next_newcomer += 1;
            let Some(slot) = self.vacant.pop() else {
                self.n.auth_skipped += 1;
                if let Some(t) = &mut self.timeline {
                    t.auth_failed(due);
                }
                continue;
            };
            let uid = format!("{}new{}", self.cfg.common.uid_prefix, k % 100_000);
            let path = self.proto.path(&uid);
            match net.open_ws(path, NEWCOMER << KIND_SHIFT | slot, self.sources.pick(k)) {
                Ok(conn) => {
                    self.slots[slot as usize] = Slot { conn, ready: false, scheduled: due, since: now, uid };
                }
                Err(e) => {
                    self.slots[slot as usize].scheduled = due;
                    self.newcomer_failed(slot, &format!("connect: {e}"));
                }
            }
        }
    }

    pub(super) fn newcomer_failed(&mut self, slot: u32, why: &str) {
        self.n.auth_failed += 1;
        self.auth_errors.add(why);
        if let Some(t) = &mut self.timeline {
            t.auth_failed(self.slots[slot as usize].scheduled);
        }
        self.slots[slot as usize].conn = NO_CONN;
        self.vacant.push(slot);
    }

    pub(super) fn newcomer_step(&mut self, net: &mut Net, slot: u32, step: Step, now: u64) {
        match step {
            Step::Wait => {}
            Step::Ready => {
                let s = &mut self.slots[slot as usize];
                (s.ready, s.since) = (true, now);
                let (due, took) = (s.scheduled, now.saturating_sub(s.scheduled));
                self.n.auth_ok += 1;
                if due >= self.measure_from {
                    self.auth_latency.record(took);
                }
                if let Some(t) = &mut self.timeline {
                    t.auth_ok(due, took);
                }
                if self.cfg.newcomers.is_some_and(|n| n.hold <= 0.0) {
                    self.newcomer_leave(net, slot);
                }
            }
            Step::Failed(e) => {
                net.close(self.slots[slot as usize].conn, false);
                self.newcomer_failed(slot, &e);
            }
        }
    }

    pub(super) fn newcomer_leave(&mut self, net: &mut Net, slot: u32) {
        let conn = std::mem::replace(&mut self.slots[slot as usize].conn, NO_CONN);
        net.send_close(conn, 1000);
        net.flush_one(conn);
        net.close(conn, false);
        self.vacant.push(slot);
    }
}

impl Opener for Traffic {
    /// Clients first, then publishers.
    fn start(&mut self, net: &mut Net, i: usize) {
        self.progress.started += 1;
        let now = net.now();
        if i < self.cfg.clients {
            let path = self.proto.path(&self.uids[i]);
            match net.open_ws(path, CLIENT << KIND_SHIFT | i as u32, self.sources.pick(i as u64)) {
                Ok(conn) => (self.clients[i].conn, self.clients[i].started) = (conn, now),
                Err(e) => self.setup_failed(&format!("connect: {e}")),
            }
            return;
        }
        let m = i - self.cfg.clients;
        let addr = self.text_addr.expect("publishers have an address");
        match net.open_raw(&addr, PUBLISHER << KIND_SHIFT | m as u32) {
            Ok(conn) => (self.publishers[m].conn, self.publishers[m].started) = (conn, now),
            Err(e) => self.setup_failed(&format!("text port: connect: {e}")),
        }
    }

    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn expire(&mut self, net: &mut Net, now: u64, limit_ns: u64) {
        for i in 0..self.clients.len() {
            let c = &mut self.clients[i];
            if c.conn != NO_CONN && !c.ready && now > c.started + limit_ns {
                net.close(c.conn, true);
                c.conn = NO_CONN;
                self.setup_failed("no answer within --connect-timeout");
            }
        }
        for i in 0..self.publishers.len() {
            let p = &mut self.publishers[i];
            if p.conn != NO_CONN && !p.ready && now > p.started + limit_ns {
                net.close(p.conn, true);
                p.conn = NO_CONN;
                self.setup_failed("publisher: no answer within --connect-timeout");
            }
        }
    }

    fn first_error(&self) -> Option<String> {
        Some(self.setup_errors.json().to_string())
    }
}

impl Handler for Traffic {
    fn on_open(&mut self, net: &mut Net, c: ConnId, tag: u32, now: u64) {
        let i = tag & INDEX;
        match tag >> KIND_SHIFT {
            CLIENT => {
                let step = self.proto.on_open(net, c, &self.uids[i as usize]);
                self.client_step(net, i, step);
            }
            PUBLISHER => self.publisher_ready(i),
            _ => {
                let step = self.proto.on_open(net, c, &self.slots[i as usize].uid);
                self.newcomer_step(net, i, step, now);
            }
        }
    }

    #[inline]
    fn on_message(&mut self, net: &mut Net, _c: ConnId, tag: u32, data: &[u8], now: u64) {
        let i = tag & INDEX;
        if tag >> KIND_SHIFT == CLIENT {
            if !self.clients[i as usize].ready {
                if self.proto.is_greeting(data) {
                    self.n.greetings += 1;
                }
                let step = self.proto.on_setup_message(data);
                self.client_step(net, i, step);
            } else {
                self.received(i, data, now);
            }
        } else if !self.slots[i as usize].ready {
            let step = self.proto.on_setup_message(data);
            self.newcomer_step(net, i, step, now);
        }
    }

    fn on_raw(&mut self, _net: &mut Net, _c: ConnId, tag: u32, data: &[u8], now: u64) -> usize {
        self.text_replies(tag & INDEX, data, now)
    }

    fn on_close(&mut self, _net: &mut Net, _c: ConnId, tag: u32, why: &Gone, now: u64) {
        let i = tag & INDEX;
        let was_ready = match tag >> KIND_SHIFT {
            CLIENT => {
                let c = &mut self.clients[i as usize];
                c.conn = NO_CONN;
                if self.cfg.via.by_clients() {
                    self.senders[i as usize].conn = NO_CONN;
                }
                self.alive -= c.ready as usize;
                std::mem::replace(&mut c.ready, false)
            }
            PUBLISHER => {
                let p = &mut self.publishers[i as usize];
                p.conn = NO_CONN;
                self.senders[i as usize].conn = NO_CONN;
                std::mem::replace(&mut p.ready, false)
            }
            _ => {
                if self.slots[i as usize].ready {
                    // Dropped by the server after it was let in: free the slot.
                    self.slots[i as usize].conn = NO_CONN;
                    self.vacant.push(i);
                } else {
                    self.newcomer_failed(i, &why.to_string());
                }
                return;
            }
        };
        let who = if tag >> KIND_SHIFT == CLIENT { "client" } else { "publisher" };
        if was_ready {
            self.n.closed += 1;
            self.closures.add(&format!("{who}: {why}"));
            if let Some(t) = &mut self.timeline {
                t.error(now);
            }
        } else {
            self.setup_failed(&format!("{who}: {why}"));
        }
    }
}
