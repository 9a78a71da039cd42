//! From the bytes of a component to machine code.

use anyhow::{Context as _, anyhow};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use wasmtime::Engine;
use wasmtime::component::Component;

/// Compiles components, one at a time and away from the threads that serve connections.
#[derive(Debug, Default)]
pub(super) struct Compiler {
    turn: Mutex<()>,
}

impl Compiler {
    /// Compiles a component in its binary form. Text is refused: a note dropped into the wrong folder is no program.
    pub(super) async fn compile(&self, engine: &Engine, code: Vec<u8>) -> anyhow::Result<Component> {
        let _turn = self.turn.lock().await;
        let engine = engine.clone();
        let compile = move || {
            let component = Component::from_binary(&engine, &code)?;
            // Now and not during the first call.
            component.initialize_copy_on_write_image()?;
            wasmtime::Result::Ok(component)
        };
        let compiled = spawn_blocking(compile).await.map_err(|panic| anyhow!("the compiler failed on it: {panic}"))?;
        compiled.map_err(super::plain).context("it is no WebAssembly component that can be compiled")
    }
}
