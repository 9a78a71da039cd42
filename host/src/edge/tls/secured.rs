//! A stream with or without TLS.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Tls;
use super::stream::TlsStream;
use crate::edge::listener::Stream;

/// A stream with or without TLS.
#[derive(Debug)]
pub(in crate::edge) enum Secured<S> {
    Plain(S),
    Tls(Box<TlsStream<S>>),
}

impl<S: Stream> Secured<S> {
    /// Wraps a stream that was accepted. With TLS, the handshake happens while the stream is read. A private stream is
    /// never encrypted.
    ///
    /// # Errors
    /// If there is no randomness for a connection.
    pub(in crate::edge) fn new(stream: S, tls: Option<&Tls>) -> io::Result<Self> {
        match tls.filter(|_| !stream.is_private()) {
            None => Ok(Self::Plain(stream)),
            Some(tls) => Ok(Self::Tls(Box::new(tls.accept(stream)?))),
        }
    }

    /// Waits for the first byte of the handshake. The caller limits the time.
    ///
    /// # Errors
    /// If the connection ends.
    pub(in crate::edge) async fn first_byte(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => poll_fn(|cx| stream.poll_first_byte(cx)).await,
        }
    }

    /// Waits until the handshake is done. The caller limits the time.
    ///
    /// # Errors
    /// If the handshake fails.
    pub(in crate::edge) async fn handshake(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => poll_fn(|cx| stream.poll_handshake(cx)).await,
        }
    }

    /// Returns the names in the client's certificate, which is checked. Empty without a certificate.
    pub(in crate::edge) fn client_names(&self) -> Vec<String> {
        match self {
            Self::Plain(_) => Vec::new(),
            Self::Tls(stream) => stream.client_names(),
        }
    }

    /// Returns the stream below.
    pub(in crate::edge) fn inner(&self) -> &S {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.inner(),
        }
    }
}

impl<S: Stream> Stream for Secured<S> {
    fn is_dead(&self) -> bool {
        self.inner().is_dead()
    }

    fn reset_on_drop(&self) {
        self.inner().reset_on_drop();
    }

    fn unread(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(stream) => stream.unread(),
        }
    }

    fn unsent(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(stream) => stream.unsent(),
        }
    }
}

impl<S: Stream> AsyncRead for Secured<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => stream.poll_read(cx, buffer),
        }
    }
}

impl<S: Stream> AsyncWrite for Secured<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => stream.poll_write(cx, &[IoSlice::new(bytes)]),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Tls(stream) => stream.poll_write(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => stream.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => stream.poll_shutdown(cx),
        }
    }
}
