//! TCP sockets that never block.

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

/// The congestion control that sockets have unless told otherwise.
pub(crate) fn default_congestion() -> String {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    text.trim().to_owned()
}

/// Begins to connect, from an address of choice if need be. It is writable once that is decided.
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

/// Why a connection that has begun did not come to be.
pub(crate) fn connect_error(socket: &OwnedFd) -> Option<io::Error> {
    match sockopt::socket_error(socket) {
        Ok(Ok(())) => None,
        Ok(Err(error)) | Err(error) => Some(error.into()),
    }
}

/// A listener and its port. Connections have its congestion control.
pub(crate) fn listen(address: &SocketAddr, congestion: &str) -> io::Result<(OwnedFd, u16)> {
    let socket = socket(address, congestion)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, address)?;
    net::listen(&socket, 4096)?;
    let bound = SocketAddr::try_from(net::getsockname(&socket)?)?;
    Ok((socket, bound.port()))
}

/// The next connection that waits, if any.
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

/// Bytes that have come; none are the end of the stream, `None` is that there is nothing yet.
#[inline]
pub(crate) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    or_later(|| net::recv(socket, &mut *buffer, RecvFlags::empty()).map(|(_, received)| received))
}

/// How many of the bytes were taken, or `None` when there is no room now.
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

/// Closes with a reset in place of a FIN, which leaves nothing behind.
pub(crate) fn close_with_reset(socket: OwnedFd) {
    // If this fails the connection is gone already.
    let _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
}
