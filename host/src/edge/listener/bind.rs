//! Opens the sockets to listen on.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::unistd::Group;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket as RawSocket, TcpKeepalive, Type};
use tokio::net::{TcpListener, UnixListener};

use super::inherited::InheritedSocket;
use super::stream::{Accepted, Remote};
use crate::config::{ListenAddress, ListenerConfig, ListenerName};

/// Connections that may wait to be accepted. Enough for all clients to reconnect at once.
const BACKLOG: i32 = 4096;

/// A socket that listens.
#[derive(Debug)]
pub(super) enum ListeningSocket {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: Option<SocketFile> },
}

impl ListeningSocket {
    /// Opens the sockets of the listener `name`. Blocks.
    pub(super) fn open(name: ListenerName, config: &ListenerConfig) -> Result<Vec<Self>> {
        let group = config.group.as_deref().map(|group| group_id(group).with_context(|| format!("{name}.group")));
        let group = group.transpose()?;
        let bind = |address: &ListenAddress| match address {
            ListenAddress::Tcp(address) => Ok(Self::Tcp(tcp(*address)?)),
            ListenAddress::Unix(path) => unix(path, config.mode, group),
        };
        let open =
            |address| bind(address).with_context(|| format!("cannot listen on {address} ({})", name.listen_key()));
        config.listen.iter().map(open).collect()
    }

    /// Takes a socket that systemd has opened.
    pub(super) fn inherit(socket: InheritedSocket) -> Result<Self> {
        match socket {
            InheritedSocket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                send_at_once(&SockRef::from(&listener))?;
                Ok(Self::Tcp(TcpListener::from_std(listener)?))
            }
            InheritedSocket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Ok(Self::Unix { listener: UnixListener::from_std(listener)?, _file: None })
            }
        }
    }

    /// Returns the address that it listens on.
    pub(super) fn address(&self) -> Option<ListenAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(ListenAddress::Tcp),
            Self::Unix { listener, .. } => {
                let address = listener.local_addr().ok()?;
                address.as_pathname().map(|path| ListenAddress::Unix(path.to_owned()))
            }
        }
    }

    pub(super) fn keep_alive(&self, keepalive: &TcpKeepalive) {
        if let Self::Tcp(listener) = self {
            // Accepted connections inherit this option.
            let _ = SockRef::from(listener).set_tcp_keepalive(keepalive);
        }
    }

    pub(super) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Accepted, Remote)>> {
        match self {
            Self::Tcp(listener) => {
                listener.poll_accept(cx).map_ok(|(stream, address)| (Accepted::Tcp(stream), Remote::Tcp(address)))
            }
            Self::Unix { listener, .. } => {
                listener.poll_accept(cx).map_ok(|(stream, _)| (Accepted::Unix(stream), Remote::Unix))
            }
        }
    }
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    send_at_once(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Makes the kernel send small messages at once, even if earlier data is not acknowledged yet. Accepted connections
/// inherit this option, so that it takes no system call for each.
fn send_at_once(listener: &RawSocket) -> io::Result<()> {
    listener.set_tcp_nodelay(true)
}

/// Opens a Unix socket. Nobody can connect before it has its permissions.
fn unix(path: &Path, mode: u32, group: Option<u32>) -> Result<ListeningSocket> {
    remove_stale(path)?;
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if let Some(group) = group {
        chown(path, None, Some(group)).with_context(|| format!("cannot give the socket to group {group}"))?;
    }
    socket.listen(BACKLOG)?;
    Ok(ListeningSocket::Unix { listener: UnixListener::from_std(socket.into())?, _file: Some(file) })
}

/// Removes the socket of a process that is gone. A socket that somebody answers stays.
fn remove_stale(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(metadata) if !metadata.file_type().is_socket() => bail!("there is a file that is not a socket"),
        Ok(_) => {}
    }
    // Without waiting: the other process may have too much to do.
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => bail!("another process listens there"),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => bail!("another process listens there"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(fs::remove_file(path)?),
        Err(error) => Err(anyhow!("cannot find out whether another process listens there: {error}")),
    }
}

/// Returns the number of a group.
fn group_id(group: &str) -> Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    match Group::from_name(group)? {
        Some(group) => Ok(group.gid.as_raw()),
        None => bail!("there is no group {group:?}"),
    }
}

/// The file of a Unix socket that this process has made. Dropping it removes the file.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Its device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another process may have put its own socket there.
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_connections_send_small_messages_at_once() {
        let listener = tcp(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let _client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        assert!(listener.accept().await.unwrap().0.nodelay().unwrap());
    }
}
