//! Accepts connections of internal senders.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::TcpKeepalive;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::context::{Context, is_allowed};
use super::conversation::serve;
use crate::base::message::ConnectionId;
use crate::base::metrics::{METRICS, SenderRefusal};
use crate::config::ProxyProtocol;
use crate::edge::listener::{Accepted, ProxyError, Remote, Stream as _, read_header};
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
    /// Each connection holds a clone. So they can be counted, and their limit may change.
    connected: Arc<()>,
    shutdown: CancellationToken,
}

impl Acceptor {
    /// Creates an acceptor. `shutdown` ends its connections.
    pub(crate) fn new(context: Arc<Context>, shutdown: CancellationToken) -> Self {
        Self { context, connected: Arc::default(), shutdown }
    }

    /// Accepts one connection and serves it in a task of its own, one of `tasks`.
    pub(crate) fn admit(&self, tasks: &TaskTracker, stream: Accepted, remote: Remote) {
        let live = self.context.live.load();
        let config = &live.text;
        match config.proxy_protocol {
            ProxyProtocol::Required if !remote.is_trusted(&config.trusted_proxies) => {
                return refuse(&self.context, remote.address(), SenderRefusal::Proxy, NO_PROXY);
            }
            ProxyProtocol::Off if !is_allowed(&config.allow_from, remote) => {
                return refuse(&self.context, remote.address(), SenderRefusal::AllowFrom, NOT_ALLOWED);
            }
            ProxyProtocol::Required | ProxyProtocol::Off => {}
        }
        let place = self.connected.clone();
        // The acceptor holds one of the clones.
        if Arc::strong_count(&place) - 1 > live.limits.text_connections {
            return refuse(&self.context, remote.address(), SenderRefusal::Connections, TOO_MANY);
        }
        stream.send_at_once();
        stream.keep_alive(&TcpKeepalive::new().with_time(SENDER_KEEPALIVE));
        let (context, shutdown) = (self.context.clone(), self.shutdown.clone());
        tasks.spawn(async move {
            let opened = shutdown.run_until_cancelled(timeout(OPENING_TIMEOUT, open(&context, stream, remote))).await;
            match opened {
                Some(Ok(Ok((stream, peer)))) => serve(context, stream, peer, ConnectionId::next(), shutdown).await,
                Some(Ok(Err(NotOpened { peer, cause, reason: Some(reason) }))) => refuse(&context, peer, cause, reason),
                Some(Err(_)) => {
                    let reason = "its first bytes did not come in time";
                    refuse(&context, remote.address(), SenderRefusal::Opening, reason);
                }
                Some(Ok(Err(_))) | None => {}
            }
            drop(place);
        });
    }
}

/// A sender that is refused before its first line. There is no reason if it only looked whether the gateway is alive.
struct NotOpened {
    peer: SocketAddr,
    cause: SenderRefusal,
    reason: Option<String>,
}

/// Lets the proxy name its sender, and does the handshake of TLS. Returns the stream and the address of the sender.
async fn open(
    context: &Context,
    mut stream: Accepted,
    remote: Remote,
) -> Result<(Secured<Accepted>, SocketAddr), NotOpened> {
    let mut peer = remote.address();
    if context.config.proxy_protocol == ProxyProtocol::Required {
        let named = read_header(&mut stream).await.map_err(|error| {
            let reason = (!matches!(error, ProxyError::Local)).then(|| error.to_string());
            NotOpened { peer, cause: SenderRefusal::Opening, reason }
        })?;
        peer = named.address();
        if !is_allowed(&context.live.load().text.allow_from, named) {
            let (cause, reason) = (SenderRefusal::AllowFrom, Some(NOT_ALLOWED.to_owned()));
            return Err(NotOpened { peer, cause, reason });
        }
    }
    let secured = async {
        let mut stream = Secured::new(stream, context.tls.as_deref())?;
        stream.handshake().await?;
        Ok(stream)
    };
    let failed = |error: io::Error| {
        let reason = Some(format!("TLS failed: {error}"));
        NotOpened { peer, cause: SenderRefusal::Opening, reason }
    };
    Ok((secured.await.map_err(failed)?, peer))
}

/// Counts and logs a sender that is refused.
fn refuse(context: &Context, peer: SocketAddr, cause: SenderRefusal, reason: impl fmt::Display) {
    METRICS.senders_refused.increment(cause);
    context.refuse(peer, reason);
}
