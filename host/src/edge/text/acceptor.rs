//! Accepts connections of internal senders.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::TcpKeepalive;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::context::{Context, is_allowed};
use super::conversation::serve;
use crate::base::message::ConnectionId;
use crate::base::metrics::METRICS;
use crate::config::ProxyProtocol;
use crate::edge::listener::{ProxyError, Remote, Socket, Stream as _, read_header};
use crate::edge::tls::Secured;

/// The silence after which TCP probes a sender's connection, so that dead connections do not stay for ever.
const SENDER_KEEPALIVE: Duration = Duration::from_secs(60);

/// How long the header of a proxy and the handshake of TLS may take together.
const OPENING_TIMEOUT: Duration = Duration::from_secs(5);

const NOT_ALLOWED: &str = "its address is not in text.allow_from";
const NO_PROXY: &str = "it is no trusted proxy (text.trusted_proxies)";
const TOO_MANY: &str = "too many senders are connected (limits.text_connections)";

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
    pub(crate) fn admit(&self, tasks: &TaskTracker, stream: Socket, remote: Remote) {
        let config = &self.context.config;
        match config.proxy_protocol {
            ProxyProtocol::Required if !remote.is_trusted(&config.trusted_proxies) => {
                return refuse(&self.context, remote.address(), NO_PROXY);
            }
            ProxyProtocol::Off if !is_allowed(&config.allow_from, remote) => {
                return refuse(&self.context, remote.address(), NOT_ALLOWED);
            }
            ProxyProtocol::Required | ProxyProtocol::Off => {}
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return refuse(&self.context, remote.address(), TOO_MANY);
        };
        stream.send_at_once();
        stream.keep_alive(&TcpKeepalive::new().with_time(SENDER_KEEPALIVE));
        let (context, shutdown) = (self.context.clone(), self.shutdown.clone());
        tasks.spawn(async move {
            let opened = shutdown.run_until_cancelled(timeout(OPENING_TIMEOUT, open(&context, stream, remote))).await;
            match opened {
                Some(Ok(Ok((stream, peer)))) => serve(context, stream, peer, ConnectionId::next(), shutdown).await,
                Some(Ok(Err(NotOpened { peer, reason: Some(reason) }))) => refuse(&context, peer, reason),
                Some(Err(_)) => refuse(&context, remote.address(), "its first bytes did not come in time"),
                Some(Ok(Err(_))) | None => {}
            }
            drop(place);
        });
    }
}

/// A sender that is refused before its first line. There is no reason if it only looked whether the gateway is alive.
struct NotOpened {
    peer: SocketAddr,
    reason: Option<String>,
}

/// Lets the proxy name its sender, and does the handshake of TLS. Returns the stream and the address of the sender.
async fn open(
    context: &Context,
    mut stream: Socket,
    remote: Remote,
) -> Result<(Secured<Socket>, SocketAddr), NotOpened> {
    let mut peer = remote.address();
    if context.config.proxy_protocol == ProxyProtocol::Required {
        peer = read_header(&mut stream).await.map_err(|error| {
            let reason = (!matches!(error, ProxyError::Local)).then(|| error.to_string());
            NotOpened { peer, reason }
        })?;
        if !is_allowed(&context.config.allow_from, Remote::Tcp(peer)) {
            return Err(NotOpened { peer, reason: Some(NOT_ALLOWED.to_owned()) });
        }
    }
    let secured = async {
        let mut stream = Secured::new(stream, context.tls.as_deref())?;
        stream.handshake().await?;
        Ok(stream)
    };
    let failed = |error: io::Error| NotOpened { peer, reason: Some(format!("TLS failed: {error}")) };
    Ok((secured.await.map_err(failed)?, peer))
}

/// Counts and logs a sender that is refused.
fn refuse(context: &Context, peer: SocketAddr, reason: impl fmt::Display) {
    METRICS.senders_refused.increment();
    context.refuse(peer, reason);
}
