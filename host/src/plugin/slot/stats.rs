//! The statistics of one generation's calls: counts, times and the last failure.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::base::histogram::Histogram;
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
            let times = stats.times.load();
            let failures = KINDS.into_iter().zip(stats.failures.iter().map(|count| count.load(Relaxed)));
            FunctionStatus {
                function: function.name(),
                calls: times.count(),
                failures: failures.filter(|(_, count)| *count > 0).collect(),
                total_us: u64::try_from(times.total().as_micros()).unwrap_or(u64::MAX),
                p50_us: times.quantile(0.5),
                p99_us: times.quantile(0.99),
                times,
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
    times: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::runtime::error::TimeLimit;
    use crate::plugin::runtime::frames::Frames;

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
