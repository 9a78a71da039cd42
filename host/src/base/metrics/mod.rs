//! All counters of the gateway. Their names here are used in the admin listener's `/metrics` and in the last line of
//! the log. Counting is one relaxed addition, so that it costs a message nearly nothing.

mod labelled;
mod reasons;

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

pub use self::labelled::{Labelled, Requests};
pub use self::reasons::{Denial, Overflow, PushFailure, PushWay, Rate, Reason, Rejection, SenderRefusal, TlsReload};
use crate::base::histogram::{Edges, Histogram, Times};
use crate::base::message::Cause;
use crate::base::stripe::Sum;

/// A number that only grows.
#[derive(Debug)]
pub struct Counter(Sum);

/// A [`Counter`] for each reason.
#[derive(Debug)]
pub struct By<R>([Counter; MAX_REASONS], PhantomData<R>);

/// The times of something that is done. `FIRST` and `COUNT` are the [`Edges`] that are shown.
#[derive(Debug)]
pub struct Timing<const FIRST: u64, const COUNT: usize>(Histogram);

/// Times from 10 µs to 1 s.
type ShortTiming = Timing<10_240, 12>;
/// Times from 80 µs to 8 s.
type LoginTiming = Timing<81_920, 12>;
/// Times from 10 ms to 6 min.
type LongTiming = Timing<10_485_760, 11>;

/// A [`ShortTiming`] for each reason.
#[derive(Debug)]
pub struct TimingBy<R>([ShortTiming; 2], PhantomData<R>);

/// The most variants that a [`Reason`] has.
const MAX_REASONS: usize = 11;

/// A value that was counted.
#[derive(Debug, Clone, PartialEq)]
pub enum Count {
    /// By a [`Counter`].
    Total(u64),
    /// By a [`By`]: the label, and the count for each reason.
    By(&'static str, Vec<(&'static str, u64)>),
    /// By a [`Labelled`]: the label, and the count for each value.
    Labelled(&'static str, Vec<(Box<str>, u64)>),
    /// By a [`Requests`]: the count for each route and status.
    Requests(Vec<((&'static str, u16), u64)>),
    /// By a [`Timing`].
    Times(Edges, Times),
    /// By a [`TimingBy`]: the label, and the times for each reason.
    TimesBy(&'static str, Edges, Vec<(&'static str, Times)>),
}

impl Counter {
    const fn new() -> Self {
        Self(Sum::new())
    }

    /// Adds 1.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.add(count);
    }

    /// Returns the count.
    pub fn get(&self) -> u64 {
        self.0.get()
    }

    fn count(&self) -> Count {
        Count::Total(self.get())
    }
}

impl<R: Reason> By<R> {
    const fn new() -> Self {
        const { assert!(R::NAMES.len() <= MAX_REASONS) };
        Self([const { Counter::new() }; MAX_REASONS], PhantomData)
    }

    /// Adds 1 for this reason.
    pub fn increment(&self, reason: R) {
        self.0[reason.index()].increment();
    }

    /// Returns the count for all reasons together.
    pub fn total(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }

    /// Iterates over the reasons that have happened, with their counts.
    pub fn happened(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts().filter(|(_, count)| *count > 0)
    }

    fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        R::NAMES.iter().zip(&self.0).map(|(name, counter)| (*name, counter.get()))
    }

    fn count(&self) -> Count {
        Count::By(R::LABEL, self.counts().collect())
    }
}

impl Labelled {
    fn count(&self) -> Count {
        Count::Labelled("authenticator", self.counts())
    }
}

impl Requests {
    fn count(&self) -> Count {
        Count::Requests(self.counts())
    }
}

impl<const FIRST: u64, const COUNT: usize> Timing<FIRST, COUNT> {
    const EDGES: Edges = Edges::new(FIRST, COUNT);

    const fn new() -> Self {
        Self(Histogram::new())
    }

    /// Adds a time.
    pub fn observe(&self, took: Duration) {
        self.0.record(took);
    }

    fn count(&self) -> Count {
        Count::Times(Self::EDGES, self.0.load())
    }
}

impl<R: Reason> TimingBy<R> {
    const fn new() -> Self {
        const { assert!(R::NAMES.len() == 2) };
        Self([const { Timing::new() }; 2], PhantomData)
    }

    /// Adds a time for this reason.
    pub fn observe(&self, reason: R, took: Duration) {
        self.0[reason.index()].observe(took);
    }

    fn count(&self) -> Count {
        let times = R::NAMES.iter().zip(&self.0).map(|(name, timing)| (*name, timing.0.load()));
        Count::TimesBy(R::LABEL, ShortTiming::EDGES, times.collect())
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Total(count) => write!(f, "{count}"),
            Self::Labelled(_, counts) => write!(f, "{}", counts.iter().map(|(_, count)| count).sum::<u64>()),
            Self::Requests(counts) => write!(f, "{}", counts.iter().map(|(_, count)| count).sum::<u64>()),
            Self::Times(_, times) => write!(f, "{}", times.count()),
            Self::TimesBy(_, _, by) => write!(f, "{}", by.iter().map(|(_, times)| times.count()).sum::<u64>()),
            Self::By(_, counts) => write!(f, "{}", counts.iter().map(|(_, count)| count).sum::<u64>()),
        }
    }
}

macro_rules! metrics {
    ($($(#[doc = $meaning:literal])+ $name:ident: $type:ty,)*) => {
        /// All counters.
        #[derive(Debug)]
        pub struct Metrics {
            $($(#[doc = $meaning])+ pub $name: $type,)*
        }

        impl Metrics {
            /// Iterates over all counters, with their names and meanings.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, Count)> {
                [$((stringify!($name), concat!($($meaning),+).trim_start(), self.$name.count()),)*].into_iter()
            }
        }

        /// The counters of this process.
        pub static METRICS: Metrics = Metrics { $($name: <$type>::new(),)* };
    };
}

metrics! {
    /// Connections accepted on the WebSocket port, over TCP and Unix sockets. Those that are refused then count, too.
    connections_accepted: Counter,
    /// Connections refused before the upgrade.
    handshakes_refused: By<Rejection>,
    /// Connections that ended before they were upgraded or refused.
    handshakes_abandoned: Counter,
    /// WebSocket connections that have ended, by the cause of their end.
    connections_ended: By<Cause>,
    /// Clients that an authenticator accepted.
    logins: Labelled,
    /// Clients that were refused. Clients that left by themselves are not counted.
    logins_denied: By<Denial>,
    /// Time from the upgrade until an authenticator has accepted the client and its session is open.
    login_seconds: LoginTiming,
    /// Times that a client sent faster than it may: reading from it paused, or it was closed (`limits.past_rate`).
    rates_exceeded: By<Rate>,
    /// Messages received from authenticated clients.
    messages_received: Counter,
    /// Bytes of these messages.
    received_bytes: Counter,
    /// Messages put into an outbox.
    messages_queued: Counter,
    /// Bytes of the messages that were written to clients, or began to be written.
    sent_bytes: Counter,
    /// Messages refused by an outbox.
    messages_refused: By<Overflow>,
    /// Packets on which the router failed.
    packets_failed: Counter,
    /// Connections closed because the client did not read (`outbox.max_bytes`).
    slow_consumers: Counter,
    /// Connections closed because they had the most queued bytes when all outboxes were full (`outbox.total_bytes`).
    connections_relieved: Counter,
    /// Connections closed because nothing arrived from the client.
    silent_connections: Counter,
    /// Senders refused before their first line: because of `text.allow_from`, `text.trusted_proxies` or
    /// `limits.text_connections`, or because their PROXY header or TLS handshake was wrong or too slow.
    senders_refused: By<SenderRefusal>,
    /// Lines of the text port answered `ok` or with the router's own reply, and messages of the HTTP API answered 200.
    pushes_ok: Counter,
    /// Lines of the text port answered `fail`, and understood messages of the HTTP API answered with an error.
    pushes_failed: By<PushFailure>,
    /// Time to carry out a line of the text port, or a message of the HTTP API that was understood, waiting for other
    /// gateways included.
    push_seconds: TimingBy<PushWay>,
    /// Time from reading a new component until its generation serves.
    plugin_swap_seconds: LongTiming,
    /// Time to compile a component.
    plugin_compile_seconds: LongTiming,
    /// Log lines of plugins that were dropped.
    plugin_log_lines_dropped: Counter,
    /// Log lines that were lost, because standard error was read too slowly or could not be written.
    log_lines_lost: Counter,
    /// Requests to the admin listener that were refused because of their token, Host or Origin.
    admin_refused: Counter,
    /// Requests to the HTTP push API that were answered.
    api_requests: Requests,
    /// Requests to the HTTP push API that were refused because of their token, Host or Origin.
    api_refused: Counter,
    /// TLS handshakes that succeeded, on all listeners.
    tls_handshakes: Counter,
    /// TLS handshakes that began and did not succeed.
    tls_handshakes_failed: Counter,
    /// Changes of certificates, by whether the listener uses the new ones.
    tls_reloads: By<TlsReload>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_number_of_its_own() {
        let by = By::<Denial>::new();
        by.increment(Denial::Closed);
        by.increment(Denial::TooLate);
        by.increment(Denial::TooLate);
        let Count::By("reason", counts) = by.count() else { panic!("{by:?}") };
        assert_eq!(counts.len(), 8);
        assert!(counts.contains(&("too-late", 2)) && counts.contains(&("closed", 1)), "{counts:?}");
        assert_eq!(by.count().to_string(), "3");
        assert_eq!((Cause::Client.name(), Cause::Shutdown.name()), ("client", "shutdown"));
        assert_eq!(Cause::NAMES.len(), Cause::Shutdown as usize + 1);
    }

    #[test]
    fn everything_has_a_meaning_of_one_line() {
        for (name, meaning, _) in METRICS.all() {
            assert!(meaning.ends_with('.') && !meaning.contains('\n'), "{name}: {meaning:?}");
        }
    }
}
