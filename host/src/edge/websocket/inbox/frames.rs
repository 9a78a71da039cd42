//! Reads the frames of clients (RFC 6455 §5.2). A header is checked as soon as it has arrived, before any payload is
//! kept.

use crate::base::message::CloseReason;

/// The longest payload of a control frame, in bytes (RFC 6455 §5.5).
pub(super) const MAX_CONTROL: usize = 125;

/// The kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// The header of a valid frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) opcode: Opcode,
    /// True if the frame ends its message.
    pub(super) last: bool,
    /// The bytes of the payload that follows; up to 2^63 - 1.
    pub(super) length: u64,
    pub(super) mask: [u8; 4],
    /// The bytes of the header itself.
    pub(super) size: usize,
}

impl FrameHeader {
    /// Reads the header at the front of `bytes`. Returns `None` if the header is incomplete. `inside` is true while a
    /// message is unfinished.
    ///
    /// # Errors
    /// The close reason for a frame that a client must not send. The first two bytes are enough for most errors.
    pub(super) fn read(bytes: &[u8], inside: bool) -> Result<Option<Self>, CloseReason> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let last = first & 0x80 != 0;
        if first & 0x70 != 0 {
            return Err(wrong("reserved bits are set, but no extension was negotiated"));
        }
        if second & 0x80 == 0 {
            return Err(wrong("a frame that is not masked"));
        }
        let short = second & 0x7f;
        let opcode = match (first & 0x0f, inside) {
            (0, true) => Opcode::Continuation,
            (0, false) => return Err(wrong("a continuation frame, but no message has begun")),
            (1 | 2, true) => return Err(wrong("a new message inside an unfinished message")),
            (1, false) => Opcode::Text,
            (2, false) => Opcode::Binary,
            (8, _) => Opcode::Close,
            (9, _) => Opcode::Ping,
            (10, _) => Opcode::Pong,
            _ => return Err(wrong("a reserved opcode")),
        };
        if opcode.is_control() && !last {
            return Err(wrong("a fragmented control frame"));
        }
        if opcode.is_control() && usize::from(short) > MAX_CONTROL {
            return Err(wrong("a control frame of more than 125 bytes"));
        }
        let (length, rest) = match short {
            126 => {
                let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (minimal(u16::from_be_bytes(*length).into(), 126)?, rest)
            }
            127 => {
                let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (minimal(u64::from_be_bytes(*length), 1 << 16)?, rest)
            }
            length => (length.into(), rest),
        };
        let Some((mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
        Ok(Some(Self { opcode, last, length, mask: *mask, size: bytes.len() - rest.len() }))
    }
}

impl Opcode {
    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// Checks a length of 16 or 64 bits. A length below `least` has a shorter form and is refused. The highest bit must be
/// 0.
fn minimal(length: u64, least: u64) -> Result<u64, CloseReason> {
    if length < least {
        return Err(wrong("a length that is not in its shortest form"));
    }
    if length > u64::MAX >> 1 {
        return Err(wrong("a length of more than 63 bits"));
    }
    Ok(length)
}

/// Unmasks a payload or a part of a payload (RFC 6455 §5.3). The first byte of `mask` is for the first byte of
/// `payload`.
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}

/// Returns the code in the payload of a close frame. `None` if the payload is empty (RFC 6455 §5.5.1).
///
/// # Errors
/// The close reason for a payload that a client must not send.
pub(super) fn close_code(payload: &[u8]) -> Result<Option<u16>, CloseReason> {
    match payload.split_first_chunk() {
        None if payload.is_empty() => Ok(None),
        None => Err(wrong("a close frame of one byte")),
        Some((code, reason)) => match u16::from_be_bytes(*code) {
            // RFC 6455 §7.4, and the codes that were registered since.
            code @ (1000..=1003 | 1007..=1014 | 3000..=4999) if str::from_utf8(reason).is_ok() => Ok(Some(code)),
            1000..=1003 | 1007..=1014 | 3000..=4999 => Err(NOT_UTF_8),
            _ => Err(wrong("a close code that must not be sent")),
        },
    }
}

/// The close reason for text that is not UTF-8.
pub(super) const NOT_UTF_8: CloseReason = CloseReason::new(1007, "text that is not UTF-8");

/// Returns the close reason for a violation of the protocol (RFC 6455 §7.4.1).
const fn wrong(reason: &'static str) -> CloseReason {
    CloseReason::new(1002, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_header_is_refused_before_the_rest_of_it_is_there() {
        for (inside, bytes) in [
            (false, &[0xc1, 0x80][..]),
            (false, &[0x91, 0x80]),
            (false, &[0x81, 0x7f]),
            (false, &[0x83, 0xff]),
            (false, &[0x8b, 0x80]),
            (false, &[0x09, 0x80]),
            (false, &[0x89, 0xfe]),
            (false, &[0x88, 0xff]),
            (false, &[0x80, 0xff]),
            (true, &[0x81, 0xff]),
            (false, &[0x81, 0xfe, 0, 125]),
            (false, &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
            (false, &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            assert_eq!(FrameHeader::read(bytes, inside).unwrap_err().code, 1002, "{bytes:?}");
            assert_eq!(FrameHeader::read(&bytes[..1], inside), Ok(None), "{bytes:?}");
        }
    }

    #[test]
    fn each_form_of_length_has_a_header_of_its_own_size() {
        for (length, size) in [(0, 6), (125, 6), (126, 8), (65_535, 8), (65_536, 14), (u64::MAX >> 1, 14)] {
            let mut bytes = vec![0x82];
            match size {
                6 => bytes.push(0x80 | length as u8),
                8 => bytes.extend([&[0xfe][..], &(length as u16).to_be_bytes()].concat()),
                _ => bytes.extend([&[0xff][..], &length.to_be_bytes()].concat()),
            }
            bytes.extend([1, 2, 3, 4]);
            assert_eq!(FrameHeader::read(&bytes[..size - 1], false), Ok(None));
            let header = FrameHeader { opcode: Opcode::Binary, last: true, length, mask: [1, 2, 3, 4], size };
            assert_eq!(FrameHeader::read(&bytes, false), Ok(Some(header)));
        }
    }

    #[test]
    fn codes_are_those_that_may_be_sent() {
        let code = |code: u16| close_code(&code.to_be_bytes());
        for allowed in [1000, 1003, 1007, 1014, 3000, 4999] {
            assert_eq!(code(allowed), Ok(Some(allowed)));
        }
        for forbidden in [0, 999, 1004, 1006, 1015, 2999, 5000] {
            assert_eq!(code(forbidden).unwrap_err().code, 1002, "{forbidden}");
        }
        assert_eq!(close_code(b"\x03\xe8\xff").unwrap_err().code, 1007);
        assert_eq!(close_code(b""), Ok(None));
    }
}
