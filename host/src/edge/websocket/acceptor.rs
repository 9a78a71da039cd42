//! Accepts connections on the WebSocket port.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::admission::Admission;
use super::connection::serve;
use super::context::Context;
use super::upgrade::PlaceBeforeUpgrade;
use crate::base::message::ConnectionId;
use crate::base::metrics::{METRICS, Rejection};
use crate::config::ProxyProtocol;
use crate::edge::heartbeat::Heartbeat;
use crate::edge::listener::{Remote, Stream};
use crate::hub::outbox::{Budget, Outbox};

/// Accepts connections, up to the limits.
pub(crate) struct Acceptor {
    context: Arc<Context>,
    admission: Arc<Admission>,
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
        Self { context, admission, heartbeat, max_outbox, budget }
    }

    /// Accepts one connection and serves it in a task of its own, one of `tasks`.
    pub(crate) fn admit(&self, tasks: &TaskTracker, stream: impl Stream, remote: Remote) {
        METRICS.connections_accepted.increment();
        let (address, rejections) = (remote.address().ip(), &self.context.rejections);
        let live = self.context.live.load();
        let proxy = remote.is_trusted(&live.websocket.trusted_proxies);
        if !proxy && live.websocket.proxy_protocol == ProxyProtocol::Required {
            let reason = "it is no trusted proxy (websocket.trusted_proxies)";
            return rejections.count(None, address, Rejection::Proxy, reason);
        }
        let permit = self.admission.admit((!proxy).then_some(address));
        let refusing = match &permit {
            Ok(_) => None,
            Err(refusal) => match rejections.place() {
                // A handshake of TLS would cost more than what is refused.
                Some(place) if !self.context.encrypts(&stream) => Some(place),
                _ => return rejections.count(None, address, (*refusal).into(), refusal),
            },
        };
        let outbox = Outbox::new(self.max_outbox, self.budget.clone());
        let link = self.heartbeat.watch(ConnectionId::next(), outbox);
        tasks.spawn(serve(self.context.clone(), stream, remote, link, PlaceBeforeUpgrade { permit, refusing }));
    }
}
