//! Notices that files may have changed, and tells the tasks that look at them.
//!
//! Watched are folders, not files: a rename puts another file in place, and a link may come to point elsewhere. Where the
//! operating system does not tell (network file systems, folders made anew), the regular look at every file does.

mod settling;
mod stamp;

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout_at};
use tracing::warn;

pub use self::settling::Settling;
pub use self::stamp::{Stamp, YOUNG};
use crate::config::WatchConfig;

/// How soon folders are looked for again of which not all were there.
const AGAIN: Duration = Duration::from_millis(500);

/// Events that wait while folders are being looked for.
const MAX_EVENTS: usize = 1024;

/// News that wait while a file is being looked at: more would say no more.
const MAX_NEWS: usize = 64;

/// Links followed from one file.
const MAX_LINKS: usize = 16;

/// What happened to a file.
#[derive(Debug, Clone, Copy)]
pub enum News {
    /// Something, in a folder that it is in.
    Near,
    /// It is being written.
    Writing,
    /// It has been written, or another one put in its place.
    Changed,
}

/// Watches files, and tells each one's receiver what happens to it, for as long as the watch lives.
#[derive(Debug)]
pub struct Watch {
    /// Ended with it.
    _task: JoinSet<()>,
}

impl Watch {
    /// Starts to watch. Must be called within a tokio runtime. Where the operating system cannot watch, nothing is ever
    /// told.
    pub fn start(paths: Vec<PathBuf>, config: &WatchConfig) -> (Self, Vec<mpsc::Receiver<News>>) {
        let (tell, news): (Vec<_>, Vec<_>) = paths.iter().map(|_| mpsc::channel(MAX_NEWS)).unzip();
        let mut tasks = JoinSet::new();
        if !paths.is_empty() {
            match Task::new(paths.into_iter().zip(tell).collect(), config.clone()) {
                Ok(task) => drop(tasks.spawn(task.run())),
                Err(error) => {
                    let every = config.rescan;
                    warn!(%error, ?every, "files are not watched, only looked at from time to time");
                }
            }
        }
        (Self { _task: tasks }, news)
    }
}

/// What the operating system says.
enum Change {
    /// This happened to these paths.
    Paths(Vec<PathBuf>, News),
    /// It does not know what it has missed.
    Unknown,
}

/// One for all files: tells their tasks what happens.
struct Task {
    files: Vec<(PathBuf, mpsc::Sender<News>)>,
    /// For each file what leads to it.
    ways: Vec<HashSet<PathBuf>>,
    config: WatchConfig,
    events: mpsc::Receiver<Change>,
    folders: Arc<Mutex<Folders>>,
}

impl Task {
    fn new(files: Vec<(PathBuf, mpsc::Sender<News>)>, config: WatchConfig) -> notify::Result<Self> {
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let tell = move |event: notify::Result<Event>| {
            let change = match event {
                Ok(event) if event.need_rescan() => Change::Unknown,
                Ok(event) => match news(event.kind) {
                    Some(news) => Change::Paths(event.paths, news),
                    None => return,
                },
                Err(_) => Change::Unknown,
            };
            // Fails when the task has ended, or has so much to tell already that nothing will be missed.
            let _ = sender.try_send(change);
        };
        let watcher = notify::recommended_watcher(tell)?;
        let folders = Arc::new(Mutex::new(Folders { watcher, watched: HashMap::new() }));
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
                    // What happened before it was watched.
                    self.tell(&Change::Unknown);
                }
            }
            touched = HashSet::new();
            let pause = if complete { self.config.rescan } else { self.config.rescan.min(AGAIN) };
            let mut until = Instant::now() + pause;
            let mut first = true;
            while let Ok(change) = timeout_at(until, self.events.recv()).await {
                let Some(change) = change else { return };
                self.tell(&change);
                if let Change::Paths(paths, _) = change {
                    touched.extend(paths);
                }
                if std::mem::take(&mut first) {
                    until = Instant::now() + self.config.settle;
                }
            }
        }
    }

    fn tell(&self, change: &Change) {
        for ((_, file), way) in self.files.iter().zip(&self.ways) {
            let news = match change {
                Change::Paths(paths, news) if paths.iter().any(|path| way.contains(path)) => *news,
                Change::Paths(..) | Change::Unknown => News::Near,
            };
            // Fails when enough is waiting already.
            let _ = file.try_send(news);
        }
    }
}

/// What an event means for the file that it is about.
fn news(kind: EventKind) -> Option<News> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(News::Changed),
        // Reading is no change, and it is what happens after each.
        EventKind::Access(_) => None,
        EventKind::Modify(ModifyKind::Data(_)) => Some(News::Writing),
        _ => Some(News::Changed),
    }
}

struct Folders {
    watcher: RecommendedWatcher,
    /// Each with the identity it had when that began.
    watched: HashMap<PathBuf, (u64, u64)>,
}

/// What there is to watch.
struct Found {
    ways: Vec<HashSet<PathBuf>>,
    /// Folders are watched that were not.
    more: bool,
    /// All are watched.
    complete: bool,
}

impl Folders {
    /// Watches the folders that matter now, and no others. Blocks.
    fn update(&mut self, files: Vec<PathBuf>, touched: &HashSet<PathBuf>) -> Found {
        let ways: Vec<_> = files.iter().map(|file| way(file)).collect();
        let wanted: HashSet<&Path> = ways.iter().flatten().filter_map(|path| path.parent()).collect();
        // Another folder under the same name is another folder, and so is one to which something itself happened: it may
        // be gone, and another one made in its place, even with the same inode.
        let gone = self.watched.extract_if(|folder, known| {
            !wanted.contains(&**folder) || touched.contains(folder) || identity(folder) != Some(*known)
        });
        for (folder, _) in gone {
            // Fails when the folder is gone.
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
                _ => complete = false,
            }
        }
        Found { ways, more, complete }
    }
}

fn identity(folder: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(folder).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The paths at which a change can put another file in the place of this one: its own, and each link on the way.
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
