//! A token bucket whose rate may change at any time.

use std::time::Duration;

use tokio::time::Instant;

/// The longest time that one take can count for, so that no sum of times overflows.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A bucket that fills with time. It only keeps the time at which it is full again (the generic cell rate algorithm,
/// ITU-T I.371). Whoever takes from it says how fast it fills, and within which time: its size is that time's worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    full_at: Instant,
}

impl Bucket {
    /// Creates a full bucket.
    pub fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Returns `true` if the bucket is full, as if nothing had been taken.
    pub fn is_full(self, now: Instant) -> bool {
        self.full_at <= now
    }

    /// Takes `amount` from a bucket that gets `rate` a second. If there is too little in it, it goes into debt.
    pub fn take(&mut self, now: Instant, amount: usize, rate: usize) {
        self.full_at = self.full_at.max(now) + time_for(amount, rate);
    }

    /// Takes `amount`, if the bucket has so much.
    ///
    /// # Errors
    /// How long until it has. Nothing is taken.
    pub fn try_take(&mut self, now: Instant, amount: usize, rate: usize, fills_in: Duration) -> Result<(), Duration> {
        let mut taken = *self;
        taken.take(now, amount, rate);
        match taken.debt(now, fills_in) {
            Duration::ZERO => {
                *self = taken;
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// Returns how long the bucket stays in debt; zero if it has none.
    pub fn debt(self, now: Instant, fills_in: Duration) -> Duration {
        self.full_at.saturating_duration_since(now).saturating_sub(fills_in)
    }
}

/// Returns the time in which `amount` comes at `rate` a second: at most a day.
pub fn time_for(amount: usize, rate: usize) -> Duration {
    let nanos = (amount as u128 * 1_000_000_000) / rate.max(1) as u128;
    u64::try_from(nanos).map_or(LONGEST, |nanos| Duration::from_nanos(nanos).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_full_bucket_gives_all_it_has_at_once_and_then_its_rate() {
        let now = Instant::now();
        for (rate, size) in [(200, 20_000), (3, 1), (7, 3), (1_000_000, 1)] {
            let (mut bucket, fills_in) = (Bucket::full(now), time_for(size, rate));
            assert_eq!((0..2 * size).filter(|_| bucket.try_take(now, 1, rate, fills_in).is_ok()).count(), size);
            let wait = bucket.try_take(now, 1, rate, fills_in).unwrap_err();
            assert!(wait <= time_for(1, rate) && !wait.is_zero(), "{rate}: {wait:?}");
            assert!(bucket.try_take(now + wait, 1, rate, fills_in).is_ok(), "{rate}");
            assert!(!bucket.is_full(now) && bucket.is_full(now + wait + fills_in));
            let later = now + 100 * fills_in;
            assert_eq!((0..2 * size).filter(|_| bucket.try_take(later, 1, rate, fills_in).is_ok()).count(), size);
        }
    }

    #[test]
    fn a_debt_is_paid_with_time() {
        let now = Instant::now();
        let mut bucket = Bucket::full(now);
        bucket.take(now, 20, 10);
        assert_eq!(bucket.debt(now, 2 * SECOND), Duration::ZERO);
        bucket.take(now, 15, 10);
        assert_eq!(bucket.debt(now, 2 * SECOND), 3 * SECOND / 2);
        assert_eq!(bucket.debt(now + SECOND, 2 * SECOND), SECOND / 2);
        assert_eq!(bucket.debt(now + 2 * SECOND, 2 * SECOND), Duration::ZERO);
    }

    #[test]
    fn no_amount_and_no_rate_is_too_large() {
        let now = Instant::now();
        let mut bucket = Bucket::full(now);
        bucket.take(now, usize::MAX, 1);
        bucket.take(now, usize::MAX, 0);
        assert_eq!(bucket.debt(now, SECOND), 2 * LONGEST - SECOND);
        assert_eq!(time_for(1, usize::MAX), Duration::ZERO);
    }
}
