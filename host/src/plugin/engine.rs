//! The one WebAssembly engine of the process: its configuration and its pool of instances.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::num::NonZeroUsize;

use anyhow::Context as _;
use tracing::warn;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use super::text::plain;
use crate::config::{EngineConfig, Processor};

/// Linear memories and tables of one instance. JavaScript runtimes come as components of two or three modules.
pub(crate) const MEMORIES: u32 = 4;
pub(crate) const TABLES: u32 = 8;

/// The same of one core module, as WebAssembly bounds them.
const OF_MODULE: u32 = 100;

/// Stack that is left to the host's functions when a plugin has used all of its own: they run on the same one, and
/// overflowing it would end the process. What wasmtime leaves by default.
const HOST_STACK: usize = 3 << 19;

/// What the address space of the pool is laid out for; what an instance may have, its limits say. A memory takes the same
/// address space whatever its size; tables of C# and Python have tens of thousands of elements.
const MEMORY: usize = 4 << 30;
const TABLE_ELEMENTS: usize = 1_000_000;

/// Bytes of an instance beside its memories and tables: globals, imported functions, core instances. Those of JavaScript
/// and Python have some 100 KiB.
const INSTANCE_SIZE: usize = 1 << 20;

/// Bytes of a memory that stay mapped between two instances. Fresh instances for each call cost 54 µs when everything
/// is unmapped, and get slower with a second core (page tables are locked); 8 µs when what a small plugin touches stays.
const KEEP_RESIDENT: usize = 1 << 20;

/// Slots that stay prepared for a plugin while they are unused. Enough for a few plugins to take turns; each swap leaves
/// some behind, so they are also what swaps may cost in memory.
const WARM_SLOTS: u32 = 8;

/// Frames of a trap's backtrace.
const BACKTRACE_FRAMES: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// Starts the engine for this many calls at the same time.
///
/// # Errors
/// When the processor or the operating system cannot run it.
pub(crate) fn start(calls: usize, settings: &EngineConfig) -> anyhow::Result<Engine> {
    let start = |allocation| {
        let mut config = config(allocation, settings.processor)?;
        config.max_wasm_stack(settings.stack).async_stack_size(settings.stack + HOST_STACK);
        Engine::new(&config)
    };
    match start(pool(calls)) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            // Containers may limit the address space; then every instance is mapped when it is needed.
            warn!(
                error = format!("{error:#}"),
                "no address space for a pool of plugin instances: calls will be slower"
            );
            start(InstanceAllocationStrategy::OnDemand).map_err(plain).context("cannot start the WebAssembly engine")
        }
    }
}

/// The engine of the process that compiles. What it compiles runs in the engine with this [`compatibility`] that [`start`]
/// has started: they differ only in where instances live. Its pool has no places, but the same bounds: what one instance
/// would take beside its memories and tables (globals, imports, core instances of nested components) is checked when the
/// component is compiled, and so is bounded wherever instances live later.
pub(crate) fn for_compiling(wanted: u64) -> anyhow::Result<Engine> {
    let engine = |processor| Engine::new(&config(pool(0), processor)?);
    match engine(Processor::Any) {
        Ok(engine) if compatibility(&engine) == wanted => Ok(engine),
        _ => engine(Processor::Native).map_err(plain),
    }
}

/// Differs between engines that cannot run each other's code: by settings, processor or version.
pub(crate) fn compatibility(engine: &Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

fn config(allocation: InstanceAllocationStrategy, processor: Processor) -> wasmtime::Result<Config> {
    let mut config = Config::new();
    if processor == Processor::Any {
        // Said, it is not looked at.
        config.target(env!("TARGET"))?;
    }
    config
        .allocation_strategy(allocation)
        .epoch_interruption(true)
        // Halves the cost of a call; the contract has no concurrent functions.
        .concurrency_support(false)
        .wasm_component_model(true)
        .wasm_memory64(false)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_backtrace_max_frames(Some(BACKTRACE_FRAMES));
    Ok(config)
}

fn pool(calls: usize) -> InstanceAllocationStrategy {
    // For each that serves a call another may be idle or about to end.
    let instances = u32::try_from(calls).unwrap_or(u32::MAX).saturating_mul(2);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_stacks(instances)
        // Only counted, and bounded by the instances already.
        .total_core_instances(u32::MAX)
        .total_memories(instances.saturating_mul(MEMORIES))
        // What a component may have is looked at before it is linked, and told in our words.
        .max_memories_per_component(u32::MAX)
        .max_memories_per_module(OF_MODULE)
        // Even for no instance: a component with more tables than the pool is refused.
        .total_tables(instances.max(1).saturating_mul(TABLES))
        .max_tables_per_component(u32::MAX)
        .max_tables_per_module(OF_MODULE)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(MEMORY)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(64 << 10)
        .max_unused_warm_slots(WARM_SLOTS)
        .max_component_instance_size(INSTANCE_SIZE)
        .max_core_instance_size(INSTANCE_SIZE)
        .pagemap_scan(Enabled::Auto);
    InstanceAllocationStrategy::Pooling(pool)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MAX_CALLS;

    #[test]
    fn the_largest_sum_of_calls_fits_the_pool() {
        // And one more for the checks of each of some plugins.
        let calls = MAX_CALLS + 32;
        let engine = start(calls, &EngineConfig::default()).unwrap();
        assert!(engine.pooling_allocator_metrics().is_some(), "instances are mapped when they are needed");
    }

    #[test]
    fn what_is_compiled_elsewhere_runs_here() {
        let compatibilities = [Processor::Native, Processor::Any].map(|processor| {
            let settings = EngineConfig { processor, stack: 64 << 20, memory: None };
            let wanted = compatibility(&start(64, &settings).unwrap());
            assert_eq!(compatibility(&for_compiling(wanted).unwrap()), wanted);
            wanted
        });
        assert_ne!(compatibilities[0], compatibilities[1]);
    }
}
