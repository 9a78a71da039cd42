//! A certificate and its private key, from files of PEM.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use thiserror::Error;
use x509_cert::Certificate as Parsed;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::config::{CertificateConfig, read_file};

/// The most bytes of a file with certificates or a key.
const MAX_FILE: usize = 1 << 20;

/// A file with a certificate or a key that cannot be used, and why. The reason never shows the key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}: {reason}", file.display())]
pub struct TlsError {
    file: PathBuf,
    reason: String,
}

impl TlsError {
    pub(super) fn new(file: &Path, reason: impl ToString) -> Self {
        Self { file: file.to_owned(), reason: reason.to_string() }
    }
}

/// A certificate that can be served.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    /// The file that it comes from.
    pub(super) file: PathBuf,
    /// The certificate with those of its issuers, and its key.
    pub(super) key: Arc<CertifiedKey>,
    /// Its names (RFC 5280 §4.2.1.6).
    pub(super) names: Vec<String>,
    /// The time after which clients refuse it.
    pub(super) expires: SystemTime,
}

impl Certificate {
    /// Reads a certificate and its key. Blocks.
    ///
    /// # Errors
    /// If a file cannot be read or understood, or if the key belongs to another certificate.
    pub(super) fn load(config: &CertificateConfig, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let CertificateConfig { certificate: file, key: key_file } = config;
        let chain = read_certificates(file)?;
        let (names, expires) = examine(&chain[0]).map_err(|reason| TlsError::new(file, reason))?;
        let key = PrivateKeyDer::from_pem_slice(&read(key_file)?).map_err(|error| {
            TlsError::new(
                key_file,
                match error {
                    PemError::NoItemsFound => {
                        "it contains no private key in PEM (a key with a passphrase cannot be used)".to_owned()
                    }
                    error => format!("its PEM cannot be read: {error}"),
                },
            )
        })?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::new(key_file, format!("this key does not belong to the certificate in {}", file.display()))
            }
            error => TlsError::new(key_file, format!("this key cannot be used: {error}")),
        })?;
        Ok(Self { file: file.clone(), key: Arc::new(key), names, expires })
    }
}

/// Reads the certificates in a file; at least one. Blocks.
pub(super) fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(&read(file)?).collect::<Result<Vec<_>, _>>();
    let certificates =
        certificates.map_err(|error| TlsError::new(file, format_args!("its PEM cannot be read: {error}")))?;
    match certificates.is_empty() {
        false => Ok(certificates),
        true => Err(TlsError::new(file, "it contains no certificate in PEM")),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let content =
        read_file(file, MAX_FILE).map_err(|error| TlsError::new(file, format_args!("cannot read it: {error}")))?;
    content.ok_or_else(|| TlsError::new(file, format_args!("it is larger than {MAX_FILE} bytes")))
}

/// Returns the names of a certificate and the time when it expires.
fn examine(certificate: &CertificateDer<'_>) -> Result<(Vec<String>, SystemTime), String> {
    let wrong = |error| format!("the certificate cannot be understood: {error}");
    let certificate = Parsed::from_der(certificate).map_err(wrong)?;
    let content = certificate.tbs_certificate();
    let expires = SystemTime::UNIX_EPOCH + content.validity().not_after.to_unix_duration();
    Ok((alternative_names(&certificate).map_err(wrong)?, expires))
}

/// Returns the names of a client's certificate. Empty if it has none, or cannot be understood.
pub(super) fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    Parsed::from_der(certificate).ok().and_then(|parsed| alternative_names(&parsed).ok()).unwrap_or_default()
}

fn alternative_names(certificate: &Parsed) -> Result<Vec<String>, x509_cert::der::Error> {
    let names = certificate.tbs_certificate().get_extension::<SubjectAltName>()?;
    let name = |name: GeneralName| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        GeneralName::Rfc822Name(name) | GeneralName::UniformResourceIdentifier(name) => Some(name.as_str().to_owned()),
        GeneralName::IpAddress(bytes) => address(bytes.as_bytes()).map(|address| address.to_string()),
        _ => None,
    };
    Ok(names.map(|(_, names)| names.0.into_iter().filter_map(name).collect()).unwrap_or_default())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
