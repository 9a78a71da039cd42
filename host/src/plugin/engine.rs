//! The one WebAssembly engine of the process, and its clock.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tracing::warn;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use super::lane::Lane;
use super::lock;
use crate::config::{EngineConfig, Processor};

/// How often a running call is looked at. A call that ends within one tick is never interrupted. Costs one wake-up of
/// one thread.
pub(super) const TICK: Duration = Duration::from_millis(4);

/// The same while long calls take turns: the shorter, the sooner a crowd of them makes room for one that is short.
const SHORT_TICK: Duration = Duration::from_micros(250);

/// Between two ticks there is never as much time, unless the process does not run.
const STALL: Duration = Duration::from_millis(50);

/// Linear memories and tables of one instance. JavaScript runtimes come as components of two or three modules.
pub(super) const MEMORIES: u32 = 4;
pub(super) const TABLES: u32 = 8;

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

/// Starts the engine and its clock, for so many calls at the same time, the long ones in this lane.
///
/// # Errors
/// When the processor or the operating system cannot run it.
pub(super) fn start(calls: usize, settings: &EngineConfig, lane: &Arc<Lane>) -> anyhow::Result<(Engine, Clock)> {
    let start = |allocation| {
        let mut config = config(allocation, settings.processor)?;
        config.max_wasm_stack(settings.stack).async_stack_size(settings.stack + HOST_STACK);
        Engine::new(&config)
    };
    let engine = match start(pool(calls)) {
        Ok(engine) => engine,
        Err(error) => {
            // Containers may limit the address space; then every instance is mapped when it is needed.
            warn!(
                error = format!("{error:#}"),
                "no address space for a pool of plugin instances: calls will be slower"
            );
            start(InstanceAllocationStrategy::OnDemand)
                .map_err(super::plain)
                .context("cannot start the WebAssembly engine")?
        }
    };
    let clock = Clock::new();
    start_clock(&engine, lane.clone(), clock.clone())?;
    Ok((engine, clock))
}

/// The engine of the process that compiles. What it compiles runs in the engine with this [`compatibility`] that [`start`]
/// has started: they differ only in where instances live. Its pool has no places, but the same bounds: what one instance
/// would take beside its memories and tables (globals, imports, core instances of nested components) is checked when the
/// component is compiled, and so is bounded wherever instances live later.
pub(super) fn for_compiling(wanted: u64) -> anyhow::Result<Engine> {
    let engine = |processor| Engine::new(&config(pool(0), processor)?);
    match engine(Processor::Any) {
        Ok(engine) if compatibility(&engine) == wanted => Ok(engine),
        _ => engine(Processor::Native).map_err(super::plain),
    }
}

/// Differs between engines that cannot run each other's code: by settings, processor or version.
pub(super) fn compatibility(engine: &Engine) -> u64 {
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

/// Tells when calls ran out of time through nobody's fault: the process was stopped, or had no processor.
#[derive(Debug, Clone)]
pub(super) struct Clock(Arc<Mutex<Ticks>>);

#[derive(Debug)]
struct Ticks {
    last: Instant,
    /// When the process last went on after it had not run.
    went_on: Option<Instant>,
}

impl Clock {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Ticks { last: Instant::now(), went_on: None })))
    }

    /// The tests that count instructions leave this function out by its name.
    fn tick(&self) {
        let mut ticks = lock(&self.0);
        let now = Instant::now();
        if now - ticks.last > STALL {
            ticks.went_on = Some(now);
        }
        ticks.last = now;
    }

    /// Whether the process has not run for a while since this moment.
    pub(super) fn stood_still_since(&self, moment: Instant) -> bool {
        let ticks = lock(&self.0);
        ticks.went_on.is_some_and(|went_on| went_on >= moment) || ticks.last.elapsed() > STALL
    }
}

/// Advances the engine's epoch on a thread of its own, because a runtime whose threads are all in a plugin does not
/// keep time. Ends with the engine.
fn start_clock(engine: &Engine, lane: Arc<Lane>, clock: Clock) -> anyhow::Result<()> {
    let engine = engine.weak();
    let tick = move || {
        while let Some(engine) = engine.upgrade() {
            clock.tick();
            engine.increment_epoch();
            drop(engine);
            thread::sleep(if lane.is_taken() { SHORT_TICK } else { TICK });
        }
    };
    thread::Builder::new().name("epoch".to_owned()).spawn(tick).context("cannot start the epoch clock")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MAX_CALLS;

    #[test]
    fn a_process_that_was_stopped_is_told_from_one_that_runs() {
        let (clock, begun) = (Clock::new(), Instant::now());
        clock.tick();
        assert!(!clock.stood_still_since(begun));
        thread::sleep(2 * STALL);
        assert!(clock.stood_still_since(begun), "the next tick is overdue");
        clock.tick();
        assert!(clock.stood_still_since(begun) && !clock.stood_still_since(Instant::now()));
    }

    #[test]
    fn the_largest_sum_of_calls_fits_the_pool() {
        // And one more for the checks of each of some plugins.
        let calls = MAX_CALLS + 32;
        let engine = start(calls, &EngineConfig::default(), &Lane::new()).unwrap().0;
        assert!(engine.pooling_allocator_metrics().is_some(), "instances are mapped when they are needed");
    }

    #[test]
    fn what_is_compiled_elsewhere_runs_here() {
        let compatibilities = [Processor::Native, Processor::Any].map(|processor| {
            let settings = EngineConfig { processor, stack: 64 << 20, memory: None };
            let wanted = compatibility(&start(64, &settings, &Lane::new()).unwrap().0);
            assert_eq!(compatibility(&for_compiling(wanted).unwrap()), wanted);
            wanted
        });
        assert_ne!(compatibilities[0], compatibilities[1]);
    }
}
