//! Takes in connections to the WebSocket port.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::admission::Admission;
use super::connection::serve;
use super::context::Context;
use super::handshake::is_trusted;
use crate::base::message::ConnectionId;
use crate::base::metrics::METRICS;
use crate::edge::heartbeat::Heartbeat;
use crate::hub::outbox::{Budget, Outbox};

/// Connections past a limit that are told so at the same time; further ones are dropped.
const MAX_REFUSING: usize = 256;

/// What the WebSocket port needs to take in a connection.
pub(crate) struct Acceptor {
    context: Arc<Context>,
    admission: Arc<Admission>,
    refusing: Arc<Semaphore>,
    heartbeat: Arc<Heartbeat>,
    max_outbox: usize,
    budget: Arc<Budget>,
}

impl Acceptor {
    /// An acceptor of connections that may each have `max_outbox` bytes queued, and `budget` all together.
    pub(crate) fn new(
        context: Arc<Context>,
        admission: Arc<Admission>,
        heartbeat: Arc<Heartbeat>,
        max_outbox: usize,
        budget: Arc<Budget>,
    ) -> Self {
        Self { context, admission, refusing: Arc::new(Semaphore::new(MAX_REFUSING)), heartbeat, max_outbox, budget }
    }

    /// Takes in one connection. It is served by a task of its own, among `tasks`.
    pub(crate) fn admit(&self, tasks: &TaskTracker, stream: TcpStream, peer: SocketAddr) {
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
        let _ = stream.set_nodelay(true);
        let outbox = Outbox::new(self.max_outbox, self.budget.clone());
        let link = self.heartbeat.watch(ConnectionId::next(), outbox);
        tasks.spawn(serve(self.context.clone(), stream, peer, link, permit, refusing));
    }
}
