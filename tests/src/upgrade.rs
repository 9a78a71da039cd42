//! The opening handshake (RFC 6455 §4), on the client's side.

use bytes::{Buf, BytesMut};

/// An upgrade request. A test can leave out any part, or make it wrong.
#[derive(Debug, Clone)]
pub struct Upgrade {
    start: String,
    headers: Vec<(String, String)>,
}

impl Default for Upgrade {
    /// A correct request for `/`, with the key of RFC 6455's example.
    fn default() -> Self {
        let headers = [
            ("Host", "gateway.test"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", "13"),
        ];
        Self {
            start: "GET / HTTP/1.1".to_owned(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        }
    }
}

impl Upgrade {
    /// A correct request for a path.
    pub fn path(path: &str) -> Self {
        Self::default().start(&format!("GET {path} HTTP/1.1"))
    }

    /// A request that consists of this line only.
    pub fn bare(line: &str) -> Self {
        Self { start: line.to_owned(), headers: Vec::new() }
    }

    /// Replaces the request line.
    pub fn start(self, line: &str) -> Self {
        Self { start: line.to_owned(), ..self }
    }

    /// Sets a header. Replaces headers of the same name.
    pub fn header(self, name: &str, value: &str) -> Self {
        self.without(name).and(name, value)
    }

    /// Adds a header. Keeps other headers of the same name.
    pub fn and(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Leaves a header out.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{}\r\n{headers}\r\n", self.start).into_bytes()
    }
}

/// A server's answer to an upgrade request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The body of a refusal: all bytes from the headers to the end of the connection.
    pub body: String,
}

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Takes the response head out of the received bytes. `None` if it has not arrived whole.
    ///
    /// # Panics
    /// When the head is not HTTP/1.1.
    pub(crate) fn take(received: &mut BytesMut) -> Option<Self> {
        let end = received.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = received.split_to(end);
        received.advance(4);
        let head = str::from_utf8(&head).expect("a head in UTF-8");
        let (start, headers) = head.split_once("\r\n").unwrap_or((head, ""));
        let status = start.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
        Some(Self {
            status: status.unwrap_or_else(|| panic!("a status line, not {start:?}")),
            headers: headers.lines().map(|line| header(line).unwrap_or_else(|| panic!("a header: {line:?}"))).collect(),
            body: String::new(),
        })
    }

    /// Checks a response 101 by RFC 6455 §4.2.2.
    ///
    /// # Panics
    /// When the response breaks it.
    pub(crate) fn check_switch(&self) {
        assert!(self.header("Upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")), "{self:?}");
        assert!(self.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{self:?}");
        // The answer to the key of RFC 6455's example.
        assert_eq!(self.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{self:?}");
    }
}
