//! The ids of connections in a cluster: the state folder remembers up to where they may have been given out, so that no
//! id is given out twice, even if the clock is set back between two starts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::warn;

use crate::base::message::ConnectionId;
use crate::base::state::StateFolder;

/// The file: the last id that may have been given out, in decimal, without the node.
const FILE: &str = "cluster-connection-ids";

/// The most bytes of the file: a number of 20 digits and the end of the line.
const LIMIT: usize = 21;

/// The ids that are reserved at a time. No gateway gives out so many in a day: it writes the file at its start, and
/// then hardly ever. A gateway that starts again goes on behind them, which is 18 minutes in the ids' microseconds.
const RESERVED: u64 = 1 << 30;

/// The time between two looks at how many reserved ids are left. In this time, half of them would be used up at 8
/// million connections a second.
const LOOK: Duration = Duration::from_secs(60);

/// A number in the file above this one is not believed: ids would come to their end. Ids that count microseconds come
/// here in the year 2255.
const LARGEST: u64 = 1 << 53;

/// The ids of this gateway's connections.
#[derive(Debug, Clone)]
pub(super) struct ConnectionIds {
    /// The last id that the state folder remembers, without the node.
    reserved: u64,
    state: Arc<StateFolder>,
}

impl ConnectionIds {
    /// Begins to number the connections of this node: at the wall clock in microseconds, and above all ids that the
    /// state folder remembers. Without a usable folder, only the clock counts.
    pub(super) async fn begin(node: u16, state: Arc<StateFolder>) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_micros()).unwrap_or_default();
        let of = state.clone();
        let reserving = spawn_blocking(move || reserve_first(&of, now));
        // Fails only if the task panics.
        let (first, reserved) = reserving.await.unwrap_or((now, now));
        ConnectionId::begin(node, first);
        Self { reserved, state }
    }

    /// Reserves more ids before they are used up. Never returns.
    pub(super) async fn keep_ahead(mut self) {
        loop {
            sleep(LOOK).await;
            if let Some(next) = due(ConnectionId::newest().count(), self.reserved) {
                let state = self.state.clone();
                if spawn_blocking(move || remember(&state, next)).await.unwrap_or_default() {
                    self.reserved = next;
                }
            }
        }
    }
}

/// Returns the next id to remember, if half of the reserved ids are used up.
fn due(newest: u64, reserved: u64) -> Option<u64> {
    (reserved.saturating_sub(newest) < RESERVED / 2).then(|| newest.saturating_add(RESERVED))
}

/// Reserves the first ids. Returns the numbers after which they begin and up to which they are reserved. Blocks.
fn reserve_first(state: &StateFolder, now: u64) -> (u64, u64) {
    if state.problem().is_some() {
        // There is nothing to write, now or later.
        return (now, u64::MAX);
    }
    let remembered = match state.read_private(FILE, LIMIT) {
        Ok(None) => 0,
        Ok(Some(file)) => read(&file).unwrap_or_else(|| {
            warn!(file = FILE, "the state folder remembers no usable id of a connection: ids begin at the clock");
            0
        }),
        Err(error) => {
            warn!(%error, "the ids of connections begin at the clock");
            0
        }
    };
    let first = now.max(remembered);
    let last = first.saturating_add(RESERVED);
    (first, if remember(state, last) { last } else { first })
}

/// Reads the file.
fn read(file: &[u8]) -> Option<u64> {
    let number: u64 = std::str::from_utf8(file).ok()?.trim().parse().ok()?;
    (number <= LARGEST).then_some(number)
}

/// Remembers the last id that may be given out. Returns `false` if that fails. Blocks.
fn remember(state: &StateFolder, last: u64) -> bool {
    let written = state.write_private(FILE, format!("{last}\n").as_bytes());
    if let Err(error) = &written {
        warn!(%error, "the state folder does not remember which ids connections have had");
    }
    written.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_796_000_000_000_000;

    fn first(state: &StateFolder, now: u64) -> u64 {
        let (first, reserved) = reserve_first(state, now);
        assert_eq!(reserved, first + RESERVED);
        first
    }

    #[test]
    fn ids_go_on_above_all_that_may_have_been_given_out() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(Some(&folder.path().join("state")));
        assert_eq!(first(&state, NOW), NOW);
        // Within the same microsecond, and after the clock was set back by an hour.
        assert_eq!(first(&state, NOW), NOW + RESERVED);
        assert_eq!(first(&state, NOW - 3_600_000_000), NOW + 2 * RESERVED);
        // The clock is ahead again.
        assert_eq!(first(&state, NOW + 9 * RESERVED), NOW + 9 * RESERVED);
        assert!(remember(&state, NOW + 20 * RESERVED));
        assert_eq!(first(&state, NOW), NOW + 20 * RESERVED);
    }

    #[test]
    fn a_number_that_cannot_be_used_is_replaced_and_no_folder_is_no_problem() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(Some(&folder.path().join("state")));
        let too_large = (LARGEST + 1).to_string();
        for wrong in ["", "x", "-1", "18446744073709551616", &too_large, &"1".repeat(100)] {
            state.write_private(FILE, wrong.as_bytes()).unwrap();
            assert_eq!(first(&state, NOW), NOW, "{wrong}");
            assert_eq!(first(&state, 0), NOW + RESERVED, "{wrong}");
        }
        for _ in 0..2 {
            assert_eq!(reserve_first(&StateFolder::none("for a test"), NOW), (NOW, u64::MAX));
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(Some(&folder.path().join("state")));
        // A folder in place of the file.
        std::fs::create_dir(folder.path().join("state").join(FILE)).unwrap();
        let (first, reserved) = reserve_first(&state, NOW);
        assert_eq!((first, reserved), (NOW, NOW));
        assert!(due(first, reserved).is_some());
    }

    #[test]
    fn more_ids_are_reserved_once_half_are_used_up() {
        let reserved = NOW + RESERVED;
        assert_eq!(due(NOW, reserved), None);
        assert_eq!(due(NOW + RESERVED / 2, reserved), None);
        assert_eq!(due(NOW + RESERVED / 2 + 1, reserved), Some(NOW + RESERVED / 2 + 1 + RESERVED));
        // As after an error that lasts: ids go on, and more are reserved once it is possible.
        assert_eq!(due(reserved + 7, reserved), Some(reserved + 7 + RESERVED));
    }
}
