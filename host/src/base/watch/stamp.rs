//! The stamp of a file: a way to see that it has changed without reading it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Two changes within this time may leave the same stamp, since file systems keep time in ticks.
pub const YOUNG: Duration = Duration::from_millis(50);

/// For this long, an empty file may be one that a copy has just truncated and not written yet.
const EMPTIED: Duration = Duration::from_secs(2);

/// A value that changes whenever the file changes: nobody can set a file's time of change (ctime).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    /// Device and inode.
    file: (u64, u64),
    size: u64,
    /// Time of change, in seconds and nanoseconds.
    changed: (i64, i64),
}

impl FileStamp {
    /// Returns the stamp of a file as it is now. Blocks.
    ///
    /// # Errors
    /// A text that says why the file cannot be examined.
    pub fn of(path: &Path) -> Result<Self, String> {
        std::fs::metadata(path).map(|metadata| Self::from(&metadata)).map_err(|error| error.to_string())
    }

    /// Returns `true` if the file changed so recently that another write may leave the same stamp.
    pub fn is_young(&self) -> bool {
        self.is_younger_than(YOUNG)
    }

    /// Returns `true` if a copy may have just truncated the file.
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

impl From<&Metadata> for FileStamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
