//! The lane for calls that run longer than a tick.
//!
//! Almost every call ends within microseconds. Those that do not continue in turns of about a tick, and only so many of
//! them at a time as leave processors to everybody else: however many plugins spin, connections go on being served. A
//! plugin whose calls keep doing that has to begin them in the lane, too: a burst of them would take a first tick each.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use nix::time::ClockId;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::plugin::runtime::clock::TICK;

/// The right to run until the call stops running: at the end of a tick, or when it waits for something.
pub(crate) type Turn = OwnedSemaphorePermit;

/// Admits long calls; one for the process.
#[derive(Debug)]
pub(crate) struct FairQueue {
    /// Fair: first come, first served.
    turns: Arc<Semaphore>,
    width: usize,
}

impl FairQueue {
    /// A lane as wide as half of the processors.
    pub(crate) fn new() -> Arc<Self> {
        Self::wide(available_parallelism().map_or(1, usize::from) / 2)
    }

    fn wide(width: usize) -> Arc<Self> {
        let width = width.max(1);
        Arc::new(Self { turns: Arc::new(Semaphore::new(width)), width })
    }

    /// Whether long calls take all turns that there are.
    pub(crate) fn is_taken(&self) -> bool {
        self.turns.available_permits() == 0
    }

    /// What the calls of one slot have of the lane.
    pub(crate) fn share(self: &Arc<Self>) -> Arc<SlotQueue> {
        let gate = || Semaphore::new(self.width);
        Arc::new(SlotQueue { queue: self.clone(), front: gate(), requeue_gate: gate() })
    }
}

/// The calls of one slot in the lane. At most as many as the lane is wide wait for a turn together with other slots' calls;
/// its other calls wait behind these. So a slot with many long calls takes turns from itself.
#[derive(Debug)]
pub(crate) struct SlotQueue {
    queue: Arc<FairQueue>,
    /// For those that wait beside other slots' calls.
    front: Semaphore,
    /// For those that wait for the front and have had a turn. So a call that has not run yet waits for those before it
    /// that have not either, and hardly for the long ones.
    requeue_gate: Semaphore,
}

impl SlotQueue {
    /// Waits for the first turn of a call.
    pub(crate) async fn first_turn(&self) -> Option<Turn> {
        // `None` would be a lane that is closed; it never is.
        let _waiting = self.front.acquire().await;
        self.queue.turns.clone().acquire_owned().await.ok()
    }

    async fn next_turn(&self) -> Option<Turn> {
        let _queueing = self.requeue_gate.acquire().await;
        self.first_turn().await
    }
}

/// How long a plugin is remembered to be slow, and within what time two long calls make it so. One alone may be the
/// operating system's doing.
const MEMORY: Duration = Duration::from_secs(1);

/// Whether the calls of one plugin have been long of late. Times are in milliseconds since it was made.
#[derive(Debug)]
pub(crate) struct SlowCalls {
    made: Instant,
    /// When a call was last found to be long.
    long: AtomicU64,
    /// Until when calls begin in the lane.
    slow_until: AtomicU64,
}

impl SlowCalls {
    pub(crate) fn new() -> Arc<Self> {
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
    pub(crate) fn is_slow(&self) -> bool {
        let until = self.slow_until.load(Relaxed);
        until > 0 && self.now() < until
    }
}

/// A turn that has had less of the processor goes on for a tick more: its tick was about to end when it began. Short
/// calls, which end within it, never have to queue again.
const LEAST_TURN: Duration = Duration::from_micros(125);

/// What a call has had of the processor since it was first looked at that is found to be long. One that had less was itself
/// kept waiting, by whatever else the machine does.
const LONG: Duration = Duration::from_millis(TICK.as_millis() as u64 / 2);

/// The turns of one instance's calls.
#[derive(Debug)]
pub(crate) struct Turns {
    queue: Arc<SlotQueue>,
    slow_calls: Arc<SlowCalls>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The right to run for one more tick.
    turn: Option<Turn>,
    /// When the call began to run, or went on.
    resumed: Instant,
    /// What the thread had of the processor when the call was first looked at since then; or, if it has been suspended, when
    /// it last went on.
    cpu_at_check: Option<Duration>,
    /// What the call had of the processor before it was suspended.
    spent: Duration,
    /// The call has been suspended.
    suspended: bool,
    /// The call has been found to be long.
    long: bool,
}

impl State {
    fn begun(turn: Option<Turn>, now: Instant) -> Self {
        // Turns are short: there is no waiting for a first look.
        let used = turn.is_some().then(processor_time);
        Self { turn, resumed: now, cpu_at_check: used, spent: Duration::ZERO, suspended: false, long: false }
    }
}

impl Turns {
    pub(crate) fn new(queue: Arc<SlotQueue>, slow_calls: Arc<SlowCalls>) -> Arc<Self> {
        Arc::new(Self { queue, slow_calls, state: Mutex::new(State::begun(None, Instant::now())) })
    }

    /// Before each call, which begins now: its first turn, if it begins in the lane.
    pub(crate) fn begin(&self, turn: Option<Turn>, now: Instant) {
        *self.state.lock() = State::begun(turn, now);
    }

    /// Whether the end of a tick is not to count: it was about to end when the turn began, or the call is not long yet.
    pub(crate) fn may_go_on(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        if now.saturating_duration_since(state.resumed) < LEAST_TURN {
            return true;
        }
        let least = if state.turn.is_some() { LEAST_TURN } else { LONG };
        let used = processor_time();
        state.spent + used.saturating_sub(*state.cpu_at_check.get_or_insert(used)) < least
    }

    /// After a tick: lets others run, then waits for a turn.
    pub(crate) async fn next_turn(self: Arc<Self>) {
        if !std::mem::replace(&mut self.state.lock().long, true) {
            self.slow_calls.long();
        }
        tokio::task::yield_now().await;
        let turn = self.queue.next_turn().await;
        let mut state = self.state.lock();
        (state.turn, state.resumed) = (turn, Instant::now());
        (state.cpu_at_check, state.spent) = (Some(processor_time()), Duration::ZERO);
    }

    /// After a call whose time ended while it waited: a turn for taking down what it leaves, kept for as long as these
    /// turns are. Returning much memory takes its time, and many calls may end at once.
    pub(crate) async fn teardown_turn(&self) {
        let turn = self.queue.next_turn().await;
        self.state.lock().turn = turn;
    }

    /// Runs a call until it stops running, and so ends its turn.
    pub(crate) fn poll<F: Future>(&self, call: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Most calls are never suspended, and pay nothing for this.
        if self.state.lock().suspended {
            self.state.lock().cpu_at_check = Some(processor_time());
        }
        let outcome = call.poll(context);
        let mut state = self.state.lock();
        if outcome.is_pending() {
            state.suspended = true;
            // It may go on in another thread.
            if let Some(used) = state.cpu_at_check.take() {
                state.spent += processor_time().saturating_sub(used);
            }
        }
        drop(state.turn.take());
        outcome
    }
}

/// What this thread has had of the processor. Where that is not known, a call is long by the clock.
fn processor_time() -> Duration {
    // By `nix`: what `rustix` asks in the vDSO crashes under valgrind.
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    ClockId::CLOCK_THREAD_CPUTIME_ID.now().map_or_else(|_| START.elapsed(), Duration::from)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn long_calls_take_turns() {
        let queue = FairQueue::wide(1).share();
        let (slow_calls, ran) = (SlowCalls::new(), Arc::new(Mutex::new(Vec::new())));
        let call = |name: &'static str| {
            let (turns, ran) = (Turns::new(queue.clone(), slow_calls.clone()), ran.clone());
            async move {
                let mut call = pin!(async {
                    for _ in 0..3 {
                        turns.clone().next_turn().await;
                        ran.lock().push(name);
                    }
                });
                poll_fn(|context| turns.poll(call.as_mut(), context)).await;
            }
        };
        tokio::join!(call("a"), call("b"));
        // Nobody gets ahead by more than one.
        for pair in ran.lock().chunks(2) {
            assert_ne!(pair[0], pair[1]);
        }
        assert_eq!(ran.lock().len(), 6);
        assert_eq!(queue.queue.turns.available_permits(), 1);
        assert_eq!((queue.front.available_permits(), queue.requeue_gate.available_permits()), (1, 1));
    }

    #[tokio::test]
    async fn a_call_that_has_not_run_yet_passes_those_that_have() {
        let (queue, order) = (FairQueue::wide(1).share(), Mutex::new(Vec::new()));
        let held = queue.first_turn().await;
        let wait = async |name, new: bool| {
            let turn = if new { queue.first_turn().await } else { queue.next_turn().await };
            order.lock().push(name);
            tokio::task::yield_now().await;
            drop(turn);
        };
        tokio::join!(wait("long 1", false), wait("long 2", false), wait("long 3", false), wait("new", true), async {
            drop(held);
        });
        assert_eq!(order.lock()[..2], ["long 1", "new"]);
    }

    #[tokio::test]
    async fn a_slot_with_many_long_calls_takes_turns_from_itself() {
        let queue = FairQueue::wide(1);
        let (crowd, alone) = (queue.share(), queue.share());
        let taken = AtomicU64::new(0);
        let turn = async |share: &SlotQueue, is_new: bool| {
            let turn = if is_new { share.first_turn().await } else { share.next_turn().await };
            taken.fetch_add(1, Relaxed);
            tokio::task::yield_now().await;
            drop(turn);
        };
        let spinning = join_all((0..100).map(async |number| {
            loop {
                turn(&crowd, number % 2 == 0).await;
            }
        }));
        let working = async {
            tokio::task::yield_now().await;
            for _ in 0..20 {
                turn(&alone, false).await;
            }
        };
        tokio::select! { _ = spinning => {}, () = working => {} }
        assert!((30..=45).contains(&taken.load(Relaxed)), "{taken:?} turns, 20 of them of one call");
    }

    #[tokio::test]
    async fn the_calls_of_a_plugin_count_once_each() {
        let (queue, slow_calls) = (FairQueue::wide(1).share(), SlowCalls::new());
        let turns = Turns::new(queue, slow_calls.clone());
        for (call, slow) in [(1, false), (2, true)] {
            turns.begin(None, Instant::now());
            let mut running = pin!(async {
                turns.clone().next_turn().await;
                turns.clone().next_turn().await;
            });
            poll_fn(|context| turns.poll(running.as_mut(), context)).await;
            assert_eq!(slow_calls.is_slow(), slow, "after call {call}");
        }
    }

    #[test]
    fn two_long_calls_make_a_plugin_slow_and_one_does_not() {
        let slow_calls = SlowCalls::new();
        slow_calls.long();
        assert!(!slow_calls.is_slow());
        slow_calls.long();
        assert!(slow_calls.is_slow());
        slow_calls.slow_until.store(1, Relaxed);
        std::thread::sleep(Duration::from_millis(2));
        assert!(!slow_calls.is_slow());
    }

    #[tokio::test]
    async fn a_call_is_long_by_what_it_runs_and_not_by_what_it_waits() {
        let turns = Turns::new(FairQueue::wide(1).share(), SlowCalls::new());
        turns.begin(None, Instant::now());
        assert!(turns.may_go_on(Instant::now()));
        for _ in 0..3 {
            std::thread::sleep(2 * TICK);
            assert!(turns.may_go_on(Instant::now()), "the thread did not run");
        }
        work(LONG);
        assert!(!turns.may_go_on(Instant::now()));
    }

    fn work(time: Duration) {
        let begun = processor_time();
        while processor_time() - begun < time {}
    }

    #[tokio::test]
    async fn a_call_that_is_suspended_again_and_again_is_long_all_the_same() {
        let turns = Turns::new(FairQueue::wide(1).share(), SlowCalls::new());
        turns.begin(None, Instant::now());
        let mut call = pin!(async {
            for _ in 0..3 {
                work(LONG / 2);
                turns.may_go_on(Instant::now());
                tokio::task::yield_now().await;
            }
            work(LONG / 2);
            turns.may_go_on(Instant::now())
        });
        assert!(!poll_fn(|context| turns.poll(call.as_mut(), context)).await);
    }

    #[tokio::test]
    async fn a_turn_ends_when_the_call_stops_running() {
        let queue = FairQueue::wide(1);
        let turns = Turns::new(queue.share(), SlowCalls::new());
        turns.begin(turns.queue.first_turn().await, Instant::now());
        let mut call = pin!(async { queue.turns.available_permits() });
        assert_eq!(poll_fn(|context| turns.poll(call.as_mut(), context)).await, 0);
        assert_eq!(queue.turns.available_permits(), 1);
    }
}
