//! Keeps slots in agreement with what is on disk: looks at the source of each and at the files of its settings, and offers
//! what they hold to the slot. Each slot has a task of its own: none waits for what happens to another.

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

use crate::base::watch::{FileEvent, Settling, Stamp, Watch, YOUNG};
use crate::config::{PluginSource, Settings, WatchConfig};
use crate::plugin::deploy::candidate::{Code, Wanted};
use crate::plugin::deploy::source;
use crate::plugin::runtime::environment::Environment;
use crate::plugin::runtime::spec::Spec;
use crate::plugin::slot::Slot;
use crate::plugin::slot::error::Refused;

/// How long reading may take. It may never end where a network file system hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long something waits at most until it is tried again.
const LONGEST_DELAY: Duration = Duration::from_secs(600);

/// Keeps slots in agreement with what is on disk, for as long as it lives.
#[derive(Debug)]
pub struct Keepers {
    _watch: Watch,
    /// Ended with it.
    _tasks: JoinSet<()>,
    /// Each is dropped once a slot has been looked at.
    first_looks: Vec<oneshot::Receiver<()>>,
}

impl Keepers {
    /// Starts to look. Must be called within a tokio runtime.
    pub fn start(slots: &[Arc<Slot>], config: &WatchConfig) -> Self {
        let file = |slot: &Arc<Slot>| match slot.source() {
            PluginSource::File(path) => Some(path.clone()),
            PluginSource::Builtin(_) => None,
        };
        let (watch, mut news) = Watch::start(slots.iter().filter_map(file).collect(), config);
        let mut news = news.drain(..);
        let (mut tasks, mut first_looks) = (JoinSet::new(), Vec::new());
        for slot in slots {
            let path = file(slot);
            // Of what is part of the gateway there are no news.
            let news = path.as_ref().and_then(|_| news.next()).unwrap_or_else(|| mpsc::channel(1).1);
            let (looked, first_look) = oneshot::channel();
            first_looks.push(first_look);
            tasks.spawn(Keeper::new(slot.clone(), path, config.clone(), news).run(looked));
        }
        Self { _watch: watch, _tasks: tasks, first_looks }
    }

    /// Waits until each slot has been looked at once, and what was found is on its way to serve or refused.
    pub async fn looked(&mut self) {
        join_all(self.first_looks.drain(..)).await;
    }
}

/// One slot and what it is made of.
struct Keeper {
    slot: Arc<Slot>,
    /// The file of its component, unless that is part of the gateway.
    path: Option<PathBuf>,
    config: WatchConfig,
    news: mpsc::Receiver<FileEvent>,
    settling: Settling,
    /// It has been told that a file does not come to rest.
    said_restless: bool,
    /// What the last look found. The same is not read again.
    known: Option<Files>,
    /// What was said of it. The same is not said again.
    said: Vec<String>,
    /// When what was refused for a reason that may pass is tried again.
    retry: Option<Retry>,
    /// A look that has not ended yet.
    reading: Option<JoinHandle<Look>>,
}

#[derive(Clone, Copy)]
struct Retry {
    delay: Duration,
    at: Instant,
}

/// What a slot is made of, as far as can be seen without reading it.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    settings: Settings,
    /// Of the component and of the files that settings stand in; or why there is none.
    stamps: Vec<Result<Stamp, String>>,
}

impl Files {
    /// Blocks.
    fn look(path: Option<&PathBuf>, settings: Settings) -> Self {
        let paths = path.map(PathBuf::as_path).into_iter().chain(settings.files());
        Self { stamps: paths.map(Stamp::of).collect(), settings }
    }

    fn any(&self, is: fn(&Stamp) -> bool) -> bool {
        self.stamps.iter().flatten().any(is)
    }
}

/// What a look found.
enum Look {
    /// All is as it was.
    Same,
    /// A file is being written.
    Changing,
    /// Something has changed; `at_rest` unless it was read while it went on changing.
    Found { files: Files, wanted: Wanted, at_rest: bool },
    /// It has not ended, for this reason.
    Stuck(String),
}

impl Keeper {
    fn new(slot: Arc<Slot>, path: Option<PathBuf>, config: WatchConfig, news: mpsc::Receiver<FileEvent>) -> Self {
        let settling = Settling::new(config.settle);
        let (known, said, retry, reading) = (None, Vec::new(), None, None);
        Self { slot, path, config, news, settling, said_restless: false, known, said, retry, reading }
    }

    async fn run(mut self, looked: oneshot::Sender<()>) {
        let mut looked = Some(looked);
        loop {
            let until = if self.look().await {
                drop(looked.take());
                let pause = Instant::now() + self.config.rescan;
                self.retry.map_or(pause, |retry| pause.min(retry.at))
            } else {
                Instant::now() + self.config.settle.max(YOUNG)
            };
            let slot = self.slot.clone();
            tokio::select! {
                () = self.settling.quiet(from_mut(&mut self.news), until) => {}
                () = slot.changed.notified() => {}
            }
        }
    }

    /// Looks at the files, and offers the slot what has changed. `false` while one is being written.
    async fn look(&mut self) -> bool {
        if self.slot.take_insisted() {
            self.forget();
        }
        let is_due = self.retry.is_some_and(|retry| retry.at <= Instant::now());
        let known = if is_due { None } else { self.known.clone() };
        match self.read(known).await {
            Look::Same => self.at_rest(),
            Look::Changing => {
                self.settling.unrest();
                return false;
            }
            Look::Stuck(reason) => self.missing(reason),
            Look::Found { files, wanted, at_rest } => return self.offer(files, wanted, at_rest).await,
        }
        true
    }

    async fn read(&mut self, known: Option<Files>) -> Look {
        let patient = !self.settling.is_over();
        let begin = || {
            let (path, slot) = (self.path.clone(), self.slot.clone());
            spawn_blocking(move || read(path.as_ref(), &slot, known, patient))
        };
        // What hangs is not begun again: each would keep a thread.
        let reading = self.reading.get_or_insert_with(begin);
        let Ok(look) = timeout(PATIENCE, reading).await else {
            return Look::Stuck(format!("reading it has not ended after {PATIENCE:?}"));
        };
        self.reading = None;
        look.unwrap_or_else(|panic| Look::Stuck(panic.to_string()))
    }

    /// Offers what was found to the slot. `false` if it has changed meanwhile.
    async fn offer(&mut self, files: Files, wanted: Wanted, at_rest: bool) -> bool {
        if at_rest {
            self.at_rest();
        } else {
            self.restless();
        }
        if self.known.as_ref() != Some(&files) {
            self.forget();
        }
        let is_missing = self.path.is_some() && files.stamps.first().is_some_and(Result::is_err);
        let (path, found) = (self.path.clone(), files.clone());
        let is_current = move || !at_rest || Files::look(path.as_ref(), found.settings.clone()) == found;
        match self.slot.take_over(wanted, is_current).await {
            Ok(Some(refused)) => {
                self.tell(&refused, is_missing);
                // What goes on changing may change once more and look the same.
                self.known = Some(files).filter(|_| at_rest);
                true
            }
            Ok(None) => {
                self.settling.unrest();
                false
            }
            Err(reason) => {
                self.missing(crate::plugin::text::line(&reason));
                true
            }
        }
    }

    /// Says what does not serve, once, and tries it again in a while if the reason may pass.
    fn tell(&mut self, refused: &Refused, is_missing: bool) {
        let Refused { component, settings } = refused;
        if let Some(reason) = component.as_ref().filter(|reason| !self.said.contains(&reason.text)) {
            match is_missing {
                true => self.missing(reason.text.clone()),
                false => self.slot.tell_refused_component(reason),
            }
        }
        if let Some(reason) = settings.as_ref().filter(|reason| !self.said.contains(&reason.text)) {
            self.slot.tell_refused_settings(reason);
        }
        for reason in refused.reasons() {
            if !self.said.contains(&reason.text) {
                self.said.push(reason.text.clone());
            }
        }
        let before = self.retry.map(|retry| (2 * retry.delay).min(LONGEST_DELAY));
        let delay = before.unwrap_or(self.config.rescan);
        self.retry =
            refused.reasons().any(|reason| reason.is_transient).then(|| Retry { delay, at: Instant::now() + delay });
    }

    fn missing(&mut self, reason: String) {
        if !self.said.contains(&reason) {
            let (Spec { slot, plugin, source, .. }, still_live) = (&**self.slot.spec(), self.slot.live().number());
            warn!(slot, plugin, file = source.to_string(), reason, still_live, "plugin file cannot be read");
            self.said.push(reason);
        }
    }

    /// Whatever is found next is tried, and said.
    fn forget(&mut self) {
        (self.known, self.retry) = (None, None);
        self.said.clear();
    }

    fn at_rest(&mut self) {
        self.settling.done();
        self.said_restless = false;
    }

    fn restless(&mut self) {
        self.settling.done();
        if !std::mem::replace(&mut self.said_restless, true) {
            let (Spec { slot, plugin, source, .. }, settle) = (&**self.slot.spec(), self.config.settle);
            let file = source.to_string();
            warn!(slot, plugin, file, ?settle, "plugin file does not come to rest (watch.settle); it is read as it is");
        }
    }
}

/// Blocks.
fn read(path: Option<&PathBuf>, slot: &Slot, known: Option<Files>, patient: bool) -> Look {
    let settings = slot.settings();
    let files = Files::look(path, settings.clone());
    if known.as_ref() == Some(&files) {
        return Look::Same;
    }
    if files.any(Stamp::is_just_emptied) || (patient && files.any(Stamp::is_young)) {
        return Look::Changing;
    }
    let limit = slot.spec().limits.max_component;
    let code = source::read(slot.source(), limit).context("it cannot be read").map(Code::new);
    let wanted = Wanted { code, environment: Environment::read(settings.clone()) };
    if Files::look(path, settings) != files { Look::Changing } else { Look::Found { files, wanted, at_rest: patient } }
}
