//! The state that the connections of all senders share.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::Semaphore;
use tracing::warn;

use crate::base::throttle::Throttle;
use crate::edge::listener::Remote;
use crate::edge::live::LiveConfig;
use crate::edge::tls::Tls;
use crate::hub::registry::Registry;
use crate::policy::Policy;

/// Refused peers that are logged: in a second, and at once.
const REFUSALS_PER_SECOND: u32 = 1;
const REFUSALS_AT_ONCE: u32 = 5;

/// The shared state.
#[derive(Debug)]
pub struct Context {
    /// The configuration in effect.
    pub live: Arc<LiveConfig>,
    /// The plugins.
    pub policy: Arc<Policy>,
    /// The registry of connections.
    pub registry: Arc<Registry>,
    /// The certificates, if connections are encrypted.
    pub tls: Option<Arc<Tls>>,
    /// Room in bytes for plugins' own replies that are not written yet (`text.total_replies`).
    pub(super) replies: Arc<Semaphore>,
    /// Limits the log lines about refused peers, which may connect as fast as they like.
    refusals: Throttle,
}

impl Context {
    /// Creates the shared state.
    pub fn new(live: Arc<LiveConfig>, policy: Arc<Policy>, registry: Arc<Registry>, tls: Option<Arc<Tls>>) -> Self {
        let replies = Arc::new(Semaphore::new(live.load().text.total_replies));
        let refusals = Throttle::new(REFUSALS_PER_SECOND, REFUSALS_AT_ONCE);
        Self { live, policy, registry, tls, replies, refusals }
    }

    /// Logs that a peer is refused. If many peers are refused, logs only some of them.
    pub fn refuse(&self, peer: SocketAddr, reason: impl fmt::Display) {
        if let Some(unlogged) = self.refusals.admit(0) {
            warn!(%peer, %reason, unlogged, "sender refused");
        }
    }
}

/// Returns `true` if a peer may connect: its address is in `allow_from`, `allow_from` is empty and the peer is on this
/// machine, or it was allowed to open the Unix socket.
pub(super) fn is_allowed(allow_from: &[IpNet], remote: Remote) -> bool {
    let address = remote.address().ip();
    match remote {
        Remote::Unix => true,
        Remote::Tcp(_) if allow_from.is_empty() => address.is_loopback(),
        Remote::Tcp(_) => allow_from.iter().any(|net| net.contains(&address)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn only_this_machine_may_connect_unless_told_otherwise() {
        let office: IpNet = "192.0.2.0/24".parse().unwrap();
        let address = |text: &str| Remote::Tcp((text.parse::<IpAddr>().unwrap(), 1).into());
        assert!(is_allowed(&[], address("127.0.0.1")));
        assert!(is_allowed(&[], address("::1")));
        assert!(is_allowed(&[], address("::ffff:127.0.0.1")));
        assert!(!is_allowed(&[], address("192.0.2.7")));
        assert!(is_allowed(&[office], address("192.0.2.7")));
        assert!(!is_allowed(&[office], address("127.0.0.1")));
        assert!(is_allowed(&[], Remote::Unix) && is_allowed(&[office], Remote::Unix));
    }
}
