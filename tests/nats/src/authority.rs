//! A certificate authority, and its certificates.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

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
