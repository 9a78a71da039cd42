//! The opening handshake (RFC 6455 §4.2): reads the upgrade request within limits, and accepts it or refuses it with a
//! reason in one line.

use std::net::{IpAddr, SocketAddr};

use httparse::{EMPTY_HEADER, Header, Request, Status};
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::http::StatusCode;

use super::origin;
use super::rejection::{NotUpgraded, RejectedUpgrade};
use crate::base::message::{Attribute, ConnectionId};
use crate::config::WebSocketConfig;
use crate::edge::listener::{Remote, is_trusted};
use crate::policy::Handshake;

/// The longest request head, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// The most header fields of one request.
const MAX_HEADERS: usize = 64;

/// A complete request head, and the bytes after it.
#[derive(Debug)]
pub(super) struct Head {
    bytes: Vec<u8>,
    length: usize,
}

/// An accepted request.
#[derive(Debug)]
pub(super) struct Upgrade {
    /// The handshake for the plugins.
    pub(super) handshake: Handshake,
    /// The client's address, for the limits.
    pub(super) address: IpAddr,
    /// The response that completes the handshake.
    pub(super) response: String,
    /// The client's first frames, if it sent them without waiting for the response.
    pub(super) early: Vec<u8>,
}

/// Reads until the end of the request head, or until the bytes cannot be a request. The caller limits the time.
pub(super) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Result<Head, NotUpgraded> {
    let mut bytes = Vec::with_capacity(1024);
    let mut has_line = false;
    loop {
        let before = bytes.len();
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(NotUpgraded::Gone);
        }
        // Check only with the first bytes and with the first line, so that many segments do not take more time.
        let ends_line = !has_line && bytes[before..].contains(&b'\n');
        has_line |= ends_line;
        if before == 0 || ends_line {
            check_beginning(&bytes)?;
        }
        // Search only the new bytes: a head that arrives byte by byte costs no more than a head in one piece.
        let from = before.saturating_sub(3);
        if let Some(at) = bytes[from..].windows(4).position(|window| window == b"\r\n\r\n") {
            let length = from + at + 4;
            if length <= MAX_HEAD {
                return Ok(Head { bytes, length });
            }
        }
        if bytes.len() > MAX_HEAD {
            let reason = format!("request head larger than {MAX_HEAD} bytes");
            return Err(RejectedUpgrade::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, reason).into());
        }
        bytes.reserve(1024);
    }
}

/// Refuses bytes that cannot become a request, such as a TLS handshake: the sender must not have to wait for an answer.
fn check_beginning(bytes: &[u8]) -> Result<(), RejectedUpgrade> {
    match Request::new(&mut []).parse(bytes) {
        // The headers are checked when all of them have arrived.
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Ok(()),
        Err(error) => Err(bad(format!("not an HTTP request: {error}"))),
    }
}

impl Head {
    /// Checks the request. Returns the upgrade, or why the request is refused.
    pub(super) fn upgrade(
        mut self,
        connection: ConnectionId,
        remote: Remote,
        config: &WebSocketConfig,
    ) -> Result<Upgrade, RejectedUpgrade> {
        let early = self.bytes.split_off(self.length);
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut request = Request::new(&mut headers);
        match request.parse(&self.bytes) {
            // With other line ends, the request may end before the `\r\n\r\n` that was found. It is refused then.
            Ok(Status::Complete(length)) if length == self.length => {}
            Err(httparse::Error::TooManyHeaders) => {
                let reason = format!("more than {MAX_HEADERS} header fields");
                return Err(RejectedUpgrade::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, reason));
            }
            Ok(Status::Complete(_) | Status::Partial) => return Err(bad("not an HTTP request")),
            Err(error) => return Err(bad(format!("not an HTTP request: {error}"))),
        }
        let fields = HeaderFields(request.headers);
        if request.method != Some("GET") {
            return Err(RejectedUpgrade::new(StatusCode::METHOD_NOT_ALLOWED, "the method must be GET"));
        }
        if request.version != Some(1) {
            return Err(bad("the version must be HTTP/1.1"));
        }
        let host = fields.only("host")?;
        if fields.all("content-length").any(|length| length.trim_ascii() != b"0")
            || fields.all("transfer-encoding").next().is_some()
        {
            return Err(bad("an upgrade request must have no body"));
        }
        if !fields.lists("upgrade", "websocket") || !fields.lists("connection", "upgrade") {
            return Err(RejectedUpgrade::new(
                StatusCode::UPGRADE_REQUIRED,
                "this port accepts only WebSocket (RFC 6455)",
            ));
        }
        if fields.only("sec-websocket-version")? != "13" {
            return Err(RejectedUpgrade::new(StatusCode::UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13"));
        }
        let key = fields.only("sec-websocket-key")?;
        if !is_key(key) {
            return Err(bad("Sec-WebSocket-Key must be 16 bytes in base64"));
        }
        // Browsers send it (RFC 6455 §10.2); other clients need not, and could lie.
        if !fields.all("origin").all(|origin| origin::is_allowed(origin, host, &config.allowed_origins)) {
            return Err(RejectedUpgrade::origin());
        }

        let mut response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n",
            derive_accept_key(key.as_bytes())
        );
        if let Some(subprotocol) = subprotocol(&fields, &config.subprotocols) {
            response.push_str("Sec-WebSocket-Protocol: ");
            response.push_str(subprotocol);
            response.push_str("\r\n");
        }
        response.push_str("\r\n");

        let client = client_address(remote, &fields, &config.trusted_proxies);
        let target = path_and_query(request.path.unwrap_or_default());
        let (path, query) = target.ok_or_else(|| bad("the request target must be a path"))?;
        let handshake = Handshake {
            connection,
            remote_address: client.into(),
            path: path.to_owned(),
            query: query.map(str::to_owned),
            headers: fields.named(&config.pass_headers),
        };
        Ok(Upgrade { handshake, address: client.ip(), response, early })
    }
}

/// The header fields of a request. Names are compared ignoring case.
struct HeaderFields<'a>(&'a [Header<'a>]);

impl<'a> HeaderFields<'a> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// Returns the elements of a list field, over all its lines (RFC 9110 §5.6.1). An element that is not UTF-8 becomes
    /// the replacement character: it must not hide other elements, and must not disappear.
    fn elements(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.all(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(|element| str::from_utf8(element).map_or("\u{fffd}", str::trim))
            .filter(|element| !element.is_empty())
    }

    fn lists(&self, name: &str, wanted: &str) -> bool {
        self.elements(name).any(|element| element.eq_ignore_ascii_case(wanted))
    }

    /// Returns the value of a field that must be there exactly once.
    fn only(&self, name: &str) -> Result<&'a str, RejectedUpgrade> {
        let mut values = self.all(name);
        match (values.next().map(str::from_utf8), values.next()) {
            (Some(Ok(value)), None) => Ok(value.trim()),
            (Some(Err(_)), _) => Err(bad(format!("header {name} is not UTF-8"))),
            (Some(_), Some(_)) => Err(bad(format!("header {name} is there more than once"))),
            (None, _) => Err(bad(format!("header {name} is missing"))),
        }
    }

    /// Returns these fields for the plugins. Leaves out values that are not UTF-8.
    fn named(&self, names: &[String]) -> Vec<Attribute> {
        names
            .iter()
            .flat_map(|name| self.all(name).map(move |value| (name, value)))
            .filter_map(|(name, value)| {
                Some(Attribute { name: name.clone(), value: str::from_utf8(value).ok()?.to_owned() })
            })
            .collect()
    }
}

/// Returns the path and query of a request target. The target may be a whole URL (RFC 9112 §3.2.2); without a path,
/// that means `/` (RFC 9110 §4.2.3).
fn path_and_query(target: &str) -> Option<(&str, Option<&str>)> {
    let target = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let target = rest.get(end..).filter(|_| end > 0)?;
            if !target.starts_with('/') {
                return Some(("/", target.strip_prefix('?')));
            }
            target
        }
        _ => target,
    };
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    path.starts_with('/').then_some((path, query))
}

/// Returns `true` for 16 bytes in base64 (RFC 6455 §4.2.1): 22 digits and two characters of padding.
fn is_key(key: &str) -> bool {
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    // The last digit contains only two bits.
    key.len() == 24 && key.as_bytes()[..22].iter().all(digit) && ["A==", "Q==", "g==", "w=="].contains(&&key[21..])
}

fn bad(reason: impl Into<String>) -> RejectedUpgrade {
    RejectedUpgrade::new(StatusCode::BAD_REQUEST, reason)
}

/// Returns the first subprotocol that the client offers and the gateway accepts (RFC 6455 §4.2.2).
fn subprotocol<'a>(fields: &HeaderFields<'a>, accepted: &[String]) -> Option<&'a str> {
    fields.elements("sec-websocket-protocol").find(|offered| accepted.iter().any(|name| name == offered))
}

/// Returns the client's address: the remote address or, behind trusted proxies, the last address in `X-Forwarded-For`
/// that is no trusted proxy. Strangers may have written the addresses before that. A port that is not given is 0.
fn client_address(remote: Remote, fields: &HeaderFields<'_>, trusted: &[IpNet]) -> SocketAddr {
    let (mut client, mut is_proxy) = (remote.address(), remote.is_trusted(trusted));
    let forwarded: Vec<_> = fields.elements("x-forwarded-for").collect();
    for element in forwarded.into_iter().rev() {
        let Some(next) = address_of(element).filter(|_| is_proxy) else { break };
        (client, is_proxy) = (next, is_trusted(trusted, next));
    }
    client
}

/// Parses an element of `X-Forwarded-For`: an address, with or without a port, IPv6 with or without brackets.
fn address_of(element: &str) -> Option<SocketAddr> {
    let bare = element.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(element);
    let address = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)).or_else(|_| element.parse()).ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const FIELDS: &str = "Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    fn upgrade(request: &[u8], trusted: &[&str]) -> Result<Upgrade, RejectedUpgrade> {
        let mut config = Config::default().websocket;
        config.trusted_proxies = trusted.iter().map(|net| net.parse().unwrap()).collect();
        let head = Head { bytes: request.to_vec(), length: request.len() };
        head.upgrade(ConnectionId(1), Remote::Tcp("127.0.0.1:5000".parse().unwrap()), &config)
    }

    #[test]
    fn the_key_of_the_rfc_gets_its_answer() {
        let request = format!("GET /chat?room=1 HTTP/1.1\r\n{FIELDS}{KEY}\r\n");
        let Upgrade { handshake, response, .. } = upgrade(request.as_bytes(), &[]).unwrap();
        // RFC 6455 §1.3
        assert!(response.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{response}");
        assert_eq!((&*handshake.path, handshake.query.as_deref()), ("/chat", Some("room=1")));
        for key in ["dGhlIHNhbXBsZSBub25jZR==", "dGhlIHNhbXBsZSBub25jZ===", "dGhlIHNhbXBsZSBub25j"] {
            let request = format!("GET / HTTP/1.1\r\n{FIELDS}Sec-WebSocket-Key: {key}\r\n\r\n");
            assert_eq!(upgrade(request.as_bytes(), &[]).unwrap_err().status, StatusCode::BAD_REQUEST, "{key}");
        }
    }

    #[test]
    fn a_target_may_be_absolute_but_is_a_path() {
        for (target, shown) in [
            ("http://x/a?b", Some(("/a", Some("b")))),
            ("ws://x:1/", Some(("/", None))),
            ("ws://127.0.0.1:1234", Some(("/", None))),
            ("ws://127.0.0.1:1234?token=x", Some(("/", Some("token=x")))),
            ("ws://x?a=/b?c", Some(("/", Some("a=/b?c")))),
            ("ws://x?", Some(("/", Some("")))),
            ("/a://b", Some(("/a://b", None))),
            ("/?a=b://c", Some(("/", Some("a=b://c")))),
            ("ws://", None),
            ("ws:///a", None),
            ("ws://?token=x", None),
            ("x:1", None),
            ("*", None),
        ] {
            assert_eq!(path_and_query(target), shown, "{target}");
        }
    }

    #[test]
    fn what_cannot_become_a_request_is_noticed_at_once() {
        for bytes in [&b"\x16"[..], b"\x16\x03\x01\x02\0\x01", b"SSH-2.0-x\r\n", b"\0", b"GET / HTTP/2\r\n"] {
            assert_eq!(check_beginning(bytes).unwrap_err().status, StatusCode::BAD_REQUEST, "{bytes:?}");
        }
        for bytes in [&b"G"[..], b"GET /a", b"\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n"] {
            assert_eq!(check_beginning(bytes), Ok(()), "{bytes:?}");
        }
    }

    #[test]
    fn a_client_cannot_hide_behind_a_name_that_is_no_text() {
        let request =
            [format!("GET / HTTP/1.1\r\n{FIELDS}{KEY}X-Forwarded-For: ").as_bytes(), b"\xff, 192.0.2.9\r\n\r\n"]
                .concat();
        let upgrade = upgrade(&request, &["127.0.0.0/8"]).unwrap();
        assert_eq!(upgrade.address, IpAddr::from([192, 0, 2, 9]));
    }

    #[test]
    fn nothing_is_hidden_between_two_ends_of_a_head() {
        let request = format!("GET / HTTP/1.1\n{}{}\nhidden\r\n\r\n", FIELDS.replace('\r', ""), KEY.replace('\r', ""));
        assert_eq!(upgrade(request.as_bytes(), &[]).unwrap_err().status, StatusCode::BAD_REQUEST);
    }
}
