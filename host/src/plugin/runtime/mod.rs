//! Runs one call of one component within its limits. Knows no slot, no file and no generation.

pub(crate) mod check;
pub(crate) mod clock;
pub(crate) mod environment;
pub(crate) mod error;
pub(crate) mod explain;
pub(crate) mod frames;
pub(crate) mod host;
pub(crate) mod instance;
pub(crate) mod limits;
pub(crate) mod log;
mod machine;
pub(crate) mod memory;
pub(crate) mod pool;
pub(crate) mod prepared;
pub(crate) mod spec;
pub(crate) mod turns;

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use self::clock::Clock;
use self::environment::{Environment, Surroundings};
use self::host::Host;
use self::log::{GuestLog, line_limit};
use self::memory::{Demand, Memory};
use self::prepared::Prepared;
use self::spec::{Spec, failure_limit, plugin_name};
use self::turns::FairQueue;
use crate::base::state::StateFolder;
use crate::config::{CompilerConfig, EngineConfig, PluginConfig};
use crate::hub::registry::Registry;
use crate::plugin::compile::Compiler;
use crate::plugin::contract::{Exports, PerRole, Roles};
use crate::plugin::engine;
use crate::plugin::identity::Digest;
use crate::plugin::text::plain;

/// The parts that all plugins share.
pub struct Runtime {
    pub(crate) engine: Engine,
    clock: Clock,
    linker: Linker<Host>,
    pub(crate) compiler: Compiler,
    queue: Arc<FairQueue>,
    memory: Arc<Memory>,
    registry: Arc<Registry>,
    pub(crate) state: Arc<StateFolder>,
    surroundings: Surroundings,
    /// Bytes of the stack of one call.
    stack: usize,
}

impl Runtime {
    /// Starts the engine for plugins that together need `demand`.
    ///
    /// # Errors
    /// If the processor or the operating system cannot run the engine.
    pub fn start(
        demand: Demand,
        config: &EngineConfig,
        compiler: &CompilerConfig,
        registry: Arc<Registry>,
        state: Arc<StateFolder>,
    ) -> anyhow::Result<Arc<Self>> {
        let queue = FairQueue::new();
        let engine = engine::start(demand.calls, config)?;
        let crowd = queue.clone();
        let clock = Clock::start(&engine, move || crowd.is_taken())?;
        let mut linker = Linker::new(&engine);
        host::link(&mut linker).map_err(plain).context("cannot link the plugin interfaces")?;
        let compiler = Compiler::new(compiler, &state);
        let surroundings = Surroundings::default();
        let (memory, stack) = (Memory::new(config.memory, demand), config.stack);
        Ok(Arc::new(Self { engine, clock, linker, compiler, queue, memory, registry, state, surroundings, stack }))
    }

    /// Returns the bytes of linear memory that all plugins together may have.
    pub fn memory(&self) -> usize {
        self.memory.total()
    }

    /// Returns the registry of connections, which plugins can ask.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Returns a runtime with the same engine, other surroundings and other connections. It remembers nothing but
    /// compiled code.
    #[must_use]
    pub fn apart(&self, registry: Arc<Registry>, surroundings: Surroundings) -> Arc<Self> {
        Arc::new(Self {
            engine: self.engine.clone(),
            clock: self.clock.clone(),
            linker: self.linker.clone(),
            compiler: self.compiler.clone(),
            queue: self.queue.clone(),
            memory: self.memory.clone(),
            registry,
            state: Arc::new(StateFolder::none("this runtime remembers nothing")),
            surroundings,
            stack: self.stack,
        })
    }

    /// Returns what the generations of one slot have in common.
    pub(crate) fn spec(&self, slot: String, plugin: &PluginConfig, roles: Roles) -> Spec {
        let limits = plugin.limits.clone();
        let permits = limits.concurrency.min(Semaphore::MAX_PERMITS);
        Spec {
            slot,
            plugin: plugin_name(&plugin.source),
            source: plugin.source.clone(),
            roles,
            permits: PerRole::new(|| Semaphore::new(permits)),
            waiting: Default::default(),
            account: self.memory.open(Demand::of(&limits, roles)),
            queue: self.queue.share(),
            lines: line_limit(&limits),
            failures: failure_limit(),
            clock: self.clock.clone(),
            registry: self.registry.clone(),
            surroundings: self.surroundings,
            stack: self.stack,
            limits,
        }
    }

    /// Links a component, and finds its functions.
    ///
    /// # Errors
    /// If the component imports something that the host does not provide, or does not export a function of its roles.
    pub(crate) fn prepare(
        &self,
        spec: &Arc<Spec>,
        generation: u64,
        digest: Digest,
        environment: Environment,
        component: &Component,
    ) -> anyhow::Result<Prepared> {
        let linked = self.linker.instantiate_pre(component).map_err(plain);
        let component = linked.context("it imports something that the gateway does not provide")?;
        let exports = Exports::find(&component, spec.roles)?;
        let log =
            Arc::new(GuestLog::new(spec.log_names(generation, digest), spec.lines.clone(), spec.limits.log_line_bytes));
        Ok(Prepared { spec: spec.clone(), component, exports, log, environment })
    }
}
