//! Closes connections whose client has gone silent, and those that have reached an age. It knows all connections, so it
//! also closes all of them in a drain (see `closing`).
//!
//! For each connection the heartbeat knows the tick of its next check: when the client would have been silent for too
//! long, or when a ping is due. Each tick checks the connections that are due. If the client was heard meanwhile, the
//! connection moves to a later tick. So each connection is checked about once per `timeout` (or `ping_interval`),
//! however often its client is heard. By default, `timeout` is 30 s and there are no pings. Then a million connections
//! cost about 33,000 checks a second. To record that a client was heard, one store into the connection's own memory is
//! enough.
//!
//! There is one lock, held only for short moments: when a connection begins or ends, to take a batch of due
//! connections, and to schedule the next check of each. A drain holds it for longer, once: to list all connections.
//!
//! While a connection's task waits for a plugin, nobody reads, so silence proves nothing. The heartbeat then makes the
//! task ask the kernel whether the peer is dead. The kernel knows from TCP keepalive (see [`keepalive`]).

mod closing;
mod link;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rand::seq::SliceRandom as _;
use socket2::TcpKeepalive;
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval};

use self::closing::{AT_ONCE, MaxAge, Pace, random, reason};
pub use self::link::Link;
use self::link::{Watched, part_of};
use crate::base::message::{Cause, CloseReason, ConnectionId};
use crate::base::metrics::METRICS;
use crate::config::{DrainConfig, HeartbeatConfig};
use crate::hub::outbox::Outbox;

const SILENT: CloseReason = CloseReason::new(4900, "nothing heard for too long");

/// Each ping is sent a little early: by up to `ping_interval` divided by this number, depending on the connection.
/// After a restart all clients connect at the same time. Without this spread, all their later pings would be at the
/// same time, too.
const PING_SPREAD: u32 = 4;
/// The unanswered TCP probes after which the peer counts as dead.
const PROBES: u32 = 3;

/// Watches all connections for silence.
#[derive(Debug)]
pub struct Heartbeat {
    config: HeartbeatConfig,
    max_age: Option<MaxAge>,
    watched: Arc<Mutex<Watched>>,
    /// Held while a batch of connections is checked: they are not in `watched` meanwhile.
    checking: Mutex<()>,
}

/// What to do about a connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextStep {
    /// Check again after this time.
    Wait(Duration),
    /// Send a ping, and check again after this time.
    Ping(Duration),
    /// Let the connection's task check whether the peer is gone, and check again after this time.
    Probe(Duration),
    /// Close the connection: the client is silent.
    Close,
}

impl Heartbeat {
    /// Creates a heartbeat that watches no connection yet.
    pub fn new(config: HeartbeatConfig) -> Self {
        Self { config, max_age: None, watched: Arc::default(), checking: Mutex::default() }
    }

    /// Also closes connections at this age, up to a tenth more or less, with a close frame like that of a drain.
    pub fn with_max_age(self, age: Option<Duration>, drain: &DrainConfig) -> Self {
        Self { max_age: age.map(|age| MaxAge::new(age, drain.clone())), ..self }
    }

    /// Starts to watch a new connection, and returns its link.
    pub fn watch(&self, id: ConnectionId, outbox: Outbox) -> Arc<Link> {
        let link = Arc::new(Link::new(id, outbox, self.watched.clone()));
        let HeartbeatConfig { timeout, ping_interval, .. } = self.config;
        let first = ping_interval.map_or(timeout, |interval| early(interval, id));
        let first = self.max_age.as_ref().map_or(first, |max| first.min(max.left(&link)));
        self.schedule(&mut self.watched.lock(), &link, first);
        link
    }

    /// Checks connections. Never ends.
    pub async fn run(&self) -> Infallible {
        let mut ticks = interval(self.config.check_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.watched.lock().tick += 1;
            while self.check_batch() {
                yield_now().await;
            }
        }
    }

    /// Asks all connections to close, as `drain` says: those that are not authenticated first, and then all others,
    /// both in random order. As soon as `hurry` is done, asks all the rest at once. Connections that begin meanwhile
    /// are left out.
    pub async fn close_all(&self, drain: &DrainConfig, hurry: impl Future<Output = ()>) {
        let (mut random, mut hurry) = (random(), pin!(hurry));
        let mut links = self.links();
        links.shuffle(&mut random);
        let mut pace = Pace::new(links.len(), drain);
        let is_user = |link: &Weak<Link>| link.upgrade().is_some_and(|link| link.is_authenticated());
        let (users, strangers): (Vec<_>, Vec<_>) = links.into_iter().partition(is_user);
        let links = strangers.into_iter().chain(users).filter_map(|link| link.upgrade());
        let mut open = links.filter(|link| link.outbox.is_open());
        loop {
            // First the turn: a connection that ends during the wait takes none.
            pace.turn(hurry.as_mut()).await;
            let Some(link) = open.next() else { return };
            link.outbox.close(reason("restart", drain, &mut random), Cause::Shutdown);
        }
    }

    /// Checks a batch of the connections that are due. Returns `false` if there are none.
    fn check_batch(&self) -> bool {
        let _checking = self.checking.lock();
        let due = self.take_due();
        due.iter().for_each(|link| self.check(link));
        !due.is_empty()
    }

    /// Takes a batch of the connections that are due.
    fn take_due(&self) -> Vec<Arc<Link>> {
        let mut watched = self.watched.lock();
        let tick = watched.tick;
        let mut links = Vec::new();
        while links.len() < AT_ONCE
            && let Some(first) = watched.links.first_entry().filter(|first| first.key().0 <= tick)
        {
            // If `upgrade` fails, its `Weak` is dead: the link is being dropped.
            links.extend(first.remove().upgrade());
        }
        links
    }

    /// Lists all connections, except those that the heartbeat has closed.
    fn links(&self) -> Vec<Weak<Link>> {
        let _checking = self.checking.lock();
        self.watched.lock().links.values().cloned().collect()
    }

    fn check(&self, link: &Arc<Link>) {
        let wait = match self.next_step(link.silence(), link.id) {
            NextStep::Close => {
                if link.outbox.close(SILENT, Cause::Silent) {
                    METRICS.silent_connections.increment();
                }
                return;
            }
            NextStep::Wait(wait) => wait,
            NextStep::Ping(wait) => {
                link.request_ping();
                wait
            }
            NextStep::Probe(wait) => {
                // Silence does not count while the task is not reading: the timeout begins again.
                link.heard();
                link.request_probe();
                wait
            }
        };
        let wait = match self.max_age.as_ref().map(|max| (max, max.left(link))) {
            Some((max, Duration::ZERO)) => return max.close(link),
            Some((_, left)) => wait.min(left),
            None => wait,
        };
        self.schedule(&mut self.watched.lock(), link, wait);
    }

    /// Returns what to do after a silence. `silence` is `None` if the connection's task is not reading.
    fn next_step(&self, silence: Option<Duration>, id: ConnectionId) -> NextStep {
        let HeartbeatConfig { timeout, ping_interval, .. } = self.config;
        let Some(silence) = silence else { return NextStep::Probe(timeout) };
        let Some(left) = timeout.checked_sub(silence) else { return NextStep::Close };
        let Some(interval) = ping_interval else { return NextStep::Wait(left) };
        let interval = early(interval, id);
        match interval.checked_sub(silence) {
            Some(until) if !until.is_zero() => NextStep::Wait(left.min(until)),
            _ => NextStep::Ping(left.min(interval)),
        }
    }

    /// Schedules the next check of a connection.
    fn schedule(&self, watched: &mut Watched, link: &Arc<Link>, wait: Duration) {
        let due = watched.tick.saturating_add(self.ticks(wait));
        link.due.store(due, Relaxed);
        watched.links.insert((due, link.id), Arc::downgrade(link));
    }

    /// Returns a wait in ticks, rounded up.
    fn ticks(&self, wait: Duration) -> u64 {
        let ticks = wait.as_nanos().div_ceil(self.config.check_interval.as_nanos().max(1));
        u64::try_from(ticks).unwrap_or(u64::MAX).max(1)
    }
}

/// Shortens an interval by up to one part in [`PING_SPREAD`]. The id of the connection decides by how much.
fn early(interval: Duration, id: ConnectionId) -> Duration {
    interval - (interval / PING_SPREAD).mul_f64(part_of(id))
}

/// Returns the settings of TCP keepalive. The kernel begins to probe when a peer has been quiet for `timeout`, and
/// finds a dead peer within twice that time. While sent data is unacknowledged, the kernel does not probe but resends
/// for some minutes. `TCP_USER_TIMEOUT` would be faster, but would also cut clients that only read slowly.
pub fn keepalive(config: &HeartbeatConfig) -> TcpKeepalive {
    // Linux accepts whole seconds up to 32,767.
    let seconds = |time: Duration| time.clamp(Duration::from_secs(1), Duration::from_secs(32_767));
    TcpKeepalive::new()
        .with_time(seconds(config.timeout))
        .with_interval(seconds(config.timeout / PROBES))
        .with_retries(PROBES)
}

#[cfg(test)]
mod tests;
