//! Turns the bytes of a component into machine code.
//!
//! Compiling takes seconds of processor time and hundreds of megabytes of memory, and the engine would keep this
//! memory. A hostile component may take far more of both. So a process of its own compiles (`child`), at the lowest
//! priority and within limits, and the machine code is kept (`cache`). This process only maps the machine code into its
//! memory.

mod cache;
pub(crate) mod child;
mod confine;
pub(super) mod encoding;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod inspect;
mod machine_code;
mod process;
mod startup;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{debug, info};
use wasmtime::Engine;
use wasmtime::component::Component;

use self::cache::{Cache, FORMAT};
use self::encoding::Encoding;
pub(crate) use self::error::CompileError;
use self::inspect::{RULES, resources};
use self::machine_code::MachineCode;
use crate::base::state::StateFolder;
use crate::config::CompilerConfig;
use crate::plugin::engine::compatibility;
use crate::plugin::identity::Digest;
use crate::plugin::text::plain;

/// What to do with code that is no component.
const BUILD: &str = "in Rust, build it for wasm32-wasip2; `hotgate plugin check` says more";

/// Checks that the code begins like a component.
///
/// # Errors
/// If the code is something else. The error says what it is, and what to do.
fn check_encoding(code: &[u8]) -> anyhow::Result<()> {
    let needed = Encoding::VERSION;
    match Encoding::of(code) {
        Encoding::Component => Ok(()),
        Encoding::Empty => bail!("the file is empty: build the plugin again"),
        Encoding::Module => bail!("it is a WebAssembly module, not a component: {BUILD}"),
        Encoding::OtherVersion(version) => {
            let rebuild = match version < needed {
                true => "an older encoding: rebuild it with current tools",
                false => "a newer encoding: rebuild it with older tools, or take a newer gateway",
            };
            bail!("it is a component in {rebuild} (it has version {version}, {needed} is needed)")
        }
        Encoding::Unknown | Encoding::Text | Encoding::Other => bail!("it is not a WebAssembly component: {BUILD}"),
    }
}

/// How long a component is compiled alone. After this time, the next one is compiled beside it. Most components take
/// less time, so a start with many plugins compiles them one after the other, in the memory of one compiler.
const LONGEST_ALONE: Duration = Duration::from_secs(2);

/// Compiles components outside this process: one at a time, except beside components that take longer than
/// `LONGEST_ALONE`. A slot compiles one component at a time, so there are never more compilers than slots.
#[derive(Debug, Clone)]
pub(crate) struct Compiler {
    config: CompilerConfig,
    cache: Arc<Cache>,
    turn: Arc<Mutex<()>>,
}

/// A compiled component, ready to be linked.
pub(crate) struct Compiled {
    pub(crate) component: Component,
    /// How long compiling took, now or in an earlier run.
    pub(crate) took: Duration,
    /// True if the machine code came from the cache.
    pub(crate) cached: bool,
}

impl Compiler {
    pub(crate) fn new(config: &CompilerConfig, state: &StateFolder) -> Self {
        let cache = Arc::new(Cache::new(state.clone(), config.max_code));
        Self { config: config.clone(), cache, turn: Arc::default() }
    }

    /// Returns the compiled component, from the cache if possible. `digest` is the digest of `code`.
    ///
    /// # Errors
    /// If the code is not a component; or a [`CompileError`].
    pub(crate) async fn compile(&self, engine: &Engine, code: &[u8], digest: Digest) -> anyhow::Result<Compiled> {
        check_encoding(code)?;
        let begun = Instant::now();
        let name = format!("{}-{:016x}-{RULES}-{FORMAT}", digest.full(), compatibility(engine));

        let compiled = match self.find(engine, &name).await {
            Some(compiled) => compiled,
            None => {
                let turn = self.turn.lock().await;
                // Another slot may have compiled the component meanwhile.
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
        if compiled.cached {
            debug!(%digest, took = ?begun.elapsed(), "compiled plugin found in the cache");
        } else {
            info!(%digest, took = ?compiled.took, "plugin compiled");
        }
        Ok(compiled)
    }

    async fn find(&self, engine: &Engine, name: &str) -> Option<Compiled> {
        let (machine_code, took) = self.cache.load(name).await?;
        match map(engine, &Arc::new(machine_code)).await {
            Ok(component) => Some(Compiled { component, took, cached: true }),
            Err(error) => {
                self.cache.discard(name, &format!("{error:#}")).await;
                None
            }
        }
    }

    async fn make(&self, engine: &Engine, name: &str, code: &[u8]) -> anyhow::Result<Compiled> {
        let begun = Instant::now();
        let machine_code = match compile(engine, code, &self.config).await {
            // Try once more: the signal may not have been meant for this compiler.
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
        // The binary of the unit tests cannot run as the compiler.
        let mut output = MachineCode::create()?;
        let answer = child::answer(engine, child::Job::new(engine, code, config), code, &mut output)?;
        return child::understand(answer, output, config);
    }
    process::compile(engine, code, config).await
}

/// Maps machine code into memory, ready to run. Does this on a thread that serves no connections.
async fn map(engine: &Engine, machine_code: &Arc<MachineCode>) -> anyhow::Result<Component> {
    let (engine, machine_code) = (engine.clone(), machine_code.clone());
    let map = move || {
        // SAFETY: `Component::serialize` made this code: just now, by our own binary, in a file that nobody else can
        // write to; or earlier, in a file with the right digest, in a folder that only our own user can write to.
        // A user who can change one of these files can change this process as well.
        #[allow(unsafe_code)]
        let component = unsafe { machine_code.map(&engine) }?;
        // Prepare the memory image now, not during the first call.
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

        // An entry with the right digest that is not machine code.
        let name = state.files("compiled").unwrap().remove(0).name;
        first.cache.store(&name, Arc::new(MachineCode::of(b"nonsense")), Duration::ZERO).await;
        assert!(!cached(&compiler(&state)).await);
        assert!(cached(&compiler(&state)).await);

        assert!(!cached(&compiler(&StateFolder::none("for a test"))).await);
    }
}
