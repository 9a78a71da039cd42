//! How generations come to serve in a slot, and leave it: in shadow, as a canary, on probation, for good, and back. A state
//! machine that knows no plugin and no clock.
//!
//! ```text
//!  offer ─▶ shadow ─▶ canary ─▶ probation ─▶ live
//!              ╰─────────┴──────────┴──── rollback ───▶ refused
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{PluginDeploy, Rollback};
use crate::plugin::contract::{FUNCTIONS, Function};
use crate::plugin::slot::blame::Spread;
use crate::plugin::slot::stats::{Count, Counted, Counts};
use crate::plugin::status::{EventKind, Stage};

/// How far a generation has come.
#[derive(Debug)]
pub(crate) struct Place<G> {
    pub(crate) generation: Arc<G>,
    pub(crate) stage: Stage,
    pub(crate) since: Instant,
    /// What it had counted when this stage began.
    begun: Counts,
    /// What it is compared with.
    before: Before,
    /// It has been told that it fails too often.
    alerted: bool,
}

/// What failures are compared with.
#[derive(Debug)]
enum Before {
    /// The shares that failed of the calls of the one before.
    Shares([f64; FUNCTIONS]),
    /// What the live one, which serves others meanwhile, had counted when this stage began.
    Beside(Counts),
}

/// A generation fails too often.
#[derive(Debug)]
struct Fault {
    reason: String,
    /// For many: it is not the doing of one client, who may want the generation before back.
    for_many: bool,
}

/// Something that has happened, to be carried out and told.
#[derive(Debug)]
pub(crate) struct Step<G> {
    pub(crate) what: EventKind,
    pub(crate) generation: Arc<G>,
    pub(crate) reason: Option<String>,
}

/// The generations of one slot.
#[derive(Debug)]
pub(crate) struct Rollout<G> {
    live: Place<G>,
    /// In shadow, or a canary.
    candidate: Option<Place<G>>,
    /// What served for good before the live one.
    previous: Option<Place<G>>,
    /// What the live one had counted at some moments of late, the oldest first.
    marks: VecDeque<(Instant, Counts)>,
}

/// How far back "of late" goes, and in what steps.
const WINDOW: Duration = Duration::from_secs(60);
const MARK: Duration = Duration::from_secs(5);

/// Calls below which a share says little: fewer count as so many.
const FEW: u64 = 20;

/// For how many clients calls must have failed before a generation is rolled back: `deploy.min_failures`, within these
/// bounds. A generation that fails for everybody is rolled back at once: each of its failures is another client's.
const MIN_CLIENTS: u64 = 2;
const MAX_CLIENTS: u64 = 5;

/// Where there are fewer clients than that, failures are enough that are so many times `deploy.min_failures`.
const FEW_CLIENTS: u64 = 20;

impl<G: Counted> Rollout<G> {
    /// A slot's first generation.
    pub(crate) fn new(generation: Arc<G>, now: Instant) -> Self {
        let live = Place::new(generation, Stage::Live, Before::Shares([0.0; FUNCTIONS]), now);
        Self { marks: VecDeque::from([(now, live.begun)]), live, candidate: None, previous: None }
    }

    pub(crate) fn live(&self) -> &Place<G> {
        &self.live
    }

    pub(crate) fn candidate(&self) -> Option<&Place<G>> {
        self.candidate.as_ref()
    }

    pub(crate) fn previous(&self) -> Option<&Place<G>> {
        self.previous.as_ref()
    }

    /// All that there are.
    pub(crate) fn generations(&self) -> Vec<Arc<G>> {
        let places = [Some(&self.live), self.candidate.as_ref(), self.previous.as_ref()];
        places.into_iter().flatten().map(|place| place.generation.clone()).collect()
    }

    /// What was offered last and has not been given up.
    pub(crate) fn newest(&self) -> &Arc<G> {
        &self.candidate.as_ref().unwrap_or(&self.live).generation
    }

    /// A new generation has passed all checks. It takes the place of an earlier candidate. `shadow`: whether there is
    /// anything to judge in the shadow of the live one.
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

    /// On to the next stage.
    ///
    /// # Errors
    /// Why there is nothing to promote.
    pub(crate) fn promote(&mut self, deploy: &PluginDeploy, now: Instant) -> Result<Vec<Step<G>>, &'static str> {
        if let Some(Place { generation, stage, .. }) = self.candidate.take() {
            let next = if stage == Stage::Shadow { Stage::Canary } else { Stage::Probation };
            return Ok(self.enter(generation, next, deploy, now));
        }
        match self.live.stage {
            Stage::Probation => Ok(self.settle(now)),
            _ => Err("nothing waits to be promoted: the live generation serves everybody, for good"),
        }
    }

    /// Back to what served before: gives up the candidate, or else puts the previous generation in the place of the live
    /// one.
    ///
    /// # Errors
    /// Why there is nothing to go back to.
    pub(crate) fn rollback(&mut self, reason: String, now: Instant) -> Result<Vec<Step<G>>, &'static str> {
        let given_up = match self.candidate.take() {
            Some(candidate) => candidate,
            None => self.back(now).ok_or("there is no earlier generation to go back to")?,
        };
        Ok(vec![rolled_back(given_up, reason)])
    }

    /// Gives up the candidate, because nobody wants it any more.
    pub(crate) fn withdraw(&mut self) -> Vec<Step<G>> {
        let withdrawn =
            |place: Place<G>| Step { what: EventKind::Withdrawn, generation: place.generation, reason: None };
        self.candidate.take().map(withdrawn).into_iter().collect()
    }

    /// Draws conclusions from what has been counted, and from the time.
    pub(crate) fn look(&mut self, deploy: &PluginDeploy, now: Instant) -> Vec<Step<G>> {
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

    /// Whether the probation of a generation that does not fail too often is over. It is not before there was something to
    /// see: some calls, and enough of each function that has failed.
    fn is_over(&self, deploy: &PluginDeploy, now: Instant) -> bool {
        let (counts, enough) = (self.live.since_begun(), u64::from(deploy.min_failures));
        let calls: u64 = counts.iter().map(|count| count.calls).sum();
        let over = now.saturating_duration_since(self.live.since) >= deploy.probation;
        let seen = calls >= enough && counts.iter().all(|count| count.failures == 0 || count.calls >= enough);
        (over && seen) || calls >= deploy.probation_calls
    }

    /// Whether failures can have a consequence that should not wait.
    pub(crate) fn is_on_trial(&self) -> bool {
        let serves = |place: &Place<G>| matches!(place.stage, Stage::Canary | Stage::Probation);
        self.candidate.iter().chain([&self.live]).any(serves)
    }

    /// Puts the previous generation in the place of the live one, which is returned.
    fn back(&mut self, now: Instant) -> Option<Place<G>> {
        let back = Place::new(self.previous.take()?.generation, Stage::Live, Before::Shares([0.0; FUNCTIONS]), now);
        self.marks = VecDeque::from([(now, back.begun)]);
        if let Some(candidate) = &mut self.candidate {
            // It serves beside another one from now on.
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
        self.candidate = Some(Place::new(generation.clone(), stage, beside, now));
        vec![Step { what, generation, reason: None }]
    }

    /// The generation serves everybody from now on. Kept is the one that did so last for good.
    fn take_over(&mut self, generation: Arc<G>, deploy: &PluginDeploy, now: Instant) -> Vec<Step<G>> {
        let proven = self.live.stage == Stage::Live;
        let before = match &self.live.before {
            Before::Shares(shares) if !proven => *shares,
            _ => shares(&self.of_late()),
        };
        let on_trial = !deploy.probation.is_zero();
        let (stage, what) =
            if on_trial { (Stage::Probation, EventKind::Probation) } else { (Stage::Live, EventKind::Live) };
        let place = Place::new(generation.clone(), stage, Before::Shares(before), now);
        self.marks = VecDeque::from([(now, place.begun)]);
        let mut old = std::mem::replace(&mut self.live, place);
        if proven {
            (old.stage, old.since) = (Stage::Kept, now);
            self.previous = Some(old);
        }
        vec![Step { what, generation, reason: None }]
    }

    /// The end of the probation.
    fn settle(&mut self, now: Instant) -> Vec<Step<G>> {
        (self.live.stage, self.live.since, self.live.alerted) = (Stage::Live, now, false);
        vec![Step { what: EventKind::Live, generation: self.live.generation.clone(), reason: None }]
    }

    fn mark(&mut self, now: Instant) {
        if self.marks.back().is_none_or(|(last, _)| now.saturating_duration_since(*last) >= MARK) {
            self.marks.push_back((now, self.live.generation.counts()));
        }
        // One older than the window is its beginning.
        while self.marks.get(1).is_some_and(|(second, _)| now.saturating_duration_since(*second) >= WINDOW) {
            self.marks.pop_front();
        }
    }

    /// What the live one has counted of late.
    fn of_late(&self) -> Counts {
        let then = self.marks.front().map_or(self.live.begun, |(_, counts)| *counts);
        since(&self.live.generation.counts(), &then)
    }

    /// Whether and how a generation fails too often: the gravest of what its functions show.
    fn fault(&self, place: &Place<G>, deploy: &PluginDeploy) -> Option<Fault> {
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
            fault.reason += &format!("; the last one: {last}");
        }
        Some(fault)
    }
}

impl Fault {
    /// The fault of a function that has counted this, while of the calls of the generation before the share `before` failed.
    fn of(
        function: Function,
        Count { calls, failures }: Count,
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
        // Without the failures of the one client that has most of them: it can cause as many as it likes.
        let wanted = min_failures.clamp(MIN_CLIENTS, MAX_CLIENTS);
        let many_clients = clients >= wanted && too_many(most);
        // Before a login it is not known how many clients there are behind an address.
        let spared = if function.is_before_login() { 0 } else { most };
        let many_calls = failures.saturating_sub(spared) >= FEW_CLIENTS * min_failures && too_many(spared);

        let mut reason = format!(
            "{failures} of {calls} calls of {} failed ({:.0} %, of those before {:.0} %, and deploy.max_failures is {} %)",
            function.name(),
            share(0) * 100.0,
            before * 100.0,
            deploy.max_failures
        );
        let for_many = many_clients || many_calls;
        if matches!(stage, Stage::Canary | Stage::Probation) && !for_many && deploy.rollback == Rollback::Auto {
            reason += &match clients < wanted {
                true => format!(", for {clients} of the {wanted} clients that a rollback needs"),
                false => ", most of them for one client".to_owned(),
            };
        }
        Some(Self { reason, for_many })
    }
}

impl<G: Counted> Place<G> {
    fn new(generation: Arc<G>, stage: Stage, before: Before, now: Instant) -> Self {
        generation.forget_clients();
        Self { begun: generation.counts(), generation, stage, since: now, before, alerted: false }
    }

    /// Counts anew from here on.
    fn begin(&mut self, before: Before) {
        self.generation.forget_clients();
        (self.begun, self.before) = (self.generation.counts(), before);
    }

    fn since_begun(&self) -> Counts {
        since(&self.generation.counts(), &self.begun)
    }

    /// Says once that it fails too often, and again after it has stopped and begun anew.
    fn alert(&mut self, fault: Option<Fault>) -> Option<Step<G>> {
        let alerted = std::mem::replace(&mut self.alerted, fault.is_some());
        let (what, generation) = (EventKind::Alert, self.generation.clone());
        fault.filter(|_| !alerted).map(|fault| Step { what, generation, reason: Some(fault.reason) })
    }
}

fn rolled_back<G>(place: Place<G>, reason: String) -> Step<G> {
    Step { what: EventKind::RolledBack, generation: place.generation, reason: Some(reason) }
}

fn since(now: &Counts, then: &Counts) -> Counts {
    std::array::from_fn(|at| Count {
        calls: now[at].calls.saturating_sub(then[at].calls),
        failures: now[at].failures.saturating_sub(then[at].failures),
    })
}

/// Which share of the calls failed.
fn shares(counts: &Counts) -> [f64; FUNCTIONS] {
    counts.map(|Count { calls, failures }| failures as f64 / calls.max(FEW) as f64)
}

#[cfg(test)]
mod tests;
