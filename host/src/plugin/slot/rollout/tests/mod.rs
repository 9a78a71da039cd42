//! The state machine by example. What a fault says is in `faults`, properties that hold whatever happens are in
//! `properties`.

mod faults;
mod properties;

use parking_lot::Mutex;

use super::*;
use crate::base::message::ClientKey;
use crate::config::PluginDeploy;
use crate::plugin::slot::blame::{Blame, Caller};

/// A generation that only counts.
#[derive(Debug, Default)]
struct Fake {
    number: u64,
    counts: Mutex<Counts>,
    blame: Mutex<[Blame; FUNCTIONS]>,
}

impl Counted for Fake {
    fn counts(&self) -> Counts {
        *self.counts.lock()
    }

    fn spread(&self, function: Function) -> Spread {
        self.blame.lock()[function as usize].spread()
    }

    fn forget_clients(&self) {
        *self.blame.lock() = Default::default();
    }

    fn last_failure(&self) -> Option<String> {
        None
    }
}

impl Fake {
    fn new(number: u64) -> Arc<Self> {
        Arc::new(Self { number, ..Self::default() })
    }

    /// Counts calls that have ended. Each failed call was for another client.
    fn called(&self, function: Function, calls: u64, failures: u64) {
        let before = self.counts.lock()[function as usize].failures;
        let uids = (before..before + failures).map(|number| number.to_string());
        self.called_for(function, calls, &uids.collect::<Vec<_>>());
    }

    /// Counts calls that have ended. The calls for the uids in `failed`, all at one address, have failed.
    fn called_for<T: AsRef<str>>(&self, function: Function, calls: u64, failed: &[T]) {
        for uid in failed {
            let client = Caller::Client(ClientKey::new([192, 0, 2, 1].into(), uid.as_ref()));
            self.blame.lock()[function as usize].add(client);
        }
        let count = &mut self.counts.lock()[function as usize];
        (count.calls, count.failures) = (count.calls + calls, count.failures + failed.len() as u64);
    }
}

fn deploy() -> PluginDeploy {
    PluginDeploy { probation: Duration::from_secs(30), max_failures: 5, min_failures: 5, ..PluginDeploy::default() }
}

fn whats(steps: &[Step<Fake>]) -> Vec<(EventKind, u64)> {
    steps.iter().map(|step| (step.what, step.generation.number)).collect()
}

struct Story {
    rollout: Rollout<Fake>,
    deploy: PluginDeploy,
    now: Instant,
}

impl Story {
    fn new(deploy: PluginDeploy) -> Self {
        let now = Instant::now();
        Self { rollout: Rollout::new(Fake::new(1), now), deploy, now }
    }

    fn offer(&mut self, number: u64) -> Vec<(EventKind, u64)> {
        whats(&self.rollout.offer(Fake::new(number), true, &self.deploy, self.now))
    }

    fn after(&mut self, seconds: u64) -> Vec<(EventKind, u64)> {
        self.now += Duration::from_secs(seconds);
        whats(&self.rollout.evaluate(&self.deploy, self.now))
    }

    fn promote(&mut self) -> Vec<(EventKind, u64)> {
        self.rollout.promote(&self.deploy, self.now).map(|steps| whats(&steps)).unwrap_or_default()
    }

    fn rollback(&mut self) -> Option<Vec<(EventKind, u64)>> {
        self.rollout.rollback("told to".to_owned(), self.now).map(|steps| whats(&steps)).ok()
    }

    fn calls(&self, calls: u64, failures: u64) {
        self.rollout.live.generation.called(Function::Route, calls, failures);
    }

    fn calls_for(&self, function: Function, calls: u64, failed: &[&str]) {
        self.rollout.live.generation.called_for(function, calls, failed);
    }

    fn live(&self) -> (u64, Stage) {
        (self.rollout.live.generation.number, self.rollout.live.stage)
    }

    fn kept(&self) -> Option<u64> {
        self.rollout.previous().map(|place| place.generation.number)
    }
}

#[test]
fn a_good_generation_passes_its_probation() {
    let mut story = Story::new(deploy());
    assert_eq!(story.offer(2), [(EventKind::Probation, 2)]);
    story.calls(1000, 20);
    assert_eq!(story.after(29), []);
    assert_eq!(story.after(1), [(EventKind::Live, 2)]);
    assert_eq!((story.live(), story.kept()), ((2, Stage::Live), Some(1)));
}

#[test]
fn a_probation_is_not_over_before_there_was_something_to_see() {
    let mut story = Story::new(deploy());
    story.offer(2);
    assert_eq!(story.after(3600), []);
    story.calls(4, 0);
    assert_eq!(story.after(3600), []);
    story.rollout.live.generation.called(Function::Push, 4, 4);
    assert_eq!(story.after(1), [], "one function has failed, and has hardly been called");
    story.rollout.live.generation.called(Function::Push, 1, 1);
    assert_eq!(story.after(1), [(EventKind::RolledBack, 2)]);
}

#[test]
fn a_canary_is_compared_anew_when_the_live_one_is_rolled_back() {
    let mut story = Story::new(PluginDeploy { canary: 5, ..deploy() });
    story.calls(1000, 300);
    story.offer(2);
    story.promote();
    story.offer(3);
    story.calls(100, 40);
    assert_eq!(story.after(1), [(EventKind::RolledBack, 2)]);
    let canary = story.rollout.candidate().unwrap().generation.clone();
    story.calls(100, 0);
    canary.called(Function::Route, 54, 16);
    assert_eq!(story.after(1), [(EventKind::RolledBack, 3)]);
}

#[test]
fn many_calls_end_a_probation_early() {
    let mut story = Story::new(PluginDeploy { probation_calls: 100, ..deploy() });
    story.offer(2);
    story.calls(99, 0);
    assert_eq!(story.after(0), []);
    story.calls(1, 0);
    assert_eq!(story.after(0), [(EventKind::Live, 2)]);
}

#[test]
fn one_that_fails_on_probation_is_rolled_back() {
    let mut story = Story::new(deploy());
    story.offer(2);
    story.calls(20, 4);
    assert_eq!(story.after(1), [], "too few failures for a conclusion");
    story.calls(5, 1);
    assert_eq!(story.after(1), [(EventKind::RolledBack, 2)]);
    assert_eq!((story.live(), story.kept()), ((1, Stage::Live), None));
    assert_eq!(story.rollback(), None);
}

#[test]
fn one_client_alone_rolls_nothing_back_and_is_told_of() {
    let mut story = Story::new(deploy());
    story.offer(2);
    story.calls_for(Function::Route, 5, &["mallory"; 5]);
    assert_eq!(story.after(1), [(EventKind::Alert, 2)]);
    story.calls_for(Function::Route, 100_000, &["mallory"; 100_000]);
    assert_eq!(story.after(1), []);
    // Not even if a few calls of other clients fail, too.
    story.calls_for(Function::Route, 1000, &["anna", "bob", "carol", "dave"]);
    assert_eq!(story.after(3600), [], "while it fails it stays on probation");
    assert_eq!(story.live(), (2, Stage::Probation));
    story.calls_for(Function::Route, 100, &["anna", "bob", "carol", "dave"].repeat(20));
    assert_eq!(story.after(1), [(EventKind::RolledBack, 2)]);
}

#[test]
fn a_canary_is_not_rolled_back_by_one_client_either() {
    let mut story = Story::new(PluginDeploy { canary: 5, ..deploy() });
    story.offer(2);
    let canary = story.rollout.candidate().unwrap().generation.clone();
    canary.called_for(Function::Route, 100, &["mallory"; 100]);
    assert_eq!(story.after(1), [(EventKind::Alert, 2)]);
    canary.called_for(Function::Route, 4, &["anna", "bob", "carol", "dave"]);
    assert_eq!(story.after(1), [(EventKind::RolledBack, 2)]);
}

#[test]
fn few_clients_are_enough_after_many_failures() {
    let mut story = Story::new(deploy());
    story.offer(2);
    story.calls_for(Function::Route, 198, &["anna", "bob"].repeat(99));
    assert_eq!(story.after(1), [(EventKind::Alert, 2)]);
    story.calls_for(Function::Route, 2, &["anna", "bob"]);
    assert_eq!(story.after(1), [(EventKind::RolledBack, 2)]);
}

#[test]
fn behind_one_address_there_may_be_many_strangers() {
    let mut story = Story::new(deploy());
    story.offer(2);
    story.calls_for(Function::Authenticate, 99, &[""; 99]);
    assert_eq!(story.after(1), [(EventKind::Alert, 2)]);
    story.calls_for(Function::Authenticate, 1, &[""; 1]);
    assert_eq!(story.after(1), [(EventKind::RolledBack, 2)]);
}

#[test]
fn failed_pushes_always_count() {
    let mut story = Story::new(deploy());
    story.offer(2);
    let live = story.rollout.live.generation.clone();
    (0..5).for_each(|_| live.blame.lock()[Function::Push as usize].add(Caller::Sender));
    live.counts.lock()[Function::Push as usize] = CallCount { calls: 5, failures: 5 };
    assert_eq!(story.after(1), [(EventKind::RolledBack, 2)]);
}

#[test]
fn each_stage_counts_clients_anew() {
    let mut story = Story::new(PluginDeploy { canary: 5, ..deploy() });
    story.offer(2);
    let canary = story.rollout.candidate().unwrap().generation.clone();
    canary.called_for(Function::Route, 1000, &["anna", "bob", "carol", "dave"]);
    story.promote();
    story.calls_for(Function::Route, 5, &["mallory"; 5]);
    assert_eq!(story.after(1), [(EventKind::Alert, 2)]);
}

#[test]
fn failures_that_the_one_before_had_too_are_not_held_against_it() {
    let mut story = Story::new(deploy());
    story.calls(100, 30);
    story.offer(2);
    story.calls(100, 34);
    assert_eq!(story.after(1), []);
    story.calls(100, 40);
    assert_eq!(story.after(1), [(EventKind::RolledBack, 2)]);
}

#[test]
fn failures_of_the_last_minute_still_excuse_a_new_one() {
    let mut story = Story::new(deploy());
    story.calls(100, 30);
    (0..10).for_each(|_| drop(story.after(5)));
    story.offer(2);
    story.calls(100, 34);
    assert_eq!(story.after(1), []);
}

#[test]
fn failures_of_one_on_probation_do_not_excuse_the_next() {
    let mut story = Story::new(deploy());
    story.offer(2);
    story.calls(100, 90);
    story.offer(3);
    story.calls(100, 30);
    assert_eq!(story.after(1), [(EventKind::RolledBack, 3)]);
}

#[test]
fn failures_long_ago_excuse_nothing() {
    let mut story = Story::new(deploy());
    story.calls(100, 90);
    story.after(20);
    for _ in 0..20 {
        story.after(5);
    }
    story.offer(2);
    story.calls(100, 30);
    assert_eq!(story.after(1), [(EventKind::RolledBack, 2)]);
}

#[test]
fn a_function_that_is_called_rarely_is_not_hidden_by_the_others() {
    let mut story = Story::new(deploy());
    story.offer(2);
    story.calls(90_000, 0);
    story.rollout.live.generation.called(Function::Push, 5, 5);
    assert_eq!(story.after(1), [(EventKind::RolledBack, 2)]);
}

#[test]
fn once_live_failures_only_alert_and_once() {
    let mut story = Story::new(deploy());
    story.offer(2);
    story.calls(5, 0);
    story.after(30);
    story.calls(100, 100);
    assert_eq!(story.after(1), [(EventKind::Alert, 2)]);
    assert_eq!(story.after(1), []);
    // The failures are forgotten, then there are new ones.
    (0..14).for_each(|_| assert_eq!(story.after(5), []));
    story.calls(10, 10);
    assert_eq!(story.after(1), [(EventKind::Alert, 2)]);
    assert_eq!(story.live(), (2, Stage::Live));
}

#[test]
fn whoever_wants_to_decide_alone_is_only_told() {
    let mut story = Story::new(PluginDeploy { rollback: Rollback::Alert, ..deploy() });
    story.offer(2);
    story.calls(10, 10);
    assert_eq!(story.after(1), [(EventKind::Alert, 2)]);
    assert_eq!(story.live(), (2, Stage::Probation));
    assert_eq!(story.rollback(), Some(vec![(EventKind::RolledBack, 2)]));
    assert_eq!(story.live(), (1, Stage::Live));
}

#[test]
fn kept_is_what_has_proven_itself() {
    let mut story = Story::new(deploy());
    story.offer(2);
    story.offer(3);
    assert_eq!(story.kept(), Some(1));
    story.calls(10, 10);
    assert_eq!(story.after(1), [(EventKind::RolledBack, 3)]);
    assert_eq!(story.live(), (1, Stage::Live));
}

#[test]
fn shadow_and_canary_wait_for_a_promotion() {
    let mut story = Story::new(PluginDeploy { shadow: 10, canary: 5, ..deploy() });
    assert_eq!(story.offer(2), [(EventKind::Shadow, 2)]);
    story.rollout.candidate().unwrap().generation.called(Function::Authenticate, 10, 10);
    assert_eq!(story.after(1), [(EventKind::Alert, 2)], "a generation in shadow needs no rollback");
    assert_eq!(story.after(3600), []);
    assert!(!story.rollout.is_watched());
    assert_eq!(story.promote(), [(EventKind::Canary, 2)]);
    assert_eq!((story.live(), story.rollout.is_watched()), ((1, Stage::Live), true));
    assert_eq!(story.promote(), [(EventKind::Probation, 2)]);
    assert!(story.rollout.is_watched());
    assert_eq!(story.promote(), [(EventKind::Live, 2)]);
    assert!(!story.rollout.is_watched());
    assert_eq!(story.promote(), []);
}

#[test]
fn a_newer_candidate_takes_the_place_of_an_older_one() {
    let mut story = Story::new(PluginDeploy { canary: 5, ..deploy() });
    let numbers = |story: &Story| story.rollout.generations().iter().map(|one| one.number).collect::<Vec<_>>();
    assert_eq!(story.offer(2), [(EventKind::Canary, 2)]);
    assert_eq!(story.offer(3), [(EventKind::Withdrawn, 2), (EventKind::Canary, 3)]);
    assert_eq!(numbers(&story), [1, 3]);
    story.promote();
    story.offer(4);
    assert_eq!(numbers(&story), [3, 4, 1]);
    assert_eq!(whats(&story.rollout.withdraw()), [(EventKind::Withdrawn, 4)]);
    assert_eq!((numbers(&story), story.rollout.withdraw().len()), (vec![3, 1], 0));
}

#[test]
fn a_canary_is_compared_with_what_serves_the_others() {
    let mut story = Story::new(PluginDeploy { canary: 5, ..deploy() });
    story.offer(2);
    let canary = story.rollout.candidate().unwrap().generation.clone();
    story.calls(1000, 500);
    canary.called(Function::Route, 100, 52);
    assert_eq!(story.after(1), [(EventKind::Alert, 1)], "an attack hits both");
    canary.called(Function::Route, 100, 100);
    assert_eq!(story.after(1), [(EventKind::RolledBack, 2)]);
    assert_eq!(story.live(), (1, Stage::Live));
}

#[test]
fn the_live_one_is_watched_beside_a_candidate() {
    let mut story = Story::new(PluginDeploy { canary: 5, ..deploy() });
    story.offer(2);
    story.promote();
    assert_eq!(story.live(), (2, Stage::Probation));
    story.offer(3);
    story.calls(10, 10);
    assert_eq!(story.after(1), [(EventKind::RolledBack, 2)]);
    assert_eq!(story.live(), (1, Stage::Live));
    assert_eq!(story.rollout.newest().number, 3);
}
