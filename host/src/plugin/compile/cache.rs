//! Keeps compiled code in the state folder, so that a restart or a rollback does not compile it again.
//!
//! The name of an entry is made of the component's digest and everything else that compiling depends on. An entry ends
//! with the time that compiling took and a digest of the entry's name and content. If an entry is not as it was
//! written, the component is compiled again. If nothing can be kept, all components are compiled again.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use super::machine_code::MachineCode;
use crate::base::state::StateFolder;

const FOLDER: &str = "compiled";

/// Version of the entries' format. It is part of an entry's name, so a gateway ignores the entries of older and newer
/// gateways.
pub(crate) const FORMAT: u8 = 2;

/// An entry ends with the time that compiling took in ms, this text, and the digest.
const MAGIC: &[u8; 16] = b"hotgate code 02\n";
const TIME: usize = size_of::<u64>();
const DIGEST: usize = 32;
const TRAILER: usize = TIME + MAGIC.len() + DIGEST;

/// Most entries, and most bytes of all entries. The entry that was used least recently is removed first.
const MAX_ENTRIES: usize = 256;
const MAX_BYTES: u64 = 1 << 30;

/// Longest time that the file system may take. If it hangs, it is not used again.
const PATIENCE: Duration = Duration::from_secs(20);

/// The stored machine code, by name.
#[derive(Debug)]
pub(crate) struct Cache {
    state: StateFolder,
    /// Most bytes of machine code in one entry.
    max_code: usize,
    /// Whether a problem has been logged. It is not logged again until storing works.
    fails: AtomicBool,
    /// Whether the file system hung once.
    hangs: AtomicBool,
}

impl Cache {
    pub(crate) fn new(state: StateFolder, max_code: usize) -> Self {
        Self { state, max_code, fails: AtomicBool::new(false), hangs: AtomicBool::new(false) }
    }

    /// Returns the code that was stored under this name, and how long compiling took.
    pub(crate) async fn load(self: &Arc<Self>, name: &str) -> Option<(MachineCode, Duration)> {
        let file = path(name);
        let entry = self.access({
            let file = file.clone();
            move |cache| {
                let Some(entry) = cache.state.open_private(&file)? else { return Ok(None) };
                let code = open(&file, entry, cache.max_code)?;
                // If this fails, the entry is only removed sooner.
                let _ = cache.state.touch(&file);
                Ok(Some(code))
            }
        });
        match entry.await? {
            Ok(code) => code,
            Err(error) => {
                self.discard(name, &error.to_string()).await;
                None
            }
        }
    }

    /// Stores code, and the time that compiling took. If storing fails, this only logs the problem.
    pub(crate) async fn store(self: &Arc<Self>, name: &str, code: Arc<MachineCode>, took: Duration) {
        let file = path(name);
        let store = move |cache: &Self| {
            cache.state.fill_private(&file, |entry| write(&file, &code, took, entry))?;
            cache.prune()
        };
        match self.access(store).await {
            None => {}
            Some(Ok(())) => self.fails.store(false, Relaxed),
            Some(Err(error)) => self.warn_once(&error.to_string()),
        }
    }

    /// Removes an entry that cannot be used.
    pub(crate) async fn discard(self: &Arc<Self>, name: &str, reason: &str) {
        let file = path(name);
        match self.access(move |cache| cache.state.remove(&file)).await {
            None => {}
            Some(Ok(())) => warn!(name, reason, "compiled plugin ignored: it is compiled again"),
            Some(Err(error)) => self.warn_once(&error.to_string()),
        }
    }

    /// Uses the state folder, on a thread that serves no connections. Returns `None` if the folder cannot be used or
    /// hangs.
    async fn access<T: Send + 'static>(
        self: &Arc<Self>,
        access: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Option<io::Result<T>> {
        if self.state.problem().is_some() || self.hangs.load(Relaxed) {
            return None;
        }
        let cache = self.clone();
        match timeout(PATIENCE, spawn_blocking(move || access(&cache))).await {
            Ok(Ok(done)) => Some(done),
            Ok(Err(panic)) => Some(Err(io::Error::other(panic))),
            Err(_) => {
                self.hangs.store(true, Relaxed);
                self.warn_once(&format!("the state folder does not answer within {PATIENCE:?}"));
                None
            }
        }
    }

    fn warn_once(&self, problem: &str) {
        if !self.fails.swap(true, Relaxed) {
            warn!(problem, "compiled plugins cannot be kept");
        }
    }

    fn prune(&self) -> io::Result<()> {
        let mut entries = self.state.files(FOLDER)?;
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.modified));
        let mut bytes = 0;
        for (index, entry) in entries.iter().enumerate() {
            bytes += entry.size;
            if index >= MAX_ENTRIES || (index > 0 && bytes > MAX_BYTES) {
                self.state.remove(&path(&entry.name))?;
            }
        }
        Ok(())
    }
}

fn path(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

/// Writes an entry: the code, how long compiling it took, and the rest of its trailer.
fn write(file: &str, code: &MachineCode, took: Duration, entry: &mut File) -> io::Result<()> {
    let time = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).to_le_bytes();
    let digest = copy(file, code.read()?.chain(&time[..]), entry)?;
    entry.write_all(MAGIC)?;
    entry.write_all(&digest)
}

/// Returns the code of an entry and how long compiling took, if the entry is whole and has the name that it was stored
/// under.
fn open(file: &str, mut entry: File, max_code: usize) -> io::Result<(MachineCode, Duration)> {
    let damaged = || io::Error::other("its digest is wrong");
    let length = entry.metadata()?.len().checked_sub(TRAILER as u64).ok_or_else(damaged)?;
    if length > max_code as u64 {
        return Err(io::Error::other(format!("it has more than {max_code} bytes")));
    }
    let mut code = MachineCode::create()?;
    let digest = copy_into(Sha256::new().chain_update(file), (&entry).take(length), &mut code)?;
    let (mut time, mut seal) = ([0; TIME], [0; TRAILER - TIME]);
    entry.read_exact(&mut time)?;
    entry.read_exact(&mut seal)?;
    let digest: [u8; DIGEST] = digest.chain_update(time).finalize().into();
    if seal[..MAGIC.len()] != *MAGIC || seal[MAGIC.len()..] != digest {
        return Err(damaged());
    }
    Ok((MachineCode::seal(code)?, Duration::from_millis(u64::from_le_bytes(time))))
}

/// Copies the content of an entry. Returns the digest of the entry's name and of the content.
fn copy(file: &str, from: impl Read, to: &mut File) -> io::Result<[u8; DIGEST]> {
    Ok(copy_into(Sha256::new().chain_update(file), from, to)?.finalize().into())
}

/// Copies to the file, and adds the copied bytes to the digest.
fn copy_into(mut digest: Sha256, mut from: impl Read, to: &mut File) -> io::Result<Sha256> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(digest);
        }
        digest.update(&buffer[..length]);
        to.write_all(&buffer[..length])?;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::PathBuf;
    use std::time::SystemTime;

    use super::*;

    const TOOK: Duration = Duration::from_millis(1234);

    fn code(text: &str) -> Arc<MachineCode> {
        Arc::new(MachineCode::of(text.as_bytes()))
    }

    struct Filled {
        _folder: tempfile::TempDir,
        cache: Arc<Cache>,
    }

    impl Filled {
        async fn with(names: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let cache = Arc::new(Cache::new(StateFolder::open(Some(&folder.path().join("state"))), 100));
            for name in names {
                cache.store(name, code(&format!("code of {name}")), TOOK).await;
            }
            Self { _folder: folder, cache }
        }

        async fn load(&self, name: &str) -> Option<String> {
            let (code, took) = self.cache.load(name).await?;
            assert_eq!(took, TOOK);
            let mut text = String::new();
            code.read().unwrap().read_to_string(&mut text).unwrap();
            Some(text)
        }

        fn file(&self, name: &str) -> PathBuf {
            self.cache.state.path(&path(name)).unwrap()
        }

        fn count(&self) -> usize {
            self.cache.state.files(FOLDER).unwrap().len()
        }
    }

    #[tokio::test]
    async fn what_is_stored_is_loaded() {
        let place = Filled::with(&["a", "b"]).await;
        assert_eq!(place.load("a").await.as_deref(), Some("code of a"));
        assert_eq!(place.load("b").await.as_deref(), Some("code of b"));
        assert_eq!(place.load("c").await, None);
        assert_eq!(fs::metadata(place.file("a")).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn what_is_not_as_it_was_stored_is_removed() {
        let damage: [fn(&Filled); 8] = [
            |place| {
                let mut entry = fs::read(place.file("a")).unwrap();
                entry[0] ^= 1;
                fs::write(place.file("a"), entry).unwrap();
            },
            |place| {
                let entry = fs::read(place.file("a")).unwrap();
                fs::write(place.file("a"), &entry[..entry.len() - 1]).unwrap();
            },
            |place| fs::write(place.file("a"), "").unwrap(),
            |place| fs::write(place.file("a"), [0; 101 + TRAILER]).unwrap(),
            |place| fs::rename(place.file("b"), place.file("a")).unwrap(),
            |place| fs::set_permissions(place.file("a"), Permissions::from_mode(0o644)).unwrap(),
            |place| {
                fs::rename(place.file("a"), place.file("elsewhere")).unwrap();
                symlink("elsewhere", place.file("a")).unwrap();
            },
            |place| {
                if rustix::process::geteuid().is_root() {
                    std::os::unix::fs::chown(place.file("a"), Some(1), None).unwrap();
                } else {
                    fs::write(place.file("a"), "").unwrap();
                }
            },
        ];
        for (index, damage) in damage.into_iter().enumerate() {
            let place = Filled::with(&["a", "b"]).await;
            damage(&place);
            assert_eq!(place.load("a").await, None, "{index}");
            assert!(place.file("a").symlink_metadata().is_err(), "{index}");
            place.cache.store("a", code("new"), TOOK).await;
            assert_eq!(place.load("a").await.as_deref(), Some("new"), "{index}");
        }
    }

    #[tokio::test]
    async fn where_nothing_can_be_kept_nothing_fails() {
        let place = Filled::with(&["a"]).await;
        fs::remove_dir_all(place.cache.state.path(FOLDER).unwrap()).unwrap();
        assert_eq!(place.load("a").await, None);
        fs::write(place.cache.state.path(FOLDER).unwrap(), "a file is in the way").unwrap();
        place.cache.store("a", code("code"), TOOK).await;
        assert!(place.cache.fails.load(Relaxed));
        assert_eq!(place.load("a").await, None);
        fs::remove_file(place.cache.state.path(FOLDER).unwrap()).unwrap();
        place.cache.store("a", code("code"), TOOK).await;
        assert!(!place.cache.fails.load(Relaxed));
        assert_eq!(place.load("a").await.as_deref(), Some("code"));

        let none = Arc::new(Cache::new(StateFolder::none("for a test"), 100));
        none.store("a", code("code"), TOOK).await;
        assert!(none.load("a").await.is_none());
    }

    #[tokio::test]
    async fn what_was_used_least_recently_goes_first() {
        let place = Filled::with(&["a", "b"]).await;
        let age = |name: &str, hours: u64| {
            let file = File::options().write(true).open(place.file(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
        };
        age("a", 2);
        age("b", 1);
        assert!(place.load("a").await.is_some());
        for number in 0..MAX_ENTRIES - 1 {
            place.cache.store(&format!("{number}"), code(""), TOOK).await;
        }
        assert_eq!(place.count(), MAX_ENTRIES);
        assert_eq!(place.load("b").await, None);
        assert!(place.load("a").await.is_some());

        // The entries are too large together, by their sizes in the file system.
        age("0", 1);
        File::options().write(true).open(place.file("0")).unwrap().set_len(MAX_BYTES).unwrap();
        age("0", 1);
        place.cache.store("large", code(""), TOOK).await;
        assert!(place.file("0").symlink_metadata().is_err());
        assert!(place.load("large").await.is_some());
    }
}
