//! Accepts connections on the WebSocket port.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::admission::Admission;
use super::connection::serve;
use super::context::Context;
use crate::base::message::ConnectionId;
use crate::base::metrics::METRICS;
use crate::base::throttle::Throttle;
use crate::config::ProxyProtocol;
use crate::edge::heartbeat::Heartbeat;
use crate::edge::listener::{Remote, Stream};
use crate::hub::outbox::{Budget, Outbox};

/// The most connections past a limit that are answered at the same time. Further ones are dropped without an answer.
const MAX_REFUSING: usize = 256;

/// Refused peers that are logged: in a second, and at once.
const REFUSALS_PER_SECOND: u32 = 1;
const REFUSALS_AT_ONCE: u32 = 1;

/// Accepts connections, up to the limits.
pub(crate) struct Acceptor {
    context: Arc<Context>,
    admission: Arc<Admission>,
    refusing: Arc<Semaphore>,
    heartbeat: Arc<Heartbeat>,
    max_outbox: usize,
    budget: Arc<Budget>,
    /// Limits the log lines about peers that are no trusted proxies.
    strangers: Throttle,
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
        let refusing = Arc::new(Semaphore::new(MAX_REFUSING));
        let strangers = Throttle::new(REFUSALS_PER_SECOND, REFUSALS_AT_ONCE);
        Self { context, admission, refusing, heartbeat, max_outbox, budget, strangers }
    }

    /// Accepts one connection and serves it in a task of its own, one of `tasks`.
    pub(crate) fn admit(&self, tasks: &TaskTracker, stream: impl Stream, remote: Remote) {
        METRICS.connections_accepted.increment();
        let proxy = remote.is_trusted(&self.context.config.trusted_proxies);
        if !proxy && self.context.config.proxy_protocol == ProxyProtocol::Required {
            METRICS.handshakes_refused.increment();
            if let Some(unlogged) = self.strangers.admit(0) {
                let (peer, reason) = (remote.address(), "it is no trusted proxy (websocket.trusted_proxies)");
                warn!(%peer, reason, unlogged, "connection refused");
            }
            return;
        }
        let permit = self.admission.admit((!proxy).then_some(remote.address().ip()));
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
        tasks.spawn(serve(self.context.clone(), stream, remote, link, permit, refusing));
    }
}
