//! What a file looks like without reading it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A change may follow within this time of another and leave no trace: file systems keep time in ticks.
pub const YOUNG: Duration = Duration::from_millis(50);

/// For how long an empty file may be one that a copy has just truncated.
const EMPTIED: Duration = Duration::from_secs(2);

/// Changes whenever the file does: the time of change cannot be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    file: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of a file as it is now. Blocks.
    ///
    /// # Errors
    /// Why there is no file to look at, in words.
    pub fn of(path: &Path) -> Result<Self, String> {
        std::fs::metadata(path).map(|metadata| Self::from(&metadata)).map_err(|error| error.to_string())
    }

    /// Whether the next write may be about to come, and leave the same stamp.
    pub fn is_young(&self) -> bool {
        self.is_younger_than(YOUNG)
    }

    /// Whether a copy may have just truncated the file.
    pub fn is_just_emptied(&self) -> bool {
        self.size == 0 && self.is_younger_than(EMPTIED)
    }

    fn is_younger_than(&self, age: Duration) -> bool {
        let Ok(now) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) else { return false };
        let (seconds, nanos) = self.changed;
        let changed = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        (now.as_nanos() as i128 - changed).unsigned_abs() < age.as_nanos()
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
