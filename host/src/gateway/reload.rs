//! Reads the configuration again while the gateway runs: on SIGHUP, and when its file changes or one that a plugin's
//! setting stands in. What plugins are told takes effect as a new generation; what is wrong changes nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::base::watch::{Settling, Stamp, Watch};
use crate::config::{Config, Source};
use crate::policy::{Configured, Policy};

/// The configuration that is in force, and where another one comes from.
pub(super) struct Reload {
    source: Source,
    hangup: Signal,
    policy: Arc<Policy>,
    /// What the gateway was started with: what cannot be changed while it runs is in force.
    started: Config,
    /// What was read last.
    latest: Config,
    /// What its files looked like then; `None` if they may change and look the same.
    stamps: Option<Stamps>,
    /// What has been said of the last look. Of the same nothing is said again.
    said: Said,
}

type Stamps = Vec<Result<Stamp, String>>;

#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    problems: Vec<String>,
    waiting: Vec<String>,
}

/// Why to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Somebody wants to.
    Signal,
    /// Something may have changed, here or near here.
    News,
    /// It is time.
    Time,
}

impl Reload {
    /// For a gateway that runs on this configuration from there. `hangup` is SIGHUP.
    pub(super) fn new(source: Source, hangup: Signal, policy: Arc<Policy>, config: Config) -> Self {
        Self { source, hangup, policy, latest: config.clone(), started: config, stamps: None, said: Said::default() }
    }

    /// Never ends.
    pub(super) async fn run(mut self) {
        let mut settling = Settling::new(self.started.watch.settle);
        loop {
            let files = self.files();
            let (_watch, mut news) = Watch::start(files.iter().cloned().collect(), &self.started.watch);
            let mut next = Instant::now() + self.started.watch.rescan;
            // Until other files are to be watched.
            while self.files() == files {
                let why = tokio::select! {
                    _ = self.hangup.recv() => Why::Signal,
                    () = settling.quiet(&mut news, next) => if Instant::now() < next { Why::News } else { Why::Time },
                };
                if settling.is_over() {
                    let settle = self.started.watch.settle;
                    warn!(?settle, "the configuration does not come to rest (watch.settle); it is read as it is");
                }
                settling.done();
                if self.look(why).await {
                    next = Instant::now() + self.started.watch.rescan;
                }
            }
        }
    }

    /// What the configuration is made of.
    fn files(&self) -> BTreeSet<PathBuf> {
        let files = self.latest.setting_files().map(PathBuf::from);
        // Relative to the folder that the gateway was started in, like every path of a command line.
        files.chain(self.source.file.iter().filter_map(|file| std::path::absolute(file).ok())).collect()
    }

    /// Reads the configuration, unless only other files near it have changed. Returns whether it was read.
    async fn look(&mut self, why: Why) -> bool {
        if why == Why::Signal {
            self.said = Said::default();
            match &self.source.file {
                Some(file) => info!(file = file.display().to_string(), "reading the configuration again"),
                None => info!("there is no configuration file to read again (--config)"),
            }
        }
        let (source, files) = (self.source.clone(), self.files());
        let known = self.stamps.take().filter(|_| why == Why::News);
        let look = move || {
            let stamps: Stamps = files.iter().map(|file| Stamp::of(file)).collect();
            let is_young = stamps.iter().flatten().any(Stamp::is_young);
            let loaded = (known.as_ref() != Some(&stamps)).then(|| source.load_to_serve());
            (Some(stamps).filter(|_| !is_young), loaded)
        };
        let loaded = match spawn_blocking(look).await {
            Ok((stamps, None)) => {
                self.stamps = stamps;
                return false;
            }
            Ok((stamps, Some(loaded))) => {
                self.stamps = stamps;
                loaded.map_err(|error| error.to_string())
            }
            Err(panic) => Err(panic.to_string()),
        };
        let insist = why == Why::Signal;
        let said = match loaded {
            Err(problem) => {
                // A secret may have changed all the same.
                self.policy.look_again(insist);
                Said { problems: vec![problem], waiting: Vec::new() }
            }
            Ok(loaded) => {
                let mut keys = self.started.changes(&loaded.config);
                let Configured { waiting, missing } = self.policy.configure(&loaded, insist);
                keys.extend(waiting.into_iter().map(|slot| format!("the plugin of {slot}")));
                self.latest = loaded.config;
                Said { problems: missing, waiting: keys }
            }
        };
        self.say(said);
        true
    }

    fn say(&mut self, said: Said) {
        for reason in said.problems.iter().filter(|problem| !self.said.problems.contains(problem)) {
            error!(reason, "configuration refused; what is in force stays");
        }
        if !said.waiting.is_empty() && said.waiting != self.said.waiting {
            let keys = said.waiting.join(", ");
            warn!(keys, "configuration changed; these keys take effect at the next start");
        }
        self.said = said;
    }
}
