//! Measures how fast one client sends (`limits.messages_per_second`, `limits.bytes_per_second`). Past a rate, the
//! gateway reads no more for a while, or closes the connection (`limits.past_rate`).

use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};
use tracing::info;

use super::end::End;
use crate::base::bucket::Bucket;
use crate::base::message::Cause;
use crate::base::metrics::{METRICS, Rate, Reason as _};
use crate::base::throttle::Throttle;
use crate::config::{LimitsConfig, PastRate};
use crate::edge::heartbeat::Link;
use crate::edge::live::LiveConfig;

/// A client may send this time's worth of its rates at once.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Clients that are logged because they send too fast: in a second, and at once.
const LOGGED_PER_SECOND: u32 = 1;
const LOGGED_AT_ONCE: u32 = 5;

/// The rates at which a client may send; 0 for any rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RateLimits {
    messages: usize,
    bytes: usize,
    past: PastRate,
}

impl RateLimits {
    /// Returns the rates in effect. `None` if they are not limited.
    pub(super) fn of(live: &LiveConfig) -> Option<Self> {
        live.limits_rates().then(|| Self::from(&live.load().limits))
    }
}

impl From<&LimitsConfig> for RateLimits {
    fn from(limits: &LimitsConfig) -> Self {
        Self { messages: limits.messages_per_second, bytes: limits.bytes_per_second, past: limits.past_rate }
    }
}

/// What one client has sent lately.
#[derive(Debug)]
pub(super) struct Meter {
    rates: RateLimits,
    messages: Bucket,
    bytes: Bucket,
    /// The end of the pause, while the gateway does not read.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Meter {
    /// Creates the meter of a client that has sent nothing yet.
    pub(super) fn new(rates: RateLimits) -> Self {
        let full = Bucket::full(Instant::now());
        Self { rates, messages: full, bytes: full, pause: None }
    }

    /// Goes on with these rates.
    pub(super) fn set_rates(&mut self, rates: RateLimits) {
        self.rates = rates;
    }

    /// Counts a message.
    pub(super) fn count_message(&mut self) {
        if self.rates.messages > 0 {
            self.messages.take(Instant::now(), 1, self.rates.messages);
        }
    }

    /// Counts bytes that were read.
    pub(super) fn count_bytes(&mut self, bytes: usize) {
        if self.rates.bytes > 0 {
            self.bytes.take(Instant::now(), bytes, self.rates.bytes);
        }
    }

    /// Returns how many bytes to read at once: so few that no pause is longer than [`AT_ONCE`].
    pub(super) fn most_at_once(&self) -> usize {
        match self.rates.bytes {
            0 => usize::MAX,
            rate => rate.saturating_mul(AT_ONCE.as_secs() as usize),
        }
    }

    /// Returns `true` during a pause.
    pub(super) fn is_pausing(&self) -> bool {
        self.pause.is_some()
    }

    /// Ready when the client's next bytes may be read, and its next message taken. A pause counts as if the client was
    /// heard.
    ///
    /// # Errors
    /// Why the connection must close.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>, link: &Link) -> Poll<Result<(), End>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
                link.heard();
            }
            let now = Instant::now();
            let debt = |bucket: &Bucket| bucket.debt(now, AT_ONCE);
            let (rate, wait) = match (debt(&self.messages), debt(&self.bytes)) {
                (Duration::ZERO, Duration::ZERO) => return Poll::Ready(Ok(())),
                (messages, bytes) if messages >= bytes => (Rate::Messages, messages),
                (_, bytes) => (Rate::Bytes, bytes),
            };
            exceeded(link, rate);
            if self.rates.past == PastRate::Close {
                return Poll::Ready(Err(self.end(rate)));
            }
            self.pause = Some(Box::pin(sleep(wait)));
        }
    }

    fn end(&self, rate: Rate) -> End {
        let (most, name) = match rate {
            Rate::Messages => (self.rates.messages, rate.name()),
            Rate::Bytes => (self.rates.bytes, rate.name()),
        };
        End::new(Cause::ProtocolError, 1008, format!("more than {most} {name} a second"))
    }
}

/// Counts and logs a client that sends too fast. Many clients may do so all the time, so only some are logged.
fn exceeded(link: &Link, rate: Rate) {
    static LOGGED: LazyLock<Throttle> = LazyLock::new(|| Throttle::new(LOGGED_PER_SECOND, LOGGED_AT_ONCE));
    METRICS.rates_exceeded.increment(rate);
    if let Some(unlogged) = LOGGED.admit(0) {
        let key = format!("limits.{}_per_second", rate.name());
        info!(connection = link.id.0, key, unlogged, "a client sends too fast (limits.past_rate)");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::socket::Socket;
    use super::super::tests::{BYE, Client, PING, PONG, Pipe, TEXT, beating, frame, text, wire};
    use super::*;
    use crate::base::message::ConnectionId;
    use crate::hub::outbox::{Budget, Outbox};

    const SECOND: Duration = Duration::from_secs(1);

    fn rates(messages: usize, bytes: usize, past: PastRate) -> Option<RateLimits> {
        Some(RateLimits { messages, bytes, past })
    }

    /// A client whose rates are limited, and whose heartbeat closes it after three seconds of silence.
    fn limited(rates: Option<RateLimits>) -> (Client, Socket<Pipe>, Arc<Link>) {
        let outbox = Outbox::new(1 << 20, Arc::new(Budget::new(1 << 20, 1)));
        let link = beating(3 * SECOND).watch(ConnectionId::next(), outbox);
        let (client, wire) = wire(1 << 20, 0, &link);
        let mut socket = Socket::new(wire, link.clone());
        socket.limit(rates);
        (client, socket, link)
    }

    /// Receives these messages. Returns how long each one took.
    async fn receive(socket: &mut Socket<Pipe>, numbers: std::ops::Range<usize>) -> Vec<Duration> {
        let mut waits = Vec::new();
        for number in numbers {
            let begin = Instant::now();
            assert_eq!(socket.receive().await, Ok(text(&number.to_string())));
            waits.push(begin.elapsed());
        }
        waits
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_loses_nothing_keeps_the_order_and_is_no_silence() {
        let (mut client, mut socket, link) = limited(rates(2, 0, PastRate::Pause));
        for number in 0..25 {
            client.send(TEXT, number.to_string().as_bytes()).await;
        }
        let waits = receive(&mut socket, 0..25).await;
        // Twice the rate at once, and one more that goes into debt.
        assert!(waits[..5].iter().all(Duration::is_zero), "{waits:?}");
        let paused = |wait: &Duration| (SECOND / 2..=SECOND / 2 + Duration::from_millis(2)).contains(wait);
        assert!(waits[5..].iter().all(paused), "{waits:?}");
        assert!(link.outbox.is_open());
        // Its silence begins after the pause.
        let begin = Instant::now();
        let end = socket.receive().await.unwrap_err();
        assert_eq!(end.code(), Some(4900));
        assert!(begin.elapsed() >= 3 * SECOND, "{:?}", begin.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_paced_inside_a_message_and_pauses_are_short() {
        let (mut client, mut socket, _link) = limited(rates(0, 1000, PastRate::Pause));
        let begin = Instant::now();
        client.send(TEXT, &[b'x'; 20_000]).await;
        client.send(PING, b"still there?").await;
        assert_eq!(socket.receive().await, Ok(text(&"x".repeat(20_000))));
        let took = begin.elapsed();
        assert!((16 * SECOND..=20 * SECOND).contains(&took), "{took:?}");
        let receiving = tokio::spawn(async move { socket.receive().await });
        assert_eq!(client.frame().await, (PONG, b"still there?".to_vec()));
        assert!(begin.elapsed() <= took + 4 * SECOND, "{:?}", begin.elapsed());
        receiving.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn the_outbox_is_sent_during_a_pause_and_a_close_ends_it_at_once() {
        let (mut client, mut socket, link) = limited(rates(1, 0, PastRate::Pause));
        for number in 0..10 {
            client.send(TEXT, number.to_string().as_bytes()).await;
        }
        receive(&mut socket, 0..3).await;
        let begin = Instant::now();
        let receiving = tokio::spawn(async move {
            let end = socket.receive().await.unwrap_err();
            Box::new(socket).finish(&end, SECOND, SECOND).await;
            end
        });
        link.outbox.push(text("pushed")).unwrap();
        client.expect("pushed").await;
        link.outbox.close(BYE, Cause::Operator);
        client.expect_close(3000).await;
        // Its answer is found behind all the messages that were not read.
        client.close(3000).await;
        client.ended().await;
        drop(client);
        assert_eq!(receiving.await.unwrap().code(), Some(3000));
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn past_a_rate_the_connection_may_be_closed() {
        let pings = frame(PING, b"x").repeat(100);
        for (rates, bytes, reason) in [
            (rates(2, 0, PastRate::Close), frame(TEXT, b"x").repeat(6), "more than 2 messages a second"),
            (rates(0, 300, PastRate::Close), pings, "more than 300 bytes a second"),
        ] {
            let (mut client, mut socket, _link) = limited(rates);
            client.bytes(&bytes).await;
            let end = loop {
                if let Err(end) = socket.receive().await {
                    break end;
                }
            };
            let closed = end.close_reason().unwrap();
            assert_eq!((closed.code, &*closed.reason, end.cause()), (1008, reason, Cause::ProtocolError));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn other_rates_hold_from_the_next_message_on() {
        let (mut client, mut socket, _link) = limited(None);
        for number in 0..300 {
            client.send(TEXT, number.to_string().as_bytes()).await;
        }
        let total = |waits: Vec<Duration>| waits.iter().sum::<Duration>();
        assert_eq!(total(receive(&mut socket, 0..100).await), Duration::ZERO);
        socket.limit(rates(10, 0, PastRate::Pause));
        let slow = total(receive(&mut socket, 100..140).await);
        assert!((19 * SECOND / 10..=2 * SECOND).contains(&slow), "{slow:?}");
        socket.limit(rates(100, 0, PastRate::Pause));
        assert!(total(receive(&mut socket, 140..200).await) < SECOND);
        socket.limit(None);
        assert_eq!(total(receive(&mut socket, 200..300).await), Duration::ZERO);
    }
}
