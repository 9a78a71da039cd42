//! The status of a slot's generations, and of a component and settings on disk that do not serve.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::plugin::identity::Digest;
use crate::plugin::slot::error::{MAX_REASON, RefusedOnDisk, UnservedReason};
use crate::plugin::slot::generation::Generation;
use crate::plugin::slot::rollout::Staged;
use crate::plugin::status::{GenerationStatus, Stage, Unserved};
use crate::plugin::text::clean;

/// Returns the component and the settings on disk that do not serve.
pub(crate) fn unserved(refused: &RefusedOnDisk) -> Vec<Unserved> {
    let unserved = |what, digest: Option<Digest>, reason: &UnservedReason| {
        let reason = clean(reason.text.as_bytes(), MAX_REASON);
        Unserved { what, digest: digest.map(|digest| digest.full()), reason }
    };
    let component = refused.component.as_ref().map(|reason| unserved("component", reason.digest, reason));
    let settings = refused.settings.as_ref().map(|reason| unserved("settings", None, reason));
    component.into_iter().chain(settings).collect()
}

/// Returns the status of a generation.
pub(crate) fn generation_status(place: &Staged<Generation>) -> GenerationStatus {
    let generation = &place.generation;
    let functions = generation.stats().functions();
    let mut failures = BTreeMap::new();
    for (kind, count) in functions.iter().flat_map(|function| &function.failures) {
        *failures.entry(*kind).or_default() += count;
    }
    let shadow = generation.stats().shadow();
    GenerationStatus {
        generation: generation.number(),
        digest: generation.digest().full(),
        stage: place.stage,
        since: SystemTime::now() - place.since.elapsed(),
        calls: functions.iter().map(|function| function.calls).sum(),
        failures,
        functions,
        last_error: generation.stats().last_error(),
        shadow: (place.stage == Stage::Shadow || shadow.compared > 0).then_some(shadow),
        load_ms: millis(generation.loading),
        compile_ms: generation.compiling.map(millis),
        code_bytes: generation.code(),
        memory_bytes: generation.memory,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
