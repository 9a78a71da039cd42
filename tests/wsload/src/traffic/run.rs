//! A run: set-up, traffic, drain.

use super::Traffic;
use super::config::{Carrier, Via};
use crate::commands::Commands;
use crate::net::{NO_CONN, Net};
use crate::open::{open_all, secs};
use crate::stats::Mark;

/// The interval of checks that need no event.
const TICK_NS: u64 = 50_000_000;

pub(crate) struct Outcome {
    /// Why the traffic ended early.
    pub(crate) aborted: Option<String>,
    pub(crate) setup_s: f64,
    pub(crate) drain_s: f64,
    pub(crate) lost: u64,
    pub(crate) begin: Mark,
    pub(crate) end: Mark,
    pub(crate) measured_s: f64,
    pub(crate) alive: usize,
    pub(crate) stalled_senders: usize,
    pub(crate) unanswered: u64,
}

impl Traffic {
    /// Makes the regular checks that need no event.
    fn tick(&mut self, net: &mut Net, now: u64) {
        let loss = secs(self.cfg.common.loss_timeout);
        if self.sending && self.cfg.rate.is_none() && !self.cfg.via.answered() {
            for s in 0..self.senders.len() as u32 {
                let sender = &self.senders[s as usize];
                if sender.conn == NO_CONN || sender.queued || now - sender.progress.max(self.t0) < loss {
                    continue;
                }
                let first = s * self.pairs_per_sender;
                let off: u32 = (first..first + self.pairs_per_sender).map(|p| self.tracker.reset(p)).sum();
                self.n.window_resets += 1;
                self.n.slots_written_off += off as u64;
                self.senders[s as usize].in_flight = 0;
                self.release(s, 0, now);
            }
        }
        self.newcomers.tick(net, now);
    }

    /// Returns `true` if every sent message is accounted for.
    fn settled(&self) -> bool {
        let n = &self.n;
        let acked = self.cfg.via != Via::Relay || n.acks >= n.sent;
        let answered =
            !self.cfg.via.answered() || n.replies_ok + n.replies_fail + n.replies_other >= n.sent + n.sent_offline;
        n.delivered >= n.sent && acked && answered && self.unsummarised() == 0 && self.newcomers.under_way() == 0
    }

    /// The number of streams without their last line.
    fn unsummarised(&self) -> u64 {
        let streams = if self.cfg.via.is(Carrier::Stream) { &self.push_senders[..] } else { &[] };
        streams.iter().filter(|p| !p.stream.summarised).count() as u64
    }

    /// Sets up, runs the traffic, and drains.
    pub(crate) fn run(&mut self, net: &mut Net, commands: Option<&mut Commands>) -> Result<Outcome, String> {
        let c = self.cfg.common.clone();
        let total = self.cfg.clients + self.cfg.push_senders;
        let setup_s = open_all(net, self, total, &c, true)?;

        self.t0 = net.now() + 2_000_000;
        self.measure_from = self.t0 + secs(c.warmup);
        self.measure_to = self.t0 + secs(c.duration);
        self.sending = true;
        if let Some(t) = &mut self.timeline {
            t.start(self.t0);
        }
        if let Some(cmd) = commands {
            cmd.start(self.t0.saturating_sub(net.now()));
        }
        if self.cfg.rate.is_none() {
            for s in 0..self.senders.len() as u32 {
                self.release(s, 0, self.t0);
            }
        }
        let (mut begin, mut end): (Option<Mark>, Option<Mark>) = (None, None);
        let mut aborted = None;
        let mut drain_until = u64::MAX;
        let mut next_tick = self.t0;
        let mut refill: Vec<u32> = Vec::with_capacity(self.senders.len());
        loop {
            let now = net.now();
            if begin.is_none() && now >= self.measure_from {
                begin = Some(Mark::take(net, &c.server_pid));
            }
            if self.sending && now >= self.measure_to {
                self.sending = false;
                self.end_streams(net);
                end = Some(Mark::take(net, &c.server_pid));
                drain_until = net.now() + secs(c.drain);
                if let Some(rate) = self.cfg.rate {
                    // Messages that were due and never emitted.
                    let due = (c.duration * rate) as u64;
                    self.n.not_sent += due.saturating_sub(self.emitted);
                }
            }
            if !self.sending && (self.settled() || now >= drain_until) {
                break;
            }
            let mut wake = now + 10_000_000;
            if self.sending {
                wake = wake.min(if begin.is_none() { self.measure_from } else { self.measure_to });
                if self.alive == 0 {
                    aborted = Some(format!("all connections are gone: {}", self.closures.json()));
                    break;
                }
                match self.cfg.rate {
                    Some(rate) if now >= self.t0 => wake = wake.min(self.emit_due(net, rate, now)),
                    Some(_) => wake = self.t0,
                    None => {
                        std::mem::swap(&mut refill, &mut self.refill);
                        for s in refill.drain(..) {
                            self.fill(net, s);
                        }
                    }
                }
                if now >= self.t0 {
                    let times = (self.t0, self.measure_to);
                    wake = wake.min(self.newcomers.start(net, &self.proto, &self.sources, times));
                }
            }
            net.flush();
            if now >= next_tick {
                next_tick = now + TICK_NS;
                self.tick(net, now);
            }
            // Timers wake a little late, so it polls without sleeping when the next message is close.
            let now = net.now();
            let wait = wake.saturating_sub(now);
            let wait = if c.spin || wait < 50_000 || !self.refill.is_empty() { 0 } else { wait - 35_000 };
            net.poll(self, wait).map_err(|e| format!("epoll: {e}"))?;
        }
        let drain_s = net.now().saturating_sub(self.measure_to) as f64 / 1e9;
        let alive = self.alive;
        for i in 0..self.clients.len() {
            if self.clients[i].conn != NO_CONN {
                net.send_close(self.clients[i].conn, 1000);
            }
        }
        net.flush();
        let end = end.unwrap_or_else(|| Mark::take(net, &c.server_pid));
        Ok(Outcome {
            aborted,
            setup_s,
            drain_s,
            lost: self.tracker.lost(),
            begin: begin.unwrap_or_else(|| end.clone()),
            end,
            measured_s: (self.measure_to - self.measure_from) as f64 / 1e9,
            alive,
            stalled_senders: self.senders.iter().filter(|s| s.in_flight > 0).count(),
            unanswered: self.push_senders.iter().map(|p| p.waiting.len() as u64).sum::<u64>() + self.unsummarised(),
        })
    }
}
