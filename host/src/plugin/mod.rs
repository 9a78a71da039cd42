//! The WebAssembly runtime: loads plugins, calls them within their limits, and swaps them while they are called. Knows
//! the contract of `wit/` and nothing of sockets; nothing outside says `wasmtime`.
//!
//! A [`Slot`] is the place of one plugin. In it one [`Generation`] is live: a compiled component with its settings and
//! instances. A call takes an instance (fresh, or from the generation's idle ones), runs in it until its deadline, and
//! gives it back if nothing went wrong. [`Keepers`] notice new components and settings; what has been compiled, linked,
//! compared with the contract and asked by `lifecycle.check` becomes a generation and takes its way to serve: in shadow,
//! as a canary, on probation, for good.
//!
//! | file | what |
//! | --- | --- |
//! | `engine`, `lane` | the engine and its clock; who may run for longer than a tick |
//! | `bindings`, `calls`, `call` | the contract as Rust, its functions, how each is called |
//! | `error`, `frames`, `text` | how a call fails and where, and text from what is not trusted |
//! | `host`, `guest_log`, `limits` | what a plugin finds around it |
//! | `instance`, `pool`, `generation`, `spec` | from one instance to all of one component, and what the slot's have in common |
//! | `memory`, `machine` | what all instances together may have |
//! | `slot`, `rollout`, `stats`, `blame` | which generation serves whom, how they come and go, how they fare, and for whom |
//! | `load`, `compile`, `source`, `keeper`, `builtin` | where new generations come from |
//! | `deploy` | what is done to a slot |
//! | `identity`, `ledger`, `status`, `report` | what a generation is known by, what is remembered of it, what operators see |

mod bindings;
mod blame;
mod builtin;
mod call;
mod calls;
mod compile;
mod deploy;
mod engine;
mod error;
mod frames;
mod generation;
mod guest_log;
mod host;
mod identity;
mod instance;
mod keeper;
mod lane;
mod ledger;
mod limits;
mod load;
mod machine;
mod memory;
mod pool;
mod report;
mod rollout;
mod slot;
mod source;
mod spec;
mod stats;
pub mod status;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod text;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::Context as _;
use wasmtime::Engine;
use wasmtime::component::Linker;

pub use self::bindings::Roles;
pub(crate) use self::bindings::{authenticator, router, types};
pub use self::blame::Caller;
pub use self::calls::Seat;
pub use self::compile::child::{COMMAND as COMPILE, run as compile};
#[cfg(any(test, fuzzing))]
pub(crate) use self::compile::fuzz;
pub use self::deploy::DeployError;
pub use self::error::CallError;
pub use self::frames::Frames;
pub use self::generation::{CheckRefused, Generation};
pub use self::identity::Digest;
pub use self::keeper::Keepers;
pub use self::ledger::Ledgers;
pub use self::memory::Demand;
pub use self::slot::Slot;
pub(crate) use self::slot::look_after;
pub use self::source::read as read_component;
pub(crate) use self::text::is_harmful;
pub use self::text::tame;
use self::text::{line, plain};
use crate::base::state::StateFolder;
use crate::config::{CompilerConfig, EngineConfig};
use crate::hub::registry::Registry;

/// What all plugins share.
pub struct Runtime {
    engine: Engine,
    clock: engine::Clock,
    linker: Linker<host::Host>,
    compiler: compile::Compiler,
    lane: Arc<lane::Lane>,
    memory: Arc<memory::Memory>,
    registry: Arc<Registry>,
    state: Arc<StateFolder>,
    surroundings: Surroundings,
    /// Bytes of stack of one call.
    stack: usize,
}

/// What plugins find around them that differs from how it is, so that what they do can be foretold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// What the wall clock says.
    pub clock: Option<SystemTime>,
    /// A seed: each instance finds the same random numbers.
    pub random: Option<u64>,
}

impl Runtime {
    /// Starts the engine for plugins that need this much, all together.
    ///
    /// # Errors
    /// When the processor or the operating system cannot run it.
    pub fn start(
        demand: Demand,
        config: &EngineConfig,
        compiler: &CompilerConfig,
        registry: Arc<Registry>,
        state: Arc<StateFolder>,
    ) -> anyhow::Result<Arc<Self>> {
        let lane = lane::Lane::new();
        let (engine, clock) = engine::start(demand.calls, config, &lane)?;
        let mut linker = Linker::new(&engine);
        host::link(&mut linker).map_err(plain).context("cannot link the plugin interfaces")?;
        let compiler = compile::Compiler::new(compiler, &state);
        let surroundings = Surroundings::default();
        let (memory, stack) = (memory::Memory::new(config.memory, demand), config.stack);
        Ok(Arc::new(Self { engine, clock, linker, compiler, lane, memory, registry, state, surroundings, stack }))
    }

    /// Bytes of linear memory that all plugins together may have.
    pub fn memory(&self) -> usize {
        self.memory.total()
    }

    /// Who is connected, as plugins are told.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The same for other surroundings and connections. Nothing is remembered of what serves there but compiled code.
    #[must_use]
    pub fn apart(&self, registry: Arc<Registry>, surroundings: Surroundings) -> Arc<Self> {
        Arc::new(Self {
            engine: self.engine.clone(),
            clock: self.clock.clone(),
            linker: self.linker.clone(),
            compiler: self.compiler.clone(),
            lane: self.lane.clone(),
            memory: self.memory.clone(),
            registry,
            state: Arc::new(StateFolder::none("nothing is to be remembered")),
            surroundings,
            stack: self.stack,
        })
    }
}

/// Locks, whatever happened to the last holder: what these locks guard is valid at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
