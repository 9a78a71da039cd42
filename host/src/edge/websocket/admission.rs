//! Limits the number of connections: in total, for each address, and before authentication.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;

use super::arrivals::Arrivals;
use crate::base::message::network_of;
use crate::base::metrics::Rejection;
use crate::edge::live::LiveConfig;

/// The limit that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LimitReached {
    /// `limits.connections`
    #[error("too many connections (limits.connections)")]
    Connections,
    /// `limits.connections_per_address`
    #[error("too many connections from this address (limits.connections_per_address)")]
    PerAddress,
    /// `limits.unauthenticated`
    #[error("too many connections that are not authenticated yet (limits.unauthenticated)")]
    Unauthenticated,
    /// `limits.unauthenticated_share`
    #[error("too many connections from this address that are not authenticated yet (limits.unauthenticated_share)")]
    UnauthenticatedShare,
    /// `limits.tls_handshakes`, of which one address may take `limits.unauthenticated_share`.
    #[error("too many TLS handshakes of this address at once (limits.tls_handshakes, limits.unauthenticated_share)")]
    TlsHandshakes,
    /// `limits.accept_rate_per_address`
    #[error(
        "this address connects too often (limits.accept_rate_per_address; a proxy belongs in websocket.trusted_proxies)"
    )]
    Rate {
        /// Seconds after which the address may connect again; at least 1.
        retry_after: u64,
    },
}

impl From<LimitReached> for Rejection {
    fn from(refusal: LimitReached) -> Self {
        match refusal {
            LimitReached::Connections => Self::Connections,
            LimitReached::PerAddress => Self::PerAddress,
            LimitReached::Unauthenticated => Self::Unauthenticated,
            LimitReached::UnauthenticatedShare => Self::UnauthenticatedShare,
            LimitReached::TlsHandshakes => Self::TlsHandshakes,
            LimitReached::Rate { .. } => Self::Rate,
        }
    }
}

/// Counts connections against the limits.
#[derive(Debug)]
pub struct Admission {
    live: Arc<LiveConfig>,
    arrivals: Arrivals,
    connections: AtomicUsize,
    unauthenticated: AtomicUsize,
    /// The counts of each client: an IPv4 address or an IPv6 network.
    clients: Mutex<HashMap<IpAddr, ClientCount>>,
}

/// The connections of one client.
#[derive(Debug, Default)]
struct ClientCount {
    connections: usize,
    unauthenticated: usize,
}

/// The place of a connection. Dropping it frees the place.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    client: Option<IpAddr>,
    authenticated: bool,
}

impl Admission {
    /// Creates the counters, without any connection yet.
    pub fn new(live: Arc<LiveConfig>) -> Self {
        Self {
            live,
            arrivals: Arrivals::new(),
            connections: AtomicUsize::new(0),
            unauthenticated: AtomicUsize::new(0),
            clients: Mutex::default(),
        }
    }

    /// Takes a place for a connection that has just been accepted. `peer` is `None` for a trusted proxy: the address of
    /// its client is not known yet.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn admit(self: &Arc<Self>, peer: Option<IpAddr>) -> Result<Permit, LimitReached> {
        let config = self.live.load();
        if !take(&self.connections, config.limits.connections) {
            return Err(LimitReached::Connections);
        }
        if !take(&self.unauthenticated, config.limits.unauthenticated) {
            self.connections.fetch_sub(1, Relaxed);
            return Err(LimitReached::Unauthenticated);
        }
        let mut permit = Permit { admission: self.clone(), client: None, authenticated: false };
        peer.map_or(Ok(()), |peer| permit.count_for(peer))?;
        Ok(permit)
    }

    /// Returns the number of connections.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Returns the most connections that there may be: in total, and unauthenticated.
    pub fn limits(&self) -> (usize, usize) {
        let config = self.live.load();
        (config.limits.connections, config.limits.unauthenticated)
    }

    /// Returns the number of connections that are not authenticated yet.
    pub fn unauthenticated(&self) -> usize {
        self.unauthenticated.load(Relaxed)
    }
}

impl Permit {
    /// Counts the connection for its client's address, unless it is counted already.
    ///
    /// # Errors
    /// [`LimitReached::Rate`], [`LimitReached::PerAddress`] and [`LimitReached::UnauthenticatedShare`]
    pub fn count_for(&mut self, address: IpAddr) -> Result<(), LimitReached> {
        if self.client.is_some() {
            return Ok(());
        }
        let config = self.admission.live.load();
        let client = network_of(address);
        // First: a client that tries again and again at another limit must slow down, too.
        if !address.to_canonical().is_loopback() {
            let arrived = self.admission.arrivals.count(client, &config.limits);
            let seconds = |wait: Duration| wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            arrived.map_err(|wait| LimitReached::Rate { retry_after: seconds(wait) })?;
        }
        let mut clients = self.admission.clients.lock();
        let (connections, unauthenticated) =
            clients.get(&client).map_or((0, 0), |count| (count.connections, count.unauthenticated));
        if connections >= config.limits.connections_per_address {
            return Err(LimitReached::PerAddress);
        }
        if unauthenticated >= share(config.limits.unauthenticated, config.limits.unauthenticated_share) {
            return Err(LimitReached::UnauthenticatedShare);
        }
        let count = clients.entry(client).or_default();
        count.connections += 1;
        count.unauthenticated += 1;
        self.client = Some(client);
        Ok(())
    }

    /// Records that the connection is authenticated now.
    pub fn authenticated(&mut self) {
        if std::mem::replace(&mut self.authenticated, true) {
            return;
        }
        self.admission.unauthenticated.fetch_sub(1, Relaxed);
        if let Some(client) = self.client
            && let Some(count) = self.admission.clients.lock().get_mut(&client)
        {
            count.unauthenticated -= 1;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.authenticated();
        if let Some(client) = self.client {
            let mut clients = self.admission.clients.lock();
            if let Some(count) = clients.get_mut(&client) {
                count.connections -= 1;
                if count.connections == 0 {
                    clients.remove(&client);
                }
            }
        }
        self.admission.connections.fetch_sub(1, Relaxed);
    }
}

/// Returns a percentage of a number; at least 1.
pub(super) fn share(number: usize, percent: u8) -> usize {
    (number * usize::from(percent)).div_ceil(100)
}

fn take(counter: &AtomicUsize, limit: usize) -> bool {
    counter.fetch_update(Relaxed, Relaxed, |count| (count < limit).then_some(count + 1)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, LimitsConfig};

    fn admission(connections: usize, per_address: usize, unauthenticated: usize, share: u8) -> Arc<Admission> {
        let limits = limits(connections, per_address, unauthenticated, share);
        Arc::new(Admission::new(Arc::new(LiveConfig::new(Config { limits, ..Default::default() }))))
    }

    fn limits(connections: usize, per_address: usize, unauthenticated: usize, share: u8) -> LimitsConfig {
        LimitsConfig {
            connections,
            connections_per_address: per_address,
            unauthenticated,
            unauthenticated_share: share,
            accept_rate_per_address: 0,
            ..Default::default()
        }
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn every_place_is_given_back() {
        let admission = admission(3, 1, 2, 100);
        let mut first = admission.admit(address("192.0.2.1")).unwrap();
        assert_eq!(admission.admit(address("192.0.2.1")).unwrap_err(), LimitReached::PerAddress);
        // A connection of a proxy is counted as soon as its client is known, and only once.
        let mut second = admission.admit(None).unwrap();
        assert_eq!(second.count_for("192.0.2.1".parse().unwrap()), Err(LimitReached::PerAddress));
        second.count_for("192.0.2.2".parse().unwrap()).unwrap();
        second.count_for("192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(admission.admit(None).unwrap_err(), LimitReached::Unauthenticated);
        first.authenticated();
        let third = admission.admit(None).unwrap();
        assert_eq!(admission.admit(None).unwrap_err(), LimitReached::Connections);

        drop((first, second, third));
        assert_eq!((admission.connections(), admission.unauthenticated()), (0, 0));
        assert!(admission.clients.lock().is_empty());
    }

    #[tokio::test]
    async fn loopback_is_exempt_from_the_rate() {
        let limits = LimitsConfig { accept_rate_per_address: 1, ..limits(100, 1, 100, 100) };
        let admission = Arc::new(Admission::new(Arc::new(LiveConfig::new(Config { limits, ..Default::default() }))));
        for own in ["127.0.0.1", "::1", "::ffff:127.0.0.2"] {
            for _ in 0..5 {
                drop(admission.admit(address(own)).unwrap());
            }
        }
        drop(admission.admit(address("2001:db8::1")).unwrap());
        assert!(matches!(admission.admit(address("2001:db8::1")), Err(LimitReached::Rate { .. })));
    }

    #[test]
    fn one_client_takes_at_most_its_share_of_the_unauthenticated() {
        let admission = admission(100, 100, 5, 50);
        let silent = address("192.0.2.1");
        let mut places: Vec<_> = (0..3).map(|_| admission.admit(silent).unwrap()).collect();
        assert_eq!(admission.admit(silent).unwrap_err(), LimitReached::UnauthenticatedShare);
        assert_eq!(admission.unauthenticated(), 3, "who is refused takes no place");
        let _other = admission.admit(address("192.0.2.2")).unwrap();
        places[0].authenticated();
        places.push(admission.admit(silent).unwrap());
        assert_eq!(admission.admit(silent).unwrap_err(), LimitReached::UnauthenticatedShare);
    }

    #[test]
    fn a_client_has_a_whole_network_of_ipv6_and_one_address_of_ipv4() {
        let admission = admission(100, 1, 100, 100);
        let _first = admission.admit(address("2001:db8:0:1::1")).unwrap();
        assert_eq!(admission.admit(address("2001:db8:0:1:ffff::2")).unwrap_err(), LimitReached::PerAddress);
        let _second = admission.admit(address("2001:db8:0:2::1")).unwrap();
        let _third = admission.admit(address("192.0.2.1")).unwrap();
        assert_eq!(admission.admit(address("::ffff:192.0.2.1")).unwrap_err(), LimitReached::PerAddress);
        let _fourth = admission.admit(address("192.0.2.2")).unwrap();
    }

    #[test]
    fn lower_limits_refuse_new_connections_only() {
        let admission = admission(10, 10, 10, 100);
        let places: Vec<_> = (0..4).map(|_| admission.admit(address("192.0.2.1")).unwrap()).collect();
        let set = |limits| admission.live.set(Config { limits, ..Default::default() });
        for (limits, refusal) in [
            (limits(2, 10, 10, 100), LimitReached::Connections),
            (limits(10, 2, 10, 100), LimitReached::PerAddress),
            (limits(10, 10, 2, 100), LimitReached::Unauthenticated),
            (limits(10, 10, 10, 20), LimitReached::UnauthenticatedShare),
        ] {
            set(limits);
            assert_eq!(admission.admit(address("192.0.2.1")).unwrap_err(), refusal);
            assert_eq!(admission.connections(), 4);
        }
        set(limits(10, 10, 10, 100));
        drop((admission.admit(address("192.0.2.1")).unwrap(), places));
        assert_eq!((admission.connections(), admission.unauthenticated()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_connects_too_often_is_told_when_to_come_again() {
        let admission = admission(100, 2, 100, 100);
        admission.live.set(Config {
            limits: LimitsConfig { accept_rate_per_address: 1, ..limits(100, 2, 100, 100) },
            ..Default::default()
        });
        let client = address("2001:db8:0:1::1");
        drop((admission.admit(client).unwrap(), admission.admit(client).unwrap()));
        for other in ["2001:db8:0:1::1", "2001:db8:0:1::2"] {
            assert_eq!(admission.admit(address(other)).unwrap_err(), LimitReached::Rate { retry_after: 1 }, "{other}");
        }
        assert_eq!((admission.connections(), admission.unauthenticated()), (0, 0));
        // A connection of a proxy counts for its client.
        let mut behind_proxy = admission.admit(None).unwrap();
        let counted = behind_proxy.count_for("2001:db8:0:1::3".parse().unwrap());
        assert_eq!(counted, Err(LimitReached::Rate { retry_after: 1 }));
        behind_proxy.count_for("2001:db8:0:2::1".parse().unwrap()).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        admission.admit(client).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_past_another_limit_count_for_the_rate() {
        let limits = LimitsConfig { accept_rate_per_address: 1, ..limits(100, 3, 100, 1) };
        let admission = Arc::new(Admission::new(Arc::new(LiveConfig::new(Config { limits, ..Default::default() }))));
        let client = address("192.0.2.1");
        let _silent = admission.admit(client).unwrap();
        for _ in 0..2 {
            assert_eq!(admission.admit(client).unwrap_err(), LimitReached::UnauthenticatedShare);
        }
        assert_eq!(admission.admit(client).unwrap_err(), LimitReached::Rate { retry_after: 1 });
    }
}
