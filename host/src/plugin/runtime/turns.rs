//! The fair queue of calls that run longer than a tick.
//!
//! Almost every call ends within microseconds. A longer call goes on in turns of about a tick. At most half of the
//! processors run such long calls. So however many plugins spin, connections are still served. If a plugin's calls are
//! often long, they wait for a turn before they start. Otherwise each of many such calls would run one tick without a
//! turn.

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

/// The right to run. It ends at the end of a tick, or when the call ends or waits.
pub(crate) type Turn = OwnedSemaphorePermit;

/// Admits long calls. There is one queue for the process.
#[derive(Debug)]
pub(crate) struct FairQueue {
    /// Fair: first come, first served.
    turns: Arc<Semaphore>,
    /// How many calls may have a turn at the same time.
    width: usize,
}

impl FairQueue {
    /// Creates a queue that has turns for half of the processors, but at least one turn.
    pub(crate) fn new() -> Arc<Self> {
        Self::wide(available_parallelism().map_or(1, usize::from) / 2)
    }

    fn wide(width: usize) -> Arc<Self> {
        let width = width.max(1);
        Arc::new(Self { turns: Arc::new(Semaphore::new(width)), width })
    }

    /// Returns `true` if long calls take all turns.
    pub(crate) fn is_taken(&self) -> bool {
        self.turns.available_permits() == 0
    }

    /// Creates the queue of one slot.
    pub(crate) fn share(self: &Arc<Self>) -> Arc<SlotQueue> {
        let gate = || Semaphore::new(self.width);
        Arc::new(SlotQueue { queue: self.clone(), front: gate(), requeue_gate: gate() })
    }
}

/// The queue of one slot's long calls. At most `width` of them wait in the common queue. The others wait behind them,
/// in the slot. So a slot with many long calls delays mostly its own calls.
#[derive(Debug)]
pub(crate) struct SlotQueue {
    queue: Arc<FairQueue>,
    /// Limits how many calls wait in the common queue: at most `width`.
    front: Semaphore,
    /// At most `width` calls that already had a turn wait for `front` at once; the others wait here. So a new call
    /// passes most of the long calls.
    requeue_gate: Semaphore,
}

impl SlotQueue {
    /// Waits for the first turn of a call.
    pub(crate) async fn first_turn(&self) -> Option<Turn> {
        // `None` would mean a closed semaphore; it is never closed.
        let _waiting = self.front.acquire().await;
        self.queue.turns.clone().acquire_owned().await.ok()
    }

    async fn next_turn(&self) -> Option<Turn> {
        let _queueing = self.requeue_gate.acquire().await;
        self.first_turn().await
    }
}

/// Two long calls within this time make a plugin slow, and it stays slow for this time. One long call alone may be the
/// fault of the operating system.
const SLOW_FOR: Duration = Duration::from_secs(1);

/// Remembers whether the calls of one plugin have been long lately. Times are in milliseconds since `made`.
#[derive(Debug)]
pub(crate) struct SlowCalls {
    made: Instant,
    /// When a call was last found to be long.
    long: AtomicU64,
    /// Until when the plugin is slow: its calls wait for a turn before they start.
    slow_until: AtomicU64,
}

impl SlowCalls {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { made: Instant::now(), long: AtomicU64::new(0), slow_until: AtomicU64::new(0) })
    }

    fn now(&self) -> u64 {
        // Not zero: zero means never.
        u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Records a long call.
    fn long(&self) {
        let (now, slow_for) = (self.now(), SLOW_FOR.as_millis() as u64);
        let before = self.long.swap(now, Relaxed);
        if before > 0 && now.saturating_sub(before) < slow_for {
            self.slow_until.store(now + slow_for, Relaxed);
        }
    }

    /// Returns `true` if the plugin's calls must wait for a turn before they start.
    pub(crate) fn is_slow(&self) -> bool {
        let until = self.slow_until.load(Relaxed);
        until > 0 && self.now() < until
    }
}

/// If a turn used less processor time than this when the tick ends, it gets one more tick: it began shortly before the
/// tick ended. A short call ends within this time, so it never queues again.
const LEAST_TURN: Duration = Duration::from_micros(125);

/// A call is long after this much processor time, counted from its first check. With less, it was the call that waited,
/// while the machine did other work.
const LONG: Duration = Duration::from_millis(TICK.as_millis() as u64 / 2);

/// The turns of one instance's calls.
#[derive(Debug)]
pub(crate) struct Turns {
    queue: Arc<SlotQueue>,
    slow_calls: Arc<SlowCalls>,
    state: Mutex<TurnState>,
}

#[derive(Debug)]
struct TurnState {
    /// The right to run for one more tick.
    turn: Option<Turn>,
    /// When the call began to run, or when its last turn began.
    resumed: Instant,
    /// The thread's processor time when the call's time began to count: at the beginning of its turn, or else at its
    /// first check. After the call was suspended: when it last went on.
    cpu_at_check: Option<Duration>,
    /// Processor time that the call used before it was suspended.
    spent: Duration,
    /// Whether the call has been suspended.
    suspended: bool,
    /// Whether the call has been found to be long.
    long: bool,
}

impl TurnState {
    fn begun(turn: Option<Turn>, now: Instant) -> Self {
        // Turns are short: their time counts from the beginning, not from the first check.
        let used = turn.is_some().then(processor_time);
        Self { turn, resumed: now, cpu_at_check: used, spent: Duration::ZERO, suspended: false, long: false }
    }
}

impl Turns {
    pub(crate) fn new(queue: Arc<SlotQueue>, slow_calls: Arc<SlowCalls>) -> Arc<Self> {
        Arc::new(Self { queue, slow_calls, state: Mutex::new(TurnState::begun(None, Instant::now())) })
    }

    /// Begins a call. `turn` is its first turn, if it had to wait for a turn before it started.
    pub(crate) fn begin(&self, turn: Option<Turn>, now: Instant) {
        *self.state.lock() = TurnState::begun(turn, now);
    }

    /// Returns `true` if the call may run on although a tick has ended: its turn has only begun, or the call is not
    /// long yet.
    pub(crate) fn may_go_on(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        if now.saturating_duration_since(state.resumed) < LEAST_TURN {
            return true;
        }
        let least = if state.turn.is_some() { LEAST_TURN } else { LONG };
        let used = processor_time();
        state.spent + used.saturating_sub(*state.cpu_at_check.get_or_insert(used)) < least
    }

    /// After a tick: lets other tasks run, then waits for a turn.
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

    /// Takes a turn for the end of a call that timed out while it waited, and holds the turn until the instance is
    /// dropped, because freeing much memory takes time. Many calls may end at once.
    pub(crate) async fn teardown_turn(&self) {
        let turn = self.queue.next_turn().await;
        self.state.lock().turn = turn;
    }

    /// Polls a call. When the call stops running, its turn ends.
    pub(crate) fn poll<F: Future>(&self, call: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Most calls are never suspended, and pay nothing for this.
        if self.state.lock().suspended {
            self.state.lock().cpu_at_check = Some(processor_time());
        }
        let outcome = call.poll(context);
        let mut state = self.state.lock();
        if outcome.is_pending() {
            state.suspended = true;
            // The call may go on in another thread.
            if let Some(used) = state.cpu_at_check.take() {
                state.spent += processor_time().saturating_sub(used);
            }
        }
        drop(state.turn.take());
        outcome
    }
}

/// Returns the processor time of this thread. If the system does not tell it, returns wall-clock time.
fn processor_time() -> Duration {
    // From `nix`: the function of the vDSO that `rustix` calls crashes under valgrind.
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
        // No call gets ahead by more than one turn.
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
