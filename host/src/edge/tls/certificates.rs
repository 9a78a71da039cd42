//! The certificates of all listeners.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::interval;
use tracing::{info, warn};

use super::{CertificateStatus, Tls, TlsError};
use crate::config::{Config, ListenerName};

/// How long before a certificate expires the log says so.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The certificates of all listeners.
#[derive(Debug, Clone, Default)]
pub struct Certificates(Vec<Arc<Tls>>);

impl Certificates {
    /// Loads the certificates of all listeners that have some. Blocks.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn load(config: &Config) -> Result<Self, TlsError> {
        let listeners = config.listeners().map(|(name, listener)| Tls::load(name, listener));
        listeners.filter_map(Result::transpose).collect::<Result<_, _>>().map(Self)
    }

    /// Returns the TLS of a listener. `None` if it speaks without TLS.
    pub fn of(&self, listener: ListenerName) -> Option<Arc<Tls>> {
        self.0.iter().find(|tls| tls.listener == listener).cloned()
    }

    /// Loads all certificates again, for connections that begin from now on, and logs which listeners have new ones. A
    /// listener with a file that cannot be used keeps its certificates. Returns why, for each of them. Blocks.
    pub fn reload(&self, config: &Config) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, listener) in config.listeners() {
            // Whether there is TLS at all is decided at the start.
            let Some(tls) = self.of(name).filter(|_| !listener.certificates.is_empty()) else { continue };
            match tls.reload(listener) {
                Ok(false) => {}
                Ok(true) => {
                    for CertificateStatus { file, names, expires } in tls.certificates() {
                        let (names, expires) = (names.join(", "), humantime::format_rfc3339_seconds(expires));
                        info!(listener = name.as_str(), file = %file.display(), names, %expires, "certificate loaded");
                    }
                }
                Err(error) => problems.push(format!("{name}.tls: {error}")),
            }
        }
        problems
    }

    /// Iterates over all certificates, with their listeners.
    pub fn all(&self) -> impl Iterator<Item = (ListenerName, CertificateStatus)> {
        self.0.iter().flat_map(|tls| tls.certificates().into_iter().map(|certificate| (tls.listener, certificate)))
    }

    /// Returns a sentence for each certificate that expires soon, or has expired.
    pub fn expiring(&self) -> Vec<String> {
        self.expiring_at(SystemTime::now())
    }

    fn expiring_at(&self, now: SystemTime) -> Vec<String> {
        let soon = self.all().filter(|(_, of)| of.expires < now + EXPIRY_WARNING);
        let sentence = |(_, CertificateStatus { file, expires, .. }): (_, CertificateStatus)| {
            let (file, at) = (file.display(), humantime::format_rfc3339_seconds(expires));
            match expires.duration_since(now) {
                Ok(_) => format!("the certificate in {file} expires soon, at {at}: renew it"),
                Err(_) => format!("the certificate in {file} has expired, at {at}: clients refuse it"),
            }
        };
        // Several listeners may have the same.
        soon.map(sentence).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Logs the certificates that expire soon, now and once a day. Never ends.
    pub async fn watch_expiry(self) {
        let mut days = interval(DAY);
        loop {
            days.tick().await;
            for problem in self.expiring() {
                warn!(problem, "certificate");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::config::CertificateConfig;

    #[test]
    fn a_certificate_is_named_from_14_days_before_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(["push.example.com".to_owned()]).unwrap().self_signed(&key).unwrap();
        let file = |name: &str, content: String| {
            std::fs::write(folder.path().join(name), content).unwrap();
            folder.path().join(name)
        };
        let pair = CertificateConfig { certificate: file("c", own.pem()), key: file("k", key.serialize_pem()) };
        let mut config = Config::default();
        (config.websocket.listener.certificates, config.text.listener.certificates) = (vec![pair.clone()], vec![pair]);
        let certificates = Certificates::load(&config).unwrap();
        let end = certificates.all().next().unwrap().1.expires;
        let second = Duration::from_secs(1);
        assert!(certificates.expiring_at(end - EXPIRY_WARNING).is_empty());
        for (now, sentence) in [
            (end - EXPIRY_WARNING + second, "expires soon, at 4096-01-01T00:00:00Z: renew it"),
            (end, "expires soon, at 4096-01-01T00:00:00Z: renew it"),
            (end + second, "has expired, at 4096-01-01T00:00:00Z: clients refuse it"),
        ] {
            let expiring = certificates.expiring_at(now);
            assert!(expiring.len() == 1 && expiring[0].ends_with(sentence), "{expiring:?}");
        }
    }
}
