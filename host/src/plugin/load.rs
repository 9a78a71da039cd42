//! From a component and its settings to a generation: what is read, and what it must pass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, warn};
use wasmtime::component::Component;

use super::bindings::Roles;
use super::generation::{Generation, Given};
use super::identity::{Digest, Identity};
use super::ledger::{Ledger, Refusal};
use super::slot::Slot;
use super::spec::Spec;
use super::{Runtime, source};
use crate::config::{PluginConfig, Settings};
use crate::metrics::METRICS;

/// How long reading and writing files may take. It may never end where a network file system hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Files are not ready: they cannot be read or written now.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub(super) struct Unready(anyhow::Error);

/// The values of settings.
pub(super) type Values = BTreeMap<String, String>;

/// A component and the settings that it is to run with.
pub(super) struct Candidate {
    pub(super) digest: Digest,
    pub(super) code: Code,
    pub(super) settings: Settings,
}

pub(super) enum Code {
    Bytes(Arc<Vec<u8>>),
    /// What is compiled already.
    Compiled(Component),
}

impl Candidate {
    /// What the source holds now.
    pub(super) async fn read(spec: &Arc<Spec>, settings: Settings) -> anyhow::Result<Self> {
        let spec = spec.clone();
        let read = move || {
            let code = source::read(&spec.source, spec.limits.max_component)?;
            Ok((Digest::of(&code), code))
        };
        let (digest, code) = blocking(read).await.context("it cannot be read")?;
        Ok(Self { digest, code: Code::Bytes(Arc::new(code)), settings })
    }

    /// The component of a generation, with other settings.
    pub(super) fn of(generation: &Generation, settings: Settings) -> Self {
        let code = Code::Compiled(generation.component().component().clone());
        Self { digest: generation.digest(), code, settings }
    }

    /// What it would be known by, and the settings' values as they are now.
    pub(super) async fn identity(&self) -> anyhow::Result<(Identity, Values)> {
        let settings = self.settings.clone();
        let values = blocking(move || settings.read().map_err(|error| Unready(error).into())).await?;
        Ok((Identity::new(self.digest, &values), values))
    }

    /// Compiles it and passes it through all checks. Of the components that are kept, `others` are needed, too.
    pub(super) async fn verify(
        self,
        spec: &Arc<Spec>,
        ledger: &Arc<Ledger>,
        number: u64,
        (identity, values): (Identity, Values),
        others: Vec<Digest>,
    ) -> anyhow::Result<Generation> {
        let begun = Instant::now();
        let Self { digest, code, settings } = self;
        let (component, code, compiling) = match code {
            Code::Compiled(component) => (component, None, None),
            Code::Bytes(code) => {
                let compiled = Box::pin(spec.runtime.compiler.compile(&spec.runtime.engine, &code, digest)).await?;
                if !compiled.cached {
                    METRICS.plugin_compile_seconds.observe(compiled.took);
                }
                (compiled.component, Some(code), Some(compiled.took).filter(|_| !compiled.cached))
            }
        };
        let given = Given { settings, values };
        let mut generation = Box::pin(Generation::verify(spec, number, identity, given, &component, begun)).await?;
        generation.compiling = compiling;
        if let Some(code) = code {
            let ledger = ledger.clone();
            let keep = move || {
                ledger.keep(&code, digest, &others);
                Ok(())
            };
            if let Err(error) = blocking(keep).await {
                warn!(slot = spec.slot, error = super::line(&error), "the component is not kept for a restart");
            }
        }
        Ok(generation)
    }
}

impl Slot {
    /// Loads the plugin of a slot for the first time. What served for good when the gateway ran last serves first, if it is
    /// still there, and anything else is offered to the slot like any new component.
    ///
    /// # Errors
    /// When it cannot be read; or cannot be compiled or linked, is not what the slot needs, or refuses to serve, and nothing
    /// that served before is there. The error names the slot and the source.
    pub async fn load(
        name: String,
        plugin: &PluginConfig,
        roles: Roles,
        runtime: Arc<Runtime>,
    ) -> anyhow::Result<Arc<Self>> {
        let spec = Arc::new(Spec::new(name, plugin, roles, runtime));
        let load = async {
            let opened = spec.clone();
            let open = move || Ok(Ledger::open(opened.runtime.state.clone(), &opened.slot, &opened.source));
            let ledger = Arc::new(blocking(open).await?);
            let wanted = Candidate::read(&spec, plugin.settings.clone()).await?;
            let known = wanted.identity().await?;

            if let Some(proven) = proven(&spec, &ledger, &known.0).await {
                let digest = wanted.digest;
                // A new secret is no reason to try again what was rolled back; what serves has it already.
                let same = proven.given().settings == plugin.settings;
                let only_a_secret = same && ledger.refusal(&known.0).is_none() && ledger.has_refused(digest);
                let slot = Self::new(spec.clone(), plugin, ledger, proven);
                if only_a_secret {
                    let reason = anyhow!("it was rolled back; `hotgate plugin reload` loads it all the same");
                    slot.turn_down(Some(digest), &reason);
                } else if let Err(reason) = slot.take_in(wanted, Default::default()).await {
                    slot.turn_down(Some(digest), &reason);
                }
                return Ok(slot);
            }
            if let Some(refusal) = ledger.refusal(&known.0) {
                let (Spec { slot, plugin, .. }, reason) = (&*spec, before(&refusal).to_string());
                error!(slot, plugin, digest = %wanted.digest, reason, "nothing else is there, so it serves again");
            }
            let identity = known.0;
            let generation = wanted.verify(&spec, &ledger, 1, known, Vec::new()).await?;
            if ledger.prove(identity, &plugin.settings) {
                written(&ledger).await;
            }
            anyhow::Ok(Self::new(spec.clone(), plugin, ledger, generation))
        };
        load.await.with_context(|| format!("{}: cannot load {}", spec.slot, spec.source))
    }
}

/// What served for good when the gateway ran last, unless it is what is wanted now, or will not do any more.
async fn proven(spec: &Arc<Spec>, ledger: &Arc<Ledger>, wanted: &Identity) -> Option<Generation> {
    let load = async {
        let (read, limit) = (ledger.clone(), spec.limits.max_component);
        let Some((code, before, settings)) = blocking(move || read.proven(limit)).await? else { return Ok(None) };
        let candidate = Candidate { digest: before.component, code: Code::Bytes(Arc::new(code)), settings };
        // Files that settings stand in may have changed since.
        let known = candidate.identity().await?;
        if known.0 == *wanted {
            return Ok(None);
        }
        candidate.verify(spec, ledger, 1, known, Vec::new()).await.map(Some)
    };
    load.await.unwrap_or_else(|reason: anyhow::Error| {
        let (Spec { slot, plugin, .. }, reason) = (&**spec, super::line(&reason));
        warn!(slot, plugin, reason, "what served when the gateway ran last cannot serve any more");
        None
    })
}

/// Waits until what the ledger holds is on disk.
pub(super) async fn written(ledger: &Arc<Ledger>) {
    let ledger = ledger.clone();
    let write = move || {
        ledger.write();
        Ok(())
    };
    if let Err(error) = blocking(write).await {
        warn!(error = super::line(&error), "what was rolled back may not be remembered");
    }
}

/// Runs something that blocks, but does not wait for ever.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let done = timeout(PATIENCE, spawn_blocking(work)).await;
    done.map_err(|_| Unready(anyhow!("files could not be read or written within {PATIENCE:?}")))??
}

/// Why something is not loaded that was rolled back before.
pub(super) fn before(refusal: &Refusal) -> anyhow::Error {
    let at = humantime::format_rfc3339_seconds(refusal.at);
    anyhow!(
        "it was rolled back with these settings at {at}, because {}; it is not loaded again until the file or its settings \
         change, or by `hotgate plugin reload`",
        refusal.reason
    )
}
