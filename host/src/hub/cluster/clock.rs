//! Two clocks. Stamps order what happens on different nodes: they are readings of a hybrid logical clock (Kulkarni et
//! al., 2014). Deadlines are times of the receiver's own clock, estimated by the sender.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::id::NodeId;

/// The time, as the host reads it before it calls the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// `CLOCK_BOOTTIME`: never set, and it goes on while the machine sleeps.
    pub boot: Duration,
    /// Time since 1970-01-01 UTC. It may jump either way.
    pub wall: Duration,
}

/// A point in the order of all logins and departures: larger is later. 55 bits of microseconds since 1970 (enough until
/// the year 3111), then 9 bits of the node that took the stamp, so that no two nodes take the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp(pub u64);

/// The bits of a stamp that hold the node.
const NODE_BITS: u32 = 9;
/// The largest number of microseconds in a stamp.
const MAX_MICROS: u64 = u64::MAX >> NODE_BITS;

impl Stamp {
    /// Creates a stamp. Microseconds that do not fit are cut to the largest that do.
    pub const fn new(micros: u64, node: NodeId) -> Self {
        let micros = if micros < MAX_MICROS { micros } else { MAX_MICROS };
        Self(micros << NODE_BITS | node.get() as u64)
    }

    /// Returns the microseconds since 1970 of the clock that took the stamp.
    pub const fn micros(self) -> u64 {
        self.0 >> NODE_BITS
    }

    /// Returns the node that took the stamp.
    pub const fn node(self) -> NodeId {
        NodeId::from_low_bits(self.0)
    }

    /// Returns the oldest stamp that a node can have. It stands for "older than all that are known".
    pub const fn oldest(node: NodeId) -> Self {
        Self::new(1, node)
    }
}

/// The hybrid logical clock of a node. It needs no lock, so that a stamp can be taken under a shard's lock.
#[derive(Debug, Default)]
pub struct Clock {
    /// The microseconds of the latest stamp that was taken or seen.
    last: AtomicU64,
}

impl Clock {
    /// Takes a stamp that is later than all stamps that this clock has taken or merged. Never fails: past the year
    /// 3111 stamps repeat.
    pub fn stamp(&self, now: Now, node: NodeId) -> Stamp {
        let wall = micros(now.wall);
        let next = |last: u64| wall.max(last.saturating_add(1)).min(MAX_MICROS);
        let last = self.last.fetch_update(Relaxed, Relaxed, |last| Some(next(last)));
        let (Ok(last) | Err(last)) = last;
        Stamp::new(next(last), node)
    }

    /// Notes a stamp of another node: all stamps that are taken from now on are later.
    pub fn merge(&self, seen: Stamp) {
        self.last.fetch_max(seen.micros(), Relaxed);
    }
}

/// A time in whole microseconds, as frames carry it.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What is known of a peer's `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerClock {
    /// The peer's clock in its last beat.
    pub theirs: Duration,
    /// Our clock when that beat arrived.
    pub arrived: Duration,
}

impl PeerClock {
    /// Returns the time of the peer's clock at which something ends that has `left` to go. The estimate is early by
    /// the time that the beat was under way, never late, as long as both clocks run.
    pub fn deadline(self, now: Duration, left: Duration) -> Duration {
        self.theirs.saturating_add(now.saturating_sub(self.arrived)).saturating_add(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: u64) -> Now {
        Now { boot: Duration::ZERO, wall: Duration::from_micros(wall) }
    }

    #[test]
    fn stamps_grow_whatever_the_wall_clock_does() {
        let (clock, node) = (Clock::default(), NodeId::new(7).unwrap());
        let stamps = [1_000, 1_000, 5, 2_000].map(|wall| clock.stamp(at(wall), node));
        assert_eq!(stamps.map(Stamp::micros), [1_000, 1_001, 1_002, 2_000]);
        assert!(stamps.iter().all(|stamp| stamp.node() == node));
        clock.merge(Stamp::new(1 << 52, NodeId::new(511).unwrap()));
        assert_eq!(clock.stamp(at(3_000), node).micros(), (1 << 52) + 1);
    }

    #[test]
    fn the_end_of_time_is_no_panic() {
        let (clock, node) = (Clock::default(), NodeId::new(511).unwrap());
        clock.merge(Stamp(u64::MAX));
        assert_eq!(clock.stamp(Now { boot: Duration::MAX, wall: Duration::MAX }, node), Stamp(u64::MAX));
    }

    #[test]
    fn a_deadline_is_early_by_the_way_of_the_beat() {
        let [ms, boot] = [Duration::from_millis, |s| Duration::from_millis(s)];
        // The peer's clock showed 500 s when it sent the beat, which took 3 ms.
        let clock = PeerClock { theirs: boot(500_000), arrived: ms(7_003) };
        assert_eq!(clock.deadline(ms(7_103), ms(1_000)), ms(501_100), "really 501,103 ms");
        assert_eq!(clock.deadline(ms(0), ms(0)), ms(500_000));
    }
}
