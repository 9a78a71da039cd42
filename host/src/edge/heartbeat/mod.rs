//! Closes what has gone silent.
//!
//! Connections wait in the order of the ticks at which each has to be looked at next, which is when it would have been
//! silent for too long. A tick takes those that are due: whoever was heard meanwhile moves to a later tick. So a
//! connection is looked at about once per `timeout` (or `ping_interval`), however often it is heard: with a million of
//! them and the default 30 s, some 33,000 a second. Hearing of a connection is one store into its own memory. The only
//! lock is taken for newcomers, for those who leave, and for a few of those who are due at a time.
//!
//! Who is not read is not silent: while a connection's task waits for a plugin, what its client has sent is still in the
//! kernel. Instead of closing it, the heartbeat has the task ask the kernel whether the peer is gone, which TCP's own
//! probes find out (see [`keepalive`]).

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

/// How many connections are looked at before other tasks have their turn.
const AT_ONCE: usize = 256;
/// By up to which part of `ping_interval` a ping is sent early. All clients connect at the same time after a restart;
/// without that they would all be pinged at the same time, too, for as long as they stay.
const PING_SPREAD: u32 = 4;
/// How many probes of TCP go unanswered before the peer is taken for dead.
const PROBES: u32 = 3;

/// Watches over every connection.
#[derive(Debug)]
pub struct Heartbeat {
    config: HeartbeatConfig,
    watched: Arc<Mutex<Watched>>,
}

/// What a connection's silence calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Look again after this time.
    Wait(Duration),
    /// Send a ping, and look again after this time.
    Ping(Duration),
    /// Have its task look whether the peer is gone, and look again after this time.
    Probe(Duration),
    Close,
}

impl Heartbeat {
    /// Nobody is watched yet.
    pub fn new(config: HeartbeatConfig) -> Self {
        Self { config, watched: Arc::default() }
    }

    /// A link to a new connection, which is watched over from now on.
    pub fn watch(&self, id: ConnectionId, outbox: Outbox) -> Arc<Link> {
        let link = Arc::new(Link::new(id, outbox, self.watched.clone()));
        let HeartbeatConfig { timeout, ping_interval, .. } = self.config;
        let first = ping_interval.map_or(timeout, |interval| early(interval, id));
        self.look_again(&mut self.lock(), &link, first);
        link
    }

    /// Looks for silence until `shutdown`, and then asks every connection to close with `farewell`.
    pub async fn run(&self, shutdown: CancellationToken, farewell: CloseReason) {
        let mut ticks = interval(self.config.check_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            self.lock().tick += 1;
            loop {
                let due = self.take(true);
                if due.is_empty() {
                    break;
                }
                due.iter().for_each(|link| self.look_at(link));
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
                link.outbox.close(farewell.clone(), Cause::Shutdown);
            }
            yield_now().await;
        }
    }

    /// Takes some connections: of those that are due, or of all.
    fn take(&self, due: bool) -> Vec<Arc<Link>> {
        let mut watched = self.lock();
        let tick = watched.tick;
        let mut links = Vec::new();
        while links.len() < AT_ONCE
            && let Some(first) = watched.links.first_entry().filter(|first| !due || first.key().0 <= tick)
        {
            // One that cannot be upgraded is about to be forgotten.
            links.extend(first.remove().upgrade());
        }
        links
    }

    fn look_at(&self, link: &Arc<Link>) {
        let wait = match self.judge(link.silence(), link.id) {
            Verdict::Close => {
                if link.outbox.close(SILENT, Cause::Silent) {
                    METRICS.silent_connections.increment();
                }
                return;
            }
            Verdict::Wait(wait) => wait,
            Verdict::Ping(wait) => {
                link.request_ping();
                wait
            }
            Verdict::Probe(wait) => {
                // The clock stands still: what is left of the timeout begins when the task listens again.
                link.heard();
                link.request_probe();
                wait
            }
        };
        self.look_again(&mut self.lock(), link, wait);
    }

    /// What a silence calls for; `None`: nobody listens.
    fn judge(&self, silence: Option<Duration>, id: ConnectionId) -> Verdict {
        let HeartbeatConfig { timeout, ping_interval, .. } = self.config;
        let Some(silence) = silence else { return Verdict::Probe(timeout) };
        let Some(left) = timeout.checked_sub(silence) else { return Verdict::Close };
        let Some(interval) = ping_interval else { return Verdict::Wait(left) };
        let interval = early(interval, id);
        match interval.checked_sub(silence) {
            Some(until) if !until.is_zero() => Verdict::Wait(left.min(until)),
            _ => Verdict::Ping(left.min(interval)),
        }
    }

    fn look_again(&self, watched: &mut Watched, link: &Arc<Link>, wait: Duration) {
        let due = watched.tick.saturating_add(self.ticks(wait));
        link.due.store(due, Relaxed);
        watched.links.insert((due, link.id), Arc::downgrade(link));
    }

    /// How many ticks a wait is, rounded up.
    fn ticks(&self, wait: Duration) -> u64 {
        let ticks = wait.as_nanos().div_ceil(self.config.check_interval.as_nanos().max(1));
        u64::try_from(ticks).unwrap_or(u64::MAX).max(1)
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock()
    }
}

/// An interval that is shorter by up to one part in [`PING_SPREAD`], by how much depending on the connection.
fn early(interval: Duration, id: ConnectionId) -> Duration {
    // Multiplying by the golden ratio spreads neighbours evenly (Knuth, The Art of Computer Programming, 6.4).
    let spread = (id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32;
    interval - (interval / PING_SPREAD).mul_f64(f64::from(spread) / f64::from(u32::MAX))
}

/// TCP's own probes of a peer that has been quiet for as long as a client may be silent. They find a dead peer whose
/// connection is not read, within twice that time. What was sent and is not acknowledged the kernel repeats for some
/// minutes; `TCP_USER_TIMEOUT` would shorten that, but also cut those who are only slow to read.
pub fn keepalive(config: &HeartbeatConfig) -> TcpKeepalive {
    // Linux takes whole seconds up to this.
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
        // Also whoever leaves while it is looked at, or after that.
        let leaves = watch(&heartbeat, 10_000);
        heartbeat.lock().tick = 24 * 3600;
        let due = heartbeat.take(true);
        assert_eq!(due.len(), 2);
        drop(leaves);
        due.iter().for_each(|link| heartbeat.look_at(link));
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
            let Verdict::Wait(wait) = heartbeat.judge(silence, ConnectionId(id)) else { panic!("it is heard") };
            assert!((25..=35).contains(&wait.as_secs()), "{wait:?}");
            *ticks.entry(heartbeat.ticks(wait)).or_default() += 1;
            assert!(matches!(heartbeat.judge(silence.map(|it| it + wait), ConnectionId(id)), Verdict::Ping(_)));
        }
        assert!(ticks.len() >= 10 && ticks.values().all(|&count| count < 150), "{ticks:?}");
    }

    #[test]
    fn silence_is_judged_while_somebody_listens() {
        let heartbeat = heartbeat(30, None);
        let judge = |silence: Option<u64>| heartbeat.judge(silence.map(Duration::from_secs), ConnectionId(1));
        assert_eq!(judge(Some(10)), Verdict::Wait(Duration::from_secs(20)));
        assert_eq!(judge(Some(31)), Verdict::Close);
        assert_eq!(judge(None), Verdict::Probe(Duration::from_secs(30)));
        let link = watch(&heartbeat, 1);
        assert_eq!(link.silence(), None);
        link.set_listening(true);
        assert!(link.silence().is_some());
    }
}
