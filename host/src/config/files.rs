//! Files that a configuration names.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Opens a regular file; anything else is an error. Blocks.
///
/// # Errors
/// When it is not there, is something else, or must not be read.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    // Opening a pipe would wait for its other end.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

/// Reads a regular file whole; `None` if it is larger than `limit` bytes. Blocks.
///
/// # Errors
/// When it is not there, is something else, or cannot be read.
pub fn read_file(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    open_file(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= limit).then_some(bytes))
}

/// The path made absolute, if it is relative to `folder`: it must mean the same file for as long as the process runs,
/// and in what `config print` writes. Links are not followed: where they lead may change.
pub(super) fn absolute(folder: &Path, path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(folder.join(path)).map_err(|error| format!("cannot make {} absolute: {error}", path.display()))
}
