//! What happened in the last 15 minutes: samples of the counters, for the dashboard. And how much happens in a second:
//! an average over the last minute.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::base::metrics::METRICS;
use crate::base::ring::Ring;

/// The time between two samples.
const INTERVAL: Duration = Duration::from_secs(2);
/// The samples that are kept: those of 15 minutes.
const KEPT: usize = 450;
/// The time over which rates are averages.
const MINUTE: Duration = Duration::from_secs(60);

/// What changes up and down.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Gauges {
    pub(super) connections: usize,
    pub(super) unauthenticated: usize,
    pub(super) outbox_bytes: usize,
}

/// The gauges and counters at some time. Counters begin at the start of the process.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Sample {
    #[serde(skip)]
    taken: Instant,
    at: String,
    #[serde(flatten)]
    gauges: Gauges,
    accepted: u64,
    logins: u64,
    /// By reason, without those that never happened.
    denials: BTreeMap<&'static str, u64>,
    messages: u64,
    queued: u64,
    pushes: u64,
    pushes_failed: u64,
    /// By cause, without those that never happened.
    closed: BTreeMap<&'static str, u64>,
}

impl Sample {
    fn take(gauges: Gauges) -> Self {
        let pushes_failed = METRICS.pushes_failed.total();
        Self {
            taken: Instant::now(),
            at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            gauges,
            accepted: METRICS.connections_accepted.get(),
            logins: METRICS.logins.total(),
            denials: METRICS.logins_denied.happened().collect(),
            messages: METRICS.messages_received.get(),
            queued: METRICS.messages_queued.get(),
            pushes: METRICS.pushes_ok.get() + pushes_failed,
            pushes_failed,
            closed: METRICS.connections_ended.happened().collect(),
        }
    }
}

/// The last samples; at least one.
#[derive(Debug)]
pub(super) struct History(pub(super) Arc<Ring<Arc<Sample>>>);

/// Events per second.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct PerSecond {
    /// The time in which the events were counted.
    seconds: f64,
    /// The averages, by the name of the counter.
    #[serde(flatten)]
    rates: BTreeMap<&'static str, f64>,
}

impl History {
    /// Takes the first sample.
    pub(super) fn new() -> Self {
        let history = Self(Arc::new(Ring::new(KEPT, usize::MAX)));
        history.sample(Gauges::default());
        history
    }

    /// Takes samples for ever.
    pub(super) async fn run(&self, gauges: impl Fn() -> Gauges) -> Infallible {
        loop {
            sleep(INTERVAL).await;
            self.sample(gauges());
        }
    }

    fn sample(&self, gauges: Gauges) {
        self.0.push(0, Arc::new(Sample::take(gauges)));
    }

    /// Returns the rates of the last minute.
    pub(super) fn per_second(&self) -> PerSecond {
        let newest = Sample::take(Gauges::default());
        let oldest = self.0.oldest(|sample| newest.taken.saturating_duration_since(sample.taken) <= MINUTE);
        between(oldest.as_deref().unwrap_or(&newest), &newest)
    }
}

fn between(oldest: &Sample, newest: &Sample) -> PerSecond {
    let seconds = newest.taken.saturating_duration_since(oldest.taken).as_secs_f64();
    // Two digits are enough, and a gateway that has just started divides by no tiny number.
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    let rate =
        |count: fn(&Sample) -> u64| rounded(count(newest).saturating_sub(count(oldest)) as f64 / seconds.max(1.0));
    let rates = [
        ("connections", rate(|sample| sample.accepted)),
        ("logins", rate(|sample| sample.logins)),
        ("messages_received", rate(|sample| sample.messages)),
        ("messages_queued", rate(|sample| sample.queued)),
        ("pushes", rate(|sample| sample.pushes)),
    ];
    PerSecond { seconds: rounded(seconds), rates: rates.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_growth_in_a_second() {
        let begin = Sample { pushes: 0, ..Sample::take(Gauges::default()) };
        let sample =
            |seconds, logins| Sample { taken: begin.taken + Duration::from_secs(seconds), logins, ..begin.clone() };
        let rates = between(&sample(0, 10), &sample(60, 100));
        assert_eq!((rates.seconds, rates.rates["logins"], rates.rates["pushes"]), (60.0, 1.5, 0.0));
        assert_eq!(between(&sample(0, 10), &sample(0, 13)).rates["logins"], 3.0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_samples_of_15_minutes_are_kept_and_rates_are_of_the_last_one() {
        let history = History::new();
        let _ = tokio::time::timeout(Duration::from_secs(30 * 60), history.run(Gauges::default)).await;
        assert_eq!(history.0.since(0, usize::MAX).entries.len(), KEPT);
        assert_eq!(history.per_second().seconds, MINUTE.as_secs_f64());
    }
}
