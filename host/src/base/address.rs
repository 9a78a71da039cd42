//! The address of a client.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The address of a client, with its text: plugins get the text with each call, so it is formatted only once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteAddress {
    text: Box<str>,
    ip: IpAddr,
    port: u16,
}

impl RemoteAddress {
    /// Returns the IP address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Returns the address and the port.
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }

    /// Returns the text, such as `192.0.2.1:4711` or `[2001:db8::1]:4711`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<SocketAddr> for RemoteAddress {
    fn from(address: SocketAddr) -> Self {
        Self { text: address.to_string().into(), ip: address.ip(), port: address.port() }
    }
}

impl fmt::Display for RemoteAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
