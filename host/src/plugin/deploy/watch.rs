//! Keeps slots in agreement with the disk: watches the plugin file of each slot and the files of its settings, and
//! offers their new content to the slot. Each slot has a task of its own, so no slot waits for another.

use std::path::PathBuf;
use std::slice::from_mut;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::base::watch::{FileEvent, FileStamp, Settling, Watch, YOUNG};
use crate::config::{PluginSource, Settings, WatchConfig};
use crate::plugin::deploy::candidate::{Code, Wanted};
use crate::plugin::deploy::source;
use crate::plugin::runtime::environment::Environment;
use crate::plugin::runtime::spec::Spec;
use crate::plugin::slot::Slot;
use crate::plugin::slot::error::RefusedOnDisk;

/// How long reading may take. If a network file system hangs, reading may never end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest wait before a refused component or settings are tried again.
const LONGEST_DELAY: Duration = Duration::from_secs(600);

/// Keeps slots in agreement with their files on disk, until it is dropped.
#[derive(Debug)]
pub struct FileWatchers {
    _watch: Watch,
    /// One task for each slot. The tasks end when this is dropped.
    _tasks: JoinSet<()>,
    /// One receiver for each slot. It completes when the slot's first check has ended.
    first_checks: Vec<oneshot::Receiver<()>>,
}

impl FileWatchers {
    /// Starts to watch. Must be called within a tokio runtime.
    pub fn start(slots: &[Arc<Slot>], config: &WatchConfig) -> Self {
        let file = |slot: &Arc<Slot>| match slot.source() {
            PluginSource::File(path) => Some(path.clone()),
            PluginSource::Builtin(_) => None,
        };
        let (watch, mut receivers) = Watch::start(slots.iter().filter_map(file).collect(), config);
        let mut receivers = receivers.drain(..);
        let (mut tasks, mut first_checks) = (JoinSet::new(), Vec::new());
        for slot in slots {
            let path = file(slot);
            // A built-in plugin has no file, so there are no events.
            let events = path.as_ref().and_then(|_| receivers.next()).unwrap_or_else(|| mpsc::channel(1).1);
            let (checked, first_check) = oneshot::channel();
            first_checks.push(first_check);
            tasks.spawn(FileWatcher::new(slot.clone(), path, config.clone(), events).run(checked));
        }
        Self { _watch: watch, _tasks: tasks, first_checks }
    }

    /// Waits until the first check of every slot has ended. The component and the settings on disk have then been
    /// offered, or refused.
    pub async fn first_checks(&mut self) {
        join_all(self.first_checks.drain(..)).await;
    }
}

/// Watches the files of one slot.
struct FileWatcher {
    slot: Arc<Slot>,
    /// The plugin file; `None` for a built-in plugin.
    path: Option<PathBuf>,
    config: WatchConfig,
    events: mpsc::Receiver<FileEvent>,
    settling: Settling,
    /// True if it has been logged that a file keeps changing.
    has_warned: bool,
    /// The files at the last check. Unchanged files are not read again.
    known: Option<Files>,
    /// The reasons that were logged for the known files. The same reason is not logged again.
    logged_reasons: Vec<String>,
    /// The next attempt with a component or settings that were refused, if the reason may pass.
    retry: Option<Retry>,
    /// A check that has not ended yet.
    reading: Option<JoinHandle<Checked>>,
}

#[derive(Clone, Copy)]
struct Retry {
    delay: Duration,
    at: Instant,
}

/// The state of a slot's files that can be seen without reading them.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    settings: Settings,
    /// The stamps of the plugin file and of the files of settings. Where there is no stamp, the reason.
    stamps: Vec<Result<FileStamp, String>>,
}

impl Files {
    /// Takes the stamps of the files. Blocks.
    fn now(path: Option<&PathBuf>, settings: Settings) -> Self {
        let paths = path.map(PathBuf::as_path).into_iter().chain(settings.files());
        Self { stamps: paths.map(FileStamp::of).collect(), settings }
    }

    fn any(&self, is: fn(&FileStamp) -> bool) -> bool {
        self.stamps.iter().flatten().any(is)
    }
}

/// The result of a check.
enum Checked {
    /// No file has changed.
    Same,
    /// A file is being written.
    Changing,
    /// A file has changed since the last check. `at_rest` is `false` if the files were read while they kept changing.
    Found { files: Files, wanted: Wanted, at_rest: bool },
    /// The check has not ended, or has failed, for this reason.
    Stuck(String),
}

impl FileWatcher {
    fn new(slot: Arc<Slot>, path: Option<PathBuf>, config: WatchConfig, events: mpsc::Receiver<FileEvent>) -> Self {
        let settling = Settling::new(config.settle);
        let (known, logged_reasons, retry, reading) = (None, Vec::new(), None, None);
        Self { slot, path, config, events, settling, has_warned: false, known, logged_reasons, retry, reading }
    }

    async fn run(mut self, checked: oneshot::Sender<()>) {
        let mut checked = Some(checked);
        loop {
            let until = if self.check().await {
                drop(checked.take());
                let pause = Instant::now() + self.config.rescan;
                self.retry.map_or(pause, |retry| pause.min(retry.at))
            } else {
                Instant::now() + self.config.settle.max(YOUNG)
            };
            let slot = self.slot.clone();
            tokio::select! {
                () = self.settling.quiet(from_mut(&mut self.events), until) => {}
                () = slot.changed.notified() => {}
            }
        }
    }

    /// Checks the files, and offers changes to the slot. Returns `false` while a file is being written.
    async fn check(&mut self) -> bool {
        if self.slot.take_insisted() {
            self.forget();
        }
        let is_due = self.retry.is_some_and(|retry| retry.at <= Instant::now());
        let known = if is_due { None } else { self.known.clone() };
        match self.read(known).await {
            Checked::Same => self.settled(),
            Checked::Changing => {
                self.settling.still_changing();
                return false;
            }
            Checked::Stuck(reason) => self.cannot_check(reason),
            Checked::Found { files, wanted, at_rest } => return self.offer(files, wanted, at_rest).await,
        }
        true
    }

    async fn read(&mut self, known: Option<Files>) -> Checked {
        let patient = !self.settling.is_over();
        let begin = || {
            let (path, slot) = (self.path.clone(), self.slot.clone());
            spawn_blocking(move || read(path.as_ref(), &slot, known, patient))
        };
        // While a check hangs, no other is started: each would keep a thread.
        let reading = self.reading.get_or_insert_with(begin);
        let Ok(checked) = timeout(PATIENCE, reading).await else {
            return Checked::Stuck(format!("reading has not ended after {PATIENCE:?}"));
        };
        self.reading = None;
        checked.unwrap_or_else(|panic| Checked::Stuck(panic.to_string()))
    }

    /// Offers the found component and settings to the slot. Returns `false` if the files have changed meanwhile.
    async fn offer(&mut self, files: Files, wanted: Wanted, at_rest: bool) -> bool {
        if at_rest {
            self.settled();
        } else {
            self.read_while_changing();
        }
        if self.known.as_ref() != Some(&files) {
            self.forget();
        }
        let is_missing = self.path.is_some() && files.stamps.first().is_some_and(Result::is_err);
        let (path, found) = (self.path.clone(), files.clone());
        let is_current = move || !at_rest || Files::now(path.as_ref(), found.settings.clone()) == found;
        match self.slot.take_over(wanted, is_current).await {
            Ok(Some(refused)) => {
                self.record(&refused, is_missing);
                // While a file keeps changing, do not rely on stamps: two writes within 50 ms can have the same stamp.
                self.known = Some(files).filter(|_| at_rest);
                true
            }
            Ok(None) => {
                self.settling.still_changing();
                false
            }
            Err(reason) => {
                self.cannot_check(crate::plugin::text::line(&reason));
                true
            }
        }
    }

    /// Records why a component or settings do not serve, each reason once. Plans another attempt if a reason may pass.
    fn record(&mut self, refused: &RefusedOnDisk, is_missing: bool) {
        let RefusedOnDisk { component, settings } = refused;
        if let Some(reason) = component.as_ref().filter(|reason| !self.is_logged(&reason.text)) {
            match is_missing {
                true => self.cannot_check(reason.text.clone()),
                false => self.slot.record_refused_component(reason),
            }
        }
        if let Some(reason) = settings.as_ref().filter(|reason| !self.is_logged(&reason.text)) {
            self.slot.record_refused_settings(reason);
        }
        for reason in refused.reasons() {
            if !self.is_logged(&reason.text) {
                self.logged_reasons.push(reason.text.clone());
            }
        }
        let before = self.retry.map(|retry| (2 * retry.delay).min(LONGEST_DELAY));
        let delay = before.unwrap_or(self.config.rescan);
        self.retry =
            refused.reasons().any(|reason| reason.is_transient).then(|| Retry { delay, at: Instant::now() + delay });
    }

    fn is_logged(&self, reason: &str) -> bool {
        self.logged_reasons.iter().any(|logged| logged == reason)
    }

    /// Logs that the files cannot be checked, each reason once.
    fn cannot_check(&mut self, reason: String) {
        if !self.is_logged(&reason) {
            let (Spec { slot, plugin, source, .. }, still_live) = (&**self.slot.spec(), self.slot.live().number());
            warn!(slot, plugin, file = source.to_string(), reason, still_live, "the plugin's files cannot be checked");
            self.logged_reasons.push(reason);
        }
    }

    /// Forgets the last check, so that the next one tries and logs everything again.
    fn forget(&mut self) {
        (self.known, self.retry) = (None, None);
        self.logged_reasons.clear();
    }

    fn settled(&mut self) {
        self.settling.done();
        self.has_warned = false;
    }

    fn read_while_changing(&mut self) {
        self.settling.done();
        if !std::mem::replace(&mut self.has_warned, true) {
            let (Spec { slot, plugin, source, .. }, settle) = (&**self.slot.spec(), self.config.settle);
            let file = source.to_string();
            warn!(
                slot,
                plugin,
                file,
                ?settle,
                "a file of the plugin keeps changing (watch.settle); it is read as it is: copy to another name, then mv"
            );
        }
    }
}

/// Checks the files of a slot, and reads them if they have changed. Blocks.
fn read(path: Option<&PathBuf>, slot: &Slot, known: Option<Files>, patient: bool) -> Checked {
    let settings = slot.settings();
    let files = Files::now(path, settings.clone());
    if known.as_ref() == Some(&files) {
        return Checked::Same;
    }
    if files.any(FileStamp::is_just_emptied) || (patient && files.any(FileStamp::is_young)) {
        return Checked::Changing;
    }
    let limit = slot.spec().limits.max_component;
    let code = source::read(slot.source(), limit).context("it cannot be read").map(Code::new);
    let wanted = Wanted { code, environment: Environment::read(settings.clone()) };
    let is_same = Files::now(path, settings) == files;
    if is_same { Checked::Found { files, wanted, at_rest: patient } } else { Checked::Changing }
}
