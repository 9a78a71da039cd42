//! Limits how fast connections are accepted, all together (`limits.accept_rate`).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::live::LiveConfig;
use crate::base::bucket::{Bucket, time_for};

/// The time's worth of connections that may come at once. A timer is exact to a millisecond only, so less would not
/// reach the rate.
const AT_ONCE: Duration = Duration::from_millis(50);

/// How fast the WebSocket port accepts connections. Those that must wait stay in the backlog of the kernel.
#[derive(Debug)]
pub(crate) struct AcceptPace {
    live: Arc<LiveConfig>,
    bucket: Mutex<Bucket>,
}

impl AcceptPace {
    /// Creates the pace that `limits.accept_rate` sets.
    pub(crate) fn new(live: Arc<LiveConfig>) -> Self {
        Self { live, bucket: Mutex::new(Bucket::full(Instant::now())) }
    }

    /// Waits until one more connection may be accepted. Returns at once if the rate is not limited. May be cancelled at
    /// any time.
    pub(crate) async fn wait(&self) {
        while let Err(wait) = self.try_take() {
            sleep(wait).await;
        }
    }

    fn try_take(&self) -> Result<(), Duration> {
        let rate = self.live.load().limits.accept_rate;
        if rate == 0 {
            return Ok(());
        }
        let fills_in = time_for(1, rate).max(AT_ONCE);
        self.bucket.lock().try_take(Instant::now(), 1, rate, fills_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn paced(rate: usize) -> Config {
        let mut config = Config::default();
        config.limits.accept_rate = rate;
        config
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_accepted_at_the_rate_and_at_once_without_one() {
        for (rate, count, least, most) in [(0, 100_000, 0, 0), (1, 5, 4000, 4010), (1000, 1050, 1000, 1010)] {
            let pace = AcceptPace::new(Arc::new(LiveConfig::new(paced(rate))));
            let begin = Instant::now();
            for _ in 0..count {
                pace.wait().await;
            }
            let took = begin.elapsed().as_millis();
            assert!((least..=most).contains(&took), "{rate}: {took} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_rate_counts_from_the_next_connection_on() {
        let live = Arc::new(LiveConfig::new(paced(1)));
        let pace = AcceptPace::new(live.clone());
        pace.wait().await;
        live.set(paced(1000));
        let begin = Instant::now();
        for _ in 0..50 {
            pace.wait().await;
        }
        assert!(begin.elapsed() <= Duration::from_secs(1), "{:?}", begin.elapsed());
        live.set(paced(0));
        let begin = Instant::now();
        for _ in 0..10_000 {
            pace.wait().await;
        }
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}
