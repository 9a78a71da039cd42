//! TLS: the certificates of each listener, and the stream of an encrypted connection.
//!
//! | file | what |
//! | --- | --- |
//! | `authorities` | the certificates that the command line trusts |
//! | `certificate` | reads a certificate and its key, and checks them |
//! | `certificates` | the certificates of all listeners |
//! | `choice` | chooses the certificate for a client |
//! | `stream`, `outgoing` | encrypt and decrypt the bytes of a connection |
//! | `secured` | a stream with or without TLS |

mod authorities;
mod certificate;
mod certificates;
mod choice;
mod outgoing;
mod secured;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

pub use self::authorities::{Authorities, provider};
pub use self::certificate::TlsError;
use self::certificate::{Certificate, read_certificates};
pub use self::certificates::Certificates;
use self::choice::CertificateChoice;
pub(in crate::edge) use self::secured::Secured;
use self::stream::TlsStream;
use crate::base::metrics::{METRICS, TlsReload};
use crate::config::{ClientAuth, ListenerConfig, ListenerName, TlsOptions, TlsVersion};
use crate::edge::listener::Stream;

/// The only protocol over TLS that a client may ask for (ALPN, RFC 7301).
const PROTOCOL: &[u8] = b"http/1.1";

/// The cryptography of all connections.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));

/// The TLS of one listener. Its certificates can be replaced while it serves: connections that are open stay.
#[derive(Debug)]
pub struct Tls {
    /// The listener.
    pub listener: ListenerName,
    current: ArcSwap<Current>,
    ticketer: Arc<dyn ProducesTickets>,
    /// Why the files were refused when they were last read. The same reason is not counted again.
    refused: Mutex<Option<TlsError>>,
}

/// What new connections use.
#[derive(Debug)]
struct Current {
    server: Arc<ServerConfig>,
    choice: Arc<CertificateChoice>,
    certificates: Vec<Certificate>,
    clients: Clients,
}

/// The rules for clients.
#[derive(Debug, Clone, PartialEq)]
struct Clients {
    options: TlsOptions,
    /// The authorities that issue their certificates.
    authorities: Vec<CertificateDer<'static>>,
}

/// A certificate that a listener serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateStatus {
    /// The file that it comes from.
    pub file: PathBuf,
    /// Its names.
    pub names: Vec<String>,
    /// When it expires.
    pub expires: SystemTime,
}

impl Tls {
    /// Loads the certificates of a listener. Returns `None` if it has none: it then speaks without TLS. Blocks.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn load(listener: ListenerName, config: &ListenerConfig) -> Result<Option<Arc<Self>>, TlsError> {
        if config.certificates.is_empty() {
            return Ok(None);
        }
        let ticketer = ring::Ticketer::new().map_err(|error| {
            let reason = format!("no key for tickets could be made: {error}");
            TlsError::new(&config.certificates[0].key, reason)
        })?;
        let current = ArcSwap::from_pointee(Current::load(listener, config, &ticketer)?);
        Ok(Some(Arc::new(Self { listener, current, ticketer, refused: Mutex::default() })))
    }

    /// Loads the certificates again, for connections that begin from now on. Returns `true` if something has changed.
    /// Blocks.
    ///
    /// # Errors
    /// The first file that cannot be used. Then nothing changes.
    pub fn reload(&self, config: &ListenerConfig) -> Result<bool, TlsError> {
        let old = self.current.load();
        let new = Current::load(self.listener, config, &self.ticketer);
        let refused = new.as_ref().err().cloned();
        let before = std::mem::replace(&mut *self.refused.lock(), refused.clone());
        if refused.is_some() && refused != before {
            METRICS.tls_reloads.increment(TlsReload::Refused);
        }
        let new = new?;
        let is_new = new.clients != old.clients || new.chains().ne(old.chains());
        if is_new {
            self.current.store(Arc::new(new));
            METRICS.tls_reloads.increment(TlsReload::Loaded);
        }
        Ok(is_new)
    }

    /// Returns the certificates that are served.
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        let status = |certificate: &Certificate| {
            let Certificate { file, names, expires, .. } = certificate.clone();
            CertificateStatus { file, names, expires }
        };
        self.current.load().certificates.iter().map(status).collect()
    }

    /// Returns `true` if a certificate is for this host.
    pub fn names(&self, host: &str) -> bool {
        !self.current.load().choice.named(host).is_empty()
    }

    /// Begins TLS on a connection.
    fn accept<S: Stream>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let current = self.current.load();
        let asks_clients = current.clients.options.client_auth != ClientAuth::Off;
        TlsStream::new(stream, current.server.clone(), asks_clients)
    }
}

impl Current {
    fn load(
        listener: ListenerName,
        config: &ListenerConfig,
        ticketer: &Arc<dyn ProducesTickets>,
    ) -> Result<Self, TlsError> {
        let load = |pair| Certificate::load(pair, &PROVIDER);
        let own = config.certificates.iter().map(load).collect::<Result<Vec<_>, _>>()?;
        let options = config.tls_options.clone();
        let authorities = options.client_ca.as_deref().map(read_certificates).transpose()?.unwrap_or_default();
        let clients = Clients { options, authorities };
        let choice = Arc::new(CertificateChoice::new(&own));
        let mut server = clients.server(choice.clone())?;
        // A sender of the text port speaks no protocol that has a name.
        if listener != ListenerName::Text {
            server.alpn_protocols = vec![PROTOCOL.to_vec()];
        }
        // All that a ticket stands for is in the ticket itself. A client that comes with one is not asked for its
        // certificate again, so there are none where certificates count.
        let has_tickets = clients.options.tickets && clients.options.client_auth == ClientAuth::Off;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = usize::from(has_tickets);
        if has_tickets {
            server.ticketer = ticketer.clone();
        }
        Ok(Self { server: Arc::new(server), choice, certificates: own, clients })
    }

    /// Iterates over the certificates, each with those of its issuers.
    fn chains(&self) -> impl Iterator<Item = &[CertificateDer<'static>]> {
        self.certificates.iter().map(|certificate| certificate.key.cert.as_slice())
    }
}

impl Clients {
    /// Returns the rules of TLS for a listener that serves these certificates.
    fn server(&self, choice: Arc<CertificateChoice>) -> Result<ServerConfig, TlsError> {
        let file = self.options.client_ca.clone().unwrap_or_default();
        let wrong = |error: &dyn ToString| TlsError::new(&file, error.to_string());
        let versions: &[_] = match self.options.minimum {
            TlsVersion::V1_2 => &[&TLS13, &TLS12],
            TlsVersion::V1_3 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(PROVIDER.clone());
        let builder = builder.with_protocol_versions(versions).map_err(|error| wrong(&error))?;
        if self.options.client_auth == ClientAuth::Off {
            return Ok(builder.with_no_client_auth().with_cert_resolver(choice));
        }
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            roots.add(authority.clone()).map_err(|error| wrong(&error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), PROVIDER.clone());
        let verifier = match self.options.client_auth {
            ClientAuth::Optional => verifier.allow_unauthenticated(),
            ClientAuth::Off | ClientAuth::Required => verifier,
        };
        let verifier = verifier.build().map_err(|error| wrong(&error))?;
        Ok(builder.with_client_cert_verifier(verifier).with_cert_resolver(choice))
    }
}
