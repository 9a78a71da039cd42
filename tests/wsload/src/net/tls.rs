//! TLS below a connection.

use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::sys;

/// Bytes read from the socket at once.
const READ: usize = 64 << 10;

/// What all encrypted connections share: the authorities that they trust, and the server's name.
pub(crate) struct TlsClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsClient {
    /// Trusts the certificates in this file. The server's certificate must have the name of `host`.
    pub(crate) fn new(ca: &Path, host: &str) -> Result<TlsClient, String> {
        let wrong = |e: &dyn std::fmt::Display| format!("--ca {}: {e}", ca.display());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca).map_err(|e| wrong(&e))? {
            roots.add(certificate.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().map_err(|e| wrong(&e))?;
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        let bare = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
        let name = ServerName::try_from(bare.to_owned()).map_err(|e| format!("--ws '{host}': {e}"))?;
        Ok(TlsClient { config: Arc::new(config), name })
    }

    pub(super) fn session(&self) -> io::Result<Box<Tls>> {
        let session = ClientConnection::new(self.config.clone(), self.name.clone()).map_err(io::Error::other)?;
        Ok(Box::new(Tls(session)))
    }
}

/// The session of one connection.
pub(super) struct Tls(ClientConnection);

impl Tls {
    /// Reads decrypted bytes. `None` when no more have arrived, 0 at the end of the stream.
    pub(super) fn receive(&mut self, socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.0.reader().read(buffer) {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Some(0)),
                Err(error) => return Err(error),
            }
            let mut encrypted = [0; READ];
            let count = match sys::receive(socket, &mut encrypted)? {
                None => return Ok(None),
                Some(count) => count,
            };
            let mut rest = &encrypted[..count];
            loop {
                self.0.read_tls(&mut rest)?;
                self.0.process_new_packets().map_err(io::Error::other)?;
                if rest.is_empty() {
                    break;
                }
            }
            self.flush(socket)?;
        }
    }

    /// Encrypts and sends bytes. `None` when the kernel takes no more.
    pub(super) fn send(&mut self, socket: &OwnedFd, bytes: &[u8]) -> io::Result<Option<usize>> {
        if !self.flush(socket)? {
            return Ok(None);
        }
        let taken = self.0.writer().write(bytes)?;
        self.flush(socket)?;
        Ok((taken > 0).then_some(taken))
    }

    /// Sends encrypted bytes. Returns `true` if all are sent.
    pub(super) fn flush(&mut self, socket: &OwnedFd) -> io::Result<bool> {
        while self.0.wants_write() {
            match self.0.write_tls(&mut Socket(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

struct Socket<'a>(&'a OwnedFd);

impl io::Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sys::send(self.0, bytes)?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
