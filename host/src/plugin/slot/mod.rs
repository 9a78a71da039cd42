//! A slot: the place of one plugin, and which of its generations serves whom.

pub(crate) mod blame;
pub(crate) mod call;
pub(crate) mod error;
pub(crate) mod generation;
pub(crate) mod handle;
pub(crate) mod ledger;
mod report;
pub(crate) mod rollout;
mod serving;
pub(crate) mod stats;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::base::message::ConnectionId;
use crate::base::metrics::METRICS;
use crate::config::{PluginConfig, PluginDeploy, PluginSource, Settings};
use crate::plugin::contract::Role;
use crate::plugin::identity::Digest;
use crate::plugin::runtime::Runtime;
use crate::plugin::runtime::spec::Spec;
use crate::plugin::slot::error::{MAX_REASON, Reason, Refused};
use crate::plugin::slot::generation::Generation;
use crate::plugin::slot::ledger::Ledger;
use crate::plugin::slot::report::{generation_status, unserved};
use crate::plugin::slot::rollout::{Rollout, Step};
use crate::plugin::slot::serving::{Sample, Serving};
use crate::plugin::status::{Event, EventKind, PluginStatus, Stage};
use crate::plugin::text::clean;

/// How often slots are looked after, and how long an instance may be idle before it is given up.
const ROUND: Duration = Duration::from_millis(500);
const LONGEST_IDLE: Duration = Duration::from_secs(10);

/// Events of a slot that are remembered; then the oldest is forgotten.
const MAX_HISTORY: usize = 32;

/// The place of one plugin. A call takes the generation that serves its connection when it begins, and finishes on it,
/// whatever is swapped meanwhile.
pub struct Slot {
    runtime: Arc<Runtime>,
    spec: Arc<Spec>,
    serving: ArcSwap<Serving>,
    state: Mutex<State>,
    /// Held while a generation is loaded.
    pub(crate) loading: tokio::sync::Mutex<()>,
    /// Its source and its settings are to be looked at.
    pub(crate) changed: Notify,
    /// What was refused before is to be tried and told again.
    insisted: AtomicBool,
    pub(crate) ledger: Arc<Ledger>,
    /// Failures have consequences that do not wait.
    on_trial: AtomicBool,
    overloaded: AtomicU64,
    swaps: AtomicU64,
}

/// What a slot remembers.
pub(crate) struct State {
    pub(crate) rollout: Rollout<Generation>,
    /// What new generations are told, and how they come to serve.
    pub(crate) settings: Settings,
    pub(crate) deploy: PluginDeploy,
    history: VecDeque<Event>,
    /// The number of the newest generation.
    pub(crate) newest: u64,
    rollbacks: u64,
    refusals: u64,
    alerts: u64,
    /// What of source and settings does not serve.
    refused: Refused,
}

impl Slot {
    /// A slot with its first generation.
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        spec: Arc<Spec>,
        plugin: &PluginConfig,
        ledger: Arc<Ledger>,
        first: Generation,
    ) -> Arc<Self> {
        let live = Arc::new(first);
        let mut state = State {
            rollout: Rollout::new(live.clone(), Instant::now()),
            settings: plugin.settings.clone(),
            deploy: plugin.deploy.clone(),
            history: VecDeque::new(),
            newest: live.number(),
            rollbacks: 0,
            refusals: 0,
            alerts: 0,
            refused: Refused::default(),
        };
        state.remember(EventKind::Live, Some(live.number()), Some(live.digest()), None);
        Arc::new(Self {
            runtime,
            spec,
            serving: ArcSwap::from_pointee(Serving { live, canary: None, shadow: None }),
            state: Mutex::new(state),
            loading: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            insisted: AtomicBool::new(false),
            ledger,
            on_trial: AtomicBool::new(false),
            overloaded: AtomicU64::new(0),
            swaps: AtomicU64::new(0),
        })
    }

    /// The generation that serves calls of this connection that begin now.
    pub(crate) fn serving(&self, connection: ConnectionId) -> Arc<Generation> {
        let serving = self.serving.load();
        match &serving.canary {
            Some(canary) if canary.takes(connection) => canary.generation.clone(),
            _ => serving.live.clone(),
        }
    }

    /// The generation that serves everybody, or everybody but the canary's connections.
    pub(crate) fn live(&self) -> Arc<Generation> {
        self.serving.load().live.clone()
    }

    /// The generation that judges in shadow, if there is one and it is to judge this connection.
    pub fn shadow(&self, connection: ConnectionId) -> Option<Arc<Generation>> {
        let serving = self.serving.load();
        serving.shadow.as_ref().filter(|shadow| shadow.takes(connection)).map(|shadow| shadow.generation.clone())
    }

    /// Whether more than half of the permits for calls of the authenticator are free.
    pub fn has_room(&self) -> bool {
        self.spec.permits.of(Role::Authenticator).available_permits() > self.spec.limits.concurrency / 2
    }

    /// The runtime that its generations run on.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(crate) fn spec(&self) -> &Arc<Spec> {
        &self.spec
    }

    /// Where its component comes from.
    pub fn source(&self) -> &PluginSource {
        &self.spec.source
    }

    /// What new generations are told.
    pub(crate) fn settings(&self) -> Settings {
        self.state(|state| state.settings.clone())
    }

    /// What the slot is called.
    pub fn name(&self) -> &str {
        &self.spec.slot
    }

    /// What its plugin is called.
    pub fn plugin(&self) -> &str {
        &self.spec.plugin
    }

    /// The largest component that it takes, in bytes.
    pub fn max_component(&self) -> usize {
        self.spec.limits.max_component
    }

    pub(crate) fn state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock())
    }

    /// Changes what the slot remembers, and carries out what follows.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> (Vec<Step<Generation>>, T)) -> T {
        let mut state = self.state.lock();
        let (live, before) = (state.rollout.live().generation.clone(), state.rollout.generations());
        let (steps, result) = change(&mut state);
        if !steps.is_empty() {
            self.publish(&state, &before);
        }
        for step in steps {
            let swapped = !Arc::ptr_eq(&live, &step.generation);
            self.tell(&mut state, step, swapped);
        }
        self.on_trial.store(state.rollout.is_on_trial(), Relaxed);
        result
    }

    /// What new generations are told, and how they come to serve, from now on. Has source and settings looked at; what was
    /// refused before is tried again if somebody insists.
    pub fn configure(&self, settings: &Settings, deploy: &PluginDeploy, insist: bool) {
        let mut state = self.state.lock();
        (state.settings, state.deploy) = (settings.clone(), deploy.clone());
        // The share of a candidate may be another.
        self.publish(&state, &[]);
        drop(state);
        self.look_again(insist);
    }

    /// Has source and settings looked at; what was refused before is tried again if somebody insists.
    pub fn look_again(&self, insist: bool) {
        self.insisted.fetch_or(insist, Relaxed);
        self.changed.notify_one();
    }

    /// Whether somebody has insisted since this was asked last.
    pub(crate) fn take_insisted(&self) -> bool {
        self.insisted.swap(false, Relaxed)
    }

    fn publish(&self, state: &State, before: &[Arc<Generation>]) {
        let (rollout, now) = (&state.rollout, self.serving.load());
        let sample = |stage, percent, now: &Option<Sample>| {
            let place = rollout.candidate().filter(|place| place.stage == stage)?;
            let generation = place.generation.clone();
            let same = now.as_ref().filter(|now| Arc::ptr_eq(&now.generation, &generation));
            Some(Sample { percent, after: same.map_or_else(ConnectionId::newest, |now| now.after), generation })
        };
        let serving = Serving {
            live: rollout.live().generation.clone(),
            canary: sample(Stage::Canary, state.deploy.canary, &now.canary),
            shadow: sample(Stage::Shadow, state.deploy.shadow, &now.shadow),
        };
        let serves = |generation: &Arc<Generation>| {
            let candidate = rollout.candidate().map(|place| &place.generation);
            [Some(&serving.live), candidate].into_iter().flatten().any(|other| Arc::ptr_eq(other, generation))
        };
        for generation in rollout.generations().iter().filter(|generation| serves(generation)) {
            generation.revive();
        }
        let retired: Vec<_> = before.iter().filter(|generation| !serves(generation)).collect();
        self.serving.store(Arc::new(serving));
        for generation in retired {
            generation.retire();
        }
    }

    /// Says what has happened, to the log, the history and the ledger.
    fn tell(&self, state: &mut State, step: Step<Generation>, swapped: bool) {
        let Spec { slot, plugin, .. } = &*self.spec;
        let Step { what, generation: by, reason } = step;
        let (generation, digest) = (by.number(), by.digest());
        let reason = reason.map(|reason| clean(reason.as_bytes(), MAX_REASON));
        let reason_shown = reason.as_deref().unwrap_or_default();
        let live = state.rollout.live();
        match what {
            EventKind::Shadow => {
                let percent = state.deploy.shadow;
                info!(slot, plugin, generation, %digest, percent, "plugin judges in shadow");
            }
            EventKind::Canary => {
                let percent = state.deploy.canary;
                info!(slot, plugin, generation, %digest, percent, "plugin serves as a canary");
            }
            EventKind::Probation | EventKind::Live if swapped => {
                self.swaps.fetch_add(1, Relaxed);
                METRICS.plugin_swap_seconds.observe(by.loading);
                let took_ms = u64::try_from(by.loading.as_millis()).unwrap_or(u64::MAX);
                let stage = what.to_string();
                info!(slot, plugin, generation, %digest, took_ms, stage, "plugin swapped");
            }
            EventKind::Probation | EventKind::Live => {
                info!(slot, plugin, generation, %digest, "plugin passed its probation")
            }
            EventKind::Alert => {
                error!(slot, plugin, generation, %digest, reason = reason_shown, "plugin fails too often")
            }
            EventKind::Withdrawn => info!(slot, plugin, generation, %digest, "plugin withdrawn"),
            EventKind::RolledBack => {
                let serves = live.generation.number();
                warn!(slot, plugin, generation, %digest, reason = reason_shown, serves, "plugin rolled back");
                let text = reason.clone().unwrap_or_default();
                self.ledger.refuse(*by.identity(), &by.environment().settings, text);
                let Refused { component, settings } = &mut state.refused;
                let (part, digest) = match digest == live.generation.digest() {
                    true => (settings, None),
                    false => (component, Some(digest)),
                };
                part.get_or_insert(Reason::rolled_back(digest, reason_shown));
            }
            // That happens to components, before there is a generation.
            EventKind::Refused => {}
        }
        let (identity, given) = (*live.generation.identity(), live.generation.environment());
        if live.stage == Stage::Live && self.ledger.prove(slot, identity, given) {
            self.ledger.save();
        }
        state.remember(what, Some(generation), Some(digest), reason);
    }

    /// Says that the component of the source does not do.
    pub(crate) fn tell_refused_component(&self, reason: &Reason) {
        let (Spec { slot, plugin, source, .. }, still_live) = (&*self.spec, self.live().number());
        let Reason { digest, text: reason, .. } = reason;
        self.remember_refusal(*digest, reason);
        let digest = digest.map(|digest| digest.to_string()).unwrap_or_default();
        error!(slot, plugin, file = source.to_string(), digest, reason, still_live, "plugin refused");
    }

    /// Says that the settings do not do.
    pub(crate) fn tell_refused_settings(&self, reason: &Reason) {
        let (Spec { slot, plugin, .. }, still_live) = (&*self.spec, self.live().number());
        let reason = &reason.text;
        self.remember_refusal(None, reason);
        error!(slot, plugin, reason, still_live, "settings refused; the plugin goes on with those it has");
    }

    /// Remembers that something did not become a generation.
    pub(crate) fn remember_refusal(&self, digest: Option<Digest>, reason: &str) {
        self.state.lock().remember(EventKind::Refused, None, digest, Some(reason.to_owned()));
    }

    /// Remembers what of source and settings does not serve.
    pub(crate) fn remember_refused(&self, refused: &Refused) {
        self.state.lock().refused = refused.clone();
    }

    /// A call has failed, or was shed.
    pub(crate) fn count_failure(&self, shed: bool) {
        if shed {
            self.overloaded.fetch_add(1, Relaxed);
        } else if self.on_trial.load(Relaxed) {
            self.evaluate();
        }
    }

    /// Draws conclusions from what has been counted, and from the time.
    fn evaluate(&self) {
        self.change(|state| (state.rollout.look(&state.deploy, Instant::now()), ()));
    }

    /// What operators see of it.
    pub fn status(&self) -> PluginStatus {
        let state = self.state.lock();
        PluginStatus {
            slot: self.spec.slot.clone(),
            plugin: self.spec.plugin.clone(),
            source: self.spec.source.to_string(),
            live: generation_status(state.rollout.live()),
            candidate: state.rollout.candidate().map(generation_status),
            previous: state.rollout.previous().map(generation_status),
            refused: unserved(&state.refused),
            history: state.history.iter().cloned().collect(),
            swaps: self.swaps.load(Relaxed),
            rollbacks: state.rollbacks,
            refusals: state.refusals,
            alerts: state.alerts,
            overloaded: self.overloaded.load(Relaxed),
            instances: self.spec.account.instances(),
            memory_bytes: self.spec.account.used(),
            unsaved: self.ledger.unsaved(),
        }
    }
}

impl State {
    fn remember(&mut self, what: EventKind, generation: Option<u64>, digest: Option<Digest>, reason: Option<String>) {
        match what {
            EventKind::RolledBack => self.rollbacks += 1,
            EventKind::Refused => self.refusals += 1,
            EventKind::Alert => self.alerts += 1,
            _ => {}
        }
        if self.history.len() == MAX_HISTORY {
            self.history.pop_front();
        }
        let digest = digest.map(|digest| digest.full());
        self.history.push_back(Event { at: SystemTime::now(), what, generation, digest, reason });
    }
}

/// Gives back what slots do not need any more, says what is left to say, and draws conclusions, for as long as it is
/// polled.
pub(crate) async fn look_after(slots: Vec<Arc<Slot>>) {
    loop {
        sleep(ROUND).await;
        for slot in &slots {
            for generation in slot.state(|state| state.rollout.generations()) {
                generation.flush_log();
                generation.shrink(LONGEST_IDLE);
            }
            slot.ledger.retry();
            slot.evaluate();
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.spec.slot, self.live())
    }
}
