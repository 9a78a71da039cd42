//! What unit tests share: a client in memory, and the context of its connection.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::inbox::{Inbox, InboxBudget};
use super::rejection::Rejections;
use super::socket::Socket;
use super::wire::Wire;
use super::{Context, TlsTurns};
use crate::base::message::{CloseReason, ConnectionId, Message};
use crate::base::state::StateFolder;
use crate::config::{Config, HeartbeatConfig, Overrides, PluginSource};
use crate::edge::drain::Drain;
use crate::edge::heartbeat::{Heartbeat, Link};
use crate::edge::listener::Stream;
use crate::edge::live::LiveConfig;
use crate::hub::outbox::{Budget, Outbox};
use crate::hub::registry::Registry;
use crate::policy::{Handshake, Policy};

/// First bytes of unfragmented frames.
pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;

/// How long a client waits for bytes. On a paused clock this takes no time.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A correct upgrade request.
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The gateway's end of a stream in memory.
#[derive(Debug)]
pub(crate) struct Pipe {
    stream: DuplexStream,
    kernel: Arc<Kernel>,
}

/// What a kernel knows of a stream.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    /// True if the peer is gone.
    pub(crate) is_dead: AtomicBool,
    /// True if the gateway wants a reset at the end.
    pub(crate) resets: AtomicBool,
    /// How often the gateway has written.
    pub(crate) writes: AtomicUsize,
}

impl Stream for Pipe {
    fn is_dead(&self) -> bool {
        self.kernel.is_dead.load(Relaxed)
    }

    fn reset_on_drop(&self) {
        self.kernel.resets.store(true, Relaxed);
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.kernel.writes.fetch_add(1, Relaxed);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A client at the other end of a stream in memory.
#[derive(Debug)]
pub(crate) struct Client {
    stream: DuplexStream,
    pub(crate) kernel: Arc<Kernel>,
}

impl Client {
    /// Creates a client and the gateway's end of its stream. `buffer` bytes may be on their way in each direction.
    pub(crate) fn new(buffer: usize) -> (Self, Pipe) {
        let ((stream, other), kernel) = (duplex(buffer), Arc::new(Kernel::default()));
        (Self { stream, kernel: kernel.clone() }, Pipe { stream: other, kernel })
    }

    /// Sends an upgrade request and reads the answer.
    pub(crate) async fn upgrade(&mut self) {
        self.bytes(UPGRADE.as_bytes()).await;
        self.upgraded().await;
    }

    /// Reads the answer to an upgrade request.
    pub(crate) async fn upgraded(&mut self) {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(self.stream.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    }

    /// Sends an upgrade request, and reads the answer to its end: a refusal with this status, and when to try again.
    pub(crate) async fn refused(&mut self, status: &str) {
        let mut answer = String::new();
        self.bytes(UPGRADE.as_bytes()).await;
        timeout(LONGEST_WAIT, self.stream.read_to_string(&mut answer)).await.expect("an end in time").unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains("\r\nRetry-After: "), "{answer}");
    }

    /// Sends any bytes.
    pub(crate) async fn bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends a frame.
    pub(crate) async fn send(&mut self, first: u8, payload: &[u8]) {
        self.bytes(&frame(first, payload)).await;
    }

    /// Reads a frame: its first byte and its payload.
    pub(crate) async fn frame(&mut self) -> (u8, Vec<u8>) {
        timeout(LONGEST_WAIT, self.read_frame()).await.expect("a frame in time")
    }

    async fn read_frame(&mut self) -> (u8, Vec<u8>) {
        let first = self.stream.read_u8().await.unwrap();
        let length = match self.stream.read_u8().await.unwrap() {
            126 => self.stream.read_u16().await.unwrap().into(),
            127 => self.stream.read_u64().await.unwrap(),
            length => length.into(),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await.unwrap();
        (first, payload)
    }

    /// Reads a text that must be this one.
    pub(crate) async fn expect(&mut self, text: &str) {
        let (first, payload) = self.frame().await;
        assert_eq!((first, String::from_utf8_lossy(&payload).as_ref()), (TEXT, text));
    }

    /// Reads a close frame that must have this code.
    pub(crate) async fn expect_close(&mut self, code: u16) {
        let (first, payload) = self.frame().await;
        assert_eq!((first, u16::from_be_bytes([payload[0], payload[1]])), (CLOSE, code));
    }

    /// Answers a close frame.
    pub(crate) async fn close(&mut self, code: u16) {
        self.send(CLOSE, &code.to_be_bytes()).await;
    }

    /// Waits for the end of the stream. No byte may come before it.
    pub(crate) async fn ended(&mut self) {
        let read = timeout(LONGEST_WAIT, self.stream.read(&mut [0])).await.expect("an end in time");
        assert_eq!(read.unwrap(), 0);
    }

    /// Returns `true` if the gateway cut the connection off instead of ending it in an orderly way.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.kernel.resets.load(Relaxed)
    }
}

/// Returns the bytes of a client's frame, with an empty mask.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Returns a text message.
pub(crate) fn text(text: &str) -> Message {
    Message::Text(text.to_owned().into())
}

/// Returns a heartbeat that runs, and looks for silent clients each second.
pub(crate) fn beating(timeout: Duration) -> Arc<Heartbeat> {
    let config = HeartbeatConfig { timeout, check_interval: Duration::from_secs(1), ping_interval: None };
    let heartbeat = Arc::new(Heartbeat::new(config));
    let running = heartbeat.clone();
    tokio::spawn(async move { running.run().await });
    heartbeat
}

/// Returns a link with an empty outbox.
pub(crate) fn link() -> Arc<Link> {
    let outbox = Outbox::new(64 << 20, Arc::new(Budget::new(64 << 20, 1)));
    Heartbeat::new(Config::default().heartbeat).watch(ConnectionId::next(), outbox)
}

/// Returns a client, and the wire of its connection. Unfinished messages must grow by `min_message_rate`.
pub(super) fn wire(buffer: usize, min_message_rate: usize, link: &Arc<Link>) -> (Client, Wire<Pipe>) {
    let (client, pipe) = Client::new(buffer);
    let inbox = Inbox::new(Vec::new(), 1 << 20, Arc::new(InboxBudget::new(1 << 20)));
    (client, Wire::new(pipe, link.clone(), inbox, min_message_rate))
}

/// Returns a client, and the socket of its connection.
pub(super) fn socket(buffer: usize) -> (Client, Box<Socket<Pipe>>, Arc<Link>) {
    let link = link();
    let (client, wire) = wire(buffer, 0, &link);
    (client, Box::new(Socket::new(wire, link.clone())), link)
}

/// A reason to close a connection.
pub(crate) const BYE: CloseReason = CloseReason::new(3000, "bye");

/// Returns the context of connections whose authenticator is `origin-auth`, and whose router is this built-in plugin.
pub(crate) async fn context(router: &str) -> Arc<Context> {
    let mut config = Config::load(None, &Overrides::default()).unwrap();
    config.router.plugin.source = PluginSource::Builtin(router.to_owned());
    for plugin in config.authenticators.iter_mut().chain([&mut config.router.plugin]) {
        // Calls are timed by the real clock: their deadline must not pass when a test moves the runtime's clock.
        plugin.limits.deadline = Duration::from_secs(24 * 3600);
    }
    let registry = Arc::new(Registry::new(config.sessions.duplicate_login));
    let state = Arc::new(StateFolder::none("a test"));
    let policy = Policy::load(&config.clone().into(), registry.clone(), state).await.unwrap();
    let live = Arc::new(LiveConfig::new(config.clone()));
    Arc::new(Context {
        tls_turns: TlsTurns::new(live.clone()),
        live,
        rejections: Rejections::default(),
        policy: Arc::new(policy),
        registry,
        tls: None,
        inbox: Arc::new(InboxBudget::new(1 << 20)),
        drain: Arc::new(Drain::new(config.drain, TaskTracker::new())),
    })
}

/// Returns the handshake of a connection.
pub(crate) fn handshake(connection: ConnectionId) -> Box<Handshake> {
    Box::new(Handshake {
        connection,
        remote_address: SocketAddr::from((Ipv4Addr::LOCALHOST, 4711)).into(),
        path: "/".to_owned(),
        query: None,
        headers: Vec::new(),
    })
}
