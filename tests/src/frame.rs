//! WebSocket frames (RFC 6455 §5.2), written and read without a library.

use bytes::{Buf, Bytes, BytesMut};

/// The kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opcode(pub u8);

impl Opcode {
    /// The next part of a message.
    pub const CONTINUATION: Self = Self(0);
    /// A message of UTF-8 text.
    pub const TEXT: Self = Self(1);
    /// A message of any bytes.
    pub const BINARY: Self = Self(2);
    /// The last frame of a connection.
    pub const CLOSE: Self = Self(8);
    /// Asks for a pong.
    pub const PING: Self = Self(9);
    /// Answers a ping.
    pub const PONG: Self = Self(10);
}

/// One frame, valid or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// True if the frame ends its message.
    pub fin: bool,
    /// The three reserved bits.
    pub reserved: u8,
    /// The kind.
    pub opcode: Opcode,
    /// True if the payload is masked. A client must mask.
    pub masked: bool,
    /// The payload, unmasked.
    pub payload: Bytes,
}

impl Frame {
    /// A whole frame as a client sends it.
    pub fn new(opcode: Opcode, payload: impl Into<Vec<u8>>) -> Self {
        Self { fin: true, reserved: 0, opcode, masked: true, payload: payload.into().into() }
    }

    /// A text message, or its beginning.
    pub fn text(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(Opcode::TEXT, payload)
    }

    /// A binary message, or its beginning.
    pub fn binary(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(Opcode::BINARY, payload)
    }

    /// The next part of a message.
    pub fn continuation(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(Opcode::CONTINUATION, payload)
    }

    /// A ping.
    pub fn ping(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(Opcode::PING, payload)
    }

    /// A close frame.
    pub fn close(code: u16, reason: &str) -> Self {
        Self::new(Opcode::CLOSE, [&code.to_be_bytes(), reason.as_bytes()].concat())
    }

    /// The same frame, without the bit that ends the message.
    pub fn unfinished(self) -> Self {
        Self { fin: false, ..self }
    }

    /// The same frame with these reserved bits.
    pub fn reserved(self, bits: u8) -> Self {
        Self { reserved: bits, ..self }
    }

    /// The same frame, not masked: only a server may send it.
    pub fn unmasked(self) -> Self {
        Self { masked: false, ..self }
    }

    /// The code and the reason of a close frame. The code is 1005 if the frame has none (RFC 6455 §7.1.5).
    pub fn close_reason(&self) -> (u16, String) {
        match self.payload.split_first_chunk() {
            Some((code, reason)) => (u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned()),
            None => (1005, String::new()),
        }
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
        let mask = u8::from(self.masked) << 7;
        let mut bytes = vec![u8::from(self.fin) << 7 | self.reserved << 4 | self.opcode.0];
        match self.payload.len() {
            length @ 0..=125 => bytes.push(mask | length as u8),
            length @ 126..=0xffff => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        if self.masked {
            bytes.extend(KEY);
            bytes.extend(self.payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
        } else {
            bytes.extend_from_slice(&self.payload);
        }
        bytes
    }

    /// Takes the first frame out of the received bytes. `None` if it has not arrived whole.
    ///
    /// # Panics
    /// When the frame is masked: a server must not mask (RFC 6455 §5.1).
    pub fn take(received: &mut BytesMut) -> Option<Self> {
        let (&[first, second], rest) = received.split_first_chunk()?;
        assert_eq!(second & 0x80, 0, "the server sent a masked frame");
        let (header, length) = match second {
            126 => (4, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
            127 => (10, u64::from_be_bytes(*rest.first_chunk()?)),
            length => (2, u64::from(length)),
        };
        let length = usize::try_from(length).expect("a length that fits");
        if received.len() < header + length {
            return None;
        }
        received.advance(header);
        let payload = received.split_to(length).freeze();
        let opcode = Opcode(first & 0x0f);
        Some(Self { fin: first & 0x80 != 0, reserved: first >> 4 & 7, opcode, masked: false, payload })
    }
}
