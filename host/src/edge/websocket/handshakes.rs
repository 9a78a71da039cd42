//! Limits the number of TLS handshakes that are under way (`limits.tls_handshakes`). A handshake costs the gateway as
//! much as several logins: if a crowd connects at once, it is better that most of it waits than that nobody gets
//! through in time.
//!
//! A handshake has its turn when its first byte has arrived, so a connection that sends nothing takes none. A turn is
//! over after [`TURN`], and one client has only a share of them (`limits.unauthenticated_share`): so clients that begin
//! handshakes and do not end them cannot keep all others out.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::admission::share;
use crate::base::message::network_of;
use crate::edge::live::LiveConfig;

/// How long a handshake has a turn: enough for two round trips to a distant client. After it, the handshake goes on
/// beside the next one.
const TURN: Duration = Duration::from_secs(1);

/// The handshakes that are under way.
#[derive(Debug)]
pub struct Handshakes {
    live: Arc<LiveConfig>,
    counts: Mutex<Counts>,
    /// Notified when a turn is over.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    /// Those of each client, an IPv4 address or an IPv6 network, with those that wait.
    by_client: HashMap<IpAddr, usize>,
}

/// The turn of a handshake. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Turn {
    handshakes: Arc<Handshakes>,
    client: Option<IpAddr>,
    /// True once it counts in `total`.
    has_begun: bool,
}

impl Handshakes {
    /// Creates the counters, without any handshake yet.
    pub fn new(live: Arc<LiveConfig>) -> Self {
        Self { live, counts: Mutex::default(), ended: Notify::new() }
    }

    /// Waits for a turn. `client` is the address of the client, unless only a proxy knows it. Returns `None` if this
    /// client has its share already. The caller limits the time.
    pub(super) async fn turn(self: &Arc<Self>, client: Option<IpAddr>) -> Option<Turn> {
        let client = client.map(network_of);
        if let Some(client) = client {
            let limits = &self.live.load().limits;
            let most = share(limits.tls_handshakes, limits.unauthenticated_share);
            let mut counts = self.counts.lock();
            let own = counts.by_client.entry(client).or_default();
            if *own >= most {
                return None;
            }
            *own += 1;
        }
        let mut turn = Turn { handshakes: self.clone(), client, has_begun: false };
        loop {
            let mut ended = pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.try_begin() {
                turn.has_begun = true;
                return Some(turn);
            }
            ended.await;
        }
    }

    fn try_begin(&self) -> bool {
        let mut counts = self.counts.lock();
        let begins = counts.total < self.live.load().limits.tls_handshakes;
        counts.total += usize::from(begins);
        begins
    }
}

impl Turn {
    /// Runs a handshake, which has the turn for at most [`TURN`].
    pub(super) async fn spend<F: Future>(self, handshake: F) -> F::Output {
        let mut handshake = pin!(handshake);
        tokio::select! {
            biased;
            done = &mut handshake => return done,
            () = sleep(TURN) => drop(self),
        }
        handshake.await
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = self.handshakes.counts.lock();
        if let Some(client) = self.client
            && let Some(own) = counts.by_client.get_mut(&client)
        {
            *own -= 1;
            if *own == 0 {
                counts.by_client.remove(&client);
            }
        }
        if self.has_begun {
            counts.total -= 1;
            drop(counts);
            self.handshakes.ended.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::FutureExt as _;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::config::Config;

    fn handshakes() -> Arc<Handshakes> {
        let mut config = Config::default();
        (config.limits.tls_handshakes, config.limits.unauthenticated_share) = (3, 50);
        Arc::new(Handshakes::new(Arc::new(LiveConfig::new(config))))
    }

    fn client(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    #[tokio::test]
    async fn a_client_has_its_share_and_others_wait_at_the_limit() {
        let handshakes = handshakes();
        let (first, second) = (handshakes.turn(client(1)).await, handshakes.turn(client(1)).await);
        assert!(first.is_some() && second.is_some() && handshakes.turn(client(1)).await.is_none());
        let third = handshakes.turn(client(2)).await;
        assert!(third.is_some());
        // Clients of a proxy are not known, and have no share. Nobody else has a turn now.
        let (mut other, mut unknown) = (Box::pin(handshakes.turn(client(3))), Box::pin(handshakes.turn(None)));
        assert!(other.as_mut().now_or_never().is_none() && unknown.as_mut().now_or_never().is_none());
        drop(first);
        let other = other.await;
        assert!(other.is_some() && unknown.as_mut().now_or_never().is_none());
        drop((second, third));
        assert!(unknown.await.is_some());
        drop(other);
        assert!(handshakes.counts.lock().by_client.is_empty() && handshakes.counts.lock().total == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_end_a_handshake_keeps_nobody_out_for_long() {
        let handshakes = handshakes();
        for number in 1..=3 {
            let turn = handshakes.turn(client(number)).await.unwrap();
            tokio::spawn(turn.spend(pending::<()>()));
        }
        let begun = Instant::now();
        assert!(handshakes.turn(client(9)).await.is_some());
        assert_eq!(begun.elapsed().as_secs(), TURN.as_secs());
        let turn = handshakes.turn(client(9)).await.unwrap();
        timeout(TURN / 2, turn.spend(async {})).await.unwrap();
    }
}
