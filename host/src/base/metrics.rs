//! All counters of the gateway. Their names here are used in the admin listener's `/metrics` and in the last line of
//! the log. Counting is one relaxed addition, so that it costs a message nearly nothing.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use crate::base::message::Cause;
use crate::base::stripe::Sum;

/// A number that only grows.
#[derive(Debug)]
pub struct Counter(Sum);

/// A [`Counter`] for each reason.
#[derive(Debug)]
pub struct By<R>([Counter; MAX_REASONS], PhantomData<R>);

/// How often something was done, and the total time that it took.
#[derive(Debug)]
pub struct Timing {
    count: Counter,
    micros: Counter,
}

/// A reason to count by. It is an enumeration, so that the number of counters is fixed in the source.
pub trait Reason: Copy + 'static {
    /// The label's name in `/metrics`.
    const LABEL: &'static str;
    /// The label's values, in the order of the variants.
    const NAMES: &'static [&'static str];

    /// Returns the index of this variant.
    fn index(self) -> usize;

    /// Returns the name of this variant.
    fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }
}

/// The most variants that a [`Reason`] has.
const MAX_REASONS: usize = 11;

/// A value that was counted.
#[derive(Debug, Clone, PartialEq)]
pub enum Count {
    /// By a [`Counter`].
    Total(u64),
    /// By a [`By`]: the label, and the count for each reason.
    By(&'static str, Vec<(&'static str, u64)>),
    /// By a [`Timing`]: how often, and the total time.
    Time(u64, Duration),
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

impl Timing {
    const fn new() -> Self {
        Self { count: Counter::new(), micros: Counter::new() }
    }

    /// Adds one occurrence, and the time that it took.
    pub fn observe(&self, took: Duration) {
        self.count.increment();
        self.micros.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    fn count(&self) -> Count {
        Count::Time(self.count.get(), Duration::from_micros(self.micros.get()))
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Total(count) | Self::Time(count, _) => write!(f, "{count}"),
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
    logins: Counter,
    /// Clients that were refused. Clients that left by themselves are not counted.
    logins_denied: By<Denial>,
    /// Times that a client sent faster than it may: reading from it paused, or it was closed (`limits.past_rate`).
    rates_exceeded: By<Rate>,
    /// Messages received from authenticated clients.
    messages_received: Counter,
    /// Messages put into an outbox.
    messages_queued: Counter,
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
    /// Time from reading a new component until its generation serves.
    plugin_swap_seconds: Timing,
    /// Time to compile a component.
    plugin_compile_seconds: Timing,
    /// Log lines of plugins that were dropped.
    plugin_log_lines_dropped: Counter,
    /// Log lines that were lost, because standard error was read too slowly or could not be written.
    log_lines_lost: Counter,
    /// Requests to the admin listener that were refused because of their token, Host or Origin.
    admin_refused: Counter,
    /// Requests to the HTTP push API that were refused because of their token, Host or Origin.
    api_refused: Counter,
    /// TLS handshakes that succeeded, on all listeners.
    tls_handshakes: Counter,
    /// TLS handshakes that began and did not succeed.
    tls_handshakes_failed: Counter,
    /// Changes of certificates, by whether the listener uses the new ones.
    tls_reloads: By<TlsReload>,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $type:ident by $label:literal { $($(#[$meaning:meta])* $variant:ident = $name:literal,)* })*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type {
            $($(#[$meaning])* $variant,)*
        }

        impl Reason for $type {
            const LABEL: &'static str = $label;
            const NAMES: &'static [&'static str] = &[$($name),*];

            fn index(self) -> usize {
                self as usize
            }
        }
    )* };
}

reasons! {
    /// Why a connection was refused before the upgrade.
    Rejection by "reason" {
        /// `limits.connections`
        Connections = "connections",
        /// `limits.connections_per_address`
        PerAddress = "connections-per-address",
        /// `limits.unauthenticated`
        Unauthenticated = "unauthenticated",
        /// `limits.unauthenticated_share`
        UnauthenticatedShare = "unauthenticated-share",
        /// `limits.tls_handshakes`
        TlsHandshakes = "tls-handshakes",
        /// `limits.accept_rate_per_address`
        Rate = "accept-rate",
        /// `websocket.allowed_origins`
        Origin = "origin",
        /// `websocket.handshake_timeout`
        Timeout = "timeout",
        /// `websocket.proxy_protocol`: the peer is no trusted proxy, or its header is wrong.
        Proxy = "proxy",
        /// The request is no valid upgrade request.
        Request = "request",
        /// The gateway drains.
        Draining = "draining",
    }

    /// What a client sent too fast.
    Rate by "rate" {
        /// `limits.messages_per_second`
        Messages = "messages",
        /// `limits.bytes_per_second`
        Bytes = "bytes",
    }

    /// Why a sender was refused.
    SenderRefusal by "reason" {
        /// `text.allow_from`
        AllowFrom = "allow-from",
        /// `limits.text_connections`
        Connections = "connections",
        /// `text.trusted_proxies`
        Proxy = "proxy",
        /// The header of its proxy or the handshake of TLS was wrong, or took too long.
        Opening = "opening",
    }

    /// Why a client was refused.
    Denial by "reason" {
        /// A plugin denied the client, or closed the connection at once.
        Plugin = "plugin",
        /// No authenticator accepted (4902).
        NotAccepted = "not-accepted",
        /// The client was not authenticated in time (4901).
        TooLate = "too-late",
        /// A plugin failed or had too much to do (1013).
        Failed = "failed",
        /// The uid is already connected (4904).
        Duplicate = "duplicate",
        /// The session that the authenticator granted has already expired (4906).
        Expired = "expired",
        /// The client broke the WebSocket protocol.
        ProtocolError = "protocol-error",
        /// The uid is blocked (4908), or the connection was closed meanwhile: by an operator, because it was silent or
        /// slow, or because the gateway shuts down.
        Closed = "closed",
    }

    /// What came of a change of certificates.
    TlsReload by "outcome" {
        /// New connections get the new certificates.
        Loaded = "loaded",
        /// A file could not be used: the listener keeps its certificates.
        Refused = "refused",
    }

    /// Why an outbox refused a message.
    Overflow by "reason" {
        /// The outbox is full (`outbox.max_bytes`).
        Full = "full",
        /// All outboxes together are full (`outbox.total_bytes`).
        OverBudget = "over-budget",
    }

    /// Why a pushed line was answered `fail`.
    PushFailure by "reason" {
        /// A delivery reached no connection: there was none, or its outbox was full.
        Unreached = "unreached",
        /// The plugin refused the line.
        Refused = "refused",
        /// The plugin failed or had too much to do.
        Failed = "failed",
        /// There was no room for the plugin's reply (`text.total_replies`).
        NoRoom = "no-room",
        /// The line is longer than `text.max_line`.
        TooLong = "too-long",
        /// The line is not UTF-8, or is HTTP.
        Malformed = "malformed",
    }
}

impl Reason for Cause {
    const LABEL: &'static str = "cause";
    const NAMES: &'static [&'static str] = &[
        "client",
        "plugin",
        "unauthenticated",
        "operator",
        "silent",
        "slow",
        "replaced",
        "expired",
        "protocol-error",
        "lost",
        "shutdown",
    ];

    fn index(self) -> usize {
        self as usize
    }
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
