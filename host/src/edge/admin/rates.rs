//! How much happens in a second: an average over the last minute.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::base::metrics::METRICS;

/// The time between two samples.
const INTERVAL: Duration = Duration::from_secs(5);
/// The samples that are kept: those of a minute.
const KEPT: usize = 12;

/// Reads a counter.
type Counter = fn() -> u64;

/// What is counted.
const COUNTERS: [(&str, Counter); 5] = [
    ("connections", || METRICS.connections_accepted.get()),
    ("logins", || METRICS.logins.get()),
    ("messages_received", || METRICS.messages_received.get()),
    ("messages_queued", || METRICS.messages_queued.get()),
    ("pushes", || METRICS.pushes_ok.get() + METRICS.pushes_failed.total()),
];

/// The counters at some time.
#[derive(Debug, Clone)]
struct Sample {
    at: Instant,
    counts: [u64; COUNTERS.len()],
}

impl Sample {
    fn take() -> Self {
        Self { at: Instant::now(), counts: COUNTERS.map(|(_, count)| count()) }
    }
}

/// The last samples, oldest first; at least one.
#[derive(Debug)]
pub(super) struct RateHistory(Mutex<VecDeque<Sample>>);

/// Events per second.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct PerSecond {
    /// The time in which the events were counted.
    seconds: f64,
    /// The averages, by the name of the counter.
    #[serde(flatten)]
    rates: BTreeMap<&'static str, f64>,
}

impl RateHistory {
    /// Takes the first sample.
    pub(super) fn new() -> Self {
        Self(Mutex::new(VecDeque::from([Sample::take()])))
    }

    /// Takes samples for ever.
    pub(super) async fn run(&self) -> Infallible {
        loop {
            sleep(INTERVAL).await;
            let mut samples = self.0.lock();
            if samples.len() == KEPT {
                samples.pop_front();
            }
            samples.push_back(Sample::take());
        }
    }

    /// Returns the rates since the oldest sample.
    pub(super) fn per_second(&self) -> PerSecond {
        let oldest = self.0.lock().front().cloned();
        let newest = Sample::take();
        between(&oldest.unwrap_or_else(|| newest.clone()), &newest)
    }
}

fn between(oldest: &Sample, newest: &Sample) -> PerSecond {
    let seconds = newest.at.saturating_duration_since(oldest.at).as_secs_f64();
    // Two digits are enough, and a gateway that has just started divides by no tiny number.
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    let counts = oldest.counts.iter().zip(newest.counts);
    let rates = counts.map(|(old, new)| rounded(new.saturating_sub(*old) as f64 / seconds.max(1.0)));
    PerSecond { seconds: rounded(seconds), rates: COUNTERS.iter().map(|(name, _)| *name).zip(rates).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_growth_in_a_second() {
        let at = Instant::now();
        let sample = |seconds, logins| Sample { at: at + Duration::from_secs(seconds), counts: [0, logins, 0, 0, 0] };
        let rates = between(&sample(0, 10), &sample(60, 100));
        assert_eq!((rates.seconds, rates.rates["logins"], rates.rates["pushes"]), (60.0, 1.5, 0.0));
        assert_eq!(between(&sample(0, 10), &sample(0, 13)).rates["logins"], 3.0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_samples_of_a_minute_are_kept() {
        let rates = RateHistory::new();
        let _ = tokio::time::timeout(Duration::from_secs(600), rates.run()).await;
        assert_eq!(rates.0.lock().len(), KEPT);
        assert_eq!(rates.per_second().seconds, 60.0 - INTERVAL.as_secs_f64());
    }
}
