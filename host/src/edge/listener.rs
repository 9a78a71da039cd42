//! Binds TCP listeners and accepts connections.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// Connections that may wait to be accepted. Enough for all clients to reconnect at once.
const BACKLOG: i32 = 4096;

/// The pause after a failed accept, when the process or the machine is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds a TCP socket and listens on it. `key` is the setting with the address.
///
/// # Errors
/// If the address is in use or cannot be bound. The error names the address and the setting.
pub(crate) fn listen(address: SocketAddr, key: &str) -> Result<TcpListener> {
    let bind = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().with_context(|| format!("cannot listen on {address} ({key})"))
}

/// Accepts connections until `stop` is cancelled. Ignores an error of a single connection. Any other error is a
/// shortage, which passes: waits and tries again.
pub(crate) async fn accept(
    name: &'static str,
    listener: TcpListener,
    stop: CancellationToken,
    mut admit: impl FnMut(TcpStream, SocketAddr),
) {
    let mut short_of = None;
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                if short_of.take().is_some() {
                    info!(listener = name, "accepting again");
                }
                admit(stream, peer);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if short_of.replace(error.kind()) != Some(error.kind()) {
                    error!(listener = name, %error, "cannot accept; trying again");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
