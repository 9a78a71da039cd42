//! A certificate authority, its certificates, and clients that trust it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{Client, Response, Setup, Stream, Upgrade, within};

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl Identity {
    /// Replaces the files of a certificate, `NAME.key` and then `NAME.pem`.
    pub fn replace(&self, folder: &Path, name: &str) {
        for (ending, content) in [("key", &self.key), ("pem", &self.certificate)] {
            let new = folder.join("new");
            std::fs::write(&new, content).expect("a writable folder");
            std::fs::rename(&new, folder.join(format!("{name}.{ending}"))).expect("a writable folder");
        }
    }
}

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

impl Authority {
    /// Makes an authority of its own.
    #[expect(clippy::new_without_default, reason = "each is another authority")]
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, key()).expect("a certificate");
        Self { issuer }
    }

    /// Its own certificate, in PEM.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// Issues a certificate with these names, which expires at noon of this day.
    pub fn issue_until(&self, names: &[&str], (year, month, day): (i32, u8, u8)) -> Identity {
        let names = names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_after = rcgen::date_time_ymd(year, month, day);
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Issues a certificate with these names.
    pub fn issue(&self, names: &[&str]) -> Identity {
        self.issue_until(names, (4000, 1, 1))
    }

    /// The configuration of a client that trusts this authority, and shows its own certificate if it has one.
    pub fn client(&self, own: Option<&Identity>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions").with_root_certificates(roots);
        match own {
            None => builder.with_no_client_auth(),
            Some(Identity { certificate, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate")];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        }
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("randomness")
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
