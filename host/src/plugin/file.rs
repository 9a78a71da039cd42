//! Looks at one plugin file, and offers what is in it to its slot. Each file has a task of its own: none waits for what
//! happens to another.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::warn;

use super::error::is_passing;
use super::identity::Digest;
use super::slot::Slot;
use super::source::read_file;
use super::spec::Spec;
use crate::config::{PluginSource, WatchConfig};
use crate::watch::{News, Watch};

/// How long a file must have been quiet that has been written to and not been closed yet.
const WRITING: Duration = Duration::from_secs(2);

/// For how long writing puts off that a file is looked at.
const LONGEST_WRITING: Duration = Duration::from_secs(60);

/// A change may follow within this time of another and leave no trace: file systems keep time in ticks.
const YOUNG: Duration = Duration::from_millis(50);

/// How long reading may take. It may never end where a network file system hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a component waits at most until it is tried again.
const LONGEST_DELAY: Duration = Duration::from_secs(600);

/// Looks at the files of slots, for as long as it lives.
#[derive(Debug)]
pub struct PluginFiles {
    _watch: Watch,
    /// Ended with it.
    _tasks: JoinSet<()>,
}

impl PluginFiles {
    /// Starts to look. Must be called within a tokio runtime.
    pub fn watch(slots: &[Arc<Slot>], config: &WatchConfig) -> Self {
        let file = |slot: &Arc<Slot>| match &slot.spec().source {
            PluginSource::File(path) => Some((slot.clone(), path.clone())),
            PluginSource::Builtin(_) => None,
        };
        let files: Vec<_> = slots.iter().filter_map(file).collect();
        let (watch, news) = Watch::start(files.iter().map(|(_, path)| path.clone()).collect(), config);
        let mut tasks = JoinSet::new();
        for ((slot, path), news) in files.into_iter().zip(news) {
            tasks.spawn(PluginFile::new(slot, path, config.clone(), news).run());
        }
        Self { _watch: watch, _tasks: tasks }
    }
}

/// One file and the slot that it is for.
pub(super) struct PluginFile {
    slot: Arc<Slot>,
    path: PathBuf,
    config: WatchConfig,
    news: mpsc::Receiver<News>,
    seen: Seen,
    /// A look that has not ended yet.
    reading: Option<JoinHandle<Look>>,
}

/// What the last look came to. Of the same nothing is said again.
enum Seen {
    /// No file, for this reason.
    Missing(String),
    /// A file that serves, or that will not do.
    File(Stamp),
    /// A file that did not do for a reason that may pass: it is tried again, at growing intervals.
    NotNow { stamp: Stamp, delay: Duration, again: Instant },
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

impl Stamp {
    /// Whether the next write may be about to come, or leave the same stamp. An empty file is one that a copy has just
    /// truncated.
    fn is_young(&self) -> bool {
        let young = if self.size == 0 { WRITING } else { YOUNG };
        let Ok(now) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) else { return false };
        let (seconds, nanos) = self.changed;
        let changed = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        (now.as_nanos() as i128 - changed).unsigned_abs() < young.as_nanos()
    }
}

impl PluginFile {
    pub(super) fn new(slot: Arc<Slot>, path: PathBuf, config: WatchConfig, news: mpsc::Receiver<News>) -> Self {
        Self { slot, path, config, news, seen: Seen::Missing(String::new()), reading: None }
    }

    pub(super) async fn run(mut self) {
        loop {
            let pause = if self.look().await { self.config.rescan } else { self.config.settle.max(YOUNG) };
            self.wait(Instant::now() + pause).await;
        }
    }

    /// Returns when the file has been quiet after some news, or at the end of the pause.
    async fn wait(&mut self, until: Instant) {
        let Ok(Some(first)) = timeout_at(until, self.news.recv()).await else {
            // Also when nothing is watched.
            return sleep_until(until).await;
        };
        let latest = Instant::now() + LONGEST_WRITING;
        let mut quiet = Instant::now() + self.config.settle;
        let mut news = first;
        loop {
            let settle = match news {
                // Other files in the folder may be written all the time; they do not put it off.
                News::Near => None,
                News::Writing => Some(self.config.settle.max(WRITING)),
                News::Changed => Some(self.config.settle),
            };
            quiet = settle.map_or(quiet, |settle| Instant::now() + settle).min(latest);
            match timeout_at(quiet, self.news.recv()).await {
                Ok(Some(next)) => news = next,
                Ok(None) | Err(_) => return sleep_until(quiet).await,
            }
        }
    }

    /// Reads the file if it has changed, and offers it to the slot if it is another plugin. `false` while it is being
    /// written.
    async fn look(&mut self) -> bool {
        match self.read().await {
            Look::Same => {}
            Look::Changing => return false,
            Look::Missing(reason) => self.missing(reason),
            Look::Unreadable(stamp, reason) => self.refused(stamp, None, &reason),
            Look::New(stamp, code, digest) => {
                let path = self.path.clone();
                let is_current = move || std::fs::metadata(path).is_ok_and(|now| Stamp::from(&now) == stamp);
                match self.slot.offer(code, digest, is_current).await {
                    Ok(true) => self.seen = Seen::File(stamp),
                    Ok(false) => return false,
                    Err(reason) => self.refused(stamp, Some(digest), &reason),
                }
            }
        }
        true
    }

    async fn read(&mut self) -> Look {
        let known = match &self.seen {
            Seen::File(stamp) => Some(*stamp),
            Seen::NotNow { stamp, again, .. } => (Instant::now() < *again).then_some(*stamp),
            Seen::Missing(_) => None,
        };
        let (path, slot) = (&self.path, &self.slot);
        let begin = || {
            let (path, slot) = (path.clone(), slot.clone());
            spawn_blocking(move || read(&path, known, &slot))
        };
        // What hangs is not begun again: each would keep a thread.
        let reading = self.reading.get_or_insert_with(begin);
        let Ok(look) = timeout(PATIENCE, reading).await else {
            return Look::Missing(format!("reading it has not ended after {PATIENCE:?}"));
        };
        self.reading = None;
        look.unwrap_or_else(|panic| Look::Missing(panic.to_string()))
    }

    /// A new file that does not do. It is not read again before it changes, unless the reason may pass.
    fn refused(&mut self, stamp: Stamp, digest: Option<Digest>, reason: &anyhow::Error) {
        let before = match self.seen {
            Seen::NotNow { stamp: before, delay, .. } if before == stamp => Some(delay),
            _ => None,
        };
        self.seen = if is_passing(reason) {
            let delay = before.map_or(self.config.rescan, |delay| (2 * delay).min(LONGEST_DELAY));
            Seen::NotNow { stamp, delay, again: Instant::now() + delay }
        } else {
            Seen::File(stamp)
        };
        if before.is_none() {
            self.slot.turn_down(digest, reason);
        }
    }

    fn missing(&mut self, reason: String) {
        if !matches!(&self.seen, Seen::Missing(known) if *known == reason) {
            let (Spec { slot, plugin, .. }, still_live) = (&**self.slot.spec(), self.slot.live().number());
            let file = self.path.display().to_string();
            warn!(slot, plugin, file, reason, still_live, "plugin file cannot be read");
        }
        self.seen = Seen::Missing(reason);
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
        Ok(before) if before.is_young() => return Look::Changing,
        Ok(before) => before,
        Err(error) => return Look::Missing(error.to_string()),
    };
    let read = read_file(path, slot.spec().limits.max_component).context("it cannot be read");
    if !stamp().is_ok_and(|after| after == before) {
        return Look::Changing;
    }
    match read {
        Ok(code) => {
            let digest = Digest::of(&code);
            Look::New(before, code, digest)
        }
        Err(error) => Look::Unreadable(before, error),
    }
}
