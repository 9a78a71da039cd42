//! Limits the number of TLS handshakes that are under way (`limits.tls_handshakes`). A handshake costs the gateway as
//! much as several logins: if a crowd connects at once, it is better that most of it waits than that nobody gets
//! through in time.
//!
//! A client waits for its turn when the first byte of its handshake has arrived, so a connection that sends nothing
//! takes none. Turns come in the order of these bytes. A turn is over after [`TURN`], and one client has only a share
//! of them (`limits.unauthenticated_share`): so clients that begin handshakes and do not end them cannot keep all
//! others out.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::sleep;

use super::admission::share;
use crate::base::message::network_of;
use crate::edge::live::LiveConfig;

/// How long a turn is: enough for two round trips to a distant client. After it, the handshake goes on beside the next
/// one.
const TURN: Duration = Duration::from_secs(1);

/// The turns of all clients.
#[derive(Debug)]
pub struct TlsTurns {
    live: Arc<LiveConfig>,
    /// The free turns. Serves those who wait in order.
    free: Semaphore,
    /// The number of turns, free or taken.
    size: Mutex<usize>,
    /// The turns of each client, an IPv4 address or an IPv6 network, with those that it waits for.
    by_client: Mutex<HashMap<IpAddr, usize>>,
}

/// A turn, or a place among those who wait. Dropping it ends it.
#[derive(Debug)]
pub(super) struct TlsTurn<'a> {
    turns: &'a TlsTurns,
    client: Option<IpAddr>,
    permit: Option<SemaphorePermit<'a>>,
}

impl TlsTurns {
    /// Creates the turns. All of them are free.
    pub fn new(live: Arc<LiveConfig>) -> Self {
        let size = live.load().limits.tls_handshakes;
        Self { live, free: Semaphore::new(size), size: Mutex::new(size), by_client: Mutex::default() }
    }

    /// Waits for a turn. `client` is the address of the client, unless only a proxy knows it. Returns `None` if this
    /// client has its share already. The caller limits the time.
    pub(super) async fn wait(&self, client: Option<IpAddr>) -> Option<TlsTurn<'_>> {
        let client = client.map(network_of);
        if let Some(client) = client {
            let limits = &self.live.load().limits;
            let most = share(limits.tls_handshakes, limits.unauthenticated_share);
            let mut by_client = self.by_client.lock();
            let own = by_client.entry(client).or_default();
            if *own >= most {
                return None;
            }
            *own += 1;
        }
        let mut turn = TlsTurn { turns: self, client, permit: None };
        self.resize(None);
        turn.permit = Some(self.free.acquire().await.ok()?);
        Some(turn)
    }

    /// Adjusts the number of turns to the limit, which may have changed. `over` is a turn that is over. It is free
    /// again unless there are too many.
    fn resize(&self, over: Option<SemaphorePermit<'_>>) {
        let limit = self.live.load().limits.tls_handshakes;
        let mut size = self.size.lock();
        if *size > limit {
            match over {
                Some(permit) => {
                    permit.forget();
                    *size -= 1;
                }
                None => *size -= self.free.forget_permits(*size - limit),
            }
        } else {
            self.free.add_permits(limit - *size);
            *size = limit;
        }
    }
}

impl TlsTurn<'_> {
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

impl Drop for TlsTurn<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            let mut by_client = self.turns.by_client.lock();
            if let Some(own) = by_client.get_mut(&client) {
                *own -= 1;
                if *own == 0 {
                    by_client.remove(&client);
                }
            }
        }
        self.turns.resize(self.permit.take());
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::FutureExt as _;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::config::Config;

    fn limited(handshakes: usize) -> Config {
        let mut config = Config::default();
        (config.limits.tls_handshakes, config.limits.unauthenticated_share) = (handshakes, 50);
        config
    }

    fn turns() -> TlsTurns {
        TlsTurns::new(Arc::new(LiveConfig::new(limited(3))))
    }

    fn client(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    #[tokio::test]
    async fn a_client_has_its_share_and_others_wait_at_the_limit() {
        let turns = turns();
        let (first, second) = (turns.wait(client(1)).await, turns.wait(client(1)).await);
        assert!(first.is_some() && second.is_some() && turns.wait(client(1)).await.is_none());
        let third = turns.wait(client(2)).await;
        assert!(third.is_some());
        // Clients of a proxy are not known, and have no share. Nobody else has a turn now.
        let (mut other, mut unknown) = (Box::pin(turns.wait(client(3))), Box::pin(turns.wait(None)));
        assert!(other.as_mut().now_or_never().is_none() && unknown.as_mut().now_or_never().is_none());
        drop(first);
        // Who has waited longest is next, even if another one asks before.
        assert!(turns.wait(client(4)).now_or_never().is_none());
        let other = other.await;
        assert!(other.is_some() && unknown.as_mut().now_or_never().is_none());
        drop((second, third));
        assert!(unknown.await.is_some());
        drop(other);
        assert!(turns.by_client.lock().is_empty() && turns.free.available_permits() == 3);
    }

    #[tokio::test]
    async fn the_limit_may_change_at_any_time() {
        let turns = turns();
        let mut taken = Vec::new();
        for number in 1..=3 {
            taken.push(turns.wait(client(number)).await);
        }
        // A lower limit holds as soon as enough turns are over.
        turns.live.set(limited(1));
        let mut next = Box::pin(turns.wait(client(4)));
        for _ in 0..2 {
            taken.pop();
            assert!(next.as_mut().now_or_never().is_none());
        }
        taken.pop();
        let next = next.await;
        assert!(next.is_some());
        let mut waiting = Box::pin(turns.wait(client(5)));
        assert!(waiting.as_mut().now_or_never().is_none());
        // Those who wait have a higher one with the next event.
        turns.live.set(limited(2));
        let other = Box::pin(turns.wait(client(6)));
        assert!(other.now_or_never().is_none() && waiting.as_mut().now_or_never().is_some());
        drop((waiting, next));
        assert!(turns.by_client.lock().is_empty() && turns.free.available_permits() == 2);
        // Free turns go at once.
        turns.live.set(limited(1));
        assert!(turns.wait(None).await.is_some() && turns.free.available_permits() == 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_end_a_handshake_keeps_nobody_out_for_long() {
        let turns: &TlsTurns = Box::leak(Box::new(turns()));
        for number in 1..=3 {
            let turn = turns.wait(client(number)).await.unwrap();
            tokio::spawn(turn.spend(pending::<()>()));
        }
        let begun = Instant::now();
        assert!(turns.wait(client(9)).await.is_some());
        assert_eq!(begun.elapsed().as_secs(), TURN.as_secs());
        let turn = turns.wait(client(9)).await.unwrap();
        timeout(TURN / 2, turn.spend(async {})).await.unwrap();
    }
}
