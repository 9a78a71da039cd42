//! The task that keeps a connection: it reads the own inbox, notices a server that is silent, and connects again.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::client::{Incoming, Link, Signal, Subscription, open};
use super::config::BusConfig;
use super::error::{BusError, Right};
use super::events::{Event, Notice, frame};
use super::probe;
use super::state::Shared;
use super::subject::{Channel, Letter};
use crate::hub::cluster::id::Incarnation;

/// The pause after the first round of attempts that has failed. Each pause doubles the next, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between two rounds of attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often in one ping interval the keeper asks the server for an echo, or looks at the age of the one under way.
const LOOKS: u32 = 4;
/// A connection ends when an echo has been under way for so many ping intervals. With the time until it is asked for,
/// and until the keeper looks, that makes 2.5 intervals at most.
const LATE: u32 = 2;

/// The task that keeps a connection.
pub(super) struct Keeper {
    pub(super) config: Arc<BusConfig>,
    pub(super) shared: Arc<Shared>,
    pub(super) notices: mpsc::Sender<Notice>,
}

/// What of a connection the keeper reads.
pub(super) struct Own {
    server: String,
    inbox: Subscription,
    signals: mpsc::Receiver<Signal>,
}

impl Keeper {
    /// Runs until the task is aborted, or until the events are dropped.
    pub(super) async fn run(self, mut own: Own) {
        loop {
            self.serve(&mut own).await;
            self.shared.disconnected();
            let lost = own.server.clone();
            drop(own);
            if self.notices.send(Notice::Event(Event::Disconnected)).await.is_err() {
                break;
            }
            let (next, connected) = self.begin(self.reconnect(&lost).await);
            own = next;
            if self.notices.send(connected).await.is_err() {
                break;
            }
        }
    }

    /// Begins to use a connection. Returns what the owner must be told.
    pub(super) fn begin(&self, link: Link) -> (Own, Notice) {
        let Link { client, subscriptions: [all, link, snapshots, inbox], signals, server } = link;
        let own = Own { server: server.server.clone(), inbox, signals };
        self.shared.connected(client);
        (own, Notice::Connected(server, [Some(all), Some(link), Some(snapshots)]))
    }

    /// Reads the inbox and the signals until the connection ends.
    async fn serve(&self, own: &mut Own) {
        let period = self.config.ping_interval / LOOKS;
        let mut looks = interval(period);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            tokio::select! {
                message = own.inbox.next() => match message {
                    Some(message) => self.read(message),
                    None => return,
                },
                Some(signal) = own.signals.recv() => {
                    // The next connection's check says whether the gateway can do without.
                    let is_deaf = matches!(signal, Signal::Denied(Right::Subscribe, _));
                    self.pass(signal);
                    if is_deaf {
                        return;
                    }
                }
                _ = looks.tick() => {
                    let now = Instant::now();
                    // This process or the machine has slept: the echo may be waiting in the socket.
                    if now.duration_since(last) > self.config.ping_interval {
                        self.shared.forgive();
                    }
                    last = now;
                    if self.shared.probe() > self.config.ping_interval * LATE {
                        return;
                    }
                }
            }
        }
    }

    /// Reads a message in the own inbox.
    fn read(&self, message: Incoming) {
        let event = match self.shared.subjects.letter(message.subject()) {
            Some(Letter::Echo(number)) => return self.shared.echoed(number),
            Some(Letter::Token(token)) if message.is_no_responders() => Event::NoResponder { token },
            Some(Letter::Token(token)) => match frame(message.into_bytes(), Channel::Inbox, &self.shared) {
                Some(bytes) => Event::Answer { token, bytes },
                None => return self.tell(Notice::Dropped),
            },
            Some(Letter::Probe) | None => return,
        };
        self.tell(Notice::Event(event));
    }

    fn pass(&self, signal: Signal) {
        self.tell(match signal {
            Signal::LameDuck => Notice::Event(Event::LameDuck),
            Signal::Denied(right, subject) => Notice::Event(Event::Denied { right, subject }),
            Signal::Said(text) => Notice::Event(Event::Said(text)),
            Signal::Dropped => Notice::Dropped,
        });
    }

    /// Tells the owner something that may be lost, if it does not listen in time. The loss is counted.
    fn tell(&self, notice: Notice) {
        if let Err(TrySendError::Full(Notice::Event(_))) = self.notices.try_send(notice) {
            self.shared.dropped.add(Channel::Inbox, 1);
        }
    }

    /// Connects to any server, trying again and again.
    async fn reconnect(&self, lost: &str) -> Link {
        let (mut told, mut pause) = (None, FIRST_PAUSE);
        loop {
            match round(&self.config, &self.shared, Some(lost)).await {
                Ok(link) => return link,
                Err(error) if told.as_ref() == Some(&error) => {}
                Err(error) => {
                    self.tell(Notice::Event(Event::Failed(error.clone())));
                    told = Some(error);
                }
            }
            // All gateways lose a server at the same time; they come back spread over half of the pause.
            sleep(pause / 2 + pause.mul_f64(random() / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Connects to any server before the deadline.
///
/// # Errors
/// If no server can be used; at once if waiting would not help.
pub(super) async fn connect(config: &Arc<BusConfig>, shared: &Shared) -> Result<Link, BusError> {
    let mut last = None;
    let attempts = async {
        loop {
            match round(config, shared, None).await {
                Err(error) if error.is_transient() => last = Some(error),
                done => return done,
            }
            sleep(FIRST_PAUSE).await;
        }
    };
    match timeout(config.connect_timeout, attempts).await {
        Ok(done) => done,
        Err(_) => Err(last.unwrap_or_else(|| {
            let reason = format!("no answer within {} ms", config.connect_timeout.as_millis());
            BusError::unreachable(&config.servers.join(", "), reason)
        })),
    }
}

/// Tries each server once, in random order; the one that was lost comes last.
async fn round(config: &Arc<BusConfig>, shared: &Shared, lost: Option<&str>) -> Result<Link, BusError> {
    let reader = config.clone();
    let reading = tokio::task::spawn_blocking(move || reader.read_secrets());
    let read = timeout(config.attempt_timeout, reading).await;
    let read = read.map_err(|_| BusError::setting("login", "its files cannot be read in time"))?;
    let secrets = read.map_err(|error| BusError::setting("login", error))??;
    let mut servers = config.servers.iter().enumerate().collect::<Vec<_>>();
    let order = RandomState::new();
    servers.sort_by_cached_key(|&(_, server)| (lost == Some(server), order.hash_one(server)));
    let mut errors = Vec::new();
    for (index, server) in servers {
        let attempt = async {
            let mut link = open(server, config, &secrets, &shared.subjects, shared.dropped.clone()).await?;
            // A random number that no gateway has.
            let nobody = Incarnation(RandomState::new().hash_one(server));
            probe::check(&mut link, &shared.subjects, nobody, config.attempt_timeout / 2).await?;
            Ok(link)
        };
        match timeout(config.attempt_timeout, Box::pin(attempt)).await {
            Ok(Ok(link)) => return Ok(link),
            Ok(Err(error)) => errors.push((index, error)),
            Err(_) => errors.push((index, BusError::unreachable(server, "it does not answer"))),
        }
    }
    // In the order of the settings, so that the same errors make the same text.
    errors.sort_by_key(|&(index, _)| index);
    let errors = errors.into_iter().map(|(_, error)| error).collect();
    Err(BusError::of_all(errors).unwrap_or_else(|| BusError::setting("servers", "there is none")))
}

/// Returns a random number from 0 to 1.
fn random() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

impl Drop for Keeper {
    /// Ends the connection, however the task ends.
    fn drop(&mut self) {
        self.shared.disconnected();
    }
}
