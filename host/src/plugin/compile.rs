//! From the bytes of a component to machine code.

use anyhow::{Context as _, anyhow, bail};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use wasmtime::Engine;
use wasmtime::component::Component;

/// How the two binary formats begin: a magic number, then version and layer.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

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
        let compiled = spawn_blocking(compile).await.map_err(|panic| anyhow!("the compiler failed on it: {panic}"))?;
        compiled.map_err(super::plain).context("it cannot be compiled")
    }
}
