//! What others hold of a connection: the way to send to it or close it, and when it was last heard.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::message::ConnectionId;
use crate::hub::outbox::{Closing, Outbox};

/// One connection, from its first byte to its last. The heartbeat forgets it when it is dropped.
#[derive(Debug)]
pub struct Link {
    /// Which connection.
    pub id: ConnectionId,
    /// The way to send to it and to close it.
    pub outbox: Arc<Outbox>,
    /// When the client was last heard, in ms since the process began.
    last_heard: AtomicU64,
    /// The connection's task has read all that there is and waits for more. While it does not, it cannot know whether
    /// the client is silent.
    listening: AtomicBool,
    ping: AtomicBool,
    probe: AtomicBool,
    /// The tick at which the heartbeat looks at it next. Changed under the heartbeat's lock only.
    pub(super) due: AtomicU64,
    watched: Arc<Mutex<Watched>>,
}

/// The links of all connections that are watched.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// The last tick.
    pub(super) tick: u64,
    /// Connections by the ticks at which to look at them.
    pub(super) links: BTreeMap<(u64, ConnectionId), Weak<Link>>,
}

impl Link {
    /// A link heard of just now.
    pub(super) fn new(id: ConnectionId, outbox: Outbox, watched: Arc<Mutex<Watched>>) -> Self {
        Self {
            id,
            outbox: Arc::new(outbox),
            last_heard: AtomicU64::new(now()),
            listening: AtomicBool::new(false),
            ping: AtomicBool::new(false),
            probe: AtomicBool::new(false),
            due: AtomicU64::new(0),
            watched,
        }
    }

    /// Notes that the client was heard.
    pub fn heard(&self) {
        self.last_heard.store(now(), Relaxed);
    }

    /// Notes that an unfinished message has grown by so many bytes: they count as much life as they take at the least
    /// rate, in bytes a second.
    pub fn heard_part(&self, bytes: usize, least_rate: usize) {
        if least_rate == 0 {
            return self.heard();
        }
        let life = (bytes as u64).saturating_mul(1000).div_ceil(least_rate as u64);
        let heard = self.last_heard.load(Relaxed).saturating_add(life);
        self.last_heard.store(heard.min(now()), Relaxed);
    }

    /// Notes whether the connection's task waits for the client.
    pub fn set_listening(&self, listening: bool) {
        self.listening.store(listening, Relaxed);
    }

    /// How long nothing has arrived. `None` while nobody waits for it.
    pub(super) fn silence(&self) -> Option<Duration> {
        let silence = now().saturating_sub(self.last_heard.load(Relaxed));
        self.listening.load(Relaxed).then_some(Duration::from_millis(silence))
    }

    /// Asks the connection's task to send a ping.
    pub(super) fn request_ping(&self) {
        self.ping.store(true, Relaxed);
        self.outbox.notify();
    }

    /// Whether a ping has been asked for and not been sent yet.
    pub fn wants_ping(&self) -> bool {
        self.ping.load(Relaxed)
    }

    /// Whether a ping is to be sent now.
    pub fn take_ping(&self) -> bool {
        self.wants_ping() && self.ping.swap(false, Relaxed)
    }

    /// Asks the connection's task, which does not read, to find out whether the peer is gone.
    pub(super) fn request_probe(&self) {
        self.probe.store(true, Relaxed);
        self.outbox.notify();
    }

    /// Whether to find out now whether the peer is gone.
    pub fn take_probe(&self) -> bool {
        self.probe.load(Relaxed) && self.probe.swap(false, Relaxed)
    }

    /// Runs `future` until it is done, or until the connection is to be closed.
    ///
    /// # Errors
    /// Why it is to be closed.
    pub async fn unless_closing<F: Future>(&self, mut future: Pin<&mut F>) -> Result<F::Output, Closing> {
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            self.outbox.register_waker(cx.waker()).map_or_else(|closing| Poll::Ready(Err(closing)), |_| Poll::Pending)
        })
        .await
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.watched.lock().links.remove(&(self.due.load(Relaxed), self.id));
    }
}

fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}
