//! The handle of a connection: its outbox, and when its client was last heard.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Weak};
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::base::message::ConnectionId;
use crate::base::trace::TRACE;
use crate::hub::outbox::{Close, Outbox};

/// A tenth of a second, in ms.
const TENTH: u64 = 100;

/// The handle of one connection, from its first byte to its last. When it is dropped, the heartbeat forgets the
/// connection.
#[derive(Debug)]
pub struct Link {
    /// The id of the connection.
    pub id: ConnectionId,
    /// Sends to the connection, and closes it.
    pub outbox: Arc<Outbox>,
    /// When the client was last heard, in ms since [`now`] began to count.
    last_heard: AtomicU64,
    /// True while the connection's task has read everything and waits for more. At other times the task cannot know
    /// whether the client is silent.
    listening: AtomicBool,
    /// True if the task must send a ping.
    ping: AtomicBool,
    /// True if the task must check whether the peer is gone.
    probe: AtomicBool,
    /// True once an authenticator has accepted the client.
    authenticated: AtomicBool,
    /// When the connection began, in tenths of a second since [`now`] began to count. So it fits the bytes that are
    /// left beside the flags.
    begun: u32,
    /// The tick of the heartbeat's next check. Changed only under the heartbeat's lock.
    pub(super) due: AtomicU64,
    watched: Arc<Mutex<Watched>>,
}

/// The links of all watched connections.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// The last tick.
    pub(super) tick: u64,
    /// The links, ordered by the tick of their next check.
    pub(super) links: BTreeMap<(u64, ConnectionId), Weak<Link>>,
}

impl Link {
    /// Creates a link whose client was heard just now.
    pub(super) fn new(id: ConnectionId, outbox: Outbox, watched: Arc<Mutex<Watched>>) -> Self {
        Self {
            id,
            outbox: Arc::new(outbox),
            last_heard: AtomicU64::new(now()),
            listening: AtomicBool::new(false),
            ping: AtomicBool::new(false),
            probe: AtomicBool::new(false),
            authenticated: AtomicBool::new(false),
            begun: u32::try_from(now() / TENTH).unwrap_or(u32::MAX),
            due: AtomicU64::new(0),
            watched,
        }
    }

    /// Returns the time since the connection began, to a tenth of a second.
    pub(super) fn age(&self) -> Duration {
        Duration::from_millis(now().saturating_sub(u64::from(self.begun) * TENTH))
    }

    /// Records that an authenticator has accepted the client.
    pub fn set_authenticated(&self) {
        self.authenticated.store(true, Relaxed);
    }

    /// Returns `true` if an authenticator has accepted the client.
    pub(super) fn is_authenticated(&self) -> bool {
        self.authenticated.load(Relaxed)
    }

    /// Records that the client was heard.
    pub fn heard(&self) {
        self.last_heard.store(now(), Relaxed);
    }

    /// Records that an unfinished message has grown by `bytes`. They extend the client's life by the time that they
    /// take at `least_rate`, in bytes a second.
    pub fn heard_part(&self, bytes: usize, least_rate: usize) {
        if least_rate == 0 {
            return self.heard();
        }
        let life = (bytes as u64).saturating_mul(1000).div_ceil(least_rate as u64);
        let heard = self.last_heard.load(Relaxed).saturating_add(life);
        self.last_heard.store(heard.min(now()), Relaxed);
    }

    /// Records whether the connection's task waits for the client.
    pub fn set_listening(&self, listening: bool) {
        self.listening.store(listening, Relaxed);
    }

    /// Returns how long the client has been silent. `None` while the task does not wait for the client.
    pub(super) fn silence(&self) -> Option<Duration> {
        let silence = now().saturating_sub(self.last_heard.load(Relaxed));
        self.listening.load(Relaxed).then_some(Duration::from_millis(silence))
    }

    /// Asks the connection's task to send a ping.
    pub(super) fn request_ping(&self) {
        self.ping.store(true, Relaxed);
        self.outbox.notify();
    }

    /// Returns `true` if a ping was requested and is not sent yet.
    pub fn wants_ping(&self) -> bool {
        self.ping.load(Relaxed)
    }

    /// Takes the request for a ping. Returns `true` if the caller must send one now.
    pub fn take_ping(&self) -> bool {
        self.wants_ping() && self.ping.swap(false, Relaxed)
    }

    /// Asks the connection's task, which does not read now, to check whether the peer is gone.
    pub(super) fn request_probe(&self) {
        self.probe.store(true, Relaxed);
        self.outbox.notify();
    }

    /// Takes the request for a probe. Returns `true` if the caller must check now whether the peer is gone.
    pub fn take_probe(&self) -> bool {
        self.probe.load(Relaxed) && self.probe.swap(false, Relaxed)
    }

    /// Runs `future` until it is done, or until the connection must close.
    ///
    /// # Errors
    /// Why the connection must close.
    pub async fn unless_closing<F: Future>(&self, mut future: Pin<&mut F>) -> Result<F::Output, Close> {
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
        // Here, because a connection also ends when its task is cut off.
        TRACE.forget(self.id);
    }
}

/// Returns a number from 0 to 1 that depends on the connection.
pub(super) fn part_of(id: ConnectionId) -> f64 {
    // Multiplying by the golden ratio spreads neighbours evenly (Knuth, The Art of Computer Programming, 6.4).
    let spread = (id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32;
    f64::from(spread) / f64::from(u32::MAX)
}

/// Returns the time in ms. It counts from a moment before the first call: the clock of a test may have been paused
/// before another test made that call.
fn now() -> u64 {
    const EARLIER: Duration = Duration::from_secs(60);
    static START: LazyLock<Instant> = LazyLock::new(|| {
        let now = std::time::Instant::now();
        now.checked_sub(EARLIER).unwrap_or(now).into()
    });
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}
