//! From the bytes of a component to machine code.
//!
//! Compiling takes seconds of a core and hundreds of megabytes, which the engine would keep, and how much of both is up
//! to who wrote the component. So a process of its own does it (`child`), at the lowest priority and within bounds, and
//! what comes out is kept (`cache`). What is left to do here is to map it.

mod cache;
pub(crate) mod child;
mod confine;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod inspect;
mod machine_code;
mod process;
mod startup;

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{debug, info};
use wasmtime::Engine;
use wasmtime::component::Component;

use self::cache::{Cache, FORMAT};
pub(crate) use self::error::CompileError;
use self::inspect::{RULES, resources};
use self::machine_code::MachineCode;
use crate::base::state::StateFolder;
use crate::config::CompilerConfig;
use crate::plugin::engine::compatibility;
use crate::plugin::identity::Digest;
use crate::plugin::text::plain;

/// How the binary formats of modules and components begin.
const MAGIC: &[u8] = b"\0asm";
/// Then follow version and layer, two bytes each, the lower first.
const MODULE: [u8; 4] = [1, 0, 0, 0];
const VERSION: u16 = 13;
const LAYER: u16 = 1;

/// Checks that this begins as a component does.
///
/// # Errors
/// What it is instead.
fn check_encoding(code: &[u8]) -> anyhow::Result<()> {
    let Some(&[a, b, c, d]) = code.strip_prefix(MAGIC).and_then(|rest| rest.first_chunk()) else {
        bail!("it is no WebAssembly component");
    };
    let (version, layer) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
    if [a, b, c, d] == MODULE {
        bail!("it is a WebAssembly module, not a component (in Rust, compile for wasm32-wasip2)");
    }
    ensure!(layer == LAYER, "it is no WebAssembly component");
    let rebuild = match version.cmp(&VERSION) {
        Ordering::Equal => return Ok(()),
        Ordering::Less => "an older encoding: rebuild it with current tools",
        Ordering::Greater => "a newer encoding: rebuild it with older tools, or take a newer gateway",
    };
    bail!("it is a component in {rebuild} (it has version {version}, {VERSION} is needed)");
}

/// How long a component may be compiled before others are compiled beside it. Most take less: they are compiled one after
/// the other, so that a start with many plugins takes the memory of one compiler.
const LONGEST_ALONE: Duration = Duration::from_secs(2);

/// Compiles components outside the process, one at a time for as long as none takes long. A slot has one compiled at a
/// time, so there are never more than slots.
#[derive(Debug, Clone)]
pub(crate) struct Compiler {
    config: CompilerConfig,
    cache: Arc<Cache>,
    turn: Arc<Mutex<()>>,
}

/// A component that can be linked.
pub(crate) struct Compiled {
    pub(crate) component: Component,
    /// How long compiling took, now or before.
    pub(crate) took: Duration,
    /// Whether it had been compiled before.
    pub(crate) cached: bool,
}

impl Compiler {
    pub(crate) fn new(config: &CompilerConfig, state: &StateFolder) -> Self {
        let cache = Arc::new(Cache::new(state.clone(), config.max_code));
        Self { config: config.clone(), cache, turn: Arc::default() }
    }

    /// Compiles a component, whose digest this is, unless that has been done before.
    ///
    /// # Errors
    /// When it is no component, or a [`CompileError`].
    pub(crate) async fn compile(&self, engine: &Engine, code: &[u8], digest: Digest) -> anyhow::Result<Compiled> {
        check_encoding(code)?;
        let begun = Instant::now();
        let name = format!("{}-{:016x}-{RULES}-{FORMAT}", digest.full(), compatibility(engine));

        let compiled = match self.find(engine, &name).await {
            Some(compiled) => compiled,
            None => {
                let turn = self.turn.lock().await;
                // It may have been compiled for another slot meanwhile.
                match self.find(engine, &name).await {
                    Some(compiled) => compiled,
                    None => {
                        let mut making = Box::pin(self.make(engine, &name, code));
                        let made = timeout(LONGEST_ALONE, &mut making).await;
                        drop(turn);
                        match made {
                            Ok(made) => made?,
                            Err(_) => making.await?,
                        }
                    }
                }
            }
        };
        resources(&compiled.component)?;
        let took = begun.elapsed();
        if compiled.cached {
            debug!(%digest, ?took, "plugin found compiled");
        } else {
            info!(%digest, ?took, "plugin compiled");
        }
        Ok(compiled)
    }

    async fn find(&self, engine: &Engine, name: &str) -> Option<Compiled> {
        let (machine_code, took) = self.cache.load(name).await?;
        match map(engine, &Arc::new(machine_code)).await {
            Ok(component) => Some(Compiled { component, took, cached: true }),
            Err(error) => {
                self.cache.ignore(name, &format!("{error:#}")).await;
                None
            }
        }
    }

    async fn make(&self, engine: &Engine, name: &str, code: &[u8]) -> anyhow::Result<Compiled> {
        let begun = Instant::now();
        let machine_code = match compile(engine, code, &self.config).await {
            // Whoever ended it may not have meant it.
            Err(CompileError::Killed { .. }) => compile(engine, code, &self.config).await?,
            done => done?,
        };
        let machine_code = Arc::new(machine_code);
        let component = map(engine, &machine_code).await?;
        let took = begun.elapsed();
        self.cache.store(name, machine_code, took).await;
        Ok(Compiled { component, took, cached: false })
    }
}

async fn compile(engine: &Engine, code: &[u8], config: &CompilerConfig) -> Result<MachineCode, CompileError> {
    if cfg!(test) {
        // The binary of the unit tests cannot be its own compiler.
        let mut output = MachineCode::create()?;
        let answer = child::answer(engine, child::Job::new(engine, code, config), code, &mut output)?;
        return child::understand(answer, output, config);
    }
    process::compile(engine, code, config).await
}

/// Makes machine code ready to run, away from the threads that serve connections.
async fn map(engine: &Engine, machine_code: &Arc<MachineCode>) -> anyhow::Result<Component> {
    let (engine, machine_code) = (engine.clone(), machine_code.clone());
    let map = move || {
        // SAFETY: `Component::serialize` made this: just now, by our own binary, in a file that nobody else can write to; or
        // earlier, in a file whose digest was right, in a folder that only our own user can write to. Whoever can change
        // either of them can change this process as well.
        #[allow(unsafe_code)]
        let component = unsafe { machine_code.map(&engine) }?;
        // Now and not during the first call.
        component.initialize_copy_on_write_image()?;
        wasmtime::Result::Ok(component)
    };
    spawn_blocking(map).await?.map_err(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::deploy::builtin;
    use crate::plugin::engine;

    fn compiler(state: &StateFolder) -> Compiler {
        Compiler::new(&CompilerConfig::default(), state)
    }

    #[tokio::test]
    async fn what_has_been_compiled_once_is_found_again() {
        let place = tempfile::tempdir().unwrap();
        let state = StateFolder::open(Some(&place.path().join("state")));
        let engine = engine::start(1, &Default::default()).unwrap();
        let code = builtin::component("origin-auth").unwrap();
        let cached =
            async |compiler: &Compiler| compiler.compile(&engine, code, Digest::of(code)).await.unwrap().cached;
        let first = compiler(&state);
        assert!(!cached(&first).await);
        assert!(cached(&first).await);
        assert!(cached(&compiler(&state)).await);

        // Right by its digest, and no machine code.
        let name = state.files("compiled").unwrap().remove(0).name;
        first.cache.store(&name, Arc::new(MachineCode::of(b"nonsense")), Duration::ZERO).await;
        assert!(!cached(&compiler(&state)).await);
        assert!(cached(&compiler(&state)).await);

        assert!(!cached(&compiler(&StateFolder::none("for a test"))).await);
    }
}
