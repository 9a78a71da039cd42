//! Notices that plugin files have changed, and offers what is in them to their slots.
//!
//! Watched are folders, not files: a rename puts another file in place, and a link may come to point elsewhere. Where the
//! operating system does not tell (network file systems, folders made anew), the regular look at every file does.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{error, warn};

use super::slot::{Digest, Slot, read_file};
use crate::config::{PluginSource, WatchConfig};

/// How soon another look is taken after one that did not see everything.
const AGAIN: Duration = Duration::from_millis(500);

/// How many quiet times a file that is being written puts off being looked at.
const MOST_SETTLES: u32 = 50;

/// Events that wait while files are being looked at.
const MAX_EVENTS: usize = 1024;

/// Links followed from one file.
const MAX_LINKS: usize = 16;

/// Watches the files of slots for as long as it lives.
#[derive(Debug)]
pub struct Watch(JoinHandle<()>);

impl Watch {
    /// Starts to watch. Slots of built-in plugins are left alone. Must be called within a tokio runtime.
    pub fn start(slots: &[Arc<Slot>], config: &WatchConfig) -> Self {
        let files = slots.iter().filter_map(Watched::new).collect();
        Self(tokio::spawn(Task::new(files, config.clone()).run()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Task {
    files: Vec<Watched>,
    config: WatchConfig,
    /// `None` where the operating system has none left.
    watcher: Option<RecommendedWatcher>,
    events: mpsc::Receiver<Change>,
    /// The folders that are being watched, each with the identity it had when that began.
    folders: HashMap<PathBuf, (u64, u64)>,
    /// A folder could not be watched, or a file not be read at rest.
    incomplete: bool,
}

/// What the operating system says.
enum Change {
    /// Something happened to these paths.
    Paths(Vec<PathBuf>),
    /// It does not know what it has missed.
    Unknown,
}

impl Task {
    fn new(files: Vec<Watched>, config: WatchConfig) -> Self {
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let tell = move |event: notify::Result<Event>| {
            let change = match event {
                Ok(event) if event.need_rescan() => Change::Unknown,
                // Reading is no change, and it is what happens after each.
                Ok(event) if is_read(event.kind) => return,
                Ok(event) => Change::Paths(event.paths),
                Err(_) => Change::Unknown,
            };
            // Fails when the task has ended, or has so much to look at already that it will miss nothing.
            let _ = sender.try_send(change);
        };
        let watcher = match notify::recommended_watcher(tell) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                warn!(%error, every = ?config.rescan, "plugin files are not watched, only looked at from time to time");
                None
            }
        };
        Self { files, config, watcher, events, folders: HashMap::new(), incomplete: false }
    }

    async fn run(mut self) {
        if self.files.is_empty() {
            return;
        }
        loop {
            self.watch_folders();
            for file in &mut self.files {
                self.incomplete |= !file.look().await;
                file.slot.live().flush_log();
            }
            let pause = if self.incomplete { self.config.rescan.min(AGAIN) } else { self.config.rescan };
            self.wait_for_change(Instant::now() + pause).await;
        }
    }

    /// Returns some quiet time after a change, or at the end of the pause.
    async fn wait_for_change(&mut self, until: Instant) {
        let Ok(Some(change)) = timeout_at(until, self.events.recv()).await else {
            // Also when there is no watcher any more.
            return sleep_until(until).await;
        };
        let settle = self.config.settle;
        let latest = Instant::now() + settle * MOST_SETTLES;
        let mut quiet = Instant::now() + settle;
        let mut change = Some(change);
        loop {
            if let Some(change) = change.take() {
                self.forget_folders(&change);
                // Other files in the folder may be written all the time; they do not put it off.
                if self.concerns(&change) {
                    quiet = (Instant::now() + settle).min(latest);
                }
            }
            match timeout_at(quiet, self.events.recv()).await {
                Ok(Some(next)) => change = Some(next),
                Ok(None) | Err(_) => return sleep_until(quiet).await,
            }
        }
    }

    /// Whether it is about a plugin file itself.
    fn concerns(&self, change: &Change) -> bool {
        let Change::Paths(paths) = change else { return false };
        paths.iter().any(|path| self.files.iter().any(|file| path.file_name() == file.path.file_name()))
    }

    /// A folder to which something itself happened is watched anew: it may be gone, and another one made in its place
    /// before anyone looks, even with the same inode.
    fn forget_folders(&mut self, change: &Change) {
        let (Change::Paths(paths), Some(watcher)) = (change, &mut self.watcher) else { return };
        for path in paths {
            if self.folders.remove(path).is_some() {
                // Fails when the folder is gone.
                let _ = watcher.unwatch(path);
            }
        }
    }

    /// Watches the folders that matter now, and no others.
    fn watch_folders(&mut self) {
        self.incomplete = false;
        let Some(watcher) = &mut self.watcher else { return };
        let wanted: HashSet<PathBuf> = self.files.iter().flat_map(|file| folders_of(&file.path)).collect();
        // Another folder under the same name is another folder.
        let gone =
            self.folders.extract_if(|folder, known| !wanted.contains(folder) || identity(folder) != Some(*known));
        for (folder, _) in gone {
            // Fails when the folder is gone.
            let _ = watcher.unwatch(&folder);
        }
        for folder in wanted {
            if self.folders.contains_key(&folder) {
                continue;
            }
            let identity = identity(&folder);
            match (identity, watcher.watch(&folder, RecursiveMode::NonRecursive)) {
                (Some(identity), Ok(())) => drop(self.folders.insert(folder, identity)),
                _ => self.incomplete = true,
            }
        }
    }
}

fn is_read(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

fn identity(folder: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(folder).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The folders in which a change can put another file in the place of this one: its own, and for each link on the way
/// the one that the link is in.
fn folders_of(file: &Path) -> HashSet<PathBuf> {
    let mut folders = HashSet::new();
    let mut paths = vec![std::path::absolute(file).unwrap_or_else(|_| file.to_owned())];
    for _ in 0..MAX_LINKS {
        let Some(path) = paths.pop() else { break };
        folders.extend(path.parent().map(Path::to_owned));
        for part in path.ancestors() {
            let (Ok(target), Some(folder), Ok(rest)) = (part.read_link(), part.parent(), path.strip_prefix(part))
            else {
                continue;
            };
            folders.insert(folder.to_owned());
            let target = folder.join(target);
            paths.push(if rest.as_os_str().is_empty() { target } else { target.join(rest) });
        }
    }
    folders
}

/// One file and the slot that it is for.
struct Watched {
    slot: Arc<Slot>,
    path: PathBuf,
    /// What the file looked like when it was last read.
    stamp: Option<Stamp>,
    /// What was wrong when it was last looked at; said once.
    trouble: Option<String>,
}

/// Changes whenever the file does: the time of change cannot be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Watched {
    fn new(slot: &Arc<Slot>) -> Option<Self> {
        let PluginSource::File(path) = &slot.spec().source else { return None };
        Some(Self { slot: slot.clone(), path: path.clone(), stamp: None, trouble: None })
    }

    /// Reads the file if it has changed, and offers it to the slot if it is another plugin. `false` while it is being
    /// written.
    async fn look(&mut self) -> bool {
        let (path, known, slot) = (self.path.clone(), self.stamp, self.slot.clone());
        match spawn_blocking(move || read(&path, known, &slot)).await {
            Ok(Look::Same) => {}
            Ok(Look::Changing) => return false,
            Ok(Look::Missing(reason)) => self.missing(&reason),
            Ok(Look::Unreadable(stamp, reason)) => {
                self.stamp = Some(stamp);
                self.refused(None, &reason);
            }
            Ok(Look::New(stamp, code, digest)) => {
                self.stamp = Some(stamp);
                self.trouble = None;
                if digest != self.slot.live().digest()
                    && let Err(reason) = self.slot.swap(code, digest).await
                {
                    self.refused(Some(digest), &reason);
                }
            }
            Err(panic) => self.missing(&panic.to_string()),
        }
        true
    }

    /// A new file that will not do. It is not read again before it changes, so this is said once for each.
    fn refused(&self, digest: Option<Digest>, reason: &anyhow::Error) {
        let status = self.slot.status();
        let digest = digest.map(|digest| digest.to_string()).unwrap_or_default();
        error!(
            slot = status.slot, plugin = status.plugin, file = %self.path.display(), digest,
            reason = format!("{reason:#}"), still_live = status.generation, "plugin refused"
        );
    }

    fn missing(&mut self, reason: &str) {
        self.stamp = None;
        if self.trouble.as_deref() != Some(reason) {
            let status = self.slot.status();
            warn!(
                slot = status.slot, plugin = status.plugin, file = %self.path.display(), reason,
                still_live = status.generation, "plugin file cannot be read"
            );
            self.trouble = Some(reason.to_owned());
        }
    }
}

/// What a look at a file found.
enum Look {
    /// It is as it was.
    Same,
    /// It is being written.
    Changing,
    /// It is not there.
    Missing(String),
    /// It cannot be a plugin.
    Unreadable(Stamp, anyhow::Error),
    /// It has changed.
    New(Stamp, Vec<u8>, Digest),
}

/// Blocks.
fn read(path: &Path, known: Option<Stamp>, slot: &Slot) -> Look {
    let stamp = || std::fs::metadata(path).map(|metadata| Stamp::from(&metadata));
    let before = match stamp() {
        Ok(before) if known == Some(before) => return Look::Same,
        Ok(before) => before,
        Err(error) => return Look::Missing(error.to_string()),
    };
    let read = read_file(path, slot.spec().limits.max_component).context("it cannot be read");
    if !stamp().is_ok_and(|after| after == before) {
        return Look::Changing;
    }
    match read {
        Ok(code) => {
            let digest = Digest::of(&code, &slot.spec().settings);
            Look::New(before, code, digest)
        }
        Err(error) => Look::Unreadable(before, error),
    }
}
