//! Tests of the plugins' log with plugins that write too much.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::*;
use crate::config::PluginLimits;
use crate::plugin::identity::Digest;
use crate::plugin::runtime::log::{GuestLog, LogNames, line_limit};
use crate::plugin::runtime::turns::{FairQueue, SlowCalls};

const LINE_BYTES: usize = 1024;

/// Subscribes to the log: lines are kept only if somebody reads them.
fn heard() -> tracing::subscriber::DefaultGuard {
    tracing::subscriber::set_default(tracing_subscriber::registry())
}

fn output() -> Output {
    let names = LogNames { slot: "router".into(), plugin: "test".into(), generation: 1, digest: Digest::of(b"") };
    let limits = PluginLimits::default();
    let log = GuestLog::new(names, line_limit(&limits), LINE_BYTES);
    let turns = Turns::new(FairQueue::new().share(), SlowCalls::new());
    Output::new(Arc::new(InstanceLog::new(Arc::new(log), &limits)), turns, Level::Info)
}

#[test]
fn pieces_make_lines_and_the_words_of_a_call() {
    let _heard = heard();
    let output = output();
    output.push(b"thread panicked");
    output.push(b" at lib.rs\nno way");
    assert_eq!(output.0.text.lock().line, b"no way");
    assert_eq!(output.end_call(), "thread panicked at lib.rs no way");
    assert_eq!(output.end_call(), "");
}

#[test]
fn lines_past_what_a_call_may_say_are_counted_and_not_looked_at() {
    let _heard = heard();
    let output = output();
    output.0.log.begin_call(Instant::now() + Duration::from_secs(60), None);
    let begun = Instant::now();
    for _ in 0..100 {
        output.push(&[b'\n'; 64 << 10]);
    }
    assert_eq!(output.0.log.said.load(Relaxed), 48);
    assert_eq!(output.0.log.dropped.load(Relaxed), 100 * (64 << 10) - 48);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn what_a_call_hands_over_is_counted_in_all_and_against_its_time() {
    let output = output();
    let mut write = output.clone();
    output.0.log.begin_call(Instant::now() + Duration::from_secs(60), None);
    let ask = |write: &mut Output| {
        write.0.turns.begin(None, Instant::now());
        while write.check_write().unwrap() == 0 {
            write.0.turns.begin(None, Instant::now());
        }
    };
    let most = output.0.log.bytes / MAX_WRITE;
    let bytes = bytes::Bytes::from_static(&[0; MAX_WRITE + 1]);
    for _ in 0..most {
        ask(&mut write);
        write.write(bytes.slice(..MAX_WRITE)).unwrap();
    }
    let is_trap = |result: StreamResult<()>, words: &str| {
        let Err(StreamError::Trap(error)) = result else { return false };
        error.to_string().contains(words)
    };
    ask(&mut write);
    assert!(is_trap(write.write(bytes.clone()), "more than check-write had allowed"));
    assert!(is_trap(write.write(bytes.slice(..MAX_WRITE)), "it handed the host"));
    assert!(is_trap(write.write(bytes.slice(..1)), "more than check-write had allowed"));
    // Write until the turn ends.
    output.0.log.begin_call(Instant::now() + Duration::from_secs(60), None);
    let turn = Instant::now();
    while write.check_write().unwrap() > 0 {
        assert!(turn.elapsed() < Duration::from_secs(10), "a turn ends");
    }
    output.0.log.begin_call(Instant::now(), None);
    assert!(is_trap(write.write(bytes.slice(..0)), "interrupt"));
    assert!(is_trap(write.check_write().map(drop), "interrupt"));
}

#[test]
fn what_is_kept_of_a_flood_is_bounded() {
    let _heard = heard();
    let output = output();
    for _ in 0..1000 {
        output.push(&[b'x'; 4096]);
    }
    let text = output.0.text.lock();
    assert_eq!((text.line.len(), text.words.len()), (LINE_BYTES + 1, MAX_LAST_WORDS));
}
