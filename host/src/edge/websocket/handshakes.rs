//! Limits the number of TLS handshakes that are under way (`limits.tls_handshakes`). A handshake costs the gateway as
//! much as several logins: if a crowd connects at once, it is better that most of it waits than that nobody gets
//! through in time.
//!
//! A handshake is under way from its first byte to its end, so a connection that sends nothing does not count. One
//! client may have a share of them (`limits.unauthenticated_share`), so that a client that begins handshakes and does
//! not end them cannot keep all others out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::admission::share;
use crate::base::message::network_of;
use crate::edge::live::LiveConfig;

/// The handshakes that are under way.
#[derive(Debug)]
pub struct Handshakes {
    live: Arc<LiveConfig>,
    counts: Mutex<Counts>,
    /// Notified when one has ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    /// Those of each client: an IPv4 address or an IPv6 network.
    by_client: HashMap<IpAddr, usize>,
}

/// A handshake that is under way. Dropping it says that the handshake has ended.
#[derive(Debug)]
pub(super) struct UnderWay {
    handshakes: Arc<Handshakes>,
    client: Option<IpAddr>,
}

impl Handshakes {
    /// Creates the counters, without any handshake yet.
    pub fn new(live: Arc<LiveConfig>) -> Self {
        Self { live, counts: Mutex::default(), ended: Notify::new() }
    }

    /// Waits until fewer are under way than the limit allows. They end in time, so this does, too.
    pub async fn wait(&self) {
        loop {
            let ended = self.ended.notified();
            if self.counts.lock().total < self.live.load().limits.tls_handshakes {
                return;
            }
            ended.await;
        }
    }

    /// Counts a handshake that begins. `client` is its address, unless only a proxy knows it. Returns `None` if this
    /// client has its share under way already.
    pub(super) fn begin(self: &Arc<Self>, client: Option<IpAddr>) -> Option<UnderWay> {
        let client = client.map(network_of);
        let limits = &self.live.load().limits;
        let most = share(limits.tls_handshakes, limits.unauthenticated_share);
        let mut counts = self.counts.lock();
        if let Some(client) = client {
            let own = counts.by_client.entry(client).or_default();
            if *own >= most {
                return None;
            }
            *own += 1;
        }
        counts.total += 1;
        Some(UnderWay { handshakes: self.clone(), client })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut counts = self.handshakes.counts.lock();
        counts.total -= 1;
        if let Some(client) = self.client
            && let Some(own) = counts.by_client.get_mut(&client)
        {
            *own -= 1;
            if *own == 0 {
                counts.by_client.remove(&client);
            }
        }
        drop(counts);
        self.handshakes.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::config::Config;

    #[tokio::test(start_paused = true)]
    async fn a_client_has_its_share_and_the_gateway_waits_at_the_limit() {
        let mut config = Config::default();
        (config.limits.tls_handshakes, config.limits.unauthenticated_share) = (3, 50);
        let handshakes = Arc::new(Handshakes::new(Arc::new(LiveConfig::new(config))));
        let client = |last: u8| Some(IpAddr::from([192, 0, 2, last]));
        let (first, second) = (handshakes.begin(client(1)), handshakes.begin(client(1)));
        assert!(first.is_some() && second.is_some() && handshakes.begin(client(1)).is_none());
        let waits = async || timeout(Duration::from_secs(1), handshakes.wait()).await.is_err();
        assert!(!waits().await);
        let third = handshakes.begin(client(2));
        assert!(third.is_some() && waits().await);
        // Clients of a proxy are not known, and take no share.
        let fourth = handshakes.begin(None);
        drop(first);
        assert!(waits().await);
        let other = tokio::spawn({
            let handshakes = handshakes.clone();
            async move { handshakes.wait().await }
        });
        tokio::task::yield_now().await;
        drop((second, third, fourth));
        timeout(Duration::from_secs(1), other).await.unwrap().unwrap();
        assert!(handshakes.counts.lock().by_client.is_empty() && handshakes.counts.lock().total == 0);
    }
}
