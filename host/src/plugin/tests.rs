use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::authenticator::{Handshake, Verdict};
use super::*;
use crate::base::message::ConnectionId;
use crate::base::state::StateFolder;
use crate::config::{
    CompilerConfig, DuplicateLogin, EngineConfig, Isolation, PluginConfig, PluginDeploy, PluginLimits, PluginSource,
    Settings, WatchConfig,
};
use crate::hub::registry::Registry;
use crate::plugin::contract::Function;
use crate::plugin::deploy::candidate::{Code, Wanted};
use crate::plugin::runtime::environment::Environment;
use crate::plugin::slot::call::Wait;

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
const AUTHENTICATOR: Roles = Roles { authenticator: true, router: false };

/// The built-in authenticator with a mark that makes it another plugin.
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

/// A slot with these limits, in a runtime with this much memory.
async fn slot_within(source: PluginSource, limits: PluginLimits, memory: Option<usize>) -> Arc<Slot> {
    let registry = Arc::new(Registry::new(DuplicateLogin::Newest));
    let state = Arc::new(StateFolder::none("a test"));
    let (demand, engine) = (Demand::of(&limits, AUTHENTICATOR), EngineConfig { memory, ..EngineConfig::default() });
    let runtime = Runtime::start(demand, &engine, &CompilerConfig::default(), registry, state).unwrap();
    let plugin = PluginConfig { limits, ..PluginConfig::authenticator(source) };
    let ledgers = Ledgers::open(&runtime, [("authenticator", &plugin)]).await.unwrap();
    Slot::load("authenticator".to_owned(), &plugin, AUTHENTICATOR, runtime, &ledgers).await.unwrap()
}

/// Offers a component as if it stood in the slot's file.
async fn offer(slot: &Slot, code: Vec<u8>) -> Result<(), String> {
    take_over(slot, Wanted { code: Ok(Code::new(code)), environment: Environment::read(slot.settings()) }).await
}

/// Configures a slot, and has it look at its source and its settings.
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

#[tokio::test]
async fn a_swap_decides_the_next_call_and_lets_the_last_one_finish() {
    let slot = builtin_slot().await;
    let old = slot.begin(Function::Greet, Isolation::Pooled, Wait::Bounded, ConnectionId(1), None).await.unwrap();
    let waiting = slot.begin(Function::Greet, Isolation::Pooled, Wait::Unbounded, ConnectionId(1), None);
    let swap = async {
        offer(&slot, marked(b'a')).await.unwrap();
        let number = old.generation.number();
        drop(old);
        number
    };
    let (waited, old) = tokio::join!(waiting, swap);
    // The call that waited was asked for before the swap, and begins after it.
    assert_eq!((old, waited.unwrap().generation.number(), slot.status().live.generation), (1, 2, 2));
    assert_eq!(slot.status().live.digest, digest(&marked(b'a')).full());
    assert!(greet(&slot, Isolation::Pooled).await.unwrap());
}

#[tokio::test]
async fn a_generation_that_is_held_goes_on_after_a_swap() {
    let slot = builtin_slot().await;
    let held = slot.live();
    offer(&slot, marked(b'a')).await.unwrap();
    let call =
        slot.begin(Function::Greet, Isolation::Pooled, Wait::Bounded, ConnectionId(1), Some(held)).await.unwrap();
    assert_eq!((call.generation.number(), slot.live().number()), (1, 2));
}

#[tokio::test]
async fn what_will_not_do_leaves_the_live_one_serving() {
    let slot = builtin_slot().await;
    let whole = marked(b'a');
    let cases: [(&[u8], &str); 9] = [
        (b"", "no WebAssembly component"),
        (b"(component)", "no WebAssembly component"),
        (b"\0asm\x01\0\0\0", "a WebAssembly module, not a component"),
        (b"\0asm\x0c\0\x01\0", "it is a component in an older encoding: rebuild it"),
        (b"\0asm\x0e\0\x01\0", "it is a component in a newer encoding: rebuild it"),
        (b"\0asm\x0b\0\0\0", "no WebAssembly component"),
        (&whole[..8], "wanted are exports of hotgate:gateway/lifecycle@0.1.0"),
        (&whole[..whole.len() / 2], "cannot be compiled"),
        (deploy::builtin::component("origin-router").unwrap(), "it is no authenticator"),
    ];
    for (code, reason) in cases {
        let error = offer(&slot, code.to_vec()).await.unwrap_err();
        assert!(error.contains(reason) && !error.contains('\n'), "{error}");
    }
    assert_eq!(slot.live().number(), 1);
    assert!(greet(&slot, Isolation::PerCall).await.unwrap());
}

#[tokio::test]
async fn pooled_instances_are_used_again_and_replaced_in_time() {
    let slot = builtin_slot().await;
    let live = slot.live();
    for _ in 0..2 {
        greet(&slot, Isolation::PerCall).await.unwrap();
        assert_eq!(live.idle_instances(), 0);
    }
    for idle in [1, 1, 0, 1] {
        greet(&slot, Isolation::Pooled).await.unwrap();
        assert_eq!(live.idle_instances(), idle);
    }
    live.shrink(Duration::from_secs(60));
    assert_eq!(live.idle_instances(), 1);
    live.shrink(Duration::ZERO);
    assert_eq!(live.idle_instances(), 0);
    greet(&slot, Isolation::Pooled).await.unwrap();
    live.retire();
    assert_eq!(live.idle_instances(), 0);
    greet(&slot, Isolation::Pooled).await.unwrap();
    assert_eq!(live.idle_instances(), 0);
}

#[tokio::test]
async fn past_the_concurrency_calls_are_shed_or_wait() {
    let slot = builtin_slot().await;
    let running = slot.begin(Function::Greet, Isolation::PerCall, Wait::Bounded, ConnectionId(1), None).await.unwrap();
    let shed = greet(&slot, Isolation::PerCall).await;
    assert!(matches!(shed, Err(CallError::Overloaded { concurrency: 1, .. })), "{shed:?}");
    let waiting = slot.begin(Function::Greet, Isolation::PerCall, Wait::Unbounded, ConnectionId(1), None);
    let release = async {
        tokio::time::sleep(2 * limits().max_wait).await;
        drop(running);
    };
    let (outcome, ()) = tokio::join!(waiting, release);
    assert!(outcome.is_ok());
}

#[tokio::test]
async fn the_roles_of_a_plugin_do_not_wait_for_each_other() {
    let slot = builtin_slot().await;
    let begin = |function| slot.begin(function, Isolation::PerCall, Wait::Bounded, ConnectionId(1), None);
    let (login, packet) = (begin(Function::Authenticate).await, begin(Function::Route).await);
    assert!(login.is_ok() && packet.is_ok());
    assert!(begin(Function::Greet).await.is_err() && begin(Function::Push).await.is_err());
}

#[tokio::test]
async fn a_call_waits_for_memory_after_idle_instances_have_ended() {
    let builtin = || PluginSource::Builtin(BUILTIN.to_owned());
    let one = builtin_slot().await.live().memory;
    let limits = PluginLimits { concurrency: 2, ..limits() };
    // Enough for one instance.
    let slot = slot_within(builtin(), limits, Some(one * 3 / 2)).await;
    greet(&slot, Isolation::Pooled).await.unwrap();
    assert_eq!((slot.live().idle_instances(), slot.status().memory_bytes), (1, one));
    let begin = |wait| slot.begin(Function::Greet, Isolation::PerCall, wait, ConnectionId(1), None);
    let running = begin(Wait::Bounded).await.unwrap();
    assert_eq!((slot.live().idle_instances(), slot.status().memory_bytes), (0, one));
    let error = begin(Wait::Bounded).await.err().unwrap();
    assert_eq!(error.kind(), "overloaded");
    let (error, total) = (error.to_string(), format!("{} bytes (engine.memory)", one * 3 / 2));
    assert!(error.contains("limits.max_wait") && error.contains(&total), "{error}");
    let (waited, ()) = tokio::join!(begin(Wait::Unbounded), async { drop(running) });
    assert!(waited.is_ok());
}

#[tokio::test]
async fn a_call_that_waits_for_memory_takes_that_of_an_instance_that_becomes_idle() {
    let one = builtin_slot().await.live().memory;
    let limits = PluginLimits { concurrency: 2, ..limits() };
    let slot = slot_within(PluginSource::Builtin(BUILTIN.to_owned()), limits, Some(one * 3 / 2)).await;
    let begin = |isolation| slot.begin(Function::Greet, isolation, Wait::Unbounded, ConnectionId(1), None);
    let running = begin(Isolation::Pooled).await.unwrap();
    let ended = async { slot.live().keep_idle(Function::Greet.role(), running.instance, Instant::now()) };
    let (waited, ()) = tokio::join!(begin(Isolation::PerCall), ended);
    assert!(waited.is_ok() && slot.live().idle_instances() == 0);
}

#[tokio::test]
async fn a_component_that_finds_no_memory_for_its_check_may_be_offered_again() {
    let one = builtin_slot().await.live().memory;
    let slot = slot_within(PluginSource::Builtin(BUILTIN.to_owned()), limits(), Some(one * 3 / 2)).await;
    let running = slot.begin(Function::Greet, Isolation::PerCall, Wait::Bounded, ConnectionId(1), None).await;
    let refused = offer(&slot, marked(b'a')).await.unwrap_err();
    assert!(refused.contains("engine.memory"), "{refused}");
    drop(running);
    offer(&slot, marked(b'a')).await.unwrap();
}

#[tokio::test]
async fn a_slot_with_more_instances_than_calls_keeps_none_idle() {
    let slot = builtin_slot().await;
    let holding = || runtime::memory::Holding::new(slot.spec().account.clone());
    let others = [holding(), holding()];
    greet(&slot, Isolation::Pooled).await.unwrap();
    assert_eq!(slot.live().idle_instances(), 0);
    drop(others);
    greet(&slot, Isolation::Pooled).await.unwrap();
    assert_eq!(slot.live().idle_instances(), 1);
}

#[tokio::test]
async fn the_result_that_a_caller_refuses_is_a_failure() {
    let slot = builtin_slot().await;
    let handshake = Handshake { connection: 1, remote_address: "", path: "/", query: None, headers: &[] };
    let refuse = |_, _: &_| Err::<(), _>(CallError::Result("nonsense".to_owned()));
    let outcome =
        PluginHandle::new(slot.clone(), Isolation::Pooled).greet(None, Caller::Sender, handshake, refuse).await;
    assert_eq!((outcome.unwrap_err().kind(), slot.live().idle_instances()), ("result", 0));
}

#[tokio::test]
async fn the_engine_ends_with_its_last_user() {
    let slot = builtin_slot().await;
    let engine = slot.runtime().engine.weak();
    drop(slot);
    eventually(|| async { engine.upgrade().is_none() }).await;
}

#[test]
fn the_digest_is_what_sha256sum_says() {
    let digest = Digest::of(b"abc");
    assert_eq!(digest.full(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(digest.to_string(), "ba7816bf8f01");
}

async fn eventually<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "it has not come to pass");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether the plugin with this mark comes to live.
async fn becomes(slot: &Slot, mark: u8) {
    let wanted = digest(&marked(mark));
    eventually(|| async { slot.live().digest() == wanted }).await;
}

fn watch(slot: &Arc<Slot>) -> Keepers {
    // Only what the operating system tells counts here.
    let config = WatchConfig { settle: Duration::from_millis(20), rescan: Duration::from_secs(3600) };
    Keepers::start(std::slice::from_ref(slot), &config)
}

fn move_over(file: &Path, code: &[u8]) {
    let new = file.with_extension("new");
    std::fs::write(&new, code).unwrap();
    std::fs::rename(new, file).unwrap();
}

#[tokio::test]
async fn files_are_swapped_in_however_they_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("auth.wasm");
    std::fs::write(&file, marked(b'a')).unwrap();
    let slot = slot(PluginSource::File(file.clone())).await;
    let _watch = watch(&slot);

    std::fs::write(&file, marked(b'b')).unwrap();
    becomes(&slot, b'b').await;
    move_over(&file, &marked(b'c'));
    becomes(&slot, b'c').await;

    let whole = marked(b'd');
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(slot.live().digest(), digest(&marked(b'c')));
    std::fs::write(&file, whole).unwrap();
    becomes(&slot, b'd').await;

    std::fs::remove_file(&file).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(greet(&slot, Isolation::PerCall).await.unwrap());
    std::fs::write(&file, marked(b'e')).unwrap();
    becomes(&slot, b'e').await;

    std::fs::remove_dir_all(folder.path()).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    std::fs::create_dir(folder.path()).unwrap();
    std::fs::write(&file, marked(b'f')).unwrap();
    becomes(&slot, b'f').await;
    assert_eq!(slot.live().number(), 6);
}

#[tokio::test]
async fn links_are_followed_wherever_they_come_to_point() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, path("new")).unwrap();
        std::fs::rename(path("new"), path(name)).unwrap();
    };
    for (name, mark) in [("v1", b'a'), ("v2", b'b')] {
        std::fs::create_dir(path(name)).unwrap();
        std::fs::write(path(name).join("auth.wasm"), marked(mark)).unwrap();
    }
    // As Kubernetes mounts its volumes.
    link("v1", "..data");
    link("..data/auth.wasm", "auth.wasm");
    let slot = slot(PluginSource::File(path("auth.wasm"))).await;
    let _watch = watch(&slot);
    // Until the watch is there.
    tokio::time::sleep(Duration::from_millis(100)).await;

    link("v2", "..data");
    becomes(&slot, b'b').await;
    std::fs::write(path("v2").join("auth.wasm"), marked(b'c')).unwrap();
    becomes(&slot, b'c').await;
    link("v1/auth.wasm", "auth.wasm");
    becomes(&slot, b'a').await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_wins_a_race_of_swaps_and_rollbacks_serves_alone() {
    let slot = builtin_slot().await;
    let mut racing = tokio::task::JoinSet::new();
    for mark in 0..6 {
        let (own, back) = (slot.clone(), slot.clone());
        racing.spawn(async move { offer(&own, marked(b'a' + mark)).await.is_ok() });
        racing.spawn(async move {
            tokio::time::sleep(Duration::from_millis(u64::from(mark) * 40)).await;
            back.rollback(None).await.is_ok()
        });
        racing.spawn({
            let slot = slot.clone();
            async move { greet(&slot, Isolation::Pooled).await.is_ok() }
        });
    }
    while racing.join_next().await.transpose().unwrap().is_some() {}
    let status = slot.status();
    assert_eq!(status.live.generation, slot.live().number());
    assert!(status.candidate.is_none());
    let refused = |event: &&status::Event| event.what == status::EventKind::RolledBack;
    for event in status.history.iter().filter(refused) {
        assert_ne!(event.generation, Some(status.live.generation), "what was rolled back serves");
        assert_ne!(event.generation, status.previous.as_ref().map(|kept| kept.generation));
    }
    for generation in slot.state(|state| state.rollout.generations()) {
        assert!(generation.idle_instances() == 0 || generation.number() == slot.live().number());
    }
    assert!(greet(&slot, Isolation::Pooled).await.unwrap());
}

#[tokio::test]
async fn what_was_rolled_back_is_not_offered_again_until_somebody_insists() {
    let slot = builtin_slot().await;
    offer(&slot, marked(b'a')).await.unwrap();
    slot.rollback(None).await.unwrap();
    assert_eq!(slot.live().number(), 1);
    let refused = offer(&slot, marked(b'a')).await.unwrap_err();
    assert!(refused.contains("it was rolled back with these settings") && refused.contains("an operator"), "{refused}");
    offer(&slot, marked(b'b')).await.unwrap();
    assert_eq!(slot.status().live.generation, 3);
    assert!(slot.rollback(None).await.is_ok() && slot.rollback(None).await.is_err());
}

#[tokio::test]
async fn other_settings_make_another_generation_and_no_compilation() {
    let slot = builtin_slot().await;
    let settings = |value: &str| Settings::from_iter([("KEY".to_owned(), value.to_owned())]);
    configure(&slot, &settings("1"), &PluginDeploy::default()).await.unwrap();
    configure(&slot, &settings("1"), &PluginDeploy::default()).await.unwrap();
    assert_eq!(slot.live().number(), 2);
    slot.rollback(None).await.unwrap();
    assert_eq!((slot.live().number(), slot.live().environment().values.len()), (1, 0));
    let refused = configure(&slot, &settings("1"), &PluginDeploy::default()).await.unwrap_err();
    assert!(refused.contains("it was rolled back"), "{refused}");
    configure(&slot, &settings("2"), &PluginDeploy::default()).await.unwrap();
    assert_eq!(slot.live().environment().values["KEY"], "2");
    assert!(!format!("{:?}", slot.status()).contains("KEY"));
}

#[tokio::test]
async fn a_canary_serves_its_share_of_the_connections_that_open_from_now_on() {
    let slot = builtin_slot().await;
    let deploy = PluginDeploy { canary: 25, ..PluginDeploy::default() };
    configure(&slot, &Settings::default(), &deploy).await.unwrap();
    let before: Vec<_> = (0..1000).map(|_| ConnectionId::next()).collect();
    offer(&slot, marked(b'a')).await.unwrap();
    let after: Vec<_> = (0..1000).map(|_| ConnectionId::next()).collect();
    let served = |connections: &[ConnectionId]| {
        connections.iter().filter(|connection| slot.serving(**connection).number() == 2).count()
    };
    assert_eq!(served(&before), 0);
    assert!((200..300).contains(&served(&after)), "{}", served(&after));
    slot.promote(None).await.unwrap();
    assert_eq!((served(&before), served(&after)), (1000, 1000));
}

#[tokio::test]
async fn putting_back_what_is_live_withdraws_the_candidate() {
    let slot = builtin_slot().await;
    let deploy = PluginDeploy { shadow: 100, ..PluginDeploy::default() };
    configure(&slot, &Settings::default(), &deploy).await.unwrap();
    offer(&slot, marked(b'a')).await.unwrap();
    assert_eq!(slot.status().candidate.unwrap().stage, status::Stage::Shadow);
    let live = deploy::builtin::component(BUILTIN).unwrap().to_vec();
    offer(&slot, live.clone()).await.unwrap();
    assert!(slot.status().candidate.is_none());
    offer(&slot, marked(b'a')).await.unwrap();
    assert!(slot.status().candidate.is_some(), "it was not refused");
}
