//! Listens on addresses and accepts connections.
//!
//! | file | what |
//! | --- | --- |
//! | `bind` | opens the sockets to listen on |
//! | `inherited` | takes the sockets that systemd has opened |
//! | `stream` | the stream of bytes of a connection |
//! | `proxy` | the address of a client, which its proxy names |

mod bind;
mod inherited;
mod proxy;
mod stream;

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use anyhow::Result;
use socket2::TcpKeepalive;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use self::bind::ListeningSocket;
pub(crate) use self::inherited::{Inherited, InheritedSocket};
pub(in crate::edge) use self::proxy::{ProxyError, read_header};
pub(crate) use self::stream::{Accepted, Remote};
pub(in crate::edge) use self::stream::{Stream, is_trusted};
use crate::config::{ListenAddress, ListenerConfig, ListenerName};

/// The pause after a failed accept, when the process or the machine is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections on one or several sockets.
#[derive(Debug)]
pub(crate) struct Listener {
    name: ListenerName,
    sockets: Vec<ListeningSocket>,
    /// True if systemd has passed the sockets. They stay open when this process closes them.
    is_inherited: bool,
    /// The socket whose turn it is.
    next: usize,
    /// The reason for which the last accept failed, if it is a shortage.
    short_of: Option<io::ErrorKind>,
}

impl Listener {
    /// Opens the sockets of a listener, unless systemd has passed them.
    ///
    /// # Errors
    /// If an address is in use or cannot be bound. The error names the address and the setting.
    pub(crate) async fn bind(
        name: ListenerName,
        config: &ListenerConfig,
        inherited: Vec<InheritedSocket>,
    ) -> Result<Self> {
        let (config, is_inherited) = (config.clone(), !inherited.is_empty());
        // Looking up a group may take long.
        let sockets = spawn_blocking(move || match inherited.is_empty() {
            true => ListeningSocket::open(name, &config),
            false => inherited.into_iter().map(ListeningSocket::inherit).collect(),
        });
        Ok(Self { name, sockets: sockets.await??, is_inherited, next: 0, short_of: None })
    }

    /// Returns which listener this is.
    pub(crate) fn name(&self) -> ListenerName {
        self.name
    }

    /// Returns the addresses that it listens on, with the ports that were free.
    pub(crate) fn addresses(&self) -> Vec<ListenAddress> {
        self.sockets.iter().filter_map(ListeningSocket::address).collect()
    }

    /// Returns `true` if systemd has passed the sockets.
    pub(crate) fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// Makes the kernel probe quiet peers of all connections that are accepted from now on.
    pub(crate) fn keep_alive(&self, keepalive: &TcpKeepalive) {
        self.sockets.iter().for_each(|socket| socket.keep_alive(keepalive));
    }

    /// Accepts the next connection. Ignores an error of a single connection. Any other error is a shortage, which
    /// passes: waits and tries again.
    pub(in crate::edge) async fn accept(&mut self) -> (Accepted, Remote) {
        loop {
            match self.accept_once().await {
                Ok(accepted) => {
                    if self.short_of.take().is_some() {
                        info!(listener = self.name.as_str(), "accepting again");
                    }
                    return accepted;
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if self.short_of.replace(error.kind()) != Some(error.kind()) {
                        error!(listener = self.name.as_str(), %error, "cannot accept; trying again");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn accept_once(&mut self) -> io::Result<(Accepted, Remote)> {
        poll_fn(|cx| {
            // Each socket has its turn, so that a busy one does not keep clients of the others waiting.
            for _ in 0..self.sockets.len() {
                self.next = (self.next + 1) % self.sockets.len();
                if let Poll::Ready(accepted) = self.sockets[self.next].poll_accept(cx) {
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Accepts connections until `stop` is cancelled, each after `pace` is done once more.
pub(crate) async fn accept(
    mut listener: Listener,
    stop: CancellationToken,
    pace: impl AsyncFn(),
    mut admit: impl FnMut(Accepted, Remote),
) {
    let mut next = async || {
        pace().await;
        listener.accept().await
    };
    while let Some((stream, remote)) = stop.run_until_cancelled(next()).await {
        admit(stream, remote);
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
        NetworkUnreachable,
    };
    // Linux passes errors of the network on (accept(2)).
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
    )
}
