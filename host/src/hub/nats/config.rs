//! The settings of the connection to NATS, and the files that they name.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use super::error::BusError;

/// The most servers.
const MAX_SERVERS: usize = 64;
/// The longest subject prefix, in bytes.
const MAX_PREFIX: usize = 64;
/// The most bytes of a file with a password, a key or a certificate.
const MAX_FILE: usize = 1 << 20;

/// The settings of the connection to NATS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusConfig {
    /// The servers, `nats://HOST:PORT` or `tls://HOST:PORT`; 1 to 64. Servers that these announce are not used.
    pub servers: Vec<String>,
    /// How this gateway says who it is.
    pub login: Login,
    /// TLS. With it, or with a `tls://` server, no connection is made without TLS.
    pub tls: Option<TlsFiles>,
    /// The first word of every subject; letters, digits, `-` and `_`, or several such words with dots between them.
    pub prefix: String,
    /// How long a server may be silent, more or less; 100 ms to 1 min. It is asked for an echo 4 times in this time.
    /// When an echo is late by this time, publishing fails. The connection is given up 2 to 2.5 times this time after
    /// the server has fallen silent.
    pub ping_interval: Duration,
    /// The time that one attempt to connect to one server may take; 100 ms to 1 min.
    pub attempt_timeout: Duration,
    /// The time that [`Bus::connect`](super::Bus::connect) may take; at most 10 min.
    pub connect_timeout: Duration,
    /// The most frames that wait in each subscription; 16 to 65,536. Frames past it are dropped and reported.
    pub queue: usize,
    /// The most bytes that the server has not yet said to have processed; at least one frame. Past it, publishing
    /// fails.
    pub unconfirmed: usize,
}

/// How a gateway says who it is. Files are read again for each connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Login {
    /// Not at all; or by the certificate.
    #[default]
    None,
    /// A file of NATS credentials: a JWT and a seed.
    Credentials(PathBuf),
    /// A file with the seed of an nkey.
    Nkey(PathBuf),
    /// A user, and a file with the password.
    Password {
        /// The user's name.
        user: String,
        /// The file with the password. A line break at its end does not count.
        password: PathBuf,
    },
}

/// The files of TLS, in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// The authorities that are trusted; `None` for those of the system.
    pub authorities: Option<PathBuf>,
    /// The certificate of this gateway, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What the files contain.
pub(super) struct Secrets {
    pub(super) login: LoginSecret,
    pub(super) tls: ClientConfig,
}

/// What a gateway logs in with.
pub(super) enum LoginSecret {
    None,
    Credentials(String),
    Nkey(String),
    Password(String, String),
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            login: Login::None,
            tls: None,
            prefix: "hg".to_owned(),
            ping_interval: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(10),
            queue: 4096,
            unconfirmed: 8 << 20,
        }
    }
}

impl BusConfig {
    /// Checks the settings. Reads no files.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn check(&self) -> Result<(), BusError> {
        if !(1..=MAX_SERVERS).contains(&self.servers.len()) {
            return Err(BusError::setting("servers", format_args!("name 1 to {MAX_SERVERS} servers")));
        }
        for server in &self.servers {
            check_server(server).map_err(|reason| BusError::setting("servers", reason))?;
        }
        let is_word = |word: &str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if self.prefix.len() > MAX_PREFIX || !self.prefix.split('.').all(is_word) {
            let allowed = "use letters, digits, '-' and '_' in words with dots between them, at most 64 bytes";
            return Err(BusError::setting("prefix", allowed));
        }
        let (shortest, minute) = (Duration::from_millis(100), Duration::from_secs(60));
        for (name, value) in [("ping_interval", self.ping_interval), ("attempt_timeout", self.attempt_timeout)] {
            if !(shortest..=minute).contains(&value) {
                return Err(BusError::setting(name, "choose 100 ms to 1 min"));
            }
        }
        if self.connect_timeout > 10 * minute {
            return Err(BusError::setting("connect_timeout", "choose at most 10 min"));
        }
        if !(16..=65_536).contains(&self.queue) {
            return Err(BusError::setting("queue", "choose 16 to 65536 frames"));
        }
        if self.unconfirmed < super::subject::MAX_FRAME {
            return Err(BusError::setting(
                "unconfirmed",
                format_args!("choose at least {} bytes", super::subject::MAX_FRAME),
            ));
        }
        Ok(())
    }

    /// Returns `true` if connections to this server must be encrypted.
    pub(super) fn needs_tls(&self, server: &str) -> bool {
        self.tls.is_some() || server.starts_with("tls://")
    }

    /// Returns the file that this gateway logs in with; an empty path if there is none.
    pub(super) fn login_file(&self) -> &Path {
        match &self.login {
            Login::None => Path::new(""),
            Login::Credentials(file) | Login::Nkey(file) | Login::Password { password: file, .. } => file,
        }
    }

    /// Reads all files. Blocks.
    pub(super) fn read_secrets(&self) -> Result<Secrets, BusError> {
        let login = match &self.login {
            Login::None => LoginSecret::None,
            Login::Credentials(file) => LoginSecret::Credentials(read_text(file)?),
            Login::Nkey(file) => {
                // Lines that begin with # are comments, as in the files that `nk` makes.
                let text = read_text(file)?;
                let seed = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with(['#', '-']));
                LoginSecret::Nkey(seed.ok_or_else(|| BusError::file(file, "it contains no seed"))?.to_owned())
            }
            Login::Password { user, password } => {
                let text = read_text(password)?;
                LoginSecret::Password(user.clone(), text.trim_end_matches(['\r', '\n']).to_owned())
            }
        };
        let tls = match &self.tls {
            Some(files) => client_tls(files)?,
            None if self.servers.iter().any(|server| self.needs_tls(server)) => client_tls(&TlsFiles::default())?,
            // For a server that wants TLS all the same: nothing is trusted, so the handshake fails.
            None => with_roots(RootCertStore::empty())?.with_no_client_auth(),
        };
        Ok(Secrets { login, tls })
    }
}

/// Checks the address of a server.
fn check_server(server: &str) -> Result<(), String> {
    let host = server.strip_prefix("nats://").or_else(|| server.strip_prefix("tls://"));
    let Some(host) = host else {
        // Without what follows an @, which may be a password that stands in the wrong place.
        return Err("a server begins with nats:// or tls://".to_owned());
    };
    if host.contains('@') {
        return Err("a server's address contains no user or password: name them in files".to_owned());
    }
    let port = host.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let is_plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte));
    if !is_plain || port.is_none_or(|port| port == 0) || host.starts_with(':') {
        return Err(format!("{server:?} is no address of the form nats://HOST:PORT"));
    }
    Ok(())
}

/// Makes the rules of TLS for a client.
fn client_tls(files: &TlsFiles) -> Result<ClientConfig, BusError> {
    let mut roots = RootCertStore::empty();
    match &files.authorities {
        Some(file) => {
            for certificate in read_certificates(file)? {
                roots.add(certificate).map_err(|error| BusError::file(file, error))?;
            }
        }
        // An error here means that some file of the system was not read. Others may be enough.
        None => _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    }
    let builder = with_roots(roots)?;
    let Some((certificate, key)) = &files.identity else { return Ok(builder.with_no_client_auth()) };
    let chain = read_certificates(certificate)?;
    // The parser's error is not shown, since it may contain a part of the key.
    let parsed = PrivateKeyDer::from_pem_slice(&read_file(key)?);
    let parsed = parsed.map_err(|_| BusError::file(key, "it contains no private key in PEM"))?;
    builder.with_client_auth_cert(chain, parsed).map_err(|error| BusError::file(key, error))
}

fn with_roots(roots: RootCertStore) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, BusError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(|error| BusError::setting("tls", error))?.with_root_certificates(roots))
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, BusError> {
    let certificates = CertificateDer::pem_slice_iter(&read_file(file)?).collect::<Result<Vec<_>, _>>();
    let certificates =
        certificates.map_err(|error| BusError::file(file, format_args!("its PEM is broken: {error}")))?;
    match certificates.is_empty() {
        false => Ok(certificates),
        true => Err(BusError::file(file, "it contains no certificate in PEM")),
    }
}

fn read_text(file: &Path) -> Result<String, BusError> {
    // The original error is not shown, since it contains the bytes.
    String::from_utf8(read_file(file)?).map_err(|_| BusError::file(file, "it is not UTF-8"))
}

/// Reads a whole regular file of at most [`MAX_FILE`] bytes.
fn read_file(file: &Path) -> Result<Vec<u8>, BusError> {
    let read = || -> io::Result<Vec<u8>> {
        // Without this flag, opening a pipe would wait for its other end.
        let opened = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(file)?;
        if !opened.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut bytes = Vec::new();
        opened.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| BusError::file(file, format_args!("cannot read it: {error}")))?;
    match bytes.len() <= MAX_FILE {
        true => Ok(bytes),
        false => Err(BusError::file(file, format_args!("it is larger than {MAX_FILE} bytes"))),
    }
}
