//! The certificates that the command line trusts when it speaks to a gateway.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;

use super::PROVIDER;
use super::certificate::{TlsError, names_of, read_certificates};
use crate::config::host;

/// Certificates that are trusted: authorities, or the gateway's own certificate.
#[derive(Debug)]
pub struct Authorities(Vec<CertificateDer<'static>>);

impl Authorities {
    /// Reads the certificates in a file of PEM. Blocks.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub fn read(file: &Path) -> Result<Self, TlsError> {
        read_certificates(file).map(Self)
    }

    /// Iterates over the certificates.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// Returns a host that the first certificate is for.
    pub fn host(&self) -> Option<String> {
        let names = self.0.first().map(names_of)?;
        // Any label stands for the wildcard. Other names, such as URIs, are no hosts.
        names.into_iter().find_map(|name| host(&name.replacen('*', "hotgate", 1)))
    }
}

/// Returns the cryptography of all connections.
pub fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}
