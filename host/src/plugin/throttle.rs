//! A token bucket for lines of the log.

use std::sync::Mutex;
use std::time::Instant;

use super::lock;

/// Lets so many events a second through, and counts the others.
#[derive(Debug)]
pub(super) struct Throttle {
    per_second: f64,
    burst: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tokens: f64,
    refilled: Instant,
    dropped: u64,
}

impl Throttle {
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let state = State { tokens: f64::from(burst), refilled: Instant::now(), dropped: 0 };
        Self { per_second: f64::from(per_second), burst: f64::from(burst), state: Mutex::new(state) }
    }

    /// Whether one more event may pass; if so, how many were dropped since the last that did.
    pub(super) fn admit(&self) -> Option<u64> {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let refill = now.duration_since(state.refilled).as_secs_f64() * self.per_second;
        state.tokens = (state.tokens + refill).min(self.burst);
        state.refilled = now;
        if state.tokens < 1.0 {
            state.dropped += 1;
            return None;
        }
        state.tokens -= 1.0;
        Some(std::mem::take(&mut state.dropped))
    }

    /// How many events were dropped and not told of yet; they are told of now.
    pub(super) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut lock(&self.state).dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_is_counted() {
        let throttle = Throttle::new(1, 3);
        let passed = (0..10).filter(|_| throttle.admit().is_some()).count();
        assert_eq!((passed, throttle.take_dropped()), (3, 7));
        assert_eq!(throttle.take_dropped(), 0);
    }

    #[test]
    fn tokens_come_back_with_time() {
        let throttle = Throttle::new(1_000_000, 1);
        assert_eq!(throttle.admit(), Some(0));
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(throttle.admit().is_some());
    }
}
