//! From a component and its settings to a generation: what is read, and what it must pass.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, warn};

use super::bindings::Roles;
use super::compile::Compiled;
use super::generation::{Generation, Given};
use super::identity::{Digest, Identity};
use super::ledger::{Ledger, Ledgers, Proven, Refusal};
use super::slot::Slot;
use super::spec::Spec;
use super::{Runtime, source};
use crate::base::metrics::METRICS;
use crate::config::{PluginConfig, Settings};

/// How long reading and writing files may take. It may never end where a network file system hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Files are not ready: they cannot be read or written now.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub(super) struct Unready(pub(super) anyhow::Error);

/// What a slot is to serve: what its source and its settings hold, or why they cannot be read.
pub(super) struct Wanted {
    pub(super) code: anyhow::Result<Code>,
    pub(super) given: anyhow::Result<Given>,
}

impl Wanted {
    /// Both as they are now.
    ///
    /// # Errors
    /// When the file system does not answer.
    pub(super) async fn read(spec: &Arc<Spec>, settings: Settings) -> anyhow::Result<Self> {
        let spec = spec.clone();
        blocking(move || {
            let code = source::read(&spec.source, spec.limits.max_component).context("it cannot be read");
            Ok(Self { code: code.map(Code::new), given: Given::read(settings) })
        })
        .await
    }
}

impl Given {
    /// Settings with their values as they are now. Blocks.
    ///
    /// # Errors
    /// [`Unready`] when a file that one of them stands in cannot be used.
    pub(super) fn read(settings: Settings) -> anyhow::Result<Self> {
        let values = settings.read().map_err(Unready)?;
        Ok(Self { settings, values })
    }
}

/// A component. It is compiled once at most, whatever settings it is tried with.
pub(super) struct Code {
    pub(super) digest: Digest,
    /// Its bytes, unless they are kept already.
    bytes: Option<Arc<Vec<u8>>>,
    compiled: Option<Compiled>,
}

impl Code {
    /// A component that is to be compiled. Hashes it.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { digest: Digest::of(&bytes), bytes: Some(Arc::new(bytes)), compiled: None }
    }

    /// The component of a generation.
    pub(super) fn of(generation: &Generation) -> Self {
        let component = generation.component().component().clone();
        let compiled = Compiled { component, took: Duration::ZERO, cached: true };
        Self { digest: generation.digest(), bytes: None, compiled: Some(compiled) }
    }

    /// Compiles it and passes it through all checks. Of the components that are kept, `others` are needed, too.
    pub(super) async fn verify(
        &mut self,
        spec: &Arc<Spec>,
        ledger: &Arc<Ledger>,
        number: u64,
        given: Given,
        others: Vec<Digest>,
    ) -> anyhow::Result<Generation> {
        let begun = Instant::now();
        let identity = Identity::new(self.digest, &given.values);
        let digest = self.digest;
        let is_new = self.bytes.is_some();
        let Compiled { component, took, .. } = self.compile(spec).await?;
        let compiling = is_new.then_some(*took);
        let mut generation = Box::pin(Generation::verify(spec, number, identity, given, component, begun)).await?;
        generation.compiling = compiling;
        if let Some(code) = self.bytes.clone() {
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

    async fn compile(&mut self, spec: &Spec) -> anyhow::Result<&Compiled> {
        if self.compiled.is_none() {
            let bytes = self.bytes.as_ref().context("there is no component")?;
            let compiled = Box::pin(spec.runtime.compiler.compile(&spec.runtime.engine, bytes, self.digest)).await?;
            if !compiled.cached {
                METRICS.plugin_compile_seconds.observe(compiled.took);
            }
            self.compiled = Some(compiled);
        }
        self.compiled.as_ref().context("it has just been compiled")
    }
}

impl Slot {
    /// Loads the plugin of a slot for the first time. What served for good when the gateway ran last serves first, if it is
    /// still there; what the source and the settings hold now is looked at later. Only where nothing has proven itself it must
    /// do at once.
    ///
    /// # Errors
    /// When nothing that served before is there, and the component cannot be read, compiled or linked, is not what the slot
    /// needs, or refuses to serve. The error names the slot and the source.
    pub async fn load(
        name: String,
        plugin: &PluginConfig,
        roles: Roles,
        runtime: Arc<Runtime>,
        ledgers: &Ledgers,
    ) -> anyhow::Result<Arc<Self>> {
        let spec = Arc::new(Spec::new(name, plugin, roles, runtime));
        let load = async {
            let ledger = ledgers.of(&spec.source)?;
            if let Some(proven) = proven(&spec, &ledger).await {
                // It may serve with a secret that was changed while nobody ran.
                if ledger.prove(&spec.slot, *proven.identity(), proven.given()) {
                    written(&ledger).await;
                }
                return Ok(Self::new(spec.clone(), plugin, ledger, proven));
            }
            let Wanted { code, given } = Wanted::read(&spec, plugin.settings.clone()).await?;
            let (mut code, given) = (code?, given?);
            if let Some(refusal) = ledger.refusal(&Identity::new(code.digest, &given.values)) {
                let (Spec { slot, plugin, .. }, reason) = (&*spec, before(&refusal).to_string());
                error!(slot, plugin, digest = %code.digest, reason, "nothing else is there, so it serves again");
            }
            let generation = code.verify(&spec, &ledger, 1, given, Vec::new()).await?;
            if ledger.prove(&spec.slot, *generation.identity(), generation.given()) {
                written(&ledger).await;
            }
            anyhow::Ok(Self::new(spec.clone(), plugin, ledger, generation))
        };
        load.await.with_context(|| format!("{}: cannot load {}", spec.slot, spec.source))
    }
}

/// What served for good when the gateway ran last, unless it will not do any more. It is told what files hold now, which may be
/// a new secret; where one cannot be read, and where that does not do, what it was told then.
async fn proven(spec: &Arc<Spec>, ledger: &Arc<Ledger>) -> Option<Generation> {
    let load = async {
        let (read, slot, limit) = (ledger.clone(), spec.slot.clone(), spec.limits.max_component);
        let found = move || {
            let Some((code, proven)) = read.proven(&slot, limit)? else { return Ok(None) };
            let Proven { settings, values, .. } = proven;
            let now = settings.read_or(&values);
            Ok(Some((Code::new(code), [now, values].map(|values| Given { settings: settings.clone(), values }))))
        };
        let Some((mut code, [now, then])) = blocking(found).await? else { return Ok(None) };
        let is_same = now.values == then.values;
        if !is_same && ledger.refusal(&Identity::new(code.digest, &now.values)).is_none() {
            match code.verify(spec, ledger, 1, now, Vec::new()).await {
                Ok(generation) => return Ok(Some(generation)),
                Err(reason) => {
                    let (Spec { slot, plugin, .. }, reason) = (&**spec, super::line(&reason));
                    warn!(slot, plugin, reason, "the plugin starts with the secrets it had: new ones are refused");
                }
            }
        }
        code.verify(spec, ledger, 1, then, Vec::new()).await.map(Some)
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
