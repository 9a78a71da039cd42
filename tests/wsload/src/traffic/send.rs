//! Builds and sends messages: targets, constant parts, closed loop and open loop.

use super::{BURST, Config, OFFLINE_UIDS, Plan, Traffic, Via, Wire};
use crate::net::{NO_CONN, Net};
use crate::payload::{self, STAMP, Stamp};
use crate::rng::Rng;
use crate::ws;

impl Traffic {
    /// Prepares, for every target, the constant parts before and after stamp and padding.
    pub(super) fn build_wires(&mut self) {
        let c = &self.cfg.common;
        let split = |template: &str, uid: &str| -> (String, String) {
            let (a, b) = template.split_once("{payload}").unwrap_or((template, ""));
            (a.replace("{uid}", uid), b.replace("{uid}", uid))
        };
        // The text before and after the payload that the receiver gets, too.
        let around = |uid: &str| {
            if self.cfg.via == Via::Text {
                let (a, b) = split(&c.line_template, uid);
                a.len() + b.len()
            } else {
                0
            }
        };
        let least = self.uids.iter().map(|u| around(u)).max().unwrap_or(0) + STAMP;
        self.size = self.cfg.size.max(least);
        self.padding = payload::padding(self.size);
        for uid in &self.uids {
            let body = self.size - around(uid);
            let (prefix, suffix) = match self.cfg.via {
                Via::Relay => split(&c.relay_template, uid),
                Via::Echo => (String::new(), String::new()),
                Via::Text => {
                    let (a, b) = split(&c.line_template, uid);
                    (a, b + "\n")
                }
            };
            let mut put = |s: &str| {
                let from = self.arena.len() as u32;
                self.arena.extend_from_slice(s.as_bytes());
                from..self.arena.len() as u32
            };
            let (prefix, suffix) = (put(&prefix), put(&suffix));
            self.wires.push(Wire { prefix, pad: (body - STAMP) as u32, suffix });
        }
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
        let prefix = &self.arena[w.prefix.start as usize..w.prefix.end as usize];
        let suffix = &self.arena[w.suffix.start as usize..w.suffix.end as usize];
        let pad = &self.padding[..w.pad as usize];
        if self.cfg.via.by_clients() {
            net.put(conn, ws::TEXT, &[prefix, &stamp, pad, suffix]);
        } else {
            net.write(conn, |out| {
                for part in [prefix, &stamp, pad, suffix] {
                    out.extend_from_slice(part);
                }
            });
            if self.cfg.via.answered() {
                self.text_senders[s as usize].waiting.push_back(ts << 1 | online as u64);
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
        if conn == NO_CONN || !self.sending {
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
