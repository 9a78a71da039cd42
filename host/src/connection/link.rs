//! What others hold of a connection: the way to send to it or close it, and when it was last heard.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::message::ConnectionId;
use crate::outbox::{Closing, Outbox};

/// One connection, from its first byte to its last.
#[derive(Debug)]
pub struct Link {
    /// Which connection.
    pub id: ConnectionId,
    /// The way to send to it and to close it.
    pub outbox: Arc<Outbox>,
    /// When a byte last arrived, in ms since the process began.
    last_heard: AtomicU64,
    ping: AtomicBool,
}

impl Link {
    /// A link heard of just now.
    pub fn new(id: ConnectionId, outbox: Outbox) -> Self {
        let outbox = Arc::new(outbox);
        Self { id, outbox, last_heard: AtomicU64::new(now()), ping: AtomicBool::new(false) }
    }

    /// Notes that something arrived.
    pub(super) fn heard(&self) {
        self.last_heard.store(now(), Relaxed);
    }

    /// How long nothing has arrived.
    pub fn silence(&self) -> Duration {
        Duration::from_millis(now().saturating_sub(self.last_heard.load(Relaxed)))
    }

    /// Asks the connection's task to send a ping.
    pub fn request_ping(&self) {
        self.ping.store(true, Relaxed);
        self.outbox.wake();
    }

    /// Whether a ping has been asked for and not been sent yet.
    pub(super) fn wants_ping(&self) -> bool {
        self.ping.load(Relaxed)
    }

    pub(super) fn take_ping(&self) -> bool {
        self.wants_ping() && self.ping.swap(false, Relaxed)
    }

    /// Runs `future` until it is done, or until the connection is to be closed.
    pub(super) async fn unless_closing<F: Future>(&self, mut future: Pin<&mut F>) -> Result<F::Output, Closing> {
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            self.outbox.wait(cx.waker()).map_or_else(|closing| Poll::Ready(Err(closing)), |_| Poll::Pending)
        })
        .await
    }
}

fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}
