//! Takes in connections of internal senders.

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

/// After how much silence a sender's TCP connection is probed, so that dead ones do not stay for ever.
const SENDER_KEEPALIVE: Duration = Duration::from_secs(60);

/// What the text port needs to take in a sender.
pub(crate) struct Acceptor {
    context: Arc<Context>,
    places: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Acceptor {
    /// An acceptor of at most `most` senders at a time. Their connections end with `shutdown`.
    pub(crate) fn new(context: Arc<Context>, most: usize, shutdown: CancellationToken) -> Self {
        Self { context, places: Arc::new(Semaphore::new(most)), shutdown }
    }

    /// Takes in one connection. It is served by a task of its own, among `tasks`.
    pub(crate) fn admit(&self, tasks: &TaskTracker, stream: TcpStream, peer: SocketAddr) {
        if !is_allowed(&self.context.config.allow_from, peer.ip()) {
            METRICS.senders_refused.increment();
            self.context.refuse(peer, "text.allow_from does not list it");
            return;
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            METRICS.senders_refused.increment();
            self.context.refuse(peer, "there are as many as limits.text_connections allows");
            return;
        };
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(SENDER_KEEPALIVE));
        let (context, shutdown) = (self.context.clone(), self.shutdown.clone());
        tasks.spawn(async move {
            serve(context, stream, peer, ConnectionId::next(), shutdown).await;
            drop(place);
        });
    }
}
