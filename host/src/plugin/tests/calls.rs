//! Calls: which generation serves them, and what they wait for.

use super::*;
use crate::base::message::ConnectionId;
use crate::plugin::contract::Function;
use crate::plugin::slot::call::Wait;

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
    // The waiting call was requested before the swap and begins after it.
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
