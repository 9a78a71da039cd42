//! The settings of a listener: its addresses, and its certificates.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml::de::DeValue;

use super::Config;
use super::error::Wrong;
use super::files::absolute;
use super::kinds::{Choice, Kind, Text};

/// The most addresses of one listener.
const MAX_ADDRESSES: usize = 64;

/// The longest path of a Unix socket, in bytes: the kernel allows 108 with a zero at the end.
const MAX_SOCKET_PATH: usize = 107;

/// One of the four listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerName {
    /// The WebSocket port, for clients.
    WebSocket,
    /// The text port, for internal systems.
    Text,
    /// The admin listener, for operators.
    Admin,
    /// The HTTP push API, for internal systems.
    Api,
}

impl ListenerName {
    /// All listeners.
    pub const ALL: [Self; 4] = [Self::WebSocket, Self::Text, Self::Admin, Self::Api];

    /// Returns the name of its table in the configuration. Sockets of systemd, the log and metrics use this name, too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Text => "text",
            Self::Admin => "admin",
            Self::Api => "api",
        }
    }

    /// Returns the key of its addresses.
    pub const fn listen_key(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket.listen",
            Self::Text => "text.listen",
            Self::Admin => "admin.listen",
            Self::Api => "api.listen",
        }
    }
}

/// Displays the name of its table.
impl fmt::Display for ListenerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Config {
    /// Returns the settings of a listener.
    pub fn listener(&self, name: ListenerName) -> &ListenerConfig {
        match name {
            ListenerName::WebSocket => &self.websocket.listener,
            ListenerName::Text => &self.text.listener,
            ListenerName::Admin => &self.admin.listener,
            ListenerName::Api => &self.api.listener,
        }
    }

    /// Iterates over the listeners. A disabled one is left out.
    pub fn listeners(&self) -> impl Iterator<Item = (ListenerName, &ListenerConfig)> {
        let is_enabled = |name| match name {
            ListenerName::WebSocket | ListenerName::Text => true,
            ListenerName::Admin => self.admin.enabled,
            ListenerName::Api => self.api.enabled,
        };
        ListenerName::ALL.into_iter().filter(move |name| is_enabled(*name)).map(|name| (name, self.listener(name)))
    }
}

/// How a listener can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// The addresses to listen on; at least one.
    pub listen: Vec<ListenAddress>,
    /// The permissions of its Unix sockets.
    pub mode: u32,
    /// The group of its Unix sockets, by name or number; `None` for the group of the process.
    pub group: Option<String>,
    /// The certificates; empty for no TLS. A client that names no host, or an unknown one, gets the first.
    pub certificates: Vec<CertificateConfig>,
    /// The rules of TLS.
    pub tls_options: TlsOptions,
}

impl ListenerConfig {
    /// Returns the settings of a listener with this TCP address.
    pub(super) fn at(address: Ipv4Addr, port: u16) -> Self {
        Self { listen: vec![SocketAddr::from((address, port)).into()], ..Self::default() }
    }

    /// Returns the first address that others than this machine may be able to reach.
    pub fn public_address(&self) -> Option<&ListenAddress> {
        self.listen.iter().find(|address| !address.is_local())
    }

    /// Iterates over the files with certificates and keys.
    pub fn tls_files(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.certificates.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
        pairs.chain(self.tls_options.client_ca.as_ref()).map(PathBuf::as_path)
    }

    /// Makes relative paths absolute; they start at `folder`.
    pub(super) fn locate(&mut self, folder: &Path) -> Result<(), String> {
        let pairs = self.certificates.iter_mut().flat_map(|pair| [&mut pair.certificate, &mut pair.key]);
        for path in pairs.chain(self.tls_options.client_ca.as_mut()).filter(|path| !path.as_os_str().is_empty()) {
            *path = absolute(folder, path)?;
        }
        for address in &mut self.listen {
            if let ListenAddress::Unix(path) = address {
                *path = absolute(folder, path)?;
                if path.as_os_str().len() > MAX_SOCKET_PATH {
                    return Err(format!("unix:{}: the path is longer than {MAX_SOCKET_PATH} bytes", path.display()));
                }
            }
        }
        Ok(())
    }
}

/// A certificate and its private key, in files of PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateConfig {
    /// The file with the certificate, followed by those of its issuers.
    pub certificate: PathBuf,
    /// The file with the private key.
    pub key: PathBuf,
}

/// The rules of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// The file with the certificates of the authorities that issue certificates to clients.
    pub client_ca: Option<PathBuf>,
    /// Whether clients need a certificate.
    pub client_auth: ClientAuth,
    /// The lowest version.
    pub minimum: TlsVersion,
    /// Whether clients get tickets, with which they connect again faster.
    pub tickets: bool,
}

/// Whether clients need a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// Clients are not asked for one.
    Off,
    /// A client may have one, but no wrong one.
    Optional,
    /// A client without one is refused.
    Required,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246)
    V1_2,
    /// TLS 1.3 (RFC 8446)
    V1_3,
}

/// Whether a connection begins with a header of the PROXY protocol, in which a proxy names the address of its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// No connection begins with it.
    Off,
    /// Every connection does, and comes from a trusted proxy.
    Required,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address and a port. Port 0 takes a free port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Returns `true` if only this machine can reach the address.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Returns the IP address and port, if it has one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            let fits = (1..=MAX_SOCKET_PATH).contains(&path.len()) && !path.contains('\0');
            return fits.then(|| Self::Unix(path.into()));
        }
        let address = match text.strip_prefix("localhost:") {
            Some(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?)),
            None => text.parse().ok()?,
        };
        Some(Self::Tcp(address))
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// Displays it as it is written in the configuration.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One address. `localhost` is the only name that is accepted, since it needs no DNS.
const ADDRESS: Text<ListenAddress> = Text {
    parse: ListenAddress::parse,
    show: ListenAddress::to_string,
    allowed: "an IP address and port, like \"127.0.0.1:5678\" or \"[::1]:5678\", localhost and a port, or \
              \"unix:PATH\" with a path of at most 107 bytes",
};

/// One address, or a list of them.
pub(super) struct Addresses;

impl Kind for Addresses {
    type Value = Vec<ListenAddress>;

    fn parse(&self, value: &DeValue<'_>) -> Result<Self::Value, Wrong> {
        let Some(items) = value.as_array() else {
            return Ok(vec![ADDRESS.parse(value).map_err(|_| self.wrong(value))?]);
        };
        if !(1..=MAX_ADDRESSES).contains(&items.len()) {
            return Err(self.wrong(value));
        }
        let mut addresses: Vec<ListenAddress> = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let address = ADDRESS.parse(item.get_ref()).map_err(|wrong| wrong.in_list(index))?;
            if addresses.contains(&address) && address.tcp().is_none_or(|address| address.port() != 0) {
                return Err(Wrong::new(item.get_ref(), "is in the list twice").in_list(index));
            }
            addresses.push(address);
        }
        Ok(addresses)
    }

    fn show(&self, addresses: &Self::Value) -> toml::Value {
        match &addresses[..] {
            [only] => ADDRESS.show(only),
            several => several.iter().map(|address| ADDRESS.show(address)).collect::<Vec<_>>().into(),
        }
    }

    fn allowed(&self) -> String {
        format!("{}; or a list of such addresses", ADDRESS.allowed())
    }
}

/// The permissions of a file, in octal digits.
pub(super) const MODE: Text<u32> = Text {
    parse: |text| u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && (3..=4).contains(&text.len())),
    show: |mode| format!("{mode:04o}"),
    allowed: "three or four octal digits up to \"0777\"",
};

/// A group, by name or number; or `None`, written as an empty text.
pub(super) const GROUP: Text<Option<String>> = Text {
    parse: |text| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (text.len() <= 64 && text.bytes().all(allowed)).then(|| Some(text.to_owned()).filter(|_| !text.is_empty()))
    },
    show: |group| group.clone().unwrap_or_default(),
    allowed: "the name or number of a group, or empty",
};

/// The path of a file. Empty only by default.
pub(super) const FILE: Text<PathBuf> = Text {
    parse: |text| (!text.contains('\0') && !text.is_empty()).then(|| text.into()),
    show: |path| path.display().to_string(),
    allowed: "the path of a file",
};

/// The path of a file; or `None`, written as an empty text.
pub(super) const CLIENT_CA: Text<Option<PathBuf>> = Text {
    parse: |text| (!text.contains('\0')).then(|| Some(text.into()).filter(|_| !text.is_empty())),
    show: |path| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
    allowed: "the path of a file, or empty",
};

pub(super) const CLIENT_AUTHS: Choice<ClientAuth> =
    Choice(&[("off", ClientAuth::Off), ("optional", ClientAuth::Optional), ("required", ClientAuth::Required)]);

pub(super) const TLS_VERSIONS: Choice<TlsVersion> = Choice(&[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)]);
