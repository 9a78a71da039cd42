//! The account of received messages: deliveries and acks.

use super::{Traffic, Via};
use crate::payload::{self, Decoded, STAMP, Stamp};
use crate::proto::sample;
use crate::track::Arrival;

impl Traffic {
    /// Handles a message that client `i` has received.
    #[inline]
    pub(super) fn received(&mut self, i: u32, data: &[u8], now: u64) {
        if self.cfg.via == Via::Relay && data == self.proto.ack.as_bytes() {
            self.n.acks += 1;
            if now >= self.measure_from && now < self.measure_to {
                self.n.acks_measured += 1;
            }
            return;
        }
        let off = self.wires[i as usize].prefix.len();
        match payload::decode(&self.run, data.get(off..).unwrap_or(&[])) {
            Decoded::Ours(s) => {
                let ok = self.intact(i, off, data);
                self.delivered(i, s, ok, now);
            }
            _ => self.odd(i, data, now),
        }
    }

    /// Returns `true` if the message is exactly the sent message, apart from its stamp.
    #[inline]
    pub(super) fn intact(&self, i: u32, off: usize, data: &[u8]) -> bool {
        let w = &self.wires[i as usize];
        if data.len() != self.size {
            return false;
        }
        let pad_at = off + STAMP;
        let end = pad_at + w.pad as usize;
        data[pad_at..end] == self.padding[..w.pad as usize]
            && data[..off] == *self.part(&w.prefix)
            && data[end..] == *self.part(&w.suffix)
    }

    /// Handles a message without a stamp of this run at the expected place.
    #[cold]
    pub(super) fn odd(&mut self, i: u32, data: &[u8], now: u64) {
        if self.proto.is_greeting(data) {
            self.n.greetings += 1;
            return;
        }
        if let Some(at) = memchr::memmem::find(data, &self.run.marker())
            && let Decoded::Ours(s) = payload::decode(&self.run, &data[at..])
        {
            return self.delivered(i, s, false, now);
        }
        if payload::decode(&self.run, data) == Decoded::Foreign {
            self.n.foreign += 1;
            return;
        }
        self.n.unexpected += 1;
        if self.n.unexpected <= 1000 {
            self.oddities.add(&sample(data));
        }
    }

    #[inline]
    pub(super) fn delivered(&mut self, i: u32, s: Stamp, intact: bool, now: u64) {
        let pairs = self.senders.len() as u64 * self.pairs_per_sender as u64;
        if s.pair as u64 >= pairs || self.target_of(s.pair) != i {
            self.n.wrong_recipient += 1;
            if let Some(t) = &mut self.timeline {
                t.error(now);
            }
            return;
        }
        let freed = match self.tracker.arrive(s.pair, s.seq) {
            Arrival::New { freed } => freed,
            Arrival::Late => {
                self.n.out_of_order += 1;
                0
            }
            Arrival::Duplicate => {
                self.n.duplicated += 1;
                if let Some(t) = &mut self.timeline {
                    t.error(now);
                }
                return;
            }
            Arrival::Impossible => {
                self.n.corrupt += 1;
                return;
            }
        };
        self.n.corrupt += !intact as u64;
        self.n.delivered += 1;
        if now >= self.measure_from && now < self.measure_to {
            self.n.delivered_measured += 1;
        }
        if s.ts >= self.measure_from {
            self.latency.record(now.saturating_sub(s.ts));
        }
        if let Some(t) = &mut self.timeline {
            t.delivered(s.ts, now);
        }
        if !self.cfg.via.answered() {
            self.release(s.pair / self.pairs_per_sender, freed, now);
        }
    }
}
