//! Accepts connections of internal senders.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::context::{Context, is_allowed};
use super::conversation::serve;
use crate::base::message::ConnectionId;
use crate::base::metrics::METRICS;

/// The silence after which TCP probes a sender's connection, so that dead connections do not stay for ever.
const SENDER_KEEPALIVE: Duration = Duration::from_secs(60);

/// Accepts senders on the text port.
pub(crate) struct Acceptor {
    context: Arc<Context>,
    places: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Acceptor {
    /// Creates an acceptor for at most `most` senders at a time. `shutdown` ends their connections.
    pub(crate) fn new(context: Arc<Context>, most: usize, shutdown: CancellationToken) -> Self {
        Self { context, places: Arc::new(Semaphore::new(most)), shutdown }
    }

    /// Accepts one connection and serves it in a task of its own, one of `tasks`.
    pub(crate) fn admit(&self, tasks: &TaskTracker, stream: TcpStream, peer: SocketAddr) {
        if !is_allowed(&self.context.config.allow_from, peer.ip()) {
            return self.refuse(peer, "its address is not in text.allow_from");
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return self.refuse(peer, "too many senders are connected (limits.text_connections)");
        };
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(SENDER_KEEPALIVE));
        let (context, shutdown) = (self.context.clone(), self.shutdown.clone());
        tasks.spawn(async move {
            serve(context, stream, peer, ConnectionId::next(), shutdown).await;
            drop(place);
        });
    }

    /// Counts and logs a sender that is refused.
    fn refuse(&self, peer: SocketAddr, reason: &str) {
        METRICS.senders_refused.increment();
        self.context.refuse(peer, reason);
    }
}
