//! From the bytes of a component to machine code.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::metrics::METRICS;

/// How the two binary formats begin: a magic number, then version and layer.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// How long others wait for one compilation. It cannot be interrupted, only left behind.
const LONGEST: Duration = Duration::from_secs(120);

/// Compiles components, one at a time and away from the threads that serve connections.
#[derive(Debug, Default)]
pub(super) struct Compiler {
    turn: Mutex<()>,
}

impl Compiler {
    /// Compiles a component.
    pub(super) async fn compile(&self, engine: &Engine, code: Vec<u8>) -> anyhow::Result<Component> {
        if code.starts_with(MODULE) {
            bail!("it is a WebAssembly module, not a component (in Rust, compile for wasm32-wasip2)");
        }
        if !code.starts_with(COMPONENT) {
            bail!("it is no WebAssembly component");
        }
        let _turn = self.turn.lock().await;
        let engine = engine.clone();
        let compile = move || {
            let component = Component::from_binary(&engine, &code)?;
            // Now and not during the first call.
            component.initialize_copy_on_write_image()?;
            wasmtime::Result::Ok(component)
        };
        let begun = Instant::now();
        let compiled = timeout(LONGEST, spawn_blocking(compile)).await;
        let compiled = compiled.map_err(|_| anyhow!("it was not compiled after {LONGEST:?}"))?;
        let compiled = compiled.map_err(|panic| anyhow::Error::new(panic).context("the compiler failed on it"))?;
        METRICS.plugin_compile_seconds.observe(begun.elapsed());
        compiled.map_err(super::plain).context("it cannot be compiled")
    }
}
