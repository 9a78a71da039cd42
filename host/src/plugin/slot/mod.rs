//! A slot: the place of one plugin. It decides which generation of the plugin serves which connection.

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
mod upkeep;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{error, info, warn};

pub(crate) use self::upkeep::look_after;
use crate::base::message::ConnectionId;
use crate::base::metrics::METRICS;
use crate::config::{PluginConfig, PluginDeploy, PluginSource, Settings};
use crate::plugin::contract::Role;
use crate::plugin::identity::Digest;
use crate::plugin::runtime::Runtime;
use crate::plugin::runtime::spec::Spec;
use crate::plugin::slot::error::{MAX_REASON, RefusedOnDisk, UnservedReason};
use crate::plugin::slot::generation::Generation;
use crate::plugin::slot::ledger::Ledger;
use crate::plugin::slot::report::{generation_status, unserved};
use crate::plugin::slot::rollout::{Rollout, Step};
use crate::plugin::slot::serving::{Serving, TrafficShare};
use crate::plugin::status::{Event, EventKind, PluginStatus, Stage};
use crate::plugin::text::clean;

/// The most events that a slot remembers. After that, the oldest is forgotten.
const MAX_HISTORY: usize = 32;

/// The place of one plugin. A call runs on the generation that serves its connection when the call begins, and finishes
/// on that generation, even if another one is swapped in meanwhile.
pub struct Slot {
    runtime: Arc<Runtime>,
    spec: Arc<Spec>,
    serving: ArcSwap<Serving>,
    state: Mutex<State>,
    /// Held while a generation is loaded.
    pub(crate) loading: tokio::sync::Mutex<()>,
    /// Notified when the slot's source and settings should be checked.
    pub(crate) changed: Notify,
    /// True if somebody insisted: the next check tries a refused component and settings again, even if their files have
    /// not changed, and logs a refusal again.
    insisted: AtomicBool,
    pub(crate) ledger: Arc<Ledger>,
    /// True while a canary or a generation on probation serves. Each of its failures is then judged at once, not only
    /// at the next round of [`look_after`]: a bad generation must not serve longer than necessary.
    is_watched: AtomicBool,
    overloaded: AtomicU64,
    swaps: AtomicU64,
}

/// The parts of a slot that change. One lock protects them all.
pub(crate) struct State {
    pub(crate) rollout: Rollout<Generation>,
    /// The settings that a new generation gets.
    pub(crate) settings: Settings,
    /// The stages that a new generation passes.
    pub(crate) deploy: PluginDeploy,
    history: VecDeque<Event>,
    /// The number of the newest generation.
    pub(crate) newest: u64,
    rollbacks: u64,
    refusals: u64,
    alerts: u64,
    /// Why the component and the settings on disk do not serve; empty if they serve.
    refused: RefusedOnDisk,
}

impl Slot {
    /// Creates a slot with its first generation.
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
            refused: RefusedOnDisk::default(),
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
            is_watched: AtomicBool::new(false),
            overloaded: AtomicU64::new(0),
            swaps: AtomicU64::new(0),
        })
    }

    /// Returns the generation that serves calls of this connection that begin now.
    pub(crate) fn serving(&self, connection: ConnectionId) -> Arc<Generation> {
        let serving = self.serving.load();
        match &serving.canary {
            Some(canary) if canary.takes(connection) => canary.generation.clone(),
            _ => serving.live.clone(),
        }
    }

    /// Returns the live generation. It serves every connection that the canary does not.
    pub(crate) fn live(&self) -> Arc<Generation> {
        self.serving.load().live.clone()
    }

    /// Returns the generation in shadow, if there is one and this connection is in its share.
    pub fn shadow(&self, connection: ConnectionId) -> Option<Arc<Generation>> {
        let serving = self.serving.load();
        serving.shadow.as_ref().filter(|shadow| shadow.takes(connection)).map(|shadow| shadow.generation.clone())
    }

    /// Returns `true` if more than half of the permits for calls of the authenticator are free.
    pub fn authenticator_has_room(&self) -> bool {
        self.spec.permits.of(Role::Authenticator).available_permits() > self.spec.limits.concurrency / 2
    }

    /// Returns the runtime of the slot's generations.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(crate) fn spec(&self) -> &Arc<Spec> {
        &self.spec
    }

    /// Returns the source of the component.
    pub fn source(&self) -> &PluginSource {
        &self.spec.source
    }

    /// Returns the settings of new generations.
    pub(crate) fn settings(&self) -> Settings {
        self.state(|state| state.settings.clone())
    }

    /// Returns the slot's name.
    pub fn name(&self) -> &str {
        &self.spec.slot
    }

    /// Returns the plugin's name.
    pub fn plugin(&self) -> &str {
        &self.spec.plugin
    }

    /// Returns the size of the largest component that the slot takes, in bytes.
    pub fn max_component(&self) -> usize {
        self.spec.limits.max_component
    }

    pub(crate) fn state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock())
    }

    /// Changes the state. `change` returns its steps: in each step, one generation entered or left a stage, or raised
    /// an alert. Publishes which generation serves whom, and records the steps.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> (Vec<Step<Generation>>, T)) -> T {
        let mut state = self.state.lock();
        let (live, before) = (state.rollout.live().generation.clone(), state.rollout.generations());
        let (steps, result) = change(&mut state);
        if !steps.is_empty() {
            self.publish(&state, &before);
        }
        for step in steps {
            let swapped = !Arc::ptr_eq(&live, &step.generation);
            self.record(&mut state, step, swapped);
        }
        self.is_watched.store(state.rollout.is_watched(), Relaxed);
        result
    }

    /// Sets the settings and the stages of new generations, and has them checked as [`look_again`](Self::look_again)
    /// does.
    pub fn configure(&self, settings: &Settings, deploy: &PluginDeploy, insist: bool) {
        let mut state = self.state.lock();
        (state.settings, state.deploy) = (settings.clone(), deploy.clone());
        // The percentages of canary and shadow may have changed.
        self.publish(&state, &[]);
        drop(state);
        self.look_again(insist);
    }

    /// Has the source and the settings checked again. With `insist`, a refused component and settings are tried again,
    /// even if their files have not changed.
    pub fn look_again(&self, insist: bool) {
        self.insisted.fetch_or(insist, Relaxed);
        self.changed.notify_one();
    }

    /// Returns `true` if somebody has insisted since the last call of this function.
    pub(crate) fn take_insisted(&self) -> bool {
        self.insisted.swap(false, Relaxed)
    }

    /// Publishes which generation serves whom. Retires the generations of `before` that no longer serve.
    fn publish(&self, state: &State, before: &[Arc<Generation>]) {
        let (rollout, now) = (&state.rollout, self.serving.load());
        let share = |stage, percent, now: &Option<TrafficShare>| {
            let place = rollout.candidate().filter(|place| place.stage == stage)?;
            let generation = place.generation.clone();
            let same = now.as_ref().filter(|now| Arc::ptr_eq(&now.generation, &generation));
            Some(TrafficShare { percent, after: same.map_or_else(ConnectionId::newest, |now| now.after), generation })
        };
        let serving = Serving {
            live: rollout.live().generation.clone(),
            canary: share(Stage::Canary, state.deploy.canary, &now.canary),
            shadow: share(Stage::Shadow, state.deploy.shadow, &now.shadow),
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

    /// Records a step in the log, the history and the ledger.
    fn record(&self, state: &mut State, step: Step<Generation>, swapped: bool) {
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
                info!(slot, plugin, generation, %digest, "plugin passed its probation");
            }
            EventKind::Alert => {
                error!(slot, plugin, generation, %digest, reason = reason_shown, "plugin fails too often");
            }
            EventKind::Withdrawn => info!(slot, plugin, generation, %digest, "plugin withdrawn"),
            EventKind::RolledBack => {
                let serves = live.generation.number();
                warn!(slot, plugin, generation, %digest, reason = reason_shown, serves, "plugin rolled back");
                let text = reason.clone().unwrap_or_default();
                self.ledger.refuse(*by.identity(), &by.environment().settings, text);
                let RefusedOnDisk { component, settings } = &mut state.refused;
                let (part, digest) = match digest == live.generation.digest() {
                    true => (settings, None),
                    false => (component, Some(digest)),
                };
                part.get_or_insert(UnservedReason::rolled_back(digest, reason_shown));
            }
            // A component is refused before it becomes a generation.
            EventKind::Refused => {}
        }
        let (identity, environment) = (*live.generation.identity(), live.generation.environment());
        if live.stage == Stage::Live && self.ledger.prove(slot, identity, environment) {
            self.ledger.save();
        }
        state.remember(what, Some(generation), Some(digest), reason);
    }

    /// Records that the source's component was refused.
    pub(crate) fn record_refused_component(&self, reason: &UnservedReason) {
        let (Spec { slot, plugin, source, .. }, still_live) = (&*self.spec, self.live().number());
        let UnservedReason { digest, text: reason, .. } = reason;
        self.remember_refusal(*digest, reason);
        let digest = digest.map(|digest| digest.to_string()).unwrap_or_default();
        error!(slot, plugin, file = source.to_string(), digest, reason, still_live, "plugin refused");
    }

    /// Records that the settings were refused.
    pub(crate) fn record_refused_settings(&self, reason: &UnservedReason) {
        let (Spec { slot, plugin, .. }, still_live) = (&*self.spec, self.live().number());
        let reason = &reason.text;
        self.remember_refusal(None, reason);
        error!(slot, plugin, reason, still_live, "settings refused; the plugin keeps its present settings");
    }

    /// Adds a refusal to the history.
    pub(crate) fn remember_refusal(&self, digest: Option<Digest>, reason: &str) {
        self.state.lock().remember(EventKind::Refused, None, digest, Some(reason.to_owned()));
    }

    /// Remembers which component and settings on disk do not serve.
    pub(crate) fn remember_refused(&self, refused: &RefusedOnDisk) {
        self.state.lock().refused = refused.clone();
    }

    /// Counts a call refused for lack of capacity. For any other failure, judges the generation now if it is watched.
    pub(crate) fn count_failure(&self, shed: bool) {
        if shed {
            self.overloaded.fetch_add(1, Relaxed);
        } else if self.is_watched.load(Relaxed) {
            self.evaluate();
        }
    }

    /// Ends a probation, raises an alert or rolls back, if the counted calls and the time say so.
    fn evaluate(&self) {
        self.change(|state| (state.rollout.evaluate(&state.deploy, Instant::now()), ()));
    }

    /// Returns the status that operators see.
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
            running: self.spec.running(),
            waiting: self.spec.waiting.load(Relaxed),
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

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.spec.slot, self.live())
    }
}
