//! Limits the number and the time of connections, so that clients without a token cannot keep others out.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// How long a new connection may take to send a request.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection with a token may take after a request: to read the answer and to send the next request.
pub(in crate::edge) const PATIENCE: Duration = Duration::from_secs(30);

/// A listener that limits the number of connections, and how long each may do nothing.
pub(in crate::edge) struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    strangers: Arc<Strangers>,
}

impl Bounded {
    /// Accepts at most `most` connections at a time. A further connection replaces the oldest one that has not sent a
    /// token; if there is none, it waits.
    pub(in crate::edge) fn new(listener: TcpListener, most: usize) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(most)), strangers: Arc::default() }
    }
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // This function handles errors itself: it waits and tries again.
        let (stream, peer) = axum::serve::Listener::accept(&mut self.listener).await;
        let _ = stream.set_nodelay(true);
        if self.places.available_permits() == 0 {
            self.strangers.cut_longest();
        }
        let Ok(place) = self.places.clone().acquire_owned().await else {
            return std::future::pending().await;
        };
        (Connection::new(stream, peer, place, self.strangers.clone()), peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The connections that have not sent a token, oldest first. Each may send one request, so the oldest one has done
/// nothing for the longest time.
#[derive(Debug, Default)]
struct Strangers(Mutex<VecDeque<Arc<CancellationToken>>>);

impl Strangers {
    fn enter(&self) -> Arc<CancellationToken> {
        let cut = Arc::new(CancellationToken::new());
        self.0.lock().push_back(cut.clone());
        cut
    }

    fn leave(&self, cut: &Arc<CancellationToken>) {
        self.0.lock().retain(|other| !Arc::ptr_eq(other, cut));
    }

    fn cut_longest(&self) {
        if let Some(cut) = self.0.lock().pop_front() {
            cut.cancel();
        }
    }
}

/// The time when a connection ends. The connection shares it with the code that answers its requests.
#[derive(Debug, Clone)]
pub(in crate::edge) struct Patience(Arc<Mutex<Instant>>);

impl Patience {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now() + FIRST_PATIENCE)))
    }

    /// Lets the connection live for `time` from now.
    pub(in crate::edge) fn grant(&self, time: Duration) {
        *self.0.lock() = Instant::now() + time;
    }

    fn end(&self) -> Instant {
        *self.0.lock()
    }
}

/// The connection of a request.
#[derive(Debug, Clone)]
pub(in crate::edge) struct Peer {
    /// The listener's address that the client has connected to.
    pub(in crate::edge) own: Option<SocketAddr>,
    /// The client's address.
    pub(in crate::edge) remote: SocketAddr,
    pub(in crate::edge) patience: Patience,
    cut: Arc<CancellationToken>,
    strangers: Arc<Strangers>,
}

impl Peer {
    /// Records that the connection has sent a token.
    pub(in crate::edge) fn trust(&self) {
        self.strangers.leave(&self.cut);
    }
}

impl Connected<IncomingStream<'_, Bounded>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        stream.io().peer.clone()
    }
}

/// A TCP connection that ends when its time is over, or when another connection needs its place.
pub(in crate::edge) struct Connection {
    stream: TcpStream,
    peer: Peer,
    timer: Pin<Box<Sleep>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, remote: SocketAddr, place: OwnedSemaphorePermit, strangers: Arc<Strangers>) -> Self {
        let own = stream.local_addr().ok();
        let peer = Peer { own, remote, patience: Patience::new(), cut: strangers.enter(), strangers };
        let timer = Box::pin(sleep_until(peer.patience.end()));
        let cut = Box::pin(CancellationToken::clone(&peer.cut).cancelled_owned());
        Self { stream, peer, timer, cut, _place: place }
    }

    /// Returns the stream, or an error if the connection must end.
    fn stream(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut TcpStream>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let end = self.peer.patience.end();
        if self.timer.deadline() != end {
            self.timer.as_mut().reset(end);
        }
        match self.timer.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(Pin::new(&mut self.stream)),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.peer.strangers.leave(&self.peer.cut);
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream(cx)?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream(cx)?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream(cx)?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn time_that_was_granted_can_be_taken_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let mut connection = Connection::new(stream, peer, place, Arc::default());
        let patience = connection.peer.patience.clone();
        patience.grant(Duration::from_secs(3600));
        assert!(timeout(Duration::from_millis(20), connection.read_u8()).await.is_err());
        patience.grant(Duration::from_millis(20));
        let ended = timeout(Duration::from_secs(5), connection.read_u8()).await.unwrap();
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
