//! The shadow model: while clients come and go and senders push, links, gateways and NATS servers fail. Each message
//! has one outcome, and a model says exactly what clients may have received then.
//!
//! The run is a sequence of epochs: some faults, then a rest in which all gateways must agree about who is connected,
//! and then the check of everything that happened. A run prints its seed. The same seed makes the same faults in the
//! same order; what they meet depends on the machine.

mod checker;
mod checks;
mod clients;
mod faults;
mod random;
mod record;
mod senders;
mod watch;
mod world;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hotgate_tests::eventually;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::clients::{Crowd, Phase, come_and_go};
use self::faults::Fault;
use self::random::Random;
use self::senders::{Way, push_on};
use self::watch::watch;
use self::world::{GATEWAYS, World};

/// Clients. Some share a uid, and half of them join the group.
const CLIENTS: usize = 60;
const UIDS: usize = 40;
const SENDERS: usize = 8;

/// The time between two faults.
const PAUSE: std::ops::Range<u64> = 200..2_500;

/// `cluster.timeout`, after which nothing may arrive any more, and some turns of a busy machine.
const SILENCE: Duration = Duration::from_millis(1_500);

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_each_outcome_is_true() {
    let Some(mut run) = Run::start(14).await else { return };
    let faults = vec![
        vec![Fault::Cut(1)],
        vec![Fault::Kill(2, 3 * SECOND), Fault::Hold(0, [true, true], 5 * SECOND)],
        vec![Fault::Stop(3, 4 * SECOND)],
        vec![Fault::Storm, Fault::Delay(3, SECOND / 10, 3 * SECOND)],
        vec![Fault::KillNats(0, SECOND)],
        vec![Fault::Restart(1), Fault::BlackHole(2, [true, false], 2 * SECOND)],
    ];
    run.epoch(faults).await;
    run.end();
}

/// `HOTGATE_TESTS_SHADOW_SECONDS` is the length, an hour by default. `HOTGATE_TESTS_SHADOW_SEED` repeats a run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes an hour"]
async fn soak_whatever_fails_for_an_hour_each_outcome_is_true() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a whole number"));
    let seed = number("HOTGATE_TESTS_SHADOW_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let length = Duration::from_secs(number("HOTGATE_TESTS_SHADOW_SECONDS").unwrap_or(3600));
    let Some(mut run) = Run::start(seed).await else { return };
    let (begin, mut random) = (Instant::now(), Random::new(seed, 0));
    while begin.elapsed() < length {
        let count = 2 + random.below(4);
        run.epoch((0..count).map(|_| Fault::some(&mut random)).collect()).await;
    }
    run.end();
}

/// A world, and those that live in it.
struct Run {
    world: World,
    crowd: Arc<Crowd>,
    tasks: JoinSet<()>,
    random: Random,
    epochs: usize,
    outcomes: BTreeMap<String, usize>,
    received: usize,
    lost: usize,
    slowest: Duration,
}

impl Run {
    async fn start(seed: u64) -> Option<Self> {
        let world = World::start().await?;
        println!("the seed is {seed}: HOTGATE_TESTS_SHADOW_SEED={seed}");
        let crowd = Arc::new(Crowd::new(world.places().await));
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS {
            let random = Random::new(seed, 1_000 + number as u64);
            tasks.spawn(come_and_go(crowd.clone(), number % UIDS, number % 2 == 0, random));
        }
        for number in 0..SENDERS {
            let random = Random::new(seed, 2_000 + number as u64);
            let way = if number % 3 == 0 { Way::Text } else { Way::Http };
            tasks.spawn(push_on(crowd.clone(), UIDS, way, random));
        }
        for gateway in 0..GATEWAYS {
            tasks.spawn(watch(crowd.clone(), gateway));
        }
        let random = Random::new(seed, 1);
        let (outcomes, received) = (BTreeMap::new(), 0);
        Some(Self { world, crowd, tasks, random, epochs: 0, outcomes, received, lost: 0, slowest: Duration::ZERO })
    }

    /// Lets these faults happen, those of one list at the same time. Then checks everything.
    async fn epoch(&mut self, faults: Vec<Vec<Fault>>) {
        self.epochs += 1;
        println!("epoch {}", self.epochs);
        let Self { world, crowd, random, .. } = self;
        crowd.set(Phase::Run(0));
        sleep(SECOND).await;
        for faults in faults {
            println!("{:7.1} s: {faults:?}", crowd.record.now().as_secs_f64());
            join_all(faults.into_iter().map(|fault| Box::pin(fault.happen(world, crowd)))).await;
            sleep(random.time(PAUSE)).await;
        }
        self.rest().await;
        self.check();
    }

    /// Waits until all is quiet, everybody has read everything, and all gateways agree.
    async fn rest(&mut self) {
        let Self { world, crowd, tasks, slowest, .. } = self;
        crowd.set(Phase::Rest);
        // They end only by a panic.
        assert!(tasks.try_join_next().is_none(), "a client or sender has ended");
        eventually("an end of logins and pushes", async || crowd.busy() == 0).await;
        let agreed = world.agrees(&crowd.places, &crowd.record, UIDS).await;
        let took = agreed.unwrap_or_else(|differences| panic!("the gateways do not agree:{differences}"));
        *slowest = took.max(*slowest);
        sleep(SILENCE).await;
        crowd.set(Phase::Settle);
        eventually("all clients have read everything", async || {
            let connected = crowd.record.connected().0.values().sum::<u64>();
            crowd.settled() as u64 == connected
        })
        .await;
    }

    fn check(&mut self) {
        let report = self.crowd.record.events().check();
        assert!(
            report.wrong.is_empty(),
            "{} things are wrong:\n{}",
            report.wrong.len(),
            report.wrong[..report.wrong.len().min(10)].join("\n")
        );
        for (outcome, count) in report.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        (self.received, self.lost) = (self.received + report.received, self.lost + report.lost);
        let (Self { outcomes, received, lost, slowest, .. }, starved) = (&*self, self.crowd.record.events().starved);
        println!("so far: {outcomes:?}, {received} received, {lost} lost with connections");
        println!("    agreed after at most {slowest:?}; {starved} times the machine was too busy for a gateway");
        self.crowd.record.begin_anew();
    }

    /// The run must have been worth something: most messages arrive, in spite of all.
    fn end(self) {
        let all = self.outcomes.values().sum::<usize>();
        assert!(self.outcomes["ok"] * 2 > all && self.lost * 10 < all, "{:?}, {} lost", self.outcomes, self.lost);
    }
}
