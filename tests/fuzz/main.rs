//! Runs one target of `hotgate::fuzz` under libFuzzer. `HOTGATE_FUZZ_TARGET` names the target.
#![no_main]

use std::sync::LazyLock;

use hotgate::fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("HOTGATE_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("HOTGATE_FUZZ_TARGET={wanted:?} names no target")).1
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
