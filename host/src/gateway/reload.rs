//! Reads the configuration again while the gateway runs: on SIGHUP, and when its file or the file of a plugin's
//! setting, of a token or of a certificate changes. New plugin settings take effect as a new generation; new tokens of
//! the API, `log.access` and `log.decisions` at once; new certificates, limits, origins, proxies and senders for new
//! connections. An invalid configuration changes no setting, but certificates and the secrets of plugins are read again
//! nevertheless.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::supervisor::Supervisor;
use crate::base::notices::Notices;
use crate::base::watch::{FileStamp, Settling, Watch};
use crate::config::{Config, Source};
use crate::edge::api::TokenStore;
use crate::edge::live::LiveConfig;
use crate::edge::tls::Certificates;
use crate::hub::outbox::Budget;
use crate::policy::{Configured, Policy};

/// The current configuration, and where a new one comes from.
pub(super) struct Reload {
    source: Source,
    hangup: Signal,
    parts: Parts,
    /// The configuration that was read last.
    latest: Config,
    /// The stamps of its files at that time. `None` if a file may still change without a new stamp.
    stamps: Option<Stamps>,
    /// The problems and keys of the last read that are logged. They are not logged again.
    logged: Logged,
    /// Where the problems that are left stand for operators.
    notices: Arc<Notices>,
    /// Who is told of a reload that an operator has asked for.
    supervisor: Supervisor,
}

/// The parts of the gateway that follow the configuration.
#[derive(Clone)]
pub(super) struct Parts {
    /// The plugins.
    pub(super) policy: Arc<Policy>,
    /// The tokens of the API, if it listens.
    pub(super) tokens: Option<Arc<TokenStore>>,
    /// The certificates of all listeners.
    pub(super) certificates: Certificates,
    /// The configuration in effect. Keys that cannot change while the gateway runs keep their values of the start.
    pub(super) live: Arc<LiveConfig>,
    /// The memory of all outboxes. Their shares depend on `limits.connections`.
    pub(super) budget: Arc<Budget>,
}

impl Parts {
    /// Applies new tokens and certificates. Returns why some were refused. Blocks.
    fn configure(&self, config: &Config) -> Vec<String> {
        let configure = |tokens: &Arc<TokenStore>| tokens.configure(config.api.tokens.clone());
        let refused = self.tokens.as_ref().map(configure).and_then(Result::err);
        let mut problems = self.certificates.reload(config);
        problems.extend(refused.map(|error| format!("api.token: {error}")));
        problems.extend(self.update(config).err());
        problems
    }

    /// Puts the keys into effect that may change while the gateway runs.
    ///
    /// # Errors
    /// If they do not fit the keys that wait for the next start. Then they wait, too.
    fn update(&self, new: &Config) -> Result<(), String> {
        let live = self.live.get();
        let updated = live.updated(new).map_err(|error| {
            let why = "with keys that wait for the next start, these would be wrong";
            format!("[limits], origins, proxies, senders and the log wait, too: {why}: {}", error.problem())
        })?;
        let keys = live.changes(&updated).join(", ");
        if !keys.is_empty() {
            self.budget.divide(updated.limits.connections);
            self.live.set(updated);
            info!(keys, "configuration changed; these keys take effect now");
        }
        Ok(())
    }
}

type Stamps = Vec<Result<FileStamp, String>>;

#[derive(Debug, Default, PartialEq, Eq)]
struct Logged {
    /// Why parts of the configuration were refused.
    problems: Vec<String>,
    /// Keys that take effect at the next start.
    waiting: Vec<String>,
}

/// Why the configuration is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trigger {
    /// An operator has sent SIGHUP.
    Signal,
    /// A file, or another file in its folder, may have changed.
    FileEvent,
    /// The time for a regular check has come.
    Time,
}

impl Reload {
    /// Creates this for a gateway that was started with a configuration from `source`. `hangup` receives SIGHUP.
    pub(super) fn new(
        source: Source,
        hangup: Signal,
        parts: Parts,
        notices: Arc<Notices>,
        supervisor: Supervisor,
    ) -> Self {
        let (logged, latest) = (Logged::default(), Config::clone(&parts.live.load()));
        Self { source, hangup, parts, latest, stamps: None, logged, notices, supervisor }
    }

    /// Reads the configuration again after every trigger. Never ends.
    pub(super) async fn run(mut self) {
        let watch = self.parts.live.load().watch.clone();
        let mut settling = Settling::new(watch.settle);
        loop {
            let files = self.files();
            let (_watch, mut events) = Watch::start(files.iter().cloned().collect(), &watch);
            let mut next = Instant::now() + watch.rescan;
            // Until the set of files to watch changes.
            while self.files() == files {
                let trigger = tokio::select! {
                    _ = self.hangup.recv() => Trigger::Signal,
                    () = settling.quiet(&mut events, next) => {
                        if Instant::now() < next { Trigger::FileEvent } else { Trigger::Time }
                    }
                };
                if settling.is_over() {
                    warn!(
                        settle = ?watch.settle,
                        "the configuration keeps changing (watch.settle); it is read as it is: write another file, then mv"
                    );
                }
                settling.done();
                if trigger == Trigger::Signal {
                    self.supervisor.reloading();
                }
                if self.read_again(trigger).await {
                    next = Instant::now() + watch.rescan;
                }
                if trigger == Trigger::Signal {
                    self.supervisor.ready();
                }
            }
        }
    }

    /// Returns the files of the configuration.
    fn files(&self) -> BTreeSet<PathBuf> {
        let files = self.latest.setting_files().map(PathBuf::from);
        // A relative path begins at the folder that the gateway was started in, like every path of a command line.
        files.chain(self.source.file.iter().filter_map(|file| std::path::absolute(file).ok())).collect()
    }

    /// Reads the configuration, unless only other files in its folder have changed. Returns `true` if it was read.
    async fn read_again(&mut self, trigger: Trigger) -> bool {
        if trigger == Trigger::Signal {
            self.logged = Logged::default();
            match &self.source.file {
                Some(file) => info!(file = file.display().to_string(), "reading the configuration again"),
                None => info!("there is no configuration file to read again (--config)"),
            }
        }
        let (source, files, parts) = (self.source.clone(), self.files(), self.parts.clone());
        let latest = self.latest.clone();
        let known = self.stamps.take().filter(|_| trigger == Trigger::FileEvent);
        let read = move || {
            let stamps: Stamps = files.iter().map(|file| FileStamp::of(file)).collect();
            let is_young = stamps.iter().flatten().any(FileStamp::is_young);
            let loaded = (known.as_ref() != Some(&stamps)).then(|| {
                let loaded = source.load_to_serve().map_err(|error| {
                    // A certificate may have been renewed nevertheless.
                    let mut problems = parts.certificates.reload(&latest);
                    problems.insert(0, error.to_string());
                    problems
                })?;
                let refused = parts.configure(&loaded.config);
                Ok((loaded, refused))
            });
            (Some(stamps).filter(|_| !is_young), loaded)
        };
        let loaded = match spawn_blocking(read).await {
            Ok((stamps, None)) => {
                self.stamps = stamps;
                return false;
            }
            Ok((stamps, Some(loaded))) => {
                self.stamps = stamps;
                loaded
            }
            Err(panic) => Err(vec![panic.to_string()]),
        };
        let insist = trigger == Trigger::Signal;
        let found = match loaded {
            Err(problems) => {
                // A secret in a file may have changed nevertheless.
                self.parts.policy.look_again(insist);
                Logged { problems, waiting: Vec::new() }
            }
            Ok((loaded, refused)) => {
                let mut keys = self.parts.live.load().changes(&loaded.config);
                let Configured { waiting, missing: mut problems } = self.parts.policy.configure(&loaded, insist);
                keys.extend(waiting.into_iter().map(|slot| format!("the plugin of {slot}")));
                self.latest = loaded.config;
                problems.extend(refused);
                Logged { problems, waiting: keys }
            }
        };
        self.log(found);
        true
    }

    /// Logs problems and keys, except those that are logged already.
    fn log(&mut self, found: Logged) {
        for reason in found.problems.iter().filter(|problem| !self.logged.problems.contains(problem)) {
            error!(reason, "configuration refused; what is refused stays as it was");
        }
        if !found.waiting.is_empty() && found.waiting != self.logged.waiting {
            let keys = found.waiting.join(", ");
            warn!(keys, "configuration changed; these keys take effect at the next start");
        }
        let waiting = found.waiting.iter().map(|key| format!("{key} has changed and takes effect at the next start"));
        self.notices.set("configuration", found.problems.iter().cloned().chain(waiting).collect());
        self.logged = found;
    }
}
