//! The lane for calls that run longer than a tick.
//!
//! Almost every call ends within microseconds. Those that do not continue in turns of one tick, and only so many of them
//! at a time as leave processors to everybody else: however many plugins spin, connections go on being served. A plugin
//! whose calls keep doing that has to begin them in the lane, too: a burst of them would take a first tick each.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Poll, ready};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lock;

/// Admits long calls; one for the process.
#[derive(Debug, Clone)]
pub(super) struct Lane(Arc<Semaphore>);

impl Lane {
    /// A lane as wide as half of the processors.
    pub(super) fn new() -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new((processors / 2).max(1))))
    }

    /// A place to stand for the calls of one instance.
    pub(super) fn enter(&self, pace: &Arc<Pace>) -> Arc<Turns> {
        Arc::new(Turns { lane: self.0.clone(), pace: pace.clone(), turn: Mutex::new(None) })
    }
}

/// How long a plugin is remembered to be slow, and within what time two long calls make it so. One alone may be the
/// operating system's doing.
const MEMORY: Duration = Duration::from_secs(1);

/// Whether the calls of one plugin have been long of late. Times are in milliseconds since it was made.
#[derive(Debug)]
pub(super) struct Pace {
    made: Instant,
    /// When a call was last found to be long.
    long: AtomicU64,
    /// Until when calls begin in the lane.
    slow_until: AtomicU64,
}

impl Pace {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { made: Instant::now(), long: AtomicU64::new(0), slow_until: AtomicU64::new(0) })
    }

    fn now(&self) -> u64 {
        // Not zero, which stands for never.
        u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn long(&self) {
        let (now, memory) = (self.now(), MEMORY.as_millis() as u64);
        let before = self.long.swap(now, Relaxed);
        if before > 0 && now.saturating_sub(before) < memory {
            self.slow_until.store(now + memory, Relaxed);
        }
    }

    fn is_slow(&self) -> bool {
        let until = self.slow_until.load(Relaxed);
        until > 0 && self.now() < until
    }
}

/// The turns of one instance's calls.
#[derive(Debug)]
pub(super) struct Turns {
    lane: Arc<Semaphore>,
    pace: Arc<Pace>,
    /// The right to run for one more tick.
    turn: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Turns {
    /// After a tick: lets others run, then waits for a turn.
    pub(super) async fn next(self: Arc<Self>) {
        self.pace.long();
        tokio::task::yield_now().await;
        self.take().await;
    }

    async fn take(self: Arc<Self>) {
        // The semaphore is fair: first come, first served.
        if let Ok(turn) = self.lane.clone().acquire_owned().await {
            *lock(&self.turn) = Some(turn);
        }
    }

    /// Runs a call. Its turn ends whenever it stops running: at the end of a tick, and when it waits for something.
    pub(super) async fn run<F: Future>(self: &Arc<Self>, mut call: Pin<&mut F>) -> F::Output {
        // Boxed, since every connection holds this future and hardly any needs it.
        let mut first = self.pace.is_slow().then(|| Box::pin(self.clone().take()));
        poll_fn(|context| {
            if let Some(turn) = &mut first {
                ready!(turn.as_mut().poll(context));
                first = None;
            }
            let outcome: Poll<F::Output> = call.as_mut().poll(context);
            drop(lock(&self.turn).take());
            outcome
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn long_calls_take_turns() {
        let lane = Lane(Arc::new(Semaphore::new(1)));
        let (pace, ran) = (Pace::new(), Arc::new(Mutex::new(Vec::new())));
        let call = |name: &'static str| {
            let (turns, ran) = (lane.enter(&pace), ran.clone());
            async move {
                let call = pin!(async {
                    for _ in 0..3 {
                        turns.clone().next().await;
                        lock(&ran).push(name);
                    }
                });
                turns.run(call).await;
            }
        };
        tokio::join!(call("a"), call("b"));
        // Nobody gets ahead by more than one.
        for pair in lock(&ran).chunks(2) {
            assert_ne!(pair[0], pair[1]);
        }
        assert_eq!(lock(&ran).len(), 6);
        assert_eq!(lane.0.available_permits(), 1);
    }

    #[test]
    fn two_long_calls_make_a_plugin_slow_and_one_does_not() {
        let pace = Pace::new();
        pace.long();
        assert!(!pace.is_slow());
        pace.long();
        assert!(pace.is_slow());
        pace.slow_until.store(1, Relaxed);
        std::thread::sleep(Duration::from_millis(2));
        assert!(!pace.is_slow());
    }

    #[tokio::test]
    async fn calls_of_a_slow_plugin_begin_in_the_lane() {
        let (lane, pace) = (Lane(Arc::new(Semaphore::new(1))), Pace::new());
        let free = || lane.0.available_permits();
        let turns = lane.enter(&pace);
        assert_eq!(turns.run(pin!(async { free() })).await, 1);
        pace.long();
        pace.long();
        assert_eq!(turns.run(pin!(async { free() })).await, 0);
        assert_eq!(free(), 1);
    }
}
