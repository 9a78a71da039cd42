//! Limits how fast the connections of one client address come (`limits.accept_rate_per_address`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::base::bucket::{Bucket, time_for};
use crate::config::LimitsConfig;

/// The most clients that are remembered. Further clients are not counted here: the limits on the number of connections
/// hold for them, too.
const MAX_BUCKETS: usize = 100_000;
/// How often the clients are forgotten that are as good as new ones.
const SWEEP: Duration = Duration::from_secs(1);

/// How many connections each client may still open at once.
#[derive(Debug)]
pub(super) struct Arrivals(Mutex<Buckets>);

#[derive(Debug)]
struct Buckets {
    /// The buckets that are not full, by client: an IPv4 address or an IPv6 network.
    of: HashMap<IpAddr, Bucket>,
    swept: Instant,
}

impl Arrivals {
    /// Remembers nobody yet.
    pub(super) fn new() -> Self {
        Self(Mutex::new(Buckets { of: HashMap::new(), swept: Instant::now() }))
    }

    /// Counts a connection of a client.
    ///
    /// # Errors
    /// How long until the client may connect again. The connection is not counted.
    pub(super) fn count(&self, client: IpAddr, limits: &LimitsConfig) -> Result<(), Duration> {
        let &LimitsConfig { accept_rate_per_address: rate, connections_per_address: at_once, .. } = limits;
        if rate == 0 {
            return Ok(());
        }
        let now = Instant::now();
        let mut buckets = self.0.lock();
        buckets.sweep(now);
        if buckets.of.len() >= MAX_BUCKETS && !buckets.of.contains_key(&client) {
            return Ok(());
        }
        let bucket = buckets.of.entry(client).or_insert(Bucket::full(now));
        bucket.try_take(now, 1, rate, time_for(at_once.max(rate), rate))
    }
}

impl Buckets {
    /// Forgets the clients whose buckets are full again, unless that was done a moment ago.
    fn sweep(&mut self, now: Instant) {
        if now.duration_since(self.swept) >= SWEEP {
            self.swept = now;
            self.of.retain(|_, bucket| !bucket.is_full(now));
            // After a storm, its memory is not needed any more.
            self.of.shrink_to(2 * self.of.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::time::advance;

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn limits(rate: usize, at_once: usize) -> LimitsConfig {
        LimitsConfig { accept_rate_per_address: rate, connections_per_address: at_once, ..Default::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_may_come_in_a_crowd_and_then_at_the_rate() {
        let (arrivals, limits) = (Arrivals::new(), limits(10, 50));
        let admitted = |count: usize| (0..count).filter(|_| arrivals.count(CLIENT, &limits).is_ok()).count();
        assert_eq!(admitted(1000), 50);
        assert_eq!(arrivals.count(CLIENT, &limits), Err(Duration::from_millis(100)));
        arrivals.count([192, 0, 2, 2].into(), &limits).unwrap();
        advance(Duration::from_secs(1)).await;
        assert_eq!(admitted(1000), 10);
        advance(Duration::from_secs(60)).await;
        assert_eq!(admitted(1000), 50);
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_is_exempt_without_a_rate() {
        let arrivals = Arrivals::new();
        for _ in 0..100 {
            arrivals.count(CLIENT, &limits(0, 1)).unwrap();
        }
        assert!(arrivals.0.lock().of.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_come_in_a_crowd_again_is_forgotten_and_there_is_a_bound_for_the_others() {
        let (arrivals, limits) = (Arrivals::new(), limits(1, 2));
        let client = |number: usize| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + number as u32));
        for number in 0..2 * MAX_BUCKETS {
            arrivals.count(client(number), &limits).unwrap();
        }
        assert_eq!(arrivals.0.lock().of.len(), MAX_BUCKETS);
        // Who is remembered is still limited.
        arrivals.count(client(0), &limits).unwrap();
        arrivals.count(client(0), &limits).unwrap_err();
        advance(Duration::from_millis(1500)).await;
        arrivals.count(client(0), &limits).unwrap();
        let left = arrivals.0.lock();
        assert_eq!(left.of.len(), 1);
        assert!(left.of.capacity() < 1000, "{}", left.of.capacity());
    }
}
