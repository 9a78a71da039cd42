//! How the command line reaches a gateway: by TCP, with or without TLS, or through a Unix socket.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use ureq::config::Config as AgentConfig;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Agent, Error};

use super::failure::Failure;
use crate::config::{Config, ListenAddress};
use crate::edge::tls::{Authorities, provider};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The way to a gateway.
pub(super) enum Way {
    /// HTTP to this host and port.
    Tcp(String),
    /// HTTP over TLS. `name` is in the gateway's certificate, with the port.
    Tls { name: String, address: Option<SocketAddr>, authorities: Authorities },
    /// HTTP through the Unix socket with this path.
    Unix(PathBuf),
}

impl Way {
    /// Returns the way to an address that is given as `HOST:PORT`, `https://HOST:PORT` or `unix:PATH`. `ca` is a file
    /// with the certificates that are trusted.
    ///
    /// # Errors
    /// If the file is needed and cannot be used.
    pub(super) fn to(address: &str, ca: Option<&Path>) -> Result<Self, Failure> {
        if let Some(path) = address.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let Some(name) = address.strip_prefix("https://") else { return Ok(Self::Tcp(address.to_owned())) };
        let ca = ca.ok_or_else(|| {
            Failure::Settings(format!("--address {address} needs --ca: the file with the gateway's certificate"))
        })?;
        let authorities = authorities(ca)?;
        Ok(Self::Tls { name: name.trim_end_matches('/').to_owned(), address: None, authorities })
    }

    /// Returns the way to a gateway with these settings on this machine. A gateway with TLS is trusted if it has the
    /// certificate of the settings.
    ///
    /// # Errors
    /// If the settings name no fixed address, or a certificate cannot be read.
    pub(super) fn from(config: &Config) -> Result<Self, Failure> {
        if !config.admin.enabled {
            return Err(Failure::Unavailable("there is no admin listener: admin.enabled = false".to_owned()));
        }
        let listener = &config.admin.listener;
        let private = listener.listen.iter().find_map(|address| match address {
            ListenAddress::Unix(path) => Some(path.clone()),
            ListenAddress::Tcp(_) => None,
        });
        if let Some(path) = private {
            return Ok(Self::Unix(path));
        }
        let mut addresses = listener.listen.iter().filter_map(ListenAddress::tcp);
        let Some(listen) = addresses.find(|address| address.port() != 0) else {
            let problem =
                "admin.listen has no fixed port: find the port in the gateway's log, and give it by --address";
            return Err(Failure::Unavailable(problem.to_owned()));
        };
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let address = SocketAddr::new(ip, listen.port());
        let Some(pair) = listener.certificates.first() else { return Ok(Self::Tcp(address.to_string())) };
        let authorities = authorities(&pair.certificate)?;
        let name = authorities.host().unwrap_or_else(|| address.ip().to_string());
        let host = if name.contains(':') { format!("[{name}]") } else { name };
        Ok(Self::Tls { name: format!("{host}:{}", address.port()), address: Some(address), authorities })
    }

    /// Returns the beginning of all URLs.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Tcp(address) => format!("http://{address}"),
            Self::Tls { name, .. } => format!("https://{name}"),
            Self::Unix(_) => "http://localhost".to_owned(),
        }
    }

    /// Returns the address for a browser.
    ///
    /// # Errors
    /// The path of a Unix socket, which browsers do not open.
    pub(super) fn page(&self) -> Result<String, String> {
        match self {
            Self::Tcp(_) | Self::Tls { .. } => Ok(self.url()),
            Self::Unix(path) => Err(path.display().to_string()),
        }
    }

    /// Returns the address, for messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Tcp(address) => address.clone(),
            Self::Tls { name, address: None, .. } => format!("https://{name}"),
            Self::Tls { name, address: Some(address), .. } => format!("https://{name} at {address}"),
            Self::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// Returns what sends requests this way.
    pub(super) fn agent(&self) -> Agent {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // No proxy may see the token.
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT));
        match self {
            Self::Tcp(_) => config.build().into(),
            Self::Tls { address, authorities, .. } => {
                let roots: Vec<_> =
                    authorities.certificates().map(|der| Certificate::from_der(der).to_owned()).collect();
                let tls = TlsConfig::builder()
                    .root_certs(RootCerts::new_with_certs(&roots))
                    .unversioned_rustls_crypto_provider(provider());
                let config = config.tls_config(tls.build()).build();
                Agent::with_parts(config, DefaultConnector::default(), Fixed(*address))
            }
            Self::Unix(path) => Agent::with_parts(config.build(), UnixConnector(path.clone()), Fixed(Some(NOWHERE))),
        }
    }
}

fn authorities(file: &Path) -> Result<Authorities, Failure> {
    Authorities::read(file).map_err(|error| Failure::Settings(error.to_string()))
}

/// Stands for the address of a Unix socket, which has none.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Finds this address for every name, or asks the system if there is none.
#[derive(Debug)]
struct Fixed(Option<SocketAddr>);

impl Resolver for Fixed {
    fn resolve(&self, uri: &Uri, config: &AgentConfig, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let Some(address) = self.0 else { return DefaultResolver::default().resolve(uri, config, timeout) };
        let mut addresses = self.empty();
        addresses.push(address);
        Ok(addresses)
    }
}

/// Connects to the Unix socket with this path.
#[derive(Debug)]
struct UnixConnector(PathBuf);

impl Connector<()> for UnixConnector {
    type Out = UnixTransport;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<UnixTransport>, Error> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Connecting must not wait for a gateway that accepts nothing.
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(&self.0)?)?;
        socket.set_nonblocking(false)?;
        let stream = UnixStream::from(OwnedFd::from(socket));
        let (input, output) = (details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(UnixTransport { stream, buffers: LazyBuffers::new(input, output) }))
    }
}

#[derive(Debug)]
struct UnixTransport {
    stream: UnixStream,
    buffers: LazyBuffers,
}

impl Transport for UnixTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.set_write_timeout(timeout.not_zero().map(|time| *time))?;
        let written = self.stream.write_all(&self.buffers.output()[..amount]);
        written.map_err(|error| or_timeout(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.set_read_timeout(timeout.not_zero().map(|time| *time))?;
        let amount = self.stream.read(self.buffers.input_append_buf()).map_err(|error| or_timeout(error, timeout))?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        // Each command makes one or two requests. A connection that was closed meanwhile is found out by the next.
        true
    }
}

fn or_timeout(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_reached_where_it_listens() {
        let mut config = Config::default();
        let mut way = |listen: &[&str]| {
            let address = |text: &&str| match text.strip_prefix("unix:") {
                Some(path) => ListenAddress::Unix(path.into()),
                None => text.parse::<SocketAddr>().unwrap().into(),
            };
            config.admin.listener.listen = listen.iter().map(address).collect();
            Way::from(&config).ok().map(|way| way.shown())
        };
        assert_eq!(way(&["0.0.0.0:1235"]).as_deref(), Some("127.0.0.1:1235"));
        assert_eq!(way(&["[::]:1235"]).as_deref(), Some("[::1]:1235"));
        assert_eq!(way(&["192.0.2.1:80"]).as_deref(), Some("192.0.2.1:80"));
        assert_eq!(way(&["127.0.0.1:0"]), None);
        assert_eq!(way(&["127.0.0.1:0", "127.0.0.1:1"]).as_deref(), Some("127.0.0.1:1"));
        assert_eq!(way(&["127.0.0.1:1", "unix:/run/a"]).as_deref(), Some("unix:/run/a"));
    }
}
