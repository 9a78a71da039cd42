//! The state folder: what outlives the process, in a place that is private to its user.
//!
//! Compiled plugins are code that runs in the gateway, and the admin token opens its door. So the folder must be a real
//! one that belongs to the user the gateway runs as and that nobody else can enter, and so must everything in it;
//! links are never followed. Each use opens and checks it anew, so that nothing depends on what it was at the start.
//! Where there is no such folder, the gateway serves without. A gateway locks its folder: two that share one would overwrite
//! what the other remembers.

#[cfg(test)]
mod tests;

use std::env;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;
use rustix::process::geteuid;

const PRIVATE_FOLDER: Mode = Mode::RWXU;
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// What a file is called while it is being written. Not of use to anybody when it is old: its writer has crashed.
const UNFINISHED: &str = ".unfinished";
const OLD: Duration = Duration::from_secs(600);

/// The file that a gateway locks, with the number of its process.
const LOCK: &str = "lock";
const MAX_HOLDER: u64 = 20;

/// The largest secret.
const MAX_SECRET: usize = 4096;

/// The private folder for what outlives the process. Names of things in it are relative, like `slots/router.json`.
/// Everything here blocks.
#[derive(Debug, Clone)]
pub struct StateFolder {
    /// Where it is, or why there is none.
    path: Result<PathBuf, String>,
    /// Keeps others out for as long as it is open.
    lock: Option<Arc<OwnedFd>>,
}

/// Another gateway has locked the state folder.
#[derive(Debug, thiserror::Error)]
#[error(
    "the state folder {} is in use by another gateway{}: each needs one of its own (state_folder)",
    .folder.display(),
    .holder.as_ref().map(|process| format!(", process {process}")).unwrap_or_default()
)]
pub struct InUse {
    folder: PathBuf,
    /// The number of its process, if it could write it down.
    holder: Option<String>,
}

/// A file in the state folder.
#[derive(Debug)]
pub struct Entry {
    /// Its name within its folder.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last written or touched.
    pub modified: SystemTime,
}

impl StateFolder {
    /// Finds the folder, and creates it if it is not there. `None` takes the usual place: what systemd gives the service
    /// (`$STATE_DIRECTORY`), else `hotgate` where the user's programs keep their state (XDG base directories).
    ///
    /// Never fails: see [`problem`](Self::problem).
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

    /// Finds the folder without creating it. Where it is not there, nothing is in it.
    pub fn existing(configured: Option<&Path>) -> Self {
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let path = locate(configured, variable);
        Self { path: path.ok_or("state_folder, $STATE_DIRECTORY and $HOME are not set".to_owned()), lock: None }
    }

    /// No folder, for this reason.
    pub fn none(problem: &str) -> Self {
        Self { path: Err(problem.to_owned()), lock: None }
    }

    /// Takes the folder for this process alone, until the last clone is dropped or the process ends. A folder that cannot be
    /// locked becomes a [`problem`](Self::problem).
    ///
    /// # Errors
    /// When another gateway has it.
    pub fn lock(&mut self) -> Result<(), InUse> {
        let Ok(folder) = self.path.clone() else { return Ok(()) };
        match lock(&folder) {
            Ok(Ok(lock)) => self.lock = Some(Arc::new(lock)),
            Ok(Err(holder)) => return Err(InUse { folder, holder }),
            Err(error) => self.path = Err(format!("{}: cannot be locked: {error}", folder.display())),
        }
        Ok(())
    }

    /// Why there is no folder; then every use of it fails.
    pub fn problem(&self) -> Option<&str> {
        self.path.as_ref().err().map(String::as_str)
    }

    /// The path of a thing in the folder, for people.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.path.as_ref().ok().map(|path| path.join(name))
    }

    /// Opens a file for reading; `None` if there is none.
    ///
    /// # Errors
    /// When it is not a file, or not the user's own, or others can use it.
    pub fn open_private(&self, name: &str) -> io::Result<Option<File>> {
        let open = || {
            let (folder, name) = self.folder_of(name, false)?;
            // Opening a pipe would wait for its other end.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = fs::openat(&folder, name, flags, Mode::empty()).map_err(no_link)?;
            let stat = fs::fstat(&file)?;
            if !FileType::from_raw_mode(stat.st_mode).is_file() {
                return Err(other("it is no file"));
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

    /// Reads a file whole; `None` if there is none.
    ///
    /// # Errors
    /// When it is larger than the limit, or is not a file, or not the user's own, or others can use it.
    pub fn read_private(&self, name: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open_private(name)? else { return Ok(None) };
        let read = || {
            let mut bytes = Vec::new();
            // Its size is only a hint, and a hint that does not lead to a large reservation.
            bytes.reserve_exact(usize::try_from(file.metadata()?.len()).unwrap_or(0).min(limit) + 1);
            file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
            if bytes.len() > limit { Err(other(&format!("it is larger than {limit} bytes"))) } else { Ok(bytes) }
        };
        read().map(Some).map_err(|error| self.named(name, error))
    }

    /// Writes a file whole: after a crash there is the old one or the new one.
    ///
    /// # Errors
    /// When it cannot be written; then it is as it was.
    pub fn write_private(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.fill_private(name, |file| file.write_all(bytes))
    }

    /// The same for a file that is too large to be held in memory: `fill` writes it.
    ///
    /// # Errors
    /// When it cannot be written; then it is as it was.
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

    /// Reads a secret, or makes it if there is none.
    ///
    /// # Errors
    /// When it cannot be made, or the file is not the user's own, or others can use it.
    pub fn create_secret(&self, name: &str, make: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
        if let Some(secret) = self.read_private(name, MAX_SECRET)? {
            return Ok(secret);
        }
        let write = || {
            let (folder, name) = self.folder_of(name, true)?;
            let unfinished = Unfinished::write(&folder, |file| file.write_all(&make()?))?;
            match fs::linkat(&folder, &unfinished.name, &folder, name, AtFlags::empty()) {
                // Another process was faster: its secret counts.
                Ok(()) | Err(Errno::EXIST) => io::Result::Ok(()),
                Err(error) => Err(error.into()),
            }
        };
        write().map_err(|error| self.named(name, error))?;
        self.read_private(name, MAX_SECRET)?.ok_or_else(|| self.named(name, ErrorKind::NotFound.into()))
    }

    /// Removes a file, if there is one.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
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

    /// Makes a file the one that was used last.
    ///
    /// # Errors
    /// When it is not there.
    pub fn touch(&self, name: &str) -> io::Result<()> {
        let touch = || {
            let (folder, name) = self.folder_of(name, false)?;
            let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
            let times = Timestamps { last_access: now, last_modification: now };
            io::Result::Ok(fs::utimensat(&folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
        };
        touch().map_err(|error| self.named(name, error))
    }

    /// The files of a folder in the state folder; none if it is not there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn files(&self, folder: &str) -> io::Result<Vec<Entry>> {
        let list = || list(&self.folder_of(&format!("{folder}/*"), false)?.0);
        match list() {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.map_err(|error| self.named(folder, error)),
        }
    }

    /// The open folder that a thing is in, and its name there.
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

    fn named(&self, name: &str, error: io::Error) -> io::Error {
        match self.path(name) {
            Some(path) => io::Error::new(error.kind(), format!("{}: {error}", path.display())),
            None => error,
        }
    }
}

/// Locks the folder, and writes down which process has it; or tells which process has it, if that could write it down.
fn lock(folder: &Path) -> io::Result<Result<OwnedFd, Option<String>>> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let lock = fs::openat(open_top(folder)?, LOCK, flags, PRIVATE_FILE).map_err(no_link)?;
    check_private(&fs::fstat(&lock)?)?;
    let mut file = File::from(lock);
    match file.try_lock() {
        Ok(()) => {
            // Only for people. A full disk is no reason not to start.
            let _ = file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
            Ok(Ok(file.into()))
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.take(MAX_HOLDER).read_to_string(&mut holder)?;
            let is_number = !holder.is_empty() && holder.bytes().all(|byte| byte.is_ascii_digit());
            Ok(Err(is_number.then_some(holder)))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The path of the folder, or `None` where nothing tells.
fn locate(configured: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(path) = configured {
        return Some(path.to_owned());
    }
    if let Some(paths) = variable("STATE_DIRECTORY") {
        let first = env::split_paths(&paths).next()?;
        // With `DynamicUser=` it is a link, of systemd's making.
        return Some(first.canonicalize().unwrap_or(first));
    }
    // Relative ones are to be ignored, says XDG.
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Some(state?.join("hotgate"))
}

fn open_top(path: &Path) -> io::Result<OwnedFd> {
    open_folder(|flags| fs::open(path, flags, Mode::empty()))
}

/// Opens a folder if it is private.
fn open_folder(open: impl FnOnce(OFlags) -> rustix::io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = open(flags).map_err(|error| match error {
        Errno::NOTDIR | Errno::LOOP => other("it is no folder, or a link"),
        error => error.into(),
    })?;
    check_private(&fs::fstat(&folder)?)?;
    Ok(folder)
}

fn check_private(stat: &Stat) -> io::Result<()> {
    let (owner, user, mode) = (stat.st_uid, geteuid().as_raw(), stat.st_mode & 0o7777);
    if owner != user {
        return Err(other(&format!("it belongs to the user with id {owner}, and this is {user}")));
    }
    if mode & 0o077 != 0 {
        return Err(other(&format!("others may use it (its mode is {mode:o}, and should be {:o})", mode & 0o700)));
    }
    Ok(())
}

fn list(folder: &OwnedFd) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Ok(stat) = fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if FileType::from_raw_mode(stat.st_mode).is_file() {
            let since = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
            let modified = SystemTime::UNIX_EPOCH + since + Duration::from_nanos(u64::from(stat.st_mtime_nsec as u32));
            entries.push(Entry { name, size: u64::try_from(stat.st_size).unwrap_or(0), modified });
        }
    }
    Ok(entries)
}

/// A file that has no name of its own yet. Dropping it removes it, unless it has been renamed.
struct Unfinished<'f> {
    folder: &'f OwnedFd,
    name: String,
}

impl<'f> Unfinished<'f> {
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

fn no_link(error: Errno) -> io::Error {
    if error == Errno::LOOP { other("it is a link") } else { error.into() }
}

fn other(words: &str) -> io::Error {
    io::Error::other(words)
}
