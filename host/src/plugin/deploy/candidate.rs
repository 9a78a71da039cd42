//! A component and settings before they become a generation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tracing::warn;

use super::source;
use crate::base::metrics::METRICS;
use crate::config::Settings;
use crate::plugin::blocking::blocking;
use crate::plugin::compile::Compiled;
use crate::plugin::identity::{Digest, GenerationIdentity};
use crate::plugin::runtime::Runtime;
use crate::plugin::runtime::environment::Environment;
use crate::plugin::runtime::spec::Spec;
use crate::plugin::slot::generation::Generation;
use crate::plugin::slot::ledger::Ledger;
use crate::plugin::text::line;

/// The component and the settings that a slot should serve, or why they cannot be read.
pub(crate) struct Wanted {
    pub(crate) code: anyhow::Result<Code>,
    pub(crate) environment: anyhow::Result<Environment>,
}

impl Wanted {
    /// Reads the component and the settings as they are now.
    ///
    /// # Errors
    /// If the file system does not answer.
    pub(crate) async fn read(spec: &Arc<Spec>, settings: Settings) -> anyhow::Result<Self> {
        let spec = spec.clone();
        blocking(move || {
            let code = source::read(&spec.source, spec.limits.max_component).context("it cannot be read");
            Ok(Self { code: code.map(Code::new), environment: Environment::read(settings) })
        })
        .await
    }
}

/// A component. It is compiled at most once, even if it is tried with several settings.
pub(crate) struct Code {
    pub(crate) digest: Digest,
    /// The bytes of a new component; `None` for the component of a generation, which is kept for a restart already.
    bytes: Option<Arc<Vec<u8>>>,
    compiled: Option<Compiled>,
}

impl Code {
    /// Creates a component that is not compiled yet. Computes its digest.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { digest: Digest::of(&bytes), bytes: Some(Arc::new(bytes)), compiled: None }
    }

    /// Returns the component of a generation.
    pub(crate) fn of(generation: &Generation) -> Self {
        let component = generation.prepared().component.component().clone();
        let compiled = Compiled { component, took: Duration::ZERO, cached: true };
        Self { digest: generation.digest(), bytes: None, compiled: Some(compiled) }
    }

    /// Compiles the component, runs all checks, and makes a generation of it. Keeps it and `others` for a restart.
    pub(crate) async fn verify(
        &mut self,
        runtime: &Runtime,
        spec: &Arc<Spec>,
        ledger: &Arc<Ledger>,
        number: u64,
        environment: Environment,
        others: Vec<Digest>,
    ) -> anyhow::Result<Generation> {
        let begun = Instant::now();
        let identity = GenerationIdentity::new(self.digest, &environment.values);
        let digest = self.digest;
        let is_new = self.bytes.is_some();
        let Compiled { component, took, .. } = self.compile(runtime).await?;
        let compiling = is_new.then_some(*took);
        let prepared = runtime.prepare(spec, number, digest, environment, component)?;
        let mut generation = Box::pin(Generation::verify(number, identity, prepared, begun)).await?;
        generation.compiling = compiling;
        if let Some(code) = self.bytes.clone() {
            let ledger = ledger.clone();
            let keep = move || {
                ledger.keep(&code, digest, &others);
                Ok(())
            };
            if let Err(error) = blocking(keep).await {
                warn!(slot = spec.slot, error = line(&error), "the component is not kept for a restart");
            }
        }
        Ok(generation)
    }

    async fn compile(&mut self, runtime: &Runtime) -> anyhow::Result<&Compiled> {
        if self.compiled.is_none() {
            let bytes = self.bytes.as_ref().context("there is no component")?;
            let compiled = Box::pin(runtime.compiler.compile(&runtime.engine, bytes, self.digest)).await?;
            if !compiled.cached {
                METRICS.plugin_compile_seconds.observe(compiled.took);
            }
            self.compiled = Some(compiled);
        }
        self.compiled.as_ref().context("it has just been compiled")
    }
}
