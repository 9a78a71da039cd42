//! Limits the number and the time of connections, so that clients without a token cannot keep others out.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::strangers::Strangers;
use crate::base::message::ConnectionId;
use crate::edge::listener::{Accepted, Listener, Remote};
use crate::edge::tls::{Secured, Tls};

/// How long a new connection may take to send a request.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection with a token may take after a request: to read the answer and to send the next request.
pub(in crate::edge) const PATIENCE: Duration = Duration::from_secs(30);
/// How long a client may take nothing of an answer, on a connection that lives by its bytes.
pub(in crate::edge) const STANDSTILL: Duration = Duration::from_secs(30);

/// How long a connection stays after its last answer for a client that still sends.
const LINGER: Duration = Duration::from_secs(2);
/// Reads of such data before other tasks have their turn.
const DISCARDS_AT_ONCE: usize = 16;

/// A listener that limits the number of connections, and how long each may do nothing.
pub(in crate::edge) struct BoundedListener {
    listener: Listener,
    /// The certificates, if connections are encrypted.
    tls: Option<Arc<Tls>>,
    places: Arc<Semaphore>,
    strangers: Arc<Strangers>,
}

impl BoundedListener {
    /// Accepts at most `most` connections at a time. A further connection replaces the oldest one that has not sent a
    /// token; if there is none, it waits.
    pub(in crate::edge) fn new(listener: Listener, tls: Option<Arc<Tls>>, most: usize) -> Self {
        Self { listener, tls, places: Arc::new(Semaphore::new(most)), strangers: Arc::default() }
    }
}

impl axum::serve::Listener for BoundedListener {
    type Io = Connection;
    type Addr = Remote;

    async fn accept(&mut self) -> (Connection, Remote) {
        loop {
            let (stream, remote) = self.listener.accept().await;
            if self.places.available_permits() == 0 {
                self.strangers.cut_longest();
            }
            let Ok(place) = self.places.clone().acquire_owned().await else {
                return std::future::pending().await;
            };
            let own = stream.own_address();
            // Without randomness for the connection, it is dropped.
            if let Ok(stream) = Secured::new(stream, self.tls.as_deref()) {
                return (
                    Connection::new(stream, (own, self.tls.clone()), remote, place, self.strangers.clone()),
                    remote,
                );
            }
        }
    }

    fn local_addr(&self) -> io::Result<Remote> {
        // There may be several. The gateway knows them from the listener.
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The time when a connection ends. The connection shares it with the code that answers its requests.
#[derive(Debug, Clone)]
pub(in crate::edge) struct Patience(Arc<Mutex<Lifetime>>);

#[derive(Debug, Clone, Copy)]
struct Lifetime {
    end: Instant,
    /// How long the connection lives after each byte, if it lives by its bytes.
    after_byte: Option<Duration>,
}

impl Patience {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Lifetime { end: Instant::now() + FIRST_PATIENCE, after_byte: None })))
    }

    /// Lets the connection live for `time` from now.
    pub(in crate::edge) fn grant(&self, time: Duration) {
        self.0.lock().end = Instant::now() + time;
    }

    /// Lets the connection live by its bytes from now on: for at least `time` after each byte that is read or written.
    /// But if bytes wait to be written and the client takes none for [`STANDSTILL`], the connection ends.
    pub(in crate::edge) fn live_by_bytes(&self, time: Duration) {
        self.0.lock().after_byte = Some(time);
    }

    fn prolong(&self) {
        let mut lifetime = self.0.lock();
        if let Some(time) = lifetime.after_byte {
            lifetime.end = lifetime.end.max(Instant::now() + time);
        }
    }

    fn lifetime(&self) -> Lifetime {
        *self.0.lock()
    }
}

/// The connection of a request.
#[derive(Debug, Clone)]
pub(in crate::edge) struct HttpPeer {
    /// The id of the connection.
    pub(in crate::edge) id: ConnectionId,
    /// The listener's address that the client has connected to, unless it is a Unix socket.
    pub(in crate::edge) own: Option<SocketAddr>,
    /// The certificates of the listener, if the connection is encrypted.
    pub(in crate::edge) tls: Option<Arc<Tls>>,
    /// The client's address.
    pub(in crate::edge) remote: SocketAddr,
    /// The names in the client's certificate, which is checked. Set before the first request.
    certificate: Arc<OnceLock<Vec<String>>>,
    pub(in crate::edge) patience: Patience,
    cut: Arc<CancellationToken>,
    strangers: Arc<Strangers>,
}

impl HttpPeer {
    /// Returns the names in the client's certificate, which is checked. Empty without a certificate.
    pub(in crate::edge) fn certificate_names(&self) -> &[String] {
        self.certificate.get().map_or(&[], Vec::as_slice)
    }

    /// Returns `true` if the connection is encrypted. A Unix socket never is.
    pub(in crate::edge) fn is_encrypted(&self) -> bool {
        self.tls.is_some() && self.own.is_some()
    }

    /// Records that the connection has sent a token.
    pub(in crate::edge) fn trust(&self) {
        self.strangers.leave(&self.cut);
    }
}

impl Connected<IncomingStream<'_, BoundedListener>> for HttpPeer {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Self {
        stream.io().peer.clone()
    }
}

/// A connection that ends when its time is over, or when another connection needs its place.
pub(in crate::edge) struct Connection {
    stream: Secured<Accepted>,
    peer: HttpPeer,
    timer: Pin<Box<Sleep>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// When the connection ends if the client still takes no bytes.
    standstill: Option<Instant>,
    /// After the last answer: the time for the client to end the connection.
    linger: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(
        stream: Secured<Accepted>,
        (own, tls): (Option<SocketAddr>, Option<Arc<Tls>>),
        remote: Remote,
        place: OwnedSemaphorePermit,
        strangers: Arc<Strangers>,
    ) -> Self {
        let peer = HttpPeer {
            id: ConnectionId::next(),
            own,
            tls,
            remote: remote.address(),
            certificate: Arc::default(),
            patience: Patience::new(),
            cut: strangers.enter(),
            strangers,
        };
        let timer = Box::pin(sleep_until(peer.patience.lifetime().end));
        let cut = Box::pin(CancellationToken::clone(&peer.cut).cancelled_owned());
        Self { stream, peer, timer, cut, standstill: None, linger: None, _place: place }
    }

    /// Returns the stream, or an error if the connection must end.
    fn stream(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut Secured<Accepted>>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let end = self.peer.patience.lifetime().end;
        let end = self.standstill.map_or(end, |standstill| standstill.min(end));
        // The end may move with every byte. So the timer follows only when it would go off too late, or has gone off.
        if self.timer.deadline() > end {
            self.timer.as_mut().reset(end);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.timer.deadline() >= end {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.timer.as_mut().reset(end);
        }
        Ok(Pin::new(&mut self.stream))
    }
}

impl Connection {
    /// Records whether the client takes the bytes that are written.
    fn note(&mut self, cx: &mut Context<'_>, takes: bool) -> io::Result<()> {
        if takes {
            self.standstill = None;
        } else if self.standstill.is_none() && self.peer.patience.lifetime().after_byte.is_some() {
            self.standstill = Some(Instant::now() + STANDSTILL);
            // The timer must know.
            self.stream(cx)?;
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.peer.strangers.leave(&self.peer.cut);
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        let outcome = self.stream(cx)?.poll_read(cx, buffer);
        if buffer.filled().len() > filled {
            self.peer.patience.prolong();
            // The handshake is done when the first byte of a request has arrived.
            self.peer.certificate.get_or_init(|| self.stream.client_names());
        }
        outcome
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = self.stream(cx)?.poll_write(cx, bytes);
        if outcome.is_ready() {
            self.peer.patience.prolong();
        }
        self.note(cx, outcome.is_ready())?;
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = self.stream(cx)?.poll_flush(cx);
        self.note(cx, outcome.is_ready())?;
        outcome
    }

    /// Ends the answer, then discards what still arrives until the client ends, too: closing with unread data would
    /// reset the connection, and the client might lose an answer that came before its whole request was read.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(self.stream(cx)?.poll_shutdown(cx))?;
        }
        let Self { stream, linger, cut, .. } = &mut *self;
        let linger = linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut discarded = [0; 4096];
        for _ in 0..DISCARDS_AT_ONCE {
            if linger.as_mut().poll(cx).is_ready() || cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut discarded);
            match ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{advance, pause, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns a connection and its client.
    async fn connected() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let stream = Secured::Plain(Accepted::Tcp(stream));
        (Connection::new(stream, (None, None), Remote::Tcp(peer), place, Arc::default()), client)
    }

    #[tokio::test]
    async fn time_that_was_granted_can_be_taken_back() {
        let (mut connection, _client) = connected().await;
        let patience = connection.peer.patience.clone();
        patience.grant(3600 * SECOND);
        assert!(timeout(Duration::from_millis(20), connection.read_u8()).await.is_err());
        patience.grant(Duration::from_millis(20));
        let ended = timeout(5 * SECOND, connection.read_u8()).await.unwrap();
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    /// Reads without waiting.
    async fn read_now(connection: &mut Connection) -> Option<io::Result<()>> {
        let mut bytes = [0; 8];
        let mut buffer = ReadBuf::new(&mut bytes);
        poll_fn(|cx| match Pin::new(&mut *connection).poll_read(cx, &mut buffer) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    #[tokio::test]
    async fn a_byte_prolongs_the_life_of_a_connection_that_lives_by_bytes() {
        for lives_by_bytes in [false, true] {
            let (mut connection, mut client) = connected().await;
            if lives_by_bytes {
                connection.peer.patience.live_by_bytes(60 * SECOND);
            }
            client.write_all(b"x").await.unwrap();
            let Secured::Plain(Accepted::Tcp(stream)) = &connection.stream else { panic!("not plain TCP") };
            stream.readable().await.unwrap();
            pause();
            advance(9 * SECOND).await;
            assert!(read_now(&mut connection).await.unwrap().is_ok());
            advance(2 * SECOND).await;
            assert_eq!(read_now(&mut connection).await.is_some(), !lives_by_bytes);
            advance(57 * SECOND).await;
            assert_eq!(read_now(&mut connection).await.is_some(), !lives_by_bytes);
            advance(2 * SECOND).await;
            let ended = read_now(&mut connection).await.unwrap();
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
            tokio::time::resume();
        }
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_of_its_answer_is_cut_off() {
        let (mut connection, mut client) = connected().await;
        connection.peer.patience.live_by_bytes(3600 * SECOND);
        connection.peer.patience.grant(3600 * SECOND);
        let chunk = vec![0; 1 << 16];
        let fill = async |connection: &mut Connection| {
            while timeout(Duration::from_millis(50), connection.write(&chunk)).await.is_ok() {}
        };
        fill(&mut connection).await;
        pause();
        advance(STANDSTILL - SECOND).await;
        assert!(read_now(&mut connection).await.is_none());
        tokio::time::resume();
        // It takes all, and gets the whole time again.
        let mut taken = vec![0; 1 << 16];
        while timeout(Duration::from_millis(50), client.read(&mut taken)).await.is_ok() {}
        fill(&mut connection).await;
        pause();
        advance(STANDSTILL - SECOND).await;
        assert!(read_now(&mut connection).await.is_none());
        advance(2 * SECOND).await;
        assert_eq!(read_now(&mut connection).await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
