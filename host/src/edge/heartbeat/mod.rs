//! Closes connections whose client has gone silent.
//!
//! For each connection the heartbeat knows the tick of its next check: the tick at which the client would have been
//! silent for too long. Each tick checks the connections that are due. If the client was heard meanwhile, the
//! connection moves to a later tick. So a connection is checked about once per `timeout` (or `ping_interval`), however
//! often its client is heard: with a million connections and the default 30 s, about 33,000 checks a second. Recording
//! that a client was heard is one store into the connection's own memory. There is one lock. It is taken when a
//! connection begins or ends, to take a batch of due connections, and to schedule the next check of each.
//!
//! A client does not count as silent while nobody reads from it: while a connection's task waits for a plugin, the
//! client's data stays in the kernel. The heartbeat does not close such a connection. It makes the task ask the kernel
//! whether the peer is gone; TCP's own probes find that out (see [`keepalive`]).

mod link;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use socket2::TcpKeepalive;
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

pub use self::link::Link;
use self::link::Watched;
use crate::base::message::{Cause, CloseReason, ConnectionId};
use crate::base::metrics::METRICS;
use crate::config::HeartbeatConfig;
use crate::hub::outbox::Outbox;

const SILENT: CloseReason = CloseReason::new(4900, "nothing heard for too long");

/// The connections that are checked before other tasks get a turn.
const AT_ONCE: usize = 256;
/// A ping is sent early, by up to `ping_interval` divided by this. After a restart all clients connect at the same
/// time; without this spread they would all be pinged at the same time, too, for as long as they stay.
const PING_SPREAD: u32 = 4;
/// The unanswered TCP probes after which the peer counts as dead.
const PROBES: u32 = 3;

/// Watches all connections for silence.
#[derive(Debug)]
pub struct Heartbeat {
    config: HeartbeatConfig,
    watched: Arc<Mutex<Watched>>,
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
        Self { config, watched: Arc::default() }
    }

    /// Starts to watch a new connection, and returns its link.
    pub fn watch(&self, id: ConnectionId, outbox: Outbox) -> Arc<Link> {
        let link = Arc::new(Link::new(id, outbox, self.watched.clone()));
        let HeartbeatConfig { timeout, ping_interval, .. } = self.config;
        let first = ping_interval.map_or(timeout, |interval| early(interval, id));
        self.schedule(&mut self.lock(), &link, first);
        link
    }

    /// Checks connections until `shutdown`, then asks every connection to close with `close_reason`.
    pub async fn run(&self, shutdown: CancellationToken, close_reason: CloseReason) {
        let mut ticks = interval(self.config.check_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            self.lock().tick += 1;
            loop {
                let due = self.take(true);
                if due.is_empty() {
                    break;
                }
                due.iter().for_each(|link| self.check(link));
                drop(due);
                yield_now().await;
            }
        }
        loop {
            let links = self.take(false);
            if links.is_empty() {
                break;
            }
            for link in links {
                link.outbox.close(close_reason.clone(), Cause::Shutdown);
            }
            yield_now().await;
        }
    }

    /// Takes a batch of connections: only due ones, or any.
    fn take(&self, due: bool) -> Vec<Arc<Link>> {
        let mut watched = self.lock();
        let tick = watched.tick;
        let mut links = Vec::new();
        while links.len() < AT_ONCE
            && let Some(first) = watched.links.first_entry().filter(|first| !due || first.key().0 <= tick)
        {
            // A link that cannot be upgraded is being dropped.
            links.extend(first.remove().upgrade());
        }
        links
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
                // Silence does not count while the task does not listen: the timeout begins again.
                link.heard();
                link.request_probe();
                wait
            }
        };
        self.schedule(&mut self.lock(), link, wait);
    }

    /// Returns what to do after a silence. `None` means that the connection's task does not listen.
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

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock()
    }
}

/// Shortens an interval by up to one part in [`PING_SPREAD`]. The id of the connection decides by how much.
fn early(interval: Duration, id: ConnectionId) -> Duration {
    // Multiplying by the golden ratio spreads neighbours evenly (Knuth, The Art of Computer Programming, 6.4).
    let spread = (id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32;
    interval - (interval / PING_SPREAD).mul_f64(f64::from(spread) / f64::from(u32::MAX))
}

/// Returns the settings of TCP's own probes, which begin when a peer has been quiet for `timeout`. They find a dead
/// peer within twice that time, while nobody reads from its connection. If sent data is not acknowledged, the kernel
/// repeats the data for some minutes instead. `TCP_USER_TIMEOUT` would shorten that, but would also cut clients that
/// only read slowly.
pub fn keepalive(config: &HeartbeatConfig) -> TcpKeepalive {
    // Linux accepts whole seconds up to 32,767.
    let seconds = |time: Duration| time.clamp(Duration::from_secs(1), Duration::from_secs(32_767));
    TcpKeepalive::new()
        .with_time(seconds(config.timeout))
        .with_interval(seconds(config.timeout / PROBES))
        .with_retries(PROBES)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::hub::outbox::Budget;

    fn heartbeat(timeout: u64, ping_interval: Option<u64>) -> Arc<Heartbeat> {
        Arc::new(Heartbeat::new(HeartbeatConfig {
            timeout: Duration::from_secs(timeout),
            check_interval: Duration::from_secs(1),
            ping_interval: ping_interval.map(Duration::from_secs),
        }))
    }

    fn watch(heartbeat: &Arc<Heartbeat>, id: u64) -> Arc<Link> {
        heartbeat.watch(ConnectionId(id), Outbox::new(1 << 20, Arc::new(Budget::new(1 << 20, 1))))
    }

    #[test]
    fn who_leaves_is_forgotten_at_once() {
        let heartbeat = heartbeat(24 * 3600, None);
        let stays = watch(&heartbeat, 0);
        for id in 1..10_000 {
            drop(watch(&heartbeat, id));
        }
        assert_eq!(heartbeat.lock().links.len(), 1);
        // The same for a connection that ends while it is checked, or after that.
        let leaves = watch(&heartbeat, 10_000);
        heartbeat.lock().tick = 24 * 3600;
        let due = heartbeat.take(true);
        assert_eq!(due.len(), 2);
        drop(leaves);
        due.iter().for_each(|link| heartbeat.check(link));
        drop(due);
        assert_eq!(heartbeat.lock().links.len(), 1);
        drop(stays);
        assert!(heartbeat.lock().links.is_empty());
    }

    #[test]
    fn clients_that_come_together_are_not_pinged_together() {
        let heartbeat = heartbeat(60, Some(40));
        let silence = Some(Duration::from_secs(5));
        let mut ticks = HashMap::<_, u32>::new();
        for id in 1..=1000 {
            let NextStep::Wait(wait) = heartbeat.next_step(silence, ConnectionId(id)) else { panic!("it is heard") };
            assert!((25..=35).contains(&wait.as_secs()), "{wait:?}");
            *ticks.entry(heartbeat.ticks(wait)).or_default() += 1;
            let later = silence.map(|silence| silence + wait);
            assert!(matches!(heartbeat.next_step(later, ConnectionId(id)), NextStep::Ping(_)));
        }
        assert!(ticks.len() >= 10 && ticks.values().all(|&count| count < 150), "{ticks:?}");
    }

    #[test]
    fn silence_is_judged_while_somebody_listens() {
        let heartbeat = heartbeat(30, None);
        let next_step = |silence: Option<u64>| heartbeat.next_step(silence.map(Duration::from_secs), ConnectionId(1));
        assert_eq!(next_step(Some(10)), NextStep::Wait(Duration::from_secs(20)));
        assert_eq!(next_step(Some(31)), NextStep::Close);
        assert_eq!(next_step(None), NextStep::Probe(Duration::from_secs(30)));
        let link = watch(&heartbeat, 1);
        assert_eq!(link.silence(), None);
        link.set_listening(true);
        assert!(link.silence().is_some());
    }
}
