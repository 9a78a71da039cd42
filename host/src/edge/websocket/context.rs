//! The state that all connections share.

use std::sync::Arc;
use std::time::Duration;

use super::handshakes::Handshakes;
use super::inbox::InboxBudget;
use super::rejection::Rejections;
use crate::config::{RouteFailure, WebSocketConfig};
use crate::edge::drain::Drain;
use crate::edge::listener::Stream;
use crate::edge::live::LiveConfig;
use crate::edge::tls::Tls;
use crate::hub::registry::Registry;
use crate::policy::Policy;

/// The shared state.
pub struct Context {
    /// Bounds and rules of the WebSocket port, except those that are read in `live`.
    pub config: WebSocketConfig,
    /// The configuration in effect, for the keys that change while the gateway runs.
    pub live: Arc<LiveConfig>,
    /// Counts and logs refused connections.
    pub rejections: Rejections,
    /// How long closing may take during a shutdown.
    pub shutdown_grace: Duration,
    /// What to do with a packet on which the router fails.
    pub route_failure: RouteFailure,
    /// The plugins.
    pub policy: Arc<Policy>,
    /// The registry of connections.
    pub registry: Arc<Registry>,
    /// The certificates, if connections are encrypted.
    pub tls: Option<Arc<Tls>>,
    /// The TLS handshakes that are under way.
    pub handshakes: Arc<Handshakes>,
    /// The memory that the inboxes of all connections together may use.
    pub inbox: Arc<InboxBudget>,
    /// Whether upgrades are refused.
    pub drain: Arc<Drain>,
}

impl Context {
    /// Returns `true` if a stream is encrypted.
    pub(super) fn encrypts(&self, stream: &impl Stream) -> bool {
        self.tls.is_some() && !stream.is_private()
    }
}
