//! The stream of bytes from and to one peer.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use ipnet::IpNet;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A stream of bytes from and to one peer.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static {
    /// Returns `true` if the kernel has found out that the peer is gone.
    fn is_dead(&self) -> bool;

    /// Makes dropping the stream reset the connection: the kernel discards data that is not sent yet.
    fn reset_on_drop(&self);

    /// Returns `true` if only processes of this machine can be the peer, so that TLS would protect nothing.
    fn is_private(&self) -> bool {
        false
    }

    /// Returns the bytes that the stream itself holds for the reader: part of a record that is not complete yet.
    fn unread(&self) -> usize {
        0
    }

    /// Returns the bytes that the stream has taken from the writer, and the kernel has not taken yet.
    fn unsent(&self) -> usize {
        0
    }
}

/// The stream of a connection that was accepted.
#[derive(Debug)]
pub(crate) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Accepted {
    /// Makes the kernel probe a peer that has been quiet.
    pub(in crate::edge) fn keep_alive(&self, keepalive: &TcpKeepalive) {
        if let Self::Tcp(stream) = self {
            let _ = SockRef::from(stream).set_tcp_keepalive(keepalive);
        }
    }

    /// Returns the address that the peer has connected to, unless it is a Unix socket.
    pub(in crate::edge) fn own_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

impl Stream for Accepted {
    fn is_dead(&self) -> bool {
        let error = match self {
            Self::Tcp(stream) => stream.take_error(),
            Self::Unix(stream) => stream.take_error(),
        };
        !matches!(error, Ok(None))
    }

    fn is_private(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    fn reset_on_drop(&self) {
        if let Self::Tcp(stream) = self {
            let _ = stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Accepted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The kernel has everything that was written.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// The other end of a connection that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remote {
    /// The address of a client or of a proxy.
    Tcp(SocketAddr),
    /// A process of this machine that was allowed to open a Unix socket.
    Unix,
}

impl Remote {
    /// Returns the address, with an IPv4 address as such. A process behind a Unix socket has the address of this
    /// machine, without a port.
    pub(in crate::edge) fn address(self) -> SocketAddr {
        match self {
            Self::Tcp(address) => SocketAddr::new(address.ip().to_canonical(), address.port()),
            Self::Unix => (Ipv4Addr::LOCALHOST, 0).into(),
        }
    }

    /// Returns `true` for a proxy that is believed when it names the address of its client.
    pub(in crate::edge) fn is_trusted(self, proxies: &[IpNet]) -> bool {
        match self {
            Self::Tcp(address) => is_trusted(proxies, address),
            Self::Unix => true,
        }
    }
}

/// Returns `true` if an address is that of a trusted proxy.
pub(in crate::edge) fn is_trusted(proxies: &[IpNet], address: SocketAddr) -> bool {
    let address = address.ip().to_canonical();
    proxies.iter().any(|net| net.contains(&address))
}
