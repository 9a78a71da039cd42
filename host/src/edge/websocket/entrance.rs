//! Where connections come in: those that the listener has accepted, and those that operators try.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio_util::task::TaskTracker;

use super::acceptor::Acceptor;
use crate::config::ProxyProtocol;
use crate::edge::drain::Drain;
use crate::edge::listener::{Accepted, Remote, Stream};
use crate::edge::live::LiveConfig;

/// Admits connections, and gives each a task of the gateway.
pub struct Entrance {
    acceptor: Acceptor,
    live: Arc<LiveConfig>,
    drain: Arc<Drain>,
    /// The connections that a drain closes.
    connections: TaskTracker,
    /// Connections that came after a drain had begun to refuse upgrades.
    refused: TaskTracker,
}

impl Entrance {
    /// Creates an entrance. Its tasks belong to `connections`, or to `refused` once `drain` refuses upgrades.
    pub(crate) fn new(
        acceptor: Acceptor,
        live: Arc<LiveConfig>,
        drain: Arc<Drain>,
        connections: TaskTracker,
        refused: TaskTracker,
    ) -> Self {
        Self { acceptor, live, drain, connections, refused }
    }

    /// Admits a connection.
    pub(crate) fn admit(&self, stream: impl Stream, remote: Remote) {
        let tasks = if self.drain.refuses_upgrades() { &self.refused } else { &self.connections };
        self.acceptor.admit(tasks, stream, remote);
    }

    /// Opens a connection for an operator, as a trusted proxy of this machine does it through a Unix socket. So the
    /// request may name the operator's address in `X-Forwarded-For`.
    ///
    /// # Errors
    /// If the process is out of descriptors.
    pub(in crate::edge) async fn open(&self, operator: SocketAddr) -> io::Result<UnixStream> {
        let (mut own, stream) = UnixStream::pair()?;
        self.admit(Accepted::Unix(stream), Remote::Unix);
        if self.live.load().websocket.proxy_protocol == ProxyProtocol::Required {
            let family = if operator.is_ipv4() { "TCP4" } else { "TCP6" };
            let (ip, port) = (operator.ip(), operator.port());
            own.write_all(format!("PROXY {family} {ip} {ip} {port} {port}\r\n").as_bytes()).await?;
        }
        Ok(own)
    }
}

impl fmt::Debug for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entrance").finish_non_exhaustive()
    }
}
