//! A histogram of times.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The bits below the highest bit of a time that select its bucket: four buckets for each power of two.
const DETAIL: u32 = 2;

/// The unit of times, as a power of two in nanoseconds: 64 ns.
const UNIT: u32 = 6;

/// The number of buckets, for times from 64 ns to more than an hour.
const BUCKETS: usize = 36 << DETAIL;

/// Buckets between two edges that are shown: the upper one is almost three times the lower one.
const STEP: usize = 6;

/// A histogram of times. Each bucket is a quarter of a power of two wide, so longer times have wider buckets.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    /// The sum of all times, in nanoseconds.
    total: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// Creates a histogram without times.
    pub const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], total: AtomicU64::new(0) }
    }

    /// Adds a time.
    pub fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].fetch_add(1, Relaxed);
        self.total.fetch_add(nanos, Relaxed);
    }

    /// Returns how many times were added.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// Returns the times that were added so far.
    pub fn load(&self) -> Times {
        let buckets = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        Times { buckets, nanos: self.total.load(Relaxed) }
    }
}

/// The times in a [`Histogram`] at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Times {
    /// Empty if there are no times at all.
    buckets: Vec<u64>,
    nanos: u64,
}

/// The upper bounds of the buckets that are shown: few of those that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edges {
    first: usize,
    count: usize,
}

impl Edges {
    /// The first edge is the smallest bound that is not below `first`, in nanoseconds. Each further one is almost three
    /// times the one before.
    pub const fn new(first: u64, count: usize) -> Self {
        let first = bucket(first - 1);
        assert!(first + (count - 1) * STEP < BUCKETS);
        Self { first, count }
    }
}

impl Times {
    /// Returns how many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns their sum.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.nanos)
    }

    /// Returns the time within which this share of them ended, in microseconds.
    pub fn quantile(&self, share: f64) -> u64 {
        let mut left = (self.count() as f64 * share).ceil() as u64;
        for (bucket, times) in self.buckets.iter().enumerate() {
            if left <= *times {
                return if left == 0 { 0 } else { upper_bound(bucket).div_ceil(1000) };
            }
            left -= times;
        }
        0
    }

    /// Returns the edges, and how many times are below each.
    pub fn below(&self, edges: Edges) -> impl Iterator<Item = (Duration, u64)> {
        let below = |last: usize| self.buckets.iter().take(last + 1).sum();
        let buckets = (0..edges.count).map(move |edge| edges.first + edge * STEP);
        buckets.map(move |last| (Duration::from_nanos(upper_bound(last)), below(last)))
    }
}

/// Returns the bucket of a time.
const fn bucket(nanos: u64) -> usize {
    let units = nanos >> UNIT;
    if units < 1 << DETAIL {
        return units as usize;
    }
    let power = units.ilog2() - DETAIL;
    let detail = (units >> power) & ((1 << DETAIL) - 1);
    let bucket = (((power + 1) << DETAIL) as usize) + detail as usize;
    if bucket < BUCKETS { bucket } else { BUCKETS - 1 }
}

/// Returns the upper bound of a bucket in nanoseconds: all its times are below.
fn upper_bound(bucket: usize) -> u64 {
    let next = bucket as u64 + 1;
    if next <= 1 << DETAIL {
        return next << UNIT;
    }
    let (power, detail) = ((next >> DETAIL) - 1, next & ((1 << DETAIL) - 1));
    ((1 << DETAIL) + detail) << power << UNIT
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_time_is_below_its_buckets_bound_and_not_far_below(nanos in 0_u64..4_000_000_000_000) {
            let bound = upper_bound(bucket(nanos));
            prop_assert!(nanos < bound, "{nanos} {bound}");
            prop_assert!(bound - nanos <= 64 + nanos / 4, "{nanos} {bound}");
        }
    }

    #[test]
    fn the_edges_that_are_shown_count_what_is_below() {
        let edges = Edges::new(10_240, 3);
        let histogram = Histogram::new();
        let nanos = [0, 10_239, 10_240, 28_671, 28_672, 1_000_000];
        nanos.into_iter().for_each(|nanos| histogram.record(Duration::from_nanos(nanos)));
        let times = histogram.load();
        let shown: Vec<_> = times.below(edges).map(|(edge, count)| (edge.as_nanos(), count)).collect();
        assert_eq!(shown, [(10_240, 2), (28_672, 4), (81_920, 5)]);
        assert_eq!((times.count(), times.total()), (6, Duration::from_nanos(nanos.iter().sum())));
        assert!(Times::default().below(edges).all(|(_, count)| count == 0));
    }
}
