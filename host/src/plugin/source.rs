//! Where a component comes from, and how another one gets there.

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};

use super::builtin;
use crate::config::{self, PluginSource};

/// Reads a component of at most `limit` bytes. Blocks.
///
/// # Errors
/// When there is none, or it is larger.
pub fn read(source: &PluginSource, limit: usize) -> anyhow::Result<Vec<u8>> {
    match source {
        PluginSource::File(path) => read_file(path, limit),
        PluginSource::Builtin(name) => match builtin::component(name) {
            Some(code) => Ok(code.to_vec()),
            None => bail!("there is no such plugin; built in are {}", builtin::names()),
        },
    }
}

/// Reads a file whole, unless it is larger than the limit. Blocks.
pub(super) fn read_file(path: &Path, limit: usize) -> anyhow::Result<Vec<u8>> {
    match config::read_file(path, limit)? {
        Some(code) => Ok(code),
        None => bail!("it is larger than {limit} bytes (limits.max_component)"),
    }
}

/// Puts a component in the place of a plugin file, whole or not at all: nobody ever reads half of it. A link is replaced,
/// not followed: where it leads may serve others. Blocks.
pub(super) fn replace_file(path: &Path, code: &[u8]) -> anyhow::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { bail!("{} is no file", path.display()) };
    let temporary = folder.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let write = || -> std::io::Result<()> {
        // Left by a process of the same number that was killed.
        let _ = std::fs::remove_file(&temporary);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(code)?;
        let mode = path.metadata().map_or(0o644, |metadata| metadata.permissions().mode() & 0o666);
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    write()
        .inspect_err(|_| _ = std::fs::remove_file(&temporary))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.wasm");
        replace_file(&path, b"one").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let before = File::open(&path).unwrap();
        replace_file(&path, b"two").unwrap();
        assert_eq!(read_file(&path, 3).unwrap(), b"two");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        let mut old = String::new();
        (&before).read_to_string(&mut old).unwrap();
        assert_eq!(old, "one", "whoever was reading goes on reading the old one");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(
            replace_file(&folder.path().join("no/auth.wasm"), b"").unwrap_err().to_string().contains("no/auth.wasm")
        );
    }

    #[test]
    fn what_is_too_large_or_no_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.wasm");
        replace_file(&path, b"1234").unwrap();
        assert!(read_file(&path, 3).unwrap_err().to_string().contains("larger than 3 bytes"));
        assert!(read_file(folder.path(), 3).unwrap_err().to_string().contains("not a regular file"));
    }
}
