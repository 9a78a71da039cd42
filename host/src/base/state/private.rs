//! Opens folders, and checks that no other user can access them.

use std::io;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{self, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;

pub(super) const PRIVATE_FOLDER: Mode = Mode::RWXU;
pub(super) const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

pub(super) fn open_top(path: &Path) -> io::Result<OwnedFd> {
    open_folder(|flags| fs::open(path, flags, Mode::empty()))
}

/// Opens a folder, if it is private.
pub(super) fn open_folder(open: impl FnOnce(OFlags) -> rustix::io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = open(flags).map_err(|error| match error {
        Errno::NOTDIR | Errno::LOOP => other("it is a link, or not a folder"),
        error => error.into(),
    })?;
    check_private(&fs::fstat(&folder)?)?;
    Ok(folder)
}

/// Checks that a file or folder belongs to this process's user, and that no other user can access it.
pub(super) fn check_private(stat: &Stat) -> io::Result<()> {
    let (owner, user, mode) = (stat.st_uid, geteuid().as_raw(), stat.st_mode & 0o7777);
    if owner != user {
        return Err(other(&format!("it belongs to the user with id {owner}, but this process runs as {user}")));
    }
    if mode & 0o077 != 0 {
        return Err(other(&format!(
            "other users can access it (its mode is {mode:o}, and must be {:o})",
            mode & 0o700
        )));
    }
    Ok(())
}

/// Converts an error, and names a link that was not followed.
pub(super) fn no_link(error: Errno) -> io::Error {
    if error == Errno::LOOP { other("it is a link") } else { error.into() }
}

pub(super) fn other(words: &str) -> io::Error {
    io::Error::other(words)
}
