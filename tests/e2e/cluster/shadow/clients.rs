//! Clients that log in anywhere, read, leave and come back.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use hotgate_tests::{Frame, Opcode, Upgrade};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::random::Random;
use super::record::Record;
use super::world::Places;

/// The group that every other client joins.
pub(super) const GROUP: &str = "room";

/// How long a client waits for its login. A gateway may wait for others that are gone, until it gives them up.
const LOGIN: Duration = Duration::from_secs(8);

/// How long a client that has sent a close frame goes on reading.
const FAREWELL: Duration = Duration::from_secs(1);

/// What clients and senders are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Everybody comes and goes. When the number changes, all leave at once and come back.
    Run(usize),
    /// Nobody comes, goes or pushes.
    Rest,
    /// Those that are connected ask for a reply, which arrives after all other messages.
    Settle,
}

/// What all clients and senders share.
#[derive(Debug)]
pub(super) struct Crowd {
    pub(super) record: Record,
    pub(super) places: Places,
    phase: watch::Sender<Phase>,
    /// Clients that log in, and senders that push: they must come to an end before a rest.
    busy: AtomicUsize,
    settled: AtomicUsize,
}

/// While this value lives, somebody is busy.
#[derive(Debug)]
pub(super) struct Busy<'a>(&'a Crowd);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Crowd {
    pub(super) fn new(places: Places) -> Self {
        let (record, phase) = (Record::new(), watch::channel(Phase::Rest).0);
        Self { record, places, phase, busy: AtomicUsize::new(0), settled: AtomicUsize::new(0) }
    }

    pub(super) fn set(&self, phase: Phase) {
        self.settled.store(0, Ordering::SeqCst);
        self.phase.send_replace(phase);
    }

    /// Makes all clients leave at once.
    pub(super) fn storm(&self) {
        self.phase.send_modify(|phase| {
            if let Phase::Run(storms) = phase {
                *storms += 1;
            }
        });
    }

    pub(super) fn busy(&self) -> usize {
        self.busy.load(Ordering::SeqCst)
    }

    /// The number of clients that have read everything, in the phase [`Phase::Settle`].
    pub(super) fn settled(&self) -> usize {
        self.settled.load(Ordering::SeqCst)
    }

    /// Waits until there is something to do, and is busy from then on.
    pub(super) async fn begin(&self) -> Busy<'_> {
        let mut phase = self.phase.subscribe();
        loop {
            // In this order: whoever sets another phase and then sees nobody busy can rely on it.
            self.busy.fetch_add(1, Ordering::SeqCst);
            let busy = Busy(self);
            if self.is_running() {
                return busy;
            }
            drop(busy);
            _ = phase.wait_for(|phase| matches!(phase, Phase::Run(_))).await;
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Run(_))
    }
}

/// A connection that may end at any time.
struct Link {
    stream: TcpStream,
    received: BytesMut,
}

impl Link {
    async fn open(address: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&Upgrade::default().encode()).await?;
        let mut received = BytesMut::new();
        loop {
            if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                let is_open = received.starts_with(b"HTTP/1.1 101 ");
                _ = received.split_to(end + 4);
                return if is_open {
                    Ok(Self { stream, received })
                } else {
                    Err(io::ErrorKind::ConnectionRefused.into())
                };
            }
            if stream.read_buf(&mut received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn send(&mut self, frame: Frame) -> io::Result<()> {
        self.stream.write_all(&frame.encode()).await
    }

    /// The next text. An error is the end of the connection.
    async fn text(&mut self) -> io::Result<String> {
        loop {
            while let Some(frame) = Frame::take(&mut self.received) {
                match frame.opcode {
                    Opcode::TEXT => return Ok(String::from_utf8_lossy(&frame.payload).into_owned()),
                    Opcode::CLOSE => return Err(io::ErrorKind::ConnectionAborted.into()),
                    _ => {}
                }
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// One connection, with its number in the record.
struct Client<'a> {
    crowd: &'a Crowd,
    link: Link,
    number: u64,
}

/// Whatever ends the client's task or this connection: from now on, messages may be lost.
impl Drop for Client<'_> {
    fn drop(&mut self) {
        self.crowd.record.connection(self.number, |connection, now| _ = connection.ended.get_or_insert(now));
    }
}

/// Logs in again and again.
pub(super) async fn come_and_go(crowd: Arc<Crowd>, uid: usize, is_member: bool, mut random: Random) {
    loop {
        let busy = crowd.begin().await;
        let client = timeout(LOGIN, Client::log_in(&crowd, uid, is_member, &mut random)).await;
        drop(busy);
        match client {
            Ok(Ok(client)) => client.stay(&mut random).await,
            // There is no gateway, it does not answer, or it ends.
            Ok(Err(_)) | Err(_) => sleep(random.time(100..500)).await,
        }
    }
}

impl<'a> Client<'a> {
    async fn log_in(crowd: &'a Crowd, uid: usize, is_member: bool, random: &mut Random) -> io::Result<Self> {
        let (gateway, place) = crowd.places.any(random).ok_or(io::ErrorKind::NotFound)?;
        let mut link = Link::open(place.websocket).await?;
        let hello = link.text().await?;
        assert!(hello.starts_with("hello v"), "{hello:?}");
        let number = crowd.record.open(uid, gateway);
        let mut client = Self { crowd, link, number };
        client.link.send(Frame::text(format!("login u{uid}"))).await?;
        client.read_until(|text| text.starts_with("welcome ")).await?;
        crowd.record.connection(number, |connection, now| connection.confirmed = Some(now));
        if is_member {
            crowd.record.connection(number, |connection, now| connection.joining = Some(now));
            client.link.send(Frame::text(format!("join {GROUP}"))).await?;
            client.link.send(Frame::text("say joined")).await?;
            client.read_until(|text| text == "joined").await?;
            crowd.record.connection(number, |connection, now| connection.joined = Some(now));
        }
        Ok(client)
    }

    /// Reads messages until this text comes, which is none.
    async fn read_until(&mut self, is_last: impl Fn(&str) -> bool) -> io::Result<()> {
        loop {
            let text = self.link.text().await?;
            if is_last(&text) {
                return Ok(());
            }
            self.crowd.record.received(self.number, &text);
        }
    }

    /// Reads until it is time to leave, or until the connection ends.
    async fn stay(mut self, random: &mut Random) {
        let mut phase = self.crowd.phase.subscribe();
        let leave_at = Instant::now() + random.time(500..20_000);
        let mut current = *phase.borrow_and_update();
        loop {
            let may_leave = matches!(current, Phase::Run(_));
            let event = tokio::select! {
                text = self.link.text() => Some(text),
                () = sleep_until(leave_at), if may_leave => return self.leave(random).await,
                _ = phase.changed() => None,
            };
            match event {
                Some(Ok(text)) if text == "settled" => _ = self.crowd.settled.fetch_add(1, Ordering::SeqCst),
                Some(Ok(text)) => self.crowd.record.received(self.number, &text),
                Some(Err(_)) => return,
                None => {
                    let before = std::mem::replace(&mut current, *phase.borrow_and_update());
                    match (before, current) {
                        // A storm.
                        (Phase::Run(before), Phase::Run(now)) if before != now => return self.leave(random).await,
                        (_, Phase::Settle) if self.link.send(Frame::text("say settled")).await.is_err() => return,
                        _ => {}
                    }
                }
            }
        }
    }

    async fn leave(mut self, random: &mut Random) {
        self.crowd.record.connection(self.number, |connection, now| connection.ended = Some(now));
        match random.below(3) {
            0 => _ = self.link.stream.set_zero_linger(),
            1 => {}
            _ => {
                if self.link.send(Frame::close(1000, "")).await.is_ok() {
                    // What was under way may still arrive.
                    _ = timeout(FAREWELL, self.read_until(|_| false)).await;
                }
            }
        }
    }
}
