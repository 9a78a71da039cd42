//! A token bucket for lines of the log.

use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

/// How often it is told that events were dropped.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Lets so many events a second through, and counts the others.
#[derive(Debug)]
pub struct Throttle {
    per_second: u32,
    burst: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tokens: f64,
    refilled: Instant,
    dropped: u64,
    /// When it was last told how many.
    told: Option<Instant>,
}

impl Throttle {
    /// Lets `per_second` events a second through, and `burst` at once.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let state = State { tokens: f64::from(burst), refilled: Instant::now(), dropped: 0, told: None };
        Self { per_second, burst, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Events that may pass at once.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Whether one more event may pass and leave `reserve` to others; if so, how many were dropped and are to be told of now.
    pub fn admit(&self, reserve: u32) -> Option<u64> {
        let mut state = self.lock();
        let now = Instant::now();
        let refill = now.duration_since(state.refilled).as_secs_f64() * f64::from(self.per_second);
        state.tokens = (state.tokens + refill).min(f64::from(self.burst));
        state.refilled = now;
        if state.tokens < 1.0 + f64::from(reserve) {
            state.dropped += 1;
            return None;
        }
        state.tokens -= 1.0;
        if state.dropped == 0 || state.told.is_some_and(|told| now.duration_since(told) < TELL_EVERY) {
            return Some(0);
        }
        state.told = Some(now);
        Some(std::mem::take(&mut state.dropped))
    }

    /// So many more events were dropped, elsewhere.
    pub fn drop_more(&self, events: u64) {
        let mut state = self.lock();
        state.dropped = state.dropped.saturating_add(events);
    }

    /// How many events were dropped and not told of yet; they are told of now.
    pub fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.lock().dropped)
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
