//! Locks the state folder for one process.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{self, OFlags};

use super::private::{PRIVATE_FILE, check_private, no_link, open_top};

/// The file that a gateway locks. It contains the gateway's process id.
pub(super) const LOCK: &str = "lock";
/// The most bytes that are read as a process id.
const MAX_HOLDER: u64 = 20;

/// The folder cannot be locked.
pub(super) enum LockError {
    /// Another process has the lock. `holder` is its id, if the lock file contains one.
    Held {
        holder: Option<String>,
    },
    Io(io::Error),
}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Locks the folder and writes this process's id to the lock file.
pub(super) fn lock(folder: &Path) -> Result<OwnedFd, LockError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let lock = fs::openat(open_top(folder)?, LOCK, flags, PRIVATE_FILE).map_err(no_link)?;
    check_private(&fs::fstat(&lock).map_err(io::Error::from)?)?;
    let mut file = File::from(lock);
    match file.try_lock() {
        Ok(()) => {
            // The id is only for people: a full disk does not prevent the start.
            let _ = file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
            Ok(file.into())
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.take(MAX_HOLDER).read_to_string(&mut holder)?;
            let is_number = !holder.is_empty() && holder.bytes().all(|byte| byte.is_ascii_digit());
            Err(LockError::Held { holder: is_number.then_some(holder) })
        }
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}
