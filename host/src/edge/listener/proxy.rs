//! The header of the PROXY protocol, in which a proxy names the address of its client. It stands before all other bytes
//! of a connection, also before TLS. Both versions are read:
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>.

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::stream::Remote;

/// The shortest header, "PROXY UNKNOWN\r\n".
const SHORTEST: usize = 15;
/// The longest header of version 1 (§2.1).
const LONGEST_V1: usize = 107;
/// The fixed part of a header of version 2 (§2.2).
const FIXED_V2: usize = 16;
/// The longest rest of a header of version 2. Certificates may make it long.
const LONGEST_REST_V2: usize = 4096;

/// Why a header names no client.
#[derive(Debug, Error)]
pub(in crate::edge) enum ProxyError {
    /// It is not a header of this protocol.
    #[error("it does not begin with a header of the PROXY protocol: {0}")]
    Malformed(String),
    /// The proxy connects for itself, to see whether the gateway is alive.
    #[error("the proxy only checks that the gateway is alive")]
    Local,
    /// The connection has ended.
    #[error("the connection has ended: {0}")]
    Ended(#[from] io::Error),
}

impl ProxyError {
    fn malformed(error: impl ToString) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Reads a header, and no byte after it. Returns the address of the client. The caller limits the time.
pub(in crate::edge) async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> Result<Remote, ProxyError> {
    let mut header = vec![0; SHORTEST];
    stream.read_exact(&mut header).await?;
    if header.starts_with(v2::PROTOCOL_PREFIX) {
        header.push(stream.read_u8().await?);
        let rest = usize::from(u16::from_be_bytes([header[FIXED_V2 - 2], header[FIXED_V2 - 1]]));
        if rest > LONGEST_REST_V2 {
            return Err(ProxyError::Malformed(format!("a header of {rest} bytes is too long")));
        }
        header.resize(FIXED_V2 + rest, 0);
        stream.read_exact(&mut header[FIXED_V2..]).await?;
        return of_v2(&header).map(Remote::Tcp);
    }
    if !header.starts_with(v1::PROTOCOL_PREFIX.as_bytes()) {
        return Err(ProxyError::malformed("neither version 1 nor version 2"));
    }
    while !header.ends_with(b"\r\n") {
        if header.len() == LONGEST_V1 {
            return Err(ProxyError::malformed("no end of line"));
        }
        header.push(stream.read_u8().await?);
    }
    of_v1(&header).map(Remote::Tcp)
}

fn of_v1(header: &[u8]) -> Result<SocketAddr, ProxyError> {
    match v1::Header::try_from(header).map_err(ProxyError::malformed)?.addresses {
        v1::Addresses::Tcp4(of) => Ok((of.source_address, of.source_port).into()),
        v1::Addresses::Tcp6(of) => Ok((of.source_address, of.source_port).into()),
        v1::Addresses::Unknown => Err(ProxyError::Local),
    }
}

fn of_v2(header: &[u8]) -> Result<SocketAddr, ProxyError> {
    let header = v2::Header::try_from(header).map_err(ProxyError::malformed)?;
    if header.command == v2::Command::Local {
        return Err(ProxyError::Local);
    }
    if header.protocol != v2::Protocol::Stream {
        return Err(ProxyError::malformed("not a connection of TCP"));
    }
    match header.addresses {
        v2::Addresses::IPv4(of) => Ok((of.source_address, of.source_port).into()),
        v2::Addresses::IPv6(of) => Ok((of.source_address, of.source_port).into()),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => Err(ProxyError::malformed("it names no IP address")),
    }
}
