//! Chooses the certificate for the host name that a client wants (SNI, RFC 6066 §3).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::Certificate;

/// The certificates of a listener by their names.
#[derive(Debug)]
pub(super) struct CertificateChoice {
    /// The keys are names in lower case. A name that begins with `*.` stands for any one label (RFC 6125 §6.4.3).
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// All certificates, in the order of the configuration.
    all: Vec<Arc<CertifiedKey>>,
}

impl CertificateChoice {
    pub(super) fn new(certificates: &[Certificate]) -> Self {
        let mut by_name: HashMap<String, Vec<_>> = HashMap::new();
        for certificate in certificates {
            for name in &certificate.names {
                by_name.entry(name.clone()).or_default().push(certificate.key.clone());
            }
        }
        Self { by_name, all: certificates.iter().map(|certificate| certificate.key.clone()).collect() }
    }

    /// Returns the certificates for a host name: those with the name, or else those with a wildcard for it.
    pub(super) fn named(&self, name: &str) -> &[Arc<CertifiedKey>] {
        let name = name.to_ascii_lowercase();
        let wildcard = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
        self.by_name.get(&name).or_else(wildcard).map_or(&[], Vec::as_slice)
    }
}

impl ResolvesServerCert for CertificateChoice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // There may be one certificate for each kind of key.
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = hello.server_name().map_or(&[][..], |name| self.named(name));
        named.iter().find(fits).or_else(|| self.all.iter().find(fits)).cloned()
    }
}
