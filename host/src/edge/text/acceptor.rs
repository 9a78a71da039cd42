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
use crate::edge::listener::{Accepted, ProxyError, Remote, read_header};
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
    shutdown: CancellationToken,
}

impl Acceptor {
    /// Creates an acceptor. `shutdown` ends its connections.
    pub(crate) fn new(context: Arc<Context>, shutdown: CancellationToken) -> Self {
        Self { context, shutdown }
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
        if tasks.len() >= live.limits.text_connections {
            return refuse(&self.context, remote.address(), SenderRefusal::Connections, TOO_MANY);
        }
        stream.keep_alive(&TcpKeepalive::new().with_time(SENDER_KEEPALIVE));
        let (context, shutdown) = (self.context.clone(), self.shutdown.clone());
        tasks.spawn(async move {
            let mut peer = remote.address();
            let opened = timeout(OPENING_TIMEOUT, open(&context, stream, &mut peer));
            match shutdown.run_until_cancelled(opened).await {
                Some(Ok(Ok(stream))) => serve(context, stream, peer, ConnectionId::next(), shutdown).await,
                Some(Ok(Err(Some((cause, reason))))) => refuse(&context, peer, cause, reason),
                Some(Err(_)) => {
                    refuse(&context, peer, SenderRefusal::Opening, "its first bytes did not come in time");
                }
                Some(Ok(Err(None))) | None => {}
            }
        });
    }
}

/// Why a sender is refused before its first line. `None` if it only looked whether the gateway is alive.
type NotOpened = Option<(SenderRefusal, String)>;

/// Lets the proxy name its sender, who then is the `peer`, and does the handshake of TLS.
async fn open(context: &Context, mut stream: Accepted, peer: &mut SocketAddr) -> Result<Secured<Accepted>, NotOpened> {
    if context.live.load().text.proxy_protocol == ProxyProtocol::Required {
        let named = read_header(&mut stream).await.map_err(|error| {
            matches!(error, ProxyError::Malformed(_))
                .then(|| (SenderRefusal::Opening, format!("{error} (text.proxy_protocol)")))
        })?;
        *peer = named.address();
        if !is_allowed(&context.live.load().text.allow_from, named) {
            return Err(Some((SenderRefusal::AllowFrom, NOT_ALLOWED.to_owned())));
        }
    }
    let failed = |error: io::Error| Some((SenderRefusal::Opening, format!("TLS failed: {error}")));
    let mut stream = Secured::new(stream, context.tls.as_deref()).map_err(failed)?;
    stream.first_byte().await.map_err(|_ended| None)?;
    stream.handshake().await.map_err(failed)?;
    Ok(stream)
}

/// Counts and logs a sender that is refused.
fn refuse(context: &Context, peer: SocketAddr, cause: SenderRefusal, reason: impl fmt::Display) {
    METRICS.senders_refused.increment(cause);
    context.refuse(peer, reason);
}
