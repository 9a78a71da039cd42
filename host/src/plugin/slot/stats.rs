//! The statistics of one generation's calls: counts, times and the last failure.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::plugin::contract::{FUNCTIONS, Function};
use crate::plugin::runtime::error::{CallError, KINDS};
use crate::plugin::slot::blame::{Blame, Caller, Spread};
use crate::plugin::status::{FunctionStatus, LastError, ShadowStatus};

/// The calls and failures of one function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CallCount {
    /// Calls that have ended, successful or not.
    pub(crate) calls: u64,
    /// Calls that failed.
    pub(crate) failures: u64,
}

/// The counts of all functions, in the order of [`Function::ALL`].
pub(crate) type Counts = [CallCount; FUNCTIONS];

/// A generation whose calls are counted.
pub(crate) trait Counted {
    /// Returns the counts so far.
    fn counts(&self) -> Counts;

    /// Returns how the failures of a function since [`Counted::forget_clients`] are spread over clients.
    fn spread(&self, function: Function) -> Spread;

    /// Forgets for which clients calls have failed, because a stage begins.
    fn forget_clients(&self);

    /// Returns the reason of the last failure.
    fn last_failure(&self) -> Option<String>;
}

/// The statistics of one generation's calls.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    functions: [FunctionStats; FUNCTIONS],
    last_error: Mutex<Option<LastError>>,
    shadow: Mutex<ShadowStatus>,
}

impl Stats {
    /// Counts a call that has ended. A call that was shed does not count.
    pub(crate) fn ended(&self, function: Function, caller: Caller, took: Duration, failure: Option<&CallError>) {
        if failure.is_some_and(CallError::is_overload) {
            return;
        }
        let stats = &self.functions[function as usize];
        stats.times.record(took);
        let Some(failure) = failure else { return };
        // The client is recorded before the failure is counted: otherwise the failure would look like another client's.
        stats.blame.lock().add(caller);
        if let Some(count) = KINDS.iter().position(|kind| *kind == failure.kind()).map(|kind| &stats.failures[kind]) {
            count.fetch_add(1, Relaxed);
        }
        let (function, kind, reason) = (function.name(), failure.kind(), failure.to_string());
        *self.last_error.lock() = Some(LastError { at: SystemTime::now(), function, kind, reason });
    }

    pub(crate) fn counts(&self) -> Counts {
        self.functions.each_ref().map(|stats| CallCount {
            calls: stats.times.count(),
            failures: stats.failures.iter().map(|count| count.load(Relaxed)).sum(),
        })
    }

    /// Returns how the failures of a function since [`Stats::forget_clients`] are spread over clients.
    pub(crate) fn spread(&self, function: Function) -> Spread {
        self.functions[function as usize].blame.lock().spread()
    }

    /// Forgets for which clients calls have failed.
    pub(crate) fn forget_clients(&self) {
        self.functions.iter().for_each(|stats| *stats.blame.lock() = Blame::default());
    }

    /// Returns the status of each function that was called.
    pub(crate) fn functions(&self) -> Vec<FunctionStatus> {
        let status = |(function, stats): (Function, &FunctionStats)| {
            let buckets = stats.times.load();
            let failures = KINDS.into_iter().zip(stats.failures.iter().map(|count| count.load(Relaxed)));
            FunctionStatus {
                function: function.name(),
                calls: buckets.iter().sum(),
                failures: failures.filter(|(_, count)| *count > 0).collect(),
                total_us: stats.times.total.load(Relaxed) / 1000,
                p50_us: quantile(&buckets, 0.5),
                p99_us: quantile(&buckets, 0.99),
            }
        };
        let functions = Function::ALL.into_iter().zip(&self.functions).map(status);
        functions.filter(|function| function.calls > 0).collect()
    }

    pub(crate) fn last_error(&self) -> Option<LastError> {
        self.last_error.lock().clone()
    }

    pub(crate) fn shadow(&self) -> ShadowStatus {
        self.shadow.lock().clone()
    }

    pub(crate) fn update_shadow(&self, change: impl FnOnce(&mut ShadowStatus)) {
        change(&mut self.shadow.lock());
    }
}

#[derive(Debug, Default)]
struct FunctionStats {
    failures: [AtomicU64; KINDS.len()],
    blame: Mutex<Blame>,
    times: CallTimes,
}

/// The bits below the highest bit of a time that select its bucket: four buckets for each power of two.
const DETAIL: u32 = 2;

/// The unit of times, as a power of two in nanoseconds: 64 ns.
const UNIT: u32 = 6;

/// The number of buckets, for times from 64 ns to more than an hour.
const BUCKETS: usize = 36 << DETAIL;

/// A histogram of times. Each bucket is a quarter of a power of two wide, so longer times have wider buckets.
#[derive(Debug)]
struct CallTimes {
    buckets: [AtomicU64; BUCKETS],
    /// The sum of all times, in nanoseconds.
    total: AtomicU64,
}

impl Default for CallTimes {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], total: AtomicU64::new(0) }
    }
}

impl CallTimes {
    fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].fetch_add(1, Relaxed);
        self.total.fetch_add(nanos, Relaxed);
    }

    fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    fn load(&self) -> [u64; BUCKETS] {
        self.buckets.each_ref().map(|bucket| bucket.load(Relaxed))
    }
}

/// Returns the bucket of a time.
fn bucket(nanos: u64) -> usize {
    let units = nanos >> UNIT;
    if units < 1 << DETAIL {
        return units as usize;
    }
    let power = units.ilog2() - DETAIL;
    let detail = (units >> power) & ((1 << DETAIL) - 1);
    ((((power + 1) << DETAIL) as usize) + detail as usize).min(BUCKETS - 1)
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

/// Returns the time within which this share of the calls ended, in microseconds.
fn quantile(buckets: &[u64; BUCKETS], share: f64) -> u64 {
    let count: u64 = buckets.iter().sum();
    let mut left = (count as f64 * share).ceil() as u64;
    for (bucket, calls) in buckets.iter().enumerate() {
        if left <= *calls {
            return if left == 0 { 0 } else { upper_bound(bucket).div_ceil(1000) };
        }
        left -= calls;
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plugin::runtime::error::TimeLimit;
    use crate::plugin::runtime::frames::Frames;

    proptest! {
        #[test]
        fn a_time_is_below_its_buckets_bound_and_not_far_below(nanos in 0_u64..4_000_000_000_000) {
            let bound = upper_bound(bucket(nanos));
            prop_assert!(nanos < bound, "{nanos} {bound}");
            prop_assert!(bound - nanos <= 64 + nanos / 4, "{nanos} {bound}");
        }
    }

    #[test]
    fn every_failure_is_counted_but_for_overload() {
        let limit = TimeLimit { setting: "deadline", value: Duration::ZERO };
        let [stderr, reason, did] = [const { String::new() }; 3];
        let backtrace = Frames::default();
        let of = |setting| CallError::Limit {
            did: did.clone(),
            limit: 0,
            setting,
            reason: reason.clone(),
            backtrace: backtrace.clone(),
            stderr: stderr.clone(),
        };
        let failures = [
            CallError::Trap { reason: reason.clone(), backtrace: backtrace.clone(), stderr: stderr.clone() },
            CallError::Deadline { limit, stderr: stderr.clone() },
            of("limits.memory"),
            of("limits.handles"),
            CallError::Result(String::new()),
        ];
        let stats = Stats::default();
        for failure in &failures {
            stats.ended(Function::Greet, Caller::Sender, Duration::ZERO, Some(failure));
        }
        let shed = CallError::NoRoom(String::new());
        stats.ended(Function::Greet, Caller::Sender, Duration::ZERO, Some(&shed));
        assert_eq!(stats.counts()[0], CallCount { calls: 5, failures: 5 });
        assert_eq!(stats.functions()[0].failures.len(), KINDS.len());
    }

    #[test]
    fn quantiles_are_of_calls() {
        let stats = Stats::default();
        for millis in 1..=100 {
            stats.ended(Function::Route, Caller::Sender, Duration::from_millis(millis), None);
        }
        let nonsense = CallError::Result("nonsense".to_owned());
        stats.ended(Function::Route, Caller::Sender, Duration::from_secs(2), Some(&nonsense));
        let route = stats.functions().pop().unwrap();
        assert_eq!((route.function, route.calls, route.failures.get("result")), ("route", 101, Some(&1)));
        assert!((51_000..=64_000).contains(&route.p50_us), "{}", route.p50_us);
        assert!((99_000..=125_000).contains(&route.p99_us), "{}", route.p99_us);
        assert_eq!(stats.counts()[Function::Route as usize], CallCount { calls: 101, failures: 1 });
        assert_eq!(stats.last_error().unwrap().reason, "it returned nonsense");
    }
}
