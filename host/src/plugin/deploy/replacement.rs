//! Replaces plugin files, each as a whole.

use std::fs::{File, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// A component that has been written beside a plugin file and is ready to replace it, so that nobody ever reads a file
/// that is half written. If it is dropped without [`commit`](Self::commit), it leaves no file behind.
///
/// The unfinished file always has the same name and is locked: only one process or slot deploys to a plugin file at a
/// time. A file that a crash left behind is used again.
#[derive(Debug)]
pub(crate) struct Replacement {
    file: File,
    unfinished: PathBuf,
    path: PathBuf,
    link: Option<PathBuf>,
    committed: bool,
}

/// Why a component could not be written beside a plugin file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// Another deploy to the same file is under way.
    #[error("another deploy to {} is under way: try again when it has ended", .0.display())]
    UnderWay(PathBuf),
    /// The folder is read-only, the disk is full, or the like.
    #[error("cannot write {}: {error}", .path.display())]
    Io {
        /// The plugin file.
        path: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
}

impl Replacement {
    /// Writes a component beside a plugin file. Blocks.
    ///
    /// # Errors
    /// If another deploy to this file is under way, or the component cannot be written. The plugin file is unchanged.
    pub(crate) fn write(path: &Path, code: &[u8]) -> Result<Self, WriteError> {
        let io = |error| WriteError::Io { path: path.to_owned(), error };
        let replacement = Self::lock(path).map_err(io)?.ok_or_else(|| WriteError::UnderWay(path.to_owned()))?;
        let mut file = &replacement.file;
        file.set_len(0).and_then(|()| file.write_all(code)).and_then(|()| file.sync_all()).map_err(io)?;
        Ok(replacement)
    }

    /// Opens and locks the unfinished file; `None` if another deploy has it.
    fn lock(path: &Path) -> io::Result<Option<Self>> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::other("the path has no file name"));
        };
        let unfinished = folder.join(format!(".{}.unfinished", name.to_string_lossy()));
        // Without NONBLOCK, opening a pipe would wait for its other end.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = File::options().write(true).create(true).mode(0o600).custom_flags(flags).open(&unfinished)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let (own, named) = (file.metadata()?, unfinished.symlink_metadata());
        if !own.is_file() || own.nlink() > 1 {
            return Err(io::Error::other(format!("{} is in the way: remove it", unfinished.display())));
        }
        // The deploy that had the lock before may have renamed this file: then it is the plugin file now.
        if !named.is_ok_and(|named| (named.dev(), named.ino()) == (own.dev(), own.ino())) {
            return Ok(None);
        }
        let link = std::fs::read_link(path).ok();
        Ok(Some(Self { file, unfinished, path: path.to_owned(), link, committed: false }))
    }

    /// Returns the target of the plugin file, if it is a symbolic link. The link is replaced, not followed: others may
    /// use the target.
    pub(crate) fn link(&self) -> Option<&Path> {
        self.link.as_deref()
    }

    /// Replaces the plugin file with the component, which gets the file's mode and, if possible, its owner. Blocks.
    ///
    /// # Errors
    /// If the plugin file cannot be replaced. It is then unchanged.
    pub(crate) fn commit(mut self) -> Result<(), WriteError> {
        self.rename().map_err(|error| WriteError::Io { path: self.path.clone(), error })?;
        self.committed = true;
        // If this fails, a power failure may bring the old file back. That is no error: the new file is in place now.
        let _ = self.path.parent().map(|folder| File::open(folder).and_then(|folder| folder.sync_all()));
        Ok(())
    }

    fn rename(&self) -> io::Result<()> {
        let before = self.path.metadata().ok();
        if let Some(before) = &before {
            // Fails for most users, which is no error. Done before the mode is set, because it may clear mode bits.
            let _ = fchown(&self.file, Some(before.uid()), Some(before.gid()));
        }
        let mode = before.map_or(0o644, |before| before.mode() & 0o777);
        self.file.set_permissions(Permissions::from_mode(mode))?;
        std::fs::rename(&self.unfinished, &self.path)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.committed {
            // The file is still locked, so it belongs to no other deploy.
            let _ = std::fs::remove_file(&self.unfinished);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::plugin::deploy::source::read_file;

    fn replace(path: &Path, code: &[u8]) {
        Replacement::write(path, code).unwrap().commit().unwrap();
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.wasm");
        replace(&path, b"one");
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let before = File::open(&path).unwrap();
        replace(&path, b"two");
        assert_eq!(read_file(&path, 3).unwrap(), b"two");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        let mut old = String::new();
        (&before).read_to_string(&mut old).unwrap();
        assert_eq!(old, "one", "an open file still has the old content");
        assert_eq!(names(folder.path()), ["auth.wasm"]);
        let error = Replacement::write(&folder.path().join("no/auth.wasm"), b"").unwrap_err();
        assert!(error.to_string().contains("no/auth.wasm"), "{error}");
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, target) = (folder.path().join("auth.wasm"), folder.path().join("v1.wasm"));
        replace(&target, b"one");
        std::os::unix::fs::symlink("v1.wasm", &path).unwrap();
        let replacement = Replacement::write(&path, b"two").unwrap();
        assert_eq!(replacement.link(), Some(Path::new("v1.wasm")));
        replacement.commit().unwrap();
        assert_eq!((read_file(&path, 3).unwrap(), read_file(&target, 3).unwrap()), (b"two".to_vec(), b"one".to_vec()));
    }

    #[test]
    fn what_is_not_committed_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.wasm");
        replace(&path, b"one");
        drop(Replacement::write(&path, b"two").unwrap());
        assert_eq!(read_file(&path, 3).unwrap(), b"one");
        assert_eq!(names(folder.path()), ["auth.wasm"]);
    }

    #[test]
    fn one_deploys_to_a_file_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.wasm");
        let first = Replacement::write(&path, b"one").unwrap();
        let second = Replacement::write(&path, b"two").unwrap_err();
        assert!(matches!(second, WriteError::UnderWay(_)) && second.to_string().contains("another deploy"), "{second}");
        first.commit().unwrap();
        assert_eq!(read_file(&path, 3).unwrap(), b"one");
        replace(&path, b"two");
        assert_eq!(read_file(&path, 3).unwrap(), b"two");
    }

    #[test]
    fn what_a_crash_left_behind_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.wasm");
        std::fs::write(folder.path().join(".auth.wasm.unfinished"), "half of a larger one").unwrap();
        replace(&path, b"one");
        assert_eq!(read_file(&path, 3).unwrap(), b"one");
        assert_eq!(names(folder.path()), ["auth.wasm"]);
    }

    #[test]
    fn many_that_deploy_at_once_never_leave_half_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.wasm");
        replace(&path, &[0; 1 << 16]);
        let deploy = &|byte: u8| {
            for _ in 0..100 {
                match Replacement::write(&path, &[byte; 1 << 16]) {
                    Ok(replacement) => replacement.commit().unwrap(),
                    Err(WriteError::UnderWay(_)) => {}
                    Err(error) => panic!("{error}"),
                }
                let found = read_file(&path, 1 << 16).unwrap();
                assert!(found.len() == 1 << 16 && found.iter().all(|byte| *byte == found[0]));
            }
        };
        std::thread::scope(|scope| {
            for byte in 1..=4 {
                scope.spawn(move || deploy(byte));
            }
        });
        assert_eq!(names(folder.path()), ["auth.wasm"]);
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o644);
    }
}
