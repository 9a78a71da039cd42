//! Builds and sends messages: targets, constant parts, closed loop and open loop.

use std::ops::Range;

use super::{BURST, Config, OFFLINE_UIDS, Plan, Traffic, Via, Wire};
use crate::net::{NO_CONN, Net};
use crate::payload::{self, STAMP, Stamp};
use crate::rng::Rng;
use crate::ws;

impl Traffic {
    /// Prepares, for every target, the constant parts before and after stamp and padding.
    pub(super) fn build_wires(&mut self) -> Result<(), String> {
        let c = &self.cfg.common;
        let split = |template: &str, uid: &str| -> (String, String) {
            let (a, b) = template.split_once("{payload}").unwrap_or((template, ""));
            (a.replace("{uid}", uid), b.replace("{uid}", uid))
        };
        // The text around the payload that the receiver gets, too.
        let around = |uid: &str| match self.cfg.via {
            Via::Relay | Via::Echo => (String::new(), String::new()),
            Via::Push(_) => split(&c.line_template, uid),
        };
        let length = |uid: &String| -> usize {
            let (prefix, suffix) = around(uid);
            prefix.len() + suffix.len()
        };
        let least = self.uids.iter().map(length).max().unwrap_or(0) + STAMP;
        self.size = self.cfg.size.max(least);
        self.padding = payload::padding(self.size);
        for uid in &self.uids {
            let (prefix, suffix) = around(uid);
            let pad = (self.size - prefix.len() - suffix.len() - STAMP) as u32;
            let (before, after) = match self.cfg.via {
                Via::Relay => split(&c.relay_template, uid),
                Via::Echo => (String::new(), String::new()),
                Via::Push(carrier) => self.around_push(carrier, uid, &prefix, &suffix)?,
            };
            let mut put = |s: &str| {
                let from = self.arena.len() as u32;
                self.arena.extend_from_slice(s.as_bytes());
                from..self.arena.len() as u32
            };
            let (before, after, prefix, suffix) = (put(&before), put(&after), put(&prefix), put(&suffix));
            self.wires.push(Wire { before, after, prefix, suffix, pad });
        }
        Ok(())
    }

    pub(super) fn part(&self, range: &Range<u32>) -> &[u8] {
        &self.arena[range.start as usize..range.end as usize]
    }

    /// Chooses the pair and the target of the next message of sender `s`. The target may be an offline uid, which has
    /// no pair.
    #[inline]
    pub(super) fn pick(&mut self, s: u32) -> (u32, u32) {
        let n = self.cfg.clients as u32;
        let sender = &mut self.senders[s as usize];
        if self.cfg.offline_ratio > 0.0 && sender.rng.unit() < self.cfg.offline_ratio {
            return (u32::MAX, n + sender.rng.below(OFFLINE_UIDS as u32));
        }
        match self.cfg.plan {
            Plan::Paired => (s, self.targets[s as usize]),
            Plan::Random { .. } => {
                let pair = s * self.pairs_per_sender + sender.rng.below(self.pairs_per_sender);
                (pair, self.targets[pair as usize])
            }
            Plan::RoundRobin => {
                let t = sender.cursor;
                sender.cursor = if t + 1 == n { 0 } else { t + 1 };
                (s * n + t, t)
            }
            Plan::Zipf { .. } => {
                let t = self.zipf.as_ref().map_or(0, |z| z.sample(&mut sender.rng));
                (s * n + t, t)
            }
        }
    }

    #[inline]
    pub(super) fn target_of(&self, pair: u32) -> u32 {
        if self.cfg.via.by_clients() { self.targets[pair as usize] } else { pair % self.pairs_per_sender }
    }

    /// Queues one message of sender `s` with the time `ts`.
    #[inline]
    pub(super) fn emit(&mut self, net: &mut Net, s: u32, ts: u64) {
        let conn = self.senders[s as usize].conn;
        let (pair, target) = self.pick(s);
        let online = pair != u32::MAX;
        let seq = if online { self.tracker.send(pair) } else { 0 };
        // A line for an offline uid gets a pair number above all others, because no client may receive it.
        let stamp = payload::encode(&self.run, &Stamp { pair, seq, ts });
        let w = &self.wires[target as usize];
        // Not by `part`, because the sender's queue is borrowed, too.
        let before = &self.arena[w.before.start as usize..w.before.end as usize];
        let after = &self.arena[w.after.start as usize..w.after.end as usize];
        let pad = &self.padding[..w.pad as usize];
        let parts = [before, &stamp, pad, after];
        match self.cfg.via {
            Via::Relay | Via::Echo => net.put(conn, ws::TEXT, &parts),
            Via::Push(carrier) => {
                let p = &mut self.push_senders[s as usize];
                let append = |out: &mut Vec<u8>| parts.iter().for_each(|part| out.extend_from_slice(part));
                if carrier.has_items() {
                    append(&mut p.items);
                } else {
                    net.write(conn, append);
                }
                p.waiting.push_back(ts << 1 | online as u64);
            }
        }
        let sender = &mut self.senders[s as usize];
        if online || self.cfg.via.answered() {
            sender.in_flight += 1;
        }
        if online {
            self.n.sent += 1;
        } else {
            self.n.sent_offline += 1;
        }
        if ts >= self.measure_from {
            self.n.sent_measured += 1;
        }
    }

    /// Closed loop: uses every free slot of sender `s`.
    #[inline]
    pub(super) fn fill(&mut self, net: &mut Net, s: u32) {
        self.senders[s as usize].queued = false;
        let conn = self.senders[s as usize].conn;
        let busy =
            matches!(self.cfg.via, Via::Push(carrier) if carrier.waits()) && self.senders[s as usize].in_flight > 0;
        if conn == NO_CONN || !self.sending || busy {
            return;
        }
        let now = net.now();
        // Lines for offline uids without answers take no slot, so their number is limited here.
        for _ in 0..self.window {
            if self.senders[s as usize].in_flight >= self.window {
                break;
            }
            self.emit(net, s, now);
        }
        self.send_items(net, s);
        net.flush_one(conn);
    }

    /// Closed loop: gives `count` slots back to a sender, to be filled again.
    #[inline]
    pub(super) fn release(&mut self, s: u32, count: u32, now: u64) {
        let window = self.window;
        let sender = &mut self.senders[s as usize];
        sender.in_flight = sender.in_flight.saturating_sub(count);
        sender.progress = now;
        if !sender.queued && sender.in_flight < window {
            sender.queued = true;
            self.refill.push(s);
        }
    }

    /// Open loop: emits messages that are due. Returns the time of the next message.
    pub(super) fn emit_due(&mut self, net: &mut Net, rate: f64, now: u64) -> u64 {
        let interval = 1e9 / rate;
        for _ in 0..BURST {
            let due = self.t0 + (self.emitted as f64 * interval) as u64;
            if due > now || due >= self.measure_to {
                return due;
            }
            let s = (self.emitted % self.senders.len() as u64) as u32;
            self.emitted += 1;
            self.lag.record(now - due);
            if let Some(t) = &mut self.timeline {
                t.scheduled(due);
            }
            if self.senders[s as usize].conn == NO_CONN || net.buffered() > self.cfg.common.max_buffered {
                self.n.not_sent += 1;
                if let Some(t) = &mut self.timeline {
                    t.error(now);
                }
                continue;
            }
            self.emit(net, s, due);
            self.send_items(net, s);
        }
        now
    }
}

/// Chooses the relay targets: one entry for each pair.
pub(super) fn choose_targets(cfg: &Config, per_sender: usize, rng: &mut Rng) -> Vec<u32> {
    let n = cfg.clients;
    match (cfg.via, cfg.plan) {
        (Via::Echo, _) => (0..n as u32).collect(),
        // A client without a partner writes to the first client.
        (Via::Relay, Plan::Paired) => (0..n).map(|i| if i ^ 1 < n { i ^ 1 } else { 0 } as u32).collect(),
        (Via::Relay, _) => {
            let mut list = Vec::with_capacity(n * per_sender);
            let mut chosen: Vec<u32> = Vec::with_capacity(per_sender);
            for _ in 0..n {
                chosen.clear();
                while chosen.len() < per_sender {
                    let t = rng.below(n as u32);
                    if !chosen.contains(&t) {
                        chosen.push(t);
                    }
                }
                list.extend_from_slice(&chosen);
            }
            list
        }
        _ => Vec::new(),
    }
}
