//! The state that the connections of all senders share.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::Semaphore;
use tracing::warn;

use crate::base::throttle::Throttle;
use crate::config::TextConfig;
use crate::hub::registry::Registry;
use crate::policy::Policy;

/// Refused peers that are logged: in a second, and at once.
const REFUSALS_PER_SECOND: u32 = 1;
const REFUSALS_AT_ONCE: u32 = 5;

/// The shared state.
pub struct Context {
    /// Bounds and rules of the text port.
    pub config: TextConfig,
    /// The plugins.
    pub policy: Arc<Policy>,
    /// The registry of connections.
    pub registry: Arc<Registry>,
    /// Room in bytes for plugins' own replies that are not written yet (`text.total_replies`).
    pub(super) replies: Arc<Semaphore>,
    /// Limits the log lines about refused peers, which may connect as fast as they like.
    refusals: Throttle,
}

impl Context {
    /// Creates the shared state.
    pub fn new(config: TextConfig, policy: Arc<Policy>, registry: Arc<Registry>) -> Self {
        let replies = Arc::new(Semaphore::new(config.total_replies));
        let refusals = Throttle::new(REFUSALS_PER_SECOND, REFUSALS_AT_ONCE);
        Self { config, policy, registry, replies, refusals }
    }

    /// Logs that a peer is refused. If many peers are refused, logs only some of them.
    pub fn refuse(&self, peer: SocketAddr, reason: &str) {
        if let Some(unlogged) = self.refusals.admit(0) {
            warn!(%peer, reason, unlogged, "sender refused");
        }
    }
}

/// Returns `true` if a peer may connect: it is in `allow_from`, or `allow_from` is empty and the peer is on this
/// machine.
pub(super) fn is_allowed(allow_from: &[IpNet], peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    if allow_from.is_empty() { peer.is_loopback() } else { allow_from.iter().any(|net| net.contains(&peer)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_may_connect_unless_told_otherwise() {
        let office: IpNet = "192.0.2.0/24".parse().unwrap();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(is_allowed(&[], address("127.0.0.1")));
        assert!(is_allowed(&[], address("::1")));
        assert!(is_allowed(&[], address("::ffff:127.0.0.1")));
        assert!(!is_allowed(&[], address("192.0.2.7")));
        assert!(is_allowed(&[office], address("192.0.2.7")));
        assert!(!is_allowed(&[office], address("127.0.0.1")));
    }
}
