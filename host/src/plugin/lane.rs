//! The lane for calls that run longer than a tick.
//!
//! Almost every call ends within microseconds. Those that do not continue in turns of one tick, and only so many of them
//! at a time as leave processors to everybody else: however many plugins spin, connections go on being served.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread::available_parallelism;

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
    pub(super) fn enter(&self) -> Arc<Turns> {
        Arc::new(Turns { lane: self.0.clone(), turn: Mutex::new(None) })
    }
}

/// The turns of one instance's calls.
#[derive(Debug)]
pub(super) struct Turns {
    lane: Arc<Semaphore>,
    /// The right to run for one more tick.
    turn: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Turns {
    /// Lets others run, then waits for a turn.
    pub(super) async fn next(self: Arc<Self>) {
        tokio::task::yield_now().await;
        // The semaphore is fair: first come, first served.
        if let Ok(turn) = self.lane.clone().acquire_owned().await {
            *lock(&self.turn) = Some(turn);
        }
    }

    /// Runs a call. Its turn ends whenever it stops running: at the end of a tick, and when it waits for something.
    pub(super) async fn run<F: Future>(&self, call: F) -> F::Output {
        let mut call = pin!(call);
        poll_fn(|context| {
            let outcome: Poll<F::Output> = call.as_mut().poll(context);
            drop(lock(&self.turn).take());
            outcome
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_calls_take_turns() {
        let lane = Lane(Arc::new(Semaphore::new(1)));
        let ran = Arc::new(Mutex::new(Vec::new()));
        let call = |name: &'static str| {
            let (turns, ran) = (lane.enter(), ran.clone());
            async move {
                let call = async {
                    for _ in 0..3 {
                        turns.clone().next().await;
                        lock(&ran).push(name);
                    }
                };
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
}
