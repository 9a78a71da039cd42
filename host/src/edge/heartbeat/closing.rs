//! When connections close whose clients should not all come back at the same moment: in a drain, and at a certain age.

use std::pin::Pin;
use std::time::Duration;

use bytestring::ByteString;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::link::{Link, part_of};
use crate::base::message::{Cause, CloseReason};
use crate::config::DrainConfig;

/// The connections that are checked or closed before other tasks get a turn.
pub(super) const AT_ONCE: usize = 256;
/// A pace that is behind its plan by more than this, because the machine was busy, does not catch up: clients would
/// come back faster than planned.
const LAG: Duration = Duration::from_millis(100);
/// The greatest part of `websocket.max_age` by which a connection ends earlier or later.
const AGE_SPREAD: f64 = 0.1;

/// The age at which connections end.
#[derive(Debug)]
pub(super) struct MaxAge {
    age: Duration,
    config: DrainConfig,
}

impl MaxAge {
    pub(super) fn new(age: Duration, config: DrainConfig) -> Self {
        Self { age, config }
    }

    /// Returns the time that a connection has left, which may be zero. Connections that have begun at the same time do
    /// not end at the same time.
    pub(super) fn left(&self, link: &Link) -> Duration {
        let age = self.age.mul_f64(1.0 + AGE_SPREAD * (2.0 * part_of(link.id) - 1.0));
        age.saturating_sub(link.age())
    }

    /// Closes a connection that has no time left.
    pub(super) fn close(&self, link: &Link) {
        link.outbox.close(reason("rotate", &self.config, &mut random()), Cause::Shutdown);
    }
}

/// Decides when each connection of a drain is asked to close.
#[derive(Debug)]
pub(super) struct Pace {
    /// The time between two connections.
    interval: Duration,
    /// The turn of the next connection.
    next: Instant,
    /// The connections since other tasks had a turn.
    count: usize,
}

impl Pace {
    /// Plans a drain of this number of connections, the first of them now.
    pub(super) fn new(connections: usize, config: &DrainConfig) -> Self {
        let spread = config.spread.div_f64(connections.max(1) as f64);
        let interval = spread.min(Duration::from_secs(1) / config.min_rate);
        Self { interval, next: Instant::now(), count: 0 }
    }

    /// Waits for the turn of the next connection. Once `hurry` is done, there is nothing to wait for.
    pub(super) async fn turn(&mut self, hurry: Pin<&mut impl Future<Output = ()>>) {
        let mut now = Instant::now();
        if self.next > now {
            tokio::select! {
                () = sleep_until(self.next) => {}
                () = hurry => self.interval = Duration::ZERO,
            }
            now = Instant::now();
        } else if self.count >= AT_ONCE {
            self.count = 0;
            yield_now().await;
        }
        self.count += 1;
        self.next = match self.interval {
            Duration::ZERO => now,
            interval if now.duration_since(self.next) > LAG => now - LAG + interval,
            interval => self.next + interval,
        };
    }
}

/// Returns the reason for a close frame: a word and, unless `drain.retry` is zero, how long the client should wait
/// before it connects again.
pub(super) fn reason(word: &str, config: &DrainConfig, random: &mut StdRng) -> CloseReason {
    let longest = config.retry.as_millis().div_ceil(100);
    let reason = match u64::try_from(longest).unwrap_or(u64::MAX) {
        0 => word.to_owned(),
        tenths => {
            let tenths = random.random_range(1..=tenths);
            format!("{word}; retry={}.{}s", tenths / 10, tenths % 10)
        }
    };
    CloseReason { code: config.code, reason: ByteString::from(reason) }
}

/// Returns a source of random numbers. They need not be secret.
pub(super) fn random() -> StdRng {
    StdRng::seed_from_u64(getrandom::u64().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_hints_at_a_time_up_to_the_longest_and_fits_a_close_frame() {
        let mut config = DrainConfig { code: 1012, retry: Duration::from_millis(350), ..DrainConfig::default() };
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            let CloseReason { code, reason } = reason("restart", &config, &mut random());
            assert_eq!(code, 1012);
            seen.insert(reason.to_string());
        }
        let expected = [1, 2, 3, 4].map(|tenth| format!("restart; retry=0.{tenth}s"));
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
        config.retry = Duration::from_secs(3600);
        assert!(reason("rotate", &config, &mut random()).reason.len() <= 123);
        config.retry = Duration::ZERO;
        assert_eq!(reason("rotate", &config, &mut random()).reason, "rotate");
    }
}
