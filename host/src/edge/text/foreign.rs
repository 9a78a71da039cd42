//! Recognises other protocols by how they begin.
//!
//! A browser, or a program that fetches addresses, can be made to connect to the text port and to send lines that
//! somebody else has chosen: in the body or the header of an HTTP request, in a TLS session ticket. Before these lines
//! it sends what its own protocol begins with. That beginning is recognised here; nothing after it is read.
//!
//! Whoever can choose the very first byte, too, is a sender like any other: `nc`, or `gopher://` where that is fetched.

/// Bytes by which a binary protocol is recognised.
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

/// What clients of other line protocols say first: dict, SMTP and LMTP, FTP and POP3, rsync, SSH.
const GREETINGS: [&[u8]; 7] = [b"CLIENT ", b"EHLO ", b"HELO ", b"LHLO ", b"USER ", b"@RSYNCD:", b"SSH-"];

/// Protocols whose requests begin as those of HTTP do.
const VERSIONS: [&[u8]; 4] = [b"HTTP/", b"RTSP/", b"SIP/", b"ICAP/"];

/// Watches how a connection begins.
#[derive(Debug, Default)]
pub(super) struct Opening {
    /// The first line has been seen: later ones may be what a sender likes, but for a request.
    over: bool,
}

impl Opening {
    /// Whether this line shows that the connection speaks another protocol. To be asked about every line, in order.
    pub(super) fn is_foreign(&mut self, line: &[u8]) -> bool {
        if self.over {
            return is_request(line);
        }
        self.over = !line.trim_ascii().is_empty();
        is_binary(line) || is_opening(line)
    }

    /// The same of a line whose end has not arrived, and may never.
    pub(super) fn is_binary(&self, unfinished: &[u8]) -> bool {
        !self.over && is_binary(unfinished)
    }
}

/// Whether a line that begins with these bytes is none: text has no control characters but tabs. TLS begins with
/// 16 03; STUN, databases and file servers with 00; LDAP with 30 and a length, 02 and 01.
fn is_binary(start: &[u8]) -> bool {
    let start = &start[..start.len().min(START)];
    start.iter().any(|byte| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\r'))
}

/// Whether this is a request line: `METHOD target HTTP/1.1` (RFC 9112 §3), whatever the method.
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

/// Whether a connection whose first line this is speaks another text protocol. A request whose target has a line end in
/// it shows only half of its request line, without the version.
fn is_opening(line: &[u8]) -> bool {
    is_request(line)
        || GREETINGS.iter().any(|greeting| after(line, greeting).is_some())
        || METHODS.iter().any(|method| {
            // Git's own protocol writes the length before it, in four digits.
            let line = if method[0] == b'g' { line.get(4..).unwrap_or_default() } else { line };
            after(line, method).and_then(|rest| rest.strip_prefix(b" ")).is_some_and(is_target)
        })
}

/// What a request is about (RFC 9112 §3.2), or the beginning of it.
fn is_target(target: &[u8]) -> bool {
    let scheme = target.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let (next, after) = (target.get(scheme), target.get(scheme + 1));
    matches!(target.first(), None | Some(b'/' | b'?' | b'*'))
        || next == Some(&b':') && after.is_some_and(|byte| *byte == b'/' || byte.is_ascii_digit())
}

/// What follows a word, in whichever case it is written.
fn after<'a>(line: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(word.len())?;
    start.eq_ignore_ascii_case(word).then_some(rest)
}

/// A character of a method (RFC 9110 §5.6.2).
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
        let mut opening = Opening::default();
        for line in ["", "  ", "hello", "GET /", "EHLO x", "\0"] {
            assert!(!opening.is_foreign(line.as_bytes()), "{line}");
        }
        assert!(opening.is_foreign(b"GET / HTTP/1.1") && !opening.is_binary(b"\0"));
        for line in ["GET /", "EHLO x", "\0"] {
            let mut opening = Opening::default();
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
