//! The incarnations of this gateway, which the state folder remembers: what the last ones had sent may still be under
//! way, and must not seem to come from another gateway with the same node id.

use tracing::warn;

use crate::base::state::StateFolder;
use crate::hub::cluster::REMEMBERED;
use crate::hub::cluster::id::Incarnation;

/// The file: one incarnation a line, the newest first.
const FILE: &str = "cluster-incarnations";

/// The most bytes of the file.
const LIMIT: usize = (REMEMBERED + 1) * 17;

/// Chooses a new incarnation. Returns it with the last ones. They have ended: only one gateway can use the state
/// folder. Without a usable folder, they are not known. Blocks.
pub(super) fn next(state: &StateFolder) -> (Incarnation, [Option<Incarnation>; REMEMBERED]) {
    let (own, mut before) = (Incarnation(rand::random()), [None; REMEMBERED]);
    if state.problem().is_some() {
        return (own, before);
    }
    // A file that cannot be read is replaced.
    let file = state.read_private(FILE, LIMIT).ok().flatten().unwrap_or_default();
    let lines = String::from_utf8_lossy(&file);
    let known = lines.lines().filter_map(|line| u64::from_str_radix(line, 16).ok());
    for (place, incarnation) in before.iter_mut().zip(known) {
        *place = Some(Incarnation(incarnation));
    }
    let all = [Some(own)].into_iter().chain(before).flatten().take(REMEMBERED);
    let lines: String = all.map(|incarnation| format!("{incarnation}\n")).collect();
    if let Err(error) = state.write_private(FILE, lines.as_bytes()) {
        warn!(%error, "the state folder does not remember that this gateway has started");
    }
    (own, before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered_the_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(Some(&folder.path().join("state")));
        let mut all = Vec::new();
        for count in 0..REMEMBERED + 3 {
            let (own, before) = next(&state);
            let expected = all.iter().rev().take(REMEMBERED).copied().map(Some).collect::<Vec<_>>();
            assert_eq!(before[..count.min(REMEMBERED)], expected);
            assert!(before[count.min(REMEMBERED)..].iter().all(Option::is_none));
            assert!(!all.contains(&own));
            all.push(own);
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_trusted_and_no_folder_is_no_problem() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(Some(&folder.path().join("state")));
        state.write_private(FILE, b"zz\n\xff\n00000000000000ab\n").unwrap();
        assert_eq!(next(&state).1[..2], [Some(Incarnation(0xab)), None]);
        state.write_private(FILE, &[b'1'; 10_000]).unwrap();
        let (own, before) = next(&state);
        assert_eq!(before, [None; REMEMBERED]);
        assert_eq!(next(&state).1[..2], [Some(own), None]);
        assert_eq!(next(&StateFolder::none("for a test")).1, [None; REMEMBERED]);
    }
}
