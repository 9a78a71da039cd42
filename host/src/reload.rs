//! Reads the configuration again while the gateway runs: on SIGHUP, and when its file changes or one that a plugin's
//! setting stands in. What plugins are told takes effect as a new generation; what is wrong changes nothing.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};
use tracing::{error, info, warn};

use crate::config::{Config, Source, WatchConfig};
use crate::policy::Policy;
use crate::watch::{News, Watch};

/// The configuration that is in force, and where another one comes from.
pub struct Reload {
    source: Source,
    hangup: Signal,
    policy: Arc<Policy>,
    /// What the gateway was started with: what cannot be changed while it runs is in force.
    started: Config,
    /// What was read last.
    latest: Config,
    /// What has been said of the last look. Of the same nothing is said again.
    said: Said,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    problem: Option<String>,
    waiting: Vec<String>,
    refused: Vec<String>,
}

/// Why to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Somebody wants to.
    Signal,
    /// Something may have changed.
    News,
}

impl Reload {
    /// For a gateway that runs on this configuration from there. `hangup` is SIGHUP.
    pub fn new(source: Source, hangup: Signal, policy: Arc<Policy>, config: Config) -> Self {
        Self { source, hangup, policy, latest: config.clone(), started: config, said: Said::default() }
    }

    /// Never ends.
    pub async fn run(mut self) {
        loop {
            let files = self.files();
            let (_watch, mut news) = Watch::start(files.iter().cloned().collect(), &self.started.watch);
            // Until other files are to be watched.
            while self.files() == files {
                let why = tokio::select! {
                    _ = self.hangup.recv() => Why::Signal,
                    () = quiet_after_news(&mut news, &self.started.watch) => Why::News,
                };
                self.look(why).await;
            }
        }
    }

    /// What the configuration is made of.
    fn files(&self) -> BTreeSet<PathBuf> {
        let files = self.latest.setting_files().map(PathBuf::from);
        // Relative to the folder that the gateway was started in, like every path of a command line.
        files.chain(self.source.file.iter().filter_map(|file| std::path::absolute(file).ok())).collect()
    }

    async fn look(&mut self, why: Why) {
        if why == Why::Signal {
            self.said = Said::default();
            match &self.source.file {
                Some(file) => info!(file = file.display().to_string(), "reading the configuration again"),
                None => info!("there is no configuration file to read again (--config)"),
            }
        }
        let source = self.source.clone();
        let loaded = match spawn_blocking(move || source.load()).await {
            Ok(Ok(config)) => Ok(config),
            Ok(Err(error)) => Err(error.to_string()),
            Err(panic) => Err(panic.to_string()),
        };
        let said = match loaded {
            Err(problem) => Said { problem: Some(problem), ..Said::default() },
            Ok(config) => {
                let mut waiting = self.started.changes(&config);
                let configured = self.policy.configure(&config, why == Why::Signal).await;
                waiting.extend(configured.waiting.into_iter().map(|slot| format!("the plugin of {slot}")));
                let refused = configured.refused;
                self.latest = config;
                Said { problem: None, waiting, refused }
            }
        };
        self.say(said);
    }

    fn say(&mut self, said: Said) {
        if let Some(reason) = said.problem.as_ref().filter(|_| said.problem != self.said.problem) {
            error!(reason, "configuration refused; what is in force stays");
        }
        if !said.waiting.is_empty() && said.waiting != self.said.waiting {
            let keys = said.waiting.join(", ");
            warn!(keys, "configuration changed; these keys take effect at the next start");
        }
        for reason in said.refused.iter().filter(|refused| !self.said.refused.contains(refused)) {
            error!(reason, "settings refused; the plugin goes on with those it has");
        }
        self.said = said;
    }
}

/// Returns when the files have been quiet after some news, or when it is time to look without.
async fn quiet_after_news(news: &mut [mpsc::Receiver<News>], config: &WatchConfig) {
    let latest = Instant::now() + config.rescan;
    let mut until = latest;
    while let Ok(news) = timeout_at(until, any(news)).await {
        let quiet = Instant::now() + config.settle;
        until = match news {
            // Other files in the folder may be written all the time; they do not put it off.
            News::Near => until.min(quiet),
            News::Writing | News::Changed => quiet.min(latest),
        };
    }
}

/// What happens to any of the files.
async fn any(news: &mut [mpsc::Receiver<News>]) -> News {
    poll_fn(|context| {
        let mut ready = news.iter_mut().filter_map(|news| match news.poll_recv(context) {
            Poll::Ready(told) => told,
            Poll::Pending => None,
        });
        ready.next().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}
