//! Carries out drains: those of operators, which can be cancelled, and the last one, after which the gateway ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tracing::info;

use super::tasks::Tasks;
use crate::edge::drain::{Drain, DrainNumber, DrainStage};
use crate::edge::heartbeat::Heartbeat;
use crate::hub::cluster::handle::Cluster;

/// The part of `shutdown_grace` that is kept for the connections of senders: they are served until the last client has
/// closed, but no longer than this before the end.
const FOR_SENDERS: Duration = Duration::from_secs(1);

/// What a drain works on.
pub(super) struct Drains<'a> {
    pub(super) drain: Arc<Drain>,
    pub(super) heartbeat: Arc<Heartbeat>,
    pub(super) tasks: &'a Tasks,
    /// The other gateways, which are told.
    pub(super) cluster: Option<Arc<Cluster>>,
    /// `shutdown_grace`
    pub(super) grace: Duration,
}

impl Drains<'_> {
    /// Carries out drains. Returns when the last one is over; its result is the time when the grace ends. Clients are
    /// left then only if they do not close in time.
    pub(super) async fn run(&self) -> Instant {
        let connections = &self.tasks.clients.connections;
        loop {
            let number = self.drain.started().await;
            tokio::select! {
                biased;
                () = self.drain.cancelled(number) => {
                    connections.reopen();
                    self.tell(false);
                    info!(connections = connections.len(), "drain cancelled; ready again");
                }
                end = self.carry_out(number) => return end,
            }
        }
    }

    /// Carries out one drain. Never ends if the gateway is not to end.
    async fn carry_out(&self, number: DrainNumber) -> Instant {
        let ending = async {
            self.drain.ending().await;
            info!(connections = self.tasks.clients.connections.len(), grace = ?self.grace, "shutting down");
            let least = Instant::now() + self.for_senders();
            self.drain.closing().await;
            self.tasks.clients.close_if_own().await;
            least
        };
        let (end, least) = tokio::join!(self.close_all(number), ending);
        // The drain may have been over for a long time when a signal joined it.
        end.max(least)
    }

    /// Closes all connections. Returns when they have closed; if the gateway is to end, at the end of the grace.
    async fn close_all(&self, number: DrainNumber) -> Instant {
        let Self { drain, heartbeat, tasks, grace, .. } = self;
        let connections = &tasks.clients.connections;
        let (notice, spread) = (drain.config.notice, drain.config.spread);
        info!(connections = connections.len(), ?notice, ?spread, "drain begins; not ready any more");
        self.tell(true);
        if !notice.is_zero() {
            let _ = timeout(notice, drain.hurried()).await;
        }
        if drain.is_ending() {
            // Before upgrades are refused, so that nobody is: a closed port says the same, and sooner.
            tasks.clients.close_if_own().await;
        }
        drain.enter(number, DrainStage::Closing);
        info!(connections = connections.len(), "closing all connections; new ones are refused");
        heartbeat.close_all(&drain.config, drain.hurried()).await;
        let end = Instant::now() + *grace;
        connections.close();
        let late = async {
            drain.ending().await;
            sleep_until(end - self.for_senders()).await;
        };
        tokio::select! {
            biased;
            () = connections.wait() => {
                drain.enter(number, DrainStage::Drained);
                info!("drained: all connections have closed");
            }
            () = late => {}
        }
        end
    }

    fn tell(&self, is_draining: bool) {
        if let Some(cluster) = &self.cluster {
            cluster.set_draining(is_draining);
        }
    }

    fn for_senders(&self) -> Duration {
        FOR_SENDERS.min(self.grace)
    }
}
