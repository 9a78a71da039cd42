//! What is read from strangers, from files and from plugins, as functions of bytes. Each panics where something does not
//! hold, and is tried twice: on the corpus in `tests/fuzz` by a test, and on whatever a fuzzer makes of it.

use crate::edge::{text, websocket};
use crate::{config, devkit, plugin, policy};

/// Reads some bytes, and panics when a promise is broken.
pub type Target = fn(&[u8]);

/// All targets. Each has a folder of its name in `tests/fuzz/corpus`.
pub const TARGETS: [(&str, Target); 7] = [
    ("head", websocket::fuzz::head),
    ("frames", websocket::fuzz::frames),
    ("lines", text::fuzz::lines),
    ("settings", config::fuzz::settings),
    ("cases", devkit::fuzz::cases),
    ("component", component),
    ("returned", policy::fuzz::returned),
];

/// A component is inspected before it is compiled, and by its author's `hotgate plugin check`.
fn component(bytes: &[u8]) {
    plugin::fuzz::inspect(bytes);
    devkit::fuzz::check(bytes);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;

    /// How long anything in the corpus may take. Most of it takes less than a millisecond.
    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn the_corpus_breaks_no_promise() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        for (name, target) in TARGETS {
            let mut tried = 0;
            for entry in fs::read_dir(corpus.join(name)).expect("each target has a folder") {
                let path = entry.expect("a readable folder").path();
                let bytes = fs::read(&path).expect("a readable file");
                eprintln!("{}", path.display());
                let begun = Instant::now();
                target(&bytes);
                assert!(begun.elapsed() < PATIENCE, "{} takes {:?}", path.display(), begun.elapsed());
                tried += 1;
            }
            assert!(tried > 0, "nothing is in the folder of {name}");
        }
    }
}
