//! Notices that files may have changed, and reports this to the tasks that read them.
//!
//! Folders are watched instead of files: a rename puts another file in place, and a link may be changed to point
//! elsewhere. The operating system does not report every change: none on network file systems, and none that happens
//! in a new folder before the folder is watched. So the readers also compare every file from time to time.

mod settling;
mod stamp;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout_at};
use tracing::warn;

pub use self::settling::Settling;
pub use self::stamp::{FileStamp, YOUNG};
use crate::config::WatchConfig;

/// How soon to look for folders again if some of them are not watched yet.
const RETRY: Duration = Duration::from_millis(500);

/// The most events that are queued for the task, which takes none while it looks for folders.
const MAX_EVENTS: usize = 1024;

/// The most events that are queued for one file while it is being read. More events would add no information.
const MAX_FILE_EVENTS: usize = 64;

/// The most links that are followed from one file.
const MAX_LINKS: usize = 16;

/// An event that concerns a file.
#[derive(Debug, Clone, Copy)]
pub enum FileEvent {
    /// Something happened nearby, or events were lost: compare the file.
    Near,
    /// The file is being written.
    Writing,
    /// The file has been written, or another file is in its place.
    Changed,
}

/// Watches files and sends their events to one receiver for each file, until it is dropped.
#[derive(Debug)]
pub struct Watch {
    /// Ends when the watch is dropped.
    _task: JoinSet<()>,
}

impl Watch {
    /// Starts to watch. Must be called within a tokio runtime. If the operating system cannot watch files, the
    /// receivers never get an event.
    pub fn start(paths: Vec<PathBuf>, config: &WatchConfig) -> (Self, Vec<mpsc::Receiver<FileEvent>>) {
        let (senders, events): (Vec<_>, Vec<_>) = paths.iter().map(|_| mpsc::channel(MAX_FILE_EVENTS)).unzip();
        let mut tasks = JoinSet::new();
        if !paths.is_empty() {
            match Task::new(paths.into_iter().zip(senders).collect(), config.clone()) {
                Ok(task) => drop(tasks.spawn(task.run())),
                Err(error) => {
                    let every = config.rescan;
                    warn!(%error, ?every, "the system cannot watch files: they are only compared from time to time");
                }
            }
        }
        (Self { _task: tasks }, events)
    }
}

/// A report of the operating system.
enum WatchReport {
    /// This happened to these paths.
    Paths(Vec<PathBuf>, FileEvent),
    /// Some events were lost.
    Unknown,
}

/// The task that watches all files and reports their events.
struct Task {
    files: Vec<(PathBuf, mpsc::Sender<FileEvent>)>,
    /// For each file, the paths that lead to it: see [`way`].
    ways: Vec<HashSet<PathBuf>>,
    config: WatchConfig,
    events: mpsc::Receiver<WatchReport>,
    folders: Arc<Mutex<Folders>>,
}

impl Task {
    fn new(files: Vec<(PathBuf, mpsc::Sender<FileEvent>)>, config: WatchConfig) -> notify::Result<Self> {
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let forward = move |event: notify::Result<Event>| {
            let change = match event {
                Ok(event) if event.need_rescan() => WatchReport::Unknown,
                Ok(event) => match file_event(event.kind) {
                    Some(kind) => WatchReport::Paths(event.paths, kind),
                    None => return,
                },
                Err(_) => WatchReport::Unknown,
            };
            // Fails if the task has ended, or if the queue is full. A full queue hides no change: after each queued
            // event, every file is compared.
            let _ = sender.try_send(change);
        };
        let watcher = notify::recommended_watcher(forward)?;
        let folders = Arc::new(Mutex::new(Folders { watcher, watched: HashMap::new(), has_warned: false }));
        Ok(Self { files, ways: Vec::new(), config, events, folders })
    }

    async fn run(mut self) {
        let mut touched = HashSet::new();
        loop {
            let (folders, files) = (self.folders.clone(), self.files.iter().map(|(path, _)| path.clone()).collect());
            let found = spawn_blocking(move || folders.lock().update(files, &touched)).await;
            let mut complete = false;
            if let Ok(found) = found {
                (self.ways, complete) = (found.ways, found.complete);
                if found.more {
                    // Something may have happened before the new folders were watched.
                    self.report(&WatchReport::Unknown);
                }
            }
            touched = HashSet::new();
            let pause = if complete { self.config.rescan } else { self.config.rescan.min(RETRY) };
            let mut until = Instant::now() + pause;
            let mut first = true;
            while let Ok(change) = timeout_at(until, self.events.recv()).await {
                let Some(change) = change else { return };
                self.report(&change);
                if let WatchReport::Paths(paths, _) = change {
                    touched.extend(paths);
                }
                if std::mem::take(&mut first) {
                    until = Instant::now() + self.config.settle;
                }
            }
        }
    }

    /// Sends each file's receiver the event that the change means for this file.
    fn report(&self, change: &WatchReport) {
        for ((_, file), way) in self.files.iter().zip(&self.ways) {
            let event = match change {
                WatchReport::Paths(paths, event) if paths.iter().any(|path| way.contains(path)) => *event,
                WatchReport::Paths(..) | WatchReport::Unknown => FileEvent::Near,
            };
            // Fails if the queue is full. One event more would add no information.
            let _ = file.try_send(event);
        }
    }
}

/// Returns what an event of the operating system means for the file itself.
fn file_event(kind: EventKind) -> Option<FileEvent> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(FileEvent::Changed),
        // Reading is no change. The gateway itself reads after each change: if that counted, it would never end.
        EventKind::Access(_) => None,
        EventKind::Modify(ModifyKind::Data(_)) => Some(FileEvent::Writing),
        _ => Some(FileEvent::Changed),
    }
}

struct Folders<W = RecommendedWatcher> {
    watcher: W,
    /// The watched folders, each with the identity that it had when the watch began.
    watched: HashMap<PathBuf, (u64, u64)>,
    /// True if it has been logged that a folder cannot be watched.
    has_warned: bool,
}

/// The result of looking for the folders.
struct Found {
    ways: Vec<HashSet<PathBuf>>,
    /// True if folders are watched that were not watched before.
    more: bool,
    /// True if all folders are watched.
    complete: bool,
}

impl<W: Watcher> Folders<W> {
    /// Watches the folders that lead to the files now, and no others. Blocks.
    fn update(&mut self, files: Vec<PathBuf>, touched: &HashSet<PathBuf>) -> Found {
        let ways: Vec<_> = files.iter().map(|file| way(file)).collect();
        let wanted: HashSet<&Path> = ways.iter().flatten().filter_map(|path| path.parent()).collect();
        // End the watches of folders that are not wanted any more, and of folders that may have been replaced: another
        // folder has their path now, or an event was about the folder itself (a new folder can have the same inode).
        let gone = self.watched.extract_if(|folder, known| {
            !wanted.contains(&**folder) || touched.contains(folder) || identity(folder) != Some(*known)
        });
        for (folder, _) in gone {
            // Fails if the folder is gone.
            let _ = self.watcher.unwatch(&folder);
        }
        let (mut more, mut complete) = (false, true);
        for folder in wanted {
            if self.watched.contains_key(folder) {
                continue;
            }
            match (identity(folder), self.watcher.watch(folder, RecursiveMode::NonRecursive)) {
                (Some(identity), Ok(())) => {
                    self.watched.insert(folder.to_owned(), identity);
                    more = true;
                }
                (Some(_), Err(error)) => {
                    complete = false;
                    self.warn_once(folder, &error);
                }
                (None, _) => complete = false,
            }
        }
        // A later fault is a new one.
        self.has_warned &= !complete;
        Found { ways, more, complete }
    }

    /// Logs that a folder cannot be watched. Logs this only once: the task tries again all the time.
    fn warn_once(&mut self, folder: &Path, error: &notify::Error) {
        // The folder may just have been removed.
        let is_missing = matches!(error.kind, ErrorKind::PathNotFound);
        if !is_missing && !std::mem::replace(&mut self.has_warned, true) {
            let (folder, advice) = (
                folder.display().to_string(),
                match error.kind {
                    ErrorKind::MaxFilesWatch => "raise fs.inotify.max_user_watches",
                    _ => "check who may read the folder",
                },
            );
            warn!(
                folder,
                %error,
                advice,
                "a folder cannot be watched: its files are only compared from time to time (watch.rescan)"
            );
        }
    }
}

/// Returns the device and inode of a folder, if it exists.
fn identity(folder: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(folder).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Returns the file's own path, and the paths of all symbolic links that lead to the file. If any of them changes,
/// another file may be in place.
fn way(file: &Path) -> HashSet<PathBuf> {
    let mut way = HashSet::new();
    let mut paths = vec![std::path::absolute(file).unwrap_or_else(|_| file.to_owned())];
    for _ in 0..MAX_LINKS {
        let Some(path) = paths.pop() else { break };
        for part in path.ancestors() {
            let (Ok(target), Some(folder), Ok(rest)) = (part.read_link(), part.parent(), path.strip_prefix(part))
            else {
                continue;
            };
            way.insert(part.to_owned());
            let target = folder.join(target);
            paths.push(if rest.as_os_str().is_empty() { target } else { target.join(rest) });
        }
        way.insert(path);
    }
    way
}
