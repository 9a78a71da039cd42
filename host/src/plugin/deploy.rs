//! What is done to a slot: loading, replacing, promoting and rolling back what serves in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;
use wasmtime::component::Component;

use super::bindings::Roles;
use super::generation::{Generation, Given};
use super::identity::{Digest, Identity};
use super::ledger::{Ledger, Refusal};
use super::slot::{Slot, State};
use super::spec::Spec;
use super::{Runtime, source};
use crate::config::{PluginConfig, PluginDeploy, PluginSource, Settings};
use crate::metrics::METRICS;

/// How long reading and writing files may take. It may never end where a network file system hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a slot stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// There is no slot of this name.
    #[error("there is no slot {slot:?}; there are {}", .known.join(", "))]
    NoSuchSlot {
        /// The name.
        slot: String,
        /// The names of all slots.
        known: Vec<String>,
    },
    /// There is nothing to do it to.
    #[error("{0}")]
    NotNow(String),
    /// The component, or its settings, did not pass the checks.
    #[error("refused: {0}")]
    Refused(String),
    /// The component would do, but its file cannot be written.
    #[error("{0}")]
    Failed(String),
}

/// A component and the settings that it is to run with.
struct Candidate {
    digest: Digest,
    code: Code,
    settings: Settings,
}

enum Code {
    Bytes(Arc<Vec<u8>>),
    /// What serves already.
    Compiled(Component),
}

/// Puts a component where it will be read from.
type Write = Box<dyn FnOnce() -> anyhow::Result<()> + Send>;

/// The component would do, but could not be put in place.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct Unwritten(anyhow::Error);

impl Slot {
    /// Loads the plugin of a slot for the first time. What served for good when the gateway ran last serves first, if it is
    /// still there, and anything else is offered to the slot like any new component.
    ///
    /// # Errors
    /// When it cannot be read, compiled or linked, is not what the slot needs, or refuses to serve. The error names the
    /// slot and the source.
    pub async fn load(
        name: String,
        plugin: &PluginConfig,
        roles: Roles,
        runtime: Arc<Runtime>,
    ) -> anyhow::Result<Arc<Self>> {
        let spec = Arc::new(Spec::new(name, plugin, roles, runtime));
        let load = async {
            let begun = Instant::now();
            let opened = spec.clone();
            let open = move || Ok(Ledger::open(opened.runtime.state.clone(), &opened.slot, &opened.source));
            let ledger = Arc::new(blocking(open).await?);
            let wanted = Candidate::read(&spec, plugin.settings.clone()).await?;
            let (identity, values) = wanted.identity().await?;
            if let Some(proven) = proven(&spec, &ledger, &identity).await {
                let slot = Self::new(spec.clone(), plugin, ledger, proven);
                let digest = wanted.digest;
                if let Err(reason) = slot.take_in(wanted, None).await {
                    slot.turn_down(Some(digest), &reason);
                }
                return Ok(slot);
            }
            if let Some(refusal) = ledger.refusal(&identity) {
                return Err(before(&refusal));
            }
            let generation = verified(&spec, &ledger, 1, wanted, identity, values, begun).await?;
            if ledger.prove(identity, &plugin.settings) {
                let ledger = ledger.clone();
                let write = move || {
                    ledger.write();
                    Ok(())
                };
                blocking(write).await?;
            }
            anyhow::Ok(Self::new(spec.clone(), plugin, ledger, generation))
        };
        load.await.with_context(|| format!("{}: cannot load {}", spec.slot, spec.source))
    }

    /// Has a component take its way to serve, if it passes all checks and has not been rolled back before. What serves
    /// stays as it is until then.
    pub(super) async fn offer(&self, code: Vec<u8>, digest: Digest) -> anyhow::Result<()> {
        let _loading = self.loading.lock().await;
        let settings = self.state(|state| state.settings.clone());
        self.take_in(Candidate { digest, code: Code::Bytes(Arc::new(code)), settings }, None).await
    }

    /// Reads source and settings again, and offers them even if they were rolled back before.
    ///
    /// # Errors
    /// Why they do not do.
    pub async fn reload(&self) -> Result<(), DeployError> {
        let _loading = self.loading.lock().await;
        let settings = self.state(|state| state.settings.clone());
        let taken_in = async {
            let candidate = Candidate::read(self.spec(), settings).await?;
            self.ledger.forgive(&candidate.identity().await?.0);
            self.take_in(candidate, None).await
        };
        taken_in.await.map_err(|reason| self.turned_down(None, reason))
    }

    /// Puts a component in the place of the slot's file, if it passes all checks, and offers it.
    ///
    /// # Errors
    /// Why it does not do, or why the file cannot be written.
    pub async fn deploy(&self, code: Vec<u8>) -> Result<(), DeployError> {
        let PluginSource::File(path) = &self.spec().source else {
            let problem = format!("{} is part of the gateway: configure a file to deploy to", self.spec().source);
            return Err(DeployError::NotNow(problem));
        };
        let _loading = self.loading.lock().await;
        let code = Arc::new(code);
        let hashed = code.clone();
        let digest =
            blocking(move || Ok(Digest::of(&hashed))).await.map_err(|reason| self.turned_down(None, reason))?;
        let taken_in = async {
            let limit = self.spec().limits.max_component;
            ensure!(code.len() <= limit, "it is larger than {limit} bytes (limits.max_component)");
            let settings = self.state(|state| state.settings.clone());
            let (path, copy) = (path.clone(), code.clone());
            let write: Write = Box::new(move || source::replace_file(&path, &copy));
            self.take_in(Candidate { digest, code: Code::Bytes(code), settings }, Some(write)).await
        };
        taken_in.await.map_err(|reason| match reason.downcast::<Unwritten>() {
            Ok(unwritten) => DeployError::Failed(unwritten.to_string()),
            Err(reason) => self.turned_down(Some(digest), reason),
        })
    }

    /// On to the next stage.
    ///
    /// # Errors
    /// Why there is nothing to promote.
    pub fn promote(&self, meant: Option<u64>) -> Result<(), DeployError> {
        let promoted = self.change(|state| {
            let now = Instant::now();
            split(state.is_newest(meant).and_then(|()| Ok(state.rollout.promote(&state.deploy, now)?)))
        });
        promoted.map_err(DeployError::NotNow)
    }

    /// Back to what served before. What is given up is not loaded again until its file or settings change.
    ///
    /// # Errors
    /// Why there is nothing to go back to.
    pub fn rollback(&self, meant: Option<u64>) -> Result<(), DeployError> {
        let reason = "an operator said so".to_owned();
        let back = self.change(|state| {
            let now = Instant::now();
            split(state.is_newest(meant).and_then(|()| Ok(state.rollout.rollback(reason, now)?)))
        });
        back.map_err(DeployError::NotNow)
    }

    /// Takes over what the configuration, and the files that it names for settings, say now. Other settings make another
    /// generation.
    ///
    /// # Errors
    /// Why it does not do with these settings. What serves goes on with those it has.
    pub async fn configure(&self, settings: &Settings, deploy: &PluginDeploy) -> Result<(), DeployError> {
        let _loading = self.loading.lock().await;
        self.configured(settings, deploy);
        let given = settings.clone();
        match blocking(move || given.read()).await {
            Ok(values) if self.state(|state| state.rollout.newest().given().values == values) => return Ok(()),
            Ok(_) => {}
            Err(reason) => return Err(self.turned_down(None, reason)),
        }
        let candidate = match Candidate::read(self.spec(), settings.clone()).await {
            Ok(candidate) => candidate,
            // The file is gone; the settings count all the same, for what serves.
            Err(_) => self.state(|state| {
                let newest = state.rollout.newest();
                let code = Code::Compiled(newest.component().component().clone());
                Candidate { digest: newest.digest(), code, settings: settings.clone() }
            }),
        };
        self.take_in(candidate, None).await.map_err(|reason| self.turned_down(None, reason))
    }

    /// From a candidate to a generation at its first stage. Must be called while loading is locked.
    async fn take_in(&self, candidate: Candidate, write: Option<Write>) -> anyhow::Result<()> {
        let begun = Instant::now();
        let write = async || match write {
            Some(write) => blocking(write).await.map_err(|error| Unwritten(error).into()),
            None => anyhow::Ok(()),
        };
        let (identity, values) = candidate.identity().await?;
        let is = |other: &Generation| *other.identity() == identity;
        if self.state(|state| is(state.rollout.newest()) || is(&state.rollout.live().generation)) {
            write().await?;
            // Whoever puts back what is live does not want the candidate any more.
            let unwanted = |state: &State| !is(state.rollout.newest());
            self.change(|state| if unwanted(state) { (state.rollout.withdraw(), ()) } else { (Vec::new(), ()) });
            return Ok(());
        }
        if let Some(refusal) = self.ledger.refusal(&identity) {
            return Err(before(&refusal));
        }
        let number = self.state(|state| state.newest) + 1;
        let (spec, ledger) = (self.spec(), &self.ledger);
        let generation = verified(spec, ledger, number, candidate, identity, values, begun).await?;
        write().await?;
        let shadow = self.spec().roles.authenticator;
        self.change(|state| {
            state.newest = number;
            let steps = state.rollout.offer(Arc::new(generation), shadow, &state.deploy, Instant::now());
            (steps, ())
        });
        Ok(())
    }

    fn turned_down(&self, digest: Option<Digest>, reason: anyhow::Error) -> DeployError {
        let reason = super::line(&reason);
        self.refused(digest, &reason);
        DeployError::Refused(reason)
    }
}

impl State {
    /// Whether the newest generation is the one that is meant; without one it is.
    fn is_newest(&self, meant: Option<u64>) -> Result<(), String> {
        let newest = self.rollout.newest().number();
        match meant.filter(|meant| *meant != newest) {
            Some(meant) => Err(format!("generation {meant} is not the newest: that is generation {newest}")),
            None => Ok(()),
        }
    }
}

/// What follows, and whether anything does.
fn split<T, E>(steps: Result<Vec<T>, E>) -> (Vec<T>, Result<(), E>) {
    match steps {
        Ok(steps) => (steps, Ok(())),
        Err(problem) => (Vec::new(), Err(problem)),
    }
}

impl Candidate {
    /// What the source holds now.
    async fn read(spec: &Arc<Spec>, settings: Settings) -> anyhow::Result<Self> {
        let spec = spec.clone();
        let read = move || {
            let code = source::read(&spec.source, spec.limits.max_component)?;
            Ok((Digest::of(&code), code))
        };
        let (digest, code) = blocking(read).await.context("it cannot be read")?;
        Ok(Self { digest, code: Code::Bytes(Arc::new(code)), settings })
    }

    /// What it would be known by, and the settings' values as they are now.
    async fn identity(&self) -> anyhow::Result<(Identity, BTreeMap<String, String>)> {
        let settings = self.settings.clone();
        let values = blocking(move || settings.read()).await?;
        Ok((Identity::new(self.digest, &values), values))
    }
}

/// What served for good when the gateway ran last, unless it is what is wanted now, or will not do any more.
async fn proven(spec: &Arc<Spec>, ledger: &Arc<Ledger>, wanted: &Identity) -> Option<Generation> {
    let begun = Instant::now();
    let load = async {
        let (read, limit) = (ledger.clone(), spec.limits.max_component);
        let Some((code, before, settings)) = blocking(move || read.proven(limit)).await? else { return Ok(None) };
        let candidate = Candidate { digest: before.component, code: Code::Bytes(Arc::new(code)), settings };
        // Files that settings stand in may have changed since.
        let (identity, values) = candidate.identity().await?;
        if identity == *wanted {
            return Ok(None);
        }
        verified(spec, ledger, 1, candidate, identity, values, begun).await.map(Some)
    };
    load.await.unwrap_or_else(|reason: anyhow::Error| {
        let (Spec { slot, plugin, .. }, reason) = (&**spec, super::line(&reason));
        warn!(slot, plugin, reason, "what served when the gateway ran last cannot serve any more");
        None
    })
}

/// Compiles a candidate and passes it through all checks.
async fn verified(
    spec: &Arc<Spec>,
    ledger: &Arc<Ledger>,
    number: u64,
    candidate: Candidate,
    identity: Identity,
    values: BTreeMap<String, String>,
    begun: Instant,
) -> anyhow::Result<Generation> {
    let Candidate { digest, code, settings } = candidate;
    let (component, code) = match code {
        Code::Compiled(component) => (component, None),
        Code::Bytes(code) => {
            let compiled = Box::pin(spec.runtime.compiler.compile(&spec.runtime.engine, &code, digest)).await?;
            if !compiled.cached {
                METRICS.plugin_compile_seconds.observe(compiled.took);
            }
            (compiled.component, Some(code))
        }
    };
    let given = Given { settings, values };
    let generation = Box::pin(Generation::verify(spec, number, identity, given, &component, begun)).await?;
    if let Some(code) = code {
        let ledger = ledger.clone();
        let keep = move || {
            ledger.keep(&code, digest);
            Ok(())
        };
        blocking(keep).await?;
    }
    Ok(generation)
}

/// Runs something that blocks, but does not wait for ever.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    let done = timeout(PATIENCE, spawn_blocking(work)).await;
    done.map_err(|_| anyhow!("files could not be read or written within {PATIENCE:?}"))??
}

fn before(refusal: &Refusal) -> anyhow::Error {
    let at = humantime::format_rfc3339_seconds(refusal.at);
    anyhow!(
        "it was rolled back with these settings at {at}, because {}; it is not loaded again until the file or its settings \
         change, or by `hotgate plugin reload`",
        refusal.reason
    )
}
