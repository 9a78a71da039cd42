//! Plugins in a slot: what the tests of calls and of swaps share.

mod calls;
mod swaps;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::authenticator::{Handshake, Verdict};
use super::*;
use crate::base::state::StateFolder;
use crate::config::{
    CompilerConfig, DuplicateLogin, EngineConfig, Isolation, PluginConfig, PluginDeploy, PluginLimits, PluginSource,
    Settings,
};
use crate::hub::registry::Registry;
use crate::plugin::deploy::candidate::{Code, Wanted};
use crate::plugin::runtime::environment::Environment;

pub(crate) fn limits() -> PluginLimits {
    PluginLimits {
        deadline: Duration::from_millis(500),
        max_wait: Duration::from_millis(50),
        concurrency: 1,
        recycle_after: 3,
        ..PluginLimits::default()
    }
}

const BUILTIN: &str = "origin-auth";
const AUTHENTICATOR: Roles = Roles { authenticator: true, router: false, publications: false };

/// Returns the built-in authenticator with a mark that makes it another component.
fn marked(mark: u8) -> Vec<u8> {
    let mut code = deploy::builtin::component(BUILTIN).unwrap().to_vec();
    // A custom section: its length, the length of its name, its name.
    code.extend([0, 2, 1, mark]);
    code
}

fn digest(code: &[u8]) -> Digest {
    Digest::of(code)
}

async fn slot(source: PluginSource) -> Arc<Slot> {
    slot_within(source, limits(), None).await
}

/// Creates a slot with these limits, in a runtime with this much memory.
async fn slot_within(source: PluginSource, limits: PluginLimits, memory: Option<usize>) -> Arc<Slot> {
    let registry = Arc::new(Registry::new(DuplicateLogin::Newest));
    let state = Arc::new(StateFolder::none("a test"));
    let (demand, engine) = (Demand::of(&limits, AUTHENTICATOR), EngineConfig { memory, ..EngineConfig::default() });
    let runtime = Runtime::start(demand, &engine, &CompilerConfig::default(), registry, state).unwrap();
    let plugin = PluginConfig { limits, ..PluginConfig::authenticator(source) };
    let ledgers = Ledgers::open(&runtime, [("authenticator", &plugin)]).await.unwrap();
    Slot::load("authenticator".to_owned(), &plugin, AUTHENTICATOR, runtime, &ledgers).await.unwrap()
}

/// Offers a component as if it had been read from the slot's file.
async fn offer(slot: &Slot, code: Vec<u8>) -> Result<(), String> {
    take_over(slot, Wanted { code: Ok(Code::new(code)), environment: Environment::read(slot.settings()) }).await
}

/// Configures a slot, and has it check its source and its settings.
async fn configure(slot: &Slot, settings: &Settings, deploy: &PluginDeploy) -> Result<(), String> {
    slot.configure(settings, deploy, false);
    take_over(slot, Wanted::read(slot.spec(), slot.settings()).await.unwrap()).await
}

async fn take_over(slot: &Slot, wanted: Wanted) -> Result<(), String> {
    let refused = slot.take_over(wanted, || true).await.unwrap().expect("it is current");
    refused.reasons().next().map_or(Ok(()), |reason| Err(reason.text.clone()))
}

async fn builtin_slot() -> Arc<Slot> {
    slot(PluginSource::Builtin(BUILTIN.to_owned())).await
}

async fn greet(slot: &Arc<Slot>, isolation: Isolation) -> Result<bool, CallError> {
    let handshake = Handshake { connection: 1, remote_address: "", path: "/", query: None, headers: &[] };
    let read = |verdict, _: &_| Ok(matches!(verdict, Verdict::Challenge(_)));
    PluginHandle::new(slot.clone(), isolation).greet(None, Caller::Sender, handshake, read).await
}

async fn eventually<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "the condition has not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
