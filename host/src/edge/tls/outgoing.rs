//! What a connection sends: encrypted bytes, and messages of the protocol.

use std::io;

use rustls::server::ServerConnectionData;
use rustls::unbuffered::{EncodeError, EncodeTlsData, EncryptError, WriteTraffic};

/// What encryption adds to so many bytes, at most.
const OVERHEAD: usize = 128;

/// What is encrypted.
#[derive(Clone, Copy)]
pub(super) enum Outgoing<'a> {
    Bytes(&'a [u8]),
    /// The announcement that nothing more follows (RFC 8446 §6.1).
    End,
}

impl Outgoing<'_> {
    /// Appends its encrypted form to `out`.
    pub(super) fn encrypt(
        self,
        traffic: &mut WriteTraffic<'_, ServerConnectionData>,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let room = match self {
            Self::Bytes(bytes) => bytes.len() + OVERHEAD,
            Self::End => OVERHEAD,
        };
        with_room(out, room, |room| {
            let written = match self {
                Self::Bytes(bytes) => traffic.encrypt(bytes, room),
                Self::End => traffic.queue_close_notify(room),
            };
            match written {
                Ok(written) => Ok(Ok(written)),
                Err(EncryptError::InsufficientSize(needed)) => Ok(Err(needed.required_size)),
                Err(error) => Err(io::Error::other(error.to_string())),
            }
        })
    }
}

/// Appends a message of the protocol to `out`.
pub(super) fn encode<D>(mut message: EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> io::Result<()> {
    with_room(out, 0, |room| match message.encode(room) {
        Err(EncodeError::InsufficientSize(needed)) => Ok(Err(needed.required_size)),
        Err(error) => Err(io::Error::other(error.to_string())),
        Ok(written) => Ok(Ok(written)),
    })
}

/// Appends what `write` writes into the room that it is given, or, if it needs more, into that much room.
fn with_room(
    out: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> io::Result<Result<usize, usize>>,
) -> io::Result<()> {
    let before = out.len();
    loop {
        out.resize(before + room, 0);
        match write(&mut out[before..])? {
            Ok(written) => {
                out.truncate(before + written);
                return Ok(());
            }
            Err(needed) => room = needed,
        }
    }
}
