//! The lane for calls that run longer than a tick.
//!
//! Almost every call ends within microseconds. Those that do not continue in turns of about a tick, and only so many of
//! them at a time as leave processors to everybody else: however many plugins spin, connections go on being served. A
//! plugin whose calls keep doing that has to begin them in the lane, too: a burst of them would take a first tick each.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use tokio::sync::oneshot::{self, Sender};

use super::engine::TICK;
use super::lock;

/// The right to run until the call stops running: at the end of a tick, or when it waits for something.
#[derive(Debug)]
pub(super) struct Turn(Arc<Mutex<Queue>>);

/// Admits long calls; one for the process.
#[derive(Debug, Clone)]
pub(super) struct Lane(Arc<Mutex<Queue>>);

/// Who waits for a turn. At most all calls that may run, which their plugins' concurrency bounds.
#[derive(Debug)]
struct Queue {
    /// Turns that nobody has.
    free: usize,
    /// Calls that have not run yet, the newest last.
    new: VecDeque<Sender<Turn>>,
    /// Calls that have had a turn, and so are long.
    long: VecDeque<Sender<Turn>>,
    /// Turns that have been passed on.
    passed: usize,
}

impl Queue {
    /// Who is next. Every other turn is the newest call's: a crowd that came before it may take long for each turn, where
    /// the plugins spin in what cannot be interrupted. The rest goes to the oldest, new and long in turn, so that nobody
    /// waits for ever.
    fn next(&mut self) -> Option<Sender<Turn>> {
        self.passed = self.passed.wrapping_add(1);
        let Self { new, long, .. } = self;
        match self.passed % 4 {
            1 => new.pop_front().or_else(|| long.pop_front()),
            3 => long.pop_front().or_else(|| new.pop_front()),
            _ => new.pop_back().or_else(|| long.pop_front()),
        }
    }
}

impl Drop for Turn {
    /// Passes it on.
    fn drop(&mut self) {
        let mut queue = lock(&self.0);
        loop {
            match queue.next() {
                Some(given_up) if given_up.is_closed() => {}
                Some(next) => {
                    drop(queue);
                    // Whoever gives up meanwhile drops it, and so passes it on.
                    _ = next.send(Self(self.0.clone()));
                    return;
                }
                None => {
                    queue.free += 1;
                    return;
                }
            }
        }
    }
}

impl Lane {
    /// A lane as wide as half of the processors.
    pub(super) fn new() -> Self {
        Self::wide(available_parallelism().map_or(1, usize::from) / 2)
    }

    fn wide(width: usize) -> Self {
        let (new, long) = Default::default();
        Self(Arc::new(Mutex::new(Queue { free: width.max(1), new, long, passed: 0 })))
    }

    /// Whether long calls take all turns that there are.
    pub(super) fn is_taken(&self) -> bool {
        lock(&self.0).free == 0
    }

    /// Waits for the first turn of a call.
    pub(super) async fn first(&self) -> Option<Turn> {
        self.turn(|queue| &mut queue.new).await
    }

    /// Waits for another turn.
    async fn next(&self) -> Option<Turn> {
        self.turn(|queue| &mut queue.long).await
    }

    async fn turn(&self, waiting: impl FnOnce(&mut Queue) -> &mut VecDeque<Sender<Turn>>) -> Option<Turn> {
        let turn = {
            let mut queue = lock(&self.0);
            if queue.free > 0 {
                queue.free -= 1;
                return Some(Turn(self.0.clone()));
            }
            let waiting = waiting(&mut queue);
            if waiting.len() == waiting.capacity() {
                waiting.retain(|waiting| !waiting.is_closed());
            }
            let (give, turn) = oneshot::channel();
            waiting.push_back(give);
            turn
        };
        // `None` would be a lane that is gone; it never is.
        turn.await.ok()
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

    /// Whether its calls have to begin in the lane.
    pub(super) fn is_slow(&self) -> bool {
        let until = self.slow_until.load(Relaxed);
        until > 0 && self.now() < until
    }
}

/// A turn younger than this goes on for a tick more: its tick was about to end when it began. Short calls, which end
/// within it, never have to queue again.
const LEAST_TURN: Duration = Duration::from_micros(250);

/// The turns of one instance's calls.
#[derive(Debug)]
pub(super) struct Turns {
    lane: Lane,
    pace: Arc<Pace>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The right to run for one more tick.
    turn: Option<Turn>,
    /// When the call began to run, or went on.
    resumed: Instant,
    /// The call has been found to be long.
    long: bool,
}

impl Turns {
    pub(super) fn new(lane: Lane, pace: Arc<Pace>) -> Arc<Self> {
        let state = State { turn: None, resumed: Instant::now(), long: false };
        Arc::new(Self { lane, pace, state: Mutex::new(state) })
    }

    /// Before each call: its first turn, if it begins in the lane.
    pub(super) fn begin(&self, turn: Option<Turn>) {
        *lock(&self.state) = State { turn, resumed: Instant::now(), long: false };
    }

    /// Whether the end of a tick is not to count: it was about to end when the turn began, or the call is not long yet.
    pub(super) fn may_go_on(&self, now: Instant) -> bool {
        let state = lock(&self.state);
        let least = if state.turn.is_some() { LEAST_TURN } else { TICK };
        now.saturating_duration_since(state.resumed) < least
    }

    /// After a tick: lets others run, then waits for a turn.
    pub(super) async fn next(self: Arc<Self>) {
        if !std::mem::replace(&mut lock(&self.state).long, true) {
            self.pace.long();
        }
        tokio::task::yield_now().await;
        let turn = self.lane.next().await;
        let mut state = lock(&self.state);
        (state.turn, state.resumed) = (turn, Instant::now());
    }

    /// Runs a call. Its turn ends whenever it stops running.
    pub(super) async fn run<F: Future>(&self, mut call: Pin<&mut F>) -> F::Output {
        poll_fn(|context| {
            let outcome: Poll<F::Output> = call.as_mut().poll(context);
            drop(lock(&self.state).turn.take());
            outcome
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn long_calls_take_turns() {
        let lane = Lane::wide(1);
        let (pace, ran) = (Pace::new(), Arc::new(Mutex::new(Vec::new())));
        let call = |name: &'static str| {
            let (turns, ran) = (Turns::new(lane.clone(), pace.clone()), ran.clone());
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
        assert!(!lane.is_taken());
    }

    #[tokio::test]
    async fn every_other_turn_is_the_newest_calls_and_the_oldest_are_not_forgotten() {
        let (lane, order) = (Lane::wide(1), Mutex::new(Vec::new()));
        let held = lane.first().await;
        let wait = async |name, new: bool| {
            let turn = if new { lane.first().await } else { lane.next().await };
            lock(&order).push(name);
            drop(turn);
        };
        let new = async { tokio::join!(wait("1", true), wait("2", true), wait("3", true), wait("4", true)) };
        let long = async { tokio::join!(wait("long 1", false), wait("long 2", false)) };
        tokio::join!(new, long, async { drop(held) });
        assert_eq!(*lock(&order), ["1", "4", "long 1", "3", "2", "long 2"]);
        assert!(!lane.is_taken());
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_turn_to_others() {
        let lane = Lane::wide(1);
        let held = lane.first().await;
        for _ in 0..1000 {
            // Asks for a turn, and is dropped.
            assert!(poll!(pin!(lane.first())).is_pending());
        }
        assert!(lock(&lane.0).new.len() < 10, "those that have gone do not fill the queue");
        let mut waiting = pin!(lane.first());
        assert!(poll!(waiting.as_mut()).is_pending());
        drop(held);
        assert!(lane.is_taken());
        drop(waiting.await);
        assert!(!lane.is_taken());
    }

    #[tokio::test]
    async fn the_calls_of_a_plugin_count_once_each() {
        let (lane, pace) = (Lane::wide(1), Pace::new());
        let turns = Turns::new(lane, pace.clone());
        for (call, slow) in [(1, false), (2, true)] {
            turns.begin(None);
            let running = pin!(async {
                turns.clone().next().await;
                turns.clone().next().await;
            });
            turns.run(running).await;
            assert_eq!(pace.is_slow(), slow, "after call {call}");
        }
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
    async fn a_turn_ends_when_the_call_stops_running() {
        let lane = Lane::wide(1);
        let turns = Turns::new(lane.clone(), Pace::new());
        turns.begin(lane.first().await);
        assert!(turns.run(pin!(async { lane.is_taken() })).await);
        assert!(!lane.is_taken());
    }
}
