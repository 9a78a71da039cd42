//! The state folder: files that outlive the process, private to the gateway's user.
//!
//! Compiled plugins are code that runs in the gateway, and the admin token gives control of it. So the folder and
//! everything in it must belong to the user that the gateway runs as, and no other user may have access. Links are
//! never followed. Each use opens and checks the folder again, since it may have changed after the start. Without a
//! usable folder, the gateway serves, but keeps nothing. A gateway locks its folder: two gateways with the same folder
//! would overwrite each other's files.

mod locate;
mod lock;
mod private;
#[cfg(test)]
mod tests;

use std::env;
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use self::locate::locate;
use self::lock::{LockError, lock};
use self::private::{PRIVATE_FILE, PRIVATE_FOLDER, check_private, no_link, open_folder, open_top, other};

/// The ending of a file's name while the file is being written.
const UNFINISHED: &str = ".unfinished";
/// The age after which an unfinished file is removed: its writer has crashed.
const OLD: Duration = Duration::from_secs(600);

/// The most bytes of a secret.
const MAX_SECRET: usize = 4096;

/// The private folder for files that outlive the process. Names of its files are relative, like `slots/router.json`.
/// All functions block.
#[derive(Debug, Clone)]
pub struct StateFolder {
    /// The path of the folder, or the reason why there is none.
    path: Result<PathBuf, String>,
    /// The lock, which other gateways cannot take while it is open.
    lock: Option<Arc<OwnedFd>>,
}

/// Another gateway has locked the state folder.
#[derive(Debug, thiserror::Error)]
#[error(
    "the state folder {} is in use by another gateway{}: each gateway needs its own (state_folder)",
    .folder.display(),
    .holder.as_ref().map(|process| format!(", process {process}")).unwrap_or_default()
)]
pub struct InUse {
    folder: PathBuf,
    /// The process id of the other gateway, if it could write its id to the lock file.
    holder: Option<String>,
}

/// A file in the state folder.
#[derive(Debug)]
pub struct StateFile {
    /// The name within its folder.
    pub name: String,
    /// The size in bytes.
    pub size: u64,
    /// The time when the file was last written or touched.
    pub modified: SystemTime,
}

impl StateFolder {
    /// Finds the folder, and creates it if it does not exist. With `None`, this is the folder that systemd gives the
    /// service (`$STATE_DIRECTORY`), else `hotgate` in the user's folder for the state of programs (XDG base
    /// directories).
    ///
    /// Never fails: without a usable folder, [`problem`](Self::problem) says why.
    pub fn open(configured: Option<&Path>) -> Self {
        let open = || {
            let path = Self::existing(configured).path?;
            let create = || DirBuilder::new().recursive(true).mode(0o700).create(&path);
            match create().and_then(|()| open_top(&path)) {
                Ok(_) => Ok(path),
                Err(error) => Err(format!("{}: {error}", path.display())),
            }
        };
        Self { path: open(), lock: None }
    }

    /// Finds the folder without creating it. A folder that does not exist is read as an empty one.
    pub fn existing(configured: Option<&Path>) -> Self {
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let path = locate(configured, variable);
        Self { path: path.ok_or("state_folder, $STATE_DIRECTORY and $HOME are not set".to_owned()), lock: None }
    }

    /// Creates a state folder that cannot be used, for this reason.
    pub fn none(problem: &str) -> Self {
        Self { path: Err(problem.to_owned()), lock: None }
    }

    /// Locks the folder for this process, until the last clone is dropped or the process ends. If the folder cannot be
    /// locked, this is its [`problem`](Self::problem) from now on.
    ///
    /// # Errors
    /// If another gateway has locked the folder.
    pub fn lock(&mut self) -> Result<(), InUse> {
        let Ok(folder) = self.path.clone() else { return Ok(()) };
        match lock(&folder) {
            Ok(lock) => self.lock = Some(Arc::new(lock)),
            Err(LockError::Held { holder }) => return Err(InUse { folder, holder }),
            Err(LockError::Io(error)) => self.path = Err(format!("{}: cannot be locked: {error}", folder.display())),
        }
        Ok(())
    }

    /// Returns the reason why there is no usable folder, if there is none. Then every use of the folder fails.
    pub fn problem(&self) -> Option<&str> {
        self.path.as_ref().err().map(String::as_str)
    }

    /// Returns the path of a file in the folder, to show it to people.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.path.as_ref().ok().map(|path| path.join(name))
    }

    /// Opens a file for reading. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// If it is not a regular file, belongs to another user, or other users can access it.
    pub fn open_private(&self, name: &str) -> io::Result<Option<File>> {
        let open = || {
            let (folder, name) = self.folder_of(name, false)?;
            // Without `NONBLOCK`, opening a pipe would wait for its other end.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = fs::openat(&folder, name, flags, Mode::empty()).map_err(no_link)?;
            let stat = fs::fstat(&file)?;
            if !FileType::from_raw_mode(stat.st_mode).is_file() {
                return Err(other("it is not a regular file"));
            }
            check_private(&stat)?;
            Ok(File::from(file))
        };
        match open() {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.named(name, error)),
        }
    }

    /// Reads a whole file. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// If it is larger than `limit` bytes, is not a regular file, belongs to another user, or other users can access
    /// it.
    pub fn read_private(&self, name: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open_private(name)? else { return Ok(None) };
        let read = || {
            let mut bytes = Vec::new();
            // The file's size is only a hint, so no more than the limit is reserved.
            bytes.reserve_exact(usize::try_from(file.metadata()?.len()).unwrap_or(0).min(limit) + 1);
            file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
            if bytes.len() > limit { Err(other(&format!("it is larger than {limit} bytes"))) } else { Ok(bytes) }
        };
        read().map(Some).map_err(|error| self.named(name, error))
    }

    /// Writes a whole file. After a crash, the file has its old or its new content.
    ///
    /// # Errors
    /// If the file cannot be written. Then it keeps its old content.
    pub fn write_private(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.fill_private(name, |file| file.write_all(bytes))
    }

    /// Does the same as [`write_private`](Self::write_private) for a file that is too large for memory: `fill` writes
    /// it.
    ///
    /// # Errors
    /// If the file cannot be written. Then it keeps its old content.
    pub fn fill_private(&self, name: &str, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        let write = || {
            let (folder, name) = self.folder_of(name, true)?;
            let unfinished = Unfinished::write(&folder, fill)?;
            fs::renameat(&folder, &unfinished.name, &folder, name)?;
            fs::fsync(&folder)?;
            io::Result::Ok(())
        };
        write().map_err(|error| self.named(name, error))
    }

    /// Reads a secret. If its file does not exist, calls `make` and writes the secret.
    ///
    /// # Errors
    /// If the secret cannot be made or written, or if its file belongs to another user or other users can access it.
    pub fn create_secret(&self, name: &str, make: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
        if let Some(secret) = self.read_private(name, MAX_SECRET)? {
            return Ok(secret);
        }
        let write = || {
            let (folder, name) = self.folder_of(name, true)?;
            let unfinished = Unfinished::write(&folder, |file| file.write_all(&make()?))?;
            match fs::linkat(&folder, &unfinished.name, &folder, name, AtFlags::empty()) {
                // If the file exists now, another process was faster: its secret is used.
                Ok(()) | Err(Errno::EXIST) => io::Result::Ok(()),
                Err(error) => Err(error.into()),
            }
        };
        write().map_err(|error| self.named(name, error))?;
        self.read_private(name, MAX_SECRET)?.ok_or_else(|| self.named(name, ErrorKind::NotFound.into()))
    }

    /// Removes a file, if it exists.
    ///
    /// # Errors
    /// If the file exists and cannot be removed.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let remove = || {
            let (folder, name) = self.folder_of(name, false)?;
            io::Result::Ok(fs::unlinkat(&folder, name, AtFlags::empty())?)
        };
        match remove() {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.named(name, error)),
            _ => Ok(()),
        }
    }

    /// Sets the file's time of last use to now.
    ///
    /// # Errors
    /// If the file does not exist.
    pub fn touch(&self, name: &str) -> io::Result<()> {
        let touch = || {
            let (folder, name) = self.folder_of(name, false)?;
            let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
            let times = Timestamps { last_access: now, last_modification: now };
            io::Result::Ok(fs::utimensat(&folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
        };
        touch().map_err(|error| self.named(name, error))
    }

    /// Lists the files of a folder in the state folder. A folder that does not exist has none.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn files(&self, folder: &str) -> io::Result<Vec<StateFile>> {
        let list = || list(&self.folder_of(&format!("{folder}/*"), false)?.0);
        match list() {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.map_err(|error| self.named(folder, error)),
        }
    }

    /// Opens the folder that contains the file `name`. Returns it and the file's name within it.
    fn folder_of<'n>(&self, name: &'n str, create: bool) -> io::Result<(OwnedFd, &'n str)> {
        let path = self.path.as_ref().map_err(|problem| other(&format!("no state folder: {problem}")))?;
        let mut folder = open_top(path)?;
        let mut parts = name.split('/').peekable();
        while let Some(part) = parts.next() {
            if matches!(part, "" | "." | "..") {
                return Err(ErrorKind::InvalidInput.into());
            }
            if parts.peek().is_none() {
                return Ok((folder, part));
            }
            if create {
                match fs::mkdirat(&folder, part, PRIVATE_FOLDER) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            folder = open_folder(|flags| fs::openat(&folder, part, flags, Mode::empty()))?;
        }
        Err(ErrorKind::InvalidInput.into())
    }

    /// Adds the path of the file to an error.
    fn named(&self, name: &str, error: io::Error) -> io::Error {
        match self.path(name) {
            Some(path) => io::Error::new(error.kind(), format!("{}: {error}", path.display())),
            None => error,
        }
    }
}

/// Lists the regular files of a folder.
fn list(folder: &OwnedFd) -> io::Result<Vec<StateFile>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Ok(stat) = fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if FileType::from_raw_mode(stat.st_mode).is_file() {
            let since = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
            let modified = SystemTime::UNIX_EPOCH + since + Duration::from_nanos(u64::from(stat.st_mtime_nsec as u32));
            entries.push(StateFile { name, size: u64::try_from(stat.st_size).unwrap_or(0), modified });
        }
    }
    Ok(entries)
}

/// A file that does not have its final name yet. Dropping it removes the file, unless the file has been renamed.
struct Unfinished<'f> {
    folder: &'f OwnedFd,
    name: String,
}

impl<'f> Unfinished<'f> {
    /// Writes and syncs an unfinished file. Removes old unfinished files first.
    fn write(folder: &'f OwnedFd, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<Self> {
        for entry in list(folder)? {
            let age = entry.modified.elapsed().unwrap_or_default();
            if entry.name.ends_with(UNFINISHED) && age > OLD {
                let _ = fs::unlinkat(folder, &entry.name, AtFlags::empty());
            }
        }
        let number = getrandom::u64().map_err(io::Error::other)?;
        let unfinished = Self { folder, name: format!("{number:016x}{UNFINISHED}") };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(folder, &unfinished.name, flags, PRIVATE_FILE)?);
        fill(&mut file)?;
        file.sync_all()?;
        Ok(unfinished)
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let _ = fs::unlinkat(self.folder, &self.name, AtFlags::empty());
    }
}
