//! Minimal RFC 6455 framing without I/O: handshake text, frame headers, masking.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

pub(crate) const CONT: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The largest response head or request head that is accepted during the handshake.
pub(crate) const MAX_HEAD: usize = 16 * 1024;

// ---------------------------------------------------------------- handshake

pub(crate) fn key_from(nonce: [u8; 16]) -> String {
    STANDARD.encode(nonce)
}

pub(crate) fn accept_for(key: &str) -> String {
    let mut h = Sha1::new();
    h.update(key.as_bytes());
    h.update(GUID.as_bytes());
    STANDARD.encode(h.finalize())
}

pub(crate) fn request(out: &mut Vec<u8>, host: &str, path: &str, key: &str, extra: &[String]) {
    for part in ["GET ", path, " HTTP/1.1\r\nHost: ", host, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for part in ["Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ", key, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for h in extra {
        out.extend_from_slice(h.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// The value of a header in a request head or response head. The name is case-insensitive.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|l| {
        let (k, v) = l.split_once(':')?;
        k.trim().eq_ignore_ascii_case(name).then(|| v.trim())
    })
}

pub(crate) fn has_token(value: &str, token: &str) -> bool {
    value.split(',').any(|t| t.trim().eq_ignore_ascii_case(token))
}

/// Checks a server's complete response head, up to and including the blank line.
pub(crate) fn check_response(head: &[u8], key: &str) -> Result<(), String> {
    let head = std::str::from_utf8(head).map_err(|_| "handshake response is not UTF-8".to_string())?;
    let status = head.split("\r\n").next().unwrap_or("");
    let code = status.split(' ').nth(1).unwrap_or("");
    if !status.starts_with("HTTP/1.1 ") || code != "101" {
        return Err(format!("handshake refused: {}", status.chars().take(80).collect::<String>()));
    }
    if !header(head, "Upgrade").is_some_and(|v| has_token(v, "websocket")) {
        return Err("handshake: no 'Upgrade: websocket'".into());
    }
    if !header(head, "Connection").is_some_and(|v| has_token(v, "upgrade")) {
        return Err("handshake: no 'Connection: Upgrade'".into());
    }
    if header(head, "Sec-WebSocket-Accept") != Some(accept_for(key).as_str()) {
        return Err("handshake: wrong Sec-WebSocket-Accept".into());
    }
    if header(head, "Sec-WebSocket-Extensions").is_some_and(|v| !v.is_empty()) {
        return Err("handshake: server chose an extension that was not offered".into());
    }
    Ok(())
}

// ---------------------------------------------------------------- frames

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) fin: bool,
    pub(crate) op: u8,
    pub(crate) mask: Option<u32>,
    /// The number of header bytes before the body.
    pub(crate) size: usize,
    /// The number of body bytes.
    pub(crate) len: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    Incomplete,
    Head(Head),
    Bad(&'static str),
}

/// Parses the frame header at the start of `b`. `max` limits the body length.
#[inline]
pub(crate) fn parse_head(b: &[u8], max: usize) -> Parsed {
    let &[b0, b1, ..] = b else { return Parsed::Incomplete };
    let op = b0 & 0x0F;
    let fin = b0 & 0x80 != 0;
    let mut size = 2;
    let mut len = (b1 & 0x7F) as usize;
    if len == 126 {
        let Some(&long) = b[2..].first_chunk() else { return Parsed::Incomplete };
        len = u16::from_be_bytes(long) as usize;
        if len < 126 {
            return Parsed::Bad("length not in its shortest form");
        }
        size = 4;
    } else if len == 127 {
        let Some(&long) = b[2..].first_chunk() else { return Parsed::Incomplete };
        let l = u64::from_be_bytes(long);
        if l <= 0xFFFF {
            return Parsed::Bad("length not in its shortest form");
        }
        if l > max as u64 {
            return Parsed::Bad("frame too large");
        }
        len = l as usize;
        size = 10;
    }
    if b0 & 0x70 != 0 {
        return Parsed::Bad("reserved bits set");
    }
    if op >= 8 {
        if op > 10 {
            return Parsed::Bad("unknown control opcode");
        }
        if !fin || len > 125 {
            return Parsed::Bad("control frame fragmented or too long");
        }
    } else if op > 2 {
        return Parsed::Bad("unknown data opcode");
    }
    if len > max {
        return Parsed::Bad("frame too large");
    }
    let mask = if b1 & 0x80 != 0 {
        let Some(&key) = b[size..].first_chunk() else { return Parsed::Incomplete };
        size += 4;
        Some(u32::from_ne_bytes(key))
    } else {
        None
    };
    Parsed::Head(Head { fin, op, mask, size, len })
}

/// Appends a frame header. `mask` is the key in memory byte order.
#[inline]
pub(crate) fn put_head(out: &mut Vec<u8>, fin: bool, op: u8, len: usize, mask: Option<u32>) {
    let mut h = [0u8; 14];
    h[0] = (fin as u8) << 7 | op;
    let m = if mask.is_some() { 0x80u8 } else { 0 };
    let mut n = if len < 126 {
        h[1] = m | len as u8;
        2
    } else if len <= 0xFFFF {
        h[1] = m | 126;
        h[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        4
    } else {
        h[1] = m | 127;
        h[2..10].copy_from_slice(&(len as u64).to_be_bytes());
        10
    };
    if let Some(k) = mask {
        h[n..n + 4].copy_from_slice(&k.to_ne_bytes());
        n += 4;
    }
    out.extend_from_slice(&h[..n]);
}

/// XORs `buf` with the repeated 4-byte key. A zero key costs nothing.
#[inline]
pub(crate) fn apply_mask(buf: &mut [u8], key: u32) {
    if key == 0 {
        return;
    }
    let k8 = (key as u64) << 32 | key as u64;
    let (chunks, rest) = buf.as_chunks_mut();
    for c in chunks {
        *c = (u64::from_ne_bytes(*c) ^ k8).to_ne_bytes();
    }
    for (b, m) in rest.iter_mut().zip(k8.to_ne_bytes()) {
        *b ^= m;
    }
}

/// Appends a whole frame. Its body is the concatenation of `parts`.
#[inline]
pub(crate) fn put_frame(out: &mut Vec<u8>, op: u8, mask: Option<u32>, parts: &[&[u8]]) {
    let len = parts.iter().map(|p| p.len()).sum();
    put_head(out, true, op, len, mask);
    let start = out.len();
    for p in parts {
        out.extend_from_slice(p);
    }
    if let Some(k) = mask {
        apply_mask(&mut out[start..], k);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_example_accept() {
        assert_eq!(accept_for("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn response_checks() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let ok = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: keep-alive, Upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert_eq!(check_response(ok.as_bytes(), key), Ok(()));
        assert!(check_response(ok.replace("s3p", "s3q").as_bytes(), key).is_err());
        assert!(check_response(ok.replace("101", "403").as_bytes(), key).is_err());
        assert!(check_response(ok.replace("upgrade: WebSocket\r\n", "").as_bytes(), key).is_err());
        assert!(check_response(ok.replace("keep-alive, Upgrade", "close").as_bytes(), key).is_err());
        let ext = ok.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
        assert!(check_response(ext.as_bytes(), key).is_err());
    }

    #[test]
    fn frames_of_every_length_class() {
        for len in [0usize, 1, 7, 8, 125, 126, 127, 65535, 65536, 100_000] {
            for mask in [None, Some(0u32), Some(0xA1B2_C3D4)] {
                let body: Vec<u8> = (0..len).map(|i| i as u8).collect();
                let mut out = Vec::new();
                let cut = len / 3;
                put_frame(&mut out, TEXT, mask, &[&body[..cut], &body[cut..]]);
                let Parsed::Head(h) = parse_head(&out, 1 << 24) else { panic!("{len}") };
                assert_eq!((h.fin, h.op, h.mask, h.len), (true, TEXT, mask, len));
                assert_eq!(out.len(), h.size + len);
                let mut got = out[h.size..].to_vec();
                apply_mask(&mut got, mask.unwrap_or(0));
                assert_eq!(got, body);
                for cut in 0..h.size {
                    assert_eq!(parse_head(&out[..cut], 1 << 24), Parsed::Incomplete, "{len} {cut}");
                }
            }
        }
    }

    #[test]
    fn bad_frames_are_refused() {
        let bad = |b: &[u8]| matches!(parse_head(b, 1000), Parsed::Bad(_));
        assert!(bad(&[0xC1, 0]), "reserved bit");
        assert!(bad(&[0x83, 0]), "opcode 3");
        assert!(bad(&[0x8B, 0]), "opcode 11");
        assert!(bad(&[0x09, 0]), "fragmented ping");
        assert!(bad(&[0x89, 126, 0, 200]), "long ping");
        assert!(bad(&[0x81, 126, 0, 5]), "not shortest");
        assert!(bad(&[0x81, 126, 0xFF, 0xFF]), "over the limit");
        assert!(bad(&[0x81, 127, 0xFF, 0, 0, 0, 0, 0, 0, 0]), "absurd length");
    }
}
