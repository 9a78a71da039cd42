//! The clock of the engine. It interrupts plugin code that runs for long.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use parking_lot::Mutex;
use wasmtime::Engine;

/// Time between two checks of a running call. A call that ends within one tick is never interrupted. A tick costs one
/// wake-up of one thread.
pub(crate) const TICK: Duration = Duration::from_millis(4);

/// The tick while long calls take turns. The shorter it is, the sooner many long calls let a short call run.
const SHORT_TICK: Duration = Duration::from_micros(250);

/// More time than this between two ticks means that the process did not run.
const STALL: Duration = Duration::from_millis(50);

/// Tells whether a call ran out of time although its plugin did nothing wrong: the process was stopped, or had no
/// processor.
#[derive(Debug, Clone)]
pub(crate) struct Clock(Arc<Mutex<Ticks>>);

#[derive(Debug)]
struct Ticks {
    last: Instant,
    /// When the process last went on after a stop.
    went_on: Option<Instant>,
}

impl Clock {
    /// Starts a thread that advances the engine's epoch once per tick. It is a thread of its own, because an async
    /// runtime whose threads are all in plugins does not keep time. `is_crowded` tells whether long calls take turns.
    /// The thread ends with the engine.
    ///
    /// # Errors
    /// If the operating system cannot start the thread.
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

    /// Records a tick. The tests that count instructions exclude this function by its name.
    fn tick(&self) {
        let mut ticks = self.0.lock();
        let now = Instant::now();
        if now - ticks.last > STALL {
            ticks.went_on = Some(now);
        }
        ticks.last = now;
    }

    /// Returns `true` if the process was stopped for a while since this moment.
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
