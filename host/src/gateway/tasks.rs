//! The tasks of the gateway, and how they end.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::base::message::CloseReason;
use crate::edge::heartbeat::Heartbeat;

const GOING_AWAY: CloseReason = CloseReason::new(1001, "the gateway shuts down");

/// The tasks of the listeners and the connections, and the signals that end them.
#[derive(Default)]
pub(super) struct Tasks {
    pub(super) listeners: TaskTracker,
    pub(super) stop_accepting: CancellationToken,
    /// The tasks of all connections, and the heartbeat's.
    pub(super) connections: TaskTracker,
    pub(super) shutdown: CancellationToken,
}

impl Tasks {
    /// Starts the heartbeat. It closes all connections at the shutdown.
    pub(super) fn beat(&self, heartbeat: Arc<Heartbeat>) {
        let shutdown = self.shutdown.clone();
        self.connections.spawn(async move { heartbeat.run(shutdown, GOING_AWAY).await });
    }

    /// Closes the listeners and all connections. Returns when all connections are closed, or at `end`: those that are
    /// left are cut off when the process ends.
    pub(super) async fn drain(&self, end: Instant) {
        // Accept no more connections before all are asked to close, so that none is missed.
        self.stop_accepting.cancel();
        self.listeners.close();
        self.listeners.wait().await;
        self.shutdown.cancel();
        self.connections.close();
        if timeout_at(end, self.connections.wait()).await.is_err() {
            let connections = self.connections.len();
            warn!(connections, "connections cut off: they have not closed in time (shutdown_grace)");
        }
    }
}
