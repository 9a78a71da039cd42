//! The account of every message, for each (sender, target) pair, without storing messages. A delivery in order costs
//! one comparison. Only gaps take memory.

use std::collections::HashMap;

#[derive(Clone, Copy, Default)]
struct Pair {
    /// The number of messages sent: sequence numbers 0..sent.
    sent: u32,
    /// One more than the highest sequence number received.
    high: u32,
    /// Lower sequence numbers were written off by a window reset.
    base: u32,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum Arrival {
    /// In sequence, or after a gap. `freed` window slots become free.
    New {
        freed: u32,
    },
    /// In a gap: another message had overtaken this one.
    Late,
    Duplicate,
    /// A sequence number that was never sent.
    Impossible,
}

pub(crate) struct Tracker {
    pairs: Vec<Pair>,
    /// The missing ranges [from, to), ascending, of each pair with gaps.
    gaps: HashMap<u32, Vec<(u32, u32)>>,
}

impl Tracker {
    pub(crate) fn new(pairs: usize) -> Tracker {
        Tracker { pairs: vec![Pair::default(); pairs], gaps: HashMap::new() }
    }

    /// The next sequence number of a pair.
    #[inline]
    pub(crate) fn send(&mut self, pair: u32) -> u32 {
        let p = &mut self.pairs[pair as usize];
        let seq = p.sent;
        p.sent += 1;
        seq
    }

    #[inline]
    pub(crate) fn arrive(&mut self, pair: u32, seq: u32) -> Arrival {
        let p = &mut self.pairs[pair as usize];
        if seq >= p.high {
            if seq >= p.sent {
                return Arrival::Impossible;
            }
            let freed = (seq + 1).saturating_sub(p.high.max(p.base));
            if seq > p.high {
                let gap = (p.high, seq);
                self.gaps.entry(pair).or_default().push(gap);
            }
            p.high = seq + 1;
            return Arrival::New { freed };
        }
        if self.fill(pair, seq) { Arrival::Late } else { Arrival::Duplicate }
    }

    #[cold]
    fn fill(&mut self, pair: u32, seq: u32) -> bool {
        let Some(list) = self.gaps.get_mut(&pair) else { return false };
        let i = list.partition_point(|g| g.1 <= seq);
        let Some(&(from, to)) = list.get(i) else { return false };
        if seq < from {
            return false;
        }
        match (seq == from, seq + 1 == to) {
            (true, true) => {
                list.remove(i);
            }
            (true, false) => list[i].0 += 1,
            (false, true) => list[i].1 -= 1,
            (false, false) => {
                list[i].1 = seq;
                list.insert(i + 1, (seq + 1, to));
            }
        }
        true
    }

    /// Writes off all messages of a pair that are under way. Returns the number of slots that become free.
    pub(crate) fn reset(&mut self, pair: u32) -> u32 {
        let p = &mut self.pairs[pair as usize];
        let open = p.sent - p.high.max(p.base);
        p.base = p.sent;
        open
    }

    /// The number of messages that were sent but never received, of all pairs.
    pub(crate) fn lost(&self) -> u64 {
        let tails: u64 = self.pairs.iter().map(|p| (p.sent - p.high) as u64).sum();
        let gaps: u64 = self.gaps.values().flatten().map(|g| (g.1 - g.0) as u64).sum();
        tails + gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(n: u32) -> Tracker {
        let mut t = Tracker::new(2);
        for _ in 0..n {
            t.send(1);
        }
        t
    }

    #[test]
    fn in_order() {
        let mut t = sent(3);
        for i in 0..3 {
            assert_eq!(t.arrive(1, i), Arrival::New { freed: 1 });
        }
        assert_eq!(t.lost(), 0);
        assert_eq!(t.arrive(1, 3), Arrival::Impossible);
    }

    #[test]
    fn gaps_late_and_duplicates() {
        let mut t = sent(10);
        assert_eq!(t.arrive(1, 0), Arrival::New { freed: 1 });
        assert_eq!(t.arrive(1, 6), Arrival::New { freed: 6 });
        assert_eq!(t.lost(), 5 + 3);
        assert_eq!(t.arrive(1, 3), Arrival::Late);
        assert_eq!(t.arrive(1, 3), Arrival::Duplicate);
        assert_eq!(t.arrive(1, 1), Arrival::Late);
        assert_eq!(t.arrive(1, 5), Arrival::Late);
        assert_eq!(t.arrive(1, 6), Arrival::Duplicate);
        assert_eq!(t.arrive(1, 0), Arrival::Duplicate);
        assert_eq!(t.lost(), 2 + 3);
        assert_eq!(t.arrive(1, 2), Arrival::Late);
        assert_eq!(t.arrive(1, 4), Arrival::Late);
        assert_eq!(t.lost(), 3);
    }

    #[test]
    fn reset_frees_each_slot_once() {
        let mut t = sent(8);
        assert_eq!(t.arrive(1, 1), Arrival::New { freed: 2 });
        assert_eq!(t.reset(1), 6);
        assert_eq!(t.arrive(1, 5), Arrival::New { freed: 0 });
        t.send(1);
        assert_eq!(t.arrive(1, 8), Arrival::New { freed: 1 });
        assert_eq!(t.lost(), 9 - 3);
    }

    /// Compares with a plain set, with random order, losses and duplicates.
    #[test]
    fn agrees_with_a_set() {
        let mut rng = crate::rng::Rng::new(3);
        for _ in 0..200 {
            let n = 1 + rng.below(60);
            let mut t = sent(n);
            let mut seen = std::collections::HashSet::new();
            for _ in 0..rng.below(120) {
                let s = rng.below(n);
                let dup = t.arrive(1, s) == Arrival::Duplicate;
                assert_eq!(dup, !seen.insert(s));
            }
            assert_eq!(t.lost(), n as u64 - seen.len() as u64);
        }
    }
}
