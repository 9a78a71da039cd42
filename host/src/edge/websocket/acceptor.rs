//! Accepts connections on the WebSocket port.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::admission::Admission;
use super::connection::serve;
use super::context::Context;
use super::handshake::is_trusted;
use super::stream::Stream;
use crate::base::message::ConnectionId;
use crate::base::metrics::METRICS;
use crate::edge::heartbeat::Heartbeat;
use crate::hub::outbox::{Budget, Outbox};

/// The most connections past a limit that are answered at the same time. Further ones are dropped without an answer.
const MAX_REFUSING: usize = 256;

/// Accepts connections, up to the limits.
pub(crate) struct Acceptor {
    context: Arc<Context>,
    admission: Arc<Admission>,
    refusing: Arc<Semaphore>,
    heartbeat: Arc<Heartbeat>,
    max_outbox: usize,
    budget: Arc<Budget>,
}

impl Acceptor {
    /// Creates an acceptor. Each connection may queue `max_outbox` bytes, and all connections together `budget`.
    pub(crate) fn new(
        context: Arc<Context>,
        admission: Arc<Admission>,
        heartbeat: Arc<Heartbeat>,
        max_outbox: usize,
        budget: Arc<Budget>,
    ) -> Self {
        Self { context, admission, refusing: Arc::new(Semaphore::new(MAX_REFUSING)), heartbeat, max_outbox, budget }
    }

    /// Accepts one connection and serves it in a task of its own, one of `tasks`.
    pub(crate) fn admit(&self, tasks: &TaskTracker, stream: impl Stream, peer: SocketAddr) {
        METRICS.connections_accepted.increment();
        let proxy = is_trusted(&self.context.config.trusted_proxies, peer.ip());
        let permit = self.admission.admit((!proxy).then_some(peer.ip()));
        let refusing = match &permit {
            Ok(_) => None,
            Err(_) => match self.refusing.clone().try_acquire_owned() {
                Ok(place) => Some(place),
                Err(_) => {
                    METRICS.handshakes_refused.increment();
                    return;
                }
            },
        };
        stream.send_at_once();
        let outbox = Outbox::new(self.max_outbox, self.budget.clone());
        let link = self.heartbeat.watch(ConnectionId::next(), outbox);
        tasks.spawn(serve(self.context.clone(), stream, peer, link, permit, refusing));
    }
}
