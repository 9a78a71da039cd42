//! The stream of an encrypted connection.
//!
//! It drives rustls without its buffers. The buffers for reading and writing belong to the threads, so a connection
//! that waits holds only the keys of its session and an incomplete record. This is why tokio-rustls is not used: its
//! connections hold 4 KiB more.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::ConnectionState;
use tokio::io::ReadBuf;

use super::certificate::names_of;
use super::outgoing::{Outgoing, encode};
use crate::base::metrics::METRICS;
use crate::edge::listener::Stream;

/// The largest record (RFC 5246 §6.2.3): its header, 16 KiB, and what encryption may add.
const MAX_RECORD: usize = 5 + (16 << 10) + (2 << 10);
/// The most bytes of a handshake message that is not complete yet: a client may send a chain of certificates.
const MAX_HANDSHAKE: usize = 64 << 10;
/// The most bytes that are encrypted for one write: two records.
const CHUNK: usize = 32 << 10;

thread_local! {
    /// The buffer to read encrypted bytes into.
    static ENCRYPTED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// The buffers to write: bytes that are gathered, and their encrypted form.
    static OUTGOING: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// An encrypted connection over `stream`.
pub(in crate::edge) struct TlsStream<S> {
    stream: S,
    session: UnbufferedServerConnection,
    /// Encrypted bytes that wait: an incomplete record, or further records for which the reader had no room.
    waiting: Vec<u8>,
    /// True if `waiting` may hold a complete record.
    has_record: bool,
    /// Decrypted bytes for which the reader had no room.
    decrypted: Vec<u8>,
    /// Encrypted bytes that the kernel has not taken yet. The first `sent` of them are sent.
    unsent: Vec<u8>,
    sent: usize,
    /// True if the peer has said that it sends nothing more.
    ended: bool,
    /// True if the end of our data is announced.
    announced: bool,
    /// The most bytes that may wait during the handshake.
    most: usize,
    handshake: HandshakeProgress,
    /// True after an error: the session knows no more which bytes it has seen.
    failed: bool,
}

/// How far the handshake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HandshakeProgress {
    NotBegun,
    UnderWay,
    Done,
}

impl<S> Drop for TlsStream<S> {
    fn drop(&mut self) {
        if self.handshake == HandshakeProgress::UnderWay {
            METRICS.tls_handshakes_failed.increment();
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// Where decrypted bytes go: to the reader as long as it has room.
struct Decrypted<'a, 'b> {
    reader: &'a mut ReadBuf<'b>,
    rest: &'a mut Vec<u8>,
}

impl Decrypted<'_, '_> {
    fn put(&mut self, bytes: &[u8]) {
        let (now, later) = bytes.split_at(self.reader.remaining().min(bytes.len()));
        self.reader.put_slice(now);
        self.rest.extend_from_slice(later);
    }
}

impl<S: Stream> TlsStream<S> {
    /// `asks_clients` says that clients are asked for certificates, which may make their handshake long.
    pub(super) fn new(stream: S, config: Arc<ServerConfig>, asks_clients: bool) -> io::Result<Self> {
        let session = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Self {
            stream,
            session,
            waiting: Vec::new(),
            has_record: false,
            decrypted: Vec::new(),
            unsent: Vec::new(),
            sent: 0,
            ended: false,
            announced: false,
            most: if asks_clients { MAX_HANDSHAKE } else { MAX_RECORD },
            handshake: HandshakeProgress::NotBegun,
            failed: false,
        })
    }

    pub(super) fn inner(&self) -> &S {
        &self.stream
    }

    /// Returns the bytes that it holds for the reader.
    pub(super) fn unread(&self) -> usize {
        self.waiting.capacity() + self.decrypted.capacity()
    }

    /// Returns the bytes that it holds for the peer.
    pub(super) fn unsent(&self) -> usize {
        self.unsent.capacity()
    }

    /// Returns the names in the client's certificate.
    pub(super) fn client_names(&self) -> Vec<String> {
        let certificate = self.session.peer_certificates().and_then(|chain| chain.first());
        certificate.map(names_of).unwrap_or_default()
    }

    /// Ready when the first byte has arrived. Reads no other: connections that wait for more hold nothing more.
    pub(super) fn poll_first_byte(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut first = [0];
        let mut read = ReadBuf::new(&mut first);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Poll::Ready(self.keep(read.filled()))
    }

    /// Ready when the handshake is done.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut nothing = ReadBuf::new(&mut []);
        while self.handshake != HandshakeProgress::Done {
            ready!(self.poll_more(cx, &mut nothing))?;
            if self.ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads decrypted bytes. None at the end of the connection.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, reader: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = reader.filled().len();
        loop {
            if !self.decrypted.is_empty() {
                let count = self.decrypted.len().min(reader.remaining());
                reader.put_slice(&self.decrypted[..count]);
                self.decrypted.drain(..count);
                if self.decrypted.is_empty() {
                    self.decrypted = Vec::new();
                }
            }
            if reader.filled().len() > before || reader.remaining() == 0 || self.ended {
                return Poll::Ready(Ok(()));
            }
            match ready!(self.poll_more(cx, reader)) {
                // What came before the error counts. The next call returns the error.
                Err(_) if reader.filled().len() > before => {}
                read => read?,
            }
        }
    }

    /// Decrypts the records that wait, or reads once and decrypts what arrives.
    fn poll_more(&mut self, cx: &mut Context<'_>, reader: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.failed {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        self.send_answers(cx);
        let outcome = ENCRYPTED.with_borrow_mut(|buffer| {
            let waited = self.waiting.len();
            let mut length = waited;
            if buffer.len() < waited + MAX_RECORD {
                buffer.resize(waited + MAX_RECORD, 0);
            }
            if !std::mem::take(&mut self.has_record) {
                let mut read = ReadBuf::new(&mut buffer[waited..waited + MAX_RECORD]);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
                length += read.filled().len();
                self.ended |= length == waited;
            }
            buffer[..waited].copy_from_slice(&self.waiting);
            if length > 0 && self.handshake == HandshakeProgress::NotBegun {
                self.handshake = HandshakeProgress::UnderWay;
            }
            let used = self.decrypt(&mut buffer[..length], reader);
            Poll::Ready(used.and_then(|used| self.keep(&buffer[used..length])))
        });
        if let Poll::Ready(Err(_)) = outcome {
            (self.failed, self.waiting, self.has_record) = (true, Vec::new(), false);
        }
        self.send_answers(cx);
        outcome
    }

    /// Sends answers of the protocol itself. What the kernel does not take now is sent with the next write, or when the
    /// kernel wakes this task. If the peer is gone, reading or writing will notice it.
    fn send_answers(&mut self, cx: &mut Context<'_>) {
        if !self.unsent.is_empty() {
            let _ = self.poll_unsent(cx);
        }
    }

    /// Keeps encrypted bytes until more arrive, or until the reader has room.
    fn keep(&mut self, rest: &[u8]) -> io::Result<()> {
        let most = if self.handshake == HandshakeProgress::Done { MAX_RECORD } else { self.most };
        // Records that wait because the reader has no room were read at once, and are no more than one read.
        if rest.len() > most + MAX_RECORD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a TLS message is too long"));
        }
        self.waiting = rest.to_vec();
        Ok(())
    }

    /// Decrypts records at the front of `encrypted`, as long as the reader has room. Returns how many bytes are done
    /// with.
    fn decrypt(&mut self, encrypted: &mut [u8], reader: &mut ReadBuf<'_>) -> io::Result<usize> {
        let mut used = 0;
        let mut failure = None;
        loop {
            let mut out = Decrypted { reader: &mut *reader, rest: &mut self.decrypted };
            let status = self.session.process_tls_records(&mut encrypted[used..]);
            used += status.discard;
            match status.state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        used += record.discard;
                        out.put(record.payload);
                    }
                    if out.reader.remaining() == 0 {
                        self.has_record = used < encrypted.len();
                        break;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(message)) => encode(message, &mut self.unsent)?,
                Ok(ConnectionState::TransmitTlsData(message)) => message.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                // First the alert is encoded, which tells the peer.
                Err(error) if failure.is_none() => failure = Some(error),
                Ok(_) | Err(_) => break,
            }
            if failure.is_some() && !self.session.wants_write() {
                break;
            }
        }
        if let Some(error) = failure {
            return Err(invalid(error));
        }
        if self.handshake != HandshakeProgress::Done && !self.session.is_handshaking() {
            self.handshake = HandshakeProgress::Done;
            METRICS.tls_handshakes.increment();
        }
        Ok(used)
    }

    /// Encrypts bytes and sends them. Returns how many bytes were taken.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_unsent(cx))?;
        OUTGOING.with_borrow_mut(|(gathered, encrypted)| {
            let mut parts = parts.iter().filter(|part| !part.is_empty());
            let Some(first) = parts.next() else { return Poll::Ready(Ok(0)) };
            let mut plain = &first[..first.len().min(CHUNK)];
            if let Some(second) = parts.next().filter(|_| plain.len() < CHUNK) {
                gathered.clear();
                gathered.extend_from_slice(plain);
                gathered.extend_from_slice(&second[..second.len().min(CHUNK - plain.len())]);
                plain = gathered;
            }
            encrypted.clear();
            self.encrypt(encrypted, Outgoing::Bytes(plain))?;
            if self.unsent.is_empty()
                && let Poll::Ready(sent) = Pin::new(&mut self.stream).poll_write(cx, encrypted)?
            {
                encrypted.drain(..sent);
            }
            // The kernel takes no more. Then the rest waits here; the next write begins with it.
            self.unsent.extend_from_slice(encrypted);
            Poll::Ready(Ok(plain.len()))
        })
    }

    /// Appends the encrypted form of `outgoing` to `out`.
    fn encrypt(&mut self, out: &mut Vec<u8>, outgoing: Outgoing<'_>) -> io::Result<()> {
        if self.failed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        // The session must see the bytes that wait: it may know of a message that begins there.
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut used = 0;
        let outcome = loop {
            let status = self.session.process_tls_records(&mut waiting[used..]);
            used += status.discard;
            match status.state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    break outgoing.encrypt(&mut traffic, out);
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        used += record.discard;
                        self.decrypted.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(message)) => {
                    if let Err(error) = encode(message, &mut self.unsent) {
                        break Err(error);
                    }
                }
                Ok(ConnectionState::TransmitTlsData(message)) => message.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(_) => break Err(io::ErrorKind::NotConnected.into()),
                Err(error) => break Err(invalid(error)),
            }
        };
        waiting.drain(..used);
        self.has_record &= !waiting.is_empty();
        self.waiting = waiting;
        outcome
    }

    /// Sends the encrypted bytes that the kernel has not taken yet.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent[self.sent..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
        }
        (self.unsent, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Announces the end of our data, then ends it.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.announced, true) && self.handshake == HandshakeProgress::Done {
            let mut alert = Vec::new();
            // A connection that has failed cannot announce anything.
            if self.encrypt(&mut alert, Outgoing::End).is_ok() {
                self.unsent.append(&mut alert);
            }
        }
        ready!(self.poll_unsent(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
