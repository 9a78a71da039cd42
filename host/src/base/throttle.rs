//! Limits how many events of one kind are logged.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::bucket::{Bucket, time_for};

/// The shortest time between two reports of dropped events.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Admits a limited number of events a second, and counts the dropped ones.
#[derive(Debug)]
pub struct Throttle {
    per_second: u32,
    burst: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bucket: Bucket,
    dropped: u64,
    /// The last time that dropped events were reported.
    reported: Option<Instant>,
}

impl Throttle {
    /// Creates a throttle that admits `per_second` events a second, and up to `burst` at once.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let state = State { bucket: Bucket::full(Instant::now()), dropped: 0, reported: None };
        Self { per_second, burst, state: Mutex::new(state) }
    }

    /// Returns how many events may pass at once.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Admits one more event, if `reserve` tokens are left after it; otherwise returns `None` and counts it as dropped.
    /// For an admitted event, returns the number of dropped events that the caller must report now.
    pub fn admit(&self, reserve: u32) -> Option<u64> {
        let mut state = self.state.lock();
        let now = Instant::now();
        let (rate, burst, reserve) = (self.per_second as usize, self.burst as usize, reserve as usize);
        let fills_in = time_for(burst.saturating_sub(reserve), rate);
        if state.bucket.try_take(now, 1, rate, fills_in).is_err() {
            state.dropped += 1;
            return None;
        }
        if state.dropped == 0 || state.reported.is_some_and(|reported| now.duration_since(reported) < REPORT_EVERY) {
            return Some(0);
        }
        state.reported = Some(now);
        Some(std::mem::take(&mut state.dropped))
    }

    /// Counts events that were dropped elsewhere.
    pub fn drop_more(&self, events: u64) {
        let mut state = self.state.lock();
        state.dropped = state.dropped.saturating_add(events);
    }

    /// Returns the number of dropped events that are not reported yet, and resets it: the caller reports them.
    pub fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.state.lock().dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_is_counted() {
        let throttle = Throttle::new(1, 3);
        let passed = (0..10).filter(|_| throttle.admit(0).is_some()).count();
        assert_eq!((passed, throttle.take_dropped()), (3, 7));
        assert_eq!(throttle.take_dropped(), 0);
    }

    #[test]
    fn some_are_reserved() {
        let throttle = Throttle::new(1, 3);
        let passed = |reserve| (0..10).filter(|_| throttle.admit(reserve).is_some()).count();
        assert_eq!((passed(2), passed(0)), (1, 2));
    }

    #[test]
    fn tokens_come_back_with_time() {
        let throttle = Throttle::new(1_000_000, 1);
        assert_eq!(throttle.admit(0), Some(0));
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(throttle.admit(0), Some(0));
    }

    #[test]
    fn it_is_told_once_a_second_how_many_were_dropped() {
        let throttle = Throttle::new(1_000_000, 1);
        let told = (0..100_000).filter_map(|_| throttle.admit(0)).filter(|dropped| *dropped > 0).count();
        assert!(told <= 1, "{told}");
    }
}
