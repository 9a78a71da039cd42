//! The stages of a generation in its slot: in shadow, as a canary, on probation, for good, or rolled back. This is a
//! state machine that knows no plugin and reads no clock.
//!
//! ```text
//!  offer ─▶ shadow ─▶ canary ─▶ probation ─▶ live
//!              ╰─────────┴──────────┴──── rollback ───▶ rolled back
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{PluginDeploy, Rollback};
use crate::plugin::contract::{FUNCTIONS, Function};
use crate::plugin::slot::blame::Spread;
use crate::plugin::slot::stats::{CallCount, Counted, Counts};
use crate::plugin::status::{EventKind, Stage};

/// A generation and its stage.
#[derive(Debug)]
pub(crate) struct Staged<G> {
    pub(crate) generation: Arc<G>,
    pub(crate) stage: Stage,
    pub(crate) since: Instant,
    /// The generation's counts when this stage began.
    begun: Counts,
    /// What its failures are compared with.
    before: Before,
    /// True if an alert has been raised and the generation still fails too often.
    alerted: bool,
}

/// What the failures of a generation are compared with.
#[derive(Debug)]
enum Before {
    /// The share of failed calls of each function in the generation before.
    Shares([f64; FUNCTIONS]),
    /// The calls of the live generation in the same time. Holds the live generation's counts when this stage began.
    Beside(Counts),
}

/// How a generation fails too often.
#[derive(Debug)]
struct Fault {
    reason: String,
    /// True if it fails for many clients. One client must not cause a rollback: it may want the older generation back.
    for_many: bool,
}

/// Something that happened to a generation. The slot publishes and records it.
#[derive(Debug)]
pub(crate) struct Step<G> {
    pub(crate) what: EventKind,
    pub(crate) generation: Arc<G>,
    pub(crate) reason: Option<String>,
}

/// The generations of one slot.
#[derive(Debug)]
pub(crate) struct Rollout<G> {
    live: Staged<G>,
    /// The generation in shadow, or the canary.
    candidate: Option<Staged<G>>,
    /// The generation that served for good before the live one.
    previous: Option<Staged<G>>,
    /// Recent counts of the live generation, the oldest first.
    marks: VecDeque<(Instant, Counts)>,
}

/// How long calls count as recent.
const WINDOW: Duration = Duration::from_secs(60);

/// How often the counts of the live generation are marked.
const MARK: Duration = Duration::from_secs(5);

/// Fewer calls than this say little: their share of failures is computed as if there were this many.
const FEW: u64 = 20;

/// A generation is rolled back at once if it has failed for `deploy.min_failures` clients. At least `MIN_CLIENTS` are
/// needed, and `MAX_CLIENTS` are always enough. If it fails for everybody, that is soon the case: each failure is
/// another client's.
const MIN_CLIENTS: u64 = 2;
const MAX_CLIENTS: u64 = 5;

/// With fewer clients, a rollback needs this many times `deploy.min_failures` failures.
const FAILURES_FACTOR: u64 = 20;

impl<G: Counted> Rollout<G> {
    /// Creates the rollout of a slot, with its first generation.
    pub(crate) fn new(generation: Arc<G>, now: Instant) -> Self {
        let live = Staged::new(generation, Stage::Live, Before::Shares([0.0; FUNCTIONS]), now);
        Self { marks: VecDeque::from([(now, live.begun)]), live, candidate: None, previous: None }
    }

    pub(crate) fn live(&self) -> &Staged<G> {
        &self.live
    }

    pub(crate) fn candidate(&self) -> Option<&Staged<G>> {
        self.candidate.as_ref()
    }

    pub(crate) fn previous(&self) -> Option<&Staged<G>> {
        self.previous.as_ref()
    }

    /// Returns all generations of the slot.
    pub(crate) fn generations(&self) -> Vec<Arc<G>> {
        let places = [Some(&self.live), self.candidate.as_ref(), self.previous.as_ref()];
        places.into_iter().flatten().map(|place| place.generation.clone()).collect()
    }

    /// Returns the generation that was offered last and has not been given up.
    pub(crate) fn newest(&self) -> &Arc<G> {
        &self.candidate.as_ref().unwrap_or(&self.live).generation
    }

    /// Starts the stages of a generation that has passed all checks. It replaces an earlier candidate. `shadow` is
    /// `true` if the plugin makes verdicts that can be compared in shadow.
    pub(crate) fn offer(
        &mut self,
        generation: Arc<G>,
        shadow: bool,
        deploy: &PluginDeploy,
        now: Instant,
    ) -> Vec<Step<G>> {
        let mut steps = self.withdraw();
        let stage = if shadow && deploy.shadow > 0 { Stage::Shadow } else { Stage::Canary };
        steps.extend(self.enter(generation, stage, deploy, now));
        steps
    }

    /// Moves the candidate, or else the live generation, to the next stage.
    ///
    /// # Errors
    /// If no generation can go to a next stage.
    pub(crate) fn promote(&mut self, deploy: &PluginDeploy, now: Instant) -> Result<Vec<Step<G>>, &'static str> {
        if let Some(Staged { generation, stage, .. }) = self.candidate.take() {
            let next = if stage == Stage::Shadow { Stage::Canary } else { Stage::Probation };
            return Ok(self.enter(generation, next, deploy, now));
        }
        match self.live.stage {
            Stage::Probation => Ok(self.settle(now)),
            _ => Err("there is nothing to promote: `hotgate plugin list` shows the stages"),
        }
    }

    /// Gives up the candidate. Without a candidate, puts the previous generation in the place of the live one.
    ///
    /// # Errors
    /// If there is neither a candidate nor a previous generation.
    pub(crate) fn rollback(&mut self, reason: String, now: Instant) -> Result<Vec<Step<G>>, &'static str> {
        let given_up = match self.candidate.take() {
            Some(candidate) => candidate,
            None => self.back(now).ok_or("there is no earlier generation: deploy the older component again")?,
        };
        Ok(vec![rolled_back(given_up, reason)])
    }

    /// Gives up the candidate, if there is one: nobody wants it any more.
    pub(crate) fn withdraw(&mut self) -> Vec<Step<G>> {
        let withdrawn =
            |place: Staged<G>| Step { what: EventKind::Withdrawn, generation: place.generation, reason: None };
        self.candidate.take().map(withdrawn).into_iter().collect()
    }

    /// Ends a probation, raises alerts or rolls back, if the counts and the time say so.
    pub(crate) fn evaluate(&mut self, deploy: &PluginDeploy, now: Instant) -> Vec<Step<G>> {
        self.mark(now);
        let auto = deploy.rollback == Rollback::Auto;
        let mut steps = Vec::new();

        if let Some(mut candidate) = self.candidate.take() {
            match self.fault(&candidate, deploy) {
                Some(fault) if auto && fault.for_many && candidate.stage == Stage::Canary => {
                    steps.push(rolled_back(candidate, fault.reason));
                }
                fault => {
                    steps.extend(candidate.alert(fault));
                    self.candidate = Some(candidate);
                }
            }
        }

        match self.fault(&self.live, deploy) {
            Some(fault) if auto && fault.for_many && self.live.stage == Stage::Probation => {
                steps.extend(self.back(now).map(|given_up| rolled_back(given_up, fault.reason)));
            }
            None if self.live.stage == Stage::Probation && self.is_over(deploy, now) => {
                steps.extend(self.settle(now));
            }
            fault => steps.extend(self.live.alert(fault)),
        }
        steps
    }

    /// Returns `true` if the live generation's probation is over; the caller knows that it does not fail too often. A
    /// probation lasts for `deploy.probation`, for `deploy.min_failures` calls, and for as many calls of each function
    /// that has failed. It never lasts for more than `deploy.probation_calls` calls.
    fn is_over(&self, deploy: &PluginDeploy, now: Instant) -> bool {
        let (counts, enough) = (self.live.since_begun(), u64::from(deploy.min_failures));
        let calls: u64 = counts.iter().map(|count| count.calls).sum();
        let over = now.saturating_duration_since(self.live.since) >= deploy.probation;
        let seen = calls >= enough && counts.iter().all(|count| count.failures == 0 || count.calls >= enough);
        (over && seen) || calls >= deploy.probation_calls
    }

    /// Returns `true` if a failure may cause a rollback, so that it must be evaluated at once.
    pub(crate) fn is_watched(&self) -> bool {
        let serves = |place: &Staged<G>| matches!(place.stage, Stage::Canary | Stage::Probation);
        self.candidate.iter().chain([&self.live]).any(serves)
    }

    /// Puts the previous generation in the place of the live one. Returns the generation that was live.
    fn back(&mut self, now: Instant) -> Option<Staged<G>> {
        let back = Staged::new(self.previous.take()?.generation, Stage::Live, Before::Shares([0.0; FUNCTIONS]), now);
        self.marks = VecDeque::from([(now, back.begun)]);
        if let Some(candidate) = &mut self.candidate {
            // From now on, the candidate is compared with this generation.
            candidate.begin(Before::Beside(back.begun));
        }
        Some(std::mem::replace(&mut self.live, back))
    }

    fn enter(&mut self, generation: Arc<G>, stage: Stage, deploy: &PluginDeploy, now: Instant) -> Vec<Step<G>> {
        let what = match stage {
            Stage::Shadow => EventKind::Shadow,
            Stage::Canary if deploy.canary > 0 => EventKind::Canary,
            _ => return self.take_over(generation, deploy, now),
        };
        let beside = Before::Beside(self.live.generation.counts());
        self.candidate = Some(Staged::new(generation.clone(), stage, beside, now));
        vec![Step { what, generation, reason: None }]
    }

    /// Makes the generation serve everybody. A live generation that has served for good becomes the previous one. A
    /// live generation on probation is given up, and the previous one stays.
    fn take_over(&mut self, generation: Arc<G>, deploy: &PluginDeploy, now: Instant) -> Vec<Step<G>> {
        let proven = self.live.stage == Stage::Live;
        let before = match &self.live.before {
            Before::Shares(shares) if !proven => *shares,
            _ => shares(&self.of_late()),
        };
        let has_probation = !deploy.probation.is_zero();
        let (stage, what) =
            if has_probation { (Stage::Probation, EventKind::Probation) } else { (Stage::Live, EventKind::Live) };
        let place = Staged::new(generation.clone(), stage, Before::Shares(before), now);
        self.marks = VecDeque::from([(now, place.begun)]);
        let mut old = std::mem::replace(&mut self.live, place);
        if proven {
            (old.stage, old.since) = (Stage::Kept, now);
            self.previous = Some(old);
        }
        vec![Step { what, generation, reason: None }]
    }

    /// Ends the probation: the generation serves for good.
    fn settle(&mut self, now: Instant) -> Vec<Step<G>> {
        (self.live.stage, self.live.since, self.live.alerted) = (Stage::Live, now, false);
        vec![Step { what: EventKind::Live, generation: self.live.generation.clone(), reason: None }]
    }

    fn mark(&mut self, now: Instant) {
        if self.marks.back().is_none_or(|(last, _)| now.saturating_duration_since(*last) >= MARK) {
            self.marks.push_back((now, self.live.generation.counts()));
        }
        // The newest mark before the window stays: it is the window's beginning.
        while self.marks.get(1).is_some_and(|(second, _)| now.saturating_duration_since(*second) >= WINDOW) {
            self.marks.pop_front();
        }
    }

    /// Returns the recent counts of the live generation.
    fn of_late(&self) -> Counts {
        let then = self.marks.front().map_or(self.live.begun, |(_, counts)| *counts);
        since(&self.live.generation.counts(), &then)
    }

    /// Returns the fault of a function that fails too often, if there is one. Prefers a fault for many clients.
    fn fault(&self, place: &Staged<G>, deploy: &PluginDeploy) -> Option<Fault> {
        let (own, before) = match &place.before {
            _ if place.stage == Stage::Live => (self.of_late(), [0.0; FUNCTIONS]),
            Before::Shares(shares) => (place.since_begun(), *shares),
            Before::Beside(then) => (place.since_begun(), shares(&since(&self.live.generation.counts(), then))),
        };
        let functions = Function::ALL.into_iter().zip(own).zip(before);
        let faults = functions.filter_map(|((function, own), before)| {
            Fault::of(function, own, before, place.generation.spread(function), place.stage, deploy)
        });
        let mut fault = faults.max_by_key(|fault| fault.for_many)?;
        if let Some(last) = place.generation.last_failure() {
            fault.reason += &format!("; the last failure: {last}");
        }
        Some(fault)
    }
}

impl Fault {
    /// Returns the fault of a function with these counts. `before` is the share of failed calls to compare with.
    fn of(
        function: Function,
        CallCount { calls, failures }: CallCount,
        before: f64,
        Spread { clients, most }: Spread,
        stage: Stage,
        deploy: &PluginDeploy,
    ) -> Option<Self> {
        let min_failures = u64::from(deploy.min_failures);
        let share = |spared: u64| failures.saturating_sub(spared) as f64 / calls.saturating_sub(spared).max(1) as f64;
        let too_many = |spared: u64| share(spared) > before + f64::from(deploy.max_failures) / 100.0;
        if failures < min_failures || !too_many(0) {
            return None;
        }
        // Leave out the client with the most failures: one client can cause as many failures as it likes.
        let wanted = min_failures.clamp(MIN_CLIENTS, MAX_CLIENTS);
        let many_clients = clients >= wanted && too_many(most);
        // Before a login, it is unknown how many clients are behind one address.
        let spared = if function.is_before_login() { 0 } else { most };
        let many_calls = failures.saturating_sub(spared) >= FAILURES_FACTOR * min_failures && too_many(spared);

        let limit = match stage {
            Stage::Live => "deploy.max_failures".to_owned(),
            _ => format!("{:.1} % before, plus {} % by deploy.max_failures", before * 100.0, deploy.max_failures),
        };
        // A number of calls, because two rounded percentages may look the same.
        let allowed = (calls as f64 * (before + f64::from(deploy.max_failures) / 100.0)).floor();
        // Fewer failures than `min_failures` are never too many.
        let allowed = allowed.max(min_failures as f64 - 1.0);
        let mut reason = format!(
            "{failures} of {calls} calls of {} failed ({:.1} %); at most {} of these calls may fail ({limit})",
            function.name(),
            share(0) * 100.0,
            allowed.min(failures as f64 - 1.0)
        );
        let for_many = many_clients || many_calls;
        if matches!(stage, Stage::Canary | Stage::Probation) && !for_many && deploy.rollback == Rollback::Auto {
            reason += &match clients < wanted {
                true => {
                    let are = if clients == 1 { "client is" } else { "clients are" };
                    format!("; only {clients} {are} affected, and a rollback at once needs {wanted}")
                }
                false => "; no rollback yet: without the client that fails most, the share is acceptable".to_owned(),
            };
        }
        Some(Self { reason, for_many })
    }
}

impl<G: Counted> Staged<G> {
    fn new(generation: Arc<G>, stage: Stage, before: Before, now: Instant) -> Self {
        generation.forget_clients();
        Self { begun: generation.counts(), generation, stage, since: now, before, alerted: false }
    }

    /// Starts counting anew, with another comparison.
    fn begin(&mut self, before: Before) {
        self.generation.forget_clients();
        (self.begun, self.before) = (self.generation.counts(), before);
    }

    fn since_begun(&self) -> Counts {
        since(&self.generation.counts(), &self.begun)
    }

    /// Raises an alert when the generation begins to fail too often. While it goes on failing, raises no other alert.
    fn alert(&mut self, fault: Option<Fault>) -> Option<Step<G>> {
        let alerted = std::mem::replace(&mut self.alerted, fault.is_some());
        let (what, generation) = (EventKind::Alert, self.generation.clone());
        fault.filter(|_| !alerted).map(|fault| Step { what, generation, reason: Some(fault.reason) })
    }
}

fn rolled_back<G>(place: Staged<G>, reason: String) -> Step<G> {
    Step { what: EventKind::RolledBack, generation: place.generation, reason: Some(reason) }
}

fn since(now: &Counts, then: &Counts) -> Counts {
    std::array::from_fn(|at| CallCount {
        calls: now[at].calls.saturating_sub(then[at].calls),
        failures: now[at].failures.saturating_sub(then[at].failures),
    })
}

/// Returns the share of failed calls of each function.
fn shares(counts: &Counts) -> [f64; FUNCTIONS] {
    counts.map(|CallCount { calls, failures }| failures as f64 / calls.max(FEW) as f64)
}

#[cfg(test)]
mod tests;
