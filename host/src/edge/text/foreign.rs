//! Recognises other protocols by their first bytes.
//!
//! An attacker can make a browser, or another program that fetches URLs, connect to the text port and send lines that
//! the attacker has chosen: in the body or the header of an HTTP request, or in a TLS session ticket. Before these
//! lines, the program sends the beginning of its own protocol. This module recognises that beginning; nothing after it
//! is read.
//!
//! A client that can choose even the first byte is a sender like any other: `nc`, or a program that fetches
//! `gopher://`.

/// The number of first bytes that are checked for a binary protocol.
const START: usize = 8;

/// Methods of HTTP that programs use (RFC 9110 §9, RFC 5789, RFC 4918).
const METHODS: [&[u8]; 11] = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"CONNECT",
    b"OPTIONS",
    b"TRACE",
    b"PATCH",
    b"PROPFIND",
    b"git-upload-pack",
];

/// The first words of clients of other line protocols: dict, SMTP and LMTP, FTP and POP3, rsync, SSH. Also that of a
/// proxy's header (`text.proxy_protocol`).
const GREETINGS: [&[u8]; 8] = [b"CLIENT ", b"EHLO ", b"HELO ", b"LHLO ", b"USER ", b"@RSYNCD:", b"SSH-", b"PROXY "];

/// Protocols with request lines like those of HTTP.
const VERSIONS: [&[u8]; 4] = [b"HTTP/", b"RTSP/", b"SIP/", b"ICAP/"];

/// Checks the beginning of a connection.
#[derive(Debug, Default)]
pub(super) struct ProtocolCheck {
    /// True after the first line that is not empty. A later line may be anything but a request line.
    over: bool,
}

impl ProtocolCheck {
    /// Returns `true` if this line shows another protocol. Must be called for every line, in order.
    pub(super) fn is_foreign(&mut self, line: &[u8]) -> bool {
        if self.over {
            return is_request(line);
        }
        self.over = !line.trim_ascii().is_empty();
        is_binary(line) || is_opening(line)
    }

    /// Returns `true` if a line whose end has not arrived yet shows a binary protocol. The end may never arrive.
    pub(super) fn is_binary(&self, unfinished: &[u8]) -> bool {
        !self.over && is_binary(unfinished)
    }
}

/// Returns `true` if a line that begins with these bytes is no text: text has no control characters except tabs. TLS
/// begins with 16 03; STUN, databases and file servers with 00; LDAP with 30 and a length, 02 and 01.
fn is_binary(start: &[u8]) -> bool {
    let start = &start[..start.len().min(START)];
    start.iter().any(|byte| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\r'))
}

/// Returns `true` for a request line with any method: `METHOD target HTTP/1.1` (RFC 9112 §3).
fn is_request(line: &[u8]) -> bool {
    let method = line.iter().take_while(|byte| is_token(**byte)).count();
    if method == 0 || line.get(method) != Some(&b' ') {
        return false;
    }
    let last = line.trim_ascii_end().rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    VERSIONS
        .iter()
        .any(|version| after(last, version).is_some_and(|rest| rest.starts_with(b"1") || rest.starts_with(b"2")))
}

/// Returns `true` if a connection with this first line speaks another text protocol. If the target of a request
/// contains a line end, this line is only the first half of the request line, without the version.
fn is_opening(line: &[u8]) -> bool {
    is_request(line)
        || GREETINGS.iter().any(|greeting| after(line, greeting).is_some())
        || METHODS.iter().any(|method| {
            // Git's own protocol writes a length of four digits before the method.
            let line = if method[0] == b'g' { line.get(4..).unwrap_or_default() } else { line };
            after(line, method).and_then(|rest| rest.strip_prefix(b" ")).is_some_and(is_target)
        })
}

/// Returns `true` for the target of a request (RFC 9112 §3.2), or the beginning of a target.
fn is_target(target: &[u8]) -> bool {
    let scheme = target.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let (next, after) = (target.get(scheme), target.get(scheme + 1));
    matches!(target.first(), None | Some(b'/' | b'?' | b'*'))
        || next == Some(&b':') && after.is_some_and(|byte| *byte == b'/' || byte.is_ascii_digit())
}

/// Returns the rest of a line after `word`, ignoring case. `None` if the line does not begin with `word`.
fn after<'a>(line: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(word.len())?;
    start.eq_ignore_ascii_case(word).then_some(rest)
}

/// Returns `true` for a character that a method may contain (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_is_recognised_whatever_its_method() {
        for line in [
            "GET / HTTP/1.1",
            "POST /push?x=1 HTTP/1.0",
            "OPTIONS * HTTP/1.1",
            "PRI * HTTP/2.0",
            "get / http/1.1",
            "x-any'method / HTTP/1.1",
            "CONNECT example.com:443 HTTP/1.1",
            "GET http://x/ HTTP/1.1",
            "GET /a b HTTP/1.1 ",
            "GET  HTTP/1.1",
            "DESCRIBE rtsp://x/y RTSP/1.0",
            "REGISTER sip:x SIP/2.0",
        ] {
            assert!(is_request(line.as_bytes()) && is_opening(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn other_protocols_are_recognised_by_their_first_line() {
        for line in [
            "GET /",
            "get /?q=",
            "POST ?",
            "HEAD ",
            "PUT http://x/",
            "CONNECT x:443",
            "0032git-upload-pack /",
            "CLIENT libcurl 8.5.0",
            "EHLO x",
            "helo x",
            "USER anonymous",
            "@RSYNCD: 31.0",
            "SSH-2.0-x",
        ] {
            assert!(is_opening(line.as_bytes()), "{line}");
        }
        for line in [
            "",
            " ",
            "GET",
            " GET / HTTP/1.1",
            r#"{"uid":"GET / HTTP/1.1"}"#,
            r#"{ "uid": "u1", "path": "/ HTTP/1.1" }"#,
            "Host: x",
            "to u1 hello",
            "to u1 see http://example.com/",
            "publish /rooms/1 hello",
            "POST u1 hello",
            "USERS 5",
            "CLIENT",
            "é",
        ] {
            assert!(!is_opening(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn only_the_first_line_is_looked_at_closely() {
        let mut opening = ProtocolCheck::default();
        for line in ["", "  ", "hello", "GET /", "EHLO x", "\0"] {
            assert!(!opening.is_foreign(line.as_bytes()), "{line}");
        }
        assert!(opening.is_foreign(b"GET / HTTP/1.1") && !opening.is_binary(b"\0"));
        for line in ["GET /", "EHLO x", "\0"] {
            let mut opening = ProtocolCheck::default();
            assert!(!opening.is_foreign(b"") && opening.is_foreign(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn a_binary_protocol_is_recognised_by_its_first_bytes() {
        for start in [
            &b"\x16"[..],
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
            b"\0\x03\0\x08\x21\x12\xa4\x42",
            b"\0\x6c\0\x01\0\x50",
            b"0\x0c\x02\x01\x01",
            b"\x10\x1a\0\x04MQTT",
            b"AMQP\0\0\x09\x01",
            b"{\0\"\0u\0",
        ] {
            assert!(is_binary(start), "{start:?}");
        }
        for start in [&b""[..], b"\r", b"\t{\"uid\"", b"{\"uid\":\"u1\"}\0", "é😀".as_bytes(), b"\xff"] {
            assert!(!is_binary(start), "{start:?}");
        }
    }
}
