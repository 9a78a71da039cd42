//! The state that all connections share.

use std::sync::Arc;
use std::time::Duration;

use super::inbox::InboxBudget;
use crate::config::{RouteFailure, WebSocketConfig};
use crate::edge::tls::Tls;
use crate::hub::registry::Registry;
use crate::policy::Policy;

/// The shared state.
pub struct Context {
    /// Bounds and rules of the WebSocket port.
    pub config: WebSocketConfig,
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
    /// The memory that the inboxes of all connections together may use.
    pub inbox: Arc<InboxBudget>,
}
