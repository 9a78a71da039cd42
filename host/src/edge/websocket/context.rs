//! What all connections share.

use std::sync::Arc;
use std::time::Duration;

use super::inbox::InboxBudget;
use crate::config::{RouteFailure, WebSocketConfig};
use crate::hub::registry::Registry;
use crate::policy::Policy;

/// What every connection needs.
pub struct Context {
    /// Bounds and rules of the WebSocket port.
    pub config: WebSocketConfig,
    /// How long closing may take during a shutdown.
    pub shutdown_grace: Duration,
    /// What becomes of a packet on which the router fails.
    pub route_failure: RouteFailure,
    /// What the plugins decide.
    pub policy: Arc<Policy>,
    /// Who is connected.
    pub registry: Arc<Registry>,
    /// What all connections together may hold of what has arrived.
    pub inbox: Arc<InboxBudget>,
}
