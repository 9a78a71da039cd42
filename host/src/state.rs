//! The state folder: what outlives the process, in a place that is private to its user.
//!
//! Compiled plugins are code that runs in the gateway, and the admin token opens its door. So the folder must be a real
//! one that belongs to the user the gateway runs as and that nobody else can enter, and so must everything in it;
//! links are never followed. Each use opens and checks it anew, so that nothing depends on what it was at the start.
//! Where there is no such folder, the gateway serves without.

use std::env;
use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
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

/// The largest secret.
const MAX_SECRET: usize = 4096;

/// The private folder for what outlives the process. Names of things in it are relative, like `slots/router.json`.
/// Everything here blocks.
#[derive(Debug, Clone)]
pub struct StateFolder(Result<PathBuf, String>);

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
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let open = || {
            let path = locate(configured, variable).ok_or("state_folder, $STATE_DIRECTORY and $HOME are not set")?;
            let create = || DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER.as_raw_mode()).create(&path);
            match create().and_then(|()| open_top(&path)) {
                Ok(_) => Ok(path),
                Err(error) => Err(format!("{}: {error}", path.display())),
            }
        };
        Self(open())
    }

    /// No folder, for this reason.
    pub fn none(problem: &str) -> Self {
        Self(Err(problem.to_owned()))
    }

    /// Why there is no folder; then every use of it fails.
    pub fn problem(&self) -> Option<&str> {
        self.0.as_ref().err().map(String::as_str)
    }

    /// The path of a thing in the folder, for people.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.0.as_ref().ok().map(|path| path.join(name))
    }

    /// Reads a file whole; `None` if there is none.
    ///
    /// # Errors
    /// When it is larger than the limit, or is not a file, or not the user's own, or others can use it.
    pub fn read_private(&self, name: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let read = || {
            let (folder, name) = self.folder_of(name, false)?;
            // Opening a pipe would wait for its other end.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = fs::openat(&folder, name, flags, Mode::empty()).map_err(no_link)?;
            let stat = fs::fstat(&file)?;
            if !FileType::from_raw_mode(stat.st_mode).is_file() {
                return Err(other("it is no file"));
            }
            check_private(&stat)?;
            let mut bytes = Vec::new();
            // Its size is only a hint, and a hint that does not lead to a large reservation.
            bytes.reserve_exact(usize::try_from(stat.st_size).unwrap_or(0).min(limit) + 1);
            File::from(file).take(limit as u64 + 1).read_to_end(&mut bytes)?;
            if bytes.len() > limit { Err(other(&format!("it is larger than {limit} bytes"))) } else { Ok(bytes) }
        };
        match read() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.named(name, error)),
        }
    }

    /// Writes a file whole: after a crash there is the old one or the new one.
    ///
    /// # Errors
    /// When it cannot be written; then it is as it was.
    pub fn write_private(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let write = || {
            let (folder, name) = self.folder_of(name, true)?;
            let unfinished = Unfinished::write(&folder, bytes)?;
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
            let unfinished = Unfinished::write(&folder, &make()?)?;
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
        let path = self.0.as_ref().map_err(|problem| other(&format!("no state folder: {problem}")))?;
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
    fn write(folder: &'f OwnedFd, bytes: &[u8]) -> io::Result<Self> {
        for entry in list(folder)? {
            let age = entry.modified.elapsed().unwrap_or_default();
            if entry.name.ends_with(UNFINISHED) && age > OLD {
                fs::unlinkat(folder, &entry.name, AtFlags::empty())?;
            }
        }
        let number = getrandom::u64().map_err(io::Error::other)?;
        let unfinished = Self { folder, name: format!("{number:016x}{UNFINISHED}") };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(folder, &unfinished.name, flags, PRIVATE_FILE)?);
        file.write_all(bytes)?;
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

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn folder() -> (tempfile::TempDir, StateFolder) {
        let place = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(Some(&place.path().join("deep/state")));
        assert_eq!(folder.problem(), None);
        (place, folder)
    }

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().mode() & 0o7777
    }

    fn error<T>(result: io::Result<T>) -> String {
        result.map(drop).unwrap_err().to_string()
    }

    #[test]
    fn it_is_where_the_settings_or_the_environment_say() {
        let located = |configured: Option<&str>, variables: &[(&str, &str)]| {
            let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
            let path = locate(configured.map(Path::new), variable)?;
            Some(path.to_str().unwrap().to_owned())
        };
        let all = [("STATE_DIRECTORY", "/nowhere/a:/nowhere/b"), ("XDG_STATE_HOME", "/x"), ("HOME", "/home/h")];
        assert_eq!(located(Some("/own"), &all).as_deref(), Some("/own"));
        assert_eq!(located(None, &all).as_deref(), Some("/nowhere/a"));
        assert_eq!(located(None, &all[1..]).as_deref(), Some("/x/hotgate"));
        assert_eq!(located(None, &all[2..]).as_deref(), Some("/home/h/.local/state/hotgate"));
        assert_eq!(located(None, &[("XDG_STATE_HOME", "x"), ("HOME", "h")]), None);
        assert_eq!(located(None, &[]), None);
    }

    #[test]
    fn it_and_all_in_it_are_private() {
        let (place, state) = folder();
        state.write_private("slots/router.json", b"{}").unwrap();
        let path = state.path("slots/router.json").unwrap();
        assert_eq!(path, place.path().join("deep/state/slots/router.json"));
        for (path, expected) in
            [(&*path, 0o600), (path.parent().unwrap(), 0o700), (&place.path().join("deep/state"), 0o700)]
        {
            assert_eq!(mode(path), expected, "{}", path.display());
        }
        assert_eq!(state.read_private("slots/router.json", 2).unwrap().as_deref(), Some(&b"{}"[..]));
        assert!(error(state.read_private("slots/router.json", 1)).contains("larger than 1 bytes"));
        state.write_private("slots/router.json", b"").unwrap();
        assert_eq!(state.read_private("slots/router.json", 0).unwrap().as_deref(), Some(&b""[..]));
        assert_eq!(state.files("slots").unwrap().len(), 1);
        for _ in 0..2 {
            state.remove("slots/router.json").unwrap();
            assert_eq!(state.read_private("slots/router.json", 2).unwrap(), None);
        }
        assert_eq!(state.read_private("nothing/here", 2).unwrap(), None);
        assert!(state.files("nothing").unwrap().is_empty());
    }

    #[test]
    fn a_folder_that_is_not_private_is_none() {
        let place = tempfile::tempdir().unwrap();
        let problem = |name: &str| StateFolder::open(Some(&place.path().join(name))).problem().unwrap().to_owned();
        for mode in [0o755, 0o710, 0o777] {
            std::fs::create_dir(place.path().join(mode.to_string())).unwrap();
            set_permissions(place.path().join(mode.to_string()), Permissions::from_mode(mode)).unwrap();
            let problem = problem(&mode.to_string());
            assert!(problem.ends_with(&format!("(its mode is {mode:o}, and should be 700)")), "{problem}");
        }
        std::fs::create_dir(place.path().join("real")).unwrap();
        set_permissions(place.path().join("real"), Permissions::from_mode(0o700)).unwrap();
        symlink("real", place.path().join("link")).unwrap();
        std::fs::write(place.path().join("file"), "").unwrap();
        for name in ["link", "file", "file/below"] {
            assert!(problem(name).starts_with(&place.path().join(name).display().to_string()));
        }
        if geteuid().is_root() {
            std::os::unix::fs::chown(place.path().join("real"), Some(1), None).unwrap();
            assert!(problem("real").ends_with("it belongs to the user with id 1, and this is 0"));
        }
    }

    #[test]
    fn what_was_private_once_is_looked_at_again() {
        let (_place, state) = folder();
        state.write_private("compiled/a", b"a").unwrap();
        let path = |name| state.path(name).unwrap();
        let read = |name: &str| error(state.read_private(name, 1));

        set_permissions(path("compiled/a"), Permissions::from_mode(0o604)).unwrap();
        assert!(read("compiled/a").ends_with("(its mode is 604, and should be 600)"));
        std::fs::remove_file(path("compiled/a")).unwrap();
        symlink("/dev/null", path("compiled/a")).unwrap();
        assert!(read("compiled/a").ends_with("it is a link"));
        // Writing replaces the link and does not follow it.
        state.write_private("compiled/a", b"a").unwrap();
        assert!(path("compiled/a").symlink_metadata().unwrap().is_file());
        rustix::fs::mkfifoat(rustix::fs::CWD, path("compiled/pipe"), PRIVATE_FILE).unwrap();
        assert!(read("compiled/pipe").ends_with("it is no file"));

        set_permissions(path("compiled"), Permissions::from_mode(0o777)).unwrap();
        assert!(read("compiled/a").contains("mode is 777"));
        assert!(error(state.write_private("compiled/a", b"b")).contains("mode is 777"));
        assert!(error(state.files("compiled")).contains("mode is 777"));
        set_permissions(path("."), Permissions::from_mode(0o755)).unwrap();
        assert!(error(state.create_secret("secret", || panic!("not asked for"))).contains("mode is 755"));
    }

    #[test]
    fn a_secret_is_made_once() {
        let (_place, state) = folder();
        let make = |secret: &'static [u8]| state.create_secret("admin-token", || Ok(secret.to_vec())).unwrap();
        assert_eq!(make(b"first"), b"first");
        assert_eq!(make(b"second"), b"first");
        assert_eq!(mode(&state.path("admin-token").unwrap()), 0o600);
        state.remove("admin-token").unwrap();
        // Another process makes it in between: its counts.
        let raced = state.create_secret("admin-token", || {
            assert_eq!(make(b"faster"), b"faster");
            Ok(b"slower".to_vec())
        });
        assert_eq!(raced.unwrap(), b"faster");
        assert!(error(state.create_secret("other", || Err(io::Error::other("no luck")))).ends_with("other: no luck"));
    }

    #[test]
    fn what_a_crash_left_behind_is_cleaned_up() {
        let (_place, state) = folder();
        state.write_private("compiled/a", b"a").unwrap();
        for (name, age) in [("old", 2 * OLD), ("young", Duration::ZERO)] {
            let file = File::create(state.path(&format!("compiled/{name}{UNFINISHED}")).unwrap()).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        state.write_private("compiled/b", b"b").unwrap();
        let mut names: Vec<_> = state.files("compiled").unwrap().into_iter().map(|entry| entry.name).collect();
        names.sort();
        assert_eq!(names, ["a", "b", &format!("young{UNFINISHED}")]);
    }

    #[test]
    fn names_do_not_lead_out() {
        let (_place, state) = folder();
        for name in ["", "/etc/passwd", "../a", "slots/../../a", "slots/", "."] {
            assert_eq!(state.write_private(name, b"").unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
        }
    }

    #[test]
    fn without_a_folder_every_use_says_why() {
        let state = StateFolder::none("nowhere to put it");
        assert_eq!(state.problem(), Some("nowhere to put it"));
        assert_eq!(state.path("a"), None);
        let problem = "no state folder: nowhere to put it";
        assert_eq!(error(state.read_private("a", 1)), problem);
        assert_eq!(error(state.write_private("a", b"")), problem);
        assert_eq!(error(state.create_secret("a", || Ok(vec![]))), problem);
    }
}
