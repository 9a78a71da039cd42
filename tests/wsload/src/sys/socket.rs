//! Non-blocking TCP sockets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

fn socket(address: &SocketAddr, congestion: &str) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    if !congestion.is_empty() {
        sockopt::set_tcp_congestion(&socket, congestion)
            .map_err(|error| io::Error::new(error.kind(), format!("congestion control '{congestion}': {error}")))?;
    }
    Ok(socket)
}

/// The system's default congestion control.
pub(crate) fn default_congestion() -> String {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    text.trim().to_owned()
}

/// Begins to connect, from `source` if there is one. The socket becomes writable once connecting has succeeded or
/// failed.
pub(crate) fn connect(address: &SocketAddr, source: Option<Ipv4Addr>, congestion: &str) -> io::Result<OwnedFd> {
    let socket = socket(address, congestion)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    if let (Some(source), true) = (source, address.is_ipv4()) {
        net::bind(&socket, &SocketAddr::from((source, 0)))?;
    }
    match net::connect(&socket, address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// The error of a connection attempt that failed.
pub(crate) fn connect_error(socket: &OwnedFd) -> Option<io::Error> {
    match sockopt::socket_error(socket) {
        Ok(Ok(())) => None,
        Ok(Err(error)) | Err(error) => Some(error.into()),
    }
}

/// Creates a listener, and returns it with its port. Accepted connections inherit its congestion control.
pub(crate) fn listen(address: &SocketAddr, congestion: &str) -> io::Result<(OwnedFd, u16)> {
    let socket = socket(address, congestion)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, address)?;
    net::listen(&socket, 4096)?;
    let bound = SocketAddr::try_from(net::getsockname(&socket)?)?;
    Ok((socket, bound.port()))
}

/// Accepts the next waiting connection, if there is one.
pub(crate) fn accept(listener: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    match net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        Ok(socket) => {
            sockopt::set_tcp_nodelay(&socket, true)?;
            Ok(Some(socket))
        }
        Err(Errno::WOULDBLOCK | Errno::CONNABORTED | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Receives bytes. Returns 0 at the end of the stream, and `None` if nothing has arrived yet.
#[inline]
pub(crate) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    or_later(|| net::recv(socket, &mut *buffer, RecvFlags::empty()).map(|(_, received)| received))
}

/// Sends bytes. Returns the number of bytes taken, or `None` if there is no room now.
#[inline]
pub(crate) fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<Option<usize>> {
    or_later(|| net::send(socket, bytes, SendFlags::NOSIGNAL))
}

#[inline]
fn or_later(mut call: impl FnMut() -> Result<usize, Errno>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Closes with a reset instead of a FIN, which leaves no TIME_WAIT.
pub(crate) fn close_with_reset(socket: OwnedFd) {
    // If this fails, the connection has ended already.
    let _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
}
