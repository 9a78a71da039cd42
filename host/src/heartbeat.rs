//! Closes what has gone silent.
//!
//! Connections wait in buckets by the tick at which each has to be looked at next, which is when it would have been
//! silent for too long. A tick takes one bucket: whoever was heard meanwhile moves to a later one. So a connection is
//! looked at about once per `timeout` (or `ping_interval`), however often it is heard: with a million of them and the
//! default 30 s, some 33,000 a second at tens of nanoseconds each. Hearing of a connection is one store into its own
//! memory. The only lock is taken to add newcomers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::config::HeartbeatConfig;
use crate::connection::Link;
use crate::message::{Cause, CloseReason};
use crate::metrics::METRICS;

const SILENT: CloseReason = CloseReason::new(4900, "nothing heard for too long");

/// Watches over every connection.
#[derive(Debug)]
pub struct Heartbeat {
    config: HeartbeatConfig,
    newcomers: Mutex<Vec<Weak<Link>>>,
}

/// Connections by the tick at which to look at them. `Weak`: whoever has closed is forgotten at its turn.
type Buckets = BTreeMap<u64, Vec<Weak<Link>>>;

impl Heartbeat {
    /// Nobody is watched yet.
    pub fn new(config: HeartbeatConfig) -> Self {
        Self { config, newcomers: Mutex::default() }
    }

    /// Watches over a connection from now on.
    pub fn watch(&self, link: &Arc<Link>) {
        self.newcomers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(link));
    }

    /// Looks for silence until `shutdown`, and then asks every connection to close with `farewell`.
    pub async fn run(&self, shutdown: CancellationToken, farewell: CloseReason) {
        let mut ticks = interval(self.config.check_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buckets = Buckets::new();
        let mut tick = 0;
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            tick += 1;
            self.check(&mut buckets, tick);
        }
        let links = buckets.into_values().flatten().chain(self.take_newcomers());
        for link in links.filter_map(|link| link.upgrade()) {
            link.outbox.close(farewell.clone(), Cause::Shutdown);
        }
    }

    fn check(&self, buckets: &mut Buckets, tick: u64) {
        let mut due = self.take_newcomers();
        while let Some(bucket) = buckets.first_entry().filter(|bucket| *bucket.key() <= tick) {
            due.extend(bucket.remove());
        }
        for weak in due {
            if let Some(link) = weak.upgrade()
                && let Some(wait) = self.look_at(&link)
            {
                buckets.entry(tick + self.ticks(wait)).or_default().push(weak);
            }
        }
    }

    /// Does what a connection's silence calls for; returns when to look again, or `None` when it is to be closed.
    fn look_at(&self, link: &Link) -> Option<Duration> {
        let HeartbeatConfig { timeout, ping_interval, .. } = self.config;
        let silence = link.silence();
        if silence > timeout {
            if link.outbox.close(SILENT, Cause::Silent) {
                METRICS.silent_connections.increment();
            }
            return None;
        }
        let left = timeout - silence;
        let Some(ping_interval) = ping_interval else { return Some(left) };
        if silence < ping_interval {
            return Some(left.min(ping_interval - silence));
        }
        link.request_ping();
        Some(left.min(ping_interval))
    }

    /// How many ticks a wait is, rounded up.
    fn ticks(&self, wait: Duration) -> u64 {
        let ticks = wait.as_nanos().div_ceil(self.config.check_interval.as_nanos().max(1));
        u64::try_from(ticks).unwrap_or(u64::MAX / 2).max(1)
    }

    fn take_newcomers(&self) -> Vec<Weak<Link>> {
        std::mem::take(&mut *self.newcomers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
