//! Fuzz targets: functions that read bytes as they come from strangers, from files and from plugins. A target panics if
//! a guarantee does not hold. A test runs every target on the corpus in `tests/fuzz`, and a fuzzer runs it on new
//! input.

use crate::edge::{text, websocket};
use crate::{config, devkit, plugin, policy};

/// A function that reads some bytes, and panics if a guarantee does not hold.
pub type Target = fn(&[u8]);

/// All targets. Each has a folder with its name in `tests/fuzz/corpus`.
pub const TARGETS: [(&str, Target); 7] = [
    ("head", websocket::fuzz::head),
    ("frames", websocket::fuzz::frames),
    ("lines", text::fuzz::lines),
    ("settings", config::fuzz::settings),
    ("cases", devkit::fuzz::cases),
    ("component", component),
    ("returned", policy::fuzz::returned),
];

/// Inspects a component, as the gateway does before compiling it, and as `hotgate plugin check` does for its author.
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

    /// The longest time for one file of the corpus. Most files take less than a millisecond.
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
            assert!(tried > 0, "the folder of {name} is empty");
        }
    }
}
