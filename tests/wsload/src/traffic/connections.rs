//! Connections of the traffic: set-up, closures, and the dispatch of events.

use super::{CLIENT, INDEX, KIND_SHIFT, PUSH_SENDER, Traffic};
use crate::net::{ConnId, Gone, Handler, NO_CONN, Net};
use crate::open::{Opener, Progress};
use crate::proto::Step;
use crate::stats::Samples;

impl Traffic {
    fn push_sender_ready(&mut self, net: &mut Net, m: u32) {
        let p = &mut self.push_senders[m as usize];
        if !p.ready {
            p.ready = true;
            self.senders[m as usize].conn = p.conn;
            self.progress.ready += 1;
            self.begin_stream(net, m);
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
}

impl Opener for Traffic {
    /// Starts connection number `i`: first the clients, then the push senders.
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
        let address = self.push_address.expect("push senders have an address");
        match net.open_raw(&address, PUSH_SENDER << KIND_SHIFT | m as u32) {
            Ok(conn) => (self.push_senders[m].conn, self.push_senders[m].started) = (conn, now),
            Err(e) => self.setup_failed(&format!("sender: connect: {e}")),
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
        for i in 0..self.push_senders.len() {
            let p = &mut self.push_senders[i];
            if p.conn != NO_CONN && !p.ready && now > p.started + limit_ns {
                net.close(p.conn, true);
                p.conn = NO_CONN;
                self.setup_failed("sender: no answer within --connect-timeout");
            }
        }
    }

    fn errors(&self) -> &Samples {
        &self.setup_errors
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
            PUSH_SENDER => self.push_sender_ready(net, i),
            _ => self.newcomers.on_open(net, &self.proto, c, tag, now),
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
        } else {
            self.newcomers.on_message(net, &self.proto, tag, data, now);
        }
    }

    fn on_raw(&mut self, net: &mut Net, c: ConnId, tag: u32, data: &[u8], now: u64) -> usize {
        self.answers(tag & INDEX, data, now).unwrap_or_else(|why| {
            net.close(c, true);
            self.on_close(net, c, tag, &Gone::Answer(why), now);
            data.len()
        })
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
            PUSH_SENDER => {
                let p = &mut self.push_senders[i as usize];
                p.conn = NO_CONN;
                self.senders[i as usize].conn = NO_CONN;
                std::mem::replace(&mut p.ready, false)
            }
            _ => return self.newcomers.on_close(tag, why),
        };
        let who = if tag >> KIND_SHIFT == CLIENT { "client" } else { "sender" };
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
