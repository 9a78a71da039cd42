//! Reads the files that a configuration names.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// The bytes that some editors write before UTF-8 text. They are not part of the text.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Opens a regular file. Blocks.
///
/// # Errors
/// If the file does not exist, is not a regular file, or may not be read.
pub fn open_file(path: &Path) -> io::Result<File> {
    // Without this flag, opening a pipe would wait for its other end.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

/// Reads a whole regular file. Returns `None` if it is larger than `limit` bytes. Blocks.
///
/// # Errors
/// If the file does not exist, is not a regular file, or cannot be read.
pub fn read_file(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    open_file(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= limit).then_some(bytes))
}

/// Reads a whole text file, without a byte order mark at its start. Blocks.
///
/// # Errors
/// If the file does not exist, is not a regular file, cannot be read, is larger than `limit` bytes, or is not UTF-8.
/// The error never shows the file's content.
pub fn read_text(path: &Path, limit: usize) -> io::Result<String> {
    let bytes = read_file(path, limit)?;
    let bytes = bytes.ok_or_else(|| io::Error::other(format!("it is larger than {limit} bytes")))?;
    let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
    // The original error is not shown, since it contains the bytes.
    str::from_utf8(text).map(str::to_owned).map_err(|_| {
        let is_utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
        io::Error::other(if is_utf16 { "it is UTF-16: save it as UTF-8" } else { "it is not UTF-8" })
    })
}

/// Returns the path made absolute; a relative one starts at `folder`. So it means the same file for as long as the
/// process runs, and in the output of `config print`. Links are not followed, since they may be changed later.
pub(super) fn absolute(folder: &Path, path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(folder.join(path)).map_err(|error| format!("cannot make {} absolute: {error}", path.display()))
}
