//! The tasks of the gateway, and how they end.

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

/// The tasks of the ports and their connections.
#[derive(Default)]
pub(super) struct Tasks {
    /// The WebSocket port. A drain closes its connections.
    pub(super) clients: Port,
    /// The text port.
    pub(super) senders: Port,
    /// Ends the connections of the text port.
    pub(super) shutdown: CancellationToken,
    /// Connections to the WebSocket port that came after a drain had begun to refuse upgrades. No drain waits for them.
    pub(super) refused: TaskTracker,
}

/// The tasks of one port.
#[derive(Default)]
pub(super) struct Port {
    /// True if the port stays open when this process closes it, because systemd has it, too. Clients that nobody
    /// accepts would then wait. So the gateway accepts them until it ends, and refuses their upgrades.
    pub(super) is_inherited: bool,
    pub(super) listener: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) connections: TaskTracker,
}

impl Port {
    /// Closes the listener, unless clients would not notice, and waits until it accepts no more connections.
    pub(super) async fn close_if_own(&self) {
        if !self.is_inherited {
            self.close().await;
        }
    }

    /// Closes the listener, and waits until it accepts no more connections.
    async fn close(&self) {
        self.stop.cancel();
        self.listener.close();
        self.listener.wait().await;
    }
}

impl Tasks {
    /// Closes the text port. Returns when all connections have ended, or at `end`: those that are left are cut off when
    /// the process ends.
    pub(super) async fn finish(&self, end: Instant) {
        let (clients, senders) = (&self.clients.connections, &self.senders.connections);
        clients.close();
        let last = async {
            self.clients.close().await;
            self.senders.close().await;
            self.shutdown.cancel();
            senders.close();
            tokio::join!(clients.wait(), senders.wait());
        };
        if timeout_at(end, last).await.is_err() {
            let connections = clients.len() + senders.len();
            warn!(connections, "connections cut off: they have not closed in time (shutdown_grace)");
        }
    }
}
