//! The one WebAssembly engine of the process: its configuration and its pool of instances.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::num::NonZeroUsize;

use anyhow::Context as _;
use tracing::warn;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use super::text::plain;
use crate::config::{EngineConfig, Processor};

/// Linear memories that one instance may have. Components of JavaScript runtimes have two or three modules.
pub(crate) const MEMORIES: u32 = 4;
/// Tables that one instance may have.
pub(crate) const TABLES: u32 = 8;

/// Most memories, and most tables, of one core module: the limit of WebAssembly itself.
const OF_MODULE: u32 = 100;

/// Bytes of stack that the host's functions have left when a plugin has used all of its own. They run on the same
/// stack, and a stack overflow would end the process. The value is wasmtime's default.
const HOST_STACK: usize = 3 << 19;

/// Sizes that the address space of the pool is laid out for. The limits of an instance decide what it may really have.
/// A memory takes the same address space whatever its size. Tables of C# and Python have tens of thousands of elements.
const MEMORY: usize = 4 << 30;
const TABLE_ELEMENTS: usize = 1_000_000;

/// Bytes of an instance without its memories and tables: globals, imported functions, core instances. Instances of
/// JavaScript and Python need about 100 KiB.
const INSTANCE_SIZE: usize = 1 << 20;

/// Bytes of a memory that stay mapped from one instance to the next. A fresh instance for each call costs 54 µs if
/// everything is unmapped, and more with a second core (page tables are locked). It costs 8 µs if the memory that a
/// small plugin touches stays mapped.
const KEEP_RESIDENT: usize = 1 << 20;

/// Places in the pool that stay prepared for a plugin while they are unused. Enough for a few plugins to take turns.
/// Each swap leaves some behind, so this also bounds the memory that swaps cost.
const WARM_SLOTS: u32 = 8;

/// Most frames in the backtrace of a trap.
const BACKTRACE_FRAMES: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// Starts the engine for `calls` calls at the same time.
///
/// # Errors
/// If the processor or the operating system cannot run the engine.
pub(crate) fn start(calls: usize, settings: &EngineConfig) -> anyhow::Result<Engine> {
    let start = |allocation| {
        let mut config = config(allocation, settings.processor)?;
        config.max_wasm_stack(settings.stack).async_stack_size(settings.stack + HOST_STACK);
        Engine::new(&config)
    };
    match start(pool(calls)) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            // Containers may limit the address space. Then each instance is mapped when it is made.
            warn!(
                error = format!("{error:#}"),
                "no address space for a pool of plugin instances: calls will be slower"
            );
            start(InstanceAllocationStrategy::OnDemand).map_err(plain).context("cannot start the WebAssembly engine")
        }
    }
}

/// Creates the engine of the process that compiles. Its machine code runs in the engine of [`start`] whose
/// [`compatibility`] is `wanted`: the two engines differ only in where instances live. The pool of this engine has no
/// places for instances, but the same bounds. So the bytes of an instance beside its memories and tables (globals,
/// imports, core instances of nested components) are checked when the component is compiled, and are bounded wherever
/// instances live later.
pub(crate) fn for_compiling(wanted: u64) -> anyhow::Result<Engine> {
    let engine = |processor| Engine::new(&config(pool(0), processor)?);
    match engine(Processor::Any) {
        Ok(engine) if compatibility(&engine) == wanted => Ok(engine),
        _ => engine(Processor::Native).map_err(plain),
    }
}

/// Returns a hash. It differs between engines that cannot run each other's code, because of settings, processor or
/// version.
pub(crate) fn compatibility(engine: &Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

fn config(allocation: InstanceAllocationStrategy, processor: Processor) -> wasmtime::Result<Config> {
    let mut config = Config::new();
    if processor == Processor::Any {
        // With an explicit target, the engine does not use special instructions of this machine's processor.
        config.target(env!("TARGET"))?;
    }
    config
        .allocation_strategy(allocation)
        .epoch_interruption(true)
        // Off: this halves the cost of a call. The contract has no concurrent functions.
        .concurrency_support(false)
        .wasm_component_model(true)
        .wasm_memory64(false)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_backtrace_max_frames(Some(BACKTRACE_FRAMES));
    Ok(config)
}

fn pool(calls: usize) -> InstanceAllocationStrategy {
    // Beside each instance that serves a call, another instance may be idle or about to end.
    let instances = u32::try_from(calls).unwrap_or(u32::MAX).saturating_mul(2);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_stacks(instances)
        // The engine only counts core instances, and the number of instances bounds them already.
        .total_core_instances(u32::MAX)
        .total_memories(instances.saturating_mul(MEMORIES))
        // Our own check, before linking, refuses too many memories and tables with a clearer message.
        .max_memories_per_component(u32::MAX)
        .max_memories_per_module(OF_MODULE)
        // For at least one instance: the engine refuses a component that has more tables than the pool.
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
        // Each of 32 plugins adds one call for its check.
        let calls = MAX_CALLS + 32;
        let engine = start(calls, &EngineConfig::default()).unwrap();
        assert!(engine.pooling_allocator_metrics().is_some(), "there is no pool of instances");
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
