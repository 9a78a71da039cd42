//! Gateways and clients with TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{Authority, Client, Identity, Response, Setup, Stream, Upgrade, within};

impl Setup {
    /// Puts a certificate and its key beside `hotgate.toml`, in `NAME.pem` and `NAME.key`.
    pub fn identity(self, name: &str, Identity { certificate, key }: &Identity) -> Self {
        self.bytes(&format!("{name}.pem"), certificate.as_bytes()).bytes(&format!("{name}.key"), key.as_bytes())
    }

    /// Gives a listener the certificate in `NAME.pem` and `NAME.key`.
    pub fn tls(self, listener: &str, name: &str) -> Self {
        self.and(&format!("\n[[{listener}.tls]]\ncertificate = \"{name}.pem\"\nkey = \"{name}.key\"\n"))
    }
}

impl Stream {
    /// Connects by TLS to a server that must have this name.
    ///
    /// # Errors
    /// If the handshake fails.
    pub async fn tls(address: SocketAddr, name: &str, config: ClientConfig) -> io::Result<Self> {
        let stream = within("connecting", TcpStream::connect(address)).await.expect("the port is open");
        stream.set_nodelay(true).expect("no delay");
        Self::tls_over(stream, name, config).await
    }

    /// Begins TLS on a connection to a server that must have this name.
    ///
    /// # Errors
    /// If the handshake fails.
    pub async fn tls_over(stream: TcpStream, name: &str, config: ClientConfig) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connected = within("the handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await;
        Ok(Self::Tls(Box::new(connected?)))
    }
}

impl Client {
    /// Connects by TLS to `name` and upgrades to WebSocket.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn connect_tls(address: SocketAddr, name: &str, authority: &Authority) -> Result<Self, Response> {
        let stream = Stream::tls(address, name, authority.client(None)).await.expect("a handshake");
        Self::open(stream, &Upgrade::default().encode()).await
    }
}
