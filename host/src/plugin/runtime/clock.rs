//! The clock of the engine: it interrupts plugin code that runs for long.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use parking_lot::Mutex;
use wasmtime::Engine;

/// How often a running call is looked at. A call that ends within one tick is never interrupted. Costs one wake-up of
/// one thread.
pub(crate) const TICK: Duration = Duration::from_millis(4);

/// The same while long calls take turns: the shorter, the sooner a crowd of them makes room for one that is short.
const SHORT_TICK: Duration = Duration::from_micros(250);

/// Between two ticks there is never as much time, unless the process does not run.
const STALL: Duration = Duration::from_millis(50);

/// Tells when calls ran out of time through nobody's fault: the process was stopped, or had no processor.
#[derive(Debug, Clone)]
pub(crate) struct Clock(Arc<Mutex<Ticks>>);

#[derive(Debug)]
struct Ticks {
    last: Instant,
    /// When the process last went on after it had not run.
    went_on: Option<Instant>,
}

impl Clock {
    /// Starts a thread that advances the engine's epoch once per tick. A thread of its own, because a runtime whose threads
    /// are all in a plugin does not keep time. `is_crowded` tells whether long calls take turns. The thread ends with the
    /// engine.
    ///
    /// # Errors
    /// When the operating system has no thread for it.
    pub(crate) fn start(engine: &Engine, is_crowded: impl Fn() -> bool + Send + 'static) -> anyhow::Result<Self> {
        let (clock, engine) = (Self::new(), engine.weak());
        let ticking = clock.clone();
        let tick = move || {
            while let Some(engine) = engine.upgrade() {
                ticking.tick();
                engine.increment_epoch();
                drop(engine);
                thread::sleep(if is_crowded() { SHORT_TICK } else { TICK });
            }
        };
        thread::Builder::new().name("epoch".to_owned()).spawn(tick).context("cannot start the epoch clock")?;
        Ok(clock)
    }

    fn new() -> Self {
        Self(Arc::new(Mutex::new(Ticks { last: Instant::now(), went_on: None })))
    }

    /// The tests that count instructions leave this function out by its name.
    fn tick(&self) {
        let mut ticks = self.0.lock();
        let now = Instant::now();
        if now - ticks.last > STALL {
            ticks.went_on = Some(now);
        }
        ticks.last = now;
    }

    /// Whether the process has not run for a while since this moment.
    pub(crate) fn stood_still_since(&self, moment: Instant) -> bool {
        let ticks = self.0.lock();
        ticks.went_on.is_some_and(|went_on| went_on >= moment) || ticks.last.elapsed() > STALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_stopped_is_told_from_one_that_runs() {
        let (clock, begun) = (Clock::new(), Instant::now());
        clock.tick();
        assert!(!clock.stood_still_since(begun));
        thread::sleep(2 * STALL);
        assert!(clock.stood_still_since(begun), "the next tick is overdue");
        clock.tick();
        assert!(clock.stood_still_since(begun) && !clock.stood_still_since(Instant::now()));
    }
}
